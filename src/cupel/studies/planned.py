"""What a study's plan holds: `Cell`, `PlannedRun` and `Manifest`, as it was planned or frozen.

A study may have 100,000 runs, so a cell's settings are kept as the JSON that they are stored as,
and decoded each time they are asked for (about 10 µs). Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import Field, dataclass, field, fields, make_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from cupel.errors import UnknownName
from cupel.studies.settings import StudySettings, unix_seconds

PRIORITY = 100  # of a run for which nothing is said

_decode = msgspec.json.Decoder(dict[str, Any]).decode


def compact(value: Any) -> bytes:
    """The JSON of a plain value in one line, its names in their order."""
    return msgspec.json.encode(value)


class StoredConfig(Mapping[str, Any]):
    """Settings as compact JSON: a mapping that is decoded when it is read, and not kept so."""

    __slots__ = ("stored",)

    def __init__(self, stored: bytes) -> None:
        self.stored = stored

    def __getitem__(self, name: str) -> Any:
        return _decode(self.stored)[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_decode(self.stored))

    def __len__(self) -> int:
        return len(_decode(self.stored))

    def items(self) -> Any:
        """As of a dict; the settings are decoded once."""
        return _decode(self.stored).items()

    def plain(self) -> dict[str, Any]:
        """All of it as a dict of the caller's own."""
        return _decode(self.stored)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, StoredConfig) and self.stored == other.stored:
            return True
        return isinstance(other, Mapping) and self.plain() == dict(other)

    __hash__ = None  # type: ignore[assignment]  # a mapping, like a dict

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        return self.plain()  # so that `dataclasses.asdict` gives what can be written as JSON

    def __repr__(self) -> str:
        return f"StoredConfig({self.plain()!r})"


@dataclass(frozen=True, slots=True)
class Cell:
    """One arm at one point of the study: the settings that all its seeds share."""

    arm: str
    point: str  # "" when the study has one point, else as "lr=0.001,width=128"
    changes: Mapping[str, Any]  # what the arm and the point set, by dotted name
    config: Mapping[str, Any]  # everything, resolved; `seed` in it is the first seed

    @property
    def stored(self) -> bytes:
        """The settings as compact JSON."""
        config = self.config
        return config.stored if isinstance(config, StoredConfig) else compact(dict(config))


class PlannedRun(msgspec.Struct, frozen=True, gc=False):
    """One run of a study: a cell with a seed.

    A struct is read in a fifth of the time of a dataclass; `dataclasses.asdict` and `replace` take
    it for one.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    run_id: str  # <study>-<arm>-<point>-s<seed>-<hash8>
    arm: str
    point: str
    seed: int
    identity: str  # of the run's resolved recipe
    cell: int  # index into `Manifest.cells`
    priority: int = PRIORITY  # higher runs first
    tags: tuple[str, ...] = ()
    fold: int | None = None  # of a cross-validation, from 0


PlannedRun.__dataclass_fields__ = {
    one.name: one for one in fields(make_dataclass("_", PlannedRun.__struct_fields__))
}


@dataclass(frozen=True)
class Manifest:
    """A study as it was planned, or as it was frozen and widened since."""

    folder: Path  # runs/<project>/studies/<name>
    name: str
    project: str
    about: str
    study: StudySettings
    cells: tuple[Cell, ...]
    runs: tuple[PlannedRun, ...]
    created: float
    parts: int = field(default=1, compare=False)  # files that it was read from
    frozen_hash: str | None = field(default=None, compare=False)  # as it stands in the last file

    @property
    def root(self) -> Path:
        """The record root that project and study lie in."""
        return self.folder.parents[2]

    @property
    def baseline(self) -> str:
        """The arm that others are held against: the declared one, else the first."""
        return self.study.compare.baseline or next(iter(self.study.arms))

    @property
    def not_before(self) -> float | None:
        """When the first run may begin, in Unix seconds; None when there is nothing to wait for."""
        text = self.study.not_before
        return None if text is None else unix_seconds(text)

    @property
    def hash(self) -> str:
        """SHA-256 (hex) of what decides: see `cupel.studies.stored.hash_of`."""
        return self.frozen_hash or self._computed_hash

    @cached_property
    def _computed_hash(self) -> str:
        from cupel.studies.stored import hash_of

        return hash_of(self.study.model_dump(mode="json"), self.cells, self.runs)

    def run_dir(self, run: PlannedRun) -> Path:
        """The folder of a run, whether it is there or not."""
        return self.root / self.project / run.run_id

    def run(self, run_id: str) -> PlannedRun:
        """The planned run of an id. Raises UnknownName."""
        if run := self._by_id.get(run_id):
            return run
        raise UnknownName(f"run of study {self.name}", run_id, self._by_id)

    @cached_property
    def _by_id(self) -> dict[str, PlannedRun]:
        return {run.run_id: run for run in self.runs}

    def config_of(self, run: PlannedRun) -> dict[str, Any]:
        """The resolved configuration of a run."""
        return {**dict(self.cells[run.cell].config.items()), "seed": run.seed}
