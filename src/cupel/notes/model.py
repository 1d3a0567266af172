"""What notes hold, typed: papers, equations, algorithms, modules, ambiguities, test criteria.

Everything has `at`, the file and line where it begins. Ids are whole (`titans.v1:eq14`), also
where the file has only `eq14`. Values are as they were written: whether they are right is for
`cupel.notes.lint` to say.
"""

from __future__ import annotations

from dataclasses import dataclass

from cupel.notes.faults import Place

KINDS = ("value", "gradient", "oracle", "shape", "causal", "perf", "claim")
PRIORITIES = ("P0", "P1", "P2")
ROLES = ("main", "context")
CONFIDENCES = ("A", "B", "C", "D")
TYPES = ("tensor", "parameter", "gate", "scalar", "index", "size", "function")
GROUPS = ("model", "training", "method")
RELATIONS = ("prior work", "concept", "order")
COUNTED = ("equations", "algorithms", "modules", "hyperparameters", "benchmarks", "ambiguities")


@dataclass(frozen=True, slots=True)
class Block:
    """The text of a fenced block; `at` is its first line."""

    text: str
    at: Place


@dataclass(frozen=True, slots=True)
class Symbol:
    """A row of a table of symbols; `shape` as written: `scalar`, `[d_k, d_v]`, `[d_k] -> [d_v]`."""

    name: str
    meaning: str
    type: str
    shape: str
    description: str
    at: Place


@dataclass(frozen=True, slots=True)
class Criterion:
    """What a test of an equation or algorithm must show."""

    kind: str
    text: str
    at: Place


@dataclass(frozen=True, slots=True)
class Equation:
    """One numbered equation; `printed` is the paper's own form, where that cannot be right."""

    id: str
    number: str
    name: str
    location: str
    confidence: str
    module: str  # "" for none
    requires: tuple[str, ...]
    priority: str
    role: str
    latex: Block | None
    form: Block | None
    printed: Block | None
    words: str
    symbols: tuple[Symbol, ...]
    notes: str
    tests: tuple[Criterion, ...]
    at: Place
    module_at: Place
    requires_at: Place

    @property
    def is_main(self) -> bool:
        return self.role == "main"

    @property
    def title(self) -> str:
        return f"Equation {self.number}: {self.name}"


@dataclass(frozen=True, slots=True)
class Step:
    """Which equations and module a line of pseudocode stands for."""

    line: str
    equations: tuple[str, ...]
    module: str  # "" for none
    at: Place


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One numbered algorithm."""

    id: str
    number: str
    name: str
    location: str
    module: str
    requires: tuple[str, ...]
    purpose: str
    pseudocode: Block | None
    words: str
    steps: tuple[Step, ...]
    notes: str
    tests: tuple[Criterion, ...]
    at: Place
    module_at: Place
    requires_at: Place

    @property
    def title(self) -> str:
        return f"Algorithm {self.number}: {self.name}"


@dataclass(frozen=True, slots=True)
class Module:
    """A part of the implementation, and its file."""

    id: str
    name: str
    path: str
    input: str
    output: str
    parameters: str
    description: str
    at: Place


@dataclass(frozen=True, slots=True)
class Hyperparameter:
    """A number that must be chosen, and who chose it."""

    name: str
    value: str
    group: str
    source: str
    description: str
    at: Place


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A result that the paper reports."""

    id: str
    dataset: str
    metric: str
    value: str
    setup: str
    source: str
    at: Place


@dataclass(frozen=True, slots=True)
class Dependency:
    """What somebody must know or have before beginning."""

    kind: str
    name: str
    description: str
    at: Place


@dataclass(frozen=True, slots=True)
class Ambiguity:
    """What the paper leaves open, how it can be read, and how it is read here."""

    id: str
    number: str
    name: str
    readings: str
    options: tuple[str, ...]  # what stands in backticks in the readings
    chosen: str
    reason: str
    switch: str
    equations: tuple[str, ...]
    at: Place
    chosen_at: Place
    equations_at: Place


@dataclass(frozen=True, slots=True)
class Count:
    """A row of Quick Reference."""

    what: str
    count: str
    at: Place


@dataclass(frozen=True, slots=True)
class Skipped:
    """Numbers of equations that are left out on purpose."""

    first: int
    last: int
    reason: str
    at: Place


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the front matter: a text, or the texts of a list."""

    key: str
    value: str | tuple[str, ...]
    at: Place


@dataclass(frozen=True, slots=True)
class Remark:
    """A free part of section 8, such as Limits."""

    title: str
    text: str
    at: Place


@dataclass(frozen=True, slots=True)
class Paper:
    """All notes of one paper in one version."""

    id: str  # titans.v1
    paper_id: str
    version: str
    title: str
    authors: tuple[str, ...]
    arxiv: str
    year: str
    contribution: str
    builds_on: tuple[str, ...]
    extraction_version: str
    extracted_at: str
    extractor: str
    source: str
    confidence: str
    needs_clarification: tuple[str, ...]
    front: tuple[Entry, ...]
    counts: tuple[Count, ...]
    symbols: tuple[Symbol, ...]
    skipped: tuple[Skipped, ...]
    equations: tuple[Equation, ...]
    algorithms: tuple[Algorithm, ...]
    architecture: str
    diagram: Block | None
    modules: tuple[Module, ...]
    hyperparameters: tuple[Hyperparameter, ...]
    benchmarks: tuple[Benchmark, ...]
    dependencies: tuple[Dependency, ...]
    checklist: tuple[str, ...]
    ambiguities: tuple[Ambiguity, ...]
    remarks: tuple[Remark, ...]
    at: Place

    def where(self, key: str) -> Place:
        """The line of a key of the front matter; the file's first where it is missing."""
        return next((entry.at for entry in self.front if entry.key == key), self.at)

    def module(self, name: str) -> Module | None:
        """The module of this name."""
        return next((module for module in self.modules if module.name == name), None)

    @property
    def entries(self) -> tuple[Equation | Algorithm, ...]:
        """Equations, then algorithms."""
        found: list[Equation | Algorithm] = [*self.equations, *self.algorithms]
        return tuple(found)

    @property
    def ids(self) -> frozenset[str]:
        """Everything that code can be marked with."""
        parts = [entry.id for entry in self.entries]
        parts += [ambiguity.id for ambiguity in self.ambiguities]
        return frozenset([*parts, *(module.id for module in self.modules)])

    @property
    def main(self) -> tuple[Equation, ...]:
        """The equations that are to be implemented."""
        return tuple(equation for equation in self.equations if equation.is_main)
