"""One process start within a run: it opens the record, writes into it, and closes it.

The exclusive mkdir of `sessions/000N` is the session's number and its fence. Once a session with
a higher number exists, this one writes only inside its own folder and moves no pointer. Logging
never stops training: what the disk refuses is counted, told once on stderr, and shown at the end.
Opening costs about 0.1 s (git, package list); a `log` of ten floats about 5 µs.
"""

from __future__ import annotations

import contextlib
import operator
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from cupel.errors import RecordError, ResumeError, Superseded, UsageError
from cupel.record import codec, environment, files, layout, processes
from cupel.record.heartbeat import Heartbeat, write_heartbeat
from cupel.record.reader import SessionInfo
from cupel.record.writer import LineWriter

Outcome = Literal["finished", "failed", "interrupted"]

_START_A_NEW_ONE = 'start a new run with --resume never (in a script: resume="never")'


class Session:
    """A running session; `Session.start` and `Session.resume` make one, `finish` ends it.

    `strict=True` makes `log` raise on values that cannot be recorded, for tests and debugging.
    After a fork only the parent writes: what a child logs counts as lost in the child.
    """

    def __init__(self, run_dir: Path, number: int, facts: Mapping[str, Any], strict: bool) -> None:
        """Open `sessions/<number>`. Raises FileExistsError when another process has done so."""
        self.run_dir, self.run_id, self.number = run_dir, run_dir.name, number
        self.dir = layout.session_dir(run_dir, number)
        self.resumed = number > 1
        self.strict = strict
        self.problems: dict[str, int] = {}
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._finished = self._closed = False
        self._facts = dict(facts)
        self._state: dict[str, Any] = {
            "schema": layout.SCHEMA,
            "number": number,
            "status": "running",
            "started": time.time(),
            "ended": None,
            "start_step": 0 if number == 1 else None,
            **processes.this_process().as_json(),
        }
        self.dir.parent.mkdir(exist_ok=True)
        self.dir.mkdir()
        try:
            self._open()
        except OSError:
            shutil.rmtree(self.dir, ignore_errors=True)  # or it would count as alive
            raise
        self.describe()

    def _open(self) -> None:
        # The heartbeat's file comes first: a folder without one counts as alive for a minute.
        path = self.dir / layout.heartbeat_name()
        write_heartbeat(path)
        files.write_json(self.dir / layout.SESSION, self._state)
        self._metrics = LineWriter(self.dir / layout.metrics_name())
        self._events = LineWriter(self.dir / layout.events_name())
        self._log = LineWriter(self.dir / layout.TRAINING_LOG)
        self._writers = (self._metrics, self._events, self._log)
        self._store_patch()
        self._heartbeat = Heartbeat(
            path, sync=self._sync, on_problem=lambda error: self.problem("heartbeat", error)
        )

    @classmethod
    def start(
        cls,
        *,
        root: str | Path | None = None,
        project: str,
        name: str,
        config: Mapping[str, Any],
        identity: str,
        origins: Mapping[str, str] | None = None,
        tags: Sequence[str] = (),
        notes: str = "",
        details: Mapping[str, Any] | None = None,
        run_id: str | None = None,
        strict: bool = False,
    ) -> Session:
        """Begin a new run; `identity` is the hash of what its configuration means.

        `details` are further facts for run.json (the workload, hashes of the data).
        Raises UsageError for impossible names and for what JSON cannot hold, before anything is
        written; RecordError when the root cannot be written to or the run exists already.
        """
        root = layout.record_root(root)
        facts = environment.collect()
        commit = (facts["git"] or {}).get("commit")
        run_id = layout.check_name("run", run_id or layout.new_run_id(name, commit))
        run_dir = root / layout.check_name("project", project) / run_id
        shared = {"schema": layout.SCHEMA, "identity": identity}
        run = {
            **(details or {}),
            **shared,
            "run_id": run_id,
            "project": project,
            "name": name,
            "tags": list(tags),
            "notes": notes,
            "created": time.time(),
            "status": "running",
            "session": 1,
        }
        described = {**shared, "config": config, "origins": origins or {}}
        _check_document(layout.CONFIG, described)
        _check_document(layout.RUN, run)
        with _recording(root):
            run_dir.mkdir(parents=True, exist_ok=True)
            # Never replaced: whoever else starts the same run writes the same, or comes too late.
            files.create_json_exclusively(run_dir / layout.CONFIG, described)
            files.create_json_exclusively(run_dir / layout.RUN, run)
            try:
                return cls(run_dir, 1, facts, strict)
            except FileExistsError as error:
                raise RecordError(
                    f"the run {run_id} exists already in {run_dir.parent}; resume it, or start "
                    "one with another id"
                ) from error

    @classmethod
    def resume(cls, run_dir: Path, *, strict: bool = False) -> Session:
        """Open the next session of an existing run.

        Raises ResumeError when the run is finished, when its last session is alive, or when
        another process opens the next session first; RecordError when there is no such run.
        """
        files.read_json(run_dir / layout.RUN)
        if (run_dir / layout.RESULTS).exists():
            raise ResumeError(
                f"run {run_dir.name} is finished and its results are accepted; {_START_A_NEW_ONE}"
            )
        numbers = layout.session_numbers(run_dir)
        if numbers:
            _refuse_the_living(SessionInfo.read(run_dir, numbers[-1]))
        number = numbers[-1] + 1 if numbers else 1
        with _recording(run_dir):
            files.sweep(run_dir)
            try:
                session = cls(run_dir, number, environment.collect(), strict)
            except FileExistsError as error:
                raise ResumeError(
                    f"another process is resuming run {run_dir.name}: it has opened session "
                    f"{number:04d}; let it work, or {_START_A_NEW_ONE}"
                ) from error
            session._update_run("running")
        return session

    @property
    def lost(self) -> int:
        """How many lines (of metrics, events and notes) did not reach the file."""
        return sum(writer.lost for writer in self._writers)

    def log(self, metrics: Mapping[str, Any], *, step: int) -> None:
        """Record numbers of one step; when this has returned, `kill -9` does not lose them.

        A value that is no number is dropped, counted and told once (`strict`: TypeError); see
        `codec.encode_line` for what is one. The names `_step` and `_t` are the record's own.
        """
        fields = {"_step": operator.index(step), "_t": time.time()}
        try:
            line = codec.encode_line(_joined(fields, metrics))
        except (TypeError, ValueError):  # Python's own, for integers of more than 4,300 digits
            if self.strict:
                raise
            line = codec.encode_line({**fields, **self._recordable(metrics)})
        self._append(self._metrics, line)

    def event(self, name: str, /, **fields: Any) -> None:
        """Record that something happened, with any fields that JSON can hold."""
        try:
            line = codec.encode_event({"_event": name, "_t": time.time(), **fields})
        except TypeError as error:
            if self.strict:
                raise
            self.problem(f"event {name}", error)
            return
        self._append(self._events, line)

    def note(self, line: str) -> None:
        """Add a line for people to training.log, with the time (UTC)."""
        now = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
        text = line.rstrip("\n").replace("\n", "\n    ")
        self._append(self._log, f"{now} {text}\n".encode(errors="backslashreplace"))

    def problem(self, name: str, error: Exception | SystemExit) -> None:
        """Count a failure that must not stop training; the first of each name is told."""
        with self._lock:
            self.problems[name] = self.problems.get(name, 0) + 1
            if self.problems[name] > 1:
                return
        told = f"{name}: {type(error).__name__}: {error} (told once; training goes on)"
        with contextlib.suppress(OSError, ValueError, AttributeError):  # a closed or absent stderr
            sys.stderr.write(f"cupel: {told}\n")
        if self._closed:
            return  # the record takes nothing more; trying would be three further problems
        self.note(f"problem: {told}")
        self.event("problem", name=name, error=f"{type(error).__name__}: {error}")

    def begin_at(self, step: int) -> None:
        """Say from which step this session goes on: later steps of older sessions are void."""
        self._state["start_step"] = step
        self._write_quietly(layout.SESSION, self._state)
        self.event("begin", step=step)

    def describe(self, **facts: Any) -> None:
        """Add facts to env.json: hashes of data, torch's version, threads."""
        self._facts.update(facts)
        self._write_quietly(layout.ENVIRONMENT, {"schema": layout.SCHEMA, **self._facts})

    def changes(self) -> list[str]:
        """What may make this session's bits differ from those of the one before; none if first."""
        if self.number == 1:
            return []
        before = layout.session_dir(self.run_dir, self.number - 1) / layout.ENVIRONMENT
        try:
            return environment.changes(files.read_json(before), self._facts)
        except RecordError:
            return [f"session {self.number - 1:04d} left no readable {layout.ENVIRONMENT}"]

    def superseded(self) -> bool:
        """Whether a newer session of this run exists."""
        return layout.session_dir(self.run_dir, self.number + 1).exists()

    def write_run_json(self, name: str, fields: Mapping[str, Any]) -> None:
        """Write a JSON file of the whole run (`model.json`). Raises Superseded or RecordError."""
        if self.superseded():
            raise Superseded(
                f"session {self.number:04d} of run {self.run_id} has a successor; "
                f"it may not write {name} any more"
            )
        with _recording(self.run_dir):
            files.write_json(self.run_dir / name, {"schema": layout.SCHEMA, **fields})

    def finish(
        self,
        status: Outcome,
        *,
        results: Mapping[str, Any] | None = None,
        error: str | None = None,
    ) -> None:
        """End the session; a second call does nothing, nor does a forked child's.

        `finished` has its results accepted for the run, once, unless a newer session exists.
        Raises RecordError when the results cannot be written: they are not lost silently.
        """
        if self._finished or os.getpid() != self._pid:
            return
        self._finished = True
        outcome: str = status
        try:
            if status == "finished":
                self._accept(results or {})
        except Exception as failure:
            outcome, error = "failed", f"results: {failure}"
            raise
        finally:
            self._close(outcome, error)

    def _accept(self, results: Mapping[str, Any]) -> None:
        if self.superseded():
            self.note("a newer session of this run exists; these results are not accepted")
            return
        marks = {"schema": layout.SCHEMA, "run": self.run_id, "accepted_session": self.number}
        with _recording(self.run_dir):
            accepted = files.create_json_exclusively(
                self.run_dir / layout.RESULTS, {**marks, **results, **marks}
            )
        if not accepted:
            self.note("the results of another session were accepted before")

    def _close(self, status: str, error: str | None) -> None:
        self.event("finish", status=status, error=error)
        self._heartbeat.stop()
        try:
            self._sync()
        except OSError as failure:
            self.problem("sync", failure)
        self._state.update(
            status=status,
            ended=time.time(),
            error=error,
            superseded=self.superseded(),
            lost=self.lost,
            problems=self.problems,
        )
        self._write_quietly(layout.SESSION, self._state)
        self._update_run(status)
        self._closed = True
        for writer in self._writers:
            writer.close()

    def _update_run(self, status: str) -> None:
        if self.superseded():
            return
        try:
            run = files.read_json(self.run_dir / layout.RUN)  # tags may have been edited meanwhile
            files.write_json(
                self.run_dir / layout.RUN, {**run, "status": status, "session": self.number}
            )
        except (OSError, RecordError) as error:
            self.problem(f"writing {layout.RUN}", error)

    def _append(self, writer: LineWriter, line: bytes) -> None:
        if not writer.append(line):
            assert writer.first_error is not None
            self.problem(f"writing {writer.path.name}", writer.first_error)

    def _recordable(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """The metrics that can be recorded; each of the others is a problem of its own name."""
        good: dict[str, Any] = {}
        for key, value in metrics.items():
            try:
                codec.encode_line(_joined({"_step": 0, "_t": 0.0}, {key: value}))
                good[key] = value
            except (TypeError, ValueError) as error:
                self.problem(f"metric {key}", error)
        return good

    def _store_patch(self) -> None:
        if not (self._facts.get("git") or {}).get("dirty"):
            return
        patch = environment.dirty_patch()
        self._facts["dirty_patch_sha256"] = sha256(patch).hexdigest() if patch else None
        if patch:
            (self.dir / layout.DIRTY_PATCH).write_bytes(patch)

    def _sync(self) -> None:
        for writer in self._writers:
            writer.sync()

    def _write_quietly(self, name: str, fields: Mapping[str, Any]) -> None:
        if os.getpid() != self._pid:
            return
        try:
            files.write_json(self.dir / name, fields)
        except (OSError, TypeError) as error:
            self.problem(f"writing {name}", error)


def _joined(fields: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, Any]:
    joined = {**fields, **metrics}
    if len(joined) != len(fields) + len(metrics):
        raise TypeError("the metric names '_step' and '_t' are the record's own; choose others")
    return joined


def _check_document(name: str, fields: Mapping[str, Any]) -> None:
    try:
        codec.encode_document(fields)
    except (TypeError, RecursionError) as error:
        found = " ".join(str(error).split())
        raise UsageError(
            f"{name} cannot be written: {found}; give texts, numbers below 2**64, lists and dicts"
        ) from error


def _refuse_the_living(last: SessionInfo) -> None:
    if last.status == "running":
        raise ResumeError(
            f"run {last.run_dir.name} is running: pid {last.pid} on {last.host}, session "
            f"{last.number:04d}; stop it first, or {_START_A_NEW_ONE}"
        )


@contextlib.contextmanager
def _recording(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RecordError(
            f"cannot write the record to {place}: {error.strerror or error}; "
            "choose another place with --root or CUPEL_ROOT"
        ) from error
