// Draws curves on a canvas: band from least to greatest, the last values as a line, marks of what is
// not finite. Nothing here knows of uPlot; a plot hands in its scales.

import type { Curve } from "./series.ts";
import { faded } from "./colour.ts";

export type Look = {
  colour: string;
  dash: number[];
  width: number;
  /** Whether it is a tail that a resumed run left behind. */
  dim: boolean;
  shown: boolean;
};

export type Scales = {
  x: (value: number) => number;
  y: (value: number) => number;
  box: { left: number; top: number; width: number; height: number };
  ratio: number;
};

export type Canvas = Pick<
  CanvasRenderingContext2D,
  | "beginPath" | "clip" | "closePath" | "fill" | "fillStyle" | "globalAlpha" | "lineJoin" | "lineTo"
  | "lineWidth" | "moveTo" | "rect" | "restore" | "save" | "setLineDash" | "stroke" | "strokeStyle"
>; // biome-ignore format: a list

const DIM = 0.38;
const SPIKE = 2.5; // times the usual height of the band
const RAW_BESIDE_SMOOTH = 0.32;

/** All curves, the dimmed ones below. */
export function curves(
  context: Canvas, places: Float64Array, length: number, all: Curve[], looks: Look[], scales: Scales,
): void {
  const { box } = scales;
  context.save();
  context.beginPath();
  context.rect(box.left, box.top, box.width, box.height);
  context.clip();
  const order = all.map((_, n) => n).sort((a, b) => Number(looks[b]?.dim) - Number(looks[a]?.dim));
  for (const n of order) {
    const look = looks[n];
    if (!look?.shown) continue;
    const curve = all[n]!;
    context.globalAlpha = look.dim ? DIM : 1;
    if (curve.facts.band) band(context, places, length, curve, look, scales);
    const smooth = curve.facts.smooth;
    if (smooth) context.globalAlpha *= RAW_BESIDE_SMOOTH;
    line(context, places, length, curve.last, look, scales, smooth ? 1 : look.width);
    if (smooth) {
      context.globalAlpha = look.dim ? DIM : 1;
      line(context, places, length, curve.smooth, look, scales, look.width + 0.4);
    }
    rug(context, places, curve, look, scales);
  }
  context.restore();
}

function band(
  context: Canvas, places: Float64Array, length: number, curve: Curve, look: Look, scales: Scales,
): void {
  context.fillStyle = faded(look.colour, 0.2);
  let from = 0;
  while (from < length) {
    while (from < length && Number.isNaN(curve.high[from]!)) from++;
    let to = from;
    const rows: number[] = [];
    for (; to < length; to++) if (!Number.isNaN(curve.high[to]!)) rows.push(to);
    if (rows.length > 1) {
      context.beginPath();
      rows.forEach((row, n) => {
        const x = scales.x(places[row]!);
        if (n) context.lineTo(x, scales.y(curve.high[row]!));
        else context.moveTo(x, scales.y(curve.high[row]!));
      });
      for (let n = rows.length - 1; n >= 0; n--) {
        context.lineTo(scales.x(places[rows[n]!]!), scales.y(curve.low[rows[n]!]!));
      }
      context.closePath();
      context.fill();
    }
    spikes(context, places, rows, curve, look, scales);
    from = to;
  }
}

/** The spike of a single point has to be seen, however thin it is: what stands out gets a stroke. */
function spikes(
  context: Canvas, places: Float64Array, rows: number[], curve: Curve, look: Look, scales: Scales,
): void {
  const spans = rows.map((row) => curve.high[row]! - curve.low[row]!).sort((a, b) => a - b);
  const usual = spans[Math.floor(spans.length / 2)] ?? 0;
  context.beginPath();
  context.strokeStyle = faded(look.colour, 0.75);
  context.lineWidth = scales.ratio;
  context.setLineDash([]);
  for (const row of rows) {
    const high = curve.high[row]!;
    const low = curve.low[row]!;
    if (high - low <= (rows.length > 1 ? SPIKE * usual : 0)) continue;
    const x = scales.x(places[row]!);
    context.moveTo(x, scales.y(high));
    context.lineTo(x, scales.y(low));
  }
  context.stroke();
}

function line(
  context: Canvas, places: Float64Array, length: number, values: Float64Array, look: Look,
  scales: Scales, width: number,
): void {
  context.beginPath();
  context.strokeStyle = look.colour;
  context.lineWidth = width * scales.ratio;
  context.lineJoin = "round";
  context.setLineDash(look.dash.map((dash) => dash * scales.ratio));
  let begun = false;
  let points = 0;
  for (let row = 0; row < length; row++) {
    const value = values[row]!;
    if (Number.isNaN(value)) continue; // another curve's row, or marked below
    const x = scales.x(places[row]!);
    const y = scales.y(value);
    if (begun) context.lineTo(x, y);
    else context.moveTo(x, y);
    begun = true;
    points++;
  }
  context.stroke();
  context.setLineDash([]);
  if (points <= 60) dots(context, places, length, values, look, scales);
}

