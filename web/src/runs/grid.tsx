// The table itself: only lines in view are in the page, the rest is a height. On phones, cards.
//
// It is a grid of roles: one place in the order of tabs, and arrow keys from line to line.

import { type ReadonlySignal, useComputed, useSignal } from "@preact/signals";
import type { RefObject } from "preact";
import { useEffect, useMemo, useRef } from "preact/hooks";
import { go, to } from "../core/url.ts";
import { Link, Status } from "../parts/parts.tsx";
import type { Column, Group, TableRow } from "../types/runs.ts";
import { called } from "./called.ts";
import { GroupCell, Line, isNumeric, shown, usual } from "./cells.tsx";
import type { Rows } from "./rows.ts";
import { extended, nextSort, toggled } from "./selection.ts";
import { Lines, nameOf, windowsOf } from "./windows.ts";

const AROUND = 6; // lines beyond what is seen
const CHUNK = 8; // lines; what is drawn changes when so many have gone by
const RESTS_MS = 300; // after the last change of what is drawn
const FIRST_WIDTH = { wide: 280, narrow: 220 };

export type GridProps = {
  rows: Rows;
  columns: readonly Column[];
  sort: string;
  selected: readonly string[];
  differences: boolean;
  phone: boolean;
  touch: boolean;
  grouped: string;
  project: string;
  /** Another one begins at the top. */
  question: string;
  onSort: (sort: string) => void;
  onSelect: (keys: string[]) => void;
};

