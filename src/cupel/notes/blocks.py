"""Markdown as notes use it: front matter, headings with what stands below them, tables, blocks.

Nothing here knows papers. No text raises: what cannot be read becomes a fault with its line, and
reading goes on below it. CRLF, a byte-order mark, tabs, trailing spaces and a missing last newline
make no difference.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from cupel.notes.faults import Fault, Place

_HEADING = re.compile(r"(#{1,6})(?:\s+(.*?))?(?:\s+#+)?$")
_NO_SPACE = re.compile(r"#{1,6}[^\s#!]")
_FENCE = re.compile(r"\s*(`{3,}|~{3,})\s*([^`]*)$")
_BULLET = re.compile(r"[-*+]\s+(.*)$")
_RULE = re.compile(r"\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?$")
_BAR = re.compile(r"(?<!\\)\|")
_LABEL = re.compile(r"(?:Notes|Tests):")
_KEY = re.compile(r"([A-Za-z_][\w-]*)\s*:(?:\s+(.*))?$")
_TODO = re.compile(r"\bTODO\b")
_BOLD = re.compile(
    r"(?:[-*+]\s+)?(?:\*\*|__)\s*((?:Equations?|Eqs?\.?|Algorithms?|Ambiguity)\s*\(?[0-9A][\w.–-]*\)?)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Fence:
    """A fenced block; `line` is that of its first line of text."""

    language: str
    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Row:
    cells: tuple[str, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Table:
    """A table; rows with a wrong number of cells have become faults."""

    head: tuple[str, ...]
    rows: tuple[Row, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Bullet:
    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph, on one line."""

    text: str
    line: int


Item = Fence | Table | Bullet | Text


@dataclass(slots=True)
class Part:
    """A heading and what stands below it, up to the next one of its level."""

    level: int
    title: str
    line: int
    items: list[Item] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Pair:
    """A line of the front matter."""

    key: str
    value: str | tuple[str, ...]
    line: int


@dataclass(slots=True)
class Document:
    """A file taken apart: `parts` are its level-2 headings, `title` its level-1 heading."""

    path: str
    front: list[Pair] = field(default_factory=list)
    has_front: bool = False
    title: str = ""
    parts: list[Part] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def fault(self, rule: str, line: int, text: str, hint: str = "") -> None:
        self.faults.append(Fault(rule, Place(self.path, line), text, hint))


def take_apart(text: str, path: str) -> Document:
    """The structure of a text, with what is wrong with it."""
    document = Document(path)
    lines = [
        line.expandtabs(4).rstrip() for line in re.split(r"\r\n|\r|\n", text.removeprefix("\ufeff"))
    ]
    for number, line in enumerate(lines, 1):
        if _TODO.search(line):
            document.fault(
                "todo",
                number,
                f"still to do: '{_short(line.strip())}'",
                "write it, and take TODO away",
            )
    _Scanner(document, lines).scan()
    return document


