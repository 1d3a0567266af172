// What pages about studies compute: words are true of what the server told, scales are in order.

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  absent,
  answer,
  axes,
  colour,
  declared,
  dimensions,
  doneAbout,
  part,
  place,
  plain,
  range,
  shape,
  signed,
  stretch,
  tiles,
  told,
  within,
  word,
  words,
} from "../src/core/study.ts";
import type { ArmsComparison, CellFact, CellValue, Difference } from "../src/types/studies.ts";

const difference = (more: Partial<Difference>): Difference => ({
  arm: "wave", point: "", n: 3, differences: { 1: -0.1, 2: -0.2, 3: -0.15 }, mean: -0.15,
  low: -0.2, high: -0.1, confidence: 0.95, simultaneous: false, comparisons: 1, sd: 0.05,
  correlation: null, p: 0.01, p_adjusted: null, detectable: null, missing_arm: [],
  missing_baseline: [], diverged_arm: [], diverged_baseline: [], verdict: "better", reason: "",
  ...more,
});

const comparison = (differences: Difference[], more: Partial<ArmsComparison> = {}): ArmsComparison => ({
  study: "p/s", question: "?", metric: "val_loss", statistic: "last", better: "lower",
  kind: "interval", correction: "none", confidence: 0.95, margin: null, baseline: "plain",
  seeds: [1, 2, 3], planned: 6, finished: 6, points: [""], arms: [], differences, unequal: [],
  without: [], problem: "", ...more,
});

const cell = (arm: string, ...values: unknown[]): CellFact => ({ arm, point: "", place: values, runs: [] });
const value = (mean: number | null, more: Partial<CellValue> = {}): CellValue => ({
  n: mean === null ? 0 : 2, mean, low: mean, high: mean, other: 0, missing: 0, ...more,
});

test("runs are told by state in one order, and none is left out", () => {
  assert.equal(words({ planned: 3, finished: 2, running: 1 }), "2 accepted, 1 running, 3 not begun");
  assert.deepEqual(told({ finished: 0, "of a newer cupel": 2 }), [["of a newer cupel", 2]]);
  assert.equal(word("failed"), "failed");
});

test("states that differ in what is to be done differ in shape, not in colour alone", () => {
  const shapes = ["finished", "running", "planned", "held", "failed", "diverged", "interrupted"].map(
    (state) => shape(state)[0],
  );
  assert.equal(new Set(shapes).size, shapes.length);
});

test("the answer says no more than the verdicts", () => {
  assert.equal(answer(comparison([difference({})])), "wave is better than plain.");
  assert.equal(
    answer(comparison([difference({}), difference({ arm: "other" }), difference({ arm: "same", verdict: "equivalent" })])),
    "wave, other are better than plain; same is equivalent to plain.",
  );
  const undecided = difference({ verdict: "undecided" });
  assert.equal(answer(comparison([undecided])), "wave is undecided against plain.");
  const none = difference({ verdict: null, reason: "one pair of runs" });
  assert.equal(answer(comparison([none])), "No verdict yet: one pair of runs.");
  assert.match(answer(comparison([], { problem: "pip install …" })), /not compared/);
});

test("over several points it is counted at how many each verdict holds", () => {
  const points = ["a", "b", "c"];
  const found = comparison(
    [difference({ point: "a" }), difference({ point: "b" }), difference({ point: "c", verdict: null })],
    { points },
  );
  assert.equal(
    answer(found),
    "wave is better than plain at 2 of 3 points; 1 of 3 comparisons have no verdict.",
  );
});

test("what was declared is told whole", () => {
  const one = comparison([], { margin: 0.02, kind: "exact", correction: "holm", confidence: 0.975 });
  assert.equal(
    declared(one),
    "Decided by val_loss (last), lower is better; 97.5 % t intervals, exact sign-flip tests (holm); " +
      "margin ±0.02; seeds 1, 2, 3.",
  );
});

test("seeds that are not in a comparison are named on both sides", () => {
  const one = difference({ missing_arm: [3, 4], diverged_baseline: [2] });
  assert.equal(absent(one, "plain"), "missing in wave: 3, 4; diverged in plain: 2");
  assert.equal(absent(difference({}), "plain"), "no seed is missing");
});

test("an interval plot holds zero, the margin and every interval", () => {
  const found = [difference({}), difference({ mean: 0.5, low: "-Infinity", high: 0.7 })];
  const across = stretch(found, 0.9);
  for (const at of [0, -0.9, 0.9, -0.2, 0.7]) {
    const x = place(at, across, 100);
    assert.ok(x > 0 && x < 100, `${at} is drawn at ${x}`);
  }
  const [low, high] = stretch([], null);
  assert.ok(low < 0 && high > 0);
});

