"""`run.config`: settings of every kind become plain, are read as attributes, and changes stay."""

from __future__ import annotations

import argparse
import copy
import datetime
import enum
import json
import pickle
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import cupel
from cupel.api.config import Config, plain
from cupel.errors import UsageError
from cupel.record.reader import RunRecord

Init = Callable[..., cupel.Run]
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Given:
    lr: float
    sizes: tuple[int, ...]


def events(run: cupel.Run) -> list[dict[str, Any]]:
    return [event["set"] for event in RunRecord(run.dir).events() if event["_event"] == "config"]


@given(st.dictionaries(st.text(), PLAIN, max_size=5))
@pytest.mark.slow
def test_what_is_plain_stays_as_it_is(config: dict[str, Any]) -> None:
    assert plain(config) == config


@pytest.mark.parametrize(
    "value,told",
    [
        (Path("a/b"), "a/b"),
        (Colour.RED, "red"),
        ((1, 2), [1, 2]),
        ({3, 1, 2}, [1, 2, 3]),
        (np.float32(0.5), 0.5),
        (np.arange(3), [0, 1, 2]),
        (torch.tensor(2.0), 2.0),
        (np.zeros((100, 100)), "ndarray of shape (100, 100)"),
        (torch.float16, "torch.float16"),
        (torch.device("cpu"), "cpu"),
        (torch.nn.Linear, "torch.nn.modules.linear:Linear"),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        (argparse.Namespace(a=1), {"a": 1}),
        (Given(0.1, (1,)), {"lr": 0.1, "sizes": [1]}),
        ({1: {2: 3}}, {"1": {"2": 3}}),
    ],
)  # fmt: skip
def test_what_scripts_have_in_their_settings_gets_an_obvious_form(value: Any, told: Any) -> None:
    assert plain({"x": value}) == {"x": told}


@pytest.mark.parametrize("given", [argparse.Namespace(lr=1), types.SimpleNamespace(lr=1)])
def test_a_namespace_is_a_config(init: Init, given: Any) -> None:
    with init(config=given) as run:
        assert run.config == {"lr": 1}
    assert RunRecord(run.dir).config == {"lr": 1}


def test_an_object_becomes_its_text_without_its_address_and_that_is_told_once(
    init: Init, capsys: pytest.CaptureFixture[str]
) -> None:
    first = plain({"odd_thing": object()})
    assert first == plain({"odd_thing": object()}) == {"odd_thing": "<object object>"}
    assert capsys.readouterr().err.count("config.odd_thing is an object; its text is recorded") == 1


def test_settings_are_read_as_keys_and_as_attributes(init: Init) -> None:
    with init(config={"lr": 0.1, "net": {"width": 3}}) as run:
        assert run.config["lr"] == run.config.lr == cupel.config.lr == cupel.config["lr"] == 0.1
        assert run.config.net["width"] == 3
        assert run.config.get("absent", 5) == 5
        assert "lr" in run.config
        with pytest.raises(AttributeError, match="the config has no 'lrr'; did you mean 'lr'"):
            _ = run.config.lrr
        assert json.loads(json.dumps(run.config)) == {"lr": 0.1, "net": {"width": 3}}
        assert dict(**run.config) == run.config.as_dict()


def test_changes_after_init_are_recorded_and_are_the_config_from_then_on(init: Init) -> None:
    with init() as run:
        run.config.update({"batch": 32}, allow_val_change=True)
        run.config.seed = 1
        cupel.config["lr"] = 0.2
        run.config.update(argparse.Namespace(net=Path("a")), depth=2)
        run.config.update({"batch": 32})  # nothing new: no line
        run.config |= {"more": None}
        run.config.setdefaults({"lr": 9, "late": 1})
        assert run.config.setdefault("lr", 7) == 0.2
        expected = {"lr": 0.2, "batch": 32, "seed": 1, "net": "a", "depth": 2, "more": None}
        assert run.config == {**expected, "late": 1}
        assert RunRecord(run.dir).config == run.config  # on disk at once
    assert events(run) == [
        {"batch": 32}, {"seed": 1}, {"lr": 0.2}, {"net": "a", "depth": 2}, {"more": None},
        {"late": 1},
    ]  # fmt: skip


