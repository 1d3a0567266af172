// How a chart is moved: keys, the wheel, one finger, two fingers.

import type { Plot } from "../core/plot.ts";
import type { ChartData } from "../core/series.ts";
import type { CardProps } from "./looks.ts";

export function keys(
  event: KeyboardEvent, plot: Plot | null, data: ChartData, row: number | null, card: CardProps,
): void {
  if (!plot || event.ctrlKey || event.metaKey || event.altKey) return;
  if (!data.length && !card.settings.view) return; // nothing has come yet
  const last = data.length - 1;
  const stride = event.shiftKey ? Math.max(1, Math.round(data.length / 20)) : 1;
  if (event.key === "ArrowRight") plot.point(Math.min(last, (row ?? -1) + stride));
  else if (event.key === "ArrowLeft") plot.point(Math.max(0, (row ?? last + 1) - stride));
  else if (event.key === "Home") plot.point(0);
  else if (event.key === "End") plot.point(last);
  else if (event.key === "+" || event.key === "=") zoom(plot, card, 0.5, row === null ? null : data.places()[row]!);
  else if (event.key === "-") zoom(plot, card, 2, row === null ? null : data.places()[row]!);
  else if (event.key === "0" || event.key === "Escape") card.onView(null);
  else return;
  event.preventDefault();
}

function zoom(plot: Plot, card: CardProps, factor: number, at: number | null): void {
  card.onView(zoomed(plot.view(), factor, at, card.settings.logX));
}

/** A view made smaller or larger around a place. */
export function zoomed(
  [low, high]: [number, number], factor: number, at: number | null, log: boolean,
): [number, number] {
  if (log && low > 0) {
    const [a, b] = zoomed([Math.log(low), Math.log(high)], factor, at && at > 0 ? Math.log(at) : null, false);
    return [Math.exp(a), Math.exp(b)];
  }
  const middle = at ?? (low + high) / 2;
  return [middle - (middle - low) * factor, middle + (high - middle) * factor];
}

const SCRUB_PX = 4;

/** Wheel with Ctrl, two fingers, one finger along the axis. One finger up and down scrolls the page. */
export function gestures(
  element: HTMLElement, plot: { current: Plot | null },
  onView: () => (view: [number, number] | null) => void, isLog: () => boolean,
): () => void {
  const touches = new Map<number, number>();
  let began = 0;
  let pinch: { view: [number, number]; from: number; middle: number } | null = null;
  const left = (event: PointerEvent | WheelEvent) => event.clientX - edge(element);
  const wheel = (event: WheelEvent) => {
    if (!plot.current || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    const view = plot.current.view();
    onView()(zoomed(view, event.deltaY > 0 ? 1.25 : 0.8, plot.current.placeAt(left(event)), isLog()));
  };
  const down = (event: PointerEvent) => {
    if (event.pointerType !== "touch") return;
    touches.set(event.pointerId, left(event));
    began = left(event);
    if (touches.size === 2 && plot.current) {
      const [a, b] = [...touches.values()] as [number, number];
      pinch = { view: plot.current.view(), from: Math.abs(a - b), middle: plot.current.placeAt((a + b) / 2) };
    }
  };
  const move = (event: PointerEvent) => {
    if (!touches.has(event.pointerId)) return;
    touches.set(event.pointerId, left(event));
    if (touches.size === 1 && Math.abs(left(event) - began) > SCRUB_PX) {
      began = Number.POSITIVE_INFINITY; // from here on every move counts, also back to where it began
      plot.current?.move(left(event));
    }
    if (pinch && touches.size === 2) {
      const [a, b] = [...touches.values()] as [number, number];
      const factor = pinch.from / Math.max(10, Math.abs(a - b));
      onView()(zoomed(pinch.view, factor, pinch.middle, isLog()));
    }
  };
  const up = (event: PointerEvent) => {
    touches.delete(event.pointerId);
    if (touches.size < 2) pinch = null;
  };
  element.addEventListener("wheel", wheel, { passive: false });
  element.addEventListener("pointerdown", down);
  element.addEventListener("pointermove", move);
  element.addEventListener("pointerup", up);
  element.addEventListener("pointercancel", up);
  return () => {
    element.removeEventListener("wheel", wheel);
    element.removeEventListener("pointerdown", down);
    element.removeEventListener("pointermove", move);
    element.removeEventListener("pointerup", up);
    element.removeEventListener("pointercancel", up);
  };
}

function edge(element: HTMLElement): number {
  return (element.querySelector(".u-over") ?? element).getBoundingClientRect().left;
}
