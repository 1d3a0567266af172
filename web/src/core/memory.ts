// What charts hold, and what is done when it nears its bound. It follows the pixels that are shown,
// not the length of runs, so in practice it is a few megabytes; the bound is for hundreds of cards.

import { signal } from "@preact/signals";

export const LIMIT = 512 * 2 ** 20;
const NEAR = 0.9 * LIMIT;

type Held = { bytes: () => number; since: number };
const held = new Map<object, Held>();

/** Bytes of all charts, and how coarse new ones are asked for: 1, 2, 4 … */
export const memory = signal({ charts: 0, heap: null as number | null, coarser: 1 });

/** A chart that is on the page; what is returned takes it off. */
export function hold(owner: object, bytes: () => number): () => void {
  held.set(owner, { bytes, since: Date.now() });
  return () => {
    held.delete(owner);
  };
}

/** Measure; near the limit the detail of charts is halved, the oldest first (they ask anew). */
export function measure(): void {
  let charts = 0;
  for (const { bytes } of held.values()) charts += bytes();
  const used = (performance as { memory?: { usedJSHeapSize: number } }).memory?.usedJSHeapSize;
  const heap = used ?? null;
  let { coarser } = memory.value;
  const all = heap ?? charts;
  if (all > NEAR && coarser < 16) coarser *= 2;
  else if (all < NEAR / 4 && coarser > 1) coarser /= 2;
  memory.value = { charts, heap, coarser };
}

setInterval(measure, 10_000);
