"""The eight phases of a plan, from an empty folder to a release.

An intent that does not need a phase keeps its heading and says why it is empty, so that phases have
the same numbers in every plan.
"""

from __future__ import annotations

import shlex

from cupel.notes import ids
from cupel.notes.markdown import block, count, document, table, ticks
from cupel.notes.model import Algorithm, Equation, Module, Paper
from cupel.notes.plan_scope import Scope
from cupel.notes.project import TESTS, assembly_test, file_of_tests, name_of_test

_KINDS = {
    "value": "numbers written down by hand, or those of a plain loop",
    "gradient": "automatic differentiation, or central differences",
    "oracle": "another way to the same numbers: a limit, a reduction, a search",
    "shape": "sizes of what comes out",
    "causal": "what may not depend on a later input, bit for bit, and a control that fails",
    "perf": "time or memory against a stated bound",
    "claim": "a sentence of the paper, at a stated size",
}


def phases(scope: Scope) -> str:
    """Section 2."""
    return document(
        [
            "## 2. Implementation Phases",
            _setup(scope),
            _tests(scope),
            _core(scope),
            _assembly(scope),
            _training(scope),
            _quality(scope),
            _documentation(scope),
            _release(scope),
        ]
    )


def _heading(number: int, title: str, effort: str) -> str:
    return f"### Phase {number}: {title}\n\n**Effort:** {effort}"


def _empty(number: int, title: str) -> str:
    return f"### Phase {number}: {title}\n\nNot part of this plan: it validates equations only."


# ---- 1: setup ----------------------------------------------------------------------------------


def _setup(scope: Scope) -> str:
    name = scope.project.name
    machine = scope.environment
    folders = " ".join(
        [*scope.project.folders, TESTS, "tests/assembly", "configs", "docs", "notes"]
    )
    commands = [
        f"mkdir -p {shlex.quote(name)} && cd {shlex.quote(name)}",
        *(
            ["# in a notebook each line begins with !, and needs no virtual environment"]
            if machine.is_notebook
            else ["python3 -m venv .venv", "source .venv/bin/activate"]
        ),
        machine.install,
        "pip install numpy pytest pytest-cov ruff mypy cupel",
        f"mkdir -p {folders}",
        "cp -r …/notes/*.context.md notes/",
        f"cupel notes scaffold notes --into . --package {scope.project.package}"
        if _renamed(scope)
        else "cupel notes scaffold notes --into .",
        "pip install -e .",
        machine.check,
    ]
    return document(
        [
            _heading(1, "Project Setup", f"{count(len(scope.modules), 'modules')} as empty files"),
            f"Device `{machine.device}`, numbers in {machine.dtype}. Limits here:",
            "\n".join(f"- {limit}" for limit in machine.limits),
            "**Commands:**",
            block("bash", "\n".join(commands)),
            "**Deliverables:**",
            ticks(
                [
                    "`pyproject.toml`, with pytest and ruff configured",
                    "a file for every module of section 3, a test file for every equation",
                    "`pip install -e .` succeeds",
                    "`pytest --collect-only -q` finds every test",
                ]
            ),
        ]
    )


def _renamed(scope: Scope) -> bool:
    """Whether files lie elsewhere than the notes say: `--package` was given."""
    return any(
        source.path != module.path for source in scope.project.sources for module in source.modules
    )


# ---- 2: tests ----------------------------------------------------------------------------------


def _tests(scope: Scope) -> str:
    parts = [
        _heading(
            2, "Equation Tests (Test-First)",
            f"{count(sum(bool(e.tests) for e in scope.entries), 'files')}, {scope.criteria} tests",
        ),
        "Tests come before code. Each criterion of the notes is one test, and all of them fail at "
        "first.",
    ]  # fmt: skip
    number = 0
    for paper in scope.papers:
        entries = [entry for entry in scope.of_paper(paper) if entry.tests]
        if entries:
            number += 1
            parts += [f"#### Phase 2.{number}: Equations of {paper.title}", _tasks(number, entries)]
    used = {criterion.kind for entry in scope.entries for criterion in entry.tests}
    return document(
        [
            *parts,
            "**Kinds of tests in this plan:**",
            "\n".join(f"- `{kind}`: {told}" for kind, told in _KINDS.items() if kind in used),
            "**Each test file:**",
            block("python", _example(scope)),
            "**Verification Criteria:**",
            ticks(
                [
                    f"all {scope.criteria} tests are written",
                    "all of them fail while nothing is implemented",
                    "every main equation has a test of kind value, gradient, oracle or causal",
                ]
            ),
        ]
    )


def _priority(entry: Equation | Algorithm) -> str:
    # An algorithm has no priority of its own: it comes with the first equations.
    return entry.priority if isinstance(entry, Equation) else "P0"


def _tasks(number: int, entries: list[Equation | Algorithm]) -> str:
    # `sorted` keeps the order of ids within a priority.
    rows = [
        (
            f"2.{number}.{place}",
            f"{ids.split(entry.id)[1]}: {entry.name}",
            f"`{file_of_tests(entry)}`",
            ", ".join(c.kind for c in entry.tests),
            _priority(entry),
        )
        for place, entry in enumerate(sorted(entries, key=_priority), 1)
    ]
    return table(("Task", "Equation", "Test File", "Criteria", "Priority"), rows)


