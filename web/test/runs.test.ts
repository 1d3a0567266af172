// The logic of the table of runs: windows and their memory, lines of groups, selection, completions.

import assert from "node:assert/strict";
import { test } from "node:test";
import { called } from "../src/runs/called.ts";
import { type Question, Rows, address } from "../src/runs/rows.ts";
import { MOST_SELECTED, extended, listed, nextSort, toggled, unlisted } from "../src/runs/selection.ts";
import { Lines, MOST_WINDOWS, WINDOW, Windows, nameOf, windowsOf } from "../src/runs/windows.ts";
import { asSearch, complete, quoted } from "../src/runs/words.ts";
import type { Column, Group, Table, TableRow } from "../src/types/runs.ts";

const row = (key: string): TableRow => ({
  key, id: key, project: "p", name: null, status: "finished", created: 0, step: null, sessions: 1,
  seconds: 0, tags: [], notes: null, study: null, arm: null, seed: null, problem: null, values: {},
});
const group = (name: string | null, count: number): Group => ({ name, count, by_status: {}, numbers: {} });
const column = (ask: string, more: Partial<Column> = {}): Column => ({
  name: ask, place: "summary", ask, kind: "number", runs: 3, distinct: 3, examples: [], ...more,
});
const QUESTION: Question = { where: "", sort: "", project: "", group: "", columns: [] };

test("every line of a grouped table is a head or the row that comes next", () => {
  let seed = 7;
  const random = (most: number) => (seed = (seed * 48271) % 2147483647) % most;
  for (let round = 0; round < 200; round++) {
    const groups = Array.from({ length: random(6) }, (_, at) => group(at ? `g${at}` : null, 1 + random(5)));
    const closed = new Set(groups.filter(() => random(3) === 0).map(nameOf));
    const matched = groups.length ? groups.reduce((sum, one) => sum + one.count, 0) : random(9);
    const expected: { group: number | null; row: number | null }[] = [];
    let next = 0;
    for (const [at, one] of groups.entries()) {
      expected.push({ group: at, row: null });
      for (let n = 0; n < one.count; n++, next++) {
        if (!closed.has(nameOf(one))) expected.push({ group: at, row: next });
      }
    }
    if (!groups.length) for (; next < matched; next++) expected.push({ group: null, row: next });
    const lines = new Lines(matched, groups, closed);
    assert.equal(lines.count, expected.length);
    assert.deepEqual(expected.map((_, at) => lines.at(at)), expected);
    assert.equal(lines.at(lines.count), null);
    assert.equal(lines.at(-1), null);
    for (let place = -1; place <= matched; place++) {
      const at = expected.findIndex((line) => line.row === place && place >= 0);
      assert.equal(lines.of(place), at < 0 ? null : at, `row ${place} of ${JSON.stringify(groups)}`);
    }
  }
});

test("a group of runs without a value is not the one whose value is empty or says none", () => {
  assert.equal(new Set([null, "", "none", "="].map((name) => nameOf(group(name, 1)))).size, 4);
});

test("rows lie in windows", () => {
  assert.deepEqual(windowsOf([0, WINDOW - 1, WINDOW, 5 * WINDOW + 3]), [0, 1, 5]);
  assert.deepEqual(windowsOf([]), []);
});

test("few windows are kept whatever is scrolled over, and those in view always", () => {
  const windows = new Windows();
  for (let at = 0; at < 50; at++) {
    windows.put(at, [row(`r${at}`)]);
    windows.trim([at, at + 1]);
    assert.ok(windows.count <= MOST_WINDOWS);
    assert.equal(windows.row(at * WINDOW)?.key, `r${at}`);
  }
  assert.equal(windows.row(0), null);
  assert.equal(windows.row(49 * WINDOW + 1), null);
});

