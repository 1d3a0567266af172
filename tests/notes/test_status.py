"""Status is evidence: what runs and fails on wrong code, not what is claimed."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest

from cupel.cli.main import main
from cupel.notes.code import evidence, python_files
from cupel.notes.load import load_sound
from cupel.notes.status import Request, Status, status

NOTES = """---
paper_id: toy
version: v1
title: "A toy"
authors: [Nobody]
arxiv: none
year: 2026
contribution: Nothing.
builds_on: []
extraction_version: 1
extracted_at: 2026-01-01
extractor: a test
source: none
confidence: A
needs_clarification: []
---
# A toy
"""
RIGHT = "keep * weight - theta * grad"
# Fifty ways to get `keep * weight - theta * grad` wrong.
WRONG = [
    "keep * weight + theta * grad", "-keep * weight - theta * grad", "keep * weight",
    "-theta * grad",
    "weight - theta * grad", "keep - theta * grad", "keep * weight - theta", "keep * weight - grad",
    "theta * weight - keep * grad", "keep * grad - theta * weight", "keep * weight - theta / grad",
    "keep / weight - theta * grad", "keep * (weight - theta * grad)",
    "(keep * weight - theta) * grad",
    "keep * weight - 2 * theta * grad", "2 * keep * weight - theta * grad", "1 - theta * grad",
    "keep * weight - theta * grad + 1", "keep * weight - theta * grad - 1e-3",
    "keep * weight - theta * grad ** 2", "keep ** 2 * weight - theta * grad",
    "keep * weight ** 2 - theta * grad", "keep * weight - theta ** 2 * grad", "0 * weight",
    "theta * grad - keep * weight", "abs(keep * weight - theta * grad)", "weight", "grad", "keep",
    "theta", "weight - grad", "keep - theta", "keep * weight - keep * grad",
    "theta * weight - theta * grad", "keep * weight - theta * weight", "keep * grad - theta * grad",
    "(1 - keep) * weight - theta * grad", "keep * weight - (1 - theta) * grad",
    "max(keep * weight - theta * grad, 0)", "min(keep * weight - theta * grad, 0)",
    "round(keep * weight - theta * grad)", "keep * weight // 1 - theta * grad",
    "keep * weight - theta * grad * keep", "keep * weight * theta - theta * grad",
    "keep * weight - theta * grad / 2", "keep * weight / 2 - theta * grad",
    "keep * weight - theta - grad", "keep + weight - theta * grad", "-keep * weight + theta * grad",
    "(keep * weight - theta * grad) * 1.001",
]  # fmt: skip
VALUE = "assert step(3.0, 0.5, 0.25, 2.0) == 1.0\n    assert step(-2.5, 0.8, 0.3, -1.0) == -1.7"


class Project:
    """A small project with one equation for each implementation that it is given."""

    def __init__(
        self, folder: Path, codes: list[str], *, kind: str = "value", test: str = VALUE
    ) -> None:
        self.folder = folder
        self.kind, self.test = kind, test
        rows, equations = "", ""
        (folder / "src" / "toy").mkdir(parents=True)
        (folder / "src" / "toy" / "__init__.py").touch()
        (folder / "tests").mkdir()
        (folder / "pyproject.toml").write_text(
            '[tool.pytest.ini_options]\npythonpath = ["src"]\n'
            'addopts = ["--import-mode=importlib"]\n'
        )
        for number, code in enumerate(codes, 1):
            self.implement(number, code)
            self.cover(number)
            rows += f"| m{number} | src/toy/m{number}.py | [] | [] | none | a step |\n"
            equations += textwrap.dedent(
                f"""
                ### Equation {number}: Step
                - Location: section 1
                - Confidence: A
                - Module: m{number}
                - Requires: none
                - Priority: P0
                - Role: main

                ```latex
                W = a W - b g
                ```

                ```form
                W = a * W - b * g
                ```

                A step.

                | symbol | name | type | shape | description |
                |---|---|---|---|---|
                | W | weight | tensor | scalar | |
                | a | keep | gate | scalar | |
                | b | step | gate | scalar | |
                | g | gradient | tensor | scalar | |

                Tests:
                - [value] by hand
                """
            )
        self.notes = folder / "toy.context.md"
        self.notes.write_text(
            NOTES + "\n## Quick Reference\n\n| what | count |\n|---|---|\n"
            f"| equations | {len(codes)} |\n"
            f"| algorithms | 0 |\n| modules | {len(codes)} |\n| hyperparameters | 0 |\n"
            "| benchmarks | 0 |\n| ambiguities | 0 |\n\n## 1. Equations\n" + equations
            + "\n## 2. Algorithms\n\n## 3. Architecture\n\n"
            "| module | path | input | output | parameters | description |\n"
            "|---|---|---|---|---|---|\n"
            + rows + "\n## 4. Hyperparameters\n\n## 5. Benchmarks\n\n## 6. Dependencies\n\n"
            "## 7. Checklist\n\n## 8. Notes\n"
        )  # fmt: skip

    def implement(self, number: int, code: str) -> None:
        (self.folder / "src" / "toy" / f"m{number}.py").write_text(
            "from cupel.tags import implements\n\n\n"
            f'@implements("toy.v1:eq{number}")\n'
            f"def step(weight, keep, theta, grad):\n    return {code}\n"
        )

    def cover(self, number: int, *, test: str | None = None, kind: str | None = None) -> None:
        (self.folder / "tests" / f"test_m{number}.py").write_text(
            f"import pytest\nfrom toy.m{number} import step\n\n\n"
            f'@pytest.mark.equation("toy.v1:eq{number}", kind="{kind or self.kind}")\n'
            f"def test_step():\n    {test or self.test}\n"
        )

    def status(self, **changes: Any) -> list[Status]:
        folders = [self.folder / "src"], [self.folder / "tests"]
        request = Request(
            load_sound([self.notes]), evidence(*folders), python_files([*folders[0], *folders[1]]),
            self.folder / "evidence.json", **{"workers": 2, **changes},
        )  # fmt: skip
        return status(request)


pytestmark = pytest.mark.slow  # each starts pytest some dozen times


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pytest takes the project's own settings, not those of this repository."""
    monkeypatch.chdir(tmp_path)


