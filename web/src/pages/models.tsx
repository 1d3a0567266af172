// The models of two runs side by side: their sizes, and one tree in which modules are paired.

import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useMemo } from "preact/hooks";
import type { PageProps } from "../app.tsx";
import { short } from "../core/format.ts";
import { useFetched } from "../core/live.ts";
import { query, set, split, to } from "../core/url.ts";
import {
  type Parts, type SizeRow, changesText, openDifferences, pairId, pairsInside, parts, sideText, sizeRows, value, verdict,
} from "../model/diff.ts";
import { Tree } from "../model/outline.tsx";
import { RunPicker } from "../model/picker.tsx";
import { rows } from "../model/tree.ts";
import { Choice, Empty, Link, Loading, Problem } from "../parts/parts.tsx";
import type { Change, DiffNode, ModelDiff, Side } from "../types/model.ts";

const WHICH = [
  ["all", "All modules"],
  ["differing", "Only what differs"],
] as const;

export default function ModelsPage(_: PageProps) {
  const [a, b] = [query.value.get("a") ?? "", query.value.get("b") ?? ""];
  const ready = a.includes("/") && b.includes("/");
  return (
    <div class="stack model">
      <h1>Two models side by side</h1>
      <div class="pickers">
        <RunPicker label="Left: choose a run" value={a} onChange={(key) => set({ a: key, open: null })} />
        <button type="button" disabled={!ready} onClick={() => set({ a: b, b: a })} aria-label="Swap left and right" title="Swap left and right">⇄</button>
        <RunPicker label="Right: choose a run" value={b} onChange={(key) => set({ b: key, open: null })} />
      </div>
      {ready ? <Compared key={`${a} ${b}`} a={a} b={b} /> : <Empty text="Choose two runs to see how their models differ." />}
    </div>
  );
}

function Compared({ a, b }: { a: string; b: string }) {
  const { data, error } = useFetched<ModelDiff>(`/api/v1/models/compare?${new URLSearchParams({ a, b })}`);
  if (error.value) return <Problem text={error.value} />;
  const diff = data.value;
  if (!diff) return <Loading what="Putting the models side by side" />;
  return (
    <>
      <Sizes diff={diff} a={a} b={b} />
      {diff.root ? <Pairs diff={diff} root={diff.root} /> : <Empty text={`There is nothing to compare: ${diff.reason}.`} />}
    </>
  );
}

function Sizes({ diff, a, b }: { diff: ModelDiff; a: string; b: string }) {
  const found = sizeRows(diff);
  return (
    <div class="scroll panel" tabIndex={0} role="region" aria-label="Sizes of both models">
      <table class="plain-table model-sides">
        <thead>
          <tr>
            <th scope="col">size</th>
            <th scope="col"><Head side="left" run={a} /></th>
            <th scope="col"><Head side="right" run={b} /></th>
            <th scope="col">differs</th>
          </tr>
        </thead>
        <tbody>{found.map((row) => <SizeLine key={row.name} row={row} />)}</tbody>
      </table>
    </div>
  );
}

function Head({ side, run }: { side: string; run: string }) {
  return (
    <>
      {side}: <Link to={to.model(run)} title={run}>{split(run)[1]}</Link>
    </>
  );
}

function SizeLine({ row }: { row: SizeRow }) {
  return (
    <tr class={row.same ? "" : "unequal"}>
      <th scope="row">{row.name}</th>
      <td>{row.left ?? "—"}</td>
      <td>{row.right ?? "—"}</td>
      <td>{row.same ? "" : "≠ differs"}</td>
    </tr>
  );
}

