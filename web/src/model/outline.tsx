// The model as a tree of lines: all that the diagram shows, for screen readers, and
// wherever the diagram cannot be drawn.

import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useRef } from "preact/hooks";
import { short } from "../core/format.ts";
import type { ModelNode } from "../types/model.ts";
import { type Open, type Row, inside, rows, treeKey } from "./tree.ts";
import { marks, name, percent, title } from "./words.ts";

/** A tree by the pattern of WAI-ARIA: one row has the focus, arrows move it, Enter selects. */
export function Tree<T>(props: {
  label: string;
  rows: Row<T>[];
  selected: string | null;
  nameOf: (item: T) => string;
  onSelect: (id: string) => void;
  onToggle: (ids: string[]) => void;
  classOf?: (item: T) => string;
  children: (row: Row<T>) => ComponentChildren;
}) {
  const tree = useRef<HTMLDivElement>(null);
  const focused = useSignal<string | null>(null);
  const wanted = focused.value ?? props.selected;
  const stop = props.rows.some((row) => row.id === wanted) ? wanted : props.rows[0]?.id;
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.ctrlKey || event.metaKey || event.altKey || stop == null) return;
    if (event.key === "Enter" || event.key === " ") props.onSelect(stop);
    else {
      const move = treeKey(props.rows, stop, event.key, props.nameOf);
      if (!move) return;
      if (move.toggle) props.onToggle(move.toggle);
      if (move.to !== undefined) go(move.to);
    }
    event.preventDefault();
  };
  const go = (id: string) => {
    focused.value = id;
    for (const element of tree.current?.querySelectorAll<HTMLElement>("[role=treeitem]") ?? []) {
      if (element.dataset["id"] === id) element.focus();
    }
  };
  return (
    <div class="tree" role="tree" aria-label={props.label} ref={tree} onKeyDown={onKeyDown}>
      {props.rows.map((row) => (
        <div key={row.id} role="treeitem" class={`tree-row ${props.classOf?.(row.item) ?? ""}`} data-id={row.id} tabIndex={row.id === stop ? 0 : -1}
          aria-level={row.level} aria-posinset={row.position} aria-setsize={row.size} aria-expanded={row.expanded ?? undefined}
          aria-selected={row.id === props.selected}
          onFocus={() => { focused.value = row.id; }} onClick={() => props.onSelect(row.id)}>
          <span class="indent" style={{ width: `${(row.level - 1) * 18}px` }} />
          <span class="twist" aria-hidden="true" onClick={(event) => {
            if (row.expanded === null) return;
            event.stopPropagation();
            props.onToggle([row.id]);
          }}>
            {row.expanded === null ? "" : row.expanded ? "▾" : "▸"}
          </span>
          {props.children(row)}
        </div>
      ))}
    </div>
  );
}

export function Outline(props: {
  root: ModelNode;
  open: Open;
  selected: string | null;
  onSelect: (path: string) => void;
  onToggle: (paths: string[]) => void;
}) {
  const all = rows(props.root, props.open, (node) => node.path, inside);
  return (
    <Tree label="Modules of the model" rows={all} selected={props.selected} nameOf={(node) => node.name}
      onSelect={props.onSelect} onToggle={props.onToggle}>
      {({ item: node }) => (
        <>
          <span class="what">
            <span class="soft">{node.path && `${name(node)} `}</span>
            <b>{title(node)}</b>
            {marks(node).map((mark) => <span class="mark" key={mark}>{mark}</span>)}
          </span>
          <span class="number soft">{node.total ? short(node.total) : "—"}<span class="unseen"> parameters</span></span>
          <span class="number soft share-text">{node.total ? percent(node.share) : ""}</span>
          <span class="share-bar" aria-hidden="true"><i style={{ width: `${100 * Math.min(1, node.share)}%` }} /></span>
        </>
      )}
    </Tree>
  );
}
