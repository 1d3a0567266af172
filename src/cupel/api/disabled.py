"""A run that records nothing: of `mode="disabled"`, and of the ranks that leave it to rank 0.

It takes the same calls, checks what is given only as far as it costs nothing, and writes nothing
but what the script itself puts into `dir`, a temporary folder that is made when it is asked for and
deleted at the end. A rank restores the checkpoints of rank 0's run; saving them is rank 0's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from cupel.api.config import Config
from cupel.api.run import Run
from cupel.api.summary import Summary
from cupel.errors import UsageError
from cupel.record.session import Session


class NoSession:
    """Has a session's methods, and does nothing in them."""

    run_id = "disabled"
    number = 1
    resumed = False
    rank = 0
    problems: Mapping[str, int] = {}

    def superseded(self) -> bool:
        return False

    def _nothing(self, *_: Any, **__: Any) -> None:
        pass

    log = event = note = problem = begin_at = describe = write_run_json = _nothing
    finish = set_summary = set_config = define_metric = _nothing


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
        super().__init__(cast(Session, NoSession()), config=config, leads=False, **facts)
        self._config = Config(config)
        self._summary = Summary(lambda values: None, dict)
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
        self, metrics: Mapping[str, Any], step: int | None = None, commit: bool | None = None
    ) -> None:
        """Only counts steps. Raises UsageError for metrics that are no dict."""
        if not isinstance(metrics, Mapping):
            raise UsageError(f"log() takes a dict, not a {type(metrics).__name__}")
        if not self.finished:
            self._place(None if step is None else int(step), commit)

    def log_at(self, metrics: Mapping[str, Any], step: int, t: float | None) -> None:
        """Only counts steps."""
        self.log(metrics, max(step, 0))

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

    def save_checkpoint(self, metrics: Mapping[str, float] | None = None) -> Path:
        """Saves nothing; where rank 0's would be."""
        return self.dir / "checkpoints"

    def steps(self, total: int, *, save_every: int | None = None) -> Iterator[int]:
        """The steps still to make; signals keep their usual meaning."""
        self._check_open()
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

    def _describe(self, **changes: Any) -> None:
        self._about |= changes

    def _log_media(self, key: str, makes: Any, step: int | None) -> None:
        """Makes nothing."""

    def _clean_up(self) -> None:
        if self._folder is not None:
            self._folder.cleanup()
