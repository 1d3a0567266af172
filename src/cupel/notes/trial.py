"""Runs tests, and again for each wrong version of the code: `python -m cupel.notes.trial`.

A process of its own, so that what is tested is imported here and nowhere else. It reads a job as
JSON from standard input, imports what all tests need and none of the code (PyTorch takes seconds),
and forks for each run: a run of the code as it is, then one for each mutant, in which one module's
text is exchanged before it is imported. Answers are lines of JSON on standard output, as they come.

Needs pytest, and a system that can fork.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import io
import json
import os
import resource
import select
import signal
import sys
import time
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

MARKER = "equation"
_COUNTING = frozenset({"value", "gradient", "oracle"})


class Recorder:
    """A plugin of pytest: keeps tests with a mark, and says how each of them went."""

    def __init__(self, wanted: Sequence[str] | None) -> None:
        self.wanted = None if wanted is None else set(wanted)
        self.tests: dict[str, dict[str, Any]] = {}
        self.missing: set[str] = set()  # ids that have seen no red test yet
        self.session: Any = None

    def pytest_configure(self, config: Any) -> None:
        config.addinivalue_line("markers", f"{MARKER}(id, kind): holds an equation of the notes")

    def pytest_collection_modifyitems(self, session: Any, config: Any, items: list[Any]) -> None:
        self.session, kept = session, []
        for item in items:
            marks = [
                [identity, mark.kwargs.get("kind", "")]
                for mark in item.iter_markers(MARKER)
                for identity in mark.args
            ]
            if marks and (self.wanted is None or item.nodeid in self.wanted):
                self.tests[item.nodeid] = {"marks": marks, "outcome": "", "file": str(item.path)}
                kept.append(item)
        items[:] = kept

    def pytest_runtest_logreport(self, report: Any) -> None:
        found = self.tests.get(report.nodeid)
        if found is None:
            return
        if report.failed:
            found["outcome"] = "failed"
            self._red(found)
        elif report.skipped and not found["outcome"]:
            found["outcome"] = "skipped"
        elif report.when == "call" and not found["outcome"]:
            found["outcome"] = "passed"

    def _red(self, test: Mapping[str, Any]) -> None:
        if not self.missing:
            return
        self.missing -= {identity for identity, kind in test["marks"] if kind in _COUNTING}
        if not self.missing:
            self.session.shouldstop = "every equation has seen a red test"


class _Exchanged(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds one module by its file and gives it another text."""

    def __init__(self, path: str, text: str) -> None:
        self._path, self._text = os.path.realpath(path), text

    def find_spec(
        self, name: str, path: Any, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or not spec.origin or os.path.realpath(spec.origin) != self._path:
            return None
        spec.loader = self
        return spec

    def create_module(self, spec: Any) -> None:
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        code = compile(self._text, self._path, "exec")
        exec(code, module.__dict__)  # the text of this project's own file, changed in one place


def main() -> None:
    job = json.load(sys.stdin)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    for name in job["preload"]:
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    import pytest  # noqa: F401

    for answer in _answers(job):
        out.write(json.dumps(answer) + "\n")
        out.flush()


def _answers(job: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The code as it is first; then mutants, several at a time, in whatever order they end."""
    if job["baseline"]:
        yield from _all([{"number": -1, "files": job["files"]}], 1, job["limit_s"])
    yield from _all(job["mutants"], job["workers"], job["limit_s"])


def _all(runs: Sequence[Any], workers: int, limit_s: float) -> Iterator[dict[str, Any]]:
    waiting = list(reversed(runs))
    going: dict[int, tuple[Any, int, float, bytes]] = {}  # by pipe: run, process, start, heard
    while waiting or going:
        while waiting and len(going) < workers:
            run = waiting.pop()
            pipe, pid = _forked(run, limit_s)
            going[pipe] = (run, pid, time.monotonic(), b"")
        ready, _, _ = select.select(list(going), [], [], 0.2)
        for pipe in list(going):
            run, pid, begun, heard = going[pipe]
            ended = False
            if pipe in ready:
                part = os.read(pipe, 1 << 16)
                heard += part
                going[pipe] = (run, pid, begun, heard)
                ended = not part
            late = time.monotonic() - begun > limit_s
            if late:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
            if ended or late:
                del going[pipe]
                os.close(pipe)
                _, status = os.waitpid(pid, 0)
                yield _answer(run, heard, status, late=late)


def _answer(run: Any, heard: bytes, status: int, *, late: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"number": run["number"], "tests": {}, "ended": "hung" if late else ""}
    try:
        found["tests"] = json.loads(heard)
    except ValueError:
        found["ended"] = found["ended"] or f"died with status {status}"
    return found


def _forked(run: Mapping[str, Any], limit_s: float) -> tuple[int, int]:
    """A child that runs the tests and tells their outcomes through a pipe."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return reading, pid
    os.close(reading)
    os.setpgid(0, 0)
    # One that never ends must end even if nobody is left to end it.
    resource.setrlimit(resource.RLIMIT_CPU, (int(limit_s) + 1, int(limit_s) + 1))
    try:
        told = json.dumps(_run(run)).encode()
        while told:
            told = told[os.write(writing, told) :]
    finally:
        os._exit(0)


def _run(run: Mapping[str, Any]) -> dict[str, Any]:
    import pytest

    if "path" in run:
        sys.meta_path.insert(0, _Exchanged(run["path"], run["text"]))
    sys.dont_write_bytecode = True
    recorder = Recorder(run.get("nodes"))
    recorder.missing = set(run.get("ids", ()))
    # No cache, no other processes, and no fixed order of tests that a plugin may have.
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:randomly", "--no-header"]
    heard = io.StringIO()
    with contextlib.redirect_stdout(heard), contextlib.redirect_stderr(heard):
        code = pytest.main([*options, *run["files"]], plugins=[recorder])
    if run.get("ids") and not recorder.tests and code:
        # The file of tests does not even import with this: as red as can be.
        return {
            "*": {"marks": [], "outcome": "failed", "file": "", "said": heard.getvalue()[-2000:]}
        }
    if not recorder.tests:
        return {"!": {"marks": [], "outcome": "none", "file": "", "said": heard.getvalue()[-2000:]}}
    return recorder.tests


def name_of(path: Path) -> str:
    """`src/cupel/models/memory/bias.py` → `cupel.models.memory.bias`: packages up to the first
    folder that is none."""
    parts = [path.stem] if path.stem != "__init__" else []
    folder = path.resolve().parent
    while (folder / "__init__.py").is_file():
        parts.append(folder.name)
        folder = folder.parent
    return ".".join(reversed(parts))


if __name__ == "__main__":
    main()
