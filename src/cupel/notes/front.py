"""The front matter of notes: its keys, and what each may say."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from cupel.errors import did_you_mean
from cupel.notes import ids
from cupel.notes.blocks import Document
from cupel.notes.faults import Place
from cupel.notes.model import CONFIDENCES, Entry

LISTS = ("authors", "builds_on", "needs_clarification")
_NAME = re.compile(r"[a-z][a-z0-9-]*")


def _is_name(value: str) -> bool:
    return _NAME.fullmatch(value) is not None


def _is_date(value: str) -> bool:
    return re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])", value) is not None


# Each key, what it may say, and how that is told. TODO may stand anywhere: a rule of its own.
KEYS: dict[str, tuple[Callable[[str], object], str]] = {
    "paper_id": (_is_name, "a name of small letters, digits and dashes, as titans"),
    "version": (_is_name, "the version that was read, as v1"),
    "title": (bool, "the paper's title"),
    "authors": (bool, "a list, as [Ada Lovelace, Alan Turing]"),
    "arxiv": (
        re.compile(r"none|\d{4}\.\d{4,5}(v\d+)?|[a-z.-]+(\.[A-Z]{2})?/\d{7}").fullmatch,
        "a number as 2501.00663, or none",
    ),
    "year": (re.compile(r"\d{4}").fullmatch, "a year, as 2025"),
    "contribution": (bool, "one line"),
    "builds_on": (ids.is_paper, "papers with their versions, as [titans.v1], or []"),
    "extraction_version": (re.compile(r"[1-9]\d{0,3}").fullmatch, "a number, 1 at first"),
    "extracted_at": (_is_date, "a date, as 2026-11-22"),
    "extractor": (bool, "who or what took the notes"),
    "source": (bool, "what was read, as: arXiv v1, 27 pages"),
    "confidence": (CONFIDENCES.__contains__, f"one of {', '.join(CONFIDENCES)}"),
    "needs_clarification": (
        re.compile(r"A[1-9]\d{0,5}").fullmatch, "ambiguities of section 8, as [A1, A4], or []"
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Front:
    """The entries of the front matter, and the name that the paper goes by."""

    entries: tuple[Entry, ...]
    key: str

    def text(self, key: str) -> str:
        """The value of a key, "" where it is missing."""
        value = self._value(key)
        return ", ".join(value) if isinstance(value, tuple) else value

    def many(self, key: str) -> tuple[str, ...]:
        """The values of a list."""
        value = self._value(key)
        return value if isinstance(value, tuple) else tuple(filter(None, [value]))

    def _value(self, key: str) -> str | tuple[str, ...]:
        return next((entry.value for entry in self.entries if entry.key == key), "")


def read(document: Document) -> Front:
    """The front matter of a document; what is wrong with it becomes faults of the document."""
    if not document.has_front:
        document.fault(
            "front", 1, "there is no front matter",
            "begin the file with --- and lines as paper_id: titans",
        )  # fmt: skip
    entries: dict[str, Entry] = {}
    for pair in document.front:
        if pair.key not in KEYS:
            near = did_you_mean(pair.key, KEYS).removeprefix("; ")
            document.fault(
                "front", pair.line, f"unknown key '{pair.key}'",
                near or f"keys are {', '.join(KEYS)}",
            )  # fmt: skip
        elif pair.key in entries:
            first = entries[pair.key].at.line
            document.fault(
                "front", pair.line, f"'{pair.key}' is given twice, first in line {first}",
                "keep one of them",
            )  # fmt: skip
        else:
            entries[pair.key] = Entry(pair.key, pair.value, Place(document.path, pair.line))
    for key, (fits, expected) in KEYS.items():
        if key in entries:
            _check(document, entries[key], fits, expected)
        elif document.has_front:
            document.fault("front", 1, f"the key '{key}' is missing", f"{key}: {expected}")
    front = Front(tuple(entries.values()), "")
    key = ".".join(_nameable(front.text(part)) for part in ("paper_id", "version"))
    return Front(front.entries, key)


def _nameable(text: str) -> str:
    """A name for ids also where what is given is none: ids are taken apart at dots and colons."""
    return text if _is_name(text) else "x" + re.sub(r"[^a-z0-9]", "-", text)[:40]


def _check(document: Document, entry: Entry, fits: Callable[[str], object], expected: str) -> None:
    is_list = isinstance(entry.value, tuple)
    values = entry.value if isinstance(entry.value, tuple) else (entry.value,)
    wrong = next((v for v in values if not fits(v) and "TODO" not in v), None)
    if is_list != (entry.key in LISTS):
        document.fault(
            "front", entry.at.line,
            f"'{entry.key}' is {'a list' if is_list else 'no list'}", f"expected {expected}",
        )  # fmt: skip
    elif wrong is not None or (entry.key == "authors" and not values):
        document.fault(
            "front", entry.at.line, f"'{entry.key}: {(wrong or '')[:60]}' is not readable",
            f"expected {expected}",
        )  # fmt: skip


def quoted(text: str) -> str:
    """A text as the front matter takes it: in quotes where it could be read as something else."""
    plain = not text.startswith(("[", "'", '"')) and not re.search(r"\s#|^#|[\x00-\x1f]", text)
    if plain:
        return text
    return f"'{text}'" if '"' in text else f'"{text}"'
