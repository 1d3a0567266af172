// One metric of some runs: title, newest value, chart, tooltip, and how to get its data out.
//
// A card that is not in view holds nothing: no canvas, no subscription, no data.

import { useSignal, useSignalEffect } from "@preact/signals";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import type { Points, Subscription } from "../core/connection.ts";
import type { Look } from "../core/draw.ts";
import { duration, number, time } from "../core/format.ts";
import { connection } from "../core/live.ts";
import { hold, memory } from "../core/memory.ts";
import { paint, unpaint } from "../core/paint.ts";
import type { Plot } from "../core/plot.ts";
import { ChartData } from "../core/series.ts";
import { stroke, theme } from "../core/theme.ts";
import { Sparks } from "./sparks.tsx";
import { ShareMenu } from "./share.tsx";
import { useSeen } from "./parts.tsx";

export type Settings = {
  x: "step" | "relative" | "time";
  logX: boolean;
  logY: boolean;
  smooth: number;
  clip: boolean;
  tails: boolean;
  group: string | null;
  /** The part of the axis that is asked for; null follows the data. */
  view: [number, number] | null;
  /** What is drawn meanwhile: while fingers move it is ahead of what is asked for. */
  shown: [number, number] | null;
};

export type Reference = { metric: string; value: number; label: string };

export type CardProps = {
  runs: string[];
  metric: string;
  settings: Settings;
  labels?: Record<string, string>;
  hidden?: ReadonlySet<string>;
  references?: Reference[];
  onView: (view: [number, number] | null) => void;
  wide?: boolean;
  onWide?: () => void;
};

type Drawing = { Plot: typeof Plot };
const PLOT_MS = 5_000;
let drawing: Promise<Drawing> | null = null;

/** Begin to fetch the part that draws; should it fail now, a card that is seen tries again. */
export function fetchAhead(): void {
  fetched().catch(() => {
    drawing = null;
  });
}

/** The part that draws, fetched once; a failure is remembered until the page is loaded anew. */
function fetched(): Promise<Drawing> {
  drawing ??= Promise.race([
    import("../core/plot.ts"),
    new Promise<never>((_, reject) =>
      setTimeout(() => reject(new Error("the charts did not come within 5 s")), PLOT_MS),
    ),
  ]);
  return drawing;
}

export function ChartCard(props: CardProps) {
  const seen = useSignal(false);
  const place = useSeen((now) => {
    seen.value = now;
  });
  return (
    <section
      class={`card${props.wide ? " wide" : ""}`}
      ref={place as never}
      aria-label={`Chart of ${props.metric}`}
      data-metric={props.metric}
    >
      {seen.value ? <Shown {...props} /> : <h3 class="clip">{props.metric}</h3>}
    </section>
  );
}

