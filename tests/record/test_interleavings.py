"""Logged, killed, resumed, rolled, compacted and followed in any order: nothing is lost.

A real writer in a process of its own does what Hypothesis chooses, and is killed for good; readers
that stay open all the time, and fresh ones, must always see what a model of a few lines says.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from cupel.record import compaction, metrics
from cupel.record.reader import RunRecord
from cupel.record.tail import Tail

SEGMENT_BYTES = 300  # five lines or so

# It forks for each session, so that none pays for starting Python; the fork reads the commands
# until it has finished or is killed.
WRITER = """
import json, mmap, os, struct, sys
from cupel.record import environment, writer
from cupel.record.session import Session

writer.SEGMENT_BYTES = int(sys.argv[1])
environment.in_time = lambda: {"git": None}  # asking git takes half a second a session

def say(**told):
    print(json.dumps(told), flush=True)

def serve(command):
    if command["run_dir"] is None:
        session = Session.start(
            root=command["root"], project="p", name="n", config={}, identity="i"
        )
    else:
        from pathlib import Path
        session = Session.resume(Path(command["run_dir"]))
    if command["start_step"] is not None:
        session.begin_at(command["start_step"])
    say(pid=os.getpid(), run_dir=str(session.run_dir))
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "log":
            session.log(command["metrics"], step=command["step"])
            say()
        elif command["do"] == "finish":
            session.finish("interrupted")
            assert session.lost == 0, session.problems
            say()
            os._exit(0)
        else:
            with open(command["counter"], "r+b") as file, mmap.mmap(file.fileno(), 8) as returned:
                say()
                for count in range(1, 10**9):
                    session.log({"burst": count}, step=command["step"] + count)
                    # At once; pack_into would set it to 0 first.
                    returned[:] = struct.pack("<q", count)

for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        serve(json.loads(line))
    os.waitpid(pid, 0)
    say(gone=pid)
