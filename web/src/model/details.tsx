// All that is known of one module: beside the diagram, on phones a sheet from below.

import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { grouped } from "../core/format.ts";
import type { ModelNode, ModelTensor, ModelView } from "../types/model.ts";
import { inside } from "./tree.ts";
import { isIdle, name, percent, reading, shape, sizeText, tensor, title, trained } from "./words.ts";

export function Details(props: {
  view: ModelView;
  node: ModelNode;
  open: boolean;
  onGo: (path: string) => void;
  onToggle: () => void;
  onClose: () => void;
}) {
  const { view, node } = props;
  const top = useRef<HTMLElement>(null);
  useEffect(() => top.current?.scrollTo(0, 0), [node.path]);
  const close = (event: KeyboardEvent) => {
    if (event.key !== "Escape") return;
    event.stopPropagation();
    props.onClose();
  };
  return (
    <aside class="model-details panel stack" ref={top} aria-label={`Details of ${title(node)}`} onKeyDown={close}>
      <header class="row">
        <h2 class="grow">{title(node)}</h2>
        <button type="button" class="plain icon" aria-label="Close the details" title="Close" onClick={props.onClose}>✕</button>
      </header>
      <p class="mono where">{node.folds && node.folds > 1 ? pathsOf(node) : node.path || name(node)}</p>
      {inside(node).length > 0 && (
        <button type="button" onClick={props.onToggle} aria-expanded={props.open}>
          {props.open ? "Hide" : "Show"} what is inside{node.folds && node.folds > 1 ? " of each" : ""}
        </button>
      )}
      <dl class="known">
        <Known name="class">
          <code>{node.module}</code>
        </Known>
        {node.extra && <Known name="settings"><code>{node.extra}</code></Known>}
        <Known name="parameters">
          {grouped(node.total)}
          {node.total !== node.own && <small>{node.own ? `${grouped(node.own)} of its own` : "none of its own"}{together(node)}</small>}
        </Known>
        <Known name="share of the model">{node.total ? percent(node.share) : "none"}</Known>
        <Known name="trained">{trained(node)}</Known>
        {node.dtypes?.length ? <Known name="dtype">{node.dtypes.join(", ")}</Known> : null}
        <Known name="takes"><Shapes of={node.inputs} node={node} /></Known>
        <Known name="gives"><Shapes of={node.outputs} node={node} /></Known>
        {node.varies && <Known name="shapes">differ from call to call; those of the first are told</Known>}
        <Known name="calls">{calls(view, node)}</Known>
        {node.shared_with != null && (
          <Known name="shared">
            the same module as <Go to={node.shared_with} onGo={props.onGo} />; its parameters count there
          </Known>
        )}
        {node.also?.length ? (
          <Known name="shared">
            the same module is also {node.also.map((path, at) => <>{at > 0 && ", "}<Go key={path} to={path} onGo={props.onGo} /></>)}
          </Known>
        ) : null}
        <Norm name="gradient norm" node={node} norm="grad_norm" />
        <Norm name="weight norm" node={node} norm="weight_norm" />
      </dl>
      {node.tensors?.length ? <Tensors of={node.tensors} each={(node.folds ?? 1) > 1} /> : null}
      {(node.members?.length ?? 0) > 1 && <Members of={node.members!} />}
      {node.path === "" && view.sizes.length > 0 && <Sizes view={view} />}
    </aside>
  );
}

function pathsOf(node: ModelNode): string {
  const paths = node.paths ?? [];
  return `${paths[0]} … ${paths.at(-1)}`;
}

const together = (node: ModelNode) => ((node.folds ?? 1) > 1 ? `, ${grouped(node.total / node.folds!)} in each` : "");

function Known(props: { name: string; children: ComponentChildren }) {
  return (
    <div>
      <dt>{props.name}</dt>
      <dd>{props.children}</dd>
    </div>
  );
}

function Shapes({ of, node }: { of: ModelNode["inputs"]; node: ModelNode }) {
  if (of == null && node.shared_with != null) return <span class="soft">told of {node.shared_with}</span>;
  if (of == null) return <span class="soft">{isIdle(node) ? "nothing: it was not called" : node.calls === 0 ? "not called itself" : "not known"}</span>;
  if (!of.length) return <span class="soft">no tensor</span>;
  return <>{of.map((one, at) => <span class="line" key={at}>{shape(one)}</span>)}</>;
}

function calls(view: ModelView, node: ModelNode): string {
  if (!node.calls && node.shared_with != null) return `told of ${node.shared_with}`;
  if (node.calls == null) return view.seen ? "not known" : "not known: no training step was looked at";
  const each = (node.folds ?? 1) > 1 ? " each" : "";
  if (!node.calls) return isIdle(node) ? "none in the first training step" : "none itself: what is inside was called";
  const order = node.order == null || !node.path ? "" : `; number ${grouped(node.order + 1)} in the order of first calls`;
  return `${grouped(node.calls)}${each} in the first training step${order}`;
}

function Norm(props: { name: string; node: ModelNode; norm: "grad_norm" | "weight_norm" }) {
  const told = reading(props.node[props.norm]);
  return told ? <Known name={props.name}>{told}</Known> : null;
}

function Go(props: { to: string; onGo: (path: string) => void }) {
  return (
    <button type="button" class="plain go mono" onClick={() => props.onGo(props.to)}>
      {props.to || "the whole model"}
    </button>
  );
}

function Tensors({ of, each }: { of: ModelTensor[]; each: boolean }) {
  return (
    <section class="stack">
      <h3>Tensors of its own{each ? ", in each" : ""}</h3>
      <ul class="tensors">
        {of.map((one) => (
          <li key={one.name}>
            <code>{tensor(one)}</code> <span class="soft">{kind(one)}</span>
          </li>
        ))}
      </ul>
    </section>
  );
}

function kind(one: ModelTensor): string {
  if (one.tied_to) return `tied to ${one.tied_to}, and counted there`;
  if (one.buffer) return "buffer";
  return one.trained ? "" : "not trained";
}

/** What is alike is told once; what tells the members apart is here. */
function Members({ of }: { of: ModelNode[] }) {
  const norms = of.some((one) => one.grad_norm || one.weight_norm);
  return (
    <section class="stack">
      <h3>{of.length} that are alike</h3>
      {norms ? (
        <div class="scroll">
          <table class="plain-table">
            <thead>
              <tr>
                <th scope="col">module</th>
                <th scope="col">gradient norm</th>
                <th scope="col">weight norm</th>
              </tr>
            </thead>
            <tbody>
              {of.map((one) => (
                <tr key={one.path}>
                  <th scope="row" class="mono">{one.path}</th>
                  <td>{reading(one.grad_norm) ?? "—"}</td>
                  <td>{reading(one.weight_norm) ?? "—"}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      ) : (
        <p class="mono">{of.map((one) => one.path).join(", ")}</p>
      )}
    </section>
  );
}

function Sizes({ view }: { view: ModelView }) {
  return (
    <section class="stack">
      <h3>Sizes, and what says them</h3>
      <ul class="tensors">
        {view.sizes.map((size) => (
          <li key={size.name}>
            {size.name} <b>{sizeText(size)}</b> <span class="soft">{size.source}</span>
          </li>
        ))}
      </ul>
    </section>
  );
}
