"""A line is whole in the file when `append` returns True; what the disk refuses never raises."""

from __future__ import annotations

import contextlib
import os
import resource
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.record.writer import LineWriter


@contextlib.contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """The kernel then writes short, and refuses what follows: what a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_threads_never_mix_their_lines(tmp_path: Path) -> None:
    writer = LineWriter(tmp_path / "a.jsonl")
    lines = [[f"{thread}-{i}-".encode() * 50 + b"\n" for i in range(300)] for thread in range(4)]
    threads = [
        threading.Thread(target=lambda own=own: list(map(writer.append, own))) for own in lines
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    written = writer.path.read_bytes().splitlines(keepends=True)
    assert sorted(written) == sorted(line for own in lines for line in own)
    assert writer.lost == 0


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
    assert found[-1] == after
    assert len(found) - len(kept) - 1 in (0, 1)
    assert [line for line in found[:-1] if line in kept][: len(kept)] == kept
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


def test_what_stood_in_the_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"old\n")
    writer = LineWriter(path)
    writer.append(b"new\n")
    writer.close()
    assert path.read_bytes() == b"old\nnew\n"
