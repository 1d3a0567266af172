"""A line is whole in the file when `append` returns True; what the disk refuses never raises."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.record import files, writer
from cupel.record.writer import LineWriter

WRITES_FOREVER = """
import sys
from pathlib import Path
from cupel.record.writer import LineWriter
writer = LineWriter(
    Path(sys.argv[1]), name_of=lambda number: f"a.{number:03d}.jsonl", segment_bytes=2000
)
for number in range(10**9):
    writer.append(b"%d\\n" % number)
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
"""


@contextlib.contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """The kernel then writes short, and refuses what follows: what a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def name_of(number: int) -> str:
    return f"a.{number:03d}.jsonl"


def rolling(where: Path, segment_bytes: int, **more: object) -> LineWriter:
    return LineWriter(
        where / name_of(0),
        name_of=name_of,
        segment_bytes=segment_bytes,
        **more,  # type: ignore[arg-type]
    )


def contents(folder: Path) -> list[bytes]:
    """The content of each segment, oldest first."""
    return [path.read_bytes() for path in sorted(folder.glob("a.*.jsonl"))]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 64 KiB; mounting one needs the right to."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", disk], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"mounting a small tmpfs is not permitted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.parametrize("segment_bytes", [writer.SEGMENT_BYTES, 5000])
def test_threads_never_mix_their_lines(tmp_path: Path, segment_bytes: int) -> None:
    one = rolling(tmp_path, segment_bytes)
    lines = [[f"{thread}-{i}-".encode() * 50 + b"\n" for i in range(300)] for thread in range(8)]
    done = threading.Event()

    def keep_syncing() -> None:
        while not done.is_set():
            one.sync()

    threads = [threading.Thread(target=lambda own=own: list(map(one.append, own))) for own in lines]
    syncing = threading.Thread(target=keep_syncing)
    for thread in (syncing, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    syncing.join()
    written = b"".join(contents(tmp_path)).splitlines(keepends=True)
    assert sorted(written) == sorted(line for own in lines for line in own)
    assert one.lost == 0
    one.close()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=30), st.integers(1, 100), st.booleans())
@pytest.mark.slow
def test_a_segment_is_full_once_it_has_passed_its_size(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], size: int, held: bool
) -> None:
    folder = tmp_path_factory.mktemp("segments")
    fd = files.open_folder(folder) if held else None
    one = rolling(folder, size, folder=fd)
    lines = [b"x" * length + b"\n" for length in lengths]
    for line in lines:
        assert one.append(line)
        if len(line) % 3 == 0:
            one.sync()
    found = contents(folder)
    assert b"".join(found) == b"".join(lines)
    assert all(len(segment) >= size for segment in found[:-1])
    assert all(len(segment) - len(segment.splitlines()[-1]) - 1 < size for segment in found)
    assert one.path == folder / name_of(len(found) - 1)
    one.sync()
    one.close()
    if fd is not None:
        os.close(fd)


