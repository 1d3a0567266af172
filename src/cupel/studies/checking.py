"""The cells of a study, checked one by one: `Cells` takes drafts and gives planned runs.

A cell that the study's filters leave out is not checked further, so a filter may exclude what no
workload accepts. Mistakes that differ in a value only are told once, with the number of runs.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cupel.config import Recipe, validate
from cupel.errors import RecipeError, UsageError
from cupel.names import refusal
from cupel.origins import Branch, Problem
from cupel.record.filters import Filter, parse
from cupel.record.layout import slug
from cupel.studies.narrowing import Subject, unknown_names
from cupel.studies.planned import Cell, PlannedRun, StoredConfig, compact
from cupel.studies.points import Point, origin_of, short_names, shortened
from cupel.studies.settings import StudySettings
from cupel.wording import as_yaml

LONGEST_TAG = 100  # characters, as `cupel runs tag` has it
_SHORT = 24  # characters of the study's name and of the point in a run's id
_LISTED = 20  # mistakes in a message
# What differs between mistakes that are alike: numbers, texts in quotes, lists and mappings.
_VALUE = re.compile(
    r"""'[^']*['…]|"[^"]*["…]|\[[^\]]*[\]…]|\{[^}]*[}…]|-?\d[\w.+-]*|\b(?:true|false|null)\b"""
)


@dataclass(frozen=True, slots=True)
class Draft:
    """One cell before it is checked: `changes` is what arm and point set, `composed` all of it."""

    arm: str
    point: Point
    changes: Branch
    composed: Branch

    @property
    def name(self) -> str:
        """As messages call the cell."""
        return f"{self.arm} at {self.point.text}" if self.point.text else self.arm


@dataclass(frozen=True, slots=True)
class Planned:
    """A checked cell and its runs by their seeds."""

    cell: Cell
    runs: Mapping[int, PlannedRun]


@dataclass(frozen=True, slots=True)
class Rules:
    """The filters of a study, parsed."""

    where: tuple[Filter, ...]
    priorities: tuple[tuple[Filter, int], ...]  # and what each adds


def rules_of(study: StudySettings, composed: Branch) -> tuple[Rules, list[Problem]]:
    """The study's filters, and what is wrong with their texts."""
    problems: list[Problem] = []

    def parsed(name: str, text: str) -> list[Filter]:
        try:
            return [parse(text)]
        except UsageError as error:
            problems.append(Problem(origin_of(composed, name), f"study.{name}: {error}"))
            return []

    where = [one for text in study.where for one in parsed("where", text)]
    priorities = [
        (one, rule.add) for rule in study.priorities for one in parsed("priorities", rule.where)
    ]
    return Rules(tuple(where), tuple(priorities)), problems


def is_tag(text: str) -> bool:
    """Whether a text can be a run's tag."""
    return bool(text.strip()) and len(text) <= LONGEST_TAG and text.isprintable()