function Pairs({ diff, root }: { diff: ModelDiff; root: DiffNode }) {
  const only = query.value.get("show") === "differing";
  const open = useSignal<ReadonlySet<string>>(useMemo(() => openDifferences(root), [root]));
  const selected = useSignal<string | null>(null);
  const all = rows(root, open.value, pairId, (node) => pairsInside(node, only));
  const node = all.find((row) => row.id === selected.value)?.item;
  const toggle = (ids: string[]) => {
    const next = new Set(open.value);
    for (const id of ids) if (!next.delete(id)) next.add(id);
    open.value = next;
  };
  return (
    <>
      <div class="row">
        <h2 class="grow">{diff.same ? "The two are the same in every module" : summary(root)}</h2>
        <Choice label="Which modules" options={WHICH} value={only ? "differing" : "all"} onChange={(next) => set({ show: next === "all" ? null : next })} />
      </div>
      <div class={`model-parts${node ? " with-details" : ""}`}>
        <Tree label="Modules of both models" rows={all} selected={selected.value} nameOf={(one) => (one.left ?? one.right)?.name ?? ""}
          onToggle={toggle} onSelect={(id) => { selected.value = id; }} classOf={(one) => one.status}>
          {({ item, level }) => (
            <span class="pair">
              <One side={item.left} node={item} paths={item.lefts} />
              <span class={`verdict ${item.status}`}>
                {verdict(item)}
                {item.changes && <span class="unseen">: {changesText(item)}</span>}
              </span>
              <One side={item.right} node={item} paths={item.rights} indent={(level - 1) * 18} />
            </span>
          )}
        </Tree>
        {node && <PairDetails node={node} onClose={() => { selected.value = null; }} />}
      </div>
    </>
  );
}

function summary(root: DiffNode): string {
  const count = (root.within ?? 0) + (root.status === "same" ? 0 : 1);
  return `${count} ${count === 1 ? "module differs" : "modules differ"}`;
}

type OneProps = { side: Side | null | undefined; node: DiffNode; paths: string[] | undefined; indent?: number };

function One({ side, node, paths, indent = 0 }: OneProps) {
  const folds = node.folds ?? 1;
  const style = { paddingLeft: `${indent}px` };
  if (!side) return <span class="gone" style={style}>—</span>;
  return (
    <span style={style}>
      <b>{sideText(side, folds, paths)}</b>{" "}
      <span class="soft nowrap">
        {side.params ? short(side.params) : ""}
        {side.params && folds > 1 ? " each" : ""}
      </span>
    </span>
  );
}

function PairDetails({ node, onClose }: { node: DiffNode; onClose: () => void }) {
  const changes = node.changes ?? [];
  const escape = (event: KeyboardEvent) => {
    if (event.key === "Escape") onClose();
  };
  return (
    <aside class="model-details panel stack" aria-label="Details of the pair" onKeyDown={escape}>
      <header class="row">
        <h2 class="grow">{verdict(node)}</h2>
        <button type="button" class="plain icon" aria-label="Close the details" title="Close" onClick={onClose}>✕</button>
      </header>
      <dl class="known">
        <Known name="left"><Paths side={node.left} paths={node.lefts} /></Known>
        <Known name="right"><Paths side={node.right} paths={node.rights} /></Known>
        {changes.map((change) => <Changed key={change.what} change={change} />)}
      </dl>
      {!changes.length && node.status === "same" && (
        <p class="soft">Class, settings, shapes and parameters are equal{node.within ? "; what differs is inside" : ""}.</p>
      )}
    </aside>
  );
}

function Known(props: { name: string; children: ComponentChildren }) {
  return (
    <div>
      <dt>{props.name}</dt>
      <dd>{props.children}</dd>
    </div>
  );
}

function Paths({ side, paths }: { side: Side | null | undefined; paths: string[] | undefined }) {
  if (!side) return <span class="soft">there is none</span>;
  return (
    <>
      <b>{side.class}</b> <span class="mono">{paths?.length ? paths.map((path) => path || "the whole model").join(", ") : side.path || "the whole model"}</span>
    </>
  );
}

/** Both sides of what is not equal; the part that differs is marked. */
function Changed({ change }: { change: Change }) {
  const [left, right] = parts(value(change, change.left), value(change, change.right));
  return (
    <Known name={change.what === "params" ? "parameters" : change.what}>
      <span class="line"><span class="soft">left</span> <Marked of={left} /></span>
      <span class="line"><span class="soft">right</span> <Marked of={right} /></span>
    </Known>
  );
}

function Marked({ of: [before, differs, after] }: { of: Parts }) {
  return (
    <code>
      {before}
      {differs && <mark>{differs}</mark>}
      {after}
    </code>
  );
}