class _Scanner:
    """One pass over the lines; `_at` is the place of the next one."""

    def __init__(self, document: Document, lines: list[str]) -> None:
        self._document, self._lines, self._at = document, lines, 0
        # What stands above the first heading is looked at, and belongs nowhere.
        self._open: list[Part] = [Part(1, "", 1)]

    def scan(self) -> None:
        self._front()
        while self._at < len(self._lines):
            line = self._lines[self._at]
            if not line.strip() or re.fullmatch(r"(?:-{3,}|\*{3,}|_{3,})", line):
                self._at += 1
            elif _HEADING.match(line) or _NO_SPACE.match(line):
                self._heading(line)
            elif _FENCE.match(line):
                self._fence(line)
            elif line.lstrip().startswith("|"):
                self._table()
            else:
                self._prose(line)

    # ---- front matter ----------------------------------------------------------------------

    def _front(self) -> None:
        while self._at < len(self._lines) and not self._lines[self._at]:
            self._at += 1
        if self._at == len(self._lines) or self._lines[self._at] != "---":
            return
        began = self._at
        self._document.has_front = True
        after = range(began + 1, len(self._lines))
        body = next((n for n in after if self._lines[n].startswith("## ")), len(self._lines))
        end = next((n for n in after if self._lines[n] == "---"), len(self._lines))
        if end < body:
            self._at = end + 1
        else:
            self._unclosed_front(began)
            self._at = end = next((n for n in after if self._lines[n].startswith("#")), body)
        for number in range(began + 1, end):
            self._pair(self._lines[number], number + 1)

    def _unclosed_front(self, began: int) -> None:
        self._document.fault(
            "front", began + 1, "the front matter never closes", "type --- below it"
        )

    def _pair(self, line: str, number: int) -> None:
        front = self._document.front
        bare = _without_comment(line).strip()
        if not bare:
            return
        if (
            bare.startswith("- ")
            and front
            and not (front[-1].value and isinstance(front[-1].value, str))
        ):
            before = front[-1].value
            more = (*(before if isinstance(before, tuple) else ()), _unquoted(bare[2:]))
            front[-1] = Pair(front[-1].key, more, front[-1].line)
            return
        match = _KEY.match(bare)
        if match is None:
            self._document.fault(
                "front", number, f"'{_short(bare)}' is no line of the form key: value"
            )
            return
        front.append(Pair(match[1], _value(match[2] or ""), number))

    # ---- body ------------------------------------------------------------------------------

    def _heading(self, line: str) -> None:
        self._at += 1
        match = _HEADING.match(line)
        if match is None:
            sharps = line[: len(line) - len(line.lstrip("#"))]
            self._document.fault(
                "heading", self._at, f"'{_short(line)}' is no heading",
                f"type '{sharps} {_short(line.lstrip('#'))}'",
            )  # fmt: skip
            return
        level, title = len(match[1]), " ".join((match[2] or "").split())
        if level == 1:
            self._title(title)
        elif level > 3:
            self._document.fault(
                "heading", self._at, f"a heading of level {level}: '{_short(title)}'",
                "notes have sections (##) and parts (###); write it as plain text",
            )  # fmt: skip
        else:
            self._opened(Part(level, title, self._at))

    def _title(self, title: str) -> None:
        if self._document.title or self._document.parts:
            self._document.fault(
                "heading", self._at, f"a second title: '{_short(title)}'", "sections begin with ##"
            )
        self._document.title = self._document.title or title

    def _opened(self, part: Part) -> None:
        if part.level == 2:
            self._document.parts.append(part)
            self._open = [part]
        elif self._open[0].level == 2:
            self._open[0].parts.append(part)
            self._open = [self._open[0], part]
        else:
            self._document.fault(
                "heading", part.line, f"'### {_short(part.title)}' stands before any section",
                "put it below its section, as ## 1. Equations",
            )  # fmt: skip

    def _fence(self, line: str) -> None:
        match = _FENCE.match(line)
        assert match is not None, line
        mark, language = match[1], match[2].strip().lower()
        began = self._at
        indent = len(line) - len(line.lstrip())
        body: list[str] = []
        self._at += 1
        while self._at < len(self._lines):
            inner = self._lines[self._at]
            other = _FENCE.match(inner)
            if other and other[1][0] == mark[0] and len(other[1]) >= len(mark) and not other[2]:
                self._at += 1
                break
            if (other and other[2]) or re.match(r"#{2,3}\s", inner):
                self._unclosed(began, mark, language)
                break
            body.append(inner[min(indent, len(inner) - len(inner.lstrip())) :])
            self._at += 1
        else:
            self._unclosed(began, mark, language)
        self._add(Fence(language, "\n".join(body), began + 2))

    def _unclosed(self, began: int, mark: str, language: str) -> None:
        self._document.fault(
            "block", began + 1, f"the block {mark}{_short(language)} never closes",
            f"type {mark} below it",
        )  # fmt: skip

    def _table(self) -> None:
        began = self._at
        while self._at < len(self._lines) and self._lines[self._at].lstrip().startswith("|"):
            self._at += 1
        lines = [(n + 1, self._lines[n].strip()) for n in range(began, self._at)]
        head = _cells(lines[0][1])
        if len(lines) < 2 or not _RULE.fullmatch(lines[1][1]):
            self._document.fault(
                "table", lines[0][0], "a table without a line of dashes below its heading",
                f"type |{'---|' * len(head)} there",
            )  # fmt: skip
            rows = lines[1:]
        else:
            rows = lines[2:]
        kept = []
        for number, line in rows:
            cells = _cells(line)
            if len(cells) == len(head):
                kept.append(Row(cells, number))
            else:
                self._document.fault(
                    "table", number,
                    f"a row of {len(cells)} cells in a table of {len(head)} columns",
                    f"columns are {' | '.join(map(_short, head))}; a bar within a cell is \\|",
                )  # fmt: skip
        self._add(Table(tuple(cell.lower() for cell in head), tuple(kept), lines[0][0]))

    def _prose(self, line: str) -> None:
        began = self._at + 1
        self._refuse_labels(line.strip(), began)
        bullet = _BULLET.match(line)
        texts = [bullet[1] if bullet else line.strip()]
        self._at += 1
        while self._at < len(self._lines) and self._goes_on(listed=bullet is not None):
            self._refuse_labels(self._lines[self._at].strip(), self._at + 1)
            texts.append(self._lines[self._at].strip())
            self._at += 1
        text = " ".join(" ".join(texts).split())
        self._add(Bullet(text, began) if bullet else Text(text, began))

    def _goes_on(self, *, listed: bool) -> bool:
        """Whether the next line belongs to a paragraph, or to the point of a list."""
        line = self._lines[self._at]
        if not line.strip() or _HEADING.match(line) or _FENCE.match(line) or line[0] == "|":
            return False
        if listed:
            return line.startswith("  ")
        return not _BULLET.match(line) and not _LABEL.match(line) and not _NO_SPACE.match(line)

    def _refuse_labels(self, text: str, line: int) -> None:
        if found := _BOLD.match(text):
            self._document.fault(
                "heading", line, f"'{found[1]}' in bold is no heading, and would not be found",
                "type '### Equation N: Name' on a line of its own, one for each equation",
            )  # fmt: skip

    def _add(self, item: Item) -> None:
        self._open[-1].items.append(item)


# ---- pieces of lines ---------------------------------------------------------------------------


def _cells(line: str) -> tuple[str, ...]:
    inner = line.removeprefix("|")
    if inner.endswith("|") and not inner.endswith("\\|"):
        inner = inner[:-1]
    return tuple(" ".join(cell.replace("\\|", "|").split()) for cell in _BAR.split(inner))


def _value(text: str) -> str | tuple[str, ...]:
    """What a line of the front matter says: a text, or a list in brackets."""
    text = text.strip()
    if text.startswith("[") and text.endswith("]"):
        return tuple(_unquoted(piece) for piece in text[1:-1].split(",") if piece.strip())
    return _unquoted(text)


def _unquoted(text: str) -> str:
    text = " ".join(text.split())
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    return text


def _without_comment(line: str) -> str:
    if line.lstrip().startswith("#"):
        return ""
    # A quoted value may hold ' #'; there is no other way to write one.
    match = re.match(r"""([^"'#]*:\s*(?:"[^"]*"|'[^']*'))\s*(?:#.*)?$""", line)
    return match[1] if match else re.split(r"\s#", line, maxsplit=1)[0]


def _short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
