// What src/cupel/dashboard/media.py answers.

import type { components } from "../api.ts";
import type { Told } from "../core/format.ts";

type Schemas = components["schemas"];

export type Medium = Schemas["Medium"];

export type MediaKey = Schemas["MediaKey"];

export type MediaList = Schemas["MediaList"];

export type TableCell =
  | Told
  | string
  | boolean
  | null
  | { media: string; kind: string | null };

export type TablePage = Schemas["TablePage"];

export type HistogramContent = Schemas["HistogramContent"];

export type TextContent = Schemas["TextContent"];

export type HistogramsOverSteps = Schemas["HistogramsOverSteps"];
