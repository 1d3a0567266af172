"""A training whose every step is the same work: a product of matrices, then ten scalars logged.

steps.py ROOT COUNT     prints the run's key; begins at a line of standard input; prints JSON:
                        median wall and mean processor milliseconds of a step
"""

from __future__ import annotations

import json
import statistics
import sys
import time

import numpy as np

import cupel

SIZE = 448  # about 8 ms on one core


def main() -> None:
    root, count = sys.argv[1], int(sys.argv[2])
    run = cupel.init(project="bench", name="steps", root=root, resume="never")
    draw = np.random.default_rng(0)
    left, right = draw.random((2, SIZE, SIZE))
    for step in range(20):
        _step(run, left, right, step)
    print(f"bench/{run.id}", file=sys.__stdout__, flush=True)
    sys.stdin.readline()
    taken = []
    cpu = time.process_time()
    for step in range(20, 20 + count):
        before = time.perf_counter()
        _step(run, left, right, step)
        taken.append(time.perf_counter() - before)
    cpu = time.process_time() - cpu
    found = {"wall_ms": statistics.median(taken) * 1e3, "cpu_ms": cpu / count * 1e3}
    run.finish()
    print(json.dumps(found), file=sys.__stdout__, flush=True)


def _step(run: cupel.Run, left: np.ndarray, right: np.ndarray, step: int) -> None:
    product = left @ right
    run.log({f"metric_{n}": float(product[n, n]) + step for n in range(10)}, step=step)


if __name__ == "__main__":
    main()
