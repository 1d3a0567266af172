"""Formal languages against membership alone: what may follow, found by trying all strings."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.data.tasks.formal import Formal, RunningParity, language
from cupel.data.tasks.settings import LANGUAGES, FormalSettings, ParitySettings
from cupel.data.tasks.task import IGNORE, TRAIN

EACH = pytest.mark.parametrize("name", LANGUAGES)
ALPHABETS = {
    "parity": "01", "aa": "a", "abab": "ab", "anbn": "ab", "anbncn": "abc", "shuffle2": "()[]",
}  # fmt: skip
# The length of the strings that are tried out, and how long all others have to be for it.
TRIED = {
    "parity": (6, 8), "aa": (6, 8), "abab": (8, 12), "anbn": (6, 8), "anbncn": (6, 9),
    "shuffle2": (6, 8),
}  # fmt: skip


def belongs(name: str, text: str) -> bool:
    """Membership, from the definition."""
    if name == "parity":
        return text.count("1") % 2 == 0
    if name == "aa":
        return re.fullmatch("(aa)*", text) is not None
    if name == "abab":
        return re.fullmatch("(abab)*", text) is not None
    if name in ("anbn", "anbncn"):
        found = re.fullmatch("(a+)(b+)(c*)" if name == "anbncn" else "(a+)(b+)", text)
        return found is not None and len({len(group) for group in found.groups()}) == 1
    return all(balanced("".join(one for one in text if one in pair)) for pair in ("()", "[]"))


def balanced(text: str) -> bool:
    """By taking out neighbouring pairs for as long as there are any."""
    while text != (text := text.replace("()", "").replace("[]", "")):
        pass
    return not text


def strings(name: str, length: int) -> list[str]:
    """All strings of the language of one length."""
    every = map("".join, itertools.product(ALPHABETS[name], repeat=length))
    return [text for text in every if belongs(name, text)]


@cache
def beginnings(name: str) -> frozenset[str]:
    """Every prefix of every string that is short enough to be tried out."""
    longest = TRIED[name][1]
    every = itertools.chain.from_iterable(strings(name, length) for length in range(longest + 1))
    return frozenset(text[:i] for text in every for i in range(len(text) + 1))


def follows(name: str, prefix: str) -> str:
    """Which letters may follow a prefix, and "." for the end: by trying."""
    letters = [one for one in ALPHABETS[name] if prefix + one in beginnings(name)]
    return "".join(letters) + "." * belongs(name, prefix)


def follows_fast(name: str, prefix: str) -> str:
    """The same from counting, for prefixes of any length; a test holds it against `follows`."""
    count = Counter(prefix)
    if name == "parity":
        return "01" + "." * (count["1"] % 2 == 0)
    if name == "aa":
        return "a" + "." * (len(prefix) % 2 == 0)
    if name == "abab":
        return "ab"[len(prefix) % 2] + "." * (len(prefix) % 4 == 0)
    if name == "shuffle2":
        depth = [count["("] - count[")"], count["["] - count["]"]]
        return "(" + ")" * (depth[0] > 0) + "[" + "]" * (depth[1] > 0) + "." * (depth == [0, 0])
    letters = ALPHABETS[name]
    if set(prefix) == {"a"}:
        return "ab"
    unfinished = [one for one in letters if count[one] < count["a"]]
    return unfinished[0] if unfinished else "."


def told(batch, row: int, name: str) -> tuple[str, list[str]]:
    """A sequence of a batch as text, and its sets in the words of `follows`."""
    symbols, length = ALPHABETS[name] + ".", int(batch.mask[row].sum())
    assert batch.mask[row, :length].all()
    assert (batch.tokens[row, length:] == len(symbols) - 1).all()
    text = "".join(symbols[token] for token in batch.tokens[row, :length])
    sets = batch.targets[row, :length].tolist()
    return text, ["".join(itertools.compress(symbols, one)) for one in sets]


@EACH
def test_sets_are_what_trying_all_strings_finds(name):
    length = TRIED[name][0]
    task = Formal(FormalSettings(language=name, shortest=1, longest=length, bins=()), seed=1)
    batch = task.batch(TRAIN, 1, 200)
    for row in range(200):
        text, sets = told(batch, row, name)
        assert belongs(name, text)
        assert sets == [follows(name, text[: i + 1]) for i in range(len(text))]
        assert sets == [follows_fast(name, text[: i + 1]) for i in range(len(text))]


@EACH
@given(step=st.integers(0, 2**40), seed=st.integers(0, 2**31))
@settings(deadline=None, max_examples=15)
def test_long_strings_belong_and_their_sets_are_right(name, step, seed):
    task = Formal(FormalSettings(language=name), seed=seed)
    for split, (low, high) in {TRAIN: (2, 50), "51-100": (51, 100), "101-150": (101, 150)}.items():
        batch = task.batch(split, step, 3)
        for row in range(3):
            text, sets = told(batch, row, name)
            assert low <= len(text) <= high
            assert belongs(name, text)
            assert sets == [follows_fast(name, text[: i + 1]) for i in range(len(text))]


@EACH
def test_lengths_are_those_that_the_language_has_each_as_often(name):
    task = Formal(FormalSettings(language=name, longest=8, bins=()), seed=2)
    had = [length for length in range(2, 9) if strings(name, length)]
    assert task.lengths(TRAIN).tolist() == had
    counts = np.bincount(task.batch(TRAIN, 1, 500 * len(had)).mask.sum(axis=1), minlength=9)
    assert (counts > 0).nonzero()[0].tolist() == had
    # Chi-square with at most 6 degrees of freedom stays below 28 but once in 10^4.
    assert ((counts[had] - 500.0) ** 2 / 500).sum() < 28


@pytest.mark.parametrize("name, length, many", [("shuffle2", 6, 70), ("parity", 6, 32)])
def test_strings_of_one_length_are_equally_often(name, length, many):
    every = strings(name, length)
    assert len(every) == many
    ranged = FormalSettings(language=name, shortest=length, longest=length, bins=())
    batch = Formal(ranged, seed=5).batch(TRAIN, 1, 100 * many)
    counts = Counter(told(batch, row, name)[0] for row in range(100 * many))
    assert counts.keys() == set(every)
    # Chi-square with 69 degrees of freedom stays below 120 but once in 10^4.
    assert sum((count - 100) ** 2 / 100 for count in counts.values()) < 120


def test_crossing_brackets_do_occur():
    batch = Formal(FormalSettings(language="shuffle2", shortest=4, longest=4), seed=1).batch(
        TRAIN, 1, 300
    )
    assert "([)]" in {told(batch, row, "shuffle2")[0] for row in range(300)}


def test_alphabets_are_those_of_the_definitions():
    assert {name: language(name).alphabet for name in LANGUAGES} == ALPHABETS


@given(step=st.integers(0, 2**40))
@settings(deadline=None)
def test_running_parity_is_that_of_the_bits_so_far(step):
    task = RunningParity(ParitySettings(shortest=3, longest=70, bins=((71, 130),)), seed=1)
    for split, low, high in ((TRAIN, 3, 70), ("71-130", 71, 130)):
        batch = task.batch(split, step, 5)
        for tokens, targets in zip(batch.tokens.tolist(), batch.targets.tolist(), strict=True):
            bits = [token for token in tokens if token != task.PADDING]
            assert low <= len(bits) <= high
            padding = high - len(bits)
            assert tokens == bits + [task.PADDING] * padding
            expected = [sum(bits[: i + 1]) % 2 for i in range(len(bits))]
            assert targets == expected + [IGNORE] * padding


def test_running_parity_ends_odd_as_often_as_even():
    batch = RunningParity(ParitySettings(), seed=1).batch(TRAIN, 1, 4000)
    last = batch.targets[np.arange(4000), (batch.targets != IGNORE).sum(axis=1) - 1]
    assert abs(last.mean() - 0.5) < 0.04  # five standard deviations
