import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.cli.curve import terminal_curve

FINITE = st.floats(allow_nan=False, allow_infinity=False)
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def falling(count=200):
    steps = list(range(1, count + 1))
    return steps, [1.5 + 4 * math.exp(-step / 40) for step in steps]


def dots(text):
    """The set dots of the braille characters of each line."""
    return [
        sum((ord(c) - 0x2800).bit_count() for c in line if "⠀" <= c <= "⣿")
        for line in text.splitlines()[:-2]
    ]


@given(
    st.lists(st.tuples(st.integers(0, 10**9), st.floats()), max_size=40),
    st.lists(st.tuples(st.integers(0, 10**9), st.floats()), max_size=5),
    st.dictionaries(st.sampled_from(["unigram", "bigram", "a rather long name"]), FINITE),
    st.integers(48, 120),
    st.integers(6, 30),
    st.booleans(),
    st.sampled_from(["utf-8", "ascii"]),
)
@settings(deadline=None)
@pytest.mark.slow
def test_any_values_fit_into_width_and_height(
    train, val, references, width, height, colour, encoding
):
    text = terminal_curve(
        [step for step, _ in train],
        [value for _, value in train],
        val=([step for step, _ in val], [value for _, value in val]),
        references=references,
        width=width,
        height=height,
        colour=colour,
        encoding=encoding,
    )
    text.encode(encoding)
    lines = ESCAPES.sub("", text).splitlines()
    if any(math.isfinite(value) for _, value in train + val):
        assert len(lines) == height
    assert all(len(line) <= width for line in lines)


def test_colour_adds_escapes_and_nothing_else():
    steps, loss = falling()
    how = {"val": ([100], [2.0]), "references": {"unigram": 3.3}}
    plain = terminal_curve(steps, loss, **how, colour=False)
    coloured = terminal_curve(steps, loss, **how, colour=True)
    assert "\x1b" not in plain
    assert ESCAPES.sub("", coloured) == plain
    assert "\x1b[34m" in coloured


def test_the_curve_falls_from_the_upper_left_to_the_lower_right():
    steps, loss = falling()
    rows = terminal_curve(steps, loss, colour=False).splitlines()[:-2]
    first = [re.search("[⠁-⣿]", row).start() for row in rows]
    assert first == sorted(first)
    assert first[-1] > first[0] + 10


def test_a_spike_of_one_step_among_many_reaches_the_top():
    loss = [1.0] * 5000
    loss[2345] = 9.0
    text = terminal_curve(range(5000), loss, colour=False)
    assert min(dots(text)) >= 1, "each row is crossed by the spike"
    loss[2345] = 1.0
    loss[0] = 9.0  # the same scale without it: the rows are crossed at the left edge
    other = terminal_curve(range(5000), loss, colour=False)
    assert re.search("[⠁-⣿]", other.splitlines()[3]).start() < 10
    assert re.search("[⠁-⣿]", text.splitlines()[3]).start() > 30


def test_references_are_dotted_and_carry_name_and_value():
    steps, loss = falling()
    lines = terminal_curve(
        steps, loss, references={"unigram": 3.31, "bigram": 2.45}, colour=False
    ).splitlines()
    for name in ("unigram 3.31", "bigram 2.45"):
        (line,) = [line for line in lines if name in line]
        assert line.endswith(f"┈ {name}")


def test_references_on_one_row_get_a_row_each_for_their_names():
    steps, loss = falling()
    text = terminal_curve(steps, loss, references={"a": 2.45, "b": 2.46, "c": 2.44}, colour=False)
    assert all(f" {name}" in text for name in ("a 2.45", "b 2.46", "c 2.44"))


def test_values_that_are_not_finite_are_crosses_at_the_top_and_counted():
    steps, loss = falling()
    loss[100] = math.nan
    text = terminal_curve(steps, loss, val=([50], [math.inf]), colour=False)
    lines = text.splitlines()
    assert lines[0].count("✗") == 2
    assert "not finite: 2" in lines[-1]
    lowest = float(lines[-3].split()[0])
    assert lowest == pytest.approx(1.5, abs=0.2), "the axis must not reach down to zero"


def test_a_line_breaks_where_a_value_is_not_finite():
    whole = terminal_curve([0, 1, 2], [1.0, 1.5, 2.0], colour=False)
    broken = terminal_curve([0, 1, 2], [1.0, math.nan, 2.0], colour=False)
    assert sum(dots(broken)) == 2
    assert sum(dots(whole)) > 40


def test_the_ends_of_both_axes_are_labelled():
    steps, loss = falling(1500)
    lines = terminal_curve(steps, loss, colour=False).splitlines()
    assert re.fullmatch(r" +1 +step +1,500", lines[-2])
    assert float(lines[0].split()[0]) == pytest.approx(max(loss), rel=0.03)
    assert float(lines[-3].split()[0]) == pytest.approx(min(loss), rel=0.1)


def test_a_single_point_is_drawn_and_labelled():
    text = terminal_curve([7], [5.5], colour=False)
    assert "5.5 ┤" in text
    assert "step 7" in text
    assert sum(dots(text)) == 1


def test_nothing_finite_is_said_in_words():
    assert terminal_curve([], [], colour=False) == "no finite loss to draw (0 points)"
    text = terminal_curve([1, 2], [math.nan, math.inf], colour=True)
    assert text == "no finite loss to draw (2 points)"


def test_ascii_shows_the_same_curve_without_braille():
    steps, loss = falling()
    text = terminal_curve(steps, loss, references={"é": 3.0}, colour=False, encoding="latin-1")
    assert text.isascii()
    assert text.count(":") > 3