export function Grid(props: GridProps) {
  const { rows, columns, phone } = props;
  const closed = useSignal<ReadonlySet<string>>(new Set());
  const active = useSignal(0);
  const anchor = useRef<number | null>(null);
  const scroller = useRef<HTMLDivElement>(null);
  const body = useRef<HTMLDivElement>(null);
  const outline = rows.outline.value;
  const tick = rows.tick.value;
  const height = phone ? 80 : props.touch ? 44 : 32;
  const matched = outline?.matched ?? 0;
  const groups = props.grouped ? (outline?.groups ?? []) : [];
  const lines = useMemo(
    () => new Lines(matched, groups, closed.value),
    [matched, outline?.content, props.grouped, closed.value],
  );
  const view = useView(scroller, body, height, phone);
  const common = useMemo(
    () => (props.differences ? usual(rows.rows(), columns) : new Map<string, string>()),
    [tick, props.differences, columns],
  );

  // Elements, used again and again. Never fewer: with another number each would be another line's,
  // also the one that has the focus.
  const most = useRef(0);
  most.current = Math.max(most.current, view.value.seen);
  const slots = most.current + CHUNK + 2 * AROUND;
  const first = Math.max(0, Math.min(view.value.first - AROUND, lines.count - slots));
  const last = Math.min(lines.count, first + slots);
  const drawn = inPlace(first, last, slots, useRestingFirst(first));
  useEffect(() => {
    const there = drawn.map((line) => lines.at(line)?.row).filter((row) => row !== null && row !== undefined);
    rows.see(windowsOf(there));
  }, [lines, first, last, tick]);
  const begun = useRef(props.question);
  useEffect(() => {
    if (begun.current === props.question) return;
    begun.current = props.question;
    active.value = 0;
    anchor.current = null;
    if (scroller.current) scroller.current.scrollTop = 0;
  }, [props.question]);
  useEffect(() => {
    if (active.value >= lines.count) active.value = Math.max(0, lines.count - 1);
  }, [lines.count]);

  const keyAt = (row: number) => rows.row(row)?.key ?? null;
  const select = (row: number, reach: boolean) => {
    const key = keyAt(row);
    if (key === null) return;
    const on = reach && anchor.current !== null;
    props.onSelect(on ? extended(props.selected, anchor.current!, row, keyAt) : toggled(props.selected, key));
    anchor.current = row;
  };
  const fold = (group: Group) => {
    const name = nameOf(group);
    const next = new Set(closed.value);
    if (!next.delete(name)) next.add(name);
    closed.value = next;
  };
  const move = (line: number) => {
    active.value = Math.max(0, Math.min(lines.count - 1, line));
    reveal(scroller.current, body.current, active.value * height, height, phone);
  };
  const key = (event: KeyboardEvent) => {
    if (event.target instanceof HTMLInputElement && event.key === " ") return; // its own box
    if (event.target !== scroller.current && event.key === "Enter") return; // a link, a button
    const page = Math.max(1, view.value.seen - 2);
    const place = lines.at(active.value);
    const steps: Record<string, number> = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page };
    if (event.key in steps) {
      const from = place?.row ?? null;
      move(active.value + steps[event.key]!);
      const row = lines.at(active.value)?.row ?? null;
      if (event.shiftKey && from !== null && row !== null) {
        props.onSelect(extended(props.selected, from, row, keyAt));
      }
    } else if (event.key === "Home") move(0);
    else if (event.key === "End") move(lines.count - 1);
    else if (event.key === " " && place) {
      if (place.row !== null) select(place.row, event.shiftKey);
      else fold(groups[place.group]!);
    } else if (event.key === "Enter" && place) {
      const found = place.row === null ? null : keyAt(place.row);
      if (found) go(to.run(found));
      else if (place.row === null) fold(groups[place.group]!);
    } else if ((event.key === "ArrowLeft" || event.key === "ArrowRight") && scroller.current) {
      scroller.current.scrollLeft += event.key === "ArrowLeft" ? -80 : 80;
    } else return;
    event.preventDefault();
  };

  const titled = useRef<HTMLElement | null>(null);
  const untell = () => {
    titled.current?.removeAttribute("title");
    titled.current = null;
  };
  const tell = (event: PointerEvent) => {
    untell();
    const cell = (event.target as Element).closest<HTMLElement>(".body .cell");
    const place = cell && lines.at(numbered(cell.closest(".line"), "aria-rowindex") - 2);
    const row = place && place.row !== null ? rows.row(place.row) : null;
    if (!cell || !row) return;
    cell.title = told(row, phone ? undefined : columns[numbered(cell, "aria-colindex") - 2], common);
    titled.current = cell;
  };
  useEffect(untell, [first, tick, columns]); // the element may be another run's now

  const named = phone ? 0 : FIRST_WIDTH[view.value.wide ? "wide" : "narrow"];
  const widths = [named, ...columns.map(widthOf)];
  const layout = {
    // Names are given the room that is left over.
    "--columns": [`minmax(${named}px, 480px)`, ...widths.slice(1).map((width) => `${width}px`)].join(" "),
    "--width": `${widths.reduce((sum, width) => sum + width, 0)}px`,
    "--row": `${height}px`,
  };
  const shared = { ...props, common, height, select, active };
  return (
    <div
      class={phone ? "runs as-cards" : "runs"}
      ref={scroller}
      role={props.grouped ? "treegrid" : "grid"}
      aria-label="Runs"
      aria-rowcount={lines.count + 1}
      aria-colcount={phone ? 2 : columns.length + 1}
      aria-multiselectable
      aria-activedescendant={active.value >= first && active.value < last ? `line-${active.value}` : undefined}
      tabIndex={0}
      style={layout}
      onKeyDown={key}
      onPointerOver={tell}
      onPointerLeave={untell}
    >
      <Head {...props} />
      <div class="body" ref={body} role="rowgroup" style={{ height: `${lines.count * height}px` }}>
        {drawn.map((line) => {
          const place = lines.at(line);
          if (!place) return null;
          if (place.row === null) {
            const group = groups[place.group];
            return group ? <GroupHead key={line % slots} {...shared} line={line} group={group} closed={closed.value.has(nameOf(group))} fold={fold} /> : null;
          }
          return <Row key={line % slots} {...shared} line={line} place={place.row} row={rows.row(place.row)} />;
        })}
      </div>
    </div>
  );
}