function Shown(props: CardProps) {
  const { runs, metric, settings } = props;
  const host = useRef<HTMLDivElement>(null);
  const data = useRef(new ChartData());
  const sub = useRef<Subscription | null>(null);
  const plot = useRef<Plot | null>(null);
  const width = useSignal(0);
  const failed = useSignal<string | null>(null);
  const state = useSignal<"waiting" | "empty" | "drawn">("waiting");
  const version = useSignal(0);
  const cursor = useSignal<{ row: number; left: number } | null>(null);
  const points = useSignal<Points>([]);
  const pointed = useRef({ place: Number.NaN, asked: 0 }); // what `points` are the answer to
  const outside = useSignal(0);
  const refused = useSignal<string | null>(null);
  const reading = useSignal<number | null>(null);
  const drawn = useRef<() => void>(() => {});
  const current = useRef(props);
  current.current = props;

  drawn.current = () => {
    const now = current.current;
    if (!plot.current || !host.current) return;
    const looks = looksOf(data.current, now);
    plot.current.set(data.current, looks, {
      x: now.settings.x,
      logX: now.settings.logX,
      logY: now.settings.logY,
      clip: now.settings.clip,
      view: now.settings.shown,
      lines: (now.references ?? []).filter((one) => one.metric === metric),
      begins: begins(data.current, now),
    });
  };
  const draw = useRef(() => drawn.current()).current;

  // The plot, as long as the card is seen.
  useLayoutEffect(() => {
    const element = host.current!;
    width.value = element.clientWidth;
    let gone = false;
    fetched().then(
      (found) => {
        if (gone) return;
        plot.current = new found.Plot(element, {
          x: settings.x, logX: settings.logX, logY: settings.logY, clip: settings.clip,
          view: settings.view, lines: [], begins: [],
        }, {
          onZoom: (view) => current.current.onView(view),
          onCursor: (row, left) => {
            const now = row === null ? null : { row, left };
            if (now?.row !== cursor.value?.row || now?.left !== cursor.value?.left) cursor.value = now;
          },
          onDrawn: (count) => {
            outside.value = count;
          },
        });
        paint(draw);
      },
      (error: Error) => {
        if (!gone) failed.value = error.message;
      },
    );
    const resized = new ResizeObserver(() => {
      if (!element.clientWidth) return; // hidden, since it cannot be drawn
      plot.current?.resize();
      if (Math.abs(element.clientWidth - width.value) > 0.2 * width.value) {
        width.value = element.clientWidth;
      }
    });
    resized.observe(element);
    const stopGestures = gestures(
      element, plot, () => current.current.onView, () => current.current.settings.logX,
    );
    const release = hold(data, () => data.current.bytes);
    return () => {
      gone = true;
      resized.disconnect();
      stopGestures();
      release();
      unpaint(draw);
      plot.current?.destroy();
      plot.current = null;
    };
  }, []);

  // What it shows: asked for anew when the question is another.
  const { view } = settings;
  const wide = width.value; // as of this question: 0 until the card has been laid out
  const px = Math.min(2000, Math.max(64, Math.round((wide * 1.25) / memory.value.coarser)));
  const question = JSON.stringify({
    kind: "chart", runs, metric, x: settings.x, log_x: settings.logX,
    low: view ? view[0] : null, high: view ? view[1] : null, px,
    smooth: settings.smooth, tails: settings.tails, group: settings.group,
  });
  useLayoutEffect(() => {
    if (!wide) return undefined;
    let first = true;
    const fresh = new ChartData();
    const asked = connection.subscribe(JSON.parse(question), {
      chart: (frame) => {
        const target = first ? fresh : data.current;
        if (!target.take(frame)) return false;
        if (first) {
          data.current = fresh; // until now the answer to the question before was shown
          first = false;
        }
        state.value = target.length ? "drawn" : "empty";
        refused.value = reading.value = null;
        version.value++;
        paint(draw);
        return true;
      },
      points: (found, n) => {
        if (n === pointed.current.asked) points.value = found;
      },
      refused: (error) => {
        refused.value = error;
        reading.value = null;
      },
      reading: (part) => {
        reading.value = part;
      },
    });
    sub.current = asked;
    pointed.current = { place: Number.NaN, asked: 0 };
    points.value = [];
    return () => asked.end();
  }, [wide ? question : null]);

  // What only changes how it is drawn.
  useEffect(() => paint(draw), [
    settings.logY, settings.clip, settings.logX, JSON.stringify(settings.shown), theme.value,
    props.hidden,
  ]);
  useSignalEffect(() => {
    const at = cursor.value;
    void version.value; // what is at a row may have changed
    const place = at ? data.current.places()[at.row] : undefined;
    const { state: link } = connection.link.value;
    if (place === undefined || !sub.current || (link !== "live" && link !== "polling")) {
      pointed.current = { place: Number.NaN, asked: 0 };
      return;
    }
    const newest = at!.row === data.current.length - 1; // it may grow under a resting cursor
    if (place === pointed.current.place && !newest) return;
    if (place !== pointed.current.place) points.value = [];
    pointed.current = { place, asked: sub.current.points(place) };
  });

  void version.value;
  const newest = newestOf(data.current, props);
  return (
    <>
      <header class="card-head">
        <h3 class="clip" title={metric}>
          {metric}
        </h3>
        {newest !== null && <span class="card-last number">{number(newest)}</span>}
        <span class="grow" />
        {view && (
          <button type="button" class="plain" onClick={() => props.onView(null)}>
            Reset zoom
          </button>
        )}
        <ShareMenu query={JSON.parse(question)} title={metric} labels={props.labels ?? {}}
          logY={settings.logY} clip={settings.clip} />
        {props.onWide && (
          <button
            type="button"
            class="plain icon"
            aria-pressed={!!props.wide}
            aria-label={props.wide ? "Make this chart small" : "Make this chart wide"}
            title={props.wide ? "Smaller" : "Wider"}
            onClick={props.onWide}
          >
            <svg viewBox="0 0 16 16" width="14" height="14" aria-hidden="true">
              <path d="M9 2h5v5M7 14H2V9M14 2 9.5 6.5M2 14l4.500-4.500" fill="none" stroke="currentColor" stroke-width="1.5" />
            </svg>
          </button>
        )}
      </header>
      {refused.value && <p class="notice warn">{refused.value}</p>}
      <div
        class="chart"
        ref={host}
        role="img"
        tabIndex={0}
        aria-label={spoken(metric, data.current, props)}
        aria-keyshortcuts="ArrowLeft ArrowRight + - 0"
        onKeyDown={(event) => keys(event, plot.current, data.current, cursor.value?.row ?? null, props)}
        onBlur={() => plot.current?.leave()}
        hidden={failed.value !== null}
      />
      {failed.value !== null && (
        <Sparks data={data.current} why={failed.value} label={(run) => labelOf(run, props)} />
      )}
      {state.value === "empty" && <p class="chart-note">nothing logged in this range</p>}
      {state.value === "waiting" && (
        <p class="chart-note">
          <span role="status">{reading.value === null ? "fetching …" : "reading the record"}</span>
          {reading.value !== null && <span aria-hidden="true">: {Math.floor(100 * reading.value)} % of this file</span>}
        </p>
      )}
      {unmarked(data.current) > 0 && (
        <p class="chart-note clipped">
          {unmarked(data.current)} more stretches hold values that are not finite
        </p>
      )}
      {outside.value > 0 && (
        <p class="chart-note clipped">{outside.value} values beyond the axis (outliers clipped)</p>
      )}
      {cursor.value && (
        <Tip at={cursor.value} data={data.current} points={points.value} card={props} host={host.current} />
      )}
    </>
  );
}

