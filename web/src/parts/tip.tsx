// What the cursor on a chart points at, as a small table beside it.

import type { Points } from "../core/connection.ts";
import { duration, number, time } from "../core/format.ts";
import { connection } from "../core/live.ts";
import type { ChartData } from "../core/series.ts";
import { type CardProps, labelOfCurve, lookOf, shownOf } from "./looks.ts";

/** What the cursor points at: at once from the stretch, then exactly from the record. */
export function Tip(props: {
  at: { row: number; left: number };
  data: ChartData;
  points: Points;
  card: CardProps;
  host: HTMLElement | null;
}) {
  const { at, data, points, card } = props;
  const place = data.places()[at.row];
  if (place === undefined) return null;
  const wide = Math.max(data.grid.width, 1e-12);
  const on = (x: number) => (data.grid.log ? Math.log2(x) : x);
  const exact = new Map(
    points.filter((p) => Math.abs(on(p.x) - on(place)) <= wide * 2).map((p) => [p.run, p]),
  );
  const heard = [...exact.values()].filter((p) => shownOf({ role: "run", run: p.run }, card));
  const near = heard.length && heard.every((p) => p.step === heard[0]!.step) ? heard[0] : undefined;
  const marked = (curve: (typeof data.curves)[number]) =>
    curve.facts.marks.some(([row]) => row === at.row);
  const rows = data.curves
    .map((curve, n) => ({ curve, n }))
    .filter(({ curve }) => shownOf(curve.facts, card) && (Number.isFinite(curve.high[at.row]!) || marked(curve)));
  const over = (props.host?.clientWidth ?? 0) / 2;
  return (
    <div class={`tip ${at.left > over ? "left" : "right"}`} role="status">
      <p class="tip-head">
        {near ? `step ${number(near.step)}` : `${card.settings.x} ${number(place)}`}
        {near?.time && heard.length === 1 ? ` · ${time(near.time)}` : ""}
        {near?.elapsed != null && heard.length === 1 ? ` · ${duration(near.elapsed)} in` : ""}
        {["live", "polling"].includes(connection.link.value.state) ? "" : " · of the stretch: there is no line to ask"}
      </p>
      <table>
        <tbody>
          {rows.slice(0, 12).map(({ curve, n }) => {
            const point = curve.facts.role === "run" ? exact.get(curve.facts.run) : undefined;
            const look = lookOf(n, data, card);
            const low = curve.low[at.row]!;
            const high = curve.high[at.row]!;
            return (
              <tr key={n}>
                {(card.runs.length > 1 || curve.facts.role !== "run") && (
                  <td>
                    <Swatch colour={look.colour} dash={look.dash} />
                    <span class="clip tip-name">{labelOfCurve(curve.facts, card)}</span>
                  </td>
                )}
                <td class="number">{number(point ? point.value : curve.last[at.row]!)}</td>
                {!near && heard.length > 1 && (
                  <td class="number faint">{point ? `step ${number(point.step)}` : ""}</td>
                )}
                {curve.facts.smooth && (
                  <td class="number soft" title="smoothed">
                    ~{number(point?.smooth ?? curve.smooth[at.row]!)}
                  </td>
                )}
                <td class="number faint">
                  {low < high ? `${number(low, 4)} … ${number(high, 4)}` : ""}
                </td>
              </tr>
            );
          })}
        </tbody>
      </table>
      {rows.length > 12 && <p class="faint">and {rows.length - 12} more</p>}
    </div>
  );
}

export function Swatch(props: { colour: string; dash: number[] }) {
  return (
    <svg class="swatch" viewBox="0 0 22 8" width="22" height="8" aria-hidden="true">
      <line
        x1="0" y1="4" x2="22" y2="4" stroke={props.colour} stroke-width="2.4"
        stroke-dasharray={props.dash.join(" ") || undefined}
      />
    </svg>
  );
}
