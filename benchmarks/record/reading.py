"""How fast a record is read: one metric, buckets for a chart, and tables of many runs.

The record is made here, line by line as a session writes it (1 GB in a temporary folder, removed
afterwards). `raw` has no cache; `compacted` is a new process that finds the cache; `warm` asks an
open record again. Every time is the median of some repetitions, in a process of its own.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

POINTS = 1_000_000
MANY = 10_000_000
BUCKETS = 2_000
RUNS = (1_000, 10_000)
_SEGMENT_BYTES = 64 * 1024 * 1024
_AGAIN = 5


def measure(say: Callable[[str], None]) -> dict[str, Any]:
    """Seconds of each kind of reading, and bytes a scalar raw and compacted."""
    found: dict[str, Any] = {"seconds": {}, "bytes_a_scalar": {}}
    seconds, size = found["seconds"], found["bytes_a_scalar"]
    with tempfile.TemporaryDirectory(prefix="cupel-bench-") as folder:
        root = Path(folder)
        for name, points in (("million", POINTS), ("many", MANY)):
            say(f"reading: writing {points:,} points")
            run = make_run(root / name, points=points)
            cache = root / name / ".cache"
            if points == POINTS:
                raw = []
                for _ in range(3):
                    shutil.rmtree(cache, ignore_errors=True)
                    raw.append(_in_a_process("history", run))
                seconds["one metric of 1,000,000 points, raw"] = statistics.median(raw)
                _in_a_process("series", run)
                again = [_in_a_process("series", run) for _ in range(3)]
                seconds["one metric of 1,000,000 points, compacted"] = statistics.median(again)
            else:
                say("reading: compacting, then buckets")
                first, *warm = _buckets(run)
                seconds["2,000 buckets of 10,000,000 points, the first time"] = first
                seconds["2,000 buckets of 10,000,000 points, warm"] = statistics.median(warm)
        say("reading: ten scalars a line")
        run = make_run(root / "ten", points=POINTS, keys=10)
        raw = []
        for _ in range(3):
            shutil.rmtree(root / "ten" / ".cache", ignore_errors=True)
            raw.append(_in_a_process("series", run))
        seconds["one metric of 1,000,000 lines of ten scalars, raw"] = statistics.median(raw)
        _in_a_process("columns", run)  # of all ten
        size["raw"] = _bytes(run / "sessions") / (10 * POINTS)
        size["compacted"] = _bytes(root / "ten" / ".cache") / (10 * POINTS)
    for runs in RUNS:
        with tempfile.TemporaryDirectory(prefix="cupel-bench-") as folder:
            say(f"reading: making {runs:,} runs")
            make_runs(Path(folder), runs)
            first = _in_a_process("table", Path(folder))
            again = [_in_a_process("table", Path(folder)) for _ in range(3)]
            seconds[f"table of {runs:,} runs, the first time"] = first
            seconds[f"table of {runs:,} runs"] = statistics.median(again)
    return found


def make_run(root: Path, *, points: int, keys: int = 1) -> Path:
    """A finished run whose record is that of `points` calls of `log`."""
    from cupel.record import files
    from cupel.record.layout import SESSION, metrics_name
    from cupel.record.session import Session

    session = Session.start(root=root, project="bench", name="b", config={}, identity="b")
    session.begin_at(0)
    folder, run_dir = session.dir, session.run_dir
    session.finish("finished", results={"step": points, "final": {}})
    started, step, segment = time.time(), 0, 0
    said = files.read_json(folder / SESSION)
    while step < points:
        path = folder / metrics_name(0, segment)
        with path.open("w") as file:
            written = 0
            while step < points and written < _SEGMENT_BYTES:
                values = "".join(
                    f',"{"loss" if key == 0 else f"metric_{key}"}":{_value(step, key)!r}'
                    for key in range(keys)
                )
                at = started + step * 0.01
                written += file.write(f'{{"_step":{step},"_t":{at:.6f}{values}}}\n')
                step += 1
        content = path.read_bytes()
        said["files"][path.name] = {"bytes": len(content), "crc32": zlib.crc32(content)}
        segment += 1
    last = {"loss" if key == 0 else f"metric_{key}": _value(points - 1, key) for key in range(keys)}
    said["last"] = {"step": points - 1, "values": last, "steps": {}}
    files.write_json(folder / SESSION, said)
    return run_dir


def make_runs(root: Path, count: int) -> None:
    """`count` copies of a small finished run with 30 settings and 10 results."""
    from cupel.record.session import Session

    config = {f"setting_{i}": i / 7 for i in range(30)}
    session = Session.start(root=root, project="bench", name="b", config=config, identity="b")
    session.begin_at(0)
    for step in range(20):
        session.log({f"metric_{i}": step / (i + 1) for i in range(10)}, step=step)
    final = {f"metric_{i}": i / 3 for i in range(10)}
    session.finish("finished", results={"step": 20, "final": final})
    first = session.run_dir
    run = json.loads((first / "run.json").read_text())
    for number in range(1, count):
        copy = first.with_name(f"{first.name}-{number:05d}")
        shutil.copytree(first, copy)
        fields = {**run, "run_id": copy.name, "created": run["created"] + number}
        (copy / "run.json").write_text(json.dumps(fields))


def _value(step: int, key: int) -> float:
    return ((step * 2654435761 + key * 40503) % 2**32) / 2**32


def _in_a_process(what: str, folder: Path) -> float:
    """Seconds of one reading, without starting Python and importing."""
    return _times(what, folder, 1)[0]


def _buckets(run: Path) -> list[float]:
    return _times("buckets", run, 1 + _AGAIN)


def _times(what: str, folder: Path, count: int) -> list[float]:
    command = [sys.executable, str(Path(__file__)), what, str(folder), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    times: list[float] = json.loads(done.stdout)
    return times


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _read(what: str, folder: Path, count: int) -> list[float]:
    import numpy as np

    from cupel.record import index
    from cupel.record.reader import RunRecord

    assert np is not None  # its import is not what is measured
    times, record = [], None
    for _ in range(count):
        begun = time.perf_counter()
        if what == "table":
            rows = index.table(folder, where="metric_3<2 and status=finished", sort="-metric_5")
            assert rows, "no rows"
        else:
            record = record or RunRecord(folder)
            if what == "history":
                assert record.history(["loss"])
            elif what == "series":
                assert len(record.series("loss").y)
            elif what == "columns":
                assert len(record.logged(None, record.sessions).kinds()) >= 10
            else:
                assert len(record.buckets("loss", points=BUCKETS)["loss"].mean) == BUCKETS
        times.append(time.perf_counter() - begun)
    return times


if __name__ == "__main__":
    print(json.dumps(_read(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))))
