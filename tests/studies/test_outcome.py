"""What is read of a study is what its records hold: statistics unmixed, absences told."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cupel.config import load
from cupel.studies.manifest import Cell, Manifest
from cupel.studies.outcome import outcome
from cupel.studies.runs import PLANNED, REFUSED, bits_per_byte, in_nats, perplexity, read_runs
from cupel.studies.settings import StudySettings
from cupel.studies.spec import plan_study
from cupel.studies.unequal import inequalities, unequal_settings
from planted import ADAMW, RGD, WAVE, Arm, arm_config, around, plant
from queues import refuse


def two_arms(**wave: object) -> dict[str, Arm]:
    values = {"values": around(1.8), "config": arm_config(WAVE), **wave}
    return {"standard": Arm(around(2.0)), "wave": Arm(**values)}  # type: ignore[arg-type]


@pytest.mark.slow
def test_last_and_best_are_two_statistics_and_the_declared_one_decides(tmp_path: Path) -> None:
    last = plant(tmp_path / "last", two_arms())
    best = plant(tmp_path / "best", two_arms(), primary={"statistic": "best"})
    for run in read_runs(last):
        assert run.last is not None
        assert run.best == pytest.approx(run.last - 0.05)
        assert run.best_step == 30
        assert run.value == run.last
    assert all(run.value == run.best for run in read_runs(best))


@pytest.mark.slow
def test_best_is_by_the_declared_direction_over_all_evaluations(tmp_path: Path) -> None:
    manifest = plant(tmp_path, two_arms(), primary={"statistic": "best", "better": "higher"})
    for run in read_runs(manifest):
        assert run.last is not None
        assert (run.best, run.best_step) == (pytest.approx(run.last + 1.0), 10)


@pytest.mark.slow
def test_costs_are_those_of_all_sessions_and_absent_ones_are_none(tmp_path: Path) -> None:
    manifest = plant(tmp_path, two_arms(flops=None))
    standard, wave = (
        next(r for r in read_runs(manifest) if r.run.arm == a) for a in manifest.study.arms
    )
    assert (standard.unit, standard.units) == ("tokens", 2560)
    assert (standard.wall_s, standard.cpu_s, standard.units_per_s) == (20.0, 10.0, 128)
    assert (standard.flops, wave.flops) == (4.0e9, None)
    assert standard.parameters == 10_000
    path = standard.run_dir / "results.json"
    fields = json.loads(path.read_text())
    fields["totals"]["cpu_s"] = None  # as after a session that was killed
    path.write_text(json.dumps(fields))
    again = read_runs(manifest)[0]
    assert (again.units, again.wall_s, again.cpu_s) == (2560, 20.0, None)


@pytest.mark.slow
def test_planted_costs_have_the_names_that_the_loop_writes_and_are_read_back(
    tmp_path: Path,
) -> None:
    from cupel.config import from_config
    from cupel.workloads.training import train

    manifest = plan_study(real_recipe(tmp_path), root=tmp_path / "runs")
    (planned,) = manifest.runs
    recipe = from_config(manifest.config_of(planned), where="test")
    train(recipe, root=manifest.root, run_id=planned.run_id)
    (run,) = read_runs(manifest)
    assert (run.status, run.unit, run.units) == ("finished", "rows", 24)
    assert run.wall_s
    assert run.cpu_s
    assert run.units_per_s == 24 / run.wall_s
    planted = plant(tmp_path / "planted", {"a": Arm(around(2.0))}, seeds=(1,))
    theirs, ours = (
        json.loads((folder / "results.json").read_text())
        for folder in (run.run_dir, planted.run_dir(planted.runs[0]))
    )
    for section in ("totals", "last_session"):
        names = {name.replace("rows", "tokens") for name in theirs[section]}
        assert names == ours[section].keys()


def test_a_run_of_a_loop_of_ones_own_has_its_metrics_and_no_costs(tmp_path: Path) -> None:
    import cupel

    manifest = plan_study(real_recipe(tmp_path), root=tmp_path / "runs")
    with cupel.init(project=manifest.project, name="own", root=manifest.root) as own:
        cupel.log({"val_loss": 2.0}, step=1)
        cupel.log({"val_loss": 1.5}, step=2)
    own.dir.rename(manifest.run_dir(manifest.runs[0]))
    (run,) = read_runs(manifest)
    assert (run.status, run.last, run.best, run.steps) == ("finished", 1.5, 1.5, 2)
    assert (run.unit, run.units, run.units_per_s) == ("units", None, None)
    assert (run.wall_s, run.cpu_s, run.flops) == (None, None, None)


def real_recipe(folder: Path) -> Path:
    """A study of one run that trains in a moment, of a workload of a user's own."""
    recipe = folder / "sine.yaml"
    recipe.write_text(
        "workload: fakes:Regression\n"
        "train: {steps: 3, evaluate_every: 1, threads: 1, device: cpu}\n"
        "study: {question: Which?, arms: {a: {}}, seeds: [1]}\n"
    )
    return recipe


