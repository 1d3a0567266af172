"""A file of notes, read: a `Paper`, complete as far as the text allows, and what is wrong with it.

No text raises. What is read here is the form; what holds between entries is for `cupel.notes.lint`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from cupel.notes import front, ids, tables
from cupel.notes.blocks import Bullet, Document, Fence, Item, Part, Table, Text, take_apart
from cupel.notes.faults import Fault, Place
from cupel.notes.fields import Body, Fields, body_of, fields_of, paragraphs
from cupel.notes.model import (
    CONFIDENCES,
    PRIORITIES,
    ROLES,
    Algorithm,
    Ambiguity,
    Block,
    Equation,
    Module,
    Paper,
    Remark,
    Skipped,
)

SECTIONS = (
    "Quick Reference",
    "Symbols",
    "1. Equations",
    "2. Algorithms",
    "3. Architecture",
    "4. Hyperparameters",
    "5. Benchmarks",
    "6. Dependencies",
    "7. Checklist",
    "8. Notes",
)
OPTIONAL = ("Symbols",)
REMARKS = ("Limits", "Optimisations", "Errata")
_ENTRY = re.compile(r"(Equation|Algorithm|Ambiguity)\s+(\S+?)\s*:\s*(.+)")
_SPAN = re.compile(r"eq(\d{1,6})(?:\s*[-–]\s*eq(\d{1,6}))?")
_MANY = re.compile(r"Equations?\s+\d+[a-z]?\s*(?:[-–,&]|and|to)\s*\d+", re.IGNORECASE)
_LIKE_ENTRY = re.compile(r"(?:Equation|Eq\.?|Algorithm|Ambiguity)\s*\(?\d", re.IGNORECASE)
_LAST_NUMBER = 999_999


@dataclass(frozen=True, slots=True)
class Reading:
    """What a file came to."""

    paper: Paper
    faults: tuple[Fault, ...]


def read(text: str, path: str) -> Reading:
    """Read the text of a file; `path` is what faults call it."""
    document = take_apart(text, path)
    reader = _Reader(document)
    paper = reader.paper()
    return Reading(paper, tuple(document.faults))


class _Reader:
    """Reads the parts of one document; each method takes one section."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._front = front.read(document)
        self._key = self._front.key

    def paper(self) -> Paper:
        """All of it."""
        given = self._sections()
        empty = Part(2, "", 1)
        part = {name: given.get(name, empty) for name in SECTIONS}
        for name in ("Quick Reference", "Symbols", *SECTIONS[5:9]):
            self._no_parts(part[name])
        counts = tables.counts(self._document, part["Quick Reference"])
        symbols = tables.symbols(self._document, part["Symbols"])
        equations, skipped = self._equations(part["1. Equations"])
        architecture, diagram, modules = self._architecture(part["3. Architecture"])
        ambiguities, remarks = self._notes(part["8. Notes"])
        said = self._front
        return Paper(
            id=said.key,
            paper_id=said.text("paper_id"),
            version=said.text("version"),
            title=said.text("title"),
            authors=said.many("authors"),
            arxiv=said.text("arxiv"),
            year=said.text("year"),
            contribution=said.text("contribution"),
            builds_on=said.many("builds_on"),
            extraction_version=said.text("extraction_version"),
            extracted_at=said.text("extracted_at"),
            extractor=said.text("extractor"),
            source=said.text("source"),
            confidence=said.text("confidence"),
            needs_clarification=said.many("needs_clarification"),
            front=said.entries,
            counts=counts,
            symbols=symbols,
            skipped=skipped,
            equations=equations,
            algorithms=self._algorithms(part["2. Algorithms"]),
            architecture=architecture,
            diagram=diagram,
            modules=modules,
            hyperparameters=tables.hyperparameters(self._document, part["4. Hyperparameters"]),
            benchmarks=tables.benchmarks(self._document, part["5. Benchmarks"]),
            dependencies=tables.dependencies(self._document, part["6. Dependencies"]),
            checklist=self._checklist(part["7. Checklist"]),
            ambiguities=ambiguities,
            remarks=remarks,
            at=Place(self._document.path, 1),
        )

    # ---- sections --------------------------------------------------------------------------

    def _sections(self) -> dict[str, Part]:
        """The sections by name; unknown, missing, repeated and misplaced ones become faults."""
        found: dict[str, Part] = {}
        latest = -1
        for part in self._document.parts:
            name = self._section_name(part)
            if name is None:
                continue
            if name in found:
                self._fault("section", part.line, f"'## {name}' is there twice", "keep one of them")
                continue
            found[name] = part
            if SECTIONS.index(name) < latest:
                self._fault(
                    "section", part.line, f"'## {name}' is out of order",
                    f"it comes before '## {SECTIONS[latest]}'",
                )  # fmt: skip
            latest = max(latest, SECTIONS.index(name))
        for name in SECTIONS:
            if name not in found and name not in OPTIONAL:
                self._fault("section", 1, f"there is no section '## {name}'", f"type '## {name}'")
        return found

    def _section_name(self, part: Part) -> str | None:
        if part.title in SECTIONS:
            return part.title
        hint = f"sections are {', '.join(SECTIONS)}"
        if _LIKE_ENTRY.match(part.title):
            hint = f"an entry has three signs: '### {part.title}'"
        else:
            bare = re.sub(r"^\W*\d*\W*", "", part.title).lower()
            for name in SECTIONS:
                if re.sub(r"^\d\. ", "", name).lower() == bare:
                    hint = f"type '## {name}'"
        self._fault("heading", part.line, f"unknown section '## {part.title}'", hint)
        return None

    def _no_parts(self, part: Part) -> None:
        for inner in part.parts:
            self._fault(
                "heading", inner.line,
                f"'### {inner.title}' does not belong into '## {part.title}'",
                "write it as plain text, or put it below its section",
            )  # fmt: skip

    def _entries(self, part: Part, kind: str) -> list[tuple[Part, str, str]]:
        """The parts of a section that are headed `### Kind N: Name`; every other one is a fault."""
        found = []
        for inner in part.parts:
            match = _ENTRY.fullmatch(inner.title)
            number = (match[2] if match else "").removeprefix("A" if kind == "Ambiguity" else "")
            if match and match[1] == kind and ids.is_number(number):
                found.append((inner, match[2], match[3]))
                continue
            example = "Ambiguity A1" if kind == "Ambiguity" else f"{kind} 14"
            hint = f"type '### {example}: Name'"
            told = f"'### {inner.title}' is not understood"
            if _MANY.match(inner.title):
                told = f"'### {inner.title}' stands for several equations"
                hint = "give each a heading of its own, '### Equation 9: Name'"
            self._fault("heading", inner.line, told, hint)
        return found

    # ---- equations and algorithms ----------------------------------------------------------

    def _equations(self, part: Part) -> tuple[tuple[Equation, ...], tuple[Skipped, ...]]:
        skipped = []
        for item in part.items:
            if isinstance(item, Bullet) and item.text.startswith("Skipped:"):
                skipped += self._skipped(item)
            elif isinstance(item, Text | Bullet) and _LIKE_ENTRY.match(item.text):
                self._fault(
                    "heading", item.line,
                    f"'{item.text[:40]}' is no heading, and would not be found",
                    "type '### Equation N: Name' on a line of its own",
                )  # fmt: skip
            elif isinstance(item, Fence | Table):
                self._stray(item, part.title)
        found = [self._equation(*entry) for entry in self._entries(part, "Equation")]
        return tuple(found), tuple(skipped)

    def _skipped(self, item: Bullet) -> list[Skipped]:
        said, _, reason = item.text.removeprefix("Skipped:").strip().partition(",")
        match = _SPAN.fullmatch(said.strip())
        if match is None or not reason.strip():
            self._fault(
                "value", item.line, f"'{item.text}' does not say what was skipped and why",
                "type '- Skipped: eq1-eq7, reason'",
            )  # fmt: skip
            return []
        first, last = int(match[1]), int(match[2] or match[1])
        return [Skipped(first, last, reason.strip(), self._place(item.line))]

    def _equation(self, part: Part, number: str, name: str) -> Equation:
        fields = fields_of(
            self._document, part,
            ("Location", "Confidence", "Module", "Requires", "Priority", "Role"), ("Printed",),
        )  # fmt: skip
        role = fields.one_of("Role", ROLES)
        body = body_of(
            self._document, part, fields.rest, ("latex", "form", "printed"), table="symbols"
        )
        if body.block("latex") is None:
            self._fault(
                "block", part.line, f"Equation {number} has no LaTeX",
                "add a block that begins with ```latex",
            )  # fmt: skip
        if not body.words:
            self._fault(
                "words", part.line, f"Equation {number} is not told in plain words",
                "add a paragraph below its blocks",
            )  # fmt: skip
        self._printed(fields, body, number)
        return Equation(
            id=f"{self._key}:eq{number}",
            number=number,
            name=name,
            location=fields.text("Location"),
            confidence=fields.one_of("Confidence", CONFIDENCES),
            module=fields.optional("Module"),
            requires=self._ids(fields, "Requires"),
            priority=fields.one_of("Priority", PRIORITIES),
            role=role or "main",
            latex=body.block("latex"),
            form=body.block("form"),
            printed=body.block("printed"),
            words=body.words,
            symbols=body.symbols,
            notes=body.notes,
            tests=body.tests,
            at=self._place(part.line),
            module_at=self._place(fields.line("Module")),
            requires_at=self._place(fields.line("Requires")),
        )

    def _printed(self, fields: Fields, body: Body, number: str) -> None:
        says, block = fields.text("Printed"), body.block("printed")
        if says and says != "does not close":
            self._fault(
                "value", fields.line("Printed"), f"'Printed: {says}' is not known",
                "type '- Printed: does not close', or leave the line out",
            )  # fmt: skip
        elif says and block is None:
            self._fault(
                "printed", fields.line("Printed"),
                f"Equation {number} does not show what is printed",
                "add a block that begins with ```printed",
            )  # fmt: skip
        elif block and not says:
            self._fault(
                "printed", block.at.line,
                f"Equation {number} does not say what is wrong as printed",
                "add the line '- Printed: does not close'",
            )  # fmt: skip

    def _algorithms(self, part: Part) -> tuple[Algorithm, ...]:
        for item in part.items:
            if isinstance(item, Fence | Table):
                self._stray(item, part.title)
        return tuple(self._algorithm(*entry) for entry in self._entries(part, "Algorithm"))

    def _algorithm(self, part: Part, number: str, name: str) -> Algorithm:
        fields = fields_of(self._document, part, ("Location", "Module", "Requires", "Purpose"))
        body = body_of(self._document, part, fields.rest, ("pseudocode",), table="steps")
        if body.block("pseudocode") is None:
            self._fault(
                "block", part.line, f"Algorithm {number} has no pseudocode",
                "add a block that begins with ```pseudocode",
            )  # fmt: skip
        return Algorithm(
            id=f"{self._key}:alg{number}",
            number=number,
            name=name,
            location=fields.text("Location"),
            module=fields.optional("Module"),
            requires=self._ids(fields, "Requires"),
            purpose=fields.text("Purpose"),
            pseudocode=body.block("pseudocode"),
            words=body.words,
            steps=tables.steps(self._document, body.table, self._key),
            notes=body.notes,
            tests=body.tests,
            at=self._place(part.line),
            module_at=self._place(fields.line("Module")),
            requires_at=self._place(fields.line("Requires")),
        )

    def _ids(self, fields: Fields, key: str) -> tuple[str, ...]:
        """What a field names, as whole ids; what is none becomes a fault."""
        text = fields.text(key)
        if text == "none":
            return ()
        found = []
        for piece in filter(None, (piece.strip() for piece in text.split(","))):
            identity = ids.whole(piece, self._key)
            if identity is None:
                self._fault(
                    "value", fields.line(key), f"'{piece}' is no id in '{key}: {text}'",
                    "ids are eq12, alg1 or titans.v1:eq14, with commas between; or none",
                )  # fmt: skip
            else:
                found.append(identity)
        return tuple(dict.fromkeys(found))

    # ---- the other sections ----------------------------------------------------------------

    def _architecture(self, part: Part) -> tuple[str, Block | None, tuple[Module, ...]]:
        self._no_parts(part)
        diagram = None
        given: list[Table] = []
        for item in part.items:
            if isinstance(item, Table):
                given.append(item)
            elif isinstance(item, Fence) and item.language == "diagram" and diagram is None:
                diagram = Block(item.text, self._place(item.line))
            elif isinstance(item, Fence):
                self._stray(item, part.title)
        modules = tables.modules(self._document, given, self._key)
        return paragraphs(part.items), diagram, modules

    def _checklist(self, part: Part) -> tuple[str, ...]:
        found = []
        for item in part.items:
            if isinstance(item, Bullet | Text):
                found.append(re.sub(r"^\[[ xX]\]\s*", "", item.text))
            else:
                self._stray(item, part.title)
        return tuple(found)

    def _notes(self, part: Part) -> tuple[tuple[Ambiguity, ...], tuple[Remark, ...]]:
        for item in part.items:
            if isinstance(item, Fence | Table):
                self._stray(item, part.title)
        remarks = [inner for inner in part.parts if inner.title in REMARKS]
        rest = Part(2, part.title, part.line, [], [p for p in part.parts if p not in remarks])
        ambiguities = []
        for inner, number, name in self._ambiguous(rest):
            ambiguities.append(self._ambiguity(inner, number, name))
        told = (Remark(p.title, paragraphs(p.items), self._place(p.line)) for p in remarks)
        return tuple(ambiguities), tuple(told)

    def _ambiguous(self, part: Part) -> list[tuple[Part, str, str]]:
        found = []
        for inner in part.parts:
            match = _ENTRY.fullmatch(inner.title)
            if match and match[1] == "Ambiguity" and re.fullmatch(r"A[1-9]\d{0,5}", match[2]):
                found.append((inner, match[2], match[3]))
                continue
            self._fault(
                "heading", inner.line, f"'### {inner.title}' is not understood",
                f"type '### Ambiguity A1: what is unclear', or one of {', '.join(REMARKS)}",
            )  # fmt: skip
        return found

    def _ambiguity(self, part: Part, number: str, name: str) -> Ambiguity:
        fields = fields_of(
            self._document, part, ("Readings", "Chosen", "Reason", "Switch", "Equations")
        )
        for item in fields.rest:
            if isinstance(item, Fence | Table):
                self._stray(item, part.title)
        readings = fields.text("Readings")
        return Ambiguity(
            id=f"{self._key}:{number}",
            number=number,
            name=name,
            readings=readings,
            options=tuple(re.findall(r"`([^`]+)`", readings)),
            chosen=fields.text("Chosen").strip("`"),
            reason=fields.text("Reason"),
            switch=fields.text("Switch").strip("`"),
            equations=self._ids(fields, "Equations"),
            at=self._place(part.line),
            chosen_at=self._place(fields.line("Chosen")),
            equations_at=self._place(fields.line("Equations")),
        )

    def _stray(self, item: Item, title: str) -> None:
        rule = "block" if isinstance(item, Fence) else "table"
        what = f"a block ```{item.language}" if isinstance(item, Fence) else "a table"
        self._fault(rule, item.line, f"{what} does not belong into '{title}'")

    def _place(self, line: int) -> Place:
        return Place(self._document.path, line)

    def _fault(self, rule: str, line: int, text: str, hint: str = "") -> None:
        self._document.fault(rule, line, text, hint)
