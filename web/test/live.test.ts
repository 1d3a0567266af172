// What is fetched, and when: an answer that breaks off is a failure, and never an empty answer.

import assert from "node:assert/strict";
import { mock, test } from "node:test";
import { get, unlocked } from "../src/core/live.ts";

const answering = (answer: Response) => mock.method(globalThis, "fetch", async () => answer);

test("nothing is asked before it is known whether the page may", async () => {
  const asked = answering(Response.json({}));
  const found = get("/x");
  await new Promise((done) => setTimeout(done, 20));
  assert.equal(asked.mock.callCount(), 0);
  unlocked.value = "yes"; // and stays so for the tests below
  await found;
  assert.equal(asked.mock.callCount(), 1);
});

test("an answer that breaks off is told as a failure", async () => {
  const broken = new ReadableStream({
    start(stream) {
      stream.enqueue(new TextEncoder().encode('{"keys": ['));
      stream.error(new Error("the line broke"));
    },
  });
  answering(new Response(broken, { status: 200 }));
  await assert.rejects(get("/api/v1/about"), /the line broke/);
});

test("what the server refuses is told in its words, or by its status", async () => {
  answering(Response.json({ error: "no run is called x" }, { status: 404 }));
  await assert.rejects(get("/api/v1/runs/x"), /^Error: no run is called x$/);
  answering(new Response("<html>", { status: 502 }));
  await assert.rejects(get("/api/v1/runs/x"), /^Error: the server answered 502$/);
});

test("an answer is what the server said", async () => {
  answering(Response.json({ a: [1] }));
  assert.deepEqual(await get("/x"), { a: [1] });
});