def _example(scope: Scope) -> str:
    entry = next((entry for entry in scope.entries if entry.tests), None)
    if entry is None:
        return "# the notes have no test criteria"
    lines = [f'"""{entry.id}: {entry.name} ({entry.location})."""', "", "import pytest"]
    for criterion in entry.tests[:2]:
        lines += [
            "", "",
            f'@pytest.mark.equation("{entry.id}", kind="{criterion.kind}")',
            f"def {name_of_test(criterion)}() -> None: ...",
        ]  # fmt: skip
    return "\n".join(lines)


# ---- 3: core -----------------------------------------------------------------------------------


def _core(scope: Scope) -> str:
    parts = [
        _heading(
            3, "Core Implementation",
            f"{count(len(scope.modules), 'modules')}, {count(len(scope.entries), 'entries')} "
            "to implement",
        ),
        "Modules in the order of what they need. A level is done when its checkpoint passes.",
    ]  # fmt: skip
    for number, level in enumerate(scope.module_levels, 1):
        rows = []
        for place, module in enumerate(level, 1):
            needs = ", ".join(ids.split(n)[1] for n in scope.parts.needs[module.id])
            rows.append(
                (f"3.{number}.{place}", _file(scope, module), needs, _to_pass(scope, module))
            )
        parts += [
            f"#### Phase 3.{number}: Level {number - 1} – {', '.join(m.name for m in level)}",
            table(("Task", "Module", "Dependencies", "Tests to Pass"), rows),
            "**Checkpoint:**",
            block("bash", level_command(scope, level)),
        ]
    return document(parts)


def _file(scope: Scope, module: Module) -> str:
    source = scope.project.source_of(module.id)
    assert source is not None, module.id
    return f"`{source.path}`"


def _to_pass(scope: Scope, module: Module) -> str:
    files = [file_of_tests(entry) for entry in scope.of_module(module) if entry.tests]
    return ", ".join(f"`{file.rpartition('/')[2]}`" for file in files)


def level_command(scope: Scope, level: list[Module]) -> str:
    """The command that runs the tests of some modules; where there are none, that they import."""
    files = [file_of_tests(e) for module in level for e in scope.of_module(module) if e.tests]
    if files:
        return "pytest -q \\\n  " + " \\\n  ".join(files)
    imports = sorted({s.dotted for m in level if (s := scope.project.source_of(m.id))})
    return f'python -c "import {", ".join(imports)}"'


# ---- 4 and 5: assembly, training ---------------------------------------------------------------


def _assembly(scope: Scope) -> str:
    if not scope.trains:
        return _empty(4, "Model Assembly")
    rows = []
    for place, module in enumerate(scope.models, 1):
        used = [n for n in scope.parts.required([module.id]) if n != module.id]
        names = ", ".join(ids.split(n)[1] for n in used) or "nothing else"
        rows.append((f"4.{place}", module.name, names, f"`{assembly_test(module)}`"))
    tests = (
        ("test_forward_pass", "a batch goes through, and every number is finite"),
        ("test_backward_pass", "every parameter gets a gradient that is not zero"),
        ("test_parameter_count", "the count is that of the notes' table of modules"),
        ("test_checkpoint_save_load", "a restored model gives the same bits"),
        ("test_sequences_of_a_batch_are_independent", "a sequence alone gives the same numbers"),
    )
    code = "\n\n\n".join(f'def {name}() -> None:\n    """{told}"""' for name, told in tests)
    return document(
        [
            _heading(4, "Model Assembly", f"{count(len(scope.models), 'models')}, 5 tests each"),
            table(("Task", "Model", "Components", "Test"), rows),
            "**Model Tests:**",
            block("python", code),
        ]
    )


def _training(scope: Scope) -> str:
    title = "Training Infrastructure"
    if not scope.trains:
        return _empty(5, title)
    machine = scope.environment
    package = f"src/{scope.project.package.replace('.', '/')}"
    rows = [
        ("5.1", f"`{package}/train.py`", "the loop: one step, evaluation, checkpoint, resume"),
        ("5.2", f"`{package}/data.py`", "batches as a function of seed and step"),
        ("5.3", "`configs/default.yaml`", f"{machine.title}: {sizes(scope)}"),
        ("5.4", "`configs/<paper>.yaml`", "the values of section 4 of the notes, with sources"),
        ("5.5", "`cupel.init()`, `run.log()`", "numbers of every step, kept through a kill"),
    ]
    parts = [
        _heading(5, title, f"{len(rows)} parts, {_numbers(scope)} to set"),
        table(("Task", "Component", "Description"), rows),
        "**Training Loop Checklist:**",
        ticks(
            [
                "learning rate scheduled as the notes say",
                "gradients clipped, their norm logged",
                "checkpoints of model, optimizer, step, random state; resuming gives equal bits",
                "losses, rates and seeds logged",
                "early stopping, off unless a benchmark asks for it",
                f"numbers in {machine.dtype}",
            ]
        ),
        *(_given(paper) for paper in scope.papers),
    ]
    if scope.intent == "benchmark":
        parts.append(_protocol(scope))
    return document(parts)


