// How one run stands: src/cupel/dashboard/standing.py.

import type { components } from "../api.ts";

export type RunState = components["schemas"]["RunState"];
