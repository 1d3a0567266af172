"""The README keeps its word: its file tree is the real one, its commands exist."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
# Explained as a whole in the tree, not file by file.
WHOLE = ("tests/", "docs/", "recipes/model/", "web/src/", "web/test/")
FACE = "src/cupel/__init__.py"
UNLISTED = {".gitignore", "src/cupel/py.typed"}


def tree() -> dict[str, str]:
    """Each path of the README's tree and what is said about it."""
    (block,) = re.findall(r"```tree\n(.*?)```", README, flags=re.S)
    found: dict[str, str] = {}
    folders: list[str] = []
    for line in block.splitlines():
        indent = (len(line) - len(line.lstrip())) // 2
        name, _, about = line.strip().partition(" ")
        del folders[indent:]
        path = "".join(folders) + name
        if name.endswith("/"):
            folders.append(name)
        found[path] = about.strip()
    return found


def tracked() -> set[str]:
    """The files of the project, by git, or by looking where there is no git (an sdist)."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    paths = listed or [str(p.relative_to(ROOT)) for p in ROOT.rglob("*") if p.is_file()]
    return {p for p in paths if (ROOT / p).exists() and not p.startswith((*WHOLE, "runs/"))}


def test_the_file_tree_lists_every_file_and_no_other() -> None:
    files = {p for p in tracked() if p == FACE or not p.endswith("__init__.py")}
    listed = {path for path in tree() if not path.endswith("/")}
    assert sorted(files - UNLISTED - listed) == [], "missing in the README's tree"
    assert sorted(listed - files) == [], "in the README's tree, but not there"


def test_every_file_in_the_tree_has_its_half_line() -> None:
    assert not [path for path, about in tree().items() if not about and not path.endswith("/")]
    assert not [path for path, about in tree().items() if len(about) > 80]


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M)
    for command in re.findall(r"^make ([a-z-]+)", README, flags=re.M):
        assert command in targets
    assert {"quickstart", "test"} <= set(re.findall(r"^make ([a-z-]+)", README, flags=re.M))


def test_make_help_explains_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, flags=re.M)
    command = ["make", "--no-print-directory", "help"]  # quiet also below another make
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    assert {line.split()[0] for line in shown.splitlines()} == set(phony.split())
