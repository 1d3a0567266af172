"""A process that logs at a steady pace: one run, ten times a second, one metric that counts.

ticking.py ROOT NAME HZ SECONDS     prints the run's key; begins at a line of standard input;
                                    prints JSON: of each call the step, and when it returned
"""

from __future__ import annotations

import json
import sys
import time

import cupel


def main() -> None:
    root, name, pace, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4])
    run = cupel.init(project="bench", name=name, root=root, resume="never")
    run.log({"count": 0.0}, step=0)
    print(f"bench/{run.id}", file=sys.__stdout__, flush=True)
    sys.stdin.readline()
    returned = []
    due = time.monotonic() + (hash(name) % 100) / 100 / pace  # not all at one moment
    for step in range(1, int(pace * seconds) + 1):
        time.sleep(max(0.0, due - time.monotonic()))
        run.log({"count": float(step)}, step=step)
        returned.append((step, time.time() * 1e3))
        due += 1 / pace
    time.sleep(2)
    run.finish()
    print(json.dumps(returned), file=sys.__stdout__, flush=True)


if __name__ == "__main__":
    main()