def sizes(scope: Scope) -> str:
    """What a run of the default configuration is."""
    machine = scope.environment
    return (
        f"width {machine.width}, length {machine.length}, batch {machine.batch} on {machine.device}"
    )


def _numbers(scope: Scope) -> str:
    return count(sum(len(paper.hyperparameters) for paper in scope.papers), "hyperparameters")


def _given(paper: Paper) -> str:
    if not paper.hyperparameters:
        return f"The notes of {paper.id} list no hyperparameters."
    rows = [(h.name, h.value, h.group, h.source) for h in paper.hyperparameters]
    return document(
        [
            f"**Hyperparameters of {paper.id}:**",
            table(("Name", "Value", "Group", "Source"), rows),
        ]
    )


def _protocol(scope: Scope) -> str:
    """What a benchmark compares, and how, with no more training than it needs."""
    rows = [
        (f"{paper.id}:{b.id}", b.dataset, b.metric, b.value, b.setup, b.source)
        for paper in scope.papers
        for b in paper.benchmarks
    ]
    return document(
        [
            "#### Benchmark Protocol",
            table(("Id", "Dataset", "Metric", "Reported", "Setup", "Source"), rows)
            if rows
            else "The notes report no results.",
            "Only what these rows need is trained: published weights where there are any, else "
            "the smallest setup at which the compared models differ.",
            ticks(
                [
                    "the metric is computed by one function for all models, and tested by itself",
                    "models that are compared have equal data, steps and evaluation; what is not "
                    "equal is said",
                    "at least three seeds; beside each mean its interval and missing seeds",
                    "a value at another size than the paper's is compared in order and sign only, "
                    "and says so",
                ]
            ),
        ]
    )


# ---- 6 to 8: quality, documentation, release ---------------------------------------------------


def _quality(scope: Scope) -> str:
    return document(
        [
            _heading(6, "Code Quality", "5 gates"),
            block("bash", QUALITY),
            "**Quality Gates:**",
            ticks(
                [
                    "`ruff format --check`: nothing to change",
                    "`ruff check`: no finding",
                    "`mypy`: no error",
                    "`pytest`: every test passes",
                    "coverage of at least 80 %",
                ]
            ),
        ]
    )


QUALITY = "\n".join(
    (
        "ruff format --check src tests",
        "ruff check src tests",
        "mypy src",
        "pytest -q --cov=src --cov-report=term-missing --cov-fail-under=80",
        "cupel notes lint notes",
    )
)


def _documentation(scope: Scope) -> str:
    rows = [
        ("7.1", "`README.md`", "what it is, two commands to try it, what came out"),
        ("7.2", "`ARCHITECTURE.md`", "modules and their order; every ambiguity with its choice"),
        ("7.3", "`docs/equations.md`", "made by the command below"),
    ]
    if scope.trains:
        rows.append(
            ("7.4", "`docs/benchmarks.md`", "how each number is reached, and how far it holds")
        )
    return document(
        [
            _heading(7, "Documentation", count(len(rows), "pages")),
            table(("Task", "Output", "Content"), rows),
            block(
                "bash", "cupel notes equations notes -o docs/equations.md --code src --tests tests"
            ),
        ]
    )


def _release(scope: Scope) -> str:
    told = []
    for paper in scope.papers:
        parts = [ids.split(entry.id)[1] for entry in scope.of_paper(paper)]
        if parts:
            told.append(f"- {paper.id}: {spans(parts)}")
    links = [
        f"- {paper.title}: https://arxiv.org/abs/{paper.arxiv}"
        for paper in scope.papers
        if paper.arxiv != "none"
    ]
    message = ["Initial implementation", "", "Implements:", *told]
    if links:
        message += ["", "Papers:", *links]
    return document(
        [
            _heading(8, "Git & Release Prep", "1 commit, 1 tag"),
            "The first commit, with this message in `message.txt`:",
            block("", "\n".join(message)),
            block(
                "bash",
                "git init\ngit add .\ngit commit -F message.txt\ngit tag v0.1.0\n"
                f"gh repo create {shlex.quote(scope.project.name)} --source=. --private --push",
            ),
            ticks(
                [
                    "a licence, and the papers cited",
                    "every gate of phase 6 passed at this commit",
                    "the notes are part of the repository",
                ]
            ),
        ]
    )


def spans(parts: list[str]) -> str:
    """`eq8, eq9, eq10, eq12` → `eq8-eq10, eq12`."""
    found: list[list[str]] = []
    for part in parts:
        if found and _follows(found[-1][-1], part):
            found[-1].append(part)
        else:
            found.append([part])
    return ", ".join(one[0] if len(one) == 1 else f"{one[0]}-{one[-1]}" for one in found)


def _follows(before: str, part: str) -> bool:
    first, second = before.lstrip("eqalg"), part.lstrip("eqalg")
    same = before[: len(before) - len(first)] == part[: len(part) - len(second)]
    return same and first.isdecimal() and second.isdecimal() and int(second) == int(first) + 1
