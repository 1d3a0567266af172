"""Columns say what the lines say, for any log; buckets and thinned curves hide nothing."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arbitrary_logs import (
    AXES,
    KEYS,
    RUNS,
    Log,
    damage_in,
    points_of,
    regular,
    rows_of,
    write,
)
from cupel.errors import UsageError
from cupel.record import compaction, history, metrics
from cupel.record.reader import RunRecord

EVERY = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
ASKED = (*KEYS, "_t", "_step", "absent")
RANGES = st.tuples(
    st.none() | st.integers(-4, 40) | st.floats(-4, 40),
    st.none() | st.integers(-4, 40) | st.floats(-4, 40),
).filter(lambda ends: None in ends or ends[0] <= ends[1])  # type: ignore[operator]


@pytest.fixture(autouse=True, scope="module")
def every_size_is_worth_it() -> Iterator[None]:
    """Logs of a few lines go through the cache as if they were long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compaction, "SMALLEST", 1)
        patch.setattr(metrics, "LARGE", 1)
        patch.setattr(os, "fsync", lambda fd: None)  # nobody pulls the plug, and it takes most time
        yield


def same(found: Any, expected: Any) -> bool:
    """Equal to the bit and in type, so that NaN equals NaN, and 1 neither 1.0 nor True."""
    return repr(found) == repr(expected) if not isinstance(found, dict) else (
        found.keys() == expected.keys() and all(same(found[k], expected[k]) for k in found)
    )  # fmt: skip


def all_same(found: list[Any], expected: list[Any]) -> bool:
    return len(found) == len(expected) and all(map(same, found, expected))


@EVERY
@given(RUNS, st.lists(st.sampled_from(ASKED), min_size=1, unique=True))
@pytest.mark.slow
def test_the_history_from_columns_is_that_of_the_lines(
    tmp_path_factory: pytest.TempPathFactory, run: list[Log], keys: list[str]
) -> None:
    run_dir = write(tmp_path_factory.mktemp("root") / "p" / "run", run)
    rows = rows_of(run)
    wanted = {"_step", "_t", *keys}
    expected = [
        {key: value for key, value in row.items() if key in wanted}
        for row in rows
        if not row.keys().isdisjoint(keys)
    ]
    for _ in range(2):  # made, then found in the cache
        record = RunRecord(run_dir)
        assert all_same(record.history(keys), expected)
        assert record.damaged_lines == damage_in(run)
        assert all_same(record.history(), rows)
        assert record.damaged_lines == damage_in(run)


@EVERY
@given(
    RUNS,
    st.lists(st.sampled_from(ASKED), min_size=1, unique=True),
    st.sampled_from(AXES),
    RANGES,
    st.none() | st.integers(1, 12),
)
@pytest.mark.slow
def test_a_view_of_columns_is_that_of_the_lines(
    tmp_path_factory: pytest.TempPathFactory,
    run: list[Log],
    keys: list[str],
    x: str,
    range_: tuple[float | None, float | None],
    points: int | None,
) -> None:
    run_dir = write(tmp_path_factory.mktemp("root") / "p" / "run", run)
    view = history.View(x, range_, points)
    expected = history.selected(rows_of(run), keys, view)
    found = RunRecord(run_dir).history(keys, x=x, range=range_, points=points)
    assert all_same(found, expected)


@EVERY
@given(RUNS, st.sampled_from(KEYS), st.sampled_from(AXES), RANGES)
@pytest.mark.slow
def test_a_series_is_the_points_in_the_order_of_its_axis(
    tmp_path_factory: pytest.TempPathFactory,
    run: list[Log],
    key: str,
    x: str,
    range_: tuple[float | None, float | None],
) -> None:
    run_dir = write(tmp_path_factory.mktemp("root") / "p" / "run", run)
    expected = within(points_of(run, key, x), range_)
    found = RunRecord(run_dir).series(key, x=x, range=range_)
    assert (found.y.dtype, len(found.x)) == (np.float64, len(found.y))
    assert all_same(found.x.tolist(), [place for place, _ in expected])
    assert all_same(found.y.tolist(), [value for _, value in expected])


