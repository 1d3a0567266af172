"""Names of metrics: all that a run logs, as they come, without reading everything."""

from __future__ import annotations

from pathlib import Path

from cupel.dashboard.names import LARGE
from cupel.dashboard.standing import metrics
from cupel.dashboard.store import Store
from cupel.record.session import Session


def started(root: Path) -> tuple[Session, str]:
    session = Session.start(root=root, project="p", name="n", config={}, identity="i")
    return session, f"p/{session.run_id}"


def test_names_come_in_the_order_in_which_they_were_logged(tmp_path: Path) -> None:
    session, key = started(tmp_path)
    session.log({"b": 1.0}, step=1)
    session.log({"a": 1.0, "vector": [1.0, 2.0], "bad": float("nan")}, step=2)
    store = Store(tmp_path)
    assert metrics(store, [key]).metrics == ["b", "a", "bad"]
    session.log({"late": 1}, step=3)
    assert metrics(store, [key]).metrics == ["b", "a", "bad", "late"]
    session.finish("finished")


def test_a_name_that_occurs_once_amid_a_large_run_is_found_by_the_table(tmp_path: Path) -> None:
    session, key = started(tmp_path)
    padding = {f"padding/{n}": 0.123456789 for n in range(40)}
    for step in range(2 * LARGE // 900):
        session.log(padding if step != 1000 else {"once": 1.0}, step=step)
    session.finish("finished")
    store = Store(tmp_path)
    assert "once" not in metrics(store, [key]).metrics
    store.rows()
    assert "once" in metrics(store, [key]).metrics


def test_half_a_line_is_read_when_it_is_whole(tmp_path: Path) -> None:
    session, key = started(tmp_path)
    session.log({"a": 1.0}, step=1)
    path = session.run_dir / "sessions/0001/metrics.r0.000.jsonl"
    store = Store(tmp_path)
    with path.open("ab") as file:
        file.write(b'{"_step": 2, "_t": 1.0, "b"')
    assert metrics(store, [key]).metrics == ["a"]
    with path.open("ab") as file:
        file.write(b": 3.0}\n")
    assert metrics(store, [key]).metrics == ["a", "b"]
    session.finish("finished")
