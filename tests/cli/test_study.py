"""`cupel study` as typed: what it prints, what it refuses, what it returns."""

from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from cupel.cli.board import Board
from cupel.cli.worker import try_run
from cupel.jobs.attempts import read_attempt
from cupel.jobs.worker import Change
from cupel.record.reader import list_runs
from cupel.record.session import Session
from cupel.studies.manifest import Manifest, freeze
from cupel.studies.spec import plan_study
from desk import Desk, complaint, new_desk
from queues import refuse

RECIPE = """\
about: A network that learns a sine, with dropout and without
workload: fakes:Regression
train: {steps: 30, evaluate_every: 10, optimizer: {kind: adamw, lr: 1e-2}}
checkpoint: {every: 10}
figures: {formats: []}
study:
  question: Does dropout help?
  arms: {plain: {}, drop: {dropout: 0.5}}
  seeds: [1, 2]
"""
# Its first steps diverge; nothing clips them.
FAILING = "study.arms.hot={train: {optimizer: {lr: 1e30}, clip: null}}"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = new_desk(tmp_path / "desk")
    (desk.folder / "sine.yaml").write_text(RECIPE)
    return desk


# ---- before anything runs ----------------------------------------------------------------------


@pytest.mark.slow
def test_a_plan_shows_cells_and_runs_and_writes_nothing(desk: Desk) -> None:
    done = desk.type("study", "plan", "sine.yaml", "study.grid.batch=[4,8]")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "drop   batch=8  dropout=0.5, batch=8" in lines
    assert sum(line.startswith("sine-") for line in lines) == 8
    assert "8 runs: 4 cells × 2 seeds; 2 at a time, CPU threads each: 1" in lines
    assert lines[-1] == "Next: python -m cupel study run sine.yaml 'study.grid.batch=[4,8]'"
    assert not desk.runs.exists()


@pytest.mark.slow
def test_a_plan_as_json_has_every_runs_settings(desk: Desk) -> None:
    plan = json.loads(desk.type("study", "plan", "sine.yaml", "--json").stdout)
    assert (plan["study"], plan["project"], plan["seeds"]) == ("sine", "default", [1, 2])
    assert [cell["config"]["dropout"] for cell in plan["cells"]] == [0.0, 0.5]
    assert len({run["run_id"] for run in plan["runs"]}) == 4


@pytest.mark.slow
def test_one_run_and_many_are_told_apart_with_what_to_type(desk: Desk) -> None:
    (desk.folder / "one.yaml").write_text("workload: fakes:Regression\n")
    told = complaint(desk.type("study", "run", "one.yaml"))
    assert told == "one.yaml is one run and no study; type: cupel run one.yaml"
    told = complaint(desk.type("run", "sine.yaml"))
    assert told == "sine.yaml is a study of 4 runs, not one run; type: cupel study run sine.yaml"


@pytest.mark.slow
def test_every_cell_of_a_study_is_checked(desk: Desk) -> None:
    done = desk.type("recipe", "check", "sine.yaml")
    assert (done.returncode, done.stdout) == (0, "sine.yaml: fine (a study of 4 runs)\n")
    (desk.folder / "bad.yaml").write_text(RECIPE.replace("dropout: 0.5", "dropout: 2"))
    told = complaint(desk.type("recipe", "check", "bad.yaml"))
    assert told == "bad.yaml:8: dropout: 2 is out of range; it must be below 1.0"


@pytest.mark.slow
def test_a_study_is_listed_and_shown_like_any_recipe(desk: Desk) -> None:
    (desk.folder / "recipes").mkdir()
    (desk.folder / "recipes" / "sine.yaml").write_text(RECIPE)
    listed = json.loads(desk.type("recipe", "list", "--json").stdout)
    about = {row["name"]: row["about"] for row in listed}
    assert about["sine"] == "A network that learns a sine, with dropout and without"
    done = desk.type("recipe", "show", "sine", "--json")
    shown = json.loads(done.stdout)
    assert shown["config"]["study"]["arms"] == {"plain": {}, "drop": {"dropout": 0.5}}
    assert shown["config"]["train"]["steps"] == 30
    assert shown["origins"]["study.seeds"] == "recipes/sine.yaml:9"
    assert "study.arms.drop.dropout" in desk.type("recipe", "show", "sine").stdout


