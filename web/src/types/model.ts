// The replies about models: as the structs of src/cupel/dashboard/model_{tree,view,diff}.py have them.
// What equals its default is left out of nodes, tensors and pairs.

import type { Num } from "./runs.ts";

export type TensorShape = { shape: number[] | null; dtype: string };

export type ModelTensor = {
  name: string;
  shape: number[] | null;
  dtype: string;
  numbers: number;
  trained?: boolean;
  buffer?: boolean;
  tied_to?: string | null;
};

/** The empty name is what the container is given, or gives back. */
export type ModelEdge = { source: string; target: string; inferred: boolean };

export type Reading = { step: number; value: Num };

export type ModelNode = {
  path: string;
  name: string;
  class: string;
  module: string;
  own: number;
  total: number;
  share: number;
  trainable?: "all" | "some" | "none" | null;
  dtypes?: string[];
  tensors?: ModelTensor[];
  extra?: string;
  calls?: number | null;
  order?: number | null;
  inputs?: TensorShape[] | null;
  outputs?: TensorShape[] | null;
  varies?: boolean;
  grad_norm?: Reading | null;
  weight_norm?: Reading | null;
  shared_with?: string | null;
  also?: string[];
  children?: ModelNode[];
  edges?: ModelEdge[];
  folds?: number;
  paths?: string[];
  members?: ModelNode[];
  unfolded_edges?: ModelEdge[] | null;
};

export type Size = { name: string; value: number | number[]; source: string };
export type Seen = { complete: boolean; reason: string | null; step: number | null };

export type ModelView = {
  available: boolean;
  reason: string;
  class: string;
  n_params: number;
  trained: number;
  sizes: Size[];
  seen: Seen | null;
  problems: Record<string, string>;
  root: ModelNode | null;
};

export type PairStatus = "same" | "changed" | "left" | "right";

export type Change = {
  what: "name" | "class" | "settings" | "shapes" | "params";
  left: string;
  right: string;
};

export type Side = { path: string; name: string; class: string; params: number };

export type DiffNode = {
  status: PairStatus;
  left?: Side | null;
  right?: Side | null;
  changes?: Change[];
  within?: number;
  children?: DiffNode[];
  folds?: number;
  lefts?: string[];
  rights?: string[];
};

export type ModelDiff = {
  available: boolean;
  reason: string;
  same: boolean;
  left: ModelView;
  right: ModelView;
  root: DiffNode | null;
};
