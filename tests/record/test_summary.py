"""A summary is one number a metric, the same from lines and from columns."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arbitrary_logs import RUNS, Log, regular, rows_of, write
from cupel.record import compaction, layout, metrics
from cupel.record.reader import RunRecord
from cupel.record.session import Session
from cupel.record.summary import rule_of

TOLD = ("loss", "val/loss", "epoch", "count", "flag")
RULES = st.sampled_from(["last", "first", "min", "max", "mean", "none"])


def folded(values: list[Any], rule: str) -> Any:
    if rule in ("first", "last"):
        return values[0 if rule == "first" else -1]
    values = [value for value in values if not math.isnan(value)]
    if not values:
        return math.nan
    return {"min": min, "max": max, "mean": lambda v: sum(map(float, v)) / len(v)}[rule](values)


def agree(found: Any, expected: Any, rule: str) -> bool:
    if rule in ("first", "last"):
        return repr(found) == repr(expected)
    if rule == "mean" and not math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-9):
        # Beyond all floats, or after much has cancelled out, the order of adding decides.
        return math.isnan(expected) or abs(expected) > 1e290 or abs(found) > 1e290
    return bool(found == expected) or (math.isnan(found) and math.isnan(expected)) or rule == "mean"


@settings(deadline=None, max_examples=80)
@given(
    RUNS | st.integers(0, 9999).map(regular),
    st.fixed_dictionaries({}, optional=dict.fromkeys(TOLD, RULES)),
)
@pytest.mark.parametrize("large", [True, False], ids=["columns", "lines"])
def test_a_summary_is_what_the_history_comes_to(
    tmp_path_factory: pytest.TempPathFactory, large: bool, run: list[Log], rules: dict[str, str]
) -> None:
    run_dir = write(tmp_path_factory.mktemp("root") / "p" / "run", run)
    if run:
        defined = [
            json.dumps({"_event": "define_metric", "name": name, "summary": rule}) + "\n"
            for name, rule in rules.items()
        ]
        path = layout.session_dir(run_dir, 1) / layout.events_name()
        path.write_text("".join(defined))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compaction, "SMALLEST", 1)
        patch.setattr(metrics, "LARGE", 1 if large else 10**9)
        patch.setattr(os, "fsync", lambda fd: None)
        found = RunRecord(run_dir).summary
        again = RunRecord(run_dir).summary
    assert repr(found) == repr(again)
    for name in TOLD:
        rule = rules.get(name, "last")
        values = [row[name] for row in rows_of(run) if isinstance(row.get(name), int | float)]
        assert (name in found) == (bool(values) and rule != "none")
        if name in found:
            assert agree(found[name], folded(values, rule), rule), (name, found[name], values)


def test_what_was_said_last_of_a_metric_counts() -> None:
    said = [
        {"name": "val/*", "summary": "min"},
        {"name": "val/acc", "summary": "best", "goal": "max"},
        {"name": "val/*", "summary": "mean"},
        {"name": "val/acc", "step_metric": "epoch", "summary": None, "goal": None},
        {"name": "odd", "summary": "best"},
        {"name": "odd*", "summary": ["min"]},
        {"name": 3, "summary": "min"},
    ]
    assert rule_of("val/loss", said) == "mean"
    assert rule_of("val/acc", said) == "max"
    assert rule_of("train/loss", said) == "last"
    assert rule_of("odd", said) == "last"


def test_what_is_set_stands_over_what_was_logged(tmp_path: Path) -> None:
    session = Session.start(root=tmp_path, project="p", name="n", config={}, identity="i")
    session.define_metric("val/*", summary="best", goal="max")
    for step in range(1, 5):
        session.log({"loss": 1 / step, "val/acc": (step - 2) ** 2, "spectrum": [1.0]}, step=step)
    session.set_summary({"loss": 7, "note": "good"})
    session.set_summary({"note": "better"})
    record = RunRecord(session.run_dir)
    assert record.summary == {"loss": 7, "val/acc": 4, "note": "better"}
    assert record.summarised().step == 4
    session.finish("interrupted")
    second = Session.resume(session.run_dir)
    second.begin_at(2)
    second.set_summary({"loss": 8})
    assert RunRecord(session.run_dir).summary == {"loss": 8, "val/acc": 1, "note": "better"}
    assert RunRecord(session.run_dir).summarised().step == 2
    second.finish("failed")


def test_the_summary_of_a_small_run_needs_no_numpy(tmp_path: Path) -> None:
    session = Session.start(root=tmp_path, project="p", name="n", config={}, identity="i")
    session.log({"loss": 1.0}, step=1)
    session.finish("failed")
    code = (
        "import sys; from cupel.record.index import table;"
        "from cupel.record.reader import RunRecord;"
        "assert RunRecord(sys.argv[1]).summary == {'loss': 1.0}; assert table(sys.argv[2]);"
        "assert 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, session.run_dir, tmp_path], check=True)
