// A metric over two parameters: a table whose cells are coloured by their number.

import { number } from "../core/format.ts";
import { query, set } from "../core/url.ts";
import { colour, dimensions, part, plain, range, same, type Tile, tiles } from "../core/study.ts";
import type { CellValues, StudyPlan } from "../types/studies.ts";
import { Empty } from "./parts.tsx";

const STEPS = [0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1];

export function GridMap(props: { plan: StudyPlan; found: CellValues }) {
  const { plan, found } = props;
  const arms = Object.keys(plan.arms);
  const known = dimensions(plan.parameters, arms);
  if (known.length < 2) {
    return <Empty text="A map needs two things that vary: two parameters, or one and the arm." />;
  }
  const asked = query.value;
  const named = (name: string | null) => known.find((one) => one.name === name);
  const x = named(asked.get("across")) ?? known[0]!;
  const down = named(asked.get("down"));
  const y = down && down !== x ? down : known.find((one) => one !== x)!;
  const splits = x.name !== "arm" && y.name !== "arm" && arms.length > 1;
  const arm = splits ? (arms.includes(asked.get("arm") ?? "") ? asked.get("arm")! : arms[0]!) : null;
  const grid = tiles(plan.cells, found.cells, x, y, (cell) => arm === null || cell.arm === arm);
  const between = range(grid.flat().map((tile) => tile?.mean ?? null));
  const averaged = Math.max(0, ...grid.flat().map((tile) => tile?.cells ?? 0));
  const names = known.map((one) => one.name);
  return (
    <div class="stack">
      <div class="row" role="toolbar" aria-label="Map">
        <Pick label="Across" name="across" value={x.name} options={names}
          onPick={(name) => set({ across: name, down: name === y.name ? x.name : y.name })} />
        <Pick label="Down" name="down" value={y.name} options={names}
          onPick={(name) => set({ down: name, across: name === x.name ? y.name : x.name })} />
        {arm !== null && (
          <Pick label="Arm" name="arm" value={arm} options={arms} onPick={(name) => set({ arm: name })} />
        )}
      </div>
      <div class="scroll sticky-first">
        <table class="grid-map">
          <caption class="unseen">
            {found.metric} by {x.name} (across) and {y.name} (down)
          </caption>
          <thead>
            <tr>
              <th scope="col">
                {y.name} ↓ {x.name} →
              </th>
              {x.values.map((value) => (
                <th scope="col" key={same(value)}>
                  {plain(value)}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {y.values.map((value, row) => (
              <tr key={same(value)}>
                <th scope="row">{plain(value)}</th>
                {x.values.map((other, column) => (
                  <Spot key={same(other)} tile={grid[row]![column] ?? null} between={between} better={plan.better} />
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {between && <Legend between={between} metric={found.metric} />}
      <p class="soft">
        Means over accepted runs{averaged > 1 ? `, and over up to ${averaged} cells of a tile` : ""}. Runs
        that diverged are in no mean: a tile with ✕ shows only those that did not.
      </p>
    </div>
  );
}

function Spot(props: { tile: Tile | null; between: [number, number] | null; better: string }) {
  const { tile, between, better } = props;
  if (!tile) {
    return (
      <td class="no-data">
        <span class="faint">not planned</span>
      </td>
    );
  }
  const look = tile.mean === null || !between ? null : colour(part(tile.mean, between));
  const best = between && tile.mean === between[better === "lower" ? 0 : 1];
  return (
    <td class={look ? "" : "no-data"} style={look ? { background: look.fill, color: look.text } : {}}>
      <button type="button" class="tile" title="Show its runs"
        onClick={() => set({ tab: null, cell: String(tile.first) }, "push")}>
        <strong>{tile.mean === null ? "no data" : number(tile.mean)}</strong>
        {best && <em>best</em>}
        <small>
          n = {tile.n}
          {tile.missing ? `, ${tile.missing} missing` : ""}
        </small>
        {tile.other > 0 && <small>✕ {tile.other} diverged</small>}
      </button>
    </td>
  );
}

function Legend(props: { between: [number, number]; metric: string }) {
  const [low, high] = props.between;
  return (
    <div class="row map-legend">
      <span>{props.metric}</span>
      <span class="tabular">{number(low)}</span>
      <span class="ramp" role="img" aria-label={`from dark, ${number(low)}, to light, ${number(high)}`}>
        {STEPS.map((at) => (
          <span key={at} style={{ background: colour(at).fill }} />
        ))}
      </span>
      <span class="tabular">{number(high)}</span>
      <span class="hatched" aria-hidden="true" /> <span>no data</span>
    </div>
  );
}

export function Pick(props: {
  label: string;
  name: string;
  value: string;
  options: string[];
  onPick: (value: string) => void;
}) {
  return (
    <label class="row">
      <span class="soft">{props.label}</span>
      <select name={props.name} value={props.value} onChange={(event) => props.onPick(event.currentTarget.value)}>
        {props.options.map((one) => (
          <option key={one} value={one}>
            {one}
          </option>
        ))}
      </select>
    </label>
  );
}
