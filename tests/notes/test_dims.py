"""Sizes are compared as polynomials, shapes are read as they are written."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cupel.notes import form
from cupel.notes.dims import Dim, Function, ShapeError, dim_of, parse, shown


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("[N_p + C]", "[C + N_p]"),
        ("[2*C + C]", "[3*C]"),
        ("[2*(N + C) - C]", "[C + 2*N]"),
        ("[d*e]", "[e*d]"),
        ("[d, 4*d]", "[ d , d*4 ]"),
        ("[d_{k}]", "[d_k]"),
        ("[C + 1 - 1]", "[C]"),
    ],
)
def test_equal_sizes_are_equal_however_they_are_written(one: str, other: str) -> None:
    assert parse(one) == parse(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("[d_k]", "[d_v]"), ("[d]", "[d, 1]"), ("[d]", "scalar"), ("[d*e]", "[d + e]")],
)
def test_other_sizes_differ(one: str, other: str) -> None:
    assert parse(one) != parse(other)


def test_functions_have_what_they_take_and_give() -> None:
    found = parse("[d, m], [m] -> [d]")
    assert isinstance(found, Function)
    assert len(found.takes) == 2
    assert str(found) == "[d, m], [m] -> [d]"
    assert parse("scalar -> [d]") == Function(((),), (Dim.name("d"),))


@pytest.mark.parametrize("text", ["d_k", "[d_k", "[]]", "[a/b]", "[f(x)]", "[,]", "[1.5]", "", "->",
                                  "[" + "(a+b)*" * 30 + "a]", "[" + "9" * 300 + "]"])  # fmt: skip
def test_what_is_no_shape_is_refused(text: str) -> None:
    with pytest.raises(ShapeError):
        parse(text)


def test_shapes_are_printed_as_they_are_written() -> None:
    for text in ("scalar", "[d_k, d_v]", "[C + N_p, 4*d]", "[d*e - 1]", "[-2*a + b]"):
        assert shown(parse(text)) == text


SIZES = st.recursive(
    st.sampled_from(["a", "b", "c"]) | st.integers(0, 9).map(str),
    lambda inner: st.tuples(inner, st.sampled_from("+-*"), inner).map(lambda t: f"({' '.join(t)})"),
    max_leaves=5,
)


@given(SIZES, st.integers(0, 7), st.integers(0, 7), st.integers(0, 7))
def test_a_size_has_the_value_that_python_gives_it(text: str, a: int, b: int, c: int) -> None:
    values = {"a": a, "b": b, "c": c}
    found = 0
    for names, count in dim_of(form.parse_expression(text)).terms:
        for name in names:
            count *= values[name]
        found += count
    assert found == eval(text, {}, values)


@given(st.text(max_size=40))
def test_any_text_is_a_shape_or_refused(text: str) -> None:
    with contextlib.suppress(ShapeError):
        parse(text)
