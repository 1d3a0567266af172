"""A skeleton is Python whose tests all fail, and it overwrites nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from cupel.errors import UsageError
from cupel.notes.load import load, load_sound
from cupel.notes.scaffold import scaffold
from papers import changed, notes_of, papers


def test_every_module_and_every_criterion_has_its_place(tmp_path: Path) -> None:
    made = scaffold(papers(), tmp_path)
    assert made.kept == ()
    assert set(made.written) == {
        "pyproject.toml",
        "src/lasso/__init__.py",
        "src/lasso/shrink.py",
        "src/ridge/__init__.py",
        "src/ridge/memory.py",
        "src/ridge/reader.py",
        "tests/equations/test_lasso_eq3_shrinking.py",
        "tests/equations/test_ridge_alg1_one_pass.py",
        "tests/equations/test_ridge_eq1_loss.py",
        "tests/equations/test_ridge_eq2_step_with_decay.py",
        "tests/equations/test_ridge_eq3_read.py",
        "tests/equations/test_ridge_eq4_all_steps_at_once.py",
    }
    for path in made.written:
        text = (tmp_path / path).read_text()
        if path.endswith(".py"):
            ast.parse(text)
            assert all(len(line) <= 100 for line in text.split("\n")), path
    marker = tomllib.loads((tmp_path / "pyproject.toml").read_text())["tool"]["pytest"]
    assert marker["ini_options"]["markers"][0].startswith("equation(")
    memory = (tmp_path / "src/ridge/memory.py").read_text()
    assert "ridge.v1:eq2: Step with decay" in memory
    assert "M_t = (1 - alpha_t) * M_{t-1}" in memory


@pytest.mark.slow
def test_every_test_of_a_skeleton_fails_until_it_is_written(tmp_path: Path) -> None:
    scaffold(papers(), tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert "9 failed" in done.stdout.splitlines()[-1], done.stdout
    assert "write me: by central differences" in done.stdout


@pytest.mark.slow
def test_a_skeleton_is_as_ruff_wants_it(tmp_path: Path) -> None:
    scaffold(load_sound([Path(__file__).parents[2] / "notes"]), tmp_path)
    for words in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *words, "."],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout


def test_what_exists_is_left_as_it_is_and_told_of(tmp_path: Path) -> None:
    own = tmp_path / "src/ridge/memory.py"
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    made = scaffold(papers(), tmp_path)
    assert made.kept == ("src/ridge/memory.py",)
    assert own.read_text() == "mine"
    again = scaffold(papers(), tmp_path)
    assert again.written == ()
    assert len(again.kept) == 12


def test_a_package_takes_every_module(tmp_path: Path) -> None:
    made = scaffold(papers(), tmp_path, package="small")
    assert {path for path in made.written if path.startswith("src")} == {
        "src/small/__init__.py", "src/small/shrink.py", "src/small/memory.py", "src/small/reader.py"
    }  # fmt: skip


def test_a_file_in_the_place_of_a_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "src").write_text("no folder")
    with pytest.raises(UsageError) as error:
        scaffold(papers(), tmp_path)
    assert "\n" not in str(error.value)


def test_any_words_become_python(tmp_path: Path) -> None:
    nasty = '"""quotes""" and \'these\' \\n \\ {braces} ' + "long words " * 20
    text = changed("- [value] of two steps by hand", f"- [value] {nasty}\n- [value] {nasty}")
    text = changed("### Equation 2: Step with decay", '### Equation 2: """ \\', text)
    notes = notes_of(text)
    assert not notes.serious, notes.faults
    made = scaffold(notes.papers, tmp_path)
    (path,) = (one for one in made.written if "ridge_eq2" in one)
    tree = ast.parse((tmp_path / path).read_text())
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert len(names) == len(set(names)) == 3
    told = {
        node.value for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and str(node.value).startswith("write me")
    }  # fmt: skip
    assert f"write me: {' '.join(nasty.split())}" in told


def test_notes_with_faults_are_refused_and_the_first_is_named(tmp_path: Path) -> None:
    text = changed("y_t = q_t @ M_t", "y_t = M_t @ q_t").replace(
        "| equations | 4 |", "|equations|7|"
    )
    (tmp_path / "bad.context.md").write_text(text)
    assert len(load([tmp_path]).serious) == 2
    with pytest.raises(UsageError) as error:
        load_sound([tmp_path])
    assert "bad.context.md:23: count:" in str(error.value)
    assert str(error.value).endswith("the first of 2 faults; see: cupel notes lint")
