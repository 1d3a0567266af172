"""A keeper keeps one job for a caller that may be killed, and what it tells of the end is true."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cupel.jobs import keeper
from cupel.jobs.backend import Handle, Job

CALLS = "import json, sys; from cupel.jobs import keeper; keeper.keep(json.loads(sys.argv[1]))"
WAITS = "echo $$; trap '' {ignored}; while :; do sleep 0.1; done"


def order(tmp_path: Path, script: str, *, grace_s: float = 0.5) -> keeper.Order:
    return {
        "name": "job",
        "command": ["sh", "-c", script],
        "environment": {"WORD": "hello"},
        "log": str(tmp_path / "log"),
        "time_s": None,
        "folder": str(tmp_path),
        "asked": str(tmp_path / "asked"),
        "state": str(tmp_path / "state"),
        "grace_s": grace_s,
        "about": {"node": "n1"},
    }


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(0.01)


def calling(given: keeper.Order) -> subprocess.Popen[bytes]:
    """A process that keeps a job which has printed its pid by now."""
    caller = subprocess.Popen([sys.executable, "-c", CALLS, json.dumps(given)])
    log = Path(given["log"])
    until(lambda: log.exists() and log.read_text().endswith("\n"))
    return caller


def ask(given: keeper.Order, line: str) -> None:
    with Path(given["asked"]).open("a") as file:
        file.write(f"{line}\n")


def ended(given: keeper.Order) -> dict[str, object]:
    state = Path(given["state"])
    until(lambda: "ended" in keeper.read_state(state))
    found: dict[str, object] = keeper.read_state(state)["ended"]
    return found


def is_gone(pid: int) -> bool:
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True


def test_a_job_that_speaks_has_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal to a job that had said it was ready was lost: it did not seem to have begun."""
    given, told = order(tmp_path, "exit 0"), []
    submit = keeper.LocalBackend.submit

    def watched(backend: keeper.LocalBackend, jobs: list[Job]) -> list[Handle]:
        told.append(keeper.read_state(Path(given["state"])))
        return submit(backend, jobs)

    monkeypatch.setattr(keeper.LocalBackend, "submit", watched)
    monkeypatch.setattr(keeper._Keeper, "_mind_the_caller", lambda *_: None)
    keeper._Keeper(given).run()
    (state,) = told
    assert state["node"] == "n1"
    assert "ended" not in state
    assert ended(given)["code"] == 0


def test_a_job_is_kept_to_its_end_in_its_folder(tmp_path: Path) -> None:
    state = keeper.keep(order(tmp_path, "echo $WORD $(pwd); exit 3"))
    assert state == keeper.read_state(tmp_path / "state")
    assert (state["ended"]["code"], state["ended"]["state"], state["node"]) == (3, "", "n1")
    assert (tmp_path / "log").read_text() == f"hello {tmp_path}\n"


def test_what_is_cancelled_before_it_begins_does_not_begin(tmp_path: Path) -> None:
    given = order(tmp_path, "touch begun")
    ask(given, keeper.CANCEL)
    told = keeper.keep(given)["ended"]
    assert (told["code"], told["state"]) == (-signal.SIGTERM, "CANCELLED")
    assert not (tmp_path / "begun").exists()


def test_a_folder_that_is_not_there_is_the_callers_to_know(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="elsewhere"):
        keeper.keep({**order(tmp_path, "true"), "folder": str(tmp_path / "elsewhere")})


@pytest.mark.slow
def test_signals_are_sent_once_and_half_a_line_waits_for_its_end(tmp_path: Path) -> None:
    script = "trap 'echo heard' USR1; echo $$; while :; do sleep 0.1; done"
    given = order(tmp_path, script)
    caller = calling(given)
    ask(given, str(int(signal.SIGUSR1)))
    log = Path(given["log"])
    until(lambda: "heard" in log.read_text())
    with Path(given["asked"]).open("a") as file:
        file.write("1")  # of 15
    time.sleep(3 * keeper.LOOK_S)
    assert caller.poll() is None
    ask(given, "5")
    assert ended(given)["code"] == -signal.SIGTERM
    assert caller.wait() == 0
    assert log.read_text().count("heard") == 1


@pytest.mark.slow
@pytest.mark.parametrize("ignored, code", [("HUP", signal.SIGTERM), ("TERM", signal.SIGKILL)])
def test_a_killed_caller_ends_the_job_and_the_state_says_so(
    tmp_path: Path, ignored: str, code: int
) -> None:
    given = order(tmp_path, WAITS.format(ignored=ignored))
    caller = calling(given)
    job = int(Path(given["log"]).read_text())
    caller.kill()
    caller.wait()
    told = ended(given)
    assert (told["code"], told["state"]) == (-code, keeper.LOST)
    assert is_gone(job)
