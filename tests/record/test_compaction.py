"""The cache of columns changes nothing but the time: absent, stale, damaged, or not writable."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arbitrary_logs import Log, write
from cupel.record import compaction, layout
from cupel.record.codec import encode_step
from cupel.record.reader import RunRecord

KEYS = [f"m/{n}" for n in range(10)]


def lines(count: int, *, first: int = 0, seed: int = 0) -> bytes:
    """So many lines of ten numbers."""
    numbers = random.Random(seed)
    return b"".join(
        encode_step(step, 1.7e9 + step / 7, {key: numbers.gauss(0, 1) for key in KEYS})
        for step in range(first, first + count)
    )


def cache_of(run_dir: Path) -> Path:
    return run_dir.parent.parent / ".cache" / "columns" / run_dir.parent.name / run_dir.name


def cached(run_dir: Path) -> list[str]:
    folder = cache_of(run_dir)
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run of two segments, both worth compacting."""
    segments = [lines(2000), lines(1500, first=2000, seed=1)]
    return write(tmp_path / "root" / "p" / "run", [Log(0, segments)])


def told(run_dir: Path) -> str:
    """Much of what a record says, through columns."""
    record = RunRecord(run_dir)
    series = record.series("m/3", x="time")
    buckets = record.buckets(["m/1", "_t"], points=7)["m/1"]
    rows = record.history(["m/2"], range=(100, 120))
    summary = record.summary
    return repr((series.x.tolist(), series.y.tolist(), buckets, rows, summary))


def test_ended_segments_are_compacted_to_less_than_12_bytes_a_number(run_dir: Path) -> None:
    record = RunRecord(run_dir)
    summary, first = record.summary, record.history(["m/0"])
    assert cached(run_dir) == [
        f"0001-metrics.r0.00{segment}.jsonl.{suffix}"
        for segment in (0, 1)
        for suffix in ("bin", "json")
    ]
    size = sum((cache_of(run_dir) / name).stat().st_size for name in cached(run_dir))
    assert size < 12 * 10 * 3500
    assert RunRecord(run_dir).history(["m/0"]) == first
    assert RunRecord(run_dir).summary == summary
    before = told(run_dir)
    shutil.rmtree(run_dir.parent.parent / ".cache")
    assert told(run_dir) == before


def kept(run_dir: Path) -> list[list[str]]:
    """The keys whose columns are kept, a list a segment."""
    indexes = [json.loads(path.read_bytes())["index"] for path in cache_of(run_dir).glob("*.json")]
    return [list(index["keys"]) for index in indexes]


def test_who_asks_for_one_key_waits_for_one_and_who_goes_on_has_all_compacted(
    run_dir: Path,
) -> None:
    first = RunRecord(run_dir).series("m/4")
    assert kept(run_dir) == [["_t", "m/4"]] * 2
    again = RunRecord(run_dir)
    assert again.series("m/4").y.tolist() == first.y.tolist()
    assert len(again.series("m/4", x="time").y) == 3500
    assert kept(run_dir) == [["_t", "m/4"]] * 2
    other = again.buckets(["m/4", "m/5"], points=3)
    assert other["m/5"].count.sum() == 3500
    assert kept(run_dir) == [["_t", *KEYS]] * 2
    size = sum((cache_of(run_dir) / name).stat().st_size for name in cached(run_dir))
    assert 8 * 10 * 3500 < size < 12 * 10 * 3500
    whole = told(run_dir)
    shutil.rmtree(cache_of(run_dir))
    assert told(run_dir) == whole


def test_the_columns_of_the_only_key_are_those_of_all(tmp_path: Path) -> None:
    content = b"".join(encode_step(step, 0.5, {"loss": step / 7}) for step in range(9000))
    run_dir = write(tmp_path / "root" / "p" / "run", [Log(0, [content])])
    RunRecord(run_dir).series("loss")
    index = next(cache_of(run_dir).glob("*.json"))
    before = index.stat().st_ino
    assert len(RunRecord(run_dir).series("absent").x) == 0
    assert RunRecord(run_dir).summary == {"loss": 8999 / 7}
    assert index.stat().st_ino == before


def test_a_live_run_that_is_asked_for_more_keys_tells_of_all_its_lines(run_dir: Path) -> None:
    session = layout.session_dir(run_dir, 1)
    (session / layout.SESSION).write_text(json.dumps({"status": "running", "start_step": 0}))
    record = RunRecord(run_dir)
    assert len(record.series("m/0").x) == 3500
    with (session / layout.metrics_name(0, 1)).open("ab") as file:
        file.write(lines(10, first=3500) + encode_step(3510, 1.0, {"late": 1.0, "m/0": 0.25}))
    assert record.series("late").x.tolist() == [3510]
    assert record.series("m/0").x.tolist() == list(range(3511))
    assert len(record.series("m/1").x) == 3510


