// How a run is called among others.

import type { TableRow } from "../types/runs.ts";

/** Under which name a run is known to people, and what of its id tells it from its namesakes: of a
 *  study's run its point and seed, of another one the last four characters. */
export function called(row: Pick<TableRow, "id" | "name">): { name: string; id: string } {
  if (!row.name || row.name === row.id) return { name: row.id, id: "" };
  const own = row.id.startsWith(`${row.name}-`) ? row.id.slice(row.name.length + 1) : row.id;
  const planned = /^((?:.+-)?s\d+)-[0-9a-f]{8}$/.exec(own)?.[1];
  return { name: row.name, id: planned ?? /^\d{8}-\d{6}-.+-([0-9a-f]{4})$/.exec(row.id)?.[1] ?? row.id };
}
