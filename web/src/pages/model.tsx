// A run's model: its main sizes, a diagram or a tree of its modules, and all that is known of one.

import { useSignal } from "@preact/signals";
import { useEffect, useMemo, useRef } from "preact/hooks";
import type { PageProps } from "../app.tsx";
import { grouped } from "../core/format.ts";
import { useFetched, useLive } from "../core/live.ts";
import { go, query, rest, set, to } from "../core/url.ts";
import { Details } from "../model/details.tsx";
import { Outline } from "../model/outline.tsx";
import { RunPicker } from "../model/picker.tsx";
import { copied } from "../model/copy.ts";
import { type Open, around, index, isTraced, openAtFirst, openOf, openText, shownAs } from "../model/tree.ts";
import { asText, sizeText } from "../model/words.ts";
import { Choice, Empty, Fact, Link, Loading, Problem } from "../parts/parts.tsx";
import type { DiagramProps } from "../model/diagram.tsx";
import type { ModelNode, ModelView } from "../types/model.ts";
import type { RunState } from "../types/run.ts";

const PATIENCE_MS = 5000;
const VIEWS = [
  ["diagram", "Diagram"],
  ["tree", "Tree"],
] as const;
const DIRECTIONS = [
  ["auto", "auto"],
  ["down", "↓"],
  ["right", "→"],
] as const;

export default function ModelPage({ params }: PageProps) {
  const run = params.join("/");
  const { data, error } = useFetched<ModelView>(rest(run, "/model"), useVersion(run));
  if (error.value && !data.value) return <Problem text={error.value} />;
  const view = data.value;
  return (
    <div class="stack model">
      <header class="row">
        <h1 class="grow">
          Model <span class="soft">of</span> <Link to={to.run(run)}>{params[1]}</Link>
        </h1>
        <RunPicker label="Compare with …" without={run} value="" onChange={(other) => go(`/models?${new URLSearchParams({ a: run, b: other })}`)} />
      </header>
      {!view && <Loading what="Reading the model" />}
      {view && !view.root && (
        <Empty text={`There is no model to show: ${view.reason}.`} type="run.watch(model)" />
      )}
      {view?.root && <Shown view={view as ModelView & { root: ModelNode }} />}
    </div>
  );
}

/** Anew when the run has gone on, but not more often than every ten seconds of it. */
function useVersion(run: string): number {
  const state = useLive<RunState>({ kind: "run", run }).data.value;
  const seen = useRef<{ mark: string | null; version: number }>({ mark: null, version: 0 });
  if (state) {
    const mark = `${state.status} ${Math.floor((state.last_line ?? 0) / 10)}`;
    if (seen.current.mark !== null && seen.current.mark !== mark) seen.current.version++;
    seen.current.mark = mark;
  }
  return seen.current.version;
}

function Shown({ view }: { view: ModelView & { root: ModelNode } }) {
  const nodes = useMemo(() => index(view.root), [view]);
  const asked = query.value.get("open");
  const open = useMemo(() => (asked === null ? openAtFirst(view.root) : openOf(asked)), [view, asked]);
  const at = query.value.get("at");
  const selected = at === null ? null : shownAs(view.root, at === "." ? "" : at);
  const failed = useSignal<string | null>(null);
  const asTree = query.value.get("view") === "tree" || failed.value !== null;
  const direction = query.value.get("direction") ?? "auto";

  const show = (paths: Open, more: Record<string, string | null> = {}) => set({ open: openText(paths) || ",", ...more });
  const toggle = (...paths: string[]) => {
    const next = new Set(open);
    for (const path of paths) if (!next.delete(path)) next.add(path);
    show(next);
  };
  const select = (path: string | null) => set({ at: path === null ? null : path || "." });
  const follow = (path: string) => {
    const shown = shownAs(view.root, path);
    if (shown !== null) show(new Set([...open, ...around(nodes, shown)]), { at: shown || "." });
  };
  const node = selected === null ? undefined : nodes.get(selected)?.node;
  const tree = (path: string) => show(new Set([...open, path]), { view: "tree", at: path || "." });
  return (
    <>
      <Main view={view} />
      <Problems view={view} />
      <div class="row model-tools">
        <Choice label="View" options={VIEWS} value={asTree ? "tree" : "diagram"}
          onChange={(next) => { failed.value = null; set({ view: next === "tree" ? next : null }); }} />
        {!asTree && <Choice label="Direction" options={DIRECTIONS} value={direction as "auto"} onChange={(next) => set({ direction: next === "auto" ? null : next })} />}
        <CopyText view={view} />
        <button type="button" class="plain" onClick={() => set({ open: null })}>Close all</button>
      </div>
      {failed.value !== null && (
        <div class="notice warn row" role="status">
          <span class="grow">The diagram is not shown: {failed.value}. The tree has the same.</span>
          <button type="button" onClick={() => location.reload()}>Try again</button>
        </div>
      )}
      <div class={`model-parts${node ? " with-details" : ""}`}>
        {asTree ? (
          <Outline root={view.root} open={open} selected={selected} onSelect={select} onToggle={(paths) => toggle(...paths)} />
        ) : (
          <LoadedDiagram view={view} open={open} selected={selected} direction={direction === "auto" ? null : (direction as "down")}
            onSelect={select} onToggle={toggle} onTree={tree} onFail={(why) => { failed.value = why; }} />
        )}
        {node && (
          <Details view={view} node={node} open={open.has(node.path)} onGo={follow} onToggle={() => toggle(node.path)}
            onClose={() => { select(null); refocus(node.path); }} />
        )}
      </div>
      {!asTree && <Legend view={view} />}
    </>
  );
}

