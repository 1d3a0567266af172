"""A frozen study grown: in a file of its own, with every frozen run as it was."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.errors import RecordError, UsageError
from cupel.studies.manifest import MANIFEST, freeze, load_manifest
from cupel.studies.widening import extend
from plans import Plans

STUDY = "seeds: [1, 2]\ngrid: {train.optimizer.lr: [0.1, 0.2]}\ncompare: {baseline: plain}\n"
SECOND, THIRD = "manifest.002.json", "manifest.003.json"
MORE_SEEDS = "study.seeds=[1,2,3]"
MORE_ARMS = "study.arms.more.dropout=0.9"
MORE_VALUES = "study.grid.train.optimizer.lr=[0.1,0.2,0.3]"


@pytest.fixture
def plan(tmp_path: Path) -> Plans:
    return Plans(tmp_path)


@pytest.mark.parametrize(
    ("overrides", "cells", "runs"),
    [
        ([MORE_SEEDS], 0, 4),
        ([MORE_ARMS], 2, 4),
        ([MORE_VALUES], 2, 4),
        ([MORE_SEEDS, MORE_ARMS, MORE_VALUES], 5, 19),
    ],
)
def test_seeds_arms_and_points_may_grow(
    plan: Plans, overrides: list[str], cells: int, runs: int
) -> None:
    frozen = freeze(plan(STUDY))
    before = (frozen.folder / MANIFEST).read_bytes()
    wide = freeze(plan(STUDY, *overrides), widen=True)
    assert (frozen.folder / MANIFEST).read_bytes() == before
    assert wide.cells[: len(frozen.cells)] == frozen.cells
    assert wide.runs[: len(frozen.runs)] == frozen.runs
    assert (len(wide.cells) - 4, len(wide.runs) - 8) == (cells, runs)
    assert load_manifest(frozen.folder) == wide
    whole = plan(STUDY, *overrides)
    assert {run.run_id for run in wide.runs} == {run.run_id for run in whole.runs}
    for run in wide.runs:
        assert wide.config_of(run) == whole.config_of(whole.run(run.run_id))
    assert wide.study.seeds == whole.study.seeds
    assert list(wide.study.arms) == list(whole.study.arms)


def test_what_is_added_alone_stands_in_the_new_part(plan: Plans) -> None:
    folder = freeze(plan(STUDY)).folder
    freeze(plan(STUDY, MORE_SEEDS), widen=True)
    part = json.loads((folder / SECOND).read_text())
    assert part["cells"] == []
    assert {run["seed"] for run in part["runs"]} == {3}


def test_a_study_is_widened_again_and_again(plan: Plans) -> None:
    folder = freeze(plan(STUDY)).folder
    freeze(plan(STUDY, MORE_SEEDS), widen=True)
    wide = freeze(plan(STUDY, MORE_SEEDS, MORE_ARMS), widen=True)
    assert sorted(path.name for path in folder.iterdir()) == sorted([MANIFEST, SECOND, THIRD])
    assert wide.parts == 3
    assert len(wide.runs) == 18
    assert len({run.run_id for run in wide.runs}) == 18


def test_widening_by_nothing_writes_nothing(plan: Plans) -> None:
    frozen = freeze(plan(STUDY))
    assert freeze(plan(STUDY, "study.workers=7"), widen=True) == frozen
    assert freeze(plan(STUDY), widen=True) == frozen
    assert [path.name for path in frozen.folder.iterdir()] == [MANIFEST]


def test_what_the_plan_leaves_out_stays(plan: Plans) -> None:
    frozen = freeze(plan(STUDY))
    wide = freeze(plan(STUDY, "study.seeds=[5]", narrowed={"arms": ["plain"]}), widen=True)
    assert wide.runs[:8] == frozen.runs
    assert {(run.arm, run.seed) for run in wide.runs[8:]} == {("plain", 5)}
    assert wide.study.seeds == (1, 2, 5)
    assert list(wide.study.arms) == ["plain", "drop"]


def test_the_study_that_was_widened_is_still_known_by_what_it_was_begun_with(plan: Plans) -> None:
    freeze(plan(STUDY))
    wide = freeze(plan(STUDY, MORE_SEEDS), widen=True)
    assert freeze(plan(STUDY)) == wide
    assert freeze(plan(STUDY, MORE_SEEDS)) == wide
    with pytest.raises(UsageError, match=r"seeds: \[1, 2, 3\] -> \[1\]"):
        freeze(plan(STUDY, "study.seeds=[1]"))


def test_widening_a_study_that_is_not_there_freezes_it(plan: Plans) -> None:
    planned = plan(STUDY)
    assert freeze(planned, widen=True) == planned
    assert load_manifest(planned.folder).parts == 1


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["study.primary.statistic=best"], "primary.statistic: last -> best"),
        (["study.compare.margin=0.1"], "compare.margin: null -> 0.1"),
        (["study.compare.baseline=drop"], "compare.baseline: plain -> drop"),
        (["study.question=Why?"], "question"),
        (["train.steps=50"], "(train.steps: 40 -> 50)"),
        (["study.arms.drop.dropout=0.4"], "arm drop at lr=0.1: dropout: 0.5 -> 0.4"),
    ],
)
def test_what_decides_may_not_change(plan: Plans, overrides: list[str], told: str) -> None:
    folder = freeze(plan(STUDY)).folder
    with pytest.raises(UsageError, match="was begun with other settings") as error:
        freeze(plan(STUDY, MORE_SEEDS, *overrides), widen=True)
    assert told in str(error.value)
    assert [path.name for path in folder.iterdir()] == [MANIFEST]


def test_the_baseline_may_not_change_by_an_arm_before_it(plan: Plans) -> None:
    freeze(plan("seeds: [1]", arms="arms: {plain: {}}"))
    with pytest.raises(UsageError, match=r"compare\.baseline: plain -> new"):
        freeze(plan("seeds: [1]", arms="arms: {new: {batch: 3}, plain: {}}"), widen=True)


def test_a_new_run_that_repeats_a_frozen_one_is_refused(plan: Plans) -> None:
    freeze(plan("seeds: [1]", arms="arms: {plain: {}}"))
    again = plan("seeds: [1]\ngrid: {train.steps: [40]}", arms="arms: {plain: {}}")
    with pytest.raises(UsageError, match=r"the new run \S+ has the settings of sine-plain-s1-"):
        freeze(again, widen=True)


def test_of_many_that_widen_at_once_nothing_is_added_twice(plan: Plans) -> None:
    folder = freeze(plan(STUDY)).folder
    plans = [plan(STUDY, f"study.seeds=[1,2,{seed}]") for seed in (3, 4, 5, 3, 4, 5)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda one: freeze(one, widen=True), plans))
    wide = load_manifest(folder)
    ids = [run.run_id for run in wide.runs]
    assert len(ids) == len(set(ids)) == 20
    assert sorted(wide.study.seeds) == [1, 2, 3, 4, 5]


@pytest.mark.slow
@settings(max_examples=10, deadline=None)  # each plans several studies
@given(steps=st.lists(st.sets(st.integers(0, 9), min_size=1, max_size=4), min_size=1, max_size=4))
def test_however_it_grew_a_study_holds_every_run_once(
    tmp_path_factory: pytest.TempPathFactory, steps: list[set[int]]
) -> None:
    plan = Plans(tmp_path_factory.mktemp("s"))
    for seeds in steps:
        freeze(plan("", f"study.seeds={sorted(seeds)}"), widen=True)
    folder = plan("").folder
    wide, every = load_manifest(folder), sorted(set().union(*steps))
    runs = {(run.arm, run.seed): run.run_id for run in wide.runs}
    assert len(runs) == len(wide.runs) == 2 * len(every)
    whole = plan("", f"study.seeds={every}")
    assert runs == {(run.arm, run.seed): run.run_id for run in whole.runs}


# ---- damage ------------------------------------------------------------------------------------


def changed(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_part_between_others_that_is_missing_is_told(plan: Plans) -> None:
    folder = freeze(plan(STUDY)).folder
    freeze(plan(STUDY, MORE_SEEDS), widen=True)
    freeze(plan(STUDY, MORE_SEEDS, MORE_ARMS), widen=True)
    (folder / SECOND).unlink()
    with pytest.raises(RecordError, match=r"manifest.002.json is missing, but a later part"):
        load_manifest(folder)


def test_a_part_belongs_to_the_parts_before_it(plan: Plans) -> None:
    folder = freeze(plan(STUDY)).folder
    freeze(plan(STUDY, MORE_SEEDS), widen=True)
    other = freeze(plan(STUDY, "name=other", "train.steps=50")).folder
    (other / SECOND).write_bytes((folder / SECOND).read_bytes())
    with pytest.raises(RecordError, match=r"manifest.002.json is damaged"):
        load_manifest(other)


def test_a_plan_is_extended_in_memory_without_a_file(plan: Plans) -> None:
    one, two = plan(STUDY), plan(STUDY, MORE_SEEDS)
    wide = extend(one, two)
    assert wide.runs[:8] == one.runs
    assert not one.folder.exists()
    assert wide.hash != one.hash
    assert extend(one, one) is one
