"""A JSON file is whole or not there, whoever is killed, and is created once, whoever races."""

from __future__ import annotations

import math
import multiprocessing
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.errors import RecordError
from cupel.record import files

REWRITES_FOREVER = """
import sys
from pathlib import Path
from cupel.record import files
for i in range(10**9):
    files.write_json(Path(sys.argv[1]), {"i": i, "filling": ["x" * 100] * 2000, "same": i})
"""


def test_a_document_comes_back_and_is_readable_by_people(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"schema": 1, "loss": math.inf, "tags": ["a"]})
    assert files.read_json(path) == {"schema": 1, "loss": math.inf, "tags": ["a"]}
    assert '\n  "loss": "Infinity",\n' in path.read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("times", [4, pytest.param(40, marks=pytest.mark.slow)])
def test_a_kill_in_the_middle_of_writing_never_leaves_half_a_file(
    tmp_path: Path, times: int
) -> None:
    """Mutation: `write_bytes` writes in place.

        -    temporary = _written_beside(path, content)
        +    path.write_bytes(content); return

    Then a reader was told, before the first kill: `a.json is damaged: Input data was truncated`.
    """
    path = tmp_path / "a.json"
    for _ in range(times):
        path.unlink(missing_ok=True)
        child = subprocess.Popen([sys.executable, "-c", REWRITES_FOREVER, path])
        while not path.exists():
            time.sleep(0.005)
        kill_at = time.monotonic() + random.uniform(0.05, 0.1)
        while time.monotonic() < kill_at:  # whole for a reader at every moment before, too
            files.read_json(path)
        child.kill()
        child.wait()
        found = files.read_json(path)
        assert found["i"] == found["same"]
        files.sweep(tmp_path)
        assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def _create(path: Path, number: int, barrier: object, won: object) -> None:
    barrier.wait()  # type: ignore[attr-defined]
    if files.create_json_exclusively(path, {"by": number}):
        won.put(number)  # type: ignore[attr-defined]


@pytest.mark.parametrize("hard_links", [True, False])
@pytest.mark.slow
def test_exclusive_creation_has_exactly_one_winner(
    tmp_path: Path, hard_links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hard_links:  # as on FAT
        monkeypatch.setattr(os, "link", _no_links)
    context = multiprocessing.get_context("fork")
    barrier, won = context.Barrier(4), context.SimpleQueue()
    path = tmp_path / "results.json"
    racers = [context.Process(target=_create, args=(path, i, barrier, won)) for i in range(4)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    winner = won.get()
    assert won.empty()
    assert files.read_json(path) == {"by": winner}
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def _no_links(*_: object) -> None:
    raise PermissionError(1, "Operation not permitted")


@settings(deadline=None, max_examples=40)
@given(st.binary())
def test_a_damaged_file_is_named(tmp_path_factory: pytest.TempPathFactory, garbage: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.json"
    path.write_bytes(garbage[1:] if garbage[:1] == b"{" else garbage)
    with pytest.raises(RecordError, match=r"damaged\.json is damaged: .*restore"):
        files.read_json(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"cannot read .*absent\.json: No such file"):
        files.read_json(tmp_path / "absent.json")


def test_what_is_not_json_leaves_the_old_file_and_no_temporary(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"old": True})
    with pytest.raises(TypeError):
        files.write_json(path, {"new": object()})
    assert files.read_json(path) == {"old": True}
    assert len(list(tmp_path.iterdir())) == 1


def test_sweep_takes_what_the_dead_left_and_nothing_of_the_living(tmp_path: Path) -> None:
    mine = tmp_path / files.temporary_name("mine")
    name = "from cupel.record import files; print(files.temporary_name('of-the-dead'))"
    dead = subprocess.run([sys.executable, "-c", name], capture_output=True, text=True, check=True)
    of_the_dead = tmp_path / dead.stdout.strip()
    foreign, old_foreign = tmp_path / ".tmp-x~00000000~1~1~aa", tmp_path / ".tmp-y~00000000~1~1~aa"
    trash, other = tmp_path / ".trash-z~aa", tmp_path / "data"
    for folder in (mine, of_the_dead, foreign, old_foreign, trash, other):
        folder.mkdir()
        (folder / "file").write_text("x")
    long_ago = time.time() - 4000
    for path in (old_foreign / "file", old_foreign):
        os.utime(path, (long_ago, long_ago))
    assert set(files.sweep(tmp_path)) == {of_the_dead, old_foreign, trash}
    assert set(tmp_path.iterdir()) == {mine, foreign, other}
    assert files.sweep(tmp_path / "absent") == []


def test_an_open_folder_tells_where_it_was_moved_to(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    folder = files.open_folder(tmp_path / "old")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "old")
    assert files.place_of(folder, tmp_path / "old") == tmp_path / "old"
    assert files.place_of(folder, link) == link, "a name that leads there stays"
    (tmp_path / "old").rename(tmp_path / "new \n💧")
    assert files.place_of(folder, tmp_path / "old") == tmp_path / "new \n💧"
    (tmp_path / "old").mkdir()  # another one in its place
    assert files.place_of(folder, tmp_path / "old") == tmp_path / "new \n💧"
    (tmp_path / "new \n💧").rmdir()
    assert files.place_of(folder, tmp_path / "old") == tmp_path / "old", "the last that was known"
    os.close(folder)
    with pytest.raises(NotADirectoryError):
        files.open_folder(Path(__file__))


def test_a_sweep_takes_a_link_and_never_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("x")
    (tmp_path / "run").mkdir()
    links = [tmp_path / "run" / name for name in (".trash-a", ".tmp-a")]
    for link in links:
        link.symlink_to(tmp_path / "kept")
        os.utime(link, (0, 0), follow_symlinks=False)
    assert files.sweep(tmp_path / "run") == sorted(links)
    assert not list((tmp_path / "run").iterdir())
    assert (tmp_path / "kept" / "file").read_text() == "x"


def test_a_file_that_the_disk_refuses_leaves_nothing_behind(tmp_path: Path) -> None:
    import resource

    path = tmp_path / "a.bin"
    files.write_bytes(path, b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            files.write_bytes(path, b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"old"
    assert [found.name for found in tmp_path.iterdir()] == ["a.bin"]
