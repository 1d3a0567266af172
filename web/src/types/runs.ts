// The replies about runs: as the structs of src/cupel/dashboard/{table,beside}.py have them.

/** A number as JSON has it. */
export type Num = number | "NaN" | "Infinity" | "-Infinity";
export type Cell = number | boolean | string | Cell[] | null;

export type TableRow = {
  key: string;
  id: string;
  project: string;
  name: string | null;
  status: string;
  created: Num;
  step: number | null;
  sessions: number;
  seconds: Num;
  tags: string[];
  notes: string | null;
  study: string | null;
  arm: string | null;
  seed: Cell;
  problem: string | null;
  values: Record<string, Cell>;
};

export type Spread = {
  mean: number | null;
  min: number | null;
  max: number | null;
  n: number;
  not_finite: number;
};

export type Group = {
  name: string | null;
  count: number;
  by_status: Record<string, number>;
  numbers: Record<string, Spread>;
};

export type Table = {
  content: string;
  total: number;
  matched: number;
  offset: number;
  rows: TableRow[];
  by_status: Record<string, number>;
  groups: Group[];
  unknown: string[];
};

export type Column = {
  name: string;
  place: "field" | "summary" | "config";
  ask: string;
  kind: "number" | "text";
  runs: number;
  distinct: number;
  examples: string[];
};

export type Columns = { total: number; columns: Column[] };

/** What is pushed when the table has changed. */
export type RunsState = {
  total: number;
  by_status: Record<string, number>;
  projects: Record<string, number>;
  newest: string | null;
  content: string;
};

export type Setting = { name: string; values: Cell[]; there: boolean[] };
export type Common = { name: string; value: Cell };
export type MetricLine = {
  name: string;
  statistic: string;
  values: Cell[];
  steps: (number | null)[];
  goal: "min" | "max" | null;
  best: number[];
  unlike: string | null;
};

export type Comparison = {
  content: string;
  runs: TableRow[];
  differ: Setting[];
  equal: Common[];
  metrics: MetricLine[];
};
