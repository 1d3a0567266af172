// The line to the server: a WebSocket, and requests every two seconds while there is none.
//
// What a subscription has is named by a cursor into the record, so after a break of any length,
// and after a restart of the server, it goes on from there: nothing is missing, nothing twice.

import { signal } from "@preact/signals";
import type { components } from "../api.ts";
import { type ChartFrame, decode, named } from "./frames.ts";

export type Link =
  | { state: "connecting" }
  | { state: "live" }
  | { state: "waiting"; until: number; tries: number }
  | { state: "polling" }
  | { state: "locked" };

export type Points = components["schemas"]["Point"][];

export type Handlers = {
  /** Takes a frame of a chart; false asks for all of it anew. */
  chart?: (frame: ChartFrame) => boolean;
  state?: (data: never) => void;
  /** Points, and the how-manieth question they answer. */
  points?: (points: Points, asked: number) => void;
  refused?: (error: string) => void;
  /** What is asked takes long: which part of the lines has been read. */
  reading?: (part: number) => void;
};

type Sub = {
  query: Record<string, unknown>;
  handlers: Handlers;
  cursor: unknown;
  name: string | null;
  /** While points are fetched: the question that was asked last. */
  pointing?: { x: number; n: number } | undefined;
};

export type Socket = Pick<
  WebSocket,
  "binaryType" | "close" | "onclose" | "onmessage" | "onopen" | "readyState" | "send"
>;

/** What a connection needs of the browser; tests bring their own. */
export type Surroundings = {
  open: () => Socket;
  fetch: (address: string) => Promise<Response>;
  random: () => number;
};

const PROTOCOL = "cupel.v1";
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15_000;
const POLL_MS = 2_000;
const POLL_AFTER = 3; // failed tries
const STALE_MS = 25_000; // the server beats every ten seconds
const OPENING_MS = 10_000; // without a welcome
const OPEN = 1;

/** All subscriptions of a page over one socket. */
export class Connection {
  link = signal<Link>({ state: "connecting" });
  /** When anything was last heard, in milliseconds of the browser's clock. */
  heard = signal(0);
  /** What the server's clock is ahead of the browser's, in seconds. */
  ahead = 0;
  private readonly around: Surroundings;
  private readonly subs = new Map<string, Sub>();
  private socket: Socket | null = null;
  private tries = 0;
  private retryAt = 0;
  private opened = 0;
  private next = 1;
  private retry: ReturnType<typeof setTimeout> | undefined;
  private poller: ReturnType<typeof setTimeout> | undefined;
  private watchdog: ReturnType<typeof setInterval> | undefined;
  private begun = false;
  private closed = false;
  private hidden = false;

  constructor(around: Surroundings) {
    this.around = around;
  }

  start(): void {
    this.begun = true;
    this.open();
    this.watchdog = setInterval(() => this.check(), 5_000);
  }

  stop(): void {
    this.closed = true;
    clearTimeout(this.retry);
    clearTimeout(this.poller);
    clearInterval(this.watchdog);
    this.socket?.close();
  }

  /** Ask to be kept informed; what is returned ends it. */
  subscribe(query: Record<string, unknown>, handlers: Handlers): Subscription {
    const id = `s${this.next++}`;
    this.subs.set(id, { query, handlers, cursor: null, name: null });
    this.ask(id);
    return new Subscription(this, id);
  }

  /** Try again now: the network is back, the tab is seen again. */
  wake(): void {
    if (!this.begun || this.socket || this.link.value.state === "locked") return;
    clearTimeout(this.retry);
    this.open();
  }

  /** A tab that is hidden asks for nothing and is sent nothing. */
  pause(hidden: boolean): void {
    this.hidden = hidden;
    this.say({ type: hidden ? "pause" : "resume" });
  }

  end(id: string): void {
    this.subs.delete(id);
    this.say({ type: "unsub", id });
  }

  askPoints(id: string, x: number, n: number): void {
    const sub = this.subs.get(id);
    if (this.link.value.state !== "polling") this.say({ type: "at", id, n, x });
    else if (sub) void this.fetchPoints(id, sub, x, n);
  }

  /** Ask for all of a subscription anew. */
  again(id: string): void {
    const sub = this.subs.get(id);
    if (!sub) return;
    sub.cursor = sub.name = null;
    this.ask(id);
  }

