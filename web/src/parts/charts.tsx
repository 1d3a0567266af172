// All metrics of some runs as cards, with one set of controls for them; their state is the address.

import { useSignal } from "@preact/signals";
import { useMemo, useRef } from "preact/hooks";
import { useLive } from "../core/live.ts";
import { query, set } from "../core/url.ts";
import { ChartCard, fetchAhead } from "./card.tsx";
import type { Reference, Settings } from "./looks.ts";
import { stroke } from "../core/theme.ts";
import { Choice, Empty, Loading, Problem } from "./parts.tsx";
import { Swatch } from "./tip.tsx";

export { ChartCard } from "./card.tsx";

fetchAhead(); // on its way while the metrics are asked for

type Metrics = { metrics: string[]; references: Reference[] };

const SETTLED_MS = 120;
const AXES = [
  ["step", "Step"],
  ["relative", "Elapsed"],
  ["time", "Clock"],
] as const;

/** The settings of all charts, out of the address. */
export function settingsOf(asked: URLSearchParams, group: string | null): Settings {
  const x = asked.get("x");
  const [low, high] = [asked.get("from"), asked.get("to")].map((text) =>
    text === null ? Number.NaN : Number(text),
  ) as [number, number];
  const smooth = Number(asked.get("smooth") ?? 0);
  return {
    x: x === "relative" || x === "time" ? x : "step",
    logX: asked.get("logx") === "1" && x !== "time",
    logY: asked.get("logy") === "1",
    smooth: smooth > 0 && smooth < 1 ? smooth : 0,
    clip: asked.get("clip") === "1",
    tails: asked.get("tails") !== "0",
    group: asked.get("seeds") === "1" ? null : group,
    view: low < high && (low > 0 || asked.get("logx") !== "1") ? [low, high] : null,
    shown: null,
  };
}

type Grid = { runs: string[]; labels?: Record<string, string>; group?: string | null };

/** The names of the metrics of some runs, as they come; nothing of none. */
export const useMetrics = (runs: string[]) =>
  useLive<Metrics>(runs.length ? { kind: "metrics", runs } : null);

export function ChartGrid(props: Grid) {
  return <ChartsOf {...props} live={useMetrics(props.runs)} />;
}

/** The same for a page that has asked for the metrics already. */
export function ChartsOf(props: Grid & { live: ReturnType<typeof useMetrics> }) {
  const { runs, labels, live } = props;
  const hidden = useSignal<ReadonlySet<string>>(new Set());
  const wide = useSignal<ReadonlySet<string>>(new Set());
  const asked = query.value;
  const moving = useSignal<{ view: [number, number] | null } | null>(null);
  const settled = useRef<ReturnType<typeof setTimeout>>(undefined);
  const plain = settingsOf(asked, props.group ?? null);
  const settings = { ...plain, shown: moving.value ? moving.value.view : plain.view };
  const wanted = asked.get("metric") ?? "";
  const found = live.data.value;
  const metrics = useMemo(() => (found ? matching(found.metrics, wanted) : []), [found, wanted]);
  if (live.error.value) return <Problem text={live.error.value} />;
  if (!found) return <Loading what="Reading the metrics" />;
  // Drawn at once; asked for, and written into the address, when the hand has come to rest.
  // Browsers allow an address to be changed only so often.
  const view = (next: [number, number] | null) => {
    moving.value = { view: next };
    clearTimeout(settled.current);
    settled.current = setTimeout(() => {
      const [from, to] = next ? next.map((end) => trimmed(end, next, plain.logX)) : [null, null];
      set({ from: from!, to: to! });
      moving.value = null;
    }, SETTLED_MS);
  };
  return (
    <div class="stack">
      <Controls settings={settings} group={props.group ?? null} filter={wanted} count={metrics.length} />
      {runs.length > 1 && !settings.group && (
        <Legend runs={runs} labels={labels ?? {}} hidden={hidden.value}
          onToggle={(key) => {
            const next = new Set(hidden.value);
            if (!next.delete(key)) next.add(key);
            hidden.value = next;
          }}
        />
      )}
      {!found.metrics.length && <Empty text="No numbers have been logged yet. They appear here as they come." />}
      {found.metrics.length > 0 && !metrics.length && (
        <Empty text={`No metric has “${wanted}” in its name.`} />
      )}
      <div class="cards">
        {metrics.map((metric) => (
          <ChartCard
            key={metric}
            runs={runs}
            metric={metric}
            settings={settings}
            labels={labels ?? {}}
            hidden={hidden.value}
            references={found.references}
            onView={view}
            wide={wide.value.has(metric)}
            onWide={() => {
              const next = new Set(wide.value);
              if (!next.delete(metric)) next.add(metric);
              wide.value = next;
            }}
          />
        ))}
      </div>
    </div>
  );
}

