"""What is printed is in the file, whatever happens to process and terminal; bars are folded."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.record import console
from cupel.record.console import Console, lines
from cupel.record.writer import LineWriter
from fakes import status_of_fork


@contextlib.contextmanager
def heard(
    stdout: io.TextIOBase | None = None, stderr: io.TextIOBase | None = None
) -> Iterator[tuple[list[bytes], list[Exception], Console]]:
    """What a console writes, in pieces, while these are the streams."""
    pieces: list[bytes] = []
    problems: list[Exception] = []
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = stdout or io.StringIO(), stderr or io.StringIO()  # type: ignore[assignment]
    try:
        listening = Console(pieces.append, on_problem=problems.append)
        try:
            yield pieces, problems, listening
        finally:
            listening.stop()
    finally:
        sys.stdout, sys.stderr = before


def shown(pieces: list[bytes]) -> list[str]:
    return lines(b"".join(pieces))


PRINTS_UNTIL_KILLED = """
import sys
from pathlib import Path
from cupel.record.console import Console
from cupel.record.writer import LineWriter
console = Console(LineWriter(Path(sys.argv[1])).append, on_problem=print)
for number in range(10**9):
    print("line", number)
    sys.stderr.write(f"{number}\\n")
    sys.stderr.flush()
"""


def test_a_kill_loses_no_line_that_was_printed(tmp_path: Path) -> None:
    path = tmp_path / "console.log"
    child = subprocess.Popen(
        [sys.executable, "-c", PRINTS_UNTIL_KILLED, path],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stderr is not None
    for _ in range(500):
        said = child.stderr.readline()
    child.kill()
    child.communicate()
    found = lines(path.read_bytes())
    # The print to stderr that was heard of here may not have returned there.
    assert found[: 2 * int(said) + 1] == [
        *(text for number in range(int(said)) for text in (f"line {number}", str(number))),
        f"line {int(said)}",
    ]


def test_a_line_is_written_at_once_and_whole() -> None:
    with heard() as (pieces, problems, listening):
        print("loss", 0.5, "💧\udcff")
        assert pieces == ["loss 0.5 💧\\udcff\n".encode()]
        print("no end", end="")
        print("an error", file=sys.stderr)
        assert pieces[1:] == [b"an error\n"]
        listening.stop()
        assert pieces[2:] == [b"no end\n"]
        listening.stop()
        print("after")
    assert (len(pieces), problems) == (3, [])


plain = st.text(st.characters(exclude_characters="\x08\x1b"), max_size=12)


@settings(deadline=None)
@given(st.lists(plain | st.sampled_from(["\n", "\r", "\r\n"]), max_size=30), st.booleans())
def test_of_a_line_the_last_state_is_kept_and_of_text_everything(
    texts: list[str], every_state: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(console, "BAR_S", 0.0 if every_state else 3600.0)
        with heard() as (pieces, problems, listening):
            for text in texts:
                sys.stdout.write(text)
                listening.tick()
        assert not problems
    printed = "".join(texts).split("\n")
    kept = [next((s for s in reversed(line.split("\r")) if s), "") for line in printed]
    kept = kept if kept[-1] else kept[:-1]
    # Texts that are not Unicode are escaped.
    assert shown(pieces) == [s.encode("utf-8", "backslashreplace").decode() for s in kept]


@given(st.lists(st.text(st.sampled_from("ab\n\r\x08\x1b[]0;12JKHAGm\x07"), max_size=8)), st.data())
def test_no_sequence_of_controls_raises_or_leaves_a_control_in_the_file(
    texts: list[str], data: st.DataObject
) -> None:
    with heard() as (pieces, problems, listening):
        for text in texts:
            sys.stdout.write(text)
            if data.draw(st.booleans()):
                listening.tick()
    assert not problems
    assert b"\x1b" not in b"".join(pieces)
    with heard() as (again, _, _):
        for character in "".join(texts):
            sys.stdout.write(character)
    with heard() as (at_once, _, _):
        sys.stdout.write("".join(texts))
    assert shown(again) == shown(at_once)


def test_a_bar_is_one_line_and_while_it_moves_its_newest_state_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with heard() as (pieces, _, listening):
        print("before")
        for percent in range(101):
            bar = "#" * (percent // 10)
            sys.stderr.write(f"\r{percent:3}%|{bar:10}| \x1b[32mgreen\x1b[0m\x1b[K")
            now[0] += 0.125
        assert shown(pieces)[:2] == ["before", f" 96%|{'#' * 9} | green"]
        assert len(pieces) == 1 + 4
        now[0] += console.BAR_S
        listening.tick()
        listening.tick()
        assert shown(pieces) == ["before", f"100%|{'#' * 10}| green"]
        assert len(pieces) == 1 + 5
        sys.stderr.write("\n")
        print("after")
    assert shown(pieces) == ["before", f"100%|{'#' * 10}| green", "after"]


def test_a_bar_that_is_rubbed_out_leaves_nothing() -> None:
    with heard() as (pieces, _, _):
        sys.stderr.write("\r 50%\r     \r")
        sys.stderr.write("\rdone\n")
        sys.stderr.write("ab\x08\x08cd\n")
    assert shown(pieces) == ["done", "cd"]


def test_displays_of_several_rows_are_written_every_few_seconds_and_at_their_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from rich.console import Console as Terminal
    from rich.live import Live

    with heard() as (pieces, problems, listening):
        terminal = Terminal(file=sys.stdout, force_terminal=True, width=40, legacy_windows=False)
        with Live("first 0\nsecond 0", console=terminal, auto_refresh=False) as live:
            for number in range(1, 50):
                live.update(f"first {number}\nsecond {number}", refresh=True)
                if number == 20:
                    terminal.print("a line between")
            monkeypatch.setattr(console, "BAR_S", 0.0)
            listening.tick()
            assert {"first 49", "second 49", "a line between"} <= set(shown(pieces))
            monkeypatch.undo()
        print("after")
    found = shown(pieces)
    assert not problems
    assert [found.count(line) for line in ("first 49", "second 49", "a line between")] == [1, 1, 1]
    assert len(found) < 10
    assert set(found[-3:]) >= {"after"}


def test_a_very_long_line_is_kept_in_pieces() -> None:
    with heard() as (pieces, _, _):
        sys.stdout.write("x" * (2 * console.LONGEST + 5))
        assert sum(map(len, pieces)) >= 2 * console.LONGEST
        for _ in range(3):
            sys.stdout.write("y" * (console.LONGEST // 2 + 1))
    assert max(map(len, pieces)) <= console.LONGEST + 1
    assert b"".join(pieces).count(b"x") == 2 * console.LONGEST + 5
    assert b"".join(pieces).count(b"y") == 3 * (console.LONGEST // 2 + 1)


def test_keys_of_known_forms_are_masked_and_nothing_that_only_looks_random() -> None:
    heard: list[bytes] = []
    console = Console(heard.append, on_problem=pytest.fail)
    try:
        print("login with hf_" + "aB3" * 12, "and", "Bearer abcdef123456")
        print("git+https://me:pa55word@example.org/x?token=abcdef0123")
        print("commit 0123456789abcdef0123456789abcdef01234567 loss 0.5")
    finally:
        console.stop()
    assert b"".join(heard).decode().splitlines() == [
        "login with *** and Bearer ***",
        "git+https://me:***@example.org/x?token=***",
        "commit 0123456789abcdef0123456789abcdef01234567 loss 0.5",
    ]


def test_streams_stay_what_they_are_and_get_their_write_back(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as out:
        logger = logging.Logger("before")
        logger.addHandler(logging.StreamHandler(out))
        with heard(out) as (pieces, _, _):
            assert sys.stdout is out
            assert (out.isatty(), out.fileno() > 2, out.mode) == (False, True, "w")
            logger.warning("told by a handler that was there before")
            out.writelines(["a\n", "b\n"])
            assert out.write("abc") == 3
            with pytest.raises(TypeError):
                out.write(5)
        assert "write" not in vars(out)
        out.write("\n")
    assert shown(pieces) == ["told by a handler that was there before", "a", "b", "abc"]
    assert (tmp_path / "out").read_text().splitlines() == shown(pieces)


def test_a_write_that_somebody_else_put_there_stays() -> None:
    stream, theirs = io.StringIO(), io.StringIO()
    stream.write = theirs.write  # type: ignore[method-assign]
    with heard(stream) as (pieces, _, _):
        print("one")
    assert stream.write == theirs.write
    with heard(stream) as (pieces, _, _):
        ours = stream.write
        stream.write = later = lambda text: ours(text)  # type: ignore[method-assign]
        print("two")
    assert stream.write is later
    print("three", file=stream)
    assert shown(pieces) == ["two"]
    assert theirs.getvalue() == "one\ntwo\nthree\n"


class Unpatchable:
    __slots__ = ()

    def write(self, text: str) -> int:
        return len(text)


def test_absent_streams_and_such_as_cannot_be_heard_stop_nothing() -> None:
    with heard(stderr=Unpatchable()) as (pieces, problems, _):  # type: ignore[arg-type]
        print("heard")
        print("unheard", file=sys.stderr)
    assert shown(pieces) == ["heard"]
    assert len(problems) == 1
    before = sys.stdout
    sys.stdout = None  # type: ignore[assignment]
    try:
        Console(pytest.fail, on_problem=pytest.fail).stop()
    finally:
        sys.stdout = before


def test_one_stream_under_two_names_is_heard_once() -> None:
    stream = io.StringIO()
    with heard(stream, stream) as (pieces, _, _):
        print("a")
        print("b", file=sys.stderr)
    assert shown(pieces) == ["a", "b"]


def test_a_full_disk_never_reaches_who_prints() -> None:
    writer = LineWriter(Path("/dev/full"))
    stream = io.StringIO()
    stderr, sys.stderr = sys.stderr, stream
    try:
        listening = Console(writer.append, on_problem=pytest.fail)
        for number in range(100):
            print(number, file=sys.stderr)
        listening.stop()
    finally:
        sys.stderr = stderr
    assert stream.getvalue() == "".join(f"{number}\n" for number in range(100))
    assert writer.lost == 100
    writer.close()


def test_a_problem_that_prints_does_not_go_round_in_circles() -> None:
    def refuse(line: bytes) -> None:
        raise OSError("no")

    before, sys.stderr = sys.stderr, io.StringIO()
    told: list[Exception] = []

    def tell(error: Exception) -> None:
        told.append(error)
        print("told", file=sys.stderr)

    try:
        listening = Console(refuse, on_problem=tell)
        print("a", file=sys.stderr)
        assert sys.stderr.getvalue() == "a\ntold\n"
        assert len(told) < 5
        listening._append = lambda line: None
        listening.stop()
    finally:
        sys.stderr = before


@pytest.mark.slow
def test_lines_of_threads_are_whole_and_there_once() -> None:
    interval = sys.getswitchinterval()
    with heard() as (pieces, _, listening):
        gone = threading.Event()

        def tick() -> None:
            while not gone.is_set():
                listening.tick()

        def talk(name: int) -> None:
            for number in range(1000):
                sys.stdout.write(f"{name}-{number}\n")

        ticking = threading.Thread(target=tick)
        threads = [threading.Thread(target=talk, args=(name,)) for name in range(8)]
        sys.setswitchinterval(1e-6)
        try:
            for thread in (ticking, *threads):
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            sys.setswitchinterval(interval)
            gone.set()
        ticking.join()
        found = shown(pieces)
    assert sorted(found) == sorted(f"{n}-{i}" for n in range(8) for i in range(1000))
    for name in range(8):  # in the file when write returned, so in the order of each
        assert [line for line in found if line.startswith(f"{name}-")] == [
            f"{name}-{number}" for number in range(1000)
        ]


def test_what_another_thread_is_printing_at_the_end_is_kept_and_nothing_after_it() -> None:
    with heard() as (pieces, _, listening):
        stream = sys.stdout
        thread = threading.Thread(target=lambda: [stream.write("first\n"), stream.write("late\n")])
        with listening._lock:
            thread.start()
            until = time.monotonic() + 10
            while not listening._waiting and time.monotonic() < until:
                time.sleep(0.001)
            listening.tick()
            listening.stop()
        thread.join()
    assert pieces == [b"first\n"]


def test_a_print_that_meets_the_end_writes_nothing_after_it() -> None:
    class StopsFirst(deque):  # type: ignore[type-arg]
        def append(self, given: object) -> None:
            listening.stop()
            super().append(given)

    with heard() as (pieces, _, listening):
        listening._waiting = StopsFirst()
        sys.stdout.write("late\n")
    assert pieces == []


def test_a_tick_does_not_wait_for_a_print_that_hangs() -> None:
    with heard() as (_, _, listening):
        held, over = threading.Event(), threading.Event()

        def hold() -> None:
            with listening._lock:
                held.set()
                over.wait(20)

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        began = time.monotonic()
        listening.tick()
        assert time.monotonic() - began < 5
        over.set()
        thread.join()


def test_a_signal_handler_may_print_in_the_midst_of_printing() -> None:
    count = [0]

    def handler(*_: object) -> None:
        count[0] += 1
        sys.stdout.write("signal\n")

    previous = signal.signal(signal.SIGALRM, handler)
    try:
        with heard() as (pieces, problems, _):
            signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
            for _ in range(3000):
                sys.stdout.write("a line of the loop\n")
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert not problems
    assert count[0] > 0
    assert (shown(pieces).count("signal"), len(pieces)) == (count[0], 3000 + count[0])
    assert shown(pieces).count("a line of the loop") == 3000


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_prints_and_is_not_heard(tmp_path: Path) -> None:
    """Also when another thread was printing at the fork, whose lock nobody gives back."""
    fd = os.open(tmp_path / "console.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    held, over = threading.Event(), threading.Event()
    with (tmp_path / "out").open("w") as out:
        before, sys.stdout = sys.stdout, out
        try:
            listening = Console(lambda line: os.write(fd, line), on_problem=pytest.fail)

            def hold() -> None:
                with listening._lock:
                    held.set()
                    over.wait(30)

            thread = threading.Thread(target=hold)
            thread.start()
            held.wait()

            def work() -> None:
                print("child", flush=True)
                listening.stop()

            status = status_of_fork(work)
            over.set()
            thread.join()
            print("parent")
            listening.stop()
        finally:
            sys.stdout = before
    os.close(fd)
    assert status == 0, "the child hangs" if status is None else "the child failed"
    assert (tmp_path / "console.log").read_text() == "parent\n"
    assert (tmp_path / "out").read_text() == "child\nparent\n"


@given(st.binary())
def test_any_file_has_lines(data: bytes) -> None:
    assert all("\n" not in line and "\r" not in line for line in lines(data))
    assert len(lines(data)) <= data.count(b"\n") + 1


def test_hearing_a_line_costs_little() -> None:
    with heard() as (_, _, _):
        costs = []
        for _ in range(2000):
            began = time.perf_counter()
            sys.stdout.write("step 1234 loss 0.123456\n")
            costs.append(time.perf_counter() - began)
    assert sorted(costs)[len(costs) // 2] < 100e-6
