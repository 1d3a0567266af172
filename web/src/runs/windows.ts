// Which rows of a long table are there: windows of 200, of which the nearest few are kept. Pure.

import type { Group, TableRow } from "../types/runs.ts";

export const WINDOW = 200;
export const MOST_WINDOWS = 8;

/** What stands in a line of the table: the head of a group, or a row by its place in the answer. */
export type Line = { group: number; row: null } | { group: number | null; row: number };

/** The lines of a table, of which groups may be closed. */
export class Lines {
  readonly count: number;
  private readonly starts: number[] = []; // the line of each group's head
  private readonly firsts: number[] = []; // its first row
  private readonly matched: number;

  constructor(matched: number, groups: readonly Group[], closed: ReadonlySet<string>) {
    this.matched = matched;
    let line = 0;
    let row = 0;
    for (const group of groups) {
      this.starts.push(line);
      this.firsts.push(row);
      line += 1 + (closed.has(nameOf(group)) ? 0 : group.count);
      row += group.count;
    }
    this.count = groups.length ? line : matched;
  }

  at(line: number): Line | null {
    if (line < 0 || line >= this.count) return null;
    if (!this.starts.length) return { group: null, row: line };
    const group = last(this.starts, line);
    const below = line - this.starts[group]!;
    return below ? { group, row: this.firsts[group]! + below - 1 } : { group, row: null };
  }

  /** The line of a row; null when its group is closed or it is none. */
  of(row: number): number | null {
    if (row < 0 || row >= this.matched) return null;
    if (!this.starts.length) return row;
    const group = last(this.firsts, row);
    const line = this.starts[group]! + 1 + row - this.firsts[group]!;
    return line < (this.starts[group + 1] ?? this.count) ? line : null;
  }
}

/** Under which name a group is remembered as closed; no value has the one of "none". */
export function nameOf(group: Group): string {
  return group.name === null ? "" : `=${group.name}`;
}

/** The place of the last number that is not above one; numbers ascend. */
function last(numbers: readonly number[], most: number): number {
  let [low, high] = [0, numbers.length - 1];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (numbers[middle]! <= most) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** The windows in which some rows lie, in their order. */
export function windowsOf(rows: Iterable<number>): number[] {
  return [...new Set([...rows].map((row) => Math.floor(row / WINDOW)))].sort((a, b) => a - b);
}

/** The rows that were fetched. What is stale is shown until its successor has come. */
export class Windows {
  private readonly held = new Map<number, readonly TableRow[]>();
  private readonly stale = new Set<number>();

  row(place: number): TableRow | null {
    return this.held.get(Math.floor(place / WINDOW))?.[place % WINDOW] ?? null;
  }

  put(window: number, rows: readonly TableRow[]): void {
    this.held.set(window, rows);
    this.stale.delete(window);
  }

  /** Which of the windows that are seen have to be fetched. */
  missing(seen: readonly number[]): number[] {
    return seen.filter((window) => !this.held.has(window) || this.stale.has(window));
  }

  /** Everything may have changed. */
  age(): void {
    for (const window of this.held.keys()) this.stale.add(window);
  }

  /** Forget what is far from what is seen, and what is stale and not seen. */
  trim(seen: readonly number[], most = MOST_WINDOWS): void {
    const near = new Set(seen);
    const middle = seen.length ? (seen[0]! + seen[seen.length - 1]!) / 2 : 0;
    const far = [...this.held.keys()].filter((window) => !near.has(window));
    far.sort((a, b) => Math.abs(b - middle) - Math.abs(a - middle));
    for (const window of far) {
      if (this.held.size > most || this.stale.has(window)) this.drop(window);
    }
  }

  clear(): void {
    this.held.clear();
    this.stale.clear();
  }

  get count(): number {
    return this.held.size;
  }

  *rows(): Generator<[place: number, row: TableRow]> {
    for (const window of [...this.held.keys()].sort((a, b) => a - b)) {
      for (const [at, row] of this.held.get(window)!.entries()) yield [window * WINDOW + at, row];
    }
  }

  private drop(window: number): void {
    this.held.delete(window);
    this.stale.delete(window);
  }
}
