"""`build_report`: a study's answer with everything it rests on, as Markdown and as one HTML page.

Both come from one document, and the document from the records alone; it can be built at any time,
also of an unfinished study. Every number that is printed stands in `numbers.json` with its file,
key and rule. Takes some seconds, most of them for figures.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from cupel.errors import RecordError
from cupel.record.codec import encode_document
from cupel.report import drawn, methods, results
from cupel.report.blocks import Block, Bullets, Figure, Heading, Paragraph, plain
from cupel.report.claims import discussion
from cupel.report.entries import enter_all
from cupel.report.ledger import Ledger
from cupel.report.markdown import as_markdown
from cupel.report.page import as_page
from cupel.studies.manifest import Manifest
from cupel.studies.outcome import Outcome, outcome


def build_report(manifest: Manifest, folder: Path) -> list[Path]:
    """Write report.md, report.html, numbers.json and figures/ into the folder; the files.

    Raises MissingDependency without scipy, matplotlib, latex2mathml or pygments, and RecordError
    when the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _built(outcome(manifest), folder)
    except OSError as error:
        raise RecordError(
            f"cannot write the report to {folder}: {error.strerror or error}; choose another "
            "folder with --output"
        ) from error


def _built(found: Outcome, folder: Path) -> list[Path]:
    ledger = Ledger()
    drawings = [
        *drawn.draw_differences(found, folder),
        *(drawn.draw_curves(found, point, folder) for point in found.points),
    ]
    document = document_of(found, ledger, drawings, _measured(found, folder))
    title = f"{found.manifest.name}: {found.manifest.study.question}"
    files = {
        "report.md": as_markdown(document),
        "report.html": as_page(document, title=title, folder=folder),
        "numbers.json": encode_document(ledger.as_json()).decode(),
    }
    for name, text in files.items():
        _write_whole(folder / name, text)
    figures = [block for block in document if isinstance(block, Figure)]
    paths = [folder / name for figure in figures for name in (figure.light, figure.dark)]
    return [*(folder / name for name in files), *paths]


def document_of(
    found: Outcome,
    ledger: Ledger,
    drawings: Sequence[Figure] = (),
    measured: Sequence[Block] = (),
) -> list[Block]:
    """The whole report as blocks, with figures that were drawn before; fills the empty ledger."""
    manifest = found.manifest
    enter_all(found, ledger)
    samples = results.samples(found)
    sentences = ledger.told(discussion(found, ledger))
    return [
        Heading(1, plain(manifest.study.question)),
        Paragraph(_about(manifest)),
        *results.banner(found, ledger),
        Heading(2, "Answer"),
        *results.abstract(found, ledger),
        Heading(2, "How it was decided"),
        *methods.decided(found),
        Heading(2, "Methods"),
        *methods.methods(found),
        Heading(2, "Results"),
        *(table for point in found.points for table in _tables(found, ledger, point)),
        *drawings,
        *(block for card in found.cards for block in results.card_blocks(found, ledger, card)),
        *measured,
        *([Heading(3, "What the models write"), *samples] if samples else []),
        Heading(2, "What was not equal"),
        *results.unequal(found),
        Heading(2, "Runs without a value"),
        *results.failures(found),
        Heading(2, "Discussion"),
        *([Bullets(sentences)] if sentences else [Paragraph("Nothing to add to the verdicts.")]),
        Heading(2, "How to repeat and extend it"),
        *methods.repeat(found),
        Heading(2, "References"),
        *methods.references(found),
    ]


def _tables(found: Outcome, ledger: Ledger, point: str) -> list[Block]:
    return [results.arms_table(found, ledger, point), *results.others_table(found, ledger, point)]


def _measured(found: Outcome, folder: Path) -> list[Block]:
    """What monitors measured inside of the models, kind by kind."""
    blocks: list[Block] = []
    for kind in ("spectra", "memories"):
        if figures := drawn.copy_measured(found, folder, kind):
            blocks += [Heading(3, kind.capitalize()), *figures]
    return blocks


def _about(manifest: Manifest) -> str:
    about = f" {plain(manifest.about)}." if manifest.about else ""
    return (
        f"Study `{manifest.name}` of project `{manifest.project}`.{about} Every number stands in "
        "`numbers.json` with the file that it comes from."
    )


def _write_whole(path: Path, text: str) -> None:
    """A reader sees the old report or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
