// What is said of a module, in words. Pure functions; tests in web/test/model.test.ts.

import { grouped, number, short } from "../core/format.ts";
import type { ModelNode, ModelTensor, ModelView, Reading, Size, TensorShape } from "../types/model.ts";
import { inside } from "./tree.ts";

/** "Block ×12". */
export function title(node: ModelNode): string {
  return (node.folds ?? 1) > 1 ? `${node.class} ×${node.folds}` : node.class;
}

/** Where it is, as seen from what it is in. */
export function name(node: ModelNode): string {
  return node.path === "" ? "the whole model" : node.name;
}

/** A number of parameters in a few signs; "no parameters" in words. */
export function params(count: number): string {
  return count ? short(count) : "no parameters";
}

/** "12.3 %"; what is not nothing is never told as nothing. */
export function percent(share: number): string {
  if (share > 0 && share < 0.001) return "< 0.1 %";
  return `${(100 * share).toFixed(1)} %`;
}

/** "2×16×768 float32". */
export function shape(tensor: TensorShape): string {
  return `${sizes(tensor.shape)} ${tensor.dtype}`.trim();
}

export function shapes(tensors: TensorShape[] | null | undefined): string {
  if (!tensors) return "not known";
  return tensors.map(shape).join(", ") || "no tensor";
}

function sizes(shape: number[] | null): string {
  if (!shape) return "?";
  return shape.length ? shape.join("×") : "scalar";
}

/** A parameter or buffer: "weight 64×48 float32". */
export function tensor(one: ModelTensor): string {
  return `${one.name} ${shape(one)}`;
}

/** What is remarkable about it: shared, tied, not trained, not called, called more than once. */
export function marks(node: ModelNode): string[] {
  const found: string[] = [];
  if (node.shared_with != null) found.push(`same as ${node.shared_with || "the model"}`);
  if (node.also?.length) found.push(`also ${node.also[0]}${more(node.also.length - 1)}`);
  const tied = (node.tensors ?? []).filter((one) => one.tied_to);
  if (tied.length) found.push(`${tied[0]!.name} tied to ${tied[0]!.tied_to}${more(tied.length - 1)}`);
  if (node.trainable === "none") found.push("not trained");
  if (node.trainable === "some") found.push("partly trained");
  if (isIdle(node)) found.push("not called");
  if ((node.calls ?? 0) > 1) found.push(`called ${grouped(node.calls!)}×`);
  return found;
}

const more = (count: number) => (count > 0 ? ` and ${count} more` : "");

/** Whether it is known that neither it nor anything inside was called. */
export function isIdle(node: ModelNode): boolean {
  return node.calls === 0 && node.shared_with == null && !inside(node).some((one) => !isIdle(one) && one.shared_with == null);
}

/** All of it in one line, for who cannot see the diagram. */
export function label(node: ModelNode): string {
  const said = [node.path || name(node)];
  said.push(node.total ? `${grouped(node.total)} parameters, ${percent(node.share)} of the model` : "no parameters");
  return [...said, ...marks(node)].join("; ");
}

/** Which of its parameters are trained. */
export function trained(node: ModelNode): string {
  if (node.trainable == null) return "no parameters";
  return { all: "all", some: "a part of them", none: "none" }[node.trainable];
}

export function reading(of: Reading | null | undefined): string | null {
  return of == null ? null : `${number(of.value)} at step ${grouped(of.step)}`;
}

export function sizeText(size: Size): string {
  return Array.isArray(size.value) ? size.value.map(grouped).join(", ") : grouped(size.value);
}

/** The tree in lines, as `cupel` prints it. */
export function asText(view: ModelView): string {
  if (!view.root) return view.reason;
  const lines: string[] = [];
  const add = (node: ModelNode, before: string, further: string) => {
    lines.push(before + line(node));
    const below = inside(node);
    below.forEach((child, at) => {
      const last = at === below.length - 1;
      add(child, further + (last ? "└─ " : "├─ "), further + (last ? "   " : "│  "));
    });
  };
  add(view.root, "", "");
  return `${lines.join("\n")}\n`;
}

function line(node: ModelNode): string {
  const folds = (node.folds ?? 1) > 1 ? ` ×${node.folds}` : "";
  const parts = [`${node.name ? `${node.name}: ` : ""}${node.class}${node.extra ? `(${node.extra})` : ""}${folds}`];
  if (node.total) parts.push(`${grouped(node.total)} parameters${node.name ? ` (${percent(node.share)})` : ""}`);
  parts.push(...marks(node));
  if (node.inputs && node.outputs) parts.push(`${shapes(node.inputs)} → ${shapes(node.outputs)}`);
  return parts.join(" · ");
}
