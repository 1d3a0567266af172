"""Small wrong versions of a marked function: a sign flipped, a term dropped, two gates swapped.

Whoever says that a test holds an equation must see it fail on each of them. Mutations are made in
the text of a file, one at a time, so that all else of it stays as it is. A line that ends in `# no
mutant: reason` is left alone, and status says how many such lines there are.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

EXEMPT = "# no mutant:"
_FLIPPED: dict[type[ast.operator], type[ast.operator]] = {ast.Add: ast.Sub, ast.Sub: ast.Add}
_COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.Gt, ast.Gt: ast.Lt, ast.LtE: ast.GtE, ast.GtE: ast.LtE,
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
}  # fmt: skip
_FLIPPED_CALLS = {"cumsum": "cumprod", "tril": "triu", "sub": "add", "add": "sub"}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One wrong version: the whole text of the file, and what was done where."""

    path: str
    line: int
    column: int
    what: str
    text: str


@dataclass(frozen=True, slots=True)
class Mutants:
    """The wrong versions of one function, and the lines of it that are left alone with reasons."""

    made: tuple[Mutant, ...]
    exempt: tuple[tuple[int, str], ...]
    in_place: bool  # a function as it is written, so that no more than its code differs


def mutants(text: str, path: str, first: int, last: int) -> Mutants:
    """Of the definition between two lines of a file. The text must be Python."""
    lines = text.splitlines()
    exempt = {
        number: lines[number - 1].partition(EXEMPT)[2].strip()
        for number in range(first, min(last, len(lines)) + 1)
        if EXEMPT in lines[number - 1]
    }
    definition = _definition(ast.parse(text), first, last)
    source = _Source(text)
    made = []
    seen = {text}
    for node, new, what in _changes(definition):
        if not exempt.keys().isdisjoint(range(node.lineno, (node.end_lineno or node.lineno) + 1)):
            continue
        wrong = source.replaced(node, new)
        if wrong not in seen:
            seen.add(wrong)
            made.append(Mutant(path, node.lineno, node.col_offset + 1, what, wrong))
    return Mutants(tuple(made), tuple(sorted(exempt.items())), _is_plain(definition))


def _is_plain(definition: ast.AST) -> bool:
    """Whether decorators leave a function what it is: `implements` does, and a method's kind."""
    if not isinstance(definition, ast.FunctionDef):
        return False
    names = {ast.unparse(one).partition("(")[0] for one in definition.decorator_list}
    return names <= {"implements", "staticmethod", "classmethod"}


def _definition(tree: ast.Module, first: int, last: int) -> ast.AST:
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            and node.lineno == first
            and node.end_lineno == last
        ):
            return node
    raise AssertionError(f"no definition stands in lines {first} to {last}")


class _Source:
    """Text in which one expression is replaced by another."""

    def __init__(self, text: str) -> None:
        self._lines = text.encode().splitlines(keepends=True)

    def replaced(self, node: ast.expr, new: str) -> str:
        assert node.end_lineno is not None
        before = self._lines[: node.lineno - 1]
        behind = self._lines[node.end_lineno :]
        head = self._lines[node.lineno - 1][: node.col_offset]
        tail = self._lines[node.end_lineno - 1][node.end_col_offset :]
        return b"".join((*before, head, f"({new})".encode(), tail, *behind)).decode()


Change = tuple[ast.expr, str, str]


def _changes(definition: ast.AST) -> Iterator[Change]:
    """Every change of the function's expressions, in the order of the text."""
    for node in _expressions(definition):
        if isinstance(node, ast.BinOp):
            yield from _of_binary(node)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            if not isinstance(node.operand, ast.Constant):
                yield node, ast.unparse(node.operand), f"sign of {_short(node.operand)} flipped"
        elif isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARED:
            new = copy.deepcopy(node)
            new.ops[0] = _COMPARED[type(node.ops[0])]()
            yield node, ast.unparse(new), f"{_short(node)} turned round"
        elif isinstance(node, ast.Call):
            yield from _of_call(node)
    yield from _swapped_gates(definition)


