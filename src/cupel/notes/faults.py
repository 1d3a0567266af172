"""What is wrong with notes: a rule's name, the file and line, what was found and what to type.

`RULES` lists every rule with the sentence that docs/notes.md and `cupel notes lint` explain it by.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

RULES = {
    "front": "the front matter is there, whole, with known keys and readable values",
    "heading": "every heading is one that the format knows",
    "section": "every section is there, once, in order",
    "block": "fenced blocks close, and each stands where it belongs",
    "table": "tables have the columns of their kind, and a cell for each",
    "field": "`- Key: value` lines have known keys, once, none missing",
    "value": "values are of those that a field can have",
    "words": "every equation is told in plain words",
    "count": "Quick Reference counts what is there",
    "duplicate": "a number, name or id is given once",
    "gap": "equations are numbered without gaps, or say what was skipped and why",
    "symbol": "every symbol of a form or of LaTeX is declared",
    "form": "a form can be parsed; a main equation has one",
    "shape": "shapes close, and the left side has the shape of the right",
    "printed": "what is printed wrongly does not close, and is told apart from our reading",
    "requires": "what is required exists in the notes given",
    "version": "one version of a paper at a time",
    "cycle": "nothing requires itself, on whatever way",
    "step": "an algorithm's lines name lines, equations and modules that are there",
    "tests": "a main equation has a criterion that is more than a shape",
    "kind": "test criteria have a known kind",
    "module": "equations and algorithms name a module of section 3",
    "path": "every module has a path of its own",
    "ambiguity": "an ambiguity names its equations, its readings and the chosen one",
    "clarification": "needs_clarification names ambiguities that are there",
    "hyperparameter": "a hyperparameter has a value and a source",
    "todo": "nothing is left to do",
    "mark": "marks in code are ids, and tests say their kind",
}


class Place(NamedTuple):
    """A line of a file, counted from 1."""

    path: str
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault; a warning (`serious` is false) refuses nothing."""

    rule: str
    at: Place
    text: str
    hint: str = ""
    serious: bool = True

    def __post_init__(self) -> None:
        assert self.rule in RULES, self.rule

    def __str__(self) -> str:
        kind = self.rule if self.serious else f"warning: {self.rule}"
        return f"{self.at}: {kind}: {self.text}" + (f"; {self.hint}" if self.hint else "")


def in_order(faults: Iterable[Fault]) -> list[Fault]:
    """Faults by file and line, each once."""
    return sorted(set(faults), key=lambda one: (one.at, one.rule, one.text, one.hint))