@pytest.mark.slow
def test_runs_that_did_not_finish_have_a_reason_and_no_value(tmp_path: Path) -> None:
    arms = two_arms(values={1: 1.8}, failed=[2], diverged=[3], interrupted=[4])
    found = {
        run.run.seed: run
        for run in read_runs(plant(tmp_path, arms, seeds=(1, 2, 3, 4, 5)))
        if run.run.arm == "wave"
    }
    assert [found[seed].status for seed in (1, 2, 3, 4, 5)] == [
        *("finished", "failed", "failed", "interrupted", PLANNED)
    ]
    assert found[2].reason == "RuntimeError: a planted failure"
    assert found[2].value is found[4].value is found[5].value is None
    assert found[3].diverged
    assert math.isnan(found[3].value or 0)
    assert not found[2].diverged


WORKER = """\
Traceback (most recent call last):
  File "loop.py", line 1, in <module>
    batch = next(batches)
            ^^^^^^^^^^^^^
  [Previous line repeated 3 more times]
ValueError: Caught KeyError in worker 0.
Original Traceback (most recent call last):
  File "data.py", line 1, in <module>
KeyError: 'text'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "loop.py", line 2, in <module>
"""
GROUP = """\
  + Exception Group Traceback (most recent call last):
  |   File "loop.py", line 1, in <module>
  | ExceptionGroup: two failed (2 sub-exceptions)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |   File "loop.py", line 2, in <module>
    | OSError: disk full
    +------------------------------------
"""


@pytest.mark.parametrize(
    "error, told",
    [
        ("a line", "a line"),
        ("\n\n  first\nsecond\n", "first"),
        ("2 mistakes:\n- steps must be above 0\n- lr", "2 mistakes: - steps must be above 0"),
        (
            f"{WORKER}RuntimeError: CUDA error\nCompile with X to see it.",
            "RuntimeError: CUDA error",
        ),
        (
            f"{WORKER}RuntimeError: Error(s) in loading:\n\tMissing key: w\n\tMore: b",
            "RuntimeError: Error(s) in loading: Missing key: w",
        ),
        (f"{WORKER}KeyboardInterrupt", "KeyboardInterrupt"),
        (f"{WORKER}ValueError: a Traceback\nis no end", "ValueError: a Traceback"),
        (WORKER[: WORKER.index("During")], "KeyError: 'text'"),
        (GROUP, "OSError: disk full"),
        ("Traceback (most recent call last):", "Traceback (most recent call last):"),
        ("", "None"),
    ],
)
def test_a_reason_of_many_lines_is_told_in_the_line_that_says_most(
    tmp_path: Path, error: str, told: str
) -> None:
    arms = {"a": Arm({}, failed=[1], error=error)}
    (run,) = read_runs(plant(tmp_path, arms, seeds=(1,)))
    assert (run.status, str(run.reason)) == ("failed", told)


@pytest.mark.slow
def test_a_failed_run_is_missing_and_a_diverged_one_is_named_so(tmp_path: Path) -> None:
    arms = two_arms(values={1: 1.8, 2: 1.81}, failed=[3], diverged=[4])
    (card,) = outcome(plant(tmp_path, arms, seeds=(1, 2, 3, 4))).cards
    assert (card.n, card.missing_arm, card.diverged_arm) == (2, (3,), (4,))
    assert card.missing_baseline == (4,)


@pytest.mark.slow
def test_damaged_results_are_told_and_do_not_stop_the_others(tmp_path: Path) -> None:
    manifest = plant(tmp_path, two_arms())
    (manifest.run_dir(manifest.runs[0]) / "results.json").write_text("{")
    runs = read_runs(manifest)
    assert runs[0].status == "damaged"
    assert "results.json is damaged" in str(runs[0].reason)
    assert outcome(manifest).cards[0].n == 2


@pytest.mark.slow
def test_a_metric_that_no_evaluation_has_is_told(tmp_path: Path) -> None:
    manifest = plant(tmp_path, two_arms(), primary={"metric": "accuracy"})
    assert all(run.value is None for run in read_runs(manifest))
    assert read_runs(manifest)[0].reason == "its results hold no 'accuracy'"
    assert outcome(manifest).cards[0].verdict is None


