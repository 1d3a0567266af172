"""One process start within a run: it opens the record, writes into it, and closes it.

The exclusive mkdir of `sessions/000N` is the session's number and its fence. Once a session with
a higher number exists, this one writes only inside its own folder and moves no pointer. Logging
never stops training: what the disk refuses is counted, told once on stderr, and shown at the end.
A run that is moved on its disk while it runs is written to where it then lies.
Opening costs about 20 ms, while a thread asks git, the packages and the GPUs (`env.json` is there
at once, and whole in a second or so); a `log` of ten floats costs about 4 µs.
"""

from __future__ import annotations

import contextlib
import operator
import os
import shutil
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

from cupel.errors import RecordError, Superseded, UsageError, did_you_mean
from cupel.record import codec, environment, files, layout, processes
from cupel.record.console import Console
from cupel.record.folder import OpenFolder
from cupel.record.heartbeat import Heartbeat, write_heartbeat
from cupel.record.opening import (
    How,
    check_document,
    check_group,
    check_joining,
    lost_race,
    next_number,
    recording,
)
from cupel.record.system import System
from cupel.record.writer import Durability

Outcome = Literal["finished", "failed", "interrupted"]

SUMMARIES = ("last", "first", "min", "max", "mean", "best", "none")  # of `define_metric`
GOALS = ("min", "max")

_MOST_PROBLEMS = 100  # names; of metrics that are wrong there may be as many as steps
_LOOKING_S = 15.0  # git and the driver's tool have their own, shorter patience


