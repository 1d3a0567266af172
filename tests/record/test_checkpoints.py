"""Retention keeps what it must, and deleting is safe at every moment."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.errors import RecordError, UsageError
from cupel.record import checkpoints as ck
from cupel.record import manifests

STEPS = st.sets(st.integers(0, 10_000), max_size=30)


def write_checkpoint(run_dir: Path, step: int) -> None:
    ck.step_dir(run_dir, step).mkdir(parents=True)
    (ck.step_dir(run_dir, step) / ck.MANIFEST).write_text("{}")


def write_intact(run_dir: Path, step: int, **metrics: float) -> Path:
    """A checkpoint with one file that its manifest knows."""
    folder = ck.step_dir(run_dir, step)
    folder.mkdir(parents=True)
    (folder / "data").write_bytes(b"abc")
    entry = {"bytes": 3, "sha256": hashlib.sha256(b"abc").hexdigest()}
    fields = {"schema": 1, "step": step, "metrics": metrics, "files": {"data": entry}}
    manifests.write_manifest(folder, fields)
    return folder


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


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from(["intact", "cut", "lost", "no manifest"]), min_size=1, max_size=6))
@pytest.mark.slow
def test_prune_never_takes_the_newest_whose_sizes_are_right(
    tmp_path_factory: pytest.TempPathFactory, fates: list[str]
) -> None:
    """Whatever became of the others, and though nothing else asks to keep it."""
    run_dir = tmp_path_factory.mktemp("run")
    for step, fate in enumerate(fates):
        folder = write_intact(run_dir, step)
        if fate == "cut":
            (folder / "data").write_bytes(b"a")
        elif fate == "lost":
            (folder / "data").unlink()
        elif fate == "no manifest":
            (folder / ck.MANIFEST).unlink()
    listed = ck.list_steps(run_dir)
    ck.prune(run_dir, set())
    intact = [step for step, fate in enumerate(fates) if fate == "intact"]
    assert set(ck.list_steps(run_dir)) == set(listed[-1:]) | set(intact[-1:])


# ---- pins --------------------------------------------------------------------------------------


def test_what_is_pinned_stays_until_it_is_not(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        write_intact(tmp_path, step)
    assert ck.pinned_steps(tmp_path) == set()
    ck.pin(tmp_path, 2)
    ck.pin(tmp_path, 1)
    ck.pin(tmp_path, 1)
    assert ck.pinned_steps(tmp_path) == {1, 2}
    assert ck.prune(tmp_path, set()) == [3]
    ck.unpin(tmp_path, 1)
    assert ck.prune(tmp_path, set()) == [1]
    assert ck.list_steps(tmp_path) == [2, 4]


def test_a_step_without_a_checkpoint_cannot_be_pinned_nor_one_that_is_not_unpinned(
    tmp_path: Path,
) -> None:
    run_dir = tmp_path / "some-run"
    with pytest.raises(UsageError, match=r"some-run has no checkpoint of step 7 \(there are: none"):
        ck.pin(run_dir, 7)
    write_intact(run_dir, 5)
    with pytest.raises(UsageError, match=r"no checkpoint of step 7 \(there are: 5\)"):
        ck.pin(run_dir, 7)
    with pytest.raises(UsageError, match=r"step 5 of run some-run is not pinned \(pinned: none\)"):
        ck.unpin(run_dir, 5)


@settings(deadline=None, max_examples=30)
@given(
    st.binary(max_size=30)
    | st.sampled_from([b"{}", b'{"steps": 3}', b'{"steps": ["1"]}', b'{"steps": [true]}'])
)
@pytest.mark.slow
def test_pins_that_cannot_be_read_delete_nothing(
    tmp_path_factory: pytest.TempPathFactory, garbage: bytes
) -> None:
    run_dir = tmp_path_factory.mktemp("run")
    for step in (1, 2, 3):
        write_intact(run_dir, step)
    (ck.checkpoints_dir(run_dir) / ck.PINS).write_bytes(garbage)
    for use in (ck.pinned_steps, lambda r: ck.prune(r, set()), lambda r: ck.pin(r, 1)):
        with pytest.raises(RecordError, match=r"pin\.json"):
            use(run_dir)
    assert ck.list_steps(run_dir) == [1, 2, 3]


def test_a_pin_that_comes_too_late_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Retention of the living run deletes it between the question and the pin."""
    write_intact(tmp_path, 1)
    write_intact(tmp_path, 2)
    write = ck._write_pins

    def slow(run_dir: Path, steps: set[int]) -> None:
        monkeypatch.undo()
        ck.prune(tmp_path, set())
        write(run_dir, steps)

    monkeypatch.setattr(ck, "_write_pins", slow)
    with pytest.raises(UsageError, match=r"no checkpoint of step 1 \(there are: 2\)"):
        ck.pin(tmp_path, 1)
    assert ck.pinned_steps(tmp_path) == set()