def test_a_segment_that_may_still_grow_is_not_compacted(run_dir: Path) -> None:
    session = layout.session_dir(run_dir, 1)
    (session / layout.SESSION).write_text(json.dumps({"status": "running", "start_step": 0}))
    record = RunRecord(run_dir)
    assert record.status == "running"
    before = record.series("m/0")
    assert cached(run_dir) == [f"0001-metrics.r0.000.jsonl.{end}" for end in ("bin", "json")]
    with (session / layout.metrics_name(0, 1)).open("ab") as file:
        file.write(lines(10, first=3500))
    after = record.series("m/0")
    assert after.x.tolist() == list(range(3510))
    assert after.y[:3500].tolist() == before.y.tolist()
    assert len(cached(run_dir)) == 2


def test_nobody_waits_for_what_is_written_later(run_dir: Path) -> None:
    works: list[Callable[[], object]] = []
    with compaction.put_off(works.append):
        now = told(run_dir)
        assert not cached(run_dir)
    for work in works:
        work()
    assert len(cached(run_dir)) == 4
    assert told(run_dir) == now
    shutil.rmtree(cache_of(run_dir))
    assert told(run_dir) == now
    assert len(cached(run_dir)) == 4  # as ever: who reads, writes


def test_what_is_written_late_replaces_nothing_that_is_fuller(run_dir: Path) -> None:
    works: list[Callable[[], object]] = []
    with compaction.put_off(works.append):
        RunRecord(run_dir).series("m/3")
    told(run_dir)  # another reader has asked for all, and kept it
    before = {name: (cache_of(run_dir) / name).read_bytes() for name in cached(run_dir)}
    for work in works:
        assert work() is not None
    assert {name: (cache_of(run_dir) / name).read_bytes() for name in cached(run_dir)} == before


def test_what_is_written_late_of_a_run_that_is_gone_is_not_written(run_dir: Path) -> None:
    works: list[Callable[[], object]] = []
    with compaction.put_off(works.append):
        told(run_dir)
    shutil.rmtree(run_dir)
    for work in works:
        assert work() is None
    assert not cached(run_dir)


def test_what_cannot_be_written_later_harms_nobody(run_dir: Path) -> None:
    works: list[Callable[[], object]] = []
    with compaction.put_off(works.append):
        told(run_dir)
    cache_of(run_dir).parent.parent.parent.mkdir()
    cache_of(run_dir).parent.parent.write_text("a file where the folder should be")
    for work in works:
        work()


def test_small_segments_are_not_compacted(tmp_path: Path) -> None:
    run_dir = write(tmp_path / "root" / "p" / "run", [Log(0, [lines(50)])])
    assert len(RunRecord(run_dir).series("m/0").x) == 50
    assert cached(run_dir) == []


def test_a_run_outside_its_project_leaves_no_cache(run_dir: Path, tmp_path: Path) -> None:
    copy = tmp_path / "home" / "Downloads" / "run"
    shutil.copytree(run_dir, copy)
    assert told(copy) == told(run_dir)
    assert not (tmp_path / "home" / ".cache").exists()


def test_a_stale_cache_is_made_anew(run_dir: Path) -> None:
    told(run_dir)
    path = layout.session_dir(run_dir, 1) / layout.metrics_name(0, 0)
    path.write_bytes(lines(2000, seed=7))
    before = (cache_of(run_dir) / "0001-metrics.r0.000.jsonl.bin").read_bytes()
    changed = told(run_dir)
    assert (cache_of(run_dir) / "0001-metrics.r0.000.jsonl.bin").read_bytes() != before
    shutil.rmtree(cache_of(run_dir))
    assert told(run_dir) == changed


def test_a_record_that_is_kept_sees_a_segment_that_was_replaced(run_dir: Path) -> None:
    record = RunRecord(run_dir)
    before = record.series("m/0").y
    path = layout.session_dir(run_dir, 1) / layout.metrics_name(0, 0)
    path.write_bytes(lines(2000, seed=7))
    after = record.series("m/0").y
    assert after[2000:].tolist() == before[2000:].tolist()
    assert after.tolist() == RunRecord(run_dir).series("m/0").y.tolist() != before.tolist()


