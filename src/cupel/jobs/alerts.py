"""When somebody should look at a study: `Watch.check(snapshot)` gives what is new, what is over.

Nothing here looks at runs: whoever watches hands over a `Snapshot`, and tells people (see
`cupel.jobs.hooks`). Each alert is raised once and cleared once. So that none flaps:

- failures are cleared at three quarters of the limit, the disk at six fifths of it, and the
  deadline when a tenth of what is left could be added to the expected end;
- no progress, silence and starvation are cleared by a step, a sign, a claim; the same alert is then
  raised anew only after twice the time, four times, up to sixteen times;
- a loss that was not finite must have stayed finite for ten steps;
- what is unknown (no ETA, no disk) neither raises nor clears.

`alerts.json` in the study's folder keeps what is raised over a restart, `alerts.jsonl` all that was
raised and cleared. One process at a time may watch a study; two would each tell everything.
"""

from __future__ import annotations

import errno
import math
import os
import shutil
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self, get_args

from cupel.errors import RecordError, UsageError
from cupel.jobs.eta import Eta
from cupel.record import codec, files

STATE, HISTORY = "alerts.json", "alerts.jsonl"
SCHEMA = 1
TOLD_AT_ONCE = 20  # of one kind
FAILURES_OVER = 0.75  # of the limit
DISK_OVER = 1.2  # of the limit
DEADLINE_OVER = 0.1  # of the time that is left
FINITE_STEPS = 10
PATIENCE = 4  # doublings
_MOST_LINES = 10_000  # that wait for a disk which refuses them
_APPEND = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC

Severity = Literal["warning", "error"]
Kind = Literal[
    "failures", "no-progress", "silent", "non-finite", "starved", "disk", "deadline"
]  # the first part of a key; after a slash follows the run, where it is about one
_OF_A_RUN = ("no-progress", "silent", "non-finite")
_PATIENT = ("no-progress", "silent", "starved")


@dataclass(frozen=True, slots=True)
class Thresholds:
    """As `study.alerts` in a recipe, whose defaults and meanings these are."""

    failure_rate: float = 0.1
    after: int = 10
    no_progress_min: float = 10
    silent_s: float = 60
    starved_min: float = 10
    disk_free: float = 0.1
    deadline: str | None = None


