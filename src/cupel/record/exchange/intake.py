"""Makes a run of the record out of one run of another tool.

It is written in a folder beside the projects and moved to its place when it is whole: a killed
import leaves nothing that could be taken for a run. The times, the status and the environment are
those of the other tool; `imported` in run.json says where the run comes from and what is missing.
Costs about 0.2 s a run, and 10 µs a point besides the reading.
"""

from __future__ import annotations

import math
import shutil
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cupel.errors import RecordError, UsageError
from cupel.record import codec, files, layout
from cupel.record.exchange.foreign import LARGEST_STEP, Foreign, Picture, Point, Restart
from cupel.record.media import store_media
from cupel.record.reader import RunRecord
from cupel.record.session import Session

IMPORTED = "imported"  # the key in run.json

_LAST_SECOND = 253402300799.0  # of the year 9999


@dataclass
class _Span:
    """When the points of one session were logged."""

    first: float | None = None
    last: float | None = None

    def add(self, t: float) -> None:
        self.first = t if self.first is None else min(self.first, t)
        self.last = t if self.last is None else max(self.last, t)


def take_in(run: Foreign, root: Path, project: str) -> Path:
    """Record a run of another tool; returns its folder.

    Raises RecordError when it holds nothing readable, when its place is taken, and when the disk
    refuses.
    """
    root.mkdir(parents=True, exist_ok=True)
    workplace = root / files.temporary_name("import")
    workplace.mkdir()
    target = root / project / _run_id(run)
    try:
        made = _Intake(run, workplace, project, target.name).made()
        target.parent.mkdir(exist_ok=True)
        if target.exists():
            raise RecordError(f"the run {target.name} exists already in {target.parent}")
        made.rename(target)
        files.sync_folder(target.parent)
    finally:
        shutil.rmtree(workplace, ignore_errors=True)
    return target


def _run_id(run: Foreign) -> str:
    """As other ids, but the same again for the same content: time, name, tool, hash."""
    begun = time.strftime("%Y%m%d-%H%M%S", time.gmtime(_moment(run.created) or time.time()))
    return f"{begun}-{layout.slug(run.name)}-{run.tool}-{run.sha256[:8]}"


def _moment(t: float | None) -> float | None:
    return t if t is not None and 0 <= t <= _LAST_SECOND else None


class _Intake:
    """The making of one run's folder."""

    def __init__(self, run: Foreign, workplace: Path, project: str, run_id: str) -> None:
        self._run = run
        self._clock = _moment(run.created) or time.time()  # for points without a time
        self._spans = [_Span()]
        self._session = Session.start(
            root=workplace,
            project=project,
            name=run.name,
            config={},  # some tools tell it only at their end
            identity=run.sha256,
            run_id=run_id,
            strict=True,
        )

    def made(self) -> Path:
        run = self._run
        folder = self._session.run_dir
        try:
            for point in run.points(run):
                if isinstance(point, Restart):
                    self._restart(point)
                elif isinstance(point, Picture):
                    self._keep(point)
                else:
                    self._log(point)
            for document in (run.config, run.summary, run.facts):
                _keep_writable(document, run.left_out)
            for line in told(run):
                self._session.note(line)
            results = _results(folder) if run.status == "finished" else None
            for name, step_metric, summary, goal in run.definitions:
                self._session.define_metric(
                    name, step_metric=step_metric, summary=summary, goal=goal
                )
            self._session.set_summary(run.summary)
            self._session.finish(run.status, results=results, error=run.error)
        finally:
            self._session.finish("failed")  # after an error: its thread and its files must end
        self._dress(folder)
        return folder

    def _log(self, point: Point) -> None:
        run = self._run
        if not -LARGEST_STEP <= point.step <= LARGEST_STEP:
            run.damaged += 1
            return
        t = self._time(point.t)
        try:
            self._session.log(point.metrics, step=point.step, t=t)
        except (TypeError, ValueError):  # no reader hands on such values; none may end an import
            run.left_out["values that cannot be recorded"] += len(point.metrics)

    def _keep(self, picture: Picture) -> None:
        store_media(
            self._session,
            picture.key,
            step=picture.step,
            kind="image",
            suffix=picture.suffix,
            data=picture.data,
            _t=self._time(picture.t),
        )

    def _time(self, t: float | None) -> float:
        """When a point was logged; as the one before where that is not told."""
        if t is not None and not math.isfinite(t):
            self._run.left_out["times that are not finite"] += 1
            t = None
        self._clock = t = self._clock if t is None else t
        self._spans[-1].add(t)
        return t

    def _restart(self, restart: Restart) -> None:
        folder = self._session.run_dir
        self._session.finish("interrupted")
        self._session = Session.resume(folder, strict=True)
        self._session.begin_at(restart.after)
        self._spans.append(_Span())

    def _dress(self, folder: Path) -> None:
        """Replace what is true of the import by what is true of the run."""
        run = self._run
        created = _moment(run.created) or self._spans[0].first or self._clock
        for number, span in enumerate(self._spans, 1):
            session = layout.session_dir(folder, number)
            started = created if number == 1 else (span.first or created)
            ended = run.ended if number == len(self._spans) and _moment(run.ended) else span.last
            state = files.read_json(session / layout.SESSION)
            state |= {"started": started, "ended": max(ended or started, started)}
            files.write_json(session / layout.SESSION, state)
            files.write_json(session / layout.ENVIRONMENT, {"schema": layout.SCHEMA, **run.facts})
            (session / layout.DIRTY_PATCH).unlink(missing_ok=True)
        described = files.read_json(folder / layout.CONFIG)
        files.write_json(folder / layout.CONFIG, {**described, "config": run.config})
        origin = {
            "tool": run.tool,
            "version": run.version,
            "source": run.source,
            "sha256": run.sha256,
            "id": run.foreign_id,
            "at": time.time(),
            "damaged": run.damaged,
            "unread_bytes": run.unread,
            "left_out": dict(run.left_out),
        }
        whole = files.read_json(folder / layout.RUN)
        whole |= {"name": run.name, "tags": run.tags, "notes": run.notes, "created": created}
        whole |= {"group": run.group} if run.group else {}
        files.write_json(folder / layout.RUN, {**whole, IMPORTED: origin})


def told(run: Foreign) -> list[str]:
    """What is missing of a run, in lines for people; none when all was taken."""
    lines = []
    if run.left_out:
        counted = ", ".join(f"{number} {kind}" for kind, number in run.left_out.items())
        lines.append(f"{run.source} ({run.name}): left out: {counted}")
    if run.damaged:
        unread = f", after which {run.unread:,} bytes were not read" if run.unread else ""
        lines.append(f"{run.source} ({run.name}): damaged records: {run.damaged}{unread}")
    return lines


def fitting(project: str | None) -> str:
    """A project's name of another tool as one of ours."""
    if not project:
        return "imported"
    try:
        return layout.check_name("project", project)
    except UsageError:
        return layout.slug(project)


def _results(folder: Path) -> dict[str, Any]:
    """What a loop of one's own has as results: the last value of every metric."""
    last = RunRecord(folder).summarised()
    final = {key: value for key, value in last.values.items() if isinstance(value, int | float)}
    return {"step": last.step, "final": final}


def _keep_writable(values: dict[str, Any], left_out: Counter[str]) -> None:
    """Take out what a JSON file cannot hold, and count it."""
    for key in list(values):
        try:
            codec.encode_document({key: values[key]})
        except (TypeError, ValueError, RecursionError):
            del values[key]
            left_out["settings that cannot be recorded"] += 1
