"""What a session says in lines: numbers, events, and a text for people.

Each is one write, straight into the file (`cupel.record.writer`). What the disk refuses, or what
cannot be recorded, is counted and told once, and never stops training. `log` of ten floats costs
about 4 µs.
"""

from __future__ import annotations

import contextlib
import operator
import os
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cupel.errors import UsageError, did_you_mean
from cupel.record import codec, layout
from cupel.record.folder import OpenFolder
from cupel.record.opening import How

SUMMARIES = ("last", "first", "min", "max", "mean", "best", "none")  # of `define_metric`
GOALS = ("min", "max")

MOST_LAST = 1000  # metrics whose last numbers are told at the end; of more the lines tell
_first = operator.itemgetter(0)

_MOST_PROBLEMS = 100  # names; of metrics that are wrong there may be as many as steps


class Saying:
    """The lines of a session; `Describing` adds its documents, `Session` its beginning and end."""

    def __init__(self, folder: Path, rank: int, how: How) -> None:
        """Open the files of lines of one rank. Raises OSError, with nothing left open then."""
        self.rank, self.strict = rank, how.strict
        self.problems: dict[str, int] = {}
        self.steps_went_back = 0
        self._pid = os.getpid()
        self._lock = threading.RLock()  # never held while anything is written
        self._closed = False
        self._step = -(2**63)
        self._folder = OpenFolder(folder, rank, how.durability, self.problem)
        try:
            self._metrics = self._folder.lines("metrics")
            self._events = self._folder.lines("events")
            self._log = self._folder.file(layout.TRAINING_LOG) if rank == 0 else None
        except OSError:
            self._folder.close()
            raise

    @property
    def dir(self) -> Path:
        """The session's folder: where it lies now, should it have been moved."""
        return self._folder.path

    @property
    def run_dir(self) -> Path:
        """The run's folder, as `dir`."""
        return self.dir.parent.parent

    @property
    def in_child(self) -> bool:
        """Whether this is a child made by fork of the process whose session it is."""
        return os.getpid() != self._pid

    @property
    def lost(self) -> int:
        """How many lines (of every file of lines) did not reach the file."""
        return self._folder.lost

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
            plain = dict(metrics)  # as it is now: another thread may change it
            line = codec.encode_step(step, now, plain)
        except Exception:  # of whatever a value does that is asked for its number
            if self.strict:
                raise
            plain = self._recordable(metrics)
            line = codec.encode_step(step, now, plain)
        if not self._metrics.append(line, tuple(plain), step):
            self._folder.tell_lost(self._metrics)

    def last(self) -> dict[str, Any] | None:
        """The last step, the last number of each metric, and the step of those that came before, as
        they stand in the files; None where the files alone tell (steps went back, a last value is
        no number, metrics are many)."""
        ends = self._metrics.ends()
        if not ends or self.steps_went_back:
            return None
        lines = [(number, codec.decode_line(line)) for number, line in ends]
        found: dict[str, Any] = {}
        steps: dict[str, int] = {}
        for _, fields in lines:  # in order, so the later one wins
            found |= fields
            steps |= dict.fromkeys(fields, fields["_step"])
        order = dict.fromkeys(key for _, fields in sorted(lines, key=_first) for key in fields)
        step, keys = found["_step"], [*order][2:]  # after `_step` and `_t`
        numbers = all(isinstance(found[key], int | float) for key in keys)
        if not numbers or len(keys) > MOST_LAST:
            return None
        return {
            "step": step,
            "values": {key: found[key] for key in keys},
            "steps": {key: steps[key] for key in keys if steps[key] != step},
        }

    def event(self, name: str, /, **fields: Any) -> None:
        """Record that something happened, with any fields that JSON can hold."""
        try:
            line = codec.encode_event({"_event": name, "_t": time.time(), **fields})
        except Exception as error:  # of whatever a value does that is asked what it is
            if self.strict:
                raise
            self.problem(f"event {codec.shortened(name)}", error)
            return
        self._folder.append(self._events, line)

    def set_summary(self, values: Mapping[str, Any]) -> None:
        """Say what the run came to: over what the metrics give, and over what was set before.

        What JSON cannot hold is dropped and told, as `log` does.
        """
        if good := self._writable("summary", values):
            self.event("summary", set=good)

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
        self._folder.append(self._log, line.encode(errors="backslashreplace"))

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

    def _go_back(self, step: int) -> None:
        with self._lock:
            self.steps_went_back += 1
            first = self.steps_went_back == 1
        if first:
            self.event("steps_went_back", step=step, before=self._step)

    def _writable(self, what: str, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values that JSON can hold; each of the others is a problem of its own name."""
        good: dict[str, Any] = {}
        for key, value in values.items():
            try:
                good[str(key)] = codec.document(value)
            except Exception as error:  # as in `event`
                if self.strict:
                    raise
                self.problem(f"{what} {codec.shortened(key)}", error)
        return good

    def _recordable(self, metrics: Mapping[str, Any]) -> dict[str, Any]:
        """The metrics that can be recorded; each of the others is a problem of its own name."""
        good: dict[str, Any] = {}
        try:
            items = list(metrics.items())
        except Exception as error:  # of a mapping that cannot be read
            self.problem("log", error)
            return good
        for key, value in items:
            try:
                codec.encode_step(0, 0.0, {key: value})
                good[key] = value
            except Exception as error:  # as in `log`
                self.problem(f"metric {codec.shortened(key)}", error)
        return good
