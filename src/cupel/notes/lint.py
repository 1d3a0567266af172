"""What is wrong with notes taken together: symbols, shapes, what they require, counts, tests.

`check` adds to what the reader found. Rules are in `cupel.notes.faults.RULES`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from cupel.errors import did_you_mean
from cupel.notes import dims, form, graph, ids, latex, shapes
from cupel.notes.faults import Fault, Place, in_order
from cupel.notes.model import Algorithm, Block, Equation, Paper, Symbol
from cupel.notes.reader import Reading
from cupel.notes.tables import NOTHING


def check(readings: Sequence[Reading]) -> list[Fault]:
    """All faults of some notes, by file and line."""
    papers = [reading.paper for reading in readings]
    found = [fault for reading in readings for fault in reading.faults]
    for paper in papers:
        found += check_paper(paper)
    found += _across(papers)
    return in_order(found)


def check_paper(paper: Paper) -> Iterator[Fault]:
    """What is wrong within one paper."""
    yield from _counts(paper)
    yield from _numbering(paper)
    yield from _modules(paper)
    yield from _hyperparameters(paper)
    yield from _ambiguities(paper)
    scope = _declared(paper.symbols)
    for equation in paper.equations:
        yield from _equation(paper, equation, scope)
    for algorithm in paper.algorithms:
        yield from _steps(paper, algorithm)


def _counts(paper: Paper) -> Iterator[Fault]:
    told = {count.what: count for count in paper.counts}
    if not told:
        yield Fault("count", paper.at, "Quick Reference counts nothing", "type '| what | count |'")
        return
    for what, entries in (
        ("equations", paper.equations), ("algorithms", paper.algorithms),
        ("modules", paper.modules), ("hyperparameters", paper.hyperparameters),
        ("benchmarks", paper.benchmarks), ("ambiguities", paper.ambiguities),
    ):  # fmt: skip
        if what not in told:
            yield Fault(
                "count", paper.at, f"Quick Reference does not count {what}",
                f"type '| {what} | {len(entries)} |'",
            )  # fmt: skip
        elif told[what].count != str(len(entries)):
            yield Fault(
                "count", told[what].at,
                f"Quick Reference says {told[what].count} {what}, and there are {len(entries)}",
                f"type '| {what} | {len(entries)} |'",
            )  # fmt: skip


# ---- numbers and names -------------------------------------------------------------------------


def _numbering(paper: Paper) -> Iterator[Fault]:
    yield from _twice((e.number, e.at) for e in paper.equations)
    yield from _twice((f"Algorithm {a.number}", a.at) for a in paper.algorithms)
    yield from _twice((a.number, a.at) for a in paper.ambiguities)
    yield from _twice((b.id, b.at) for b in paper.benchmarks)
    numbers = {int(re.sub(r"\D", "", equation.number)) for equation in paper.equations}
    skipped: set[int] = set()
    for one in paper.skipped:
        # No further than the last equation: a span of a million is a slip, and no reason to wait.
        span = set(range(one.first, min(one.last, max(numbers, default=0)) + 1))
        skipped |= span
        if both := sorted(span & numbers):
            yield Fault(
                "gap", one.at, f"eq{both[0]} is skipped, and is there", "leave it out of the line"
            )
    last = 0
    for equation in sorted(paper.equations, key=lambda e: ids.order(e.number)):
        number = int(re.sub(r"\D", "", equation.number))
        missing = [n for n in range(last + 1, number) if n not in skipped][:1000]
        if missing:
            told = f"eq{missing[0]}" + (f"-eq{missing[-1]}" if len(missing) > 1 else "")
            yield Fault(
                "gap", equation.at, f"{told} is missing before Equation {equation.number}",
                f"add it, or type '- Skipped: {told}, reason' below '## 1. Equations'",
            )  # fmt: skip
        last = max(last, number)


def _twice(named: Iterable[tuple[str, Place]]) -> Iterator[Fault]:
    first: dict[str, Place] = {}
    for name, at in named:
        if name in first:
            what = f"Equation {name}" if ids.is_number(name) else name
            yield Fault(
                "duplicate", at, f"{what} is there twice, first in line {first[name].line}",
                "give one of them another number",
            )  # fmt: skip
        first.setdefault(name, at)


def _modules(paper: Paper) -> Iterator[Fault]:
    yield from _twice((f"module '{m.name}'", m.at) for m in paper.modules)
    paths: dict[str, str] = {}
    for module in paper.modules:
        if not module.path:
            yield Fault(
                "path", module.at, f"module '{module.name}' has no path",
                "give the file that will hold it, as src/model/memory.py",
            )  # fmt: skip
        elif module.path in paths:
            yield Fault(
                "path", module.at,
                f"modules '{paths[module.path]}' and '{module.name}' have one path, {module.path}",
                "give each a file of its own",
            )  # fmt: skip
        paths.setdefault(module.path, module.name)
    names = [module.name for module in paper.modules]
    for entry in paper.entries:
        needed = isinstance(entry, Algorithm) or entry.is_main
        if (entry.module or needed) and entry.module not in names:
            yield _unknown_module(entry.title, entry.module, names, entry.module_at)


def _unknown_module(who: str, name: str, names: list[str], at: Place) -> Fault:
    near = did_you_mean(name, names).removeprefix("; ")
    return Fault(
        "module", at, f"{who} is in module '{name or 'none'}', which section 3 does not have",
        near or f"modules are {', '.join(names[:12]) or 'none yet'}",
    )  # fmt: skip


def _hyperparameters(paper: Paper) -> Iterator[Fault]:
    yield from _twice((f"hyperparameter '{h.name}'", h.at) for h in paper.hyperparameters)
    for one in paper.hyperparameters:
        for what in ("value", "source"):
            if getattr(one, what) in NOTHING:
                yield Fault(
                    "hyperparameter", one.at, f"'{one.name}' has no {what}",
                    "where the paper is silent choose one, with the source 'assumed'",
                )  # fmt: skip


def _ambiguities(paper: Paper) -> Iterator[Fault]:
    known = [ambiguity.number for ambiguity in paper.ambiguities]
    for number in paper.needs_clarification:
        if number not in known and "TODO" not in number:
            yield Fault(
                "clarification", paper.where("needs_clarification"),
                f"needs_clarification names {number}, which section 8 does not have",
                did_you_mean(number, known).removeprefix("; ")
                or f"there are: {', '.join(known) or 'none'}",
            )  # fmt: skip
    for one in paper.ambiguities:
        if one.chosen and one.options and one.chosen not in one.options:
            yield Fault(
                "ambiguity", one.chosen_at,
                f"{one.number} chooses '{one.chosen}', which is no reading",
                f"readings are {', '.join(one.options)}",
            )  # fmt: skip
        if not one.chosen:
            yield Fault(
                "ambiguity", one.at, f"{one.number} does not say which reading is chosen",
                "type '- Chosen: …'",
            )  # fmt: skip
        if not one.options:
            yield Fault(
                "ambiguity", one.at, f"{one.number} names no readings",
                "type '- Readings: `after` …; `before` …'",
            )  # fmt: skip
        if not one.equations:
            yield Fault(
                "ambiguity", one.at, f"{one.number} names no equation", "type '- Equations: eq7'"
            )


# ---- equations ---------------------------------------------------------------------------------


def _declared(symbols: Sequence[Symbol]) -> dict[str, Symbol]:
    return {symbol.name: symbol for symbol in symbols}


def scope_of(symbols: Iterable[Symbol]) -> shapes.Scope:
    """What names mean for these symbols."""
    found: dict[str, dims.Shape | dims.Function] = {}
    counting = []
    for symbol in symbols:
        found[symbol.name] = dims.parse(symbol.shape)
        if symbol.type == "index":
            counting.append(symbol.name)
    return shapes.Scope.of(found, counting)


def _equation(paper: Paper, equation: Equation, common: dict[str, Symbol]) -> Iterator[Fault]:
    symbols = {**common, **_declared(equation.symbols)}
    scope = scope_of(symbols.values())
    yield from _latex(equation, scope)
    if equation.form:
        yield from _form(equation.form, scope)
    elif equation.is_main:
        yield Fault(
            "form", equation.at, f"Equation {equation.number} has no form: no shape is checked",
            "add a block that begins with ```form", serious=False,
        )  # fmt: skip
    if equation.printed:
        yield from _printed(equation.printed, scope)
    yield from _tests(equation)


def _latex(equation: Equation, scope: shapes.Scope) -> Iterator[Fault]:
    if equation.latex is None:
        return
    known = {latex.base_of(name) for name in (*scope.symbols, *scope.indices, *scope.sizes)}
    if equation.form and "identity(" in equation.form.text:
        known.add("I")
    for number, line in enumerate(_whole_lines(equation.latex.text)):
        for shown, bases in latex.symbols(line):
            if not known.intersection(bases):
                yield Fault(
                    "symbol", _below(equation.latex, number),
                    f"'{shown}' in the LaTeX of Equation {equation.number} is not declared",
                    "add it to the equation's table or to ## Symbols; words stand in "
                    "\\text or \\operatorname",
                )  # fmt: skip


def _whole_lines(text: str) -> list[str]:
    """The lines of LaTeX; where a group goes over several, all of them as the first one."""
    lines = text.split("\n")
    level = [line.count("{") - line.count("}") for line in lines]
    counted = re.search(r"\\(?:sum|prod|max|min|bigcup)", text)
    if any(level) or (counted and len(lines) > 1):
        return [" ".join(lines)]
    return lines


def _below(block: Block, lines: int) -> Place:
    return Place(block.at.path, block.at.line + lines)


def _form(block: Block, scope: shapes.Scope) -> Iterator[Fault]:
    for number, error in _wrong(block.text, scope):
        rule = {
            form.FormError: "form", dims.ShapeError: "shape", shapes.UnknownSymbol: "symbol"
        }[type(error)]  # fmt: skip
        yield Fault(rule, _below(block, number), str(error), error.hint)


def _printed(block: Block, scope: shapes.Scope) -> Iterator[Fault]:
    wrong = list(_wrong(block.text, scope))
    if not wrong:
        yield Fault(
            "printed", block.at, "the form as printed closes, and is said not to",
            "leave out '- Printed: …' and this block",
        )  # fmt: skip
    for number, error in wrong:
        # That it does not close is what was said; that it cannot be read is another thing.
        if not isinstance(error, dims.ShapeError):
            rule = "form" if isinstance(error, form.FormError) else "symbol"
            yield Fault(rule, _below(block, number), str(error), error.hint)


_Wrong = form.FormError | dims.ShapeError | shapes.UnknownSymbol


def _wrong(text: str, scope: shapes.Scope) -> Iterator[tuple[int, _Wrong]]:
    """What is wrong with the statements of a form, each with its line within the block."""
    parsed: list[form.Statement] = []
    for number, line in form.statements(text):
        try:
            parsed.append(form.parse_statement(line, number))
        except form.FormError as error:
            yield number, error
    for place, statement in enumerate(parsed):
        left, right = statement.left, statement.right
        try:
            shape = shapes.shape_of(right, scope)
            if isinstance(left, form.Name) and not _is_known(left.text, scope):
                later = (name.text for one in parsed[place + 1 :] for name in form.names(one.right))
                if left.text not in later:
                    scope.find(left.text)  # raises: it is neither declared nor used below
                scope = scope.having(left.text, shape)
            elif (said := shapes.shape_of(left, scope)) != shape:
                raise dims.ShapeError(
                    f"'{str(left)[:60]}' is {dims.shown(said)}, and the right side is "
                    f"{dims.shown(shape)}",
                    "correct the table or the form",
                )
        except (dims.ShapeError, shapes.UnknownSymbol) as error:
            yield statement.line, error
            if isinstance(left, form.Name) and not _is_known(left.text, scope):
                return  # what follows would only repeat that


def _is_known(name: str, scope: shapes.Scope) -> bool:
    try:
        scope.find(name)
    except shapes.UnknownSymbol:
        return False
    return True


def _tests(equation: Equation) -> Iterator[Fault]:
    if not equation.is_main:
        return
    if not equation.tests:
        yield Fault(
            "tests", equation.at, f"Equation {equation.number} has no test criteria",
            "below 'Tests:' type '- [value] what is compared with what'",
        )  # fmt: skip
    elif all(criterion.kind == "shape" for criterion in equation.tests):
        yield Fault(
            "tests", equation.tests[0].at,
            f"Equation {equation.number} is only tested for shapes, which wrong numbers pass",
            "add '- [value] …', '- [gradient] …' or '- [oracle] …'",
        )  # fmt: skip


def _steps(paper: Paper, algorithm: Algorithm) -> Iterator[Fault]:
    known = {equation.id for equation in paper.equations}
    names = [module.name for module in paper.modules]
    written = algorithm.pseudocode.text if algorithm.pseudocode else ""
    numbers = re.findall(r"^\s*(\d+)\s*[:.]", written, re.MULTILINE)
    for step in algorithm.steps:
        wanted = re.findall(r"\d+", step.line)
        if numbers and not (wanted and set(wanted) <= set(numbers)):
            yield Fault(
                "step", step.at, f"Algorithm {algorithm.number} has no line '{step.line}'",
                f"lines are {numbers[0]} to {numbers[-1]}",
            )  # fmt: skip
        for identity in step.equations:
            own, part = ids.split(identity)
            if own == paper.id and identity not in known:
                near = did_you_mean(identity, known).removeprefix("; ")
                yield Fault(
                    "step", step.at,
                    f"line {step.line} of Algorithm {algorithm.number} names {part}, which is not "
                    "there", near,
                )  # fmt: skip
        if step.module and step.module not in names:
            where = f"line {step.line} of Algorithm {algorithm.number}"
            yield _unknown_module(where, step.module, names, step.at)


# ---- across papers -----------------------------------------------------------------------------


def _across(papers: Sequence[Paper]) -> Iterator[Fault]:
    yield from _versions(papers)
    known = graph.entries(papers)
    parts = set(known)
    loaded = {paper.id for paper in papers}
    for paper in papers:
        for built in paper.builds_on:
            if built not in loaded and "TODO" not in built:
                at = paper.where("builds_on")
                yield _unknown_paper(f"'builds_on' names {built}", built, loaded, at)
        for entry in paper.entries:
            for identity in entry.requires:
                if identity not in parts:
                    yield from _unknown(entry.title, identity, parts, loaded, entry.requires_at)
        for algorithm in paper.algorithms:
            for step in algorithm.steps:
                for identity in step.equations:
                    # What it names wrongly of its own paper is told by `_steps`.
                    if identity not in parts and ids.split(identity)[0] != paper.id:
                        who = f"Line {step.line} of Algorithm {algorithm.number}"
                        yield from _unknown(who, identity, parts, loaded, step.at)
        for ambiguity in paper.ambiguities:
            for identity in ambiguity.equations:
                if identity not in parts:
                    who = f"Ambiguity {ambiguity.number}"
                    yield from _unknown(who, identity, parts, loaded, ambiguity.equations_at)
    yield from _cycles(papers)


def _versions(papers: Sequence[Paper]) -> Iterator[Fault]:
    first: dict[str, Paper] = {}
    for paper in sorted(papers, key=lambda one: (one.id, one.at)):
        other = first.setdefault(paper.paper_id, paper)
        if other is paper or not paper.paper_id:
            continue
        if other.version == paper.version:
            yield Fault(
                "duplicate", paper.where("paper_id"),
                f"{paper.id} is also in {other.at.path}", "give one of the files",
            )  # fmt: skip
        else:
            yield Fault(
                "version", paper.where("version"),
                f"two versions of one paper: {paper.id} here, {other.id} in {other.at.path}",
                "give one of them; cupel notes diff compares two",
            )  # fmt: skip


def _unknown(
    who: str, identity: str, parts: set[str], loaded: set[str], at: Place
) -> Iterator[Fault]:
    paper = ids.split(identity)[0]
    if paper not in loaded:
        yield _unknown_paper(f"{who} requires {identity}", paper, loaded, at)
        return
    near = did_you_mean(identity, sorted(n for n in parts if ids.split(n)[0] == paper))
    yield Fault(
        "requires", at, f"{who} requires {identity}, which is not there", near.removeprefix("; ")
    )


def _unknown_paper(told: str, paper: str, loaded: set[str], at: Place) -> Fault:
    others = sorted(one for one in loaded if ids.paper_of(one) == ids.paper_of(paper))
    if others:
        return Fault(
            "version", at, f"{told}, and the notes given are of {others[0]}",
            f"type {others[0]}, or give the notes of {paper}",
        )  # fmt: skip
    near = did_you_mean(paper, sorted(loaded)).removeprefix("; ")
    return Fault(
        "requires", at, f"{told}, and no notes of {paper} are given",
        near or "give the file, or its folder, too",
    )  # fmt: skip


def _cycles(papers: Sequence[Paper]) -> Iterator[Fault]:
    found = graph.entries(papers)
    for cycle in graph.graph_of(papers).cycles():
        lines = ", ".join(f"{ids.split(n)[1]} {found[n].requires_at}" for n in cycle[:-1])
        yield Fault(
            "cycle", found[cycle[0]].requires_at, f"a circle: {' → '.join(cycle)} ({lines})",
            "take one of them out of a line '- Requires: …'",
        )  # fmt: skip
    for cycle in graph.graph_of(papers, "modules").cycles():
        module = next(m for paper in papers for m in paper.modules if m.id == cycle[0])
        yield Fault(
            "cycle", module.at, f"modules need each other: {' → '.join(cycle)}",
            "they are planned together; an equation moved to another module would part them",
            serious=False,
        )  # fmt: skip
