"""Reads cupel's records with nothing but Python's standard library, as docs/record-format.md says.

    python examples/read_record.py runs                    the runs, with their true status
    python examples/read_record.py runs/PROJECT/RUN_ID     one run: history, events, checkpoints

Copy it, or take it for a sketch of a reader in another language. It reads every line of a run into
memory and has no index: for large runs use cupel's own reader.
"""

import hashlib
import json
import math
import os
import re
import signal
import socket
import sys
import time
from pathlib import Path

WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
ENDED = ("finished", "failed", "interrupted")
STALE_S = 60  # a heartbeat older than this proves nothing


def decode(data: bytes) -> dict:
    """One JSON mapping, strictly; the three words become floats. Raises ValueError."""
    fields = json.loads(data.decode(), parse_float=_finite, parse_constant=_finite)
    if not isinstance(fields, dict):
        raise ValueError("not a mapping")
    if b"\\ud" in data.lower():
        json.dumps(fields, ensure_ascii=False).encode()  # half a surrogate pair is no text
    return {key: _revived(value) for key, value in fields.items()}


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):  # 1e999, or a bare NaN, which is no JSON
        raise ValueError(f"{text} is no number")
    return number


def _revived(value):
    if isinstance(value, str):
        return WORDS.get(value, value)
    if isinstance(value, list):
        return [_revived(item) for item in value]
    if isinstance(value, dict):
        return {key: _revived(item) for key, item in value.items()}
    return value


def document(path: Path) -> dict:
    """A JSON file; empty when it is absent or damaged."""
    try:
        return decode(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}


def lines(path: Path, required: str, kinds) -> tuple[list[dict], int]:
    """The readable lines of a file, and how many are damaged, an unfinished last one included."""
    *whole, tail = path.read_bytes().split(b"\n")
    found, damaged = [], int(bool(tail))
    for line in filter(None, whole):  # an empty line means nothing
        try:
            fields = decode(line)
        except (ValueError, RecursionError):
            fields = {}
        if isinstance(fields.get(required), kinds):
            found.append(fields)
        else:
            damaged += 1
    return found, damaged


def sessions(run: Path) -> list[Path]:
    """The folders of a run's sessions, oldest first."""
    found = run.glob("sessions/*/")
    return sorted(
        (f for f in found if re.fullmatch("[0-9]{4,9}", f.name)), key=lambda f: int(f.name)
    )


def segments(session: Path, kind: str, rank: int) -> list[Path]:
    """One rank's files of a kind, in the order of their numbers."""
    name = re.compile(rf"{kind}\.r{rank}\.([0-9]{{3,9}})\.jsonl")
    found = [(int(match[1]), p) for p in session.iterdir() if (match := name.fullmatch(p.name))]
    return [path for _, path in sorted(found) if path.is_file()]


def history(run: Path, rank: int = 0) -> tuple[list[dict], int]:
    """A row a step, ascending, after rewinding; and the number of damaged lines."""
    rows: dict[int, dict] = {}
    damaged = 0
    for session in sessions(run):
        start = document(session / "session.json").get("start_step")
        if isinstance(start, int):  # what older sessions logged after that step is void
            rows = {step: row for step, row in rows.items() if step <= start}
        for path in segments(session, "metrics", rank):
            found, bad = lines(path, "_step", int)
            damaged += bad
            for line in found:  # a step may come again and go back: by key, the later line wins
                rows.setdefault(line["_step"], {}).update(line)
    return [rows[step] for step in sorted(rows)], damaged


def events(run: Path, rank: int = 0) -> list[dict]:
    """All events, oldest first; `_session` is added."""
    return [
        {**event, "_session": int(session.name)}
        for session in sessions(run)
        for path in segments(session, "events", rank)
        for event in lines(path, "_event", str)[0]
    ]


def config(run: Path) -> dict:
    """The settings, also those that were added just before a kill."""
    found = document(run / "config.json").get("config")
    found = found if isinstance(found, dict) else {}
    for event in events(run):
        if event["_event"] == "config" and isinstance(event.get("set"), dict):
            found |= event["set"]
    return found


def status(run: Path) -> str:
    """What is true of a run now, whatever run.json says."""
    if not document(run / "run.json"):
        return "damaged"
    if (run / "results.json").exists():
        return "finished"
    found = sessions(run)
    if not found:
        return "crashed"
    said = document(found[-1] / "session.json").get("status")
    return said if said in ENDED else _alive(found[-1] / "heartbeat.r0")


