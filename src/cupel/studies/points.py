"""The points of a study: grid × zip × points × random draws × folds, as text and as settings.

Each source that is given multiplies the others; without any there is one point that sets nothing.
A point is named by the last parts of its settings' names (`lr=0.001,width=128`), and its values
are written so that they are read back exactly. Draws are a function of `study.random.seed`, the
setting's name and the draw's number: the same on every machine, and more draws keep the first ones.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from pathlib import Path
from typing import Any

from cupel.compose import STUDY, with_groups
from cupel.errors import did_you_mean
from cupel.origins import DEFAULT, Branch, Leaf, Origin, Problem, overlay, placed, planted
from cupel.randomness import derive
from cupel.studies.settings import RandomSettings, SearchSettings, StudySettings
from cupel.wording import as_yaml

FOLD = "fold"  # what a fold is called in a point's name and in filters
_BITS = 2**63  # of a key
_EXACT = Context(prec=40)  # its logarithms are equal on every machine; those of the C library not


@dataclass(frozen=True, slots=True)
class Point:
    """One point: its name, the settings it lays over an arm, and the number of its fold."""

    text: str
    settings: Branch
    fold: int | None = None


@dataclass(frozen=True, slots=True)
class _Step:
    """One setting with a value. A `hidden` one is not named, a `label` names it otherwise."""

    key: str
    value: Any
    label: str = ""
    hidden: bool = False


_Source = list[tuple[_Step, ...]]  # the alternatives of one source, each some settings together


# ---- all of them -------------------------------------------------------------------------------


def points(
    study: StudySettings,
    composed: Branch,
    *,
    source: str | Path,
    asked: Sequence[Mapping[str, Any]] = (),
) -> Iterator[Point]:
    """Every point, the first axis slowest. `study` is checked, see `mistakes`; `asked` are the
    points that a search asks for, by dotted settings."""
    short, origin = short_names(study), origin_of(composed, "grid")
    for chosen in itertools.product(*_sources(study, asked)):
        steps = list(itertools.chain.from_iterable(chosen))
        settings = Branch({}, origin)
        # A section before what lies in it: a group in one source must not undo another source.
        for step in sorted(steps, key=lambda step: step.key.count(".")):
            node = planted({"": step.value}, _origin_of_key(composed, step.key)).children[""]
            laid = placed(step.key.split("."), node)
            # A group is read before anything is laid over its name, which would replace it.
            laid = laid if "." in step.key else with_groups(laid, source=source)
            settings = overlay(settings, laid)
        fold = next((step.value for step in steps if step.label == FOLD), None)
        text = ",".join(
            f"{step.label or short[step.key]}={as_yaml(step.value)}"
            for step in steps
            if not step.hidden
        )
        yield Point(text, settings, fold)


def axes(study: StudySettings) -> dict[str, str]:
    """Every dotted setting that differs between points, and the path in `study` that says so."""
    found = {key: f"grid.{key}" for key in study.grid}
    found |= {key: f"zip.{key}" for key in study.zip}
    found |= dict.fromkeys(itertools.chain.from_iterable(study.points), "points")
    if study.random:
        found |= {key: f"random.space.{key}" for key in study.random.space}
    if study.search:
        found |= {key: f"search.space.{key}" for key in study.search.space}
    if study.folds:
        found[study.folds.setting] = "folds.setting"
    return found


def short_names(study: StudySettings) -> dict[str, str]:
    """Each axis by the last part of its dotted name, or by more where two would be one."""
    keys = list(axes(study))
    taken = []
    if study.folds:
        keys.remove(study.folds.setting)
        taken = [FOLD]
    short = shortened(keys, taken=taken)
    return {**short, study.folds.setting: FOLD} if study.folds else short


def shortened(keys: Sequence[str], *, taken: Sequence[str] = ()) -> dict[str, str]:
    """Dotted names by their last parts, as many as tell them from the others and what is taken."""
    short, known = {}, [*keys, *taken]
    for key in keys:
        parts = key.split(".")
        ends = (".".join(parts[-n:]) for n in range(1, len(parts) + 1))
        short[key] = next(
            (end for end in ends if [k for k in known if f".{k}".endswith(f".{end}")] == [key]), key
        )
    return short


def _sources(study: StudySettings, asked: Sequence[Mapping[str, Any]]) -> list[_Source]:
    sources: list[_Source] = [
        [(_Step(key, value),) for value in values] for key, values in study.grid.items()
    ]
    if study.zip:
        together = zip(*study.zip.values(), strict=True)
        sources.append([tuple(map(_Step, study.zip, values)) for values in together])
    if study.points:
        sources.append([tuple(map(_Step, one, one.values())) for one in study.points])
    if study.random:
        sources.append([tuple(map(_Step, one, one.values())) for one in draws(study.random)])
    if study.search:
        sources.append([tuple(map(_Step, one, one.values())) for one in asked])
    if folds := study.folds:
        total = (_Step(folds.total, folds.count, hidden=True),) if folds.total else ()
        sources.append([(_Step(folds.setting, k, label=FOLD), *total) for k in range(folds.count)])
    return sources


# ---- drawn at random ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from low to high: `log` draws their logarithms evenly, `whole` gives integers, of
    which high is one."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def at(self, key: int) -> float:
        """The value of a key in [0, 2**63)."""
        part = Decimal(key) / _BITS
        if self.whole and not self.log:
            return int(self.low) + key * (int(self.high) - int(self.low) + 1) // _BITS
        low, high = Decimal(self.low), Decimal(self.high) + (1 if self.whole else 0)
        if self.log:
            between = _EXACT.ln(low) + part * (_EXACT.ln(high) - _EXACT.ln(low))
            value = _EXACT.exp(between)
        else:
            value = low + part * (high - low)
        if self.whole:
            return min(max(int(value), int(self.low)), int(self.high))
        return min(max(float(value), float(self.low)), float(self.high))

    @property
    def size(self) -> float:
        """How many different values there are; infinite unless they are whole."""
        return int(self.high) - int(self.low) + 1 if self.whole else math.inf


@dataclass(frozen=True, slots=True)
class Options:
    """Values to choose from, all alike."""

    values: tuple[Any, ...]

    def at(self, key: int) -> Any:
        """The value of a key in [0, 2**63)."""
        return self.values[key * len(self.values) // _BITS]

    @property
    def size(self) -> float:
        """How many different values there are."""
        return len(self.values)


def dimension(given: Any) -> Range | Options:
    """One setting of a space, as `study.random.space` and `study.search.space` hold it.

    Raises ValueError that says what is wrong.
    """
    if isinstance(given, list | tuple):
        if not given:
            raise ValueError("there is nothing to choose from; give some values")
        if twice := _twice(given):
            raise ValueError(f"{', '.join(twice)} is there more than once")
        return Options(tuple(given))
    if not isinstance(given, Mapping):
        example = "{low: 1e-4, high: 1e-1, log: true}"
        raise ValueError(f"{as_yaml(given)} is no range; write {example}")
    known = ("low", "high", "log", "int")
    if odd := [name for name in given if name not in known]:
        hint = did_you_mean(odd[0], known) or f"; there are: {', '.join(known)}"
        raise ValueError(f"{odd[0]}: no such setting{hint}")
    for name in ("low", "high"):
        if type(given.get(name)) not in (int, float) or not math.isfinite(given[name]):
            raise ValueError(f"{name} is {as_yaml(given.get(name))}; it must be a number")
    for name in ("log", "int"):
        if not isinstance(given.get(name, False), bool):
            raise ValueError(f"{name} is {as_yaml(given[name])}; it must be true or false")
    low, high = given["low"], given["high"]
    if not low < high:
        raise ValueError(f"low is {low} and high is {high}; low must be below high")
    if given.get("log") and low <= 0:
        raise ValueError(f"low is {low}, which has no logarithm; with log it must be above 0")
    if given.get("int") and not (float(low).is_integer() and float(high).is_integer()):
        raise ValueError(f"low is {low} and high is {high}; with int they must be whole numbers")
    return Range(low, high, given.get("log", False), given.get("int", False))


def middle(search: SearchSettings) -> dict[str, Any]:
    """One point of a search's space, by which its settings are checked before it begins."""
    return {key: dimension(given).at(_BITS // 2) for key, given in search.space.items()}


def draws(random: RandomSettings) -> list[dict[str, Any]]:
    """The points drawn, all different: each setting's value by its dotted name."""
    space = {key: dimension(given) for key, given in random.space.items()}
    found: dict[str, dict[str, Any]] = {}
    for number in itertools.count():
        if len(found) == random.draws:
            return list(found.values())
        drawn = {
            key: one.at(derive(random.seed, f"study.random {key}", number))
            for key, one in space.items()
        }
        found.setdefault(as_yaml(drawn), drawn)
    raise AssertionError("counting ends nowhere")


# ---- written in other ways ---------------------------------------------------------------------


def dotted(composed: Branch) -> Branch:
    """The recipe with the study's axes by dotted names, also where they are nested: typed,
    `study.grid.train.steps=[1, 2]` is like any other override."""
    study = composed.children.get(STUDY)
    if not isinstance(study, Branch):
        return composed
    children = dict(study.children)
    for name in ("grid", "zip"):
        if isinstance(axes := children.get(name), Branch):
            flat = {".".join(path): leaf for path, leaf in axes.leaves()}
            children[name] = Branch(dict(flat), axes.origin)
    for name in ("random", "search"):
        if isinstance(section := children.get(name), Branch):
            space = section.children.get("space")
            if isinstance(space, Branch):
                flat = {".".join(path): node for path, node in _dimensions(space)}
                within = {**section.children, "space": Branch(dict(flat), space.origin)}
                children[name] = Branch(within, section.origin, section.replaces)
    full = Branch(children, study.origin, study.replaces)
    return Branch({**composed.children, STUDY: full}, composed.origin, composed.replaces)


def _dimensions(node: Branch, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every range and list of a space: a mapping that holds a plain value is a range."""
    for name, child in node.children.items():
        is_range = isinstance(child, Branch) and any(
            isinstance(one, Leaf) and not isinstance(one.value, list)
            for one in child.children.values()
        )
        if isinstance(child, Leaf) or is_range or not child.children:
            yield (*above, name), child
        else:
            yield from _dimensions(child, (*above, name))


def origin_of(composed: Branch, *path: str) -> Origin:
    """Where a setting of the study was written."""
    depth, node = composed.nearest((STUDY, *path))
    return node.origin if depth == 1 + len(path) else DEFAULT


def _origin_of_key(composed: Branch, key: str) -> Origin:
    for path in (("grid", key), ("zip", key), ("random", "space", key), ("points",)):
        if (origin := origin_of(composed, *path)) != DEFAULT:
            return origin
    return origin_of(composed, "folds")


# ---- what is refused ---------------------------------------------------------------------------


def mistakes(study: StudySettings, composed: Branch) -> Iterator[Problem]:
    """What is wrong with the sources of points, as far as it can be said without the cells."""
    for key, values in study.grid.items():
        told = f"study.grid.{key}: "
        at = origin_of(composed, "grid", key)
        if not values:
            yield Problem(at, f"{told}has no values; give some, or leave it out")
        if twice := _twice(values):
            yield Problem(at, f"{told}{', '.join(twice)} is there more than once")
    yield from _wrong_zip(study, composed)
    at = origin_of(composed, "points")
    if twice := _twice(study.points):
        yield Problem(at, f"study.points: {', '.join(twice)} is there more than once")
    yield from _wrong_draws(study, composed)
    yield from _in_two_sources(study, composed)


def _wrong_zip(study: StudySettings, composed: Branch) -> Iterator[Problem]:
    at = origin_of(composed, "zip")
    lengths = {key: len(values) for key, values in study.zip.items()}
    for key, length in lengths.items():
        if not length:
            yield Problem(at, f"study.zip.{key}: has no values; give some, or leave it out")
    first = next(iter(lengths), "")
    for key, length in lengths.items():
        if length and lengths[first] and length != lengths[first]:
            counted = f"{first} has {_values(lengths[first])} and {key} has {_values(length)}"
            yield Problem(at, f"study.zip: {counted}; they vary together, so give each as many")
            return
    rows = zip(*study.zip.values(), strict=False)
    if twice := _twice([dict(zip(study.zip, row, strict=False)) for row in rows]):
        yield Problem(at, f"study.zip: {', '.join(twice)} is there more than once")


def _values(count: int) -> str:
    return "1 value" if count == 1 else f"{count} values"


def _wrong_draws(study: StudySettings, composed: Branch) -> Iterator[Problem]:
    for name, given in (("random", study.random), ("search", study.search)):
        if given is None:
            continue
        sizes: list[float] = []
        if not given.space:
            at = origin_of(composed, name, "space")
            yield Problem(at, f"study.{name}.space: names no setting to draw")
        for key, one in given.space.items():
            try:
                sizes.append(dimension(one).size)
            except ValueError as error:
                at = origin_of(composed, name, "space", key)
                yield Problem(at, f"study.{name}.space.{key}: {error}")
        complete = sizes and len(sizes) == len(given.space)
        if isinstance(given, RandomSettings) and complete and math.prod(sizes) < given.draws:
            at = origin_of(composed, name, "draws")
            there = f"there are only {int(math.prod(sizes))} different points"
            yield Problem(at, f"study.random.draws: {there}; ask for no more, or use study.grid")


def _in_two_sources(study: StudySettings, composed: Branch) -> Iterator[Problem]:
    sources: dict[str, list[str]] = {
        "grid": list(study.grid),
        "zip": list(study.zip),
        "points": list(dict.fromkeys(itertools.chain.from_iterable(study.points))),
        "random": list(study.random.space) if study.random else [],
        "search": list(study.search.space) if study.search else [],
        "folds": [k for k in (study.folds.setting, study.folds.total) if k] if study.folds else [],
    }
    for (one, keys), (other, others) in itertools.combinations(sources.items(), 2):
        for key in keys:
            if key in others:
                told = f"study.{other}: {key} is in study.{one} already; leave it in one of them"
                yield Problem(origin_of(composed, other), told)


def _twice(values: Sequence[Any]) -> dict[str, None]:
    return {as_yaml(one): None for n, one in enumerate(values) if one in values[:n]}
