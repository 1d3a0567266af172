// What pages about studies compute: words, scales, places. Pure; tests in web/test/study.test.ts.

import type {
  ArmsComparison,
  CellFact,
  CellValue,
  Difference,
  Forecast,
  Num,
  Parameter,
} from "../types/studies.ts";
import { number } from "./format.ts";

/** States in the order in which people want to hear of them, as they are called to people. */
const ORDER = [
  ["finished", "accepted"],
  ["running", "running"],
  ["starting", "starting"],
  ["silent", "silent"],
  ["failed", "failed"],
  ["refused", "refused"],
  ["diverged", "diverged"],
  ["damaged", "damaged"],
  ["crashed", "crashed"],
  ["interrupted", "interrupted"],
  ["waiting", "waiting for another try"],
  ["held", "held"],
  ["cancelled", "cancelled"],
  ["planned", "not begun"],
] as const;

export const word = (state: string): string =>
  ORDER.find(([name]) => name === state)?.[1] ?? state;

/** The states that there are with their numbers, in that order. */
export function told(counts: Record<string, number>): [state: string, count: number][] {
  const known = ORDER.map(([name]) => name as string);
  const rest = Object.keys(counts).filter((name) => !known.includes(name));
  return [...known, ...rest].flatMap((name) => (counts[name] ? [[name, counts[name]]] : []));
}

/** "80 accepted, 2 running, 134 not begun". */
export function words(counts: Record<string, number>): string {
  return told(counts).map(([state, count]) => `${count} ${word(state)}`).join(", ");
}

/** How states look: one of a few shapes, so that colour is never alone. */
export type Shape = "square" | "dot" | "ring" | "triangle" | "diamond" | "cross" | "bars" | "dash";
export type Tone = "done" | "live" | "open" | "warn" | "bad";
const SHAPES: Record<string, [Shape, Tone]> = {
  finished: ["square", "done"],
  running: ["dot", "live"],
  starting: ["ring", "live"],
  planned: ["ring", "open"],
  silent: ["triangle", "warn"],
  interrupted: ["triangle", "warn"],
  crashed: ["triangle", "bad"],
  waiting: ["triangle", "open"],
  held: ["bars", "warn"],
  cancelled: ["dash", "open"],
  failed: ["diamond", "bad"],
  refused: ["diamond", "bad"],
  damaged: ["diamond", "bad"],
  diverged: ["cross", "bad"],
};
export const shape = (state: string): [Shape, Tone] => SHAPES[state] ?? ["ring", "open"];

/** A path in a square of ten. */
export const PATHS: Record<Shape, string> = {
  square: "M1.5 1.5h7v7h-7z",
  dot: "M5 1a4 4 0 1 0 .01 0z",
  ring: "M5 1.5a3.5 3.5 0 1 0 .01 0z",
  triangle: "M5 1.2 9 8.6H1z",
  diamond: "M5 .6 9.4 5 5 9.4.6 5z",
  cross: "M1.5 1.5l7 7m0-7l-7 7",
  bars: "M3 1.5v7M7 1.5v7",
  dash: "M1.5 5h7",
};

/** A number of the server's, or null for what is not finite. */
export const finite = (value: Num | null | undefined): number | null =>
  typeof value === "number" && Number.isFinite(value) ? value : null;

// ---- when it will be done -----------------------------------------------------------------------

/** "done about 15:32 (15:28 to 15:41)"; with the date when that is not within twelve hours. */
export function doneAbout(eta: Forecast, now: number): string {
  const far = eta.high - now > 12 * 3600;
  const at = (t: number) => {
    const d = new Date(t * 1000);
    const clock = `${two(d.getHours())}:${two(d.getMinutes())}`;
    return far ? `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())} ${clock}` : clock;
  };
  const [middle, low, high] = [eta.at, eta.low, eta.high].map(at);
  return `done about ${middle}${low === high ? "" : ` (${low} to ${high})`}`;
}

const two = (value: number) => String(value).padStart(2, "0");

// ---- the answer ---------------------------------------------------------------------------------

const SIGNED = new Intl.NumberFormat("en-US", {
  minimumFractionDigits: 4,
  maximumFractionDigits: 4,
  signDisplay: "always",
});

/** A difference with its sign: "−0.1200"; small and large ones in powers of ten. */
export function signed(value: Num | null): string {
  const known = finite(value);
  if (known === null) return number(value);
  const size = Math.abs(known);
  if (size !== 0 && (size < 1e-3 || size >= 1e5)) {
    return (known > 0 ? "+" : "−") + size.toExponential(2).replace("e+", "e").replace("-", "−");
  }
  return SIGNED.format(known).replace("-", "−");
}

