"""The model section: shapes that cannot be are refused, without torch."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from cupel.models.gpt.settings import GPTModelSettings


def test_heads_that_do_not_divide_the_width_are_refused_with_one_that_does():
    with pytest.raises(ValidationError, match=r"width 100 is not a multiple of heads 8; .*: 96"):
        GPTModelSettings(width=100, heads=8)
    with pytest.raises(ValidationError, match=r"width 3 is not a multiple of heads 8; .*: 8"):
        GPTModelSettings(width=3, heads=8)


@pytest.mark.parametrize(
    "wrong", [{"layers": 0}, {"block": 0}, {"dropout": 1.0}, {"vocabulary": 0}, {"depth": 4}]
)
def test_out_of_range_and_unknown_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        GPTModelSettings(**wrong)


@pytest.mark.slow
def test_settings_import_no_torch():
    code = "import sys, cupel.models.gpt.settings; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