@pytest.mark.slow
def test_the_status_of_a_study_that_is_not_there_says_how_to_begin_one(desk: Desk) -> None:
    told = complaint(desk.type("study", "status", "sine"))
    assert told.startswith("no study is called 'sine'")
    assert told.endswith("begin one with: cupel study run RECIPE")


@pytest.mark.slow
def test_another_study_of_the_same_name_is_refused(desk: Desk) -> None:
    freeze(plan_study(desk.folder / "sine.yaml", root=desk.runs))
    told = complaint(desk.type("study", "run", "sine.yaml", "train.steps=31"))
    assert "was begun with other settings (train.steps: 30 -> 31)" in told


@pytest.mark.parametrize("command", [("plan", "quickstart"), ("status", "sine"), ("run", "--help")])
@pytest.mark.slow
def test_planning_and_looking_load_nothing_heavy(desk: Desk, command: tuple[str, ...]) -> None:
    freeze(plan_study(desk.folder / "sine.yaml", root=desk.runs))
    assert heavy_after(desk, "study", *command) == []


def heavy_after(desk: Desk, *arguments: str) -> list[str]:
    """The heavy packages that a command has loaded when it ends."""
    code = (
        "import sys\nfrom cupel.cli.main import main\n"
        f"try: main({list(arguments)!r})\nexcept SystemExit as end: assert not end.code, end\n"
        "heavy = ('torch', 'numpy', 'matplotlib', 'safetensors', 'scipy')\n"
        "print('LOADED', *[name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=desk.folder, env=desk.environment(None),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.splitlines()[-1].split()[1:]


# ---- runs --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_arm_that_diverges_stops_no_other_and_that_is_its_result(desk: Desk) -> None:
    command = ("study", "run", "sine.yaml", FAILING, "study.seeds=[1]")
    done = desk.type(*command)
    assert done.returncode == 0, done.stderr
    assert "diverged    hot s1: the loss is " in done.stderr
    assert "1 of 3 runs have no accepted results:" in done.stderr
    assert {run.status for run in list_runs(desk.runs)} == {"finished", "failed"}

    again = desk.type(*command, "--retry-failed")
    assert again.returncode == 0
    assert "sine: 2 of 3 runs are accepted already" in again.stderr
    assert "1 run diverged, which is its result:" in again.stderr
    assert [len(run.sessions) for run in list_runs(desk.runs)] == [1, 1, 1]

    status = json.loads(desk.type("study", "status", "sine", "--json").stdout)
    assert status["counts"] == {"finished": 2, "diverged": 1}
    (hot,) = [run for run in status["runs"] if run["status"] == "diverged"]
    assert hot["arm"] == "hot"
    assert hot["reason"].startswith("the loss is ")
    shown = desk.type("study", "status", "sine").stdout
    assert "3 runs: 2 accepted, 1 diverged; " in shown


@pytest.mark.slow
def test_a_run_that_fails_alike_twice_is_tried_again_when_asked_only(desk: Desk) -> None:
    command = ("study", "run", "sine.yaml", "workload=fakes:Breaking", "study.seeds=[1]")
    done = desk.type(*command)
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("it ended alike before") >= 2
    assert [len(run.sessions) for run in list_runs(desk.runs)] == [2, 2]

    again = desk.type(*command)
    assert again.returncode == 1
    assert "2 runs failed before; --retry-failed tries them again:" in again.stderr
    assert [len(run.sessions) for run in list_runs(desk.runs)] == [2, 2]

    tried = desk.type(*command, "--retry-failed")
    assert tried.returncode == 1
    assert [len(run.sessions) for run in list_runs(desk.runs)] == [4, 4]


@pytest.mark.slow
def test_whose_reader_has_gone_a_study_goes_on_and_tells_its_runs_ends(desk: Desk) -> None:
    """`cupel study run … 2>&1 | head -1`: what nobody reads is no reason to kill what trains."""
    with desk.start("study", "run", "sine.yaml", "--workers", "2") as process:
        assert process.stderr is not None
        assert process.stdout is not None
        assert process.stderr.readline().startswith("4 runs, 2 at a time")
        process.stderr.close()
        said = process.stdout.read()
        assert process.wait(120) == 0
    assert said.startswith("Does dropout help?")
    runs = list_runs(desk.runs)
    assert [run.results is not None for run in runs] == [True] * 4
    attempts = [read_attempt(run.run_dir, 1) for run in runs]
    assert [one.outcome for one in attempts if one is not None] == ["finished"] * 4


@pytest.mark.slow
def test_runs_that_want_more_than_this_machine_has_are_refused_before_anything_is_written(
    desk: Desk,
) -> None:
    told = complaint(desk.type("study", "run", "sine.yaml", "study.resources.cpus=4096"))
    assert told.startswith("a run of sine asks for 4096 CPU cores, and this machine has ")
    assert told.endswith("lower study.resources.cpus, or run it on a larger one")
    assert not desk.runs.exists()


@pytest.mark.slow
def test_what_is_done_is_compared_on_a_smaller_machine_too(desk: Desk) -> None:
    given = ["study.seeds=[1,2]", "study.resources.cpus=4096"]
    manifest = freeze(plan_study(desk.folder / "sine.yaml", given, root=desk.runs))
    for run in manifest.runs:
        Session.start(
            root=desk.runs, project="default", name=run.run_id, run_id=run.run_id,
            config=manifest.config_of(run), identity=run.identity,
        ).finish("finished", results={"step": 30, "final": {"val_loss": 1.0}})  # fmt: skip
    done = desk.type("study", "run", "sine.yaml", *given)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Does dropout help?")


@pytest.mark.slow
def test_a_run_whose_results_are_damaged_is_told_of_and_left_alone(desk: Desk) -> None:
    manifest = freeze(plan_study(desk.folder / "sine.yaml", ["study.seeds=[1]"], root=desk.runs))
    for run in manifest.runs:
        Session.start(
            root=desk.runs, project="default", name=run.run_id, run_id=run.run_id,
            config=manifest.config_of(run), identity=run.identity,
        ).finish("finished", results={"step": 30, "final": {"val_loss": 1.0}})  # fmt: skip
    (manifest.run_dir(manifest.runs[0]) / "results.json").write_text("{")
    done = desk.type("study", "run", "sine.yaml", "study.seeds=[1]")
    assert done.returncode == 1, done.stderr
    assert "1 run is damaged, and left alone; after cupel runs rm this trains it anew:" in (
        done.stderr
    )
    assert done.stderr.count("results.json is damaged") == 2  # at the start, and at the end
    assert [len(run.sessions) for run in list_runs(desk.runs)] == [1, 1]


@pytest.mark.slow
def test_a_finished_study_ends_with_its_comparison_and_knows_its_runs(desk: Desk) -> None:
    done = desk.type("study", "run", "sine.yaml", "--workers", "1", "study.seeds=[1,2]")
    assert done.returncode == 0, done.stderr
    assert "Does dropout help?" in done.stdout
    told = [line.split()[0] for line in done.stderr.splitlines()]
    assert [word for word in told if word.isalpha()] == ["started", "finished"] * 4
    arms = {run.run["arm"] for run in list_runs(desk.runs)}
    assert arms == {"plain", "drop"}
    for run in list_runs(desk.runs):
        assert (run.run["study"], run.run["point"]) == ("sine", "")
        assert run.run["name"] == f"sine-{run.run['arm']}"
        assert run.sessions[0].environment["torch_threads"] == 1


@pytest.mark.slow
def test_when_the_first_runs_are_refused_for_one_reason_no_other_is_started(desk: Desk) -> None:
    (desk.folder / "text.yaml").write_text(
        "workload: gpt\ndata: {path: absent.txt}\n"
        'study: {question: "?", arms: {one: {}, two: {train: {clip: 2.0}}}, seeds: [1, 2, 3]}\n'
    )
    done = desk.type("study", "run", "text.yaml", "--workers", "1")
    assert done.returncode == 2, "what was typed was wrong, and nothing else happened"
    lines = done.stderr.splitlines()
    assert sum(line.startswith("refused ") for line in lines) == 3
    assert sum(line.startswith("held ") for line in lines) == 1
    reason, others = [line for line in lines if line.startswith("  ")]
    assert reason.startswith("  one s1, two s1, one s2: ")
    assert "absent.txt" in reason
    assert others.startswith(
        "  two s2, one s3, two s3: 3 runs failed alike before their first step: "
    )
    assert done.stdout == "", "there is nothing to compare"
    assert not list_runs(desk.runs)

    status = json.loads(desk.type("study", "status", "text", "--json").stdout)
    assert status["counts"] == {"refused": 3, "held": 3}
    assert "absent.txt" in status["runs"][0]["reason"]
    shown = desk.type("study", "status", "text").stdout.splitlines()
    assert any(line.split()[1:2] == ["refused"] for line in shown)
    one = status["runs"][0]["run_id"]
    (told,) = [line for line in shown if line.startswith(f"{one} and 2 more: ")]
    assert "absent.txt" in told

    (desk.folder / "absent.txt").write_text("Some text, which is there by now. " * 200)
    mended = desk.type("study", "run", "text.yaml", "--workers", "1", "--dry-run")
    assert mended.returncode == 0, mended.stderr


@pytest.mark.slow
def test_a_refused_arm_stops_no_other(desk: Desk) -> None:
    """Its seeds are refused alike, and first; that says nothing of other arms."""
    (desk.folder / "text.yaml").write_text(
        "workload: gpt\n"
        "data: {path: text.txt, batch: 4, val_batches: 1, val_batch: 2, cache: cache}\n"
        "model: {layers: 1, heads: 2, width: 16, block: 16}\n"
        "train: {steps: 5, evaluate_every: 5}\nfigures: {formats: []}\nsample: {tokens: 2}\n"
        "study:\n  question: '?'\n"
        "  arms: {absent: {data: {path: absent.txt}}, there: {}}\n  seeds: [1, 2]\n"
    )
    done = desk.type("study", "run", "text.yaml", "--workers", "1")
    assert done.returncode == 1, done.stderr
    assert "2 of 4 runs have no accepted results:" in done.stderr
    assert {(run.run["arm"], run.status) for run in list_runs(desk.runs)} == {
        ("there", "finished"),
    }
    assert len(list_runs(desk.runs)) == 2


@pytest.mark.slow
def test_a_worker_of_an_accepted_run_does_nothing(desk: Desk) -> None:
    manifest = freeze(plan_study(desk.folder / "sine.yaml", root=desk.runs))
    begun(manifest, 0).finish("finished", results={"step": 30, "final": {}})
    before = desk.fingerprint()
    command = ("study", "work", str(manifest.folder), manifest.runs[0].run_id)
    done = desk.type(*command)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert desk.fingerprint() == before
    assert "no run of study sine is called 'x'" in complaint(desk.type(*command[:3], "x"))


# ---- a metric that no run has ------------------------------------------------------------------

UNKNOWN = "study.primary.metric=val_los"
TOLD = "study.primary.metric: 'val_los' is in no results; did you mean 'val_loss'? "


@pytest.mark.slow
def test_the_first_accepted_run_without_the_metric_stops_the_others_at_a_checkpoint(
    desk: Desk,
) -> None:
    slow = 'study.arms.drop={train: {steps: 1000}, monitors: {"fakes:Slow": {every: 1}}}'
    done = desk.type("study", "run", "sine.yaml", UNKNOWN, slow)
    assert complaint(done).startswith(TOLD)
    assert "stopping (no run has the primary metric)" in done.stderr
    stands = {run.run["arm"]: run for run in list_runs(desk.runs)}
    assert {arm: run.status for arm, run in stands.items()} == {
        "plain": "finished", "drop": "interrupted",
    }  # fmt: skip
    # Where it had not come to its first step, there was nothing to save.
    assert stands["drop"].checkpoints() or not stands["drop"].history(["loss"])


@pytest.mark.slow
def test_a_study_with_a_metric_that_is_not_there_is_mended_without_training_again(
    desk: Desk,
) -> None:
    command = ("study", "run", "sine.yaml", "--workers", "1")
    assert complaint(desk.type(*command, UNKNOWN)).startswith(TOLD)
    assert [run.status for run in list_runs(desk.runs)] == ["finished"]

    again = desk.type(*command, UNKNOWN)
    assert complaint(again).startswith(TOLD)
    assert "started" not in again.stderr
    assert len(list_runs(desk.runs)) == 1

    shutil.rmtree(desk.runs / "default" / "studies" / "sine")  # as it is told
    mended = desk.type(*command, "study.primary.metric=val_loss")
    assert mended.returncode == 0, mended.stderr
    assert "1 of 4 runs are accepted already" in mended.stderr
    assert [len(run.sessions) for run in list_runs(desk.runs)] == [1] * 4


@pytest.mark.slow
def test_a_completed_study_without_its_metric_does_not_end_well(desk: Desk) -> None:
    plan = plan_study(desk.folder / "sine.yaml", [UNKNOWN], root=desk.runs)
    manifest = freeze(plan)
    for number in range(4):
        final = {"step": 30, "final": {"val_loss": 1.0}}
        begun(manifest, number).finish("finished", results=final)
    assert complaint(desk.type("study", "run", "sine.yaml", UNKNOWN)).startswith(TOLD)


# ---- dry runs ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_dry_run_drives_every_arm_with_two_seeds_and_leaves_nothing(desk: Desk) -> None:
    overrides = ("study.seeds=[3,4,5]", "study.grid.batch=[4,8]", "figures.formats=[svg]")
    done = desk.type("study", "run", "sine.yaml", *overrides, "--dry-run")
    assert done.returncode == 0, done.stderr
    runs = [line.split()[-1] for line in done.stderr.splitlines() if line.startswith("dry run: ")]
    assert [run.rpartition("-")[0] for run in runs] == [
        "sine-plain-batch-4-s3", "sine-drop-batch-4-s3",
        "sine-plain-batch-4-s4", "sine-drop-batch-4-s4",
    ]  # fmt: skip
    assert "Does dropout help?" in done.stdout
    assert "dry run passed: 4 runs, " in done.stdout.splitlines()[-1]
    assert not desk.runs.exists()


@pytest.mark.slow
@pytest.mark.parametrize("figures", [True, False])
def test_a_tried_run_draws_when_it_is_asked_to(desk: Desk, figures: bool) -> None:
    overrides = ["figures.formats=[svg]", "figures.themes=[light]", "train.steps=2"]
    manifest = freeze(plan_study(desk.folder / "sine.yaml", overrides, root=desk.runs))
    assert try_run(manifest, manifest.runs[1], figures=figures) is None
    (run,) = list_runs(desk.runs)
    assert (run.status, run.run["arm"]) == ("finished", "drop")
    assert bool(list(run.run_dir.glob("figures/*.svg"))) == figures
    failure = try_run(manifest, manifest.runs[1], figures=figures)
    assert failure is not None, "the run is there already"
    assert failure[0] == 2


@pytest.mark.slow
def test_a_dry_run_tells_the_metrics_that_there_are(desk: Desk) -> None:
    told = complaint(desk.type("study", "run", "sine.yaml", UNKNOWN, "--dry-run"))
    assert told.startswith("no study.primary.metric is called 'val_los'; did you mean 'val_loss'?")


@pytest.mark.slow
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_dry_run_that_is_stopped_leaves_no_process_and_no_run_behind(
    desk: Desk, number: signal.Signals, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(desk.folder))  # a killed one leaves its folder
    gate = desk.folder / "gate"
    gate.touch()
    held = 'study.arms.held={dropout: 0.1, monitors: {"fakes:Gate": {step: 2, path: gate}}}'
    process = desk.start("study", "run", "sine.yaml", held, "--dry-run")
    until(lambda: (desk.folder / "gate.waiting").exists())
    begun = psutil.Process(process.pid).children(recursive=True)
    assert len(begun) >= 2
    process.send_signal(number)
    told = process.communicate(timeout=30)[1]
    assert process.returncode == code, told
    assert "Traceback" not in told
    until(lambda: not any(child.is_running() for child in begun))
    assert gate.exists(), "the run that waits was waited for"
    assert not desk.runs.exists()


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(0.02)


@pytest.mark.slow
def test_an_arm_that_fails_a_dry_run_stops_no_other_and_the_report_is_tried(desk: Desk) -> None:
    broken = "study.arms.broken={batch: 1, train: {accumulate: 2}}"
    done = desk.type("study", "run", "sine.yaml", FAILING, broken, "--dry-run")
    assert done.returncode == 1, done.stderr
    assert "Does dropout help?" in done.stdout
    lines = done.stderr.splitlines()
    assert sum(line.startswith("dry run: ") for line in lines) == 4
    assert "dry run failed: 4 of 8 runs" in lines
    assert any(line.startswith("  hot s1, hot s2: the loss is ") for line in lines)
    assert lines.count("Traceback (most recent call last):") == 1
    assert lines[-1].startswith("  broken s1, broken s2: RuntimeError: ")
    assert not desk.runs.exists()


# ---- the board ---------------------------------------------------------------------------------


@pytest.fixture
def manifest(desk: Desk) -> Manifest:
    return freeze(plan_study(desk.folder / "sine.yaml", root=desk.runs))


def begun(manifest: Manifest, number: int) -> Session:
    run = manifest.runs[number]
    session = Session.start(
        root=manifest.root, project=manifest.project, name="n", config={},
        identity=run.identity, run_id=run.run_id,
    )  # fmt: skip
    session.begin_at(0)
    return session


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def board_on(
    manifest: Manifest, *, terminal: bool, height: int = 24
) -> tuple[Board, io.StringIO, Clock]:
    text, clock = io.StringIO(), Clock()
    console = Console(
        file=text, force_terminal=terminal, width=80, height=height, color_system=None
    )
    return Board(manifest, console=console, clock=clock), text, clock


def test_on_a_log_there_is_a_line_a_change_and_one_on_all_runs_every_ten_seconds(
    manifest: Manifest,
) -> None:
    board, text, clock = board_on(manifest, terminal=False)
    board.start()
    session = begun(manifest, 1)
    board.change(Change("started", manifest.runs[1].run_id))
    session.log({"loss": 2.0}, step=10)
    for clock.now in (101.0, 111.0):
        board.tick()
    session.log({"loss": 1.5}, step=20)
    clock.now = 121.5
    board.tick()
    session.finish("finished", results={"step": 30, "final": {"val_loss": 1.25}})
    board.change(Change("finished", manifest.runs[1].run_id))
    board.stop()
    *lines, last = text.getvalue().splitlines()
    assert lines == [
        "started     drop s1",
        "0 of 4 runs accepted; drop s1 step 10/30 loss 2.0000",
        # One step in 1.05 s was seen; 10 of this run and 90 of the others are left.
        "0 of 4 runs accepted, about 1:45 left; drop s1 step 20/30 loss 1.5000",
    ]
    assert last.startswith("finished    drop s1  step 30, val_loss 1.2500, 0:0")


def test_once_a_run_has_ended_the_time_left_counts_what_lies_between_runs(
    manifest: Manifest,
) -> None:
    """Runs of seconds are seldom seen at two steps, and are not all that takes time."""
    board, text, clock = board_on(manifest, terminal=False)
    board.start()
    clock.now = 110.0
    board.tick()
    begun(manifest, 0).finish("finished", results={"step": 30, "final": {"val_loss": 1.25}})
    clock.now = 120.0
    board.tick()
    board.stop()
    # 30 steps in the ten seconds since the first look; 90 are left.
    assert text.getvalue().splitlines() == [
        "0 of 4 runs accepted",
        "1 of 4 runs accepted, about 0:30 left",
    ]


def test_on_a_terminal_there_is_a_row_a_run(manifest: Manifest) -> None:
    board, text, _ = board_on(manifest, terminal=True)
    begun(manifest, 0).finish("finished", results={"step": 30, "final": {"val_loss": 1.25}})
    session = begun(manifest, 1)
    session.log({"loss": 2.0}, step=10)
    board.start()
    board.tick()
    board.stop()
    session.finish("interrupted")
    shown = [" ".join(line.split()) for line in text.getvalue().splitlines()]
    assert "plain s1 accepted 30/30 1.2500" in shown
    assert "drop s1 running 10/30 2.0000" in shown
    assert "drop s2 planned 0/30" in shown
    assert any("1 of 4 runs accepted" in line for line in shown)


def test_refused_runs_are_counted_and_what_concerns_all_is_told_in_a_line(
    manifest: Manifest,
) -> None:
    board, text, _ = board_on(manifest, terminal=True)
    refuse(manifest, manifest.runs[0], "no such corpus")
    board.change(Change("refused", manifest.runs[0].run_id, "no such corpus"))
    board.change(Change("held", detail="3 runs failed alike"))
    board.change(Change("stopping", detail="a reason"))
    board.start()
    board.stop()
    lines = text.getvalue().splitlines()
    assert lines[:3] == [
        "refused     plain s1: no such corpus",
        "held        3 runs failed alike",
        "stopping (a reason): every run writes a checkpoint after its step",
    ]
    assert any("0 of 4 runs accepted, 1 refused" in line for line in lines)


def test_a_low_terminal_shows_what_runs_and_says_how_much_it_hides(manifest: Manifest) -> None:
    board, text, _ = board_on(manifest, terminal=True, height=5)
    session = begun(manifest, 2)
    session.log({"loss": 2.0}, step=10)
    board.start()
    board.tick()
    board.stop()
    session.finish("interrupted")
    assert "plain s2" in text.getvalue()
    assert "drop s2" not in text.getvalue()
    assert "; 3 not shown" in text.getvalue()
