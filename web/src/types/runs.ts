// The replies about runs: as the structs of src/cupel/dashboard/{table,beside}.py have them.

import type { components } from "../api.ts";

type Schemas = components["schemas"];

/** A number as JSON has it. */
export type Num = number | "NaN" | "Infinity" | "-Infinity";
export type Cell = number | boolean | string | unknown[] | null;

export type TableRow = Schemas["TableRow"];

export type Spread = Schemas["Spread"];

export type Group = Schemas["Group"];

export type Table = Schemas["Table"];

export type Column = Schemas["Column"];

export type Columns = Schemas["Columns"];

/** What is pushed when the table has changed. */
export type RunsState = Schemas["RunsState"];

export type Setting = Schemas["Setting"];
export type Common = Schemas["Common"];
export type MetricLine = Schemas["MetricLine"];

export type Comparison = Schemas["Comparison"];
