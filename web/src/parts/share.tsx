// What a chart can be taken away as: its numbers in full resolution, a drawing, a link.

import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { fetched, keep, toPng } from "../core/save.ts";
import { theme } from "../core/theme.ts";

export type ChartShared = { runs: string[]; metric: string } & Record<string, unknown>;

type Kind = "CSV" | "JSON" | "SVG" | "PNG";
const KINDS: readonly (readonly [Kind, string])[] = [
  ["CSV", "every number, a row a line"],
  ["JSON", "the same, with facts of the runs"],
  ["SVG", "this drawing, sharp at any size"],
  ["PNG", "this drawing as a picture"],
];

const DRAWN_PX = 900; // stretches of a drawing, whatever the width of the chart here

export type ShareProps = {
  /** The query of the chart, as it is subscribed to. */
  query: ChartShared;
  title: string;
  /** What runs are called, by their keys. */
  labels: Record<string, string>;
  logY?: boolean;
  /** Whether the axis leaves out the outermost values. */
  clip?: boolean;
  /** An address that restores the view; by default the page's own. */
  link?: () => string;
};

export function ShareMenu(props: ShareProps) {
  const open = useSignal(false);
  const busy = useSignal<Kind | null>(null);
  const told = useSignal<{ text: string; again: Kind | null } | null>(null);
  const shown = useSignal<string | null>(null);
  const host = useRef<HTMLDivElement>(null);

  useEffect(() => {
    if (!open.value) return undefined;
    const away = (event: Event) => {
      if (!host.current?.contains(event.target as Node)) open.value = false;
    };
    const escape = (event: KeyboardEvent) => {
      if (event.key !== "Escape") return;
      open.value = false;
      host.current?.querySelector("button")?.focus();
    };
    addEventListener("pointerdown", away);
    addEventListener("keydown", escape);
    host.current?.querySelector<HTMLElement>(".share-menu button")?.focus();
    return () => {
      removeEventListener("pointerdown", away);
      removeEventListener("keydown", escape);
    };
  }, [open.value]);

  const take = async (kind: Kind) => {
    if (busy.value) return;
    busy.value = kind;
    told.value = null;
    try {
      const { blob, name } = await fetched(address(kind, props));
      const file = kind === "PNG" ? await toPng(blob) : blob;
      keep(file, kind === "PNG" ? (name ?? "chart.svg").replace(/\.svg$/, ".png") : (name ?? `chart.${kind.toLowerCase()}`));
      told.value = { text: `${kind} saved.`, again: null };
    } catch (why) {
      told.value = { text: `No ${kind}: ${(why as Error).message}.`, again: kind };
    } finally {
      busy.value = null;
    }
  };

  const copy = async () => {
    const link = new URL(props.link?.() ?? location.href, location.href).href;
    try {
      await navigator.clipboard.writeText(link);
      told.value = { text: "Link copied.", again: null };
    } catch {
      shown.value = link; // without https, or without leave
    }
  };

  return (
    <div class="share" ref={host}>
      <button
        type="button"
        class="plain"
        aria-haspopup="true"
        aria-expanded={open.value}
        aria-label={`Share ${props.title}`}
        onClick={() => {
          open.value = !open.value;
          told.value = null;
          shown.value = null;
        }}
      >
        Share
      </button>
      {open.value && (
        <div class="popover share-menu stack" role="group" aria-label={`Share ${props.title}`}>
          <ul>
            {KINDS.map(([kind, what]) => (
              <li key={kind}>
                <button type="button" class="plain" disabled={busy.value !== null} onClick={() => void take(kind)}>
                  <b>{kind}</b>
                  <span class="soft">{busy.value === kind ? "on its way …" : what}</span>
                </button>
              </li>
            ))}
            <li>
              <button type="button" class="plain" onClick={() => void copy()}>
                <b>Link</b>
                <span class="soft">copy the address of this view</span>
              </button>
            </li>
          </ul>
          {shown.value && (
            <label class="stack">
              <span class="soft">Copy this address:</span>
              <input type="text" readOnly value={shown.value} onFocus={(event) => event.currentTarget.select()} />
            </label>
          )}
          {told.value && (
            <div class={told.value.again ? "notice bad row" : "soft"} role={told.value.again ? "alert" : "status"}>
              <span class="grow">{told.value.text}</span>
              {told.value.again && (
                <button type="button" onClick={() => void take(told.value?.again ?? "CSV")}>
                  Try again
                </button>
              )}
            </div>
          )}
        </div>
      )}
    </div>
  );
}

/** Where a file of a chart is to be had. */
export function address(kind: Kind, props: Pick<ShareProps, "query" | "title" | "labels" | "logY" | "clip">): string {
  const { query, title, labels } = props;
  if (kind === "CSV" || kind === "JSON") {
    const given = new URLSearchParams(query.runs.map((run) => ["run", run]));
    given.append("metric", query.metric);
    return `/api/v1/export.${kind.toLowerCase()}?${given}`;
  }
  const named = Object.fromEntries(query.runs.filter((run) => labels[run]).map((run) => [run, labels[run]]));
  const given = new URLSearchParams({
    sub: JSON.stringify({ query: { ...query, kind: "chart", px: DRAWN_PX } }),
    title,
    theme: theme.value,
    labels: JSON.stringify(named),
  });
  if (props.logY) given.set("log_y", "1");
  if (props.clip) given.set("clip", "1");
  return `/api/v1/chart.svg?${given}`;
}