def within(
    points: list[tuple[float, float]], range_: tuple[float | None, float | None]
) -> list[tuple[float, float]]:
    low, high = range_
    return [
        (place, value)
        for place, value in points
        if (low is None or place >= low) and (high is None or place <= high)
    ]


def check_buckets(found: Any, points: list[tuple[float, float]]) -> None:
    """Each stretch against the points that lie in it, looked at one by one."""
    size = len(found.x0)
    for number in range(size):
        inside = [
            value
            for place, value in points
            if (place >= found.x0[number] or number == 0)
            and (place < found.x1[number] or number == size - 1)
        ]
        told = [value for value in inside if not math.isnan(value)]
        assert found.count[number] == len(told)
        assert found.nan[number] == len(inside) - len(told)
        assert found.min[number] == min(told) if told else math.isnan(found.min[number])
        assert found.max[number] == max(told) if told else math.isnan(found.max[number])
        assert same(float(found.last[number]), inside[-1] if inside else math.nan)
        with np.errstate(all="ignore"):
            mean = np.array(told).mean() if told else math.nan
        if math.isfinite(mean):
            size_of = max(map(abs, told))
            assert abs(found.mean[number] - mean) <= 1e-12 * size_of  # sums of other orders
        else:
            assert same(float(found.mean[number]), float(mean))


@EVERY
@given(RUNS, st.sampled_from(KEYS), st.sampled_from(AXES), RANGES, st.integers(1, 7))
@pytest.mark.slow
def test_buckets_are_what_their_points_come_to(
    tmp_path_factory: pytest.TempPathFactory,
    run: list[Log],
    key: str,
    x: str,
    range_: tuple[float | None, float | None],
    points: int,
) -> None:
    run_dir = write(tmp_path_factory.mktemp("root") / "p" / "run", run)
    found = RunRecord(run_dir).buckets(key, x=x, range=range_, points=points)[key]
    assert (np.diff(found.x0) >= 0).all()
    assert len(found.x0) == 0 or (found.x0[1:] == found.x1[:-1]).all()
    inside = within(points_of(run, key, x), range_)
    check_buckets(found, inside)
    assert int(found.count.sum() + found.nan.sum()) == len(inside)


@pytest.mark.parametrize("some", range(8))
@pytest.mark.slow
def test_runs_as_they_mostly_are_are_read_right(tmp_path: Path, some: int) -> None:
    for seed in range(some * 12, some * 12 + 12):
        run, chance = regular(seed), random.Random(seed)
        run_dir = write(tmp_path / "root" / "p" / f"run-{seed}", run)
        record, rows = RunRecord(run_dir), rows_of(run)
        steps = [row["_step"] for row in rows] or [0]
        for key in ("loss", "val/loss", "count", "epoch", "_t"):
            keys = [key, chance.choice(["loss", "epoch"])]
            low, high = sorted(chance.choice(steps) + chance.choice([0, 0.5]) for _ in "ab")
            plain = record.history(keys)
            assert all_same(plain, history.selected(rows, keys, history.View())), seed
            for x in ("step", "time", "epoch", "count"):
                points = points_of(run, key, x)
                asked = chance.choice([(None, None), (low, None), (None, high), (low, high)])
                inside = within(points, asked)
                found = record.series(key, x=x, range=asked)
                assert all_same(list(zip(found.x.tolist(), found.y.tolist(), strict=True)), inside)
                buckets = record.buckets(key, x=x, range=asked, points=chance.randint(1, 9))[key]
                check_buckets(buckets, inside)
                view = history.View(x, asked, chance.choice([None, 5]))
                shown = record.history(keys, x=x, range=asked, points=view.points)
                assert all_same(shown, history.selected(rows, keys, view)), (seed, view)


