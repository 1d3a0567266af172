// What src/cupel/dashboard/media.py answers.

export type Medium = {
  id: string;
  key: string;
  step: number | null;
  kind: string;
  type: string;
  name: string;
  bytes: number | null;
  session: number;
  time: number | null;
  caption: string | null;
  width: number | null;
  height: number | null;
  rows: number | null;
};

export type MediaKey = {
  key: string;
  kinds: string[];
  count: number;
  first: number | null;
  last: number | null;
};

export type MediaList = { keys: MediaKey[]; total: number; offset: number; items: Medium[] };

type Told = number | "NaN" | "Infinity" | "-Infinity";

export type TableCell =
  | Told
  | string
  | boolean
  | null
  | { media: string; kind: string | null };

export type TablePage = {
  kind: "table";
  columns: string[];
  rows: TableCell[][];
  total: number;
  offset: number;
};

export type HistogramContent = {
  kind: "histogram";
  counts: Told[];
  edges: Told[];
  not_finite: number;
};

export type TextContent = { kind: "text"; text: string; bytes: number };

export type HistogramsOverSteps = {
  key: string;
  steps: number[];
  edges: Told[];
  counts: Told[][];
  of: number;
};
