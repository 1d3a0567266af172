// Asks the worker for layouts: `Layouts`. An answer that does not come in time is an error.

import type { Arranged, Direction, Plan } from "./arrange.ts";
import type { Answer, Asked } from "./layout.ts";
import address from "./layout.ts?worker";

export const PATIENCE_MS = 5000;

type Waiting = { done: (arranged: Arranged) => void; failed: (why: Error) => void };

export class Layouts {
  readonly #worker = new Worker(address, { type: "module" });
  readonly #waiting = new Map<number, Waiting>();
  #number = 0;

  constructor() {
    this.#worker.addEventListener("message", ({ data }: MessageEvent<Answer>) => {
      const waiting = this.#waiting.get(data.number);
      if ("error" in data) waiting?.failed(new Error(data.error));
      else waiting?.done(data.arranged);
    });
    this.#worker.addEventListener("error", () => {
      for (const { failed } of this.#waiting.values()) failed(new Error("the part that lays it out could not be fetched"));
    });
  }

  ask(plan: Plan, direction: Direction): Promise<Arranged> {
    const number = ++this.#number;
    return new Promise<Arranged>((done, failed) => {
      const late = () => failed(new Error(`laying it out took more than ${PATIENCE_MS / 1000} s`));
      const timer = setTimeout(late, PATIENCE_MS);
      this.#waiting.set(number, {
        done: (arranged) => {
          clearTimeout(timer);
          done(arranged);
        },
        failed: (why) => {
          clearTimeout(timer);
          failed(why);
        },
      });
      this.#worker.postMessage({ number, plan, direction } satisfies Asked);
    }).finally(() => this.#waiting.delete(number));
  }

  end(): void {
    this.#worker.terminate();
  }
}
