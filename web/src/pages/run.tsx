// One run: how it stands, its curves, and in further tabs its configuration, media, texts, sessions.

import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import type { PageProps } from "../app.tsx";
import { ago, bytes, duration, grouped, number, time } from "../core/format.ts";
import { connection, useFetched, useLive } from "../core/live.ts";
import { memory } from "../core/memory.ts";
import { query, rest, set, to } from "../core/url.ts";
import { ChartGrid } from "../parts/charts.tsx";
import { RunMedia } from "../parts/media.tsx";
import { Fact, Link, Loading, Menu, Problem, Status } from "../parts/parts.tsx";
import type { RunState } from "../types/run.ts";

const TABS = [
  ["charts", "Charts"],
  ["config", "Configuration"],
  ["media", "Media"],
  ["console", "Console"],
  ["sessions", "Sessions"],
  ["anomalies", "Anomalies"],
] as const;

export default function RunPage({ params }: PageProps) {
  const key = params.join("/");
  const live = useLive<RunState>({ kind: "run", run: key });
  const tab = query.value.get("tab") ?? "charts";
  if (live.error.value) return <Problem text={live.error.value} />;
  const state = live.data.value;
  return (
    <div class="stack">
      {state ? <Head state={state} run={key} /> : <Loading what="Reading the run" />}
      <nav class="tabs" aria-label="Parts of the run">
        {TABS.map(([name, text]) => (
          <button type="button" key={name} class="plain" aria-current={tab === name ? "page" : undefined}
            onClick={() => set({ tab: name === "charts" ? null : name })}>
            {text}
            {name === "anomalies" && state && state.anomalies > 0 ? ` (${grouped(state.anomalies)})` : ""}
          </button>
        ))}
        <Link to={to.model(key)} class="tab-link">
          Model
        </Link>
        <span class="grow" />
        <Menu text="Export">
          <a class="button plain" href={rest(key, "/export.csv")} download>
            All numbers as CSV
          </a>
          <a class="button plain" href={rest(key, "/export.json")} download>
            All numbers as JSON
          </a>
          <a class="button plain" href={rest(key, "/snapshot.html")} download>
            Snapshot: one HTML file
          </a>
        </Menu>
      </nav>
      {tab === "charts" && <ChartGrid runs={[key]} />}
      {tab === "config" && <Configuration run={key} />}
      {tab === "media" && <RunMedia run={key} />}
      {tab === "console" && <Console run={key} version={state?.last_line} />}
      {tab === "sessions" && state && <Sessions state={state} />}
      {tab === "anomalies" && <Anomalies run={key} version={state?.anomalies} />}
      <p class="faint">
        Charts hold {bytes(memory.value.charts)}
        {memory.value.heap === null ? "" : ` of ${bytes(memory.value.heap)} in this tab`}
        {memory.value.coarser > 1 ? `; detail reduced ${memory.value.coarser}× to stay below 512 MiB` : ""}.
      </p>
    </div>
  );
}

