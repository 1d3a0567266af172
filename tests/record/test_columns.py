"""Steps kept as runs are the steps; columns made bit by bit are those made at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arbitrary_logs import KEYS, RUNS, Log
from cupel.record import growing, lines
from cupel.record.columns import Steps
from cupel.record.growing import Growing

INT64 = st.integers(-(2**63), 2**63 - 1)
SMALL = st.integers(-20, 60)
INCREASING = st.lists(SMALL | INT64, unique=True, max_size=40).map(sorted)
RUNS_OF_STEPS = st.lists(
    st.tuples(st.integers(1, 4), st.integers(1, 9)), min_size=1, max_size=5
).map(lambda runs: np.cumsum([stride for stride, count in runs for _ in range(count)]).tolist())


@settings(deadline=None)
@given(INCREASING | RUNS_OF_STEPS | st.lists(SMALL, max_size=20), st.data())
def test_compressed_steps_are_the_steps(steps: list[int], data: st.DataObject) -> None:
    array = np.array(steps, dtype=np.int64)
    found = Steps.compressed(array)
    assert len(found) == len(steps)
    start = data.draw(st.integers(0, len(steps)))
    stop = data.draw(st.integers(start, len(steps)))
    assert found.array(start, stop).tolist() == steps[start:stop]
    assert [found.at(row) for row in range(len(steps))] == steps


@settings(deadline=None)
@given(INCREASING | RUNS_OF_STEPS, st.lists(SMALL | INT64, max_size=30))
def test_searching_runs_is_searching_the_array(steps: list[int], targets: list[int]) -> None:
    array = np.array(steps, dtype=np.int64)
    wanted = np.array(targets + steps, dtype=np.int64)
    expected = np.searchsorted(array, wanted).tolist()
    assert Steps.compressed(array).search(wanted).tolist() == expected
    assert Steps(array).search(wanted).tolist() == expected


def test_steps_of_one_stride_need_one_run() -> None:
    assert Steps.compressed(np.arange(0, 1_000_000, 10)).runs == [(0, 10, 100_000)]
    steps = [*range(100), *range(200, 1000, 7)]
    runs = Steps.compressed(np.array(steps)).runs
    assert runs is not None
    assert len(runs) == 2


def shown(table: Growing) -> str:
    """All that a table says."""
    told = [repr((table.lines, table.damaged, table.whole, table.kinds))]
    for key in (*KEYS, "_t", "absent"):
        if (column := table.column(key)) is not None:
            rows = column.rows
            arrays = (rows.steps.array().tolist(), rows.times.tolist(), column.values.tolist())
            told.append(repr((key, *arrays, rows.increasing, rows.timely, column.ascending)))
            told.append(repr((rows.top, table.ends(key))))
    return "\n".join(told)


@settings(deadline=None, max_examples=50)
@given(RUNS, st.data())
@pytest.mark.slow
def test_a_table_that_grows_is_the_table_of_the_whole_file(
    tmp_path_factory: pytest.TempPathFactory, run: list[Log], data: st.DataObject
) -> None:
    whole = b"".join(segment for log in run for segment in log.segments)
    folder = tmp_path_factory.mktemp("table")
    (folder / "whole").write_bytes(whole)
    (folder / "grows").write_bytes(b"")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "PIECE", 50)
        patch.setattr(growing, "_MOST_PIECES", 3)
        table, written = Growing(folder / "grows"), 0
        while written < len(whole):
            cut = data.draw(st.integers(written + 1, len(whole)))
            with (folder / "grows").open("ab") as file:
                file.write(whole[written:cut])
            written = cut
            table.refresh()
            table.column("loss")
        at_once = Growing(folder / "whole")
        at_once.refresh()
    assert shown(table) == shown(at_once)
    assert not table.refresh()


def test_a_file_that_is_replaced_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"_step":1,"a":1.0}\n{"_step":2,"a":2.0}\n')
    table = Growing(path)
    assert table.refresh()
    before = table.version
    (tmp_path / "other").write_bytes(b'{"_step":5,"b":1.0}\n{"_step":6,"b":2.0}\n')
    (tmp_path / "other").replace(path)
    assert table.refresh()
    assert table.version > before
    assert (table.kinds, table.lines) == ({"b": "float"}, 2)
    path.write_bytes(b"")
    assert table.refresh()
    assert (table.lines, table.kinds) == (0, {})


def test_keys_of_the_same_lines_share_their_rows(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines_ = [f'{{"_step":{n},"_t":{n}.5,"a":1.0,"b":2.0}}\n' for n in range(5000)]
    lines_[::100] = [line.replace('"b"', '"c"') for line in lines_[::100]]
    path.write_bytes("".join(lines_).encode())
    table = Growing(path)
    table.refresh()
    a, b, c, t = (table.column(key) for key in ("a", "b", "c", "_t"))
    assert None not in (a, b, c, t)
    assert a.rows is t.rows
    assert t.values is t.rows.times
    assert b.rows is not a.rows
    assert (len(a.values), len(b.values), len(c.values)) == (5000, 4950, 50)
    assert c.rows.steps.runs == [(0, 100, 50)]
