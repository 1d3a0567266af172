// One clock for all charts: what has to be drawn anew is drawn once in the next frame.

const waiting = new Set<() => void>();
let asked = 0;

/** Draw in the next frame, once, however often it is asked. */
export function paint(draw: () => void): void {
  waiting.add(draw);
  if (!asked) asked = requestAnimationFrame(run);
}

/** Forget what is gone. */
export function unpaint(draw: () => void): void {
  waiting.delete(draw);
}

function run(): void {
  asked = 0;
  const now = [...waiting];
  waiting.clear();
  for (const draw of now) draw();
}
