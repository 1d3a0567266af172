"""Holds a run's record against everything that it promises of itself: `check_run`.

Every line of every file of lines, every hash of checkpoints, media, artifacts and patches, every
JSON file, and what they say of each other. Reads all of the run once, at the speed of SHA-256 or of
the disk. Nothing is changed and nothing raises for what is damaged: it is told.

A session that ended in order has said how many bytes its files of lines had, and their CRC-32; of
older records, and of sessions that were killed, only what no longer is a line can be seen.

What a kill or a full disk leaves is no damage, and is a note: a line cut off at the end of a file,
lines that were counted as lost, files that no event tells of.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from cupel.errors import CheckpointError, RecordError
from cupel.record import checkpoints, files, inventory, layout, manifests, media
from cupel.record.claims import is_unadopted
from cupel.record.lines import LineFile
from cupel.record.reader import SessionInfo
from cupel.record.summary import rule_of

_STATUSES = ("running", "finished", "failed", "interrupted")
_LINES = re.compile(r"(metrics|events|system)\.r([0-9]{1,9})\.([0-9]{3,9})\.jsonl")
_REQUIRED: dict[str, tuple[str, tuple[type, ...]]] = {
    "metrics": ("_step", (int,)),
    "events": ("_event", (str,)),
    "system": ("_t", (int, float)),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be: the file, from the run's folder, and what."""

    place: str
    what: str

    def __str__(self) -> str:
        return f"{self.place}: {self.what}"


@dataclass(slots=True)
class Checked:
    """What was found about a run; it is sound without `problems`. `notes` are no damage."""

    run_dir: Path
    problems: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)
    lines: int = 0
    torn: int = 0
    files: int = 0
    bytes: int = 0

    @property
    def sound(self) -> bool:
        """Whether everything is what it was."""
        return not self.problems


def check_run(run_dir: Path, *, tell: Callable[[str], object] = lambda place: None) -> Checked:
    """Check one run; `tell` hears of each file before it is read."""
    return _Check(run_dir, tell).all()