@pytest.mark.slow
def test_arms_that_differ_in_nothing_have_nothing_unequal(tmp_path: Path) -> None:
    arms = {"one": Arm(around(2.0)), "two": Arm(around(1.9), cpu_s=10.2)}
    manifest = plant(tmp_path, arms)
    assert inequalities(manifest, read_runs(manifest)) == []


def found_unequal(root: Path, arms: dict[str, Arm], **study: Any) -> dict[str, tuple[str, str]]:
    manifest = plant(root, arms, seeds=(1,), **study)
    return {one.name: one.values for one in inequalities(manifest, read_runs(manifest))}


def test_everything_that_is_not_equal_is_named_with_both_values(tmp_path: Path) -> None:
    optimizer = {**RGD, "lr": 0.002, "strength": 0.3, "fused": None}
    config = arm_config({**WAVE, "dropout": 0.1}, optimizer, "qfe", steps=80, ema=0.99)
    config["data"] = {**config["data"], "batch": 8}
    config["objective"]["weight"] = 0.1
    assert found_unequal(tmp_path, two_arms(config=config, parameters=12_000, cpu_s=20.0)) == {
        "model": (
            "gpt",
            "wave (waves 8, harmonics 2, embedding packet, attention interference, "
            "ratio scheduled, mlp gelu_sine)",
        ),
        "objective": ("cross_entropy", "qfe (weight 0.1)"),
        "optimizer": ("adamw", "rgd (strength 0.3)"),
        "steps": ("40", "80"),
        "batch": ("4", "8"),
        "learning rate": ("0.001", "0.002"),
        "dropout": ("0", "0.1"),
        "train.ema": ("none", "0.99"),
        "order of data": ("by seed, 4 sequences of 16", "by seed, 8 sequences of 16"),
        "parameters": ("10,000", "12,000"),
        "CPU seconds": ("10.0", "20.0"),
    }


def test_settings_of_equal_kinds_are_told_one_by_one(tmp_path: Path) -> None:
    rgd = {**RGD, "strength": 0.3, "betas": [0.9, 0.99]}
    arms = {
        "weak": Arm(around(2.0), arm_config(WAVE, rgd)),
        "strong": Arm(
            around(1.9),
            arm_config(
                {**WAVE, "mlp": "sine", "bias": False},
                {**rgd, "strength": 0.5, "betas": [0.9, 0.999]},
                schedule={"kind": "cosine", "warmup": 5, "floor": 0.0},
                stopping={"patience": 8, "min_delta": 0.0},
            ),
        ),
    }
    assert found_unequal(tmp_path, arms) == {
        "betas": ("[0.9, 0.99]", "[0.9, 0.999]"),
        "early stopping": ("none", "patience 8, min_delta 0"),
        "model.mlp": ("gelu_sine", "sine"),
        "model.bias": ("absent", "false"),
        "train.optimizer.strength": ("0.3", "0.5"),
        "train.schedule.warmup": ("0", "5"),
    }


@pytest.mark.slow
def test_a_setting_that_another_one_makes_idle_is_told_with_that_one_or_not_at_all(
    tmp_path: Path,
) -> None:
    pure = {"kernel": "exp", "form": "linear"}
    idle = {"pure": {"kernel": "elu", "form": "linear"}, "ratio_steps": 3000}
    arms = {
        "plain": Arm(around(2.0), arm_config({**WAVE, **idle})),
        "kernel": Arm(around(1.9), arm_config({**WAVE, **idle, "attention": "pure", "pure": pure})),
    }
    assert found_unequal(tmp_path / "one", arms) == {
        "model.attention": ("interference", "pure (pure.kernel exp, pure.form linear)")
    }
    decay = {**WAVE, **idle, "ratio": "decay", "ratio_steps": 100, "pure": pure}
    arms["kernel"] = Arm(around(1.9), arm_config(decay))
    assert found_unequal(tmp_path / "two", arms) == {
        "model.ratio": ("scheduled", "decay (ratio_steps 100)")
    }


@pytest.mark.slow
def test_what_cannot_change_a_result_is_not_told(tmp_path: Path) -> None:
    base = load("gpt-tiny", ["name=a", "data.cache=here"]).resolved()
    other = load(
        "gpt-tiny",
        [
            *("name=b", "about=another", "project=q", "seed=5", "data.cache=there"),
            *("monitors.norms.every=7", "figures.every=3", "checkpoint.every=9"),
            *("sample.tokens=5", "train.log_every=10"),
        ],
    ).resolved()
    arms = {"a": Arm(around(2.0), base), "b": Arm(around(1.9), other)}
    assert found_unequal(tmp_path / "one", arms) == {}
    # Nothing is known of what is marked in settings that this cupel refuses.
    arms["b"] = Arm(around(1.9), {**other, "newer": 1})
    arms["a"] = Arm(around(2.0), {**base, "newer": 2})
    told = found_unequal(tmp_path / "two", arms)
    assert told == {"newer": ("2", "1"), "data.cache": ("here", "there")}
    # Of a workload of a user's own nobody knows what `sample` means.
    arms = {
        name: Arm(around(2.0), {**arm_config(), "workload": "own:Work", "sample": size})
        for name, size in (("a", 1), ("b", 2))
    }
    assert found_unequal(tmp_path / "three", arms) == {"sample": ("1", "2")}


