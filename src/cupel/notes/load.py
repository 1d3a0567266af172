"""Which files are meant, and all of them read: `load(["notes/"])`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cupel.errors import UsageError
from cupel.notes.faults import Fault
from cupel.notes.lint import check
from cupel.notes.model import Paper
from cupel.notes.reader import Reading, read

SUFFIX = ".context.md"
FOLDER = Path("notes")


@dataclass(frozen=True, slots=True)
class Notes:
    """The notes that were given, by paper, and what is wrong with them."""

    papers: tuple[Paper, ...]
    faults: tuple[Fault, ...]

    @property
    def serious(self) -> list[Fault]:
        """Faults that are more than warnings."""
        return [fault for fault in self.faults if fault.serious]


def files_of(paths: Sequence[Path]) -> list[Path]:
    """The files that paths mean, a folder standing for its *.context.md; without any, `notes/`.

    Raises UsageError for what is not there, and where there are none.
    """
    if not paths:
        if not FOLDER.is_dir():
            raise UsageError(
                "there is no folder notes/ here; name files or folders, or begin with: "
                "cupel notes new NAME"
            )
        paths = [FOLDER]
    found: dict[Path, Path] = {}
    for path in paths:
        if path.is_dir():
            inside = sorted(path.glob(f"*{SUFFIX}"))
            if not inside:
                raise UsageError(f"{path} holds no *{SUFFIX}; begin with: cupel notes new NAME")
        elif path.exists():
            inside = [path]
        else:
            raise UsageError(f"there is no {path}; name a file of notes, or a folder of them")
        for one in inside:
            found.setdefault(one.resolve(), one)
    return sorted(found.values(), key=lambda one: one.as_posix())


def read_file(path: Path) -> Reading:
    """One file. Raises UsageError when it cannot be read, or is no UTF-8."""
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path} is no UTF-8, from byte {error.start} on; save it as UTF-8"
        ) from error
    return read(text, path.as_posix())


def load(paths: Sequence[Path]) -> Notes:
    """Read and check what paths mean. Raises UsageError for paths that mean nothing."""
    return together([read_file(path) for path in files_of(paths)])


def together(readings: Sequence[Reading]) -> Notes:
    """Readings as one set of notes, in an order that does not depend on theirs."""
    readings = sorted(readings, key=lambda one: (one.paper.id, one.paper.at))
    return Notes(tuple(reading.paper for reading in readings), tuple(check(readings)))


def load_sound(paths: Sequence[Path]) -> tuple[Paper, ...]:
    """The papers of notes without faults. Raises UsageError that names the first of them."""
    notes = load(paths)
    if wrong := notes.serious:
        more = f", the first of {len(wrong)} faults" if len(wrong) > 1 else ""
        raise UsageError(f"{wrong[0]}{more}; see: cupel notes lint")
    return notes.papers
