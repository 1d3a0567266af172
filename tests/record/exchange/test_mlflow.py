"""MLflow's database is read to the bit and not touched."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cupel.errors import RecordError
from cupel.record.exchange import mlflow
from cupel.record.exchange.foreign import Foreign
from exchanges import check_expected, read, unzipped_database


def silent(line: str) -> None:
    raise AssertionError(line)


def runs_in(path: Path, tell: Callable[[str], None] = print) -> list[Foreign]:
    return mlflow.runs_in(path, tell)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return unzipped_database(tmp_path)


def changed(database: Path, *statements: str) -> None:
    connection = sqlite3.connect(database)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def test_what_mlflow_wrote_is_read_to_the_bit(database: Path) -> None:
    first, second = runs_in(database)
    check_expected("mlflow", read(first))
    (line,) = read(second)
    assert (line.step, line.t, line.metrics) == (0, 1_700_000_000.125, {"loss": 1.0})


def test_facts_and_what_is_left_out_are_told(database: Path) -> None:
    told: list[str] = []
    first, second = runs_in(database, told.append)
    assert (first.name, first.project, first.status) == ("first", "peers", "finished")
    assert first.config == {"lr": 0.1, "layers": 3, "act": "gelu", "bias": True}
    assert (first.tags, first.notes) == (["team=x"], "a note")
    assert (first.created, first.ended) == (1_700_000_000.125, 1_700_000_060.125)
    assert (second.status, second.error) == ("failed", "MLflow says FAILED")
    assert told == ["mlflow.db: 1 runs that were deleted in MLflow are left out"]


def test_the_largest_float_is_taken_for_the_infinity_that_mlflow_writes_so(
    database: Path,
) -> None:
    changed(database, "DELETE FROM metrics WHERE value <> ?".replace("?", repr(sys.float_info.max)))
    (line,) = read(runs_in(database)[0])
    assert line.metrics == {"loss": float("inf")}


def test_reading_changes_neither_the_database_nor_its_folder(database: Path) -> None:
    before = (database.read_bytes(), sorted(database.parent.iterdir()))
    read(runs_in(database)[0])
    assert (database.read_bytes(), sorted(database.parent.iterdir())) == before
    changed(database, "PRAGMA journal_mode=WAL")
    before = (database.read_bytes(), sorted(database.parent.iterdir()))
    read(runs_in(database)[0])
    assert (database.read_bytes(), sorted(database.parent.iterdir())) == before


def test_what_another_process_has_only_in_its_log_is_read_too(database: Path) -> None:
    writer = sqlite3.connect(database)
    writer.execute("PRAGMA journal_mode=WAL")
    writer.execute("UPDATE metrics SET value = 0.75 WHERE step = 0 AND key = 'loss'")
    writer.commit()
    assert database.with_name("mlflow.db-wal").stat().st_size
    (line,) = read(runs_in(database)[1])
    assert line.metrics == {"loss": 0.75}
    writer.close()


def test_rows_of_other_types_are_counted_as_damage(database: Path) -> None:
    changed(
        database,
        "UPDATE metrics SET value = 'text' WHERE step = 1 AND key = 'loss'",
        "UPDATE metrics SET timestamp = x'00ff' WHERE step = 2 AND key = 'loss'",
        "UPDATE metrics SET key = x'ff00' WHERE step = 3 AND key = 'loss'",
        "UPDATE runs SET start_time = 'never'",
    )
    run = runs_in(database)[0]
    assert len([line for line in read(run) if "loss" in line.metrics]) == 11
    assert (run.damaged, run.created) == (2, None)


def test_the_content_is_told_by_its_hash_and_not_by_its_file(database: Path) -> None:
    before = [run.sha256 for run in runs_in(database)]
    changed(database, "VACUUM")
    moved = database.rename(database.with_name("other.db"))
    assert [run.sha256 for run in runs_in(moved)] == before
    changed(moved, "UPDATE metrics SET value = 0.25 WHERE key = 'back'")
    after = [run.sha256 for run in runs_in(moved)]
    assert (after[0] != before[0], after[1] == before[1]) == (True, True)


def test_a_database_of_something_else_is_refused_by_name(tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    changed(other, "CREATE TABLE runs (a)")
    with pytest.raises(RecordError, match=r"cannot read other\.db as a database of MLflow"):
        runs_in(other)


@given(st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=64)), max_size=6))
@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@pytest.mark.slow
def test_a_damaged_database_is_a_record_error_or_is_read(
    tmp_path: Path, damage: list[tuple[float, bytes]]
) -> None:
    database = unzipped_database(tmp_path)
    content = bytearray(database.read_bytes())
    for where, garbage in damage:
        place = int(where * (len(content) - len(garbage)))
        content[place : place + len(garbage)] = garbage
    database.write_bytes(content)
    try:
        for run in runs_in(database):
            read(run)
    except RecordError:
        pass


def test_a_schema_that_is_no_text_is_a_record_error(database: Path) -> None:
    content = database.read_bytes()
    assert content.count(b'CREATE TABLE "runs"') == 1
    database.write_bytes(content.replace(b'CREATE TABLE "runs"', b'CREATE \x93ABLE "runs"'))
    with pytest.raises(RecordError, match=r"cannot read mlflow\.db"):
        runs_in(database)