/** What the cursor points at: at once from the stretch, then exactly from the record. */
function Tip(props: {
  at: { row: number; left: number };
  data: ChartData;
  points: Points;
  card: CardProps;
  host: HTMLElement | null;
}) {
  const { at, data, points, card } = props;
  const place = data.places()[at.row];
  if (place === undefined) return null;
  const wide = Math.max(data.grid.width, 1e-12);
  const on = (x: number) => (data.grid.log ? Math.log2(x) : x);
  const exact = new Map(
    points.filter((p) => Math.abs(on(p.x) - on(place)) <= wide * 2).map((p) => [p.run, p]),
  );
  const heard = [...exact.values()].filter((p) => shownOf({ role: "run", run: p.run }, card));
  const near = heard.length && heard.every((p) => p.step === heard[0]!.step) ? heard[0] : undefined;
  const marked = (curve: (typeof data.curves)[number]) =>
    curve.facts.marks.some(([row]) => row === at.row);
  const rows = data.curves
    .map((curve, n) => ({ curve, n }))
    .filter(({ curve }) => shownOf(curve.facts, card) && (Number.isFinite(curve.high[at.row]!) || marked(curve)));
  const over = (props.host?.clientWidth ?? 0) / 2;
  return (
    <div class={`tip ${at.left > over ? "left" : "right"}`} role="status">
      <p class="tip-head">
        {near ? `step ${number(near.step)}` : `${card.settings.x} ${number(place)}`}
        {near?.time && heard.length === 1 ? ` · ${time(near.time)}` : ""}
        {near?.elapsed != null && heard.length === 1 ? ` · ${duration(near.elapsed)} in` : ""}
        {connection.link.value.state === "live" ? "" : " · of the stretch: there is no line to ask"}
      </p>
      <table>
        <tbody>
          {rows.slice(0, 12).map(({ curve, n }) => {
            const point = curve.facts.role === "run" ? exact.get(curve.facts.run) : undefined;
            const look = lookOf(n, data, card);
            const low = curve.low[at.row]!;
            const high = curve.high[at.row]!;
            return (
              <tr key={n}>
                {(card.runs.length > 1 || curve.facts.role !== "run") && (
                  <td>
                    <Swatch colour={look.colour} dash={look.dash} />
                    <span class="clip tip-name">{labelOfCurve(curve.facts, card)}</span>
                  </td>
                )}
                <td class="number">{number(point ? point.value : curve.last[at.row]!)}</td>
                {!near && heard.length > 1 && (
                  <td class="number faint">{point ? `step ${number(point.step)}` : ""}</td>
                )}
                {curve.facts.smooth && (
                  <td class="number soft" title="smoothed">
                    ~{number(point?.smooth ?? curve.smooth[at.row]!)}
                  </td>
                )}
                <td class="number faint">
                  {low < high ? `${number(low, 4)} … ${number(high, 4)}` : ""}
                </td>
              </tr>
            );
          })}
        </tbody>
      </table>
      {rows.length > 12 && <p class="faint">and {rows.length - 12} more</p>}
    </div>
  );
}

