"""A run that records nothing: of `mode="disabled"`, and of the ranks that leave it to rank 0.

It takes the same calls and refuses the same mistakes; config and summary are in memory what a
recording run would make of them, about 1 µs a number. It writes nothing but what the script itself
puts into `dir`, a temporary folder that is made when it is asked for and deleted at the end. A rank
restores the checkpoints of rank 0's run; saving them is rank 0's.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from cupel.api.rows import whole
from cupel.api.run import Run, check_steps
from cupel.api.summary import Summary
from cupel.record import codec
from cupel.record.session import Session
from cupel.record.summary import rule_of


class NoSession:
    """Has a session's methods, and does nothing in them."""

    run_id = "disabled"
    number = 1
    resumed = False
    rank = 0
    in_child = False
    problems: Mapping[str, int] = {}

    def superseded(self) -> bool:
        return False

    def _nothing(self, *_: Any, **__: Any) -> None:
        pass

    log = event = note = problem = begin_at = describe = write_run_json = _nothing
    finish = set_summary = set_config = edit_run = _nothing

    def __init__(self) -> None:
        self.definitions: list[dict[str, Any]] = []

    def define_metric(self, name: str, **said: Any) -> None:
        self.definitions.append({"name": name, **said})


@dataclass(slots=True)
class _Numbers:
    """What a metric has come to. The last step's value may still change, so it is folded later.

    A value that is logged again for a step before the last counts beside the first one there.
    """

    step: int
    last: float
    at_first: int
    first: float
    least: float = math.inf
    greatest: float = -math.inf
    total: float = 0.0
    count: int = 0  # of what is not NaN

    def add(self, step: int, value: float) -> None:
        if step < self.step:
            self._fold(value)
        else:
            if step > self.step:
                self._fold(self.last)
            self.step, self.last = step, value
        if step <= self.at_first:
            self.at_first, self.first = step, value

    def _fold(self, value: float) -> None:
        if value == value:
            self.least, self.greatest = min(self.least, value), max(self.greatest, value)
            self.total, self.count = self.total + value, self.count + 1

    def come_to(self, rule: str) -> float:
        if rule in ("first", "last"):
            return self.first if rule == "first" else self.last
        whole = replace(self)
        whole._fold(self.last)
        if not whole.count:
            return math.nan
        if rule == "mean":
            return whole.total / whole.count
        return whole.least if rule == "min" else whole.greatest


class _Memory:
    """The numbers of a run that nobody records, by the rules of `cupel.record.summary`."""

    def __init__(self, session: NoSession) -> None:
        self._session = session
        self._numbers: dict[str, _Numbers] = {}

    def take(
        self, metrics: Mapping[Any, Any], step: int, prefix: str = "", deeper: int = 32
    ) -> None:
        for key, value in metrics.items():
            if type(value) is not float:
                if isinstance(value, Mapping):
                    if deeper:
                        self.take(value, step, f"{prefix}{key}/", deeper - 1)
                    continue
                value = _number(value)
            if value is None or type(key) is not str:
                continue
            name = f"{prefix}{key}" if prefix else key
            if (known := self._numbers.get(name)) is None:
                self._numbers[name] = _Numbers(step, value, step, value)
            else:
                known.add(step, value)

    def summary(self) -> dict[str, Any]:
        found = {}
        for key, numbers in self._numbers.items():
            if (rule := rule_of(key, self._session.definitions)) != "none":
                found[key] = numbers.come_to(rule)
        return found


def _number(value: Any) -> Any:
    """What a recording run would keep of a value as a number; None for anything else."""
    if not isinstance(value, bool | int | float) and not hasattr(value, "tolist"):
        return None
    try:
        kept = codec.metric("", value)
    except Exception:  # of whatever a value does that is asked for its number
        return None
    kept = codec.WORDS.get(kept, kept) if isinstance(kept, str) else kept
    return kept if isinstance(kept, int | float) else None


