"""`cupel study compare` prints intervals, seeds, verdicts, and what is missing or unequal."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from cupel.cli.compare import compare, print_comparison
from cupel.errors import UnknownName
from planted import RGD, WAVE, Arm, arm_config, around, plant


def three_arms() -> dict[str, Arm]:
    return {
        "standard": Arm(around(2.0)),
        "wave": Arm(around(1.8), config=arm_config(WAVE), parameters=12_000, cpu_s=21.0),
        "wave-rgd": Arm({1: 1.7, 2: 2.2}, config=arm_config(WAVE, RGD), diverged=[3]),
    }


def printed(root: Path, capsys: pytest.CaptureFixture[str], columns: int = 60) -> str:
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "COLUMNS", str(columns))
        compare("planted", root=str(root))
    return capsys.readouterr().out


@pytest.mark.slow
def test_each_card_begins_with_the_interval_and_ends_with_the_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(tmp_path, three_arms())
    text = printed(tmp_path, capsys, 100)
    wave = text[text.index("wave − standard") : text.index("wave-rgd − standard")].splitlines()
    assert re.fullmatch(
        r"  mean difference -0\.\d{4} \[-0\.\d{4}, -0\.\d{4}\], 95 % t interval", wave[1]
    )
    assert wave[2].count("●") == 3
    assert "→ better: the interval excludes 0" in text
    assert "→ undecided: the interval includes 0" in text
    assert "Is the wave model better?" in text


@pytest.mark.slow
def test_what_is_missing_unequal_or_failed_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(tmp_path, three_arms())
    text = printed(tmp_path, capsys, 100)
    assert "n = 2 pairs; diverged in wave-rgd: 3" in text
    assert "8 of 9 runs are finished" in text
    assert "wave: parameters 12,000, not 10,000" in text
    assert "wave-rgd: optimizer rgd, not adamw" in text
    assert "planted-wave-rgd-s3-00000000: failed: loss is nan at step 12" in text


@pytest.mark.parametrize("columns", [50, 60, 80, 100])
@pytest.mark.slow
def test_no_line_is_wider_than_the_terminal_and_every_arm_has_its_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], columns: int
) -> None:
    plant(tmp_path, three_arms())
    text = printed(tmp_path, capsys, columns)
    assert max(map(len, text.splitlines())) <= columns
    for value in ("2.0076 ± 0.0030", "1.8044 ± 0.0056", "1.9500 ± 0.3536"):
        assert value in text


def test_one_run_an_arm_gets_a_difference_and_no_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(tmp_path, {"standard": Arm({1: 2.0}), "wave": Arm({1: 1.9})}, seeds=(1,))
    text = printed(tmp_path, capsys, 80)
    assert "the one difference is -0.1000, without an interval" in text
    assert "→ no verdict: one run an arm: nothing tells chance from effect" in text


@pytest.mark.slow
def test_what_was_not_recorded_is_said_to_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arms = {name: Arm(around(2.0), flops=None) for name in ("standard", "wave")}
    plant(tmp_path, arms)
    (row,) = [line for line in printed(tmp_path, capsys).splitlines() if "FLOPs" in line]
    assert row.split(maxsplit=3)[3].split("  ")[-1].strip() == "not recorded"


@pytest.mark.slow
def test_json_holds_every_card_and_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plant(tmp_path, three_arms())
    capsys.readouterr()
    compare("planted", root=str(tmp_path), json=True)
    facts = json.loads(capsys.readouterr().out)
    assert [card["verdict"] for card in facts["cards"]] == ["better", "undecided"]
    assert len(facts["runs"]) == 9
    assert facts["runs"][-1]["value"] == "NaN"
    assert facts["cards"][1]["diverged_arm"] == [3]


@pytest.mark.slow
def test_a_terminal_without_utf8_gets_the_same_in_ascii(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io
    import sys

    manifest = plant(tmp_path, three_arms())
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    print_comparison(manifest)
    stream.flush()
    text = stream.buffer.getvalue().decode("ascii")
    assert "=> better: the interval excludes 0" in text
    assert "?" not in text.replace("better?", "")


@pytest.mark.slow
def test_an_unknown_study_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    plant(tmp_path, three_arms())
    with pytest.raises(UnknownName, match="planted"):
        compare("plantd", root=str(tmp_path))