export function Swatch(props: { colour: string; dash: number[] }) {
  return (
    <svg class="swatch" viewBox="0 0 22 8" width="22" height="8" aria-hidden="true">
      <line
        x1="0" y1="4" x2="22" y2="4" stroke={props.colour} stroke-width="2.4"
        stroke-dasharray={props.dash.join(" ") || undefined}
      />
    </svg>
  );
}

function looksOf(data: ChartData, card: CardProps): Look[] {
  return data.curves.map((_, n) => lookOf(n, data, card));
}

function lookOf(n: number, data: ChartData, card: CardProps): Look {
  const facts = data.curves[n]!.facts;
  const place = facts.role === "group"
    ? data.curves.filter((c) => c.facts.role === "group").indexOf(data.curves[n]!)
    : Math.max(0, card.runs.indexOf(facts.run));
  return { ...stroke(place), width: 1.6, dim: facts.role === "tail", shown: shownOf(facts, card) };
}

function shownOf(facts: { role: string; run: string; label?: string }, card: CardProps): boolean {
  return !card.hidden?.has(facts.role === "group" ? (facts.label ?? "") : facts.run);
}

function labelOf(run: string, card: CardProps): string {
  return card.labels?.[run] ?? run;
}

function labelOfCurve(
  facts: { role: string; run: string; session: number; label?: string; runs?: string[] },
  card: CardProps,
): string {
  if (facts.role === "group") return `${facts.label} (${facts.runs?.length ?? 0} runs)`;
  const name = labelOf(facts.run, card);
  return facts.role === "tail" ? `${name}, left by session ${facts.session}` : name;
}

/** How many stretches with values that are not finite have no mark. */
function unmarked(data: ChartData): number {
  return data.curves.reduce((count, curve) => count + curve.facts.more_marks, 0);
}

/** Where the sessions of a single run began. */
function begins(data: ChartData, card: CardProps): { x: number; label: string }[] {
  if (card.runs.length > 1) return [];
  return data.sessions.flatMap(({ zero, sessions }) =>
    sessions.slice(1).flatMap(({ session, step, started }) => {
      const x = card.settings.x === "step" ? step : started === null ? null : started - zero;
      return x === null ? [] : [{ x, label: `session ${session}` }];
    }),
  );
}

function newestOf(data: ChartData, card: CardProps): number | null {
  if (card.runs.length !== 1 || !data.curves[0]) return null;
  const { last } = data.curves[0];
  for (let row = data.length - 1; row >= 0; row--) if (!Number.isNaN(last[row]!)) return last[row]!;
  return null;
}

/** The chart in a sentence, for those who hear it. */
function spoken(metric: string, data: ChartData, card: CardProps): string {
  const told = data.curves
    .filter((curve) => curve.facts.role !== "tail" && shownOf(curve.facts, card))
    .slice(0, 5)
    .map((curve) => {
      const values = curve.last.subarray(0, data.length).filter((v) => !Number.isNaN(v));
      const name = labelOfCurve(curve.facts, card);
      if (!values.length) return `${name}: nothing`;
      return `${name}: from ${number(values[0])} to ${number(values[values.length - 1])}`;
    });
  return `${metric} over ${card.settings.x}. ${told.join("; ")}. Arrow keys move the cursor, plus and minus zoom, 0 shows all.`;
}

