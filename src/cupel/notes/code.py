"""Which code carries out what, and which tests cover it: found by reading, nothing is imported.

Code is marked with `@implements("titans.v1:eq14")` (`cupel.tags`), tests with
`@pytest.mark.equation("titans.v1:eq14", kind="value")`: on a function, on a class for all of its
tests, or as `pytestmark` for all of a file. Ids must be written out as strings.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cupel.errors import UsageError, did_you_mean
from cupel.notes import ids
from cupel.notes.faults import Fault, Place, in_order
from cupel.notes.model import KINDS, Paper
from cupel.tags import is_id

_SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages", "build", "dist"})
_DEEPEST = 60  # classes and functions within each other


@dataclass(frozen=True, slots=True)
class Mark:
    """A function or class that says it implements an id; `name` as in `Memory.forward`."""

    id: str
    path: str
    line: int
    end: int
    name: str


@dataclass(frozen=True, slots=True)
class TestMark:
    """A test that says which id it covers and how; `imports` are its file's, by full name."""

    __test__: ClassVar[bool] = False  # nothing for pytest to collect

    id: str
    kind: str
    path: str
    line: int
    node: str
    imports: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Evidence:
    """All marks of some folders, by id, and what is wrong with them."""

    marks: tuple[Mark, ...]
    tests: tuple[TestMark, ...]
    faults: tuple[Fault, ...]


def evidence(code: Sequence[Path], tests: Sequence[Path]) -> Evidence:
    """Read the Python files of folders of code and of tests.

    Raises UsageError for what is not there. A file that is no Python is a fault.
    """
    marks: list[Mark] = []
    found: list[TestMark] = []
    faults: list[Fault] = []
    for path in python_files(code):
        file = _File(path, faults)
        marks += file.marks()
    for path in python_files(tests):
        file = _File(path, faults)
        found += file.tests()
    marks.sort(key=lambda one: (ids.order(one.id), one.path, one.line))
    found.sort(key=lambda one: (ids.order(one.id), one.path, one.line, one.kind))
    return Evidence(tuple(marks), tuple(found), tuple(in_order(faults)))


def unknown(found: Evidence, papers: Sequence[Paper]) -> list[Fault]:
    """Marks of what their paper's notes do not have; of papers that are given, and no others."""
    known = {identity for paper in papers for identity in paper.ids}
    given = {paper.id for paper in papers}
    every: list[Mark | TestMark] = [*found.marks, *found.tests]
    faults = []
    for mark in every:
        paper, part = ids.split(mark.id)
        if paper in given and mark.id not in known:
            near = did_you_mean(mark.id, sorted(known)).removeprefix("; ")
            told = f"the notes of {paper} have no {part}"
            faults.append(Fault("mark", Place(mark.path, mark.line), told, near))
    return in_order(faults)


def python_files(paths: Sequence[Path]) -> list[Path]:
    """The Python files below some folders, hidden and built ones left out."""
    found: set[Path] = set()
    for path in paths:
        if path.is_dir():
            found |= {
                one
                for one in path.rglob("*.py")
                if not any(
                    part in _SKIPPED or part.startswith(".") for part in one.relative_to(path).parts
                )
            }
        elif path.is_file():
            found.add(path)
        else:
            raise UsageError(f"there is no {path}; name a folder or a file of Python")
    return sorted(found, key=lambda one: one.as_posix())


