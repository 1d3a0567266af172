"""What stands below an entry's heading: `- Key: value` lines, blocks, words, notes and tests."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from cupel.errors import did_you_mean
from cupel.notes import tables
from cupel.notes.blocks import Bullet, Document, Fence, Item, Part, Table, Text
from cupel.notes.faults import Place
from cupel.notes.model import KINDS, Block, Criterion, Symbol

_FIELD = re.compile(r"([A-Z][A-Za-z]*)\s*:\s*(.*)")
_TEST = re.compile(r"\[([^\]]*)\]\s*(.*)")
_SPECIAL = ("latex", "form", "printed", "pseudocode", "diagram")


@dataclass(slots=True)
class Fields:
    """The fields of an entry, and what stands below them."""

    document: Document
    title: str
    heading: int
    values: dict[str, tuple[str, int]] = field(default_factory=dict)
    rest: list[Item] = field(default_factory=list)

    def text(self, key: str) -> str:
        """The value of a field, "" where it is missing."""
        return self.values.get(key, ("", 0))[0]

    def line(self, key: str) -> int:
        """The line of a field, that of the heading where it is missing."""
        return self.values.get(key, ("", self.heading))[1]

    def optional(self, key: str) -> str:
        """A value that may be `none`, which is then ""."""
        return "" if self.text(key) == "none" else self.text(key)

    def one_of(self, key: str, known: Sequence[str]) -> str:
        """A value of a list; another one is a fault, and counts as missing."""
        value = self.text(key)
        if not value or value in known:
            return value
        self.document.fault(
            "value", self.line(key), f"'{key}: {value}' is none of {', '.join(known)}",
            did_you_mean(value, known).removeprefix("; "),
        )  # fmt: skip
        return ""


def fields_of(
    document: Document, part: Part, required: Sequence[str], optional: Sequence[str] = ()
) -> Fields:
    """Take the fields, which come first; unknown, repeated and missing ones are faults."""
    known = (*required, *optional)
    found = Fields(document, part.title, part.line)
    for place, item in enumerate(part.items):
        match = _FIELD.fullmatch(item.text) if isinstance(item, Bullet) else None
        if not isinstance(item, Bullet):
            found.rest = part.items[place:]
            break
        if match is None or match[1] not in known:
            said = match[1] if match else item.text[:40]
            document.fault(
                "field", item.line, f"'{said}' is no field of '{part.title}'",
                did_you_mean(said, known).removeprefix("; ") or f"fields are {', '.join(known)}",
            )  # fmt: skip
        elif match[1] in found.values:
            document.fault("field", item.line, f"'{match[1]}' is given twice", "keep one of them")
        else:
            found.values[match[1]] = (match[2].strip(), item.line)
    for key in required:
        if not found.text(key):
            document.fault(
                "field", found.line(key), f"'{part.title}' has no {key}", f"type '- {key}: …'"
            )
    return found


@dataclass(slots=True)
class Body:
    """What stands below the fields."""

    blocks: dict[str, Block] = field(default_factory=dict)
    table: Table | None = None
    symbols: tuple[Symbol, ...] = ()
    words: str = ""
    notes: str = ""
    tests: tuple[Criterion, ...] = ()

    def block(self, language: str) -> Block | None:
        """The block of a language."""
        return self.blocks.get(language)


def body_of(
    document: Document, part: Part, items: Sequence[Item], languages: Sequence[str], *, table: str
) -> Body:
    """Sort items into blocks, the table, words, notes and tests."""
    body = Body()
    tests: list[Criterion] = []
    words: list[Item] = []
    notes: list[Item] = []
    where = "words"
    for item in items:
        match item:
            case Text() if item.text.startswith(("Notes:", "Tests:")):
                label, _, rest = item.text.partition(":")
                where = label.lower()
                if where == "notes" and rest.strip():
                    notes.append(Text(rest.strip(), item.line))
                elif rest.strip():
                    document.fault(
                        "tests", item.line, f"'{item.text[:60]}' is no list",
                        "below 'Tests:' type '- [value] what is compared with what'",
                    )  # fmt: skip
            case Fence():
                _block(document, part, body, item, languages, free=where == "notes")
            case Table() if body.table is None and where == "words":
                body.table = item
            case Table():
                document.fault("table", item.line, f"a second table in '{part.title}'")
            case Bullet() if where == "tests":
                tests += _criterion(document, item)
            case Bullet() | Text():
                (notes if where == "notes" else words).append(item)
    body.words, body.notes, body.tests = paragraphs(words), paragraphs(notes), tuple(tests)
    if table == "symbols":
        body.symbols = tables.symbols_of(document, body.table)
    return body


def _block(
    document: Document, part: Part, body: Body, item: Fence, languages: Sequence[str], *, free: bool
) -> None:
    if item.language in body.blocks:
        document.fault("block", item.line - 1, f"a second block ```{item.language}")
    elif item.language in languages:
        if not item.text.strip():
            document.fault("block", item.line - 1, f"the block ```{item.language} is empty")
        body.blocks[item.language] = Block(item.text, Place(document.path, item.line))
    elif not free or item.language in _SPECIAL:
        document.fault(
            "block", item.line - 1,
            f"a block ```{item.language} does not belong into '{part.title}'",
            f"blocks are {', '.join(languages)}{did_you_mean(item.language, languages)}",
        )  # fmt: skip


def _criterion(document: Document, item: Bullet) -> list[Criterion]:
    match = _TEST.fullmatch(item.text)
    if match is None or not match[2]:
        document.fault(
            "tests", item.line, f"'{item.text[:60]}' does not say its kind, or what it shows",
            "type '- [value] what is compared with what'",
        )  # fmt: skip
        return []
    kind = match[1].strip()
    if kind not in KINDS:
        document.fault(
            "kind", item.line, f"unknown kind of test '{kind}'",
            did_you_mean(kind, KINDS).removeprefix("; ") or f"kinds are {', '.join(KINDS)}",
        )  # fmt: skip
        return []
    return [Criterion(kind, match[2], Place(document.path, item.line))]


def paragraphs(items: Sequence[Item]) -> str:
    """The words of some items, lists as lists."""
    told = []
    for item in items:
        if isinstance(item, Bullet):
            told.append(f"- {item.text}")
        elif isinstance(item, Text):
            told.append(item.text)
    return "\n\n".join(told).replace("\n\n- ", "\n- ")
