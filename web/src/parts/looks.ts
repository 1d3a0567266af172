// What a card of a chart is given, and how its curves look and are called.

import type { Look } from "../core/draw.ts";
import { number } from "../core/format.ts";
import type { ChartData } from "../core/series.ts";
import { stroke } from "../core/theme.ts";

export type Settings = {
  x: "step" | "relative" | "time";
  logX: boolean;
  logY: boolean;
  smooth: number;
  clip: boolean;
  tails: boolean;
  group: string | null;
  /** The part of the axis that is asked for; null follows the data. */
  view: [number, number] | null;
  /** What is drawn meanwhile: while fingers move it is ahead of what is asked for. */
  shown: [number, number] | null;
};

export type Reference = { metric: string; value: number; label: string };

export type CardProps = {
  runs: string[];
  metric: string;
  settings: Settings;
  labels?: Record<string, string>;
  hidden?: ReadonlySet<string>;
  references?: Reference[];
  onView: (view: [number, number] | null) => void;
  wide?: boolean;
  onWide?: () => void;
};

export function looksOf(data: ChartData, card: CardProps): Look[] {
  return data.curves.map((_, n) => lookOf(n, data, card));
}

export function lookOf(n: number, data: ChartData, card: CardProps): Look {
  const facts = data.curves[n]!.facts;
  const place = facts.role === "group"
    ? data.curves.filter((c) => c.facts.role === "group").indexOf(data.curves[n]!)
    : Math.max(0, card.runs.indexOf(facts.run));
  return { ...stroke(place), width: 1.6, dim: facts.role === "tail", shown: shownOf(facts, card) };
}

export function shownOf(facts: { role: string; run: string; label?: string }, card: CardProps): boolean {
  return !card.hidden?.has(facts.role === "group" ? (facts.label ?? "") : facts.run);
}

function labelOf(run: string, card: CardProps): string {
  return card.labels?.[run] ?? run;
}

export function labelOfCurve(
  facts: { role: string; run: string; session: number; label?: string; runs?: string[] },
  card: CardProps,
): string {
  if (facts.role === "group") return `${facts.label} (${facts.runs?.length ?? 0} runs)`;
  const name = labelOf(facts.run, card);
  return facts.role === "tail" ? `${name}, left by session ${facts.session}` : name;
}

/** How many stretches with values that are not finite have no mark. */
export function unmarked(data: ChartData): number {
  return data.curves.reduce((count, curve) => count + curve.facts.more_marks, 0);
}

/** Where the sessions of a single run began. */
export function begins(data: ChartData, card: CardProps): { x: number; label: string }[] {
  if (card.runs.length > 1) return [];
  return data.sessions.flatMap(({ zero, sessions }) =>
    sessions.slice(1).flatMap(({ session, step, started }) => {
      const x = card.settings.x === "step" ? step : started === null ? null : started - zero;
      return x === null ? [] : [{ x, label: `session ${session}` }];
    }),
  );
}

export function newestOf(data: ChartData, card: CardProps): number | null {
  if (card.runs.length !== 1 || !data.curves[0]) return null;
  const { last } = data.curves[0];
  for (let row = data.length - 1; row >= 0; row--) if (!Number.isNaN(last[row]!)) return last[row]!;
  return null;
}

/** The chart in a sentence, for those who hear it. */
export function spoken(metric: string, data: ChartData, card: CardProps): string {
  const told = data.curves
    .filter((curve) => curve.facts.role !== "tail" && shownOf(curve.facts, card))
    .slice(0, 5)
    .map((curve) => {
      const values = curve.last.subarray(0, data.length).filter((v) => !Number.isNaN(v));
      const name = labelOfCurve(curve.facts, card);
      if (!values.length) return `${name}: nothing`;
      return `${name}: from ${number(values[0])} to ${number(values[values.length - 1])}`;
    });
  return `${metric} over ${card.settings.x}. ${told.join("; ")}. Arrow keys move the cursor, plus and minus zoom, 0 shows all.`;
}
