// The worker that lays out diagrams: what comes in is a plan, what goes back is where all of it is.

import { type Arranged, type Direction, Kept, type Plan, arrange } from "./arrange.ts";

export type Asked = { number: number; plan: Plan; direction: Direction };
export type Answer = { number: number; arranged: Arranged } | { number: number; error: string };

const kept = new Kept();

addEventListener("message", ({ data }: MessageEvent<Asked>) => {
  const { number, plan, direction } = data;
  const answer = (given: Answer) => postMessage(given);
  try {
    answer({ number, arranged: arrange(plan, direction, kept) });
  } catch (error) {
    answer({ number, error: (error as Error).message });
  }
});
