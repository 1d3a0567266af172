"""Plans of a small study, for tests of what a study can contain."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from cupel.errors import RecipeError
from cupel.studies.manifest import Manifest
from cupel.studies.spec import plan_study

HEAD = """\
workload: fakes:Regression
train: {steps: 40, optimizer: {kind: adamw, lr: 1e-3}}
study:
  question: Does dropout help?
"""
ARMS = "arms: {plain: {}, drop: {dropout: 0.5}}"


class Plans:
    """Plans a study of two arms and whatever lines its section holds besides."""

    def __init__(self, folder: Path) -> None:
        self.path, self.root = folder / "sine.yaml", folder / "runs"

    def __call__(
        self,
        study: str = "",
        *overrides: str,
        arms: str = ARMS,
        narrowed: dict[str, Any] | None = None,
    ) -> Manifest:
        """`narrowed` goes to `plan_study`, as it comes from the command line."""
        lines = "".join(f"  {line}\n" for line in f"{arms}\n{study}".splitlines())
        self.path.write_text(HEAD + lines)
        return plan_study(self.path, overrides, root=self.root, **(narrowed or {}))

    def refused(self, study: str = "", *overrides: str, **given: Any) -> list[str]:
        """What a plan is refused for, without file and line."""
        with pytest.raises(RecipeError) as error:
            self(study, *overrides, **given)
        return [
            re.sub(r"^(\S*sine.yaml:\d+|command line|default): ", "", one)
            for one in error.value.problems
        ]


def points_of(manifest: Manifest, arm: str = "plain") -> list[str]:
    """The points of one arm."""
    return [cell.point for cell in manifest.cells if cell.arm == arm]


def values_of(manifest: Manifest, name: str, arm: str = "plain") -> list[Any]:
    """A setting of one arm's cells, by its dotted name."""
    values: list[Any] = [cell.config for cell in manifest.cells if cell.arm == arm]
    for part in name.split("."):
        values = [value[part] for value in values]
    return values
