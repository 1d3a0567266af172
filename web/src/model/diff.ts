// Two models side by side: which rows are shown and what is said of them.
//
// Pure functions; tests in web/test/model-diff.test.ts.

import { grouped } from "../core/format.ts";
import type { Change, DiffNode, ModelDiff, Side, Size } from "../types/model.ts";
import { sizeText } from "./words.ts";

/** The same pair has the same name wherever the page asks for it; no path has a line break. */
export function pairId(node: DiffNode): string {
  return `${node.left?.path ?? "—"}\n${node.right?.path ?? "—"}`;
}

/** What differs, or holds something that does. */
export function differs(node: DiffNode): boolean {
  return node.status !== "same" || (node.within ?? 0) > 0;
}

/** What is inside; with `only`, as far as it differs. A module of one side is shown without what is in it. */
export function pairsInside(node: DiffNode, only: boolean): DiffNode[] {
  const all = node.children ?? [];
  return only ? (isOneSided(node) ? [] : all.filter(differs)) : all;
}

const isOneSided = (node: DiffNode) => node.status === "left" || node.status === "right";

/** Open at first: what leads to a difference, as long as that is not too much to see. */
export function openDifferences(root: DiffNode, most = 40): Set<string> {
  const open = new Set([pairId(root)]);
  const wait = [root];
  let seen = 1;
  for (let node = wait.shift(); node; node = wait.shift()) {
    if (node !== root && !(node.within && seen + (node.children?.length ?? 0) <= most)) continue;
    open.add(pairId(node));
    seen += node.children?.length ?? 0;
    wait.push(...(node.children ?? []));
  }
  return open;
}

const SIGNS = { same: "=", changed: "≠", left: "◂", right: "▸" } as const;
const WORDS = { same: "same", changed: "changed", left: "only left", right: "only right" } as const;

/** "≠ changed", "= same, 3 inside differ": a shape and words. */
export function verdict(node: DiffNode): string {
  const inside = node.within ? `${grouped(node.within)} inside differ${node.within === 1 ? "s" : ""}` : "";
  if (node.status === "same") return inside ? `≈ ${inside}` : `${SIGNS.same} ${WORDS.same}`;
  return `${SIGNS[node.status]} ${WORDS[node.status]}`;
}

/** A module of one side: "blocks Block ×4". */
export function sideText(side: Side, folds: number, paths: string[] = []): string {
  const last = paths.at(-1)?.split(".").at(-1);
  const name = folds > 1 && last !== undefined ? `${side.name}–${last}` : side.name;
  return `${name ? `${name} ` : ""}${side.class}${folds > 1 ? ` ×${folds}` : ""}`;
}

/** All that differs of a pair, for who cannot see the columns: "params 1,024 → 2,048". */
export function changesText(node: DiffNode): string {
  return (node.changes ?? []).map((one) => `${one.what} ${changeText(one)}`).join("; ");
}

/** "1,024 → 2,048"; what is empty is called so. */
export function changeText(change: Change): string {
  return `${value(change, change.left)} → ${value(change, change.right)}`;
}

export function value(change: Change, text: string): string {
  if (change.what === "params") return grouped(Number(text));
  return text || "nothing";
}

/** Two texts in three parts each: what they begin with alike, what differs, what they end with alike. */
export function parts(left: string, right: string): [left: Parts, right: Parts] {
  const [a, b] = [words(left), words(right)];
  let first = 0;
  while (first < Math.min(a.length, b.length) && a[first] === b[first]) first++;
  let last = 0;
  while (last < Math.min(a.length, b.length) - first && a.at(-1 - last) === b.at(-1 - last)) last++;
  const cut = (all: string[]): Parts => [
    all.slice(0, first).join(""),
    all.slice(first, all.length - last).join(""),
    all.slice(all.length - last).join(""),
  ];
  return [cut(a), cut(b)];
}
export type Parts = [before: string, differs: string, after: string];

const words = (text: string) => text.match(/[\p{L}\p{N}_.]+|./gsu) ?? [];

export type SizeRow = { name: string; left: string | null; right: string | null; same: boolean };

/** The main sizes of both, those that differ first. */
export function sizeRows(diff: ModelDiff): SizeRow[] {
  const [left, right] = [told(diff.left), told(diff.right)];
  const names = [...new Set([...left.keys(), ...right.keys()])];
  const found = names.map((name) => {
    const [a, b] = [left.get(name) ?? null, right.get(name) ?? null];
    return { name, left: a, right: b, same: a === b };
  });
  return [...found.filter((row) => !row.same), ...found.filter((row) => row.same)];
}

function told(view: ModelDiff["left"]): Map<string, string> {
  if (!view.available) return new Map();
  return new Map([
    ["model", view.class],
    ["parameters", grouped(view.n_params)],
    ["trained parameters", grouped(view.trained)],
    ...view.sizes.filter(({ name }) => name !== "parameters").map((size: Size): [string, string] => [size.name.replaceAll("_", " "), sizeText(size)]),
  ]);
}