def _of_binary(node: ast.BinOp) -> Iterator[Change]:
    left, right = ast.unparse(node.left), ast.unparse(node.right)
    if type(node.op) in _FLIPPED:
        new = copy.deepcopy(node)
        new.op = _FLIPPED[type(node.op)]()
        yield node, ast.unparse(new), f"sign of {_short(node.right)} flipped"
        yield node, left, f"term {_short(node.right)} dropped"
        kept = right if isinstance(node.op, ast.Add) else f"-({right})"
        yield node, kept, f"term {_short(node.left)} dropped"
    elif isinstance(node.op, ast.Mult):
        yield node, left, f"factor {_short(node.right)} dropped"
        yield node, right, f"factor {_short(node.left)} dropped"
    elif isinstance(node.op, ast.Div):
        yield node, left, f"divisor {_short(node.right)} dropped"


def _of_call(node: ast.Call) -> Iterator[Change]:
    """`alpha=-1` turned round; a triangle or a sum along a sequence exchanged; a map left out."""
    for keyword in node.keywords:
        if keyword.arg in ("alpha", "beta") and isinstance(keyword.value, ast.UnaryOp):
            new = copy.deepcopy(node)
            for one in new.keywords:
                if one.arg == keyword.arg and isinstance(one.value, ast.UnaryOp):
                    one.value = one.value.operand
            yield node, ast.unparse(new), f"sign of {keyword.arg} flipped"
    if isinstance(node.func, ast.Attribute) and node.func.attr in _FLIPPED_CALLS:
        new = copy.deepcopy(node)
        assert isinstance(new.func, ast.Attribute)
        new.func.attr = _FLIPPED_CALLS[node.func.attr]
        yield node, ast.unparse(new), f"{node.func.attr} exchanged for {new.func.attr}"
    name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
    if name in (
        "exp",
        "log",
        "sqrt",
        "rsqrt",
        "square",
        "sign",
        "tanh",
        "sigmoid",
        "softmax",
        "abs",
    ):
        inner = _operand(node)
        if inner is not None:
            yield node, ast.unparse(inner), f"{name} of {_short(inner)} left out"
    if name == "where" and len(node.args) == 3:
        new = copy.deepcopy(node)
        new.args[1], new.args[2] = new.args[2], new.args[1]
        yield node, ast.unparse(new), "both sides of where exchanged"


def _operand(node: ast.Call) -> ast.expr | None:
    """`x` of `x.exp()` and of `torch.exp(x)`."""
    assert isinstance(node.func, ast.Attribute)
    module = isinstance(node.func.value, ast.Name) and node.func.value.id in (
        "torch", "np", "math", "F", "functional",
    )  # fmt: skip
    if module:
        return node.args[0] if node.args else None
    return node.func.value


def _swapped_gates(definition: ast.AST) -> Iterator[Change]:
    """Each use of a parameter exchanged for the parameter beside it."""
    names = _parameters(definition)
    others = {name: names[(at + 1) % len(names)] for at, name in enumerate(names)}
    if len(names) < 2:
        return
    for node in _expressions(definition):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in others:
            yield node, others[node.id], f"{node.id} swapped for {others[node.id]}"


def _parameters(definition: ast.AST) -> list[str]:
    if not isinstance(definition, ast.FunctionDef | ast.AsyncFunctionDef):
        return []
    given = definition.args
    every = [one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return [name for name in every if name not in ("self", "cls")]


def _expressions(definition: ast.AST) -> Iterator[ast.expr]:
    """Expressions of the body: no annotations, decorators, asserts, docstrings or f-strings."""
    stack: list[ast.AST] = list(reversed(getattr(definition, "body", [])))
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Assert | ast.Raise | ast.JoinedStr):
            continue
        if isinstance(node, ast.expr):
            yield node
        inside = list(ast.iter_child_nodes(node))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inside = list(node.body)
        elif isinstance(node, ast.AnnAssign):
            inside = [node.value] if node.value is not None else []
        elif isinstance(node, ast.Subscript):
            inside = [node.value]  # an index is not a term
        stack += reversed(inside)


def _short(node: ast.expr) -> str:
    text = ast.unparse(node)
    return text if len(text) <= 40 else f"{text[:37]}…"


def describe(found: Sequence[Mutant]) -> str:
    """One line: where, and what was done."""
    return "; ".join(f"line {one.line}: {one.what}" for one in found)
