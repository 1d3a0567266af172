"""`cupel notes` as typed: each command, its JSON, its files, and one line where it refuses."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from cupel.cli.main import main
from papers import LASSO, RIDGE, changed, written

BROKEN = changed("y_t = q_t @ M_t", "y_t = M_t @ q_t")


class Typed:
    """Types `cupel notes …` in this process, in a folder with notes/ of two papers."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys
        self.err = ""

    def __call__(self, *words: str, code: int = 0) -> str:
        with pytest.raises(SystemExit) as end:
            main(["notes", *words])
        told = self._capsys.readouterr()
        self.err = told.err
        assert (end.value.code or 0) == code, told.err
        return told.out

    def json(self, *words: str, code: int = 0) -> Any:
        return json.loads(self(*words, code=code))

    def refused(self, *words: str) -> str:
        assert self(*words, code=2) == ""
        (line,) = self.err.splitlines()
        return line.removeprefix("cupel: ")


@pytest.fixture
def typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Typed:
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "notes", ridge=RIDGE, lasso=LASSO)
    return Typed(tmp_path, capsys)


def test_sound_notes_are_never_passed_in_silence(typed: Typed) -> None:
    assert typed("lint") == "2 papers, 6 equations, 0 faults\n"
    assert typed("lint", "notes/ridge.context.md") == "1 paper, 4 equations, 0 faults\n"


def test_faults_are_grouped_by_file_and_the_exit_code_is_2(typed: Typed) -> None:
    written(typed.folder / "notes", ridge=BROKEN)
    lines = typed("lint", code=2).splitlines()
    assert lines == [
        "notes/ridge.context.md",
        "  notes/ridge.context.md:106: shape: 'M_t @ q_t' does not close: [d_k, d_v] @ [d_k]: "
        "d_v is not d_k",
        "2 papers, 6 equations, 1 fault",
    ]
    (fault,) = typed.json("lint", "--json", code=2)["faults"]
    assert (fault["rule"], fault["line"], fault["severity"]) == ("shape", 106, "error")


def test_warnings_are_counted_apart_and_refuse_nothing(typed: Typed) -> None:
    formless = changed("```form\ny_t = q_t @ M_t\n```\n\n", "")
    written(typed.folder / "notes", ridge=formless)
    out = typed("lint")
    assert "warning: form: Equation 3 has no form" in out
    assert out.endswith("2 papers, 6 equations, 0 faults, 1 warning\n")
    assert "# Implementation Plan" in typed("plan")


@pytest.mark.slow
def test_new_notes_are_written_once_and_lint_says_what_is_to_do(typed: Typed) -> None:
    out = typed("new", "elastic", "--title", "A: B", "--arxiv", "2501.00663")
    assert out.startswith("wrote notes/elastic.context.md\nNext: ")
    lines = typed("lint", "notes/elastic.context.md", code=2).splitlines()[1:-1]
    assert lines
    assert all(": todo: " in line for line in lines)
    assert "is there already" in typed.refused("new", "elastic")
    assert typed.json("new", "other", "--json") == {"path": "notes/other.context.md"}


@pytest.mark.slow
def test_every_format_of_a_graph_is_printed_or_written(typed: Typed) -> None:
    assert typed("graph").startswith("7 equations in 4 levels\n")
    assert typed("graph", "--of", "papers", "--format", "mermaid").startswith("graph TD\n")
    assert typed("graph", "--format", "dot").startswith("digraph equations {")
    assert typed.json("graph", "--json") == typed.json("graph", "--format", "json")
    told = typed("graph", "--of", "modules", "--format", "svg", "-o", "out/g.svg")
    assert told == "wrote out/g.svg\n"
    ET.parse(typed.folder / "out" / "g.svg")
    facts = typed.json("graph", "-o", "g.txt", "--json")
    assert facts == {
        "of": "equations", "format": "text", "nodes": 7, "levels": 4, "path": "g.txt"
    }  # fmt: skip
    assert "did you mean 'mermaid'?" in typed.refused("graph", "--format", "mermade")
    assert "no graph is called 'things'" in typed.refused("graph", "--of", "things")


def test_a_graph_of_notes_with_faults_is_drawn_and_says_so(typed: Typed) -> None:
    written(typed.folder / "notes", ridge=BROKEN)
    assert typed("graph").startswith("7 equations")
    assert "the notes have faults (1)" in typed.err


