// The rows of one question to the table, fetched by windows as they come into view.

import { signal } from "@preact/signals";
import type { Table, TableRow } from "../types/runs.ts";
import { listed } from "./selection.ts";
import { WINDOW, Windows } from "./windows.ts";

const SETTLE_MS = 40; // who scrolls past a window does not want it

export type Question = {
  where: string;
  sort: string;
  project: string;
  group: string;
  columns: readonly string[];
};

/** What is known of the table besides its rows. */
export type Outline = Omit<Table, "rows" | "offset">;

export type Fetch = (address: string, abort: AbortSignal) => Promise<Table>;

export class Rows {
  readonly outline = signal<Outline | null>(null);
  readonly error = signal<string | null>(null);
  /** Counts up whenever rows have come. */
  readonly tick = signal(0);
  private readonly fetch: Fetch;
  private readonly windows = new Windows();
  private readonly asked = new Map<number, AbortController>();
  private question: Question | null = null;
  private seen: readonly number[] = [0];
  private fresh = true; // nothing of this question has come yet
  private later: ReturnType<typeof setTimeout> | undefined;
  private age_ = 0; // counts up when what is there may be out of date

  constructor(fetch: Fetch) {
    this.fetch = fetch;
  }

  /** Another question: the rows of the one before stay until the first answer. */
  ask(question: Question): void {
    if (JSON.stringify(question) === JSON.stringify(this.question)) return;
    this.question = question;
    this.fresh = true;
    this.seen = [0];
    this.stop();
    this.load();
  }

  /** These windows are in view. */
  see(windows: readonly number[]): void {
    if (this.fresh || windows.join() === this.seen.join()) return;
    this.seen = windows.length ? windows : [0];
    for (const [window, abort] of this.asked) if (!this.seen.includes(window)) abort.abort();
    this.windows.trim(this.seen);
    clearTimeout(this.later);
    this.later = setTimeout(() => this.load(), SETTLE_MS);
  }

  /** The runs have changed: what is in view is fetched again, what is not is forgotten. */
  changed(): void {
    this.age_++;
    this.windows.age();
    this.windows.trim(this.seen);
    this.load();
  }

  row(place: number): TableRow | null {
    return this.windows.row(place);
  }

  rows(): IterableIterator<[place: number, row: TableRow]> {
    return this.windows.rows();
  }

  /** How many windows are held. */
  get held(): number {
    return this.windows.count;
  }

  stop(): void {
    clearTimeout(this.later);
    for (const abort of this.asked.values()) abort.abort();
    this.asked.clear();
  }

  private load(): void {
    if (!this.question) return;
    const missing = this.fresh ? this.seen : this.windows.missing(this.seen);
    for (const window of missing) if (!this.asked.has(window)) void this.get(window, this.question);
  }

  private async get(window: number, question: Question): Promise<void> {
    const [abort, age] = [new AbortController(), this.age_];
    this.asked.set(window, abort);
    try {
      const found = await this.fetch(address(question, window), abort.signal);
      if (abort.signal.aborted) return;
      this.take(window, found, age);
    } catch (why) {
      if (!abort.signal.aborted) this.error.value = (why as Error).message;
    } finally {
      if (this.asked.get(window) === abort) this.asked.delete(window);
    }
    if (this.age_ !== age && !abort.signal.aborted) this.load();
  }

  private take(window: number, found: Table, age: number): void {
    if (this.fresh) this.windows.clear();
    this.fresh = false;
    const { rows, offset: _, ...outline } = found;
    this.windows.put(window, rows);
    if (this.age_ !== age) this.windows.age(); // asked before the change, so maybe without it
    this.outline.value = outline;
    this.error.value = null;
    this.tick.value++;
  }
}

export function address(question: Question, window: number): string {
  const asked = new URLSearchParams({ offset: String(window * WINDOW), limit: String(WINDOW) });
  for (const name of ["where", "sort", "project", "group"] as const) {
    if (question[name]) asked.set(name, question[name]);
  }
  if (question.columns.length) asked.set("columns", listed(question.columns));
  return `/api/v1/runs?${asked}`;
}