function keys(
  event: KeyboardEvent, plot: Plot | null, data: ChartData, row: number | null, card: CardProps,
): void {
  if (!plot || event.ctrlKey || event.metaKey || event.altKey) return;
  if (!data.length && !card.settings.view) return; // nothing has come yet
  const last = data.length - 1;
  const stride = event.shiftKey ? Math.max(1, Math.round(data.length / 20)) : 1;
  if (event.key === "ArrowRight") plot.point(Math.min(last, (row ?? -1) + stride));
  else if (event.key === "ArrowLeft") plot.point(Math.max(0, (row ?? last + 1) - stride));
  else if (event.key === "Home") plot.point(0);
  else if (event.key === "End") plot.point(last);
  else if (event.key === "+" || event.key === "=") zoom(plot, card, 0.5, row === null ? null : data.places()[row]!);
  else if (event.key === "-") zoom(plot, card, 2, row === null ? null : data.places()[row]!);
  else if (event.key === "0" || event.key === "Escape") card.onView(null);
  else return;
  event.preventDefault();
}

function zoom(plot: Plot, card: CardProps, factor: number, at: number | null): void {
  card.onView(zoomed(plot.view(), factor, at, card.settings.logX));
}

/** A view made smaller or larger around a place. */
export function zoomed(
  [low, high]: [number, number], factor: number, at: number | null, log: boolean,
): [number, number] {
  if (log && low > 0) {
    const [a, b] = zoomed([Math.log(low), Math.log(high)], factor, at && at > 0 ? Math.log(at) : null, false);
    return [Math.exp(a), Math.exp(b)];
  }
  const middle = at ?? (low + high) / 2;
  return [middle - (middle - low) * factor, middle + (high - middle) * factor];
}

const SCRUB_PX = 4;

/** Wheel with Ctrl, two fingers, one finger along the axis. One finger up and down scrolls the page. */
function gestures(
  element: HTMLElement, plot: { current: Plot | null },
  onView: () => (view: [number, number] | null) => void, isLog: () => boolean,
): () => void {
  const touches = new Map<number, number>();
  let began = 0;
  let pinch: { view: [number, number]; from: number; middle: number } | null = null;
  const left = (event: PointerEvent | WheelEvent) => event.clientX - edge(element);
  const wheel = (event: WheelEvent) => {
    if (!plot.current || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    const view = plot.current.view();
    onView()(zoomed(view, event.deltaY > 0 ? 1.25 : 0.8, plot.current.placeAt(left(event)), isLog()));
  };
  const down = (event: PointerEvent) => {
    if (event.pointerType !== "touch") return;
    touches.set(event.pointerId, left(event));
    began = left(event);
    if (touches.size === 2 && plot.current) {
      const [a, b] = [...touches.values()] as [number, number];
      pinch = { view: plot.current.view(), from: Math.abs(a - b), middle: plot.current.placeAt((a + b) / 2) };
    }
  };
  const move = (event: PointerEvent) => {
    if (!touches.has(event.pointerId)) return;
    touches.set(event.pointerId, left(event));
    if (touches.size === 1 && Math.abs(left(event) - began) > SCRUB_PX) {
      began = Number.POSITIVE_INFINITY; // from here on every move counts, also back to where it began
      plot.current?.move(left(event));
    }
    if (pinch && touches.size === 2) {
      const [a, b] = [...touches.values()] as [number, number];
      const factor = pinch.from / Math.max(10, Math.abs(a - b));
      onView()(zoomed(pinch.view, factor, pinch.middle, isLog()));
    }
  };
  const up = (event: PointerEvent) => {
    touches.delete(event.pointerId);
    if (touches.size < 2) pinch = null;
  };
  element.addEventListener("wheel", wheel, { passive: false });
  element.addEventListener("pointerdown", down);
  element.addEventListener("pointermove", move);
  element.addEventListener("pointerup", up);
  element.addEventListener("pointercancel", up);
  return () => {
    element.removeEventListener("wheel", wheel);
    element.removeEventListener("pointerdown", down);
    element.removeEventListener("pointermove", move);
    element.removeEventListener("pointerup", up);
    element.removeEventListener("pointercancel", up);
  };
}

function edge(element: HTMLElement): number {
  return (element.querySelector(".u-over") ?? element).getBoundingClientRect().left;
}
