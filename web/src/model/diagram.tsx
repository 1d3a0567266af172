// The diagram of a model: boxes and lines in one SVG, moved by wheel, fingers, buttons and keys.
//
// What goes where is asked of a worker; while it works, what was there stays. This file holds the
// chunk with d3-zoom: the page fetches it when a diagram is first wanted.

import { useSignal } from "@preact/signals";
import { select } from "d3-selection";
import { type D3ZoomEvent, type ZoomBehavior, zoom, zoomIdentity, zoomTransform } from "d3-zoom";
import { useEffect, useLayoutEffect, useMemo, useRef } from "preact/hooks";
import type { ModelNode, ModelView } from "../types/model.ts";
import type { Arranged, Direction, Place } from "./arrange.ts";
import { Layouts } from "./asking.ts";
import { BASELINES, type Box, type Rect, SIGN, boxes, flat, neighbour, plan } from "./boxes.ts";
import type { Open } from "./tree.ts";
import { isIdle, label } from "./words.ts";

export type DiagramProps = {
  view: ModelView & { root: ModelNode };
  open: Open;
  selected: string | null;
  direction: Direction | null;
  onSelect: (path: string) => void;
  onToggle: (path: string) => void;
  onTree: (path: string) => void;
  onFail: (why: string) => void;
};

const EDGE = 20;
const FACTOR = 1.3;
const SCALES: [number, number] = [0.1, 3];
/** Below that, what is written could not be read: then not all of it is shown at first. */
const LEAST_AT_FIRST = 0.92;

type Shown = { box: Box; all: Box[]; arranged: Arranged; places: Map<string, Place>; heads: Map<string, Rect>; direction: Direction };

export default function Diagram(props: DiagramProps) {
  const { view, open } = props;
  const svg = useRef<SVGSVGElement>(null);
  const moved = useRef<SVGGElement>(null);
  const shown = useSignal<Shown | null>(null);
  const focused = useSignal(props.selected ?? view.root.path);
  const pane = useMemo(() => new Pane(svg, moved, () => shown.peek()), []);
  const layouts = useMemo(() => new Layouts(), []);
  const chosen = useRef<{ direction: Direction | null }>({ direction: null });

  useEffect(() => () => layouts.end(), []);
  useEffect(() => pane.begin(), []);
  useEffect(() => {
    const direction = props.direction ?? (chosen.current.direction ??= pane.direction());
    const box = boxes(view, open, measured);
    let gone = false;
    layouts.ask(plan(box), direction).then(
      (arranged) => {
        if (gone) return;
        const places = new Map(arranged.places);
        const all = flat(box);
        shown.value = { box, all, arranged, places, heads: heads(all, places), direction };
      },
      (why: Error) => {
        if (!gone) props.onFail(why.message);
      },
    );
    return () => {
      gone = true;
    };
  }, [view, open, props.direction]);
  const now = shown.value;
  useLayoutEffect(() => {
    if (now) pane.settle(now, focused.peek());
  }, [now]);
  useEffect(() => {
    if (!now || props.selected === null || !now.heads.has(props.selected)) return;
    focused.value = props.selected;
    pane.reveal(props.selected);
  }, [props.selected, now]);

  const focus = (id: string) => {
    focused.value = id;
    pane.focus(id);
  };
  const act = (box: Box) => {
    if (box.kind === "more") return props.onTree(box.node.path);
    props.onSelect(box.node.path);
    if (box.open !== null) props.onToggle(box.node.path);
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (!now || event.ctrlKey || event.metaKey || event.altKey) return;
    const at = focused.peek();
    const box = now.all.find((one) => one.id === at);
    if (!box) return;
    if (event.key === "Enter" || event.key === " ") act(box);
    else if (event.key === "Escape") focus(parent(now.all, at) ?? at);
    else if (event.key === "+" || event.key === "=") pane.scale(FACTOR);
    else if (event.key === "-") pane.scale(1 / FACTOR);
    else if (event.key === "0") pane.fit(0);
    else if (event.key.startsWith("Arrow")) focus(neighbour(now.heads, at, event.key) ?? at);
    else return;
    event.preventDefault();
  };

  // Something must be reached by Tab, also when what had the focus is hidden now.
  const stop = now?.heads.has(focused.value) ? focused.value : view.root.path;
  return (
    <div class="diagram">
      <svg ref={svg} role="group" class="canvas" onKeyDown={onKeyDown}
        aria-label="Diagram of the model. Arrow keys go to neighbours, Enter opens or closes, Escape goes to what it is in; plus, minus and 0 zoom.">
        <defs>
          <marker id="model-arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
            <path d="M0.5 0.8 7 4 0.5 7.2z" />
          </marker>
        </defs>
        <g ref={moved}>
          {now?.all.map((box) => (
            <Drawn key={box.id} box={box} place={now.places.get(box.id)!} selected={props.selected === box.id}
              stop={stop === box.id} onFocus={(byKey) => { focused.value = box.id; if (byKey) pane.reveal(box.id); }}
              onClick={() => { focused.value = box.id; if (box.kind === "more") act(box); else props.onSelect(box.node.path); }}
              onSign={() => { focused.value = box.id; props.onToggle(box.node.path); }} />
          ))}
          {now && <Lines shown={now} />}
        </g>
      </svg>
      {!now && <p class="loading over" role="status">Laying out the diagram …</p>}
      <Buttons pane={pane} />
    </div>
  );
}

