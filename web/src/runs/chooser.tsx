// Which columns are shown: fields, results, settings, with how many values each of them has.

import { useSignal } from "@preact/signals";
import type { Column } from "../types/runs.ts";
import { Popover } from "./popover.tsx";

const PLACES = [
  ["summary", "Results"],
  ["config", "Settings"],
  ["field", "Of the run"],
] as const;
const HIDDEN = new Set(["id", "name", "problem"]); // they stand in the first column
const MOST = 300; // shown at once; typing narrows them

export function Chooser(props: {
  columns: readonly Column[];
  total: number;
  chosen: readonly string[];
  onChange: (columns: string[] | null) => void;
  onOpen: () => void;
}) {
  const typed = useSignal("");
  const wanted = typed.value.toLowerCase();
  const found = props.columns.filter(
    (column) => !(column.place === "field" && HIDDEN.has(column.name)) && column.ask.toLowerCase().includes(wanted),
  );
  return (
    <Popover label="Columns" text={`Columns · ${props.chosen.length}`} onOpen={props.onOpen}>
      <div class="chooser stack">
        <div class="row nowrap-row">
          <input
            type="search"
            aria-label="Find a column"
            placeholder="Find a column"
            value={typed.value}
            onInput={(event) => {
              typed.value = event.currentTarget.value;
            }}
          />
          <button type="button" class="plain" onClick={() => props.onChange(null)}>
            Usual ones
          </button>
        </div>
        <div class="scroll">
          {PLACES.map(([place, title]) => {
            const own = found.filter((column) => column.place === place).slice(0, MOST);
            return own.length ? (
              <fieldset key={place}>
                <legend>{title}</legend>
                {own.map((column) => (
                  <label class="check" key={column.ask}>
                    <input
                      type="checkbox"
                      checked={props.chosen.includes(column.ask)}
                      onChange={(event) => props.onChange(event.currentTarget.checked
                        ? [...props.chosen, column.ask]
                        : props.chosen.filter((name) => name !== column.ask))}
                    />
                    <span class="grow clip" title={column.ask}>{column.ask}</span>
                    <span class="faint nowrap">{extent(column, props.total)}</span>
                  </label>
                ))}
              </fieldset>
            ) : null;
          })}
          {!found.length && <p class="soft">No column is called that.</p>}
        </div>
      </div>
    </Popover>
  );
}

function extent(column: Column, total: number): string {
  const values = column.distinct > 1 ? `${column.distinct >= 100 ? "100+" : column.distinct} values` : "one value";
  return column.runs < total ? `${values}, ${column.runs} runs` : values;
}

/** Whether runs are set differently in a setting: another value, or none. */
export function differs(column: Column, total: number): boolean {
  return column.place === "config" && (column.distinct > 1 || column.runs < total);
}

const LOSSES = ["val_loss", "loss", "train_loss"];

/** What is shown unless somebody chose: state, what runs came to, when, how long. */
export function usualColumns(columns: readonly Column[]): string[] {
  const results = columns.filter((column) => column.place === "summary" && column.kind === "number");
  const rank = ({ name }: Column) => {
    const last = name.split("/").pop()!.toLowerCase();
    const known = LOSSES.indexOf(last);
    if (known >= 0) return known;
    return last.includes("loss") ? 3 : /acc|score|ppl|reward/.test(last) ? 4 : 9;
  };
  const main = results.filter((column) => rank(column) < 9);
  main.sort((a, b) => rank(a) - rank(b) || b.runs - a.runs);
  const metrics = (main.length ? main : results).slice(0, 3).map((column) => column.ask);
  const some = ["study", "arm", "seed"].filter((name) => columns.some((c) => c.ask === name && c.place === "field"));
  const tags = columns.some((column) => column.ask === "tags") ? ["tags"] : [];
  return ["status", ...some, ...metrics, "step", "seconds", "created", ...tags];
}
