"""Forms are parsed as they read; what is no form is refused in one line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cupel.notes.form import (
    FormError,
    Name,
    Node,
    Power,
    Transposed,
    is_name,
    parse_expression,
    parse_statement,
    statements,
)
from forms import NODES


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a + b * c", "a + b * c"),
        ("(a + b) * c", "(a + b) * c"),
        ("a - b - c", "a - b - c"),
        ("a - (b - c)", "a - (b - c)"),
        ("a @ b @ c", "a @ b @ c"),
        ("-a^2", "-a^2"),
        ("a^T @ b^-1", "a^T @ b^(-1)"),
        ("(a + b)^T", "(a + b)^T"),
        ("a^(T)", "a^T"),
        ("M_{t - 1} + M_{t}", "M_{t-1} + M_t"),
        ("f(a, g(b))", "f(a, g(b))"),
        ("a <= b + c", "a <= b + c"),
        ("1.5e-3 * θ_t", "1.5e-3 * θ_t"),
    ],
)
def test_an_expression_reads_as_it_was_meant(text: str, tree: str) -> None:
    assert str(parse_expression(text)) == tree


def test_a_power_of_the_letter_t_is_written_in_parentheses() -> None:
    assert parse_expression("a^T") == Transposed(Name("a"))
    assert parse_expression("a^(T)") == Power(Name("a"), Name("T"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("y = ", "found the end, expected a name, a number or '('"),
        ("y", "found the end, expected '=' between a left and a right side"),
        ("y = a b", "'b' follows without an operator"),
        ("y = 2 (a)", "found '(', expected an operator or the end"),
        ("y = f(a", "expected ',' or ')' in the call of f"),
        ("y = a = b", "found '=', expected an operator or the end"),
        ("y = \\theta", "cannot read '\\theta'"),
        ("y = 2x", "cannot read '2x'"),
        ("y = x_", "cannot read"),
        ("y = " + "(" * 100, "more than 40 parts within each other"),
        ("y = " + "a + " * 400 + "a", "more than 300 words and signs"),
    ],
)
def test_what_is_no_statement_is_refused_in_one_line(text: str, told: str) -> None:
    with pytest.raises(FormError) as error:
        parse_statement(text)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_statements_go_on_in_indented_lines_and_have_comments() -> None:
    text = "a = b +\n    c   # of both\n\n# nothing\nd = a"
    assert statements(text) == [(0, "a = b + c"), (4, "d = a")]


def test_a_name_is_one_word() -> None:
    assert all(is_name(name) for name in ("x", "x_t", "M_{t-1}", "t'", "θ_t"))
    assert not any(is_name(text) for text in ("x y", "", "2x", "x_", "x\n"))


@given(NODES)
def test_what_is_printed_parses_into_an_equal_tree(node: Node) -> None:
    assert parse_expression(str(node)) == node


@given(st.text(max_size=60))
def test_any_text_is_a_statement_or_refused(text: str) -> None:
    told = ""
    try:
        parse_statement(text)
    except FormError as error:
        told = str(error)
    assert "\n" not in told
