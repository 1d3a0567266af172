"""A session that was claimed is adopted once, by the process that was told, and by no other."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

from crew import wait_until
from cupel.errors import RecordError, ResumeError, Superseded, UnknownName
from cupel.jobs.leases import end_unbegun
from cupel.record import claims, files, layout
from cupel.record.claims import Claim, adopt_session, claim_session, is_claim
from cupel.record.index import Index
from cupel.record.reader import RunRecord, list_runs
from cupel.record.session import Session
from cupel.record.verifying import check_run

FORK = multiprocessing.get_context("fork")


def started(root: Path, claim: Claim | None = None, **given: Any) -> Session:
    """A session of the run `r`."""
    given = {"project": "p", "name": "r", "run_id": "r", "config": {}, "identity": "i", **given}
    return Session.start(root=root, claim=claim, **given)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return tmp_path / "p" / "r"


def at_once(processes: int, task: Callable[[], bool]) -> list[bool]:
    """What so many processes, which begin at the same moment, come to."""
    barrier = FORK.Barrier(processes)

    def child(barrier: Barrier, pipe: Connection) -> None:
        barrier.wait(30)
        pipe.send(task())

    pipes = [FORK.Pipe() for _ in range(processes)]
    started = [FORK.Process(target=child, args=(barrier, ours)) for _, ours in pipes]
    for process in started:
        process.start()
    found: list[bool] = [theirs.recv() for theirs, _ in pipes]
    for process in started:
        process.join()
    return found


@pytest.mark.slow
def test_of_many_that_claim_at_once_exactly_one_gets_each_session(run_dir: Path) -> None:
    for number in (1, 2, 3, 4):

        def claims_it(number: int = number) -> bool:
            try:
                claim_session(run_dir, number, {"worker": str(os.getpid())})
            except FileExistsError:
                return False
            return True

        assert sum(at_once(8, claims_it)) == 1
        lease = claims.read_lease(run_dir, number)
        assert lease["token"]
        assert lease["worker"]


@pytest.mark.slow
def test_of_many_that_were_told_one_claim_exactly_one_adopts_it(run_dir: Path) -> None:
    """A scheduler that starts a job twice starts two processes with one token."""
    for number in (1, 2, 3, 4):
        claim = claim_session(run_dir, number, {})

        def adopts(claim: Claim = claim) -> bool:
            try:
                adopt_session(claim)
            except ResumeError:
                return False
            return True

        assert sum(at_once(8, adopts)) == 1


def test_a_claim_is_adopted_once(run_dir: Path) -> None:
    claim = claim_session(run_dir, 1, {})
    assert adopt_session(claim) == claim.heartbeat
    with pytest.raises(ResumeError, match="session 0001 of run r has begun already; let it work"):
        adopt_session(claim)


def test_a_claim_needs_its_token(run_dir: Path) -> None:
    claim = claim_session(run_dir, 1, {})
    with pytest.raises(ResumeError, match="is claimed by somebody else; let it work"):
        adopt_session(Claim(run_dir, 1, "0" * 16))
    with pytest.raises(ResumeError, match="is claimed by somebody else"):
        adopt_session(Claim(run_dir, 2, claim.token))  # there is no such session
    assert adopt_session(claim)


def test_a_claim_that_was_overtaken_is_not_adopted(run_dir: Path) -> None:
    claim = claim_session(run_dir, 1, {})
    claim_session(run_dir, 2, {})
    with pytest.raises(Superseded, match="has a successor: its lease was over before it began"):
        adopt_session(claim)
    with pytest.raises(Superseded):
        started(run_dir.parents[1], claim)
    assert not (run_dir / layout.RUN).exists()


def test_a_claim_of_a_finished_run_is_not_adopted(tmp_path: Path, run_dir: Path) -> None:
    started(tmp_path).finish("finished", results={"step": 1})
    claim = claim_session(run_dir, 2, {})
    with pytest.raises(ResumeError, match="the run is finished and its results are accepted"):
        Session.resume(run_dir, claim=claim)
    assert (RunRecord(run_dir).status, check_run(run_dir).sound) == ("finished", True)


def test_a_claim_survives_an_environment_variable(run_dir: Path) -> None:
    claim = claim_session(run_dir, 12, {})
    assert Claim.from_text(run_dir, claim.as_text()) == claim
    for text in ("", "x:1", ":abc"):
        with pytest.raises(ValueError, match="invalid literal"):
            Claim.from_text(run_dir, text)


def test_an_empty_token_is_no_key_to_a_damaged_lease(run_dir: Path) -> None:
    claim = claim_session(run_dir, 1, {})
    (claim.dir / claims.LEASE).write_text("{")
    with pytest.raises(ResumeError, match="claimed by somebody else"):
        adopt_session(Claim(run_dir, 1, ""))
    with pytest.raises(ResumeError, match="claimed by somebody else"):
        adopt_session(claim)


def test_a_folder_that_holds_only_claims_is_no_run(tmp_path: Path, run_dir: Path) -> None:
    claim_session(run_dir, 1, {})
    end_unbegun(run_dir, 1, status="failed", error="no", started=1.0)
    claim_session(run_dir, 2, {})
    assert list_runs(tmp_path) == []
    assert list(Index(tmp_path).rows()) == []
    with pytest.raises(UnknownName):
        layout.find_run(tmp_path, "r")


def test_whoever_adopts_a_claim_has_begun_a_run_that_is_listed(
    tmp_path: Path, run_dir: Path
) -> None:
    claim = claim_session(run_dir, 1, {"worker": "w"})
    assert is_claim(claim.dir)
    session = started(tmp_path, claim)
    assert (claim.adopted(), is_claim(claim.dir)) == (True, False)
    assert [run.run_id for run in list_runs(tmp_path)] == ["r"]
    session.log({"loss": 1.0}, step=1)
    session.finish("finished", results={"step": 1, "final": {"loss": 1.0}})
    found = check_run(run_dir)
    assert (found.problems, found.notes) == ([], [])
    assert RunRecord(run_dir).results is not None


def begun_after_a_refused_claim(root: Path) -> Path:
    """A run whose first claim was refused and whose second one has finished."""
    run_dir = root / "p" / "r"
    claim_session(run_dir, 1, {})
    end_unbegun(run_dir, 1, status="failed", error="there is no such corpus", started=1.0)
    session = started(root, claim_session(run_dir, 2, {}))
    session.log({"loss": 1.0}, step=1)
    session.finish("finished", results={"step": 1, "final": {"loss": 1.0}})
    return run_dir


def test_a_run_that_begins_with_its_second_claim_is_whole(tmp_path: Path) -> None:
    record = RunRecord(begun_after_a_refused_claim(tmp_path))
    assert [session.status for session in record.sessions] == ["failed", "finished"]
    assert record.status == "finished"
    assert [row["loss"] for row in record.history()] == [1.0]
    assert files.read_json(record.run_dir / layout.RUN)["session"] == 2
    assert record.sessions[1].start_step == 0  # nothing was there to go on from


def test_a_refused_claim_is_no_damage(tmp_path: Path) -> None:
    assert check_run(begun_after_a_refused_claim(tmp_path)).problems == []


def test_a_claim_of_a_resumed_run_goes_on_with_it(tmp_path: Path, run_dir: Path) -> None:
    first = started(tmp_path, claim_session(run_dir, 1, {}))
    first.log({"loss": 1.0}, step=1)
    first.finish("interrupted")
    claim_session(run_dir, 2, {})
    end_unbegun(run_dir, 2, status="failed", error="no", started=1.0)
    third = Session.resume(run_dir, claim=claim_session(run_dir, 3, {}))
    assert third.resumed
    third.begin_at(1)
    third.log({"loss": 0.5}, step=2)
    third.finish("finished", results={"step": 2, "final": {"loss": 0.5}})
    assert [row["loss"] for row in RunRecord(run_dir).history()] == [1.0, 0.5]


def test_a_process_that_was_overtaken_after_it_adopted_moves_no_pointer(
    tmp_path: Path, run_dir: Path
) -> None:
    zombie = started(tmp_path, claim_session(run_dir, 1, {}))
    successor = Session.resume(run_dir, claim=claim_session(run_dir, 2, {}))
    before = files.read_json(run_dir / layout.RUN)
    zombie.finish("finished", results={"step": 9, "final": {}})
    assert files.read_json(run_dir / layout.RUN) == before
    assert not (run_dir / layout.RESULTS).exists()
    successor.finish("finished", results={"step": 1, "final": {}})
    assert files.read_json(run_dir / layout.RESULTS)["accepted_session"] == 2


def test_a_run_is_not_claimed_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "p" / "r"
    link.parent.mkdir()
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RecordError, match="is a link"):
        claim_session(link, 1, {})
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_lease_that_is_short_is_shown_to_be_meant_more_often(
    tmp_path: Path, run_dir: Path
) -> None:
    session = started(tmp_path, claim_session(run_dir, 1, {"lease_s": 0.4}))
    beat = session.dir / layout.heartbeat_name()
    os.utime(beat, (1.0, 1.0))
    try:
        wait_until(lambda: beat.stat().st_mtime > 1.0, 4.0)  # else after five seconds
    finally:
        session.finish("interrupted")


CLAIMS = """
import sys
from pathlib import Path
from cupel.record.claims import claim_session
claim_session(Path(sys.argv[1]), 1, {"why": "x" * 50_000})
"""


def test_a_claim_that_does_not_fit_on_the_disk_counts_as_nobodys(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "none", str(disk)]
    mounted = subprocess.run(mount, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"mounting a small tmpfs is not permitted here: {mounted.stderr.strip()}")
    try:
        run_dir = disk / "p" / "r"
        command = [sys.executable, "-c", CLAIMS, str(run_dir)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert "No space left on device" in done.stderr
        assert [path.name for path in layout.session_dir(run_dir, 1).iterdir()] == []
        with pytest.raises(FileExistsError):
            claim_session(run_dir, 1, {})
        assert claim_session(run_dir, 2, {}).number == 2
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
