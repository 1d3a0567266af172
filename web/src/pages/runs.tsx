// The table of all runs: filtered, sorted, grouped, compared. What is seen is in the address.

import { type Signal, useSignal } from "@preact/signals";
import { useEffect, useMemo, useRef } from "preact/hooks";
import type { PageProps } from "../app.tsx";
import { connection, get, useFetched, useLive } from "../core/live.ts";
import { query, set, to } from "../core/url.ts";
import { Empty, Link, Loading, Problem } from "../parts/parts.tsx";
import { Chooser, differs, usualColumns } from "../runs/chooser.tsx";
import { Grid } from "../runs/grid.tsx";
import { useMedia } from "../runs/media.ts";
import { type Question, Rows } from "../runs/rows.ts";
import { Search } from "../runs/search.tsx";
import { listed, unlisted } from "../runs/selection.ts";
import type { Column, Columns, RunsState } from "../types/runs.ts";

const REFRESH_MS = 1000;
const FEW = 500; // runs
const COLUMNS_MS = 3_000;
const COLUMNS_OF_MANY_MS = 30_000; // counting their values takes a while
const MOST_DIFFERENCES = 30; // columns

export default function Runs(_: PageProps) {
  const phone = useMedia("(max-width: 600px)");
  const touch = useMedia("(pointer: coarse)");
  const rows = useMemo(() => new Rows(get), []);
  const asked = query.value;
  const [where, sort, project, group] = ["where", "sort", "project", "group"].map((name) => asked.get(name) ?? "") as [string, string, string, string];
  const differences = asked.get("differ") === "1";
  const selected = unlisted(asked.get("selected"));
  const state = useLive<RunsState>({ kind: "runs" });
  const opened = useSignal(0); // a menu that wants to know of new columns
  const of = new URLSearchParams(project ? { project } : {});
  const known = useFetched<Columns>(`/api/v1/columns?${of}`, opened.value);
  const narrowed = useFetched<Columns>(differences && where ? `/api/v1/columns?${of}&where=${encodeURIComponent(where)}` : null, opened.value);

  const all = known.data.value;
  const chosen = asked.has("columns") ? unlisted(asked.get("columns")) : all && usualColumns(all.columns);
  const apart = differences ? ((where ? narrowed.data.value : null) ?? all) : null;
  const columns = useMemo(
    () => shownColumns(chosen ?? [], all?.columns ?? [], apart),
    [chosen?.join("\n"), all, apart],
  );
  const question: Question = { where, sort, project, group, columns: columns.map((column) => column.ask) };
  useEffect(() => {
    if (all) rows.ask(question);
  }, [JSON.stringify(question), all !== null]);
  useEffect(() => () => rows.stop(), []);
  useRefresh(rows, state.data.value?.content);
  useNewColumns(opened, state.data.value);
  const live = connection.link.value.state === "live";
  useEffect(() => {
    if (!live) return;
    if (rows.error.peek()) rows.changed(); // the server is back
    if (known.error.peek()) opened.value++;
  }, [live]);

  const outline = rows.outline.value;
  const total = state.data.value?.total ?? outline?.total;
  if (known.error.value && !all) return <Problem text={known.error.value} again={() => opened.value++} />;
  if (!all || total === undefined) return <Loading what="Reading the runs" />;
  if (total === 0) return <NoRuns />;
  const projects = Object.keys(state.data.value?.projects ?? {}).sort();
  const choose = (keys: string[]) => set({ selected: keys.length ? listed(keys) : null });
  return (
    <div class="runs-page">
      <div class="tools">
        <h1 class="unseen">Runs</h1>
        <Search
          value={where}
          columns={all.columns}
          error={rows.error.value}
          onChange={(text) => set({ where: text || null })}
          onFocus={() => opened.value++}
        />
        <div class="row">
          {(projects.length > 1 || project) && (
            <label class="row nowrap-row">
              <span class={phone ? "unseen" : "soft"}>Project</span>
              <select value={project} onChange={(event) => set({ project: event.currentTarget.value || null, sort: null, group: null })}>
                <option value="">all projects</option>
                {[...new Set([...projects, ...(project ? [project] : [])])].map((name) => (
                  <option key={name} value={name}>{name}</option>
                ))}
              </select>
            </label>
          )}
          <label class="row nowrap-row">
            <span class={phone ? "unseen" : "soft"}>Group by</span>
            <select value={group} onChange={(event) => set({ group: event.currentTarget.value || null })}>
              <option value="">{phone ? "not grouped" : "nothing"}</option>
              {groupable(all, group).map((name) => <option key={name} value={name}>{name}</option>)}
            </select>
          </label>
          {phone && (
            <label class="row nowrap-row">
              <span class="unseen">Sort</span>
              <select value={sort} onChange={(event) => set({ sort: event.currentTarget.value || null })}>
                <option value="">newest first</option>
                {columns.flatMap(({ ask }) => [[ask, `${ask} ▲`], [`-${ask}`, `${ask} ▼`]]).map(([name, text]) => (
                  <option key={name} value={name}>{text}</option>
                ))}
              </select>
            </label>
          )}
          <Chooser
            columns={all.columns}
            total={all.total}
            chosen={chosen ?? []}
            onChange={(names) => set({ columns: names && (names.length ? listed(names) : "status") })}
            onOpen={() => opened.value++}
          />
          <button type="button" aria-pressed={differences} title="Show the settings in which these runs differ, and mark what most of them do not have" onClick={() => set({ differ: differences ? null : "1" })}>
            Differences
          </button>
          <span class="grow" />
          <Counts matched={outline?.matched} total={outline?.total} by={outline?.by_status ?? {}} />
        </div>
        {selected.length > 0 && (
          <div class="row chosen" role="status">
            <strong>{selected.length} selected</strong>
            <Link class="button" to={to.compare(selected)}>
              {selected.length > 1 ? `Compare ${selected.length} runs` : "Look beside others"}
            </Link>
            <Link class="button" to={`${to.compare(selected)}&view=charts`} aria-label="Show charts">{phone ? "Charts" : "Show charts"}</Link>
            <button type="button" class="plain" onClick={() => choose([])}>Clear</button>
          </div>
        )}
        {(outline?.unknown.length ?? 0) > 0 && (
          <p class="faint">No run here has {outline!.unknown.join(", ")}.</p>
        )}
      </div>
      {outline === null && !rows.error.value && <Loading what="Reading the runs" />}
      {outline !== null && outline.matched > 0 && (
        <Grid
          rows={rows}
          columns={columns}
          sort={sort}
          selected={selected}
          differences={differences}
          phone={phone}
          touch={touch}
          grouped={group}
          project={project || (projects.length === 1 ? projects[0]! : "")}
          question={[where, sort, project, group].join("\n")}
          onSort={(next) => set({ sort: next || null })}
          onSelect={choose}
        />
      )}
      {outline?.matched === 0 && (
        <Empty text={`None of ${outline.total.toLocaleString("en-US")} runs is meant by that.`}>
          <p><button type="button" onClick={() => set({ where: null })}>Show all</button></p>
        </Empty>
      )}
    </div>
  );
}

