"""Excerpts are the source that a run recorded, or the report says that it has changed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cupel.models.gpt.model import GPT
from cupel.models.gpt.settings import GPTModelSettings
from cupel.record.model import describe_model
from cupel.report.build import build_report
from cupel.report.excerpts import excerpt
from planted import WAVE, Arm, arm_config, around, plant


def described() -> dict[str, object]:
    return describe_model(GPT(GPTModelSettings(layers=1, heads=1, width=8, vocabulary=8)))


def test_an_excerpt_has_the_hash_that_a_run_records_of_the_same_class() -> None:
    sources = described()["sources"]
    assert isinstance(sources, dict)
    ours = {symbol: sha for symbol, sha in sources.items() if symbol.startswith("cupel.")}
    assert len(ours) >= 4
    for symbol, sha in ours.items():
        found = excerpt(symbol)
        assert found is not None
        assert found.sha256 == sha, symbol


@pytest.mark.parametrize(
    "symbol",
    ["nowhere.at.all:X", "cupel.report.excerpts:Nothing", "cupel.report", "sys:exit", "__main__:X"],
)
def test_what_has_no_source_gives_none(symbol: str) -> None:
    assert excerpt(symbol) is None


def test_reading_source_imports_nothing_of_its_module() -> None:
    code = (
        "import sys; from cupel.report.excerpts import excerpt; "
        "assert excerpt('cupel.models.gpt.model:GPT'); "
        "assert 'torch' not in sys.modules and 'cupel.models' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_code_that_changed_since_the_runs_is_said_to_have(tmp_path: Path) -> None:
    model = described()
    changed = {**model, "sources": {**model["sources"], "cupel.models.gpt.model:MLP": "0" * 64}}  # type: ignore[dict-item]
    other = {"sources": {}, "tensors": {"w": {"shape": [2, 3]}}, "modules": {}}
    arms = {
        "standard": Arm(around(2.0), model=changed),
        "wave": Arm(around(1.9), config=arm_config(WAVE), model=other),
    }
    build_report(plant(tmp_path / "runs", arms), tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "**The code of `MLP` has changed since the runs**" in text
    assert text.count("has changed since") == 1
    assert "class Attention(nn.Module):" in text
    assert "| `blocks.*.attention.qkv.weight` | (24 × 8) | – |" in text
