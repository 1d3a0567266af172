"""The records of a root as the server sees them: what is kept for the next look, and when."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from cupel.dashboard import chart, store
from cupel.dashboard.queries import ChartQuery
from cupel.dashboard.store import Store
from cupel.record.session import Session


def long_run(root: Path) -> str:
    session = Session.start(root=root, project="p", name="long", config={}, identity="long")
    session.begin_at(0)
    for step in range(8000):
        session.log({"loss": float(step)}, step=step)
    session.finish("finished")
    return f"p/{session.run_id}"


def kept(root: Path) -> list[Path]:
    return [*(root / ".cache" / "columns").glob("p/*/*.bin")]


def test_columns_are_kept_after_the_answer_and_not_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "PAUSE_S", 2.0)
    key, found = long_run(tmp_path), Store(tmp_path)
    query = ChartQuery(runs=[key], metric="loss")
    first, _ = chart.snapshot(found, query)
    assert not kept(tmp_path)
    until = time.monotonic() + 20
    while not kept(tmp_path) and time.monotonic() < until:
        time.sleep(0.05)
    assert len(kept(tmp_path)) == 1
    assert chart.snapshot(found, query)[0] == first  # now from the files
    found.close()


def test_a_store_that_is_closed_keeps_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "PAUSE_S", 0.0)
    key, found = long_run(tmp_path), Store(tmp_path)
    found.close()
    chart.snapshot(found, ChartQuery(runs=[key], metric="loss"))
    assert not kept(tmp_path)
