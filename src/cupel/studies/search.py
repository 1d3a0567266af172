"""A study's cells asked of Optuna, a few at a time: `advance(source, overrides, root, manifest)`.

The manifest and the runs' records are the whole state of a search. Each time the earlier trials are
told again to an Optuna study in memory, each with the mean of its runs, and the next ones are asked
for: the same history gives the same points, and a search goes on after any kill. Optuna's own
storages are not used. Needs the extra [search].
"""

from __future__ import annotations

import itertools
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module as _import
from pathlib import Path
from statistics import fmean
from typing import Any

from cupel.errors import MissingDependency, UsageError, needing_torch
from cupel.randomness import derive
from cupel.studies.manifest import MANIFEST, Manifest, freeze, load_manifest
from cupel.studies.planned import Cell
from cupel.studies.points import Options, Range, dimension, short_names
from cupel.studies.runs import read_runs
from cupel.studies.settings import SearchSettings, StudySettings
from cupel.studies.spec import plan_study
from cupel.studies.state import study_state
from cupel.wording import as_yaml

Params = dict[str, Any]  # a trial: each setting of the space by its dotted name

SETTLED = ("finished", "diverged", "failed", "cancelled")
_DIGITS = 6  # of a number that is asked for: it stands in names
_TRIES = 50  # questions for each point, before a space counts as used up
_SEEDS = 2**32  # of numpy's generators


def advance(
    source: str | Path,
    overrides: Sequence[str],
    root: Path,
    manifest: Manifest | None,
    *,
    params: Sequence[str] = (),
    tags: Sequence[str] = (),
) -> Manifest | None:
    """The frozen study with its next trials; None when there are none to add.

    There are none when all are asked for, when the space holds no further point, and while a run
    of the study is not settled (accepted, diverged, failed, cancelled). Without a manifest the
    search begins, or the frozen one goes on; then there is always one.

    Raises what `plan_study` and `freeze` raise, and MissingDependency without Optuna.
    """
    given: dict[str, Any] = {"root": root, "params": params, "tags": tags}
    today = plan_study(source, overrides, **given)
    begun = None
    if manifest is None:
        manifest = today
        if (manifest.folder / MANIFEST).exists():
            asked = trials_of(load_manifest(manifest.folder))
            # What is typed today besides may add seeds, arms or trials.
            planned = plan_study(source, overrides, asked=asked, **given)
            manifest = begun = freeze(planned, widen=True)
    if (finished := settled_values(manifest)) is None:
        return begun
    # A frozen plan that nothing was added to keeps the number of trials that it was begun with.
    study = manifest.study.model_copy(update={"search": today.study.search})
    manifest = replace(manifest, study=study)
    earlier, left_out = trials_of(manifest), list[Params]()
    for _ in range(_TRIES):
        asked = next_points(manifest, finished, left_out=left_out)
        if not asked:
            return begun
        planned = plan_study(source, overrides, asked=[*earlier, *asked], **given)
        if len(trials_of(planned)) > len(earlier):
            return freeze(planned, widen=True)
        left_out += asked
    raise UsageError(
        f"study.where leaves out each of {len(left_out)} points that were asked for; narrow "
        "study.search.space to where it holds"
    )


def settled_values(manifest: Manifest) -> dict[str, float | None] | None:
    """{run id: value} of a study all of whose runs are settled; None while one is not.

    The value is NaN of a run that diverged, None of one that has none.
    """
    if not manifest.runs:
        return {}
    if any(state.status not in SETTLED for state in study_state(manifest)):
        return None
    return {found.run.run_id: found.value for found in read_runs(manifest)}


