"""An implementation plan made from notes: phases in the order of what depends on what.

Equal notes give equal bytes. Effort is told in counts, since nothing here knows durations, and a
date is there only when it was given.
"""

from __future__ import annotations

from itertools import pairwise

from cupel.notes import drawn, graph, ids
from cupel.notes.markdown import block, count, document, table, ticks
from cupel.notes.model import Algorithm, Equation, Module
from cupel.notes.plan_checks import checkpoints, criteria, risks
from cupel.notes.plan_phases import phases, sizes
from cupel.notes.plan_scope import INTENTS, Scope
from cupel.notes.project import assembly_test, file_of_tests, tree

PLAN_VERSION = "1.0"


def plan(scope: Scope) -> str:
    """The whole plan as Markdown."""
    return document(
        [
            _header(scope),
            "---",
            _summary(scope),
            "---",
            _graphs(scope),
            "---",
            phases(scope),
            "---",
            _manifest(scope),
            "---",
            checkpoints(scope),
            "---",
            risks(scope),
            "---",
            criteria(scope),
            "---" if scope.intent == "extend" else "",
            _extension(scope) if scope.intent == "extend" else "",
            "---",
            _metadata(scope),
        ]
    )


def _header(scope: Scope) -> str:
    intent = INTENTS[scope.intent]
    if scope.components:
        intent += f" ({', '.join(scope.components)})"
    return "\n".join(
        [
            f"# Implementation Plan: {scope.project.name}",
            "",
            f"**Generated:** {scope.date or 'undated'}, by `cupel notes plan`  ",
            f"**Papers:** {', '.join(paper.id for paper in scope.papers)}  ",
            f"**Intent:** {intent}  ",
            f"**Target Environment:** {scope.environment.title}",
        ]
    )


# ---- summary -----------------------------------------------------------------------------------


def _summary(scope: Scope) -> str:
    equations = [entry for entry in scope.entries if isinstance(entry, Equation)]
    algorithms = len(scope.entries) - len(equations)
    levels = count(len(scope.module_levels), "levels")
    by_priority = ", ".join(
        f"{sum(e.priority == p for e in equations)} {p}" for p in ("P0", "P1", "P2")
    )
    return document(
        [
            "## Executive Summary",
            f"**What we're building:** {_building(scope)}",
            "**Paper dependency chain:**",
            block("", _chain(scope)),
            "**Effort, counted:**",
            "\n".join(
                [
                    f"- Equations to implement: {len(equations)} ({by_priority})",
                    f"- Algorithms to implement: {algorithms}",
                    f"- Modules: {len(scope.modules)} in {levels}",
                    f"- Test files: {len(_tested(scope))}; test criteria: {scope.criteria}",
                    f"- Longest chain of equations: {_longest(scope)}",
                ]
            ),
        ]
    )


def _building(scope: Scope) -> str:
    what = [f"{paper.title} – {paper.contribution.rstrip('.')}." for paper in scope.papers]
    if scope.components:
        names = ", ".join(module.name for module in scope.modules)
        what.append(f"Of it only {names}.")
    return " ".join(what)


def _chain(scope: Scope) -> str:
    """Papers by level, arrows between those that build on each other."""
    papers = graph.graph_of(scope.papers, "papers")
    lines = [" ──► ".join(papers.longest())] if papers.nodes else []
    inside = set(papers.longest())
    for name in papers.nodes:
        if name not in inside:
            needs = ", ".join(papers.needs[name])
            lines.append(f"{name}  (builds on {needs})" if needs else name)
    return "\n".join(lines)


def _longest(scope: Scope) -> str:
    chain = scope.equations.only(entry.id for entry in scope.entries).longest()
    return f"{len(chain)} ({' → '.join(chain)})" if chain else "0"


def _tested(scope: Scope) -> list[Equation | Algorithm]:
    return [entry for entry in scope.entries if entry.tests]


# ---- graphs ------------------------------------------------------------------------------------


def _graphs(scope: Scope) -> str:
    return document(
        [
            "## 1. Dependency Graph",
            "### Paper Dependencies",
            block("mermaid", _papers(scope)),
            "### Equation Dependencies",
            _equations(scope),
            "### Module Dependencies",
            block("", _module_levels(scope)),
        ]
    )


def _papers(scope: Scope) -> str:
    """Papers, and the order in which levels of modules are built."""
    lines = drawn.as_mermaid(graph.graph_of(scope.papers, "papers")).rstrip().split("\n")
    lines += ["", '    subgraph order["implementation order"]']
    steps = [f"S{number}" for number in range(len(scope.module_levels))]
    for step, level in zip(steps, scope.module_levels, strict=True):
        names = ", ".join(module.name for module in level)
        lines.append(f'        {step}["{int(step[1:]) + 1}. {names}"]')
    lines += [f"        {before} --> {after}" for before, after in pairwise(steps)]
    return "\n".join([*lines, "    end"])


def _equations(scope: Scope) -> str:
    users = scope.equations.used_by()
    rows = []
    for name in scope.listed:
        node = scope.equations.nodes[name]
        paper, part = ids.split(name)
        role = "" if node.main else ", context"
        rows.append(
            (
                f"{part} ({node.label}{role})",
                paper,
                _listed(scope.equations.needs[name], paper),
                _listed(users[name], paper),
            )
        )
    return table(("Equation", "Paper", "Depends On", "Used By"), rows)


def _listed(names: tuple[str, ...], paper: str) -> str:
    short = (n.partition(":")[2] if ids.split(n)[0] == paper else n for n in names)
    return ", ".join(short) or "none"