def test_right_code_and_a_test_of_its_value_reach_five(tmp_path: Path) -> None:
    (found,) = Project(tmp_path, [RIGHT]).status()
    assert (found.level, found.why, found.survived) == (5, "", ())
    assert found.mutants >= 10


def test_warnings_that_are_errors_do_not_stop_it(tmp_path: Path) -> None:
    """Hypothesis is imported before pytest starts, which then warns that it cannot rewrite it."""
    project = Project(tmp_path, [RIGHT])
    settings = tmp_path / "pyproject.toml"
    settings.write_text(settings.read_text() + 'filterwarnings = ["error"]\n')
    project.cover(1, test=f"import hypothesis\n    {VALUE}")
    assert project.status()[0].level == 5


def test_of_fifty_wrong_implementations_none_is_verified(tmp_path: Path) -> None:
    assert len(WRONG) == len(set(WRONG)) == 50
    found = Project(tmp_path, [RIGHT, *WRONG]).status()
    assert found[0].level == 5
    assert {one.level for one in found[1:]} == {2}


def test_a_weak_test_is_told_which_mutants_it_lets_pass(tmp_path: Path) -> None:
    weak = "assert step(3.0, 0.5, 0.0, 2.0) == 1.5"
    (found,) = Project(tmp_path, [RIGHT], test=weak).status()
    assert found.level == 4
    assert any("sign of theta * grad flipped" in line for line in found.survived)
    assert "mutants pass its tests" in found.why


@pytest.mark.parametrize("kind", ["shape", "causal", "perf", "claim"])
def test_tests_of_other_kinds_never_lift_above_three(tmp_path: Path, kind: str) -> None:
    (found,) = Project(tmp_path, [RIGHT], kind=kind).status()
    assert found.level == 3
    assert not found.mutants