def next_points(
    manifest: Manifest,
    finished: Mapping[str, float | None],
    *,
    left_out: Sequence[Params] = (),
) -> list[Params]:
    """The next trials, at most `study.search.at_once`, each a new point; empty at the end.

    `finished` is as `settled_values` gives it; trials of other runs count as running. A trial is
    worth the mean over its cells of the mean over their seeds. One with a run that diverged counts
    as the worst there has been; one with a cell that has no value, or that is `left_out`, as
    failed: nothing is learned of it.
    """
    search = manifest.study.search
    assert search is not None, manifest.name
    earlier = trials_of(manifest)
    wanted = min(search.at_once, search.trials - len(earlier))
    if wanted <= 0:
        return []
    space = {key: dimension(given) for key, given in search.space.items()}
    worth = _values(manifest, earlier, finished)
    known = dict(zip(map(_key, earlier), worth, strict=True))
    known |= dict.fromkeys(map(_key, left_out), math.nan)
    with _quiet():
        asking = _Asking(manifest.study, space, count=len(earlier))
        # Batch by batch, as they were asked: some samplers learn of whole generations.
        told = list(zip([*earlier, *left_out], [*worth, *[math.nan] * len(left_out)], strict=True))
        for first in range(0, len(told), search.at_once):
            asking.replay(told[first : first + search.at_once])
        found: list[Params] = []
        for _ in range(_TRIES * wanted):
            params = asking.ask(known)
            if params is not None and params not in found:
                found.append(params)
            if len(found) == wanted:
                break
    return found


# ---- Optuna ------------------------------------------------------------------------------------


class _Asking:
    """An Optuna study in memory, told what there has been."""

    def __init__(
        self, study: StudySettings, space: Mapping[str, Range | Options], *, count: int
    ) -> None:
        optuna = _optuna()
        assert study.search is not None
        self._space = space
        self._distributions = {
            key: _distribution(optuna.distributions, one) for key, one in space.items()
        }
        direction = "minimize" if study.primary.better == "lower" else "maximize"
        sampler = _sampler(optuna, study.search, space, count)
        self._study = optuna.create_study(sampler=sampler, direction=direction)
        self._failed = optuna.trial.TrialState.FAIL

    def replay(self, told: Sequence[tuple[Params, float | None]]) -> None:
        """Ask for these very trials, and tell their values: NaN fails, None goes on running."""
        trials = []
        for params, _ in told:
            self._study.enqueue_trial(self._inner(params))
            trials.append(self._study.ask(self._distributions))
        for trial, (_, value) in zip(trials, told, strict=True):
            self._tell(trial, value)

    def ask(self, known: Mapping[str, float | None]) -> Params | None:
        """The next trial; None for one that there was already, which is told its value again."""
        trial = self._study.ask(self._distributions)
        params = {key: self._outer(key, trial.params[key]) for key in self._space}
        if (key := _key(params)) not in known:
            return params
        self._tell(trial, known[key])
        return None

    def _tell(self, trial: Any, value: float | None) -> None:
        if value is not None and math.isnan(value):
            self._study.tell(trial, state=self._failed)
        elif value is not None:
            self._study.tell(trial, value)

    def _inner(self, params: Params) -> Params:
        """A trial as Optuna has it: of options, the place."""
        return {
            key: one.values.index(params[key]) if isinstance(one, Options) else params[key]
            for key, one in self._space.items()
        }

    def _outer(self, key: str, value: Any) -> Any:
        one = self._space[key]
        if isinstance(one, Options):
            return one.values[value]
        if one.whole:
            return int(value)
        return min(max(float(f"{value:.{_DIGITS}g}"), float(one.low)), float(one.high))


def _optuna() -> Any:
    try:
        import optuna
    except ModuleNotFoundError as missing:
        raise MissingDependency("optuna", extra="search", purpose="a search") from missing
    return optuna


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's lines on every trial, and its warnings that a sampler may change."""
    optuna = _optuna()
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


def _sampler(
    optuna: Any, search: SearchSettings, space: Mapping[str, Range | Options], count: int
) -> Any:
    """The declared sampler. What it draws freely is drawn by a seed of its own for each batch,
    since what was drawn before is not drawn again; what it knows of whole generations comes of the
    declared seed and the replay."""
    samplers = optuna.samplers
    drawn = derive(search.seed, "study.search", count) % _SEEDS
    begun = derive(search.seed, "study.search begun") % _SEEDS
    name = search.sampler
    if name == "random":
        return samplers.RandomSampler(seed=drawn)
    if name == "tpe":
        return samplers.TPESampler(seed=drawn)
    freely = {"independent_sampler": samplers.RandomSampler(seed=drawn)}
    quietly = {**freely, "warn_independent_sampling": False}
    if name == "gp":
        with needing_torch("the sampler gp"):
            _import("torch")
        _need("scipy", name)
        return samplers.GPSampler(seed=drawn, **quietly)
    if name == "qmc":
        _need("scipy", name)
        seeded = {"seed": begun, "scramble": True, "warn_asynchronous_seeding": False}
        return samplers.QMCSampler(**seeded, **quietly)
    ranges = [key for key, one in space.items() if isinstance(one, Range)]
    if len(ranges) < 2:
        raise UsageError(
            "study.search.sampler: cmaes needs two ranges or more in study.search.space, which has "
            f"{len(ranges)}; type study.search.sampler=tpe"
        )
    _need("cmaes", name)
    return samplers.CmaEsSampler(seed=begun, **quietly)


