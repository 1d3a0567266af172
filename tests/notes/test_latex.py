"""Symbols of LaTeX are found by their base; layout, words and operators are none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cupel.notes.latex import base_of, symbols


def bases(text: str) -> list[str]:
    return [names[0] for _, names in symbols(text)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"M_t = M_{t-1} - \theta_t \nabla \ell(M_{t-1}; x_t)", ["M", "theta", "l", "x"]),
        (r"\mathcal{M}_{t-1} \mathbf{x}^\top", ["M", "x"]),
        (r"\hat{v} + \tilde{x} + \overline{y}", ["v", "x", "y"]),
        (r"\sum_{i=1}^{t} \theta_i \prod_{j \le i} a_j", ["t", "theta", "a"]),
        (r"\operatorname{softmax}(z) + \text{for all words} \mathrm{FFN}", ["z"]),
        (r"W^{*} S^{(t)} X^T Y^2 Z^\top", ["W", "S", "X", "Y", "Z"]),
        (r"|x|^{p-1}", ["x", "p"]),
        (r"\begin{bmatrix} p_1 & p_2 \end{bmatrix} \in \mathbb{R}^{d}", ["p", "d"]),
        (r"\begin{array}{cc} a & b \end{array}", ["a", "b"]),
        (r"x_\text{new} + x_{new}", ["x"]),
        (r"\frac{a}{b} \left( c \right) \quad d", ["a", "b", "c", "d"]),
        (r"\unheardof_3", ["unheardof"]),
        (r"\argmin_{w} f(w)", ["f"]),
    ],
)
def test_symbols_are_found_by_their_base(text: str, found: list[str]) -> None:
    assert bases(text) == found


def test_the_base_of_a_declared_name() -> None:
    assert [base_of(name) for name in ("M_{t-1}", "x_tilde", "t'", "theta")] == [
        "M", "x", "t", "theta"
    ]  # fmt: skip


@given(st.text(st.sampled_from("ab{}_^\\ ()=\n1'&%"), max_size=40) | st.text(max_size=40))
def test_any_text_is_looked_through(text: str) -> None:
    for shown, names in symbols(text):
        assert shown
        assert names