def test_levels_below_three(tmp_path: Path) -> None:
    project = Project(tmp_path, [RIGHT, RIGHT, RIGHT, RIGHT, RIGHT])
    (tmp_path / "src/toy/m1.py").write_text("")
    (tmp_path / "tests/test_m2.py").unlink()
    path = tmp_path / "tests/test_m3.py"
    path.write_text(path.read_text().replace("from toy.m3 import step", "step = abs"))
    project.cover(4, test="assert step(3.0, 0.5, 0.25, 2.0) == 7")
    project.cover(5, test='pytest.skip("not today")')
    found = project.status()
    assert [one.level for one in found] == [0, 1, 1, 2, 2]
    assert found[2].why == "no test imports its code"
    assert "failed" in found[3].why
    assert "skipped" in found[4].why


def test_what_is_known_counts_until_something_changes(tmp_path: Path) -> None:
    project = Project(tmp_path, [RIGHT, RIGHT])
    assert [one.level for one in project.status(run=False)] == [2, 2]
    assert [one.level for one in project.status()] == [5, 5]
    assert [one.level for one in project.status(run=False)] == [5, 5]
    project.implement(1, "-theta * grad + keep * weight")
    stale, same = project.status(run=False)
    assert (stale.level, stale.stale, same.level) == (2, True, 5)
    assert [one.level for one in project.status()] == [5, 5]
    project.notes.write_text(project.notes.read_text().replace("W = a W - b g", "W = a W + b g", 1))
    assert [one.level for one in project.status(run=False)] == [2, 5]


def test_a_damaged_file_of_evidence_is_found_anew(tmp_path: Path) -> None:
    project = Project(tmp_path, [RIGHT])
    (tmp_path / "evidence.json").write_text('{"version": 1, "equations": 3}')
    assert project.status()[0].level == 5


def test_a_mutant_that_never_ends_is_red(tmp_path: Path) -> None:
    project = Project(tmp_path, [RIGHT])
    (tmp_path / "src/toy/m1.py").write_text(
        textwrap.dedent("""
        from cupel.tags import implements


        @implements("toy.v1:eq1")
        def step(weight, keep, theta, grad):
            left = 3
            while left > 0:
                left = left - 1
            return keep * weight - theta * grad
        """)
    )
    (found,) = project.status()
    # left + 1 goes on for ever; left out altogether the loop is missed by nobody
    assert not any("sign of 1 flipped" in line for line in found.survived)
    assert found.survived


DECORATED = """
import functools

from cupel.tags import implements


def twice(function):
    @functools.wraps(function)
    def wrapped(*given):
        return function(*given)

    return wrapped


@implements("toy.v1:eq1")
@twice
def step(weight, keep, theta, grad):
    return keep * weight - theta * grad
"""
METHOD = """
from cupel.tags import implements


class Rule:
    @implements("toy.v1:eq1")
    def __call__(self, weight, keep, theta, grad):
        return keep * weight - theta * grad


step = Rule()
"""
WHOLE = METHOD.replace("class Rule", '@implements("toy.v1:eq1")\nclass Rule')
BUILT = """
from cupel.tags import implements


@implements("toy.v1:eq1")
def made(keep, theta):
    return lambda weight, grad: keep * weight - theta * grad


TABLE = made(0.5, 0.25), made(0.8, 0.3)


def step(weight, keep, theta, grad):
    return TABLE[keep == 0.8](weight, grad)
"""


@pytest.mark.parametrize("text", [DECORATED, METHOD, WHOLE], ids=["decorated", "method", "class"])
def test_wrong_versions_of_any_kind_of_code_are_seen(tmp_path: Path, text: str) -> None:
    project = Project(tmp_path, [RIGHT])
    (tmp_path / "src/toy/m1.py").write_text(text)
    (found,) = project.status()
    assert (found.level, found.survived) == (5, ())
    assert found.mutants >= 6
    project.cover(1, test="assert step(0.0, 0.5, 0.0, 0.0) == 0.0")
    (found,) = project.status()
    assert found.level == 4
    assert found.survived