/** Few points are seen as points: what lies between them was not measured. */
function dots(
  context: Canvas, places: Float64Array, length: number, values: Float64Array, look: Look,
  scales: Scales,
): void {
  context.fillStyle = look.colour;
  const size = 3.4 * scales.ratio;
  for (let row = 0; row < length; row++) {
    const value = values[row]!;
    if (Number.isNaN(value)) continue;
    context.beginPath();
    context.rect(scales.x(places[row]!) - size / 2, scales.y(value) - size / 2, size, size);
    context.fill();
  }
}

/** Where values are not finite: triangles at the lower edge, at the upper one for +∞. */
function rug(context: Canvas, places: Float64Array, curve: Curve, look: Look, scales: Scales): void {
  const { box, ratio } = scales;
  const size = 5 * ratio;
  context.fillStyle = look.colour;
  for (const [row, nan, up, down] of curve.facts.marks) {
    const x = scales.x(places[row] ?? Number.NaN);
    if (!(x >= box.left && x <= box.left + box.width)) continue;
    const bottom = box.top + box.height;
    context.beginPath();
    if (nan || down) {
      context.moveTo(x, bottom - 1.6 * size);
      context.lineTo(x - size / 1.4, bottom);
      context.lineTo(x + size / 1.4, bottom);
    }
    if (up) {
      context.moveTo(x, box.top + 1.6 * size);
      context.lineTo(x - size / 1.4, box.top);
      context.lineTo(x + size / 1.4, box.top);
    }
    context.closePath();
    context.fill();
  }
}

/** What y has to reach from and to; with `clip`, without the outermost hundredth on either side. */
export function extent(
  places: Float64Array, length: number, all: Curve[], looks: Look[], view: [number, number],
  options: { log: boolean; clip: boolean },
): { low: number; high: number; outside: number } {
  if (options.clip) return clipped(places, length, all, looks, view, options.log);
  let low = Number.POSITIVE_INFINITY;
  let high = Number.NEGATIVE_INFINITY;
  each(places, length, all, looks, view, options.log, (value) => {
    if (value < low) low = value;
    if (value > high) high = value;
  });
  if (low > high) return { low: options.log ? 0.1 : 0, high: 1, outside: 0 };
  return { ...padded(low, high, options.log), outside: 0 };
}

/** The same without the outermost hundredth of all values on either side. */
function clipped(
  places: Float64Array, length: number, all: Curve[], looks: Look[], view: [number, number],
  log: boolean,
): { low: number; high: number; outside: number } {
  const values: number[] = [];
  each(places, length, all, looks, view, log, (value) => values.push(value));
  if (!values.length) return { low: log ? 0.1 : 0, high: 1, outside: 0 };
  values.sort((a, b) => a - b);
  const cut = Math.floor(values.length / 100);
  const range = padded(values[cut]!, values[values.length - 1 - cut]!, log);
  const outside = values.reduce((n, v) => n + Number(v < range.low || v > range.high), 0);
  return { ...range, outside };
}

/** Every least and greatest value that is shown and can be, once where they are one; a last value
 *  only where one of them cannot. */
function each(
  places: Float64Array, length: number, all: Curve[], looks: Look[], view: [number, number],
  log: boolean, take: (value: number) => void,
): void {
  const can = (value: number) => Number.isFinite(value) && !(log && value <= 0);
  all.forEach((curve, n) => {
    if (!looks[n]?.shown) return;
    for (let row = 0; row < length; row++) {
      const x = places[row]!;
      if (x < view[0] || x > view[1]) continue;
      const [low, high, last] = [curve.low[row]!, curve.high[row]!, curve.last[row]!];
      if (can(low)) take(low);
      if (high !== low && can(high)) take(high);
      // Where both can be drawn it lies between them.
      if (!(can(low) && can(high)) && last !== low && last !== high && can(last)) take(last);
    }
  });
}

function padded(low: number, high: number, log: boolean): { low: number; high: number } {
  if (log) {
    const factor = (high / low) ** 0.04 || 1.1;
    return { low: low / Math.max(factor, 1.02), high: high * Math.max(factor, 1.02) };
  }
  const room = (high - low) * 0.05 || Math.abs(high) * 0.05 || 1;
  return { low: low - room, high: high + room };
}
