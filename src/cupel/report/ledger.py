"""Every number that a report prints, with where it comes from; and every sentence that claims.

A number is entered once, as a value with its text, and is printed by that text only, so that
`numbers.json` and the pages cannot disagree. A claim is made by a rule that looks at the numbers;
one whose rule does not hold is kept in `numbers.json` as not written.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

ABSENT = "not recorded"


@dataclass(frozen=True, slots=True)
class Number:
    """A printed number; `source` names the file, the key and what was done with it."""

    name: str
    value: float | int | None
    text: str
    source: str


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence, whether the data bear it, and the numbers that say so."""

    text: str
    holds: bool
    evidence: tuple[str, ...] = ()


@dataclass(slots=True)
class Ledger:
    """Numbers by name, and claims in the order in which they were judged."""

    numbers: dict[str, Number] = field(default_factory=dict)
    claims: list[Claim] = field(default_factory=list)

    def enter(
        self, name: str, value: float | int | None, form: str = "", *, source: str, unit: str = ""
    ) -> str:
        """Enter a number and return its text; None is entered as not recorded."""
        text = ABSENT if value is None else f"{value:{form}}".replace("-", "−") + unit
        number = Number(name, value, text, source)
        known = self.numbers.setdefault(name, number)
        assert known == number, f"two numbers are called {name}: {known} and {number}"
        return text

    def __getitem__(self, name: str) -> str:
        """The text of a number that was entered before."""
        return self.numbers[name].text

    def told(self, claims: Iterable[Claim]) -> list[str]:
        """The sentences whose rules hold; each claim's evidence must have been entered."""
        kept = list(claims)
        for claim in kept:
            unknown = [name for name in claim.evidence if name not in self.numbers]
            assert not unknown, f"'{claim.text}' rests on numbers never entered: {unknown}"
        self.claims += kept
        return [claim.text for claim in kept if claim.holds]

    def as_json(self) -> dict[str, Any]:
        """For numbers.json."""
        return {
            "schema": 1,
            "numbers": [asdict(number) for number in self.numbers.values()],
            "claims": [asdict(claim) for claim in self.claims],
        }
