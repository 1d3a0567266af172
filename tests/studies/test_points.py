"""Points: every source multiplies the others, draws are the same each time, and what is refused."""

from __future__ import annotations

import json
import math
import re
import tempfile
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.studies.points import Options, Range, dimension, draws, shortened
from cupel.studies.settings import RandomSettings
from cupel.studies.spec import plan_study
from plans import Plans, points_of, values_of

LR = "train.optimizer.lr"
FOLDS = "folds: {count: 3, setting: batch, total: train.steps}"


@pytest.fixture
def plan(tmp_path: Path) -> Plans:
    return Plans(tmp_path)


# ---- the sources -------------------------------------------------------------------------------


def test_zipped_settings_vary_together(plan: Plans) -> None:
    manifest = plan(f"zip: {{{LR}: [0.1, 0.2], batch: [4, 8]}}")
    assert points_of(manifest) == ["lr=0.1,batch=4", "lr=0.2,batch=8"]
    assert list(zip(values_of(manifest, LR), values_of(manifest, "batch"), strict=True)) == [
        (0.1, 4),
        (0.2, 8),
    ]


def test_points_are_written_out_one_by_one_and_need_not_set_the_same(plan: Plans) -> None:
    manifest = plan(f"points: [{{{LR}: 0.1}}, {{{LR}: 0.2, batch: 4}}, {{train: {{steps: 7}}}}]")
    assert points_of(manifest) == ["lr=0.1", "lr=0.2,batch=4", "train={steps: 7}"]
    assert values_of(manifest, "batch") == [8, 4, 8]
    assert values_of(manifest, "train.steps") == [40, 40, 7]


def test_a_fold_is_an_axis_that_sets_its_number_and_the_count(plan: Plans) -> None:
    folds = "{count: 3, setting: train.schedule.warmup, total: batch}"
    manifest = plan(f"grid: {{train.steps: [20, 30]}}\nfolds: {folds}")
    assert points_of(manifest) == [f"steps={s},fold={k}" for s in (20, 30) for k in range(3)]
    assert values_of(manifest, "train.schedule.warmup") == [0, 1, 2, 0, 1, 2]
    assert set(values_of(manifest, "batch")) == {3}
    assert [run.fold for run in manifest.runs[:3]] == [0, 1, 2]
    without = plan("folds: {count: 2, setting: train.schedule.warmup, total: null}")
    assert set(values_of(without, "batch")) == {8}


def test_a_group_in_one_source_does_not_undo_what_another_sets(plan: Plans, tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "short.yaml").write_text("steps: 5\n")
    manifest = plan("grid: {train.clip: [2.0, 3.0]}\npoints: [{train: short}]")
    assert values_of(manifest, "train.clip") == [2.0, 3.0]
    assert values_of(manifest, "train.steps") == [5, 5]


def test_typed_axes_of_every_source_are_nested_like_other_overrides(plan: Plans) -> None:
    typed = [f"study.zip.{LR}=[0.1,0.2]", "study.zip.batch=[4,8]"]
    space = ["study.random.draws=2", "study.random.space.dropout={low: 0.1, high: 0.3}"]
    manifest = plan("", *typed, *space, arms="arms: {plain: {}}")
    assert len(manifest.cells) == 4
    assert set(values_of(manifest, "batch")) == {4, 8}


