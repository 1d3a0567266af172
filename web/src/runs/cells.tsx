// What stands in a cell of a table of runs.

import { duration, number, time } from "../core/format.ts";
import { stroke } from "../core/theme.ts";
import type { Cell, Column, Group, TableRow } from "../types/runs.ts";

/** A value as text. Settings are shown as they were written: 1e-5 is not 0.0000. */
export function shown(value: Cell | undefined, column?: Pick<Column, "ask" | "place">): string {
  if (value === null || value === undefined || value === "") return "–";
  if (Array.isArray(value)) return value.map((one) => shown(one as Cell, column)).join(", ");
  if (typeof value === "object") return JSON.stringify(value);
  if (column?.place === "field" && typeof value === "number") {
    if (column.ask === "created") return value ? time(value).slice(0, 16) : "–";
    if (column.ask === "seconds") return duration(value);
  }
  if (typeof value === "boolean") return String(value);
  return column?.place === "config" && typeof value === "number" ? String(value) : number(value);
}

export function isNumeric(value: Cell | undefined): boolean {
  return typeof value === "number" || value === "NaN" || value === "Infinity" || value === "-Infinity";
}

/** A group in a few words: its mean, and in the title what that is of. */
export function GroupCell(props: { group: Group; column: Column }) {
  const found = props.group.numbers[props.column.ask];
  if (!found || props.column.ask === "created") return null;
  const { mean, min, max, n, not_finite: others } = found;
  if (isSetting(props.column)) {
    const [least, most] = [shown(min, props.column), shown(max, props.column)];
    const range = least === most ? least : `${least}…${most}`;
    return <span class="clip" title={range}>{range}</span>;
  }
  const told = n ? `mean of ${n} runs, ${shown(min, props.column)} to ${shown(max, props.column)}` : "";
  const rest = others ? `${others} not finite` : "";
  const text = mean === null ? "NaN" : shown(rounded(mean), props.column);
  return <span title={[told, rest].filter(Boolean).join("; ")}>{text}</span>;
}

/** Of settings no mean is taken: half of two seeds is none. */
const isSetting = (column: Column) => column.place === "config" || column.ask === "seed";
const rounded = (value: number) => Number(value.toPrecision(5));

/** The colour and dashes that a run has in charts, as a short line. */
export function Line(props: { n: number }) {
  const { colour, dash } = stroke(props.n);
  return (
    <svg class="stroke" viewBox="0 0 22 8" width="22" height="8" aria-hidden="true">
      <line x1="1" x2="21" y1="4" y2="4" stroke={colour} stroke-width="2.5" stroke-dasharray={dash.join(" ")} />
    </svg>
  );
}

/** Of each setting that is shown, the value that most of the rows have. */
export function usual(
  rows: Iterable<[number, TableRow]>,
  columns: readonly Column[],
): Map<string, string> {
  const counts = new Map<string, Map<string, number>>();
  const settings = columns.filter((column) => column.place === "config");
  for (const [, row] of rows) {
    for (const { ask } of settings) {
      const text = JSON.stringify(row.values[ask] ?? null);
      const own = counts.get(ask) ?? new Map<string, number>();
      counts.set(ask, own.set(text, (own.get(text) ?? 0) + 1));
    }
  }
  const top = (own: Map<string, number>) => [...own].reduce((a, b) => (b[1] > a[1] ? b : a))[0];
  return new Map([...counts].map(([ask, own]) => [ask, top(own)]));
}