function Head(props: GridProps) {
  return (
    <div class="head" role="rowgroup" hidden={props.phone}>
      <div role="row" aria-rowindex={1} class="line">
        <HeadCell {...props} column={NAME} index={1} />
        {props.columns.map((column, at) => (
          <HeadCell {...props} key={column.ask} column={column} index={at + 2} />
        ))}
      </div>
    </div>
  );
}

const NAME: Column = { name: "name", place: "field", ask: "name", kind: "text", runs: 1, distinct: 2, examples: [] };

function HeadCell(props: GridProps & { column: Column; index: number }) {
  const { column, sort } = props;
  const order = sort === column.ask ? "ascending" : sort === `-${column.ask}` ? "descending" : "none";
  const [prefix, own] = parted(column.ask);
  const right = column.kind === "number";
  return (
    <div role="columnheader" aria-colindex={props.index} aria-sort={order} class={right ? "cell right" : "cell"}>
      <button
        type="button"
        class="plain"
        title={column.ask}
        onClick={() => props.onSort(nextSort(sort, column.ask))}
      >
        <span class="names">
          {prefix && <span class="prefix">{prefix}</span>}
          <span class="clip">{LABELS[column.ask] ?? own}</span>
        </span>
        {order !== "none" && <span class="order" aria-hidden="true">{order === "ascending" ? "▲" : "▼"}</span>}
      </button>
    </div>
  );
}

const LABELS: Record<string, string> = { name: "run", seconds: "ran for", created: "begun" };

/** A dotted or slashed name as what stands small above, and its last part. */
function parted(name: string): [string, string] {
  const at = Math.max(name.lastIndexOf("."), name.lastIndexOf("/"));
  return at > 0 && at < name.length - 1 ? [name.slice(0, at), name.slice(at + 1)] : ["", name];
}

type Shared = GridProps & {
  common: Map<string, string>;
  height: number;
  select: (row: number, reach: boolean) => void;
  active: ReadonlySignal<number> & { value: number };
  line: number;
};

/** A row that has yet to come has the same elements, empty, and the same style: whatever else it
 *  had would be styled and laid out twice while one scrolls. */
const EMPTY = "\u00a0"; // a text of nothing has no layout, and one of this has
const WAITING: TableRow = {
  key: "", id: EMPTY, name: "…", project: "", status: "created", problem: null, values: {},
  arm: null, created: 0, notes: null, seconds: 0, seed: null, sessions: 0, step: null, study: null, tags: [],
};

function Row(props: Shared & { place: number; row: TableRow | null }) {
  const { line, columns } = props;
  const row = props.row ?? WAITING;
  const at = { top: `${line * props.height}px` };
  const isActive = props.active.value === line;
  const marks = `line${isActive ? " active" : ""}`;
  const n = props.selected.indexOf(row.key);
  const { name, id } = called(row);
  const box = (
    <label class="box">
      <input
        type="checkbox"
        tabIndex={-1}
        checked={n >= 0}
        aria-label={`Select ${name} ${id}`}
        onClick={(event) => {
          event.preventDefault(); // the box follows what is selected
          props.select(props.place, event.shiftKey);
          props.active.value = line;
        }}
      />
    </label>
  );
  const link = (
    <Link to={row.key && to.run(row.key)} class="clip" tabIndex={-1}>
      {!props.project && <span class="faint">{row.project ? `${row.project} / ` : EMPTY}</span>}
      {`${name} `}<span class="faint">{id || EMPTY}</span>
      {row.problem && <span class="unseen">{row.problem}</span>}
    </Link>
  );
  return (
    <div
      class={`${marks}${n >= 0 ? " selected" : ""}`}
      id={`line-${line}`}
      role="row"
      aria-rowindex={line + 2}
      aria-selected={n >= 0}
      aria-busy={!props.row}
      aria-level={props.grouped ? 2 : undefined}
      style={at}
      onClick={() => {
        props.active.value = line;
      }}
    >
      <div class="cell first" role="gridcell" aria-colindex={1}>
        {box}
        {n >= 0 && <Line n={n} />}
        {link}
      </div>
      {props.phone ? <CardRest row={row} columns={columns} /> : columns.map((column, index) => (
        <ValueCell key={column.ask} column={column} row={row} index={index + 2} common={props.common} />
      ))}
    </div>
  );
}

