"""What was asked of runs is heard, in order, whatever else stands in the file."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cupel.errors import RecordError
from cupel.jobs.control import CONTROL, Control, Word, append, held_by, write_line

RUNS = ("a", "b", "c")


def line(do: str, runs: list[str] | None, t: float = 1.0, **facts: Any) -> bytes:
    return json.dumps({"schema": 1, "t": t, "do": do, "runs": runs, **facts}).encode() + b"\n"


def told(folder: Path, content: bytes) -> Control:
    (folder / CONTROL).write_bytes(content)
    return Control.of(folder)


def test_nothing_was_asked_where_there_is_no_file(tmp_path: Path) -> None:
    control = Control.of(tmp_path)
    assert (control.word("a"), control.version, control.damaged) == (Word(), 0, 0)


def test_the_last_word_on_a_run_counts(tmp_path: Path) -> None:
    append(tmp_path, "hold", ["a", "b"], why="too slow")
    append(tmp_path, "boost", ["a"], priority=500)
    append(tmp_path, "release", ["b"])
    append(tmp_path, "cancel", ["c"], why="enough")
    control = Control.of(tmp_path)
    assert control.word("a") == Word(held=True, why="too slow", priority=500)
    assert control.word("b") == Word()
    assert control.word("c") == Word(cancelled=True, why="enough")
    assert held_by([control.word(name) for name in RUNS]) == "too slow"
    said = append(tmp_path, "retry", ["c"])
    assert control.refresh()
    assert control.word("c") == Word(retried=said["t"])


def test_what_is_asked_of_all_counts_for_those_named_before_and_after(tmp_path: Path) -> None:
    append(tmp_path, "boost", ["a"], priority=7)
    append(tmp_path, "hold", None, why="all")
    append(tmp_path, "release", ["b"])
    control = Control.of(tmp_path)
    assert control.word("a") == Word(held=True, why="all", priority=7)
    assert not control.word("b").held
    assert control.word("never named").held
    append(tmp_path, "release", None)
    control.refresh()
    assert not any(control.word(name).held for name in (*RUNS, "never named"))


def test_a_hold_of_the_breaker_is_told_from_a_persons(tmp_path: Path) -> None:
    append(tmp_path, "hold", ["a"], breaker=True)
    append(tmp_path, "hold", ["b"])
    control = Control.of(tmp_path)
    assert [control.word(name).by_breaker for name in "ab"] == [True, False]


def test_what_a_person_holds_the_breaker_neither_takes_over_nor_lets_go(tmp_path: Path) -> None:
    append(tmp_path, "hold", ["a"], why="mine")
    append(tmp_path, "hold", None, why="alike", breaker=True)
    control = Control.of(tmp_path)
    assert control.word("a") == Word(held=True, why="mine")
    assert control.word("b") == Word(held=True, by_breaker=True, why="alike")
    append(tmp_path, "release", None, breaker=True)
    control.refresh()
    assert control.word("a").held
    assert not control.word("b").held
    append(tmp_path, "release", None)
    control.refresh()
    assert not control.word("a").held


def test_a_line_that_is_still_being_written_is_waited_for(tmp_path: Path) -> None:
    whole = line("hold", ["a"])
    control = told(tmp_path, whole[:10])
    assert (control.word("a").held, control.damaged) == (False, 0)
    with (tmp_path / CONTROL).open("ab") as file:
        file.write(whole[10:])
    assert control.refresh()
    assert (control.word("a").held, control.damaged) == (True, 0)
    assert not control.refresh()


@pytest.mark.parametrize(
    "damaged",
    [
        b"{", b"[]", b"null", b"1", b'"hold"', b"\x00\xff", b"{}", b'{"do": "hold"}',
        b'{"do": "hold", "t": "soon"}', b'{"do": "hold", "t": null, "runs": ["a"]}',
        b'{"do": "hold", "t": 1, "runs": "a"}', b'{"do": "hold", "t": 1, "runs": 1}',
        b'{"do": "hold", "t": "NaN", "runs": ["a"]}', b'{"do": "hold", "t": 1e999, "runs": ["a"]}',
        b'{"do": "hold", "t": 1, "runs": {"a": 1}}', b"[" * 5000,
    ],
)  # fmt: skip
def test_a_damaged_line_is_counted_and_asks_for_nothing(tmp_path: Path, damaged: bytes) -> None:
    control = told(tmp_path, line("hold", ["b"]) + damaged + b"\n" + line("cancel", ["c"]))
    assert control.damaged == 1
    assert (control.word("b").held, control.word("c").cancelled) == (True, True)
    assert control.word("a") == Word()


def test_what_a_newer_cupel_asks_for_changes_nothing(tmp_path: Path) -> None:
    content = line("teleport", ["a"], to=[{}]) + line("boost", ["a"], priority="high")
    assert told(tmp_path, content).word("a") == Word()


SAID = st.one_of(
    st.tuples(st.just("hold"), st.fixed_dictionaries({"why": st.text(max_size=5)})),
    st.tuples(st.sampled_from(["release", "cancel", "retry"]), st.just({})),
    st.tuples(st.just("boost"), st.fixed_dictionaries({"priority": st.integers(-5, 5)})),
)
ASKED = st.lists(
    st.tuples(SAID, st.none() | st.lists(st.sampled_from(RUNS), max_size=3), st.floats(0, 1e10)),
    max_size=8,
)


@given(asked=ASKED, cuts=st.lists(st.integers(0, 2000), max_size=4))
@pytest.mark.slow
def test_it_does_not_matter_in_which_pieces_lines_arrive(
    tmp_path_factory: pytest.TempPathFactory, asked: list[Any], cuts: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("s")
    content = b"".join(line(do, runs, t, **facts) for (do, facts), runs, t in asked)
    at_once = told(folder, content)
    (folder / CONTROL).write_bytes(b"")
    bit_by_bit = Control.of(folder)
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(content)], strict=True):
        with (folder / CONTROL).open("ab") as file:
            file.write(content[start:end])
        bit_by_bit.refresh()
    assert bit_by_bit == at_once
    assert at_once.damaged == 0


@given(asked=ASKED, data=st.data())
@pytest.mark.slow
def test_damage_between_lines_changes_no_other_line(
    tmp_path_factory: pytest.TempPathFactory, asked: list[Any], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("s")
    lines = [line(do, runs, t, **facts) for (do, facts), runs, t in asked]
    clean = told(folder, b"".join(lines))
    rubbish = data.draw(st.lists(st.binary(max_size=30), min_size=1, max_size=4))
    torn = [one.replace(b"\n", b" ") + b"\n" for one in rubbish]
    if lines:  # what a full disk leaves of a line
        torn += [one[: data.draw(st.integers(1, len(one) - 2))] + b"\n" for one in lines[:2]]
    for one in torn:
        lines.insert(data.draw(st.integers(0, len(lines))), one)
    found = told(folder, b"".join(lines))
    assert (found.everyone, found.runs, found.quarantines) == (
        clean.everyone, clean.runs, clean.quarantines,
    )  # fmt: skip
    assert found.damaged <= len(torn)


def test_after_a_torn_line_the_next_one_is_whole(tmp_path: Path) -> None:
    (tmp_path / CONTROL).write_bytes(line("hold", ["a"]) + line("cancel", ["b"])[:20])
    append(tmp_path, "boost", ["c"], priority=3)
    control = Control.of(tmp_path)
    assert (control.word("a").held, control.word("b"), control.word("c").priority) == (
        True, Word(), 3,
    )  # fmt: skip
    assert control.damaged == 1


def test_a_file_that_was_put_back_from_a_copy_is_read_anew(tmp_path: Path) -> None:
    append(tmp_path, "hold", ["a"])
    copy = (tmp_path / CONTROL).read_bytes()
    append(tmp_path, "cancel", None)
    control = Control.of(tmp_path)
    version = control.version
    (tmp_path / CONTROL).write_bytes(copy)
    assert control.refresh()
    assert control.word("a") == Word(held=True)
    assert control.version > version


def test_an_empty_line_says_nothing(tmp_path: Path) -> None:
    control = told(tmp_path, line("hold", ["a"]) + b"\n" + line("hold", ["b"]))
    assert (control.version, control.damaged) == (2, 0)


def _appends(folder: Path, name: str, lines: int) -> None:
    for number in range(lines):
        append(folder, "boost", [name], priority=number, why="x" * 300)


def test_lines_of_many_appenders_are_all_there(tmp_path: Path) -> None:
    names, lines = ["a", "b", "c", "d"], 25
    fork = multiprocessing.get_context("fork")
    writers = [fork.Process(target=_appends, args=(tmp_path, name, lines)) for name in names]
    control = Control.of(tmp_path)
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        control.refresh()  # and whoever reads meanwhile misses none
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    control.refresh()
    for found in (control, Control.of(tmp_path)):
        assert (found.version, found.damaged) == (len(names) * lines, 0)
        assert [found.word(name).priority for name in names] == [lines - 1] * len(names)


def test_a_quarantine_is_of_a_device_or_a_host_and_ends_after_an_hour(tmp_path: Path) -> None:
    now = time.time()
    control = told(
        tmp_path,
        line("quarantine", [], now - 10, host="one", device="0", why="it failed")
        + line("quarantine", [], now - 10, host="two", device="")
        + line("quarantine", [], now - 3601, host="old", device=""),
    )
    assert control.is_quarantined("one", "0") == "it failed"
    assert control.is_quarantined("one", "1") is None
    assert control.is_quarantined("one") is None
    assert control.is_quarantined("two", "3") is not None
    assert control.is_quarantined("old") is None
    append(tmp_path, "release", [], host="one", device="0")
    append(tmp_path, "release", [], host="two")
    control.refresh()
    assert control.quarantined == {}
    assert control.word("a") == Word()


def test_what_cannot_be_written_is_told_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"cannot write .*control\.jsonl: No such file"):
        append(tmp_path / "nowhere", "hold", None)


def test_a_full_disk_refuses_a_line_and_loses_no_other(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "none", str(tmp_path)]
    mounted = subprocess.run(mount, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"mounting a small tmpfs is not permitted here: {mounted.stderr.strip()}")
    try:
        append(tmp_path, "hold", ["a"])
        ballast = tmp_path / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb", 0) as file:
            while True:
                file.write(bytes(1024))
        refused: list[str] = []
        while not refused:  # the last page of the file has room for some
            try:
                append(tmp_path, "boost", ["b"], priority=1, why="x" * 500)
            except RecordError as error:
                refused.append(str(error))
        assert refused == [f"cannot write {tmp_path / CONTROL}: No space left on device"]
        whole = Control.of(tmp_path).version
        ballast.unlink()
        append(tmp_path, "cancel", ["c"])
        control = Control.of(tmp_path)
        assert (control.word("a").held, control.word("c").cancelled) == (True, True)
        assert control.version - control.damaged == whole + 1
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_a_line_that_json_cannot_hold_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_line(tmp_path / CONTROL, {"do": object()})
    assert not (tmp_path / CONTROL).exists()
