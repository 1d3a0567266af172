"""What is known of each equation, kept in a file with hashes of all that it depends on.

Known results count as long as nothing has changed: the notes of the equation, the marked code and
what it imports of the project, the files of its tests, Python and PyTorch. Else they are stale, and
are found anew. The file may be deleted at any time.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path

from cupel.notes.code import Mark
from cupel.notes.model import Equation
from cupel.notes.trial import name_of

VERSION = 2  # of what mutants there are, and how they are told
FILE = Path("notes") / ".evidence.json"


@dataclass(frozen=True, slots=True)
class Known:
    """What trials have shown of one equation."""

    key: str
    tests: dict[str, list[str]] = field(default_factory=dict)  # node id: [kind, outcome]
    mutants: int = 0
    survived: tuple[str, ...] = ()  # a line each: where, and what was done
    exempt: tuple[str, ...] = ()  # a line each: where, and the reason given


class Store:
    """The file of evidence."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, Known] = {}
        try:
            found = json.loads(path.read_bytes())
            if found["version"] == VERSION:
                self.known = {
                    identity: Known(
                        one["key"], one["tests"], one["mutants"], tuple(one["survived"]),
                        tuple(one["exempt"]),
                    )
                    for identity, one in found["equations"].items()
                }  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass  # derived: what cannot be read is found anew

    def write(self) -> None:
        """All of it at once, or nothing."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(
            {
                "version": VERSION,
                "equations": {name: asdict(one) for name, one in sorted(self.known.items())},
            },
            indent=1,
        )
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=".evidence-")
        try:
            with os.fdopen(handle, "w") as file:
                file.write(text + "\n")
            Path(name).replace(self.path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


class Keys:
    """Hashes of what an equation's evidence depends on; each file is read once."""

    def __init__(self, code: Sequence[Path]) -> None:
        self._files = {name_of(path): path for path in code}
        self._hashes: dict[Path, str] = {}
        self._needs: dict[Path, set[Path]] = {}
        self._around = _surroundings()

    def of(self, equation: Equation, marks: Iterable[Mark], tests: Iterable[Path]) -> str:
        """One hash of the equation's notes, its code with what that imports, its tests, Python."""
        told = [self._around, equation.id]
        blocks = (equation.latex, equation.form, equation.printed)
        told += ["" if block is None else block.text for block in blocks]
        told += [part for one in equation.symbols for part in (one.name, one.shape)]
        paths = set(tests)
        for mark in marks:
            told += [mark.path, mark.name]
            paths |= self.closure(Path(mark.path))
        told += [f"{path.as_posix()} {self._hash(path)}" for path in sorted(paths)]
        return hashlib.sha256("\0".join(told).encode()).hexdigest()

    def closure(self, path: Path) -> set[Path]:
        """A file and all files of the project that it imports, directly or not."""
        found: set[Path] = set()
        waiting = [path]
        while waiting:
            one = waiting.pop()
            if one not in found:
                found.add(one)
                waiting += self._imports(one) - found
        return found

    def names(self, paths: Iterable[Path]) -> list[str]:
        """The modules that files are."""
        wanted = {path.resolve() for path in paths}
        return [name for name, path in self._files.items() if path.resolve() in wanted]

    def imported(self, test: Path) -> set[Path]:
        """The files of the project that a test imports, directly or not."""
        return self.closure(test) - {test}

    def _imports(self, path: Path) -> set[Path]:
        if path not in self._needs:
            names: set[str] = set()
            try:
                tree = ast.parse(path.read_bytes())
            except (OSError, SyntaxError, ValueError):
                tree = ast.Module(body=[], type_ignores=[])
            for node in ast.walk(tree):
                if isinstance(node, ast.Import):
                    names |= {alias.name for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    names |= {f"{node.module}.{alias.name}" for alias in node.names}
                    names.add(node.module)
            self._needs[path] = {self._files[name] for name in names & self._files.keys()}
        return self._needs[path]

    def _hash(self, path: Path) -> str:
        if path not in self._hashes:
            self._hashes[path] = hashlib.sha256(path.read_bytes()).hexdigest()
        return self._hashes[path]


def _surroundings() -> str:
    """Versions with which the same code may give other numbers."""
    try:
        torch = metadata.version("torch")
    except metadata.PackageNotFoundError:
        torch = "none"
    return f"python {platform.python_version()}, torch {torch}, evidence {VERSION}"
