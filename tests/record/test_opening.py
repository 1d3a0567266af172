"""Who may open a session, and where: one living rank each, and nothing outside of the root."""

from __future__ import annotations

import multiprocessing
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.errors import RecordError, ResumeError, UsageError
from cupel.record import files, layout
from cupel.record.reader import RunRecord, SessionInfo
from cupel.record.session import Session

JOINS = """
import sys
from pathlib import Path
from cupel.record.session import Session
rank = int(sys.argv[2])
session = Session.join(Path(sys.argv[1]), 1, rank)
for step in range(1, 11):
    session.log({"loss": rank + step}, step=step)
session.note("a line for people")
print("logged", flush=True)
sys.stdin.readline()
session.finish("finished")
"""


def start(root: Path, **changes: Any) -> Session:
    given = {"project": "p", "name": "a run", "config": {"lr": 0.1}, "identity": "hash"}
    return Session.start(root=root, **{**given, **changes})


def join_in_a_process(session: Session, rank: int) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", JOINS, session.run_dir, str(rank)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "logged\n"
    return process


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.slow
def test_ranks_of_a_session_write_their_own_files_only(tmp_path: Path) -> None:
    session = start(tmp_path)
    session._looking.join()  # it writes env.json, and perhaps a patch
    before = {path: path.read_bytes() for path in session.run_dir.rglob("*") if path.is_file()}
    ranks = [join_in_a_process(session, rank) for rank in (1, 2)]
    for process in ranks:
        process.communicate("\n")
        assert process.returncode == 0
    after = {path: path.read_bytes() for path in session.run_dir.rglob("*") if path.is_file()}
    assert {path: after[path] for path in before} == before
    assert {path.name for path in after.keys() - before.keys()} == {
        f"{kind}.r{rank}{end}"
        for rank in (1, 2)
        for kind, end in (("metrics", ".000.jsonl"), ("events", ".000.jsonl"), ("heartbeat", ""))
    }
    run = RunRecord(session.run_dir)
    assert run.status == "running"
    assert [row["loss"] for row in run.history(rank=2)] == [2 + step for step in range(1, 11)]
    assert [event["_event"] for event in run.events(rank=1)] == ["note", "finish"]
    assert run.events(rank=1)[1]["lost"] == 0
    session.finish("finished")
    assert run.status == "finished"


def test_a_rank_that_is_killed_joins_again_and_nothing_is_lost(tmp_path: Path) -> None:
    session = start(tmp_path)
    first = join_in_a_process(session, 1)
    with pytest.raises(RecordError, match=r"rank 1 cannot .*: another process is that rank; give"):
        Session.join(session.run_dir, 1, 1)
    first.kill()
    first.communicate()
    path = session.dir / layout.metrics_name(1)
    with path.open("ab") as file:
        file.write(b'{"_step": 11, "lo')  # the kill was in the midst of a line
    again = Session.join(session.run_dir, 1, 1)
    again.log({"loss": 0.5}, step=12)
    again.finish("finished")
    assert layout.segments(session.dir, "metrics", 1) == [
        path,
        path.with_name(layout.metrics_name(1, 1)),
    ]
    assert [row["_step"] for row in RunRecord(session.run_dir).history(rank=1)] == [
        *range(1, 11),
        12,
    ]
    session.finish("interrupted")


def test_a_rank_says_nothing_about_the_session_or_the_run(tmp_path: Path) -> None:
    session = start(tmp_path)
    session._looking.join()
    rank = Session.join(session.run_dir, 1, 1, console=True, system_every=3600)
    before = {path: path.read_bytes() for path in session.run_dir.rglob("*.json")}
    rank.begin_at(5)
    rank.describe(torch="2.6")
    rank.set_config({"lr": 9})
    rank.set_summary({"best": 1})
    assert rank.changes() == []
    with pytest.raises(AssertionError, match=r"rank 1 may not write model\.json"):
        rank.write_run_json("model.json", {})
    rank.finish("failed", error="no")
    assert {path: path.read_bytes() for path in session.run_dir.rglob("*.json")} == before
    told = [event["_event"] for event in RunRecord(session.run_dir).events(rank=1)]
    assert told == ["begin", "described", "config", "summary", "finish"]
    assert (session.dir / "console.r1.log").exists()
    session.finish("interrupted")


def test_only_a_session_that_runs_is_joined(tmp_path: Path) -> None:
    session = start(tmp_path)
    run_dir = session.run_dir
    with pytest.raises(UsageError, match="rank 0 cannot join a session: rank 0 starts or"):
        Session.join(run_dir, 1, 0)
    with pytest.raises(RecordError, match=r"session 0002 of run .*: there is no .*/sessions/0002;"):
        Session.join(run_dir, 2, 1)
    session.finish("interrupted")
    with pytest.raises(RecordError, match=r"rank 1 .*: it is interrupted; start or resume rank 0"):
        Session.join(run_dir, 1, 1)
    second = Session.resume(run_dir)
    with pytest.raises(RecordError, match="session 0002 has taken over; join that one"):
        Session.join(run_dir, 1, 1)
    beat = second.dir / layout.heartbeat_name()
    files.write_json(beat, {**files.read_json(beat), "start": "1"})  # its pid is used again
    with pytest.raises(RecordError, match="it is crashed; start or resume rank 0 first") as raised:
        Session.join(run_dir, 2, 1)
    assert "\n" not in str(raised.value)
    assert not list(second.dir.glob("*.r1*"))
    second.finish("interrupted")


