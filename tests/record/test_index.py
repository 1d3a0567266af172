"""The table is what the records say at this moment, with the cache and without it."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cupel.errors import UnknownName, UsageError
from cupel.record import files, index, layout
from cupel.record.index import Index, table
from cupel.record.reader import RunRecord
from cupel.record.session import Session

GOLDEN = Path(__file__).parent.parent / "golden" / "record-v1"


def start(root: Path, run_id: str, **facts: Any) -> Session:
    config = facts.pop("config", {"train": {"lr": 0.1, "betas": [0.9, 0.95]}, "long": [0] * 100})
    given = {"project": "p", "name": "gpt", "config": config, "identity": run_id, "run_id": run_id}
    return Session.start(root=root, **{**given, **facts})


def finished(root: Path, run_id: str, loss: float, **facts: Any) -> Session:
    session = start(root, run_id, **facts)
    for step in (1, 2, 3):
        session.log({"loss": loss + 3 - step}, step=step)
    session.finish("finished", results={"step": 3, "final": {"val_loss": loss}})
    return session


def look(root: Path, **wanted: Any) -> list[str]:
    """The ids of a table, which is the same with the cache, without it, and from a kept index."""
    shown = [row["id"] for row in table(root, **wanted)]
    assert [row["id"] for row in table(root, **wanted)] == shown
    assert comparable(table(root)) == comparable(without_cache(root))
    return shown


def without_cache(root: Path) -> list[dict[str, Any]]:
    cache = root / ".cache"
    if cache.exists():
        cache.rename(root / ".cache-away")
    try:
        return table(root)
    finally:
        shutil.rmtree(cache, ignore_errors=True)
        if (root / ".cache-away").exists():
            (root / ".cache-away").rename(cache)


def comparable(rows: list[dict[str, Any]]) -> list[str]:
    """Everything but how long living sessions have lived."""
    return [repr({**row, "seconds": None}) for row in rows]


def test_a_row_says_what_a_run_is_and_came_to(tmp_path: Path) -> None:
    session = finished(
        tmp_path,
        "a",
        1.5,
        tags=["slow"],
        notes="why",
        details={"study": "s", "arm": "w", "seed": 3},
    )
    (row,) = table(tmp_path)
    assert row["seconds"] >= 0
    assert row["created"] == RunRecord(session.run_dir).created
    told = {key: value for key, value in row.items() if key not in ("seconds", "created")}
    assert told == {
        "id": "a", "project": "p", "name": "gpt", "status": "finished", "step": 3, "sessions": 1,
        "tags": ["slow"], "notes": "why", "group": None, "study": "s", "arm": "w", "point": None,
        "seed": 3, "about": None, "workload": None, "identity": "a", "problem": None,
        "summary": {"loss": 1.5, "val_loss": 1.5},
        "config": {"train.lr": 0.1, "train.betas": [0.9, 0.95]},
    }  # fmt: skip
    assert set(index.FIELDS) == row.keys() - {"summary", "config"}


def test_the_table_follows_a_run_through_its_life(tmp_path: Path) -> None:
    kept = Index(tmp_path)

    def status() -> tuple[str, int, int, list[str], Any]:
        (row,) = table(tmp_path)
        assert comparable(kept.rows()) == comparable([row])
        assert comparable(without_cache(tmp_path)) == comparable([row])
        return row["status"], row["step"], row["sessions"], row["tags"], row["summary"].get("loss")

    session = start(tmp_path, "a")
    assert status() == ("running", 0, 1, [], None)
    session.log({"loss": 2.0}, step=5)
    assert status() == ("running", 5, 1, [], 2.0)
    session.log({"loss": 1.0}, step=6)
    assert status() == ("running", 6, 1, [], 1.0)
    session.finish("interrupted")
    assert status() == ("interrupted", 6, 1, [], 1.0)
    run = files.read_json(session.run_dir / layout.RUN)
    files.write_json(session.run_dir / layout.RUN, {**run, "tags": ["kept"]})
    assert status() == ("interrupted", 6, 1, ["kept"], 1.0)
    session = Session.resume(session.run_dir)
    session.begin_at(5)
    assert status() == ("running", 5, 2, ["kept"], 2.0)
    session.log({"loss": 0.5}, step=6)
    session.finish("finished", results={"step": 6, "final": {"loss": 0.25}})
    assert status() == ("finished", 6, 2, ["kept"], 0.25)


@pytest.mark.slow
def test_a_killed_run_is_crashed_and_resumed_it_runs(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from cupel.record.session import Session\n"
        "if len(sys.argv) > 2: s = Session.resume(Path(sys.argv[2]))\n"
        "else: s = Session.start(root=sys.argv[1], project='p', name='n', config={}, identity='i',"
        " run_id='a')\n"
        "s.log({'loss': 1.0}, step=1); print('ready', flush=True); time.sleep(60)"
    )
    for more in ([], [tmp_path / "p" / "a"]):
        process = subprocess.Popen(
            [sys.executable, "-c", code, tmp_path, *more], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert look(tmp_path, where="status=running") == ["a"]
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert look(tmp_path, where="status=crashed and loss=1") == ["a"]


def test_a_session_that_was_only_begun_is_seen(tmp_path: Path) -> None:
    session = start(tmp_path, "a")
    session.finish("failed")
    assert look(tmp_path, where="status=failed") == ["a"]
    layout.session_dir(session.run_dir, 2).mkdir()  # killed, or at this moment, before run.json
    assert look(tmp_path, where="status=running and sessions=2") == ["a"]


@pytest.mark.slow
def test_ended_runs_are_not_opened_again(tmp_path: Path) -> None:
    for number in range(3):
        session = finished(tmp_path, f"run-{number}", 1.0)
    table(tmp_path)
    for path in (tmp_path / "p").rglob("*"):  # all that a second look may not need
        if path.is_file():
            stat = path.stat()
            if path.name != layout.RUN:
                path.unlink()
            else:
                path.write_bytes(b"x" * stat.st_size)
                os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert [row["summary"]["loss"] for row in table(tmp_path)] == [1.0] * 3
    shutil.rmtree(session.run_dir)
    assert len(table(tmp_path)) == 2
    assert len(Index(tmp_path)._entries) == 2


OPENED = """
import sys
from collections import Counter
opened = Counter()
def hear(event, given):
    if event == "open" and isinstance(given[0], (str, bytes)):
        opened[str(given[0])] += 1