function Buttons({ pane }: { pane: Pane }) {
  return (
    <div class="zooms" role="group" aria-label="Zoom">
      <button type="button" class="icon" aria-label="Zoom in" title="Zoom in (+)" onClick={() => pane.scale(FACTOR)}>+</button>
      <button type="button" class="icon" aria-label="Zoom out" title="Zoom out (−)" onClick={() => pane.scale(1 / FACTOR)}>−</button>
      <button type="button" aria-label="Fit all of it" title="Show all of it (0)" onClick={() => pane.fit(0)}>Fit</button>
    </div>
  );
}

type DrawnProps = {
  box: Box;
  place: Place;
  selected: boolean;
  stop: boolean;
  onFocus: (byKey: boolean) => void;
  onClick: () => void;
  onSign: () => void;
};

function Drawn({ box, place, selected, stop, onFocus, onClick, onSign }: DrawnProps) {
  const at = `translate(${place.x} ${place.y})`;
  if (box.kind === "in" || box.kind === "out") {
    const r = place.width / 2 - 1;
    return (
      <g transform={at} class="port">
        <title>{box.kind === "in" ? `what ${box.node.class} is given` : `what ${box.node.class} gives back`}</title>
        <circle cx={r + 1} cy={r + 1} r={r} class={box.kind} />
      </g>
    );
  }
  const { width, height } = place;
  const folds = box.kind === "module" ? (box.node.folds ?? 1) : 1;
  const look = [box.kind, box.open ? "open" : "", selected ? "selected" : "", isIdle(box.node) ? "idle" : ""];
  return (
    <g transform={at} class={`module ${look.join(" ")}`} role="button" tabIndex={stop ? 0 : -1} data-id={box.id}
      aria-description={box.kind === "module" ? label(box.node) : undefined} aria-expanded={box.open ?? undefined} aria-current={selected ? "true" : undefined}
      onFocus={(event) => onFocus(event.currentTarget.matches(":focus-visible"))} onClick={onClick}>
      {folds > 1 && !box.open && <path class="behind" d={`M4 ${height}v4H${width + 4}V4h-4`} />}
      <rect class="frame" width={width} height={height} rx="5" />
      {box.lines.map((text, line) => (
        <text key={line} x="12" y={BASELINES[line]} class={`line${line}`}>{`${text} `}</text>
      ))}
      {box.kind === "module" && <Share of={box.node.share} box={box} width={width} />}
      {box.open !== null && <Sign box={box} width={width} onSign={onSign} />}
    </g>
  );
}

