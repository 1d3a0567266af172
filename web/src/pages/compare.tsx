// Some runs side by side: how they stand, what was set differently, what they came to, their curves.

import { useSignal } from "@preact/signals";
import { useEffect, useMemo, useRef } from "preact/hooks";
import type { PageProps } from "../app.tsx";
import { duration } from "../core/format.ts";
import { get, unlocked, useLive } from "../core/live.ts";
import { go, path, query, set, to } from "../core/url.ts";
import { ChartsOf, useMetrics } from "../parts/charts.tsx";
import { Choice, Empty, Link, Loading, Problem, Status } from "../parts/parts.tsx";
import { called } from "../runs/called.ts";
import { Line, shown } from "../runs/cells.tsx";
import type { Cell, Comparison, MetricLine, RunsState, TableRow } from "../types/runs.ts";

const VIEWS = [
  ["all", "All"],
  ["settings", "Settings"],
  ["metrics", "Numbers"],
  ["charts", "Charts"],
] as const;
const REFRESH_MS = 2000;

export default function Compare(_: PageProps) {
  const keys = useMemo(() => [...new Set(query.value.getAll("run"))], [query.value]);
  const found = useSignal<Comparison | null>(null);
  const error = useSignal<string | null>(null);
  const again = useSignal(0);
  const renew = useRef<(() => void) | null>(null);
  const state = useLive<RunsState>({ kind: "runs" });
  const content = state.data.value?.content;
  const view = query.value.get("view") ?? "all";
  const shows = (part: string) => view === "all" || view === part;
  const metrics = useMetrics(shows("charts") ? keys : []); // while the runs are put side by side
  const open = unlocked.value === "yes";
  const asked = keys.map((key) => `run=${encodeURIComponent(key)}`).join("&");
  // One question at a time; what changes meanwhile is asked for once, two seconds after the last one.
  useEffect(() => {
    if (!asked || !open) return undefined;
    const abort = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    let busy = false;
    let due = false;
    let last = 0;
    let taken = false;
    const ask = async () => {
      [busy, due, last] = [true, false, performance.now()];
      try {
        const next = await get<Comparison>(`/api/v1/compare?${asked}`, abort.signal);
        if (abort.signal.aborted) return;
        taken = true;
        if (next.content !== found.peek()?.content) found.value = next;
        error.value = null;
      } catch (why) {
        if (abort.signal.aborted) return;
        if (!taken) found.value = null; // it is of other runs
        error.value = (why as Error).message;
        due = true;
      }
      busy = false;
      if (due) later();
    };
    const later = () => {
      clearTimeout(timer);
      due = true;
      if (!busy) timer = setTimeout(ask, Math.max(0, last + REFRESH_MS - performance.now()));
    };
    renew.current = later;
    void ask();
    return () => {
      renew.current = null;
      clearTimeout(timer);
      abort.abort();
    };
  }, [asked, open, again.value]);
  useEffect(() => {
    if (content !== undefined) renew.current?.();
  }, [content]);
  if (!keys.length) return <Empty text="No runs were chosen. Select some in the table of runs, and press Compare." />;
  if (error.value && !found.value) return <Problem text={error.value} again={() => again.value++} />;
  const data = found.value;
  if (!data) return <Loading what="Putting the runs side by side" />;
  return (
    <div class="stack compare">
      <div class="row">
        <h1 class="grow">{data.runs.length === 1 ? "One run" : `${data.runs.length} runs side by side`}</h1>
        {keys.length === 2 && (
          <Link to={`/models?a=${encodeURIComponent(keys[0]!)}&b=${encodeURIComponent(keys[1]!)}`}>
            Their models
          </Link>
        )}
        <Choice label="What is shown" options={VIEWS} value={view as "all"} onChange={(next) => set({ view: next === "all" ? null : next })} />
      </div>
      {error.value && <Problem text={error.value} again={() => again.value++} />}
      {(view !== "charts" || data.runs.length === 1) && <Cards runs={data.runs} keys={keys} names={labels(data.runs)} />}
      {shows("settings") && <Settings data={data} />}
      {shows("metrics") && <Metrics data={data} />}
      {shows("charts") && (
        <section class="stack" aria-label="Charts">
          <ChartsOf runs={keys} labels={labels(data.runs)} live={metrics} />
        </section>
      )}
    </div>
  );
}

function Cards(props: { runs: TableRow[]; keys: string[]; names: Record<string, string> }) {
  const without = (key: string) => {
    const next = new URLSearchParams(query.value);
    next.delete("run");
    for (const other of props.keys) if (other !== key) next.append("run", other);
    go(`${path.value}?${next}`, "replace");
  };
  return (
    <ul class="sides">
      {props.runs.map((run, n) => {
        const name = props.names[run.key]!;
        return (
          <li class="panel" key={run.key}>
            <div class="row nowrap-row">
              <Line n={n} />
              <Link to={to.run(run.key)} class="clip grow" title={run.key}>{name}</Link>
              <button type="button" class="plain icon" aria-label={`Leave ${name} out`} title="Leave this run out" onClick={() => without(run.key)}>✕</button>
            </div>
            <p class="faint clip of" title={run.key}>{run.key.replace("/", " / ")}</p>
            <div class="row how">
              <Status of={run.status} title={run.problem ?? undefined} />
              <span class="faint">step {run.step ?? "–"}, {duration(typeof run.seconds === "number" ? run.seconds : null)}</span>
            </div>
            {run.problem && <p class="notice bad">{run.problem}</p>}
            {run.tags.length > 0 && <p class="faint clip">{run.tags.join(", ")}</p>}
          </li>
        );
      })}
    </ul>
  );
}

