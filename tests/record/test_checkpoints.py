"""Retention keeps what it must, and deleting is safe at every moment."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.errors import RecordError
from cupel.record import checkpoints as ck

STEPS = st.sets(st.integers(0, 10_000), max_size=30)


def write_checkpoint(run_dir: Path, step: int) -> None:
    ck.step_dir(run_dir, step).mkdir(parents=True)
    (ck.step_dir(run_dir, step) / ck.MANIFEST).write_text("{}")


@settings(deadline=None, max_examples=25)
@given(STEPS, st.integers(1, 5), st.integers(0, 50), STEPS)
def test_retention_keeps_the_last_the_spaced_and_the_pinned_and_no_more(
    steps: set[int], last: int, every: int, pinned: set[int]
) -> None:
    kept = ck.retained(steps, keep_last=last, keep_every=every, pinned=pinned)
    assert kept <= steps
    for step in steps:
        among_last = sum(other > step for other in steps) < last
        assert (step in kept) == (among_last or step in pinned or (every > 0 and step % every == 0))


def test_only_folders_with_a_manifest_are_checkpoints(tmp_path: Path) -> None:
    assert ck.list_steps(tmp_path) == []
    for step in (1000, 20, 1_234_567_890):
        write_checkpoint(tmp_path, step)
    ck.step_dir(tmp_path, 7).mkdir()
    ck.temporary_dir(tmp_path, 30).mkdir()
    (ck.checkpoints_dir(tmp_path) / "latest.json").write_text("{}")
    assert ck.list_steps(tmp_path) == [20, 1000, 1_234_567_890]


@settings(deadline=None, max_examples=25)
@given(STEPS.filter(bool), STEPS)
def test_prune_keeps_what_it_is_told_and_always_the_newest(
    tmp_path_factory: pytest.TempPathFactory, steps: set[int], keep: set[int]
) -> None:
    run_dir = tmp_path_factory.mktemp("run")
    for step in steps:
        write_checkpoint(run_dir, step)
    gone = ck.prune(run_dir, keep)
    assert set(ck.list_steps(run_dir)) == (steps & keep) | {max(steps)}
    assert set(gone) == steps - keep - {max(steps)}
    assert not list(ck.checkpoints_dir(run_dir).glob(".*"))


def test_prune_keeps_what_latest_names(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        write_checkpoint(tmp_path, step)
    ck.write_pointer(tmp_path, ck.LATEST, {"step": 2})
    assert ck.prune(tmp_path, set()) == [1]
    assert ck.list_steps(tmp_path) == [2, 3]


def test_sweep_removes_trash_and_leaves_checkpoints(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 1)
    trash = ck.checkpoints_dir(tmp_path) / ".trash-step-000000000~ab"
    trash.mkdir()
    assert ck.sweep(tmp_path) == [trash]
    assert ck.list_steps(tmp_path) == [1]


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.floats(-9, 9) | st.just(math.nan), min_size=1, max_size=6),
    st.sampled_from(["min", "max"]),
)
def test_best_is_the_first_of_the_best_values_and_never_nan(
    tmp_path_factory: pytest.TempPathFactory, values: list[float], goal: str
) -> None:
    run_dir = tmp_path_factory.mktemp("run")
    ck.checkpoints_dir(run_dir).mkdir()
    moved = [
        ck.write_best(run_dir, "grad_norm/total", value, goal=goal, step=step)  # type: ignore[arg-type]
        for step, value in enumerate(values)
    ]
    numbers = [value for value in values if not math.isnan(value)]
    pointer = ck.read_pointer(run_dir, "best-grad_norm/total")
    if not numbers:
        assert pointer is None
        assert not any(moved)
        return
    best = min(numbers) if goal == "min" else max(numbers)
    expected = {
        "metric": "grad_norm/total",
        "value": best,
        "goal": goal,
        "step": values.index(best),
    }
    assert pointer == {"schema": 1, **expected}
    assert ck.pinned_steps(run_dir) == {values.index(best)}


def test_a_changed_rule_starts_the_best_anew(tmp_path: Path) -> None:
    ck.checkpoints_dir(tmp_path).mkdir()
    assert ck.write_best(tmp_path, "score", 5.0, goal="max", step=1)
    assert ck.write_best(tmp_path, "score", 7.0, goal="min", step=2)


def test_a_damaged_pointer_is_named_and_an_absent_one_is_none(tmp_path: Path) -> None:
    assert ck.read_pointer(tmp_path, ck.LATEST) is None
    ck.checkpoints_dir(tmp_path).mkdir()
    for content in ("{", '{"schema": 1}', '{"step": "x"}'):
        (ck.checkpoints_dir(tmp_path) / "latest.json").write_text(content)
        with pytest.raises(RecordError, match=r"latest\.json"):
            ck.read_pointer(tmp_path, ck.LATEST)
