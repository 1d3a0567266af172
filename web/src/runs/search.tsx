// The field for the filter: completes names and values, says what is wrong, shows examples.

import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import type { Column } from "../types/runs.ts";
import { Popover } from "./popover.tsx";
import { asSearch, type Completion, complete } from "./words.ts";

const WAIT_MS = 450; // after the last key, before what was typed is asked

const EXAMPLES = [
  ["status=running", "runs that live"],
  ["val_loss<1.5 and arm=wave", "both must hold"],
  ["train.optimizer.lr<=1e-3", "a setting, by its dotted name"],
  ["name~gpt", "the name holds a text"],
  ["seed in [1,2] and not tags=slow", "one of some, and without a tag"],
  ["created>2026-11-01", "begun after a day (UTC)"],
  ["val_loss=none", "runs without the number"],
  ["config.seed=3 or summary.step>100", "where a setting or a result is called like a field"],
] as const;

export function Search(props: {
  value: string;
  columns: readonly Column[];
  error: string | null;
  onChange: (where: string) => void;
  onFocus: () => void;
}) {
  const text = useSignal(props.value);
  const found = useSignal<Completion | null>(null);
  const chosen = useSignal(-1);
  const input = useRef<HTMLInputElement>(null);
  const timer = useRef<ReturnType<typeof setTimeout> | undefined>(undefined);
  const given = useRef(props.value);

  useEffect(() => {
    if (props.value !== given.current) text.value = given.current = props.value; // by the address
  }, [props.value]);
  useEffect(() => () => clearTimeout(timer.current), []);

  const apply = () => {
    clearTimeout(timer.current);
    given.current = text.value.trim();
    props.onChange(given.current);
  };
  const write = (value: string, caret = value.length) => {
    text.value = value;
    clearTimeout(timer.current);
    timer.current = setTimeout(apply, WAIT_MS);
    found.value = complete(value, caret, props.columns);
    chosen.value = -1;
  };
  const take = (at: number) => {
    const { from, to, options } = found.value!;
    const next = text.value.slice(0, from) + options[at]!.text;
    write(next + text.value.slice(to), next.length);
    found.value = null;
    queueMicrotask(() => {
      input.current?.focus();
      input.current?.setSelectionRange(next.length, next.length);
    });
  };
  const key = (event: KeyboardEvent) => {
    const options = found.value?.options ?? [];
    const caret = input.current?.selectionStart ?? text.value.length;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (!found.value) found.value = complete(text.value, caret, props.columns);
      const count = found.value?.options.length ?? 0;
      if (count) chosen.value = (chosen.value + (event.key === "ArrowDown" ? 1 : count) + count) % count;
    } else if ((event.key === "Enter" || event.key === "Tab") && chosen.value >= 0 && options.length) {
      event.preventDefault();
      take(chosen.value);
    } else if (event.key === "Tab" && !event.shiftKey && options.length && found.value!.to > found.value!.from) {
      event.preventDefault();
      take(0);
    } else if (event.key === "Enter") {
      found.value = null;
      apply();
    } else if (event.key === "Escape" && found.value) {
      event.preventDefault();
      found.value = null;
    }
  };
  const other = props.error ? asSearch(text.value) : null;
  return (
    <div class="search">
      <div class="row nowrap-row">
        <div class="field grow">
          <input
            type="text"
            ref={input}
            value={text.value}
            placeholder="Filter: val_loss<1.5 and arm=wave"
            aria-label="Filter of runs"
            autocomplete="off"
            autocapitalize="off"
            spellcheck={false}
            role="combobox"
            aria-expanded={found.value !== null}
            aria-controls="completions"
            aria-autocomplete="list"
            aria-invalid={props.error !== null}
            aria-describedby={props.error ? "search-error" : undefined}
            aria-activedescendant={chosen.value >= 0 ? `completion-${chosen.value}` : undefined}
            onInput={(event) => write(event.currentTarget.value, event.currentTarget.selectionStart ?? undefined)}
            onKeyDown={key}
            onFocus={props.onFocus}
            onBlur={() => {
              found.value = null;
            }}
          />
          <ul id="completions" role="listbox" aria-label="Completions" hidden={!found.value}>
            {found.value?.options.map((option, at) => (
              <li
                key={option.text}
                id={`completion-${at}`}
                role="option"
                aria-selected={at === chosen.value}
                onPointerDown={(event) => {
                  event.preventDefault();
                  take(at);
                }}
              >
                <code>{option.text}</code> <span class="faint">{option.about}</span>
              </li>
            ))}
          </ul>
        </div>
        <Popover label="How to filter" text="Help" plain>
          <p>
            A comparison is a name, one of <code>= != &lt; &lt;= &gt; &gt;= ~ !~ in</code>, and a value.
            Join them by <code>and</code>, <code>or</code>, <code>not</code> and parentheses.
          </p>
          <ul class="examples">
            {EXAMPLES.map(([example, about]) => (
              <li key={example}>
                <button type="button" class="plain" onClick={() => write(example)}>
                  <code>{example}</code>
                </button>
                <span class="faint">{about}</span>
              </li>
            ))}
          </ul>
        </Popover>
      </div>
      {props.error && !found.value && (
        <p class="row search-error" id="search-error" role="alert">
          <span>{props.error}</span>
          {other && (
            <button type="button" onClick={() => write(other)}>
              Search the names: <code>{other}</code>
            </button>
          )}
        </p>
      )}
    </div>
  );
}
