"""How the processes of one training find one session: by variables, or by a file in the root.

A process that `init` opened a run in tells its children by $CUPEL_RUN_ID and $CUPEL_SESSION. The
ranks of torchrun are no children of rank 0: it leaves a file in the record's root, under
`.cache/ranks` and named by what all of them know, and the others wait for it. A file of an earlier
training is known by its age and by its session, which ended before this process began; clocks of
several machines must agree within half a minute. One that ended later was rank 0's own: a rank
that comes too late says so at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import time
from pathlib import Path

from cupel import ranks
from cupel.errors import RecordError, UsageError
from cupel.record import files, layout
from cupel.record.reader import RunRecord, SessionInfo
from cupel.record.session import Session

RUN_ID = "CUPEL_RUN_ID"
SESSION = "CUPEL_SESSION"

_COMMON = (  # what launchers tell all ranks of one start alike
    "MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "TORCHELASTIC_RUN_ID",
    "TORCHELASTIC_RESTART_COUNT", "SLURM_JOB_ID", "SLURM_STEP_ID",
)  # fmt: skip
_PATIENCE_S = 120.0
_SKEW_S = 30.0  # between the clocks of two machines
_BLUR_S = 2.0  # psutil knows within about a second when a process began
_LOOK_EVERY_S = 0.1


_teller: int | None = None  # the process that set the variables, and so is not their reader


def tell_children(session: Session) -> None:
    """Set the variables by which a child of this process becomes a rank of its session."""
    global _teller
    _teller = os.getpid()
    os.environ[RUN_ID], os.environ[SESSION] = session.run_id, str(session.number)


def tell_no_more(root: Path, session: Session) -> None:
    """Take the variables away, if they are still this session's, and the marks of its ranks."""
    with contextlib.suppress(OSError):
        for mark in (root / ".cache" / "ranks").glob(f"{session.run_id}.{session.number}.r*"):
            mark.unlink(missing_ok=True)
    ours = (session.run_id, str(session.number))
    if (os.environ.get(RUN_ID), os.environ.get(SESSION)) == ours:
        del os.environ[RUN_ID], os.environ[SESSION]


def told_session(project_dir: Path, identity: str) -> tuple[Path, int] | None:
    """The living session that the variables name, if it is of these settings: folder and number."""
    run_id, number = os.environ.get(RUN_ID), os.environ.get(SESSION, "")
    if _teller == os.getpid() or not number.isdecimal():
        return None
    if not run_id or Path(run_id).name != run_id:
        return None
    return _living(project_dir / run_id, int(number), identity)


def told_id() -> str | None:
    """The id that a new run is to have: $CUPEL_RUN_ID alone, as a person or a scheduler sets it."""
    return None if os.environ.get(SESSION) else os.environ.get(RUN_ID) or None


def rank() -> int:
    """This process's rank, when a launcher has started several; else 0. Raises UsageError."""
    several = os.environ.get("WORLD_SIZE", "1") not in ("", "1")
    return ranks.rank() if several else 0


def free_rank(root: Path, run_id: str, number: int) -> int:
    """The next rank of a session that nobody has taken, for this process alone. Raises OSError."""
    folder = root / ".cache" / "ranks"
    folder.mkdir(parents=True, exist_ok=True)
    taken = 1
    while True:
        try:
            os.close(os.open(folder / f"{run_id}.{number}.r{taken}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            taken += 1
            continue
        return taken


def announce(root: Path, project: str, session: Session) -> None:
    """Tell the other ranks, if there are any, which session rank 0 has opened."""
    if os.environ.get("WORLD_SIZE", "1") in ("", "1"):
        return
    path = _meeting_place(root, project)
    with contextlib.suppress(OSError):  # they will say that they found nothing
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(path, {"run": session.run_id, "session": session.number})


def rank_zeros_session(root: Path, project: str) -> tuple[Path, int]:
    """Wait for rank 0's session: its run's folder and its number.

    Raises UsageError after two minutes, and at once when that session has ended.
    """
    import psutil

    path = _meeting_place(root, project)
    begun = psutil.Process().create_time()
    until = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until:
        late: SessionInfo | None = None
        with contextlib.suppress(OSError, RecordError, KeyError, TypeError, ValueError):
            told = files.read_json(path)
            if path.stat().st_mtime >= begun - _SKEW_S:
                run_dir, number = root / project / Path(told["run"]).name, told["session"]
                living = _living(run_dir, number, None)
                if living is not None:
                    return living
                late = _ended_since(run_dir, number, begun)
        if late is not None:
            raise UsageError(
                f"rank {rank()} comes too late: run {late.run_dir.name} of rank 0 has ended, as "
                f"{late.status}; call cupel.init() in every rank before rank 0 finishes its run"
            )
        time.sleep(_LOOK_EVERY_S)
    raise UsageError(
        f"rank {rank()} waited {_PATIENCE_S:.0f} s for the run of rank 0 in {root}; call "
        "cupel.init() in every rank, with the same project and root"
    )


def step_of_rank_zero(run_dir: Path, number: int) -> int:
    """The step after which rank 0 goes on, once it has said so; 0 when it starts anew.

    Raises UsageError when it does not within two minutes, and at once when it has ended.
    """
    until = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until:
        session = SessionInfo.read(run_dir, number)
        if session.start_step is not None:
            return max(session.start_step, 0)
        if session.is_over:
            raise UsageError(
                f"rank 0 of run {run_dir.name} has ended, as {session.status}, and never loaded a "
                "checkpoint; call load_checkpoint() or steps() in every rank"
            )
        time.sleep(_LOOK_EVERY_S)
    raise UsageError(
        f"rank {rank()} waited {_PATIENCE_S:.0f} s for rank 0 to load a checkpoint of run "
        f"{run_dir.name}; call load_checkpoint() or steps() in every rank"
    )


def _living(run_dir: Path, number: int, identity: str | None) -> tuple[Path, int] | None:
    record = RunRecord(run_dir)
    if record.problem or (identity is not None and record.identity != identity):
        return None
    if number not in layout.session_numbers(run_dir):
        return None
    alive = SessionInfo.read(run_dir, number).status == "running"
    return (run_dir, number) if alive else None


def _ended_since(run_dir: Path, number: int, begun: float) -> SessionInfo | None:
    """A session, if it has ended after some time; of a killed one the last beat tells."""
    if number not in layout.session_numbers(run_dir):
        return None
    session = SessionInfo.read(run_dir, number)
    if not session.is_over:
        return None
    ended = session.ended
    if ended is None:
        ended = (session.dir / layout.heartbeat_name()).stat().st_mtime
    sure = begun + (_BLUR_S if session.host == socket.gethostname() else _SKEW_S)
    return session if ended > sure else None


def _meeting_place(root: Path, project: str) -> Path:
    import psutil

    known = [project, *(os.environ.get(name, "") for name in _COMMON)]
    if os.environ.get("LOCAL_WORLD_SIZE") == os.environ.get("WORLD_SIZE"):
        parent = os.getppid()  # all ranks are children of one launcher
        with contextlib.suppress(psutil.Error):
            known += [str(parent), str(psutil.Process(parent).create_time())]
    digest = hashlib.sha256("\0".join(known).encode()).hexdigest()
    return root / ".cache" / "ranks" / f"{digest[:32]}.json"
