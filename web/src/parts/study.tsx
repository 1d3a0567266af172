// Parts that the pages of studies and of the queue share.

import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { ago, grouped } from "../core/format.ts";
import { connection, useFetched } from "../core/live.ts";
import { doneAbout, PATHS, shape, told, word, words } from "../core/study.ts";
import type { AlertFact, Forecast } from "../types/studies.ts";

/** One run as a small mark; its meaning is in the words around it. */
export function Mark(props: { state: string; title?: string }) {
  const [form, tone] = shape(props.state);
  return (
    <svg class={`run-mark ${tone} ${form}`} viewBox="0 0 10 10" width="10" height="10" aria-hidden="true">
      {props.title && <title>{props.title}</title>}
      <path d={PATHS[form]} />
    </svg>
  );
}

/** What the marks mean, of the states that there are. */
export function Marks(props: { counts: Record<string, number> }) {
  return (
    <ul class="marks row" aria-label="Runs by state">
      {told(props.counts).map(([state, count]) => (
        <li key={state}>
          <Mark state={state} /> {grouped(count)} {word(state)}
        </li>
      ))}
    </ul>
  );
}

/** How far a study is: a bar whose parts are states, and the same in words. */
export function Progress(props: {
  counts: Record<string, number>;
  total: number;
  steps: number;
  of: number;
  small?: boolean;
}) {
  const { counts, total, steps, of } = props;
  const percent = of > 0 ? Math.floor((100 * steps) / of) : 0;
  const accepted = counts.finished ?? 0;
  return (
    <div class={props.small ? "study-progress small" : "study-progress"}>
      <div class="track" role="progressbar" aria-valuemin={0} aria-valuemax={total}
        aria-valuenow={accepted} aria-valuetext={words(counts)} aria-label="Runs">
        {told(counts).map(([state, count]) => (
          <span key={state} class={`share ${shape(state)[1]} ${shape(state)[0]}`}
            style={{ width: `${(100 * count) / Math.max(1, total)}%` }} />
        ))}
      </div>
      <p class="soft">
        {grouped(accepted)} of {grouped(total)} runs accepted
        {percent > 0 && percent < 100 ? ` · ${percent} % of the steps` : ""}
      </p>
    </div>
  );
}

/** When it will be done, or why nobody knows. */
export function Done(props: { eta: Forecast | null; unknown: string; over?: boolean }) {
  if (props.over) return null;
  const now = Date.now() / 1000 + connection.ahead;
  if (props.eta) return <span class="nowrap">{doneAbout(props.eta, now)}</span>;
  return <span class="soft">done: unknown{props.unknown ? ` (${props.unknown})` : ""}</span>;
}

export function Alerts(props: { alerts: AlertFact[]; named?: boolean }) {
  const now = Date.now() / 1000 + connection.ahead;
  return (
    <ul class="stack alerts">
      {props.alerts.map((one) => (
        <li key={`${one.study} ${one.key}`} class={`notice ${one.severity === "error" ? "bad" : "warn"}`}>
          <strong>{one.severity === "error" ? "Error" : "Warning"}</strong>
          {props.named ? ` · ${one.study}` : ""}: {one.text}
          <span class="faint nowrap"> · raised {ago(now - one.t)}</span>
        </li>
      ))}
    </ul>
  );
}

/** A value that follows another at most every so many milliseconds, and at last. */
export function useSeldom<T>(value: T, ms: number): T {
  const told = useSignal(value);
  const at = useRef(0);
  useEffect(() => {
    const wait = Math.max(0, at.current + ms - Date.now());
    const timer = setTimeout(() => {
      at.current = Date.now();
      told.value = value;
    }, wait);
    return () => clearTimeout(timer);
  }, [value]);
  return told.value;
}

/** Whether this dashboard may change anything. */
export function useWrites(): boolean {
  return useFetched<{ writes: boolean }>("/api/v1/about").data.value?.writes === true;
}

/** Ask something of a study's runs. Throws an Error whose message is the server's line. */
export async function steer(study: string, body: Record<string, unknown>): Promise<string> {
  const at = study.indexOf("/");
  const [project, name] = [study.slice(0, at), study.slice(at + 1)].map(encodeURIComponent);
  const answer = await fetch(`/api/v1/studies/${name}/control?project=${project}`, {
    method: "POST",
    headers: { "content-type": "application/json", "x-cupel": "1" },
    body: JSON.stringify(body),
  });
  const said = (await answer.json().catch(() => ({}))) as { error?: string; runs?: number };
  if (!answer.ok) throw new Error(said.error ?? `the server answered ${answer.status}`);
  return `${body.what}: ${said.runs ? `${said.runs} run${said.runs === 1 ? "" : "s"} of ` : ""}${name && decodeURIComponent(name)}`;
}

/** A button that asks something of runs, once more to be sure, and says what became of it. */
export function Steer(props: {
  study: string;
  body: Record<string, unknown>;
  sure: string;
  children: ComponentChildren;
}) {
  const said = useSignal<{ text: string; bad: boolean } | null>(null);
  const asking = useSignal(false);
  return (
    <span class="row steer">
      <button type="button" disabled={asking.value}
        onClick={async () => {
          if (!confirm(props.sure)) return;
          asking.value = true;
          try {
            said.value = { text: await steer(props.study, props.body), bad: false };
          } catch (error) {
            said.value = { text: (error as Error).message, bad: true };
          }
          asking.value = false;
        }}>
        {props.children}
      </button>
      {said.value && (
        <span role="status" class={said.value.bad ? "bad-text" : "soft"}>
          {said.value.text}
        </span>
      )}
    </span>
  );
}