@pytest.mark.parametrize("step", ["true", "9223372036854775808", "-9223372036854775809"])
def test_steps_that_no_column_holds_are_in_the_history(tmp_path: Path, step: str) -> None:
    content = '{"_step":5,"loss":1.5}\n{"_step":%s,"loss":2.5}\n' % step  # noqa: UP031
    run = [Log(None, [content.encode()])]
    run_dir = write(tmp_path / "root" / "p" / "run", run)
    assert all_same(RunRecord(run_dir).history(["loss"]), rows_of(run))
    assert RunRecord(run_dir).summary == {"loss": rows_of(run)[-1]["loss"]}


def test_the_last_number_is_that_of_the_greatest_step(tmp_path: Path) -> None:
    def content(*steps: int) -> bytes:
        return b"".join(b'{"_step":%d,"loss":%d.5}\n' % (step, step) for step in steps)

    # Nobody said from which step the second session went on.
    run = [Log(None, [content(1, 2, 9)]), Log(None, [content(3, 4)])]
    assert RunRecord(write(tmp_path / "root" / "p" / "a", run)).summary == {"loss": 9.5}
    run = [Log(None, [content(1, 2, 9)]), Log(3, [content(4, 5)])]
    assert RunRecord(write(tmp_path / "root" / "p" / "b", run)).summary == {"loss": 5.5}
    run = [Log(None, [content(1, 2, 9)]), Log(10**400, [])]
    assert RunRecord(write(tmp_path / "root" / "p" / "d", run)).summary == {"loss": 9.5}
    run = [Log(None, [content(1, 2, 9)]), Log(2, [])]
    assert RunRecord(write(tmp_path / "root" / "p" / "c", run)).summary == {"loss": 2.5}


def test_a_stretch_of_nothing_but_nan_keeps_its_last_point() -> None:
    x, rows = np.arange(100.0), np.arange(100)
    values = np.where(rows < 50, np.nan, rows.astype(float))
    kept = history.thin(x, [(rows, values)], 10).tolist()
    assert [row for row in kept if row < 50] == [0, 24, 49]
    assert kept[-1] == 99


@EVERY
@given(RUNS, st.integers(1, 3))
@pytest.mark.slow
def test_of_one_session_all_is_read_and_of_the_others_nothing(
    tmp_path_factory: pytest.TempPathFactory, run: list[Log], number: int
) -> None:
    run_dir = write(tmp_path_factory.mktemp("root") / "p" / "run", run)
    record = RunRecord(run_dir)
    if number > len(run):
        with pytest.raises(UsageError, match=f"'{number}'"):
            record.history(session=number)
        return
    alone = [Log(None, run[number - 1].segments)]
    assert all_same(record.history(session=number), rows_of(alone))
    expected = [row for row in rows_of(alone) if "loss" in row]
    assert all_same([r["loss"] for r in record.history(["loss"], session=number)],
                    [row["loss"] for row in expected])  # fmt: skip
    found = record.series("loss", session=number)
    assert all_same(list(zip(found.x.tolist(), found.y.tolist(), strict=True)),
                    points_of(alone, "loss", "step"))  # fmt: skip


@EVERY
@given(RUNS, st.sampled_from(KEYS), st.sampled_from(AXES), st.integers(1, 12))
@pytest.mark.slow
def test_a_thinned_series_keeps_both_ends_and_the_extremes(
    tmp_path_factory: pytest.TempPathFactory, run: list[Log], key: str, x: str, points: int
) -> None:
    run_dir = write(tmp_path_factory.mktemp("root") / "p" / "run", run)
    record = RunRecord(run_dir)
    whole, thin = record.series(key, x=x), record.series(key, x=x, points=points)
    pairs = list(map(repr, zip(whole.x.tolist(), whole.y.tolist(), strict=True)))
    kept = list(map(repr, zip(thin.x.tolist(), thin.y.tolist(), strict=True)))
    remaining = iter(pairs)
    assert all(pair in remaining for pair in kept)  # in the same order
    assert len(kept) <= max(points, 4)
    if pairs:
        assert (kept[0], kept[-1]) == (pairs[0], pairs[-1])
        for extreme in (np.fmin, np.fmax):  # 0.0 and -0.0 are one extreme
            np.testing.assert_equal(extreme.reduce(thin.y) + 0.0, extreme.reduce(whole.y) + 0.0)
