// Parallel coordinates: a line for each cell over the parameters, the arm and a metric.

import { useSignal } from "@preact/signals";
import { useRef } from "preact/hooks";
import { number } from "../core/format.ts";
import { axes, called, colour, dimensions, finite, part, range, within } from "../core/study.ts";
import { set } from "../core/url.ts";
import type { CellValues, StudyPlan } from "../types/studies.ts";
import { Empty } from "./parts.tsx";

const HEIGHT = 340;
const TOP = 34;
const BOTTOM = 16;
const LEFT = 76;
const MOST = 2000; // lines

export function Parallel(props: { plan: StudyPlan; found: CellValues }) {
  const { plan, found } = props;
  const ranges = useSignal<Record<string, [number, number]>>({});
  const chosen = useSignal<number | null>(null);
  const from = useRef<{ axis: string; at: number } | null>(null);
  const by = dimensions(plan.parameters, Object.keys(plan.arms));
  if (!by.length) return <Empty text="Nothing varies in this study but the seed." />;
  const all = axes(plan.cells, found.cells, by, found.metric);
  const means = found.cells.map((cell) => finite(cell.mean));
  const between = range(means);
  if (!between) return <Empty text={`No accepted run has ${found.metric} yet. Lines appear as runs end.`} />;
  const inside = within(all, ranges.value, plan.cells.length);
  const order = means
    .map((mean, cell) => ({ mean, cell }))
    .filter((one): one is { mean: number; cell: number } => one.mean !== null && inside[one.cell]!)
    .sort((a, b) => (plan.better === "lower" ? a.mean - b.mean : b.mean - a.mean));
  const gap = innerWidth < 700 ? 112 : Math.max(130, Math.min(300, 1100 / (all.length - 1)));
  const width = LEFT * 2 + gap * (all.length - 1);
  const x = (n: number) => LEFT + n * gap;
  const y = (at: number) => HEIGHT - BOTTOM - at * (HEIGHT - TOP - BOTTOM);
  const line = (cell: number) =>
    all.map((axis, n) => (axis.at[cell] == null ? "" : `${n ? "L" : "M"}${x(n)} ${y(axis.at[cell]!)}`)).join("");
  const step = (by: number) => {
    const at = order.findIndex((one) => one.cell === chosen.value);
    const next = order[Math.max(0, Math.min(order.length - 1, at + by))];
    chosen.value = next?.cell ?? null;
  };
  const level = (event: PointerEvent & { currentTarget: SVGElement }) => {
    const box = event.currentTarget.ownerSVGElement!.getBoundingClientRect();
    const at = (HEIGHT - BOTTOM - ((event.clientY - box.top) * HEIGHT) / box.height) / (HEIGHT - TOP - BOTTOM);
    return Math.max(0, Math.min(1, at));
  };
  const ranged = Object.keys(ranges.value).length > 0;
  const about = chosen.value === null ? null : found.cells[chosen.value];
  return (
    <div class="stack">
      <div class="row">
        <p class="grow soft">
          {order.length} of {plan.cells.length} cells. Arrow keys go from the best one on; drag along an
          axis to keep only what lies there.
        </p>
        {ranged && (
          <button type="button" onClick={() => { ranges.value = {}; }}>
            Clear the ranges
          </button>
        )}
      </div>
      <div class="scroll panel">
        <svg class="parallel" viewBox={`0 0 ${width} ${HEIGHT}`} width={width} height={HEIGHT} tabindex={0}
          role="application" aria-label={`Parallel coordinates of ${found.metric}; arrow keys go through ${order.length} cells`}
          onKeyDown={(event) => {
            const by = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
            if (by) {
              event.preventDefault();
              step(by);
            } else if (event.key === "Escape") chosen.value = null;
            else if (event.key === "Enter" && chosen.value !== null) {
              set({ tab: null, cell: String(chosen.value) }, "push");
            }
          }}>
          {plan.cells.map((_, cell) => inside[cell] || means[cell] === null || !ranged ? null : (
            <path key={cell} class="out" d={line(cell)} />
          ))}
          {order.slice(0, MOST).reverse().map(({ cell, mean }) => (
            <g key={cell} class={chosen.value === null ? "" : cell === chosen.value ? "chosen" : "behind"}
              onPointerEnter={() => { chosen.value = cell; }}
              onClick={() => { chosen.value = cell; }}>
              <path class="touch" d={line(cell)} />
              <path class="edge" d={line(cell)} />
              <path class="cell-line" d={line(cell)} style={{ stroke: colour(part(mean, between)).fill }} />
            </g>
          ))}
          {all.map((axis, n) => (
            <g key={axis.name} class="axis">
              <line x1={x(n)} x2={x(n)} y1={y(1)} y2={y(0)} />
              <text class="name" x={x(n)} y="16" text-anchor="middle">
                {axis.name}
              </text>
              {axis.ticks.map((tick) => (
                <text key={tick.text} x={x(n) + 6} y={y(tick.at) + 4}>
                  {tick.text}
                </text>
              ))}
              {ranges.value[axis.name] && (
                <rect class="kept" x={x(n) - 6} width="12" y={y(ranges.value[axis.name]![1])}
                  height={y(ranges.value[axis.name]![0]) - y(ranges.value[axis.name]![1])} />
              )}
              <rect class="handle" x={x(n) - 14} width="28" y={y(1) - 6} height={y(0) - y(1) + 12}
                onPointerDown={(event) => {
                  event.currentTarget.setPointerCapture(event.pointerId);
                  from.current = { axis: axis.name, at: level(event) };
                }}
                onPointerUp={(event) => {
                  const began = from.current;
                  from.current = null;
                  if (!began || began.axis !== axis.name) return;
                  const at = level(event);
                  const next = { ...ranges.value };
                  if (Math.abs(at - began.at) < 0.02) delete next[axis.name];
                  else next[axis.name] = [Math.min(at, began.at), Math.max(at, began.at)];
                  ranges.value = next;
                  chosen.value = null;
                }} />
            </g>
          ))}
        </svg>
      </div>
      <p class="told" role="status">
        {about && chosen.value !== null ? (
          <>
            <strong>{called(plan.cells[chosen.value]!, plan.parameters)}</strong>: {found.metric}{" "}
            {number(about.mean)} (from {number(about.low)} to {number(about.high)}, n = {about.n}
            {about.other ? `, ${about.other} not finite` : ""}
            {about.missing ? `, ${about.missing} missing` : ""}){" "}
            <button type="button" class="plain" onClick={() => set({ tab: null, cell: String(chosen.value) }, "push")}>
              Show its runs
            </button>
          </>
        ) : (
          <span class="soft">Point at a line, tap it, or press an arrow key to see which cell it is.</span>
        )}
      </p>
    </div>
  );
}
