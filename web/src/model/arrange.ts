// Where boxes and lines go: `arrange`, by dagre, one container at a time from the inside outwards.
//
// A container's layout is kept, so that opening one lays out that one and those around it alone.
// It runs in a worker (layout.ts); tests in web/test/model.test.ts.

import { Graph, layout } from "@dagrejs/dagre";

export type Direction = "down" | "right";

/** A box: its size when closed; when open what is inside, the size being its head's then. */
export type Plan = {
  id: string;
  width: number;
  height: number;
  inside: Plan[];
  edges: [from: string, to: string][];
};

export type Place = { x: number; y: number; width: number; height: number };
export type Route = { from: string; to: string; points: [x: number, y: number][] };
export type Arranged = { places: [id: string, place: Place][]; routes: Route[] };

type Inner = Arranged & { width: number; height: number };

const SIDE = 14;
const BELOW_HEAD = 10;
const GAP = 22;
/** How far the line from a box to itself goes out. */
const LOOP = 16;
const MOST_KEPT = 400;

/** Layouts that were made, by all that they depend on. */
export class Kept {
  made = 0;
  readonly #inner = new Map<string, Inner>();

  inner(children: Plan[], edges: Plan["edges"], direction: Direction): Inner {
    const sizes = children.map(({ id, width, height }) => [id, width, height]);
    const key = JSON.stringify([direction, sizes, edges]);
    const kept = this.#inner.get(key);
    if (kept) return kept;
    const made = lay(children, edges, direction);
    this.made++;
    if (this.#inner.size >= MOST_KEPT) this.#inner.clear();
    this.#inner.set(key, made);
    return made;
  }
}

/** All boxes and lines of a plan, in its own coordinates. */
export function arrange(plan: Plan, direction: Direction, kept: Kept): Arranged {
  const sized = size(plan, direction, kept);
  const found: Arranged = { places: [], routes: [] };
  place(sized, 0, 0, found);
  return found;
}

type Sized = { plan: Plan; width: number; height: number; inside: Sized[]; inner: Inner | null };

function size(plan: Plan, direction: Direction, kept: Kept): Sized {
  if (!plan.inside.length) return { plan, width: plan.width, height: plan.height, inside: [], inner: null };
  const inside = plan.inside.map((child) => size(child, direction, kept));
  const plans = inside.map(({ plan, width, height }) => ({ ...plan, width, height }));
  const inner = kept.inner(plans, plan.edges, direction);
  return {
    plan,
    width: Math.max(plan.width, inner.width + 2 * SIDE),
    height: plan.height + BELOW_HEAD + inner.height + SIDE,
    inside,
    inner,
  };
}

function place(sized: Sized, x: number, y: number, found: Arranged): void {
  const { plan, width, height, inner } = sized;
  found.places.push([plan.id, { x, y, width, height }]);
  if (!inner) return;
  const left = x + (width - inner.width) / 2;
  const top = y + plan.height + BELOW_HEAD;
  const at = new Map(inner.places);
  for (const child of sized.inside) {
    const inside = at.get(child.plan.id)!;
    place(child, left + inside.x, top + inside.y, found);
  }
  for (const { from, to, points } of inner.routes) {
    found.routes.push({ from, to, points: points.map(([px, py]) => [left + px, top + py]) });
  }
}

/** Modules with lines by dagre; below them, in rows, those without. */
function lay(children: Plan[], edges: Plan["edges"], direction: Direction): Inner {
  const tied = new Set(edges.flat());
  const drawn = connected(children.filter(({ id }) => tied.has(id)), edges, direction);
  const loose = children.filter(({ id }) => !tied.has(id));
  const top = drawn.places.length && loose.length ? drawn.height + GAP : 0;
  return framed([...drawn.places, ...inRows(loose, drawn.width, top)], drawn.routes);
}

function connected(children: Plan[], edges: Plan["edges"], direction: Direction): Inner {
  if (!children.length) return { places: [], routes: [], width: 0, height: 0 };
  const graph = new Graph();
  graph.setGraph({ rankdir: direction === "down" ? "TB" : "LR", nodesep: GAP, ranksep: 30, edgesep: 14 });
  const circles = new Set(edges.filter(([from, to]) => from === to).map(([id]) => id));
  for (const { id, width, height } of children) {
    const room = circles.has(id) ? 2 * LOOP : 0;
    const down = direction === "down";
    graph.setNode(id, { width: width + (down ? room : 0), height: height + (down ? 0 : room) });
  }
  for (const [from, to] of edges) if (from !== to) graph.setEdge(from, to, {});
  layout(graph);
  const places = children.map(({ id, width, height }): [string, Place] => {
    const { x, y } = graph.node(id) as { x: number; y: number };
    return [id, { x: x - width / 2, y: y - height / 2, width, height }];
  });
  const at = new Map(places);
  const routes = edges.map(([from, to]): Route => {
    if (from === to) return { from, to, points: loop(at.get(from)!, direction) };
    const { points } = graph.edge(from, to) as { points: { x: number; y: number }[] };
    return { from, to, points: points.map(({ x, y }) => [x, y]) };
  });
  return framed(places, routes);
}

/** From a box to itself: dagre's own would cross the neighbours. */
function loop({ x, y, width, height }: Place, direction: Direction): Route["points"] {
  const [right, bottom] = [x + width, y + height];
  if (direction === "down") {
    const [from, to] = [y + 0.7 * height, y + 0.3 * height];
    return [[right, from], [right + LOOP, from], [right + LOOP, to], [right, to]];
  }
  const [from, to] = [x + 0.65 * width, x + 0.35 * width];
  return [[from, bottom], [from, bottom + LOOP], [to, bottom + LOOP], [to, bottom]];
}

/** In rows as wide as what is above, or about as wide as high. */
function inRows(loose: Plan[], width: number, top: number): Inner["places"] {
  const area = loose.reduce((sum, one) => sum + (one.width + GAP) * (one.height + GAP), 0);
  const widest = Math.max(width, 1.3 * Math.sqrt(area));
  let [x, y, high] = [0, top, 0];
  return loose.map((one) => {
    if (x && x + one.width > widest) [x, y, high] = [0, y + high + GAP, 0];
    const place = { x, y, width: one.width, height: one.height };
    x += one.width + GAP;
    high = Math.max(high, one.height);
    return [one.id, place];
  });
}

/** Moved so that all of it begins at 0, 0. */
function framed(places: Inner["places"], routes: Route[]): Inner {
  const spots = [
    ...places.flatMap(([, p]) => [[p.x, p.y], [p.x + p.width, p.y + p.height]] as const),
    ...routes.flatMap(({ points }) => points),
  ];
  const [xs, ys] = [spots.map(([x]) => x), spots.map(([, y]) => y)];
  const [left, top] = [Math.min(...xs), Math.min(...ys)];
  return {
    places: places.map(([id, p]) => [id, { ...p, x: p.x - left, y: p.y - top }]),
    routes: routes.map((one) => ({ ...one, points: one.points.map(([x, y]) => [x - left, y - top]) })),
    width: Math.max(...xs) - left,
    height: Math.max(...ys) - top,
  };
}
