import assert from "node:assert/strict";
import { test } from "node:test";
import { ago, bytes, duration, number, short } from "../src/core/format.ts";

test("numbers are told in about five digits, with a true minus", () => {
  const told: [unknown, string][] = [
    [0, "0"], [1, "1"], [-1, "−1"], [1234567, "1,234,567"], [0.1, "0.10000"], [2.15271, "2.1527"],
    [123.456, "123.46"], [0.00001234, "1.234e−5"], [12345678.5, "1.235e7"], [-0.5, "−0.50000"],
    [null, "—"], [undefined, "—"], ["NaN", "NaN"], ["Infinity", "∞"], ["-Infinity", "−∞"],
    [Number.NaN, "NaN"], ["adam", "adam"], [true, "true"],
  ];
  for (const [value, text] of told) assert.equal(number(value as number), text);
});

test("durations name two units at most", () => {
  const told: [number | null, string][] = [
    [0, "0.0 s"], [4.21, "4.2 s"], [9.96, "10 s"], [59.4, "59 s"], [61, "1 min 01 s"], [3600, "1 h 00 min"],
    [90_061, "1 d 01 h"], [null, "—"], [Number.NaN, "—"], [-3, "0.0 s"],
  ];
  for (const [value, text] of told) assert.equal(duration(value), text);
});

test("ages, sizes and counts are short", () => {
  assert.equal(ago(0.3), "now");
  assert.equal(ago(59), "59 s ago");
  assert.equal(ago(7200), "2 h ago");
  assert.equal(bytes(0), "0 B");
  assert.equal(bytes(1536), "1.50 KiB");
  assert.equal(short(1234567), "1.23 M");
});
