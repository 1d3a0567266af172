// One metric of some runs: title, newest value, chart, tooltip, and how to get its data out.
//
// A card that is not in view holds nothing: no canvas, no subscription, no data.

import { useSignal, useSignalEffect } from "@preact/signals";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import type { Points, Subscription } from "../core/connection.ts";
import { number } from "../core/format.ts";
import { connection } from "../core/live.ts";
import { hold, memory } from "../core/memory.ts";
import { paint, unpaint } from "../core/paint.ts";
import type { Plot } from "../core/plot.ts";
import { ChartData } from "../core/series.ts";
import { theme } from "../core/theme.ts";
import { gestures, keys } from "./gestures.ts";
import { begins, type CardProps, looksOf, newestOf, spoken, unmarked } from "./looks.ts";
import { Sparks } from "./sparks.tsx";
import { ShareMenu } from "./share.tsx";
import { useSeen } from "./parts.tsx";
import { Tip } from "./tip.tsx";

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
        <Sparks data={data.current} why={failed.value} label={(run) => props.labels?.[run] ?? run} />
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
        <p class="chart-note clipped">{outside.value} value{outside.value === 1 ? "" : "s"} beyond the axis (outliers clipped)</p>
      )}
      {cursor.value && (
        <Tip at={cursor.value} data={data.current} points={points.value} card={props} host={host.current} />
      )}
    </>
  );
}