  private open(): void {
    if (this.closed || this.socket) return;
    if (this.link.value.state !== "polling") this.link.value = { state: "connecting" };
    let socket: Socket;
    try {
      socket = this.around.open();
    } catch {
      this.lost();
      return;
    }
    this.socket = socket;
    this.opened = Date.now();
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.heard.value = Date.now();
      this.say({ type: "hello", proto: PROTOCOL });
      if (this.hidden) this.say({ type: "pause" });
      for (const id of this.subs.keys()) this.ask(id);
    };
    socket.onmessage = (event) => this.hear(event.data as string | ArrayBuffer);
    socket.onclose = (event) => {
      if (this.socket !== socket) return;
      this.socket = null;
      this.lost();
    };
  }

  /** There is no cookie, or it does not hold any more: nothing is asked until there is one. */
  lock(): void {
    this.link.value = { state: "locked" };
    clearTimeout(this.retry);
    clearTimeout(this.poller);
    this.poller = undefined;
  }

  private lost(): void {
    if (this.closed || this.link.value.state === "locked") return;
    this.tries++;
    const most = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** Math.min(this.tries - 1, 10));
    const wait = most * (0.5 + this.around.random() / 2);
    this.retryAt = Date.now() + wait;
    if (this.link.value.state !== "polling") this.offline();
    clearTimeout(this.retry);
    this.retry = setTimeout(() => this.open(), wait);
    if (this.tries >= POLL_AFTER && this.poller === undefined) this.poll();
  }

  private offline(): void {
    this.link.value = { state: "waiting", until: this.retryAt, tries: this.tries };
  }

  private check(): void {
    const since = Date.now() - Math.max(this.heard.value, this.opened);
    const opening = this.socket !== null && this.link.value.state !== "live";
    if ((this.link.value.state === "live" && since > STALE_MS) || (opening && since > OPENING_MS)) {
      const socket = this.socket;
      this.socket = null;
      socket?.close();
      this.lost();
    }
  }

  private hear(data: string | ArrayBuffer): void {
    this.heard.value = Date.now();
    if (typeof data !== "string") {
      const { id, frame } = named(data);
      this.takeChart(id, frame);
      return;
    }
    const message = JSON.parse(data) as Record<string, unknown>;
    const sub = typeof message.id === "string" ? this.subs.get(message.id) : undefined;
    if (message.type === "welcome") this.welcomed(message.now as number);
    else if (message.type === "state" && sub) {
      sub.name = message.name as string;
      sub.handlers.state?.(message.data as never);
    } else if (message.type === "at") sub?.handlers.points?.(message.points as Points, message.n as number);
    else if (message.type === "reading") sub?.handlers.reading?.((message.read as number) / (message.of as number));
    else if (message.type === "refused" && sub) {
      sub.cursor = sub.name = null; // what it has may be gone: all of it comes when it can be read
      sub.handlers.refused?.(String(message.error));
    }
  }

  private welcomed(now: number): void {
    this.tries = 0;
    this.ahead = now - Date.now() / 1000;
    clearTimeout(this.poller);
    this.poller = undefined;
    this.link.value = { state: "live" };
  }

  private takeChart(id: string, frame: ChartFrame): void {
    const sub = this.subs.get(id);
    if (!sub?.handlers.chart) return;
    if (sub.handlers.chart(frame)) sub.cursor = frame.header.cursor;
    else this.again(id);
  }

  private ask(id: string): void {
    const sub = this.subs.get(id);
    if (!sub) return;
    this.say({ type: "sub", id, query: sub.query, cursor: sub.cursor, name: sub.name });
  }

  private say(message: Record<string, unknown>): void {
    if (this.socket?.readyState === OPEN) this.socket.send(JSON.stringify(message));
  }

  /** Without a line the points are asked for one question after the other, only the newest. */
  private async fetchPoints(id: string, sub: Sub, x: number, n: number): Promise<void> {
    const waits = sub.pointing !== undefined;
    sub.pointing = { x, n };
    if (waits) return;
    const query = encodeURIComponent(JSON.stringify({ query: sub.query }));
    let now = sub.pointing;
    do {
      now = sub.pointing;
      const place = encodeURIComponent(now.x);
      const points = await this.around.fetch(`/api/v1/points?sub=${query}&x=${place}`)
        .then((answer) => (answer.ok ? (answer.json() as Promise<Points>) : null))
        .catch(() => null); // what the stretch tells stays
      if (this.closed || this.subs.get(id) !== sub) return; // another question has its place
      if (points) sub.handlers.points?.(points, now.n);
    } while (sub.pointing !== now);
    sub.pointing = undefined;
  }

  private poll(): void {
    this.poller = setTimeout(async () => {
      for (const [id, sub] of [...this.subs]) {
        if (this.poller === undefined) return;
        if (this.hidden) break;
        await this.pollOne(id, sub).catch(() => {
          if (this.link.value.state === "polling") this.offline();
        });
      }
      if (this.poller !== undefined && !this.closed) this.poll();
    }, POLL_MS);
  }

  private async pollOne(id: string, sub: Sub): Promise<void> {
    const { query, cursor, name } = sub;
    const asked = encodeURIComponent(JSON.stringify({ query, cursor, name }));
    const answer = await this.around.fetch(`/api/v1/delta?sub=${asked}`);
    if (answer.status === 401) {
      this.lock();
      return;
    }
    if (this.poller === undefined || this.subs.get(id) !== sub) return;
    this.heard.value = Date.now();
    if (this.link.value.state !== "polling") this.link.value = { state: "polling" };
    if (answer.status === 204) return;
    if (!answer.ok) {
      const body = (await answer.json().catch(() => ({}))) as { error?: string };
      sub.handlers.refused?.(body.error ?? `the server answered ${answer.status}`);
      return;
    }
    if (answer.headers.get("content-type")?.startsWith("application/json")) {
      const state = (await answer.json()) as { name: string; data: never };
      sub.name = state.name;
      sub.handlers.state?.(state.data);
    } else {
      this.takeChart(id, decode(await answer.arrayBuffer()));
    }
  }
}

/** One thing that a page is kept informed of. */
export class Subscription {
  private readonly connection: Connection;
  readonly id: string;
  private asked = 0;

  constructor(connection: Connection, id: string) {
    this.connection = connection;
    this.id = id;
  }

  end(): void {
    this.connection.end(this.id);
  }

  /** Ask for the points that are nearest to a place; `points` hears them, with the number given here. */
  points(x: number): number {
    this.connection.askPoints(this.id, x, ++this.asked);
    return this.asked;
  }

  again(): void {
    this.connection.again(this.id);
  }
}