function Head(props: { state: RunState; run: string }) {
  const { state } = props;
  const clock = useSignal(Date.now());
  useEffect(() => {
    const timer = setInterval(() => {
      clock.value = Date.now();
    }, 1000);
    return () => clearInterval(timer);
  }, []);
  const now = clock.value / 1000 + connection.ahead;
  const done = state.steps && state.step ? Math.min(1, state.step / state.steps) : null;
  return (
    <header class="stack">
      <div class="row">
        <h1>{state.name ?? state.id}</h1>
        <Status of={state.status} text={liveWord(state)} title={state.why ?? ""} />
        {state.study && (
          <Link to={to.study(`${state.project}/${state.study}`)}>
            {state.study}
            {state.arm ? ` · ${state.arm}` : ""}
          </Link>
        )}
        {state.tags.map((tag) => (
          <span class="tag" key={tag}>
            {tag}
          </span>
        ))}
      </div>
      <p class="faint mono">{props.run}</p>
      {state.why && state.status !== "finished" && <p class="notice warn">{state.why}</p>}
      {state.damaged_lines > 0 && (
        <p class="notice warn">
          {grouped(state.damaged_lines)} lines of this run cannot be read. Everything else is shown; type{" "}
          <code>cupel runs verify {state.id}</code> to see which.
        </p>
      )}
      {done !== null && state.status !== "finished" && (
        <Bar done={done} label={`step ${grouped(state.step ?? 0)} of ${grouped(state.steps ?? 0)}`} />
      )}
      <dl class="facts">
        <Fact name="Step">
          {number(state.step)}
          <small>{state.steps ? `of ${grouped(state.steps)}` : "of an unknown number"}</small>
        </Fact>
        <Fact name={state.headline ?? "Loss"} title="The last value; below, the mean of the newest window">
          {number(state.current)}
          <small>mean {number(state.average)}</small>
        </Fact>
        <Fact name={`Least ${state.headline ?? ""}`}>
          {number(state.best)}
          <small>{state.best_step === null ? "" : `at step ${grouped(state.best_step)}`}</small>
        </Fact>
        <Fact name="Trend" title="Theil–Sen slope over the newest window, with a noise test">
          {state.trend ? state.trend.label : "—"}
          <small>{state.trend ? `steps ${number(state.trend.low)} to ${number(state.trend.high)}` : "too few points"}</small>
        </Fact>
        <Fact name="Speed" title="Without pauses; below, over everything">
          {speed(state.throughput)}
          <small>
            {state.throughput_unit}
            {state.pace && state.pace.pauses > 0
              ? `; ${state.pace.pauses} pauses, ${duration(Number(state.pace.paused_s))}`
              : ""}
          </small>
        </Fact>
        <Fact name="Time left" title="Middle, and a 90 % interval">
          {state.status !== "running" ? "—" : state.eta ? duration(Number(state.eta.middle)) : "—"}
          <small>
            {state.status === "running" && state.eta
              ? `${duration(Number(state.eta.low))} to ${duration(Number(state.eta.high))}`
              : state.status === "running"
                ? "not known yet"
                : "not running"}
          </small>
        </Fact>
        <Fact name="Last number" title="When a line was logged last, by the clock of the run's machine">
          {state.last_line === null ? "—" : ago(Math.max(0, now - state.last_line))}
          <small>{time(state.last_line)}</small>
        </Fact>
        <Fact name="Process" title="Whether the training process lives; that says nothing of its progress">
          {state.alive ? "alive" : "ended"}
          <small>
            session {state.session}
            {state.heartbeat !== null && state.alive ? `, seen ${ago(Math.max(0, now - state.heartbeat))}` : ""}
          </small>
        </Fact>
      </dl>
      {state.notes && <p class="notice">{state.notes}</p>}
    </header>
  );
}

/** A speed: no decimals where they would be noise. */
function speed(value: RunState["throughput"]): string {
  if (typeof value !== "number") return number(value);
  return value >= 100 ? grouped(Math.round(value)) : number(value, 3);
}

/** A run that has gone silent never looks live. */
function liveWord(state: RunState): string {
  return state.status === "running" ? "training" : state.status;
}

export function Bar(props: { done: number; label: string }) {
  return (
    <div class="progress" role="progressbar" aria-label={props.label}
      aria-valuemin={0} aria-valuemax={100} aria-valuenow={Math.round(props.done * 100)}>
      <span style={{ width: `${props.done * 100}%` }} />
      <small>
        {props.label} · {Math.floor(props.done * 100)} %
      </small>
    </div>
  );
}

type Detail = { config: Record<string, unknown>; flat?: Record<string, unknown>; origins?: Record<string, string> };

