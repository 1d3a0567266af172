"""Sizes and shapes: `[d_k, N_p + C]`, and functions between them, `[d_k] -> [d_v]`.

A size is a polynomial of names with integer coefficients in one normal form, so that `C + N_p` and
`N_p + C` are equal. Names stand for themselves: two names are two sizes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from cupel.notes import form

_MOST_TERMS = 32
_MOST_DEGREE = 6
_LONGEST = 200

Monomial = tuple[str, ...]


class ShapeError(Exception):
    """A shape that cannot be read or does not fit, in one line; `hint` says what to type."""

    def __init__(self, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Dim:
    """A size: coefficients by monomial, sorted, none of them zero."""

    terms: tuple[tuple[Monomial, int], ...]

    @classmethod
    def of(cls, terms: dict[Monomial, int]) -> Dim:
        """The normal form. Raises ShapeError when it becomes too large to be a size."""
        kept = {names: count for names, count in terms.items() if count}
        if len(kept) > _MOST_TERMS or any(
            len(names) > _MOST_DEGREE or abs(count) > 10**15 for names, count in kept.items()
        ):
            raise ShapeError("a size of too many parts", "give it a name")
        return cls(tuple(sorted(kept.items(), key=lambda term: (-len(term[0]), term[0]))))

    @classmethod
    def name(cls, name: str) -> Dim:
        return cls((((name,), 1),))

    @classmethod
    def number(cls, value: int) -> Dim:
        return cls.of({(): value})

    def __add__(self, other: Dim) -> Dim:
        return self._plus(other, 1)

    def __sub__(self, other: Dim) -> Dim:
        return self._plus(other, -1)

    def __mul__(self, other: Dim) -> Dim:
        terms: dict[Monomial, int] = {}
        for mine, a in self.terms:
            for theirs, b in other.terms:
                names = tuple(sorted((*mine, *theirs)))
                terms[names] = terms.get(names, 0) + a * b
        return Dim.of(terms)

    def _plus(self, other: Dim, sign: int) -> Dim:
        terms = dict(self.terms)
        for names, count in other.terms:
            terms[names] = terms.get(names, 0) + sign * count
        return Dim.of(terms)

    def names(self) -> set[str]:
        """The names that it is made of."""
        return {name for names, _ in self.terms for name in names}

    def __str__(self) -> str:
        shown = ""
        for names, count in self.terms:
            part = "*".join((*([str(abs(count))] if abs(count) != 1 or not names else []), *names))
            sign = (" - " if shown else "-") if count < 0 else (" + " if shown else "")
            shown += sign + part
        return shown or "0"


Shape = tuple[Dim, ...]  # () is a scalar


@dataclass(frozen=True, slots=True)
class Function:
    """The shapes that a function takes and the one that it gives."""

    takes: tuple[Shape, ...]
    gives: Shape

    def __str__(self) -> str:
        return f"{', '.join(map(shown, self.takes))} -> {shown(self.gives)}"


def shown(shape: Shape | Function) -> str:
    """A shape as it is written."""
    if isinstance(shape, Function):
        return str(shape)
    return f"[{', '.join(map(str, shape))}]" if shape else "scalar"


def dim_of(node: form.Node) -> Dim:
    """The size that an expression says. Raises ShapeError."""
    match node:
        case form.Number() if node.text.isdecimal():
            return Dim.number(int(node.text))
        case form.Name():
            return Dim.name(node.text)
        case form.Negative():
            return Dim.number(0) - dim_of(node.of)
        case form.Binary() if node.sign in "+-*":
            left, right = dim_of(node.left), dim_of(node.right)
            return left + right if node.sign == "+" else (
                left - right if node.sign == "-" else left * right
            )  # fmt: skip
    raise ShapeError(f"'{node}' is no size", "sizes are names, integers, sums and products")


def parse(text: str) -> Shape | Function:
    """A shape as written in a table. Raises ShapeError."""
    text = text.strip()
    if len(text) > _LONGEST:
        raise ShapeError(f"a shape of {len(text)} characters", f"at most {_LONGEST} are read")
    takes, arrow, gives = text.replace("→", "->").partition("->")
    if arrow:
        return Function(tuple(map(_tensor, _apart(takes))), _tensor(gives))
    return _tensor(text)


def _apart(text: str) -> list[str]:
    """`[a, b], [c]` → the shapes of two arguments."""
    return re.split(r",(?![^\[]*\])", text)


def _tensor(text: str) -> Shape:
    text = text.strip().strip("`")
    if text in ("scalar", "[]"):
        return ()
    if not (text.startswith("[") and text.endswith("]")):
        raise ShapeError(
            f"'{text}' is no shape", "write scalar, [d_k], [d_k, d_v] or [d_k] -> [d_v]"
        )
    try:
        return tuple(dim_of(form.parse_expression(part)) for part in text[1:-1].split(","))
    except form.FormError as error:
        raise ShapeError(f"'{text}' is no shape: {error}", error.hint) from None
