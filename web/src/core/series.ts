// What a chart holds: rows by stretch of the axis, and what an append does to them.
//
// An append says from which stretch on everything is replaced. It is taken only when it goes on
// from exactly what is here; otherwise `take` says so and the caller asks for all of it anew.

import type { ChartFrame, CurveFacts, SessionFacts } from "./frames.ts";

export type Curve = {
  facts: CurveFacts;
  last: Float64Array;
  low: Float64Array;
  high: Float64Array;
  smooth: Float64Array;
};

/** The curves of one chart; columns have room to grow, `length` rows of them count. */
export class ChartData {
  length = 0;
  rows = new Int32Array(0);
  curves: Curve[] = [];
  sessions: SessionFacts[] = [];
  grid = { width: 1, log: false, first: 0 };
  x = "step";
  cursor: unknown = null;
  name: string | null = null;

  /** Whether a frame was taken; false asks for a snapshot. */
  take(frame: ChartFrame): boolean {
    const { header } = frame;
    if (header.type === "append") {
      if (this.name === null || header.from !== this.name) return header.to === this.name;
      if (!alike(header.curves, this.curves)) return false;
    } else {
      this.length = 0;
      this.curves = header.curves.map((facts) => emptyCurve(facts, frame.rows.length));
      this.rows = new Int32Array(frame.rows.length);
    }
    const { width, log, first } = header.grid;
    this.grid = { width, log, first };
    this.x = header.x;
    this.sessions = header.sessions;
    this.replace(frame);
    this.cursor = header.cursor;
    this.name = header.to;
    return true;
  }

  /** How many bytes the columns take. */
  get bytes(): number {
    return this.rows.byteLength + this.curves.length * 4 * 8 * this.rows.length;
  }

  /** Where the rows are drawn: in the middle of their stretches. */
  places(): Float64Array {
    const { width, log, first } = this.grid;
    const half = this.x === "step" && !log ? (width - 1) / 2 : width / 2;
    const places = new Float64Array(this.length);
    for (let i = 0; i < this.length; i++) {
      const number = first + this.rows[i]!;
      places[i] = log ? 2 ** ((number + 0.5) * width) : number * width + half;
    }
    return places;
  }

  private replace(frame: ChartFrame): void {
    let kept = this.length;
    while (kept > 0 && this.rows[kept - 1]! >= frame.header.cut) kept--;
    const length = kept + frame.rows.length;
    this.reserve(length);
    this.rows.set(frame.rows, kept);
    frame.curves.forEach((columns, index) => {
      const curve = this.curves[index]!;
      curve.last.set(columns.last, kept);
      curve.low.set(columns.low ?? columns.last, kept);
      curve.high.set(columns.high ?? columns.last, kept);
      if (columns.smooth) curve.smooth.set(columns.smooth, kept);
      const marks = curve.facts.marks.filter(([row]) => row < kept);
      const added = columns.facts.marks.map(
        ([row, ...what]) => [row + kept, ...what] as [number, number, number, number],
      );
      // A part without a band says nothing of what is kept.
      const band = (kept > 0 && curve.facts.band) || columns.facts.band;
      const more = kept > 0 ? curve.facts.more_marks : 0;
      const more_marks = more + columns.facts.more_marks;
      curve.facts = { ...columns.facts, band, more_marks, marks: [...marks, ...added] };
    });
    this.length = length;
  }

  private reserve(length: number): void {
    if (length <= this.rows.length) return;
    const room = Math.max(length, Math.min(2 * this.rows.length, this.rows.length + 1024));
    this.rows = grown(this.rows, new Int32Array(room));
    for (const curve of this.curves) {
      curve.last = grown(curve.last, new Float64Array(room));
      curve.low = grown(curve.low, new Float64Array(room));
      curve.high = grown(curve.high, new Float64Array(room));
      curve.smooth = grown(curve.smooth, new Float64Array(room));
    }
  }
}

/** Whether an append is of the very curves that are here. */
function alike(facts: CurveFacts[], curves: Curve[]): boolean {
  const name = (of: CurveFacts) => `${of.role} ${of.run} ${of.session} ${of.label ?? ""}`;
  return (
    facts.length === curves.length && facts.every((one, n) => name(one) === name(curves[n]!.facts))
  );
}

function emptyCurve(facts: CurveFacts, room: number): Curve {
  const column = () => new Float64Array(room);
  return {
    facts: { ...facts, marks: [] },
    last: column(),
    low: column(),
    high: column(),
    smooth: column(),
  };
}

function grown<T extends Int32Array | Float64Array>(before: T, after: T): T {
  after.set(before as never);
  return after;
}
