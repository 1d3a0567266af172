"""Whose a session is, by the disk's clock, and by the process where it can be seen."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cupel.jobs.attempts import Attempt, write_attempt
from cupel.jobs.leases import DiskClock, end_unbegun, hold_of, last_sign
from cupel.record import files, layout, processes
from cupel.record.claims import LEASE, claim_session
from cupel.record.session import Session

BOOT = "0" * 8


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return tmp_path / "p" / "r"


@pytest.fixture
def clock(tmp_path: Path) -> DiskClock:
    return DiskClock(tmp_path / "workers" / "me.clock")


def ours() -> dict[str, object]:
    return {"supervisor": processes.this_process().as_json()}


def dead() -> dict[str, object]:
    """A process of this machine that has ended."""
    code = "from cupel.record import processes; print(processes.this_process().as_json())"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    fields: dict[str, object] = eval(told.stdout)
    return fields


def elsewhere() -> dict[str, object]:
    return {**processes.this_process().as_json(), "host": "elsewhere", "pid_namespace": "x"}


def become(session: Path, process: dict[str, object]) -> None:
    """Have a session's heartbeat name this process."""
    files.write_json(session / layout.heartbeat_name(), {"schema": 1, **process})


def aged(session: Path, seconds: float) -> None:
    """Have a session written nothing for so long."""
    then = time.time() - seconds
    for path in (*session.iterdir(), session):
        os.utime(path, (then, then))


def test_a_claim_is_held_until_its_lease_is_over(run_dir: Path, clock: DiskClock) -> None:
    claim = claim_session(run_dir, 1, ours())
    assert hold_of(run_dir, 1, clock=clock) == "held"
    aged(claim.dir, 50)
    assert hold_of(run_dir, 1, clock=clock) == "held"
    assert hold_of(run_dir, 1, clock=clock, lease_s=40) == "expired"
    claim.touch()
    assert hold_of(run_dir, 1, clock=clock, lease_s=40) == "held"


