"""How a plan is held to its word: checkpoints, risks, and what counts as success."""

from __future__ import annotations

from cupel.notes import ids
from cupel.notes.markdown import block, document, numbered, table, ticks
from cupel.notes.model import Equation
from cupel.notes.plan_phases import QUALITY, level_command
from cupel.notes.plan_scope import Scope
from cupel.notes.project import file_of_tests


def checkpoints(scope: Scope) -> str:
    """Section 4."""
    found: list[tuple[str, str, str]] = []  # title, language, commands
    if scope.module_levels:
        first = level_command(scope, scope.module_levels[0])
        found.append(("Foundation Tests Pass", "bash", f"{first}\n# expected: all pass"))
    for paper in scope.papers:
        files = [file_of_tests(entry) for entry in scope.of_paper(paper) if entry.tests]
        if files:
            stem = file_of_tests(scope.of_paper(paper)[0]).partition("_")[0]
            name = paper.paper_id.replace("-", "_")
            found.append(
                (
                    f"{paper.id} Complete",
                    "bash",
                    f"pytest -q {stem}_{name}_*.py\n# expected: {_criteria(scope, paper.id)} pass, "
                    "none skipped",
                )
            )
    if scope.trains and scope.models:
        found.append(("Full Model Runs", "python", _runs(scope)))
        found.append(("Training Runs", "bash", _trains(scope)))
    found.append(("Quality Gates Pass", "bash", f"{QUALITY}\n# expected: no finding, all pass"))
    parts = ["## 4. Verification Checkpoints"]
    for number, (title, language, commands) in enumerate(found, 1):
        parts += [f"### Checkpoint {number}: {title}", block(language, commands)]
    return document(parts)


def _criteria(scope: Scope, paper: str) -> int:
    return sum(len(entry.tests) for entry in scope.entries if ids.split(entry.id)[0] == paper)


def _runs(scope: Scope) -> str:
    """A model of the plan, made and called; its class is for the implementer to name."""
    module = scope.models[0]
    source = scope.project.source_of(module.id)
    assert source is not None, module.id
    machine = scope.environment
    return "\n".join(
        [
            "import torch",
            f"from {source.dotted} import build  # the model of configs/tiny.yaml",
            "",
            f'device = torch.device("{machine.device}")',
            'model = build("configs/tiny.yaml").to(device)',
            f"x = torch.randint(0, 256, (2, {machine.length // 4}), device=device)",
            "y = model(x)",
            f"assert y.shape[:2] == (2, {machine.length // 4}) and torch.isfinite(y).all()",
        ]
    )


def _trains(scope: Scope) -> str:
    package = scope.project.package
    return (
        f"python -m {package}.train --config configs/tiny.yaml "
        f"--device {scope.environment.device} --steps 100\n"
        "# expected: no error; the loss after 100 steps is below that of the first"
    )


# ---- risks -------------------------------------------------------------------------------------


def risks(scope: Scope) -> str:
    """Section 5: every ambiguity, every equation that was not read in print, and the machine."""
    rows = [*_ambiguous(scope), *_uncertain(scope), *_assumed(scope)]
    rows += [(limit, "Medium", "phase 1's check comes first") for limit in scope.environment.limits]
    if scope.trains and any(paper.benchmarks for paper in scope.papers):
        rows.append(("data of a benchmark cannot be had", "Low", "fetched before phase 5"))
    unclear = [
        "read the appendix, and the errata of the notes",
        "look how related papers write the same equation",
        "write the readings down as an ambiguity, with a setting for each",
        "test every reading; the default is the one that the notes choose",
    ]
    diverges = [
        "run the equation tests again: a wrong gradient is the likeliest cause",
        "lower the learning rate tenfold, then the step sizes of inner loops",
        "log norms of gradients and states by layer, and find the first that grows",
        "compare with values that the paper prints, where it prints any",
    ]
    parts = [
        "## 5. Risk Mitigation",
        "### Identified Risks",
        table(("Risk", "Impact", "Mitigation"), rows),
        "### Contingency Plans",
        "**If an equation can be read in several ways:**",
        numbered(unclear),
    ]
    if scope.trains:
        parts += ["**If training does not converge:**", numbered(diverges)]
    return document(parts)


def _ambiguous(scope: Scope) -> list[tuple[str, str, str]]:
    """One that touches an equation of priority P0 weighs more."""
    by_id = {entry.id: entry for entry in scope.entries}
    rows = []
    for paper in scope.papers:
        for one in paper.ambiguities:
            touched = [by_id[n] for n in one.equations if n in by_id]
            if not touched:
                continue
            first = any(isinstance(e, Equation) and e.priority == "P0" for e in touched)
            parts = ", ".join(ids.split(e.id)[1] for e in touched)
            does = f"`{one.switch}` = `{one.chosen}` by default, one test for each reading: "
            does += ", ".join(f"`{option}`" for option in one.options)
            rows.append(
                (
                    f"{paper.id}:{one.number} {one.name} ({parts})",
                    "High" if first else "Medium",
                    does,
                )
            )
    return rows


def _uncertain(scope: Scope) -> list[tuple[str, str, str]]:
    told = {
        "B": ("Low", "two transcriptions agree; compare with print where it can be had"),
        "C": ("Medium", "one transcription; find a second source before relying on it"),
        "D": ("High", "derived, not printed; an independent oracle decides"),
    }
    rows = []
    for entry in scope.entries:
        if isinstance(entry, Equation):
            if entry.confidence in told:
                impact, does = told[entry.confidence]
                rows.append((f"{entry.id} is of confidence {entry.confidence}", impact, does))
            if entry.printed:
                rows.append(
                    (
                        f"{entry.id} does not close as printed",
                        "High",
                        "our form is tested against an oracle, not against print",
                    )
                )
    return rows


def _assumed(scope: Scope) -> list[tuple[str, str, str]]:
    rows = []
    for paper in scope.papers:
        names = [h.name for h in paper.hyperparameters if h.source.startswith("assumed")]
        if names and scope.trains:
            told = f"{paper.id} does not state {', '.join(names)}"
            rows.append(
                (told, "Medium", "settings, varied in an ablation before a result is claimed")
            )
    return rows


# ---- success -----------------------------------------------------------------------------------


def criteria(scope: Scope) -> str:
    """Section 6."""
    equations = sum(isinstance(entry, Equation) for entry in scope.entries)
    minimum = [
        f"all {equations} equations are implemented, and their {scope.criteria} tests pass",
        "the code passes every gate of phase 6",
        "every page of phase 7 is written",
    ]
    if scope.trains:
        minimum[1:1] = [
            "every model makes a forward and a backward pass",
            "1,000 steps run without a crash, and resume exactly from the middle",
        ]
    full = ["everything above", "every ambiguity is a setting, and every reading has a test"]
    stretch = ["each equation's code fails a test when a sign or a term of it is changed"]
    if scope.trains:
        results = sum(len(paper.benchmarks) for paper in scope.papers)
        full += [
            f"of {results} reported results those that fit this machine are within 10 %, or their "
            "order is, with intervals",
            "curves and checkpoints are kept, with their settings",
        ]
        stretch += [
            "results within 5 %",
            "faster forms of the slowest equation, with equal numbers",
            "further ablations",
        ]
    return document(
        [
            "## 6. Success Criteria",
            "### Minimum Viable Success",
            ticks(minimum),
            "### Full Success",
            ticks(full),
            "### Stretch Goals",
            ticks(stretch),
        ]
    )
