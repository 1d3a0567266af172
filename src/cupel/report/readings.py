"""How the settings of several arms are told: each distinct reading once, with its name.

A reading is a setting's value as some arm has it. Arms that read one thing in two ways get both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from cupel.report.blocks import Block, Maths, Paragraph
from cupel.studies.unequal import dotted

Arms = Sequence[Mapping[str, Any]]  # the complete settings of one component, of each arm with it
Teller = Callable[[Arms], Iterator[Block]]


def readings(arms: Arms, *names: str) -> list[dict[str, Any]]:
    """The distinct values of these dotted settings, in the order of the arms."""
    found: list[dict[str, Any]] = []
    for arm in arms:
        reading = {name: dotted(arm, name) for name in names}
        if reading not in found:
            found.append(reading)
    return found


def in_recipe(reading: Mapping[str, Any]) -> str:
    """A reading as it stands in a recipe: `ratio: decay`, `bias: false`."""
    return ", ".join(f"`{name}: {yaml_text(value)}`" for name, value in reading.items())


def yaml_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool | None) else f"{value}"


def parameters(
    arms: Arms, names: Sequence[str], formula_of: Callable[[Mapping[str, Any]], str]
) -> Iterator[Block]:
    """Each distinct number of parameters, with all the readings that have it."""
    wheres: dict[str, list[str]] = {}
    for reading in readings(arms, *names):
        wheres.setdefault(formula_of(reading), []).append(in_recipe(reading))
    for formula, found in wheres.items():
        yield Paragraph(
            f"With {' or '.join(found)} it has, for a vocabulary of $V$ and width $d$, as many "
            "parameters as"
        )
        yield Maths(f"{formula} .")


def declared(arms: Arms, *names: str) -> Paragraph:
    """The values that were set; which arm has which is in the table of arms."""
    told = "; or ".join(in_recipe(reading) for reading in readings(arms, *names))
    return Paragraph(f"Its settings: {told}.")


def linear(arms: Arms, maps: str) -> Paragraph:
    """Whether linear maps have biases, which formulas leave out."""
    words = {True: "with biases, which the formulas leave out", False: "without biases"}
    told = "; ".join(f"{words[r['bias']]} ({in_recipe(r)})" for r in readings(arms, "bias"))
    return Paragraph(f"{maps} are linear maps {told}.")