/** Back to what the details were of. */
function refocus(path: string): void {
  for (const element of document.querySelectorAll<HTMLElement | SVGElement>(".model [data-id]")) {
    if (element.dataset["id"] === path) element.focus({ preventScroll: true });
  }
}

/** The diagram's part of the page is fetched when it is wanted; if that fails, or takes too long, the tree stands in. */
function LoadedDiagram(props: DiagramProps) {
  const found = useSignal<{ show: typeof import("../model/diagram.tsx").default } | null>(null);
  useEffect(() => {
    let over = false;
    const fail = (why: string) => {
      if (!over) props.onFail(why);
      over = true;
    };
    const timer = setTimeout(() => fail(`its part of the page did not come within ${PATIENCE_MS / 1000} s`), PATIENCE_MS);
    import("../model/diagram.tsx").then(
      (part) => {
        if (!over) found.value = { show: part.default };
        over = true;
      },
      () => fail("its part of the page could not be fetched"),
    );
    return () => {
      over = true;
      clearTimeout(timer);
    };
  }, []);
  if (!found.value) return <Loading what="Fetching the diagram" />;
  const Diagram = found.value.show;
  return <Diagram {...props} />;
}

/** The main sizes on top. */
function Main({ view }: { view: ModelView }) {
  const rest = view.n_params - view.trained;
  return (
    <dl class="facts">
      <Fact name="Model" title={view.root?.module ?? ""}>{view.class}</Fact>
      <Fact name="Parameters">
        {grouped(view.n_params)}
        <small>{rest ? `${grouped(view.trained)} are trained` : "all trained"}</small>
      </Fact>
      {view.sizes.filter(({ name }) => name !== "parameters").map((size) => (
        <Fact name={capital(size.name)} key={size.name} title={`from ${size.source}`}>
          {sizeText(size)}
          <small>{size.source}</small>
        </Fact>
      ))}
    </dl>
  );
}

const capital = (text: string) => text.charAt(0).toUpperCase() + text.slice(1).replaceAll("_", " ");

function Problems({ view }: { view: ModelView }) {
  const found = Object.entries(view.problems);
  if (!found.length) return null;
  return (
    <ul class="notice warn">
      {found.map(([what, why]) => <li key={what}>{what}: {why}</li>)}
    </ul>
  );
}

/** What the lines mean, and what was looked at for them. */
function Legend({ view }: { view: ModelView & { root: ModelNode } }) {
  const { seen } = view;
  const traced = isTraced(view.root);
  return (
    <p class="legend faint">
      {seen && traced && (
        <span class="row">
          <svg width="28" height="8" aria-hidden="true"><path class="flow" d="M0 4h28" /></svg>
          seen in {seen.step === null ? "a training step" : `training step ${grouped(seen.step)}`}
        </span>
      )}
      <span class="row">
        <svg width="28" height="8" aria-hidden="true"><path class="flow inferred" d="M0 4h28" /></svg>
        {traced ? "inferred: called next, but not with that result itself" : "inferred: in the order of definition, as no training step was seen"}
      </span>
      {seen && !seen.complete && <span>Not all was seen{seen.reason ? `: ${seen.reason}` : ""}.</span>}
    </p>
  );
}

function CopyText({ view }: { view: ModelView }) {
  const told = useSignal("");
  const copy = async () => {
    told.value = (await copied(asText(view))) ? "Copied" : "This browser did not copy it";
    setTimeout(() => {
      told.value = "";
    }, 2500);
  };
  return (
    <>
      <button type="button" onClick={copy}>Copy as text</button>
      <span class="faint" role="status">{told.value}</span>
    </>
  );
}
