// What a chart is drawn from: the ends of its axes, and what an append leaves of a band.

import assert from "node:assert/strict";
import { test } from "node:test";
import { type Canvas, curves, extent, type Look } from "../src/core/draw.ts";
import type { Curve } from "../src/core/series.ts";

const curve = (low: number[], high: number[], last: number[]): Curve => ({
  facts: {
    run: "p/a", session: 1, role: "run", band: true, smooth: false, points: 0, marks: [], more_marks: 0,
  },
  low: new Float64Array(low),
  high: new Float64Array(high),
  last: new Float64Array(last),
  smooth: new Float64Array(last.length),
});
const look: Look = { colour: "#112233", dash: [], width: 1, dim: false, shown: true };

test("an axis reaches from the least to the greatest, and clips only when told", () => {
  const values = Array.from({ length: 200 }, (_, n) => (n === 100 ? 1000 : n % 10));
  const places = new Float64Array(values.map((_, n) => n));
  const one = curve(values, values, values);
  const all = extent(places, 200, [one], [look], [0, 199], { log: false, clip: false });
  assert.ok(all.high >= 1000);
  const some = extent(places, 200, [one], [look], [0, 199], { log: false, clip: true });
  assert.ok(some.high < 20);
  assert.equal(some.outside, 1);
});

test("a logarithmic axis never begins at what is not positive", () => {
  const one = curve([-1, 0, 3], [-1, 0, 4], [-1, 0, 3.5]);
  const places = new Float64Array([0, 1, 2]);
  const found = extent(places, 3, [one], [look], [0, 2], { log: true, clip: false });
  assert.ok(found.low > 0 && found.low <= 3);
  const none = extent(places, 2, [one], [look], [0, 1], { log: true, clip: false });
  assert.ok(none.low > 0);
});

test("a single stretch shows how far it reaches", () => {
  const drawn: [number, number][] = [];
  const nothing = () => {};
  const canvas = {
    beginPath: nothing, clip: nothing, closePath: nothing, fill: nothing, rect: nothing,
    restore: nothing, save: nothing, setLineDash: nothing, stroke: nothing,
    moveTo: (x: number, y: number) => drawn.push([x, y]),
    lineTo: (x: number, y: number) => drawn.push([x, y]),
    fillStyle: "", globalAlpha: 1, lineJoin: "round", lineWidth: 1, strokeStyle: "",
  } as unknown as Canvas;
  const scales = {
    x: (v: number) => v, y: (v: number) => v, ratio: 1,
    box: { left: 0, top: 0, width: 10, height: 10 },
  };
  curves(canvas, new Float64Array([5]), 1, [curve([1], [9], [4])], [look], scales);
  assert.ok(drawn.some(([, y]) => y === 9) && drawn.some(([, y]) => y === 1));
});
