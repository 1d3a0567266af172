// The tree of modules as it is walked: what is inside of what, which rows are open, where keys go.
//
// A fold of twelve blocks alike is one node; inside of it is what is inside of the first of them.
// Pure functions; tests in web/test/model.test.ts.

import type { ModelEdge, ModelNode } from "../types/model.ts";

export type Open = ReadonlySet<string>;

/** What is shown inside of a node. */
export function inside(node: ModelNode): ModelNode[] {
  return (node.members?.[0] ?? node).children ?? [];
}

/** The edges among what is shown inside of a node. */
export function edgesInside(node: ModelNode): ModelEdge[] {
  return (node.members?.[0] ?? node).edges ?? [];
}

/** Whether anything is known of what is passed from module to module. */
export function isTraced(node: ModelNode): boolean {
  return edgesInside(node).length > 0 || inside(node).some(isTraced);
}

/** Every node that can be shown, by path, with the path of the one around it. */
export function index(root: ModelNode): Map<string, { node: ModelNode; parent: string | null }> {
  const found = new Map<string, { node: ModelNode; parent: string | null }>();
  const add = (node: ModelNode, parent: string | null) => {
    found.set(node.path, { node, parent });
    for (const child of inside(node)) add(child, node.path);
  };
  add(root, null);
  return found;
}

/** Open at first: the model, and lists in it that hold one kind of thing only. */
export function openAtFirst(root: ModelNode): Open {
  const open = new Set([root.path]);
  for (const child of inside(root)) {
    const within = inside(child);
    if (within.length === 1 && (within[0]!.folds ?? 1) > 1) open.add(child.path);
  }
  return open;
}

/** The node that shows a module: itself, or the fold that it is in. Null if there is none. */
export function shownAs(root: ModelNode, path: string): string | null {
  let node = root;
  let wanted = path;
  while (wanted !== node.path) {
    const next = stepTo(node, wanted);
    if (!next) return null;
    wanted = next.child.path + wanted.slice(next.as.length);
    node = next.child;
  }
  return node.path;
}

function stepTo(node: ModelNode, wanted: string): { child: ModelNode; as: string } | null {
  for (const child of inside(node)) {
    for (const as of child.paths?.length ? child.paths : [child.path]) {
      if (wanted === as || wanted.startsWith(`${as}.`)) return { child, as };
    }
  }
  return null;
}

/** All that must be open for a node to be seen. */
export function around(nodes: ReturnType<typeof index>, path: string): string[] {
  const found: string[] = [];
  for (let at = nodes.get(path)?.parent ?? null; at !== null; at = nodes.get(at)?.parent ?? null) found.push(at);
  return found;
}

/** For the address: paths, the model's own (which is empty) as a dot. */
export function openText(open: Open): string {
  return [...open].map((path) => encodeURIComponent(path || ".")).join(",");
}

export function openOf(text: string): Open {
  const paths = text.split(",").filter(Boolean).map(decoded);
  return new Set(paths.map((path) => (path === "." ? "" : path)));
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // an address that somebody has changed by hand
  }
}

/** One row of a tree as WAI-ARIA has them. */
export type Row<T> = {
  id: string;
  item: T;
  level: number;
  parent: string | null;
  expanded: boolean | null;
  position: number;
  size: number;
};

/** The rows that are to be seen, from top to bottom. */
export function rows<T>(root: T, open: Open, idOf: (item: T) => string, within: (item: T) => T[]): Row<T>[] {
  const found: Row<T>[] = [];
  const add = (item: T, level: number, parent: string | null, position: number, size: number) => {
    const [id, below] = [idOf(item), within(item)];
    const expanded = below.length ? open.has(id) : null;
    found.push({ id, item, level, parent, expanded, position, size });
    if (expanded) below.forEach((child, at) => add(child, level + 1, id, at + 1, below.length));
  };
  add(root, 1, null, 1, 1);
  return found;
}

export type Move = { to?: string; toggle?: string[] };

/** What a key does in a tree: where the focus goes, and what opens or closes. Null: nothing. */
export function treeKey<T>(all: Row<T>[], at: string, key: string, nameOf: (item: T) => string): Move | null {
  const number = all.findIndex((row) => row.id === at);
  const row = all[number];
  if (!row) return null;
  const go = (to: Row<T> | undefined): Move | null => (to ? { to: to.id } : null);
  switch (key) {
    case "ArrowDown":
      return go(all[number + 1]);
    case "ArrowUp":
      return go(all[number - 1]);
    case "Home":
      return go(all[0]);
    case "End":
      return go(all.at(-1));
    case "ArrowRight":
      return row.expanded === false ? { toggle: [row.id] } : row.expanded ? go(all[number + 1]) : null;
    case "ArrowLeft":
      return row.expanded ? { toggle: [row.id] } : row.parent === null ? null : { to: row.parent };
    case "*": {
      const closed = all.filter((one) => one.parent === row.parent && one.expanded === false);
      return closed.length ? { toggle: closed.map((one) => one.id) } : null;
    }
  }
  if ([...key].length !== 1 || key === " ") return null;
  const next = [...all.slice(number + 1), ...all.slice(0, number)];
  return go(next.find((one) => nameOf(one.item).toLowerCase().startsWith(key.toLowerCase())));
}
