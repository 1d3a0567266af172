import assert from "node:assert/strict";
import { test } from "node:test";
import { Kept, type Plan, arrange } from "../src/model/arrange.ts";
import { MOST, boxes, clipped, flat, neighbour, plan } from "../src/model/boxes.ts";
import { around, index, inside, isTraced, openAtFirst, openOf, openText, rows, shownAs, treeKey } from "../src/model/tree.ts";
import { asText, label, marks, percent } from "../src/model/words.ts";
import type { ModelNode, ModelView } from "../src/types/model.ts";

const measure = (text: string) => text.length * 7;

function node(path: string, kind: string, more: Partial<ModelNode> = {}): ModelNode {
  const name = path.split(".").at(-1)!;
  return { path, name, class: kind, module: `m:${kind}`, own: 0, total: 10, share: 0.1, ...more };
}

function block(path: string): ModelNode {
  const edges = [
    { source: "", target: "up", inferred: false },
    { source: "up", target: "down", inferred: true },
    { source: "down", target: "", inferred: false },
  ];
  return node(path, "Block", { children: [node(`${path}.up`, "Linear"), node(`${path}.down`, "Linear")], edges });
}

/** A model with three blocks alike, folded as the server folds them. */
function folded(): ModelNode {
  const members = [0, 1, 2].map((at) => block(`blocks.${at}`));
  const fold = { ...members[0]!, name: "0–2", folds: 3, paths: members.map(({ path }) => path), members, children: [], edges: [] };
  const edges = [
    { source: "", target: "embed", inferred: false },
    { source: "embed", target: "blocks", inferred: false },
    { source: "blocks", target: "head", inferred: true },
    { source: "head", target: "", inferred: false },
  ];
  return node("", "GPT", {
    name: "",
    total: 100,
    share: 1,
    edges,
    children: [node("embed", "Embedding"), node("blocks", "ModuleList", { children: [fold] }), node("head", "Linear")],
  });
}

function view(root: ModelNode, complete = true): ModelView & { root: ModelNode } {
  const seen = { complete, reason: null, step: 1 };
  return { available: true, reason: "", class: root.class, n_params: 100, trained: 100, sizes: [], seen, problems: {}, root };
}

function wide(count: number, more: Partial<ModelNode> = {}): ModelNode {
  const children = Array.from({ length: count }, (_, at) => node(`m${at}`, "Linear"));
  return node("", "Wide", { name: "", children, ...more });
}

test("the root is open at first, and lists that hold one kind of thing", () => {
  assert.deepEqual([...openAtFirst(folded())], ["", "blocks"]);
  assert.deepEqual([...openAtFirst(wide(3))], [""]);
});

test("inside of a fold is what is inside of its first member", () => {
  const nodes = index(folded());
  assert.deepEqual([...nodes.keys()], ["", "embed", "blocks", "blocks.0", "blocks.0.up", "blocks.0.down", "head"]);
  assert.deepEqual(around(nodes, "blocks.0.up"), ["blocks.0", "blocks", ""]);
});

test("a module within a fold is shown by the first of the fold", () => {
  const root = folded();
  assert.equal(shownAs(root, "blocks.2.down"), "blocks.0.down");
  assert.equal(shownAs(root, "blocks.1"), "blocks.0");
  assert.equal(shownAs(root, "head"), "head");
  assert.equal(shownAs(root, ""), "");
  assert.equal(shownAs(root, "blocks.3"), null);
  assert.equal(shownAs(root, "blocksmith"), null);
});

test("what is open survives the address, the root included", () => {
  for (const paths of [[""], ["", "a.b"], [], ["we,ird", "per%cent", "ü"]]) {
    assert.deepEqual([...openOf(openText(new Set(paths)))], paths);
  }
  assert.deepEqual([...openOf("%zz")], ["%zz"]);
});

test("a closed container is one box, an open one holds its modules and its ports", () => {
  const closed = boxes(view(folded()), new Set([""]), measure);
  assert.deepEqual(flat(closed).map(({ id }) => id), ["", "embed", "blocks", "head", " in ", " out "]);
  assert.equal(flat(closed).find(({ id }) => id === "blocks")!.open, false);
  const open = boxes(view(folded()), new Set(["", "blocks", "blocks.0"]), measure);
  const fold = flat(open).find(({ id }) => id === "blocks.0")!;
  assert.equal(fold.lines[0], "Block ×3");
  assert.deepEqual(fold.edges.map(({ inferred }) => inferred), [false, true, false]);
  assert.deepEqual(fold.inside.map(({ kind }) => kind), ["module", "module", "in", "out"]);
});

test("more than sixty modules are sixty boxes, of which the last says how many it stands for", () => {
  for (const count of [MOST, MOST + 1, MOST + 36]) {
    const box = boxes(view(wide(count), false), new Set([""]), measure);
    assert.equal(box.inside.length, MOST);
    const last = box.inside.at(-1)!;
    assert.equal(last.kind, count > MOST ? "more" : "module");
    if (count > MOST) assert.equal(last.lines[0], `and ${count - MOST + 1} more`);
    const known = new Set(flat(box).map(({ id }) => id));
    for (const { from, to } of box.edges) assert.ok(known.has(from) && known.has(to) && from !== to);
  }
});