class Cells:
    """Checks one draft after the other; `planned` are the cells that are to run, in their order."""

    def __init__(self, study: StudySettings, composed: Branch, rules: Rules) -> None:
        self.planned: list[Planned] = []
        self._study, self._composed, self._rules = study, composed, rules
        self._axes = {short: key for key, short in short_names(study).items()}
        self._labels = shortened([self._axes.get(name, name) for name in study.tag_by])
        self._asked = {  # names that filters ask for, by the setting that they stand in
            "where": {name for one in rules.where for name in one.names()},
            "priorities": {name for one, _ in rules.priorities for name in one.names()},
            "tag_by": set(study.tag_by),
        }
        self._samples: dict[str, Subject] = {}  # a cell of each arm
        self._held: Counter[Filter] = Counter()  # runs for which a filter holds
        self._first: Recipe | None = None
        self._seen: dict[str, str] = {}  # identity → the cell's name
        self._mistakes = Alike()

    def take(self, draft: Draft) -> None:
        """Check a draft, unless a filter leaves it out. Raises UsageError for a cell that equals
        another one; other mistakes are gathered for `checked`."""
        try:
            recipe = validate(draft.composed)
        except RecipeError as error:
            # What was written of it tells whether it is meant at all.
            written = self._subject(draft, draft.composed.values())
            self._mistakes.add(error.problems, runs=len(self._meant(written)))
            return
        config = recipe.resolved()
        self._first = self._first or recipe
        if meant := self._meant(self._subject(draft, config)):
            self._refuse_equal(draft, recipe)
            cell, place = _cell(draft, recipe, config), len(self.planned)
            self.planned.append(Planned(cell, self._runs(draft, recipe, meant, place)))

    def checked(self) -> Recipe:
        """The recipe of a cell. Raises RecipeError with the mistakes of all cells."""
        lines = self._mistakes.lines() or self._unknown() or self._nothing_left()
        if lines:
            raise RecipeError(lines)
        assert self._first is not None, "no draft was taken"
        return self._first

    def _subject(self, draft: Draft, config: Mapping[str, Any]) -> Subject:
        seed, point = self._study.seeds[0], draft.point
        subject = Subject(draft.arm, point.text, config, self._axes, point.fold, seed)
        self._samples.setdefault(draft.arm, subject)
        for asked in self._asked.values():
            asked -= {name for name in asked if subject.knows(name)}
        return subject

    def _meant(self, subject: Subject) -> list[Subject]:
        """The cell with each of the seeds that it is to run with."""
        every = [replace(subject, seed=seed) for seed in self._study.seeds]
        return [one for one in every if self._holds(one)]

    def _holds(self, subject: Subject) -> bool:
        found = [one for one in self._rules.where if one.matches(subject.value)]
        self._held.update(found)
        return len(found) == len(self._rules.where)

    def _refuse_equal(self, draft: Draft, recipe: Recipe) -> None:
        other = self._seen.setdefault(recipe.identity(), draft.name)
        if other != draft.name:
            raise UsageError(
                f"the arms {other} and {draft.name} have equal settings, so there is nothing "
                "to compare; change one of them, or leave it out"
            )

    def _runs(
        self, draft: Draft, recipe: Recipe, meant: Sequence[Subject], cell: int
    ) -> dict[int, PlannedRun]:
        runs, tags = {}, self._tags(meant[0])
        for subject in meant:
            seed = subject.seed
            assert seed is not None, subject
            # The seed is checked, so the settings need not be validated once more.
            settings = recipe.settings.model_copy(update={"seed": seed})
            identity = replace(recipe, settings=settings).identity()
            runs[seed] = PlannedRun(
                run_id=_run_id(recipe, draft, seed, identity),
                arm=draft.arm,
                point=draft.point.text,
                seed=seed,
                identity=identity,
                cell=cell,
                priority=self._priority(subject),
                tags=self._tags(subject) if "seed" in self._study.tag_by else tags,
                fold=draft.point.fold,
            )
        return runs

    def _priority(self, subject: Subject) -> int:
        rules = self._rules.priorities
        return self._study.priority + sum(add for one, add in rules if one.matches(subject.value))

    def _tags(self, subject: Subject) -> tuple[str, ...]:
        """The study's tags, and `name=value` of each setting that runs are tagged by."""
        own = []
        for name, label in zip(self._study.tag_by, self._labels.values(), strict=True):
            if subject.knows(name):
                tag = f"{label}={as_yaml(subject.value(name))}"
                if not is_tag(tag):
                    self._mistakes.add([self._told("tag_by", f"'{tag}' is no tag")], runs=1)
                own.append(tag)
        return tuple(dict.fromkeys((*self._study.tags, *own)))

    def _unknown(self) -> list[str]:
        samples = list(self._samples.values())
        return [
            self._told(section, str(error))
            for section, names in self._asked.items()
            for error in unknown_names(sorted(names), samples)
        ]

    def _nothing_left(self) -> list[str]:
        if self.planned:
            return []
        known = ", ".join(dict.fromkeys(("arm", "seed", *self._axes)))
        told = f"names are {known} and every dotted setting"
        for one in self._rules.where:
            if not self._held[one]:
                return [self._told("where", f"'{one}' holds for no run; {told}")]
        return [self._told("where", f"the filters hold together for no run; {told}")]

    def _told(self, name: str, text: str) -> str:
        return str(Problem(origin_of(self._composed, name), f"study.{name}: {text}"))


class Alike:
    """Mistakes of many cells: those with the same words for other values are one."""

    def __init__(self) -> None:
        self._groups: dict[str, Counter[str]] = {}

    def add(self, problems: Sequence[str], *, runs: int) -> None:
        """What is wrong with so many runs; with none, nothing."""
        for text in problems if runs else ():
            self._groups.setdefault(_gist(text), Counter())[text] += runs

    def lines(self) -> list[str]:
        """A line for each mistake: as it was first found, and how many runs have it otherwise."""
        lines = []
        for texts in self._groups.values():
            (first, _), *others = texts.items()
            count = sum(runs for _, runs in others)
            more = "1 more run" if count == 1 else f"{count} more runs"
            lines.append(f"{first} (and {more} with the same mistake)" if count else first)
        if len(lines) > _LISTED:
            lines[_LISTED:] = [f"… and {len(lines) - _LISTED} more mistakes"]
        return lines


def _gist(text: str) -> str:
    """A mistake without its values: `origin: setting: words`."""
    *where, words = text.split(": ", 2)
    return ": ".join((*where, _VALUE.sub("…", words)))


def _cell(draft: Draft, recipe: Recipe, resolved: Mapping[str, Any]) -> Cell:
    """The cell of a checked draft. Its runs are named after the arm, which no number depends on."""
    name = f"{recipe.name}-{draft.arm}"
    config = {**resolved, "name": recipe.name if refusal(name) else name}
    changes = {".".join(path): leaf.value for path, leaf in draft.changes.leaves()}
    return Cell(draft.arm, draft.point.text, changes, StoredConfig(compact(config)))


def _run_id(recipe: Recipe, draft: Draft, seed: int, identity: str) -> str:
    """`<study>-<arm>-<point>-s<seed>-<hash8>`, at most 120 bytes whatever the names."""
    text = draft.point.text
    named = "\n".join((recipe.name, draft.arm, text, recipe.workload, identity))
    mark = hashlib.sha256(named.encode()).hexdigest()[:8]
    point = slug(text)[:_SHORT].strip("-") if text else None
    parts = (slug(recipe.name)[:_SHORT].strip("-"), draft.arm, point, f"s{seed}", mark)
    return "-".join(part for part in parts if part)
