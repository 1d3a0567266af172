"""What a checkpoint costs training: cupel's room beside torch.save, in turns, on one machine.

    python benchmarks/record/checkpoint_cost.py                       # 100 M parameters, 1.2 GB
    python benchmarks/record/checkpoint_cost.py --parameters 5000000  # a smaller one

The state is a model and its AdamW. In each round torch.save writes a file, then the room writes a
checkpoint in the background while this process waits for it, another while it computes steps, and
one in the foreground; so every ratio is one of neighbours. The room waits for the disk (fsync), as
it must; torch.save by itself does not, so it is timed with and without. The first round is told
apart: there the kernel has to find pages for files and buffers, as at the first one of a run.

Memory: weights, gradients, two moments and the room's copy: 28 bytes a parameter.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cupel.checkpoint import folder
from cupel.checkpoint.parts import Parts
from cupel.checkpoint.room import CheckpointRoom
from cupel.checkpoint.settings import CheckpointSettings
from cupel.record import manifests

TENSORS = 50
RATIOS = {
    "stall / torch.save": ("stall", "torch_save"),
    "background / torch.save": ("background", "torch_save"),
    "background / torch.save and fsync": ("background", "torch_save_and_fsync"),
    "foreground / torch.save and fsync": ("foreground", "torch_save_and_fsync"),
    "verified load / torch.load": ("load_verified", "torch_load"),
    "step while writing / step": ("step_while_writing", "step_idle"),
}


def state(parameters: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A model of that many parameters and its AdamW after one step."""
    side = max(1, round((parameters / TENSORS) ** 0.5))
    model = nn.ParameterList(nn.Parameter(torch.randn(side, side)) for _ in range(TENSORS))
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    return model, optimizer


def measure(parameters: int, *, rounds: int, place: Path) -> dict[str, Any]:
    """All numbers, in seconds; `place` is a folder on the disk in question."""
    load_before = os.getloadavg()
    model, optimizer = state(parameters)
    parts = Parts()
    parts.register("model", model)
    parts.register("optimizer", optimizer)
    room = CheckpointRoom(place / "run", settings=CheckpointSettings(keep_last=1, best=None))
    room.prepare(parts)
    time.sleep(2)  # as long as training goes on until its first checkpoint
    first, *rest = [_round(room, parts, place, 10 * number) for number in range(rounds + 1)]
    columns = {key: [one[key] for one in rest] for key in first}
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "bytes": folder.size(folder.packed(parts.state())),
        "rounds": rounds,
        "first": first,
        "median": {key: statistics.median(column) for key, column in columns.items()},
        "least": {key: min(column) for key, column in columns.items()},
        "most": {key: max(column) for key, column in columns.items()},
        "ratios": {
            name: {"first": first[over] / first[under], "median": _median_ratio(rest, over, under)}
            for name, (over, under) in RATIOS.items()
        },
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "load": [load_before, os.getloadavg()],
        "torch": str(torch.__version__),
    }


def _round(room: CheckpointRoom, parts: Parts, place: Path, step: int) -> dict[str, float]:
    """Everything once, one after the other, so that all of it meets about the same machine."""
    found = _torch_save(parts.state(), place / "state.pt")
    started = time.perf_counter()
    assert room.begin(step, parts)
    found["stall"] = time.perf_counter() - started
    room.close()
    found["background"] = time.perf_counter() - started
    room.news()
    assert room.begin(step + 1, parts)
    steps = [_step()]
    while not room.news():
        steps.append(_step())
    found["step_while_writing"] = statistics.median(steps)
    saved = room.save(step + 2, parts)
    found["foreground"] = saved.seconds
    found["step_idle"] = statistics.median(_step() for _ in range(100))
    found["verify"] = _seconds(lambda: manifests.check_bytes(saved.path))
    found["load_verified"] = _seconds(lambda: folder.load_states(saved.path))
    return found


def _torch_save(content: Any, path: Path) -> dict[str, float]:
    saving = _seconds(lambda: torch.save(content, path))
    with path.open("r+b") as file:
        syncing = _seconds(lambda: os.fsync(file.fileno()))
    loading = _seconds(lambda: torch.load(path, weights_only=True))
    path.unlink()
    return {
        "torch_save": saving,
        "torch_save_and_fsync": saving + syncing,
        "torch_load": loading,
    }


def _step() -> float:
    """Seconds of a little computing, as a training step would do."""
    left, right = torch.ones(256, 256), torch.ones(256, 256)
    return _seconds(lambda: [left @ right for _ in range(20)])


def _seconds(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _median_ratio(rounds: list[dict[str, float]], over: str, under: str) -> float:
    return statistics.median(one[over] / one[under] for one in rounds)


def main() -> None:
    """Print the numbers as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--parameters", type=int, default=100_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to write (default: a temporary folder)")
    parser.add_argument("--one-line", action="store_true", help="for another program")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as place:
        found = measure(chosen.parameters, rounds=chosen.rounds, place=Path(place))
    print(json.dumps(found, indent=None if chosen.one_line else 2))


if __name__ == "__main__":
    main()
