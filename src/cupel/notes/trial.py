"""Runs tests, and again for each wrong version of the code: `python -m cupel.notes.trial`.

A process of its own, so that what is tested is imported here and nowhere else. Jobs are lines of
JSON on standard input, answers lines on standard output, as they come. Each run is a process of its
own, forked from here, in one of two ways:

- `kept`: pytest collects once, and every run is forked behind that; in a mutant's, the code of one
  function is exchanged in place. What starting and collecting costs is paid once. The first run is
  of the code as it is, and tells what each test takes.
- else for what cannot be exchanged in place (a class, a function that a decorator has changed):
  forked with PyTorch imported but none of the code, one module's text is exchanged as it is
  imported, and pytest starts from its beginning.

A run ends as soon as every equation that it is about has seen a red test. A test that takes far
more CPU time than it does on right code is red: it does not come to an end.

Needs pytest, and a system that can fork.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import io
import itertools
import json
import os
import resource
import select
import signal
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

MARKER = "equation"
_COUNTING = frozenset({"value", "gradient", "oracle"})
# No cache, no other processes, and no fixed order of tests that a plugin may have. Output is caught
# in memory: a file would be shared by all forks. What is imported before pytest starts cannot be
# rewritten, which is no fault of the project's.
_OPTIONS = (
    "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:randomly", "--no-header",
    "--capture=sys", "--tb=native", "-W", "ignore::pytest.PytestAssertRewriteWarning",
)  # fmt: skip
# A mutant's test may take this much CPU time more than on right code, in seconds and times.
_SPARE_S, _SPARE = 2.0, 10.0
_BROKEN = frozenset({3, 4})  # pytest's exit codes for errors of its own and of its settings


Tell = Callable[[Mapping[str, Any]], None]
Mutants = Iterator[Sequence[Any]]


class _Endless(BaseException):
    """Raised in a test that takes too long; no Exception, which code or Hypothesis may catch."""


class Recorder:
    """A plugin of pytest: keeps tests with a mark, and says how each of them went."""

    def __init__(self, run: Mapping[str, Any]) -> None:
        self.tests: dict[str, dict[str, Any]] = {}
        self.missing: set[str] = set()  # ids that have seen no red test yet
        self.limits: Mapping[str, float] = {}
        self.session: Any = None
        self._run = run

    def begin(self, run: Mapping[str, Any]) -> None:
        """Keep the tests of a run, in its order: `nodes` are those that it is about, quick ones
        first, with the CPU seconds that each takes on right code."""
        self.missing, nodes = set(run.get("ids", ())), run.get("nodes")
        if nodes is None:
            return
        self.limits = nodes
        by_node = {item.nodeid: item for item in self.session.items}
        self.session.items[:] = [by_node[node] for node in nodes if node in by_node]
        self.tests = {node: self.tests[node] for node in nodes if node in self.tests}

    def pytest_configure(self, config: Any) -> None:
        config.addinivalue_line("markers", f"{MARKER}(id, kind): holds an equation of the notes")
        _settle()

    def pytest_collection_modifyitems(self, session: Any, config: Any, items: list[Any]) -> None:
        self.session, kept = session, []
        for item in items:
            marks = [
                [identity, mark.kwargs.get("kind", "")]
                for mark in item.iter_markers(MARKER)
                for identity in mark.args
            ]
            if marks:
                file = str(item.path)
                self.tests[item.nodeid] = {"marks": marks, "outcome": "", "file": file, "cpu_s": 0}
                kept.append(item)
        items[:] = kept
        session.items = items
        self.begin(self._run)

    def pytest_runtest_logstart(self, nodeid: str, location: Any) -> None:
        if nodeid in self.tests:
            self.tests[nodeid]["begun"] = time.process_time()

    def pytest_runtest_logfinish(self, nodeid: str, location: Any) -> None:
        found = self.tests.get(nodeid)
        if found is not None:
            found["cpu_s"] = time.process_time() - found.pop("begun")

    def pytest_runtest_call(self, item: Any) -> None:
        if item.nodeid in self.limits:
            signal.signal(signal.SIGVTALRM, _endless)
            allowed = _SPARE_S + _SPARE * self.limits[item.nodeid]
            signal.setitimer(signal.ITIMER_VIRTUAL, allowed)

    def pytest_runtest_teardown(self, item: Any) -> None:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)

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


def _endless(number: int, frame: Any) -> None:
    raise _Endless


# ---- runs behind a collection ----------------------------------------------------------------


class Stage:
    """A plugin of pytest: in the place of the loop over tests, forks that have one each."""

    def __init__(self, job: Mapping[str, Any], mutants: Mutants, tell: Tell) -> None:
        self._job, self._mutants, self._tell = job, mutants, tell
        self.recorder = Recorder({})
        self.begun = False
        self._before: set[str] = set()
        self.writing: int | None = None  # in a fork: where it tells what it found

    def pytest_runtestloop(self, session: Any) -> bool | None:
        if session.testsfailed:
            return None  # files that cannot be collected: pytest says so
        self.begun = True
        self._before = set(sys.modules)
        first = {"number": -1, "limit_s": self._job["limit_s"]}
        for runs in itertools.chain([[first]], self._mutants):
            for answer in self._all(runs):
                # What the tests import late (PyTorch does, for seconds), forks should find there.
                _import(answer.pop("late", ()))
                self._tell(answer)
            if self.writing is not None:
                return None  # in a fork: pytest goes on with its own loop
        return True

    def found(self) -> dict[str, Any]:
        """What a fork tells."""
        late = [name for name in sys.modules if name not in self._before]
        return {"tests": self.recorder.tests, "late": late}

    def _all(self, runs: Sequence[Any]) -> Iterator[dict[str, Any]]:
        gc.collect()
        gc.freeze()  # a collection would otherwise copy what forks share
        return _all(runs, self._job["workers"], self._fork)

    def _fork(self, run: Mapping[str, Any]) -> tuple[int, int] | None:
        reading, writing, pid = _forked(run["limit_s"])
        if pid:
            return reading, pid
        self.writing = writing
        if "text" in run and not exchange(run["path"], run["name"], run["text"]):
            _end(writing, {"unchanged": True})
        self.recorder.begin(run)
        return None


def _kept(job: Mapping[str, Any], mutants: Mutants, tell: Tell) -> None:
    stage = Stage(job, mutants, tell)
    heard = io.StringIO()
    try:
        code = _pytest(job["files"], heard, stage.recorder, stage)
    except BaseException as error:
        if stage.writing is None:
            raise
        _end(stage.writing, {"error": f"{type(error).__name__}: {error}"})
    if stage.writing is not None:
        broken = code in _BROKEN
        _end(stage.writing, {"error": _last_line(heard)} if broken else stage.found())
    if not stage.begun:
        tell({"number": -1, "tests": {}, "ended": "", "error": _last_line(heard)})


def _settle() -> None:
    """Hypothesis looks for no smaller example, keeps none, and tries the same ones each time."""
    hypothesis: Any = sys.modules.get("hypothesis")
    if hypothesis is None:
        return
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile(
        "cupel-trial", hypothesis.settings(), phases=phases, database=None, derandomize=True
    )
    hypothesis.settings.load_profile("cupel-trial")


def exchange(path: str, name: str, text: str) -> bool:
    """Give a function of an imported file its code in another text of that file.

    Every reference to it sees that, since the function stays the same object. False where there is
    no such function, or its code cannot be exchanged: decorators may have put another in its place.
    """
    files = [one for one in list(sys.modules.values()) if _is_of(one, path)]
    functions = [_function(one, name) for one in files]
    if not functions:
        return False
    for function in functions:
        if function is None:
            return False
        old = function.__code__
        whole = compile(text, old.co_filename, "exec", dont_inherit=True)
        new = [
            one for one in _codes(whole)
            if (one.co_qualname, one.co_firstlineno) == (name, old.co_firstlineno)
        ]  # fmt: skip
        if old.co_qualname != name or len(new) != 1 or old.co_freevars != new[0].co_freevars:
            return False
        function.__code__ = new[0]
    return True


def _is_of(module: Any, path: str) -> bool:
    file = getattr(module, "__file__", None)
    if not isinstance(file, str) or Path(file).name != Path(path).name:
        return False
    return os.path.realpath(file) == os.path.realpath(path)


def _function(module: Any, name: str) -> types.FunctionType | None:
    found = module
    for part in name.split("."):
        found = vars(found).get(part) if hasattr(found, "__dict__") else None
        found = found.__func__ if isinstance(found, staticmethod | classmethod) else found
    return found if isinstance(found, types.FunctionType) else None


def _codes(within: types.CodeType) -> Iterator[types.CodeType]:
    for one in within.co_consts:
        if isinstance(one, types.CodeType):
            yield one
            yield from _codes(one)


# ---- runs from the beginning -----------------------------------------------------------------


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


def _fresh(run: Mapping[str, Any]) -> tuple[int, int]:
    reading, writing, pid = _forked(run["limit_s"])
    if pid:
        return reading, pid
    try:
        told: dict[str, Any] = {"tests": _from_the_beginning(run)}
    except BaseException as error:
        told = {"error": f"{type(error).__name__}: {error}"}
    _end(writing, told)
    raise AssertionError("a fork has ended")


def _from_the_beginning(run: Mapping[str, Any]) -> dict[str, Any]:
    sys.meta_path.insert(0, _Exchanged(run["path"], run["text"]))
    recorder = Recorder(run)
    code = _pytest(run["files"], io.StringIO(), recorder)
    if code and not recorder.tests:
        # The file of tests does not even import with this: as red as can be.
        return {"*": {"marks": [], "outcome": "failed", "file": ""}}
    return recorder.tests


# ---- both ------------------------------------------------------------------------------------


def main() -> None:
    jobs = map(json.loads, sys.stdin)  # before pytest puts something else in its place
    job = next(jobs)
    mutants = (one["mutants"] for one in jobs)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    _import(job["preload"])
    import pytest  # noqa: F401

    def tell(answer: Mapping[str, Any]) -> None:
        out.write(json.dumps(answer) + "\n")
        out.flush()

    if job["kept"]:
        _kept(job, mutants, tell)
        return
    for runs in mutants:
        for answer in _all(runs, job["workers"], _fresh):
            tell(answer)


def _import(names: Iterable[str]) -> None:
    """What of these can be imported, each with all that it warns of unsaid."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names:
            with contextlib.suppress(Exception):
                importlib.import_module(name)