/** The share of the parameters, as a thin bar below what is written. */
function Share({ of, box, width }: { of: number; box: Box; width: number }) {
  if (!of) return null;
  const room = box.open ? Math.min(width - 24, 120) : width - 24;
  return (
    <g class="share" transform={`translate(12 ${box.height - 5})`}>
      <rect width={room} height="2" />
      <rect class="part" width={Math.max(1, room * Math.min(1, of))} height="2" />
    </g>
  );
}

/** Opens and closes: plus or minus, in a field that a finger can hit. */
function Sign({ box, width, onSign }: { box: Box; width: number; onSign: () => void }) {
  const [x, y] = [width - SIGN / 2 - 3, 14];
  const press = (event: Event) => {
    event.stopPropagation();
    onSign();
  };
  return (
    <g class="sign" onClick={press} aria-hidden="true">
      <rect class="field" x={width - 46} y="-2" width="50" height={box.height + 4} />
      <path d={`M${x - 4} ${y}h8${box.open ? "" : `M${x} ${y - 4}v8`}`} />
    </g>
  );
}

function Lines({ shown }: { shown: Shown }) {
  const inferred = new Set(shown.all.flatMap((box) => box.edges.filter((one) => one.inferred).map(key)));
  return (
    <g aria-hidden="true">
      {shown.arranged.routes.map((route) => (
        <path key={key(route)} class={`flow${inferred.has(key(route)) ? " inferred" : ""}`} d={curve(route.points)} marker-end="url(#model-arrow)" />
      ))}
    </g>
  );
}

const key = (line: { from: string; to: string }) => JSON.stringify([line.from, line.to]);

/** A line that bends softly at its points. */
function curve(points: [number, number][]): string {
  const [first, ...others] = points;
  if (!first) return "";
  const last = others.at(-1) ?? first;
  const bends = others.slice(0, -1).map(([x, y], at) => {
    const [nextX, nextY] = others[at + 1]!;
    const end = at === others.length - 2 ? last : [(x + nextX) / 2, (y + nextY) / 2];
    return `Q${x} ${y} ${end[0]} ${end[1]}`;
  });
  return `M${first[0]} ${first[1]}${bends.join("") || `L${last[0]} ${last[1]}`}`;
}

/** Of each box that can have the focus: where it is written on. */
function heads(all: Box[], places: Map<string, Place>): Map<string, Rect> {
  const found = new Map<string, Rect>();
  for (const box of all) {
    const place = places.get(box.id)!;
    if (box.kind === "module" || box.kind === "more") found.set(box.id, { ...place, height: box.height });
  }
  return found;
}

function parent(all: Box[], id: string): string | null {
  return all.find((box) => box.inside.some((one) => one.id === id))?.id ?? null;
}

/** Measures as the browser draws it, so that nothing is cut off. */
function measured(text: string, line: number): number {
  pen ??= document.createElement("canvas").getContext("2d");
  if (!pen) return text.length * 8;
  const family = getComputedStyle(document.body).fontFamily;
  pen.font = line ? `12px ${family}` : `600 13px ${family}`;
  return pen.measureText(text).width;
}
let pen: CanvasRenderingContext2D | null | undefined;

/** What is seen of the diagram: moved and scaled by d3-zoom. */
class Pane {
  readonly #svg: { current: SVGSVGElement | null };
  readonly #moved: { current: SVGGElement | null };
  readonly #shown: () => Shown | null;
  readonly #zoom: ZoomBehavior<SVGSVGElement, unknown>;
  #own = false;
  #before: Shown | null = null;