/** Ask for the columns again while runs change: a run that has just begun has few. */
function useNewColumns(asked: Signal<number>, state: RunsState | null): void {
  const last = useRef(Date.now());
  useEffect(() => {
    if (!state) return undefined;
    const every = state.total < FEW ? COLUMNS_MS : COLUMNS_OF_MANY_MS;
    const timer = setTimeout(() => {
      last.current = Date.now();
      asked.value++;
    }, Math.max(0, last.current + every - Date.now()));
    return () => clearTimeout(timer);
  }, [state?.content]);
}

/** Fetch what is in view again when the runs have changed, at most once a second. */
function useRefresh(rows: Rows, content: string | undefined): void {
  const before = useSignal<{ content: string | undefined; at: number }>({ content, at: 0 });
  useEffect(() => {
    const known = before.peek();
    if (content === undefined || content === known.content) return undefined;
    if (known.content === undefined) {
      before.value = { content, at: Date.now() }; // the first one says what was fetched anyway
      return undefined;
    }
    const wait = Math.max(0, known.at + REFRESH_MS - Date.now());
    const timer = setTimeout(() => {
      before.value = { content, at: Date.now() };
      rows.changed();
    }, wait);
    return () => clearTimeout(timer);
  }, [content]);
}

/** The columns that were chosen, and with `apart` the settings that differ there. */
function shownColumns(chosen: string[], all: readonly Column[], apart: Columns | null): Column[] {
  const by = new Map(all.map((column) => [column.ask, column]));
  const more = apart ? apart.columns.filter((column) => differs(column, apart.total)).slice(0, MOST_DIFFERENCES) : [];
  const [first, ...rest] = chosen;
  const names = new Set([...(first ? [first] : []), ...more.map((column) => column.ask), ...rest]);
  names.delete("name");
  return [...names].map((ask) => by.get(ask) ?? { name: ask, place: "summary", ask, kind: "text", runs: 0, distinct: 0, examples: [] });
}

/** What is worth grouping by: of few values, and not each run its own. */
function groupable(all: Columns, group: string): string[] {
  const fields = ["arm", "study", "status", "project", "name", "group", "seed", "tags"];
  const found = all.columns.filter(
    ({ place, name, distinct, runs }) =>
      (place === "field" ? fields.includes(name) : place === "config" && distinct > 1 && distinct < Math.min(100, runs)),
  );
  found.sort((a, b) => Number(a.place !== "field") - Number(b.place !== "field"));
  const names = found.map((column) => column.ask);
  return group && !names.includes(group) ? [group, ...names] : names;
}

function Counts(props: { matched?: number; total?: number; by: Record<string, number> }) {
  if (props.matched === undefined) return null;
  const [matched, total] = [props.matched, props.total ?? 0].map((count) => count.toLocaleString("en-US"));
  const by = Object.entries(props.by).map(([status, count]) => `${count.toLocaleString("en-US")} ${status}`);
  return (
    <p class="faint counts" role="status">
      {matched === total ? `${total} runs` : `${matched} of ${total} runs`}
      {by.length > 0 && `: ${by.join(", ")}`}
    </p>
  );
}

function NoRuns() {
  return (
    <Empty text="There are no runs yet. Start one:" type="cupel run gpt-tiny">
      <p>or, in a training script of your own:</p>
      <code class="lines">{`import cupel\ncupel.init("my-project", config={"lr": 1e-3})\ncupel.log({"loss": loss})   # once a step`}</code>
      <p>They appear here by themselves.</p>
    </Empty>
  );
}