def _pytest(files: Iterable[str], heard: io.StringIO, *plugins: object) -> int:
    import pytest

    sys.dont_write_bytecode = True
    with contextlib.redirect_stdout(heard), contextlib.redirect_stderr(heard):
        return int(pytest.main([*_OPTIONS, *files], plugins=list(plugins)))


def _all(
    runs: Sequence[Any], workers: int, fork: Callable[[Any], tuple[int, int] | None]
) -> Iterator[dict[str, Any]]:
    """Answers of several runs at a time, in whatever order they end. Ends at once in a fork."""
    waiting = list(reversed(runs))
    going: dict[int, tuple[Any, int, float, bytes]] = {}  # by pipe: run, process, start, heard
    while waiting or going:
        while waiting and len(going) < workers:
            run = waiting.pop()
            forked = fork(run)
            if forked is None:
                return
            pipe, pid = forked
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
            late = time.monotonic() - begun > run["limit_s"]
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
        found |= json.loads(heard)
    except ValueError:
        found["ended"] = found["ended"] or f"died with status {status}"
    return found


def _forked(limit_s: float) -> tuple[int, int, int]:
    """Where a child is heard, where it tells, and its id; in the child the id is 0."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return reading, -1, pid
    os.close(reading)
    os.setpgid(0, 0)
    # One that never ends must end even if nobody is left to end it.
    resource.setrlimit(resource.RLIMIT_CPU, (int(limit_s) + 1, int(limit_s) + 1))
    return -1, writing, 0


def _end(writing: int, told: Mapping[str, Any]) -> None:
    """A fork's last act, whatever it was in."""
    try:
        text = json.dumps(told).encode()
        while text:
            text = text[os.write(writing, text) :]
    finally:
        os._exit(0)


def _last_line(heard: io.StringIO) -> str:
    lines = [line for line in heard.getvalue().splitlines() if line.strip()]
    return lines[-1][:200] if lines else "nothing was said"


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