/** What the comparison came to in a line: never more than its verdicts say. */
export function answer(found: ArmsComparison): string {
  if (found.problem) return "The arms are not compared here.";
  if (!found.differences.length) return "There is one arm, and nothing to compare it with.";
  const judged = found.differences.filter((one) => one.verdict !== null);
  if (!judged.length) return `No verdict yet: ${found.differences[0]!.reason}.`;
  const parts: string[] = [];
  for (const verdict of ["better", "worse", "equivalent", "undecided"] as const) {
    const those = judged.filter((one) => one.verdict === verdict);
    for (const arms of byArm(those, found)) parts.push(`${arms.who} ${arms.is} ${spoken(verdict, found)}${arms.where}`);
  }
  const silent = found.differences.length - judged.length;
  if (silent) parts.push(`${silent} of ${found.differences.length} comparisons have no verdict`);
  return `${parts.join("; ")}.`;
}

function byArm(those: Difference[], found: ArmsComparison): { who: string; is: string; where: string }[] {
  const arms = [...new Set(those.map((one) => one.arm))];
  if (found.points.length < 2) {
    return arms.length ? [{ who: arms.join(", "), is: arms.length > 1 ? "are" : "is", where: "" }] : [];
  }
  return arms.map((arm) => {
    const count = those.filter((one) => one.arm === arm).length;
    const all = found.differences.filter((one) => one.arm === arm).length;
    return { who: arm, is: "is", where: ` at ${count === all ? `all ${all}` : `${count} of ${all}`} points` };
  });
}

function spoken(verdict: string, found: ArmsComparison): string {
  if (verdict === "better" || verdict === "worse") return `${verdict} than ${found.baseline}`;
  return verdict === "equivalent" ? `equivalent to ${found.baseline}` : `undecided against ${found.baseline}`;
}

/** How it is decided, as declared before the first run. */
export function declared(found: {
  metric: string;
  statistic: string;
  better: string;
  kind: string;
  correction: string;
  confidence: number;
  margin: number | null;
  seeds: number[];
}): string {
  const kinds: Record<string, string> = { tests: "paired t tests", exact: "exact sign-flip tests" };
  const tests = kinds[found.kind] ? `, ${kinds[found.kind]} (${found.correction})` : "";
  const margin = found.margin === null ? "no margin" : `margin ±${plain(found.margin)}`;
  const level = plain(Math.round(found.confidence * 1e4) / 100);
  return (
    `Decided by ${found.metric} (${found.statistic}), ${found.better} is better; ` +
    `${level} % t intervals${tests}; ${margin}; seeds ${found.seeds.join(", ")}.`
  );
}

/** "missing in wave: 3, 4; diverged in plain: 2": which seeds are not in a comparison. */
export function absent(one: Difference, baseline: string): string {
  const sides: [string, string, number[]][] = [
    ["missing", one.arm, one.missing_arm],
    ["missing", baseline, one.missing_baseline],
    ["diverged", one.arm, one.diverged_arm],
    ["diverged", baseline, one.diverged_baseline],
  ];
  const parts = sides.flatMap(([what, arm, seeds]) =>
    seeds.length ? [`${what} in ${arm}: ${seeds.join(", ")}`] : [],
  );
  return parts.length ? parts.join("; ") : "no seed is missing";
}

/** The stretch that differences, their intervals, zero and the margin lie in, with some room. */
export function stretch(differences: Difference[], margin: number | null): [number, number] {
  const values = [0, ...(margin === null ? [] : [-margin, margin])];
  for (const one of differences) {
    for (const value of [one.mean, one.low, one.high]) {
      const known = finite(value);
      if (known !== null) values.push(known);
    }
  }
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const room = (high - low || 1) * 0.06;
  return [low - room, high + room];
}

/** Where a value of a stretch is drawn. */
export function place(value: number, [low, high]: [number, number], width: number): number {
  return ((value - low) / (high - low)) * width;
}

// ---- heat maps ----------------------------------------------------------------------------------

// Cividis (Nuñez, Anderton and Renslow 2018): even steps of lightness, the same to all eyes.
const CIVIDIS = [
  [0, 34, 78], [18, 53, 112], [59, 73, 108], [87, 93, 109], [112, 113, 115],
  [138, 134, 120], [165, 156, 116], [195, 179, 105], [225, 204, 85], [254, 232, 56],
] as const;

/** A colour for a part from 0 to 1, and whether dark or light text is read on it. */
export function colour(part: number): { fill: string; text: string } {
  const at = Math.max(0, Math.min(1, part)) * (CIVIDIS.length - 1);
  const from = Math.min(CIVIDIS.length - 2, Math.floor(at));
  const rgb = [0, 1, 2].map((channel) => {
    const [one, two] = [CIVIDIS[from]![channel]!, CIVIDIS[from + 1]![channel]!];
    return Math.round(one + (two - one) * (at - from));
  });
  const [r, g, b] = rgb.map((value) => {
    const part = value / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  }) as [number, number, number];
  const light = 0.2126 * r + 0.7152 * g + 0.0722 * b;
  return { fill: `rgb(${rgb.join(" ")})`, text: light > 0.179 ? "#000000" : "#ffffff" };
}

