// What a chart makes of the very bytes that the server's own tests hold to be those it sends.

import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { decode, named } from "../src/core/frames.ts";
import { ChartData } from "../src/core/series.ts";

const golden = (name: string): ArrayBuffer => {
  const file = path.join(import.meta.dirname, "../../tests/golden/dashboard", name);
  const bytes = fs.readFileSync(file);
  return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length) as ArrayBuffer;
};

const shown = (data: ChartData) =>
  [...data.rows.subarray(0, data.length)].map((row, at) => {
    const curve = data.curves[0]!;
    return [row, curve.last[at], curve.low[at], curve.high[at]];
  });

test("a snapshot is what the server packed", () => {
  const data = new ChartData();
  assert.equal(data.take(decode(golden("snapshot.bin"))), true);
  assert.deepEqual(shown(data), [
    [0, 1, 0.5, 1.5],
    [1, Number.NaN, 2, 2.5],
    [2, 3, 3, 3],
  ]);
  assert.deepEqual([...data.places()], [0.5, 2.5, 4.5]);
  assert.deepEqual(data.curves[0]!.facts.marks, [[1, 1, 0, 0]]);
  assert.equal(data.name, "one");
});

test("an append replaces everything from its cut on", () => {
  const data = new ChartData();
  data.take(decode(golden("snapshot.bin")));
  assert.equal(data.take(decode(golden("append.bin"))), true);
  assert.deepEqual(shown(data).slice(2), [
    [2, 3.5, 3.5, 3.5],
    [4, 4.5, 4.5, 4.5],
  ]);
  assert.equal(data.length, 4);
  assert.deepEqual(data.curves[0]!.facts.marks, [[1, 1, 0, 0]]);
});

test("an append that comes twice changes nothing", () => {
  const data = new ChartData();
  data.take(decode(golden("snapshot.bin")));
  data.take(decode(golden("append.bin")));
  const before = shown(data);
  assert.equal(data.take(decode(golden("append.bin"))), true);
  assert.deepEqual(shown(data), before);
});

test("an append after a gap is refused, and nothing changes", () => {
  const data = new ChartData();
  data.take(decode(golden("snapshot.bin")));
  const before = shown(data);
  assert.equal(data.take(decode(golden("gap.bin"))), false);
  assert.deepEqual(shown(data), before);
  assert.equal(new ChartData().take(decode(golden("append.bin"))), false);
});

test("a message names its subscription", () => {
  const frame = new Uint8Array(golden("snapshot.bin"));
  const message = new Uint8Array(64 + frame.length);
  message.set(new TextEncoder().encode("s12"));
  message.set(frame, 64);
  const found = named(message.buffer);
  assert.equal(found.id, "s12");
  assert.equal(found.frame.header.to, "one");
});

test("an append without a band leaves that of what is kept", () => {
  const data = new ChartData();
  data.take(decode(golden("snapshot.bin")));
  data.take(decode(golden("append.bin")));
  assert.equal(data.curves[0]!.facts.band, true);
});
