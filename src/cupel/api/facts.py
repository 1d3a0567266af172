"""What describes a run besides its numbers: name, tags, config, summary, axes, alerts.

A part of `Run`. Everything set here is a line of the record or a field of run.json when the call
returns; what the disk refuses is counted and told once, and stops nothing.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from cupel.api.arguments import Settings, kind
from cupel.api.config import Config, plain
from cupel.api.summary import Summary
from cupel.api.told import tell_ignored, tell_once
from cupel.errors import CupelError, UsageError
from cupel.record.saying import GOALS, SUMMARIES
from cupel.record.session import Session

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
        job_type: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.project, self.group, self.job_type = project, group, job_type
        self.settings = Settings(settings or {})
        self.finished = False
        self._session = session
        self._about: dict[str, Any] = {"name": name, "tags": list(tags), "notes": notes}
        self._told = dict(self._about)  # of these, what run.json was last seen to say
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
    def entity(self) -> str:
        """wandb's word for an account: there are none."""
        return ""

    @property
    def path(self) -> str:
        """Project and id, as "docs/20261121-015422-first-7522327-c3e8"."""
        return f"{self.project}/{self.id}"

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
        if name is None:
            raise UsageError("the name of a run must be text, not None")
        self._describe(name=str(name))

    @property
    def tags(self) -> tuple[str, ...]:
        """Words to find the run by; `run.tags += ("night",)` adds one.

        What `cupel runs tag` did meanwhile stays.
        """
        return tuple(self._about["tags"])

    @tags.setter
    def tags(self, tags: Iterable[str] | None) -> None:
        if isinstance(tags, str):
            raise UsageError(f"tags must be a list of texts; type tags=[{tags!r}]")
        if not isinstance(tags, Iterable | None):
            raise UsageError(f"tags must be a list of texts, as ['night'], not {kind(tags)}")
        self._describe(tags=[str(tag) for tag in tags or ()])

    @property
    def notes(self) -> str:
        """A text about the run; what `cupel runs note` added meanwhile stays."""
        return str(self._about["notes"])

    @notes.setter
    def notes(self, notes: str | None) -> None:
        self._describe(notes="" if notes is None else str(notes))

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
        first, best or none; best goes by `goal`, min or max. Of several ("min,max") the first
        counts. Raises UsageError for other words.
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
            _one_of("summary", _first(name, summary), SUMMARIES),
            _one_of("goal", goal, GOALS),
        )
        if said.summary == "best" and said.goal is None:
            raise UsageError('define_metric(summary="best") needs goal="min" or goal="max"')
        if self._is_over("define_metric"):
            return said
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
        left out. Raises UsageError for another level, and for what is no time.
        """
        urgency = _one_of("level", None if level is None else str(level).upper(), tuple(AlertLevel))
        wait = _seconds(wait_duration)
        title, now = str(title), time.monotonic()
        if self._is_over("alert"):
            return
        if now - self._alerted.get(title, -float("inf")) < wait:
            return
        self._alerted[title] = now
        urgency = urgency or AlertLevel.INFO
        self._session.event("alert", title=title, text=str(text), level=str(urgency))
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

    def _record_config(self, changes: dict[str, Any]) -> bool:
        if self._is_over("config"):
            return False
        self._quietly("config", lambda: self._session.set_config(changes))
        return True

    def _record_summary(self, values: dict[str, Any]) -> bool:
        if self._is_over("summary"):
            return False
        self._quietly("summary", lambda: self._session.set_summary(values))
        return True

    def _recorded_summary(self) -> Mapping[str, Any]:
        from cupel.record.reader import RunRecord

        return RunRecord(self.dir).summary

    def _is_over(self, call: str) -> bool:
        """Whether the run has ended, which is told: nothing is written then."""
        if self.finished:
            self._session.problem(call, self._ended())
        return self.finished

    def _ended(self) -> UsageError:
        return UsageError(f"run {self.id} is finished; start another one with cupel.init()")

    def _describe(self, **changes: Any) -> None:
        """Name, tags or notes from now on."""
        if not self._is_over(f"run.{next(iter(changes))}"):
            self._about |= changes
            self._write_about()

    def take_over(self, run: Mapping[str, Any]) -> None:
        """Be called, tagged and described as run.json says, of a run that is gone on with."""
        for name, known in self._about.items():
            if isinstance(run.get(name), type(known)):
                self._about[name] = self._told[name] = run[name]

    def _write_about(self) -> None:
        """Put into run.json what has changed; what the disk refuses is tried again at the end."""
        if self._session.rank or self._about == self._told:
            return  # rank 0 says what the run is called

        def change(run: Mapping[str, Any]) -> Mapping[str, Any]:
            merged = _merged(run, self._told, self._about)
            wanted.update(merged)
            return {name: value for name, value in merged.items() if value != self._told[name]}

        def write() -> None:
            self._session.edit_run(change)
            self._about |= wanted
            self._told |= wanted

        wanted: dict[str, Any] = {}
        self._quietly("run.json", write)

    def _quietly(self, name: str, does: Any) -> None:
        """What the record cannot take stops nothing."""
        try:
            does()
        except (CupelError, OSError, TypeError, ValueError) as error:
            self._session.problem(name, error)


def _merged(
    run: Mapping[str, Any], before: Mapping[str, Any], after: Mapping[str, Any]
) -> dict[str, Any]:
    """What a script changed from `before` to `after`, done to what stands in run.json by now."""
    merged = dict(after)
    there = run.get("tags")
    if after["tags"] != before["tags"] and isinstance(there, list):
        kept = [tag for tag in after["tags"] if tag in there or tag not in before["tags"]]
        others = (tag for tag in there if tag not in (*after["tags"], *before["tags"]))
        merged["tags"] = [*kept, *others]
    was, notes = before["notes"], run.get("notes")
    if after["notes"] != was and isinstance(notes, str) and notes not in (was, after["notes"]):
        if after["notes"].startswith(was):
            parts = [notes, after["notes"].removeprefix(was)]
        else:
            parts = [after["notes"], notes.removeprefix(was)]
        merged["notes"] = "\n".join(filter(None, (part.strip("\n") for part in parts)))
    return merged


def _seconds(given: Any) -> float:
    if isinstance(given, timedelta):
        return given.total_seconds()
    try:
        if not isinstance(given, str | bytes):
            return float(given or 0)
    except (TypeError, ValueError, OverflowError):
        pass
    raise UsageError(
        f"alert(wait_duration={given!r}): it must be seconds, as 5.0, or a datetime.timedelta"
    )


def _first(name: Any, summary: Any) -> Any:
    """wandb takes several words for one metric, and gives a number for each; here it has one."""
    if not isinstance(summary, str) or "," not in summary:
        return summary
    first, *others = (word.strip() for word in summary.split(","))
    for word in others:
        _one_of("summary", word, SUMMARIES)
    tell_once(
        f"define_metric {name} {summary}",
        f"define_metric({name!r}, summary={summary!r}): a metric comes to one number here, "
        f"{first}; set others in run.summary",
    )
    return first


def _text(what: str, given: Any) -> str:
    if isinstance(given, str) and given:
        return given
    raise UsageError(f"define_metric({what}={given!r}): it must be a metric's name")


def _one_of(what: str, given: Any, known: tuple[str, ...]) -> str | None:
    if given is None:
        return None
    word = _WANDBS_WORDS.get(given, given) if isinstance(given, str) else given
    if word in known:
        return str(word)
    raise UsageError(f"{what}={given!r} is not one of {', '.join(map(str, known))}")
