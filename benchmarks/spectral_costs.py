"""What the spectral optimizers cost by shape of a matrix, beside torch's fused AdamW.

`OMP_NUM_THREADS=1 python benchmarks/spectral_costs.py` prints milliseconds of CPU time, the least
of several calls, for one matrix of each shape: AdamW's step; rfft2 and irfft2 alone, the floor of
any filter of this kind; RGD's step; WaveNative's, and what its modes cost each time. Last, a step
over all matrices of recipe gpt-tiny, where RGD filters small ones of one shape together. About
forty seconds, half of them for the embedding of GPT-2's vocabulary.
"""

from __future__ import annotations

import os

# Before torch comes in: one thread, and none that spins.
os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}

import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from cupel.models.gpt.model import GPT
from cupel.models.gpt.settings import GPTModelSettings
from cupel.models.wave.optim import RGD, WaveNative, _modes

SHAPES = ((128, 128), (512, 128), (384, 384), (1536, 384), (50257, 384))
Shapes = Iterable[torch.Size | tuple[int, ...]]


def main() -> None:
    torch.set_num_threads(1)
    for line in table(measure()):
        print(line)


def measure() -> dict[str, Any]:
    """CPU milliseconds by shape, and of a step over all matrices of gpt-tiny."""
    with torch.device("meta"):
        tiny = GPT(GPTModelSettings(vocabulary=256))
    shapes = [weight.shape for weight in tiny.parameters() if weight.dim() >= 2]
    return {
        "shapes": {f"{rows} x {columns}": of_shape((rows, columns)) for rows, columns in SHAPES},
        "gpt-tiny": {
            "matrices": len(shapes),
            "adamw": steps(shapes, AdamW, fused=True),
            "rgd": steps(shapes, RGD, fused=True, warmup=0),
        },
    }


def table(found: dict[str, Any]) -> Iterable[str]:
    """The numbers as lines."""
    yield "spectral optimizers by shape, 1 thread, CPU ms; RGD filters from its first step on"
    heads = ("shape", "AdamW", "rfft2+irfft2", "RGD", "RGD/AdamW", "WaveNative", "its modes")
    yield "  " + "".join(f"{head:>13}" for head in heads)
    for shape, row in found["shapes"].items():
        taken = [row["adamw"], row["fft"], row["rgd"]]
        yield (
            f"  {shape:>13}"
            + "".join(f"{one:>13.2f}" for one in taken)
            + f"{row['rgd'] / row['adamw']:>13.0f}{row['wave_native']:>13.2f}{row['modes']:>13.1f}"
        )
    tiny = found["gpt-tiny"]
    yield (
        f"  all {tiny['matrices']} matrices of gpt-tiny: AdamW {tiny['adamw']:.2f}, "
        f"RGD {tiny['rgd']:.2f}"
    )


def of_shape(shape: tuple[int, int]) -> dict[str, float]:
    """Milliseconds for one matrix."""
    weights = torch.randn(shape)
    return {
        "adamw": steps([shape], AdamW, fused=True),
        "fft": least_ms(lambda: torch.fft.irfft2(torch.fft.rfft2(weights), s=shape)),
        "rgd": steps([shape], RGD, fused=True, warmup=0),
        "wave_native": steps([shape], WaveNative, every=10**9),
        "modes": least_ms(lambda: _modes(weights, 0.25)),
    }


def steps(shapes: Shapes, kind: type[Optimizer], **chosen: Any) -> float:
    """Milliseconds of one step over matrices of these shapes."""
    weights = [nn.Parameter(0.02 * torch.randn(shape)) for shape in shapes]
    for weight in weights:
        weight.grad = torch.randn_like(weight)
    optimizer: Any = kind(weights, **chosen)
    optimizer.step()  # makes its state, and WaveNative's modes
    return least_ms(optimizer.step)


def least_ms(call: Callable[[], Any], *, seconds: float = 1.0) -> float:
    """CPU milliseconds of the cheapest call within about this many seconds, of three at least."""
    taken: list[float] = []
    while len(taken) < 3 or sum(taken) < seconds * 1e3:
        began = time.process_time()
        call()
        taken.append((time.process_time() - began) * 1e3)
    return min(taken)


if __name__ == "__main__":
    main()