@dataclass(frozen=True, slots=True)
class RunningRun:
    """A run that somebody is training: its last step, when that came (or when it began), when it
    last gave a sign of life, both in Unix seconds, and its last loss."""

    name: str
    step: int
    stepped: float
    seen: float
    loss: float | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How a study stands at the time `t` (Unix seconds).

    `ended` counts all runs that came to an end, `failed` and `diverged` those of them that did so;
    no run is both. `open` are runs to be done that nobody trains, and nobody holds back on purpose;
    `claimable` those of them that a worker could take now; `free` the workers that have nothing to
    do. `disk_free` is the part of the disk, as `free_part` gives it.
    """

    t: float
    ended: int = 0
    failed: int = 0
    diverged: int = 0
    running: Sequence[RunningRun] = ()
    open: int = 0
    claimable: int = 0
    free: int = 0
    disk_free: float | None = None
    eta: Eta | None = None


@dataclass(frozen=True, slots=True)
class Alert:
    """Something to look at (raised), or that this is over; one line for people."""

    key: str
    raised: bool
    text: str
    severity: Severity
    t: float

    @property
    def kind(self) -> str:
        """The rule that it is of."""
        return self.key.partition("/")[0]


@dataclass(frozen=True, slots=True)
class _Finding:
    """What a rule says now: it is bad, it is fine, or neither, which changes nothing."""

    key: str
    says: Literal["bad", "fine", "neither"]
    text: str
    severity: Severity = "warning"
    mark: int = 0


@dataclass(frozen=True, slots=True)
class _Raised:
    severity: Severity
    text: str
    t: float
    mark: int = 0  # of a loss that was not finite: the step


class Watch:
    """What is raised at present. `problem` says why its file could not be read; else it is empty.

    Raises UsageError for a deadline that is no time.
    """

    def __init__(self, thresholds: Thresholds, folder: Path | None = None) -> None:
        self.thresholds, self.folder, self.problem = thresholds, folder, ""
        self._deadline = None if thresholds.deadline is None else unix_time(thresholds.deadline)
        self._raised: dict[str, _Raised] = {}
        self._times: Counter[str] = Counter()  # how often the same was raised: patience grows
        self._starved_since: float | None = None  # not kept: nobody knows what was in between
        self._lines: deque[bytes] = deque(maxlen=_MOST_LINES)
        self._changed = False

    @classmethod
    def load(cls, folder: Path, thresholds: Thresholds) -> Self:
        """The watch that was saved in a study's folder, or a new one where nothing was.

        A damaged file counts as none, and `problem` says so: what still holds is raised again.
        """
        watch = cls(thresholds, folder)
        path = folder / STATE
        try:
            if os.path.lexists(path):
                watch._restore(files.read_json(path))
        except (
            RecordError,
            ValueError,
            TypeError,
            LookupError,
            AttributeError,
            ArithmeticError,
        ) as error:
            watch._raised, watch._times = {}, Counter()
            why = str(error) if isinstance(error, RecordError) else f"{path} is not as expected"
            watch.problem = f"{why}; the alerts begin anew"
        return watch

    def save(self) -> str:
        """Keep what changed, in the study's folder; why it could not, in a line, else empty.

        First the history, then the state: after a kill in between something is told twice, but
        nothing is lost. What could not be written is tried again by the next call.
        """
        assert self.folder is not None, "a watch without a folder cannot be saved"
        if not self._changed:
            return ""
        try:
            self._append(self.folder / HISTORY)
            state = {name: asdict(raised) for name, raised in self._raised.items()}
            fields = {"schema": SCHEMA, "raised": state, "times": dict(self._times)}
            files.write_json(self.folder / STATE, fields)
        except OSError as error:
            return f"cannot keep the alerts in {self.folder}: {error.strerror}"
        self._changed = False
        return ""

    @property
    def raised(self) -> list[Alert]:
        """What is raised at present, the oldest first."""
        alerts = [
            Alert(key, True, one.text, one.severity, one.t) for key, one in self._raised.items()
        ]
        return sorted(alerts, key=lambda alert: alert.t)

    def check(self, snapshot: Snapshot) -> list[Alert]:
        """What is newly raised (or has become worse), and what is over, since the last snapshot.

        At most 20 of one kind; a line "and 31 more" stands for the others.
        """
        running = {run.name for run in snapshot.running}
        told = [*self._ended_runs(running, snapshot.t)]
        for finding in self._findings(snapshot):
            was = self._raised.get(finding.key)
            worse = was is not None and (was.severity, finding.severity) == ("warning", "error")
            if finding.says == "bad" and (was is None or worse):
                told.append(self._raise(finding, snapshot.t))
            elif finding.says == "bad" and was is not None and was.mark != finding.mark:
                self._raised[finding.key] = replace(was, mark=finding.mark)
                self._changed = True
            elif finding.says == "fine" and was is not None:
                told.append(self._clear(finding.key, finding.text, snapshot.t))
        if told:
            self._changed = True
            self._lines.extend(codec.encode_event(asdict(alert)) for alert in told)
        return _a_few_of_each(told)

    def _raise(self, finding: _Finding, t: float) -> Alert:
        known = self._raised.get(finding.key)
        if known is None and finding.key.partition("/")[0] in _PATIENT:
            self._times[finding.key] += 1
        self._raised[finding.key] = _Raised(finding.severity, finding.text, t, finding.mark)
        return Alert(finding.key, True, finding.text, finding.severity, t)

    def _clear(self, key: str, text: str, t: float) -> Alert:
        return Alert(key, False, text, self._raised.pop(key).severity, t)

    def _ended_runs(self, running: set[str], t: float) -> Iterator[Alert]:
        """Clears what was raised about runs that nobody trains any more."""
        for key in [*self._raised, *self._times]:
            kind, _, run = key.partition("/")
            if kind not in _OF_A_RUN or run in running:
                continue
            if key in self._raised:
                yield self._clear(key, f"{run} is not running any more", t)
            if key in self._times:
                del self._times[key]
                self._changed = True

    def _findings(self, now: Snapshot) -> Iterator[_Finding]:
        yield self._failures(now)
        for run in now.running:
            yield self._no_progress(run, now.t)
            yield self._silent(run, now.t)
            yield self._non_finite(run)
        yield self._starved(now)
        if now.disk_free is not None:
            yield self._disk(now.disk_free)
        if self._deadline is not None:
            yield self._late(now, self._deadline)
        else:
            yield _Finding("deadline", "fine", "there is no deadline any more")

    def _failures(self, now: Snapshot) -> _Finding:
        limit = self.thresholds.failure_rate
        rate = now.failed / now.ended if now.ended else 0.0
        diverged = f"; {now.diverged} diverged, which is no failure" if now.diverged else ""
        text = (
            f"{now.failed} of {now.ended} ended runs failed ({_percent(rate)}; the limit is "
            f"{_percent(limit)}){diverged}"
        )
        bad = now.ended >= self.thresholds.after and rate > limit + 1e-12
        return _finding(
            "failures", text, bad=bad, fine=rate <= FAILURES_OVER * limit, severity="error"
        )

    def _no_progress(self, run: RunningRun, t: float) -> _Finding:
        key, limit = f"no-progress/{run.name}", self.thresholds.no_progress_min * 60
        waited = t - run.stepped
        if waited <= limit:
            return _Finding(key, "fine", f"{run.name} goes on, at step {run.step}")
        text = f"{run.name} has made no step for {_duration(waited)}, since step {run.step}"
        return _finding(key, text, bad=waited > limit * self._patience(key), fine=False)

    def _silent(self, run: RunningRun, t: float) -> _Finding:
        key, limit = f"silent/{run.name}", self.thresholds.silent_s
        waited = t - run.seen
        if waited <= limit:
            return _Finding(key, "fine", f"{run.name} gives signs of life again")
        text = f"{run.name} has given no sign of life for {_duration(waited)}"
        return _finding(key, text, bad=waited > limit * self._patience(key), fine=False)

    def _non_finite(self, run: RunningRun) -> _Finding:
        key = f"non-finite/{run.name}"
        if run.loss is not None and not math.isfinite(run.loss):
            text = f"the loss of {run.name} is {run.loss} at step {run.step}, and it is running on"
            return _Finding(key, "bad", text, mark=run.step)
        was = self._raised.get(key)
        over = run.loss is not None and was is not None and run.step >= was.mark + FINITE_STEPS
        text = f"the loss of {run.name} is finite again, at step {run.step}"
        return _finding(key, text, bad=False, fine=over)

    def _starved(self, now: Snapshot) -> _Finding:
        if not (now.free and now.open and not now.claimable):
            self._starved_since = None
            return _Finding("starved", "fine", "no worker waits for a run that it cannot have")
        if self._starved_since is None:
            self._starved_since = now.t
        waited = now.t - self._starved_since
        bad = waited >= self.thresholds.starved_min * 60 * self._patience("starved")
        runs = "1 run is" if now.open == 1 else f"{now.open} runs are"
        text = f"{runs} open, but none could be claimed for {_duration(waited)} ({now.free} free)"
        return _finding("starved", text, bad=bad, fine=False)

    def _disk(self, free: float) -> _Finding:
        limit = self.thresholds.disk_free
        text = f"{_percent(free)} of the disk is free; the limit is {_percent(limit)}"
        return _finding(
            "disk", text, bad=free < limit, fine=free >= DISK_OVER * limit, severity="error"
        )

    def _late(self, now: Snapshot, deadline: float) -> _Finding:
        until = f"the deadline is {_moment(deadline)}"
        if not (now.open or now.running):
            return _Finding("deadline", "fine", f"nothing is left to do; {until}")
        if now.eta is None:
            text = f"runs are left to do, and {until}"
            return _finding("deadline", text, bad=now.t > deadline, fine=False, severity="error")
        eta = now.eta
        certain, likely = eta.low > deadline, eta.at > deadline
        expected = f"{_moment(eta.at)}, {_moment(eta.low)} at the earliest"
        text = (
            f"it will {'not' if certain else 'probably not'} be done in time: {expected}; {until}"
        )
        over = eta.at + DEADLINE_OVER * (eta.at - now.t) <= deadline
        if over:
            text = f"it is expected to be done in time: {_moment(eta.at)}; {until}"
        return _finding(
            "deadline", text, bad=likely, fine=over, severity="error" if certain else "warning"
        )

    def _patience(self, key: str) -> int:
        return int(2 ** min(PATIENCE, self._times[key]))

    def _append(self, path: Path) -> None:
        """Write the lines that wait, each by one write. Raises OSError."""
        if not self._lines:
            return
        fd = os.open(path, _APPEND, 0o666)
        try:
            size = os.fstat(fd).st_size
            torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"  # by a full disk, or a kill
            while self._lines:
                line = b"\n" * torn + self._lines[0]
                if os.write(fd, line) < len(line):
                    raise OSError(errno.ENOSPC, "the disk took only a part of a line")
                self._lines.popleft()
                torn = False
        finally:
            os.close(fd)

    def _restore(self, fields: dict[str, Any]) -> None:
        """Take what was saved. Raises ValueError, KeyError, TypeError, … for anything else."""
        if fields["schema"] != SCHEMA:
            raise ValueError(f"schema {fields['schema']}")
        for key, found in fields["raised"].items():
            raised = _Raised(**found)
            if raised.severity not in ("warning", "error") or not isinstance(raised.text, str):
                raise ValueError(key)
            if key.partition("/")[0] in get_args(Kind):
                self._raised[key] = replace(raised, t=float(raised.t), mark=int(raised.mark))
        self._times.update({key: int(count) for key, count in fields["times"].items()})


def free_part(root: Path) -> float | None:
    """The part of the disk at a folder that is free; None when nobody can tell."""
    try:
        usage = shutil.disk_usage(root)
    except OSError:
        return None
    return usage.free / usage.total if usage.total else None


def unix_time(text: str) -> float:
    """A time such as 2026-12-01T08:00, in UTC unless it says otherwise, in Unix seconds.

    Raises UsageError for anything else.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(
            f"study.alerts.deadline: '{text}' is no time; type it as 2026-12-01T08:00 (UTC)"
        ) from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _finding(
    key: str, text: str, *, bad: bool, fine: bool, severity: Severity = "warning"
) -> _Finding:
    return _Finding(key, "bad" if bad else "fine" if fine else "neither", text, severity)


def _a_few_of_each(alerts: Iterable[Alert]) -> list[Alert]:
    told: list[Alert] = []
    counts: Counter[tuple[str, bool]] = Counter()
    last: dict[tuple[str, bool], Alert] = {}
    for alert in alerts:
        group = (alert.kind, alert.raised)
        counts[group] += 1
        last[group] = alert
        if counts[group] <= TOLD_AT_ONCE:
            told.append(alert)
    for group, count in counts.items():
        if count > TOLD_AT_ONCE:
            text = f"and {count - TOLD_AT_ONCE} more"
            told.append(replace(last[group], key=f"{group[0]}/", text=text))
    return told


def _percent(part: float) -> str:
    return f"{100 * part:.3g} %"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _moment(t: float) -> str:
    return f"{datetime.fromtimestamp(t, UTC):%Y-%m-%d %H:%M} UTC"