  constructor(svg: { current: SVGSVGElement | null }, moved: { current: SVGGElement | null }, shown: () => Shown | null) {
    this.#svg = svg;
    this.#moved = moved;
    this.#shown = shown;
    this.#zoom = zoom<SVGSVGElement, unknown>()
      .scaleExtent(SCALES)
      .clickDistance(5)
      .extent(() => [[0, 0], this.#size()])
      .on("zoom", (event: D3ZoomEvent<SVGSVGElement, unknown>) => {
        if (event.sourceEvent) this.#own = true;
        this.#moved.current?.setAttribute("transform", event.transform.toString());
      });
  }

  begin(): () => void {
    const svg = this.#svg.current!;
    select(svg).call(this.#zoom).on("dblclick.zoom", null);
    const observer = new ResizeObserver(() => {
      if (!this.#own && this.#shown()) this.fit(LEAST_AT_FIRST);
    });
    observer.observe(svg);
    return () => observer.disconnect();
  }

  /** As there is room: from left to right where it is wide, else from top to bottom. */
  direction(): Direction {
    const { width, height } = this.#svg.current!.getBoundingClientRect();
    return width > 700 && width > 1.5 * height ? "right" : "down";
  }

  scale(by: number): void {
    this.#own = true;
    this.#select().call(this.#zoom.scaleBy, by);
  }

  /** All of it, as large as it gets; not smaller than `least`, then from its beginning on. */
  fit(least: number): void {
    const shown = this.#shown();
    const root = shown && shown.places.get(shown.box.id);
    const [width, height] = this.#size();
    if (!root || !width || !height) return;
    const whole = Math.min((width - 2 * EDGE) / root.width, (height - 2 * EDGE) / root.height, 1.15);
    const k = Math.max(whole, least, SCALES[0]);
    const x = Math.max((width - root.width * k) / 2, shown.direction === "right" ? EDGE : -Infinity);
    const y = Math.max((height - root.height * k) / 2, EDGE);
    this.#own = false;
    this.#select().call(this.#zoom.transform, zoomIdentity.translate(x, y).scale(k));
  }

  /** A new layout: the first is shown whole, in later ones what has the focus stays where it was. */
  settle(shown: Shown, anchor: string): void {
    const before = this.#before;
    this.#before = shown;
    if (!before || before.direction !== shown.direction) return this.fit(LEAST_AT_FIRST);
    const [was, is] = [before.places.get(anchor), shown.places.get(anchor)];
    if (!was || !is || (was.x === is.x && was.y === is.y)) return;
    this.#select().call(this.#zoom.translateBy, was.x - is.x, was.y - is.y);
  }

  focus(id: string): void {
    for (const element of this.#svg.current?.querySelectorAll<SVGGElement>("[data-id]") ?? []) {
      if (element.dataset["id"] === id) element.focus({ preventScroll: true });
    }
  }

  /** Move as little as brings a box into view. */
  reveal(id: string): void {
    const [svg, head] = [this.#svg.current, this.#shown()?.heads.get(id)];
    if (!svg || !head) return;
    this.#own = true; // what is looked at stays where it is, also when the details take some room
    if (this.#sheet() !== null) svg.scrollIntoView({ block: "start" });
    const { x, y, k } = zoomTransform(svg);
    const [width, height] = this.#size();
    const across = shift(x + head.x * k, head.width * k, width);
    const down = shift(y + head.y * k, head.height * k, height);
    if (across || down) this.#select().call(this.#zoom.translateBy, across / k, down / k);
  }

  #select() {
    return select(this.#svg.current!);
  }

  /** Without what a sheet below covers. */
  #size(): [number, number] {
    const svg = this.#svg.current;
    if (!svg) return [0, 0];
    const box = svg.getBoundingClientRect();
    const covered = Math.max(0, box.bottom - (this.#sheet() ?? Infinity));
    return [box.width, Math.max(80, box.height - covered)];
  }

  /** Where the sheet of details begins, if it lies over the page. */
  #sheet(): number | null {
    const sheet = document.querySelector(".model-details");
    if (!sheet || getComputedStyle(sheet).position !== "fixed") return null;
    return sheet.getBoundingClientRect().top;
  }
}

/** How far something must go to be within a length, with some room around. */
function shift(from: number, size: number, length: number): number {
  if (from < EDGE || size > length - 2 * EDGE) return EDGE - from;
  return Math.min(0, length - EDGE - (from + size));
}
