"""What describes a run besides its numbers: name, tags, config, summary, axes, alerts.

A part of `Run`. Everything set here is a line of the record or a field of run.json when the call
returns; what the disk refuses is counted and told once, and stops nothing.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from cupel.api.config import Config, plain
from cupel.api.summary import Summary
from cupel.api.told import tell_ignored
from cupel.errors import CupelError, UsageError
from cupel.record import files, layout
from cupel.record.session import GOALS, SUMMARIES, Session

_WANDBS_WORDS = {"copy": "last", "minimize": "min", "maximize": "max"}


class AlertLevel(StrEnum):
    """How urgent an alert is."""

    INFO = "INFO"
    WARN = "WARN"
    ERROR = "ERROR"


@dataclass(frozen=True, slots=True)
class Metric:
    """What `define_metric` was told."""

    name: str
    step_metric: str | None = None
    summary: str | None = None
    goal: str | None = None


class Facts:
    """The describing half of a run; `Run` adds the writing half."""

    def __init__(
        self,
        session: Session,
        *,
        project: str,
        name: str,
        config: Mapping[str, Any],
        tags: Sequence[str] = (),
        notes: str = "",
        group: str | None = None,
    ) -> None:
        self.project, self.group = project, group
        self._session = session
        self._about: dict[str, Any] = {"name": name, "tags": list(tags), "notes": notes}
        self._config = Config(config, self._record_config)
        self._summary = Summary(self._record_summary, self._recorded_summary)
        self._axes: dict[str, str] = {}  # a metric (or the beginning of several, *) -> its axis
        self._axis_values: dict[str, Any] = {}
        self._alerted: dict[str, float] = {}

    @property
    def id(self) -> str:
        """The run's id, as `cupel runs` lists it."""
        return self._session.run_id

    @property
    def dir(self) -> Path:
        """The run's folder."""
        return self._session.run_dir

    @property
    def resumed(self) -> bool:
        """Whether this session goes on with a run that was there before."""
        return bool(self._session.resumed)

    @property
    def url(self) -> str:
        """The run's folder as an address; there is no server."""
        return self.dir.absolute().as_uri()

    @property
    def name(self) -> str:
        """What people call the run; to set it renames it in run.json."""
        return str(self._about["name"])

    @name.setter
    def name(self, name: str) -> None:
        self._describe(name=str(name))

    @property
    def tags(self) -> tuple[str, ...]:
        """Words to find the run by; `run.tags += ("night",)` adds one."""
        return tuple(self._about["tags"])

    @tags.setter
    def tags(self, tags: Sequence[str]) -> None:
        if isinstance(tags, str):
            raise UsageError(f"tags must be a list of texts; type tags=[{tags!r}]")
        self._describe(tags=[str(tag) for tag in tags])

    @property
    def notes(self) -> str:
        """A text about the run."""
        return str(self._about["notes"])

    @notes.setter
    def notes(self, notes: str) -> None:
        self._describe(notes=str(notes))

    @property
    def config(self) -> Config:
        """The settings: `run.config.lr`. What is changed is recorded; see `Config`."""
        return self._config

    @config.setter
    def config(self, given: Any) -> None:
        self._config.update(plain(given))

    @property
    def summary(self) -> Summary:
        """What the run came to: the last numbers, and what is set; see `Summary`."""
        return self._summary

    def define_metric(
        self,
        name: str,
        step_metric: str | Metric | None = None,
        step_sync: bool | None = None,
        hidden: bool | None = None,
        summary: str | None = None,
        goal: str | None = None,
        overwrite: bool | None = None,
    ) -> Metric:
        """Say how a metric is meant; `name` may end in `*` for all that begin so.

        `step_metric` is the metric to draw it over. A line that holds the one without the other
        gets the other's last value, unless `step_sync=False`. `summary` is min, max, mean, last,
        first, best or none; best goes by `goal`, min or max. Raises UsageError for other words.
        """
        tell_ignored(
            "define_metric",
            {"hidden": hidden, "overwrite": overwrite},
            "what is said last of a metric counts",
        )
        axis = step_metric.name if isinstance(step_metric, Metric) else step_metric
        said = Metric(
            _text("name", name),
            None if axis is None else _text("step_metric", axis),
            _one_of("summary", summary, SUMMARIES),
            _one_of("goal", goal, GOALS),
        )
        if said.summary == "best" and said.goal is None:
            raise UsageError('define_metric(summary="best") needs goal="min" or goal="max"')
        if said.step_metric is not None and step_sync is not False:
            self._axes[said.name] = said.step_metric
        self._quietly(
            "define_metric",
            lambda: self._session.define_metric(
                said.name,
                step_metric=said.step_metric,
                summary=said.summary,
                goal=said.goal,
            ),
        )
        return said

    def alert(
        self,
        title: str,
        text: str = "",
        level: str | AlertLevel | None = None,
        wait_duration: float | timedelta | None = None,
    ) -> None:
        """Record that something needs a look, and say so on stderr.

        `level` is INFO, WARN or ERROR. One with the same title within `wait_duration` seconds is
        left out. Raises UsageError for another level.
        """
        urgency = _one_of("level", None if level is None else str(level).upper(), tuple(AlertLevel))
        wait = wait_duration.total_seconds() if isinstance(wait_duration, timedelta) else None
        wait = float(wait_duration or 0) if wait is None else wait  # type: ignore[arg-type]
        now = time.monotonic()
        if now - self._alerted.get(title, -float("inf")) < wait:
            return
        self._alerted[title] = now
        urgency = urgency or AlertLevel.INFO
        self._session.event("alert", title=str(title), text=str(text), level=str(urgency))
        self._say(f"{urgency} {title}{': ' if text else ''}{text}")

    def _say(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError, AttributeError):  # no stderr, or a closed one
            sys.stderr.write(f"cupel: {line}\n")

    def _on_axes(self, numbers: Mapping[Any, Any]) -> Mapping[Any, Any]:
        """The line with the last value of every axis that its metrics are drawn over."""
        given = {self._axis_of(key) for key in numbers} - {None}
        for axis in set(self._axes.values()) & numbers.keys():
            self._axis_values[axis] = numbers[axis]
        missing = (axis for axis in given if axis not in numbers and axis in self._axis_values)
        return {**numbers, **{axis: self._axis_values[axis] for axis in missing if axis}}

    def _axis_of(self, key: Any) -> str | None:
        if key in self._axes:
            return self._axes[key]
        for name, axis in self._axes.items():
            if name.endswith("*") and str(key).startswith(name[:-1]) and key != axis:
                return axis
        return None

    def _record_config(self, changes: dict[str, Any]) -> None:
        self._quietly("config", lambda: self._session.set_config(changes))

    def _record_summary(self, values: dict[str, Any]) -> None:
        self._quietly("summary", lambda: self._session.set_summary(values))

    def _recorded_summary(self) -> Mapping[str, Any]:
        from cupel.record.reader import RunRecord

        return RunRecord(self.dir).summary

    def _describe(self, **changes: Any) -> None:
        self._about |= changes
        if self._session.rank:
            return  # rank 0 says what the run is called

        def write() -> None:
            run = files.read_json(self.dir / layout.RUN)  # others may have edited it meanwhile
            self._session.write_run_json(layout.RUN, {**run, **changes})

        self._quietly("run.json", write)

    def _quietly(self, name: str, does: Any) -> None:
        """What the record cannot take stops nothing."""
        try:
            does()
        except (CupelError, OSError, TypeError, ValueError) as error:
            self._session.problem(name, error)


def _text(what: str, given: Any) -> str:
    if isinstance(given, str) and given:
        return given
    raise UsageError(f"define_metric({what}={given!r}): it must be a metric's name")


def _one_of(what: str, given: Any, known: tuple[str, ...]) -> str | None:
    if given is None:
        return None
    word = _WANDBS_WORDS.get(given, given)
    if word in known:
        return str(word)
    raise UsageError(f"{what}={given!r} is not one of {', '.join(map(str, known))}")
