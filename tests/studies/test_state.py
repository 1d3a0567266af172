"""How the runs of a study stand, from records that are written as real runs write them."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from crew import hurried
from cupel.jobs import control
from cupel.jobs.attempts import Attempt, write_attempt
from cupel.record.claims import Claim, claim_session
from cupel.record.session import Session
from cupel.studies.manifest import Manifest, PlannedRun, freeze
from cupel.studies.spec import plan_study
from cupel.studies.state import (
    Look,
    RunState,
    counts,
    log_of,
    refusal_of,
    run_state,
    study_state,
    unknown_metric,
)
from queues import refuse

RECIPE = """\
workload: fakes:Regression
train: {steps: 40}
study: {question: "?", arms: {plain: {}, drop: {dropout: 0.5}}, seeds: [1, 2]}
"""


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    path = tmp_path / "sine.yaml"
    path.write_text(RECIPE)
    return freeze(plan_study(path, root=tmp_path / "runs"))


def begun(manifest: Manifest, run: PlannedRun, claim: Claim | None = None) -> Session:
    session = Session.start(
        root=manifest.root, project=manifest.project, name="n", config={},
        identity=run.identity, run_id=run.run_id, claim=claim,
    )  # fmt: skip
    session.begin_at(0)
    return session


def first(manifest: Manifest) -> RunState:
    return study_state(manifest)[0]


def test_before_the_first_run_all_are_planned(manifest: Manifest) -> None:
    states = study_state(manifest)
    assert [state.run for state in states] == list(manifest.runs)
    assert counts(states) == {"planned": 4}
    assert {(state.step, state.steps, state.sessions) for state in states} == {(0, 40, 0)}


def test_a_failure_that_was_undone_just_after_it_was_seen_is_not_remembered(
    manifest: Manifest,
) -> None:
    """It waits for the index to be written; the retry comes before that."""
    run = manifest.runs[0]
    with closing(Look(manifest)) as look:
        look.states()
        begun(manifest, run).finish("failed", error="bad")
        write_attempt(manifest.run_dir(run), Attempt(1, "configuration", "bad", ended=2.0))
        assert look.states()[0].status == "refused"
        control.forgive(manifest.folder, {run.run_id: manifest.run_dir(run)})
        seen = look.states()[0].status
    assert first(manifest).status == seen != "refused"


def test_a_run_is_followed_from_step_to_step_to_its_accepted_results(manifest: Manifest) -> None:
    session = begun(manifest, manifest.runs[0])
    assert (first(manifest).status, first(manifest).step) == ("running", 0)
    session.log({"loss": 2.5}, step=1)
    session.log({"loss": 2.0, "val_loss": 2.25}, step=2)
    state = first(manifest)
    assert (state.step, state.loss, state.val_loss, state.sessions) == (2, 2.0, 2.25, 1)
    results = {"step": 40, "final": {"val_loss": 1.5}}
    session.finish("finished", results=results)
    state = first(manifest)
    assert (state.status, state.step, state.val_loss, state.reason) == ("finished", 40, 1.5, None)
    assert 0 < state.seconds < 60


@pytest.mark.slow
def test_a_failed_run_says_why_in_a_line_and_whether_it_is_tried_again(
    manifest: Manifest,
) -> None:
    session = begun(manifest, manifest.runs[0])
    session.finish("failed", error="the loss is NaN at step 3; lower lr\nand more")
    assert first(manifest).reason == "the loss is NaN at step 3; lower lr"
    assert counts(study_state(manifest)) == {"waiting": 1, "planned": 3}
    with hurried(1e6):
        assert counts(study_state(manifest)) == {"waiting": 1, "planned": 3}  # its try is due
    session = Session.resume(manifest.run_dir(manifest.runs[0]))
    session.finish("failed", error="the loss is NaN at step 3; lower lr\nand more")
    assert first(manifest).reason == "the loss is NaN at step 3; lower lr; it ended alike before"
    assert counts(study_state(manifest)) == {"failed": 1, "planned": 3}


def test_an_interrupted_run_gives_no_reason_and_counts_its_sessions(manifest: Manifest) -> None:
    begun(manifest, manifest.runs[0]).finish("interrupted")
    session = Session.resume(manifest.run_dir(manifest.runs[0]))
    session.finish("interrupted")
    state = first(manifest)
    assert (state.status, state.sessions, state.reason) == ("interrupted", 2, None)


def test_a_run_whose_next_try_is_due_has_not_failed_whatever_its_last_session_says(
    manifest: Manifest,
) -> None:
    """Else the same command would pass it over, and whoever looks would keep it as failed."""
    run = manifest.runs[0]
    begun(manifest, run).finish("failed", error="no space left")
    write_attempt(manifest.run_dir(run), Attempt(1, "node", "no space left", ended=1.0))
    with closing(Look(manifest)) as look:
        assert (look.states()[0].status, look.states()[0].reason) == ("waiting", "no space left")
        begun_again = Session.resume(manifest.run_dir(run))
        begun_again.begin_at(0)
        begun_again.finish("finished", results={"step": 40, "final": {"val_loss": 1.5}})
        assert look.states()[0].status == "finished"


@pytest.mark.slow
def test_a_killed_run_reads_as_crashed_and_its_time_ends_with_it(manifest: Manifest) -> None:
    code = (
        "import sys, os, signal; from pathlib import Path\n"
        "from cupel.studies.manifest import load_manifest\n"
        "sys.path.insert(0, sys.argv[2]); from test_state import begun\n"
        "manifest = load_manifest(Path(sys.argv[1]))\n"
        "begun(manifest, manifest.runs[0]).log({'loss': 3.0}, step=7)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    here = str(Path(__file__).parent)
    subprocess.run([sys.executable, "-c", code, str(manifest.folder), here], check=False)
    state = first(manifest)
    assert (state.status, state.step, state.loss) == ("crashed", 7, 3.0)
    assert state.reason == "its process is gone, and so is whoever supervised it"
    assert state.seconds == first(manifest).seconds < 30


def test_damaged_files_are_named_and_nothing_raises(manifest: Manifest) -> None:
    one, two = manifest.runs[:2]
    begun(manifest, one).finish("finished", results={"step": 40, "final": {}})
    begun(manifest, two).finish("interrupted")
    (manifest.run_dir(one) / "results.json").write_text('{"step"')
    (manifest.run_dir(two) / "run.json").write_text("[]")
    for run, name in ((one, "results.json"), (two, "run.json")):
        state = run_state(manifest, run)
        assert state.status == "damaged"
        assert state.reason is not None
        assert name in state.reason


WHY = "no such corpus: absent.txt"


def test_a_run_that_was_refused_before_it_had_a_record_says_why(manifest: Manifest) -> None:
    refuse(manifest, manifest.runs[0], WHY)
    state = first(manifest)
    assert (state.status, state.reason) == ("refused", f"{WHY}; not retried")
    assert (state.step, state.sessions, state.attempts) == (0, 1, 1)
    assert refusal_of(manifest, manifest.runs[0]) == f"{WHY}; not retried"
    assert refusal_of(manifest, manifest.runs[1]) is None
    assert counts(study_state(manifest)) == {"refused": 1, "planned": 3}


def test_a_run_that_is_tried_again_is_no_longer_refused(manifest: Manifest) -> None:
    run = manifest.runs[0]
    refuse(manifest, run, WHY)
    control.append(manifest.folder, "retry", [run.run_id])
    assert (first(manifest).status, first(manifest).reason) == ("planned", None)
    claim = claim_session(manifest.run_dir(run), 2, {"worker": "w"})
    assert (first(manifest).status, first(manifest).reason) == ("starting", None)
    session = begun(manifest, run, claim)
    assert (first(manifest).status, first(manifest).reason) == ("running", None)
    session.finish("finished", results={"step": 40, "final": {}})
    assert (first(manifest).status, first(manifest).reason) == ("finished", None)


def test_what_was_refused_is_seen_to_be_retried_by_whoever_goes_on_looking(
    manifest: Manifest,
) -> None:
    run = manifest.runs[0]
    refuse(manifest, run, WHY)
    with closing(Look(manifest)) as look:
        assert counts(look.states()) == {"refused": 1, "planned": 3}
        control.append(manifest.folder, "retry", [run.run_id])
        assert counts(look.states()) == {"planned": 4}


def test_a_run_that_began_and_then_was_refused_has_failed(manifest: Manifest) -> None:
    """Its settings were good once: what it was refused for came later."""
    run = manifest.runs[0]
    begun(manifest, run).finish("interrupted")
    refuse(manifest, run, WHY)
    assert first(manifest).status == "refused"
    assert first(manifest).sessions == 2


def test_of_a_log_nothing_is_read(manifest: Manifest) -> None:
    """It keeps what all processes have printed, also those after which training went on."""
    log = log_of(manifest, manifest.runs[0])
    log.parent.mkdir(exist_ok=True)
    log.write_text(f"sine-plain: loading PyTorch …\ncupel: {WHY}\n")
    assert (first(manifest).status, first(manifest).reason) == ("planned", None)
    begun(manifest, manifest.runs[0]).finish("interrupted")
    assert (first(manifest).status, first(manifest).reason) == ("interrupted", None)


# ---- what people ask for -----------------------------------------------------------------------


def test_what_was_asked_of_a_run_is_its_state_also_before_it_begins(manifest: Manifest) -> None:
    one, two = (run.run_id for run in manifest.runs[:2])
    control.append(manifest.folder, "hold", [one], why="the data come tomorrow")
    control.append(manifest.folder, "cancel", [two], why="enough")
    states = study_state(manifest)
    assert [(state.status, state.reason) for state in states[:3]] == [
        ("held", "the data come tomorrow"), ("cancelled", "enough"), ("planned", None),
    ]  # fmt: skip
    control.append(manifest.folder, "release", None)
    control.append(manifest.folder, "retry", [two])
    assert counts(study_state(manifest)) == {"planned": 4}


# ---- the metric that decides -------------------------------------------------------------------


def accepted(manifest: Manifest, number: int, **final: float) -> Session:
    session = begun(manifest, manifest.runs[number])
    session.log({"loss": 2.0, **final}, step=40)
    session.finish("finished", results={"step": 40, "final": final})
    return session


def decided_by(manifest: Manifest, metric: str, statistic: str = "last") -> Manifest:
    primary = manifest.study.primary.model_copy(update={"metric": metric, "statistic": statistic})
    return replace(manifest, study=manifest.study.model_copy(update={"primary": primary}))


def test_a_metric_that_no_accepted_run_has_is_told_with_those_that_there_are(
    manifest: Manifest,
) -> None:
    chosen = decided_by(manifest, "val_los")
    assert unknown_metric(chosen) is None, "nothing is known before the first results"
    accepted(manifest, 0, val_loss=1.0, accuracy=0.5)
    told = unknown_metric(chosen)
    assert told is not None
    assert told.startswith(
        "study.primary.metric: 'val_los' is in no results; did you mean 'val_loss'? "
        f"(there are: accuracy, val_loss); delete {manifest.folder} and "
    )
    assert unknown_metric(manifest) is None


def test_a_metric_that_one_accepted_run_has_is_known(manifest: Manifest) -> None:
    accepted(manifest, 0, val_loss=1.0)
    accepted(manifest, 1, val_loss=1.0, accuracy=0.5)
    assert unknown_metric(decided_by(manifest, "accuracy")) is None


def test_the_best_may_be_that_of_any_metric_that_was_logged(manifest: Manifest) -> None:
    accepted(manifest, 0, val_loss=1.0)
    assert unknown_metric(decided_by(manifest, "loss", "best")) is None
    assert unknown_metric(decided_by(manifest, "loss", "last")) is not None


def test_a_runs_log_lies_with_the_study(manifest: Manifest) -> None:
    run = manifest.runs[0]
    assert log_of(manifest, run) == manifest.folder / "logs" / f"{run.run_id}.log"