def test_a_changed_config_does_not_make_another_run_of_it(init: Init) -> None:
    run = init()
    run.config.update({"lr": 5, "found": "later"})
    run.log({"loss": 1.0})
    run.finish("interrupted")
    with init(resume="auto") as resumed:
        assert resumed.id == run.id
        assert resumed.config == {"lr": 0.1, "found": "later"}  # what the script gives counts
    assert RunRecord(run.dir).config == {"lr": 0.1, "found": "later"}


def test_nothing_can_be_taken_out(init: Init) -> None:
    with init() as run:
        config = run.config
        for take in (
            lambda: config.pop("lr"),
            config.clear,
            config.popitem,
            lambda: config.__delitem__("lr"),
            lambda: delattr(config, "lr"),
        ):
            with pytest.raises(UsageError, match="keeps what was recorded; set it to None instead"):
                take()
        assert config == {"lr": 0.1}


def test_copies_are_plain_dicts_that_record_nothing(init: Init) -> None:
    with init() as run:
        for copied in (
            copy.copy(run.config),
            copy.deepcopy(run.config),
            pickle.loads(pickle.dumps(run.config)),
            run.config.copy(),
        ):
            assert type(copied) is dict
            copied["lr"] = 9
        assert run.config.lr == 0.1
    assert events(run) == []


def test_a_change_that_cannot_be_recorded_is_told_and_stops_nothing(
    init: Init, capsys: pytest.CaptureFixture[str]
) -> None:
    with init() as run:
        run.config.huge = 2**70
        run.config.lr = 0.2
        run.config.update({"good1": 1, "bad": 2**64, "good2": 2})
        run.config.bad = 2**65
    told = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1] for line in told] == ["config huge", "config bad"]
    assert RunRecord(run.dir).config == {"lr": 0.2, "good1": 1, "good2": 2}
    assert run._session.problems == {"config huge": 1, "config bad": 2}


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize(
    "value",
    [torch.ones(2, device="meta"), torch.ones(2).to_sparse(), np.zeros((), dtype=np.clongdouble)],
    ids=["meta", "sparse", "clongdouble"],
)
def test_an_array_that_gives_no_numbers_is_recorded_by_its_shape(
    init: Init, capsys: pytest.CaptureFixture[str], value: Any
) -> None:
    with init() as run:
        run.config["x"] = value
    assert RunRecord(run.dir).config["x"] == f"{type(value).__name__} of shape {tuple(value.shape)}"


def test_a_longdouble_is_the_nearest_float(init: Init) -> None:
    third = np.longdouble(1) / 3
    with init(config={"a": third, "b": np.array([third, 2])}) as run:
        run.config.c = third
        run.summary["d"] = third
        run.log({"e": third, "f": np.array([third])})
    record = RunRecord(run.dir)
    assert record.config == {"a": 1 / 3, "b": [1 / 3, 2.0], "c": 1 / 3}
    assert record.summary == {"d": 1 / 3, "e": 1 / 3}
    assert [row["f"] for row in record.history(["f"])] == [[1 / 3]]


@pytest.mark.parametrize("wrong", [[1, 2], [("a", 1, 2)], 5])
def test_what_holds_no_settings_is_refused(init: Init, wrong: Any) -> None:
    with init() as run, pytest.raises(UsageError, match=r"config (takes|must be) a dict"):
        run.config.update(wrong)


@pytest.mark.slow
def test_the_keys_that_wandbs_filters_name_are_left_out(init: Init) -> None:
    config = {"lr": 1, "token": "secret", "path": "x"}
    with init(config=config, config_exclude_keys=["token"]) as run:
        assert run.config == {"lr": 1, "path": "x"}
    with init(config={"lr": 1, "lr_schedule": 2}, config_exclude_keys="lr_schedule") as run:
        assert run.config == {"lr": 1}
    with pytest.raises(UsageError, match="config_include_keys must be a list of the config's keys"):
        init(config_include_keys=5)
    with init(config=config, config_include_keys=["lr"]) as run:
        assert RunRecord(run.dir).config == {"lr": 1}


def test_a_config_without_a_run_records_nowhere() -> None:
    config = Config({"a": 1})
    config.b = 2
    assert config == {"a": 1, "b": 2}
