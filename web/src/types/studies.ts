// What the server tells of studies and the queue: the structs of dashboard/study_states.py,
// study_plans.py, comparing.py and failing.py.

export type Num = number | "NaN" | "Infinity" | "-Infinity";

export type Forecast = { at: number; low: number; high: number };
export type AlertFact = { study: string; key: string; severity: string; text: string; t: number };
export type WorkerFact = {
  study: string;
  worker: string;
  state: string;
  host: string;
  pid: number;
  slots: number;
  running: string[];
};
export type ActiveRun = {
  run: string;
  study: string;
  arm: string;
  point: string;
  seed: number;
  state: string;
  step: number;
  steps: number;
  loss: Num | null;
  val_loss: Num | null;
  sessions: number;
  stepped: number | null;
};

export type StudyState = {
  key: string;
  question: string;
  counts: Record<string, number>;
  total: number;
  marks: string;
  steps: number;
  of_steps: number;
  runs_per_hour: number;
  steps_per_s: number;
  eta: Forecast | null;
  unknown: string;
  over: boolean;
  slots: number;
  alerts: AlertFact[];
  workers: WorkerFact[];
  active: ActiveRun[];
  newest: number | null;
  plan: string;
  ended: string;
};

export type StudyRow = {
  key: string;
  project: string;
  name: string;
  question: string;
  about: string;
  created: number | null;
  metric: string;
  arms: string[];
  cells: number;
  runs: number;
  counts: Record<string, number>;
  steps: number;
  of_steps: number;
  eta: Forecast | null;
  over: boolean;
  newest: number | null;
  alerts: number;
  problem: string;
};

export type Parameter = { name: string; setting: string; values: unknown[] };
export type CellFact = { arm: string; point: string; place: unknown[]; runs: number[] };
export type RunFact = {
  run: string;
  cell: number;
  seed: number;
  state: string;
  step: number;
  steps: number;
  value: Num | null;
  loss: Num | null;
  val_loss: Num | null;
  sessions: number;
  attempts: number;
  seconds: number;
  reason: string;
};
export type DeviationFact = { run: string; of: string; status: string };

export type StudyPlan = {
  key: string;
  project: string;
  name: string;
  about: string;
  question: string;
  created: number;
  parts: number;
  metric: string;
  statistic: string;
  better: string;
  kind: string;
  correction: string;
  confidence: number;
  margin: number | null;
  baseline: string;
  arms: Record<string, Record<string, unknown>>;
  parameters: Parameter[];
  seeds: number[];
  cells: CellFact[];
  runs: RunFact[];
  letters: Record<string, string>;
  deviations: DeviationFact[];
  state: StudyState;
};

export type Verdict = "better" | "worse" | "equivalent" | "undecided";
export type ArmValue = {
  arm: string;
  point: string;
  n: number;
  planned: number;
  mean: Num | null;
  sd: Num | null;
  low: Num | null;
  high: Num | null;
  values: Record<string, Num>;
  missing: number[];
  diverged: number[];
};
export type Difference = {
  arm: string;
  point: string;
  n: number;
  differences: Record<string, Num>;
  mean: Num | null;
  low: Num | null;
  high: Num | null;
  confidence: number;
  simultaneous: boolean;
  comparisons: number;
  sd: Num | null;
  correlation: Num | null;
  p: Num | null;
  p_adjusted: Num | null;
  detectable: Num | null;
  missing_arm: number[];
  missing_baseline: number[];
  diverged_arm: number[];
  diverged_baseline: number[];
  verdict: Verdict | null;
  reason: string;
};
export type ArmsComparison = {
  study: string;
  question: string;
  metric: string;
  statistic: string;
  better: string;
  kind: string;
  correction: string;
  confidence: number;
  margin: number | null;
  baseline: string;
  seeds: number[];
  planned: number;
  finished: number;
  points: string[];
  arms: ArmValue[];
  differences: Difference[];
  unequal: { arm: string; name: string; baseline: string; value: string }[];
  without: {
    run: string;
    arm: string;
    point: string;
    seed: number;
    status: string;
    reason: string;
  }[];
  problem: string;
};

export type CellValue = {
  n: number;
  mean: Num | null;
  low: Num | null;
  high: Num | null;
  other: number;
  missing: number;
};
export type CellValues = { study: string; metric: string; metrics: string[]; cells: CellValue[] };

export type QueuedStudy = {
  key: string;
  question: string;
  counts: Record<string, number>;
  total: number;
  open: number;
  steps: number;
  of_steps: number;
  eta: Forecast | null;
  unknown: string;
  problem: string;
};
export type Failures = {
  kind: string;
  count: number;
  again: number;
  advice: string;
  runs: { run: string; study: string; state: string; reason: string; attempts: number }[];
};
export type QueueState = {
  studies: QueuedStudy[];
  settled: number;
  workers: WorkerFact[];
  active: ActiveRun[];
  active_total: number;
  alerts: AlertFact[];
  failures: Failures[];
  holds: { study: string; why: string; count: number; by_breaker: boolean; runs: string[] }[];
  quarantined: { study: string; host: string; device: string; why: string }[];
};
