// The line to the server under breaks: what was asked is asked again with what the page has.

import assert from "node:assert/strict";
import { beforeEach, mock, test } from "node:test";
import { Connection, type Socket } from "../src/core/connection.ts";

class Line {
  static all: Line[] = [];
  binaryType: BinaryType = "blob";
  readyState = 0;
  said: Record<string, unknown>[] = [];
  onopen: (() => void) | null = null;
  onclose: ((event: { code: number }) => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  constructor() {
    Line.all.push(this);
  }
  send(text: string) {
    this.said.push(JSON.parse(text));
  }
  close() {
    this.readyState = 3;
    this.onclose?.({ code: 1006 });
  }
  opened() {
    this.readyState = 1;
    this.onopen?.();
    this.hears({ type: "welcome", now: 0 });
  }
  hears(message: unknown) {
    this.onmessage?.({ data: JSON.stringify(message) });
  }
}

const made = (answer: (address: string) => Promise<Response> = async () => new Response(null, { status: 204 })) => {
  Line.all = [];
  const connection = new Connection({
    open: () => new Line() as unknown as Socket,
    fetch: answer,
    random: () => 1,
  });
  connection.start();
  return connection;
};

const last = () => Line.all[Line.all.length - 1]!;

beforeEach(() => mock.timers.reset());

test("what was asked before the line was open is asked when it is", () => {
  const connection = made();
  connection.subscribe({ kind: "run", run: "p/a" }, {});
  last().opened();
  assert.deepEqual(last().said.map((one) => one.type), ["hello", "sub"]);
  assert.equal(connection.link.value.state, "live");
  connection.stop();
});

test("after a break it is asked again with the name of what the page has", () => {
  mock.timers.enable({ apis: ["setTimeout", "setInterval", "Date"] });
  const connection = made();
  const heard: unknown[] = [];
  connection.subscribe({ kind: "run", run: "p/a" }, { state: (data: never) => heard.push(data) });
  last().opened();
  last().hears({ type: "state", id: "s1", name: "n1", data: { step: 1 } });
  assert.deepEqual(heard, [{ step: 1 }]);
  last().close();
  assert.equal(connection.link.value.state, "waiting");
  mock.timers.tick(600);
  assert.equal(Line.all.length, 2);
  last().opened();
  assert.equal(last().said[1]!.name, "n1");
  connection.stop();
});

test("it waits longer after each failure, at most 15 seconds, and not at all when woken", () => {
  mock.timers.enable({ apis: ["setTimeout", "setInterval", "Date"] });
  const connection = made();
  const waits: number[] = [];
  for (let n = 0; n < 9; n++) {
    const before = Date.now();
    const lines = Line.all.length;
    last().close();
    while (Line.all.length === lines) mock.timers.tick(50);
    waits.push(Date.now() - before);
  }
  assert.deepEqual(waits.slice(0, 5), [500, 1000, 2000, 4000, 8000]);
  assert.ok(Math.max(...waits) <= 15_050, String(waits));
  last().close();
  const lines = Line.all.length;
  connection.wake();
  assert.equal(Line.all.length, lines + 1);
  connection.stop();
});

test("while there is no line the page asks every two seconds, and says so", async () => {
  mock.timers.enable({ apis: ["setTimeout", "setInterval", "Date"] });
  const connection = made(async () => Response.json({ name: "n2", data: { step: 7 } }));
  const heard: unknown[] = [];
  connection.subscribe({ kind: "run", run: "p/a" }, { state: (data: never) => heard.push(data) });
  for (let n = 0; n < 40 && !heard.length; n++) {
    if (last().readyState !== 3) last().close();
    mock.timers.tick(500);
    for (let turn = 0; turn < 20; turn++) await Promise.resolve();
  }
  assert.deepEqual(heard[0], { step: 7 });
  assert.equal(connection.link.value.state, "polling");
  connection.stop();
});

test("while it polls, points are fetched: of many questions the first and the newest", async () => {
  mock.timers.enable({ apis: ["setTimeout", "setInterval", "Date"] });
  const asked: string[] = [];
  let answer: (value: Response) => void = () => {};
  const connection = made((address) => {
    if (!address.startsWith("/api/v1/points")) return Promise.resolve(new Response(null, { status: 204 }));
    asked.push(address.slice(address.indexOf("&x=")));
    return new Promise((done) => { answer = done; });
  });
  const heard: [number, number][] = [];
  const sub = connection.subscribe({ kind: "chart" }, {
    points: (points, n) => heard.push([points[0]!.step, n]),
  });
  const turns = async () => { for (let turn = 0; turn < 20; turn++) await Promise.resolve(); };
  for (let n = 0; n < 40 && connection.link.value.state !== "polling"; n++) {
    if (last().readyState !== 3) last().close();
    mock.timers.tick(500);
    await turns();
  }
  sub.points(1);
  sub.points(2);
  sub.points(3);
  answer(Response.json([{ step: 10 }]));
  while (asked.length < 2) await new Promise((done) => setImmediate(done));
  answer(Response.json([{ step: 30 }]));
  while (heard.length < 2) await new Promise((done) => setImmediate(done));
  assert.deepEqual(asked, ["&x=1", "&x=3"]);
  assert.deepEqual(heard, [[10, 1], [30, 3]]);
  sub.points(4);
  sub.points(5);
  answer(new Response("no JSON"));
  while (asked.length < 4) await new Promise((done) => setImmediate(done));
  answer(Response.json([{ step: 50 }]));
  while (heard.length < 3) await new Promise((done) => setImmediate(done));
  assert.deepEqual(heard[2], [50, 5]); // the question that failed takes none with it
  connection.stop();
});

test("a server that went silent without closing is left after 25 seconds", () => {
  mock.timers.enable({ apis: ["setTimeout", "setInterval", "Date"] });
  const connection = made();
  last().opened();
  mock.timers.tick(31_000);
  assert.notEqual(connection.link.value.state, "live");
  connection.stop();
});

test("what is no longer wanted is told, and not asked again", () => {
  const connection = made();
  const sub = connection.subscribe({ kind: "runs" }, {});
  last().opened();
  sub.end();
  assert.deepEqual(last().said.at(-1), { type: "unsub", id: "s1" });
  connection.stop();
});
