"""Names of runs are safe as folders, and text finds the run that is meant or says why not."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.errors import RecordError, UnknownName, UsageError
from cupel.record import layout


def make_run(root: Path, project: str, run_id: str) -> Path:
    run_dir = root / project / run_id
    run_dir.mkdir(parents=True)
    (run_dir / layout.RUN).write_text("{}")
    return run_dir


@settings(deadline=None)
@given(st.text(), st.none() | st.text("0123456789abcdef", min_size=7, max_size=40))
def test_a_new_id_is_a_safe_name_whatever_the_run_is_called(name: str, commit: str | None) -> None:
    run_id = layout.new_run_id(name, commit)
    git7 = commit[:7] if commit else "nogit"
    assert re.fullmatch(rf"\d{{8}}-\d{{6}}-[a-z0-9-]{{1,40}}-{git7}-[0-9a-f]{{4}}", run_id)
    assert layout.check_name("run", run_id) == run_id


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".cache", "a/b", "a\\b", "a\nb", "studies", "é" * 61]
)
def test_a_name_that_would_leave_its_folder_or_hide_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be the name of a project"):
        layout.check_name("project", name)


def test_the_root_is_the_argument_then_the_variable_then_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CUPEL_ROOT", raising=False)
    assert layout.record_root() == Path("runs")
    monkeypatch.setenv("CUPEL_ROOT", "/elsewhere")
    assert layout.record_root() == Path("/elsewhere")
    assert layout.record_root("here") == Path("here")


def test_caches_and_studies_are_no_runs(tmp_path: Path) -> None:
    run = make_run(tmp_path, "p", "a-run")
    make_run(tmp_path, ".cache", "index")
    make_run(tmp_path, "p", "studies")
    make_run(tmp_path, "p", ".trash-b")
    assert list(layout.run_dirs(tmp_path)) == [run]
    assert list(layout.run_dirs(tmp_path / "absent")) == []


def test_a_run_is_found_by_path_by_id_and_by_a_unique_beginning(tmp_path: Path) -> None:
    one = make_run(tmp_path, "p", "20260101-a")
    two = make_run(tmp_path, "q", "20260101-ab")
    for text in (str(one), "20260101-a", "p/20260101-a"):
        assert layout.find_run(tmp_path, text) == one
    assert layout.find_run(tmp_path, "20260101-ab") == two
    with pytest.raises(RecordError, match=r"any of 2 runs: p/20260101-a, q/20260101-ab; type more"):
        layout.find_run(tmp_path, "2026")
    with pytest.raises(UnknownName, match="did you mean '20260101-ab'"):
        layout.find_run(tmp_path, "20260101-abc")


@settings(deadline=None, max_examples=60)
@given(st.text() | st.just("x" * 5000) | st.just("~nobody"))
def test_garbage_finds_no_run_and_says_so(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    with pytest.raises(UnknownName):
        layout.find_run(tmp_path_factory.getbasetemp() / "no-runs-here", text)


def test_of_many_runs_a_message_names_the_five_newest(tmp_path: Path) -> None:
    for number in range(20):
        run = make_run(tmp_path, "p", f"run-{number:02d}") / layout.RUN
        os.utime(run, (0, 1000 - number))
    with pytest.raises(UnknownName) as caught:
        layout.find_run(tmp_path, "zzz")
    listed = ", ".join(f"run-{number:02d}" for number in range(5))
    assert f"(there are: {listed}); the newest of 20; looked in {tmp_path};" in str(caught.value)


def test_segments_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    names = [layout.metrics_name(0, number) for number in (0, 1, 2, 999, 1000, 10_000)]
    others = [layout.metrics_name(1), layout.metrics_name(10), layout.events_name(),
              layout.system_name(), "metrics.r0.000.jsonl.gz", "metrics.r0.1.jsonl"]  # fmt: skip
    for name in (*reversed(names), *others):
        (tmp_path / name).touch()
    assert [path.name for path in layout.segments(tmp_path, "metrics")] == names
    assert [path.name for path in layout.segments(tmp_path, "metrics", 1)] == [others[0]]
    assert layout.segments(tmp_path, "metrics", 2) == []
    assert layout.segments(tmp_path / "absent", "metrics") == []


def test_each_rank_has_a_console_of_its_own() -> None:
    assert [layout.console_name(rank) for rank in (0, 1, 12)] == [
        "console.log",
        "console.r1.log",
        "console.r12.log",
    ]


def test_what_was_printed_is_in_the_order_of_ranks_and_segments(tmp_path: Path) -> None:
    places = [(0, 0), (0, 1), (0, 999), (0, 1000), (1, 0), (1, 2), (12, 0)]
    for place in reversed(places):
        (tmp_path / layout.console_name(*place)).touch()
    for other in ("console.txt", "console.log.1", "console.rx.log", "console.1.log"):
        (tmp_path / other).touch()
    assert list(layout.consoles(tmp_path)) == places
    assert [path.name for path in layout.consoles(tmp_path).values()][:6] == [
        "console.log", "console.001.log", "console.999.log", "console.1000.log", "console.r1.log",
        "console.r1.002.log",
    ]  # fmt: skip
    assert layout.consoles(tmp_path / "absent") == {}


def test_of_the_heartbeats_of_a_rank_the_highest_is_the_newest(tmp_path: Path) -> None:
    for again in (1000, 2, 0, 999):
        (tmp_path / layout.heartbeat_name(1, again)).touch()
    for other in ("heartbeat.r0", "heartbeat.r11", "heartbeat.r1.x", ".tmp-heartbeat.r1~a~b~c"):
        (tmp_path / other).touch()
    found = layout.heartbeats(tmp_path, 1)
    assert sorted(found) == [0, 2, 999, 1000]
    assert found[0].name == "heartbeat.r1"
    assert found[2].name == "heartbeat.r1.002"


def test_trash_and_cache_are_no_projects(tmp_path: Path) -> None:
    for project in (layout.TRASHED, layout.CACHE, "p"):
        make_run(tmp_path, project, "a-run")
    assert [path.parent.name for path in layout.run_dirs(tmp_path)] == ["p"]


def test_a_link_is_refused_and_a_folder_or_nothing_is_not(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    layout.refuse_link(tmp_path)
    layout.refuse_link(tmp_path / "absent")
    with pytest.raises(RecordError, match=r"link is a link to .*nowhere"):
        layout.refuse_link(tmp_path / "link")
