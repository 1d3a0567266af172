"""Source code by symbol, read from the installed package through `ast`; nothing is imported.

A run's `model.json` holds the SHA-256 of each module class's source as it was. An excerpt whose
source has another hash is shown with a word that the code has changed since.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A class or function: its source, its file within the package, its first line."""

    symbol: str
    code: str
    file: str
    line: int

    @property
    def sha256(self) -> str:
        """Of the source, as `cupel.record.model` takes it."""
        return hashlib.sha256(self.code.encode()).hexdigest()


def excerpt(symbol: str) -> Excerpt | None:
    """The source of `package.module:Object`; None where there is no such source."""
    module, _, name = symbol.partition(":")
    path = source_file(module)
    if path is None or not name:
        return None
    try:
        text = path.read_text(encoding="utf-8")
        node = _find(ast.parse(text), name.split("."))
    except (OSError, SyntaxError, ValueError):
        return None
    if node is None:
        return None
    first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
    lines = text.splitlines(keepends=True)[first - 1 : node.end_lineno]
    return Excerpt(symbol, "".join(lines), f"{module.replace('.', '/')}.py", first)


def source_file(module: str) -> Path | None:
    """Where a module's source lies. Only the top package is looked up, and none is run."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin else None
    for place in spec.submodule_search_locations or ():
        path = Path(place).joinpath(*rest)
        for found in (path.with_suffix(".py"), path / "__init__.py"):
            if found.is_file():
                return found
    return None


_Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _find(tree: ast.AST, names: list[str]) -> _Definition | None:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, _Definition) and node.name == names[0]:
            return node if len(names) == 1 else _find(node, names[1:])
    return None