from cupel.record.index import table
sys.addaudithook(hear)
rows = table(sys.argv[1])
print(len(rows), *sorted({count for path, count in opened.items() if "/p/" in path}))
"""


@pytest.mark.slow
def test_a_first_table_opens_no_file_of_an_ended_run_twice(tmp_path: Path) -> None:
    for number in range(3):
        finished(tmp_path, f"run-{number}", 1.0)
    done = subprocess.run(
        [sys.executable, "-c", OPENED, tmp_path], capture_output=True, text=True, check=True
    )
    assert done.stdout == "3 1\n"


@pytest.mark.slow
def test_runs_that_are_read_at_once_make_the_table_of_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(30):
        finished(tmp_path, f"run-{number}", float(number))
    (tmp_path / "p" / "run-3" / layout.RUN).write_text("damaged")
    living = start(tmp_path, "living")
    heard: list[str] = []
    expected = without_cache(tmp_path)
    monkeypatch.setattr(index, "_FIRST", 2)
    monkeypatch.setattr(index, "_QUICK_S", -1.0)
    assert comparable(Index(tmp_path).rows(tell=heard.append)) == comparable(expected)
    assert sorted(heard) == sorted(f"p/{row['id']}" for row in expected)
    heard.clear()
    assert comparable(Index(tmp_path).rows(tell=heard.append)) == comparable(expected)
    assert sorted(heard) == ["p/living", "p/run-3"]
    living.finish("finished")


@pytest.mark.slow
def test_a_table_that_is_interrupted_reads_no_further_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = finished(tmp_path, "run-0", 1.0).run_dir
    for number in range(1, 60):
        shutil.copytree(made, made.with_name(f"run-{number}"))
    read: list[Path] = []
    look = index.holds_part_of_a_run

    def slowly(folder: Path) -> bool:
        read.append(folder)
        time.sleep(0.05)
        return look(folder)

    for run_dir in made.parent.iterdir():
        (run_dir / layout.RUN).write_text("damaged")
    monkeypatch.setattr(index, "holds_part_of_a_run", slowly)
    monkeypatch.setattr(index, "_FIRST", 2)
    monkeypatch.setattr(index, "_AT_ONCE", 4)

    heard: list[str] = []

    def interrupted(key: str) -> None:
        heard.append(key)
        if len(heard) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Index(tmp_path).rows(tell=interrupted)
    assert 5 <= len(read) < 30


@pytest.mark.slow
def test_the_columns_of_a_run_that_is_gone_go_too(tmp_path: Path) -> None:
    for run_id in ("a", "b"):
        session = start(tmp_path, run_id)
        for step in range(8000):
            session.log({"loss": float(step)}, step=step)
        session.finish("failed")
        RunRecord(session.run_dir).series("loss")
    table(tmp_path)
    columns = tmp_path / ".cache" / "columns" / "p"
    assert {path.name for path in columns.iterdir()} == {"a", "b"}
    shutil.rmtree(tmp_path / "p" / "a")
    table(tmp_path)
    assert {path.name for path in columns.iterdir()} == {"b"}


@pytest.mark.slow
def test_damaged_runs_have_rows_and_folders_that_are_none_have_not(tmp_path: Path) -> None:
    finished(tmp_path, "sound", 1.0)
    for name, file, content in [
        ("no-run", layout.RUN, "{"),
        ("no-config", layout.CONFIG, "[]"),
        ("no-results", layout.RESULTS, "{"),
        ("odd", layout.RUN, '{"tags": 3, "name": ["x"], "created": "y", "notes": 5}'),
        ("odd-results", layout.RESULTS, '{"final": [1], "step": "x"}'),
    ]:
        finished(tmp_path, name, 1.0)
        (tmp_path / "p" / name / file).write_text(content)
    (tmp_path / "p" / "empty").mkdir()
    (tmp_path / "p" / "studies" / "s").mkdir(parents=True)
    problems = {row["id"]: row["problem"] for row in table(tmp_path)}
    assert problems.keys() == {
        "sound", "no-run", "no-config", "no-results", "odd", "odd-results"
    }  # fmt: skip
    assert problems["sound"] is None
    assert "run.json is damaged" in problems["no-run"]
    assert "config.json is damaged" in problems["no-config"]
    assert "results.json is damaged" in problems["no-results"]
    assert look(tmp_path, where="status=damaged")
    shutil.copytree(GOLDEN, tmp_path / "p" / "20251009-085320-golden-nogit-0a1b")
    assert look(tmp_path, where="name=golden and clip=inf and step=4 and train.lr=0.1")


@pytest.mark.slow
def test_tables_are_filtered_and_sorted_by_any_column(tmp_path: Path) -> None:
    for run_id, loss, facts in [
        ("a", 1.0, {"details": {"arm": "wave", "seed": 1}}),
        ("b", 3.0, {"details": {"arm": "standard", "seed": 2}, "tags": ["slow", "old"]}),
        ("c", math.nan, {"config": {"train": {"lr": 0.5}, "loss": 7}}),
        ("d", 2.0, {"project": "q", "config": {"odd": "text"}}),
    ]:
        finished(tmp_path, run_id, loss, **facts)
    start(tmp_path, "e").finish("failed")
    assert look(tmp_path) == ["e", "d", "c", "b", "a"]
    assert look(tmp_path, project="q") == ["d"]
    assert look(tmp_path, project="absent") == []
    assert look(tmp_path, sort="val_loss") == ["a", "d", "b", "e", "c"]
    assert look(tmp_path, sort="-val_loss") == ["b", "d", "a", "e", "c"]
    assert look(tmp_path, sort="train.lr")[-2:] == ["c", "d"]
    assert look(tmp_path, sort="id", where="val_loss<2.5 and arm=wave") == ["a"]
    assert look(tmp_path, sort="id", where="val_loss<2.5") == ["a", "d"]
    assert look(tmp_path, where="tag=slow") == ["b"]
    assert look(tmp_path, where="val_loss=nan") == ["c"]
    assert look(tmp_path, where="config.loss=7") == ["c"]
    assert look(tmp_path, where="summary.loss=2") == ["d"]
    assert look(tmp_path, where="seed in [1,2] and not tag=slow") == ["a"]
    assert look(tmp_path, where="created>2020-01-01 and run~a") == ["a"]
    assert look(tmp_path, where="odd=text or status=failed") == ["e", "d"]
    assert "train.lr" in index.names(table(tmp_path))


@pytest.mark.slow
def test_a_field_that_a_run_does_not_have_is_its_setting_or_its_metric(tmp_path: Path) -> None:
    finished(tmp_path, "own", 1.0, config={"seed": 1, "arm": "wave", "tags": ["odd"], "run": "x"})
    finished(tmp_path, "both", 1.0, config={"seed": 1}, details={"seed": 2, "arm": "standard"})
    session = start(tmp_path, "metric")
    session.log({"point": 7.0, "step": 3.5, "seconds": 9.0}, step=1)
    session.finish("failed")
    assert look(tmp_path, where="seed=1") == ["own"]
    assert look(tmp_path, where="seed=2") == ["both"]
    assert look(tmp_path, where="config.seed=1", sort="-id") == ["own", "both"]
    assert look(tmp_path, where="arm in [wave, standard]", sort="arm") == ["both", "own"]
    assert look(tmp_path, where="tags=odd") == ["own"]
    assert look(tmp_path, where="run=x") == []
    assert look(tmp_path, where="point=7") == ["metric"]
    assert look(tmp_path, where="step=3.5") == []
    assert look(tmp_path, where="summary.step=3.5 and summary.seconds=9") == ["metric"]
    rows = table(tmp_path)
    assert index.shadowed(rows, {"step", "seed", "loss"}) == ["config.seed", "summary.step"]
    assert index.value({row["id"]: row for row in rows}["both"], "tags") == []


@pytest.mark.slow
def test_a_setting_that_is_none_is_a_column(tmp_path: Path) -> None:
    finished(tmp_path, "a", 1.0, config={"clip": None, "seed": None})
    finished(tmp_path, "b", 1.0, config={"clip": 1.0})
    finished(tmp_path, "c", 1.0)
    assert look(tmp_path, where="clip=none", sort="id") == ["a", "c"]
    assert look(tmp_path, where="config.clip=none", sort="id") == ["a", "c"]
    assert look(tmp_path, where="clip!=none") == ["b"]
    assert look(tmp_path, where="config.seed=1") == []
    assert look(tmp_path, sort="config.seed", where="id=a") == ["a"]
    with pytest.raises(UnknownName):
        table(tmp_path, where="config.clp=none")


def test_a_name_that_no_run_has_is_a_mistake(tmp_path: Path) -> None:
    assert table(tmp_path, where="vall_loss<1", sort="xyz") == []
    finished(tmp_path, "a", 1.0)
    with pytest.raises(UnknownName, match="did you mean 'val_loss'"):
        table(tmp_path, where="vall_loss<1")
    with pytest.raises(UnknownName, match="no column is called 'stepp'"):
        table(tmp_path, sort="-stepp")
    with pytest.raises(UsageError, match="position 5"):
        table(tmp_path, where="step")


def test_what_no_cache_can_hold_is_looked_at_each_time(tmp_path: Path) -> None:
    session = finished(tmp_path, "a", 1.0)
    path = session.run_dir / layout.CONFIG
    path.write_text(json.dumps({"config": {"big": 10**30}}))
    odd = os.fsdecode(b"not-\xff-text")
    shutil.copytree(session.run_dir, session.run_dir.with_name(odd))
    for _ in range(2):
        assert {row["id"] for row in table(tmp_path, where=f"big={10**30}")} == {"a", odd}


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(damage=st.binary() | st.tuples(st.integers(0, 10**6), st.integers(0, 255)))
@pytest.mark.slow
def test_a_damaged_cache_is_made_anew(tmp_path: Path, damage: bytes | tuple[int, int]) -> None:
    if not (tmp_path / "p").exists():
        finished(tmp_path, "a", 1.0)
    before = comparable(table(tmp_path))
    path = tmp_path / ".cache" / "index.msgpack"
    good = path.read_bytes()
    if isinstance(damage, bytes):
        path.write_bytes(damage)
    else:
        place, byte = damage[0] % len(good), damage[1]
        path.write_bytes(good[:place] + bytes([byte]) + good[place + 1 :])
    assert comparable(table(tmp_path)) == before
    assert path.read_bytes() == good


def test_a_root_that_takes_no_cache_has_a_table(tmp_path: Path) -> None:
    finished(tmp_path, "a", 1.0)
    (tmp_path / ".cache").write_text("no folder")
    assert [row["id"] for row in table(tmp_path)] == ["a"]
    assert table(tmp_path / "absent") == []


def test_a_large_run_that_lives_is_read_only_where_it_grew(tmp_path: Path) -> None:
    session = start(tmp_path, "a")
    for step in range(6000):
        session.log({"loss": float(step), "val/loss": -float(step)}, step=step)
    kept = Index(tmp_path)
    (row,) = kept.rows()
    assert (row["step"], row["summary"]) == (5999, {"loss": 5999.0, "val/loss": -5999.0})
    begin = time.process_time()
    for step in range(6000, 6010):
        session.log({"loss": float(step)}, step=step)
        (row,) = kept.rows()
        assert (row["step"], row["summary"]["loss"]) == (step, float(step))
    assert time.process_time() - begin < 10 * 0.2  # far from 10 times 6,000 lines; 5 ms each
    session.finish("failed")
    assert kept.rows()[0]["status"] == "failed"