"""

VALUES = st.one_of(
    st.floats(width=64),
    st.integers(-(2**53), 2**53),
    st.booleans(),
    st.sampled_from([math.nan, -0.0, 1e-320, 2**53 + 1, 2**63 - 1, -(2**63)]),
)
METRICS = st.dictionaries(st.sampled_from(["loss", "val/loss", "ü\n", "epoch"]), VALUES, max_size=4)


def same(found: Any, expected: Any) -> bool:
    """Equal to the bit and in type: NaN equals NaN, and 1 neither 1.0 nor True."""
    return repr(found) == repr(expected)


class Interleavings(RuleBasedStateMachine):
    """The model: the lines that returned, each with its session, and the rows of the history."""

    writer: subprocess.Popen[str]
    folder: Path

    def __init__(self) -> None:
        super().__init__()
        self.pid: int | None = None
        self.run_dir: Path | None = None
        self.session, self.step = 0, 0
        self.lines: list[tuple[int, dict[str, Any]]] = []
        self.rows: dict[int, dict[str, Any]] = {}
        self.told: list[tuple[int, dict[str, Any]]] = []
        self.root = self.folder / os.urandom(6).hex()
        self.counter = self.folder / "counter"

    # ---- the writer --------------------------------------------------------------------------

    def ask(self, **command: Any) -> dict[str, Any]:
        assert self.writer.stdin is not None
        self.writer.stdin.write(json.dumps(command) + "\n")
        self.writer.stdin.flush()
        return self.heard()

    def heard(self) -> dict[str, Any]:
        assert self.writer.stdout is not None
        answer: dict[str, Any] = json.loads(self.writer.stdout.readline())
        return answer

    def note(self, step: int, fields: dict[str, Any]) -> None:
        self.lines.append((self.session, {"_step": step, **fields}))
        self.rows.setdefault(step, {"_step": step}).update(fields)
        self.step = step

    @initialize()
    def first(self) -> None:
        self.open(start_step=0)

    @precondition(lambda self: self.pid is None)
    @rule(back=st.none() | st.integers(0, 6))
    def resume(self, back: int | None) -> None:
        self.open(start_step=None if back is None else max(0, self.step - back))

    def open(self, start_step: int | None) -> None:
        run_dir = None if self.run_dir is None else str(self.run_dir)
        answer = self.ask(root=str(self.root), run_dir=run_dir, start_step=start_step)
        self.pid, self.run_dir = answer["pid"], Path(answer["run_dir"])
        self.session += 1
        if self.session == 1:
            self.tail, self.record = Tail(self.run_dir), RunRecord(self.run_dir)
        elif start_step is not None:
            self.rows = {step: row for step, row in self.rows.items() if step <= start_step}
            self.step = start_step

    @precondition(lambda self: self.pid is not None)
    @rule(ahead=st.integers(-3, 5), fields=METRICS)
    def log(self, ahead: int, fields: dict[str, Any]) -> None:
        self.ask(do="log", step=self.step + ahead, metrics=fields)
        self.note(self.step + ahead, fields)

    @precondition(lambda self: self.pid is not None)
    @rule(fields=st.lists(METRICS, min_size=6, max_size=12))
    def log_so_much_that_files_are_rolled(self, fields: list[dict[str, Any]]) -> None:
        for one in fields:
            self.log(1, one)

    @precondition(lambda self: self.pid is not None)
    @rule()
    def kill(self) -> None:
        assert self.pid is not None
        os.kill(self.pid, signal.SIGKILL)
        assert self.heard() == {"gone": self.pid}
        self.pid = None

    @precondition(lambda self: self.pid is not None)
    @rule(after=st.floats(0, 0.004))
    def kill_in_the_midst_of_logging(self, after: float) -> None:
        self.counter.write_bytes(bytes(8))
        self.ask(do="burst", step=self.step, counter=str(self.counter))
        time.sleep(after)
        self.kill()
        with self.counter.open("rb") as file:
            (returned,) = struct.unpack("<q", file.read(8))
        assert self.run_dir is not None
        lines = Tail(self.run_dir).poll()
        written = sum("burst" in line for number, _, line in lines if number == self.session)
        assert written - returned in (0, 1), "a call that returned is lost"
        begun = self.step
        for count in range(1, written + 1):
            self.note(begun + count, {"burst": count})

    @precondition(lambda self: self.pid is not None)
    @rule()
    def finish(self) -> None:
        self.ask(do="finish")
        assert self.heard() == {"gone": self.pid}
        self.pid = None

    # ---- readers -----------------------------------------------------------------------------

    @rule(keys=st.lists(st.sampled_from(["loss", "val/loss", "ü\n", "burst"]), unique=True))
    def read(self, keys: list[str]) -> None:
        assert self.run_dir is not None
        rows = [self.rows[step] for step in sorted(self.rows)]
        if keys:
            rows = [
                {key: value for key, value in row.items() if key in ("_step", *keys)}
                for row in rows
                if not row.keys().isdisjoint(keys)
            ]
        for record in (self.record, RunRecord(self.run_dir)):
            found = record.history(keys or None)
            assert same(*(sorted_rows(one) for one in (found, rows)))
            assert record.damaged_lines == 0

    @rule(key=st.sampled_from(["loss", "burst"]))
    def compact(self, key: str) -> None:
        """Asking for a curve makes the columns of whatever is sealed by now."""
        points = [(step, float(row[key])) for step, row in sorted(self.rows.items()) if key in row]
        series = self.record.series(key)
        found = zip(series.x.tolist(), series.y.tolist(), strict=True)
        assert same([(int(x), y) for x, y in found], points)

    @rule()
    def delete_the_cache(self) -> None:
        shutil.rmtree(self.root / ".cache", ignore_errors=True)

    @rule(most=st.none() | st.integers(1, 5), anew=st.booleans())
    def follow(self, most: int | None, anew: bool) -> None:
        assert self.run_dir is not None
        if anew:  # as a page does that is loaded again
            self.tail = Tail(self.run_dir, json.loads(json.dumps(self.tail.cursor)))
        for number, rank, line in self.tail.poll(most=most):
            assert rank == 0
            self.told.append((number, {key: line[key] for key in line if key != "_t"}))
        assert same(self.told, self.lines[: len(self.told)]), "each line once, in order"
        assert most is not None or len(self.told) == len(self.lines)

    def teardown(self) -> None:
        try:
            if self.run_dir is not None:
                self.follow(most=None, anew=False)
                self.read([])
        finally:
            if self.pid is not None:
                self.kill()
            shutil.rmtree(self.root, ignore_errors=True)


def sorted_rows(rows: list[dict[str, Any]]) -> list[list[tuple[str, Any]]]:
    """The rows without their times, each in the order of its keys."""
    return [sorted((k, v) for k, v in row.items() if k != "_t") for row in rows]


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", WRITER, str(SEGMENT_BYTES)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def run(
    writer: subprocess.Popen[str], folder: Path, monkeypatch: pytest.MonkeyPatch, examples: int
) -> None:
    # Records of a few lines go through columns and cache as if they were long.
    monkeypatch.setattr(compaction, "SMALLEST", 1)
    monkeypatch.setattr(metrics, "LARGE", 1)
    machine = type("Machine", (Interleavings,), {"writer": writer, "folder": folder}).TestCase
    machine.settings = settings(
        max_examples=examples,
        stateful_step_count=30,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    machine().runTest()


@pytest.mark.slow
def test_any_interleaving_of_writing_killing_and_reading_agrees_with_a_model(
    writer: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken on purpose: an `append` that writes two lines with every second call.

    Then `kill_in_the_midst_of_logging` says "a call that returned is lost".
    """
    run(writer, tmp_path, monkeypatch, 8)


@pytest.mark.slow
def test_many_interleavings_agree_with_a_model(
    writer: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(writer, tmp_path, monkeypatch, 60)
