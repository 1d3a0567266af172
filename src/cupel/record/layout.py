"""Where everything of a run lies: the root, names of files, new ids, and how a run is found.

Nothing here writes. A folder is taken for a run by its place, `root/project/run_id`; `root/.cache`,
`root/.trash` and `project/studies` are not runs. A project's folder may be a link to another disk:
that is its owner's choice. Below a run nothing is written through a link. A change to a name in
this file is a change of the format: raise SCHEMA, keep reading the old one, and add a golden
record of it.
"""

from __future__ import annotations

import heapq
import os
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from cupel.errors import RecordError, UnknownName, UsageError
from cupel.names import STUDIES, refusal

SCHEMA = 1

RUN = "run.json"
CONFIG = "config.json"
RESULTS = "results.json"
SESSION = "session.json"
ENVIRONMENT = "env.json"
DIRTY_PATCH = "dirty.patch"
TRAINING_LOG = "training.log"
CONSOLE = "console.log"
SESSIONS = "sessions"
CHECKPOINTS = "checkpoints"
CACHE = ".cache"  # in the root: derived, may be deleted
TRASHED = ".trash"  # in the root: what `runs rm` took
_LONGEST_SHOWN = 80  # characters of a name in a message
_SHOWN = 5  # runs in a message


def record_root(root: str | Path | None = None) -> Path:
    """The folder of all projects: the argument, else the variable CUPEL_ROOT, else ./runs."""
    return Path(root or os.environ.get("CUPEL_ROOT") or "runs").expanduser()


def session_dir(run_dir: Path, number: int) -> Path:
    """The folder of one session; sessions count from 1."""
    return run_dir.joinpath(SESSIONS, f"{number:04d}")