@pytest.mark.parametrize("jump", [-1e6, 1e6])
def test_a_clock_that_jumps_frees_nothing_and_keeps_nothing(
    run_dir: Path, clock: DiskClock, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    now = time.time
    claim_session(run_dir, 1, ours())
    old = claim_session(run_dir, 2, ours())
    become(claim_session(run_dir, 3, ours()).dir, elsewhere())
    bare = layout.session_dir(run_dir, 4)
    bare.mkdir()  # somebody is about to write its heartbeat
    aged(old.dir, 100)
    monkeypatch.setattr(time, "time", lambda: now() + jump)
    found = [hold_of(run_dir, number, clock=clock) for number in (1, 2, 3, 4)]
    assert found == ["held", "expired", "held", "held"]


def test_a_process_of_this_machine_that_has_died_is_seen_at_once(
    run_dir: Path, clock: DiskClock
) -> None:
    gone = dead()
    become(claim_session(run_dir, 1, {"supervisor": gone}).dir, gone)
    assert hold_of(run_dir, 1, clock=clock) == "dead"
    become(claim_session(run_dir, 2, {}).dir, gone)  # nobody is named who would judge it
    assert hold_of(run_dir, 2, clock=clock) == "dead"


def test_whoever_supervises_has_time_to_judge_and_not_for_ever(
    run_dir: Path, clock: DiskClock
) -> None:
    claim = claim_session(run_dir, 1, ours())
    become(claim.dir, dead())
    assert hold_of(run_dir, 1, clock=clock) == "held"
    aged(claim.dir, 31)
    assert hold_of(run_dir, 1, clock=clock) == "dead"
    ended = claim_session(run_dir, 2, ours())
    end_unbegun(run_dir, 2, status="failed", error="no", started=1.0)
    assert hold_of(run_dir, 2, clock=clock) == "held"
    aged(ended.dir, 5)
    assert hold_of(run_dir, 2, clock=clock, lease_s=4) == "ended"
    write_attempt(run_dir, Attempt(2, "unknown"))
    assert hold_of(run_dir, 2, clock=clock) == "ended"


def test_a_session_that_was_begun_by_hand_waits_for_no_judgement(
    tmp_path: Path, run_dir: Path, clock: DiskClock
) -> None:
    session = Session.start(
        root=tmp_path, project="p", name="r", run_id="r", config={}, identity="i"
    )
    assert hold_of(run_dir, 1, clock=clock) == "held"
    session.finish("interrupted")
    assert hold_of(run_dir, 1, clock=clock) == "ended"


def test_of_another_machine_only_the_age_tells(run_dir: Path, clock: DiskClock) -> None:
    claim = claim_session(run_dir, 1, {"supervisor": elsewhere()})
    become(claim.dir, elsewhere())
    assert hold_of(run_dir, 1, clock=clock) == "held"
    aged(claim.dir, 61)
    assert hold_of(run_dir, 1, clock=clock) == "expired"


def test_a_line_is_a_sign_of_life_where_the_heartbeat_hangs(
    run_dir: Path, clock: DiskClock
) -> None:
    claim = claim_session(run_dir, 1, {})
    lines = claim.dir / layout.metrics_name()
    lines.write_bytes(b"{}\n")
    aged(claim.dir, 100)
    assert hold_of(run_dir, 1, clock=clock) == "expired"
    with lines.open("ab") as file:
        file.write(b"{}\n")
    assert hold_of(run_dir, 1, clock=clock) == "held"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pid": "x"}', b'{"pid": 1e400}', b"\xff"])
def test_a_damaged_heartbeat_or_lease_is_judged_by_its_age(
    run_dir: Path, clock: DiskClock, content: bytes
) -> None:
    claim = claim_session(run_dir, 1, ours())
    for path in (claim.heartbeat, claim.dir / LEASE):
        path.write_bytes(content)
    assert hold_of(run_dir, 1, clock=clock) == "held"
    aged(claim.dir, 61)
    assert hold_of(run_dir, 1, clock=clock) == "expired"


def test_whoever_stood_still_between_two_looks_sees_no_silence(
    run_dir: Path, clock: DiskClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A laptop was asleep just after the clock was asked: the sessions have signed since."""
    claim = claim_session(run_dir, 1, {})
    become(claim.dir, elsewhere())
    clock.now()
    asleep = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: asleep)
    clock._told -= 1000
    assert hold_of(run_dir, 1, clock=clock) == "held"


def test_a_sign_from_the_future_does_not_hold_a_session_for_ever(
    run_dir: Path, clock: DiskClock
) -> None:
    claim = claim_session(run_dir, 1, {})
    become(claim.dir, elsewhere())
    aged(claim.dir, -1000)  # the disk's clock was set back
    assert hold_of(run_dir, 1, clock=clock) == "expired"


@pytest.mark.slow
def test_the_disks_clock_goes_with_the_disk(clock: DiskClock) -> None:
    first = clock.now()
    assert abs(first - time.time()) < 5
    time.sleep(0.3)
    assert 0.25 < clock.now() - first < 5


def test_a_disk_that_cannot_be_touched_has_this_machines_time(tmp_path: Path) -> None:
    (tmp_path / "workers").write_text("no folder")
    clock = DiskClock(tmp_path / "workers" / "me.clock")
    assert abs(clock.now() - time.time()) < 5


def test_the_last_sign_of_a_session_that_is_gone_was_never(tmp_path: Path) -> None:
    assert last_sign(tmp_path / "nowhere") == 0.0


def test_how_an_unbegun_session_ended_is_said_once(run_dir: Path) -> None:
    claim = claim_session(run_dir, 1, {})
    for error in ("the first", "the second"):
        end_unbegun(run_dir, 1, status="failed", error=error, started=1.0)
    assert files.read_json(claim.dir / layout.SESSION)["error"] == "the first"