RACERS = 4


def _join_when_told(pipe: Connection, ready: Any, done: Any) -> None:
    """Of each run that comes through the pipe, join the rank that comes with it."""
    joined = []
    while (told := pipe.recv()) is not None:
        run_dir, rank = told
        ready.wait()
        try:
            joined.append(Session.join(run_dir, 1, rank))
            answer = "joined"
        except RecordError as error:
            answer = str(error)
        done.wait()  # the winner lives until everybody has tried
        pipe.send(answer)
    for session in joined:
        session.finish("finished")


def _join_until_refused(pipe: Connection, ready: Any, done: Any) -> None:
    """Of each run that comes through the pipe, join every rank from the one that comes with it."""
    while (told := pipe.recv()) is not None:
        run_dir, first = told
        joined: list[Session] = []
        ready.wait()
        for rank in count(first, RACERS):
            try:
                joined.append(Session.join(run_dir, 1, rank))
            except RecordError as error:
                answer = str(error)
                break
        pipe.send(([session.rank for session in joined], rank, answer))
        for session in joined:
            session.finish("finished")


@contextmanager
def racing(does: Any, others: int = 0) -> Iterator[tuple[list[Connection], Any]]:
    """Processes that all do something at once, told what through their pipes; and their barrier."""
    context = multiprocessing.get_context("fork")
    ready, done = context.Barrier(RACERS + others), context.Barrier(RACERS)
    pairs = [context.Pipe() for _ in range(RACERS)]
    racers = [context.Process(target=does, args=(theirs, ready, done)) for _, theirs in pairs]
    for racer in racers:
        racer.start()
    pipes = [ours for ours, _ in pairs]
    try:
        yield pipes, ready
        for pipe in pipes:
            pipe.send(None)
        for racer in racers:
            racer.join(60)
            assert racer.exitcode == 0
    finally:
        for racer in racers:
            racer.kill()


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("rounds", [12, pytest.param(200, marks=pytest.mark.slow)])
def test_of_processes_that_join_as_one_rank_at_once_exactly_one_wins(
    tmp_path: Path, rounds: int
) -> None:
    with racing(_join_when_told) as (pipes, _):
        session = start(tmp_path)
        for rank in range(1, rounds + 1):
            if rank % 2:  # of every other rank an earlier process has died
                dead = session.dir / layout.heartbeat_name(rank)
                beat = files.read_json(session.dir / layout.heartbeat_name())
                files.write_json(dead, {**beat, "start": "1"})
            for pipe in pipes:
                pipe.send((session.run_dir, rank))
            answers = [pipe.recv() for pipe in pipes]
            refusals = [answer for answer in answers if answer != "joined"]
            assert len(refusals) == RACERS - 1, answers
            for refusal in refusals:
                assert refusal == (
                    f"rank {rank} cannot join session 0001 of run {session.run_id}: another "
                    "process is that rank; give each process its own"
                )
            assert len(layout.segments(session.dir, "metrics", rank)) == 1
    session.finish("interrupted")


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("rounds", [20, pytest.param(60, marks=pytest.mark.slow)])
def test_a_session_that_ends_meanwhile_is_joined_by_nobody(tmp_path: Path, rounds: int) -> None:
    with racing(_join_until_refused, others=1) as (pipes, ready):
        for number in range(rounds):
            session = start(tmp_path, run_id=f"run-{number}")
            folder, run_dir = session.dir, session.run_dir
            session._looking.join()  # or the end waits for it
            for first, pipe in enumerate(pipes, start=1):
                pipe.send((run_dir, first))
            ready.wait()
            time.sleep(random.uniform(0, 0.01))
            ending = threading.Thread(target=session.finish, args=("interrupted",))
            ending.start()
            while SessionInfo.read(run_dir, 1).status == "running":
                pass
            there = {path.name for path in folder.glob("heartbeat.*")}
            ending.join()
            joined: set[str] = set()
            for pipe in pipes:
                ranks, refused, told = pipe.recv()
                joined |= {layout.heartbeat_name(rank) for rank in ranks}
                assert told == (
                    f"rank {refused} cannot join session 0001 of run run-{number}: it is "
                    "interrupted; start or resume rank 0 first, and keep it up"
                )
                left = [path for end in ("", ".*") for path in folder.glob(f"*.r{refused}{end}")]
                assert not left, "a refusal leaves nothing behind"
            assert joined <= there, "one joined after the session had ended"


