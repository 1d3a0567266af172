// What the diagram shows: boxes in boxes, and the lines between those of one container.
//
// A container that is closed is a plain box. One that is open holds the boxes of its modules; of
// more than sixty the rest is one box that says how many it stands for. Pure functions; tests in
// web/test/model.test.ts.

import type { ModelNode, ModelView } from "../types/model.ts";
import type { Plan } from "./arrange.ts";
import { type Open, edgesInside, inside } from "./tree.ts";
import { marks, name, params, title } from "./words.ts";

/** As many boxes a container shows at most. */
export const MOST = 60;

export type Kind = "module" | "more" | "in" | "out";

export type Box = {
  id: string;
  kind: Kind;
  node: ModelNode;
  /** The title, where it is and how large, what is remarkable; as they fit. */
  lines: string[];
  width: number;
  height: number;
  /** Whether something can be shown inside; null where there is nothing. */
  open: boolean | null;
  inside: Box[];
  edges: Line[];
};

export type Line = { from: string; to: string; inferred: boolean };

/** How wide a text is, in the font of a line: 0 the title, else the small one. */
export type Measure = (text: string, line: number) => number;

const [NARROWEST, WIDEST] = [116, 232];
const PADDING = 12;
/** Room for the sign that says that something is inside. */
export const SIGN = 26;
/** From the top of a box: the baselines of its lines. */
export const BASELINES = [19, 36, 52] as const;
const HEIGHTS = [0, 28, 46, 62] as const;
const PORT = 9;

/** The boxes of a model with some of its containers open. */
export function boxes(view: ModelView & { root: ModelNode }, open: Open, measure: Measure): Box {
  const complete = view.seen?.complete ?? false;
  const make = (node: ModelNode): Box => {
    const below = inside(node);
    const box = plain(node, below.length ? open.has(node.path) : null, measure);
    if (!box.open) return box;
    const shown = below.length > MOST ? below.slice(0, MOST - 1) : below;
    box.inside = shown.map(make);
    const left = below.length - shown.length;
    if (left) box.inside.push(small(node, "more", [`and ${left} more`, "see them in the tree"], 150, 45));
    box.edges = linesIn(node, shown, complete);
    for (const port of ["in", "out"] as const) {
      const id = portId(port, node);
      if (box.edges.some((one) => one.from === id || one.to === id)) {
        box.inside.push(small(node, port, [], PORT, PORT));
      }
    }
    return box;
  };
  return make(view.root);
}

function plain(node: ModelNode, open: boolean | null, measure: Measure): Box {
  const sign = open === null ? 0 : SIGN;
  const room = WIDEST - 2 * PADDING;
  const lines = [clipped(title(node), room - sign, (part) => measure(part, 0))];
  // Of a long name a part is enough; how large it is stays.
  const size = ` · ${params(node.total)}`;
  lines.push(clipped(name(node), room - measure(size, 1), (part) => measure(part, 1)) + size);
  const remarkable = marks(node).join(", ");
  if (remarkable) lines.push(clipped(remarkable, room, (part) => measure(part, 2)));
  const widest = Math.max(...lines.map((text, at) => measure(text, at) + (at ? 0 : sign)));
  const width = Math.ceil(Math.max(NARROWEST, widest + 2 * PADDING));
  return { id: node.path, kind: "module", node, lines, width, height: HEIGHTS[lines.length]!, open, inside: [], edges: [] };
}

function small(node: ModelNode, kind: Exclude<Kind, "module">, lines: string[], width: number, height: number): Box {
  return { id: portId(kind, node), kind, node, lines, width, height, open: null, inside: [], edges: [] };
}

// No module's path has a space in front.
const portId = (kind: Kind, node: ModelNode) => ` ${kind} ${node.path}`;

/** As much of a text as fits, with an ellipsis for the rest. */
export function clipped(text: string, room: number, measure: (text: string) => number): string {
  if (measure(text) <= room) return text;
  let [fits, not] = [0, text.length];
  while (not - fits > 1) {
    const middle = (fits + not) >> 1;
    if (measure(`${text.slice(0, middle)}…`) <= room) fits = middle;
    else not = middle;
  }
  return `${text.slice(0, fits).trimEnd()}…`;
}

/** The lines of a container: as they were seen; a plain sequence, inferred, where nothing was. */
function linesIn(node: ModelNode, shown: ModelNode[], complete: boolean): Line[] {
  const edges = edgesInside(node);
  const ids = new Map(inside(node).map((child, at) => [child.name, at < shown.length ? child.path : portId("more", node)]));
  if (!edges.length) return complete ? [] : sequence([...new Set(ids.values())]);
  const found = new Map<string, Line>();
  for (const { source, target, inferred } of edges) {
    const from = source === "" ? portId("in", node) : ids.get(source);
    const to = target === "" ? portId("out", node) : ids.get(target);
    if (from === undefined || to === undefined || (from === to && from.startsWith(" "))) continue;
    const key = JSON.stringify([from, to]);
    found.set(key, { from, to, inferred: inferred && (found.get(key)?.inferred ?? true) });
  }
  return [...found.values()];
}

function sequence(ids: string[]): Line[] {
  return ids.slice(1).map((to, at) => ({ from: ids[at]!, to, inferred: true }));
}

/** What the layout needs of the boxes. */
export function plan(box: Box): Plan {
  const { id, width, height } = box;
  return { id, width, height, inside: box.inside.map(plan), edges: box.edges.map(({ from, to }) => [from, to]) };
}

/** All boxes, each before those inside of it. */
export function flat(box: Box): Box[] {
  return [box, ...box.inside.flatMap(flat)];
}

export type Rect = { x: number; y: number; width: number; height: number };

const TOWARDS: Record<string, [number, number]> = {
  ArrowRight: [1, 0],
  ArrowLeft: [-1, 0],
  ArrowDown: [0, 1],
  ArrowUp: [0, -1],
};

/** Which box an arrow key leads to: the nearest that way, what lies straight ahead first. */
export function neighbour(heads: ReadonlyMap<string, Rect>, at: string, key: string): string | null {
  const [from, way] = [heads.get(at), TOWARDS[key]];
  if (!from || !way) return null;
  let [best, least] = [null as string | null, Infinity];
  for (const [id, to] of heads) {
    if (id === at) continue;
    const ahead = way[0] ? gap(from.x, from.width, to.x, to.width, way[0]) : gap(from.y, from.height, to.y, to.height, way[1]);
    if (ahead === null) continue;
    const aside = way[0] ? apart(from.y, from.height, to.y, to.height) : apart(from.x, from.width, to.x, to.width);
    const cost = ahead + 3 * aside;
    if (cost < least) [best, least] = [id, cost];
  }
  return best;
}

/** How far ahead the second begins after the first; null if its middle is not ahead. */
function gap(a: number, sizeA: number, b: number, sizeB: number, way: number): number | null {
  const ahead = (b + sizeB / 2 - (a + sizeA / 2)) * way;
  if (ahead <= 1) return null;
  return Math.max(0, way > 0 ? b - (a + sizeA) : a - (b + sizeB)) + ahead / 1000;
}

/** How far two stretches are apart; 0 where they overlap. A little for middles that differ. */
function apart(a: number, sizeA: number, b: number, sizeB: number): number {
  const between = Math.max(0, b - (a + sizeA), a - (b + sizeB));
  return between + Math.abs(b + sizeB / 2 - (a + sizeA / 2)) / 1000;
}
