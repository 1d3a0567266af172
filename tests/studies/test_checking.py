"""Which cells are planned, what is said about their runs, and how many mistakes are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from cupel.errors import UsageError
from cupel.studies.checking import Alike
from plans import Plans, points_of, values_of

GRID = "grid: {train.optimizer.lr: [0.1, 0.2], batch: [4, 8]}\n"


@pytest.fixture
def plan(tmp_path: Path) -> Plans:
    return Plans(tmp_path)


# ---- which cells -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        ("arm=plain", 4), ("arm!=plain", 4), ("lr=0.1", 4), ("train.optimizer.lr<0.2", 4),
        ("lr=0.1 or batch=4", 6), ("arm=drop and batch in [4, 5]", 2), ("dropout>0", 4),
        ("point~'batch=8'", 4), ("train.ema=none", 8),
    ],
)  # fmt: skip
def test_a_cell_runs_where_the_filter_holds(plan: Plans, where: str, kept: int) -> None:
    assert len(plan(f'{GRID}where: ["{where}"]').cells) == kept


def test_a_cell_runs_where_all_filters_hold(plan: Plans) -> None:
    manifest = plan(f'{GRID}where: ["arm=drop", "lr=0.1", "batch=4"]')
    assert [(cell.arm, cell.point) for cell in manifest.cells] == [("drop", "lr=0.1,batch=4")]
    assert list(manifest.study.arms) == ["drop"]
    assert manifest.baseline == "drop"


def test_a_filter_over_seeds_leaves_out_runs(plan: Plans) -> None:
    manifest = plan('seeds: [1, 2, 3]\nwhere: ["arm=plain or seed<3"]')
    assert [(run.arm, run.seed) for run in manifest.runs] == [
        ("plain", 1), ("drop", 1), ("plain", 2), ("drop", 2), ("plain", 3),
    ]  # fmt: skip
    assert plan('seeds: [1, 2, 3]\nwhere: ["seed!=2"]').study.seeds == (1, 3)


def test_a_filter_over_folds_keeps_those(plan: Plans) -> None:
    folds = "folds: {count: 3, setting: train.schedule.warmup, total: null}\n"
    assert points_of(plan(folds + 'where: ["fold!=1"]')) == ["fold=0", "fold=2"]


def test_a_filter_may_leave_out_what_no_workload_accepts(plan: Plans) -> None:
    manifest = plan('grid: {batch: [0, 4], train.steps: [5, 6]}\nwhere: ["batch>0"]')
    assert values_of(manifest, "batch") == [4, 4]


def test_ids_do_not_depend_on_what_filters_leave_out(plan: Plans) -> None:
    every = {run.run_id for run in plan(GRID).runs}
    assert {run.run_id for run in plan(GRID + 'where: ["lr=0.1"]').runs} < every


@pytest.mark.parametrize(
    ("where", "told"),
    [
        (
            "arm=plian",
            "study.where: 'arm = plian' holds for no run; names are arm, seed, lr, batch",
        ),
        ("lr=0.3", "study.where: 'lr = 0.3' holds for no run"),
        ("lrr=0.1", "study.where: no axis or setting is called 'lrr'; did you mean 'lr'?"),
        ("fold=0", "no axis or setting is called 'fold'"),
        ("tag=x", "no axis or setting is called 'tag'"),
        ("train=5", "no axis or setting is called 'train'"),
        ("lr==", "study.where: cannot read the filter 'lr==' at position 5"),
        ("train.optimizer.momentum>0", "no axis or setting is called 'train.optimizer.momentum'"),
    ],
)
def test_a_filter_that_keeps_nothing_or_names_nothing_is_told(
    plan: Plans, where: str, told: str
) -> None:
    (problem,) = plan.refused(f'{GRID}where: ["{where}"]')
    assert told in problem


def test_filters_that_together_keep_nothing_are_told(plan: Plans) -> None:
    (problem,) = plan.refused(GRID + 'where: ["lr=0.1", "lr=0.2"]')
    assert problem.startswith("study.where: the filters hold together for no run")


def test_a_name_that_one_arm_alone_has_is_known(plan: Plans) -> None:
    arms = "arms: {plain: {}, rgd: {train: {optimizer: {kind: rgd, strength: 0.25}}}}"
    manifest = plan('where: ["train.optimizer.strength>0"]', arms=arms)
    assert [cell.arm for cell in manifest.cells] == ["rgd"]


def test_leaving_out_the_baseline_that_was_named_is_refused(plan: Plans) -> None:
    with pytest.raises(UsageError, match=r"'plain', which the others are compared with, is left"):
        plan('where: ["arm=drop"]\ncompare: {baseline: plain}')


# ---- what is said about runs -------------------------------------------------------------------


def test_priorities_are_added_up_by_the_rules_that_hold(plan: Plans) -> None:
    rules = "[{where: arm=drop, add: 50}, {where: seed=1, add: 10}, {where: lr=0.2, add: -25}]"
    manifest = plan(f"{GRID}seeds: [1, 2]\npriority: 200\npriorities: {rules}")
    found = {(r.arm, r.seed, r.point.split(",")[0]): r.priority for r in manifest.runs}
    assert found == {
        ("plain", 1, "lr=0.1"): 210, ("plain", 1, "lr=0.2"): 185,
        ("plain", 2, "lr=0.1"): 200, ("plain", 2, "lr=0.2"): 175,
        ("drop", 1, "lr=0.1"): 260, ("drop", 1, "lr=0.2"): 235,
        ("drop", 2, "lr=0.1"): 250, ("drop", 2, "lr=0.2"): 225,
    }  # fmt: skip


def test_a_run_has_the_studys_tags_and_those_of_its_values(plan: Plans) -> None:
    by = "tags: [night]\ntag_by: [arm, lr, train.steps, seed]\nseeds: [7, 8]"
    manifest = plan(GRID + by, narrowed={"tags": ["more", "night"]})
    assert manifest.runs[0].tags == ("night", "more", "arm=plain", "lr=0.1", "steps=40", "seed=7")
    assert manifest.runs[-1].tags[2:] == ("arm=drop", "lr=0.2", "steps=40", "seed=8")


def test_tags_and_priorities_change_no_id(plan: Plans) -> None:
    extras = "priority: 5\ntags: [x]\ntag_by: [arm]\nnot_before: 2026-12-01T08:00\n"
    assert [r.run_id for r in plan(GRID + extras).runs] == [r.run_id for r in plan(GRID).runs]
    assert plan(GRID + extras).hash == plan(GRID).hash


def test_the_first_run_waits_for_a_time_in_utc(plan: Plans) -> None:
    assert plan("not_before: 2026-12-01T08:00").not_before == 1_796_112_000.0
    assert plan("not_before: 2026-12-01T09:00+01:00").not_before == 1_796_112_000.0
    assert plan().not_before is None


@pytest.mark.parametrize(
    ("study", "told"),
    [
        (
            "not_before: tomorrow",
            "study.not_before: 'tomorrow' is no time; write it as 2026-12-01T",
        ),
        ("alerts: {deadline: soon}", "study.alerts.deadline: 'soon' is no time"),
        ("tag_by: [lrr]", "study.tag_by: no axis or setting is called 'lrr'"),
        ("tags: ['']", "study.tags: '' is no tag; give 1 to 100 printable characters"),
        ("priorities: [{where: lrr=1, add: 1}]", "study.priorities: no axis or setting is called"),
        ("priorities: [{where: arm, add: 1}]", "study.priorities: cannot read the filter 'arm'"),
        (
            "resources: {gpus: -1}",
            "study.resources.gpus: -1 is out of range; it must be 0.0 or more",
        ),
    ],
)
def test_a_mistake_in_what_is_said_about_runs_is_told(plan: Plans, study: str, told: str) -> None:
    (problem,) = plan.refused(study)
    assert told in problem


# ---- how mistakes are told ---------------------------------------------------------------------


def test_mistakes_that_differ_in_a_value_are_one_line_with_their_number(plan: Plans) -> None:
    values = ", ".join(str(-n) for n in range(1, 37))
    problems = plan.refused(f"grid: {{train.optimizer.lr: [{values}]}}\nseeds: [1, 2, 3]")
    assert problems == [
        "train.optimizer.lr: -1 is out of range; it must be above 0.0 "
        "(and 210 more runs with the same mistake)"
    ]


def test_one_more_run_is_counted_in_the_singular(plan: Plans) -> None:
    (problem,) = plan.refused("grid: {batch: [0, -1]}\nseeds: [1]", arms="arms: {a: {}}")
    assert problem.endswith("(and 1 more run with the same mistake)")


def test_mistakes_in_different_settings_are_told_apart(plan: Plans) -> None:
    problems = plan.refused("grid: {batch: [0, -1], train.steps: [0, -1]}\nseeds: [1]")
    assert [problem.split(":")[0] for problem in problems] == ["batch", "train.steps"]


def test_many_different_mistakes_are_cut() -> None:
    alike = Alike()
    alike.add([f"a.yaml:{n}: x{'y' * n}: 5 is no number" for n in range(30)], runs=1)
    lines = alike.lines()
    assert len(lines) == 21
    assert lines[-1] == "… and 10 more mistakes"


def test_what_is_left_out_has_no_mistakes() -> None:
    alike = Alike()
    alike.add(["a: b"], runs=0)
    assert alike.lines() == []


def test_progress_is_told_while_cells_are_checked(plan: Plans) -> None:
    told: list[tuple[int, int]] = []
    values = ", ".join(map(str, range(1, 61)))
    plan(f"grid: {{train.steps: [{values}]}}", narrowed={"tell": lambda *now: told.append(now)})
    assert told == [(100, 120), (120, 120)]


# ---- searches ----------------------------------------------------------------------------------

SEARCH = "search: {trials: 9, space: {train.optimizer.lr: {low: 1.0e-4, high: 0.1, log: true}}}\n"


def test_a_study_that_searches_has_the_cells_that_were_asked_for(plan: Plans) -> None:
    assert plan(SEARCH).cells == ()
    asked = [{"train.optimizer.lr": 0.01}, {"train.optimizer.lr": 0.02}]
    assert points_of(plan(SEARCH, narrowed={"asked": asked})) == ["lr=0.01", "lr=0.02"]


def test_a_study_that_searches_is_checked_before_it_begins(plan: Plans) -> None:
    (problem,) = plan.refused(SEARCH.replace("optimizer.lr", "optimizer.rl"))
    assert "train.optimizer.rl: no such setting" in problem