class _Check:
    def __init__(self, run_dir: Path, tell: Callable[[str], object]) -> None:
        self.run_dir = run_dir
        self.found = Checked(run_dir)
        self._tell = tell
        self._last: dict[int, _Last] = {}  # of each session, for what else tells of its end

    def all(self) -> Checked:
        run = self._document(layout.RUN)
        self._run(run or {})
        events: list[dict[str, Any]] = []
        numbers = layout.session_numbers(self.run_dir)
        for number in numbers:
            events += self._session(number)
        if missing := sorted(set(range(1, max(numbers, default=0))) - set(numbers)):
            self._problem(layout.SESSIONS, f"session {missing[0]:04d} is gone")
        self._results(numbers, (run or {}).get("run_id", self.run_dir.name), events)
        self._checkpoints()
        self._media(events)
        self._artifacts(events)
        return self.found

    def _run(self, run: Mapping[str, Any]) -> None:
        schema = run.get("schema", layout.SCHEMA)
        if not isinstance(schema, int) or schema > layout.SCHEMA:
            self._problem(layout.RUN, f"schema {schema!r}; this cupel reads {layout.SCHEMA}")
        for name, place in (("run_id", self.run_dir), ("project", self.run_dir.parent)):
            if name in run and run[name] != place.absolute().name:
                self._note(layout.RUN, f"{name} is {run[name]!r}, and its folder {place.name!r}")
        config = self._document(layout.CONFIG)
        if config is None:
            return
        if not isinstance(config.get("config"), dict):
            self._problem(layout.CONFIG, "holds no configuration")
        if run and config.get("identity") != run.get("identity"):
            self._problem(layout.CONFIG, f"its identity is not that of {layout.RUN}")

    def _session(self, number: int) -> list[dict[str, Any]]:
        """Check one session; its events."""
        folder = layout.session_dir(self.run_dir, number)
        place = f"{layout.SESSIONS}/{folder.name}"
        # A kill may have come before these were there, and session.json comes before any line.
        # Nor are they when a session was claimed, and nothing began in it.
        status = SessionInfo.read(self.run_dir, number).status
        whole = status in _STATUSES[1:] and not is_unadopted(folder)
        begun = bool(layout.segments(folder, "metrics"))
        fields = self._document(f"{place}/{layout.SESSION}", needed=whole or begun)
        if fields is not None:
            if fields.get("status") not in _STATUSES:
                self._problem(f"{place}/{layout.SESSION}", f"status is {fields.get('status')!r}")
            if fields.get("number", number) != number:
                self._problem(f"{place}/{layout.SESSION}", f"calls itself {fields['number']!r}")
            start = fields.get("start_step")
            if start is not None and not isinstance(start, int):
                self._problem(f"{place}/{layout.SESSION}", f"start_step is {start!r}")
            for name, told in (("lost", "lines did not reach the disk"),
                               ("steps_went_back", "times a step went back")):  # fmt: skip
                if isinstance(count := fields.get(name), int) and count > 0:
                    self._note(f"{place}/{layout.SESSION}", f"{count:,} {told}")
        self._environment(folder, place, needed=whole)
        went_back = bool((fields or {}).get("steps_went_back"))
        last = self._last[number] = _Last()
        found_in: dict[str, _Lines] = {}
        before = len(self.found.problems)
        for name in sorted((path.name for path in folder.iterdir()), key=_by_number):
            if match := _LINES.fullmatch(name):
                of_rank_0 = match[1] == "metrics" and int(match[2]) == 0 and not went_back
                path = folder / name
                found_in[name] = self._lines(
                    path, f"{place}/{name}", match[1], last if of_rank_0 else None
                )
        events = [event for found in found_in.values() for event in found.events]
        promised = _promised(fields if whole else None, events)
        lost_none = whole and (fields or {}).get("lost") == 0
        for name, found in found_in.items():
            ended = lost_none and re.fullmatch(r"\w+\.r0\..*", name) is not None
            self._against(f"{place}/{name}", found, promised.get(name), ended=ended)
        gone = {name for name in promised if _LINES.fullmatch(name) and name not in found_in}
        for name in sorted(gone | _missing(found_in, whole=whole)):
            self._problem(place, f"{name} is gone")
        if len(self.found.problems) == before:  # else its lines are not those that it told of
            self._told_last(f"{place}/{layout.SESSION}", (fields or {}).get("last"), last)
        return events

    def _told_last(self, place: str, told: Any, last: _Last) -> None:
        """Compare the last numbers that a session told with those of its lines."""
        if told is None:
            return
        try:
            said = {"_step": told["step"], **told["values"]}
            steps = dict.fromkeys(told["values"], told["step"]) | told["steps"]
        except (TypeError, KeyError, AttributeError):
            self._problem(place, "last is no step with values and their steps")
            return
        logged = last.values.keys() - {"_t"}
        for key in sorted(logged - said.keys()):
            self._problem(place, f"tells no last {key}, and its lines do")
        for key in sorted((said.keys() | steps.keys()) - logged):
            self._problem(place, f"tells a last {key}, and none of its lines does")
        for what, here, there in (("last", said, last.values), ("step of", steps, last.steps)):
            for key in here.keys() & there.keys():
                if repr(there[key]) != repr(here[key]):
                    self._problem(
                        place, f"tells {here[key]!r} as {what} {key}; its lines say {there[key]!r}"
                    )

    def _against(
        self, place: str, found: _Lines, promised: Mapping[str, Any] | None, *, ended: bool
    ) -> None:
        """Compare a file with what was said of it at the end; `ended` is whether all of it must be
        whole lines, should nothing have been said."""
        size, checksum = (promised or {}).get("bytes"), (promised or {}).get("crc32")
        if found.size is None:
            return  # it cannot be read, which was told
        if size is not None and size != found.size:
            self._problem(
                place, f"has {found.size:,} bytes; at the end of its session it had {size!r}"
            )
        elif checksum is not None and (found.torn or checksum != found.checksum):
            self._problem(
                place, f"has changed: its CRC-32 is {found.checksum}; it was {checksum!r}"
            )
        elif found.torn and ended and size is None:
            self._problem(place, "its last line was cut off, after its session had ended")
        elif found.torn:
            self.found.torn += 1
            self._note(place, "its last line was cut off")

    def _environment(self, folder: Path, place: str, *, needed: bool) -> None:
        facts = self._document(f"{place}/{layout.ENVIRONMENT}", needed=needed)
        promised = (facts or {}).get("dirty_patch_sha256")
        if isinstance(promised, str):
            self._bytes(folder / layout.DIRTY_PATCH, {"sha256": promised})

    def _lines(self, path: Path, place: str, kind: str, last: _Last | None) -> _Lines:
        """Read every line of a file; what it logged of each key goes into `last`."""
        self._tell(place)
        required, kinds = _REQUIRED[kind]
        file = LineFile(path, required, *kinds)
        found = _Lines()
        try:
            for piece in file.pieces():
                found.checksum = zlib.crc32(piece, found.checksum)
                lines = file.decode(piece)
                self.found.lines += len(lines)
                if kind == "events":
                    found.events += lines
                if last is not None:
                    for line in lines:
                        last.take(line)
            found.size = path.stat().st_size
            self._count(path)
        except OSError as error:
            self._problem(place, f"cannot be read: {error.strerror or error}")
        if file.damaged:
            many = "a line cannot" if file.damaged == 1 else f"{file.damaged:,} lines cannot"
            self._problem(place, f"{many} be read")
        found.torn = file.unfinished
        return found

    def _results(self, numbers: list[int], run_id: Any, events: list[dict[str, Any]]) -> None:
        if not (self.run_dir / layout.RESULTS).exists():
            return
        results = self._document(layout.RESULTS)
        if results is None:
            return
        accepted = results.get("accepted_session")
        if accepted is not None and accepted not in numbers:
            self._problem(layout.RESULTS, f"are of session {accepted!r}, which is gone")
        if results.get("run", run_id) != run_id:
            self._problem(layout.RESULTS, f"are of another run, {results['run']!r}")
        if not isinstance(results.get("step", 0), int):
            self._problem(layout.RESULTS, f"step is {results['step']!r}")
        if accepted in numbers and (last := self._last[accepted].values):
            self._results_against(results, last, events)

    def _results_against(
        self, results: Mapping[str, Any], last: dict[str, Any], events: list[dict[str, Any]]
    ) -> None:
        """Note where the results say another thing than the last lines: a loop of one's own may."""
        logged, step = results.get("last_logged"), results.get("step")
        exact = logged.get("step") if isinstance(logged, dict) else None
        if isinstance(exact, int) and exact != last["_step"]:
            self._note(
                layout.RESULTS, f"logged last at step {exact}; the last line is of {last['_step']}"
            )
        elif isinstance(step, int) and step < last["_step"]:
            self._note(layout.RESULTS, f"ends at step {step}; the last line is of {last['_step']}")
        defined = [event for event in events if event["_event"] == "define_metric"]
        said = [event.get("set") for event in events if event["_event"] == "summary"]
        set_by_hand = {key for values in said if isinstance(values, dict) for key in values}
        final = results.get("final")
        for key, value in final.items() if isinstance(final, dict) else ():
            if key not in last or key in set_by_hand or rule_of(key, defined) != "last":
                continue
            if not _is_same(value, last[key]):
                self._note(
                    layout.RESULTS,
                    f"final {key[:80]!r} is {value!r}; the last line with it says {last[key]!r}",
                )

    def _checkpoints(self) -> None:
        run_dir, place = self.run_dir, layout.CHECKPOINTS
        steps = checkpoints.all_steps(run_dir)
        for step in steps:
            folder = checkpoints.step_dir(run_dir, step)
            self._tell(f"{place}/{folder.name}")
            try:
                wrong = inventory.verify(run_dir, [step])[step]
                own = None if wrong else manifests.read_manifest(folder).get("step")
            except (RecordError, CheckpointError, KeyError, TypeError, AttributeError) as error:
                wrong, own = f"{type(error).__name__}: {error}", None
            if wrong:
                told = wrong.removeprefix(f"{folder}/").removeprefix(f"{folder} ")
                self._problem(f"{place}/{folder.name}", told)
            elif own != step:
                self._problem(f"{place}/{folder.name}", f"its manifest is of step {own!r}")
            else:
                for path in folder.iterdir():
                    self._count(path)
        for path in sorted(checkpoints.checkpoints_dir(run_dir).glob("*.json")):
            self._pointer(path, steps)

    def _pointer(self, path: Path, steps: list[int]) -> None:
        place = f"{layout.CHECKPOINTS}/{path.name}"
        fields = self._document(place)
        if fields is None:
            return
        if path.name == checkpoints.PINS:
            named = fields.get("steps")
            if not isinstance(named, list) or not all(type(step) is int for step in named):
                self._problem(place, "lists no steps")
                return
            named = [step for step in named if step not in steps]
            if named:
                self._problem(place, f"pins step {named[0]}, whose checkpoint is gone")
        elif not isinstance(fields.get("step"), int):
            self._problem(place, "names no step")
        elif fields["step"] not in steps:
            # Retention may have taken the best; never the latest, unless somebody else did.
            told = self._problem if path.stem == checkpoints.LATEST else self._note
            told(place, f"names step {fields['step']}, whose checkpoint is gone")

    def _media(self, events: list[dict[str, Any]]) -> None:
        told: set[str] = set()
        for event in events:
            place = event.get("path")
            if event["_event"] != "media" or str(place) in told:
                continue
            if not isinstance(place, str) or not _is_inside(place):
                self._problem(media.MEDIA, f"an event tells of the path {place!r}")
                continue
            told.add(place)
            self._bytes(self.run_dir / place, event)
        there = [path for path in (self.run_dir / media.MEDIA).rglob("*") if path.is_file()]
        self._untold(there, told)

    def _artifacts(self, events: list[dict[str, Any]]) -> None:
        told: set[str] = set()
        for event in events:
            place = event.get("path")
            if event["_event"] != "artifact" or str(place) in told:
                continue
            if not isinstance(place, str) or not _is_inside(place):
                self._problem(media.ARTIFACTS, f"an event tells of the path {place!r}")
                continue
            told.add(place)
            self._artifact(place, event)
        self._untold(list((self.run_dir / media.ARTIFACTS).glob("*/v*")), told)

    def _artifact(self, place: str, event: Mapping[str, Any]) -> None:
        manifest = f"{place}/{media.MANIFEST}"
        fields = self._document(manifest)
        if fields is None:
            return
        listed = fields.get("files")
        try:
            if media.digest_of(listed or {}) != event.get("sha256"):
                self._problem(manifest, "lists other files than its event told of")
            contents = dict(listed or {})
        except (TypeError, KeyError, AttributeError, ValueError, StopIteration):
            self._problem(manifest, "lists no files")
            return
        for name, promised in contents.items():
            inner = f"{place}/{media.FILES}/{name}"
            if not _is_inside(inner) or not isinstance(promised, dict):
                self._problem(manifest, f"lists {str(name)[:80]!r}")
                continue
            if not isinstance(promised.get("bytes"), int):
                self._problem(manifest, f"does not say how large {name[:80]!r} is")
            self._bytes(self.run_dir / inner, promised)

    def _untold(self, there: list[Path], told: set[str]) -> None:
        """Note what no event tells of: a kill came between the file and its event."""
        places = {path.relative_to(self.run_dir).as_posix() for path in there}
        if more := sorted(places - told):
            count = f", nor of {len(more) - 1:,} others" if len(more) > 1 else ""
            self._note(more[0], f"no event tells of it{count}")

    def _document(self, place: str, *, needed: bool = True) -> dict[str, Any] | None:
        """What a JSON file of the run holds; None, and a problem, when it cannot be read.

        That a file is missing which is not `needed` is a note.
        """
        path = self.run_dir / place
        self._tell(place)
        try:
            fields = files.read_json(path)
        except RecordError as error:
            missing = not (path.exists() or path.is_symlink())
            told = str(error).removeprefix(f"cannot read {path}: ").removeprefix(f"{path} is ")
            if missing and not needed:
                self._note(place, "was not written")
            else:
                self._problem(place, "is missing" if missing else told.split("; cupel writes")[0])
            return None
        self._count(path)
        return fields

    def _bytes(self, path: Path, promised: Mapping[str, Any]) -> None:
        """Compare a file with its size, where that is known, and its SHA-256."""
        place = path.relative_to(self.run_dir).as_posix()
        self._tell(place)
        try:
            size = path.stat().st_size
            if size != promised.get("bytes", size):
                self._problem(place, f"has {size:,} bytes; it had {promised['bytes']!r}")
                return
            with files.open_regular(path) as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except (OSError, ValueError) as error:
            gone = isinstance(error, FileNotFoundError)
            told = "is missing" if gone else getattr(error, "strerror", None) or str(error)
            self._problem(place, told)
            return
        if digest != promised.get("sha256"):
            was = str(promised.get("sha256"))[:12]
            self._problem(
                place, f"has changed: its SHA-256 begins with {digest[:12]}; it was {was}"
            )
            return
        self._count(path)

    def _count(self, path: Path) -> None:
        self.found.files += 1
        self.found.bytes += path.stat().st_size

    def _problem(self, place: str, what: str) -> None:
        self.found.problems.append(Finding(place, what))

    def _note(self, place: str, what: str) -> None:
        self.found.notes.append(Finding(place, what))


