"""The arms of a study: those written out, and those that an ablation makes.

An ablation has a baseline arm, and for each component an arm `no-<component>`: the baseline with
the component's changes laid over it. With `pairs`, every two components also make an arm,
`no-<one>-no-<other>`. They stand behind the arms written out, in the order of the recipe.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from cupel.compose import STUDY, with_groups
from cupel.errors import UnknownName
from cupel.origins import Branch, Origin, Problem, overlay
from cupel.studies.points import origin_of
from cupel.studies.settings import StudySettings

# What belongs to the study as a whole, and so to no arm and no point.
OF_THE_STUDY = ("name", "about", "project", "seed", "extends", STUDY)
_ARM = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")


def written_out(
    study: StudySettings, composed: Branch, *, source: str | Path
) -> tuple[StudySettings, Branch]:
    """The study and its tree with the ablation's arms among `study.arms`, and its baseline as the
    one to compare with unless another is named. `study` is checked, see `mistakes`."""
    ablation = study.ablation
    if ablation is None:
        return study, composed
    made = dict(_ablated(study, composed, source))
    section = composed.children[STUDY]
    assert isinstance(section, Branch), section
    own = section.children.get("arms")
    arms = own if isinstance(own, Branch) else Branch({}, section.origin)
    arms = replace(arms, children={**arms.children, **made})
    full = replace(section, children={**section.children, "arms": arms})
    compare = study.compare
    if compare.baseline is None:
        compare = compare.model_copy(update={"baseline": ablation.name})
    changes = {"arms": arms.values(), "compare": compare}
    whole = replace(composed, children={**composed.children, STUDY: full})
    return study.model_copy(update=changes), whole


def _ablated(
    study: StudySettings, composed: Branch, source: str | Path
) -> Iterator[tuple[str, Branch]]:
    ablation = study.ablation
    assert ablation is not None
    # Groups are read first: what is laid over a name that is still unread would replace it.
    baseline = with_groups(_branch(composed, "baseline"), source=source)
    components = {
        name: with_groups(_branch(composed, "components", name), source=source)
        for name in ablation.components
    }
    yield ablation.name, baseline
    for names in _groups(study):
        arm = baseline
        for name in names:
            arm = overlay(arm, components[name])
        yield _named(names), arm


def _groups(study: StudySettings) -> Iterator[tuple[str, ...]]:
    """The components that are taken out together: each alone, then every two."""
    assert study.ablation is not None
    components = list(study.ablation.components)
    yield from ((name,) for name in components)
    if study.ablation.pairs:
        yield from itertools.combinations(components, 2)


def _named(names: tuple[str, ...]) -> str:
    return "-".join(f"no-{name}" for name in names)


def _branch(composed: Branch, *path: str) -> Branch:
    depth, node = composed.nearest((STUDY, "ablation", *path))
    found = depth == 2 + len(path) and isinstance(node, Branch)
    return node if found and isinstance(node, Branch) else Branch({}, node.origin)


# ---- what is refused ---------------------------------------------------------------------------


def mistakes(study: StudySettings, composed: Branch) -> Iterator[Problem]:
    """What is wrong with the arms, as far as it can be said without the cells."""
    for arm, changes in study.arms.items():
        at = origin_of(composed, "arms", arm)
        yield from _misnamed(arm, at, "study.arms")
        yield from _not_an_arms(changes, at, f"study.arms.{arm}")
    yield from _wrong_ablation(study, composed)
    known = [*study.arms, *ablation_names(study)]
    baseline = study.compare.baseline
    if baseline is not None and baseline not in known:
        told = str(UnknownName("arm", baseline, known))
        at = origin_of(composed, "compare", "baseline")
        yield Problem(at, f"study.compare.baseline: {told}")


def ablation_names(study: StudySettings) -> list[str]:
    """The names of the arms that the ablation makes, its baseline first."""
    if study.ablation is None:
        return []
    return [study.ablation.name, *map(_named, _groups(study))]


def _wrong_ablation(study: StudySettings, composed: Branch) -> Iterator[Problem]:
    ablation = study.ablation
    if ablation is None:
        return
    at = origin_of(composed, "ablation")
    if not ablation.components:
        yield Problem(at, "study.ablation.components: there are none; name what is taken out")
    yield from _not_an_arms(ablation.baseline, at, "study.ablation.baseline")
    for name, changes in ablation.components.items():
        here = origin_of(composed, "ablation", "components", name)
        told = f"study.ablation.components.{name}"
        yield from _not_an_arms(changes, here, told)
        if not changes:
            yield Problem(here, f"{told}: changes nothing; say what takes it out")
    seen: set[str] = set(study.arms)
    for name in ablation_names(study):
        yield from _misnamed(name, at, "study.ablation")
        if name in seen:
            yield Problem(at, f"study.ablation: there is an arm '{name}' already; rename one")
        seen.add(name)
    if ablation.pairs:
        yield from _overlapping(study, composed)


def _overlapping(study: StudySettings, composed: Branch) -> Iterator[Problem]:
    """Two components that set one thing: together, the second would undo the first silently."""
    assert study.ablation is not None
    settings = {
        name: [path for path, _ in _branch(composed, "components", name).leaves()]
        for name in study.ablation.components
    }
    for one, other in itertools.combinations(settings, 2):
        for path, second in itertools.product(settings[one], settings[other]):
            if path[: len(second)] == second or second[: len(path)] == path:
                told = f"components {one} and {other} both set {_joined(path, second)}"
                at = origin_of(composed, "ablation", "components", other)
                yield Problem(at, f"study.ablation: {told}, so they make no pair; set pairs: false")
                break


def _joined(one: tuple[str, ...], other: tuple[str, ...]) -> str:
    return ".".join(one if len(one) > len(other) else other)


def _misnamed(arm: str, at: Origin, where: str) -> Iterator[Problem]:
    if not _ARM.fullmatch(arm):
        rule = "small letters, digits, - and _, at most 40, a letter or digit first"
        yield Problem(at, f"{where}: '{arm}' cannot be an arm's name: {rule}")


def _not_an_arms(changes: object, at: Origin, where: str) -> Iterator[Problem]:
    for name in OF_THE_STUDY:
        if isinstance(changes, dict) and name in changes:
            yield Problem(at, f"{where}.{name}: {belongs(name)}")


def belongs(name: str) -> str:
    """Where a setting of `OF_THE_STUDY` is to be written instead."""
    if name == "seed":
        return "the seeds of all arms are study.seeds"
    if name == "extends":
        return "an arm changes settings and groups; it extends no recipe"
    return "it belongs to the study as a whole; write it at the top of the recipe"