def _need(package: str, sampler: str) -> None:
    """Raises MissingDependency when a package that Optuna's sampler imports is not there."""
    try:
        _import(package)
    except ModuleNotFoundError as missing:
        if missing.name != package:
            raise
        purpose = f"the sampler {sampler}"
        raise MissingDependency(package, extra="search", purpose=purpose) from missing


def _distribution(distributions: Any, one: Range | Options) -> Any:
    if isinstance(one, Options):  # by their places, since Optuna wants plain values
        return distributions.CategoricalDistribution(tuple(range(len(one.values))))
    if one.whole:
        return distributions.IntDistribution(int(one.low), int(one.high), log=one.log)
    return distributions.FloatDistribution(float(one.low), float(one.high), log=one.log)


# ---- what there has been -----------------------------------------------------------------------


def trials_of(manifest: Manifest) -> list[Params]:
    """The points of the search that a study has, in their order."""
    reading = _Reading(manifest.study)
    found: dict[str, Params] = {}
    for cell in manifest.cells:
        params = reading.params(cell)
        found.setdefault(_key(params), params)
    return list(found.values())


class _Reading:
    """Reads a cell's trial from the name of its point, where values are written exactly."""

    def __init__(self, study: StudySettings) -> None:
        assert study.search is not None
        short = short_names(study)
        self._space = {key: dimension(given) for key, given in study.search.space.items()}
        self._short = {key: short[key] for key in self._space}

    def params(self, cell: Cell) -> Params:
        """The trial of a cell."""
        return {key: self._value(key, one, cell.point) for key, one in self._space.items()}

    def _value(self, key: str, one: Range | Options, point: str) -> Any:
        begun = f"(?:^|,){re.escape(self._short[key])}="
        if isinstance(one, Options):
            for value in sorted(one.values, key=lambda value: -len(as_yaml(value))):
                if re.search(f"{begun}{re.escape(as_yaml(value))}(?:,|$)", point):
                    return value
        elif match := re.search(f"{begun}([^,]+)", point):
            return int(match[1]) if one.whole else float(match[1])
        raise UsageError(
            f"the point '{point}' of the frozen study has no {key} of study.search.space as it is "
            "now; give the space that it was begun with"
        )


def _key(params: Params) -> str:
    return as_yaml(params)


def _values(
    manifest: Manifest, trials: Sequence[Params], finished: Mapping[str, float | None]
) -> list[float | None]:
    """What each trial is worth: a number, NaN for nothing, None while it runs."""
    reading = _Reading(manifest.study)
    runs: dict[int, list[float | None]] = {}
    waiting: set[int] = set()
    for run in manifest.runs:
        if run.run_id in finished:
            runs.setdefault(run.cell, []).append(finished[run.run_id])
        else:
            waiting.add(run.cell)
    cells: dict[str, list[int]] = {}
    for number, cell in enumerate(manifest.cells):
        cells.setdefault(_key(reading.params(cell)), []).append(number)
    worth, diverged = list[float | None](), set[int]()
    for place, params in enumerate(trials):
        own = cells[_key(params)]
        if waiting.intersection(own):
            worth.append(None)
            continue
        values = [[v for v in runs.get(number, []) if v is not None] for number in own]
        if any(not math.isfinite(v) for v in itertools.chain.from_iterable(values)):
            diverged.add(place)
        worth.append(fmean(map(fmean, values)) if all(values) else math.nan)
    return _with_the_worst(worth, diverged, better=manifest.study.primary.better)


def _with_the_worst(
    worth: list[float | None], diverged: set[int], *, better: str
) -> list[float | None]:
    """Trials that diverged as bad as the worst one; nothing while there is no other."""
    finite = [v for v in worth if v is not None and math.isfinite(v)]
    pick = max if better == "lower" else min
    worst = pick(finite) if finite else math.nan
    return [worst if place in diverged else v for place, v in enumerate(worth)]
