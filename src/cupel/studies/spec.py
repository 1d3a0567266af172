"""Plans a study: `plan_study(recipe, overrides)` gives its manifest, every run validated.

A cell is the recipe with an arm laid over it, then a point of the grid, then what was typed: the
command line wins over everything, so `train.steps=50` means all arms. Each cell is checked like a
recipe of its own, and all mistakes are told together. Nothing is written and torch is not imported.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cupel.compose import STUDY, layers, recipe_error, with_groups
from cupel.config import Recipe, validate, validate_section
from cupel.errors import RecipeError, UnknownName, UsageError
from cupel.names import refusal
from cupel.origins import (
    COMMAND_LINE,
    DEFAULT,
    Branch,
    Leaf,
    Origin,
    Problem,
    overlay,
    placed,
    planted,
)
from cupel.record.layout import slug
from cupel.studies.manifest import Cell, Manifest, PlannedRun, study_dir
from cupel.studies.settings import StudySettings
from cupel.wording import as_yaml

# What belongs to the study as a whole, and so to no arm and no point of the grid.
_OF_THE_STUDY = ("name", "about", "project", "seed", "extends", STUDY)
_ARM = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
THREADS = ("train", "threads")
_SHORT = 24  # characters of the study's name and of the point in a run's id


@dataclass(frozen=True, slots=True)
class _Draft:
    """One cell before it is checked: `changes` is what arm and point set, `composed` all of it."""

    arm: str
    point: str
    changes: Branch
    composed: Branch


def is_study(composed: Branch) -> bool:
    """Whether a composed recipe has a section `study`."""
    return STUDY in composed.children


def plan_study(source: str | Path, overrides: Sequence[str] = (), *, root: Path) -> Manifest:
    """Every run of a study, validated; nothing is written.

    Raises RecipeError with a line for each mistake in the study or in one of its cells,
    UnknownName for a recipe that does not exist, UsageError for one that is no study.
    """
    recipe, above = layers(source, overrides)
    composed = _with_dotted_grid(overlay(recipe, above))
    if not is_study(composed):
        raise UsageError(f"{source} is one run and no study; type: cupel run {source}")
    study = validate_section(STUDY, StudySettings, composed)
    typed = without_study(above)
    if problems := [*_mistakes(study, composed), *_typed_in_vain(study, typed)]:
        raise recipe_error(problems)
    points = list(_points(composed, source))
    drafts = [
        _laid(without_study(recipe), arm, point, typed, composed, study)
        for arm in study.arms
        for point in points
    ]
    recipes = _validated(drafts)
    _refuse_equal_cells(drafts, recipes)
    first = recipes[0]
    return Manifest(
        folder=study_dir(root, first.project, first.name),
        name=first.name,
        project=first.project,
        about=first.about,
        study=study,
        cells=tuple(itertools.starmap(_cell, zip(drafts, recipes, strict=True))),
        runs=tuple(_runs(study.seeds, drafts, recipes)),
        created=time.time(),
    )


def without_study(composed: Branch) -> Branch:
    """The recipe that the arms of a study change."""
    children = {name: child for name, child in composed.children.items() if name != STUDY}
    return replace(composed, children=children)


# ---- one cell's tree ---------------------------------------------------------------------------


def _laid(
    base: Branch,
    arm: str,
    point: tuple[str, Branch],
    typed: Branch,
    composed: Branch,
    study: StudySettings,
) -> _Draft:
    """One cell, composed. Its seed is the study's first, its threads the study's unless given."""
    _, own = composed.nearest((STUDY, "arms", arm))
    assert isinstance(own, Branch), (arm, own)  # StudySettings took it for a mapping
    whole = overlay(overlay(overlay(base, own), point[1]), typed)
    whole = overlay(whole, placed(["seed"], Leaf(study.seeds[0], _origin(composed, "seeds"))))
    section = whole.children.get(THREADS[0])
    # Something else in the section's place stays there, to be refused.
    if not isinstance(section, Leaf) and whole.nearest(THREADS)[0] < len(THREADS):
        whole = overlay(whole, placed(THREADS, Leaf(study.threads, _origin(composed, "threads"))))
    return _Draft(arm, point[0], overlay(own, point[1]), whole)


def _points(composed: Branch, source: str | Path) -> Iterator[tuple[str, Branch]]:
    """Every point of the grid as text ("lr=0.001,width=128") and as settings, the first axis
    slowest; without a grid one point that sets nothing."""
    depth, grid = composed.nearest((STUDY, "grid"))
    axes = grid.children if depth == 2 and isinstance(grid, Branch) else {}
    short = _short_names(list(axes))
    every = [[(key, leaf, value) for value in leaf.value] for key, leaf in _lists(axes)]
    for chosen in itertools.product(*every):
        settings = Branch({}, grid.origin)
        for key, leaf, value in chosen:
            node = planted({"": value}, leaf.origin).children[""]
            settings = overlay(settings, placed(key.split("."), node))
        text = ",".join(f"{short[key]}={as_yaml(value)}" for key, _, value in chosen)
        yield text, with_groups(settings, source=source)


def _lists(axes: Mapping[str, Leaf | Branch]) -> Iterator[tuple[str, Leaf]]:
    for key, leaf in axes.items():
        assert isinstance(leaf, Leaf), (key, leaf)  # StudySettings took it for a list
        yield key, leaf


def _short_names(keys: Sequence[str]) -> dict[str, str]:
    """Each dotted name by its last part, or by more where two would be one."""
    short = {}
    for key in keys:
        parts = key.split(".")
        ends = (".".join(parts[-n:]) for n in range(1, len(parts) + 1))
        short[key] = next(
            end for end in ends if [k for k in keys if f".{k}".endswith(f".{end}")] == [key]
        )
    return short


def _with_dotted_grid(composed: Branch) -> Branch:
    """The study's grid by dotted names, also where it is nested: `study.grid.train.steps=[1, 2]`
    is typed like any other override."""
    study = composed.children.get(STUDY)
    grid = study.children.get("grid") if isinstance(study, Branch) else None
    if not isinstance(study, Branch) or not isinstance(grid, Branch):
        return composed
    dotted = Branch({".".join(path): leaf for path, leaf in grid.leaves()}, grid.origin)
    full = replace(study, children={**study.children, "grid": dotted})
    return replace(composed, children={**composed.children, STUDY: full})


def _origin(composed: Branch, *path: str) -> Origin:
    """Where a setting of the study was written."""
    depth, node = composed.nearest((STUDY, *path))
    return node.origin if depth == 1 + len(path) else DEFAULT


# ---- what is refused ---------------------------------------------------------------------------


def _mistakes(study: StudySettings, composed: Branch) -> Iterator[Problem]:
    """What the settings' own types cannot say."""
    for arm in study.arms:
        at = _origin(composed, "arms", arm)
        if not _ARM.fullmatch(arm):
            rule = "small letters, digits, - and _, at most 40, a letter or digit first"
            yield Problem(at, f"study.arms: '{arm}' cannot be an arm's name: {rule}")
        for name in _OF_THE_STUDY:
            if name in study.arms[arm]:
                yield Problem(at, f"study.arms.{arm}.{name}: {_belongs(name)}")
    for key, values in study.grid.items():
        at = _origin(composed, "grid", key)
        if key.split(".")[0] in _OF_THE_STUDY:
            yield Problem(at, f"study.grid.{key}: {_belongs(key.split('.')[0])}")
        if not values:
            yield Problem(at, f"study.grid.{key}: has no values; give some, or leave it out")
        if twice := {as_yaml(one): None for n, one in enumerate(values) if one in values[:n]}:
            yield Problem(at, f"study.grid.{key}: {', '.join(twice)} is there more than once")
    yield from _wrong_seeds(study.seeds, composed)
    baseline = study.compare.baseline
    if baseline is not None and baseline not in study.arms:
        told = str(UnknownName("arm", baseline, study.arms))
        yield Problem(_origin(composed, "compare", "baseline"), f"study.compare.baseline: {told}")


