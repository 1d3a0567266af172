// What may come next in a filter that is being typed: names of columns, then values, then "and". Pure.

import type { Column } from "../types/runs.ts";

export type Completion = { from: number; to: number; options: { text: string; about: string }[] };

const MOST = 12;
const SIGN = /(?:!=|!~|<=|>=|==|=|<|>|~)\s*$/;
const IN = /\bin\s*\[(?:[^\]]*,)?\s*$/i;
const WORD = /"(?:[^"\\]|\\.)*$|[^\s()[\],=!<>~"']*$/;
const NAME = /("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^\s()[\],=!<>~"']+)\s*(?:!=|!~|<=|>=|==|=|<|>|~|(?:not\s+)?in\s*\[[^\]]*)\s*$/i;
const RESERVED = ["and", "or", "not", "in"];

/** Completions of the word before the caret; null when there are none. */
export function complete(text: string, caret: number, columns: readonly Column[]): Completion | null {
  const before = text.slice(0, caret);
  const word = WORD.exec(before)![0];
  const from = caret - word.length;
  const rest = before.slice(0, from);
  const typed = word.replace(/^"/, "").toLowerCase();
  const options = SIGN.test(rest) || IN.test(rest) ? values(rest, typed, columns) : names(rest, typed, columns);
  const others = options.filter((option) => option.text !== word);
  return others.length ? { from, to: caret, options: others.slice(0, MOST) } : null;
}

/** A name or value as the filter wants it: in quotes where it would be read otherwise. */
export function quoted(text: string): string {
  const bare = /^[^\s()[\],=!<>~"']+$/.test(text) && !RESERVED.includes(text.toLowerCase());
  return bare ? text : `"${text.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;
}

/** What was typed is one word that is no filter: what would look for it in the names. */
export function asSearch(text: string): string | null {
  const word = text.trim();
  return /^[^()[\],=!<>~"']+$/.test(word) ? `name~${quoted(word)}` : null;
}

function names(rest: string, typed: string, columns: readonly Column[]) {
  // After a whole comparison comes a word that joins it to the next one.
  if (/[^\s(]\s+$/.test(rest) && !/\b(?:and|or|not)\s+$/i.test(rest)) {
    return ["and", "or"].filter((word) => word.startsWith(typed)).map((text) => ({ text, about: "" }));
  }
  const found = columns.filter((column) => column.ask.toLowerCase().includes(typed));
  const begins = (column: Column) =>
    [column.ask, column.name, column.name.split(".").pop()!].some((name) => name.toLowerCase().startsWith(typed));
  return [...found.filter(begins), ...found.filter((column) => !begins(column))].map((column) => ({
    text: quoted(column.ask),
    about: about(column),
  }));
}

function values(rest: string, typed: string, columns: readonly Column[]) {
  const name = NAME.exec(rest)?.[1]?.replace(/^["']|["']$/g, "");
  const column = columns.find(({ ask, name: own }) => ask === name || own === name);
  return (column?.examples ?? [])
    .filter((value) => value.toLowerCase().startsWith(typed))
    .map((value) => ({ text: quoted(value), about: "" }));
}

function about(column: Column): string {
  const place = { field: "", summary: "result", config: "setting" }[column.place];
  const some = column.distinct > 1 ? `${column.distinct} values` : (column.examples[0] ?? "");
  return [place, some].filter(Boolean).join(", ");
}