test("without a trace there is a plain sequence, inferred; with a whole one that knows no lines, none", () => {
  assert.equal(isTraced(wide(3)), false);
  const box = boxes(view(wide(3), false), new Set([""]), measure);
  assert.deepEqual(box.edges, [
    { from: "m0", to: "m1", inferred: true },
    { from: "m1", to: "m2", inferred: true },
  ]);
  assert.deepEqual(boxes(view(wide(3), true), new Set([""]), measure).edges, []);
});

test("a line that was seen once is not inferred, in either order", () => {
  const both = [
    { source: "m0", target: "m60", inferred: true },
    { source: "m0", target: "m61", inferred: false },
  ];
  for (const edges of [both, [...both].reverse()]) {
    const box = boxes(view(wide(62, { edges })), new Set([""]), measure);
    assert.deepEqual(box.edges, [{ from: "m0", to: " more ", inferred: false }]);
  }
});

test("texts are cut to the room there is, and only then", () => {
  for (let room = 7; room < 120; room += 5) {
    const cut = clipped("attention_norm", room, measure);
    assert.ok(measure(cut) <= room);
    assert.equal(cut === "attention_norm", room >= measure("attention_norm"));
  }
});

/** Every box lies within the one around it, and none over its neighbours. */
function checkPlaces(of: Plan, arranged: ReturnType<typeof arrange>): void {
  const at = new Map(arranged.places);
  const around = at.get(of.id)!;
  of.inside.forEach((child, number) => {
    const a = at.get(child.id)!;
    assert.ok(a.x >= around.x && a.y >= around.y + of.height);
    assert.ok(a.x + a.width <= around.x + around.width + 1e-6 && a.y + a.height <= around.y + around.height + 1e-6);
    for (const other of of.inside.slice(number + 1)) {
      const b = at.get(other.id)!;
      const apart = a.x + a.width <= b.x || b.x + b.width <= a.x || a.y + a.height <= b.y || b.y + b.height <= a.y;
      assert.ok(apart, `${child.id} lies over ${other.id}`);
    }
    checkPlaces(child, arranged);
  });
}

test("boxes lie inside of each other and never over each other, both ways", () => {
  for (const open of [[""], ["", "blocks"], ["", "blocks", "blocks.0"]]) {
    for (const direction of ["down", "right"] as const) {
      const wanted = plan(boxes(view(folded()), new Set(open), measure));
      checkPlaces(wanted, arrange(wanted, direction, new Kept()));
    }
  }
});

test("modules without lines stand in several rows, not in one long one", () => {
  const wanted = plan(boxes(view(wide(25)), new Set([""]), measure));
  const { places } = arrange(wanted, "down", new Kept());
  checkPlaces(wanted, { places, routes: [] });
  assert.ok(new Set(places.slice(1).map(([, { y }]) => y)).size >= 4);
});

test("modules without lines stand below those that have some, whatever their sizes", () => {
  const edges = [{ source: "m0", target: "m1", inferred: false }];
  const root = wide(9, { edges });
  root.children![5]!.class = "AClassWithARatherLongName";
  const wanted = plan(boxes(view(root), new Set([""]), measure));
  for (const direction of ["right", "down"] as const) {
    const arranged = arrange(wanted, direction, new Kept());
    checkPlaces(wanted, arranged);
    const at = new Map(arranged.places);
    const lowest = Math.max(...["m0", "m1"].map((id) => at.get(id)!.y + at.get(id)!.height));
    for (let number = 2; number < 9; number++) assert.ok(at.get(`m${number}`)!.y > lowest);
  }
});

test("opening a container lays out that one and those around it alone; closing it nothing", () => {
  const kept = new Kept();
  const look = (...open: string[]) => arrange(plan(boxes(view(folded()), new Set(open), measure)), "down", kept);
  look("", "blocks");
  assert.equal(kept.made, 2);
  look("", "blocks", "blocks.0");
  assert.equal(kept.made, 5);
  look("", "blocks");
  assert.equal(kept.made, 5);
});

test("a module that is called in a circle, or takes its own result, is laid out", () => {
  const edges = [
    { source: "m0", target: "m1", inferred: false },
    { source: "m1", target: "m0", inferred: false },
    { source: "m1", target: "m1", inferred: false },
  ];
  const wanted = plan(boxes(view(wide(2, { edges })), new Set([""]), measure));
  for (const direction of ["right", "down"] as const) {
    const arranged = arrange(wanted, direction, new Kept());
    checkPlaces(wanted, arranged);
    assert.equal(arranged.routes.length, 3);
    const { x, y, width, height } = new Map(arranged.places).get("")!;
    for (const [px, py] of arranged.routes.flatMap(({ points }) => points)) {
      assert.ok(x <= px && px <= x + width && y <= py && py <= y + height);
    }
  }
});