def _wrong_seeds(seeds: Sequence[int], composed: Branch) -> Iterator[Problem]:
    at = _origin(composed, "seeds")
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
    for key in study.grid:
        depth, node = typed.nearest(key.split("."))
        if depth == len(key.split(".")) or isinstance(node, Leaf):
            asked = f"it is an axis of the study's grid; type study.grid.{key}=[…]"
            yield Problem(COMMAND_LINE, f"{key}: {asked}")


def _belongs(name: str) -> str:
    if name == "seed":
        return "the seeds of all arms are study.seeds"
    if name == "extends":
        return "an arm changes settings and groups; it extends no recipe"
    return "it belongs to the study as a whole; write it at the top of the recipe"


def _validated(drafts: Sequence[_Draft]) -> list[Recipe]:
    """Every cell's recipe. Raises RecipeError with the mistakes of all cells, each once."""
    recipes: list[Recipe] = []
    problems: list[str] = []
    for draft in drafts:
        try:
            recipes.append(validate(draft.composed))
        except RecipeError as error:
            problems += error.problems
    if problems:
        raise RecipeError(list(dict.fromkeys(problems)))
    return recipes


def _refuse_equal_cells(drafts: Sequence[_Draft], recipes: Sequence[Recipe]) -> None:
    seen: dict[str, str] = {}
    for draft, recipe in zip(drafts, recipes, strict=True):
        name = f"{draft.arm} at {draft.point}" if draft.point else draft.arm
        identity = recipe.identity()
        if identity in seen:
            raise UsageError(
                f"the arms {seen[identity]} and {name} have equal settings, so there is nothing "
                "to compare; change one of them, or leave it out"
            )
        seen[identity] = name


# ---- what is planned ---------------------------------------------------------------------------


def _cell(draft: _Draft, recipe: Recipe) -> Cell:
    """The cell of a checked draft. Its runs are named after the arm, which no number depends on."""
    name = f"{recipe.name}-{draft.arm}"
    config = {**recipe.resolved(), "name": recipe.name if refusal(name) else name}
    changes = {".".join(path): leaf.value for path, leaf in draft.changes.leaves()}
    return Cell(draft.arm, draft.point, changes, config)


def _runs(
    seeds: Sequence[int], drafts: Sequence[_Draft], recipes: Sequence[Recipe]
) -> Iterator[PlannedRun]:
    """Seed by seed, so that a study which is stopped early has whole pairs."""
    for seed in seeds:
        for cell, (draft, recipe) in enumerate(zip(drafts, recipes, strict=True)):
            # The seed was checked above, so the settings need not be validated once more.
            settings = recipe.settings.model_copy(update={"seed": seed})
            identity = replace(recipe, settings=settings).identity()
            run_id = _run_id(recipe, draft, seed, identity)
            yield PlannedRun(run_id, draft.arm, draft.point, seed, identity, cell)


def _run_id(recipe: Recipe, draft: _Draft, seed: int, identity: str) -> str:
    """`<study>-<arm>-<point>-s<seed>-<hash8>`, at most 120 bytes whatever the names."""
    named = "\n".join((recipe.name, draft.arm, draft.point, recipe.workload, identity))
    mark = hashlib.sha256(named.encode()).hexdigest()[:8]
    point = slug(draft.point)[:_SHORT].strip("-") if draft.point else None
    parts = (slug(recipe.name)[:_SHORT].strip("-"), draft.arm, point, f"s{seed}", mark)
    return "-".join(part for part in parts if part)
