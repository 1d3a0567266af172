"""The tables of notes: which columns each has, and its rows as entries."""

from __future__ import annotations

import re
from collections.abc import Sequence

from cupel.errors import did_you_mean
from cupel.notes import dims, form, ids
from cupel.notes.blocks import Document, Fence, Part, Row, Table
from cupel.notes.faults import Place
from cupel.notes.model import (
    COUNTED,
    GROUPS,
    RELATIONS,
    TYPES,
    Benchmark,
    Count,
    Dependency,
    Hyperparameter,
    Module,
    Step,
    Symbol,
)

NOTHING = ("", "-", "–", "—", "none")
_SCALARS = ("scalar", "index", "size")
_SOURCE = re.compile(
    r"paper,? (p\. ?\d+|section \d+|table \d+|figure \d+|appendix \w).*|assumed\b.*"
)


def rows(document: Document, table: Table | None, columns: Sequence[str]) -> tuple[Row, ...]:
    """The rows of a table that must have these columns; with others it is a fault, and empty."""
    if table is None:
        return ()
    if table.head != tuple(columns):
        document.fault(
            "table", table.line, f"a table of the columns {' | '.join(table.head)}",
            f"here stands | {' | '.join(columns)} |",
        )  # fmt: skip
        return ()
    return table.rows


def only(document: Document, part: Part) -> Table | None:
    """The one table of a section; a second one, and blocks, are faults."""
    found: Table | None = None
    for item in part.items:
        if isinstance(item, Table) and found is None:
            found = item
        elif isinstance(item, Table):
            document.fault("table", item.line, f"a second table in '{part.title}'", "make them one")
        elif isinstance(item, Fence):
            document.fault(
                "block", item.line - 1,
                f"a block ```{item.language} does not belong into '{part.title}'",
            )  # fmt: skip
    return found


def counts(document: Document, part: Part) -> tuple[Count, ...]:
    """What Quick Reference says."""
    found: dict[str, Count] = {}
    for row in rows(document, only(document, part), ("what", "count")):
        what, count = row.cells
        if what not in COUNTED:
            document.fault(
                "value", row.line, f"'{what}' is not counted",
                did_you_mean(what, COUNTED).removeprefix("; ") or f"rows are {', '.join(COUNTED)}",
            )  # fmt: skip
        elif what in found:
            document.fault("duplicate", row.line, f"'{what}' is counted twice", "keep one of them")
        else:
            found[what] = Count(what, count, Place(document.path, row.line))
    return tuple(found.values())


def symbols(document: Document, part: Part) -> tuple[Symbol, ...]:
    """The symbols of the whole paper."""
    return symbols_of(document, only(document, part))


def symbols_of(document: Document, table: Table | None) -> tuple[Symbol, ...]:
    """The rows of a table of symbols; names and shapes that cannot be read are faults."""
    found: dict[str, Symbol] = {}
    for row in rows(document, table, ("symbol", "name", "type", "shape", "description")):
        cells = [cell.strip("`") for cell in row.cells]
        name = form.canonical(cells[0])
        if not form.is_name(name):
            document.fault(
                "symbol", row.line, f"'{row.cells[0]}' cannot be a symbol",
                "symbols are written as in a form: M_t, W_K, theta_t, x_tilde",
            )  # fmt: skip
        elif name in found:
            document.fault("duplicate", row.line, f"'{name}' is declared twice", "keep one of them")
        elif _fits(document, row.line, cells[2], cells[3]):
            place = Place(document.path, row.line)
            found[name] = Symbol(name, cells[1], cells[2], cells[3], row.cells[4], place)
    return tuple(found.values())


