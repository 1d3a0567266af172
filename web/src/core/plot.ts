// One chart on a canvas, with uPlot for axes, cursor and selection; the curves are drawn by draw.ts.
// This module is a chunk of its own: a page in which it cannot be fetched shows tables instead.

import uPlot from "uplot";
import { curves, extent, type Look } from "./draw.ts";
import { number } from "./format.ts";
import type { ChartData } from "./series.ts";

export type PlotOptions = {
  x: string;
  logX: boolean;
  logY: boolean;
  clip: boolean;
  /** What is shown of x; null follows the data. */
  view: [number, number] | null;
  /** Values that are drawn across, such as the entropy of a corpus. */
  lines: { value: number; label: string }[];
  /** Where sessions of a resumed run began. */
  begins: { x: number; label: string }[];
};

export type PlotEvents = {
  onZoom: (view: [number, number] | null) => void;
  /** The row under the cursor, null when it has left. */
  onCursor: (row: number | null, left: number) => void;
  onDrawn: (outside: number) => void;
};

const MIN_DRAG_PX = 6;

export class Plot {
  private readonly host: HTMLElement;
  private readonly events: PlotEvents;
  private plot: uPlot | null = null;
  private data: ChartData | null = null;
  private places: Float64Array = new Float64Array(0);
  private looks: Look[] = [];
  private options: PlotOptions;
  private shape = "";
  private range: { low: number; high: number; outside: number } = { low: 0, high: 1, outside: 0 };

  constructor(host: HTMLElement, options: PlotOptions, events: PlotEvents) {
    this.host = host;
    this.options = options;
    this.events = events;
  }

  /** Draw what there is now. */
  set(data: ChartData, looks: Look[], options: PlotOptions): void {
    this.data = data;
    this.looks = looks;
    this.options = options;
    this.places = data.places();
    this.range = extent(this.places, data.length, data.curves, looks, this.view(), {
      log: options.logY,
      clip: options.clip,
    });
    const shape = JSON.stringify([options.x, options.logX, options.logY, colours(this.host)]);
    if (!this.plot || shape !== this.shape) {
      this.shape = shape;
      this.build();
    } else {
      this.plot.setData(this.columns(), true);
    }
    this.events.onDrawn(this.range.outside);
  }

  resize(): void {
    const { clientWidth: width, clientHeight: height } = this.host;
    if (width > 0 && height > 0) this.plot?.setSize({ width, height });
  }

  /** Move the cursor to a row, as the arrow keys do. */
  point(row: number): void {
    const left = this.plot?.valToPos(this.places[row] ?? Number.NaN, "x");
    if (left !== undefined && Number.isFinite(left)) {
      this.plot?.setCursor({ left, top: (this.plot.over.clientHeight ?? 0) / 2 });
    }
  }

  /** Move the cursor to a position in pixels from the left of the plot, as a finger does. */
  move(left: number): void {
    const width = this.plot?.over.clientWidth ?? 0;
    this.plot?.setCursor({ left: Math.max(0, Math.min(width - 1, left)), top: 1 });
  }

  leave(): void {
    this.plot?.setCursor({ left: -10, top: -10 });
  }

  /** The place under a position in pixels from the left of the plot. */
  placeAt(left: number): number {
    return this.plot?.posToVal(left, "x") ?? Number.NaN;
  }

  /** What is shown of x. */
  view(): [number, number] {
    const { view, logX } = this.options;
    if (view && (!logX || view[0] > 0)) return view;
    // A logarithmic axis that began at 0 would never end its search for ticks.
    const places = logX ? this.places.filter((place) => place > 0) : this.places;
    if (!places.length) return logX ? [1, 10] : [0, 1];
    const low = places[0]!;
    const high = places[places.length - 1]!;
    if (low < high) return [low, high];
    return logX ? [low / 2, low * 2] : [low - 0.5, low + 0.5];
  }

  destroy(): void {
    this.plot?.destroy();
    this.plot = null;
    this.data = null;
  }

  private columns(): uPlot.AlignedData {
    // The values tell the cursor where there are rows; they are drawn from the curves themselves.
    const rows = this.places.length;
    return [this.places, new Float64Array(rows)] as unknown as uPlot.AlignedData;
  }

