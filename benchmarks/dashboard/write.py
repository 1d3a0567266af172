"""Writes the same curves through each tool's own interface, in that tool's environment.

    write.py TOOL FOLDER RUNS POINTS        one metric, `loss`, a call a point; prints JSON

Nothing but the standard library is imported at module level, and of one tool only what it is.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

PROJECT, METRIC = "bench", "loss"


def curve(run: int, points: int) -> Iterator[float]:
    """A loss that falls, with noise and now and then a spike; the same for every tool."""
    state = 12345 + run
    for step in range(points):
        state = (1103515245 * state + 12345) % 2**31
        noise = state / 2**31 - 0.5
        spike = 3.0 if state % 20_011 == 0 else 0.0
        yield 0.3 + 2.5 * math.exp(-step / (points / 5)) + 0.05 * run + 0.2 * noise + spike


def cupel(folder: Path, runs: int, points: int) -> list[str]:
    """Through `cupel.init` and `log`; the keys of the runs."""
    os.environ["CUPEL_DASHBOARD"] = "0"
    import cupel

    keys = []
    for number in range(runs):
        run = cupel.init(project=PROJECT, name=f"run-{number}", root=folder, resume="never")
        keys.append(f"{PROJECT}/{run.id}")
        for step, value in enumerate(curve(number, points)):
            run.log({METRIC: value}, step=step)
        run.finish()
    return keys


def tensorboard(folder: Path, runs: int, points: int) -> list[str]:
    """Through torch.utils.tensorboard, a folder of events a run."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    from torch.utils.tensorboard import SummaryWriter

    for number in range(runs):
        with SummaryWriter(str(folder / f"run-{number}")) as writer:
            for step, value in enumerate(curve(number, points)):
                writer.add_scalar(METRIC, value, step)
    return [f"run-{number}" for number in range(runs)]


def trackio(folder: Path, runs: int, points: int) -> list[str]:
    """Through `trackio.init` and `log`, into its SQLite."""
    os.environ |= {"TRACKIO_DIR": str(folder), "HF_HUB_OFFLINE": "1"}
    import trackio as tracked

    for number in range(runs):
        tracked.init(project=PROJECT, name=f"run-{number}", embed=False)
        for step, value in enumerate(curve(number, points)):
            tracked.log({METRIC: value}, step=step)
        tracked.finish()
    return [f"run-{number}" for number in range(runs)]


TOOLS = {"cupel": cupel, "tensorboard": tensorboard, "trackio": trackio}

if __name__ == "__main__":
    name, place, count, length = sys.argv[1:]
    began = time.perf_counter()
    made = TOOLS[name](Path(place), int(count), int(length))
    print(json.dumps({"runs": made, "seconds": time.perf_counter() - began}))