class Session:
    """A running session; `Session.start` and `Session.resume` make one, `finish` ends it.

    `strict=True` makes `log` raise on values that cannot be recorded, for tests and debugging.
    `durability="sync"` makes what `log` returned from survive a power loss, too. `console=True`
    keeps what Python prints, and `system_every=10` measures the machine every ten seconds.
    After a fork only the parent writes: what a child logs counts as lost in the child.
    """

    def __init__(
        self, run_dir: Path, number: int, facts: Mapping[str, Any], how: How, *, rank: int = 0
    ) -> None:
        """Open `sessions/<number>`. Raises FileExistsError when another process has done so."""
        self.run_id, self.number, self.rank = run_dir.name, number, rank
        self.resumed = number > 1
        self.strict = how.strict
        self.problems: dict[str, int] = {}
        self.steps_went_back = 0
        self._how = how
        self._dir = layout.session_dir(run_dir, number)
        self._pid = os.getpid()
        self._lock = threading.RLock()  # never held while anything is written
        self._config_lock = threading.Lock()
        self._finished = self._closed = False
        self._step = -(2**63)
        self._facts = dict(facts)
        self._state: dict[str, Any] = {
            "number": number,
            "status": "running",
            "started": time.time(),
            "ended": None,
            "start_step": 0 if number == 1 else None,
            **processes.this_process().as_json(),
        }
        del self._state["machine"]  # for the heartbeat only, by which a process is looked for
        self._folder: OpenFolder | None = None
        if rank == 0:
            layout.refuse_link(self._dir.parent)
            self._dir.parent.mkdir(exist_ok=True)
            self._dir.mkdir()
        try:
            self._open()
        except OSError:
            self._abandon()
            raise
        self._begin()

    def _open(self) -> None:
        # The heartbeat's file comes first: a folder without one counts as alive for a minute.
        self._beat = self._dir / layout.heartbeat_name(self.rank)
        write_heartbeat(self._beat)
        self._folder = OpenFolder(self._dir, self.rank, self._how.durability, self.problem)
        if self.rank == 0:
            fields = {"schema": layout.SCHEMA, **self._state}
            files.write_json(self._dir / layout.SESSION, fields)
        self._metrics, self._events = self._folder.lines("metrics"), self._folder.lines("events")
        self._log = self._folder.file(layout.TRAINING_LOG) if self.rank == 0 else None

    def _abandon(self) -> None:
        """Leave nothing behind that would count as alive."""
        if self._folder is not None:
            self._folder.close()
        if self.rank == 0:
            shutil.rmtree(self._dir, ignore_errors=True)
        else:
            self._beat.unlink(missing_ok=True)

    def _begin(self) -> None:
        """Start what goes on beside training: the threads, and hearing what is printed."""
        self._looking = threading.Thread(
            target=self._look_around, name="cupel-environment", daemon=True
        )
        if self.rank == 0:
            self._here.publish(layout.ENVIRONMENT, self._facts)
            self._looking.start()
        self._console: Console | None = None
        self._system: System | None = None
        self._heartbeat = Heartbeat(
            self._beat,
            sync=self._sync,
            on_problem=partial(self.problem, "heartbeat"),
            folder=self._here.fd,
        )
        try:
            if self._how.system_every:
                self._system = self._measuring()
            if self._how.console:
                printed = self._here.file(layout.console_name(self.rank))
                self._console = Console(
                    partial(self._here.append, printed), on_problem=partial(self.problem, "console")
                )
        except Exception as error:  # both are extras: a run goes on without them
            self.problem("opening", error)

    def _measuring(self) -> System:
        measured = self._here.lines("system")

        def take(sample: Mapping[str, float]) -> None:
            line = codec.encode_line({"_t": time.time(), **sample})
            self._here.append(measured, line)

        return System(
            self._how.system_every,
            place=lambda: self.dir,
            take=take,
            on_problem=partial(self.problem, "system"),
        )

    @property
    def _here(self) -> OpenFolder:
        assert self._folder is not None
        return self._folder

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
        group: str | None = None,
        details: Mapping[str, Any] | None = None,
        run_id: str | None = None,
        strict: bool = False,
        durability: Durability = "process",
        console: bool = False,
        system_every: float = 0.0,
    ) -> Self:
        """Begin a new run; `identity` is the hash of what its configuration means.

        `details` are further facts for run.json (the workload, hashes of the data), and `group`
        names what runs belong together. A project's folder may be a link; the run's may not.
        Raises UsageError for impossible names and for what JSON cannot hold, before anything is
        written; RecordError when the root cannot be written to or the run exists already.
        """
        how = How(strict, durability, console, system_every)
        check_group(group)
        root = layout.record_root(root)
        layout.check_name("project", project)
        facts = environment.at_once()
        commit = (facts["git"] or {}).get("commit")
        run_id = layout.check_name("run", run_id or layout.new_run_id(name, commit))
        run_dir = root / project / run_id
        shared = {"schema": layout.SCHEMA, "identity": identity}
        run = {
            **(details or {}),
            **shared,
            "run_id": run_id,
            "project": project,
            "name": name,
            "tags": list(tags),
            "notes": notes,
            **({} if group is None else {"group": group}),
            "created": time.time(),
            "status": "running",
            "session": 1,
        }
        described = {**shared, "config": config, "origins": origins or {}}
        check_document(layout.CONFIG, described)
        check_document(layout.RUN, run)
        with recording(root):
            layout.refuse_link(run_dir)
            run_dir.mkdir(parents=True, exist_ok=True)
            # Never replaced: whoever else starts the same run writes the same, or comes too late.
            files.create_json_exclusively(run_dir / layout.CONFIG, described)
            files.create_json_exclusively(run_dir / layout.RUN, run)
            try:
                return cls(run_dir, 1, facts, how)
            except FileExistsError as error:
                raise RecordError(
                    f"the run {run_id} exists already in {run_dir.parent}; resume it, or start "
                    "one with another id"
                ) from error

    @classmethod
    def resume(
        cls,
        run_dir: Path,
        *,
        strict: bool = False,
        durability: Durability = "process",
        console: bool = False,
        system_every: float = 0.0,
    ) -> Self:
        """Open the next session of an existing run.

        Raises ResumeError when the run is finished, when its last session is alive, or when
        another process opens the next session first; RecordError when there is no such run.
        """
        how = How(strict, durability, console, system_every)
        number = next_number(run_dir)
        with recording(run_dir):
            files.sweep(run_dir)
            try:
                session = cls(run_dir, number, environment.at_once(), how)
            except FileExistsError as error:
                raise lost_race(run_dir, number) from error
            session._update_run("running")
        return session

    @classmethod
    def join(
        cls,
        run_dir: Path,
        number: int,
        rank: int,
        *,
        strict: bool = False,
        durability: Durability = "process",
        console: bool = False,
        system_every: float = 0.0,
    ) -> Self:
        """A further rank of a living session, in a process of its own.

        It writes its own files only (`metrics.r1.000.jsonl`, …) and moves no pointer: what the
        session is, and how the run ends, rank 0 says. Raises RecordError when there is no such
        session, when it does not run, and when another process writes this rank already.
        """
        how = How(strict, durability, console, system_every)
        check_joining(run_dir, number, rank)
        with recording(run_dir):
            return cls(run_dir, number, {}, how, rank=rank)

    @property
    def dir(self) -> Path:
        """The session's folder: where it lies now, should it have been moved."""
        return self._here.path

    @property
    def run_dir(self) -> Path:
        """The run's folder, as `dir`."""
        return self.dir.parent.parent

    @property
    def lost(self) -> int:
        """How many lines (of every file of lines) did not reach the file."""
        return self._here.lost

    def log(self, metrics: Mapping[str, Any], *, step: int, t: float | None = None) -> None:
        """Record numbers of one step; when this has returned, `kill -9` does not lose them.

        `t` overrules the time, for what was measured before. A value that is no number is dropped,
        counted and told once (`strict`: TypeError); see `codec.encode_line` for what is one. The
        names `_step` and `_t` are the record's own. Steps may come again and go back; going back
        is told once.
        """
        step = operator.index(step)
        if step < self._step:
            self._go_back(step)
        self._step = step
        now = time.time() if t is None else float(t)
        try:
            line = codec.encode_step(step, now, metrics)
        except Exception:  # of whatever a value does that is asked for its number
            if self.strict:
                raise
            line = codec.encode_step(step, now, self._recordable(metrics))
        if not self._metrics.append(line):
            self._here.tell_lost(self._metrics)

    def event(self, name: str, /, **fields: Any) -> None:
        """Record that something happened, with any fields that JSON can hold."""
        try:
            line = codec.encode_event({"_event": name, "_t": time.time(), **fields})
        except (TypeError, ValueError, RecursionError) as error:
            if self.strict:
                raise
            self.problem(f"event {name}", error)
            return
        self._here.append(self._events, line)

    def set_summary(self, values: Mapping[str, Any]) -> None:
        """Say what the run came to: over what the metrics give, and over what was set before.

        What JSON cannot hold is dropped and told, as `log` does.
        """
        good: dict[str, Any] = {}
        for key, value in values.items():
            try:
                good[str(key)] = codec.document(value)
            except Exception as error:
                if self.strict:
                    raise
                self.problem(f"summary {codec.shortened(key)}", error)
        if good:
            self.event("summary", set=good)

    def set_config(self, values: Mapping[str, Any]) -> None:
        """Add settings that were not known at the start; the run's identity stays what it was.

        Raises UsageError for what JSON cannot hold, and Superseded when a newer session exists.
        """
        check_document(layout.CONFIG, values)
        self._check_newest(layout.CONFIG)
        self.event("config", set=values)
        if self.rank or self._finished or os.getpid() != self._pid:
            return  # rank 0 says what the run's settings are
        try:
            with self._config_lock:
                path = self.run_dir / layout.CONFIG
                described = files.read_json(path)
                described["config"] = {**(described.get("config") or {}), **values}
                files.write_json(path, described)
        except (OSError, RecordError) as error:
            self.problem(f"writing {layout.CONFIG}", error)

    def define_metric(
        self,
        name: str,
        *,
        step_metric: str | None = None,
        summary: str | None = None,
        goal: str | None = None,
    ) -> None:
        """Say how a metric (or all that begin so: `val/*`) is drawn and what it comes to.

        `step_metric` is drawn along; `summary` is one of `SUMMARIES`; `goal`, `min` or `max`, says
        which is the best. Raises UsageError for others.
        """
        shown = codec.shortened(name)
        for argument, given, known in (("summary", summary, SUMMARIES), ("goal", goal, GOALS)):
            if given is not None and given not in known:
                meant = did_you_mean(str(given), known)
                raise UsageError(
                    f"{argument} of {shown} is {given!r}{meant}; it must be one of "
                    f"{', '.join(known)}"
                )
        if summary == "best" and goal is None:
            raise UsageError(f'summary="best" of {shown} needs goal="min" or goal="max"')
        self.event("define_metric", name=name, step_metric=step_metric, summary=summary, goal=goal)

    def note(self, line: str) -> None:
        """Add a line for people, with the time (UTC); of a further rank it becomes an event."""
        if self._log is None:
            self.event("note", text=line)
            return
        now = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
        text = line.rstrip("\n").replace("\n", "\n    ")
        line = f"{now} {text}\n"
        self._here.append(self._log, line.encode(errors="backslashreplace"))

    def problem(self, name: str, error: Exception | SystemExit) -> None:
        """Count a failure that must not stop training; the first of each name is told."""
        # In a child made by fork the lock may be held for ever, by a thread that is not there.
        with self._lock if os.getpid() == self._pid else contextlib.nullcontext():
            if name not in self.problems and len(self.problems) >= _MOST_PROBLEMS:
                name = "further problems"
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
        if self.rank == 0:
            self._state["start_step"] = step
            self._here.publish(layout.SESSION, self._state)
        self.event("begin", step=step)

    def describe(self, **facts: Any) -> None:
        """Add facts to env.json: hashes of data, torch's version, threads; of a further rank, an
        event.
        """
        if self.rank:
            self.event("described", **facts)
            return
        self._facts.update(facts)
        self._here.publish(layout.ENVIRONMENT, self._facts)

    def changes(self) -> list[str]:
        """What may make this session's bits differ from those of the one before; none if first.

        Waits for what is still being found out about this one.
        """
        if self.number == 1 or self.rank:
            return []
        self._looking.join(_LOOKING_S)
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
        assert self.rank == 0, f"rank {self.rank} may not write {name}"
        assert Path(name).name == name, f"{name} is no name of a file"
        self._check_newest(name)
        run_dir = self.run_dir
        with recording(run_dir):
            files.write_json(run_dir / name, {"schema": layout.SCHEMA, **fields})

    def finish(
        self,
        status: Outcome,
        *,
        results: Mapping[str, Any] | None = None,
        error: str | None = None,
    ) -> None:
        """End the session; a second call does nothing, nor does a forked child's.

        `finished` has its results accepted for the run, once, unless a newer session exists. A
        further rank ends its own files only.
        Raises RecordError when the results cannot be written: they are not lost silently.
        """
        if self._finished or os.getpid() != self._pid:
            return
        self._finished = True
        outcome: str = status
        try:
            if status == "finished" and self.rank == 0:
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
        run_dir = self.run_dir
        marks = {"schema": layout.SCHEMA, "run": self.run_id, "accepted_session": self.number}
        with recording(run_dir):
            accepted = files.create_json_exclusively(
                run_dir / layout.RESULTS, {**marks, **results, **marks}
            )
        if not accepted:
            self.note("the results of another session were accepted before")

    def _close(self, status: str, error: str | None) -> None:
        if self._system is not None:
            self._system.stop()
        if self.rank == 0:
            self._looking.join(_LOOKING_S)
            if self._looking.is_alive():
                told = f"git, or a GPU's driver, did not answer; {layout.ENVIRONMENT} is not whole"
                self.problem("environment", TimeoutError(told))
        counts = {"lost": self.lost, "problems": dict(self.problems)} if self.rank else {}
        self.event("finish", status=status, error=error, **counts)
        self._heartbeat.stop()
        if self._console is not None:
            self._console.stop()
        self._sync()
        if self.rank == 0:
            self._state.update(
                status=status,
                ended=time.time(),
                error=error,
                superseded=self.superseded(),
                lost=self.lost,
                problems=dict(self.problems),
                **({"steps_went_back": self.steps_went_back} if self.steps_went_back else {}),
            )
            self._here.publish(layout.SESSION, self._state)
            self._update_run(status)
        self._closed = True
        self._here.close()

    def _update_run(self, status: str) -> None:
        if self.superseded():
            return
        try:
            path = self.run_dir / layout.RUN
            run = files.read_json(path)  # tags may have been edited meanwhile
            files.write_json(path, {**run, "status": status, "session": self.number})
        except (OSError, RecordError) as error:
            self.problem(f"writing {layout.RUN}", error)

    def _go_back(self, step: int) -> None:
        with self._lock:
            self.steps_went_back += 1
            first = self.steps_went_back == 1
        if first:
            self.event("steps_went_back", step=step, before=self._step)

    def _recordable(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """The metrics that can be recorded; each of the others is a problem of its own name."""
        good: dict[str, Any] = {}
        try:
            items = list(metrics.items())
        except Exception as error:
            self.problem("log", error)
            return good
        for key, value in items:
            try:
                codec.encode_step(0, 0.0, {key: value})
                good[key] = value
            except Exception as error:
                self.problem(f"metric {codec.shortened(key)}", error)
        return good

    def _look_around(self) -> None:
        """Find out what takes time, and write it down; in a thread."""
        try:
            self._here.sync_parents()
            facts = environment.in_time()
            if (facts["git"] or {}).get("dirty"):
                facts.update(environment.keep_patch(self.dir / layout.DIRTY_PATCH))
            self.describe(**facts)
        except Exception as error:
            self.problem("environment", error)

    def _sync(self) -> None:
        """Make the lines survive a power loss, and write what was printed and has not ended."""
        if self._console is not None:
            self._console.tick()
        self._here.sync()

    def _check_newest(self, name: str) -> None:
        if self.superseded():
            raise Superseded(
                f"session {self.number:04d} of run {self.run_id} has a successor; "
                f"it may not write {name} any more"
            )