@pytest.mark.parametrize(
    "wrong,told",
    [
        ({"durability": "snyc"}, "'snyc'; did you mean 'sync'\\?; it must be"),
        ({"durability": True}, "durability is True; it must be"),
        ({"system_every": -1}, "system_every is -1; it must be a number of seconds"),
        ({"system_every": float("nan")}, "system_every is nan"),
        ({"system_every": "10"}, "system_every is '10'"),
        ({"group": ""}, "group is ''; it must be a text"),
        ({"group": 3}, "group is 3; it must be a text"),
        ({"project": "x" * 10_000}, "^'x{80}'… cannot be the name of a project"),
        ({"run_id": "../" * 3000}, "… cannot be the name of a run"),
        ({"project": ".."}, "'..' cannot be the name"),
        ({"run_id": "a\\b"}, "cannot be the name of a run"),
        ({"project": "a/../../b"}, "cannot be the name of a project"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_before_anything_is_written(
    tmp_path: Path, wrong: dict[str, Any], told: str
) -> None:
    with pytest.raises(UsageError, match=told) as raised:
        start(tmp_path / "runs", **wrong)
    assert len(str(raised.value)) < 300
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


names = st.sampled_from(
    ["../../../etc/passwd", "/etc/passwd", "a/b/c", "💧🔥" * 20, "x" * 10_000, "\n\r\0", "..", "~",
     "-rf", "\udcff", "CON", " ", "run.json", ".trash"]
) | st.text()  # fmt: skip


@settings(deadline=None, max_examples=25)
@given(names, names, names)
@pytest.mark.slow
def test_whatever_a_run_its_group_and_its_metrics_are_called_nothing_leaves_the_root(
    tmp_path_factory: pytest.TempPathFactory, name: str, key: str, tag: str
) -> None:
    above = tmp_path_factory.mktemp("above")
    session = start(above / "runs", name=name, tags=[tag], group=tag or "g", notes=name)
    run_dir = session.run_dir
    session.log({key: 0.5, "loss": 1.0}, step=1)
    session.event(key, **{"field": tag})
    session.define_metric(key)
    session.set_summary({key: 1})
    session.note(name)
    session.finish("finished")
    assert [path.name for path in above.iterdir()] == ["runs"]
    assert [path.name for path in (above / "runs").iterdir()] == ["p"]
    assert list((above / "runs" / "p").iterdir()) == [run_dir]
    allowed = {"run.json", "config.json", "results.json", "sessions"}
    assert {path.name for path in run_dir.iterdir()} == allowed
    run = RunRecord(run_dir)
    (row,) = run.history()
    assert row["loss"] == 1.0
    recordable = key.encode("utf-8", "ignore").decode() == key and key not in ("_step", "_t")
    assert (row.get(key) == 0.5) == recordable, "kept, or told"
    assert recordable == (session.problems == {})
    visible = name.encode("utf-8", "backslashreplace").decode()
    assert (run.run["name"], run.run["group"]) == (visible, run.run["tags"][0] or "g")


def test_a_project_that_is_a_link_to_another_disk_is_its_owners_choice(tmp_path: Path) -> None:
    (tmp_path / "big-disk").mkdir()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "p").symlink_to(tmp_path / "big-disk")
    session = start(tmp_path / "runs")
    session.log({"loss": 1.0}, step=1)
    session.finish("interrupted")
    assert session.run_dir.parent == tmp_path / "runs" / "p"
    assert [path.name for path in (tmp_path / "big-disk").iterdir()] == [session.run_id]
    resumed = Session.resume(layout.find_run(tmp_path / "runs", session.run_id))
    resumed.finish("finished")
    assert RunRecord(session.run_dir).status == "finished"


def test_a_run_is_not_started_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "runs" / "p").mkdir(parents=True)
    (tmp_path / "runs" / "p" / "x").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RecordError, match=r"p/x is a link to .*/elsewhere, and nothing is written"):
        start(tmp_path / "runs", run_id="x")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_sessions_are_not_made_through_a_link_out_of_the_run(tmp_path: Path) -> None:
    session = start(tmp_path / "runs")
    session.finish("interrupted")
    sessions = session.run_dir / layout.SESSIONS
    sessions.rename(tmp_path / "elsewhere")
    sessions.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RecordError, match="sessions is a link to"):
        Session.resume(session.run_dir)
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["0001"]


def test_what_a_link_in_the_run_leads_to_survives_the_sweep_of_a_resume(tmp_path: Path) -> None:
    session = start(tmp_path / "runs")
    session.finish("interrupted")
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("x")
    (session.run_dir / ".trash-x").symlink_to(tmp_path / "precious")
    (session.run_dir / ".tmp-x").symlink_to(tmp_path / "precious")
    os.utime(session.run_dir / ".tmp-x", (0, 0), follow_symlinks=False)
    Session.resume(session.run_dir).finish("interrupted")
    assert (tmp_path / "precious" / "file").read_text() == "x"
    assert not [name for name in tree(session.run_dir) if name.startswith((".trash", ".tmp"))]


def test_refusals_of_a_resume_name_the_session(tmp_path: Path) -> None:
    session = start(tmp_path)
    with pytest.raises(ResumeError, match=rf"pid {os.getpid()} on .*, session 0001; stop it first"):
        Session.resume(session.run_dir)
    session.finish("interrupted")
    with pytest.raises(RecordError, match=r"cannot read .*run\.json"):
        Session.resume(tmp_path / "nothing")
