"""A checkpoint on its way to the disk, in a thread, and the news of what became of it.

The thread is no daemon: a Python that ends, by an exception say, first finishes the file.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cupel.errors import CheckpointError


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


class Writing:
    """One checkpoint that is being written, by `start`."""

    def __init__(self, step: int, metrics: Mapping[str, float]) -> None:
        self.step, self.metrics = step, metrics
        self._given_up = threading.Event()
        self._outcome: Saved | Failed | None = None
        self._thread: threading.Thread | None = None

    def start(self, write: Callable[[], Saved]) -> None:
        """Begin; whatever `write` raises is the outcome."""

        def run() -> None:
            try:
                self._outcome = write()
            except Exception as error:
                self._outcome = Failed(self.step, error)

        thread = threading.Thread(target=run, name=f"cupel-checkpoint-{self.step}")
        try:
            thread.start()
        except RuntimeError as error:  # the system has no more threads, or Python is ending
            self._outcome = Failed(self.step, CheckpointError(f"no thread to write in: {error}"))
        else:
            self._thread = thread

    @property
    def busy(self) -> bool:
        """Whether it is still being written."""
        return self._thread is not None and self._thread.is_alive()

    def wait(self) -> None:
        """Wait for the end. A Ctrl-C meanwhile ends the writing soon, and goes on its way."""
        try:
            if self._thread is not None:
                self._thread.join()
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