test("what is stale is shown until its successor has come, and forgotten out of view", () => {
  const windows = new Windows();
  windows.put(0, [row("a")]);
  windows.put(1, [row("b")]);
  assert.deepEqual(windows.missing([0, 1, 2]), [2]);
  windows.age();
  assert.deepEqual(windows.missing([0, 1]), [0, 1]);
  windows.trim([1]);
  assert.equal(windows.row(0), null);
  assert.equal(windows.row(WINDOW)?.key, "b");
  windows.put(1, [row("c")]);
  assert.deepEqual(windows.missing([1]), []);
  assert.deepEqual([...windows.rows()].map(([place, { key }]) => [place, key]), [[WINDOW, "c"]]);
});

/** A server whose answers come when they are let go. */
function server(total: number) {
  let version = 0;
  const waiting: { address: string; go: () => void; fail: (why: string) => void }[] = [];
  const fetch = (asked: string, abort: AbortSignal) =>
    new Promise<Table>((resolve, reject) => {
      const offset = Number(new URLSearchParams(asked.split("?")[1]).get("offset"));
      const now = version;
      const keys = Array.from({ length: Math.max(0, Math.min(WINDOW, total - offset)) }, (_, at) => `v${now}-${offset + at}`);
      abort.addEventListener("abort", () => reject(new Error("aborted")));
      waiting.push({
        address: asked,
        go: () => resolve({ content: `${now}`, total, matched: total, offset, rows: keys.map(row), by_status: {}, groups: [], unknown: [] }),
        fail: (why) => reject(new Error(why)),
      });
    });
  return { fetch, waiting, change: () => version++ };
}
const settled = (ms = 0) => new Promise((resolve) => setTimeout(resolve, ms));

test("windows are fetched as they come into view, once", async () => {
  const { fetch, waiting } = server(1000);
  const rows = new Rows(fetch);
  rows.ask(QUESTION);
  rows.ask({ ...QUESTION });
  assert.equal(waiting.length, 1);
  waiting[0]!.go();
  await settled();
  assert.equal(rows.row(3)?.key, "v0-3");
  rows.see([2]); // scrolled past
  rows.see([3, 4]);
  rows.see([3, 4]);
  await settled(60);
  assert.deepEqual(waiting.slice(1).map(({ address }) => /offset=(\d+)/.exec(address)![1]), ["600", "800"]);
  for (const one of waiting) one.go();
  await settled();
  assert.equal(rows.row(999)?.key, "v0-999");
  assert.equal(rows.row(1000), null);
});

test("a change while rows are fetched is not lost", async () => {
  const { fetch, waiting, change } = server(10);
  const rows = new Rows(fetch);
  rows.ask(QUESTION);
  waiting[0]!.go();
  await settled();
  rows.changed();
  assert.equal(waiting.length, 2);
  change(); // after the server has answered, before the answer is here
  rows.changed();
  waiting[1]!.go();
  await settled();
  assert.equal(rows.row(0)?.key, "v0-0");
  assert.equal(waiting.length, 3, "what was asked before the change is asked again");
  waiting[2]!.go();
  await settled();
  assert.equal(rows.row(0)?.key, "v1-0");
  assert.equal(waiting.length, 3);
});

test("an answer to an earlier question is dropped, and the rows stay until the new one answers", async () => {
  const { fetch, waiting } = server(10);
  const rows = new Rows(fetch);
  rows.ask(QUESTION);
  waiting[0]!.go();
  await settled();
  rows.ask({ ...QUESTION, sort: "a" });
  rows.ask({ ...QUESTION, sort: "b" });
  waiting[1]!.go();
  await settled();
  assert.equal(rows.row(0)?.key, "v0-0");
  assert.equal(rows.error.value, null);
  waiting[2]!.fail("no column is called 'b'");
  await settled();
  assert.equal(rows.error.value, "no column is called 'b'");
  assert.equal(rows.row(0)?.key, "v0-0");
});

test("an address asks for what is set and nothing else", () => {
  assert.equal(address(QUESTION, 2), `/api/v1/runs?offset=${2 * WINDOW}&limit=${WINDOW}`);
  const asked = new URLSearchParams(address({ ...QUESTION, where: "a<1 & b", columns: ["x,y", "z"] }, 0).split("?")[1]);
  assert.equal(asked.get("where"), "a<1 & b");
  assert.deepEqual(JSON.parse(asked.get("columns")!), ["x,y", "z"]);
});

