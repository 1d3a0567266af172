"""Names of files follow one rule, and lead nowhere else."""

from __future__ import annotations

import dataclasses

import pytest

from cupel.errors import UsageError
from cupel.notes.project import assembly_test, file_of_tests, project_of, tree
from papers import papers


def test_files_lie_where_the_notes_say() -> None:
    project = project_of(papers(), name=None, package=None)
    assert [source.path for source in project.sources] == [
        "src/lasso/shrink.py", "src/ridge/memory.py", "src/ridge/reader.py"
    ]  # fmt: skip
    assert project.package == "implementation"
    assert project.name == "lasso-ridge"
    assert project_of(papers()[1:], name="x", package=None).package == "ridge"


def test_a_package_takes_all_modules_and_keeps_equal_names_apart() -> None:
    lasso, ridge = papers()
    twin = dataclasses.replace(lasso.modules[0], path="src/lasso/memory.py")
    lasso = dataclasses.replace(lasso, modules=(twin,))
    project = project_of((lasso, ridge), name=None, package="both")
    assert [source.path for source in project.sources] == [
        "src/both/lasso_memory.py", "src/both/reader.py", "src/both/ridge_memory.py"
    ]  # fmt: skip
    assert project.sources[0].dotted == "both.lasso_memory"


def test_modules_of_two_papers_may_share_a_file() -> None:
    lasso, ridge = papers()
    twin = dataclasses.replace(lasso.modules[0], path="src/ridge/memory.py")
    project = project_of(
        (dataclasses.replace(lasso, modules=(twin,)), ridge), name=None, package=None
    )
    assert [m.id for m in project.sources[0].modules] == ["lasso.v2:shrink", "ridge.v1:memory"]


@pytest.mark.parametrize("path", ["/etc/x.py", "../x.py", "src/../../x.py", "src/x", "a\\b.py"])
def test_paths_that_lead_elsewhere_are_refused(path: str) -> None:
    (lasso, _) = papers()
    away = dataclasses.replace(lasso.modules[0], path=path)
    with pytest.raises(UsageError, match="no Python file within the project"):
        project_of((dataclasses.replace(lasso, modules=(away,)),), name=None, package=None)


def test_tests_are_named_by_paper_number_and_title() -> None:
    lasso, ridge = papers()
    assert file_of_tests(ridge.equations[1]) == "tests/equations/test_ridge_eq2_step_with_decay.py"
    assert file_of_tests(ridge.algorithms[0]) == "tests/equations/test_ridge_alg1_one_pass.py"
    assert assembly_test(lasso.modules[0]) == "tests/assembly/test_lasso_shrink.py"


def test_a_tree_names_each_folder_once() -> None:
    assert tree({"a/b/x.py": "one", "a/y.py": "two", "a/b/w.py": ""}).split("\n") == [
        "a/",
        "  b/",
        "    w.py",
        "    x.py  one",
        "  y.py    two",
    ]
