// Binary frames of the server: a JSON header, then columns that are used where they lie.
// src/cupel/dashboard/frames.py writes them; both are held against the same bytes by tests.

export type Column = Float32Array | Float64Array;

export type CurveFacts = {
  run: string;
  session: number;
  role: "run" | "tail" | "group";
  label?: string;
  runs?: string[];
  band: boolean;
  smooth: boolean;
  points: number;
  /** Row, and how many values there are NaN, +∞, −∞. */
  marks: [number, number, number, number][];
  more_marks: number;
};

export type SessionFacts = {
  run: string;
  zero: number;
  sessions: { session: number; step: number | null; started: number | null }[];
};

export type ChartHeader = {
  type: "snapshot" | "append";
  grid: { width: number; log: boolean; first: number };
  x: string;
  cut: number;
  curves: CurveFacts[];
  sessions: SessionFacts[];
  cursor: unknown;
  from: string | null;
  to: string;
  blocks: [string, number][];
};

export type CurveColumns = {
  facts: CurveFacts;
  last: Column;
  low: Column | null;
  high: Column | null;
  smooth: Column | null;
};

export type ChartFrame = { header: ChartHeader; rows: Int32Array; curves: CurveColumns[] };

const ALIGNED = 8;
const NAME_BYTES = 64;
const text = new TextDecoder();

/** The subscription that a binary message is for, and its frame. */
export function named(message: ArrayBuffer): { id: string; frame: ChartFrame } {
  const head = new Uint8Array(message, 0, NAME_BYTES);
  const end = head.indexOf(0);
  const id = text.decode(head.subarray(0, end < 0 ? NAME_BYTES : end));
  return { id, frame: decode(message, NAME_BYTES) };
}

/** A frame that begins at a byte of a buffer. Throws on what is none. */
export function decode(buffer: ArrayBuffer, begin = 0): ChartFrame {
  const size = new DataView(buffer).getUint32(begin, true);
  const bytes = new Uint8Array(buffer, begin + 4, size);
  const header = JSON.parse(text.decode(bytes)) as ChartHeader;
  let at = begin + 4 + size;
  const columns = header.blocks.map(([kind, count]) => {
    const column = view(buffer, kind, at, count);
    at += Math.ceil(column.byteLength / ALIGNED) * ALIGNED;
    return column;
  });
  const rows = columns.shift();
  if (!(rows instanceof Int32Array)) throw new Error("a frame without rows");
  const next = () => {
    const column = columns.shift();
    if (!column || column instanceof Int32Array) throw new Error("a frame that ends too early");
    return column;
  };
  const curves = header.curves.map((facts) => ({
    facts,
    last: next(),
    low: facts.band ? next() : null,
    high: facts.band ? next() : null,
    smooth: facts.smooth ? next() : null,
  }));
  return { header, rows, curves };
}

function view(buffer: ArrayBuffer, kind: string, at: number, count: number) {
  if (kind === "i4") return new Int32Array(buffer, at, count);
  if (kind === "f4") return new Float32Array(buffer, at, count);
  if (kind === "f8") return new Float64Array(buffer, at, count);
  throw new Error(`a column of ${kind}`);
}
