"""The files of an implementation: where modules, tests and configurations go, and their names.

`cupel notes plan`, `scaffold` and `equations` name files by these rules and no others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from cupel.errors import UsageError
from cupel.notes import ids
from cupel.notes.model import Algorithm, Criterion, Equation, Module, Paper

TESTS = "tests/equations"
_PACKAGE = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*")


@dataclass(frozen=True, slots=True)
class Source:
    """One file of the implementation, and the modules of notes that it holds."""

    path: str
    modules: tuple[Module, ...]

    @property
    def dotted(self) -> str:
        """How it is imported: `src/a/b.py` → `a.b`."""
        return ".".join(PurePosixPath(self.path.removeprefix("src/")).with_suffix("").parts)


@dataclass(frozen=True, slots=True)
class Project:
    """The files of an implementation of some notes."""

    name: str
    package: str
    sources: tuple[Source, ...]

    def source_of(self, module: str) -> Source | None:
        """The file of a module, by its id."""
        for source in self.sources:
            if any(one.id == module for one in source.modules):
                return source
        return None

    @property
    def folders(self) -> list[str]:
        """The folders of the sources, each once."""
        return sorted({str(PurePosixPath(source.path).parent) for source in self.sources})


def project_of(papers: Sequence[Paper], *, name: str | None, package: str | None) -> Project:
    """The project that implements some notes.

    With a package, every module is a file of `src/<package>/`; without one, paths are as the notes
    give them. Raises UsageError for names that cannot be used, and paths that lead elsewhere.
    """
    if package is not None and not _PACKAGE.fullmatch(package):
        raise UsageError(f"'{package}' cannot name a package; expected small letters, as my_memory")
    modules = [module for paper in papers for module in paper.modules]
    for module in modules:
        refuse_elsewhere(module)
    by_path: dict[str, list[Module]] = {}
    for path, module in _places(modules, package):
        by_path.setdefault(path, []).append(module)
    sources = tuple(Source(path, tuple(by_path[path])) for path in sorted(by_path))
    return Project(
        name or "-".join(dict.fromkeys(paper.paper_id for paper in papers)) or "notes",
        package or _package_of(sources) or "implementation",
        sources,
    )


def refuse_elsewhere(module: Module) -> None:
    """Refuse a path that is absolute, leads out of the project, or is no Python file."""
    path = PurePosixPath(module.path)
    if path.is_absolute() or ".." in path.parts or path.suffix != ".py" or "\\" in module.path:
        raise UsageError(
            f"{module.at}: the path '{module.path}' is no Python file within the project; "
            "expected one as src/model/memory.py"
        )


def _places(modules: Sequence[Module], package: str | None) -> Iterable[tuple[str, Module]]:
    if package is None:
        return [(module.path, module) for module in modules]
    folder = f"src/{package.replace('.', '/')}"
    origins: dict[str, set[str]] = {}
    for module in modules:
        origins.setdefault(PurePosixPath(module.path).name, set()).add(module.path)
    found = []
    for module in modules:
        file = PurePosixPath(module.path).name
        if len(origins[file]) > 1:  # equal names in two folders
            file = f"{_identifier(ids.paper_of(module.id))}_{file}"
        found.append((f"{folder}/{file}", module))
    return found


def _package_of(sources: Sequence[Source]) -> str:
    """The package that all sources lie in: of `src/a/b/c.py` it is `a.b`."""
    common: list[str] | None = None
    for source in sources:
        parts = source.dotted.split(".")[:-1]
        if common is None:
            common = parts
        while common != parts[: len(common)]:
            common.pop()
    return ".".join(common or ())


def file_of_tests(entry: Equation | Algorithm) -> str:
    """`tests/equations/test_titans_eq8_momentary_surprise.py`."""
    part = ids.split(entry.id)[1]
    paper = _identifier(ids.paper_of(entry.id))
    return f"{TESTS}/test_{paper}_{part}_{ids.slug(entry.name)}.py"


def name_of_test(criterion: Criterion) -> str:
    """`test_value_of_two_steps_by_hand`."""
    return f"test_{criterion.kind}_{ids.slug(criterion.text, most=50)}"


def assembly_test(module: Module) -> str:
    """The test of a whole model."""
    name = f"{_identifier(ids.paper_of(module.id))}_{_identifier(module.name)}"
    return f"tests/assembly/test_{name}.py"


def _identifier(text: str) -> str:
    return re.sub(r"\W", "_", text)


def tree(paths: Mapping[str, str]) -> str:
    """Files as a tree of folders, each with what is said of it."""
    lines: list[str] = []
    open_folders: tuple[str, ...] = ()
    width = max(
        (2 * (path.count("/")) + len(PurePosixPath(path).name) for path in paths), default=0
    )
    for path in sorted(
        paths, key=lambda one: [ids.order(part) for part in PurePosixPath(one).parts]
    ):
        *folders, file = PurePosixPath(path).parts
        for depth, folder in enumerate(folders):
            if tuple(folders[: depth + 1]) != open_folders[: depth + 1]:
                lines.append(f"{'  ' * depth}{folder}/")
        open_folders = tuple(folders)
        head = f"{'  ' * len(folders)}{file}"
        lines.append(f"{head:<{width}}  {paths[path]}".rstrip())
    return "\n".join(lines)
