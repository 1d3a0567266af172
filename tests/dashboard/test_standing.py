"""How a run stands: that its process lives is one fact, that it trains another."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cupel.dashboard import standing
from cupel.dashboard.store import Store
from cupel.record import heartbeat
from cupel.record.session import Session

SCRIPT = """
import sys, time
from cupel.record.session import Session
facts = dict(project="p", name="n", config={}, identity="i", run_id="r")
session = Session.start(root=sys.argv[1], **facts)
session.begin_at(0)
for step in range(1, 40):
    session.log({"loss": 1 / step}, step=step)
    time.sleep(0.005)
print("logged", flush=True)
time.sleep(600)
"""


def test_a_finished_run_tells_its_numbers(tmp_path: Path) -> None:
    session = Session.start(root=tmp_path, project="p", name="n", config={}, identity="i")
    session.begin_at(0)
    for step in range(1, 301):
        session.log({"loss": 3.0 - step / 100}, step=step, t=1.7e9 + step)
    session.finish("finished")
    state = standing.of_run(Store(tmp_path), f"p/{session.run_id}")
    assert (state.status, state.alive) == ("finished", False)
    assert (state.step, state.headline) == (300, "loss")
    assert (state.current, state.best, state.best_step) == (0.0, 0.0, 300)
    assert state.pace is not None
    assert state.pace.velocity == pytest.approx(1.0)
    assert state.trend is not None
    assert state.trend.label == "falling"
    assert state.eta is None
    assert state.last_line == 1.7e9 + 300


@pytest.mark.slow
def test_the_least_value_of_all_is_found_however_long_ago(tmp_path: Path) -> None:
    session = Session.start(root=tmp_path, project="p", name="n", config={}, identity="i")
    for step in range(standing.NEWEST + 500):
        session.log({"loss": -5.0 if step == 77 else 1.0}, step=step)
    session.finish("finished")
    state = standing.of_run(Store(tmp_path), f"p/{session.run_id}")
    assert (state.best, state.best_step) == (-5.0, 77)


def test_a_run_without_numbers_is_told_as_such(tmp_path: Path) -> None:
    session = Session.start(root=tmp_path, project="p", name="n", config={}, identity="i")
    state = standing.of_run(Store(tmp_path), f"p/{session.run_id}")
    assert state.status == "running"
    assert (state.step, state.headline, state.current) == (None, None, None)
    session.finish("finished")


@pytest.mark.slow
def test_a_process_that_hangs_is_alive_and_silent_and_a_killed_one_is_crashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            child.stdout.readline()
            store = Store(tmp_path)
            state = standing.of_run(store, "p/r")
            assert (state.status, state.alive) == ("running", True)
            # A minute is a minute; here it is told to be a tenth of a second.
            monkeypatch.setattr(standing, "STALE_S", 0.1)
            monkeypatch.setattr(heartbeat, "STALE_S", 60.0)
            time.sleep(0.3)
            path = tmp_path / "p/r/sessions/0001/heartbeat.r0"
            os.utime(path)  # it shows itself, and logs nothing
            state = standing.of_run(store, "p/r")
            assert (state.status, state.alive) == ("silent", True)
            assert state.why is not None
            assert "nothing logged" in state.why
        finally:
            child.send_signal(signal.SIGKILL)
    state = standing.of_run(store, "p/r")
    assert (state.status, state.alive) == ("crashed", False)
    assert state.why is not None


def test_tags_that_are_edited_meanwhile_are_told(tmp_path: Path) -> None:
    from cupel.record import editing

    session = Session.start(root=tmp_path, project="p", name="n", config={}, identity="i")
    session.finish("finished")
    store, key = Store(tmp_path), f"p/{session.run_id}"
    assert standing.of_run(store, key).tags == []
    editing.change_tags(session.run_dir, add=["good"])
    assert standing.of_run(store, key).tags == ["good"]


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_sign_from_another_time_is_no_sign(tmp_path: Path, hours: int) -> None:
    session = Session.start(root=tmp_path, project="p", name="n", config={}, identity="i")
    session.log({"loss": 1.0}, step=1)
    then = time.time() + 3600 * hours
    os.utime(session.run_dir / "sessions/0001/heartbeat.r0", (then, then))
    assert standing.of_run(Store(tmp_path), f"p/{session.run_id}").status == "silent"
    session.finish("finished")
