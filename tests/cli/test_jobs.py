"""`cupel jobs` as typed: what it shows of a study's runs, what it asks of them, what it refuses."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cupel.cli.app import obey
from cupel.jobs import control
from cupel.jobs.attempts import Attempt, write_attempt
from cupel.jobs.control import Control
from cupel.jobs.workers import Presence
from cupel.record import layout
from cupel.record.reader import list_runs
from cupel.record.session import Session
from cupel.studies.manifest import Manifest, PlannedRun, freeze
from cupel.studies.spec import plan_study
from cupel.studies.state import log_of, study_state
from desk import new_desk
from queues import refuse

RECIPE = """\
workload: fakes:Regression
train: {steps: 30, evaluate_every: 10}
checkpoint: {every: 10}
figures: {formats: []}
study:
  question: Does dropout help?
  arms: {plain: {}, drop: {dropout: 0.5}}
  seeds: [1, 2, 10]
  tags: [first]
  tag_by: [arm]
"""


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """A study of two arms and three seeds of which nothing has begun."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUPEL_ROOT", str(tmp_path / "runs"))
    monkeypatch.delenv("COLUMNS", raising=False)
    (tmp_path / "sine.yaml").write_text(RECIPE)
    return freeze(plan_study(tmp_path / "sine.yaml", root=tmp_path / "runs"))


def of(manifest: Manifest, arm: str, seed: int) -> PlannedRun:
    (run,) = [run for run in manifest.runs if (run.arm, run.seed) == (arm, seed)]
    return run


def begun(manifest: Manifest, run: PlannedRun) -> Session:
    session = Session.start(
        root=manifest.root, project=manifest.project, name="n", config={},
        identity=run.identity, run_id=run.run_id,
    )  # fmt: skip
    session.begin_at(0)
    return session


def accept(manifest: Manifest, run: PlannedRun) -> None:
    session = begun(manifest, run)
    session.log({"loss": 0.12345678}, step=30)
    session.finish("finished", results={"step": 30, "final": {"val_loss": 1.0}})


def fail(manifest: Manifest, run: PlannedRun, why: str) -> None:
    """One attempt that is not tried again."""
    begun(manifest, run).finish("failed", error=why)
    told = Attempt(
        1, "import", why, signature=why, begun=True, last_step=7, started=1.0, ended=61.0,
        host="one", code=1,
    )  # fmt: skip
    write_attempt(manifest.run_dir(run), told)


@pytest.fixture
def mixed(manifest: Manifest) -> Manifest:
    """The study with a run in many of the states."""
    accept(manifest, of(manifest, "plain", 1))
    fail(manifest, of(manifest, "plain", 2), "No module named 'absent'")
    begun(manifest, of(manifest, "drop", 1)).finish("interrupted")
    refuse(manifest, of(manifest, "drop", 2), "no such corpus")
    control.append(manifest.folder, "hold", [of(manifest, "plain", 10).run_id], why="no room")
    control.append(manifest.folder, "cancel", [of(manifest, "drop", 10).run_id])
    return manifest


Type = Callable[..., tuple[int, str, str]]