test("differences have their sign, and what is not finite its name", () => {
  assert.equal(signed(-0.12), "−0.1200");
  assert.equal(signed(0.00012), "+1.20e−4");
  assert.equal(signed("NaN"), "NaN");
});

test("values of settings are as people wrote them", () => {
  assert.deepEqual([0.001, 0.1, 32, "cosine", null, true, [1, 2]].map(plain), [
    "0.001", "0.1", "32", "cosine", "none", "true", "[1,2]",
  ]);
});

test("an end within twelve hours is a time, a later one has its date", () => {
  const now = 1_700_000_000;
  assert.match(doneAbout({ at: now + 60, low: now, high: now + 600 }, now), /^done about \d\d:\d\d \(\d\d:\d\d to \d\d:\d\d\)$/);
  assert.match(doneAbout({ at: now + 1e5, low: now, high: now + 2e5 }, now), /^done about \d{4}-\d\d-\d\d /);
});

test("the scale grows in lightness, and its text has the contrast of 4.5", () => {
  const light = (rgb: string) => {
    const [r, g, b] = rgb.match(/\d+/g)!.map((text) => {
      const part = Number(text) / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    }) as [number, number, number];
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  let before = -1;
  for (let at = 0; at <= 1; at += 0.01) {
    const { fill, text } = colour(at);
    const ground = light(fill);
    const ink = text === "#ffffff" ? 1 : 0;
    const contrast = (Math.max(ground, ink) + 0.05) / (Math.min(ground, ink) + 0.05);
    assert.ok(contrast >= 4.5, `${contrast} at ${at}`);
    assert.ok(ground >= before, `darker at ${at}`);
    before = ground;
  }
});

const PARAMETERS = [
  { name: "lr", setting: "train.lr", values: [0.1, 0.2] },
  { name: "width", setting: "model.width", values: [16, 32] },
  { name: "fixed", setting: "x", values: [1] },
];
const CELLS = [
  cell("a", 0.1, 16, 1), cell("a", 0.2, 16, 1), cell("a", 0.1, 32, 1),
  cell("b", 0.1, 16, 1), cell("b", 0.2, 32, 1),
];
const VALUES = [value(1), value(2, { other: 1 }), value(null, { missing: 2 }), value(3), value(5)];

test("what does not vary is nothing to lay out by, and the arm is", () => {
  assert.deepEqual(dimensions(PARAMETERS, ["a", "b"]).map((one) => one.name), ["lr", "width", "arm"]);
  assert.deepEqual(dimensions(PARAMETERS, ["a"]).map((one) => one.name), ["lr", "width"]);
});

test("tiles hold the mean of their cells, and count what has none", () => {
  const [lr, width] = dimensions(PARAMETERS, ["a", "b"]) as [never, never];
  const one = tiles(CELLS, VALUES, lr, width, (found) => found.arm === "a");
  assert.equal(one[0]![0]!.mean, 1);
  assert.equal(one[0]![1]!.other, 1);
  assert.deepEqual([one[1]![0]!.mean, one[1]![0]!.missing], [null, 2]);
  assert.equal(one[1]![1], null);
  const both = tiles(CELLS, VALUES, lr, width, () => true);
  assert.deepEqual([both[0]![0]!.mean, both[0]![0]!.cells, both[0]![0]!.n], [2, 2, 4]);
});

test("every cell has a place on every axis, and none on the metric's where it has no value", () => {
  const found = axes(CELLS, VALUES, dimensions(PARAMETERS, ["a", "b"]), "val_loss");
  assert.deepEqual(found.map((axis) => axis.name), ["lr", "width", "arm", "val_loss"]);
  assert.deepEqual(found[3]!.at, [0, 0.25, null, 0.5, 1]);
  for (const axis of found.slice(0, 3)) assert.ok(axis.at.every((at) => at !== null && at >= 0 && at <= 1));
});

test("ranges on axes keep what lies within all of them", () => {
  const found = axes(CELLS, VALUES, dimensions(PARAMETERS, ["a", "b"]), "val_loss");
  assert.deepEqual(within(found, {}, 5), [true, true, true, true, true]);
  assert.deepEqual(within(found, { lr: [0, 0.4] }, 5), [true, false, true, true, false]);
  assert.deepEqual(within(found, { lr: [0, 0.4], val_loss: [0.4, 1] }, 5), [false, false, false, true, false]);
});

test("one value lies in the middle of its range", () => {
  assert.equal(part(2, range([2, null, 2])!), 0.5);
  assert.equal(range([null]), null);
});