function Controls(props: {
  settings: Settings;
  group: string | null;
  filter: string;
  count: number;
}) {
  const { settings } = props;
  const open = useSignal(false);
  return (
    <div class={`controls row${open.value ? " open" : ""}`} role="toolbar" aria-label="Charts">
      <button type="button" class="more" aria-expanded={open.value}
        onClick={() => {
          open.value = !open.value;
        }}>
        Axes and smoothing
      </button>
      <Choice
        label="Horizontal axis"
        options={AXES}
        value={settings.x}
        onChange={(x) => set({ x: x === "step" ? null : x, from: null, to: null })}
      />
      <Toggle name="logx" on={settings.logX} text="log x" disabled={settings.x === "time"} clear />
      <Toggle name="logy" on={settings.logY} text="log y" />
      <label class="check smooth">
        Smooth
        <input
          type="range" min="0" max="0.99" step="0.01" value={settings.smooth}
          aria-valuetext={settings.smooth ? String(settings.smooth) : "off"}
          onChange={(event) => {
            const value = event.currentTarget.value;
            set({ smooth: value === "0" ? null : value });
          }}
        />
        <output class="number">{settings.smooth ? settings.smooth.toFixed(2) : "off"}</output>
      </label>
      <Toggle name="clip" on={settings.clip} text="clip outliers" />
      {props.group && (
        <button type="button" aria-pressed={!settings.group}
          onClick={() => set({ seeds: settings.group ? "1" : null })}>
          every seed
        </button>
      )}
      {settings.shown && (
        <button type="button" onClick={() => set({ from: null, to: null })}>
          Show all
        </button>
      )}
      <label class="grow metric-filter">
        <span class="unseen">Only metrics whose name contains</span>
        <input
          type="search" placeholder="metric …" value={props.filter}
          onInput={(event) => set({ metric: event.currentTarget.value })}
        />
      </label>
    </div>
  );
}

function Toggle(props: { name: string; on: boolean; text: string; disabled?: boolean; clear?: boolean }) {
  return (
    <button
      type="button"
      aria-pressed={props.on}
      disabled={props.disabled}
      onClick={() =>
        set({ [props.name]: props.on ? null : "1", ...(props.clear ? { from: null, to: null } : {}) })
      }
    >
      {props.text}
    </button>
  );
}

function Legend(props: {
  runs: string[];
  labels: Record<string, string>;
  hidden: ReadonlySet<string>;
  onToggle: (key: string) => void;
}) {
  return (
    <ul class="legend row" aria-label="Runs">
      {props.runs.map((key, n) => {
        const { colour, dash } = stroke(n);
        return (
          <li key={key}>
            <button type="button" class="plain" aria-pressed={!props.hidden.has(key)}
              onClick={() => props.onToggle(key)} title={key}>
              <Swatch colour={colour} dash={dash} />
              <span class="clip">{props.labels[key] ?? key}</span>
            </button>
          </li>
        );
      })}
    </ul>
  );
}

/** The metrics whose name contains what was typed, losses first, then by their folders. */
export function matching(metrics: string[], typed: string): string[] {
  const wanted = typed.trim().toLowerCase();
  return metrics
    .filter((name) => name.toLowerCase().includes(wanted))
    .sort((a, b) => rank(a) - rank(b) || a.localeCompare(b, "en", { numeric: true }));
}

function rank(name: string): number {
  if (name === "loss") return 0;
  if (/^(?:train|val|test|eval)[_/]?loss$/.test(name)) return 1;
  if (/loss/.test(name)) return 2;
  if (/acc|reward|score|perplexity/.test(name)) return 3;
  return name.includes("/") ? 5 : 4;
}

/** An end of a view with no more digits than the view needs. */
function trimmed(end: number, [low, high]: [number, number], log: boolean): string {
  if (log) return String(Number(end.toPrecision(6)));
  const places = Math.max(0, Math.min(12, 4 - Math.floor(Math.log10(high - low || 1))));
  return String(Number(end.toFixed(places)));
}
