"""The pages tell the truth: their code runs, and what they name exists.

Of the pages in docs/, each in a folder of its own and in order: a block whose first line is a
comment with a file's name is written to that file; any other ```python block is run as a script,
and every ```bash block as a shell script. Other blocks are only looked through for commands.
"""

from __future__ import annotations

import ast
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FILE = re.compile(r"# ([\w/.-]+\.(?:py|yaml|toml))\n")


def blocks(page: Path) -> list[tuple[str, str]]:
    """Kind and text of every fenced block."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def runnable() -> Iterator[object]:
    """The pages in docs/ that have code to run; those that start training are slow."""
    for page in PAGES:
        kinds = {kind for kind, _ in blocks(page)}
        if page.parent.name == "docs" and kinds & {"python", "bash"}:
            slow = "bash" in kinds or "import torch" in page.read_text(encoding="utf-8")
            yield pytest.param(page, id=named(page), marks=[pytest.mark.slow] if slow else [])


EACH = pytest.mark.parametrize("page", PAGES, ids=named)


@pytest.mark.parametrize("page", list(runnable()))
@pytest.mark.slow
def test_the_code_on_a_page_runs(page: Path, tmp_path: Path) -> None:
    surroundings = {
        **{name: value for name, value in os.environ.items() if not name.startswith("CUPEL_R")},
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    for number, (kind, text) in enumerate(blocks(page)):
        if file := FILE.match(text):
            path = tmp_path / file[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        elif kind in ("python", "bash"):
            command = ["bash", "-euc", text] if kind == "bash" else [sys.executable, "-c", text]
            done = subprocess.run(
                command, cwd=tmp_path, env=surroundings, capture_output=True, text=True
            )
            told = f"{named(page)}, block {number + 1}:\n{text}\n{done.stdout}{done.stderr}"
            assert done.returncode == 0, told


@EACH
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, heading = target.partition("#")
        found = page if not path else page.parent / path
        assert found.exists(), f"{named(page)} links to {target}"
        if heading:
            assert heading in anchors(found), f"{named(page)} links to {target}"


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings get: lower case, dashes for spaces, no punctuation."""
    prose = BLOCK.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@EACH
def test_commands_and_options_exist(page: Path) -> None:
    surface = golden_surface()
    for line in shown_commands(page):
        words = line.split()
        command = "cupel"
        for word in words:
            if f"{command} {word}" not in surface:
                break
            command = f"{command} {word}"
        group = any(known.startswith(f"{command} ") for known in surface)
        rest = [word for word in words[command.count(" ") :] if not word.startswith("-")]
        assert not (group and rest), f"{named(page)}: no command 'cupel {line}'"
        for option in re.findall(r"(?<!\S)(--?[a-z][\w-]*)", line):
            known = surface[command] | {"-h", "--help"}
            assert option in known, f"{named(page)}: '{command}' has no {option}"


def shown_commands(page: Path) -> Iterator[str]:
    """What follows `cupel ` in the page's code, Python aside, up to what a shell would cut off."""
    text = page.read_text(encoding="utf-8")
    code = [block for kind, block in blocks(page) if kind != "python"]
    code += re.findall(r"`([^`\n]+)`", BLOCK.sub("", text))
    for piece in code:
        for found in re.findall(
            r"(?<![\w./-])(?<!import )cupel +([^\n]+)", piece.replace("\\\n", " ")
        ):
            yield re.split(r"[`,]|\s+(?:#|\||>|&&|…)", found)[0]


def golden_surface() -> dict[str, set[str]]:
    """Each command with its options and arguments, from the frozen surface."""
    surface: dict[str, set[str]] = {}
    for line in (ROOT / "tests/golden/cli.txt").read_text().splitlines():
        if line.startswith(" "):
            surface[list(surface)[-1]] |= set(line.split())
        else:
            surface[line] = set()
    return surface


@EACH
def test_files_and_variables_and_targets_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for path in re.findall(r"`((?:src|tests|docs|examples)/[\w/.-]+)`", text):
        assert (ROOT / path).exists(), f"{named(page)} names {path}"
    source = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    for variable in re.findall(r"\bCUPEL_[A-Z]+\b", text):
        assert variable in source, f"{named(page)} names {variable}"
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for target in re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE):
        assert target in targets, f"{named(page)} names make {target}"


def test_the_rooms_are_those_that_the_layer_test_enforces() -> None:
    enforced = runpy.run_path(str(ROOT / "tests/test_layers.py"))["ROOMS"]
    rows = re.findall(
        r"^\| (\d) \| `(\w+)/` \|.*\| ([\w, ]+) \|$",
        (ROOT / "ARCHITECTURE.md").read_text(),
        re.MULTILINE,
    )
    wording = {"anything": {"*"}, "nothing": set()}
    told = {room: wording.get(rooms, set(rooms.split(", "))) for _, room, rooms in rows}
    assert told == enforced
    level = {room: int(number) for number, room, _ in rows}
    for room, others in told.items():
        for other in others & level.keys():
            assert level[other] < level[room], f"{room} is not above {other}"


@pytest.mark.slow
def test_the_error_lines_in_troubleshooting_are_those_of_the_code() -> None:
    lines = [text for path in (ROOT / "src").rglob("*.py") for text in messages(path)]
    page = (ROOT / "docs/troubleshooting.md").read_text()
    errors = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    assert len(errors) > 20
    for error in errors:
        pieces = [piece.strip() for piece in error.split("…") if piece.strip()]
        assert any(in_order(pieces, line) for line in lines), f"no code says: {error}"


def messages(path: Path) -> Iterator[str]:
    """Every string of a module, implicit joins joined; what is formatted in becomes `…`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            parts = node.values
            yield "".join(str(p.value) if isinstance(p, ast.Constant) else "…" for p in parts)


def in_order(pieces: list[str], line: str) -> bool:
    at = 0
    for piece in pieces:
        at = line.find(piece, at)
        if at < 0:
            return False
        at += len(piece)
    return True
