"""`cupel study status` as typed: what it shows of a study, once or again and again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cupel.cli.app import obey
from cupel.cli.study_status import alert_line, counted, eta_text
from cupel.jobs import control
from cupel.jobs.alerts import Alert
from cupel.jobs.attempts import Attempt, write_attempt
from cupel.jobs.eta import Eta
from cupel.jobs.workers import Presence
from cupel.record.session import Session
from cupel.studies.manifest import Manifest, PlannedRun
from desk import Desk
from planted import Arm, around, plant
from queues import refuse

SEEDS = (1, 2, 3, 4)
DISK = {"alerts": {"disk_free": 0.999999}}  # no disk is as empty as this asks for


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUPEL_ROOT", str(tmp_path / "runs"))
    monkeypatch.delenv("COLUMNS", raising=False)
    return tmp_path / "runs"


def planted(root: Path, done: int = 2, **more: Any) -> Manifest:
    """Two arms, of which the first seeds are accepted."""
    seeds = more.pop("seeds", SEEDS)
    arms = {name: Arm(around(2.0, seeds=seeds[:done])) for name in ("plain", "wave")}
    return plant(root, arms, seeds=seeds, **more)


def of(manifest: Manifest, arm: str, seed: int) -> PlannedRun:
    (run,) = [run for run in manifest.runs if (run.arm, run.seed) == (arm, seed)]
    return run


def begin(manifest: Manifest, run: PlannedRun) -> Session:
    session = Session.start(
        root=manifest.root, project=manifest.project, name="n",
        config=manifest.config_of(run), identity=run.identity, run_id=run.run_id,
    )  # fmt: skip
    session.begin_at(0)
    session.log({"loss": 2.0}, step=10)
    return session


def fail(manifest: Manifest, run: PlannedRun, why: str) -> None:
    """An end that is not tried again."""
    begin(manifest, run).finish("failed", error=why)
    told = Attempt(1, "import", why, begun=True, last_step=10, ended=time.time())
    write_attempt(manifest.run_dir(run), told)


def finish(manifest: Manifest, session: Session) -> None:
    session.finish("finished", results={"step": 40, "final": {"val_loss": 1.0}})


Type = Callable[..., tuple[int, str, str]]


@pytest.fixture
def type_(capsys: pytest.CaptureFixture[str]) -> Type:
    def typed(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = obey(["study", "status", "planted", *arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return typed


def lines_of(type_: Type, *arguments: str) -> list[str]:
    code, out, err = type_(*arguments)
    assert (code, err) == (0, "")
    return out.splitlines()


# ---- once --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_run_has_a_row_and_reasons_stand_below_once_each(root: Path, type_: Type) -> None:
    manifest = planted(root)
    fail(manifest, of(manifest, "plain", 3), "no such module")
    fail(manifest, of(manifest, "wave", 3), "no such module")
    control.append(manifest.folder, "hold", [of(manifest, "plain", 4).run_id], why="no room")
    control.append(manifest.folder, "cancel", [of(manifest, "wave", 4).run_id])
    lines = lines_of(type_)
    assert lines[:2] == ["planted: Is the wave model better?", ""]
    assert lines[2].split() == ["run", "state", "step", "loss", "val_loss", "sessions", "time"]
    states = [line.split()[1:3] for line in lines[3:11]]
    assert states == [
        ["accepted", "40/40"], ["accepted", "40/40"], ["failed", "10/40"], ["held", "0/40"],
        ["accepted", "40/40"], ["accepted", "40/40"], ["failed", "10/40"], ["cancelled", "0/40"],
    ]  # fmt: skip
    assert lines[11:] == [
        "",
        f"{of(manifest, 'plain', 3).run_id} and 1 more: no such module; not retried",
        f"{of(manifest, 'plain', 4).run_id}: no room",
        "",
        "8 runs: 4 accepted, 2 failed, 1 held, 1 cancelled; 56 % of the steps; " + str(root)
        + "/p/studies/planted",
    ]  # fmt: skip


@pytest.mark.slow
def test_the_end_is_told_when_it_is_known_and_else_why_it_is_not(root: Path, type_: Type) -> None:
    manifest = planted(root)
    told = "; done: unknown (runs are open, and no worker is there to take them); "
    assert told in lines_of(type_)[-1]
    presence = Presence(manifest.folder, "here", 2)
    presence.show([])
    last = lines_of(type_)[-1]
    assert "; done about " in last
    assert " runs an hour; " in last


def test_a_study_of_one_run_is_no_plural(root: Path, type_: Type) -> None:
    plant(root, {"plain": Arm({1: 2.0})}, seeds=(1,))
    assert lines_of(type_)[-1].startswith("1 run: 1 accepted; ")


def test_of_many_runs_there_is_a_row_a_cell_and_those_that_need_a_look(
    root: Path, type_: Type
) -> None:
    manifest = planted(root, done=1, seeds=tuple(range(1, 36)))
    fail(manifest, of(manifest, "wave", 2), "no such module")
    session = begin(manifest, of(manifest, "plain", 2))
    lines = lines_of(type_)
    session.finish("interrupted")
    assert [line.split() for line in lines[2:5]] == [
        ["arm", "point", "accepted", "running", "planned", "failed"],
        ["plain", "–", "1", "1", "33", "–"],
        ["wave", "–", "1", "–", "33", "1"],
    ]
    assert [line.split()[:2] for line in lines[7:9]] == [
        [of(manifest, "plain", 2).run_id, "running"], [of(manifest, "wave", 2).run_id, "failed"],
    ]  # fmt: skip
    assert len(lines) == 13


def test_of_very_many_cells_the_first_are_shown_and_the_others_counted(
    root: Path, type_: Type
) -> None:
    plant(root, {"plain": Arm({})}, seeds=(1,), points=[f"lr={n}" for n in range(70)])
    lines = lines_of(type_)
    assert "… and 10 more cells; cupel jobs ls lists every run" in lines
    assert len(lines) == 2 + 1 + 60 + 1 + 2


@pytest.mark.parametrize("columns", [50, 80, 200])
@pytest.mark.slow
def test_no_table_and_no_line_of_counts_is_wider_than_the_terminal(
    root: Path, type_: Type, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    manifest = planted(root)
    refuse(manifest, of(manifest, "plain", 3), "a reason that goes on and on; " * 9)
    control.append(manifest.folder, "hold", [of(manifest, "plain", 4).run_id])
    session = begin(manifest, of(manifest, "wave", 3))
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    lines = lines_of(type_)
    session.finish("interrupted")
    long = [line for line in lines if len(line) > columns and line != str(manifest.folder)]
    assert [line.split(":")[0] for line in long] == [of(manifest, "plain", 3).run_id]
    assert any(line.startswith("8 runs: ") for line in lines)


def test_as_json_there_is_all_of_it_and_nothing_else(root: Path, type_: Type) -> None:
    manifest = planted(root, **DISK)
    refuse(manifest, of(manifest, "plain", 3), "no such corpus")
    code, out, err = type_("--json")
    assert (code, err) == (0, "")
    facts = json.loads(out)
    assert (facts["study"], facts["project"]) == ("planted", "p")
    assert facts["counts"] == {"finished": 4, "refused": 1, "planned": 3}
    assert (facts["steps"], facts["of_steps"]) == (160, 320)
    assert facts["eta"] is None
    assert facts["eta_unknown"] == "runs are open, and no worker is there to take them"
    assert facts["throughput"]["runs_per_hour"] > 0
    assert [alert["key"] for alert in facts["alerts"]] == ["disk"]
    assert len(facts["runs"]) == 8
    (refused,) = [run for run in facts["runs"] if run["status"] == "refused"]
    assert (refused["arm"], refused["seed"]) == ("plain", 3)
    assert refused["reason"] == "no such corpus; not retried"


@pytest.mark.slow
def test_an_alert_is_shown_while_it_holds_and_gone_when_it_is_over(root: Path, type_: Type) -> None:
    manifest = planted(root, **DISK)
    for _ in range(2):  # the second one has not raised it
        last = lines_of(type_)[-1]
        assert last.startswith("error: ")
        assert "of the disk is free; the limit is 100 %" in last
    state = manifest.folder / "alerts.json"
    raised = json.loads(state.read_text())
    raised["raised"]["deadline"] = raised["raised"].pop("disk")  # there is no deadline
    state.write_text(json.dumps(raised))
    shown = [line for line in lines_of(type_) if line.startswith(("error: ", "warning: "))]
    assert len(shown) == 1
    assert "of the disk" in shown[0]


@pytest.mark.slow
def test_jobs_status_is_the_same_command(
    root: Path, type_: Type, capsys: pytest.CaptureFixture[str]
) -> None:
    planted(root, done=4)
    shown = lines_of(type_)
    assert obey(["jobs", "status", "planted"]) == 0
    assert capsys.readouterr().out.splitlines() == shown


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--watch", "--json"], "--watch and --json do not go together"),
        (["--webhook", "x"], "--webhook: 'x' is no address of the web; give one such as "),
        (["--webhook", "ftp://x"], "--webhook: 'ftp://x' is no address of the web"),
        (["--on-alert", "nosuch x"], "--on-alert: 'nosuch' is not there to be run; give a "),
        (["--on-alert", "'"], "--on-alert: no closing quotation in "),
        (["--on-alert", ""], "--on-alert: it is empty; give a program of this machine"),
    ],
)
def test_options_that_cannot_work_are_refused_and_nothing_is_written(
    root: Path, type_: Type, given: list[str], told: str
) -> None:
    manifest = plant(root, {"plain": Arm({})}, seeds=(1,))
    before = sorted(manifest.folder.iterdir())
    code, out, err = type_(*given)
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith(f"cupel: {told}")
    assert sorted(manifest.folder.iterdir()) == before


def test_an_unknown_study_is_refused_with_the_nearest_name(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(root, {"plain": Arm({})}, seeds=(1,))
    assert obey(["study", "status", "plantd"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("cupel: no study is called 'plantd'; did you mean 'planted'?")
    assert len(err.splitlines()) == 1


# ---- words -------------------------------------------------------------------------------------


def test_a_time_is_told_with_its_date_when_it_is_far(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    try:
        now = 1_800_000_000.0  # 2027-01-15 08:00
        assert eta_text(Eta(now + 600, now + 300, now + 900), now) == (
            "done about 08:10 (08:05 to 08:15)"
        )
        assert eta_text(Eta(now + 600, now + 600, now + 601), now) == "done about 08:10"
        far = now + 86_400
        assert eta_text(Eta(far, far, far), now) == "done about 2027-01-16 08:00"
        assert eta_text(None, now) == ""
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()


def test_alerts_and_counts_are_lines_for_people() -> None:
    assert alert_line(Alert("disk", True, "it is full", "error", 1.0)) == "error: it is full"
    assert alert_line(Alert("disk", False, "it has room", "error", 1.0)) == "over: it has room"
    assert [counted(n, "run") for n in (0, 1, 2)] == ["0 runs", "1 run", "2 runs"]


# ---- again and again ---------------------------------------------------------------------------


@pytest.fixture
def watching(root: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Watches the study in a process of its own, which ends with the test."""
    begun = []

    def start(*options: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "CUPEL_ROOT": str(root)}
        process = subprocess.Popen(
            [sys.executable, "-m", "cupel", "study", "status", "planted", "--watch", *options],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        begun.append(process)
        return process

    yield start
    for process in begun:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_watching_a_study_that_is_over_prints_a_line_and_ends(root: Path, type_: Type) -> None:
    manifest = planted(root, done=3)
    control.append(manifest.folder, "cancel", [of(manifest, "plain", 4).run_id])
    control.append(manifest.folder, "hold", [of(manifest, "wave", 4).run_id])
    assert lines_of(type_, "--watch") == [
        "8 runs: 6 accepted, 1 cancelled, 1 held; 75 % of the steps"
    ]


@pytest.mark.slow
def test_on_a_log_there_is_a_line_a_change_until_all_is_over(
    root: Path, watching: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """An alert reaches a command meanwhile, and one of two watchers tells it."""
    manifest = planted(root, done=3, **DISK)
    told = tmp_path / "told.jsonl"
    told.touch()
    script = tmp_path / "hook.sh"
    script.write_text(f"#!/bin/sh\ncat >> '{told}'\n")
    script.chmod(0o755)
    session = begin(manifest, of(manifest, "plain", 4))
    first = watching("--on-alert", str(script))
    assert first.stdout is not None
    lines = [first.stdout.readline()]
    second = watching("--on-alert", str(script))
    assert second.stdout is not None
    assert second.stdout.readline().partition(";")[0] == lines[0].partition(";")[0]
    time.sleep(5)  # two looks at which nothing has changed
    finish(manifest, session)
    lines.append(first.stdout.readline())
    control.append(manifest.folder, "cancel", [of(manifest, "wave", 4).run_id])
    rest, err = first.communicate(timeout=30)
    lines += rest.splitlines(keepends=True)
    assert first.returncode == 0
    assert [line.strip().partition(";")[0] for line in lines] == [
        "8 runs: 6 accepted, 1 running, 1 planned",
        "8 runs: 7 accepted, 1 planned",
        "8 runs: 7 accepted, 1 cancelled",
    ]
    assert len(err.splitlines()) == 1
    assert err.startswith("error: ")
    _, also = second.communicate(timeout=30)
    assert also.startswith("error: "), "who does not lead sees it, too"
    assert len(told.read_text().splitlines()) == 1


@pytest.mark.slow
def test_ctrl_c_leaves_with_one_line_that_says_how_to_look_again(
    root: Path, watching: Callable[..., subprocess.Popen[str]]
) -> None:
    planted(root, done=1)
    process = watching("--root", str(root))
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.5)  # it is between two looks then
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "")
    assert err == (
        "planted is no longer watched; look again with: "
        f"python -m cupel study status planted --watch --root {root}\n"
    )


@pytest.mark.slow
def test_on_a_terminal_the_table_is_drawn_anew(root: Path, tmp_path: Path) -> None:
    manifest = planted(root, done=3, **DISK)
    for arm in ("plain", "wave"):
        control.append(manifest.folder, "cancel", [of(manifest, arm, 4).run_id])
    desk = Desk(tmp_path)
    printed = subprocess.run(
        ["script", "-qec", f"stty cols 80; {sys.executable} -m cupel study status planted --watch",
         "/dev/null"],
        env=desk.environment(root), capture_output=True, text=True, timeout=60, check=True,
    ).stdout  # fmt: skip
    assert printed.startswith("\x1b[H\x1b[2J")
    lines = printed.replace("\r", "").splitlines()
    assert any("accepted" in line and "40/40" in line for line in lines)
    assert max(map(len, lines)) < 100