def test_a_root_that_takes_no_cache_is_read_all_the_same(run_dir: Path) -> None:
    before = told(run_dir)
    root = run_dir.parent.parent
    shutil.rmtree(root / ".cache")
    (root / ".cache").write_text("no folder: nothing can be written below it")
    assert told(run_dir) == before


DAMAGES = st.one_of(
    st.just(("delete", 0, 0)),
    st.tuples(st.just("cut"), st.integers(0, 10**6), st.just(0)),
    st.tuples(st.just("append"), st.just(0), st.integers(33, 255)),  # no harmless blank
    st.tuples(st.just("flip"), st.integers(0, 10**6), st.integers(1, 255)),
)


@settings(deadline=None, max_examples=60)
@given(damage=DAMAGES, suffix=st.sampled_from(["json", "bin"]))
@pytest.mark.slow
def test_a_damaged_cache_is_made_anew_without_a_word(
    tmp_path_factory: pytest.TempPathFactory, damage: tuple[str, int, int], suffix: str
) -> None:
    run_dir = write(tmp_path_factory.mktemp("root") / "p" / "run", [Log(0, [lines(1300)])])
    before = told(run_dir)
    path = cache_of(run_dir) / f"0001-metrics.r0.000.jsonl.{suffix}"
    good = path.read_bytes()
    how, place, byte = damage
    place %= len(good)
    if suffix == "bin" and how == "flip":
        place %= 32  # inside of the numbers nobody looks: see the module
    content = {
        "delete": b"",
        "cut": good[:place],
        "append": good + bytes([byte]),
        "flip": good[:place] + bytes([good[place] ^ byte]) + good[place + 1 :],
    }[how]
    path.unlink()
    if how != "delete":
        path.write_bytes(content)
    assert told(run_dir) == before
    assert path.read_bytes() == good


@settings(deadline=None, max_examples=60)
@given(st.binary() | st.just(b'{"check":"","index":{}}'))
def test_garbage_for_an_index_is_no_index(
    tmp_path_factory: pytest.TempPathFactory, garbage: bytes
) -> None:
    folder = tmp_path_factory.mktemp("cache")
    (folder / "a.json").write_bytes(garbage)
    (folder / "a.bin").write_bytes(garbage)
    assert compaction.Mapped.open(folder, "a", (0, 0, 0)) is None


def test_pairs_of_different_states_are_never_mixed(run_dir: Path) -> None:
    told(run_dir)
    folder = cache_of(run_dir)
    one, two = (folder / f"0001-metrics.r0.00{n}.jsonl" for n in (0, 1))
    before = told(run_dir)
    shutil.copy(f"{one}.bin", f"{two}.bin")
    assert told(run_dir) == before


@pytest.mark.slow
def test_many_readers_at_once_read_the_same(run_dir: Path) -> None:
    code = (
        "import sys; from cupel.record.reader import RunRecord; "
        "r = RunRecord(sys.argv[1]); s = r.series('m/3'); print(hash(s.y.tobytes()), len(s.x))"
    )
    env = {**os.environ, "PYTHONHASHSEED": "0"}
    readers = [
        subprocess.Popen([sys.executable, "-c", code, run_dir], stdout=subprocess.PIPE, env=env)
        for _ in range(4)
    ]
    said = {reader.communicate()[0] for reader in readers}
    assert len(said) == 1
    assert said.pop().endswith(b" 3500\n")
    assert len(cached(run_dir)) == 4  # and no temporaries


@pytest.mark.slow
def test_a_kill_while_compacting_leaves_nothing_wrong(tmp_path: Path) -> None:
    segments = [lines(3000, first=n * 3000, seed=n) for n in range(8)]
    run_dir = write(tmp_path / "root" / "p" / "run", [Log(0, segments)])
    code = (
        "import sys; from cupel.record.reader import RunRecord; import numpy; "
        "print('ready', flush=True); RunRecord(sys.argv[1]).series('m/3')"
    )
    shutil.copytree(run_dir, tmp_path / "alone" / "p" / "run")
    expected = told(tmp_path / "alone" / "p" / "run")
    for attempt in range(8):
        reader = subprocess.Popen(
            [sys.executable, "-c", code, run_dir], stdout=subprocess.PIPE, text=True
        )
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
        time.sleep(0.02 * attempt)
        reader.send_signal(signal.SIGKILL)
        reader.communicate()
    assert told(run_dir) == expected
    for name in cached(run_dir):
        assert name.endswith((".bin", ".json")), name  # temporaries of the dead were swept