def _alive(beat: Path) -> str:
    told = document(beat)
    try:
        pid, began, boot = int(told["pid"]), str(told["start"]), told["boot_id"]
        place = (told["host"], told["pid_namespace"])
    except (KeyError, TypeError, ValueError, OverflowError):
        if beat.exists() and not os.access(beat, os.R_OK):
            return _by_age(beat)
        return "running" if _fresh(beat.parent) else "crashed"  # just starting, or never came to it
    try:
        here = (socket.gethostname(), str(Path("/proc/self/ns/pid").readlink()))
        boot_here = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return _by_age(beat)  # no Linux: cupel asks psutil, this reader goes by age alone
    machines = {told.get("machine"), _machine()} - {None, ""}
    if place != here or len(machines) > 1:
        return _by_age(beat)  # a pid means nothing here
    if boot != boot_here:
        return "crashed"
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        fields = stat[stat.rindex(")") + 2 :].split()  # from field 3 on: the state, …, starttime
        return "running" if fields[0] not in "ZX" and fields[19] == began else "crashed"
    except OSError:
        return _by_age(beat) if _hidden(pid) else "crashed"


def _hidden(pid: int) -> bool:
    """Whether there is such a process that we may not look at (/proc mounted with hidepid)."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        pass
    return False


def _machine() -> str | None:
    try:
        found = Path("/etc/machine-id").read_bytes().strip()
    except OSError:
        return None
    return hashlib.blake2b(found, key=b"cupel", digest_size=8).hexdigest() if found else None


def _by_age(beat: Path) -> str:
    return "running" if _fresh(beat) else "silent"


def _fresh(path: Path) -> bool:
    return path.exists() and abs(time.time() - path.stat().st_mtime) < STALE_S


def checkpoints(run: Path) -> dict[int, str | None]:
    """The step of each checkpoint, and what is wrong with it; None when every byte is right."""
    found = [p for p in run.glob("checkpoints/*") if re.fullmatch("step-[0-9]{9,}", p.name)]
    return {step: _damage(path) for step, path in sorted((int(p.name[5:]), p) for p in found)}


def _damage(checkpoint: Path) -> str | None:
    manifest = document(checkpoint / "manifest.json")
    seal = manifest.pop("seal", None)
    if seal != hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest():
        return "manifest.json is missing or changed"
    if manifest["schema"] > 1:
        return f"manifest.json has schema {manifest['schema']}, which this reader does not know"
    for name, promised in manifest["files"].items():
        try:
            with (checkpoint / name).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            return f"{name}: {error.strerror}"
        if digest != promised["sha256"]:
            return f"{name} has changed"
    return None


def runs(root: Path) -> list[Path]:
    """The folders of all runs, newest first."""
    found = [
        run for run in root.glob("*/*/")
        if not run.parent.name.startswith(".") and not run.name.startswith(".")
        and run.name != "studies"
        and any((run / part).exists() for part in ("run.json", "config.json", "sessions"))
    ]  # fmt: skip
    return sorted(found, key=lambda run: (_created(run), run.name), reverse=True)


def _created(run: Path) -> float:
    created = document(run / "run.json").get("created")
    return created if isinstance(created, int | float) else 0.0


def show(run: Path) -> None:
    """Print one run."""
    rows, damaged = history(run)
    print(f"{run.name}: {status(run)}, {len(sessions(run))} sessions, {damaged} damaged lines")
    print("settings:", *(f"{name}={value!r}" for name, value in config(run).items()))
    for row in rows:
        numbers = {key: value for key, value in row.items() if not key.startswith("_")}
        print(f"step {row['_step']}:", *(f"{key}={value!r}" for key, value in numbers.items()))
    for event in events(run):
        told = {key: value for key, value in event.items() if not key.startswith("_")}
        print(f"session {event['_session']}: {event['_event']} {told}")
    for step, damage in checkpoints(run).items():
        print(f"checkpoint {step}: {damage or 'intact'}")


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    place = Path(sys.argv[1])
    if (place / "run.json").exists():
        show(place)
        return
    for run in runs(place):
        print(
            f"{run.parent.name}/{run.name}  {status(run)}  {document(run / 'run.json').get('name')}"
        )


if __name__ == "__main__":
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # piped into `head`, end as other tools do
    main()
