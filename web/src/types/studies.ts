// What the server tells of studies and the queue: the structs of dashboard/study_states.py,
// study_plans.py, comparing.py and failing.py.

import type { components } from "../api.ts";

type Schemas = components["schemas"];

export type Num = number | "NaN" | "Infinity" | "-Infinity";

export type Forecast = Schemas["Forecast"];
export type AlertFact = Schemas["AlertFact"];
export type WorkerFact = Schemas["WorkerFact"];
export type ActiveRun = Schemas["ActiveRun"];

export type StudyState = Schemas["StudyState"];

export type StudyRow = Schemas["StudyRow"];

export type Parameter = Schemas["Parameter"];
export type CellFact = Schemas["CellFact"];
export type RunFact = Schemas["RunFact"];
export type DeviationFact = Schemas["DeviationFact"];

export type StudyPlan = Schemas["StudyPlan"];

export type Verdict = "better" | "worse" | "equivalent" | "undecided";
export type ArmValue = Schemas["ArmValue"];
export type Difference = Schemas["Difference"];
export type ArmsComparison = Schemas["ArmsComparison"];

export type CellValue = Schemas["CellValue"];
export type CellValues = Schemas["CellValues"];

export type QueuedStudy = Schemas["QueuedStudy"];
export type Failures = Schemas["Failures"];
export type QueueState = Schemas["QueueState"];