function ValueCell(props: { column: Column; row: TableRow; index: number; common: Map<string, string> }) {
  const { column, row } = props;
  const value = row.values[column.ask];
  if (column.ask === "status") {
    return (
      <div class="cell" role="gridcell" aria-colindex={props.index}>
        <Status of={row.status} text={row.key ? row.status : EMPTY} />
      </div>
    );
  }
  const common = row.key ? props.common.get(column.ask) : undefined;
  const other = common !== undefined && JSON.stringify(value ?? null) !== common;
  const text = row.key ? shown(value, column) : EMPTY;
  const right = isNumeric(value) || column.kind === "number";
  return (
    <div
      class={`cell clip${right ? " right" : ""}${other ? " differs" : ""}${text === "–" ? " none" : ""}`}
      role="gridcell"
      aria-colindex={props.index}
    >
      {text}
    </div>
  );
}

/** What a cell tells when pointed at. Titles that change style their element anew, so none stands
 *  there before. */
function told(row: TableRow, column: Column | undefined, common: Map<string, string>): string {
  const problem = row.problem ? `: ${row.problem}` : "";
  if (!column) return `${row.key}${problem}`;
  if (column.ask === "status") return `${row.status}${problem}`;
  const value = row.values[column.ask];
  const most = common.get(column.ask);
  const other = most !== undefined && JSON.stringify(value ?? null) !== most;
  return `${shown(value, column)}${other ? ` (most have ${shown(JSON.parse(most), column)})` : ""}`;
}

/** The second line of a card: what the columns say, as far as it goes. */
function CardRest(props: { row: TableRow; columns: readonly Column[] }) {
  const { row, columns } = props;
  const told = columns.filter(({ ask }) => ask !== "status" && shown(row.values[ask]) !== "–");
  return (
    <div class="cell rest" role="gridcell" aria-colindex={2}>
      <Status of={row.status} text={row.key ? row.status : EMPTY} />
      <span class="clip">
        {told.map((column) => (
          <span key={column.ask} class="run-fact">
            <span class="faint">{LABELS[column.ask] ?? parted(column.ask)[1]}</span> {shown(row.values[column.ask], column)}
          </span>
        ))}
      </span>
    </div>
  );
}

/** The head of a group: its name, how many, how they stand, and means of what there are numbers of. */
function GroupHead(props: Shared & { group: Group; closed: boolean; fold: (group: Group) => void }) {
  const { group, line } = props;
  const live = group.by_status.running ?? 0;
  return (
    <div
      class={`line group${props.active.value === line ? " active" : ""}`}
      id={`line-${line}`}
      role="row"
      aria-rowindex={line + 2}
      aria-expanded={!props.closed}
      aria-level={1}
      style={{ top: `${line * props.height}px` }}
    >
      <div class="cell first" role="gridcell" aria-colindex={1}>
        <button type="button" class="plain" tabIndex={-1} onClick={() => props.fold(group)} title={Object.entries(group.by_status).map(([status, count]) => `${count} ${status}`).join(", ")}>
          <span aria-hidden="true">{props.closed ? "▸" : "▾"}</span>
          <span class="clip">
            <span class="faint">{props.grouped}</span> {group.name ?? "none"}
          </span>
          <span class="faint nowrap">
            {group.count} {group.count === 1 ? "run" : "runs"}{live ? `, ${live} running` : ""}
          </span>
        </button>
      </div>
      {!props.phone && props.columns.map((column, index) => (
        <div key={column.ask} class={column.kind === "number" ? "cell right" : "cell"} role="gridcell" aria-colindex={index + 2}>
          <GroupCell group={group} column={column} />
        </div>
      ))}
    </div>
  );
}

