// A chart without its drawing part: a table of what was last, and a line each as plain SVG, live.

import { number } from "../core/format.ts";
import type { ChartData } from "../core/series.ts";

const WIDTH = 160;
const HEIGHT = 28;

export function Sparks(props: { data: ChartData; why: string; label: (run: string) => string }) {
  const { data } = props;
  return (
    <div class="sparks">
      <p class="faint" role="status">
        Charts are not available ({props.why}); the numbers are.
      </p>
      <table class="plain-table">
        <thead>
          <tr>
            <th scope="col">run</th>
            <th scope="col">curve</th>
            <th scope="col" class="number">last</th>
            <th scope="col" class="number">least</th>
            <th scope="col" class="number">greatest</th>
          </tr>
        </thead>
        <tbody>
          {data.curves.map((curve, n) => {
            const last = finite(curve.last, data.length);
            const low = finite(curve.low, data.length);
            const high = finite(curve.high, data.length);
            return (
              <tr key={n}>
                <td class="clip">{curve.facts.label ?? props.label(curve.facts.run)}</td>
                <td>
                  <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} width={WIDTH} height={HEIGHT} aria-hidden="true">
                    <path d={path(curve.last, data)} fill="none" stroke="currentColor" stroke-width="1.3" />
                  </svg>
                </td>
                <td class="number" data-last>{number(last[last.length - 1])}</td>
                <td class="number">{number(least(low))}</td>
                <td class="number">{number(greatest(high))}</td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}

function finite(values: Float64Array, length: number): Float64Array {
  return values.subarray(0, length).filter((value) => Number.isFinite(value));
}

const least = (values: Float64Array) => (values.length ? values.reduce((a, b) => Math.min(a, b)) : null);
const greatest = (values: Float64Array) => (values.length ? values.reduce((a, b) => Math.max(a, b)) : null);

/** A line through all finite values, in the box of the sparkline. */
export function path(values: Float64Array, data: { length: number; rows: Int32Array }): string {
  const some = finite(values, data.length);
  if (!some.length) return "";
  const [low, high] = [least(some)!, greatest(some)!];
  const span = data.rows[data.length - 1]! || 1;
  let text = "";
  for (let row = 0; row < data.length; row++) {
    const value = values[row]!;
    if (!Number.isFinite(value)) continue;
    const x = (data.rows[row]! / span) * WIDTH;
    const y = HEIGHT - 2 - ((value - low) / (high - low || 1)) * (HEIGHT - 4);
    text += `${text ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
  }
  return text;
}
