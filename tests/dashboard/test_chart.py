"""Charts: equal to the record by any route, at any zoom, through restarts and lost messages."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.dashboard.pages import Chart

from cupel.dashboard import chart, frames
from cupel.dashboard.queries import ChartQuery, parse
from cupel.dashboard.store import Store, key_of
from cupel.errors import UsageError
from cupel.record.reader import RunRecord
from cupel.record.session import Session


def started(root: Path, name: str = "one", **config: Any) -> Session:
    """A run that has just begun, in a process of its own as far as the record can tell."""
    session = Session.start(root=root, project="p", name=name, config=config, identity=name)
    session.begin_at(0)
    return session


def make(root: Path, values: list[float], **config: Any) -> str:
    """A finished run with one value a step; its key."""
    session = started(root, **config)
    for step, value in enumerate(values):
        session.log({"loss": value}, step=step)
    session.finish("finished")
    return f"p/{session.run_id}"


def shown(frame: bytes) -> tuple[dict[str, Any], Any, Any, Any, Any]:
    header, arrays = frames.unpack(frame)
    rows, last = arrays[0], arrays[1]
    low, high = (arrays[2], arrays[3]) if header["curves"][0]["band"] else (last, last)
    return header, rows, last, low, high


@pytest.mark.parametrize("px", [16, 100, 1000])
def test_every_stretch_has_the_least_the_greatest_and_the_last_of_its_points(
    tmp_path: Path, px: int
) -> None:
    values = np.random.default_rng(px).normal(size=3000).tolist()
    key = make(tmp_path, values)
    frame, _ = chart.snapshot(Store(tmp_path), ChartQuery(runs=[key], metric="loss", px=px))
    header, rows, last, low, high = shown(frame)
    width = int(header["grid"]["width"])
    assert len(rows) <= px
    assert rows.tolist() == list(range(math.ceil(3000 / width)))
    for row in rows.tolist():
        part = values[row * width : (row + 1) * width]
        told = [float(np.float32(v)) for v in (part[-1], min(part), max(part))]
        assert [float(last[row]), float(low[row]), float(high[row])] == told


@pytest.mark.slow
def test_a_spike_of_one_point_is_seen_at_every_zoom(tmp_path: Path) -> None:
    values = [1.0] * 50_000
    values[31_234] = 9.0
    key, store = make(tmp_path, values), Store(tmp_path)
    low, high = 0.0, 50_000.0
    while high - low > 2:
        query = ChartQuery(runs=[key], metric="loss", low=low, high=high, px=64)
        assert shown(chart.snapshot(store, query)[0])[4].max() == 9.0, (low, high)
        span = (high - low) / 3
        low, high = max(0.0, 31_234 - span * 0.4), 31_234 + span * 0.6


def test_what_is_not_finite_is_marked_and_never_drawn(tmp_path: Path) -> None:
    values = [1.0, math.nan, math.inf, -math.inf, 2.0, math.nan]
    key = make(tmp_path, values)
    header, _, last, low, high = shown(
        chart.snapshot(Store(tmp_path), ChartQuery(runs=[key], metric="loss"))[0]
    )
    assert header["curves"][0]["marks"] == [[1, 1, 0, 0], [2, 0, 1, 0], [3, 0, 0, 1], [5, 1, 0, 0]]
    for column in (last, low, high):
        assert np.isfinite(column).tolist() == [True, False, False, False, True, False]


def test_an_infinity_does_not_hide_what_else_is_in_its_stretch(tmp_path: Path) -> None:
    values = [float(step % 7) for step in range(1000)]
    values[500] = math.inf
    key = make(tmp_path, values)
    query = ChartQuery(runs=[key], metric="loss", px=16)
    header, _, _, low, high = shown(chart.snapshot(Store(tmp_path), query)[0])
    assert (low.min(), high.max()) == (0.0, 6.0)
    assert [mark[1:] for mark in header["curves"][0]["marks"]] == [[0, 1, 0]]


def test_values_that_float32_cannot_tell_apart_are_sent_as_float64(tmp_path: Path) -> None:
    values = [1.7e9 + step for step in range(50)]
    key = make(tmp_path, values)
    _, _, last, _, _ = shown(
        chart.snapshot(Store(tmp_path), ChartQuery(runs=[key], metric="loss"))[0]
    )
    assert last.tolist() == values


def test_a_resumed_run_shows_its_newest_values_and_what_was_left_behind_apart(
    tmp_path: Path,
) -> None:
    session = started(tmp_path)
    for step in range(1, 101):
        session.log({"loss": 1.0}, step=step)
    session.finish("interrupted")
    session = Session.resume(session.run_dir)
    session.begin_at(60)
    for step in range(61, 81):
        session.log({"loss": 2.0}, step=step)
    session.finish("finished")
    query = ChartQuery(runs=[f"p/{session.run_id}"], metric="loss", tails=True)
    header, arrays = frames.unpack(chart.snapshot(Store(tmp_path), query)[0])
    assert [(c["role"], c["session"]) for c in header["curves"]] == [("run", 2), ("tail", 1)]
    rows, newest, tail = arrays
    assert np.nonzero(np.isfinite(newest))[0].tolist() == list(range(80))
    assert newest[rows == 70].tolist() == [2.0]
    assert rows[np.isfinite(tail)].tolist() == list(range(60, 100))  # of steps 61 to 100
    assert [s["session"] for s in header["sessions"][0]["sessions"]] == [1, 2]


@pytest.mark.slow
def test_arms_become_means_with_intervals(tmp_path: Path) -> None:
    for seed in range(3):
        make(tmp_path, [float(seed)] * 10, arm="a", seed=seed)
    store = Store(tmp_path)
    query = ChartQuery(runs=[key_of(row) for row in store.rows()], metric="loss", group="arm")
    header, _, last, low, high = shown(chart.snapshot(store, query)[0])
    (facts,) = header["curves"]
    assert (facts["role"], facts["label"], len(facts["runs"])) == ("group", "a", 3)
    assert last.tolist() == [1.0] * 10
    half = 4.302652729911275 / math.sqrt(3)  # t of 2 degrees of freedom, sd 1
    assert np.allclose(high - 1, half, rtol=1e-6)
    assert np.allclose(1 - low, half, rtol=1e-6)


@pytest.mark.parametrize(
    "query",
    [
        {"kind": "chart", "runs": [], "metric": "loss"},
        {"kind": "chart", "runs": ["p/a"], "metric": "loss", "px": 10**9},
        {"kind": "chart", "runs": ["p/a"], "metric": "loss", "low": 2.0, "high": 1.0},
        {"kind": "chart", "runs": ["p/a"], "metric": "loss", "smooth": 1.0},
        {"kind": "chart", "runs": ["p/a"], "metric": "loss", "odd": 1},
        {"kind": "nothing"},
        [],
        None,
        "x",
    ],
)
def test_what_is_no_query_is_refused_in_one_line(query: Any) -> None:
    with pytest.raises(UsageError) as refused:
        parse(query)
    assert "\n" not in str(refused.value)


# What happens between a server and a page: lines are logged, the run is resumed, the server is
# started anew, the page asks for news; and messages are lost, come twice, or too late.
_happenings = st.lists(
    st.one_of(
        st.tuples(st.just("log"), st.integers(1, 40), st.sampled_from([1, 1, 3, 100])),
        st.tuples(st.just("back"), st.integers(0, 30), st.just(0)),
        st.tuples(st.just("resume"), st.integers(0, 50), st.just(0)),
        st.tuples(st.just("restart"), st.just(0), st.just(0)),
        st.tuples(st.just("news"), st.sampled_from(["taken", "lost", "twice", "late"]), st.just(0)),
    ),
    max_size=25,
)


@settings(max_examples=30)
@given(_happenings, st.sampled_from([16, 64, 800]), st.sampled_from(["step", "time", "relative"]),
       st.booleans())  # fmt: skip
@pytest.mark.slow
def test_whatever_is_lost_or_comes_twice_a_page_ends_with_the_record(
    tmp_path_factory: pytest.TempPathFactory, happenings: Any, px: int, x: str, log_x: bool
) -> None:
    root = tmp_path_factory.mktemp("runs")
    run = started(root)
    key, step, count = f"p/{run.run_id}", 0, 0
    query = ChartQuery(runs=[key], metric="loss", px=px, x=x, log_x=log_x and x == "step")
    page, store, late = Chart(), Store(root), []
    sent: chart.Cursor | None = None  # what the server believes that the page has
    for what, much, stride in happenings:
        if what == "log":
            for _ in range(much):
                step, count = step + stride, count + 1
                run.log({"loss": math.nan if count % 17 == 0 else math.sin(count)}, step=step)
        elif what == "back":
            step = max(0, step - much)
        elif what == "resume":
            run.finish("interrupted")
            step = max(0, step - much)
            run = Session.resume(run.run_dir)
            run.begin_at(step)
        elif what == "restart":
            store, sent = Store(root), chart.cursor_of(page.plain_cursor)
        else:
            found = chart.append(store, query, sent) if sent else chart.snapshot(store, query)
            if found is None:
                continue
            frame, sent = found
            if much == "late":
                late.append(frame)
                continue
            for _ in range({"taken": 1, "lost": 0, "twice": 2}[much]):
                if not page.take(frame):
                    sent = None  # it asks for all of it anew
            for old in late[:1]:
                if not page.take(old):
                    sent = None
                late.clear()
    run.finish("finished")
    # In the end messages arrive again: the page asks with what it has until nothing is new.
    sent = chart.cursor_of(page.plain_cursor)
    for _ in range(3):
        found = chart.append(store, query, sent) if sent else chart.snapshot(store, query)
        if found is None:
            break
        frame, sent = found
        assert page.take(frame)
    assert len(page.rows) <= px
    truth = Chart()
    assert truth.take(chart.snapshot(Store(root), query)[0])
    if page.grid == truth.grid:  # else it is finer than a new page's: it began with less
        assert page.same_as(truth)
    if x == "step" and not query.log_x:
        assert _held(page) == _recorded(run.run_dir, page.grid)


def _held(page: Chart) -> dict[int, Any]:
    """The stretches of a page that have a finite value, by their numbers on the axis."""
    first = page.grid["first"]
    return {
        row + first: tuple(map(repr, held[0]))
        for row, held in page.rows.items()
        if math.isfinite(held[0][1])
    }


def _recorded(run_dir: Path, grid: dict[str, Any]) -> dict[int, Any]:
    """The same, made of the lines as the record's reader has them."""
    found: dict[int, list[float]] = {}
    for row in RunRecord(run_dir).history(["loss"]):
        found.setdefault(int(row["_step"] // grid["width"]), []).append(row["loss"])
    told = {}
    for number, values in found.items():
        if finite := [value for value in values if math.isfinite(value)]:
            last = values[-1]
            three = (last, min(finite), max(finite))
            told[number] = tuple(repr(float(np.float32(value))) for value in three)
    return told


def followed(root: Path, query: ChartQuery, more: Any) -> tuple[Chart, Chart]:
    """What a page has after an append, and what a new one would be sent."""
    store, page, new = Store(root), Chart(), Chart()
    frame, cursor = chart.snapshot(store, query)
    assert page.take(frame)
    more()
    found = chart.append(store, query, cursor)
    if found is not None:
        assert page.take(found[0])
    assert new.take(chart.snapshot(Store(root), query)[0])
    return page, new


def test_a_step_that_is_logged_again_leaves_its_old_place_on_the_clock(tmp_path: Path) -> None:
    session = started(tmp_path)
    for step in range(10):
        session.log({"loss": float(step)}, step=step, t=1.7e9 + 60 * step)
    query = ChartQuery(runs=[f"p/{session.run_id}"], metric="loss", x="time")
    page, new = followed(
        tmp_path, query, lambda: session.log({"loss": 99.0}, step=3, t=1.7e9 + 900)
    )
    assert page.same_as(new)
    session.finish("finished")


def test_a_point_whose_place_comes_after_it_is_shown(tmp_path: Path) -> None:
    session = started(tmp_path)
    for step in range(10):
        session.log({"loss": float(step), "lr": float(step)}, step=step)
    session.log({"loss": 10.0}, step=10)
    query = ChartQuery(runs=[f"p/{session.run_id}"], metric="loss", x="lr")
    page, new = followed(tmp_path, query, lambda: session.log({"lr": 4.5}, step=10))
    assert page.same_as(new)
    session.finish("finished")


def test_a_run_that_gets_its_arm_later_moves_into_its_group(tmp_path: Path) -> None:
    keys = [make(tmp_path, [1.0, 2.0], arm=arm) for arm in ("a", "b")]
    query = ChartQuery(runs=keys, metric="loss", group="arm")
    store = Store(tmp_path)
    frame, cursor = chart.snapshot(store, query)
    old = chart.Cursor(cursor.grid, cursor.first, cursor.last, cursor.runs, "others")
    found = chart.append(store, query, old)
    assert found is not None
    assert frames.unpack(found[0])[0]["type"] == "snapshot"
    assert sorted(c["label"] for c in frames.unpack(frame)[0]["curves"]) == ["a", "b"]


def test_a_run_that_is_asked_for_before_it_has_a_name_is_read_when_it_has(tmp_path: Path) -> None:
    key = make(tmp_path, [1.0])
    path = tmp_path / key / "run.json"
    content = path.read_bytes()
    path.unlink()
    store = Store(tmp_path)
    with store.reading(key) as run:
        assert run.record.problem
    path.write_bytes(content)
    with store.reading(key) as run:
        assert run.record.problem is None
        assert run.record.run["project"] == "p"