def session_numbers(run_dir: Path) -> list[int]:
    """The numbers of all sessions of a run, ascending; empty when there are none."""
    try:
        with os.scandir(run_dir / SESSIONS) as entries:
            names = [entry.name for entry in entries if entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(int(name) for name in names if re.fullmatch(r"[0-9]{4,9}", name))


def metrics_name(rank: int = 0, segment: int = 0) -> str:
    """The file of one rank's metrics, a line for each `log`."""
    return f"metrics.r{rank}.{segment:03d}.jsonl"


def events_name(rank: int = 0, segment: int = 0) -> str:
    """The file of one rank's events: what happened, besides numbers."""
    return f"events.r{rank}.{segment:03d}.jsonl"


def system_name(rank: int = 0, segment: int = 0) -> str:
    """The file of what one rank's process and machine were doing, a line every few seconds."""
    return f"system.r{rank}.{segment:03d}.jsonl"


def console_name(rank: int = 0, segment: int = 0) -> str:
    """The file of what one rank printed, and those that follow when it is full."""
    return f"console{f'.r{rank}' if rank else ''}{f'.{segment:03d}' if segment else ''}.log"


def consoles(session: Path) -> dict[tuple[int, int], Path]:
    """The files of what was printed, by rank and segment, in that order; may be empty."""
    wanted = re.compile(r"console(?:\.r([0-9]{1,9}))?(?:\.([0-9]{3,9}))?\.log")
    try:
        with os.scandir(session) as entries:
            matches = [wanted.fullmatch(entry.name) for entry in entries if entry.is_file()]
    except (FileNotFoundError, NotADirectoryError):
        return {}
    found = {(int(match[1] or 0), int(match[2] or 0)): match[0] for match in matches if match}
    return {place: session / found[place] for place in sorted(found)}


def segments(session: Path, kind: str, rank: int = 0) -> list[Path]:
    """One rank's files of a kind (`metrics`, `events`, `system`), oldest first; may be empty.

    By number, not by name: the thousandth segment comes after the 999th. What is no file is left
    out, such as a folder of that name; `cupel runs verify` tells of it.
    """
    return [session / name for _, name, is_file in _segments(session, kind, rank) if is_file]


def all_segments(session: Path, kind: str, rank: int = 0) -> list[Path]:
    """`segments`, and what is no file: for those who would rather fail than leave one out."""
    return [session / name for _, name, _ in _segments(session, kind, rank)]


def next_segment(session: Path, kind: str, rank: int = 0) -> int:
    """The number of the segment that a new writer begins; whatever stands there stays."""
    there = _segments(session, kind, rank)
    return there[-1][0] + 1 if there else 0


def _segments(session: Path, kind: str, rank: int) -> list[tuple[int, str, bool]]:
    """Number, name and whether it is a file of all that is called like a segment, in order."""
    wanted = re.compile(rf"{kind}\.r{rank}\.([0-9]{{3,9}})\.jsonl")
    try:
        with os.scandir(session) as entries:
            return sorted(
                (int(match[1]), entry.name, entry.is_file())
                for entry in entries
                if (match := wanted.fullmatch(entry.name))
            )
    except (FileNotFoundError, NotADirectoryError):
        return []


def heartbeat_name(rank: int = 0, again: int = 0) -> str:
    """The file that says which process a session's rank is, and that it lives.

    `again` is how often a further rank was joined anew, after a process of it had died.
    """
    return f"heartbeat.r{rank}" + (f".{again:03d}" if again else "")


def heartbeats(session: Path, rank: int) -> dict[int, Path]:
    """The heartbeats of one rank, by how often it was joined anew: only the last can be alive."""
    wanted = re.compile(rf"heartbeat\.r{rank}(?:\.([0-9]{{3,9}}))?")
    matches = [wanted.fullmatch(path.name) for path in session.iterdir()]
    return {int(match[1] or 0): session / match[0] for match in matches if match}


def new_run_id(name: str, git7: str | None = None) -> str:
    """A new id, `YYYYmmdd-HHMMSS-name-git7-rand4` in UTC: sorts by time, readable, unique."""
    now = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    return f"{now}-{slug(name)}-{(git7 or 'nogit')[:7]}-{secrets.token_hex(2)}"


def slug(name: str) -> str:
    """The name in ASCII letters, digits and dashes, at most 40; `run` if none is left."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower())[:40].strip("-") or "run"


def check_name(kind: str, name: str) -> str:
    """The name itself when it can be the name of a folder of ours; else raises UsageError."""
    if why := refusal(name):
        shown = repr(name[:_LONGEST_SHOWN]) + ("…" if len(name) > _LONGEST_SHOWN else "")
        raise UsageError(f"{shown} cannot be the name of a {kind}: {why}")
    return name


def refuse_link(path: Path) -> None:
    """Raise RecordError when a folder of a run is a link: what is written might go anywhere."""
    if path.is_symlink():
        raise RecordError(
            f"{path} is a link to {path.readlink()}, and nothing is written through a link in a "
            "project's folder; give the run another id, or put a real folder there"
        )


def run_dirs(root: Path, project: str | None = None) -> Iterator[Path]:
    """Every folder that stands where a run stands, in no order; an absent root holds none."""
    for parent in [root / project] if project else _folders(root):
        for folder in _folders(parent):
            if folder.name != STUDIES:
                yield folder


def find_run(root: Path, text: str) -> Path:
    """The folder of the run meant by a path, a whole id, or the unique beginning of an id.

    Raises UnknownName when nothing answers, RecordError when several do.
    """
    for path in (Path(text), root / text):
        if text and _is_run(path):
            return path
    found = [folder for folder in run_dirs(root) if _is_run(folder)]
    matching = [folder for folder in found if text and folder.name.startswith(text)]
    exact = [folder for folder in matching if folder.name == text]
    matching = exact or matching
    if not matching:
        newest = heapq.nlargest(_SHOWN, found, key=_begun_or_changed)
        of = f"the newest of {len(found)}; " if len(found) > _SHOWN else ""
        hint = f"{of}looked in {root}; list them with: cupel runs ls"
        raise UnknownName("run", text, [folder.name for folder in newest], hint=hint)
    if len(matching) > 1:
        listed = ", ".join(sorted(str(folder.relative_to(root)) for folder in matching)[:8])
        raise RecordError(
            f"'{text}' could be any of {len(matching)} runs: {listed}; type more of the id, "
            "or project/id"
        )
    return matching[0]


def _begun_or_changed(run_dir: Path) -> float:
    try:
        return (run_dir / RUN).stat().st_mtime
    except OSError:  # deleted just now
        return 0.0


def _is_run(folder: Path) -> bool:
    try:
        return (folder / RUN).is_file()
    except OSError:  # text that is too long for a path
        return False


def _folders(parent: Path) -> list[Path]:
    try:
        with os.scandir(parent) as entries:
            return [Path(e.path) for e in entries if e.is_dir() and not e.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return []