test("names survive the address", () => {
  for (const names of [[], ["a"], ["a", "b.c/d"], ["a,b", "c"], ["[x"], ['"', "é"], [""]]) {
    assert.deepEqual(unlisted(listed(names)), names);
  }
  assert.deepEqual(unlisted('["cut'), []);
  assert.deepEqual(unlisted(null), []);
});

test("selecting twice is not selecting, and no more are selected than can be compared", () => {
  assert.deepEqual(toggled(toggled(["a"], "b"), "a"), ["b"]);
  const many = Array.from({ length: MOST_SELECTED }, (_, n) => `r${n}`);
  assert.deepEqual(toggled(many, "one more"), many);
  assert.equal(toggled(many, "r3").length, MOST_SELECTED - 1);
});

test("a stretch is selected either way, without what is not loaded and with no key twice", () => {
  const keys = ["a", "b", null, "d"];
  const at = (place: number) => keys[place] ?? null;
  assert.deepEqual(extended(["d"], 0, 3, at), ["d", "a", "b"]);
  assert.deepEqual(extended([], 3, 0, at), ["d", "b", "a"]);
  assert.equal(extended([], 0, 9999, (place) => `r${place}`).length, MOST_SELECTED);
});

test("clicks on a head go round", () => {
  assert.deepEqual(["", "a", "-a", "b"].map((sort) => nextSort(sort, "a")), ["a", "-a", "", "a"]);
});

const COLUMNS = [
  column("val_loss"), column("train.optimizer.lr", { place: "config" }),
  column("arm", { kind: "text", examples: ["plain", "wave form"] }), column("odd name"),
];
const options = (text: string, caret = text.length) => complete(text, caret, COLUMNS)?.options.map((one) => one.text) ?? [];

test("names are completed by any of their parts, values after a sign, then a word that joins", () => {
  assert.deepEqual(options("val"), ["val_loss"]);
  assert.deepEqual(options("lr"), ["train.optimizer.lr"]);
  assert.deepEqual(options("arm="), ["plain", '"wave form"']);
  assert.deepEqual(options("arm in [plain, w"), ['"wave form"']);
  assert.deepEqual(options("val_loss<1 "), ["and", "or"]);
  assert.deepEqual(options("val_loss<1 and (od"), ['"odd name"']);
  assert.deepEqual(options("val_loss"), []);
  assert.deepEqual(options("nothing"), []);
});

test("a completion replaces the word before the caret and nothing else", () => {
  const text = "status=finished and va and seed=1";
  const found = complete(text, text.indexOf(" and seed"), COLUMNS)!;
  const { from, to } = found;
  assert.equal(text.slice(0, from) + found.options[0]!.text + text.slice(to), "status=finished and val_loss and seed=1");
});

test("what a filter would read otherwise is put in quotes", () => {
  assert.deepEqual(["a.b/c", "a b", "in", 'x"y', "<1"].map(quoted), ["a.b/c", '"a b"', '"in"', '"x\\"y"', '"<1"']);
  assert.equal(asSearch("my run"), 'name~"my run"');
  assert.equal(asSearch("gpt"), "name~gpt");
  assert.equal(asSearch("a<1"), null);
});

test("runs of one name are told apart by what a person would say", () => {
  const of = (id: string, name: string | null) => called({ id, name });
  assert.deepEqual(of("wide-wave-lr0.1-s3-0123abcd", "wide-wave"), { name: "wide-wave", id: "lr0.1-s3" });
  assert.deepEqual(of("20261122-010137-train-74b7374-f3f8", "train"), { name: "train", id: "f3f8" });
  assert.deepEqual(of("my-own-id", "train"), { name: "train", id: "my-own-id" });
  assert.deepEqual(of("train-0123abcd", "train"), { name: "train", id: "train-0123abcd" });
  assert.deepEqual(of("only", null), { name: "only", id: "" });
  assert.deepEqual(of("only", "only"), { name: "only", id: "" });
});
