"""MQAR: what its tokens alone say is due, held against the targets; where its queries stand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.data.tasks.mqar import BLANK, Mqar
from cupel.data.tasks.settings import MqarSettings
from cupel.data.tasks.task import IGNORE, TRAIN


@st.composite
def any_settings(draw):
    pairs, queries = draw(st.integers(1, 9)), draw(st.integers(1, 3))
    noise = draw(st.sampled_from([0.0, 0.2, 0.75]))
    extra = {"fillers": draw(st.integers(1, 9))} if noise else {}
    if draw(st.booleans()):
        extra |= {"gaps": "uniform"}
    else:
        extra |= {"power": draw(st.sampled_from([0.01, 0.5, 1.0]))}
    needed = 2 * round(pairs / (1 - noise)) + 2 * pairs * queries
    return MqarSettings(
        block=needed + draw(st.integers(2 * (needed < 4), 30)),
        pairs=pairs,
        queries=queries,
        keys=pairs + draw(st.integers(0, 20)),
        values=pairs + draw(st.integers(0, 20)),
        noise=noise,
        **extra,
    )


def due(tokens, settings):
    """The targets that a sequence's tokens call for, read off one by one."""
    keys = range(1, 1 + settings.keys)
    values = range(1 + settings.keys, 1 + settings.keys + settings.values)
    known, targets = {}, []
    for here, after in zip(tokens, [*tokens[1:], BLANK], strict=True):
        targets.append(known.get(here, IGNORE) if here in keys else IGNORE)
        if here in keys and here not in known:
            assert after in values, "a key comes with its value when it comes first"
            known[here] = after
    return targets, known


@given(settings=any_settings(), step=st.integers(0, 2**40))
@settings(deadline=None)
@pytest.mark.slow
def test_targets_are_what_the_tokens_call_for(settings, step):
    batch = Mqar(settings, seed=1).batch(TRAIN, step, 4)
    for tokens, targets in zip(batch.tokens.tolist(), batch.targets.tolist(), strict=True):
        expected, known = due(tokens, settings)
        assert targets == expected
        assert len(known) == len(set(known.values())) == settings.pairs
        asked = [token for token, target in zip(tokens, targets, strict=True) if target != IGNORE]
        assert sorted(asked) == sorted(list(known) * settings.queries)
        context = 2 * settings.places
        assert all(target == IGNORE for target in targets[:context])
        assert BLANK not in tokens[:context]


def test_noise_has_tokens_of_its_own_and_its_share():
    settings = MqarSettings(block=4000, pairs=200, keys=200, values=200, noise=0.5)
    task = Mqar(settings, seed=1)
    tokens = task.batch(TRAIN, 1, 20).tokens
    filler = tokens >= 1 + 400
    assert tokens.max() == task.vocabulary - 1 == 416
    assert filler[:, :800].mean() == 0.5  # two tokens a pair of 400 places, exactly
    free = filler[:, 800:] | (tokens[:, 800:] == BLANK)
    # 60,000 draws of probability 0.5: ± 0.01 is five standard deviations.
    assert abs(filler[:, 800:].sum() / free.sum() - 0.5) < 0.01


def first_spaces(settings, rows=4000):
    """Where the query of each sequence's first pair stands, in places of two tokens."""
    batch = Mqar(settings, seed=3).batch(TRAIN, 1, rows)
    context = 2 * settings.places
    is_query = batch.tokens[:, context:] == batch.tokens[:, :1]
    at = is_query.argmax(axis=1)
    assert (at % 2 == 0).all()
    return np.bincount(at // 2, minlength=(settings.block - context) // 2)


def test_gaps_follow_the_power_law_or_are_uniform():
    law = MqarSettings(block=32, pairs=2, power=0.2)
    even = MqarSettings(block=32, pairs=2, gaps="uniform")
    weights = np.arange(1, 15) ** (0.2 - 1.0)
    for settings_, expected in ((law, weights / weights.sum()), (even, np.full(14, 1 / 14))):
        counts = first_spaces(settings_)
        # Chi-square with 13 degrees of freedom stays below 43 but once in 10^4.
        assert ((counts - 4000 * expected) ** 2 / (4000 * expected)).sum() < 43
    assert np.array_equal(first_spaces(MqarSettings(block=32, pairs=2, power=1.0)), counts)