_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class _File:
    """One file's marks; what cannot be read goes into `faults`."""

    def __init__(self, path: Path, faults: list[Fault]) -> None:
        self._path, self._faults = path.as_posix(), faults
        self._source = b""
        self._tree = self._parsed(path)

    def marks(self) -> Iterator[Mark]:
        """What `@implements` says."""
        if b"implements" not in self._source:
            return  # most files: to look through every node takes as long as to parse
        for node, outer in _definitions(self._tree, ()):
            for call in node.decorator_list:
                if isinstance(call, ast.Call) and _last(call.func) == "implements":
                    for identity in self._ids(call):
                        name = ".".join((*outer, node.name))
                        end = node.end_lineno or node.lineno
                        yield Mark(identity, self._path, node.lineno, end, name)

    def tests(self) -> Iterator[TestMark]:
        """What `@pytest.mark.equation` says of each test."""
        if b"equation" not in self._source:
            return
        whole = [call for value in _pytestmarks(self._tree) for call in _equation_calls([value])]
        imports = tuple(sorted(set(_imports(self._tree))))
        yield from self._tests_in(self._tree, (), whole, imports)

    def _tests_in(
        self,
        within: ast.AST,
        outer: tuple[str, ...],
        above: list[ast.Call],
        imports: tuple[str, ...],
    ) -> Iterator[TestMark]:
        for node in getattr(within, "body", ()):
            if not isinstance(node, _Definition):
                continue
            calls = [*above, *_equation_calls(node.decorator_list)]
            if isinstance(node, ast.ClassDef):
                if len(outer) < _DEEPEST:
                    inner = [c for value in _pytestmarks(node) for c in _equation_calls([value])]
                    yield from self._tests_in(node, (*outer, node.name), [*calls, *inner], imports)
            elif node.name.startswith("test"):
                name = "::".join((self._path, *outer, node.name))
                for call in calls:
                    kind = self._kind(call)
                    for identity in self._ids(call):
                        yield TestMark(identity, kind, self._path, node.lineno, name, imports)

    def _ids(self, call: ast.Call) -> list[str]:
        found = []
        for argument in call.args:
            value = argument.value if isinstance(argument, ast.Constant) else None
            if isinstance(value, str) and is_id(value):
                found.append(value)
            else:
                self._fault(
                    argument.lineno, f"'{ast.unparse(argument)[:60]}' is no id of a paper's part",
                    'write it out, as "titans.v1:eq14"',
                )  # fmt: skip
        if not call.args:
            self._fault(call.lineno, "a mark without an id", 'type "titans.v1:eq14" in it')
        return found

    def _kind(self, call: ast.Call) -> str:
        value = next((k.value for k in call.keywords if k.arg == "kind"), None)
        kind = value.value if isinstance(value, ast.Constant) else None
        if isinstance(kind, str) and kind in KINDS:
            return kind
        told = "says no kind" if value is None else f"has the kind {ast.unparse(value)[:40]}"
        self._fault(
            call.lineno, f"a mark of a test {told}", f'type kind="…", one of {", ".join(KINDS)}'
        )
        return ""

    def _parsed(self, path: Path) -> ast.Module:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # an escape in somebody's string is not ours
                self._source = path.read_bytes()
                return ast.parse(self._source, filename=self._path)
        except SyntaxError as error:
            self._fault(error.lineno or 1, f"no Python: {error.msg}", "correct it, or leave it out")
        except (OSError, ValueError, RecursionError, MemoryError) as error:
            self._fault(1, f"cannot be read: {str(error).splitlines()[0][:80]}")
        return ast.Module(body=[], type_ignores=[])

    def _fault(self, line: int, text: str, hint: str = "") -> None:
        self._faults.append(Fault("mark", Place(self._path, line), text, hint))


def _definitions(
    within: ast.AST, outer: tuple[str, ...]
) -> Iterator[tuple[_Definition, tuple[str, ...]]]:
    for node in ast.iter_child_nodes(within):
        if isinstance(node, _Definition):
            yield node, outer
            if len(outer) < _DEEPEST:
                yield from _definitions(node, (*outer, node.name))
        elif isinstance(node, ast.stmt):
            yield from _definitions(node, outer)


def _last(node: ast.expr) -> str:
    """`tags.implements` → `implements`."""
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _equation_calls(values: Iterable[ast.expr]) -> list[ast.Call]:
    """The calls of `pytest.mark.equation` in decorators, those of single parameters among them."""
    return [
        node
        for value in values
        for node in ast.walk(value)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "equation"
        and _last(node.func.value) == "mark"
    ]


def _pytestmarks(within: ast.Module | ast.ClassDef) -> list[ast.expr]:
    found: list[ast.expr] = []
    for node in within.body:
        if isinstance(node, ast.Assign) and any(_last(t) == "pytestmark" for t in node.targets):
            value = node.value
            found += value.elts if isinstance(value, ast.List | ast.Tuple) else [value]
    return found


def _imports(tree: ast.Module) -> Iterator[str]:
    """Every module that a file may import, `from a import b` as both `a` and `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
