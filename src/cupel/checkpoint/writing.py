"""A checkpoint on its way to the disk, in a thread, and the news of what became of it, recorded.

The thread is no daemon: a Python that ends, by an exception say, first finishes the file.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from cupel.errors import CheckpointError, UsageError

_LOOKS_S = 0.001


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint that is on the disk: where, what it cost, and each part's state hash.

    `seconds` is the time from its beginning to the disk, and `stalled` that of it for which its
    caller stood still; waiting for another one is in neither. `notes` has lines about what did not
    go as it should.
    """

    path: Path
    step: int
    seconds: float
    bytes: int
    hashes: dict[str, str]
    stalled: float = 0.0
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Failed:
    """A checkpoint that could not be written, and why."""

    step: int
    error: Exception


@dataclass(frozen=True, slots=True)
class Skipped:
    """A checkpoint that was not taken, because that of step `writing` was being written."""

    step: int
    writing: int


@dataclass(frozen=True, slots=True)
class Waited:
    """A checkpoint that was taken later, because that of step `writing` was being written."""

    step: int
    writing: int
    seconds: float


News = Saved | Failed | Skipped | Waited


def numbers_of(metrics: Any) -> dict[str, float]:
    """The metrics of a checkpoint as they are now: a tensor may change while a thread writes.

    Raises UsageError that names the metric, and what was found in its place.
    """
    if metrics is None:
        return {}
    if not isinstance(metrics, Mapping):
        raise UsageError(
            "the metrics of a checkpoint must be a dict, as {'val_loss': 0.5}, not "
            f"{type(metrics).__name__}"
        )
    return {_name(name): _number(name, value) for name, value in metrics.items()}


def _name(name: Any) -> str:
    if isinstance(name, str):
        return name
    raise UsageError(f"the metric {name!r} of a checkpoint: its name must be text")


def _number(name: str, value: Any) -> float:
    try:
        if not isinstance(value, str | bytes | complex):
            return float(value)
    except Exception:  # of whatever a value does that is asked for its number
        pass
    found = " ".join(repr(value).split())[:60]
    raise UsageError(
        f"the metric '{name}' of a checkpoint is {found} ({type(value).__name__}); it must be one "
        "number"
    )


class Recorder(Protocol):
    """Where news are written down: a session of the record."""

    def event(self, name: str, /, **fields: Any) -> None: ...

    def note(self, line: str) -> None: ...


def record_news(recorder: Recorder, news: News) -> None:
    """Write down what became of a checkpoint, the same whoever owns the loop."""
    match news:
        case Saved():
            recorder.event(
                "checkpoint_saved",
                step=news.step,
                seconds=news.seconds,
                stalled=news.stalled,
                bytes=news.bytes,
            )
            for line in news.notes:
                recorder.note(line)
        case Failed(step=step, error=error):
            recorder.event("checkpoint_failed", step=step, reason=str(error))
            recorder.note(f"checkpoint at step {step} FAILED: {error}")
        case Skipped(step=step, writing=writing):
            recorder.event("checkpoint_skipped", step=step, writing=writing)
        case Waited(step=step, writing=writing, seconds=seconds):
            recorder.event("checkpoint_waited", step=step, writing=writing, seconds=seconds)


class Writing:
    """One checkpoint that is being written, by `start`."""

    def __init__(self, step: int, metrics: Mapping[str, float]) -> None:
        self.step, self.metrics = step, metrics
        self._given_up = threading.Event()
        self._outcome: Saved | Failed | None = None
        self._busy = False
        self._pid = os.getpid()

    def start(self, write: Callable[[], Saved]) -> None:
        """Begin; whatever `write` raises is the outcome."""

        def run() -> None:
            try:
                self._outcome = write()
            except Exception as error:  # of every kind: whoever began it is to hear of it
                self._outcome = Failed(self.step, error)
            finally:
                self._busy = False

        self._busy = True
        thread = threading.Thread(target=run, name=f"cupel-checkpoint-{self.step}")
        try:
            thread.start()
        except RuntimeError as error:  # the system has no more threads, or Python is ending
            self._outcome = Failed(self.step, CheckpointError(f"no thread to write in: {error}"))
            self._busy = False

    @property
    def busy(self) -> bool:
        """Whether it is still being written, by a thread of this process."""
        return self._busy and self._pid == os.getpid()

    def wait(self) -> None:
        """Wait for the end. A Ctrl-C meanwhile ends the writing soon, and goes on its way."""
        # Not the thread's `join`: in Python 3.11 one that is interrupted takes the thread for ended
        # (python/cpython#90882), and Python leaves without it. Nor a lock, since a signal's
        # handler may wait in the midst of this.
        try:
            while self.busy:
                time.sleep(_LOOKS_S)
        except KeyboardInterrupt:
            self._given_up.set()
            raise

    def check(self) -> None:
        """Raise CheckpointError in the writing thread when nobody wants the file any more."""
        if self._given_up.is_set():
            raise CheckpointError(f"the checkpoint of step {self.step} was given up by Ctrl-C")

    def outcome(self) -> Saved | Failed:
        """What became of it, once it is not busy."""
        forked = CheckpointError("a forked child does not write its parent's checkpoint")
        return self._outcome or Failed(self.step, forked)
