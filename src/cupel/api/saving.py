"""The checkpoints of a loop of one's own: taken in memory, written in a thread, heard of later.

The same room as that of cupel's loop. What became of a checkpoint is recorded at the next one,
between two steps of `steps()`, and at the end of the run. One that could not be written is told on
stderr, and the next may succeed; only what nothing follows is raised, by `close`. torch comes in
with the first part that is registered. For one thread.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cupel.api.ending import finish_before_sigterm, leave_sigterm
from cupel.errors import CheckpointError, Superseded, needing_torch
from cupel.record.checkpoints import step_dir
from cupel.record.session import Session

if TYPE_CHECKING:
    from cupel.checkpoint.parts import Parts
    from cupel.checkpoint.room import CheckpointRoom, Restored
    from cupel.checkpoint.writing import News


class Saving:
    """Saves and restores what is registered.

    `place()` is where the run lies now; `settings` are fields of `CheckpointSettings`, checked.
    A rank that does not lead (`leads`) saves nothing, and neither do its random states.
    """

    def __init__(
        self,
        session: Session,
        *,
        place: Callable[[], Path],
        settings: Mapping[str, Any],
        leads: bool,
    ) -> None:
        self._session, self._place, self._settings = session, place, settings
        self._leads = leads
        self._opened: tuple[CheckpointRoom, Parts] | None = None
        self._lost: Exception | None = None  # why the newest that was taken is not on the disk

    def register(self, named: Mapping[str, Any]) -> None:
        """Name what the checkpoints hold."""
        _, parts = self._open()
        for name, part in named.items():
            parts.register(name, part)

    def restore(self, *, step: int | None) -> Restored | None:
        """Load the newest intact checkpoint, or that of a step; see `CheckpointRoom.restore`."""
        room, parts = self._open()
        room.wait()
        self.hear()
        return room.restore(parts, step=step)

    def prepare(self) -> None:
        """Get the memory for copies in a thread, so that the first one is fast."""
        room, parts = self._open()
        room.prepare(parts)

    def save(self, step: int, metrics: Mapping[str, float], *, wait: bool) -> Path:
        """Take a checkpoint: the folder where it will be, or is when this waits for the disk.

        One that is skipped, as the settings may say, gives the folder of the one being written.
        Raises CheckpointError when this one cannot be taken, or with `wait` written; and
        Superseded.
        """
        room, parts = self._open()
        if wait:
            room.wait()
        self.hear()
        if wait:
            self._write(room, parts, step, metrics)
        else:
            step = self._begin(room, parts, step, metrics)
        return step_dir(self._place(), step)

    def hear(self) -> None:
        """Record and tell what became of those that were taken. Raises Superseded."""
        _tell(_failures(self._heard()))

    def close(self) -> Exception | None:
        """Wait for what is being written; why the last one that was taken is not on the disk.

        A Ctrl-C meanwhile gives it up, which is recorded, and goes on its way.
        """
        if self._opened is None:
            return None
        room, _ = self._opened
        try:
            room.wait()
        except KeyboardInterrupt:
            room.wait()  # its thread looks every few megabytes whether it shall go on
            for error in _failures(self._heard()):
                _say(error)
            raise
        finally:
            leave_sigterm(room.wait)
        for error in _failures(self._heard()):
            if error is not self._lost:
                _say(error)
        lost, self._lost = self._lost, None
        return lost

    def hashes(self) -> dict[str, str] | None:
        """A hash of every registered part; None when nothing was ever registered."""
        return None if self._opened is None else self._opened[1].hashes()

    def _open(self) -> tuple[CheckpointRoom, Parts]:
        if self._opened is None:
            with needing_torch("saving checkpoints"):
                from cupel.api.random_states import RandomStates
                from cupel.checkpoint.parts import Parts
                from cupel.checkpoint.room import CheckpointRoom
                from cupel.checkpoint.settings import CheckpointSettings
            room = CheckpointRoom(
                self._place,
                settings=CheckpointSettings.model_validate(self._settings),
                superseded=self._session.superseded,
            )
            self._opened = room, Parts()
            self._opened[1].register("random", RandomStates() if self._leads else _Nothing())
        return self._opened

    def _begin(
        self, room: CheckpointRoom, parts: Parts, step: int, metrics: Mapping[str, float]
    ) -> int:
        """Take one and let training go on; its step, or that of the one it was left out for."""
        from cupel.checkpoint.writing import Failed, Skipped

        finish_before_sigterm(room.wait)
        taken = room.begin(step, parts, metrics=metrics)
        heard = self._heard()
        if taken:
            _tell(_failures(heard))
            return step
        for news in heard:
            if isinstance(news, Skipped):
                _tell(_failures(heard))
                return news.writing
        *before, own = (news for news in heard if isinstance(news, Failed))
        _tell(_failures(before))
        self._lost = None  # it is known now
        raise own.error

    def _write(
        self, room: CheckpointRoom, parts: Parts, step: int, metrics: Mapping[str, float]
    ) -> None:
        from cupel.checkpoint.writing import Failed, record_news

        self._lost = None
        try:
            saved = room.save(step, parts, metrics=metrics)
        except (CheckpointError, Superseded) as error:
            record_news(self._session, Failed(step, error))
            raise
        record_news(self._session, saved)

    def _heard(self) -> list[News]:
        """The news, recorded."""
        heard = [] if self._opened is None else self._opened[0].news()
        if not heard:  # as between nearly all steps
            return []
        from cupel.checkpoint.writing import Failed, Saved, record_news

        for news in heard:
            record_news(self._session, news)
            if isinstance(news, Failed):
                self._lost = news.error
            elif isinstance(news, Saved):
                self._lost = None
        return heard


class _Nothing:
    """Stands for the random states of rank 0 in a rank whose own are not saved."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Any) -> None:
        pass


def _failures(heard: Iterable[News]) -> list[Exception]:
    from cupel.checkpoint.writing import Failed

    return [news.error for news in heard if isinstance(news, Failed)]


def _tell(failures: Iterable[Exception]) -> None:
    """What could not be written is told; whatever else ends a checkpoint, ends the run."""
    for error in failures:
        if not isinstance(error, CheckpointError):  # Superseded, or a mistake of ours
            raise error
        _say(error)


def _say(error: Exception) -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):  # no stderr, or a closed one
        sys.stderr.write(f"cupel: {error}\n")