/** What cells can be laid out by: the parameters, and the arm. */
export type Dimension = { name: string; values: unknown[]; of: (cell: CellFact) => unknown };

export function dimensions(parameters: Parameter[], arms: string[]): Dimension[] {
  const found = parameters.map((one, at) => ({
    name: one.name,
    values: one.values,
    of: (cell: CellFact) => cell.place[at],
  }));
  const arm = { name: "arm", values: arms as unknown[], of: (cell: CellFact) => cell.arm };
  return [...found.filter((one) => one.values.length > 1), ...(arms.length > 1 ? [arm] : [])];
}

export type Tile = { mean: number | null; n: number; cells: number; other: number; missing: number; first: number };

/** The cells of a plan laid out over two dimensions; several cells of one tile are averaged. */
export function tiles(
  cells: CellFact[],
  values: CellValue[],
  x: Dimension,
  y: Dimension,
  only: (cell: CellFact) => boolean,
): (Tile | null)[][] {
  const at = (dimension: Dimension) => new Map(dimension.values.map((value, n) => [same(value), n]));
  const [columns, rows] = [at(x), at(y)];
  const sums: (Tile & { sum: number; told: number } | null)[][] = y.values.map(() => x.values.map(() => null));
  cells.forEach((cell, number) => {
    const [column, row] = [columns.get(same(x.of(cell))), rows.get(same(y.of(cell)))];
    const value = values[number];
    if (column === undefined || row === undefined || !value || !only(cell)) return;
    const tile = (sums[row]![column] ??= {
      mean: null, n: 0, cells: 0, other: 0, missing: 0, first: number, sum: 0, told: 0,
    });
    const mean = finite(value.mean);
    if (mean !== null) {
      tile.sum += mean;
      tile.told++;
      tile.mean = tile.sum / tile.told;
    }
    tile.cells++;
    tile.n += value.n;
    tile.other += value.other;
    tile.missing += value.missing;
  });
  return sums;
}

/** Values that are equal as JSON are equal. */
export const same = (value: unknown): string => JSON.stringify(value) ?? "null";

/** The least and the greatest mean; null where nothing has one. */
export function range(found: (number | null)[]): [number, number] | null {
  const known = found.filter((value) => value !== null);
  return known.length ? [Math.min(...known), Math.max(...known)] : null;
}

/** Where a value lies between two others, from 0 to 1; in the middle when these are one. */
export function part(value: number, [low, high]: [number, number]): number {
  return high > low ? (value - low) / (high - low) : 0.5;
}

// ---- parallel coordinates -----------------------------------------------------------------------

export type Axis = {
  name: string;
  /** Where each cell lies, from 0 (below) to 1; null without a value. */
  at: (number | null)[];
  ticks: { at: number; text: string }[];
};

/** Axes for the dimensions, each value at a place of its own, and one for the metric. */
export function axes(cells: CellFact[], values: CellValue[], by: Dimension[], metric: string): Axis[] {
  const found: Axis[] = by.map((dimension) => {
    const count = dimension.values.length;
    const spot = (n: number) => (count > 1 ? n / (count - 1) : 0.5);
    const where = new Map(dimension.values.map((value, n) => [same(value), spot(n)]));
    const every = Math.ceil(count / 12);
    return {
      name: dimension.name,
      at: cells.map((cell) => where.get(same(dimension.of(cell))) ?? null),
      ticks: dimension.values.flatMap((value, n) =>
        n % every ? [] : [{ at: spot(n), text: plain(value) }],
      ),
    };
  });
  const means = values.map((value) => finite(value.mean));
  const between = range(means);
  found.push({
    name: metric,
    at: means.map((mean) => (mean === null || !between ? null : part(mean, between))),
    ticks: between
      ? [...new Set([0, 0.25, 0.5, 0.75, 1])].map((at) => ({
          at,
          text: number(between[0] + at * (between[1] - between[0]), 4),
        }))
      : [],
  });
  return found;
}

/** Which cells lie within all ranges that were set on axes. */
export function within(axes: Axis[], ranges: Record<string, [number, number]>, count: number): boolean[] {
  return Array.from({ length: count }, (_, cell) =>
    axes.every((axis) => {
      const range = ranges[axis.name];
      const at = axis.at[cell];
      return !range || (at !== null && at !== undefined && at >= range[0] && at <= range[1]);
    }),
  );
}

/** A value of a setting as text. */
export function plain(value: unknown): string {
  if (typeof value === "number") return String(Number(value.toPrecision(9)));
  if (typeof value === "string") return value;
  if (value === null || value === undefined) return "none";
  return JSON.stringify(value);
}

/** A cell as people call it: "wave · lr 0.1 · width 32". */
export function called(cell: CellFact, parameters: Parameter[]): string {
  return [cell.arm, ...parameters.map((one, n) => `${one.name} ${plain(cell.place[n])}`)].join(" · ");
}