@pytest.fixture
def type_(capsys: pytest.CaptureFixture[str]) -> Type:
    def typed(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = obey(["jobs", *arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return typed


def lines_of(type_: Type, *arguments: str) -> list[str]:
    code, out, err = type_(*arguments)
    assert (code, err) == (0, "")
    return out.splitlines()


def facts_of(type_: Type, *arguments: str) -> Any:
    code, out, err = type_(*arguments, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def refused(type_: Type, *arguments: str) -> str:
    """The one line of a refusal."""
    code, out, err = type_(*arguments)
    assert (code, out) == (2, ""), (code, out, err)
    (line,) = err.splitlines()
    return line.removeprefix("cupel: ")


def asked(manifest: Manifest) -> list[dict[str, Any]]:
    """What was written into the study's control."""
    path = manifest.folder / control.CONTROL
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    """Stdout is a terminal of so many columns from now on."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)


# ---- ls ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_ls_shows_every_runs_state_the_most_urgent_first(mixed: Manifest, type_: Type) -> None:
    control.append(mixed.folder, "boost", [of(mixed, "drop", 1).run_id], priority=500)
    rows = facts_of(type_, "ls", "sine")["runs"]
    assert rows[0]["run"] == of(mixed, "drop", 1).run_id
    assert rows[0]["priority"] == 500
    assert {row["run"]: row["state"] for row in rows} == {
        of(mixed, "plain", 1).run_id: "accepted",
        of(mixed, "plain", 2).run_id: "failed",
        of(mixed, "plain", 10).run_id: "held",
        of(mixed, "drop", 1).run_id: "interrupted",
        of(mixed, "drop", 2).run_id: "refused",
        of(mixed, "drop", 10).run_id: "cancelled",
    }
    head, *shown = lines_of(type_, "ls", "sine")
    assert head.split() == [
        "run", "state", "priority", "attempts", "step", "loss", "tags", "reason",
    ]  # fmt: skip
    assert len(shown) == 6
    assert "500" in shown[0]


@pytest.mark.slow
def test_ls_is_narrowed_by_states_arms_and_tags(mixed: Manifest, type_: Type) -> None:
    def shown(*arguments: str) -> list[str]:
        return [row["run"] for row in facts_of(type_, "ls", "sine", *arguments)["runs"]]

    plain = [of(mixed, "plain", seed).run_id for seed in (1, 2, 10)]
    assert shown("--arm", "plain") == plain
    assert shown("--tags", "arm=plain", "--tags", "first") == plain
    assert shown("--state", "failed", "--state", "held") == plain[1:]
    assert shown("--state", "failed", "--arm", "drop") == []
    assert lines_of(type_, "ls", "sine", "--state", "failed", "--arm", "drop") == ["no such runs"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--state", "acepted"), "no state of a run is called 'acepted'; did you mean 'accepted'?"),
        (("--arm", "plan"), "no arm of study sine is called 'plan'; did you mean 'plain'?"),
        (("--tags", "frist"), "no tag of study sine is called 'frist'; did you mean 'first'?"),
    ],
)
def test_ls_refuses_what_the_study_has_not(
    manifest: Manifest, type_: Type, given: tuple[str, str], told: str
) -> None:
    assert refused(type_, "ls", "sine", *given).startswith(told)


@pytest.mark.slow
def test_every_state_that_there_is_can_be_asked_for(mixed: Manifest, type_: Type) -> None:
    for row in facts_of(type_, "ls", "sine")["runs"]:
        again = facts_of(type_, "ls", "sine", "--state", row["state"])["runs"]
        assert row in again


@pytest.mark.parametrize("columns", [60, 80, 200])
@pytest.mark.slow
def test_tables_are_never_wider_than_the_terminal(
    mixed: Manifest, type_: Type, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    fail(mixed, of(mixed, "plain", 10), "a reason that goes on and on; " * 9)
    control.append(mixed.folder, "hold", [of(mixed, "drop", 1).run_id], why="no room; " * 20)
    Presence(mixed.folder, "some-host-12345", 8).show([run.run_id for run in mixed.runs])
    terminal(monkeypatch, columns)
    for command in (["ls", "sine"], ["recover", "sine"], ["workers", "sine"]):
        assert max(map(len, lines_of(type_, *command))) <= columns, command
    shown = lines_of(type_, "show", "sine", "plain s10")
    assert max(map(len, shown[shown.index("") + 1 :])) <= columns, "its attempts"


def test_a_column_that_no_run_has_anything_in_is_left_out(tmp_path: Path, type_: Type) -> None:
    recipe = RECIPE.replace("  tags: [first]\n  tag_by: [arm]\n", "")
    (tmp_path / "bare.yaml").write_text(recipe)
    freeze(plan_study(tmp_path / "bare.yaml", root=tmp_path / "runs"))
    head = lines_of(type_, "ls", "bare", "--root", str(tmp_path / "runs"))[0]
    assert head.split() == ["run", "state", "priority", "attempts", "step", "loss"]


# ---- show, logs --------------------------------------------------------------------------------


@pytest.mark.slow
def test_show_tells_of_every_attempt_and_the_end_of_the_log(mixed: Manifest, type_: Type) -> None:
    run = of(mixed, "plain", 2)
    log = log_of(mixed, run)
    log.parent.mkdir()
    log.write_text("".join(f"line {n}\n" for n in range(30)) + "\x1b[31mred\n")
    lines = lines_of(type_, "show", "sine", run.run_id)
    assert lines[:2] == [f"run       {run.run_id}", "state     failed"]
    assert "reason    No module named 'absent'; not retried" in lines
    assert "tags      first, arm=plain" in lines
    (attempt,) = [line for line in lines if line.startswith("1 ")]
    assert attempt.split()[:5] == ["1", "import", "0–7", "1:00", "one"]
    assert lines[-2:] == ["line 29", r"\x1b[31mred"], "what a model prints cannot recolour"
    assert "line 20" not in lines

    facts = facts_of(type_, "show", "sine", run.run_id)
    assert (facts["state"], facts["attempts"]) == ("failed", 1)
    assert [one["outcome"] for one in facts["attempt_list"]] == ["import"]
    assert facts["log"] == str(log)


@pytest.mark.slow
def test_a_run_can_be_meant_by_its_id_its_label_or_a_part_that_only_it_has(
    manifest: Manifest, type_: Type
) -> None:
    """`plain-s1` is not `plain-s10`."""
    one, ten = (of(manifest, "plain", seed).run_id for seed in (1, 10))
    for text, run in ((one, one), ("plain s10", ten), ("plain-s1", one), (ten[-8:], ten)):
        assert facts_of(type_, "show", "sine", text)["run"] == run


def test_logs_prints_as_many_lines_as_asked_for(manifest: Manifest, type_: Type) -> None:
    log = log_of(manifest, of(manifest, "plain", 1))
    log.parent.mkdir()
    log.write_text("".join(f"line {n}\n" for n in range(500)))
    assert lines_of(type_, "logs", "sine", "plain-s1", "-n", "2") == ["line 498", "line 499"]
    assert len(lines_of(type_, "logs", "sine", "plain-s1")) == 100
    told = refused(type_, "logs", "sine", "plain-s2")
    assert told.startswith(f"{of(manifest, 'plain', 2).run_id} has printed nothing yet")


# ---- steering ----------------------------------------------------------------------------------


@pytest.mark.parametrize("do", ["cancel", "hold", "release", "boost", "retry"])
@pytest.mark.slow
def test_runs_are_steered_by_id_arm_tag_or_all_together(
    manifest: Manifest, type_: Type, do: str
) -> None:
    plain = [of(manifest, "plain", seed).run_id for seed in (1, 2, 10)]
    for given, names, said in (
        (["plain-s2", "plain s10"], plain[1:], "2 runs"),
        (["plain-s1"], plain[:1], "1 run"),
        (["--arm", "plain"], plain, "3 runs"),
        (["--tags", "arm=plain"], plain, "3 runs"),
        (["--tags", "first", "--arm", "plain"], plain, "3 runs"),
        (["--all"], None, "6 runs"),
    ):
        code, out, err = type_(do, "sine", *given, "--why", "a reason")
        assert (code, out, err) == (0, "", f"{do}: {said} of sine\n")
        last = asked(manifest)[-1]
        if do == "retry" and names is None:  # it names each run's newest session
            names = [run.run_id for run in manifest.runs]
        assert (last["do"], last["runs"], last["why"]) == (do, names, "a reason")
        assert last.get("priority") == (1000 if do == "boost" else None)


@pytest.mark.parametrize("do", ["cancel", "hold", "release", "boost", "retry"])
@pytest.mark.slow
def test_a_command_that_names_no_runs_or_in_two_ways_is_refused(
    manifest: Manifest, type_: Type, do: str
) -> None:
    for given, told in (
        ((), f"cupel jobs {do} needs runs, and there are none: type ids, or --arm and --tags"),
        (("--all", "--arm", "plain"), f"cupel jobs {do} needs runs, and there is more than one"),
        (("plain-s1", "--all"), f"cupel jobs {do} needs runs, and there is more than one"),
    ):
        assert refused(type_, do, "sine", *given).startswith(told), given
    assert asked(manifest) == []


@pytest.mark.slow
def test_runs_that_the_study_has_not_are_refused_and_nothing_is_written(
    manifest: Manifest, type_: Type
) -> None:
    run = of(manifest, "plain", 2).run_id
    wrong = run.replace("plain", "plian")
    for given, told in (
        (("s1",), "'s1' could be any of 2 runs: sine-plain-s1-"),
        ((wrong,), f"no run of this study is called '{wrong}'; did you mean '{run}'?"),
        (("",), "no run of this study is called ''"),
        (("--arm", "plan"), "no arm of study sine is called 'plan'; did you mean 'plain'?"),
        (("--tags", "x"), "no tag of study sine is called 'x'"),
    ):
        assert refused(type_, "cancel", "sine", *given).startswith(told), given
    told = refused(type_, "cancel", "sin", "--all")
    assert told.startswith("no study is called 'sin'; did you mean 'sine'?")
    assert asked(manifest) == []


@pytest.mark.slow
def test_what_was_asked_shows_in_the_states(manifest: Manifest, type_: Type) -> None:
    def state() -> tuple[str, int]:
        row = facts_of(type_, "show", "sine", "plain-s1")
        return row["state"], row["priority"]

    type_("hold", "sine", "plain-s1")
    assert state() == ("held", 100)
    type_("release", "sine", "--all")
    assert state() == ("planned", 100)
    type_("boost", "sine", "--arm", "plain", "-p", "7")
    assert state() == ("planned", 7)
    type_("cancel", "sine", "plain-s1")
    assert state() == ("cancelled", 7)
    type_("retry", "sine", "plain-s1")
    assert state() == ("planned", 7)


@pytest.mark.slow
def test_retry_failed_finds_those_that_failed_or_could_not_begin(
    mixed: Manifest, type_: Type
) -> None:
    code, out, err = type_("retry", "sine", "--failed")
    assert (code, out, err) == (0, "", "retry: 2 runs of sine\n")
    bad = {of(mixed, "plain", 2).run_id, of(mixed, "drop", 2).run_id}
    assert set(asked(mixed)[-1]["runs"]) == bad
    states = {state.run.run_id: state.status for state in study_state(mixed)}
    assert {states[run] for run in bad}.isdisjoint({"refused"})

    before = asked(mixed)
    for given in (["--all"], ["plain-s1"], ["--arm", "plain"], ["--tags", "first"]):
        assert refused(type_, "retry", "sine", "--failed", *given).startswith("--failed names the")
    assert asked(mixed) == before


def test_retry_failed_says_so_when_none_has(manifest: Manifest, type_: Type) -> None:
    assert type_("retry", "sine", "--failed") == (0, "", "no run of sine has failed\n")
    assert asked(manifest) == []


def test_a_worker_of_a_host_in_quarantine_says_so_and_what_ends_that(
    manifest: Manifest, type_: Type
) -> None:
    here = socket.gethostname()
    control.append(manifest.folder, "quarantine", [], why="it burns", host=here, device="")
    code, out, err = type_("work", "sine")
    told = f"(it burns); cupel jobs release sine --host {here} ends that"
    assert (code, out, err) == (0, "", f"nothing begins on {here} for an hour {told}\n")
    assert list_runs(manifest.root) == []


def test_a_host_is_released_that_is_in_quarantine_and_no_other(
    manifest: Manifest, type_: Type
) -> None:
    control.append(manifest.folder, "quarantine", [], why="it burns", host="one", device="0")
    before = asked(manifest)
    told = refused(type_, "release", "sine", "--host", "two")
    assert told == "no host in quarantine is called 'two' (there are: one)"
    told = refused(type_, "release", "sine", "plain-s1", "--host", "one")
    assert told == "--host releases a host, not runs; leave out one of them"
    assert asked(manifest) == before
    code, _, err = type_("release", "sine", "--host", "one")
    assert (code, err) == (0, "release: one may work on sine again\n")
    assert Control.of(manifest.folder).quarantined == {}


# ---- recover, workers --------------------------------------------------------------------------


@pytest.mark.slow
def test_recover_shows_what_waits_unseen_and_how_to_release_it(
    mixed: Manifest, type_: Type
) -> None:
    control.append(mixed.folder, "quarantine", [], why="it burns", host="one", device="0")
    head, *lines = lines_of(type_, "recover", "sine")
    assert head.split() == ["run", "state", "attempts", "reason"]
    assert [line.split() for line in lines[:-1]] == [
        [of(mixed, "plain", 10).run_id, "held", "0", "no", "room"]
    ]
    assert lines[-1] == "quarantined: one 0: it burns (cupel jobs release sine --host one)"
    facts = facts_of(type_, "recover", "sine")
    assert [row["state"] for row in facts["runs"]] == ["held"]
    assert facts["quarantined"] == [{"host": "one", "device": "0", "why": "it burns"}]


def test_recover_says_so_when_nothing_is_stuck(manifest: Manifest, type_: Type) -> None:
    (line,) = lines_of(type_, "recover", "sine")
    assert line == "nothing to recover: no run is crashed, silent, waiting or held"


@pytest.mark.slow
def test_a_run_whose_process_is_gone_is_shown_as_crashed(manifest: Manifest, type_: Type) -> None:
    run = of(manifest, "plain", 1)
    code = (
        "import sys, os, signal; from pathlib import Path\n"
        "from cupel.studies.manifest import load_manifest\n"
        "sys.path.insert(0, sys.argv[2]); from test_jobs import begun\n"
        "manifest = load_manifest(Path(sys.argv[1]))\n"
        "begun(manifest, manifest.run(sys.argv[3])).log({'loss': 3.0}, step=7)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", code, str(manifest.folder), here, run.run_id]
    subprocess.run(command, check=False)
    # Of its one attempt nobody has told; it is waited a moment for before it is tried again.
    (row,) = facts_of(type_, "recover", "sine")["runs"]
    assert (row["run"], row["step"]) == (run.run_id, 7)
    assert row["state"] in ("crashed", "waiting")


@pytest.mark.slow
def test_a_threshold_of_ones_own_finds_those_silent_for_longer(
    manifest: Manifest, type_: Type
) -> None:
    session = begun(manifest, of(manifest, "plain", 1))
    session.log({"loss": 1.0}, step=1)
    try:
        assert facts_of(type_, "recover", "sine")["runs"] == []
        assert facts_of(type_, "recover", "sine", "--threshold", "3600")["runs"] == []
        (row,) = facts_of(type_, "recover", "sine", "--threshold", "0")["runs"]
        assert row["state"] == "silent"
        assert row["reason"].startswith("no sign of life for 0:0")
    finally:
        session.finish("interrupted")
    assert "--threshold" in refused(type_, "recover", "sine", "--threshold", "-1")


@pytest.mark.slow
def test_workers_are_shown_with_what_they_run(manifest: Manifest, type_: Type) -> None:
    (line,) = lines_of(type_, "workers", "sine")
    assert line == "nobody works on sine; begin with: cupel jobs work sine"
    assert facts_of(type_, "workers", "sine") == {"study": "sine", "workers": []}
    presence = Presence(manifest.folder, "here-1", 2)
    presence.show(["a", "b"])
    head, row = lines_of(type_, "workers", "sine")
    assert head.split() == ["worker", "state", "host", "pid", "slots", "running"]
    assert row.split()[:2] == ["here-1", "alive"]
    assert row.endswith("a, b")
    (found,) = facts_of(type_, "workers", "sine")["workers"]
    assert (found["pid"], found["running"]) == (os.getpid(), ["a", "b"])


@pytest.mark.slow
def test_looking_leaves_nothing_behind_but_a_cache(mixed: Manifest, type_: Type) -> None:
    def files() -> dict[str, bytes]:
        paths = [path for path in mixed.root.rglob("*") if path.is_file()]
        return {str(path): path.read_bytes() for path in paths if ".cache" not in path.parts}

    before = files()
    for command in (["ls", "sine"], ["show", "sine", "plain-s1"], ["recover", "sine"],
                    ["workers", "sine"]):  # fmt: skip
        facts_of(type_, *command)
        type_(*command)
    assert files() == before


# ---- work --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_work_refuses_what_is_no_study_and_no_run(manifest: Manifest, type_: Type) -> None:
    assert refused(type_, "work", "sin").startswith("no study is called 'sin'")
    told = refused(type_, "work", "sine", "--run", "x")
    assert told.startswith("no run of this study is called 'x'")
    for option in ("--workers", "--most"):
        assert option in refused(type_, "work", "sine", option, "0")
    assert [state.status for state in study_state(manifest)] == ["planned"] * 6


def test_work_says_so_when_there_is_nothing_to_do(mixed: Manifest, type_: Type) -> None:
    code, out, err = type_("work", "sine", "--run", "plain-s1")
    assert (code, out) == (0, "")
    assert err == "nothing to do: no run of sine that was meant can begin now\n"


@pytest.mark.slow
def test_a_worker_trains_what_it_is_given_and_a_cancelled_run_ends_for_good(
    tmp_path: Path,
) -> None:
    """One study, steered while it is worked on."""
    desk = new_desk(tmp_path / "desk")
    (desk.folder / "sine.yaml").write_text(
        RECIPE.replace("drop: {dropout: 0.5}", "slow: {train: {steps: 100000}}")
    )
    manifest = freeze(plan_study(desk.folder / "sine.yaml", root=desk.runs))

    done = desk.type("jobs", "work", "sine", "--run", "plain-s2", "--most", "1", "--no-wait")
    assert done.returncode == 0, done.stderr
    run = of(manifest, "plain", 2).run_id
    told = [line.split() for line in done.stderr.splitlines()]
    assert told == [["started", run], ["finished", run]]
    assert states(manifest) == {"plain s2": "finished"}

    desk.type("jobs", "boost", "sine", "--arm", "slow")
    desk.type("jobs", "hold", "sine", "plain-s1", "slow-s2", "slow-s10")
    process = desk.start("jobs", "work", "sine", "--workers", "1", "--most", "2")
    slow = of(manifest, "slow", 1)
    until(lambda: state_of(manifest, slow).step > 0, process)
    shown = json.loads(desk.type("jobs", "workers", "sine", "--json").stdout)
    assert [worker["running"] for worker in shown["workers"]] == [[slow.run_id]]
    assert desk.type("jobs", "cancel", "sine", "slow-s1", "--why", "too slow").returncode == 0
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert f"cancelled   {slow.run_id}: too slow" in err.splitlines()
    # The next one was taken, the held ones were not, and the cancelled one never again.
    assert states(manifest) == {
        "plain s2": "finished", "plain s1": "held", "slow s2": "held", "slow s10": "held",
        "slow s1": "cancelled", "plain s10": "finished",
    }  # fmt: skip
    assert layout.session_numbers(manifest.run_dir(slow)) == [1]
    again = desk.type("jobs", "work", "sine")
    assert again.returncode == 0
    assert "nothing to do" in again.stderr
    assert layout.session_numbers(manifest.run_dir(slow)) == [1]
    shown = json.loads(desk.type("jobs", "show", "sine", "slow-s1", "--json").stdout)
    assert [one["outcome"] for one in shown["attempt_list"]] == ["cancelled"]

    desk.type("jobs", "retry", "sine", "slow-s1")
    process = desk.start("jobs", "work", "sine", "--run", "slow-s1")
    until(lambda: layout.session_numbers(manifest.run_dir(slow)) == [1, 2], process)
    until(lambda: state_of(manifest, slow).status == "running", process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert states(manifest)["slow s1"] == "interrupted"


def states(manifest: Manifest) -> dict[str, str]:
    """How every run stands that somebody has touched."""
    return {
        f"{state.run.arm} s{state.run.seed}": state.status
        for state in study_state(manifest)
        if state.status != "planned"
    }


def state_of(manifest: Manifest, run: PlannedRun) -> Any:
    (found,) = [state for state in study_state(manifest) if state.run == run]
    return found


def until(true: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(0.05)