test("arrow keys go to the nearest box that way, and back", () => {
  const heads = new Map(
    [["a", 0, 0], ["b", 0, 100], ["c", 200, 100], ["far", 0, 300]].map(([id, x, y]) => [id as string, { x: x as number, y: y as number, width: 100, height: 40 }]),
  );
  assert.equal(neighbour(heads, "a", "ArrowDown"), "b");
  assert.equal(neighbour(heads, "b", "ArrowDown"), "far");
  assert.equal(neighbour(heads, "b", "ArrowRight"), "c");
  assert.equal(neighbour(heads, "c", "ArrowLeft"), "b");
  assert.equal(neighbour(heads, "b", "ArrowUp"), "a");
  assert.equal(neighbour(heads, "a", "ArrowUp"), null);
  assert.equal(neighbour(heads, "a", "x"), null);
});

test("by arrow keys every box of a diagram can be reached", () => {
  const box = boxes(view(folded()), new Set(["", "blocks", "blocks.0"]), measure);
  for (const direction of ["down", "right"] as const) {
    const at = new Map(arrange(plan(box), direction, new Kept()).places);
    const shown = flat(box).filter(({ kind }) => kind === "module");
    const heads = new Map(shown.map(({ id, height }) => [id, { ...at.get(id)!, height }]));
    const reached = new Set([""]);
    for (const id of reached) {
      for (const key of ["ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight"]) {
        const next = neighbour(heads, id, key);
        if (next !== null) reached.add(next);
      }
    }
    assert.equal(reached.size, heads.size);
  }
});

test("the tree's keys do what WAI-ARIA says", () => {
  const look = (...open: string[]) => rows(folded(), new Set(open), ({ path }) => path, inside);
  const key = (at: string, pressed: string, ...open: string[]) => treeKey(look(...open), at, pressed, ({ name }) => name);
  assert.deepEqual(look("").map(({ id }) => id), ["", "embed", "blocks", "head"]);
  assert.deepEqual(key("embed", "ArrowDown", ""), { to: "blocks" });
  assert.deepEqual(key("embed", "ArrowUp", ""), { to: "" });
  assert.equal(key("head", "ArrowDown", ""), null);
  assert.deepEqual(key("head", "Home", ""), { to: "" });
  assert.deepEqual(key("", "End", ""), { to: "head" });
  assert.deepEqual(key("blocks", "ArrowRight", ""), { toggle: ["blocks"] });
  assert.deepEqual(key("blocks", "ArrowRight", "", "blocks"), { to: "blocks.0" });
  assert.equal(key("embed", "ArrowRight", ""), null);
  assert.deepEqual(key("blocks.0", "ArrowLeft", "", "blocks"), { to: "blocks" });
  assert.deepEqual(key("blocks", "ArrowLeft", "", "blocks"), { toggle: ["blocks"] });
  assert.equal(key("", "ArrowLeft"), null);
  assert.deepEqual(key("embed", "*", ""), { toggle: ["blocks"] });
  assert.deepEqual(key("", "h", ""), { to: "head" });
  assert.deepEqual(key("head", "E", ""), { to: "embed" });
  assert.equal(key("head", "Tab", ""), null);
  assert.equal(key("gone", "Home", ""), null);
});

test("rows say their level, place and number as a screen reader tells them", () => {
  const row = rows(folded(), new Set(["", "blocks"]), ({ path }) => path, inside).find(({ id }) => id === "blocks.0")!;
  assert.deepEqual([row.level, row.position, row.size, row.parent, row.expanded], [3, 1, 1, "blocks", false]);
});

test("what is remarkable of a module is said in words", () => {
  const tied = { name: "weight", shape: [2, 3], dtype: "float32", numbers: 0, trained: true, tied_to: "embed.weight" };
  const odd = node("head", "Linear", { tensors: [tied], trainable: "none", calls: 3, also: ["x", "y"] });
  assert.deepEqual(marks(odd), ["also x and 1 more", "weight tied to embed.weight", "not trained", "called 3×"]);
  assert.deepEqual(marks(node("a", "Linear", { calls: 0 })), ["not called"]);
  const called = node("a", "ModuleList", { calls: 0, children: [node("a.0", "Linear", { calls: 1 })] });
  assert.deepEqual(marks(called), []);
  assert.deepEqual(marks(node("b", "Linear", { calls: 0, shared_with: "a" })), ["same as a"]);
  assert.match(label(odd), /^head; 10 parameters, 10\.0 % of the model; also x/);
});

test("a share that is not nothing is never told as nothing", () => {
  assert.deepEqual([0, 1e-9, 0.0049, 0.5, 1].map(percent), ["0.0 %", "< 0.1 %", "0.5 %", "50.0 %", "100.0 %"]);
});

test("the text has a line for every module that is shown, folds once", () => {
  const text = asText(view(folded()));
  assert.equal(text.trimEnd().split("\n").length, index(folded()).size);
  assert.match(text, /^GPT · 100 parameters\n├─ embed: Embedding/);
  assert.match(text, /│ {2}└─ 0–2: Block ×3/);
  assert.match(text, /│ {5}└─ down: Linear/);
});
