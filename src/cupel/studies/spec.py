"""Plans a study: `plan_study(recipe, overrides)` gives its manifest, every run validated.

A cell is the recipe with an arm laid over it, then a point, then what was typed: the command line
wins over everything, so `train.steps=50` means all arms. Each cell is checked like a recipe of its
own, which takes 3 to 10 ms, and all mistakes are told together. Nothing is written and torch is not
imported.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cupel.compose import STUDY, layers, recipe_error
from cupel.config import validate_section
from cupel.errors import UnknownName, UsageError
from cupel.origins import COMMAND_LINE, Branch, Leaf, Problem, overlay, placed
from cupel.studies import arms as arms_of
from cupel.studies import points as points_of
from cupel.studies.checking import LONGEST_TAG, Cells, Draft, Planned, is_tag, rules_of
from cupel.studies.manifest import Manifest, PlannedRun, study_dir
from cupel.studies.narrowing import axis_overrides
from cupel.studies.points import Point, origin_of
from cupel.studies.settings import StudySettings

THREADS = ("train", "threads")

Tell = Callable[[int, int], None]  # cells that are checked, of how many


def is_study(composed: Branch) -> bool:
    """Whether a composed recipe has a section `study`."""
    return STUDY in composed.children


def plan_study(
    source: str | Path,
    overrides: Sequence[str] = (),
    *,
    root: Path,
    params: Sequence[str] = (),
    arms: Sequence[str] = (),
    tags: Sequence[str] = (),
    asked: Sequence[Mapping[str, Any]] = (),
    tell: Tell | None = None,
) -> Manifest:
    """Every run of a study, validated; nothing is written.

    `params` are axes of the grid, `a.b=v1,v2`, beside those of the recipe or in their place; of
    the arms only the named ones are planned, when some are; `tags` are given to every run beside
    the study's. `asked` are the points that a search asks for, without which a study that
    searches has no cells yet. `tell` is called now and then with what is checked, of how much.

    Raises RecipeError with a line for each mistake in the study or in one of its cells,
    UnknownName for a recipe or an arm that does not exist, UsageError for one that is no study.
    """
    recipe, above = layers(source, [*overrides, *axis_overrides(params)])
    composed = points_of.dotted(overlay(recipe, above))
    if not is_study(composed):
        raise UsageError(f"{source} is one run and no study; type: cupel run {source}")
    study = validate_section(STUDY, StudySettings, composed)
    typed = without_study(above)
    rules, unreadable = rules_of(study, composed)
    if problems := [*_mistakes(study, composed), *_typed_in_vain(study, typed), *unreadable]:
        raise recipe_error(problems)
    study, composed = arms_of.written_out(study, composed, source=source)
    study = _only(study, arms)
    study = study.model_copy(update={"tags": tuple(dict.fromkeys((*study.tags, *tags)))})

    points = list(points_of.points(study, composed, source=source, asked=_asked(study, asked)))
    cells, count = Cells(study, composed, rules), len(study.arms) * len(points)
    base = without_study(recipe)
    for number, (arm, point) in enumerate(itertools.product(study.arms, points), 1):
        cells.take(_laid(base, arm, point, typed, composed, study))
        if tell is not None and (number % 100 == 0 or number == count):
            tell(number, count)
    first = cells.checked()
    planned = cells.planned if study.search is None or asked else []
    return Manifest(
        folder=study_dir(root, first.project, first.name),
        name=first.name,
        project=first.project,
        about=first.about,
        study=_kept(study, planned) if planned else study,
        cells=tuple(one.cell for one in planned),
        runs=tuple(_runs(study.seeds, planned)),
        created=time.time(),
    )


def without_study(composed: Branch) -> Branch:
    """The recipe that the arms of a study change."""
    children = {name: child for name, child in composed.children.items() if name != STUDY}
    return replace(composed, children=children)


def _asked(study: StudySettings, asked: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """The points to search at; before it begins one, by which the settings are checked."""
    assert not asked or study.search, asked
    return asked or ([points_of.middle(study.search)] if study.search else [])


def _only(study: StudySettings, arms: Sequence[str]) -> StudySettings:
    """The study with the named arms alone. Raises UnknownName, UsageError for a lost baseline."""
    for name in arms:
        if name not in study.arms:
            raise UnknownName("arm", name, study.arms)
    return _with_arms(study, arms) if arms else study


def _with_arms(study: StudySettings, arms: Iterable[str]) -> StudySettings:
    kept = {name: own for name, own in study.arms.items() if name in arms}
    baseline = study.compare.baseline
    if baseline is not None and baseline not in kept:
        raise UsageError(
            f"the arm '{baseline}', which the others are compared with, is left out; keep it, or "
            f"type study.compare.baseline={next(iter(kept))}"
        )
    return study.model_copy(update={"arms": kept})


def _runs(seeds: Sequence[int], planned: Sequence[Planned]) -> Iterator[PlannedRun]:
    """Seed by seed, so that a study which is stopped early has whole pairs."""
    for seed in seeds:
        yield from (one.runs[seed] for one in planned if seed in one.runs)


def _kept(study: StudySettings, planned: Sequence[Planned]) -> StudySettings:
    """The study with the arms and seeds alone of which filters left something."""
    seeds = {seed for one in planned for seed in one.runs}
    study = study.model_copy(update={"seeds": tuple(s for s in study.seeds if s in seeds)})
    arms = {one.cell.arm for one in planned}
    return study if arms == set(study.arms) else _with_arms(study, arms)


# ---- one cell's tree ---------------------------------------------------------------------------


def _laid(
    base: Branch, arm: str, point: Point, typed: Branch, composed: Branch, study: StudySettings
) -> Draft:
    """One cell, composed. Its seed is the study's first, its threads the study's unless given."""
    _, own = composed.nearest((STUDY, "arms", arm))
    assert isinstance(own, Branch), (arm, own)  # StudySettings took it for a mapping
    whole = overlay(overlay(overlay(base, own), point.settings), typed)
    whole = overlay(whole, placed(["seed"], Leaf(study.seeds[0], origin_of(composed, "seeds"))))
    section = whole.children.get(THREADS[0])
    # Something else in the section's place stays there, to be refused.
    if not isinstance(section, Leaf) and whole.nearest(THREADS)[0] < len(THREADS):
        whole = overlay(whole, placed(THREADS, Leaf(study.threads, origin_of(composed, "threads"))))
    return Draft(arm, point, overlay(own, point.settings), whole)


# ---- what is refused ---------------------------------------------------------------------------


def _mistakes(study: StudySettings, composed: Branch) -> Iterator[Problem]:
    """What the settings' own types cannot say."""
    yield from arms_of.mistakes(study, composed)
    for key, path in points_of.axes(study).items():
        if key.split(".")[0] in arms_of.OF_THE_STUDY:
            at = origin_of(composed, *path.split(".", 1))
            told = path if path.endswith(key) else f"{path}: {key}"
            yield Problem(at, f"study.{told}: {arms_of.belongs(key.split('.')[0])}")
    yield from points_of.mistakes(study, composed)
    yield from _wrong_seeds(study.seeds, composed)
    for tag in study.tags:
        if not is_tag(tag):
            rule = f"give 1 to {LONGEST_TAG} printable characters"
            yield Problem(origin_of(composed, "tags"), f"study.tags: {tag!r} is no tag; {rule}")


