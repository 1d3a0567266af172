"""A page of all equations: LaTeX, words, symbols, the code that carries them out, their tests.

Links are found by reading marks (`cupel.notes.code`), so they are those of the code as it stands.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import PurePath

from cupel.notes import graph, ids
from cupel.notes.code import Evidence, Mark, TestMark
from cupel.notes.markdown import block, document, table
from cupel.notes.model import Algorithm, Equation, Paper, Symbol


def page(papers: Sequence[Paper], evidence: Evidence | None, *, beside: PurePath) -> str:
    """The page as Markdown; `beside` is the folder that it will lie in, for links.

    Without evidence nothing is said of code and tests.
    """
    parts = [
        "# Equations",
        "Made by `cupel notes equations` from notes and from marks in the code.",
    ]
    if evidence is not None:
        parts.append(_summary(papers, evidence))
    for paper in papers:
        parts += [f"## {paper.title}", _about(paper), _symbols(paper.symbols)]
        for entry in paper.entries:
            parts += _entry(entry, evidence, beside)
    return document(parts)


def _about(paper: Paper) -> str:
    where = (
        ""
        if paper.arxiv == "none"
        else f", [arXiv {paper.arxiv}](https://arxiv.org/abs/{paper.arxiv})"
    )
    return f"`{paper.id}`{where}, {', '.join(paper.authors)}, {paper.year}. {paper.contribution}"


def _symbols(symbols: Sequence[Symbol]) -> str:
    if not symbols:
        return ""
    rows = [(f"`{s.name}`", s.meaning, s.shape, s.description) for s in symbols]
    return table(("Symbol", "Name", "Shape", "Description"), rows)


def _summary(papers: Sequence[Paper], evidence: Evidence) -> str:
    coded = {mark.id for mark in evidence.marks}
    tested = {mark.id for mark in evidence.tests}
    rows = []
    for paper in papers:
        main = [equation.id for equation in paper.main]
        rows.append(
            (
                f"`{paper.id}`",
                len(main),
                sum(one in coded for one in main),
                sum(one in tested for one in main),
            )
        )
    return table(("Paper", "To implement", "Have code", "Have tests"), rows)


def _entry(entry: Equation | Algorithm, evidence: Evidence | None, beside: PurePath) -> list[str]:
    parts = [f"### {entry.title}", _facts(entry)]
    if isinstance(entry, Equation):
        if entry.latex:
            parts.append(f"$$\n{entry.latex.text.strip()}\n$$")
        if entry.printed:
            parts.append("As printed this does not close. Read as:")
        if entry.form:
            parts.append(block("", entry.form.text))
        parts.append(entry.words)
        parts.append(_symbols(entry.symbols))
    else:
        if entry.pseudocode:
            parts.append(block("", entry.pseudocode.text))
        parts.append(entry.words)
    parts.append(entry.notes)
    if evidence is not None:
        parts.append(_evidence(entry, evidence, beside))
    return parts


def _facts(entry: Equation | Algorithm) -> str:
    told = [f"`{entry.id}`", entry.location]
    if isinstance(entry, Equation):
        told.append(f"confidence {entry.confidence}")
        if not entry.is_main:
            told.append("context")
    needs = ids.ordered(graph.needs_of(entry))
    if needs:
        told.append(f"requires {', '.join(needs)}")
    return " · ".join(told)


def _evidence(entry: Equation | Algorithm, evidence: Evidence, beside: PurePath) -> str:
    code = [_code_link(mark, beside) for mark in evidence.marks if mark.id == entry.id]
    tests = [_test_link(mark, beside) for mark in evidence.tests if mark.id == entry.id]
    if not code and not tests and isinstance(entry, Equation) and not entry.is_main:
        return ""
    missing = ""
    if entry.tests and tests:
        kinds = {mark.kind for mark in evidence.tests if mark.id == entry.id}
        wanted = dict.fromkeys(criterion.kind for criterion in entry.tests)
        absent = [kind for kind in wanted if kind not in kinds]
        missing = f"; asked for and absent: {', '.join(absent)}" if absent else ""
    return "\n".join(
        [
            f"- Code: {', '.join(code) or 'none yet'}",
            f"- Tests: {', '.join(tests) or f'none yet, criteria: {len(entry.tests)}'}{missing}",
        ]
    )


def _code_link(mark: Mark, beside: PurePath) -> str:
    return f"[`{mark.name}`]({_relative(mark.path, beside)}#L{mark.line})"


def _test_link(mark: TestMark, beside: PurePath) -> str:
    name = mark.node.rpartition("::")[2]
    kind = f" ({mark.kind})" if mark.kind else ""
    return f"[`{name}`]({_relative(mark.path, beside)}#L{mark.line}){kind}"


def _relative(path: str, beside: PurePath) -> str:
    return PurePath(os.path.relpath(path, beside)).as_posix()