def _module_levels(scope: Scope) -> str:
    lines = []
    for number, level in enumerate(scope.module_levels):
        lines.append(f"Level {number}" + (": needs nothing" if number == 0 else ""))
        for module in level:
            parts = ", ".join(ids.split(e.id)[1] for e in scope.of_module(module)) or "no equation"
            needs = ", ".join(_module_name(n, module) for n in scope.parts.needs[module.id])
            lines.append(
                f"├── {path_of(scope, module)} ({parts}) ── requires: {needs or 'nothing'}"
            )
        lines[-1] = lines[-1].replace("├", "└", 1)
    return "\n".join(lines)


def _module_name(identity: str, beside: Module) -> str:
    paper, name = ids.split(identity)
    return name if paper == ids.split(beside.id)[0] else identity


def path_of(scope: Scope, module: Module) -> str:
    """Where a module's file lies."""
    source = scope.project.source_of(module.id)
    assert source is not None, module.id
    return source.path


# ---- files -------------------------------------------------------------------------------------


def _manifest(scope: Scope) -> str:
    return document(
        [
            "## 3. File Manifest",
            "### Source Files",
            block("", tree(_sources(scope))),
            "### Test Files",
            block("", tree(_tests(scope))),
            "### Config Files",
            block("", tree(_configs(scope))),
        ]
    )


def _sources(scope: Scope) -> dict[str, str]:
    found: dict[str, str] = {}
    for module in scope.modules:
        parts = ", ".join(ids.split(entry.id)[1] for entry in scope.of_module(module))
        about = f"{module.description or module.name}" + (f" ({parts})" if parts else "")
        path = path_of(scope, module)
        found[path] = f"{found[path]}; {about}" if path in found else about
        found.setdefault(f"{path.rpartition('/')[0]}/__init__.py".lstrip("/"), "")
    if scope.trains:
        folder = f"src/{scope.project.package.replace('.', '/')}"
        found[f"{folder}/data.py"] = "batches, as a function of seed and step"
        found[f"{folder}/train.py"] = "the training loop; resumes from its checkpoints"
    return found


def _tests(scope: Scope) -> dict[str, str]:
    found = {"tests/conftest.py": "seeds, float64 as the default, no deadlines"}
    for entry in _tested(scope):
        kinds = ", ".join(dict.fromkeys(criterion.kind for criterion in entry.tests))
        found[file_of_tests(entry)] = f"{entry.id}: {kinds}"
    if scope.trains:
        for module in scope.models:
            found[assembly_test(module)] = f"{module.name} as a whole"
        found["tests/assembly/test_training_step.py"] = "one step changes every parameter once"
    return found


def _configs(scope: Scope) -> dict[str, str]:
    machine = scope.environment
    found = {
        "configs/tiny.yaml": f"for tests: width {machine.width // 2}, length {machine.length // 4}"
    }
    if scope.trains:
        found["configs/default.yaml"] = f"{machine.title}: {sizes(scope)}"
        for paper in scope.papers:
            named = count(len(paper.hyperparameters), "hyperparameters")
            found[f"configs/{paper.paper_id}.yaml"] = f"{named} of section 4, with their sources"
    return found


# ---- extension, metadata -----------------------------------------------------------------------


def _extension(scope: Scope) -> str:
    switches = [
        (a.switch, f"{paper.id}:{a.number}", ", ".join(a.options), a.chosen)
        for paper in scope.papers
        for a in paper.ambiguities
        if a.switch
    ]
    points = [
        (module.name, path_of(scope, module), module.input, module.output)
        for module in scope.modules
        if scope.parts.used_by()[module.id]
    ]
    return document(
        [
            "## 7. Extension Points",
            "### Modules that others build on",
            "A replacement takes and gives the same, and passes the tests of the module that it "
            "replaces, equations that it changes on purpose aside.",
            table(("Module", "File", "Takes", "Gives"), points) if points else "None.",
            "### Switches",
            "Each ambiguity is a setting already; a further reading is a further value of it.",
            table(("Setting", "Ambiguity", "Readings", "Default"), switches)
            if switches
            else "None.",
            "### Rules for an extension",
            ticks(
                [
                    "notes of its own, `builds_on` naming the papers above, without faults",
                    "a test that it reduces to the original where it should (an `oracle`)",
                    "an ablation: with it, without it, everything else equal",
                ]
            ),
        ]
    )


def _metadata(scope: Scope) -> str:
    lines = [
        f'plan_version: "{PLAN_VERSION}"',
        f"generated_at: {scope.date or 'null'}",
        f"intent: {scope.intent}",
        f"environment: {scope.environment.title}",
        "papers_included:" if scope.papers else "papers_included: []",
    ]
    for paper in scope.papers:
        lines.append(f"  - id: {paper.id}")
        lines.append(f"    context_file: {paper.at.path.rpartition('/')[2]}")
        lines.append(f"    arxiv: {paper.arxiv}")
        lines.append(f"    confidence: {paper.confidence}")
    equations = sum(isinstance(entry, Equation) for entry in scope.entries)
    lines += [
        f"total_equations: {equations}",
        f"total_algorithms: {len(scope.entries) - equations}",
        f"total_modules: {len(scope.modules)}",
        f"total_test_files: {len(_tested(scope))}",
        f"total_test_criteria: {scope.criteria}",
    ]
    return f"## Metadata\n\n{block('yaml', chr(10).join(lines))}"