def _fits(document: Document, line: int, kind: str, shape: str) -> bool:
    if kind not in TYPES:
        document.fault(
            "value", line, f"unknown type '{kind}'",
            did_you_mean(kind, TYPES).removeprefix("; ") or f"types are {', '.join(TYPES)}",
        )  # fmt: skip
        return False
    try:
        read = dims.parse(shape)
    except dims.ShapeError as error:
        document.fault("shape", line, str(error), error.hint)
        return False
    if (kind == "function") != isinstance(read, dims.Function):
        document.fault(
            "shape", line, f"type {kind} with the shape {shape}",
            "a function has a shape as [d_k] -> [d_v], and nothing else has",
        )  # fmt: skip
        return False
    if kind in _SCALARS and read:
        document.fault("shape", line, f"type {kind} with the shape {shape}", "write scalar")
        return False
    return True


def steps(document: Document, table: Table | None, paper: str) -> tuple[Step, ...]:
    """Which equations and modules the lines of an algorithm are."""
    found = []
    for row in rows(document, table, ("line", "equation", "module")):
        line, equations, module = row.cells
        named = []
        for piece in (p.strip() for p in equations.split(",")):
            identity = ids.whole(piece, paper)
            if identity is not None:
                named.append(identity)
            elif piece not in NOTHING:
                document.fault(
                    "value", row.line, f"'{piece}' is no id of an equation",
                    "ids are eq12 or titans.v1:eq14, with commas between; or –",
                )  # fmt: skip
        place = Place(document.path, row.line)
        found.append(Step(line, tuple(named), "" if module in NOTHING else module, place))
    return tuple(found)


def modules(document: Document, given: Sequence[Table], paper: str) -> tuple[Module, ...]:
    """The parts of the implementation."""
    columns = ("module", "path", "input", "output", "parameters", "description")
    for extra in given[1:]:
        document.fault("table", extra.line, "a second table of modules", "make them one")
    found = []
    for row in rows(document, given[0] if given else None, columns):
        name, path, takes, gives, parameters, about = (cell.strip("`") for cell in row.cells)
        if not ids.is_module(name):
            document.fault(
                "value", row.line, f"'{name}' cannot name a module",
                "names are of small letters, digits, - and _, and unlike eq14",
            )  # fmt: skip
            continue
        path = "" if path in NOTHING else path
        at = Place(document.path, row.line)
        found.append(Module(f"{paper}:{name}", name, path, takes, gives, parameters, about, at))
    return tuple(found)


def hyperparameters(document: Document, part: Part) -> tuple[Hyperparameter, ...]:
    """Section 4."""
    found = []
    columns = ("name", "value", "group", "source", "description")
    for row in rows(document, only(document, part), columns):
        name, value, group, source, about = row.cells
        at = Place(document.path, row.line)
        entry = Hyperparameter(name, value, group, source, about, at)
        if entry.group not in GROUPS and "TODO" not in entry.group:
            document.fault(
                "value", row.line, f"unknown group '{entry.group}'", f"one of {', '.join(GROUPS)}"
            )
        if entry.source not in NOTHING and not _SOURCE.fullmatch(entry.source):
            document.fault(
                "value", row.line, f"unknown source '{entry.source}'",
                "type 'paper p.12' (or section, table, figure, appendix), or 'assumed'",
            )  # fmt: skip
        found.append(entry)
    return tuple(found)


def benchmarks(document: Document, part: Part) -> tuple[Benchmark, ...]:
    """Section 5."""
    columns = ("id", "dataset", "metric", "value", "setup", "source")
    found = []
    for row in rows(document, only(document, part), columns):
        identity, dataset, metric, value, setup, source = row.cells
        at = Place(document.path, row.line)
        found.append(Benchmark(identity, dataset, metric, value, setup, source, at))
    return tuple(found)


def dependencies(document: Document, part: Part) -> tuple[Dependency, ...]:
    """Section 6."""
    found = []
    for row in rows(document, only(document, part), ("kind", "name", "description")):
        if row.cells[0] not in RELATIONS:
            document.fault(
                "value", row.line, f"unknown kind '{row.cells[0]}'",
                f"one of {', '.join(RELATIONS)}{did_you_mean(row.cells[0], RELATIONS)}",
            )  # fmt: skip
        kind, name, about = row.cells
        found.append(Dependency(kind, name, about, Place(document.path, row.line)))
    return tuple(found)
