import assert from "node:assert/strict";
import { test } from "node:test";
import { changesText, differs, openDifferences, pairId, pairsInside, parts, sideText, sizeRows, verdict } from "../src/model/diff.ts";
import type { DiffNode, ModelDiff, ModelView, PairStatus } from "../src/types/model.ts";

function pair(path: string, status: PairStatus = "same", more: Partial<DiffNode> = {}): DiffNode {
  const side = { path, name: path.split(".").at(-1)!, class: "Linear", params: 4 };
  return { status, left: status === "right" ? null : side, right: status === "left" ? null : side, ...more };
}

const inner = pair("a.x", "changed", { changes: [{ what: "params", left: "1024", right: "2048" }] });
const root = pair("", "changed", { within: 3, children: [pair("a", "same", { within: 1, children: [inner, pair("a.y")] }), pair("b", "left"), pair("c", "right"), pair("d")] });

test("what differs is open at first, what is the same is not", () => {
  const open = openDifferences(root);
  assert.deepEqual([...open], [pairId(root), pairId(root.children![0]!)]);
  assert.equal(openDifferences(root, 0).size, 1);
});

test("only what differs leaves out nothing that does", () => {
  assert.deepEqual(pairsInside(root, true).map(pairId), root.children!.slice(0, 3).map(pairId));
  assert.equal(pairsInside(root, false).length, 4);
  assert.deepEqual(pairsInside(root.children![0]!, true), [inner]);
});

test("pairs, and modules of one side, have names of their own", () => {
  const all = [root, ...root.children!, ...root.children![0]!.children!];
  assert.equal(new Set(all.map(pairId)).size, all.length);
});

test("every verdict has a shape and words", () => {
  const told = [...root.children!, inner].map(verdict);
  assert.deepEqual(told, ["≈ 1 inside differs", "◂ only left", "▸ only right", "= same", "≠ changed"]);
  assert.equal(differs(root.children![3]!), false);
});

test("a row says to who cannot see it what differs, with both values", () => {
  assert.equal(changesText(inner), "params 1,024 → 2,048");
  const settings = { what: "settings" as const, left: "", right: "p=0.1" };
  assert.equal(changesText(pair("x", "changed", { changes: [settings, ...inner.changes!] })), "settings nothing → p=0.1; params 1,024 → 2,048");
  assert.equal(changesText(root.children![2]!), "");
});

test("folds are named from first to last", () => {
  const side = { path: "blocks.4", name: "4", class: "Block", params: 1 };
  assert.equal(sideText(side, 8, ["blocks.4", "blocks.11"]), "4–11 Block ×8");
  assert.equal(sideText(side, 1, ["blocks.4"]), "4 Block");
});

test("of two texts the part that differs is found, and nothing is lost", () => {
  const pairs = [["weight 3×4 float32", "weight 3×8 float32"], ["a", ""], ["same", "same"], ["p=0.1, x", "p=0.25, x"], ["aaa", "aa"]];
  for (const [left, right] of pairs) {
    const [a, b] = parts(left!, right!);
    assert.equal(a.join(""), left);
    assert.equal(b.join(""), right);
    assert.deepEqual([a[0], a[2]], [b[0], b[2]]);
  }
  assert.deepEqual(parts("weight 3×4 float32", "weight 3×8 float32")[0], ["weight 3×", "4", " float32"]);
  assert.deepEqual(parts("same", "same")[0][1], "");
});

test("sizes that differ come first, and one that only one side has is among them", () => {
  const view = (layers: number, more: ModelView["sizes"] = []): ModelView => ({
    available: true, reason: "", class: "GPT", n_params: 10, trained: 10, seen: null, problems: {}, root: null,
    sizes: [{ name: "heads", value: 4, source: "s" }, { name: "layers", value: layers, source: "s" }, ...more],
  });
  const diff: ModelDiff = {
    available: true, reason: "", same: false, root: null,
    left: view(4), right: view(12, [{ name: "stages", value: [8, 16], source: "s" }]),
  };
  const found = sizeRows(diff);
  assert.deepEqual(found.filter(({ same }) => !same).map(({ name, left, right }) => [name, left, right]), [["layers", "4", "12"], ["stages", null, "8, 16"]]);
  assert.deepEqual(found.map(({ same }) => same), [false, false, true, true, true, true]);
});