function Configuration(props: { run: string }) {
  const { data, error } = useFetched<Detail>(rest(props.run));
  const wanted = useSignal("");
  if (error.value) return <Problem text={error.value} />;
  if (!data.value) return <Loading what="Reading the configuration" />;
  const rows = Object.entries(flat(data.value.config)).filter(([name, value]) =>
    `${name} ${JSON.stringify(value)}`.toLowerCase().includes(wanted.value.toLowerCase()),
  );
  const origins = data.value.origins ?? {};
  const known = [...new Set(Object.keys(flat(data.value.config)).map((name) => origins[name] ?? ""))];
  const source = known.length === 1 ? known[0] : null; // else each line says its own
  return (
    <section class="stack" aria-label="Configuration">
      <input type="search" placeholder="setting or value …" aria-label="Only settings that contain"
        value={wanted.value} onInput={(event) => { wanted.value = event.currentTarget.value; }} />
      {source && <p class="faint">all from {source}</p>}
      <div class="scroll" tabIndex={0} role="region" aria-label="Table">
        <table class="plain-table">
          <thead>
            <tr>
              <th scope="col">setting</th>
              <th scope="col">value</th>
              {source === null && <th scope="col">from</th>}
            </tr>
          </thead>
          <tbody>
            {rows.map(([name, value]) => (
              <tr key={name}>
                <td class="mono">{name}</td>
                <td class="mono">{typeof value === "string" ? value : JSON.stringify(value)}</td>
                {source === null && <td class="faint">{origins[name] ?? ""}</td>}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {!rows.length && <p class="empty">No setting matches.</p>}
    </section>
  );
}

function flat(config: Record<string, unknown>, before = ""): Record<string, unknown> {
  const found: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(config)) {
    if (value && typeof value === "object" && !Array.isArray(value) && Object.keys(value).length) {
      Object.assign(found, flat(value as Record<string, unknown>, `${before}${name}.`));
    } else found[before + name] = value;
  }
  return found;
}

function Console(props: { run: string; version: unknown }) {
  const { data, error } = useFetched<{ lines: string[] }>(rest(props.run, "/console?last=500"), props.version);
  if (error.value) return <Problem text={error.value} />;
  if (!data.value) return <Loading what="Reading what was printed" />;
  if (!data.value.lines.length) return <p class="empty">This run printed nothing.</p>;
  return (
    <section aria-label="The last 500 lines that were printed">
      <pre class="panel console" tabIndex={0}>{data.value.lines.join("\n")}</pre>
    </section>
  );
}

function Sessions(props: { state: RunState }) {
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label="Table">
      <table class="plain-table">
        <thead>
          <tr>
            <th scope="col">session</th>
            <th scope="col">status</th>
            <th scope="col">went on from step</th>
            <th scope="col">started</th>
            <th scope="col">took</th>
            <th scope="col">machine</th>
            <th scope="col" class="number">lines lost</th>
          </tr>
        </thead>
        <tbody>
          {[...props.state.sessions].reverse().map((one) => (
            <tr key={one.number}>
              <td>{one.number}</td>
              <td>
                <Status of={one.status} />
              </td>
              <td class="number">{one.start_step === null ? "—" : grouped(one.start_step)}</td>
              <td class="nowrap">{time(one.started)}</td>
              <td class="nowrap">{one.started && one.ended ? duration(one.ended - one.started) : "—"}</td>
              <td>{one.host ?? "—"}</td>
              <td class="number">{one.lost}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

type Found = {
  metric: string;
  total: number;
  shown: { kind: string; step: number; value: unknown; threshold: unknown; count: number }[];
}[];

function Anomalies(props: { run: string; version: unknown }) {
  const { data, error } = useFetched<{ anomalies: Found }>(rest(props.run, "/anomalies"), props.version);
  if (error.value) return <Problem text={error.value} />;
  if (!data.value) return <Loading what="Looking for anomalies" />;
  const some = data.value.anomalies.filter((one) => one.total > 0);
  if (!some.length) {
    return (
      <p class="empty">
        Nothing stands out: every value is finite, and none is above the median of the 100 before it by more than 6
        median deviations.
      </p>
    );
  }
  return (
    <div class="stack">
      {some.map(({ metric, total, shown }) => (
        <section key={metric} class="stack">
          <h2>
            {metric} <span class="soft">{grouped(total)}</span>
          </h2>
          <div class="scroll" tabIndex={0} role="region" aria-label="Table">
            <table class="plain-table">
              <thead>
                <tr>
                  <th scope="col">what</th>
                  <th scope="col" class="number">step</th>
                  <th scope="col" class="number">value</th>
                  <th scope="col" class="number">allowed up to</th>
                </tr>
              </thead>
              <tbody>
                {[...shown].reverse().slice(0, 50).map((one) => (
                  <tr key={`${one.kind}${one.step}`}>
                    <td>
                      {one.kind}
                      {one.count > 1 ? ` (${grouped(one.count)} in a row)` : ""}
                    </td>
                    <td class="number">{grouped(one.step)}</td>
                    <td class="number">{number(one.value as number)}</td>
                    <td class="number">{number(one.threshold as number)}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        </section>
      ))}
    </div>
  );
}
