"""What is read of a study is what its records hold: statistics unmixed, absences told."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from cupel.studies.outcome import (
    PLANNED,
    bits_per_byte,
    in_nats,
    inequalities,
    outcome,
    perplexity,
    read_runs,
)
from planted import ADAMW, RGD, WAVE, Arm, arm_config, around, plant


def two_arms(**wave: object) -> dict[str, Arm]:
    values = {"values": around(1.8), "config": arm_config(WAVE), **wave}
    return {"standard": Arm(around(2.0)), "wave": Arm(**values)}  # type: ignore[arg-type]


def test_last_and_best_are_two_statistics_and_the_declared_one_decides(tmp_path: Path) -> None:
    last = plant(tmp_path / "last", two_arms())
    best = plant(tmp_path / "best", two_arms(), primary={"statistic": "best"})
    for run in read_runs(last):
        assert run.last is not None
        assert run.best == pytest.approx(run.last - 0.05)
        assert run.best_step == 30
        assert run.value == run.last
    assert all(run.value == run.best for run in read_runs(best))


def test_best_is_by_the_declared_direction_over_all_evaluations(tmp_path: Path) -> None:
    manifest = plant(tmp_path, two_arms(), primary={"statistic": "best", "better": "higher"})
    for run in read_runs(manifest):
        assert run.last is not None
        assert (run.best, run.best_step) == (pytest.approx(run.last + 1.0), 10)


def test_costs_are_those_of_all_sessions_and_absent_ones_are_none(tmp_path: Path) -> None:
    manifest = plant(tmp_path, two_arms(flops=None))
    standard, wave = (
        next(r for r in read_runs(manifest) if r.run.arm == a) for a in manifest.study.arms
    )
    assert (standard.units, standard.wall_s, standard.cpu_s) == (2560, 20.0, 10.0)
    assert standard.units_per_s == 128
    assert (standard.flops, wave.flops) == (4.0e9, None)
    assert standard.parameters == 10_000
    path = standard.run_dir / "results.json"
    fields = json.loads(path.read_text())
    del fields["totals"]
    path.write_text(json.dumps(fields))
    again = read_runs(manifest)[0]
    assert (again.units, again.flops, again.wall_s) == (None, None, 20.0)
    fields["last_session"]["steps"] = 5  # now there were sessions before the last one
    path.write_text(json.dumps(fields))
    again = read_runs(manifest)[0]
    assert (again.wall_s, again.cpu_s) == (None, None)


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


def test_a_failed_run_is_missing_and_a_diverged_one_is_named_so(tmp_path: Path) -> None:
    arms = two_arms(values={1: 1.8, 2: 1.81}, failed=[3], diverged=[4])
    (card,) = outcome(plant(tmp_path, arms, seeds=(1, 2, 3, 4))).cards
    assert (card.n, card.missing_arm, card.diverged_arm) == (2, (3,), (4,))
    assert card.missing_baseline == (4,)


def test_damaged_results_are_told_and_do_not_stop_the_others(tmp_path: Path) -> None:
    manifest = plant(tmp_path, two_arms())
    (manifest.run_dir(manifest.runs[0]) / "results.json").write_text("{")
    runs = read_runs(manifest)
    assert runs[0].status == "damaged"
    assert "results.json is damaged" in str(runs[0].reason)
    assert outcome(manifest).cards[0].n == 2


def test_a_metric_that_no_evaluation_has_is_told(tmp_path: Path) -> None:
    manifest = plant(tmp_path, two_arms(), primary={"metric": "accuracy"})
    assert all(run.value is None for run in read_runs(manifest))
    assert read_runs(manifest)[0].reason == "its results hold no 'accuracy'"
    assert outcome(manifest).cards[0].verdict is None


def test_arms_that_differ_in_nothing_have_nothing_unequal(tmp_path: Path) -> None:
    arms = {"one": Arm(around(2.0)), "two": Arm(around(1.9), cpu_s=10.2)}
    manifest = plant(tmp_path, arms)
    assert inequalities(manifest, read_runs(manifest)) == []


def test_everything_that_is_not_equal_is_named_with_both_values(tmp_path: Path) -> None:
    config = arm_config({**WAVE, "dropout": 0.1}, {**RGD, "lr": 0.002}, "qfe", steps=80)
    config["data"] = {**config["data"], "batch": 8}
    arms = two_arms(config=config, parameters=12_000, cpu_s=20.0)
    manifest = plant(tmp_path, arms)
    found = {one.name: one.values for one in inequalities(manifest, read_runs(manifest))}
    assert found == {
        "steps": ("40", "80"),
        "batch": ("4", "8"),
        "learning rate": ("0.001", "0.002"),
        "optimizer": ("adamw", "rgd"),
        "objective": ("cross_entropy", "qfe"),
        "dropout": ("0", "0.1"),
        "order of data": ("by seed, 4 sequences of 16", "by seed, 8 sequences of 16"),
        "parameters": ("10,000", "12,000"),
        "CPU seconds": ("10.0", "20.0"),
    }


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


def test_a_loss_of_text_is_in_nats_and_an_accuracy_is_not(tmp_path: Path) -> None:
    run = read_runs(plant(tmp_path, {"a": Arm(around(2.0), config=arm_config(optimizer=ADAMW))}))[0]
    assert in_nats(run, "val_loss")
    assert in_nats(run, "val_loss_ema")
    assert not in_nats(run, "val_accuracy")
