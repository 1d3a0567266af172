"""A curve of characters has a character a stretch, whatever the numbers are."""

from __future__ import annotations

import io
import math
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cupel.cli.sparks import curve_of, main_metrics, spark
from cupel.cli.working import Working
from cupel.record import layout
from cupel.record.codec import encode_line
from cupel.record.reader import RunRecord


@given(st.lists(st.none() | st.floats(), max_size=30), st.sampled_from(["utf-8", "ascii", None]))
def test_every_stretch_is_one_character(values: list[float | None], encoding: str | None) -> None:
    shown = spark(values, encoding=encoding)
    assert len(shown) <= len(values)
    shown = shown.ljust(len(values))
    for value, character in zip(values, shown, strict=True):
        assert (character == " ") == (value is None)
        if value is not None:
            assert (character in "✗x") == (not math.isfinite(value))
    assert encoding == "utf-8" or shown.isascii()


def test_the_least_is_at_the_bottom_and_the_greatest_on_top() -> None:
    assert spark([0.0, 1.0, 2.0, None, math.nan], encoding="utf-8") == "▁▅█ ✗"
    assert spark([-1e308, 1e308], encoding="ascii") == "_#"
    assert spark([5.0, 5.0], encoding="utf-8") == "▁▁"


def test_the_smallest_and_the_greatest_differences_are_drawn() -> None:
    assert spark([0.0, 5e-324], encoding="utf-8") == "▁█"
    assert spark([-1.7e308, 0.0, 1.7e308], encoding="utf-8") == "▁▅█"


def test_losses_come_first_and_other_numbers_not_at_all() -> None:
    found = main_metrics(["lr", "val/acc", "val_loss", "loss", "aux_loss"])
    assert found == ["loss", "val_loss", "aux_loss", "val/acc"]


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.dictionaries(
        st.integers(-(2**62), 2**62), st.floats() | st.integers(-(2**63), 2**64 - 1), max_size=40
    )
)
def test_a_curve_is_drawn_of_any_numbers_at_any_steps(
    tmp_path: Path, points: dict[int, float]
) -> None:
    folder = layout.session_dir(tmp_path / "p" / "run", 1)
    folder.mkdir(parents=True, exist_ok=True)
    lines = [encode_line({"_step": step, "_t": 0.0, "loss": y}) for step, y in points.items()]
    (folder / layout.metrics_name()).write_bytes(b"".join(lines))
    drawn = curve_of(RunRecord(tmp_path / "p" / "run"), "loss")
    assert len(drawn) == min(16, len(points))
    assert not points or drawn[0] is not None


def test_a_large_run_is_drawn_from_its_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = layout.session_dir(tmp_path / "p" / "run", 1)
    folder.mkdir(parents=True)
    lines = [encode_line({"_step": step, "_t": 0.0, "loss": float(step)}) for step in range(160)]
    (folder / layout.metrics_name()).write_bytes(b"".join(lines))
    small = curve_of(RunRecord(tmp_path / "p" / "run"), "loss")
    monkeypatch.setattr("cupel.cli.sparks._LARGE", 1)
    large = curve_of(RunRecord(tmp_path / "p" / "run"), "loss")
    assert spark(large, encoding="utf-8") == spark(small, encoding="utf-8")


def test_work_is_told_after_two_seconds_and_every_ten(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    with Working("reading", clock=lambda: now) as working:
        for tenth in range(150):
            now = tenth / 10
            working(f"file {tenth}")
    assert stderr.getvalue() == "reading file 20\nreading file 120\n"