@pytest.mark.slow
def test_a_plan_is_printed_written_and_told_as_json(typed: Typed) -> None:
    text = typed("plan", "--date", "2026-11-22", "--name", "small")
    assert text.startswith("# Implementation Plan: small\n\n**Generated:** 2026-11-22")
    typed("plan", "--date", "2026-11-22", "--name", "small", "-o", "PLAN.md")
    assert (typed.folder / "PLAN.md").read_text() == text
    facts = typed.json("plan", "--intent", "validate", "--json")
    assert facts["criteria"] == 9
    assert facts["text"].startswith("# Implementation Plan")
    files = ["notes/ridge.context.md", "notes/lasso.context.md"]
    assert typed("plan", *files) == typed("plan", *files[::-1])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--intent", "everything"], "no intent is called 'everything'"),
        (["--environment", "tpu"], "no environment is called 'tpu'"),
        (["--date", "22.11.2026"], "is no day; expected one as 2026-11-22"),
        (["--date", "2026-02-30"], "is no day"),
        (["--component", "memory"], "--component names modules"),
        (["--intent", "component", "--component", "memry"], "did you mean 'memory'?"),
        (["--package", "No Package"], "cannot name a package"),
        (["none.md"], "there is no none.md"),
        (["-o", "notes"], "cannot write notes"),
    ],
)
@pytest.mark.slow
def test_what_cannot_be_planned_is_refused_in_one_line(
    typed: Typed, words: list[str], told: str
) -> None:
    assert told in typed.refused("plan", *words)


@pytest.mark.slow
def test_notes_with_faults_are_neither_planned_nor_scaffolded_nor_exported(typed: Typed) -> None:
    written(typed.folder / "notes", ridge=BROKEN)
    for words in (["plan"], ["equations"], ["scaffold", "--into", "x"], ["export"]):
        line = typed.refused(*words)
        assert line.startswith("notes/ridge.context.md:106: shape: ")
        assert line.endswith("; see: cupel notes lint")


def test_equations_are_linked_to_what_is_marked(typed: Typed) -> None:
    source = typed.folder / "src" / "memory.py"
    source.parent.mkdir()
    source.write_text(
        "from cupel.tags import implements\n\n\n"
        '@implements("ridge.v1:eq1", "ridge.v1:eq77")\ndef loss(): ...\n'
    )
    tests = typed.folder / "checks"
    tests.mkdir()
    (tests / "test_it.py").write_text(
        "import pytest\n\n\n"
        '@pytest.mark.equation("ridge.v1:eq1", kind="value")\ndef test_it(): ...\n'
    )
    out = typed("equations", "--tests", "checks", "-o", "docs/equations.md")
    assert out == "wrote docs/equations.md\n"
    assert "src/memory.py:5: mark: the notes of ridge.v1 have no eq77" in typed.err
    text = (typed.folder / "docs" / "equations.md").read_text()
    assert "[`loss`](../src/memory.py#L5)" in text
    assert "[`test_it`](../checks/test_it.py#L5) (value)" in text
    found = typed.json("equations", "--tests", "checks", "--json")
    (loss,) = (one for one in found["equations"] if one["id"] == "ridge.v1:eq1")
    assert loss["code"] == ["src/memory.py:5"]
    assert loss["tests"] == [{"test": "checks/test_it.py::test_it", "kind": "value"}]
    assert "there is no nowhere" in typed.refused("equations", "--code", "nowhere")


def test_a_skeleton_is_written_once(typed: Typed) -> None:
    lines = typed("scaffold", "--into", "made").splitlines()
    assert lines[-1] == "12 files written into made, 0 left as they were"
    facts = typed.json("scaffold", "--into", "made", "--json")
    assert facts["written"] == []
    assert len(facts["kept"]) == 12
    assert "--into" in typed.refused("scaffold")


@pytest.mark.slow
def test_a_diff_tells_what_changed_and_what_that_reaches(typed: Typed) -> None:
    Path("new.md").write_text(changed("y_t = q_t @ M_t", "y_t = 1 * (q_t @ M_t)"))
    lines = typed("diff", "notes/ridge.context.md", "new.md").splitlines()
    assert lines == [
        "id   what  name",
        "eq3  form  Read",
        "",
        "affected: alg1, eq3",
        "  module reader  src/ridge/reader.py",
        "  test   tests/equations/test_ridge_alg1_one_pass.py",
        "  test   tests/equations/test_ridge_eq3_read.py",
    ]
    assert typed.json("diff", "notes/ridge.context.md", "new.md", "--json")["affected"] == [
        "alg1", "eq3"
    ]  # fmt: skip
    assert typed("diff", "new.md", "new.md") == "ridge.v1 and ridge.v1 say the same\n"
    assert "give two notes of one paper" in typed.refused(
        "diff", "new.md", "notes/lasso.context.md"
    )


@pytest.mark.slow
def test_notes_are_exported_as_data_and_as_a_rubric(typed: Typed) -> None:
    assert len(typed.json("export")["papers"]) == 2
    assert typed.json("export", "--format", "rubric")["id"] == "notes"
    facts = typed.json("export", "-o", "all.json", "--json")
    assert facts == {"format": "json", "papers": ["lasso.v2", "ridge.v1"], "path": "all.json"}
    assert json.loads(Path("all.json").read_text())["schema"] == 1
    assert "no format is called 'yaml'" in typed.refused("export", "--format", "yaml")


def test_where_there_are_no_notes_it_says_how_to_begin(typed: Typed) -> None:
    for path in (typed.folder / "notes").iterdir():
        path.unlink()
    assert "begin with: cupel notes new NAME" in typed.refused("lint")