class DisabledRun(Run):
    """A run that records nothing.

    `leader()` waits for rank 0's session and returns the run's folder and the number; without one
    there is nothing to restore.
    """

    disabled = True

    def __init__(
        self,
        *,
        config: Mapping[str, Any],
        leader: Callable[[], tuple[Path, int]] | None = None,
        **facts: Any,
    ) -> None:
        session = NoSession()
        super().__init__(cast(Session, session), config=config, leads=False, **facts)
        self._memory = _Memory(session)
        self._summary = Summary(self._record_summary, self._memory.summary)
        self._leader = leader
        self._led_by: tuple[Path, int] | None = None
        self._named: dict[str, Any] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self.at_end(self._clean_up)

    @property
    def dir(self) -> Path:
        """Rank 0's folder, once it was restored from; else a temporary one."""
        if self._led_by is not None:
            return self._led_by[0]
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="cupel-disabled-")
        return Path(self._folder.name)

    def log(
        self,
        metrics: Mapping[str, Any] | None = None,
        step: int | None = None,
        commit: bool | None = None,
        sync: bool | None = None,
        *,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        """Counts steps, and keeps what the numbers come to. Raises UsageError as a run does."""
        metrics = self._checked(metrics, data)
        given = None if step is None else whole(step)
        if not self.finished:
            self._remember(metrics, self._place(given, commit))

    def log_at(self, metrics: Mapping[str, Any], step: int, t: float | None) -> None:
        """The same, at any whole step."""
        if not self.finished:
            self._place(max(step, 0), None)
            self._remember(metrics, step)

    def _remember(self, metrics: Mapping[str, Any], step: int) -> None:
        self._memory.take(self._on_axes(metrics) if self._axes else metrics, step)

    def log_artifact(self, artifact_or_path: Any, *_: Any, **__: Any) -> Path | None:
        """Keeps nothing."""
        return None

    def save(self, glob_str: Any, *_: Any, **__: Any) -> list[str]:
        """Keeps nothing."""
        return []

    def alert(self, title: str, *_: Any, **__: Any) -> None:
        """Says nothing."""

    def watch(self, model: Any, *_: Any, **__: Any) -> None:
        """Looks at nothing."""

    def register(self, **parts: Any) -> None:
        """Name what rank 0's checkpoints hold; without a rank 0 nothing is kept of it."""
        self._check_open()
        if self._leader is not None:
            self._named |= parts

    def load_checkpoint(self) -> int:
        """Restore what rank 0 restores; 0 where nothing is recorded at all."""
        self._check_open()
        self._restored = True
        if self._leader is None:
            return 0
        if self._led_by is None:
            self._led_by = self._leader()  # before the room for checkpoints is made there
            super().register(**self._named)
        return super().load_checkpoint()

    def _followed(self) -> tuple[Path, int]:
        assert self._led_by is not None
        return self._led_by

    def save_checkpoint(
        self, metrics: Mapping[str, float] | None = None, *, wait: bool = False
    ) -> Path:
        """Saves nothing; where rank 0's would be. Raises UsageError as a run does."""
        from cupel.checkpoint.writing import numbers_of

        self._check_open()
        numbers_of(metrics)
        return self.dir / "checkpoints"

    def steps(self, total: int, *, save_every: int | None = None) -> Iterator[int]:
        """The steps still to make; signals keep their usual meaning."""
        self._check_open()
        check_steps(total, save_every)
        if not self._restored:
            self.load_checkpoint()
        self._in_steps, self._by_hand = True, False
        try:
            for step in range(self.step + 1, total + 1):
                self.step = step
                yield step
        finally:
            self._in_steps = False
            self._rows.go_on_after(self.step)

    def _write_about(self) -> None:
        """There is no run.json."""

    def _log_media(self, key: str, makes: Any, step: int | None) -> None:
        """Makes nothing."""

    def _clean_up(self) -> None:
        if self._folder is not None:
            self._folder.cleanup()
