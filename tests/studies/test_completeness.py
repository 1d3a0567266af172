"""What is missing or wrong in a study's data is found, named and counted once."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cupel.jobs.attempts import Attempt, write_attempt
from cupel.jobs.control import append
from cupel.record.session import Session
from cupel.studies.completeness import Completeness, check
from cupel.studies.manifest import Manifest, PlannedRun
from planted import Arm, around, plant


def two_arms(**wave: Any) -> dict[str, Arm]:
    return {"plain": Arm(around(2.0)), "wave": Arm(**{"values": around(1.8), **wave})}


def told(found: Completeness) -> list[tuple[str, str]]:
    return [(problem.kind, problem.detail) for problem in found.problems]


def begun(manifest: Manifest, run: PlannedRun) -> Session:
    session = Session.start(
        root=manifest.root, project=manifest.project, name="n", config={},
        identity=run.identity, run_id=run.run_id,
    )  # fmt: skip
    session.begin_at(0)
    return session


def ended(manifest: Manifest, run: PlannedRun, outcome: str, **more: Any) -> None:
    """A session of a run that was supervised, and ended so."""
    session = begun(manifest, run)
    session.log({"loss": 2.0}, step=3)
    session.finish("interrupted")
    write_attempt(manifest.run_dir(run), Attempt(1, outcome, **more))


def accepted(
    manifest: Manifest, run: PlannedRun, lines: Mapping[int, Mapping[str, float]], **final: float
) -> None:
    session = begun(manifest, run)
    for step, values in lines.items():
        session.log(values, step=step)
    session.finish("finished", results={"step": 40, "final": final})


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


# ---- how runs stand ----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_study_of_accepted_runs_is_complete_and_clean(tmp_path: Path) -> None:
    found = check(plant(tmp_path, two_arms()))
    assert (found.complete, found.clean, found.problems) == (True, True, ())
    assert found.counts() == {"accepted": 6, "diverged": 0, "failed": 0, "missing": 0}
    assert found.counts("wave")["accepted"] == 3
    assert [code.runs for code in found.code] == [6]


@pytest.mark.slow
def test_failed_and_diverged_runs_have_their_reason_and_are_not_missing(tmp_path: Path) -> None:
    manifest = plant(tmp_path, two_arms(values={1: 1.8}))
    ended(manifest, manifest.runs[4], "import", detail="no module named x")
    ended(manifest, manifest.runs[5], "diverged", detail="loss is nan at step 3")
    found = check(manifest)
    assert (found.complete, found.clean) == (True, True)
    assert found.counts("wave") == {"accepted": 1, "diverged": 1, "failed": 1, "missing": 0}
    states = {run.run.seed: run for run in found.runs if run.run.arm == "wave"}
    assert (states[2].failure, states[2].reason) == ("import", "no module named x; not retried")
    assert (states[3].state, states[3].failure) == ("diverged", "diverged")


def test_a_run_without_an_attempt_is_read_by_its_own_words(tmp_path: Path) -> None:
    """Of one that failed by itself nobody has said yet that it is not tried again."""
    found = check(plant(tmp_path, {"a": Arm({}, failed=[1], diverged=[2])}, seeds=(1, 2)))
    assert [run.state for run in found.runs] == ["missing", "diverged"]
    assert found.problems[0].detail.endswith("RuntimeError: a planted failure")


@pytest.mark.slow
def test_planned_and_interrupted_and_running_runs_are_missing(tmp_path: Path) -> None:
    manifest = plant(tmp_path, two_arms(values={1: 1.8}, interrupted=[2]))
    running = begun(manifest, manifest.runs[5])
    found = check(manifest)
    running.finish("interrupted")
    assert not found.complete
    assert found.counts("wave")["missing"] == 2
    assert [(p.kind, p.run_id) for p in found.problems] == [
        ("missing", manifest.runs[4].run_id), ("missing", manifest.runs[5].run_id),
    ]  # fmt: skip
    assert told(found)[1][1] == "running"
    assert check(plant(tmp_path / "n", {"a": Arm({})})).problems[0].detail == "planned"


@pytest.mark.parametrize(
    "outcome, state",
    [
        ("configuration", "failed"),
        ("cancelled", "failed"),
        ("diverged", "diverged"),
        ("interrupted", "missing"),
        ("preempted", "missing"),
        ("timeout", "missing"),
        ("cuda_oom", "missing"),
        ("lost", "missing"),
        ("node", "missing"),
    ],
)
def test_a_run_has_failed_when_the_policy_tries_it_no_more(
    tmp_path: Path, outcome: str, state: str
) -> None:
    manifest = plant(tmp_path, {"a": Arm({})}, seeds=(1,))
    ended(manifest, manifest.runs[0], outcome, detail="why", last_step=3, ended=time.time())
    (run,) = check(manifest).runs
    assert run.state == state
    assert run.failure == (outcome if state != "missing" else None)
    assert run.reason.startswith("why")


def test_a_run_that_failed_too_often_has_failed_with_the_class_of_its_last_end(
    tmp_path: Path,
) -> None:
    manifest = plant(tmp_path, {"a": Arm({})}, seeds=(1,))
    run_dir = manifest.run_dir(manifest.runs[0])
    ended(manifest, manifest.runs[0], "hung", detail="no step for 10 min")
    Session.resume(run_dir).finish("interrupted")
    write_attempt(run_dir, Attempt(2, "hung", "no step for 10 min"))
    (run,) = check(manifest).runs
    assert (run.state, run.failure) == ("failed", "hung")
    assert run.reason == "no step for 10 min; retried once"


def test_a_cancelled_run_has_failed_and_a_held_one_is_missing(tmp_path: Path) -> None:
    manifest = plant(tmp_path, {"a": Arm({})}, seeds=(1, 2))
    append(manifest.folder, "cancel", [manifest.runs[0].run_id], why="not needed")
    append(manifest.folder, "hold", [manifest.runs[1].run_id])
    one, two = check(manifest).runs
    assert (one.state, one.failure, one.reason) == ("failed", "cancelled", "not needed")
    assert (two.state, two.status) == ("missing", "held")


def test_a_run_that_was_refused_before_its_record_has_failed_with_a_reason(tmp_path: Path) -> None:
    manifest = plant(tmp_path, {"a": Arm({})}, seeds=(1, 2))
    for run in manifest.runs:
        (manifest.run_dir(run) / "sessions" / "0001").mkdir(parents=True)
    write_attempt(manifest.run_dir(manifest.runs[0]), Attempt(1, "configuration", "no such model"))
    one, two = check(manifest).runs
    assert (one.state, one.failure) == ("failed", "configuration")
    assert one.reason.startswith("no such model")
    assert (two.state, two.status) == ("missing", "running")  # just claimed


def test_a_later_session_counts_and_not_an_older_ones_failure(tmp_path: Path) -> None:
    manifest = plant(tmp_path, {"a": Arm({})}, seeds=(1,))
    ended(manifest, manifest.runs[0], "import")
    assert check(manifest).runs[0].state == "failed"
    again = Session.resume(manifest.run_dir(manifest.runs[0]))
    assert check(manifest).runs[0].status == "running"
    again.finish("finished", results={"step": 40, "final": {"val_loss": 1.0}})
    assert check(manifest).runs[0].state == "accepted"


@pytest.mark.slow
def test_damaged_records_are_told_and_nothing_raises(tmp_path: Path) -> None:
    manifest = plant(tmp_path, {"a": Arm(around(2.0))})
    one, two, _ = (manifest.run_dir(run) for run in manifest.runs)
    (one / "results.json").write_text("{")
    (two / "run.json").write_text("[]")
    found = check(manifest)
    assert [kind for kind, _ in told(found)] == ["damaged", "damaged"]
    assert "results.json" in told(found)[0][1]
    assert found.counts()["missing"] == 2


# ---- metrics -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_metric_that_is_required_and_not_there_is_told(tmp_path: Path) -> None:
    quality = {"accuracy": {}, "extra": {"required": False}}
    found = check(plant(tmp_path, {"a": Arm(around(2.0))}, quality=quality))
    assert told(found) == [("absent metric", "accuracy is not there")] * 3


def test_the_primary_metric_is_required_where_it_decides(tmp_path: Path) -> None:
    lines = {step: {"accuracy": 0.5} for step in (10, 20, 30, 40)}
    last = plant(tmp_path / "a", {"a": Arm({})}, seeds=(1,), primary={"metric": "accuracy"})
    accepted(last, last.runs[0], lines, val_loss=1.0)
    assert told(check(last)) == [("absent metric", "accuracy is not in its results")]
    primary = {"metric": "accuracy", "statistic": "best"}
    best = plant(tmp_path / "b", {"a": Arm({})}, seeds=(1,), primary=primary)
    accepted(best, best.runs[0], lines, val_loss=1.0)
    assert check(best).clean


def test_values_that_are_not_finite_are_told_with_their_step(tmp_path: Path) -> None:
    quality = {"loss": {}, "free": {"finite": False}}
    manifest = plant(tmp_path, {"a": Arm({})}, seeds=(1,), quality=quality)
    lines = {
        1: {"loss": 1.0, "free": math.nan},
        2: {"loss": math.nan, "free": math.inf},
        3: {"loss": -math.inf, "free": 1.0, "val_loss": 1.0},
    }
    accepted(manifest, manifest.runs[0], lines, val_loss=1.0)
    assert told(check(manifest)) == [("not finite", "loss is nan at step 2, and 1 times more")]


def test_a_primary_value_that_is_not_finite_is_told_also_of_results_alone(tmp_path: Path) -> None:
    manifest = plant(tmp_path, {"a": Arm({})}, seeds=(1,))
    accepted(manifest, manifest.runs[0], {}, val_loss=math.nan)
    assert told(check(manifest)) == [("not finite", "val_loss is nan in its results")]


def test_values_out_of_range_are_counted_with_the_first_one(tmp_path: Path) -> None:
    quality = {"loss": {"low": 0.0, "high": 5.0}, "val_loss": {"high": 0.5}}
    manifest = plant(tmp_path, {"a": Arm({})}, seeds=(1,), quality=quality)
    lines = {1: {"loss": 0.0}, 2: {"loss": 5.5}, 3: {"loss": -1.0}, 4: {"loss": 5.0}}
    accepted(manifest, manifest.runs[0], lines, val_loss=0.75)
    assert told(check(manifest)) == [
        ("out of range", "val_loss is 0.75 in its results; allowed is -inf to 0.5"),
        ("out of range", "loss is 5.5 at step 2, and 1 times more; allowed is 0 to 5"),
    ]


@pytest.mark.parametrize(
    "steps, gap",
    [
        ((10, 20, 30, 40), None),
        ((10, 30, 40), "nothing between steps 10 and 30"),
        ((20, 30, 40), "nothing between steps 0 and 20"),
        ((10, 20), "nothing between steps 20 and 40"),
        ((), "nothing between steps 0 and 40"),
    ],
)
def test_gaps_between_values_are_told_from_the_first_step_to_the_last(
    tmp_path: Path, steps: tuple[int, ...], gap: str | None
) -> None:
    quality = {"val_loss": {"every": 10}}
    manifest = plant(tmp_path, {"a": Arm({})}, seeds=(1,), quality=quality)
    lines = {step: {"val_loss": 1.0} for step in steps}
    accepted(manifest, manifest.runs[0], lines, val_loss=1.0)
    found = told(check(manifest))
    assert found == ([] if gap is None else [("gap", f"val_loss: {gap}; allowed is every 10")])


def test_only_values_that_count_are_looked_at_after_a_resume(tmp_path: Path) -> None:
    quality = {"loss": {"every": 10}}
    manifest = plant(tmp_path, {"a": Arm({})}, seeds=(1,), quality=quality)
    first = begun(manifest, manifest.runs[0])
    for step, loss in {10: 1.0, 20: 1.0, 30: math.nan}.items():
        first.log({"loss": loss}, step=step)
    first.finish("interrupted")
    again = Session.resume(manifest.run_dir(manifest.runs[0]))
    again.begin_at(20)
    for step in (30, 40):
        again.log({"loss": 1.0}, step=step)
    again.finish("finished", results={"step": 40, "final": {"val_loss": 1.0}})
    assert check(manifest).clean


# ---- records against each other ----------------------------------------------------------------


def stray(manifest: Manifest, run_id: str, identity: str, **details: Any) -> None:
    session = Session.start(
        root=manifest.root, project=manifest.project, name="n", config={}, identity=identity,
        run_id=run_id, details={"study": manifest.name, **details},
    )  # fmt: skip
    session.finish("finished", results={"step": 40, "final": {"val_loss": 1.0}})


@pytest.mark.slow
def test_two_accepted_runs_of_one_identity_are_a_duplicate(tmp_path: Path) -> None:
    manifest = plant(tmp_path, {"a": Arm(around(2.0))})
    first = manifest.runs[0]
    stray(manifest, "again", first.identity)
    stray(manifest, "of-an-older-plan", "another identity")
    found = check(manifest)
    (problem,) = found.problems
    assert (problem.kind, problem.run_id) == ("duplicate", "again")
    assert problem.detail == f"{first.run_id} is accepted with the same settings and seed"
    assert found.counts()["accepted"] == 3


@pytest.mark.slow
def test_a_run_of_another_study_is_no_duplicate(tmp_path: Path) -> None:
    manifest = plant(tmp_path, {"a": Arm(around(2.0))})
    session = Session.start(
        root=manifest.root, project=manifest.project, name="n", config={},
        identity=manifest.runs[0].identity, run_id="theirs", details={"study": "another"},
    )  # fmt: skip
    session.finish("finished", results={"final": {}})
    assert check(manifest).clean


@pytest.mark.slow
def test_deviations_are_listed_apart_and_never_counted(tmp_path: Path) -> None:
    manifest = plant(tmp_path, {"a": Arm({1: 2.0})}, seeds=(1, 2))
    one, two = manifest.runs
    stray(manifest, "derived", one.identity, deviation_of=one.run_id)
    stray(manifest, two.run_id, two.identity, deviation_of=one.run_id)  # in a planned run's place
    found = check(manifest)
    assert [(d.run_id, d.of, d.accepted) for d in found.deviations] == [
        ("derived", one.run_id, True)
    ]
    assert found.counts() == {"accepted": 1, "diverged": 0, "failed": 0, "missing": 1}
    assert told(found) == [("missing", f"deviation: it is a deviation of {one.run_id}")]


def test_an_accepted_run_with_a_session_of_other_settings_counts_and_is_told(
    tmp_path: Path,
) -> None:
    manifest = plant(tmp_path, {"a": Arm({})}, seeds=(1,))
    run_dir = manifest.run_dir(manifest.runs[0])
    ended(manifest, manifest.runs[0], "cuda_oom", changes={"train.accumulate": 2})
    again = Session.resume(run_dir)
    again.finish("finished", results={"step": 40, "final": {"val_loss": 1.0}})
    found = check(manifest)
    assert found.clean
    assert [(one.run_id, one.session, one.changes) for one in found.changed] == [
        (run_dir.name, 1, {"train.accumulate": 2})
    ]


@pytest.mark.slow
def test_results_of_a_session_that_is_not_there_and_of_other_settings_are_told(
    tmp_path: Path,
) -> None:
    manifest = plant(tmp_path, {"a": Arm(around(2.0))})
    one, two, _ = (manifest.run_dir(run) for run in manifest.runs)
    edit(one / "results.json", accepted_session=7)
    edit(two / "run.json", identity="0123456789abcdef")
    assert told(check(manifest)) == [
        ("lost session", "its results are of session 7, which is not there"),
        ("other settings", "its identity is 0123456789ab, planned was a2"),
    ]


@pytest.mark.slow
def test_mixed_code_is_reported_and_is_a_problem_unless_it_was_allowed(tmp_path: Path) -> None:
    manifest = plant(tmp_path, {"a": Arm(around(2.0))})
    states = [("aaaaaaa1", False, None), ("aaaaaaa1", True, "ff" * 32), ("bbbbbbb2", False, None)]
    for run, (commit, dirty, patch) in zip(manifest.runs, states, strict=True):
        env = manifest.run_dir(run) / "sessions" / "0001" / "env.json"
        edit(env, git={"commit": commit, "dirty": dirty}, dirty_patch_sha256=patch)
    found = check(manifest)
    assert [str(code) for code in found.code] == [
        "aaaaaaa", "aaaaaaa with changes fffffff", "bbbbbbb"
    ]  # fmt: skip
    assert found.clean
    strict = manifest.study.model_copy(update={"code_changed": "stop"})
    (problem,) = check(replace(manifest, study=strict)).problems
    assert (problem.kind, problem.run_id) == ("mixed code", "")


@pytest.mark.slow
def test_a_study_of_216_runs_is_checked_in_seconds(tmp_path: Path) -> None:
    quality = {"loss": {"every": 10, "high": 100.0}}
    points = tuple(f"lr={number}" for number in range(18))
    arms = {name: Arm({}) for name in ("a", "b", "c")}
    manifest = plant(tmp_path, arms, seeds=(1, 2, 3, 4), points=points, quality=quality)
    lines = {step: {"loss": 1.0 / step, "val_loss": 1.0} for step in range(1, 41)}
    first, *others = manifest.runs
    accepted(manifest, first, lines, val_loss=1.0)
    for run in others:  # copies, since to write 216 records takes longer than to check them
        run_dir = manifest.run_dir(run)
        shutil.copytree(manifest.run_dir(first), run_dir)
        edit(run_dir / "run.json", identity=run.identity, run_id=run.run_id)
        edit(run_dir / "results.json", run=run.run_id)
    heard: list[str] = []
    began = time.process_time()
    found = check(manifest, tell=heard.append)
    assert time.process_time() - began < 10  # about 0.5 s on an idle core
    assert (len(heard), found.clean) == (216, True)