@pytest.mark.slow
@settings(max_examples=15, deadline=None)  # a plan of 100 cells takes half a second
@given(
    grid=st.lists(st.integers(1, 99), min_size=0, max_size=2, unique=True),
    zipped=st.integers(0, 2),
    listed=st.integers(0, 2),
    drawn=st.integers(0, 2),
    folds=st.sampled_from([0, 2]),
    seeds=st.lists(st.integers(0, 99), min_size=1, max_size=3, unique=True),
)
def test_every_source_multiplies_the_others(
    grid: list[int], zipped: int, listed: int, drawn: int, folds: int, seeds: list[int]
) -> None:
    study: dict[str, object] = {
        "question": "?", "seeds": seeds, "arms": {"a": {}, "b": {"dropout": 0.25}},
    }  # fmt: skip
    if grid:
        study["grid"] = {"train.steps": grid}
    if zipped:
        one = [n / 10 for n in range(1, zipped + 1)]
        study["zip"] = {LR: one, "train.optimizer.weight_decay": one}
    if listed:
        study["points"] = [{"train.clip": n} for n in range(1, listed + 1)]
    if drawn:
        space = {"train.optimizer.eps": {"low": 1e-9, "high": 1e-3, "log": True}}
        study["random"] = {"draws": drawn, "space": space}
    if folds:
        study["folds"] = {"count": folds, "setting": "train.schedule.warmup", "total": None}
    sizes = [max(1, n) for n in (len(grid), zipped, listed, drawn, folds)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "s.yaml"
        path.write_text(json.dumps({"workload": "fakes:Regression", "study": study}))
        manifest = plan_study(path, root=Path(folder))
        again = plan_study(path, root=Path(folder))
    assert len(manifest.cells) == 2 * math.prod(sizes)
    assert len({(c.arm, c.point) for c in manifest.cells}) == len(manifest.cells)
    assert len({run.run_id for run in manifest.runs}) == len(manifest.cells) * len(seeds)
    assert manifest.runs == again.runs
    assert manifest.hash == again.hash
    cells = range(len(manifest.cells))
    assert [(run.seed, run.cell) for run in manifest.runs] == list(product(seeds, cells))
    assert {run.fold for run in manifest.runs} == (set(range(folds)) if folds else {None})


# ---- draws -------------------------------------------------------------------------------------


def test_draws_are_these_on_every_machine() -> None:
    space = {
        "a": {"low": 0, "high": 1}, "b": {"low": 1e-5, "high": 0.1, "log": True},
        "c": {"low": 1, "high": 6, "int": True}, "d": ["x", "y", "z"],
        "e": {"low": 1, "high": 1000, "int": True, "log": True},
    }  # fmt: skip
    assert draws(RandomSettings(draws=2, seed=7, space=space)) == [
        {"a": 0.7635163580054259, "b": 7.555720222536e-05, "c": 3, "d": "z", "e": 501},
        {"a": 0.017003145921087256, "b": 8.490780317957414e-05, "c": 6, "d": "x", "e": 67},
    ]


@given(
    seed=st.integers(0, 2**31), count=st.integers(1, 20), more=st.integers(0, 20),
)  # fmt: skip
def test_more_draws_keep_the_first_ones(seed: int, count: int, more: int) -> None:
    space = {"a": {"low": 1, "high": 100, "int": True}, "b": {"low": 0.5, "high": 2.5}}
    few, many = (
        draws(RandomSettings(draws=n, seed=seed, space=space)) for n in (count, count + more)
    )
    assert many[:count] == few
    assert len({str(one) for one in many}) == count + more


def test_another_setting_in_the_space_leaves_the_draws_of_the_first_alone() -> None:
    space = {"a": {"low": 0.0, "high": 1.0}}
    one = draws(RandomSettings(draws=5, space=space))
    two = draws(RandomSettings(draws=5, space={**space, "b": [1, 2]}))
    assert [drawn["a"] for drawn in two] == [drawn["a"] for drawn in one]


@given(
    key=st.one_of(st.integers(0, 2**63 - 1), st.sampled_from([0, 2**63 - 1])),
    bounds=st.lists(st.floats(1e-300, 1e300), min_size=2, max_size=2, unique=True).map(sorted),
    log=st.booleans(),
)
def test_a_drawn_number_lies_between_its_bounds_and_is_read_back_exactly(
    key: int, bounds: list[float], log: bool
) -> None:
    low, high = bounds
    value = Range(low, high, log).at(key)
    assert low <= value <= high
    assert json.loads(json.dumps(value)) == value


@given(
    key=st.integers(0, 2**63 - 1),
    low=st.integers(1, 50),
    span=st.integers(1, 50),
    log=st.booleans(),
)
def test_a_drawn_whole_number_is_one_of_those_from_low_to_high(
    key: int, low: int, span: int, log: bool
) -> None:
    value = Range(low, low + span, log, whole=True).at(key)
    assert type(value) is int
    assert low <= value <= low + span


def test_every_whole_number_and_every_option_is_drawn_alike_often() -> None:
    keys = [(2 * n + 1) * 2**63 // 1200 for n in range(600)]
    for one, count in ((Range(1, 6, whole=True), 6), (Options(("a", "b", "c")), 3)):
        drawn = [one.at(key) for key in keys]
        assert [drawn.count(value) for value in dict.fromkeys(drawn)] == [600 // count] * count


def test_logarithms_are_drawn_evenly() -> None:
    one = Range(1e-4, 1.0, log=True)
    assert [math.isclose(one.at(n * 2**61), 10.0 ** (n - 4), rel_tol=1e-12) for n in range(4)] == (
        [True] * 4
    )


def test_all_points_of_a_small_space_are_found(plan: Plans) -> None:
    manifest = plan(
        "random: {draws: 6, space: {batch: {low: 1, high: 3, int: true}, train.steps: [5, 6]}}"
    )
    assert sorted(points_of(manifest)) == sorted(
        f"batch={b},steps={s}" for b, s in product((1, 2, 3), (5, 6))
    )


def test_a_drawn_value_is_what_the_cell_holds(plan: Plans) -> None:
    manifest = plan(
        f"random: {{draws: 4, seed: 3, space: {{{LR}: {{low: 1e-5, high: 1, log: true}}}}}}"
    )
    assert [f"lr={json.dumps(value)}" for value in values_of(manifest, LR)] == points_of(manifest)


# ---- names -------------------------------------------------------------------------------------


@given(
    st.lists(
        st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(".".join),
        unique=True,
        max_size=6,
    )
)
def test_short_names_differ(keys: list[str]) -> None:
    short = shortened(keys, taken=["fold"])
    assert list(short) == keys
    assert len(set(short.values())) == len(keys)
    assert all(f".{key}".endswith(f".{name}") for key, name in short.items())


def test_an_axis_that_is_called_fold_leaves_that_name_to_the_folds() -> None:
    assert shortened(["x.fold"], taken=["fold"]) == {"x.fold": "x.fold"}


# ---- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("study", "told"),
    [
        (
            f"zip: {{{LR}: [0.1, 0.2, 0.3], batch: [4, 8]}}",
            f"study.zip: {LR} has 3 values and batch has 2 values; they vary together, "
            "so give each as many",
        ),
        ("zip: {batch: []}", "study.zip.batch: has no values; give some, or leave it out"),
        ("zip: {batch: [4, 4], train.steps: [1, 1]}", "is there more than once"),
        ("zip: {seed: [4]}", "study.zip.seed: the seeds of all arms are study.seeds"),
        ("points: [{batch: 4}, {batch: 4}]", "study.points: {batch: 4} is there more than once"),
        ("points: [{name: x}]", "study.points: name: it belongs to the study as a whole"),
        ("grid: {batch: [4]}\nzip: {batch: [4]}", "study.zip: batch is in study.grid already"),
        ("grid: {batch: [4]}\npoints: [{batch: 4}]", "study.points: batch is in study.grid"),
        ("grid: {batch: [4]}\nfolds: {count: 2, setting: batch}", "folds: batch is in study.grid"),
        ("zip: {batch: [4]}\nfolds: {count: 2, setting: x, total: batch}", "batch is in study.zip"),
        ("folds: {count: 1}", "study.folds.count: 1 is out of range; it must be 2 or more"),
        ("random: {draws: 9, space: {batch: [4, 8]}}", "there are only 2 different points"),
        ("random: {draws: 1, space: {}}", "study.random.space: names no setting to draw"),
        ("random: {draws: 1, space: {batch: {lo: 1}}}", "lo: no such setting; did you mean 'low'?"),
        ("random: {draws: 0, space: {batch: [4]}}", "study.random.draws: 0 is out of range"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_source_is_told_in_one_line(plan: Plans, study: str, told: str) -> None:
    (problem,) = plan.refused(study)
    assert told in problem


@pytest.mark.parametrize(
    ("given_", "told"),
    [
        ({"low": 2, "high": 1}, "low is 2 and high is 1; low must be below high"),
        ({"low": 1, "high": 1}, "low must be below high"),
        ({"low": 0, "high": 1, "log": True}, "low is 0, which has no logarithm"),
        ({"low": 0.5, "high": 2, "int": True}, "with int they must be whole numbers"),
        ({"low": "a", "high": 2}, "low is a; it must be a number"),
        ({"low": True, "high": 2}, "low is true; it must be a number"),
        ({"high": 2}, "low is null; it must be a number"),
        ({"low": 1, "high": math.inf}, "it must be a number"),
        ({"low": 1, "high": 2, "log": 1}, "log is 1; it must be true or false"),
        ([], "there is nothing to choose from; give some values"),
        ([1, 2, 1], "1 is there more than once"),
        (5, "5 is no range; write {low: 1e-4, high: 1e-1, log: true}"),
    ],
)
def test_a_range_that_is_none_is_told(given_: object, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        dimension(given_)


def test_an_axis_of_any_source_is_not_typed_like_a_setting(plan: Plans) -> None:
    (problem,) = plan.refused("zip: {batch: [4, 8]}", "batch=3")
    assert problem == "batch: it is an axis of the study's zip; type study.zip.batch=[…]"
    (problem,) = plan.refused("points: [{batch: 4}]", "batch=3")
    assert problem == "batch: it is an axis of the study's points"
