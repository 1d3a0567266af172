"""A training whose every step is the same work: a product of matrices, then ten scalars logged.

steps.py ROOT           prints the run's key. Each line of standard input is a number of steps to
                        make; then it prints, as JSON, the median wall and mean processor
                        milliseconds of one of them, and the seconds of all, a few more included.
                        It ends with its input.
"""

from __future__ import annotations

import json
import statistics
import sys
import time

import numpy as np

import cupel

SIZE = 448
FIRST = 20  # steps before anything is timed


def main() -> None:
    run = cupel.init(project="bench", name="steps", root=sys.argv[1], resume="never")
    draw = np.random.default_rng(0)
    left, right = draw.random((2, SIZE, SIZE))
    step = 0

    def trained(count: int) -> dict[str, float]:
        nonlocal step
        wall, used = [], time.process_time()
        for _ in range(count):
            began = time.perf_counter()
            product = left @ right
            run.log({f"metric_{n}": float(product[n, n]) + step for n in range(10)}, step=step)
            wall.append(time.perf_counter() - began)
            step += 1
        return {
            "wall_ms": statistics.median(wall) * 1e3,
            "cpu_ms": (time.process_time() - used) / count * 1e3,
        }

    trained(FIRST)
    print(f"bench/{run.id}", file=sys.__stdout__, flush=True)
    for asked in sys.stdin:
        began = time.perf_counter()
        trained(FIRST)  # after a rest everything is cold
        found = trained(int(asked))
        found["seconds"] = time.perf_counter() - began
        print(json.dumps(found), file=sys.__stdout__, flush=True)
    run.finish()


if __name__ == "__main__":
    main()
