"""A filter means what it says, and what is no filter is refused in one line."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.errors import UsageError
from cupel.record import filters
from cupel.record.filters import Comparison, Filter, Joined, Not, Part, parse

RUN: dict[str, Any] = {
    "id": "20261101-120000-gpt",
    "name": "gpt-tiny",
    "status": "finished",
    "arm": "wave",
    "tags": ["slow", "big one"],
    "tag": ["slow", "big one"],
    "seed": 2,
    "val_loss": 1.25,
    "broken": math.nan,
    "val/acc": 0.5,
    "train.optimizer.lr": 1e-3,
    "amsgrad": True,
    "version": "10",
    "created": datetime(2026, 11, 1, 12, 30, tzinfo=UTC).timestamp(),
}


def meant(text: str) -> bool:
    return parse(text).matches(RUN.get)


@pytest.mark.parametrize(
    "text",
    [
        "val_loss<1.5 and arm=wave",
        "val_loss < 1.5 AND arm == wave",
        "status=finished or (seed in [1,2] and not tag=slow)",
        "name~gpt",
        "name~GPT-",
        "name!~wave",
        "seed=2",
        "seed=2.0",
        "seed in [1, 2]",
        "seed not in [3]",
        "not seed in [3]",
        "arm in [standard, wave]",
        "tag=slow",
        "tag='big one'",
        'tag="big one"',
        "tag~big",
        "tag!=fast",
        "val/acc>=.5",
        "train.optimizer.lr<=1e-3",
        "'train.optimizer.lr'=0.001",
        "amsgrad=true",
        "amsgrad!=False",
        "amsgrad=1",
        "broken=nan",
        "val_loss!=nan",
        "val_loss<inf",
        "version=10",
        "version<9.5 or version>9.5",
        "created=2026-11-01",
        "created=2026",
        "created>=2026-11-01",
        "created<=2026-11-01",
        "created>2026-10",
        "created<2026-11-02",
        "created>'2026-11-01 12:29'",
        "created=2026-11-01T12:30",
        "created=2026-11-01T12:30:00Z",
        "created!=2026-11-02",
        "created in [2026-11-01, 2026-11-05]",
        "created>1760000000",
        "arm=wave or absent=1",
        "not (arm=standard and seed=2)",
        "arm=x or arm=y or arm=wave and seed=2",
    ],
)
def test_the_run_is_meant(text: str) -> None:
    assert meant(text)
    assert not meant(f"not ({text})")


@pytest.mark.parametrize(
    "text",
    [
        "absent=1", "absent!=1", "not absent=1", "absent<1", "not absent<1", "absent~x",
        "absent!~x", "absent in [1]", "absent not in [1]", "val_loss<2 and absent=1",
        "val_loss<text", "not val_loss<text", "tag<5", "not tag<5", "absent=1 or absent=2",
        "created~2026", "not created~2026",
    ],
)  # fmt: skip
def test_what_a_run_does_not_have_never_matches(text: str) -> None:
    assert not meant(text)
    assert not meant(f"not ({text})")


@pytest.mark.parametrize("run", [{}, {"lr": None}, {"lr": []}])
def test_none_finds_what_is_absent_and_what_is_null(run: dict[str, Any]) -> None:
    for text in ("lr=none", "lr=null", "lr==None", "lr in [1, none]", "not lr!=none"):
        assert parse(text).matches(run.get), text
    for text in ("lr!=none", "not lr=none", "lr not in [none]", "lr<none", "lr~none"):
        assert not parse(text).matches(run.get), text
    for value in (0, False, "", 1.0):
        assert not parse("lr=none").matches({"lr": value}.get)
        assert parse("lr!=none").matches({"lr": value}.get)
    assert parse("lr=none").matches({"lr": "none"}.get)


@pytest.mark.parametrize(
    "text",
    [
        "val_loss>1.5", "arm=Wave", "seed in [1, 3]", "tag=fast", "broken<1", "broken>1",
        "broken=1", "created>2026-11-01", "created<2026-11-01", "created>2026-11",
        "created=2026-10", "created<=2026-10-31", "created>2026-11-01T12:30", "amsgrad=false",
        "seed=true", "name~wave", "arm=w", "version=9",
    ],
)  # fmt: skip
def test_the_run_is_not_meant(text: str) -> None:
    assert not meant(text)


@pytest.mark.parametrize(
    ("text", "position", "found", "expected"),
    [
        ("", 1, "the end", "a name, 'not' or '('"),
        ("arm", 4, "the end", "one of = != < <= > >= ~ !~ in after 'arm'"),
        ("arm=", 5, "the end", "a value"),
        ("arm=wave seed=2", 10, "'seed'", "'and', 'or' or the end"),
        ("arm=wave adn seed=2", 10, "'adn'", "'and', 'or' or the end; did you mean 'and'?"),
        ("arm=wave && seed=2", 10, "'&&'", "'and', 'or' or the end; did you mean 'and'?"),
        ("(arm=wave", 10, "the end", "'and', 'or' or ')'"),
        ("arm=wave)", 9, "')'", "'and', 'or' or the end"),
        ("seed in 1", 9, "'1'", "a list such as [1, 2]"),
        ("seed in [1 2]", 12, "'2'", "',' or ']'"),
        ("seed not 3", 10, "'3'", "'in' after 'not'"),
        ("val_loss => 3", 11, "'>'", "a value"),
        ("name='x", 6, "a quote that is not closed", "a name, a sign or a value"),
        ("name!x", 5, "!", "a name, a sign or a value"),
        ("created>yesterday", 9, "'yesterday'", "a date such as 2026-11-01, or Unix seconds"),
        ("created>2026-13-01", 9, "'2026-13-01'", "a date such as 2026-11-01"),
        ("and=1", 1, "'and'", "to mean the word itself, put it in quotes"),
        ("(" * 200 + "a=1" + ")" * 200, 101, "'('", "no more than 100 parts within each other"),
        ("not " * 200 + "a=1", 401, "'not'", "no more than 100 parts within each other"),
    ],
)
def test_an_error_says_where_what_and_what_was_expected(
    text: str, position: int, found: str, expected: str
) -> None:
    with pytest.raises(UsageError) as raised:
        parse(text)
    told = str(raised.value)
    assert f"at position {position}: found {found}, expected " in told
    assert expected in told
    assert "\n" not in told


def test_too_long_a_filter_is_refused() -> None:
    with pytest.raises(UsageError, match="at most 10000"):
        parse("a=1 and " * 2000 + "a=1")


SOUP = st.lists(
    st.sampled_from(
        ["and", "or", "not", "in", "(", ")", "[", "]", ",", "=", "!=", "<", "<=", "~", "!~", "a",
         "created", "tag", "1", "1e999", "-inf", "nan", "2026-11-01", "9999-12-31", "0000-01-01",
         "9" * 5000, '"', "'", "'x y'", "\\", "\0", "\ud800", "é", "\n", " "]
    )
)  # fmt: skip


@settings(deadline=None, max_examples=500)
@given(st.text() | SOUP.map(" ".join) | SOUP.map("".join))
@pytest.mark.slow
def test_garbage_is_a_filter_or_is_refused_in_one_line(text: str) -> None:
    try:
        found = parse(text)
    except UsageError as refused:
        told = str(refused)
        assert "\n" not in told
        return
    assert found.matches(RUN.get) in (True, False)
    assert not found.matches({}.get)
    assert parse(str(found)) == found


NAMES = st.sampled_from(["a", "b.c", "val/loss", "tags", "with space", "and", 'q"uote\\'])
TEXTS = st.sampled_from(["1", "2.5", "-3", "wave", "two words", "", "in", "nan", 'say "no"']) | (
    st.text(st.characters(codec="utf-8"), max_size=5)
)
COMPARISONS = st.one_of(
    st.builds(
        lambda name, sign, text: Comparison(name, sign, (text,)),
        NAMES,
        st.sampled_from(["=", "!=", "<", "<=", ">", ">=", "~", "!~"]),
        TEXTS,
    ),
    st.builds(
        lambda name, texts: Comparison(name, "in", tuple(texts)),
        NAMES,
        st.lists(TEXTS, min_size=1, max_size=3),
    ),
)
PARTS: st.SearchStrategy[Part] = st.recursive(
    COMPARISONS,
    lambda inner: st.one_of(
        inner.map(Not),
        st.builds(
            lambda word, parts: Joined(word, tuple(parts)),
            st.sampled_from(["and", "or"]),
            st.lists(inner, min_size=2, max_size=3),
        ),
    ),
    max_leaves=8,
)
VALUES = st.none() | st.integers(-3, 3) | st.floats() | st.booleans() | TEXTS | st.lists(TEXTS)


@settings(deadline=None, max_examples=300)
@given(PARTS, st.fixed_dictionaries(dict.fromkeys(("a", "b.c", "val/loss", "tags"), VALUES)))
@pytest.mark.slow
def test_a_filter_written_out_and_parsed_is_the_same(part: Part, run: dict[str, Any]) -> None:
    text = str(Filter(part))
    assert parse(text) == Filter(part)
    assert parse(text).matches(run.get) == (direct(part, run) is True)


def direct(part: Part, run: dict[str, Any]) -> bool | None:
    """What a part means, by the words of the module: unknown is neither true nor false."""
    if isinstance(part, Not):
        return {True: False, False: True, None: None}[direct(part.part, run)]
    if isinstance(part, Joined):
        found = {direct(inner, run) for inner in part.parts}
        if part.word == "and":
            return False if False in found else None if None in found else True
        return True if True in found else None if None in found else False
    value = run.get(part.name)
    asks_for_none = {text.lower() for text in part.values} & {"none", "null"}
    if (value is None or value == []) and part.sign in ("=", "!=", "in") and asks_for_none:
        return part.sign != "!="
    if value is None:
        return None
    if part.sign in ("<", "<=", ">", ">="):
        one = value if not isinstance(value, list) else value[0] if len(value) == 1 else None
        return None if one is None else order(one, part.sign, part.values[0])
    ones = value if isinstance(value, list) else [value]
    if part.sign in ("~", "!~"):
        found_ = any(part.values[0].lower() in str(one).lower() for one in ones)
    else:
        found_ = any(same(one, text) for one in ones for text in part.values)
    return found_ != (part.sign in ("!=", "!~"))


def number(text: str) -> float | None:
    plain = text.isascii() and text == text.strip() and "_" not in text
    try:
        return float(text) if plain else None
    except ValueError:
        return None


def same(value: Any, text: str) -> bool:
    if isinstance(value, bool) and text.lower() in ("true", "false"):
        return str(value).lower() == text.lower()
    if isinstance(value, int | float):
        wanted = number(text)
        return wanted is not None and (wanted == value or (wanted != wanted and value != value))
    return bool(value == text)


def order(value: Any, sign: str, text: str) -> bool | None:
    right: Any = number(text)
    if isinstance(value, int | float):
        if right is None:
            return None
        left = value
    else:
        left = number(value)
        if left is None or right is None:
            left, right = value, text
    return {"<": left < right, "<=": left <= right, ">": left > right, ">=": left >= right}[sign]


def test_the_names_that_are_asked_for_are_known() -> None:
    assert parse("a=1 and not (b<2 or c in [1])").names() == {"a", "b", "c"}


def test_dates_are_whole_days_months_and_years() -> None:
    day = filters.Comparison("created", "=", ("2026-02-28",))
    start = datetime(2026, 2, 28, tzinfo=UTC).timestamp()
    for seconds, inside in ((0, True), (86399.9, True), (86400, False), (-0.1, False)):
        assert day.holds(lambda _, at=start + seconds: at) is inside
    for text, inside in (("2026", True), ("2026-02", True), ("2026-03", False), ("2027", False)):
        assert filters.Comparison("created", "=", (text,)).holds(lambda _: start) is inside
