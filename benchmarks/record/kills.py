"""How many calls that had returned are lost by `kill -9`: writers in mid-stream, killed at random.

A trial starts several writers, each with a run of its own, waits until all have logged, kills
their process groups after a random delay, and reads back with the tracker's own reader. A call
is lost when it had returned and its step cannot be read. This is the death of processes, not a
power loss.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from child import COUNTER

CHILD = Path(__file__).with_name("child.py")
LONGEST_START_S = 180.0


@dataclass
class Losses:
    """Sums over trials; `pace` is in seconds between calls, 0 for none."""

    backend: str
    pace: float
    kills: int = 0
    returned: int = 0
    lost: int = 0
    most_lost: int = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--writers", type=int, default=3)
    parser.add_argument("--pace", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    losses = measure("cupel", sys.executable, given.trials, given.writers, given.pace, given.seed)
    print(json.dumps(asdict(losses)))


def measure(
    backend: str, python: str, trials: int, writers: int, pace: float = 0.0, seed: int = 0
) -> Losses:
    """Kill `writers` processes, `trials` times. `python` is the tracker's environment."""
    losses = Losses(backend, pace)
    draw = random.Random(seed)
    for trial in range(trials):
        with tempfile.TemporaryDirectory(prefix="cupel-kills-") as folder:
            for returned, lost in _trial(backend, python, Path(folder), writers, pace, draw):
                losses.kills += 1
                losses.returned += returned
                losses.lost += lost
                losses.most_lost = max(losses.most_lost, lost)
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{backend}: {trial + 1} of {trials} trials, {losses.lost} lost ")
    return losses


def _trial(
    backend: str, python: str, folder: Path, writers: int, pace: float, draw: random.Random
) -> list[tuple[int, int]]:
    folders = [folder / str(number) for number in range(writers)]
    started = [
        subprocess.Popen(
            [
                *(python, str(CHILD), "stream", backend, str(own)),
                *("--pace", str(pace), "--seed", str(draw.randrange(2**31))),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for own in folders
    ]
    try:
        deadline = time.monotonic() + LONGEST_START_S
        while any(_returned(own) < 1 for own in folders):
            for process in started:
                assert process.poll() is None, f"{backend}: a writer ended with {process.poll()}"
            assert time.monotonic() < deadline, f"{backend}: no call returned in time"
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 2.0 if pace else 0.6))
    finally:
        for process in started:
            os.killpg(process.pid, signal.SIGKILL)
        for process in started:
            process.wait()
    return [(_returned(own), _lost(backend, python, own)) for own in folders]


def _returned(folder: Path) -> int:
    path = folder / COUNTER
    content = path.read_bytes() if path.exists() else b""
    return struct.unpack("<q", content)[0] if len(content) == 8 else 0


def _lost(backend: str, python: str, folder: Path) -> int:
    # wandb has no reader of its own: cupel's environment has one.
    reader = sys.executable if backend.startswith(("cupel", "wandb")) else python
    command = [reader, str(CHILD), "recover", backend, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{backend} cannot read its record:\n{done.stderr[-2000:]}"
    steps = set(json.loads(done.stdout.splitlines()[-1]))
    return sum(step not in steps for step in range(1, _returned(folder) + 1))


if __name__ == "__main__":
    main()