def test_segments_leave_no_descriptors_open(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    one = rolling(tmp_path, 1)
    for number in range(50):
        one.append(b"%d\n" % number)
        if number % 2:
            one.sync()
            assert len(list(Path("/proc/self/fd").iterdir())) == before + 1
    one.append(b"\n")
    one.close()
    assert len(contents(tmp_path)) == 51
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_segment_that_cannot_be_opened_loses_nothing_and_is_told_once(tmp_path: Path) -> None:
    one = rolling(tmp_path, 100)
    (tmp_path / name_of(1)).mkdir()
    for _ in range(12):
        assert one.append(b"x" * 19 + b"\n")
    assert len((tmp_path / name_of(0)).read_bytes()) == 240
    with pytest.raises(IsADirectoryError):
        one.sync()
    one.sync()
    (tmp_path / name_of(1)).rmdir()
    for _ in range(4):
        assert one.append(b"x" * 19 + b"\n")
    assert one.path == tmp_path / name_of(1)
    assert sum(map(len, contents(tmp_path))) == 320
    one.close()


def test_a_segment_goes_where_its_folder_was_moved(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    fd = files.open_folder(tmp_path / "old")
    one = rolling(tmp_path / "old", 1, folder=fd)
    one.append(b"1\n")
    (tmp_path / "old").rename(tmp_path / "new")
    one.append(b"2\n")
    one.sync()
    one.close()
    os.close(fd)
    assert contents(tmp_path / "new") == [b"1\n", b"2\n"]
    assert not (tmp_path / "old").exists()


def test_a_link_in_the_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "a.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"):
        LineWriter(tmp_path / "run" / "a.jsonl")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("times", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_a_kill_while_segments_roll_loses_nothing(tmp_path: Path, times: int) -> None:
    for trial in range(times):
        folder = tmp_path / str(trial)
        folder.mkdir()
        child = subprocess.Popen(
            [sys.executable, "-c", WRITES_FOREVER, folder / name_of(0)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(random.uniform(0, 0.1))
        child.kill()
        told = child.communicate()[0].splitlines()
        last = int(told[-2]) if len(told) > 1 else 0  # the very last one may be cut short
        lines = b"".join(contents(folder)).splitlines()
        assert lines[: last + 1] == [b"%d" % number for number in range(last + 1)]


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=12), st.integers(1, 400))
def test_a_full_disk_damages_one_line_and_counts_every_lost_one(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], room: int
) -> None:
    writer = LineWriter(tmp_path_factory.mktemp("writer") / "a.jsonl")
    lines = [b"x" * length + b"\n" for length in lengths]
    with files_no_larger_than(room):
        taken = [writer.append(line) for line in lines]
    after = b"after\n"
    assert writer.append(after)
    found = writer.path.read_bytes().splitlines(keepends=True)
    kept = [line for line, ok in zip(lines, taken, strict=True) if ok]
    assert writer.lost == taken.count(False)
    assert (writer.first_error is None) == all(taken)
    assert found == [*kept, after], "what a full disk took of a line is taken back"
    writer.close()


def test_a_closed_writer_counts_and_does_not_write(tmp_path: Path) -> None:
    writer = LineWriter(tmp_path / "a.jsonl")
    assert writer.append(b"1\n")
    writer.sync()
    writer.close()
    writer.close()
    writer.sync()
    assert not writer.append(b"2\n")
    assert (writer.lost, str(writer.first_error)) == (1, "the session is finished")
    assert writer.path.read_bytes() == b"1\n"


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_does_not_write_into_its_parents_file(tmp_path: Path) -> None:
    writer = LineWriter(tmp_path / "a.jsonl")
    child = os.fork()
    if child == 0:
        refused = not writer.append(b"child\n") and writer.lost == 1
        os._exit(0 if refused and "forked" in str(writer.first_error) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert writer.append(b"parent\n")
    assert writer.path.read_bytes() == b"parent\n"
    writer.close()


def test_a_disk_that_is_freed_takes_lines_again_and_only_the_count_is_lost(
    small_disk: Path,
) -> None:
    one = LineWriter(small_disk / "a.jsonl")
    lines = [b"%05d" % number + b"x" * 94 + b"\n" for number in range(2000)]
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * 30_000)
    taken = []
    for number, line in enumerate(lines):
        if number == 1000:
            filler.unlink()
        taken.append(one.append(line))
        if number == 1200:
            break
    assert not all(taken[:1000])
    assert all(taken[1000:]), "after freeing every line is taken"
    assert one.lost == taken.count(False) > 0
    assert "No space left" in str(one.first_error)
    found = one.path.read_bytes().splitlines(keepends=True)
    assert found == [line for line, ok in zip(lines, taken, strict=False) if ok]
    one.sync()
    one.close()


def test_a_disk_that_is_full_again_and_again_leaves_no_piece_of_a_line(tmp_path: Path) -> None:
    one = LineWriter(tmp_path / "a.jsonl")
    taken = []
    for room in range(10, 400, 7):  # a byte more than whole lines, nine more, and all between
        with files_no_larger_than(room):
            taken += [one.append(b"%08d\n" % room) for _ in range(3)]
    found = one.path.read_bytes()
    assert (found.count(b"\n"), len(found)) == (taken.count(True), 9 * taken.count(True))
    assert one.lost == taken.count(False) > 50
    one.close()


def test_what_a_signal_handler_wrote_into_the_midst_of_a_line_is_not_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = LineWriter(tmp_path / "a.jsonl")
    real, calls = os.write, iter(range(3))

    def write(fd: int, data: bytes) -> int:
        match next(calls, None):
            case 0:  # a short write, and then the handler
                written = real(fd, data[:4])
                monkeypatch.setattr(os, "write", real)
                assert one.append(b"of the handler\n")
                monkeypatch.setattr(os, "write", write)
                return written
            case _:
                raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", write)
    assert not one.append(b"interrupted\n")
    monkeypatch.setattr(os, "write", real)
    assert one.append(b"after\n")
    assert one.path.read_bytes().splitlines() == [b"inte", b"of the handler", b"after"]
    one.close()


def test_no_room_and_a_broken_disk_are_counted_and_raise_nothing() -> None:
    full = LineWriter(Path("/dev/full"))
    broken = LineWriter(Path("/proc/self/mem"))  # writing to address 0 is an error of the device
    for one, told in ((full, "No space left on device"), (broken, "Input/output error")):
        assert [one.append(b"line\n") for _ in range(3)] == [False] * 3
        assert one.lost == 3
        assert told in str(one.first_error)
        one.sync()  # there is nothing that it could lose
        one.close()


def test_a_piece_of_a_line_that_stood_there_is_ended_first(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"whole\ntor")
    one = LineWriter(path)
    one.append(b"new\n")
    one.append(b"newer\n")
    one.close()
    assert path.read_bytes() == b"whole\ntor\nnew\nnewer\n"


@pytest.mark.parametrize("durability,synced", [("sync", [0, 1, 2, 3]), ("process", [0, 0, 0, 0])])
def test_what_is_durable_is_synced_when_append_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durability: str, synced: list[int]
) -> None:
    calls: list[int] = []

    def count(fd: int) -> None:
        os.fdatasync(fd)
        calls.append(fd)

    monkeypatch.setattr(writer, "_sync", count)
    one = rolling(tmp_path, 4, durability=durability)
    found = [len(calls)]
    for number in range(3):
        assert one.append(b"%d\n" % number)
        found.append(len(calls))
    assert found == synced
    one.close()