/** `first` is a multiple of CHUNK, `seen` how many lines the view is high. */
type View = { first: number; seen: number; wide: boolean };

/** Which lines are in view, in steps of some lines, so that little is drawn anew. */
function useView(
  scroller: RefObject<HTMLDivElement | null>,
  body: RefObject<HTMLDivElement | null>,
  height: number,
  phone: boolean,
): ReadonlySignal<View> {
  const view = useSignal<View>({ first: 0, seen: 32, wide: true });
  useEffect(() => {
    const [outer, inner] = [scroller.current, body.current];
    if (!outer || !inner) return undefined;
    let frame = 0;
    const measure = () => {
      frame = 0;
      const top = phone ? 0 : outer.getBoundingClientRect().top;
      const above = Math.max(0, top - inner.getBoundingClientRect().top);
      const room = phone ? innerHeight : outer.clientHeight;
      const now = {
        first: Math.floor(above / height / CHUNK) * CHUNK,
        seen: Math.ceil(room / height),
        wide: outer.clientWidth > 900,
      };
      const { value } = view;
      if (now.first !== value.first || now.seen !== value.seen || now.wide !== value.wide) view.value = now;
    };
    const later = () => {
      frame ||= requestAnimationFrame(measure);
    };
    const source = phone ? window : outer;
    source.addEventListener("scroll", later, { passive: true });
    const observer = new ResizeObserver(later);
    observer.observe(outer);
    measure();
    return () => {
      source.removeEventListener("scroll", later);
      observer.disconnect();
      cancelAnimationFrame(frame);
    };
  }, [height, phone]);
  return useComputed(() => view.value);
}

/** Scroll as little as shows a line. */
function reveal(outer: HTMLElement | null, inner: HTMLElement | null, top: number, height: number, phone: boolean): void {
  if (!outer || !inner) return;
  if (phone) {
    const at = inner.getBoundingClientRect().top + top;
    if (at < 60) scrollBy(0, at - 60);
    else if (at + height > innerHeight - 70) scrollBy(0, at + height - innerHeight + 70);
    return;
  }
  const head = inner.offsetTop;
  const room = outer.clientHeight - head;
  if (top < outer.scrollTop) outer.scrollTop = top;
  else if (top + height > outer.scrollTop + room) outer.scrollTop = top + height - room;
}

const WIDTHS: Record<string, number> = {
  status: 118, created: 152, seconds: 112, step: 84, sessions: 84, tags: 170, notes: 260, seed: 72, arm: 130, study: 140,
};

function widthOf(column: Column): number {
  const known = column.place === "field" ? WIDTHS[column.ask] : undefined;
  if (known) return known;
  const [prefix, own] = parted(column.ask);
  const longest = column.kind === "number" ? 9 : Math.max(8, ...column.examples.map((text) => text.length));
  return Math.round(Math.min(220, Math.max(92, 34 + 7.4 * Math.max(own.length, longest, prefix.length * 0.8))));
}

const numbered = (element: Element | null, name: string) => Number(element?.getAttribute(name) ?? Number.NaN);

/** Lines in such an order that none of their elements moves while one scrolls.
 *
 *  An element that is moved in the page is styled and laid out as if it were new. */
function inPlace(first: number, last: number, slots: number, resting: number): number[] {
  const lines = Array.from({ length: Math.max(0, last - first) }, (_, at) => first + at);
  const slot = (line: number) => (((line - resting) % slots) + slots) % slots;
  return lines.sort((a, b) => slot(a) - slot(b));
}

/** The first line that was drawn when scrolling last came to rest: the order of those who read the
 *  page line by line is mended then. */
function useRestingFirst(first: number): number {
  const resting = useSignal(first);
  useEffect(() => {
    const timer = setTimeout(() => (resting.value = first), RESTS_MS);
    return () => clearTimeout(timer);
  }, [first]);
  return resting.value;
}
