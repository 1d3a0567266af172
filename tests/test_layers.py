"""Imports point downwards: every import of ours is held against one table."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "cupel"

BASE = {
    "errors", "config", "settings", "compose", "origins", "wording", "registry", "randomness",
    "events", "names", "ranks", "beside", "tags", "testing",
}  # fmt: skip
ANYTHING = {"*"}
# room: the rooms that it may import besides level 0 and itself
ROOMS: dict[str, set[str]] = {
    "cli": ANYTHING,
    "dashboard": {"record", "analysis", "jobs", "studies", "report"},
    "report": {"record", "analysis", "studies", "figures"},
    "studies": {"record", "jobs", "analysis"},
    "jobs": {"record"},
    "workloads": {"data", "models", "train", "monitors", "figures", "record", "checkpoint"},
    "api": {"record", "checkpoint", "monitors"},
    "compat": {"api", "record"},
    "integrations": {"api", "record"},
    "train": {"checkpoint"},
    "monitors": {"numerics"},
    "models": set(),
    "checkpoint": {"record"},
    "figures": {"numerics"},
    "numerics": set(),
    "analysis": {"record", "numerics"},
    "record": set(),
    "data": set(),
    "notes": set(),
}
# Third-party packages that weigh, and the rooms in which they may be imported at module level.
HEAVY = {
    "torch": {"train", "monitors", "models", "checkpoint", "workloads/training.py",
              "workloads/cost.py", "api/random_states.py"},
    "safetensors": {"checkpoint"},
    "matplotlib": set(),
    "numpy": {"data", "figures", "models", "workloads/figures.py", "workloads/measured.py",
              "analysis", "numerics"},
    "pydantic": {"config.py", "compose.py", "wording.py", "origins.py", "*settings.py"},
    "ruamel": {"compose.py", "origins.py", "wording.py"},
    "tokenizers": set(),
    "scipy": set(),
    "polars": set(),
    "starlette": {"dashboard"},
    "uvicorn": set(),
    "websockets": set(),
    "statsmodels": set(),
    "pygments": set(),
    "latex2mathml": set(),
}  # fmt: skip


def room_of(module: str) -> str:
    """`cupel.train.loop` → `train`; level 0 → `base`."""
    parts = module.split(".")
    name = parts[1] if len(parts) > 1 else ""
    return "base" if not name or name in BASE or name == "__main__" else name


def imports(path: Path, *, top_level: bool) -> Iterator[tuple[int, str]]:
    """Line and module of each import; with `top_level`, only of those that run on import."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in _walk(tree, top_level=top_level):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"


def _walk(node: ast.AST, *, top_level: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        yield child
        if top_level and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if top_level and isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield from _walk(child, top_level=top_level)


def source_files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def wrong_imports(path: Path, place: str) -> list[str]:
    """Broken rules of a file that stands at `place` in the package."""
    room = place.split("/")[0] if "/" in place else "base"
    if place in ("__init__.py", "__main__.py"):
        return []  # the face: hands on names, lazily
    allowed = BASE if room in ("base", "testing") else ROOMS.get(room)
    if allowed is None:
        return [f"{place}: room '{room}' has no row in the table"]
    found = []
    for line, module in imports(path, top_level=False):
        target = room_of(module)
        ours = module.split(".")[0] == "cupel"
        if ours and target not in ("base", room) and target not in allowed and "*" not in allowed:
            found.append(
                f"{place}:{line}: '{room}' imports '{module}'; it may import level 0"
                f"{''.join(f', {name}' for name in sorted(allowed - BASE))}"
            )
    return found


def heavy_imports(path: Path, place: str) -> list[str]:
    found = []
    for line, module in imports(path, top_level=True):
        package = module.split(".")[0]
        homes = HEAVY.get(package)
        if homes is not None and not _at_home(place, homes):
            found.append(f"{place}:{line}: imports {package} when it is imported itself")
    return found


def _at_home(place: str, homes: set[str]) -> bool:
    is_settings = place.endswith("settings.py")
    if is_settings:
        return "*settings.py" in homes
    return place in homes or place.split("/")[0] in homes


@pytest.mark.parametrize("path", source_files(), ids=lambda p: str(p.relative_to(PACKAGE)))
@pytest.mark.slow
def test_imports_point_downwards(path: Path) -> None:
    assert not wrong_imports(path, path.relative_to(PACKAGE).as_posix())


@pytest.mark.parametrize("path", source_files(), ids=lambda p: str(p.relative_to(PACKAGE)))
@pytest.mark.slow
def test_heavy_packages_are_imported_only_where_they_live(path: Path) -> None:
    assert not heavy_imports(path, path.relative_to(PACKAGE).as_posix())


def test_a_broken_rule_is_named_with_file_line_and_rule(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("import os\n\ndef f():\n    from cupel.train.loop import Loop\n")
    (line,) = wrong_imports(bad, "record/bad.py")
    assert line.startswith("record/bad.py:4: 'record' imports 'cupel.train.loop.Loop'")


def test_a_heavy_import_is_found_at_the_top_and_allowed_in_a_function(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("import torch\n\ndef f():\n    import numpy\n")
    assert heavy_imports(bad, "cli/bad.py") == [
        "cli/bad.py:1: imports torch when it is imported itself"
    ]


def test_package_inits_are_empty() -> None:
    faces = (PACKAGE, PACKAGE / "compat")
    inits = [p for p in PACKAGE.rglob("__init__.py") if p.parent not in faces]
    assert not [str(p) for p in inits if p.read_text().strip()]