def test_a_line_that_cannot_be_made_durable_counts_as_lost() -> None:
    one = LineWriter(Path("/dev/null"), durability="sync")  # fdatasync of it is refused
    assert not one.append(b"line\n")
    assert (one.lost, type(one.first_error)) == (1, OSError)
    one.close()


def test_a_file_that_was_deleted_is_told_and_its_lines_count_as_lost(tmp_path: Path) -> None:
    one = LineWriter(tmp_path / "a.jsonl")
    one.append(b"1\n")
    one.sync()
    one.path.unlink()
    for _ in range(2):
        one.append(b"2\n")
        one.append(b"3\n")
        with pytest.raises(FileNotFoundError, match=r"a\.jsonl was deleted, or moved"):
            one.sync()
    assert one.lost == 4
    one.close()


def test_what_stood_in_the_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"old\n")
    writer = LineWriter(path)
    writer.append(b"new\n")
    writer.close()
    assert path.read_bytes() == b"old\nnew\n"


def check_told(made: LineWriter, where: Path, *, surely: bool = True) -> None:
    """What is told of every segment is true of it, and (`surely`) of all with a checksum."""
    told = made.files()
    assert set(told) == {path.name for path in where.iterdir()}
    for name, facts in told.items():
        content = (where / name).read_bytes()
        assert facts["bytes"] == len(content), name
        assert facts.get("crc32", zlib.crc32(content)) == zlib.crc32(content), name
        assert "crc32" in facts or not surely, name


@settings(deadline=None, max_examples=30)
@given(st.lists(st.binary(max_size=40), max_size=30), st.integers(1, 200))
def test_what_was_written_is_told_of_every_segment(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], segment_bytes: int
) -> None:
    where = tmp_path_factory.mktemp("told")
    made = rolling(where, segment_bytes)
    check_told(made, where)
    for line in lines:
        made.append(line + b"\n")
    check_told(made, where)
    made.close()
    check_told(made, where)
    assert not made.append(b"too late\n")
    check_told(made, where)


def test_what_a_full_disk_took_back_leaves_the_checksum_and_a_piece_that_stays_none(
    tmp_path: Path,
) -> None:
    made = LineWriter(tmp_path / "a")
    made.append(b"one\n")
    with files_no_larger_than(6):
        assert not made.append(b"two, too long\n")
    made.append(b"three\n")
    check_told(made, tmp_path)
    assert made.files()["a"]["bytes"] == len(b"one\nthree\n")
    with (tmp_path / "a").open("ab") as other:  # so that what is cut off cannot be taken back
        other.write(b"x")
    with files_no_larger_than(14):
        assert not made.append(b"four, too long\n")
    assert "crc32" not in made.files()["a"]
    made.append(b"five\n")
    check_told(made, tmp_path, surely=False)
    assert "crc32" not in made.files()["a"]


def test_of_a_file_that_stood_there_before_no_checksum_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"before\n")
    made = LineWriter(tmp_path / "a")
    made.append(b"one\n")
    assert made.files() == {"a": {"bytes": len(b"before\none\n")}}


@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.slow
def test_what_is_told_is_true_after_signals_at_any_moment(tmp_path: Path, raises: bool) -> None:
    """A handler that logs, or one that raises as that of Ctrl-C does, between any two operations.

    Seen to fail with a size and a checksum that ignore lines in whose midst something else came.
    """
    made = rolling(tmp_path, 20_000)
    calls, inside = 0, False

    def handler(number: int, frame: object) -> None:
        nonlocal calls, inside
        calls += 1
        if raises and inside:
            inside = False
            raise KeyboardInterrupt
        made.append(b"from the handler %d\n" % calls)

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.003)
    try:
        number, until = 0, time.monotonic() + 1.5
        while time.monotonic() < until:
            with contextlib.suppress(KeyboardInterrupt):
                inside = True
                made.append(b"line %d\n" % (number := number + 1))
                inside = False
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert calls > 100
    check_told(made, tmp_path, surely=False)
    assert sum("crc32" in facts for facts in made.files().values()) > 1
    made.close()
    check_told(made, tmp_path, surely=False)
