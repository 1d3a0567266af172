"""Who follows a run sees every line once and in order, whatever the writer does meanwhile."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arbitrary_logs import RUNS, Log, lines_of, write
from cupel.errors import UsageError
from cupel.record import layout
from cupel.record import tail as tail_module
from cupel.record.session import Session
from cupel.record.tail import Tail

Told = list[tuple[int, int, dict[str, Any]]]

WRITER = """
import os, random, sys
from pathlib import Path
from cupel.record import layout
from cupel.record import tail as tail_module
from cupel.record.codec import encode_step
from cupel.record.writer import LineWriter

run_dir, number, first = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
folder = layout.session_dir(run_dir, number)
folder.mkdir(parents=True)
writer = LineWriter(folder / layout.metrics_name(), name_of=lambda n: layout.metrics_name(0, n),
                    segment_bytes=20_000)
print("ready", flush=True)
chance = random.Random(number)
for step in range(first, 10**9):
    line = encode_step(step, 0.5, {"session": number, "long": [0.5] * chance.randrange(90)})
    if chance.random() < 0.05:  # a line that comes in two pieces
        cut = chance.randrange(1, len(line))
        os.write(writer._fd, line[:cut])
        os.write(writer._fd, line[cut:])
    else:
        writer.append(line)
"""


@pytest.mark.slow
def test_a_follower_of_killed_writers_sees_every_line_once(tmp_path: Path) -> None:
    run_dir = tmp_path / "p" / "run"
    tail, told = Tail(run_dir), []
    assert tail.poll() == []
    for number in (1, 2, 3):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, run_dir, str(number), str(number * 10**6)],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        end = time.monotonic() + 0.4
        while time.monotonic() < end:
            told += tail.poll(most=200)
            assert tail.replaced == []
            tail = Tail(run_dir, json.loads(json.dumps(tail.cursor)))  # as over HTTP
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
    while more := tail.poll():
        told += more
    expected = [
        (number, 0, line)
        for number in (1, 2, 3)
        for path in layout.segments(layout.session_dir(run_dir, number), "metrics")
        for line in lines_of(path.read_bytes())
    ]
    assert told == expected
    assert len(expected) > 1000
    assert len(layout.segments(layout.session_dir(run_dir, 1), "metrics")) > 2
    for number in (1, 2, 3):
        steps = [line["_step"] for session, _, line in told if session == number]
        assert steps == list(range(number * 10**6, number * 10**6 + len(steps)))


@settings(deadline=None, max_examples=50)
@given(RUNS, st.data())
@pytest.mark.slow
def test_any_growth_in_any_pieces_is_told_once(
    tmp_path_factory: pytest.TempPathFactory, run: list[Log], data: st.DataObject
) -> None:
    run_dir = write(tmp_path_factory.mktemp("root") / "p" / "run", [])
    tail, told = Tail(run_dir), []
    for number, log in enumerate(run, start=1):
        folder = layout.session_dir(run_dir, number)
        folder.mkdir(parents=True)
        for segment, content in enumerate(log.segments):
            path = folder / layout.metrics_name(0, segment)
            path.touch()
            written = 0
            while written < len(content):
                cut = data.draw(st.integers(written + 1, len(content)))
                with path.open("ab") as file:
                    file.write(content[written:cut])
                written = cut
                told += tail.poll(most=data.draw(st.none() | st.integers(1, 3)))
                if data.draw(st.booleans()):
                    tail = Tail(run_dir, json.loads(json.dumps(tail.cursor)))
                assert tail.replaced == []
    while more := tail.poll(most=2):
        told += more
    expected = [
        (number, 0, line)
        for number, log in enumerate(run, start=1)
        for segment in log.segments
        for line in lines_of(segment)
    ]
    assert repr(told) == repr(expected)


@settings(deadline=None, max_examples=60)
@given(RUNS, st.integers(0, 12), st.integers(0, 40), st.sampled_from([5, 64 * 1024]))
@pytest.mark.slow
def test_the_end_of_a_run_is_what_polling_all_of_it_ends_with(
    tmp_path_factory: pytest.TempPathFactory, run: list[Log], last: int, late: int, block: int
) -> None:
    run_dir = write(tmp_path_factory.mktemp("root") / "p" / "run", run)
    whole = Tail(run_dir)
    polled = whole.poll()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tail_module, "_BLOCK", block)
        tail, found = Tail.at_end(run_dir, last=last)
    assert repr(found) == repr(polled[max(0, len(polled) - last) :] if last else [])
    assert tail.cursor == whole.cursor
    for log, number in zip(run, range(1, 9), strict=False):
        for segment, _ in enumerate(log.segments):
            path = layout.session_dir(run_dir, number) / layout.metrics_name(0, segment)
            with path.open("ab") as file:
                file.write(b"\n" + lines(late))
    assert repr(tail.poll()) == repr(whole.poll())
    assert tail.replaced == []


def test_the_end_of_a_long_run_is_not_all_read(tmp_path: Path) -> None:
    content = lines(*range(200_000))
    run_dir = write(tmp_path / "p" / "run", [Log(0, [content, lines(7) + b'{"_step":8'])])
    session = layout.session_dir(run_dir, 1)
    (session / layout.metrics_name(1)).write_bytes(lines(99))
    first = session / layout.metrics_name(0, 0)
    with first.open("r+b") as file:
        file.write(b"not" * 1000)  # whoever decodes this counts damage
    tail, found = Tail.at_end(run_dir, last=3, rank=0)
    assert [(rank, line["_step"]) for _, rank, line in found] == [
        (0, 199_998),
        (0, 199_999),
        (0, 7),
    ]
    assert tail.damaged == 0
    with (session / layout.metrics_name(0, 1)).open("ab") as file:
        file.write(b"}\n")
    assert [line["_step"] for _, _, line in tail.poll()] == [8]
    assert (tail.damaged, tail.replaced) == (0, [])


def follow(run_dir: Path, cursor: Any = None) -> tuple[list[int], Tail]:
    tail = Tail(run_dir, cursor)
    return [line["_step"] for _, _, line in tail.poll()], tail


def lines(*steps: int) -> bytes:
    return b"".join(b'{"_step":%d,"_t":1.0}\n' % step for step in steps)


@pytest.mark.parametrize("fresh", [False, True], ids=["same tail", "from its cursor"])
@pytest.mark.parametrize(
    ("content", "steps"),
    [(lines(1, 2), [1, 2]), (lines(7, 8, 9), [7, 8, 9]), (lines(1, 2, 9, 4), [1, 2, 9, 4])],
    ids=["cut short", "replaced by as much", "replaced by more"],
)
def test_a_file_that_is_another_one_is_told_and_read_again(
    tmp_path: Path, content: bytes, steps: list[int], fresh: bool
) -> None:
    run_dir = write(tmp_path / "p" / "run", [Log(0, [lines(1, 2, 3)])])
    path = layout.session_dir(run_dir, 1) / layout.metrics_name()
    first, tail = follow(run_dir)
    assert first == [1, 2, 3]
    (tmp_path / "other").write_bytes(content)
    (tmp_path / "other").replace(path)
    tail = Tail(run_dir, tail.cursor) if fresh else tail
    assert [line["_step"] for _, _, line in tail.poll()] == steps
    assert tail.replaced == ["0001/metrics.r0.000.jsonl"]
    assert tail.poll() == []
    assert tail.replaced == []


def test_a_run_that_is_deleted_is_told(tmp_path: Path) -> None:
    run_dir = write(tmp_path / "p" / "run", [Log(0, [lines(1, 2, 3)])])
    _, tail = follow(run_dir)
    run_dir.rename(tmp_path / "gone")
    assert tail.poll() == []
    assert tail.replaced == ["0001/metrics.r0.000.jsonl"]
    (tmp_path / "gone").rename(run_dir)
    assert len(tail.poll()) == 3


def test_ranks_and_events_are_followed_too(tmp_path: Path) -> None:
    session = Session.start(root=tmp_path, project="p", name="n", config={}, identity="i")
    other = Session.join(session.run_dir, 1, 1)
    session.log({"loss": 1.0}, step=1)
    other.log({"loss": 2.0}, step=1)
    events = Tail(session.run_dir, kind="events")
    events.poll()
    session.event("alert", title="hot")
    told: Told = Tail(session.run_dir).poll()
    assert [(number, rank, line["loss"]) for number, rank, line in told] == [
        (1, 0, 1.0),
        (1, 1, 2.0),
    ]
    assert [line["title"] for _, _, line in events.poll()] == ["hot"]
    other.finish("finished")
    session.finish("finished")
    with pytest.raises(UsageError, match="a cursor of events, and metrics are followed"):
        Tail(session.run_dir, events.cursor)


def test_damaged_lines_are_counted_and_passed_over(tmp_path: Path) -> None:
    content = lines(1) + b"\0\0\0\n{}\n" + lines(2) + b'{"_step":3'
    run_dir = write(tmp_path / "p" / "run", [Log(0, [content])])
    steps, tail = follow(run_dir)
    assert (steps, tail.damaged) == ([1, 2], 2)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(deadline=None)
@given(
    PLAIN
    | st.fixed_dictionaries({"kind": st.just("metrics"), "files": PLAIN})
    | st.fixed_dictionaries(
        {"kind": st.just("metrics"), "files": st.dictionaries(st.text(), st.tuples(PLAIN, PLAIN))}
    )
)
@pytest.mark.slow
def test_garbage_for_a_cursor_is_refused_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, cursor: Any
) -> None:
    run_dir = write(tmp_path_factory.mktemp("root") / "p" / "run", [Log(0, [lines(1, 2)])])
    try:
        tail = Tail(run_dir, cursor)
    except UsageError as refused:
        told = str(refused)
        assert "\n" not in told
        return
    assert [line["_step"] for _, _, line in tail.poll()] == [1, 2]


def test_a_place_that_never_was_is_read_from_the_start(tmp_path: Path) -> None:
    run_dir = write(tmp_path / "p" / "run", [Log(0, [lines(1, 2)])])
    cursor = {"kind": "metrics", "files": {"0001/metrics.r0.000.jsonl": [5, "00"]}}
    steps, tail = follow(run_dir, cursor)
    assert (steps, tail.replaced) == ([1, 2], ["0001/metrics.r0.000.jsonl"])
    with pytest.raises(UsageError, match="before the start of a file"):
        Tail(run_dir, {"kind": "metrics", "files": {"a": [-1, ""]}})
