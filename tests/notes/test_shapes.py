"""The shape of an expression, or the one line that says why it has none."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given

from cupel.notes.dims import ShapeError, parse, shown
from cupel.notes.form import Node, parse_expression
from cupel.notes.shapes import BUILT_IN, ELEMENTWISE, Scope, UnknownSymbol, shape_of
from forms import NODES

SCOPE = Scope.of(
    {
        name: parse(shape)
        for name, shape in {
            "M_t": "[d_k, d_v]", "S_mem_t": "[d_k, d_v]", "k_t": "[d_k]", "v_t": "[d_v]",
            "g": "[d_k]", "h": "[d_v]", "theta_t": "scalar", "l": "scalar", "W_1": "[m, d_k]",
            "P": "[N_p, d]", "X": "[C, d]", "A": "[n, n]", "B": "[n, m]", "b": "[n]",
            "f": "[d_k] -> [d_v]", "two": "[d], [m] -> [d, m]", "q": "[d]", "r": "[m]",
        }.items()
    },
    indices=("i",),
)  # fmt: skip


def shape(text: str) -> str:
    return shown(shape_of(parse_expression(text), SCOPE))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("M_t", "[d_k, d_v]"),
        ("M_{t-1} + M_0", "[d_k, d_v]"),
        ("M_i - M_{t'}", "[d_k, d_v]"),
        ("S_mem_{t-1}", "[d_k, d_v]"),
        ("2 * M_t / theta_t - 1", "[d_k, d_v]"),
        ("k_t @ M_t", "[d_v]"),
        ("M_t @ v_t", "[d_k]"),
        ("M_t^T @ k_t", "[d_v]"),
        ("k_t @ k_t", "scalar"),
        ("norm(k_t)^2 + norm(M_t, 1)", "scalar"),
        ("grad(l, M_t)", "[d_k, d_v]"),
        ("outer(k_t, v_t)", "[d_k, d_v]"),
        ("sum(j, theta_j * M_j)", "[d_k, d_v]"),
        ("prod(j, 1 - theta_j)", "scalar"),
        ("stack(j, N, k_j)", "[N, d_k]"),
        ("softmax(tanh(M_t))", "[d_k, d_v]"),
        ("sqrt(d_k)", "scalar"),
        ("identity(d_k) @ M_t", "[d_k, d_v]"),
        ("zeros(2*d_k, d_v)", "[2*d_k, d_v]"),
        ("diag(g) @ M_t", "[d_k, d_v]"),
        ("diag(A)", "[n]"),
        ("tril(M_t)", "[d_k, d_v]"),
        ("solve(A, B)", "[n, m]"),
        ("solve(A, b)", "[n]"),
        ("inverse(A) @ b", "[n]"),
        ("trace(A)", "scalar"),
        ("concat(P, X, X)", "[2*C + N_p, d]"),
        ("concat(b, r)", "[m + n]"),
        ("rows(g, M_t)", "[d_k, d_v]"),
        ("cols(h, M_t)", "[d_k, d_v]"),
        ("argmin(M_t, l)", "[d_k, d_v]"),
        ("where(l <= theta_t, M_t, 0)", "[d_k, d_v]"),
        ("max(abs(M_t) - theta_t, 0)", "[d_k, d_v]"),
        ("row(k_t)", "[1, d_k]"),
        ("column(k_t)", "[d_k, 1]"),
        ("f(k_t)", "[d_v]"),
        ("two(q, r)", "[d, m]"),
        ("f(stack(j, N, k_j))", "[N, d_v]"),
    ],
)
def test_what_closes_has_a_shape(text: str, expected: str) -> None:
    assert shape(text) == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("k_t + v_t", "'k_t + v_t' does not close: [d_k] + [d_v]"),
        ("M_t * k_t", "[d_k, d_v] * [d_k]"),
        ("v_t @ M_t", "[d_v] @ [d_k, d_v]: d_v is not d_k"),
        ("theta_t @ M_t", "scalar @ [d_k, d_v]"),
        ("k_t^T", "transposes [d_k], which is no matrix"),
        ("theta_t^k_t", "the exponent of 'theta_t^k_t' is no scalar"),
        ("f", "'f' is a function and stands here as a value"),
        ("f(v_t)", "is given [d_v], and f is [d_k] -> [d_v]"),
        ("f(k_t, k_t)", "has 2 arguments, and f takes 1"),
        ("M_t(k_t)", "calls M_t, which is [d_k, d_v]"),
        ("grad(k_t, M_t)", "is given [d_k], where a scalar is expected"),
        ("outer(M_t, k_t)", "where a vector is expected"),
        ("sum(M_t)", "does not say over what"),
        ("sum(2, M_t)", "does not say over what"),
        ("stack(M_t)", "is not stack(i, n, e)"),
        ("identity()", "is not identity(d)"),
        ("identity(k_t / 2)", "is no size"),
        ("diag(M_t)", "where a vector is expected"),
        ("solve(B, A)", "does not close: solve([n, m], [n, n])"),
        ("inverse(B)", "is not square"),
        ("concat(P, M_t)", "does not close: concat of [N_p, d], [d_k, d_v]"),
        ("concat()", "has 0 arguments"),
        ("rows(h, M_t)", "does not close: rows([d_v], [d_k, d_v])"),
        ("cols(g, M_t)", "does not close: cols([d_k], [d_k, d_v])"),
        ("where(l, M_t, k_t)", "does not close"),
        ("softmax(k_t, v_t)", "softmax takes 1"),
    ],
)
def test_what_does_not_close_says_both_shapes(text: str, told: str) -> None:
    with pytest.raises(ShapeError) as error:
        shape(text)
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("text", "name", "hint"),
    [
        ("thta_t", "thta_t", "did you mean 'theta_t'?"),
        ("softmx(k_t)", "softmx", "did you mean 'softmax'?"),
        ("zzz(k_t)", "zzz", "declare it with the type function"),
        ("M_n", "M_n", "what counts in 'n'"),
        ("W_2", "W_2", "did you mean 'W_1'?"),
    ],
)
def test_unknown_names_are_told_with_what_to_type(text: str, name: str, hint: str) -> None:
    with pytest.raises(UnknownSymbol) as error:
        shape(text)
    assert error.value.name == name
    assert hint in error.value.hint


def test_a_broadcast_is_never_assumed() -> None:
    with pytest.raises(ShapeError) as error:
        shape("g * M_t")
    assert "rows(g, X)" in error.value.hint


def test_what_a_declared_name_means_goes_before_what_is_built_in() -> None:
    scope = Scope.of({"norm": parse("[d] -> [d]"), "x": parse("[d]")})
    assert shown(shape_of(parse_expression("norm(x)"), scope)) == "[d]"


def test_no_function_is_both_elementwise_and_its_own() -> None:
    assert not ELEMENTWISE & BUILT_IN.keys()


@given(NODES)
def test_every_tree_has_a_shape_or_one_of_two_errors(node: Node) -> None:
    scope = Scope.of({"a": parse("[n]"), "x_t": parse("[n, n]"), "M_t": parse("[n]")})
    with contextlib.suppress(ShapeError, UnknownSymbol):
        shape_of(node, scope)
