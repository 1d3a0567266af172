// Histograms over steps as a field: steps to the right, values upwards, darker where more lie.

import { useEffect, useRef } from "preact/hooks";
import { grouped, number } from "../core/format.ts";
import { theme } from "../core/theme.ts";
import type { HistogramsOverSteps } from "../types/media.ts";

const HEIGHT = 150;

export function Heat(props: { of: HistogramsOverSteps; step: number }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const { of } = props;
  const look = theme.value;
  useEffect(() => {
    const element = canvas.current;
    if (!element) return undefined;
    const again = () => draw(element, of, props.step);
    again();
    const sizes = new ResizeObserver(again);
    sizes.observe(element);
    return () => sizes.disconnect();
  }, [of, props.step, look]);
  const [low, high] = [of.edges[0], of.edges[of.edges.length - 1]];
  const [first, last] = [of.steps[0]!, of.steps[of.steps.length - 1]!];
  const told = `${of.steps.length} histograms of ${of.key} from step ${first} to ${last}, values from ${number(low)} to ${number(high)}`;
  return (
    <figure class="media-heat">
      <span class="faint number">{number(high)}</span>
      <span class="faint number">{number(low)}</span>
      <canvas ref={canvas} role="img" aria-label={told} />
      <figcaption class="row faint">
        <span class="grow">step {grouped(first)}</span>
        {of.of > of.steps.length && <span>{of.steps.length} of {grouped(of.of)}</span>}
        <span>{grouped(last)}</span>
      </figcaption>
    </figure>
  );
}

function draw(element: HTMLCanvasElement, of: HistogramsOverSteps, step: number): void {
  const ratio = devicePixelRatio || 1;
  const width = Math.max(1, Math.round(element.clientWidth * ratio));
  const height = Math.round(HEIGHT * ratio);
  if (element.width !== width || element.height !== height) {
    element.width = width;
    element.height = height;
  }
  const context = element.getContext("2d");
  if (!context) return;
  const style = getComputedStyle(element);
  context.clearRect(0, 0, width, height);
  const bins = of.edges.length - 1;
  // Each step in its own scale: what is shown is the shape, whatever the number of values.
  of.counts.forEach((counts, n) => {
    const most = Math.max(...counts.map(Number), 1e-300);
    const left = Math.floor((n * width) / of.steps.length);
    const right = Math.floor(((n + 1) * width) / of.steps.length);
    context.fillStyle = style.getPropertyValue("--accent");
    counts.forEach((count, bin) => {
      const share = Number(count) / most;
      if (share <= 0) return;
      context.globalAlpha = 0.06 + 0.94 * share ** 0.7;
      const top = Math.floor(height - ((bin + 1) * height) / bins);
      const bottom = Math.floor(height - (bin * height) / bins);
      context.fillRect(left, top, right - left, bottom - top);
    });
  });
  context.globalAlpha = 1;
  const at = of.steps.findIndex((one) => one >= step);
  if (at >= 0) {
    context.fillStyle = style.getPropertyValue("--ink");
    context.fillRect(Math.floor(((at + 0.5) * width) / of.steps.length) - ratio / 2, 0, ratio, height);
  }
}
