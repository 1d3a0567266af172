"""An empty project made from notes: a file for each module, a failing test for each criterion.

What exists is never touched: of it, only its name is told.
"""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cupel.errors import UsageError
from cupel.notes import graph, ids
from cupel.notes.model import KINDS, Algorithm, Equation, Paper
from cupel.notes.project import Project, Source, file_of_tests, name_of_test, project_of

_LINE = 100  # of the skeleton's own settings
_WIDTH = 96


@dataclass(frozen=True, slots=True)
class Made:
    """What was written and what was left as it was, as paths within the folder."""

    written: tuple[str, ...]
    kept: tuple[str, ...]


def files_of(papers: Sequence[Paper], project: Project) -> dict[str, str]:
    """Every file of the skeleton, by its path."""
    entries = graph.entries(papers)
    found = {"pyproject.toml": _pyproject(project)}
    for source in project.sources:
        found[source.path] = _module(source, list(entries.values()))
        for folder in PurePosixPath(source.path).parents:
            if str(folder) not in (".", "src"):
                found.setdefault(f"{folder}/__init__.py", "")
    for entry in entries.values():
        if entry.tests and getattr(entry, "is_main", True):
            found[file_of_tests(entry)] = _tests(entry)
    return dict(sorted(found.items()))


def scaffold(papers: Sequence[Paper], into: Path, *, package: str | None = None) -> Made:
    """Write the skeleton into a folder. Raises UsageError where it cannot be written."""
    project = project_of(papers, name=into.resolve().name or None, package=package)
    written, kept = [], []
    for path, text in files_of(papers, project).items():
        target = into / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            # Exclusive: what somebody makes meanwhile is not overwritten either.
            with target.open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            if not os.path.lexists(target):  # a file stands where a folder should be
                raise UsageError(
                    f"cannot make the folder {target.parent}: a file is there"
                ) from None
            kept.append(path)
        except OSError as error:
            raise UsageError(f"cannot write {target}: {error.strerror}") from error
        else:
            written.append(path)
    return Made(tuple(written), tuple(kept))


# ---- files -------------------------------------------------------------------------------------


def _pyproject(project: Project) -> str:
    kinds = ", ".join(KINDS)
    name = ids.slug(project.name, most=60).replace("_", "-")
    return f'''[build-system]
requires = ["setuptools>=70"]
build-backend = "setuptools.build_meta"

[project]
name = "{name}"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["cupel", "numpy", "torch"]

[project.optional-dependencies]
dev = ["mypy", "pytest", "pytest-cov", "ruff"]

[tool.setuptools.packages.find]
where = ["src"]

[tool.ruff]
line-length = 100
src = ["src", "tests"]

[tool.pytest.ini_options]
testpaths = ["tests"]
addopts = ["--strict-markers", "--import-mode=importlib"]
markers = [
    "equation(*ids, kind): what a test covers of a paper; kinds are {kinds}",
]
'''


def _module(source: Source, entries: list[Equation | Algorithm]) -> str:
    own = {module.id for module in source.modules}
    parts = [entry for entry in entries if graph.module_of(entry) in own]
    about = "; ".join(m.description or m.name for m in source.modules)
    lines = [*_wrapped(f"{_sentence(about)}"), ""]
    if parts:
        lines += ["To be implemented here, each marked with `@implements` of `cupel.tags`:", ""]
    for entry in parts:
        role = "" if getattr(entry, "is_main", True) else " (context)"
        lines += [f"- {entry.id}: {entry.name}{role}"]
        if isinstance(entry, Equation) and entry.form:
            lines += [f"      {line}" for line in entry.form.text.split("\n") if line.strip()]
    return _docstring(lines) + "\n\nfrom __future__ import annotations\n"


def _tests(entry: Equation | Algorithm) -> str:
    lines = [*_wrapped(f"{entry.id}: {entry.name} ({entry.location})."), ""]
    if isinstance(entry, Equation) and entry.form:
        # Below a line that is not indented: else a formatter takes the indentation away.
        lines += ["The form:", ""]
        lines += [f"    {line}" for line in entry.form.text.split("\n") if line.strip()]
    text = _docstring(lines) + "\n\nfrom __future__ import annotations\n\nimport pytest\n"
    names: set[str] = set()
    for criterion in entry.tests:
        name = base = name_of_test(criterion)
        number = 2
        while name in names:
            name, number = f"{base}_{number}", number + 1
        names.add(name)
        text += (
            f'\n\n@pytest.mark.equation("{entry.id}", kind="{criterion.kind}")\n'
            f"def {name}() -> None:\n"
            f"{_failing(f'write me: {criterion.text}')}"
        )
    return text


def _failing(text: str) -> str:
    """The line that makes a test fail, as a formatter would break it."""
    whole = json.dumps(text, ensure_ascii=False)  # what JSON takes for a string, Python does too
    if len(whole) + 17 <= _LINE:
        return f"    pytest.fail({whole})\n"
    if len(whole) + 8 <= _LINE:
        return f"    pytest.fail(\n        {whole}\n    )\n"
    pieces = textwrap.wrap(text, 80, break_on_hyphens=False, break_long_words=False)
    lines = [f"{piece} " for piece in pieces[:-1]] + pieces[-1:]
    quoted = "\n".join(f"        {json.dumps(line, ensure_ascii=False)}" for line in lines)
    return f"    pytest.fail(\n{quoted}\n    )\n"


def _docstring(lines: list[str]) -> str:
    while lines and not lines[-1]:
        lines = lines[:-1]
    text = "\n".join(line.rstrip() for line in lines)
    text = text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    text = "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)
    if text.endswith('"'):
        text += " "
    end = "\n" if len(lines) > 1 else ""
    return f'"""{text}{end}"""'


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, break_on_hyphens=False) or [""]
