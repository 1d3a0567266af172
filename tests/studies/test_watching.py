"""A study at one moment, from planted records; and who of several watchers raises its alerts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cupel.errors import UsageError
from cupel.jobs import control
from cupel.jobs.attempts import Attempt, write_attempt
from cupel.jobs.workers import Presence
from cupel.record.session import Session
from cupel.studies.manifest import Manifest, PlannedRun
from cupel.studies.state import Look
from cupel.studies.watching import LOCK, Overview, Watcher, overview, snapshot
from planted import Arm, around, plant
from queues import refuse

SEEDS = (1, 2, 3, 4)


def seen_of(manifest: Manifest, *, slots: int | None = None) -> Overview:
    look = Look(manifest)
    try:
        return overview(look, slots=slots)
    finally:
        look.close()


def planted(root: Path, done: int, **settings: Any) -> Manifest:
    """Two arms of four seeds, of which the first ones are accepted."""
    arms = {name: Arm(around(2.0, seeds=SEEDS[:done])) for name in ("plain", "wave")}
    return plant(root, arms, seeds=SEEDS, **settings)


def of(manifest: Manifest, arm: str, seed: int) -> PlannedRun:
    (run,) = [run for run in manifest.runs if (run.arm, run.seed) == (arm, seed)]
    return run


def begin(manifest: Manifest, run: PlannedRun, *, loss: float = 2.0, step: int = 10) -> Session:
    session = Session.start(
        root=manifest.root, project=manifest.project, name="n",
        config=manifest.config_of(run), identity=run.identity, run_id=run.run_id,
    )  # fmt: skip
    session.begin_at(0)
    session.log({"loss": loss}, step=step)
    return session


def fail(manifest: Manifest, run: PlannedRun) -> None:
    """An end that is not tried again."""
    begin(manifest, run).finish("failed", error="no such module")
    told = Attempt(1, "import", "no such module", begun=True, last_step=10, ended=time.time())
    write_attempt(manifest.run_dir(run), told)


# ---- the overview ------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_overview_counts_runs_and_steps(tmp_path: Path) -> None:
    manifest = planted(tmp_path, 2)
    session = begin(manifest, of(manifest, "wave", 3))
    seen = seen_of(manifest)
    session.finish("interrupted")
    assert seen.counts == {"finished": 4, "planned": 3, "running": 1}
    assert (seen.steps, seen.of_steps) == (4 * 40 + 10, 8 * 40)
    assert len(seen.states) == 8


@pytest.mark.slow
def test_throughput_is_that_of_the_last_hour(tmp_path: Path) -> None:
    seen = seen_of(planted(tmp_path / "new", 1))
    # Both ended within the seconds since the first began.
    assert seen.throughput.runs_per_hour > 2 * 60
    assert seen.throughput.steps_per_s > 0
    old = planted(tmp_path / "old", 1)
    for path in old.root.rglob("*"):
        os.utime(path, (1.7e9, 1.7e9))
    assert seen_of(old).throughput.runs_per_hour == 0


@pytest.mark.slow
def test_the_end_is_unknown_until_two_runs_of_each_cell_are_done(tmp_path: Path) -> None:
    one, two = planted(tmp_path / "one", 1), planted(tmp_path / "two", 2)
    early = seen_of(one, slots=2)
    assert early.eta is None
    assert early.unknown == (
        "2 runs of each variant must be done, or far enough: plain has 1, wave has 1"
    )
    later = seen_of(two, slots=2)
    assert later.unknown == ""
    assert later.eta is not None
    assert later.t <= later.eta.low <= later.eta.at <= later.eta.high < later.t + 60


@pytest.mark.slow
def test_nothing_is_forecast_while_nobody_works(tmp_path: Path) -> None:
    manifest = planted(tmp_path, 2)
    seen = seen_of(manifest)
    assert (seen.slots, seen.eta) == (0, None)
    assert seen.unknown == "runs are open, and no worker is there to take them"
    Presence(manifest.folder, "here", 3).show([])
    seen = seen_of(manifest)
    assert (seen.slots, seen.unknown) == (3, "")
    assert seen.eta is not None
    assert [worker["worker"] for worker in seen.workers] == ["here"]


@pytest.mark.slow
def test_more_runs_than_workers_say_count_as_so_many_slots(tmp_path: Path) -> None:
    """Somebody may train runs by hand."""
    manifest = planted(tmp_path, 2)
    sessions = [begin(manifest, of(manifest, arm, 3)) for arm in ("plain", "wave")]
    assert seen_of(manifest).slots == 2
    for session in sessions:
        session.finish("interrupted")


@pytest.mark.slow
def test_held_cancelled_and_refused_runs_are_not_waited_for(tmp_path: Path) -> None:
    manifest = planted(tmp_path, 2)
    for arm in ("plain", "wave"):
        refuse(manifest, of(manifest, arm, 3), "no such corpus")
    control.append(manifest.folder, "hold", [of(manifest, "plain", 4).run_id])
    control.append(manifest.folder, "cancel", [of(manifest, "wave", 4).run_id])
    seen = seen_of(manifest)
    assert seen.counts == {"finished": 4, "refused": 2, "held": 1, "cancelled": 1}
    assert seen.unknown == ""
    assert seen.eta is not None
    assert seen.eta.at == seen.t


@pytest.mark.slow
def test_runs_that_ended_without_training_say_nothing_of_how_long_one_takes(
    tmp_path: Path,
) -> None:
    manifest = planted(tmp_path, 1)
    refuse(manifest, of(manifest, "plain", 2), "no such corpus")
    fail(manifest, of(manifest, "plain", 3))
    control.append(manifest.folder, "cancel", [of(manifest, "wave", 2).run_id])
    seen = seen_of(manifest, slots=1)
    assert seen.unknown.endswith("plain has 1, wave has 1")


@pytest.mark.slow
def test_an_overview_of_a_study_that_is_done_is_now(tmp_path: Path) -> None:
    seen = seen_of(planted(tmp_path, 4))
    assert seen.counts == {"finished": 8}
    assert seen.unknown == ""
    assert seen.eta is not None
    assert seen.eta.high == seen.t


# ---- what alerts are raised by -----------------------------------------------------------------


@pytest.mark.slow
def test_a_snapshot_counts_what_ended_and_what_a_worker_could_take(tmp_path: Path) -> None:
    manifest = planted(tmp_path, 1)
    fail(manifest, of(manifest, "plain", 2))
    refuse(manifest, of(manifest, "wave", 2), "no such corpus")
    control.append(manifest.folder, "hold", [of(manifest, "plain", 3).run_id])
    session = begin(manifest, of(manifest, "wave", 3), loss=float("nan"), step=7)
    Presence(manifest.folder, "here", 3).show([])
    now = snapshot(manifest, seen_of(manifest))
    session.finish("interrupted")
    assert (now.ended, now.failed, now.diverged) == (4, 2, 0)
    assert (now.open, now.claimable, now.free) == (2, 2, 2)
    (running,) = now.running
    assert (running.name, running.step) == (of(manifest, "wave", 3).run_id, 7)
    assert str(running.loss) == "nan"
    assert abs(running.seen - now.t) < 30
    assert now.disk_free is not None
    assert 0 <= now.disk_free <= 1


@pytest.mark.slow
def test_runs_that_wait_for_another_try_are_open_and_not_to_be_had(tmp_path: Path) -> None:
    manifest = planted(tmp_path, 2)
    run = of(manifest, "plain", 3)
    begin(manifest, run).finish("failed", error="a fault of the host")
    told = Attempt(1, "node", "a fault of the host", begun=True, ended=time.time(), host="one")
    write_attempt(manifest.run_dir(run), told)
    seen = seen_of(manifest)
    assert seen.counts["waiting"] == 1
    now = snapshot(manifest, seen)
    assert (now.open, now.claimable) == (4, 3)


# ---- watchers ----------------------------------------------------------------------------------

# No disk is as empty as this asks for, and four runs are enough to tell how many fail.
FULL = {"alerts": {"disk_free": 0.999999, "after": 4}}


@contextmanager
def a_watcher(manifest: Manifest, **options: Any) -> Iterator[Watcher]:
    watcher = Watcher(manifest, **options)
    try:
        yield watcher
    finally:
        watcher.close()


def keys(alerts: Any) -> list[tuple[str, bool]]:
    return [(alert.key, alert.raised) for alert in alerts]


@pytest.fixture
def study(tmp_path: Path) -> Manifest:
    return planted(tmp_path, 2, **FULL)


@pytest.mark.slow
def test_an_alert_is_told_once_and_remembered_by_the_next_watcher(study: Manifest) -> None:
    seen = seen_of(study)
    with a_watcher(study) as watcher:
        assert watcher.leads
        assert keys(watcher.check(seen)) == [("disk", True)]
        assert watcher.check(seen) == []
        assert keys(watcher.raised) == [("disk", True)]
    with a_watcher(study) as later:
        assert keys(later.raised) == [("disk", True)]
        assert later.check(seen) == []


@pytest.mark.slow
def test_one_of_two_watchers_leads_and_the_other_sees_what_it_has_raised(
    study: Manifest, tmp_path: Path
) -> None:
    told = tmp_path / "told.jsonl"
    seen = seen_of(study)
    with (
        a_watcher(study, command=writes_to(told)) as first,
        a_watcher(study, command=writes_to(told)) as second,
    ):
        assert (first.leads, second.leads) == (True, False)
        assert second.check(seen) == [], "nobody has raised anything yet"
        assert keys(first.check(seen)) == [("disk", True)]
        assert keys(second.check(seen)) == [("disk", True)]
        assert second.check(seen) == []
        assert keys(second.raised) == [("disk", True)]
    assert len(told.read_text().splitlines()) == 1, "two hooks heard of one alert"


@pytest.mark.slow
def test_what_the_leader_clears_is_told_as_over_by_the_others(study: Manifest) -> None:
    with a_watcher(study) as first, a_watcher(study) as second:
        first.check(seen_of(study))
        second.check(seen_of(study))
        alerts = study.study.alerts.model_copy(update={"disk_free": 0.0})
        mended = replace(study, study=study.study.model_copy(update={"alerts": alerts}))
        first.close()
        with a_watcher(mended) as third:
            assert keys(third.check(seen_of(study))) == [("disk", False)]
            assert keys(second.check(seen_of(study))) == [("disk", False)]
            assert second.raised == []


@pytest.mark.slow
def test_when_the_leader_ends_another_watcher_takes_over_and_repeats_nothing(
    study: Manifest, tmp_path: Path
) -> None:
    told = tmp_path / "told.jsonl"
    first, second = Watcher(study), Watcher(study, command=writes_to(told))
    first.check(seen_of(study))
    first.close()
    assert second.check(seen_of(study)) == [], "the first one has told that"
    assert second.leads
    fail_all(study)
    assert keys(second.check(seen_of(study))) == [("failures", True)]
    second.close()
    assert [json.loads(line)["key"] for line in told.read_text().splitlines()] == ["failures"]


def fail_all(study: Manifest) -> None:
    for arm in ("plain", "wave"):
        for seed in (3, 4):
            fail(study, of(study, arm, seed))


@pytest.mark.slow
def test_a_leader_that_is_killed_is_replaced(study: Manifest) -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from cupel.studies.manifest import load_manifest\n"
        "from cupel.studies.watching import Watcher\n"
        "watcher = Watcher(load_manifest(Path(sys.argv[1])))\n"
        "print(watcher.leads, flush=True)\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(study.folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    with a_watcher(study) as second:
        assert not second.leads
        process.kill()
        process.communicate()
        assert keys(second.check(seen_of(study))) == [("disk", True)]
        assert second.leads


@pytest.mark.slow
def test_an_alert_reaches_a_command_with_the_study_that_it_is_of(
    study: Manifest, tmp_path: Path
) -> None:
    told = tmp_path / "told.jsonl"
    with a_watcher(study, command=writes_to(told)) as watcher:
        watcher.check(seen_of(study))
    (line,) = told.read_text().splitlines()
    alert = json.loads(line)
    assert (alert["study"], alert["project"], alert["key"]) == ("planted", "p", "disk")
    assert alert["raised"]


def writes_to(path: Path) -> str:
    """A command that appends what it hears to a file."""
    script = path.with_suffix(".sh")
    script.write_text(f"#!/bin/sh\ncat >> '{path}'\n")
    script.chmod(0o755)
    path.touch()
    return str(script)


@pytest.mark.slow
def test_a_hook_that_fails_is_told_of_once(study: Manifest) -> None:
    problems: list[str] = []
    with a_watcher(study, command="false", on_problem=problems.append) as watcher:
        watcher.check(seen_of(study))
        fail_all(study)
        watcher.check(seen_of(study))
    (problem,) = problems
    assert problem.startswith("an alert did not get through to the command false: ")


@pytest.mark.slow
def test_alerts_that_cannot_be_read_begin_anew_and_that_is_told(study: Manifest) -> None:
    (study.folder / "alerts.json").write_text("{")
    problems: list[str] = []
    with a_watcher(study, on_problem=problems.append) as watcher:
        assert keys(watcher.check(seen_of(study))) == [("disk", True)]
    (problem,) = problems
    assert "alerts begin anew" in problem


@pytest.mark.slow
def test_alerts_that_cannot_be_kept_are_told_all_the_same(study: Manifest) -> None:
    (study.folder / "alerts.jsonl").mkdir()
    problems: list[str] = []
    with a_watcher(study, on_problem=problems.append) as watcher:
        assert keys(watcher.check(seen_of(study))) == [("disk", True)]
        assert watcher.check(seen_of(study)) == []
    (problem,) = problems
    assert problem.startswith(f"cannot keep the alerts in {study.folder}")


@pytest.mark.slow
def test_where_nothing_can_be_locked_each_watcher_leads_on_its_own(study: Manifest) -> None:
    (study.folder / LOCK).mkdir()  # cannot be opened as a file
    with a_watcher(study) as first, a_watcher(study) as second:
        assert first.leads
        assert second.leads
        for watcher in (first, second):
            assert keys(watcher.check(seen_of(study))) == [("disk", True)]
    assert not (study.folder / "alerts.json").exists()


@pytest.mark.slow
def test_hooks_that_cannot_work_are_refused_and_nothing_is_locked(study: Manifest) -> None:
    with pytest.raises(UsageError, match="no address of the web"):
        Watcher(study, webhook="ftp://x")
    with pytest.raises(UsageError, match="is not there to be run"):
        Watcher(study, command="nosuchcommand")
    assert not (study.folder / LOCK).exists()
    with a_watcher(study) as watcher:
        assert watcher.leads