def _wrong_seeds(seeds: Sequence[int], composed: Branch) -> Iterator[Problem]:
    at = origin_of(composed, "seeds")
    _, written = composed.nearest((STUDY, "seeds"))
    if isinstance(written, Leaf) and any(isinstance(seed, bool) for seed in written.value):
        yield Problem(at, "study.seeds: true and false are not numbers")
    if wrong := [seed for seed in seeds if not 0 <= seed < 2**63]:
        yield Problem(at, f"study.seeds: {wrong[0]} is out of range; a seed is 0 to 2**63 - 1")
    if twice := sorted({seed for seed in seeds if list(seeds).count(seed) > 1}):
        yield Problem(at, f"study.seeds: {', '.join(map(str, twice))} is there more than once")


def _typed_in_vain(study: StudySettings, typed: Branch) -> Iterator[Problem]:
    """What was typed for all arms though it differs between the runs."""
    if "seed" in typed.children:
        yield Problem(COMMAND_LINE, "seed: a study has several; type study.seeds=[1, 2, 3]")
    for key, path in points_of.axes(study).items():
        depth, node = typed.nearest(key.split("."))
        if depth == len(key.split(".")) or isinstance(node, Leaf):
            source = path.split(".")[0]
            asked = f"it is an axis of the study's {source}"
            if source in ("grid", "zip"):
                asked += f"; type study.{path}=[…]"
            yield Problem(COMMAND_LINE, f"{key}: {asked}")
