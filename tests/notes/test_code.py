"""Marks are found by reading: nothing is imported, and what cannot be read is told of."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cupel.errors import UsageError
from cupel.notes.code import evidence, python_files, unknown
from papers import papers

CODE = '''\
"""Raises when it is imported."""
from cupel import tags
from cupel.tags import implements
raise SystemExit

@implements("ridge.v1:eq1")
def loss(): ...

@tags.implements("ridge.v1:eq2", "ridge.v1:memory")
class Memory:
    @implements("ridge.v1:eq3")
    def read(self):
        return 1

if True:
    @implements("ridge.v1:alg1")
    async def run(): ...

@other("ridge.v1:eq4")
def not_marked(): ...
'''
TESTS = """\
import pytest
import torch as t
from ridge.memory import Memory
from ridge import reader

pytestmark = [pytest.mark.slow, pytest.mark.equation("ridge.v1:alg1", kind="causal")]

@pytest.mark.equation("ridge.v1:eq1", "ridge.v1:eq2", kind="value")
@pytest.mark.parametrize("x", [1])
def test_loss(x): ...

@pytest.mark.equation("ridge.v1:eq3", kind="oracle")
class TestRead:
    pytestmark = pytest.mark.equation("ridge.v1:eq4", kind="shape")
    def test_it(self): ...
    def helper(self): ...

def helper(): ...
"""


def found(folder: Path, code: str = "", tests: str = ""):  # type: ignore[no-untyped-def]
    (folder / "src").mkdir(exist_ok=True)
    (folder / "tests").mkdir(exist_ok=True)
    (folder / "src" / "a.py").write_text(code)
    (folder / "tests" / "test_a.py").write_text(tests)
    return evidence([folder / "src"], [folder / "tests"])


def test_code_is_found_by_its_marks_with_names_and_lines(tmp_path: Path) -> None:
    marks = found(tmp_path, CODE).marks
    assert [(m.id.partition(":")[2], m.name, m.line, m.end) for m in marks] == [
        ("alg1", "run", 17, 17),
        ("eq1", "loss", 7, 7),
        ("eq2", "Memory", 10, 13),
        ("eq3", "Memory.read", 12, 13),
        ("memory", "Memory", 10, 13),
    ]
    assert all(m.path.endswith("src/a.py") for m in marks)


def test_tests_are_found_with_their_kinds_ids_and_imports(tmp_path: Path) -> None:
    result = found(tmp_path, tests=TESTS)
    assert result.faults == ()
    assert [(t.id.partition(":")[2], t.kind, t.node.partition("::")[2]) for t in result.tests] == [
        ("alg1", "causal", "test_loss"),
        ("alg1", "causal", "TestRead::test_it"),
        ("eq1", "value", "test_loss"),
        ("eq2", "value", "test_loss"),
        ("eq3", "oracle", "TestRead::test_it"),
        ("eq4", "shape", "TestRead::test_it"),
    ]
    assert result.tests[0].imports == (
        "pytest", "ridge", "ridge.memory", "ridge.memory.Memory", "ridge.reader", "torch"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("code", "tests", "told"),
    [
        ("@implements('eq1')\ndef f(): ...", "", "a.py:1: mark: ''eq1'' is no id"),
        ("X = 'ridge.v1:eq1'\n@implements(X)\ndef f(): ...", "", "a.py:2: mark: 'X' is no id"),
        ("@implements()\ndef f(): ...", "", "a.py:1: mark: a mark without an id"),
        ("def f(:", "", "a.py:1: mark: no Python"),
        ("x = 1\0", "", "mark: "),
        ("", "@pytest.mark.equation('ridge.v1:eq1')\ndef test_a(): ...",
         "test_a.py:1: mark: a mark of a test says no kind"),
        ("", "@pytest.mark.equation('ridge.v1:eq1', kind='vaule')\ndef test_a(): ...",
         "has the kind 'vaule'"),
    ],
)  # fmt: skip
def test_marks_that_say_nothing_are_told_of(
    code: str, tests: str, told: str, tmp_path: Path
) -> None:
    (fault,) = found(tmp_path, code, tests).faults
    assert told in str(fault)


def test_marks_of_what_the_notes_do_not_have_are_told_of(tmp_path: Path) -> None:
    code = "@implements('ridge.v1:eq9', 'other.v1:eq1', 'ridge.v1:memory')\ndef f(): ..."
    (fault,) = unknown(found(tmp_path, code), papers())
    assert "a.py:2: mark: the notes of ridge.v1 have no eq9" in str(fault)


def test_hidden_and_built_folders_are_not_read(tmp_path: Path) -> None:
    for name in (".venv", "__pycache__", "build", "kept"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.py").write_text("")
    assert [p.parent.name for p in python_files([tmp_path])] == ["kept"]


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no"):
        evidence([tmp_path / "none"], [])


@given(st.binary(max_size=80))
@pytest.mark.slow
def test_any_bytes_give_marks_or_a_fault(content: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.py"
        path.write_bytes(content)
        assert evidence([path], [path]).marks == ()