  private build(): void {
    this.plot?.destroy();
    const look = colours(this.host);
    const time = this.options.x === "time";
    const axis = {
      stroke: look.soft,
      font: look.font,
      labelFont: look.font,
      grid: { stroke: look.line, width: 1 },
      ticks: { stroke: look.line, width: 1, size: 4 },
      gap: 4,
    };
    const small = this.host.clientWidth < 420;
    this.plot = new uPlot(
      {
        width: Math.max(50, this.host.clientWidth),
        height: Math.max(50, this.host.clientHeight),
        legend: { show: false },
        padding: [8, 12, 0, 0],
        scales: {
          x: {
            time,
            distr: this.options.logX ? 3 : 1,
            range: () => this.view(),
          },
          y: {
            distr: this.options.logY ? 3 : 1,
            range: () => [this.range.low, this.range.high],
          },
        },
        axes: [
          {
            ...axis,
            size: 28,
            space: small ? 64 : 78,
            ...(time ? {} : { values: (_: uPlot, ticks: number[]) => ticks.map((t) => this.tick(t)) }),
          },
          {
            ...axis,
            size: (u: uPlot, values: string[] | null) => this.axisWidth(u, values, look.font),
            space: 34,
            values: (_: uPlot, ticks: number[]) => ticks.map((t) => (t === null ? "" : value(t))),
          },
        ],
        series: [{}, { show: true, paths: () => null, points: { show: false } }],
        cursor: {
          points: { show: false },
          y: false,
          drag: { x: true, y: false, setScale: false, dist: MIN_DRAG_PX },
          bind: { dblclick: () => () => this.zoomed(null) },
        },
        hooks: {
          draw: [(u: uPlot) => this.draw(u)],
          setCursor: [
            (u: uPlot) => {
              const row = (u.cursor.left ?? -1) < 0 ? null : (u.cursor.idx ?? null);
              this.events.onCursor(row, u.cursor.left ?? 0);
            },
          ],
          setSelect: [
            (u: uPlot) => {
              if (u.select.width < MIN_DRAG_PX) return;
              const low = u.posToVal(u.select.left, "x");
              const high = u.posToVal(u.select.left + u.select.width, "x");
              u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
              this.zoomed([low, high]);
            },
          ],
        },
      },
      this.columns(),
      this.host,
    );
  }

  private zoomed(view: [number, number] | null): null {
    this.events.onZoom(view);
    return null;
  }

  private tick(tick: number | null): string {
    if (tick === null) return "";
    return this.options.x === "relative" ? elapsed(tick) : value(tick);
  }

  private axisWidth(u: uPlot, values: string[] | null, font: string): number {
    if (!values) return 40;
    u.ctx.save();
    u.ctx.font = font;
    const widest = Math.max(...values.map((text) => u.ctx.measureText(text ?? "").width));
    u.ctx.restore();
    return Math.ceil(widest) + 14;
  }

  private draw(u: uPlot): void {
    if (!this.data) return;
    const ratio = uPlot.pxRatio;
    const box = u.bbox;
    const scales = {
      x: (at: number) => u.valToPos(at, "x", true),
      y: (at: number) =>
        this.options.logY && at <= 0 ? box.top + box.height + 4 : u.valToPos(at, "y", true),
      box,
      ratio,
    };
    this.across(u, ratio);
    curves(u.ctx, this.places, this.places.length, this.data.curves, this.looks, scales);
  }

  /** Reference lines, and where sessions began. */
  private across(u: uPlot, ratio: number): void {
    const { ctx, bbox } = u;
    const look = colours(this.host);
    ctx.save();
    ctx.strokeStyle = look.soft;
    ctx.fillStyle = look.soft;
    ctx.font = `${10 * ratio}px ${look.family}`;
    ctx.textAlign = "left"; // the axes have left theirs
    ctx.textBaseline = "alphabetic";
    ctx.lineWidth = ratio;
    ctx.setLineDash([2 * ratio, 3 * ratio]);
    const { low, high } = this.range;
    for (const { value: at, label } of this.options.lines) {
      if (at < low || at > high) continue;
      const y = u.valToPos(at, "y", true);
      ctx.beginPath();
      ctx.moveTo(bbox.left, y);
      ctx.lineTo(bbox.left + bbox.width, y);
      ctx.stroke();
      ctx.fillText(label, bbox.left + 4 * ratio, y - 3 * ratio);
    }
    const [from, to] = this.view();
    for (const { x, label } of this.options.begins) {
      if (x <= from || x >= to) continue;
      const left = u.valToPos(x, "x", true);
      ctx.beginPath();
      ctx.moveTo(left, bbox.top);
      ctx.lineTo(left, bbox.top + bbox.height);
      ctx.stroke();
      ctx.fillText(label, left + 3 * ratio, bbox.top + 10 * ratio);
    }
    ctx.restore();
  }
}

function colours(host: HTMLElement) {
  const style = getComputedStyle(host);
  const family = style.fontFamily;
  return {
    soft: style.getPropertyValue("--soft").trim(),
    line: style.getPropertyValue("--line").trim(),
    font: `11px ${family}`,
    family,
  };
}

function value(at: number): string {
  const size = Math.abs(at);
  if (size >= 1e5 || (size > 0 && size < 1e-3)) {
    return short(at);
  }
  return number(Number(at.toPrecision(6)), 6).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "");
}

function short(at: number): string {
  if (Math.abs(at) < 1) return at.toExponential().replace(/\.?0*e/, "e").replaceAll("-", "−");
  for (const [size, name] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]] as const) {
    if (Math.abs(at) >= size) return `${Number((at / size).toPrecision(6))} ${name}`;
  }
  return String(at);
}

function elapsed(seconds: number): string {
  const s = Math.abs(seconds);
  if (s === 0) return "0";
  if (s < 1) return `${Number((seconds * 1000).toPrecision(4))} ms`;
  if (s < 120) return `${Number(seconds.toPrecision(4))} s`;
  if (s < 7200) return `${Number((seconds / 60).toPrecision(4))} min`;
  if (s < 172_800) return `${Number((seconds / 3600).toPrecision(4))} h`;
  return `${Number((seconds / 86_400).toPrecision(4))} d`;
}
