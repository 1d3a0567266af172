"""Small models with memories of every kind, for the tests that hold of all of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cupel.models.memory.model import MemoryLM
from cupel.models.memory.points import POINTS
from cupel.models.memory.settings import MemoryModelSettings
from cupel.models.memory.state import State

V, T = 11, 23
# float64; the same sums in another order. Two points magnify rounding: Memora's LayerNorm divides
# channels that are nearly equal, Yaad's sign is ten times as steep as its error, and what Moneta
# sums up is divided by the square of its norm.
CLOSE = {"rtol": 1e-10, "atol": 1e-11}
MAGNIFYING = ("memora", "yaad", "moneta")
STEEP = {"rtol": 1e-7, "atol": 1e-8}

Kind = tuple[str, dict[str, Any]]
HOPES: list[dict[str, Any]] = [
    {},
    {"depth": 1},
    {"depth": 1, "loss": "dot", "max_eta": 1.0, "allow_neg_eigval": True},
    {"erase": "first"},
    {"erase": "none", "read": "snapshot"},
    {"memories": ("q", "k", "v", "alpha", "eta"), "targets": "value"},
    {"memories": ()},
    {"conv": 0, "chunk": 5, "chunk_others": 3},
    {"momentum": True},
]
LEVELS: list[dict[str, Any]] = [
    {"cms": {"variant": "nested"}},
    {"cms": {"variant": "independent"}},
    {"cms": {"frequencies": ()}},
]
MIXERS = ("lmm", "mac", "mag", "mal", "attention", "hope", "hope-attention")
KINDS: list[Kind] = [
    *((mixer, {}) for mixer in MIXERS),
    *(("lmm", {"memory": {"kind": name}}) for name in POINTS),
    ("mag", {"memory": {"kind": "yaad"}}),
    ("lmm", {"memory": {"depth": 2, "read": "before"}}),
    ("lmm", {"memory": {"decay": "channel", "step": "channel", "momentum": "channel", "depth": 2}}),
    ("mal", {"persistent": 0}),
    ("mac", {"persistent": 0, "memory": {"depth": 1}}),
    *(("hope", {"hope": changes}) for changes in (*HOPES[1:], *LEVELS)),
    *(("hope-attention", {"hope": changes}) for changes in LEVELS),
]  # fmt: skip


# With Memora's own steps, eight times as large, weights as large as those drawn here make of 2e-16
# of each weight 2e-8 of an output, and with these 1e-10; no equation asks how large they are.
STEPS = {"memora": {"step_scale": 1.0}}


def made(mixer: str = "lmm", **changes: Any) -> MemoryLM:
    """Its weights are drawn so that no part of it is near zero, and no two tokens are alike."""
    torch.manual_seed(1)
    memory = {"chunk": 4, **changes.pop("memory", {"depth": 2})}
    memory = STEPS.get(memory.get("kind", ""), {}) | memory
    hope = {"chunk": 4, "chunk_others": 8, **changes.pop("hope", {})}
    cms = {"chunk": 4, "frequencies": (1.0, 0.5), "signal": "local", **hope.pop("cms", {})}
    settings = MemoryModelSettings.model_validate(
        {
            "mixer": mixer, "memory": memory, "hope": {**hope, "cms": cms}, "layers": 2,
            "heads": 2, "width": 12, "block": T, "vocabulary": V, "persistent": 3, "window": 6,
            "segment": 8, **changes,
        }
    )  # fmt: skip
    model = MemoryLM(settings).double()
    for name, parameter in model.named_parameters():
        if "gates" in name:  # away from where they begin, so that every token has gates of its own
            torch.nn.init.normal_(parameter, std=0.5)
        elif parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.25)
    return model


def tokens(count: int = 2, length: int = T) -> Tensor:
    return torch.randint(0, V, (count, length), generator=torch.Generator().manual_seed(3))


def close(changes: dict[str, Any]) -> dict[str, float]:
    """How close two ways of adding up the same come."""
    return STEEP if changes.get("memory", {}).get("kind") in MAGNIFYING else CLOSE


def named(kind: object) -> str:
    """For the names of tests."""
    return str(kind)[:60]


def assert_equal_states(one: State, other: State, close: dict[str, float]) -> None:
    mine, theirs = one.state_dict(), other.state_dict()
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        if isinstance(value, Tensor):
            torch.testing.assert_close(
                value, theirs[name], **close, msg=lambda m, n=name: f"{n}: {m}"
            )
        else:
            assert value == theirs[name], name
