"""The shape of an expression of the form language, or why it has none.

Operands of `+ - * /` have equal shapes, or one is a scalar; there is no other broadcasting.
`@` is the product of matrices; a vector is a row on its left, a column on its right, and two
vectors give a scalar. A function of vectors that is given a matrix is applied to each row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from cupel.errors import did_you_mean
from cupel.notes import form
from cupel.notes.dims import Dim, Function, Shape, ShapeError, dim_of, shown

ELEMENTWISE = frozenset({
    "softmax", "sigmoid", "tanh", "exp", "log", "sign", "abs", "sqrt", "silu", "gelu", "relu",
    "softplus", "normalize", "sin", "cos",
})  # fmt: skip
_SUBSCRIPTED = re.compile(r"(.+)_(\{[^{}]*\}'*|[^\W_]+'*)")
_WORD = re.compile(r"[^\W\d_]+")
_OF_INDICES = re.compile(r"[\w+\-*/'(),]+")


class UnknownSymbol(Exception):
    """A name that nothing declares."""

    def __init__(self, name: str, hint: str = "") -> None:
        super().__init__(f"'{name}' is not declared")
        self.name, self.hint = name, hint


@dataclass(frozen=True, slots=True)
class Scope:
    """What names mean at a place: shapes of declared symbols, sizes, and letters that count.

    A declared symbol whose subscript counts (`M_t`) stands for all of its kind: `M_{t-1}`, `M_0`.
    """

    symbols: Mapping[str, Shape | Function]
    indices: frozenset[str] = frozenset({"t"})
    sizes: frozenset[str] = frozenset()
    families: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, symbols: Mapping[str, Shape | Function], indices: Iterable[str] = ()) -> Scope:
        """The scope of some declared symbols; `indices` are those that count, besides `t`."""
        counting = frozenset({"t", *indices})
        sizes: set[str] = set()
        families: dict[str, str] = {}
        for name, shape in symbols.items():
            sizes.update(*(dim.names() for dim in _dims(shape)))
            stem, subscript = _subscripted(name)
            if stem and _counts(subscript, counting) and _WORD.search(subscript):
                families.setdefault(stem, name)
        return cls(dict(symbols), counting, frozenset(sizes), families)

    def find(self, name: str) -> Shape | Function:
        """The shape of a name. Raises UnknownSymbol."""
        if name in self.symbols:
            return self.symbols[name]
        if name in self.indices or name in self.sizes:
            return ()
        stem, subscript = _subscripted(name)
        if stem in self.families:
            if _counts(subscript, self.indices):
                return self.symbols[self.families[stem]]
            raise UnknownSymbol(
                name, f"declare it, or what counts in '{subscript}' as a symbol of type index"
            )
        near = did_you_mean(name, self.symbols).removeprefix("; ")
        raise UnknownSymbol(name, near or "add it to the equation's table, or to ## Symbols")

    def counting(self, name: str) -> Scope:
        """The same with one more letter that counts."""
        return replace(self, indices=self.indices | {name})

    def having(self, name: str, shape: Shape) -> Scope:
        """The same with one more symbol."""
        return replace(self, symbols={**self.symbols, name: shape})


def _subscripted(name: str) -> tuple[str, str]:
    """`S_mem_{t-1}` → `S_mem`, `{t-1}`; what has no subscript has no stem either."""
    match = _SUBSCRIPTED.fullmatch(name)
    return (match[1], match[2]) if match else ("", "")


def _told(node: form.Node, most: int = 72) -> str:
    text = str(node)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _dims(shape: Shape | Function) -> tuple[Dim, ...]:
    if isinstance(shape, Function):
        return (*(dim for one in shape.takes for dim in one), *shape.gives)
    return shape


def _counts(subscript: str, indices: frozenset[str]) -> bool:
    """Whether a subscript is made of letters that count, digits and signs: `{t-1}`, `0`, `t'`."""
    bare = subscript.strip("{}'")
    return bool(_OF_INDICES.fullmatch(bare)) and all(
        word in indices for word in _WORD.findall(bare)
    )


def shape_of(node: form.Node, scope: Scope) -> Shape:
    """The shape of an expression. Raises ShapeError and UnknownSymbol."""
    match node:
        case form.Number():
            return ()
        case form.Name():
            found = scope.find(node.text)
            if isinstance(found, Function):
                raise ShapeError(
                    f"'{_told(node)}' is a function and stands here as a value",
                    f"call it: {node}(…)",
                )
            return found
        case form.Negative():
            return shape_of(node.of, scope)
        case form.Transposed():
            return _transposed(node, scope)
        case form.Power():
            if shape_of(node.exponent, scope):
                raise ShapeError(f"the exponent of '{_told(node)}' is no scalar")
            return shape_of(node.of, scope)
        case form.Binary():
            left, right = shape_of(node.left, scope), shape_of(node.right, scope)
            return _product(node, left, right) if node.sign == "@" else _equal(node, left, right)
        case form.Call():
            return _called(node, scope)


def _transposed(node: form.Transposed, scope: Scope) -> Shape:
    shape = shape_of(node.of, scope)
    if len(shape) != 2:
        raise ShapeError(
            f"'{_told(node)}' transposes {shown(shape)}, which is no matrix",
            "the product of two vectors that is a matrix is outer(a, b)",
        )
    return shape[1], shape[0]


def _operands(node: form.Binary, left: Shape, right: Shape) -> str:
    return f"'{_told(node)}' does not close: {shown(left)} {node.sign} {shown(right)}"


def _equal(node: form.Binary, left: Shape, right: Shape) -> Shape:
    if left == right or not right:
        return left
    if not left:
        return right
    raise ShapeError(
        _operands(node, left, right),
        "to scale the rows of X by a vector write rows(g, X), its columns cols(g, X)"
        if {len(left), len(right)} == {1, 2}
        else "",
    )


def _product(node: form.Binary, left: Shape, right: Shape) -> Shape:
    if not left or not right:
        raise ShapeError(_operands(node, left, right), "a scalar is multiplied with *")
    if len(left) > 2 or len(right) > 2:
        raise ShapeError(_operands(node, left, right), "@ is the product of matrices and vectors")
    if left[-1] != right[0]:
        raise ShapeError(f"{_operands(node, left, right)}: {left[-1]} is not {right[0]}")
    return (*left[:-1], *right[1:])


# ---- calls -------------------------------------------------------------------------------------


def _called(node: form.Call, scope: Scope) -> Shape:
    try:
        found = scope.find(node.function)
    except UnknownSymbol as unknown:
        if node.function in ELEMENTWISE:
            (shape,) = _arguments(node, scope, 1)
            return shape
        if node.function in BUILT_IN:
            return BUILT_IN[node.function](node, scope)
        near = did_you_mean(node.function, (*ELEMENTWISE, *BUILT_IN, *scope.symbols))
        raise UnknownSymbol(
            node.function,
            near.removeprefix("; ") or "declare it with the type function, as [d_k] -> [d_v]",
        ) from unknown
    if not isinstance(found, Function):
        raise ShapeError(
            f"'{_told(node)}' calls {node.function}, which is {shown(found)}",
            "what is called has the type function and a shape as [d_k] -> [d_v]",
        )
    return _applied(node, found, _arguments(node, scope, len(found.takes)))


def _applied(node: form.Call, function: Function, given: list[Shape]) -> Shape:
    if tuple(given) == function.takes:
        return function.gives
    if len(given) == 1 and len(given[0]) == 2 and given[0][1:] == function.takes[0]:
        return (given[0][0], *function.gives)  # row by row
    told = ", ".join(map(shown, given))
    raise ShapeError(f"'{_told(node)}' is given {told}, and {node.function} is {function}")


def _arguments(node: form.Call, scope: Scope, count: int) -> list[Shape]:
    if len(node.arguments) != count:
        raise ShapeError(
            f"'{_told(node)}' has {len(node.arguments)} arguments, and {node.function} takes "
            f"{count}"
        )
    return [shape_of(argument, scope) for argument in node.arguments]


def _expected(node: form.Call, shape: Shape, axes: int) -> Shape:
    if len(shape) != axes:
        what = ("a scalar", "a vector", "a matrix")[axes]
        raise ShapeError(f"'{_told(node)}' is given {shown(shape)}, where {what} is expected")
    return shape


def _gradient(node: form.Call, scope: Scope) -> Shape:
    loss, by = _arguments(node, scope, 2)
    _expected(node, loss, 0)
    return by


def _outer(node: form.Call, scope: Scope) -> Shape:
    left, right = _arguments(node, scope, 2)
    return (*_expected(node, left, 1), *_expected(node, right, 1))


def _norm(node: form.Call, scope: Scope) -> Shape:
    shapes = _arguments(node, scope, 2 if len(node.arguments) == 2 else 1)
    if len(shapes) == 2:
        _expected(node, shapes[1], 0)
    return ()


def _over_index(node: form.Call, scope: Scope) -> Shape:
    """`sum(i, e)`: e with one more letter that counts; from where to where, the LaTeX says."""
    if len(node.arguments) != 2 or not isinstance(node.arguments[0], form.Name):
        raise ShapeError(
            f"'{_told(node)}' does not say over what",
            f"write {node.function}(i, …) with the index first",
        )
    return shape_of(node.arguments[1], scope.counting(node.arguments[0].text))


def _stack(node: form.Call, scope: Scope) -> Shape:
    """`stack(i, n, e)`: e for n values of i, as rows."""
    if len(node.arguments) != 3 or not isinstance(node.arguments[0], form.Name):
        raise ShapeError(f"'{_told(node)}' is not stack(i, n, e): index, how many, what")
    inner = shape_of(node.arguments[2], scope.counting(node.arguments[0].text))
    return (dim_of(node.arguments[1]), *inner)


def _identity(node: form.Call, scope: Scope) -> Shape:
    if len(node.arguments) != 1:
        raise ShapeError(f"'{_told(node)}' is not identity(d)")
    size = dim_of(node.arguments[0])
    return size, size


def _filled(node: form.Call, scope: Scope) -> Shape:
    return tuple(dim_of(argument) for argument in node.arguments)


def _diagonal(node: form.Call, scope: Scope) -> Shape:
    (shape,) = _arguments(node, scope, 1)
    if len(shape) == 2 and shape[0] == shape[1]:
        return shape[:1]
    return (*_expected(node, shape, 1), *shape)


def _same_matrix(node: form.Call, scope: Scope) -> Shape:
    (shape,) = _arguments(node, scope, 1)
    return _expected(node, shape, 2)


def _solve(node: form.Call, scope: Scope) -> Shape:
    left, right = _arguments(node, scope, 2)
    _expected(node, left, 2)
    if left[0] != left[1] or not right or right[0] != left[0]:
        raise ShapeError(f"'{_told(node)}' does not close: solve({shown(left)}, {shown(right)})")
    return right


def _inverse(node: form.Call, scope: Scope) -> Shape:
    shape = _same_matrix(node, scope)
    if shape[0] != shape[1]:
        raise ShapeError(f"'{_told(node)}' is given {shown(shape)}, which is not square")
    return shape


def _trace(node: form.Call, scope: Scope) -> Shape:
    _inverse(node, scope)
    return ()


def _concat(node: form.Call, scope: Scope) -> Shape:
    shapes = _arguments(node, scope, max(len(node.arguments), 1))
    if not all(shapes) or any(shape[1:] != shapes[0][1:] for shape in shapes):
        told = ", ".join(map(shown, shapes))
        raise ShapeError(
            f"'{_told(node)}' does not close: concat of {told}; all but the first must agree"
        )
    first = shapes[0][0]
    for shape in shapes[1:]:
        first = first + shape[0]
    return (first, *shapes[0][1:])


def _scaled(axis: int) -> _Rule:
    def rule(node: form.Call, scope: Scope) -> Shape:
        vector, matrix = _arguments(node, scope, 2)
        _expected(node, vector, 1)
        _expected(node, matrix, 2)
        if vector[0] != matrix[axis]:
            raise ShapeError(
                f"'{_told(node)}' does not close: {node.function}({shown(vector)}, {shown(matrix)})"
            )
        return matrix

    return rule


def _best(node: form.Call, scope: Scope) -> Shape:
    what, loss = _arguments(node, scope, 2)
    _expected(node, loss, 0)
    return what


def _either(node: form.Call, scope: Scope) -> Shape:
    """`where(c, a, b)`, `max(a, b)`, `min(a, b)`: equal shapes, or scalars."""
    shapes = _arguments(node, scope, 3 if node.function == "where" else 2)
    large = [shape for shape in shapes if shape]
    if any(shape != large[0] for shape in large):
        raise ShapeError(f"'{_told(node)}' does not close: {', '.join(map(shown, shapes))}")
    return large[0] if large else ()


def _row(node: form.Call, scope: Scope) -> Shape:
    (shape,) = _arguments(node, scope, 1)
    one = Dim.number(1)
    (size,) = _expected(node, shape, 1)
    return (one, size) if node.function == "row" else (size, one)


_Rule = Callable[[form.Call, Scope], Shape]
BUILT_IN: dict[str, _Rule] = {
    "grad": _gradient,
    "outer": _outer,
    "norm": _norm,
    "sum": _over_index,
    "prod": _over_index,
    "stack": _stack,
    "identity": _identity,
    "zeros": _filled,
    "ones": _filled,
    "diag": _diagonal,
    "tril": _same_matrix,
    "triu": _same_matrix,
    "solve": _solve,
    "inverse": _inverse,
    "trace": _trace,
    "concat": _concat,
    "rows": _scaled(0),
    "cols": _scaled(1),
    "argmin": _best,
    "argmax": _best,
    "where": _either,
    "max": _either,
    "min": _either,
    "row": _row,
    "column": _row,
}
