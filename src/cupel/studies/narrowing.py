"""Which runs of a study are meant: filters over arm, seed, fold and settings, and `select`.

    arm=wave and lr<=0.1        an axis may be called by the name that points show it with
    train.optimizer.lr=0.05     any setting of the cell, by its dotted name
    seed in [1,2] and fold=0

The language is that of `cupel runs ls`, see `cupel.record.filters`. A name that no run knows is
refused, so that a slip of the pen does not silently mean all runs, or none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cupel.errors import UnknownName, UsageError
from cupel.origins import DEFAULT, planted
from cupel.record.filters import Filter, parse
from cupel.studies.planned import Manifest, PlannedRun
from cupel.studies.points import FOLD, short_names

_OF_RUNS = ("arm", "point", "seed", FOLD, "priority", "tag")  # known besides the settings


@dataclass(frozen=True, slots=True)
class Subject:
    """What a filter can ask of a cell, or of a run, which has a seed besides."""

    arm: str
    point: str
    config: Mapping[str, Any]
    axes: Mapping[str, str]  # short name → dotted name
    fold: int | None = None
    seed: int | None = None
    priority: int | None = None
    tags: tuple[str, ...] | None = None

    def value(self, name: str) -> Any:
        """A value by its name; None when there is none."""
        if name == "tag":
            return self.tags
        if name in _OF_RUNS:
            return getattr(self, name)
        return self._setting(name)[1]

    def knows(self, name: str) -> bool:
        """Whether there is something of that name, even if it is null."""
        if name in _OF_RUNS:
            return self.value(name) is not None
        return self._setting(name)[0]

    def names(self) -> list[str]:
        """All that can be asked for."""
        leaves = planted(dict(self.config.items()), DEFAULT).leaves()
        own = [name for name in _OF_RUNS if self.value(name) is not None]
        return [*own, *self.axes, *(".".join(path) for path, _ in leaves)]

    def _setting(self, name: str) -> tuple[bool, Any]:
        node: Any = self.config
        for part in self.axes.get(name, name).split("."):
            if not isinstance(node, Mapping) or part not in node:
                return False, None
            node = node[part]
        return not isinstance(node, Mapping), node


def subject_of(manifest: Manifest, run: PlannedRun, axes: Mapping[str, str]) -> Subject:
    """What filters can ask of a planned run."""
    config = manifest.cells[run.cell].config
    return Subject(run.arm, run.point, config, axes, run.fold, run.seed, run.priority, run.tags)


def axes_of(manifest: Manifest) -> dict[str, str]:
    """The axes of a study, by the names that its points show them with."""
    return {short: key for key, short in short_names(manifest.study).items()}


def unknown(filters: Iterable[Filter], subjects: Sequence[Subject]) -> list[UnknownName]:
    """The names in filters that no subject knows, as errors that list known ones."""
    asked = dict.fromkeys(name for one in filters for name in sorted(one.names()))
    missing = [name for name in asked if not any(one.knows(name) for one in subjects)]
    return unknown_names(missing, subjects)


def unknown_names(names: Sequence[str], subjects: Sequence[Subject]) -> list[UnknownName]:
    """An error for each of the names, with what one subject of each arm knows."""
    samples = {one.arm: one for one in reversed(subjects)} if names else {}
    known = list(dict.fromkeys(name for one in samples.values() for name in one.names()))
    return [UnknownName("axis or setting", name, known) for name in names]


def select(
    manifest: Manifest,
    *,
    arms: Sequence[str] = (),
    tags: Sequence[str] = (),
    where: Sequence[str] = (),
    seeds: Sequence[int] = (),
) -> list[PlannedRun]:
    """Runs of a planned or frozen study, in its order: of one of the arms, with one of the seeds,
    with all of the tags, for which all filters hold. What is not given leaves nothing out.

    Raises UnknownName for an arm, a seed, a tag or a name in a filter that the study does not
    have, UsageError when nothing is left.
    """
    for kind, given, known in (
        ("arm", arms, {run.arm for run in manifest.runs}),
        ("seed", map(str, seeds), {str(run.seed) for run in manifest.runs}),
        ("tag", tags, {tag for run in manifest.runs for tag in run.tags}),
    ):
        for name in given:
            if name not in known:
                raise UnknownName(f"{kind} of study {manifest.name}", name, known)
    chosen = [
        run
        for run in manifest.runs
        if (not arms or run.arm in arms)
        and (not seeds or run.seed in seeds)
        and set(tags) <= set(run.tags)
    ]
    chosen = _where(manifest, chosen, [parse(text) for text in where])
    if not chosen:
        raise UsageError(
            f"no run of study {manifest.name} is in all of what was asked for; leave some of it out"
        )
    return chosen


def _where(
    manifest: Manifest, runs: Sequence[PlannedRun], filters: Sequence[Filter]
) -> list[PlannedRun]:
    if not filters:
        return list(runs)
    axes = axes_of(manifest)
    # Of all runs, not of those that are left: a name is not unknown for being another arm's.
    first = {run.cell: run for run in reversed(manifest.runs)}
    subjects = {cell: _decoded(subject_of(manifest, run, axes)) for cell, run in first.items()}
    if missing := unknown(filters, list(subjects.values())):
        raise missing[0]

    def holds(run: PlannedRun) -> bool:
        one = replace(subjects[run.cell], seed=run.seed, priority=run.priority, tags=run.tags)
        return all(each.matches(one.value) for each in filters)

    return [run for run in runs if holds(run)]


def _decoded(subject: Subject) -> Subject:
    """The subject with settings that are decoded once, not each time one is asked for."""
    return replace(subject, config=dict(subject.config.items()))


def axis_overrides(params: Sequence[str]) -> list[str]:
    """Each `a.b=v1,v2` as the override that makes it an axis of the study's grid.

    Values are YAML: `[1,2],[3,4]` are two lists. Raises UsageError.
    """
    return [_axis_override(text) for text in params]


def _axis_override(text: str) -> str:
    key, equals, values = text.partition("=")
    key = key.strip().removeprefix("study.grid.")
    if not equals or not all(key.split(".")) or not values.strip():
        raise UsageError(f"'{text}' is no axis; type --param section.name=value,value")
    if "\n" in values or " #" in values:
        raise UsageError(f"'{text}' is no axis: its values stand on one line, without comments")
    return f"study.grid.{key}=[{values}]"
