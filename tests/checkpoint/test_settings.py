"""The checkpoint section of a recipe."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from cupel.checkpoint.settings import CheckpointSettings


@pytest.mark.parametrize(
    "wrong",
    [
        *({"every": 0}, {"keep_last": 0}, {"keep_every": 0}, {"best": ""}, {"goal": "low"}),
        *({"evry": 1}, {"keep_best": 0}, {"when_busy": "drop"}, {"background": "perhaps"}),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CheckpointSettings(**wrong)


def test_every_field_is_described() -> None:
    assert all(field.description for field in CheckpointSettings.model_fields.values())


@pytest.mark.slow
def test_settings_do_not_import_torch() -> None:
    code = "import cupel.checkpoint.settings, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