def test_what_was_made_at_import_is_never_taken_for_verified(tmp_path: Path) -> None:
    """Its wrong versions come too late to change anything, so they pass."""
    project = Project(tmp_path, [RIGHT])
    (tmp_path / "src/toy/m1.py").write_text(BUILT)
    (found,) = project.status()
    assert found.level == 4
    assert found.survived


LOOP = """
from cupel.tags import implements


@implements("toy.v1:eq1", "toy.v1:eq2")
def step(weight, keep, theta, grad):
    left = 3 if weight > 0 else 0
    while left > 0:
        left = left - 1
    return keep * weight - theta * grad
"""


def test_what_hangs_is_red_for_the_equations_of_the_test_that_hung_alone(tmp_path: Path) -> None:
    """Equation 2's test passes the loop by, so a loop without an end tells it nothing."""
    project = Project(tmp_path, [RIGHT, RIGHT])
    for number in (1, 2):
        (tmp_path / f"src/toy/m{number}.py").write_text(LOOP if number == 1 else "")
    path = tmp_path / "tests/test_m2.py"
    text = path.read_text().replace("toy.m2", "toy.m1")
    path.write_text(text.replace(VALUE, "assert step(-2.5, 0.8, 0.3, -1.0) == -1.7"))
    one, two = project.status()
    endless = "sign of 1 flipped"  # left = left + 1
    assert any(endless in line for line in two.survived)
    assert not any(endless in line for line in one.survived)
    assert not any("theta * grad" in line for line in two.survived)


def test_only_what_is_asked_for_is_run(tmp_path: Path) -> None:
    project = Project(tmp_path, [RIGHT, RIGHT])
    (only,) = project.status(only=frozenset({"toy.v1:eq2"}))
    assert (only.equation.id, only.level) == ("toy.v1:eq2", 5)
    assert [one.level for one in project.status(run=False)] == [2, 5]


def command(*arguments: str) -> object:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code or 0


def test_the_command_prints_json_and_a_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = Project(tmp_path, [RIGHT])
    places = ["--code", str(tmp_path / "src"), "--tests", str(tmp_path / "tests")]
    assert command("notes", "status", str(project.notes), *places, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    (only,) = told["equations"]
    assert (only["id"], only["level"]) == ("toy.v1:eq1", 5)
    assert command("notes", "status", str(project.notes), *places, "--no-run") == 0
    said = capsys.readouterr().out
    assert "toy.v1: 1 of 1 main equations at level 5" in said


def test_mutants_that_pass_are_listed_with_their_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = Project(tmp_path, [RIGHT], test="assert step(3.0, 0.5, 0.0, 2.0) == 1.5")
    places = ["--code", str(tmp_path / "src"), "--tests", str(tmp_path / "tests")]
    assert command("notes", "status", str(project.notes), *places) == 0
    said = capsys.readouterr().out
    assert "toy.v1: 0 of 1 main equations at level 5, 1 at 4" in said
    assert "m1.py:6:12: sign of theta * grad flipped (toy.v1:eq1)" in said
    given = ["notes", "status", str(project.notes), *places, "--only"]
    assert command(*given, "toy.v1:eq1", "--no-run") == 0
    assert command(*given, "toy.v1:eq7") == 2
    assert "no equation is called 'toy.v1:eq7'" in capsys.readouterr().err


def test_tests_that_cannot_run_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = Project(tmp_path, [RIGHT])
    (tmp_path / "tests" / "conftest.py").write_text("import nothing_of_that_name\n")
    places = ["--code", str(tmp_path / "src"), "--tests", str(tmp_path / "tests")]
    assert command("notes", "status", str(project.notes), *places) == 1
    assert "nothing_of_that_name" in capsys.readouterr().err
