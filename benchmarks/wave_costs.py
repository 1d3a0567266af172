"""What the wave model costs beside the standard one of equal width, and how linear attention grows.

All variants train in turns within one process on the same batches; a ratio is of CPU seconds of one
turn to those of the standard model's turn just before. Bytes kept are those that the forward pass
saves for the backward pass: counted, not sampled.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cupel import registry
from cupel.models.wave.model import WaveGPT
from cupel.models.wave.settings import WaveModelSettings

VOCABULARY, BATCH, BLOCK = 256, 12, 64
STANDARD: dict[str, Any] = {"kind": "gpt", "vocabulary": VOCABULARY}
WAVE: dict[str, Any] = {"kind": "wave", "vocabulary": VOCABULARY}
ADAMW: dict[str, Any] = {"kind": "adamw"}
RGD: dict[str, Any] = {"kind": "rgd", "warmup": 0, "betas": [0.9, 0.99], "weight_decay": 0.1}
PLAIN: dict[str, Any] = {"kind": "cross_entropy"}
QFE: dict[str, Any] = {"kind": "qfe", "weight": 0.1}
VARIANTS = {
    "standard": (STANDARD, ADAMW, PLAIN),
    "wave": (WAVE, ADAMW, PLAIN),
    "wave + RGD": (WAVE, RGD, PLAIN),
    "wave + QFE": (WAVE, ADAMW, QFE),
    "wave + RGD + QFE": (WAVE, RGD, QFE),
    "pure wave, linear": ({**WAVE, "attention": "pure"}, ADAMW, PLAIN),
}
LENGTHS = (256, 512, 1024, 2048, 4096)


def measure(*, turns: int, steps: int = 2) -> dict[str, Any]:
    """Ratios to the standard model, and the growth of linear and quadratic attention."""
    return {"ratios": _ratios(turns, steps), "growth": _growth(), "turns": turns, "steps": steps}


def table(found: dict[str, Any]) -> list[str]:
    """The numbers as lines."""
    turns = f"median of {found['turns']} turns of {found['steps']} steps (middle half of them)"
    lines = [
        f"steps of models of equal width (128, 4 layers, {BATCH} × {BLOCK} bytes), 1 thread,",
        f"CPU seconds as a ratio to the standard model's, {turns}",
    ]
    for name, (low, middle, high) in found["ratios"].items():
        lines.append(f"  {name:<26}{middle:>10.3f}  ({low:.3f} to {high:.3f})")
    wave = found["ratios"]["wave"][1]
    for name in ("RGD", "QFE"):
        share = 1 - wave / found["ratios"][f"wave + {name}"][1]
        lines.append(f"  {f'share of {name}':<26}{100 * share:>9.1f} %  of a step with it")
    lines.append("")
    lines.append("pure wave attention, forward and backward, 1 × positions × 128, 4 heads")
    heads = ("positions", "linear CPU ms", "quadratic", "linear MB kept", "quadratic")
    lines.append("  " + "".join(f"{head:>16}" for head in heads))
    for length, row in found["growth"].items():
        (fast, light), (slow, heavy) = row["linear"], row["quadratic"]
        lines.append(f"  {length:>16}{fast:>16.1f}{slow:>16.1f}{light:>16.2f}{heavy:>16.2f}")
    return lines


def _ratios(turns: int, steps: int) -> dict[str, tuple[float, float, float]]:
    trained = {name: _trained(*variant) for name, variant in VARIANTS.items()}
    generator = torch.Generator().manual_seed(1)
    shape = (steps, BATCH, BLOCK + 1)
    ratios: dict[str, list[float]] = {name: [] for name in VARIANTS if name != "standard"}
    for turn in range(-2, turns):  # two to warm up
        windows = torch.randint(0, VOCABULARY, shape, generator=generator)
        for name, kept in ratios.items():
            beside = _seconds(trained["standard"], windows)
            own = _seconds(trained[name], windows)
            if turn >= 0:
                kept.append(own / beside)
    return {name: _quartiles(kept) for name, kept in ratios.items()}


def _trained(
    model_settings: dict[str, Any], optimizer_settings: dict[str, Any], objective: dict[str, Any]
) -> Callable[[Tensor], None]:
    """A step of one variant, with a model and an optimizer of its own."""

    def make(kind: str, values: dict[str, Any]) -> tuple[Any, Any]:
        settings = registry.settings_of(kind, values["kind"]).model_validate(values)
        return registry.resolve(kind, values["kind"]), settings

    torch.manual_seed(1)
    build, settings = make("model", model_settings)
    model = build(settings)
    build, settings = make("objective", objective)
    loss_of = build(settings, vocabulary=VOCABULARY, key=1)
    build, settings = make("optimizer", optimizer_settings)
    optimizer = build(model, settings)

    def step(window_BT: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss_of(model, window_BT[:, :-1], window_BT[:, 1:])[0].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def _seconds(step: Callable[[Tensor], None], windows: Tensor) -> float:
    began = time.process_time()
    for window_BT in windows:
        step(window_BT)
    return time.process_time() - began


def _quartiles(values: list[float]) -> tuple[float, float, float]:
    low, middle, high = statistics.quantiles(values, n=4)
    return low, middle, high


def _growth() -> dict[int, dict[str, tuple[float, float]]]:
    """By length and form: CPU milliseconds (the least of five) and megabytes kept for backward."""
    return {
        length: {form: _attention(length, form) for form in ("linear", "quadratic")}
        for length in LENGTHS
    }


def _attention(length: int, form: str) -> tuple[float, float]:
    torch.manual_seed(1)
    settings = WaveModelSettings.model_validate(
        {
            **WAVE,
            "layers": 1,
            "block": length,
            "attention": "pure",
            "pure": {"form": form},
        }
    )
    attention = WaveGPT(settings).blocks[0].attention
    x_BTC = torch.randn(1, length, settings.width, requires_grad=True)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        attention(x_BTC).sum().backward()
    times = []
    for _ in range(5):
        began = time.process_time()
        attention(x_BTC).sum().backward()
        times.append(time.process_time() - began)
    return 1e3 * min(times), sum(kept.values()) / 1e6