def test_sweep_removes_trash_and_leaves_checkpoints(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 1)
    trash = ck.checkpoints_dir(tmp_path) / ".trash-step-000000000~ab"
    trash.mkdir()
    assert ck.sweep(tmp_path) == [trash]
    assert ck.list_steps(tmp_path) == [1]


@settings(deadline=None, max_examples=25)
@given(
    st.lists(
        st.floats(-9, 9) | st.sampled_from([math.nan, math.inf, -math.inf]), min_size=1, max_size=6
    ),
    st.sampled_from(["min", "max"]),
)
def test_best_is_the_first_of_the_best_values_and_never_one_that_is_not_finite(
    tmp_path_factory: pytest.TempPathFactory, values: list[float], goal: str
) -> None:
    run_dir = tmp_path_factory.mktemp("run")
    ck.checkpoints_dir(run_dir).mkdir()
    moved = [
        ck.write_best(run_dir, "grad_norm/total", value, goal=goal, step=step)  # type: ignore[arg-type]
        for step, value in enumerate(values)
    ]
    numbers = [value for value in values if math.isfinite(value)]
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
    assert ck.pointed_steps(run_dir) == {"grad_norm/total": values.index(best)}


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.sampled_from([1.0, 2.0, 3.0, -math.inf, math.inf, math.nan]), max_size=6),
    st.sampled_from(["min", "max"]),
    st.integers(1, 4),
)
@pytest.mark.slow
def test_the_best_steps_are_those_of_a_sorted_list(
    tmp_path_factory: pytest.TempPathFactory,
    values: list[float],
    goal: Literal["min", "max"],
    count: int,
) -> None:
    run_dir = tmp_path_factory.mktemp("run")
    write_intact(run_dir, 99, other=0.0)
    for step, value in enumerate(values):
        write_intact(run_dir, step, score=value)
    found = ck.best_steps(run_dir, "score", goal=goal, count=count)
    known = [(value, step) for step, value in enumerate(values) if math.isfinite(value)]
    ordered = sorted((value if goal == "min" else -value, step) for value, step in known)
    assert found == [step for _, step in ordered][:count]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from([1.0, 2.0, 3.0, math.nan, -math.inf, math.inf]), max_size=5),
    st.sampled_from([1.0, 2.0, 2.5, math.nan, -math.inf, math.inf]),
    st.integers(0, 5),
    st.integers(2, 4),
)
@pytest.mark.slow
def test_a_value_is_among_the_best_when_it_would_be_listed(
    tmp_path_factory: pytest.TempPathFactory,
    values: list[float],
    value: float,
    written: int,
    count: int,
) -> None:
    """Whether the rivals are on the disk or still being written."""
    run_dir = tmp_path_factory.mktemp("run")
    for step, rival in enumerate(values[:written]):
        write_intact(run_dir, step, score=rival)
    pending = dict(enumerate(values))
    told = ck.among_best(run_dir, "score", value, goal="min", step=50, count=count, pending=pending)
    rivals = sum(rival <= value for rival in values if math.isfinite(rival))
    assert told == (math.isfinite(value) and rivals < count)


@pytest.mark.parametrize("goal", ["min", "max"])
def test_a_run_that_diverged_has_no_best_and_the_first_finite_value_after_it_is_one(
    tmp_path: Path, goal: Literal["min", "max"]
) -> None:
    for step, value in enumerate((math.nan, -math.inf, math.inf)):
        write_intact(tmp_path, step, score=value)
        assert not ck.among_best(tmp_path, "score", value, goal=goal, step=step, count=1)
        ck.write_best_recorded(tmp_path, "score", goal=goal)
    assert ck.read_pointer(tmp_path, "best-score") is None
    assert ck.best_steps(tmp_path, "score", goal=goal, count=3) == []
    assert ck.among_best(tmp_path, "score", 5.0, goal=goal, step=3, count=1)
    write_intact(tmp_path, 3, score=5.0)
    ck.write_best_recorded(tmp_path, "score", goal=goal)
    assert ck.pointed_steps(tmp_path) == {"score": 3}


@pytest.mark.parametrize(("goal", "value"), [("min", "-Infinity"), ("max", "Infinity")])
def test_a_pointer_to_a_value_that_is_not_finite_gives_way_to_the_best_in_the_manifests(
    tmp_path: Path, goal: Literal["min", "max"], value: str
) -> None:
    """As earlier versions wrote it."""
    write_intact(tmp_path, 1, score=2.0)
    ck.write_pointer(tmp_path, "best-score", {"value": value, "goal": goal, "step": 9})
    worse, better = (3.0, 1.0) if goal == "min" else (1.0, 3.0)
    assert not ck.beats(tmp_path, "score", worse, goal=goal, step=4)
    assert ck.beats(tmp_path, "score", better, goal=goal, step=4)


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