@pytest.mark.slow
def test_values_of_several_points_stand_side_by_side_where_they_differ(tmp_path: Path) -> None:
    manifest = plant(
        tmp_path, two_arms(config=arm_config()), seeds=(1,), points=("p=1", "p=2", "p=3")
    )
    cells = [
        replace(cell, config=arm_config(threads=n if cell.arm == "wave" else 1))
        for cell, n in zip(manifest.cells, (1, 1, 1, 1, 2, 3), strict=True)
    ]
    (one,) = inequalities(replace(manifest, cells=tuple(cells)), [])
    assert (one.name, one.values) == ("threads", ("1", "2 | 3"))


@given(first=st.data())
@pytest.mark.slow
def test_arms_are_unequal_in_a_setting_exactly_where_their_settings_are(
    first: st.DataObject,
) -> None:
    values = st.one_of(st.none(), st.booleans(), st.integers(0, 3), st.sampled_from("ab"))
    configs = st.dictionaries(
        st.sampled_from(["model", "train", "data"]),
        st.dictionaries(st.sampled_from("pqrs"), values),
        min_size=3,
    )
    one, two = first.draw(configs), first.draw(configs)
    cells = [Cell(arm, "", {}, config) for arm, config in (("one", one), ("two", two))]
    study = StudySettings(question="?", arms={"one": {}, "two": {}})
    manifest = Manifest(Path("runs/p/studies/s"), "s", "p", "", study, tuple(cells), (), 0.0)
    found = {inequality.name for inequality in unequal_settings(manifest, "two", "")}
    absent = object()
    assert found == {
        f"{section}.{name}"
        for section in one
        for name in {*one[section], *two[section]}
        if one[section].get(name, absent) != two[section].get(name, absent)
    }


@pytest.mark.slow
def test_other_data_under_the_same_settings_are_found_by_their_hash(tmp_path: Path) -> None:
    manifest = plant(tmp_path, two_arms())
    path = manifest.run_dir(manifest.runs[-1]) / "run.json"
    path.write_text(path.read_text().replace("ab" * 32, "cd" * 32))
    names = [one.name for one in inequalities(manifest, read_runs(manifest))]
    assert "data (SHA-256)" in names


def test_perplexity_and_bits_follow_their_definitions() -> None:
    assert perplexity(math.log(50)) == pytest.approx(50)
    assert perplexity(1e4) == math.inf
    assert bits_per_byte(math.log(2), 1.0) == 1.0
    assert bits_per_byte(3 * math.log(2), 2.0) == pytest.approx(1.5)


@pytest.mark.slow
def test_a_loss_of_text_is_in_nats_and_an_accuracy_is_not(tmp_path: Path) -> None:
    run = read_runs(plant(tmp_path, {"a": Arm(around(2.0), config=arm_config(optimizer=ADAMW))}))[0]
    assert in_nats(run, "val_loss")
    assert in_nats(run, "val_loss_ema")
    assert not in_nats(run, "val_accuracy")


@pytest.mark.slow
def test_a_run_that_could_not_begin_says_why_it_was_refused(tmp_path: Path) -> None:
    study = plant(tmp_path, two_arms(values={1: 1.8, 2: 1.81}))
    missing = next(run for run in study.runs if (run.arm, run.seed) == ("wave", 3))
    refuse(study, missing, "data.path: there is no file here")
    (found,) = (run for run in read_runs(study) if run.run == missing)
    assert (found.status, found.reason) == (
        REFUSED, "data.path: there is no file here; not retried",
    )  # fmt: skip


@pytest.mark.slow
def test_an_arm_that_a_filter_leaves_out_at_a_point_is_not_held_against_the_others_there(
    tmp_path: Path,
) -> None:
    manifest = plant(tmp_path, two_arms(config=arm_config()), seeds=(1,), points=("p=1", "p=2"))
    cells = [
        replace(cell, config=arm_config(threads=2 if cell.arm == "wave" else 1))
        for cell in manifest.cells
        if (cell.arm, cell.point) != ("wave", "p=2")
    ]
    (one,) = inequalities(replace(manifest, cells=tuple(cells)), [])
    assert (one.name, one.values) == ("threads", ("1", "2"))
