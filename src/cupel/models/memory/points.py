"""Named memories, as points among all settings: the papers' own and those that they reduce to.

Each maps fields of `MemorySettings` to defaults of its own. Recipes name them by
`memory: {kind: yaad}`, so that changing the name changes all of them. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Gradients of a memory with layers grow with its weights, so they are bounded: by four to
# five times what a trained one showed.
_BOUND = {"surprise_max": 4.0}
_MLP = {
    "depth": 2, "expansion": 4, "activation": "gelu", "residual": True, "norm": True, **_BOUND,
}  # fmt: skip
# MIRAS' own points: gradient descent, gates a channel of low rank, M(x) = x + LN(W_1 s(W_2 x)).
_MIRAS = {**_MLP, "decay": "channel", "momentum": "none", "step": "channel", "rank": 32}
# Steps are of what maps are taken of: Moneta's first layer moves by ||A||_4^-2 times its step, 3
# to 4 at first, and Memora's step is one of logarithms of weights.
_LINEAR = {"depth": 1, "momentum": "none"}

POINTS: Mapping[str, Mapping[str, Any]] = {
    "titans": {"depth": 2, **_BOUND},
    "titans-linear": {"depth": 1},
    "moneta": {
        **_MIRAS,
        "bias": {"kind": "lp", "p": 3.0},
        "retention": {"kind": "lq", "q": 4.0},
        "step_scale": 0.24,
    },
    "yaad": {**_MIRAS, "bias": {"kind": "huber", "form": "mixture"}},
    "memora": {**_MIRAS, "retention": {"kind": "kl"}, "step_scale": 8.0},
    "linear-attention": {
        **_LINEAR, "bias": {"kind": "dot"}, "decay": "none", "step": "none", "first": "zero",
    },
    "retnet": {
        **_LINEAR, "bias": {"kind": "dot"}, "decay": "fixed", "step": "none", "first": "zero",
    },
    "deltanet": {
        **_LINEAR, "bias": {"kind": "dot"}, "decay": "none", "erase": "keep", "first": "zero",
        "step_max": 1.0,
    },
    "gated-deltanet": {
        **_LINEAR, "bias": {"kind": "dot"}, "erase": "keep", "first": "zero", "step_max": 1.0,
    },
    "ttt": {"depth": 1, "momentum": "none", "decay": "none"},
    "ttt-mlp": {**_MLP, "momentum": "none", "decay": "none"},
}  # fmt: skip
