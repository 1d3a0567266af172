"""The records of a root as the server sees them: what is kept for the next look, and when."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from cupel.dashboard import chart, standing, store
from cupel.dashboard.queries import ChartQuery
from cupel.dashboard.store import Store
from cupel.record import compaction, writer
from cupel.record.growing import Growing
from cupel.record.session import Session


def long_run(root: Path, lines: int = 8000, *, ended: bool = True) -> str:
    session = Session.start(root=root, project="p", name="long", config={}, identity="long")
    session.begin_at(0)
    for step in range(lines):
        session.log({"loss": float(step)}, step=step)
    if ended:
        session.finish("finished")
    return f"p/{session.run_id}"


def kept(root: Path) -> list[Path]:
    return [*(root / ".cache" / "columns").glob("p/*/*.bin")]


@pytest.mark.slow
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


@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.slow
def test_no_line_is_read_again_while_columns_are_being_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: bool
) -> None:
    monkeypatch.setattr(store, "PAUSE_S", 0.0)
    monkeypatch.setattr(writer, "SEGMENT_BYTES", 300_000)
    key, found = long_run(tmp_path, 20_000, ended=ended), Store(tmp_path)
    going_on, write = threading.Semaphore(1), compaction._write
    read: list[str] = []

    class Reading(Growing):
        def __init__(self, path: Path, keys: Collection[str] | None = None) -> None:
            read.append(path.name)
            super().__init__(path, keys)

    def slow(*given: Any) -> None:
        going_on.acquire()
        write(*given)

    monkeypatch.setattr(compaction, "_write", slow)
    monkeypatch.setattr(compaction, "Growing", Reading)
    query = ChartQuery(runs=[key], metric="loss")
    first, _ = chart.snapshot(found, query)
    until = time.monotonic() + 20
    while not kept(tmp_path) and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(0.2)  # the first file has been taken, others wait
    there, again = len(kept(tmp_path)), chart.snapshot(found, query)[0]
    going_on.release(100)
    assert there == 1
    assert again == first
    assert len(read) == len(set(read)) == 4
    while len(kept(tmp_path)) < 3 and time.monotonic() < until:
        time.sleep(0.02)
    assert chart.snapshot(found, query)[0] == first
    assert len(read) == len(set(read)) == 4, "nor the last segment, which is too short for a file"
    found.close()


def test_a_store_that_is_closed_keeps_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "PAUSE_S", 0.0)
    key, found = long_run(tmp_path), Store(tmp_path)
    found.close()
    chart.snapshot(found, ChartQuery(runs=[key], metric="loss"))
    assert not kept(tmp_path)


@pytest.mark.slow
def test_what_waits_to_be_kept_is_not_begun_once_the_store_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "PAUSE_S", 0.5)
    key, found = long_run(tmp_path), Store(tmp_path)
    chart.snapshot(found, ChartQuery(runs=[key], metric="loss"))
    found.close()
    found._after.shutdown(wait=True)
    assert not kept(tmp_path)


def test_losses_are_held_against_what_the_newest_session_says_of_its_data(tmp_path: Path) -> None:
    session = Session.start(root=tmp_path, project="p", name="one", config={}, identity="one")
    session.begin_at(0)
    session.log({"loss": 3.0}, step=1)
    key, found = f"p/{session.run_id}", Store(tmp_path)
    assert standing.metrics(found, [key]).references == []
    session.describe(references={"bigram": 2.4, "chance": 4.6, "odd": float("nan"), "text": "x"})
    told = {(one.metric, one.label): one.value for one in standing.metrics(found, [key]).references}
    assert told == {
        ("loss", "bigram entropy"): 2.4, ("val_loss", "bigram entropy"): 2.4,
        ("loss", "chance"): 4.6, ("val_loss", "chance"): 4.6,
    }  # fmt: skip
    session.describe(references=[1, 2])
    assert standing.metrics(found, [key]).references == []
    (session.dir / "env.json").write_text("no JSON")
    assert standing.metrics(found, [key]).references == []
    session.finish("finished")
    found.close()
