"""Settings of tasks: what does not fit together is refused in one line that says what to type."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, TypeAdapter, ValidationError

from cupel.config import Settings, validate_section
from cupel.data.tasks.build import build
from cupel.data.tasks.settings import MqarSettings, NeedleSettings, TaskSettings
from cupel.data.tasks.task import TRAIN
from cupel.errors import RecipeError
from cupel.origins import Origin, planted
from task_kinds import EXAMPLES, KINDS

ANY = TypeAdapter(TaskSettings)


class Section(Settings):
    """A section of a recipe that holds a task."""

    task: TaskSettings = Field(description="the task")


def refused(**task) -> str:
    with pytest.raises(RecipeError) as error:
        validate_section("data", Section, planted({"data": {"task": task}}, Origin("file:3")))
    (line,) = error.value.problems
    return line.removeprefix("file:3: ")


@pytest.mark.parametrize("kind", KINDS)
def test_defaults_make_a_task_and_every_field_has_its_help(kind):
    chosen = ANY.validate_python({"kind": kind})
    assert build(chosen, seed=1).batch(TRAIN, 1, 2).tokens.shape[0] == 2
    assert all(field.description for field in type(chosen).model_fields.values())


@pytest.mark.parametrize("name", EXAMPLES)
def test_resolved_settings_validate_again(name):
    assert ANY.validate_python(EXAMPLES[name].model_dump(mode="json")) == EXAMPLES[name]


def test_every_kind_has_settings_of_its_own():
    assert len(set(KINDS)) == len(KINDS) == len(get_args(get_args(TaskSettings)[0]))


@pytest.mark.parametrize(
    "task, told",
    [
        (
            {"kind": "mqar", "block": 24},
            "data.task: block is 24, but 8 pairs (16 tokens with their noise) and 8 queries (two "
            "tokens each) need 32; set block: 32, or fewer pairs",
        ),
        (
            {"kind": "mqar", "values": 5},
            "data.task: values is 5, but 8 pairs need as many different values; set values: 8, or "
            "fewer pairs",
        ),
        (
            {"kind": "mqar", "gaps": "uniform", "power": 0.5},
            "data.task: power is 0.5, but gaps are uniform; remove it, or set gaps: power",
        ),
        (
            {"kind": "mqar", "fillers": 4},
            "data.task: fillers is 4, but noise is 0; remove it, or set noise: 0.2",
        ),
        (
            {"kind": "formal", "language": "abab", "bins": [[53, 55]]},
            "data.task: no string of abab is 53 to 55 long: their lengths are multiples of 4; "
            "widen the range to 56",
        ),
        (
            {"kind": "parity", "shortest": 9, "longest": 8},
            "data.task: shortest is 9, and longest is 8; set longest: 9 or more",
        ),
        (
            {"kind": "parity", "bins": [[60, 51]]},
            "data.task: bins holds [60, 51]; a bin is [least, greatest], from 1 to 32768",
        ),
        (
            {"kind": "parity", "bins": [[2, 50]]},
            "data.task: bins holds a range twice, or the one to train on ([2, 50], which is always "
            "evaluated); name each once",
        ),
        (
            {"kind": "needle", "block": 60},
            "data.task: block has 60, but needle, query and answer of passkey take 75 bytes; set "
            "75 or more",
        ),
        (
            {"kind": "needle", "lengths": [256, 100], "variant": "uuid"},
            "data.task: lengths has 100, but needle, query and answer of uuid take 129 bytes; set "
            "129 or more",
        ),
        (
            {"kind": "needle", "depths": [0.5, 0.5]},
            "data.task: depths is [0.5, 0.5], with a value twice; name each once",
        ),
        (
            {"kind": "fuzzy_recall", "vocabulary": 6},
            "data.task: key_size is 3, but a vocabulary of 6 has only 2 tokens for it, and they "
            "must differ; set vocabulary: 7 or more",
        ),
        (
            {"kind": "fuzzy_recall", "block": 11},
            "data.task: block is 11, but the longest pair and its query take 12; set block: 12 or "
            "more",
        ),
        (
            {"kind": "selective_copying", "copies": 128},
            "data.task: block is 256, but 128 tokens, the copy token and the copies need 257; set "
            "block: 257, or fewer copies",
        ),
        ({"kind": "mqr"}, "data.task.kind: 'mqr' is none of them; did you mean 'mqar'?"),
        ({"block": 64}, "data.task.kind must be given; type data.task.kind=VALUE"),
        ({"kind": "mqar", "blok": 64}, "data.task.blok: no such setting; did you mean 'block'?"),
        (
            {"kind": "recall", "block": 7},
            "data.task.block: 7 is out of range; it must be a multiple of 2",
        ),
    ],
)
def test_a_mistake_is_one_line_with_what_to_type(task, told):
    assert refused(**task) == told


def test_a_kind_that_is_near_to_none_is_answered_with_all_of_them():
    assert refused(kind="x").endswith(f"there are: {', '.join(KINDS)}")


def test_what_is_told_to_type_is_accepted():
    assert MqarSettings(block=32).block == 32
    assert NeedleSettings(block=75).block == 75
    assert NeedleSettings(variant="uuid", lengths=(129,)).lengths == (129,)


@given(
    kind=st.sampled_from(KINDS),
    given=st.dictionaries(
        st.sampled_from([
            "block", "pairs", "queries", "keys", "values", "noise", "fillers", "vocabulary",
            "copies", "key_size", "value_size", "shortest", "longest", "language", "power",
        ]),
        st.one_of(st.integers(-2, 40), st.floats(-1, 2), st.sampled_from(["aa", "shuffle2", None])),
        max_size=4,
    ),
)  # fmt: skip
@settings(deadline=None, max_examples=200)
@pytest.mark.slow
def test_settings_are_refused_or_make_a_task(kind, given):
    try:
        chosen = ANY.validate_python({"kind": kind, **given})
    except ValidationError:
        return
    source = build(chosen, seed=1)
    for split in (TRAIN, *source.evaluations):
        assert source.batch(split, 1, 2).tokens.shape == (2, source.length(split))
