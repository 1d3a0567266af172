"""Promises of the record whose mechanism no other test takes apart.

The docstring of a test that proves a promise tells of a mutation: how the code was broken, on a
copy, and what the test then said. ARCHITECTURE.md lists all of these tests.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cupel.record import codec, files, layout
from cupel.record.reader import list_runs
from cupel.record.session import Session
from fakes import watch_disk

TESTS = Path(__file__).parents[1]


def test_each_log_is_one_write_of_one_whole_line_by_its_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mutations: `LineWriter.append` writes the newline by itself; `log` writes in a thread.

        -                written = os.write(self._fd, line)
        +                written = os.write(self._fd, line[:-1]) + os.write(self._fd, b"\\n")

        -        if not self._metrics.append(line, tuple(plain), step):
        +        threading.Thread(target=self._metrics.append, args=(line,)).start()

    Then `2 writes when 1 calls had returned`; and the thread that wrote was another one. When lines
    are kept and written ten at a time: `0 writes when 1 calls had returned`.
    """
    session = Session.start(root=tmp_path, project="p", name="n", config={}, identity="i")
    metrics = (session.dir / layout.metrics_name()).stat().st_ino
    written: list[tuple[int, bytes]] = []
    write = os.write

    def noted(fd: int, data: bytes) -> int:
        if os.fstat(fd).st_ino == metrics:
            written.append((threading.get_ident(), data))
        return write(fd, data)

    monkeypatch.setattr(os, "write", noted)
    for step in range(1, 51):
        session.log({"loss": 1 / step, "filling": [step] * 20 * step}, step=step)
        assert len(written) == step, f"{len(written)} writes when {step} calls had returned"
        thread, line = written[-1]
        assert thread == threading.get_ident()
        assert codec.decode_line(line)["_step"] == step
        assert line.endswith(b"\n")
    session.finish("finished")
    assert len(written) == 50


@pytest.mark.parametrize(
    "write",
    [
        lambda path: files.write_json(path, {"i": 1}),
        lambda path: files.write_bytes(path, b"x" * 100_000),
        lambda path: files.create_json_exclusively(path, {"i": 1}),
    ],
    ids=["replaced", "large", "created once"],
)
def test_a_file_gets_its_name_when_its_bytes_are_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], Any]
) -> None:
    """Mutations of files.py, one at a time: a line less in `_write_new`, or in `write_bytes`.

        -        file.flush()
        -        os.fsync(file.fileno())
        -    sync_folder(path.parent)

    Then `assert told == […]` said `'sync <a.json> 0' != 'sync <a.json> 13'`; `'name a.json' !=
    'sync <a.json> 13'`; and `Right contains one more item: 'sync .'`.
    """
    told = watch_disk(monkeypatch, tmp_path)
    path = tmp_path / "a.json"
    write(path)
    assert told == [f"sync <a.json> {path.stat().st_size}", "name a.json", "sync ."]


TRAINS_WHILE_FILES_CANNOT_GROW = """
import resource, sys, cupel
run = cupel.init("p", "full", root=sys.argv[1], settings={"console": False, "system_every": 0})
free = resource.getrlimit(resource.RLIMIT_FSIZE)
for step in range(1000):
    if step == 10:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, free[1]))
    if step == 900:
        resource.setrlimit(resource.RLIMIT_FSIZE, free)
    run.log({"loss": 0.5, "filling": [step] * 500}, step=step)
print("trained", step + 1)
run.finish()
"""


@pytest.mark.slow
def test_lines_that_the_disk_refuses_are_counted_told_once_and_shown(tmp_path: Path) -> None:
    """Mutations, one at a time: `LineWriter.append` raises; `_lose` does not count; `Session.log`
    does not tell; `Session.problem` tells every time.

        -                return self._lose(error if self._fd >= 0 else ended)
        +                raise error

        -        self.lost += 1

        -            self._here.tell_lost(self._metrics)
        +            pass

        -            if self.problems[name] > 1:
        -                return

    Then training ended with `OSError: [Errno 27] File too large`; `assert 0 == 1000 - 223` lines
    lost; `assert 0 == 1` warnings; and there were hundreds of them.
    """
    command = [sys.executable, "-c", TRAINS_WHILE_FILES_CANNOT_GROW, str(tmp_path)]
    # In a folder without a repository, whose patch might be what does not fit.
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "trained 1000\n"), done.stderr
    told = re.findall(r"^cupel: writing .*", done.stderr, re.MULTILINE)
    assert len(told) == 1, done.stderr
    assert "metrics.r0.000.jsonl: OSError: [Errno 27] File too large (told once; tr" in told[0]
    (run,) = list_runs(tmp_path)
    steps = [row["_step"] for row in run.history()]
    assert steps[-100:] == list(range(900, 1000)), "what came after the disk was free again"
    assert steps == [*range(len(steps) - 100), *range(900, 1000)]
    fields = run.sessions[0].fields
    assert fields["lost"] == 1000 - len(steps) > 500
    assert fields["problems"] == {"writing metrics.r0.000.jsonl": fields["lost"]}
    (event,) = [event for event in run.events() if event["_event"] == "problem"]
    assert "File too large" in event["error"]
    cupel = str(Path(sys.executable).with_name("cupel"))
    command = [cupel, "runs", "verify", run.run_id, "--root", str(tmp_path)]
    shown = subprocess.run(command, capture_output=True, text=True)
    assert f"{fields['lost']} lines did not reach the disk" in shown.stdout


@pytest.mark.slow
def test_the_page_lists_every_test_that_tells_of_a_mutation() -> None:
    page = (TESTS.parent / "ARCHITECTURE.md").read_text(encoding="utf-8")
    section = page[page.index("### How each is proven") : page.index("## Extension points")]
    proofs = {
        node.name
        for path in TESTS.rglob("test_*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
        and node.name.startswith("test_")
        and re.search(r"^Mutations?\b.*:", ast.get_docstring(node) or "", re.MULTILINE)
    }
    assert proofs == set(re.findall(r"`(test_\w+)`", section))
    assert len(proofs) > 10
