"""Mutants are small, different from the code and from each other, and Python all the same."""

from __future__ import annotations

import ast

from hypothesis import given
from hypothesis import strategies as st

from cupel.notes.mutants import mutants

STEP = '''def step(weight, keep, theta, grad):
    """Text with a - sign, which nobody touches."""
    assert keep + theta > 0, f"{keep - theta}"
    moved = keep * weight - theta * grad
    return moved


def other(a, b):
    return a + b
'''


def of(text: str, name: str = "step") -> list[str]:
    node = next(n for n in ast.walk(ast.parse(text)) if getattr(n, "name", "") == name)
    assert isinstance(node, ast.FunctionDef)
    assert node.end_lineno is not None
    return [one.what for one in mutants(text, "x.py", node.lineno, node.end_lineno).made]


def test_signs_terms_factors_and_gates_are_changed() -> None:
    whats = of(STEP)
    assert "sign of theta * grad flipped" in whats
    assert "term theta * grad dropped" in whats
    assert "term keep * weight dropped" in whats
    assert "factor weight dropped" in whats
    assert "keep swapped for theta" in whats
    assert not any("return" in what or "Text" in what for what in whats)


def test_only_the_function_between_the_lines_is_changed() -> None:
    made = mutants(STEP, "x.py", 1, 5).made
    for one in made:
        assert one.text.endswith("def other(a, b):\n    return a + b\n")
        assert one.line == 4


def test_every_mutant_is_python_and_another_one() -> None:
    made = mutants(STEP, "x.py", 1, 5).made
    for one in made:
        ast.parse(one.text)
    texts = {one.text for one in made}
    assert len(texts) == len(made)
    assert STEP not in texts


def test_a_line_may_be_left_alone_with_a_reason() -> None:
    text = STEP.replace("theta * grad", "theta * grad  # no mutant: tried by hand")
    found = mutants(text, "x.py", 1, 5)
    assert found.made == ()
    assert found.exempt == ((4, "tried by hand"),)


def test_calls_lose_their_maps_and_turn_their_signs() -> None:
    text = (
        "def f(x, y):\n"
        "    z = torch.baddbmm(x, y, y, alpha=-1)\n"
        "    w = torch.where(x <= y, x.tanh(), torch.exp(y))\n"
        "    return -z / w.sqrt()\n"
    )
    whats = of(text, "f")
    for what in (
        "sign of alpha flipped", "both sides of where exchanged", "tanh of x left out",
        "exp of y left out", "x <= y turned round", "sign of z flipped",
        "divisor w.sqrt() dropped", "sqrt of w left out",
    ):  # fmt: skip
        assert what in whats, whats


def test_equal_and_not_equal_are_exchanged() -> None:
    whats = of("def f(form, n):\n    return form == 'unit' or n != 1\n", "f")
    assert "form == 'unit' turned round" in whats
    assert "n != 1 turned round" in whats


def test_a_function_can_be_exchanged_in_place_unless_a_decorator_makes_another_of_it() -> None:
    for decorator, wanted in {
        '@implements("toy.v1:eq1")': True,
        "@staticmethod": True,
        "@torch.no_grad()": False,
        "@cache": False,
    }.items():
        text = f"{decorator}\ndef f(a, b):\n    return a + b\n"
        assert mutants(text, "x.py", 2, 3).in_place == wanted
    assert not mutants("class A:\n    b = 1 + 2\n", "x.py", 1, 2).in_place


def test_text_beyond_ascii_stays_as_it_is() -> None:
    text = 'def f(α, β):\n    return "é…" * 0 + α * β  # ü\n'
    for one in mutants(text, "x.py", 1, 2).made:
        ast.parse(one.text)
        assert one.text.endswith("# ü\n")


@given(st.text(alphabet="abxy+-*/() \n=:.,_'0123", max_size=60))
def test_any_body_is_survived(body: str) -> None:
    text = f"def f(a, b):\n    return ({body})\n"
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return
    node = tree.body[0]
    if not isinstance(node, ast.FunctionDef) or node.end_lineno is None:
        return
    for one in mutants(text, "x.py", node.lineno, node.end_lineno).made:
        ast.parse(one.text)