function Heads(props: { runs: TableRow[]; names: Record<string, string>; first: string }) {
  return (
    <thead>
      <tr>
        <th scope="col" class="first">{props.first}</th>
        {props.runs.map((run, n) => (
          <th scope="col" key={run.key}>
            <span class="row nowrap-row" title={run.key}><Line n={n} /><span class="clip">{props.names[run.key]}</span></span>
          </th>
        ))}
      </tr>
    </thead>
  );
}

function Settings(props: { data: Comparison }) {
  const { runs, differ, equal } = props.data;
  const names = labels(runs);
  const all = useSignal(false);
  return (
    <section class="stack" aria-label="Settings">
      <div class="row">
        <h2 class="grow">
          {differ.length ? `${differ.length} ${differ.length === 1 ? "setting differs" : "settings differ"}` : runs.length > 1 ? "No setting differs" : "Settings"}
        </h2>
        {differ.length > 0 && <span class="faint">marked: not as in the first run</span>}
        {equal.length > 0 && (
          <button type="button" class="plain" aria-pressed={all.value} onClick={() => { all.value = !all.value; }}>
            {all.value ? "Hide" : "Show"} {equal.length} that are equal
          </button>
        )}
      </div>
      {(differ.length > 0 || all.value) && (
        <div class="scroll panel" tabIndex={0} role="region" aria-label="Table of settings">
          <table class="plain-table beside">
            <Heads runs={runs} names={names} first="setting" />
            <tbody>
              {differ.map((setting) => (
                <tr key={setting.name}>
                  <th scope="row" class="first" title={setting.name}>{setting.name}</th>
                  {setting.values.map((value, at) => (
                    <td key={runs[at]!.key} class={sameAsFirst(setting.values, setting.there, at) ? "" : "differs"}>
                      {setting.there[at] ? setText(value as Cell) : <span class="faint">not set</span>}
                    </td>
                  ))}
                </tr>
              ))}
              {all.value && equal.map(({ name, value }) => (
                <tr key={name} class="soft">
                  <th scope="row" class="first" title={name}>{name}</th>
                  {runs.map((run) => <td key={run.key}>{setText(value as Cell)}</td>)}
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </section>
  );
}

/** A setting as it was written; null is one, too. */
const setText = (value: Parameters<typeof shown>[0]) => (value === null ? "null" : shown(value, { ask: "", place: "config" }));

function sameAsFirst(values: unknown[], there: boolean[], at: number): boolean {
  return at === 0 || (there[at] === there[0] && JSON.stringify(values[at]) === JSON.stringify(values[0]));
}

function Metrics(props: { data: Comparison }) {
  const { runs, metrics } = props.data;
  const names = labels(runs);
  if (!metrics.length) return <Empty text="None of these runs has logged a number yet." />;
  return (
    <section class="stack" aria-label="Numbers">
      <h2>What they came to</h2>
      <div class="scroll panel" tabIndex={0} role="region" aria-label="Table of metrics">
        <table class="plain-table beside">
          <Heads runs={runs} names={names} first="metric" />
          <tbody>
            {metrics.map((line) => (
              <tr key={`${line.name} ${line.statistic}`}>
                <th scope="row" class="first" title={line.name}>
                  {line.name} <span class="faint">{told(line)}</span>
                  {line.unlike && <span class="unlike" title={line.unlike}>≠ {line.unlike}</span>}
                </th>
                {line.values.map((value, at) => (
                  <td key={runs[at]!.key} class={`number${line.best.includes(at) ? " best" : ""}`}>
                    {shown(value)}
                    {line.best.includes(at) && <span class="star" title="the best of these"> ★<span class="unseen">best</span></span>}
                    {line.steps[at] !== null && line.steps[at] !== undefined && <small> @ {line.steps[at]!.toLocaleString("en-US")}</small>}
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}

function told(line: MetricLine): string {
  const goal = line.goal === "min" ? ", less is better" : line.goal === "max" ? ", more is better" : "";
  return line.statistic + goal;
}

/** Names, with what tells runs of one name apart; the whole key where nothing shorter does. */
function labels(runs: TableRow[]): Record<string, string> {
  const names = runs.map((run) => called(run));
  const counted = (texts: string[]) => {
    const counts = new Map<string, number>();
    for (const text of texts) counts.set(text, (counts.get(text) ?? 0) + 1);
    return (text: string) => counts.get(text) === 1;
  };
  const own = counted(names.map(({ name }) => name));
  const longer = names.map(({ name, id }, n) => (own(name) ? name : `${name} ${id || runs[n]!.project}`));
  const apart = counted(longer);
  return Object.fromEntries(runs.map((run, n) => [run.key, apart(longer[n]!) ? longer[n]! : run.key]));
}
