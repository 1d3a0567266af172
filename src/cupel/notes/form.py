"""The form language: `M_t = M_{t-1} - theta_t * grad(l, M_{t-1})`, parsed into a tree.

Operators bind as in Python: comparisons, `+ -`, `* / @`, a minus sign, then `^`. `^T` transposes,
any other `^` is a power. Names have letters and digits and subscripts (`x_t`, `W_K`, `M_{t-1}`).
A line `left = right` is a statement; an indented line goes on with the one before; `#` begins a
comment. What the names mean, and whether shapes fit, is for `cupel.notes.shapes` to say.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""\s*(?:(?P<number>\d{1,12}(?:\.\d{1,12})?(?:[eE][+-]?\d{1,3})?(?![\w.]))
    |(?P<name>[^\W\d_][^\W_]*'*(?:_(?:\{[^{}]*\}|[^\W_]+)'*)*)
    |(?P<sign><=|>=|==|[-+*/@^(),=<>])
    |(?P<end>\Z))""",
    re.VERBOSE,
)
_LONGEST = 300  # words and signs; a sum of n terms is a tree of depth n, and Python's stack ends
_DEEPEST = 40
_COMPARED = ("<=", ">=", "==", "<", ">")


class FormError(Exception):
    """What cannot be read as a form, in one line; `hint` says what to type."""

    def __init__(self, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Number:
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Name:
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Call:
    function: str
    arguments: tuple[Node, ...]

    def __str__(self) -> str:
        return f"{self.function}({', '.join(map(str, self.arguments))})"


@dataclass(frozen=True, slots=True)
class Negative:
    of: Node

    def __str__(self) -> str:
        return f"-{_wrapped(self.of)}"


@dataclass(frozen=True, slots=True)
class Transposed:
    of: Node

    def __str__(self) -> str:
        return f"{_wrapped(self.of)}^T"


@dataclass(frozen=True, slots=True)
class Power:
    of: Node
    exponent: Node

    def __str__(self) -> str:
        return f"{_wrapped(self.of)}^{_wrapped(self.exponent)}"


@dataclass(frozen=True, slots=True)
class Binary:
    sign: str
    left: Node
    right: Node

    def __str__(self) -> str:
        # Signs of one rank are read from the left: only what stands on the right needs parentheses.
        keeps = isinstance(self.left, Binary) and _rank(self.left.sign) >= _rank(self.sign)
        left = str(self.left) if keeps else _wrapped(self.left)
        higher = isinstance(self.right, Binary) and _rank(self.right.sign) > _rank(self.sign)
        return f"{left} {self.sign} {self.right if higher else _wrapped(self.right)}"


Node = Number | Name | Call | Negative | Transposed | Power | Binary
_Inner = Callable[[], Node]


@dataclass(frozen=True, slots=True)
class Statement:
    """`left = right`; `line` counts from 0 within the block."""

    left: Node
    right: Node
    line: int


def _rank(sign: str) -> int:
    return 0 if sign in _COMPARED else 1 if sign in "+-" else 2


def _wrapped(node: Node) -> str:
    return f"({node})" if isinstance(node, Binary | Negative) else str(node)


def statements(text: str) -> list[tuple[int, str]]:
    """The statements of a block, each with the number of its first line, unparsed."""
    found: list[tuple[int, str]] = []
    for number, line in enumerate(text.split("\n")):
        bare = line.partition("#")[0]
        if not bare.strip():
            continue
        if bare[0] == " " and found:
            found[-1] = (found[-1][0], f"{found[-1][1]} {bare.strip()}")
        else:
            found.append((number, bare.strip()))
    return found


def parse_statement(text: str, line: int = 0) -> Statement:
    """`left = right`. Raises FormError."""
    parser = _Parser(text)
    left = parser.expression()
    parser.take("=", "'=' between a left and a right side")
    right = parser.expression()
    parser.take_end()
    return Statement(left, right, line)


def parse_expression(text: str) -> Node:
    """One expression. Raises FormError."""
    parser = _Parser(text)
    node = parser.expression()
    parser.take_end()
    return node


def names(node: Node) -> list[Name]:
    """Every name in a tree but those of called functions, in order, repeated as they stand."""
    if isinstance(node, Name):
        return [node]
    return [name for inner in children(node) for name in names(inner)]


def children(node: Node) -> tuple[Node, ...]:
    """The parts that a node is made of."""
    match node:
        case Number() | Name():
            return ()
        case Call():
            return node.arguments
        case Binary():
            return (node.left, node.right)
        case Power():
            return (node.of, node.exponent)
        case Negative() | Transposed():
            return (node.of,)


def canonical(name: str) -> str:
    """A name in one spelling: `x_{t}` is `x_t`, blanks within braces are nothing."""
    name = re.sub(r"\s+", "", name)
    return re.sub(r"_\{([^\W_]+)\}", r"_\1", name)


def is_name(text: str) -> bool:
    """Whether a whole text is one name."""
    match = _TOKEN.match(text)
    return match is not None and match.lastgroup == "name" and match.end() == len(text)


class _Parser:
    """Recursive descent over the tokens of one statement."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._at = self._depth = 0

    def expression(self) -> Node:
        """A comparison, or what is compared."""
        self._depth += 1
        if self._depth > _DEEPEST:
            raise FormError(f"more than {_DEEPEST} parts within each other", "name a part first")
        node = self._chain(_COMPARED, self._sum)
        self._depth -= 1
        return node

    def take(self, sign: str, expected: str) -> None:
        """Go past a sign that must be there."""
        if self._next != ("sign", sign):
            raise self._wrong(expected)
        self._at += 1

    def take_end(self) -> None:
        """Nothing may follow."""
        if self._next[0] == "end":
            return
        if self._next[0] == "sign":
            raise self._wrong("an operator or the end")
        raise FormError(
            f"'{self._next[1]}' follows without an operator", "a product is written with * or @"
        )

    def _chain(self, signs: tuple[str, ...], inner: _Inner) -> Node:
        node = inner()
        while self._next[0] == "sign" and self._next[1] in signs:
            sign = self._next[1]
            self._at += 1
            node = Binary(sign, node, inner())
        return node

    def _sum(self) -> Node:
        return self._chain(("+", "-"), self._product)

    def _product(self) -> Node:
        return self._chain(("*", "/", "@"), self._signed)

    def _signed(self) -> Node:
        negative = False
        while self._next in (("sign", "-"), ("sign", "+")):
            negative ^= self._next[1] == "-"
            self._at += 1
        node = self._raised()
        return Negative(node) if negative else node

    def _raised(self) -> Node:
        node = self._atom()
        while self._next == ("sign", "^"):
            self._at += 1
            if self._next == ("name", "T"):
                self._at += 1
                node = Transposed(node)
            else:
                minus = self._next == ("sign", "-")
                self._at += minus
                exponent = self._atom()
                node = Power(node, Negative(exponent) if minus else exponent)
        return node

    def _atom(self) -> Node:
        kind, text = self._next
        if kind == "number":
            self._at += 1
            return Number(text)
        if kind == "name":
            self._at += 1
            return self._call(text) if self._next == ("sign", "(") else Name(canonical(text))
        if (kind, text) == ("sign", "("):
            self._at += 1
            node = self.expression()
            self.take(")", "')'")
            return node
        raise self._wrong("a name, a number or '('")

    def _call(self, function: str) -> Node:
        self._at += 1
        arguments = []
        if self._next != ("sign", ")"):
            arguments.append(self.expression())
            while self._next == ("sign", ","):
                self._at += 1
                arguments.append(self.expression())
        self.take(")", f"',' or ')' in the call of {function}")
        return Call(canonical(function), tuple(arguments))

    @property
    def _next(self) -> tuple[str, str]:
        return self._tokens[self._at]

    def _wrong(self, expected: str) -> FormError:
        kind, text = self._next
        found = "the end" if kind == "end" else f"'{text}'"
        return FormError(f"found {found}, expected {expected}")


def _tokens(text: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    position = 0
    while not found or found[-1][0] != "end":
        match = _TOKEN.match(text, position)
        if match is None:
            rest = " ".join(text[position:].split())[:12]
            hint = "a form is plain text, as theta_t; LaTeX stands in the latex block"
            raise FormError(f"cannot read '{rest}'", hint if "\\" in rest else "")
        kind = match.lastgroup or "end"
        found.append((kind, canonical(match[kind]) if kind == "name" else match[kind]))
        position = match.end()
        if len(found) > _LONGEST:
            raise FormError(f"more than {_LONGEST} words and signs", "write it on several lines")
    return found