@dataclass(slots=True)
class _Last:
    """What rank 0 logged of each key at its greatest step, and that step."""

    values: dict[str, Any] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)

    def take(self, line: dict[str, Any]) -> None:
        step = line["_step"]
        if step < self.steps.get("_step", step):  # of threads that log, one may come late
            line = {key: value for key, value in line.items() if step >= self.steps.get(key, step)}
        self.values.update(line)
        self.steps.update(dict.fromkeys(line, step))


@dataclass(slots=True)
class _Lines:
    """What a file of lines was found to be; `size` is None when it could not be read."""

    events: list[dict[str, Any]] = field(default_factory=list)
    size: int | None = None
    checksum: int = 0  # of all whole lines
    torn: bool = False


def _promised(
    session: Mapping[str, Any] | None, events: list[dict[str, Any]]
) -> dict[str, Mapping[str, Any]]:
    """What a session that ended, and each further rank, said of its files."""
    said = [(session or {}).get("files")]
    said += [event.get("files") for event in events if event["_event"] == "finish"]
    return {
        name: told
        for listed in said
        if isinstance(listed, dict)
        for name, told in listed.items()
        if isinstance(told, dict)
    }


def _by_number(name: str) -> tuple[str, int, int, str]:
    """The order in which files of lines were written: the thousandth comes after the 999th."""
    match = _LINES.fullmatch(name)
    return (match[1], int(match[2]), int(match[3]), name) if match else ("", 0, 0, name)


def _missing(names: Iterable[str], *, whole: bool) -> set[str]:
    """Which segments are gone: those before another one, and the first two of a whole session."""
    segments: dict[tuple[str, int], set[int]] = {}
    for match in filter(None, map(_LINES.fullmatch, names)):
        segments.setdefault((match[1], int(match[2])), set()).add(int(match[3]))
    gone = {
        f"{kind}.r{rank}.{number:03d}.jsonl"
        for (kind, rank), there in segments.items()
        if (number := next((n for n in range(max(there)) if n not in there), None)) is not None
    }
    first = {f"{kind}.r0.000.jsonl" for kind in ("metrics", "events") if (kind, 0) not in segments}
    return gone | first if whole else gone


def _is_same(one: Any, other: Any) -> bool:
    return bool(one == other) or (one != one and other != other)


def _is_inside(place: str) -> bool:
    """Whether this is a relative path that stays inside of a run."""
    if not place or "\0" in place:
        return False
    path = PurePosixPath(place)
    return not path.is_absolute() and ".." not in path.parts
