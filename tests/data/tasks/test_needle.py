"""Needles: read out of the text alone, at the depth that was asked for, in a whole haystack."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.data.tasks import haystack
from cupel.data.tasks.needle import (
    FILLERS,
    FIRST_DIGIT,
    FIRST_FILLER,
    FIRST_KEY,
    NEEDLE_MARK,
    PERIOD,
    QUERY_MARK,
    Needle,
)
from cupel.data.tasks.settings import NEEDLE_BYTES, NEEDLE_SYMBOLS, NeedleSettings
from cupel.data.tasks.task import IGNORE, TRAIN

VARIANTS = ("passkey", "number", "uuid")
VALUES = {
    "passkey": ("number", "[1-9][0-9]{6}"),
    "number": ("number", "[1-9][0-9]{6}"),
    "uuid": ("uuid", "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
}


def whole(tokens, targets):
    """A sequence with the answer's last token, which only the targets have, and the answer."""
    answer = [target for target in targets if target != IGNORE]
    assert targets == [IGNORE] * (len(targets) - len(answer)) + answer
    assert tokens[len(tokens) - len(answer) + 1 :] == answer[:-1]
    return [*tokens, targets[-1]], answer


def read(variant, tokens, targets):
    """Haystack and the needle's place in it, with everything else checked, from bytes."""
    all_tokens, answer = whole(tokens, targets)
    text, answer = bytes(all_tokens).decode("ascii"), bytes(answer).decode("ascii")
    what, value = VALUES[variant]
    pattern = f"The magic {what} of ([a-z]{{5}}) is ({value})"
    needle, query = re.finditer(pattern, text)
    assert needle.groups() == query.groups()
    assert needle[1] in haystack.KEYS
    assert query[2] == answer
    assert text[needle.end() : needle.end() + 2] == ". "
    assert text[query.start() - 1] == "\n"
    assert query.end() == len(text)
    hay = text[: needle.start()] + text[needle.end() + 2 : query.start() - 1]
    return hay, needle.start()


def is_sentences(text):
    """Whether a text is sentences of the drawn pieces, of which the last one may be cut off."""
    *complete, last = text.split(". ")
    choices = ("|".join(part) for part in (haystack.SUBJECTS, haystack.VERBS, haystack.OBJECTS))
    pattern = re.compile("".join(f"({one})" for one in choices).replace(". ", ""))
    begins = any(f"{subject}".startswith(last[: len(subject)]) for subject in haystack.SUBJECTS)
    return begins and all(pattern.fullmatch(one) for one in complete)


@pytest.mark.parametrize("variant", VARIANTS)
@given(step=st.integers(0, 2**40), block=st.integers(160, 700))
@settings(deadline=None, max_examples=20)
def test_the_answer_is_the_one_value_in_the_haystack(variant, step, block):
    task = Needle(NeedleSettings(variant=variant, block=block), seed=1)
    for tokens, targets in zip(*map(np.ndarray.tolist, task.batch(TRAIN, step, 4)), strict=True):
        hay, place = read(variant, tokens, targets)
        assert len(hay) == task.room(block)
        assert place == 0 or hay[:place].endswith(". ")
        if variant == "passkey":
            assert hay == (haystack.PASSAGE * (1 + len(hay) // 90))[: len(hay)]
        else:
            assert is_sentences(hay)


@pytest.mark.parametrize("variant", VARIANTS)
@given(step=st.integers(0, 2**40), block=st.integers(70, 400))
@settings(deadline=None, max_examples=20)
def test_symbols_say_the_same_without_letters(variant, step, block):
    task = Needle(NeedleSettings(variant=variant, tokens="symbol", block=block), seed=1)
    size = NEEDLE_SYMBOLS[variant][1]
    for tokens, targets in zip(*map(np.ndarray.tolist, task.batch(TRAIN, step, 4)), strict=True):
        text, answer = whole(tokens, targets)
        assert [text.count(mark) for mark in (NEEDLE_MARK, QUERY_MARK)] == [1, 1]
        needle, query = text.index(NEEDLE_MARK), text.index(QUERY_MARK)
        assert text[needle + 1 : needle + 2 + size] == text[query + 1 :]
        key, *value = text[query + 1 :]
        assert value == answer
        assert FIRST_KEY <= key < FIRST_DIGIT
        digits = [one - FIRST_DIGIT for one in value]
        assert all(0 <= one < (16 if variant == "uuid" else 10) for one in digits)
        assert variant == "uuid" or digits[0] > 0
        hay = [one - FIRST_FILLER for one in text[:needle] + text[needle + 2 + size : query]]
        assert len(hay) == task.room(block)
        if variant == "passkey":
            assert hay == [i % PERIOD for i in range(len(hay))]
        else:
            assert all(0 <= one < FILLERS for one in hay)


@pytest.mark.parametrize("tokens, slack", [("symbol", 1), ("byte", 50)])  # a sentence is below 50
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_needle_is_at_the_depth_that_its_set_is_named_after(variant, tokens, slack):
    task = Needle(
        NeedleSettings(variant=variant, tokens=tokens, lengths=(600,), depths=(0, 0.3, 1)), seed=1
    )
    assert task.evaluations == ("600", "600@0", "600@0.3", "600@1")
    mark = NEEDLE_MARK
    for depth in (0, 0.3, 1):
        batch = task.batch(f"600@{depth}", 0, 8)
        for row, targets in zip(batch.tokens.tolist(), batch.targets.tolist(), strict=True):
            place = row.index(mark) if tokens == "symbol" else read(variant, row, targets)[1]
            assert 0 <= depth * task.room(600) - place + 0.5 <= slack


def test_depths_are_spread_over_the_whole_haystack():
    task = Needle(NeedleSettings(tokens="symbol", block=300), seed=1)
    place = (task.batch(TRAIN, 1, 4000).tokens == NEEDLE_MARK).argmax(axis=1)
    counts, _ = np.histogram(place, bins=10, range=(0, task.room(300)))
    # Chi-square with 9 degrees of freedom stays below 34 but once in 10^4.
    assert ((counts - 400.0) ** 2 / 400).sum() < 34


def test_text_is_new_in_each_sequence_and_a_passage_is_not():
    for variant, many in (("number", 8), ("passkey", 1)):
        batch = Needle(NeedleSettings(variant=variant), seed=1).batch(TRAIN, 1, 8)
        rows = zip(batch.tokens.tolist(), batch.targets.tolist(), strict=True)
        assert len({read(variant, *row)[0] for row in rows}) == many


def test_evaluation_sets_are_as_long_as_their_names():
    task = Needle(NeedleSettings(block=200, lengths=(256, 512)), seed=1)
    shapes = {name: task.batch(name, 0, 2).tokens.shape for name in task.evaluations}
    assert shapes == {"256": (2, 256), "512": (2, 512)}
    assert task.block == 200


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("tokens, sizes", [("byte", NEEDLE_BYTES), ("symbol", NEEDLE_SYMBOLS)])
def test_the_shortest_block_leaves_one_token_of_haystack(variant, tokens, sizes):
    frame, value = sizes[variant]
    shortest = max(frame + 2 * value, 16)
    task = Needle(NeedleSettings(variant=variant, tokens=tokens, block=shortest), seed=1)
    assert task.room(frame + 2 * value) == 1
    batch = task.batch(TRAIN, 1, 2)
    assert batch.tokens.shape == (2, shortest)
    if tokens == "byte":
        hay, _ = read(variant, batch.tokens[0].tolist(), batch.targets[0].tolist())
        assert len(hay) == 1
