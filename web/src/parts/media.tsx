// What a run has logged besides numbers: by key a card, with a slider over the steps.

import { type Signal, useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { bytes, grouped, number } from "../core/format.ts";
import { get, useFetched, useLive } from "../core/live.ts";
import { rest } from "../core/url.ts";
import type {
  HistogramContent,
  HistogramsOverSteps,
  MediaKey,
  MediaList,
  Medium,
  TableCell,
  TablePage,
  TextContent,
} from "../types/media.ts";
import { Heat } from "./histograms.tsx";
import { Empty, Loading, Problem, useSeen } from "./parts.tsx";

const MOST = 2000;
const PAGE = 50;
const AGAIN_MS = 2000; // between two looks for new media

/** All media of a run; new ones appear by themselves. */
export function RunMedia(props: { run: string }) {
  const version = useVersion(props.run);
  const again = useSignal(0);
  const found = useFetched<MediaList>(rest(props.run, "/media?limit=0"), `${version.value} ${again.value}`);
  if (found.error.value && !found.data.value) {
    return <Problem text={`No media: ${found.error.value}`} again={() => again.value++} />;
  }
  if (!found.data.value) return <Loading what="Looking for media" />;
  const keys = found.data.value.keys;
  if (!keys.length) {
    return <Empty text="This run has logged no pictures, texts, tables or sounds." type='run.log({"sample": cupel.Image(array)})' />;
  }
  return (
    <div class="media">
      {keys.map((one) => (
        <Card run={props.run} of={one} key={one.key} />
      ))}
    </div>
  );
}

/** A number that grows while the run goes on, but not more often than every two seconds. */
function useVersion(run: string): Signal<number> {
  const live = useLive<unknown>({ kind: "run", run });
  const version = useSignal(0);
  const last = useRef(0);
  const text = JSON.stringify(live.data.value);
  useEffect(() => {
    const wait = Math.max(0, last.current + AGAIN_MS - Date.now());
    const timer = setTimeout(() => {
      last.current = Date.now();
      version.value++;
    }, wait);
    return () => clearTimeout(timer);
  }, [text]);
  return version;
}

function Card(props: { run: string; of: MediaKey }) {
  const { run, of } = props;
  const seen = useSignal(false);
  const again = useSignal(0);
  const host = useSeen((now) => {
    if (now) seen.value = true;
  });
  const offset = Math.max(0, of.count - MOST);
  const where = rest(run, `/media?key=${encodeURIComponent(of.key)}&offset=${offset}&limit=${MOST}`);
  const found = useFetched<MediaList>(seen.value ? where : null, `${of.count} ${again.value}`);
  return (
    <section class="panel media-card" ref={host} aria-label={of.key}>
      <header class="row">
        <h3 class="grow clip" title={of.key}>
          {of.key}
        </h3>
        <span class="faint">
          {grouped(of.count)} × {of.kinds.join(", ")}
          {of.count > MOST && `; the newest ${grouped(MOST)}`}
        </span>
      </header>
      {found.error.value && <Problem text={found.error.value} again={() => again.value++} />}
      {found.data.value ? (
        <Steps run={run} items={found.data.value.items} name={of.key} />
      ) : (
        !found.error.value && <Loading what="Fetching" />
      )}
    </section>
  );
}

/** The media of one key, those of one step at a time; at the newest one until the slider is moved. */
function Steps(props: { run: string; name: string; items: Medium[] }) {
  const chosen = useSignal<number | null>(null);
  const steps = [...new Set(props.items.map((one) => one.step ?? 0))].sort((a, b) => a - b);
  const last = steps.length - 1;
  if (last < 0) return <p class="faint">Gone: a resumed run has taken these steps back.</p>;
  const at = chosen.value === null ? last : Math.max(0, steps.indexOf(chosen.value));
  const step = steps[at]!;
  const items = props.items.filter((one) => (one.step ?? 0) === step);
  const histograms = props.items.every((one) => one.kind === "histogram");
  return (
    <>
      {histograms && steps.length > 1 && (
        <Overall run={props.run} name={props.name} count={props.items.length} step={step} />
      )}
      <div class="media-items">
        {items.map((one, n) => (
          <Item run={props.run} of={one} key={`${one.id} ${n}`} />
        ))}
      </div>
      {steps.length > 1 && (
        <label class="row media-steps">
          <span class="soft">Step</span>
          <input
            type="range"
            class="grow"
            min={0}
            max={last}
            value={at}
            aria-label={`Step of ${props.name}`}
            aria-valuetext={`step ${step}`}
            onInput={(event) => {
              const place = Number(event.currentTarget.value);
              chosen.value = place === last ? null : steps[place]!;
            }}
          />
          <output class="number">{grouped(step)}</output>
        </label>
      )}
      {steps.length === 1 && <p class="faint">step {grouped(step)}</p>}
    </>
  );
}

function Item(props: { run: string; of: Medium }) {
  const { run, of } = props;
  const file = rest(run, `/media/${of.id}`);
  const label = of.caption ?? `${of.key}, step ${of.step ?? "unknown"}`;
  return (
    <figure class="media-item">
      {of.type.startsWith("image/") ? (
        <Picture file={file} label={label} of={of} />
      ) : of.type.startsWith("audio/") ? (
        <Played kind="audio" file={file} label={label} />
      ) : of.type.startsWith("video/") ? (
        <Played kind="video" file={file} label={label} />
      ) : of.kind === "text" ? (
        <Text run={run} of={of} />
      ) : of.kind === "table" ? (
        <Rows run={run} of={of} />
      ) : of.kind === "histogram" ? (
        <Bars run={run} of={of} />
      ) : (
        <p class="soft">This page shows no {of.kind === "html" ? "HTML of runs, which could do harm" : of.kind}.</p>
      )}
      <figcaption class="row faint">
        <span class="grow">{of.caption}</span>
        <a href={file} download={of.name}>
          Download{of.bytes !== null && ` ${bytes(of.bytes)}`}
          <span class="unseen"> of {label}</span>
        </a>
      </figcaption>
    </figure>
  );
}

function Picture(props: { file: string; label: string; of: Medium }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const open = useSignal(false);
  const failed = useSignal(0);
  if (failed.value % 2) {
    return <Problem text="This picture cannot be shown: it is damaged or gone." again={() => failed.value++} />;
  }
  return (
    <>
      <button
        type="button"
        class="plain media-picture"
        aria-label={`Enlarge ${props.label}`}
        onClick={() => {
          open.value = true;
          dialog.current?.showModal();
        }}
      >
        <img src={props.file} alt={props.label} loading="lazy" onError={() => failed.value++} />
      </button>
      <dialog
        ref={dialog}
        class="media-large"
        aria-label={props.label}
        onClose={() => {
          open.value = false;
        }}
        onClick={(event) => {
          if (event.target === event.currentTarget) event.currentTarget.close();
        }}
      >
        {open.value && <img src={props.file} alt={props.label} />}
        <form method="dialog" class="row" onSubmit={(event) => { event.preventDefault(); dialog.current?.close(); }}>
          <span class="grow clip">{props.label}</span>
          <button type="submit">Close</button>
        </form>
      </dialog>
    </>
  );
}

function Played(props: { kind: "audio" | "video"; file: string; label: string }) {
  const failed = useSignal(0);
  if (failed.value % 2) {
    return <Problem text={`This browser cannot play the ${props.kind}; download it below.`} again={() => failed.value++} />;
  }
  const lost = () => {
    failed.value++;
  };
  return props.kind === "audio" ? (
    <audio controls preload="metadata" src={props.file} aria-label={props.label} onError={lost} />
  ) : (
    <video controls preload="metadata" src={props.file} aria-label={props.label} onError={lost} />
  );
}

function Text(props: { run: string; of: Medium }) {
  const again = useSignal(0);
  const found = useFetched<TextContent>(rest(props.run, `/media/${props.of.id}/content`), again.value);
  if (found.error.value) return <Problem text={found.error.value} again={() => again.value++} />;
  if (!found.data.value) return <Loading what="Fetching the text" />;
  const { text, bytes: all } = found.data.value;
  const cut = new TextEncoder().encode(text).length < all;
  return (
    <div class="media-text" tabIndex={0} role="region" aria-label={`Text ${props.of.key}`}>
      <pre>{text}</pre>
      {cut && <p class="faint">The beginning of {bytes(all)}; download all of it below.</p>}
    </div>
  );
}

function Rows(props: { run: string; of: Medium }) {
  const offset = useSignal(0);
  const again = useSignal(0);
  const where = rest(props.run, `/media/${props.of.id}/content?offset=${offset.value}&limit=${PAGE}`);
  const found = useFetched<TablePage>(where, again.value);
  if (found.error.value) return <Problem text={found.error.value} again={() => again.value++} />;
  const page = found.data.value;
  if (!page) return <Loading what="Fetching the table" />;
  const end = page.offset + page.rows.length;
  const numbers = page.columns.map((_, n) => page.rows.every((row) => row[n] === null || typeof row[n] === "number"));
  return (
    <>
      <div class="scroll media-table" tabIndex={0} role="region" aria-label={`Table ${props.of.key}`}>
        <table class="plain-table">
          <thead>
            <tr>
              {page.columns.map((name, n) => (
                <th key={n} scope="col" class={numbers[n] ? "number" : ""}>
                  {name}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {page.rows.map((row, n) => (
              <tr key={page.offset + n}>
                {row.map((cell, place) => (
                  <td key={place} class={numbers[place] ? "number" : ""}>
                    <Cell run={props.run} of={cell as TableCell} />
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {page.total > PAGE && (
        <div class="row" role="group" aria-label="Pages of the table">
          <button type="button" disabled={page.offset === 0} onClick={() => { offset.value = Math.max(0, page.offset - PAGE); }}>
            Earlier
          </button>
          <span class="soft number" role="status">
            {grouped(page.offset + 1)}–{grouped(end)} of {grouped(page.total)}
          </span>
          <button type="button" disabled={end >= page.total} onClick={() => { offset.value = page.offset + PAGE; }}>
            Later
          </button>
        </div>
      )}
    </>
  );
}

function Cell(props: { run: string; of: TableCell | undefined }) {
  const { of } = props;
  if (of === null || of === undefined) return <span class="faint">—</span>;
  if (typeof of === "object") {
    const file = rest(props.run, `/media/${of.media}`);
    if (of.kind === "image" || of.kind === "figure") {
      return <img class="media-cell" src={file} alt="picture in the table" loading="lazy" />;
    }
    return (
      <a href={file} download="">
        {of.kind ?? "file"}
      </a>
    );
  }
  if (typeof of === "number") return <>{Number.isInteger(of) ? grouped(of) : number(Number(of.toPrecision(6)), 6).replace(/(\.\d*?)0+$/, "$1")}</>;
  return <>{String(of)}</>;
}

/** One histogram as bars. */
function Bars(props: { run: string; of: Medium }) {
  const again = useSignal(0);
  const found = useFetched<HistogramContent>(rest(props.run, `/media/${props.of.id}/content`), again.value);
  if (found.error.value) return <Problem text={found.error.value} again={() => again.value++} />;
  const content = found.data.value;
  if (!content) return <Loading what="Fetching the histogram" />;
  const counts = content.counts.map(Number);
  const most = Math.max(...counts, 1);
  const edges = content.edges.map(Number);
  const first = edges[0] ?? 0;
  const span = (edges[edges.length - 1] ?? 1) - first || 1;
  const total = counts.reduce((sum, count) => sum + count, 0);
  const told = `${grouped(Math.round(total))} values from ${number(content.edges[0])} to ${number(content.edges[edges.length - 1])}`;
  return (
    <>
      <svg class="media-bars" viewBox="0 0 100 40" preserveAspectRatio="none" role="img" aria-label={told}>
        {counts.map((count, n) => {
          const x = (100 * (edges[n]! - first)) / span;
          const width = (100 * (edges[n + 1]! - edges[n]!)) / span;
          const height = (39 * count) / most;
          return (
            <rect key={n} x={x} y={40 - height} width={Math.max(0, width)} height={height}>
              <title>{`${number(edges[n]!)} to ${number(edges[n + 1]!)}: ${grouped(count)}`}</title>
            </rect>
          );
        })}
      </svg>
      <p class="row faint">
        <span class="grow">{number(content.edges[0])}</span>
        <span>{grouped(Math.round(total))} values{content.not_finite > 0 && `, ${grouped(content.not_finite)} not finite`}</span>
        <span class="grow number">{number(content.edges[edges.length - 1])}</span>
      </p>
    </>
  );
}

/** All histograms of a key beside each other; fetched anew when there are more. */
function Overall(props: { run: string; name: string; count: number; step: number }) {
  const found = useSignal<HistogramsOverSteps | null>(null);
  const error = useSignal<string | null>(null);
  const again = useSignal(0);
  useEffect(() => {
    const abort = new AbortController();
    get<HistogramsOverSteps>(rest(props.run, `/histograms?key=${encodeURIComponent(props.name)}`), abort.signal).then(
      (data) => {
        found.value = data;
        error.value = null;
      },
      (why: Error) => {
        if (!abort.signal.aborted) error.value = why.message;
      },
    );
    return () => abort.abort();
  }, [props.run, props.name, props.count, again.value]);
  if (error.value) return <Problem text={error.value} again={() => again.value++} />;
  if (!found.value) return <Loading what="Fetching the histograms" />;
  return <Heat of={found.value} step={props.step} />;
}
