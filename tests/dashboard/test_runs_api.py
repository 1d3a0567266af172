"""The table of runs over HTTP says what `cupel runs ls` says, in windows, groups and columns."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

import cupel
from cupel.dashboard import table
from cupel.dashboard.app import create_app
from cupel.dashboard.table import TableQuery, Tables
from cupel.record import index, layout
from cupel.record.index import Row

HOST = "http://localhost"
HEADERS = {"authorization": "Bearer t"}
UNICODE = "Ünïcödé <b>名前</b> 🏃"


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUPEL_DASHBOARD", "0")


def log_run(
    root: Path, project: str = "demo", run_id: str | None = None, **config: Any
) -> cupel.Run:
    """A run of three steps that has ended."""
    name, tags = config.pop("name", "gpt"), config.pop("tags", [])
    losses, goal = config.pop("losses", [3.0, 2.0, 1.5]), config.pop("goal", None)
    notes, summary = config.pop("notes", None), config.pop("summary", None)
    run = cupel.init(
        project, name, config, root=root, tags=tags, notes=notes, id=run_id,
        settings={"console": True},
    )  # fmt: skip
    if goal or summary:
        run.define_metric("val_loss", goal=goal, summary=summary)
    for step, loss in enumerate(losses):
        run.log({"val_loss": loss, "lr": 0.1}, step=step)
    run.finish()
    return run


def served(root: Path, **more: Any) -> TestClient:
    app = create_app(root, token="t", hosts=["localhost"], **more)
    return TestClient(app, base_url=HOST, headers=HEADERS)


def got(client: TestClient, address: str, **asked: Any) -> Any:
    answer = client.get(address, params=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(client: TestClient, address: str, status: int = 400, **asked: Any) -> str:
    answer = client.get(address, params=asked)
    assert answer.status_code == status, answer.text
    line = str(answer.json()["error"])
    assert line
    assert "\n" not in line
    return line


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six runs in two projects: two arms, a NaN, one id in both projects, one that is damaged."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("CUPEL_DASHBOARD", "0")
        log_run(folder, run_id="plain-0", arm="plain", seed=0, train={"lr": 1e-3}, tags=["slow"])
        log_run(folder, run_id="plain-1", arm="plain", seed=1, train={"lr": 1e-4})
        log_run(folder, run_id="wave-0", arm="wave", seed=0, train={"lr": 1e-3}, losses=[3.0, 1.0])
        log_run(folder, run_id="wave-1", arm="wave", seed=1, losses=[3.0, math.nan], name=UNICODE)
        log_run(folder, run_id="damaged", arm="wave", seed=2)
        log_run(folder, "other", run_id="plain-0", extra={"deep": {"er": [1, 2]}}, notes="a\nb")
    (folder / "demo" / "damaged" / layout.RUN).write_text('{"schema": 1, "na')
    return folder


@pytest.fixture
def client(root: Path) -> Iterator[TestClient]:
    with served(root) as found:
        yield found


def ids(found: Any) -> list[str]:
    return [row["id"] for row in found["rows"]]


@pytest.mark.slow
def test_rows_say_what_the_index_says(root: Path, client: TestClient) -> None:
    found = got(client, "/api/v1/runs", columns="val_loss,train.lr")
    rows = index.table(root)
    assert found["total"] == found["matched"] == len(rows) == 6
    assert [row["key"] for row in found["rows"]] == [f"{r['project']}/{r['id']}" for r in rows]
    assert [row["status"] for row in found["rows"]] == [row["status"] for row in rows]
    by = {row["key"]: row["values"] for row in found["rows"]}
    assert by["demo/plain-0"] == {"val_loss": 1.5, "train.lr": 1e-3}
    assert by["other/plain-0"] == {"val_loss": 1.5, "train.lr": None}


@pytest.mark.slow
def test_a_filter_means_the_same_as_in_the_terminal(root: Path, client: TestClient) -> None:
    for where in (
        "arm=wave",
        "val_loss<1.2 or tags=slow",
        "val_loss=nan",
        "not arm=wave",
        "name~名前",
        "train.lr=none",
        "status=damaged",
        "created>2020-01-01",  # all but the damaged one
    ):
        found = got(client, "/api/v1/runs", where=where)
        assert ids(found) == [row["id"] for row in index.table(root, where=where)], where
        assert 0 < found["matched"] == len(found["rows"]) < found["total"], where


@pytest.mark.slow
def test_an_order_is_that_of_the_terminal_and_nan_is_last(root: Path, client: TestClient) -> None:
    for sort in ("val_loss", "-val_loss", "arm", "-created", "train.lr"):
        found = got(client, "/api/v1/runs", sort=sort)
        assert ids(found) == [row["id"] for row in index.table(root, sort=sort)], sort
    last = got(client, "/api/v1/runs", sort="-val_loss", where="arm=wave", columns="val_loss")
    assert [row["values"]["val_loss"] for row in last["rows"]] == [1.5, 1.0, "NaN"]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"where": "val_loss<"}, "expected a value"),
        ({"where": "vall_oss<1"}, "did you mean 'val_loss'"),
        ({"where": "(" * 200}, "no more than"),
        ({"sort": "nothing"}, "no column is called 'nothing'"),
        ({"sort": "-"}, "sort=val_loss"),
        ({"group": "nothing"}, "no column is called"),
        ({"limit": "501"}, "from 0 to 500"),
        ({"limit": "-1"}, "no whole number"),
        ({"offset": "x"}, "no whole number"),
        ({"columns": "[1"}, "no list of names"),
        ({"columns": ",".join(f"c{n}" for n in range(101))}, "at most 100"),
    ],
)
@pytest.mark.slow
def test_a_mistake_is_one_clear_line(client: TestClient, asked: dict[str, str], told: str) -> None:
    assert told in refused(client, "/api/v1/runs", **asked)


def test_a_project_without_runs_is_not_found(client: TestClient) -> None:
    assert "demo" in refused(client, "/api/v1/runs", 404, project="dem")
    assert got(client, "/api/v1/runs", project="other")["total"] == 1


def test_columns_that_no_run_has_are_told(client: TestClient) -> None:
    found = got(client, "/api/v1/runs", columns='["a,b","val_loss"]', limit=1)
    assert found["unknown"] == ["a,b"]
    assert set(found["rows"][0]["values"]) == {"val_loss"}


def test_without_runs_nothing_is_wrong(tmp_path: Path) -> None:
    with served(tmp_path) as empty:
        found = got(empty, "/api/v1/runs", where="a=1", sort="b", group="c", columns="d")
        assert (found["total"], found["rows"], found["groups"], found["unknown"]) == (0, [], [], [])
        assert got(empty, "/api/v1/columns") == {"total": 0, "columns": []}


def test_content_changes_with_the_answer_and_only_then(tmp_path: Path) -> None:
    log_run(tmp_path, run_id="one", seed=1)
    with served(tmp_path) as found:
        first = got(found, "/api/v1/runs", columns="val_loss")["content"]
        assert got(found, "/api/v1/runs", columns="val_loss")["content"] == first
        other = got(found, "/api/v1/runs", columns="val_loss,seed")["content"]
    log_run(tmp_path, run_id="two")
    with served(tmp_path) as found:
        assert got(found, "/api/v1/runs", columns="val_loss")["content"] != first != other


def test_groups_hold_their_runs_in_order_and_count_what_is_not_finite(client: TestClient) -> None:
    found = got(client, "/api/v1/runs", group="arm", sort="val_loss", columns="val_loss,seed")
    assert [group["name"] for group in found["groups"]] == ["plain", "wave", None]
    assert [group["count"] for group in found["groups"]] == [2, 3, 1]
    assert ids(found) == ["plain-1", "plain-0", "wave-0", "damaged", "wave-1", "plain-0"]
    wave = found["groups"][1]
    assert wave["by_status"] == {"damaged": 1, "finished": 2}
    assert wave["numbers"]["val_loss"] == {
        "mean": 1.25, "min": 1.0, "max": 1.5, "n": 2, "not_finite": 1,
    }  # fmt: skip
    part = got(client, "/api/v1/runs", group="arm", sort="val_loss", offset=2, limit=3)
    assert set(ids(part)) == {"wave-0", "damaged", "wave-1"}


@pytest.mark.slow
def test_columns_tell_where_a_name_is_and_how_to_ask_for_it(tmp_path: Path) -> None:
    log_run(tmp_path, run_id="a", lr=1.0, status="mine", seed=3, tags=["x", "y"])
    log_run(tmp_path, run_id="b", lr=2.0, status="mine", seed=4)
    with served(tmp_path) as found:
        by = {(c["place"], c["name"]): c for c in got(found, "/api/v1/columns")["columns"]}
        assert by["config", "lr"]["ask"] == "config.lr"  # a metric is called so, too
        assert by["config", "status"]["ask"] == "config.status"
        assert (
            by["summary", "lr"] | {"runs": 2, "distinct": 1, "kind": "number"}
            == by["summary", "lr"]
        )
        assert by["config", "lr"]["examples"] == ["1", "2"]
        assert by["field", "tags"]["examples"] == ["x", "y"]
        assert by["field", "seed"]["examples"] == ["3", "4"]
        assert ("config", "seed") not in by  # the field says just that
        assert ("field", "study") not in by
        for column in by.values():
            asked = got(found, "/api/v1/runs", columns=json.dumps([column["ask"]]))
            there = [row["values"].get(column["ask"]) for row in asked["rows"]]
            assert sum(value not in (None, []) for value in there) == column["runs"]
        narrowed = got(found, "/api/v1/columns", where="config.lr=2")
        assert narrowed["total"] == 1
        assert "expected" in refused(found, "/api/v1/columns", where="lr<")


def test_a_run_is_told_whole(tmp_path: Path) -> None:
    log_run(
        tmp_path, run_id="one", name=UNICODE, train={"lr": 1e-3, "big": 2**60}, goal="min",
        summary="best", notes="<script>alert(1)</script>",
    )  # fmt: skip
    with served(tmp_path) as found:
        told = got(found, "/api/v1/runs/one")
    assert told["row"]["name"] == UNICODE
    assert told["settings"]["train.big"] == str(2**60)  # a browser would round it
    assert told["notes"] == "<script>alert(1)</script>"
    assert told["settings"]["train.lr"] == told["config"]["train"]["lr"] == 1e-3
    assert [session["status"] for session in told["sessions"]] == ["finished"]
    assert told["sessions"][0]["changed"] == []
    metrics = {metric["name"]: metric for metric in told["metrics"]}
    assert metrics["val_loss"] == {
        "name": "val_loss", "kind": "float", "value": 1.5, "rule": "min", "goal": "min",
    }  # fmt: skip
    assert told["environment"]["python"].count(".") == 2
    assert told["problem"] is None


def test_an_id_in_two_projects_needs_one(client: TestClient) -> None:
    assert "project" in refused(client, "/api/v1/runs/plain-0")
    assert got(client, "/api/v1/runs/plain-0", project="other")["row"]["key"] == "other/plain-0"
    refused(client, "/api/v1/runs/none-such", 404)
    refused(client, "/api/v1/runs/demo", 404, project="..")
    refused(client, "/api/v1/runs/plain-0", 404, project="demo/../other")


def test_a_damaged_run_is_told_with_what_can_be_read(client: TestClient) -> None:
    told = got(client, "/api/v1/runs/damaged")
    assert told["row"]["status"] == "damaged"
    assert "run.json" in told["problem"]
    assert told["settings"]["seed"] == 2
    row = got(client, "/api/v1/runs", where="status=damaged")["rows"][0]
    assert row["problem"] == told["problem"]


def test_what_was_printed_is_given_from_its_end(tmp_path: Path) -> None:
    run = cupel.init("demo", "gpt", root=tmp_path, id="one", settings={"console": True})
    for n in range(30):
        print(f"line {n}")
    run.finish()
    with served(tmp_path) as found:
        told = got(found, "/api/v1/runs/one/console", last=3)
        assert told == {"lines": ["line 27", "line 28", "line 29"], "whole": False}
        assert got(found, "/api/v1/runs/one/console")["whole"] is True
        refused(found, "/api/v1/runs/one/console", last=0)


@pytest.mark.slow
def test_a_comparison_marks_what_is_unlike_and_the_best_only_by_a_goal(tmp_path: Path) -> None:
    log_run(tmp_path, run_id="a", lr=1.0, goal="min")
    log_run(tmp_path, run_id="b", lr=1, goal="min", losses=[2.0, 1.0, 1.2])
    log_run(tmp_path, run_id="c", lr=1.0, goal="min", summary="best", only=None)
    log_run(tmp_path, run_id="d", lr=1.0, losses=[0.5, math.nan])
    with served(tmp_path) as found:
        told = got(found, "/api/v1/compare", run=["demo/a", "demo/b", "demo/c", "demo/a", "demo/d"])
    assert [run["id"] for run in told["runs"]] == ["a", "b", "c", "d"]
    assert {setting["name"]: setting["there"] for setting in told["differ"]} == {
        "lr": [True] * 4,  # 1 is not 1.0
        "only": [False, False, True, False],
    }
    lines = {(line["name"], line["statistic"]): line for line in told["metrics"]}
    last = lines["val_loss", "last"]
    assert last["values"] == [1.5, 1.2, None, "NaN"]
    assert (last["goal"], last["best"]) == ("min", [1])
    assert "min" in last["unlike"]
    assert lines["val_loss", "min"]["steps"] == [None, None, 2, None]
    assert lines["val_loss", "min"]["best"] == []  # one number is not the best of anything
    assert lines["lr", "last"] | {"goal": None, "best": []} == lines["lr", "last"]
    assert "of different steps, 1 to 2" in lines["lr", "last"]["unlike"]
    assert not [line for line in told["metrics"] if line["statistic"] == "accepted"]


def test_a_comparison_needs_runs_and_not_too_many(client: TestClient) -> None:
    refused(client, "/api/v1/compare")
    refused(client, "/api/v1/compare", run=[f"demo/{n}" for n in range(51)])
    refused(client, "/api/v1/compare", 404, run=["demo/none"])


def test_notes_and_tags_are_changed_only_where_writing_was_allowed(tmp_path: Path) -> None:
    log_run(tmp_path, run_id="one", tags=["old"], notes="before")
    change = {"notes": "now\nthis", "tags_add": ["new"], "tags_remove": ["old"]}
    own = {"origin": HOST, "x-cupel": "1"}
    with served(tmp_path) as reading:
        assert reading.post("/api/v1/runs/one/edit", json=change, headers=own).status_code == 403
    with served(tmp_path, writes=True) as writing:
        post = lambda body: writing.post("/api/v1/runs/one/edit", json=body, headers=own)  # noqa: E731
        assert post(change).json() == {"notes": "now\nthis", "tags": ["new"]}
        row = got(writing, "/api/v1/runs", where="tags=new")["rows"][0]
        assert (row["tags"], row["notes"]) == (["new"], "now\nthis")
        for wrong in (
            {"tag": "x"},
            {"tags_add": [""]},
            {"notes": 3},
            ["x"],
            {"notes": "n" * 20_001},
        ):
            assert post(wrong).status_code == 400
        refusal = post({"notes": "lost?", "tags_remove": ["none"]})
        assert refusal.status_code == 404
        assert got(writing, "/api/v1/runs/one")["notes"] == "now\nthis"
        assert post({}).json() == {"notes": "now\nthis", "tags": ["new"]}
        assert post({"notes": ""}).json()["notes"] == ""


def test_a_run_that_was_deleted_is_gone(tmp_path: Path) -> None:
    log_run(tmp_path, run_id="one")
    with served(tmp_path) as found:
        got(found, "/api/v1/runs/one")
        shutil.rmtree(tmp_path / "demo" / "one")
        refused(found, "/api/v1/runs/one", 404)


cells = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.floats(-3, 3), st.just(math.nan),
    st.sampled_from(["a", "b", "1", "1.5"]), st.lists(st.sampled_from(["a", "b"]), max_size=2),
)  # fmt: skip
NAMES = ("x", "y.z", "seed", "status", "step")


def made(number: int, field: Any, config: dict[str, Any], summary: dict[str, Any]) -> Row:
    row: Row = dict.fromkeys(index.FIELDS)
    row |= {"id": f"r{number}", "project": f"p{number % 2}", "status": "finished", "created": 1.0}
    row |= {"sessions": 1, "seconds": 1.0, "tags": [], "step": 0, "seed": field}
    return row | {"config": config, "summary": summary}


tables = st.lists(
    st.tuples(
        cells,
        st.dictionaries(st.sampled_from(NAMES), cells),
        st.dictionaries(st.sampled_from(NAMES), cells),
    ),
    max_size=12,
).map(lambda rows: [made(n, *row) for n, row in enumerate(rows)])
asked_names = st.sampled_from([*NAMES, "config.x", "summary.seed", "config.y.z", "tag", "run"])


@settings(max_examples=60)
@given(tables, asked_names)
@pytest.mark.slow
def test_a_getter_gives_what_the_index_gives(rows: list[Row], name: str) -> None:
    get = table.getter(name)
    for row in rows:
        assert repr(get(row)) == repr(index.value(row, name))


@settings(max_examples=60)
@given(tables, asked_names, st.booleans(), st.sampled_from(["", "x=1", "not seed>0", "x=none"]))
@pytest.mark.slow
def test_rows_are_chosen_and_ordered_as_by_the_index(
    rows: list[Row], name: str, backwards: bool, where: str
) -> None:
    sort = f"-{name}" if backwards else name
    query = TableQuery(where=where, sort=sort, limit=500)
    try:
        expected = index.chosen(rows, where=where or None, sort=sort)
    except cupel.errors.UnknownName:
        with pytest.raises(cupel.errors.UsageError):
            Tables().window(rows, query)
    else:
        found = Tables().window(rows, query)
        assert [row.id for row in found.rows] == [row["id"] for row in expected]


@settings(max_examples=60)
@given(tables, st.sampled_from(["project", "seed", "x"]), st.integers(1, 5))
@pytest.mark.slow
def test_windows_put_together_are_the_whole_and_groups_partition_it(
    rows: list[Row], group: str, size: int
) -> None:
    if rows and not any(index.has(row, group) for row in rows):
        return
    kept = Tables()
    whole = kept.window(rows, TableQuery(group=group, limit=500))
    parts = [
        kept.window(rows, TableQuery(group=group, offset=at, limit=size)).rows
        for at in range(0, len(rows) + 1, size)
    ]
    assert [row for part in parts for row in part] == whole.rows
    assert sum(one.count for one in whole.groups) == whole.matched == len(rows)
    assert len({one.name for one in whole.groups}) == len(whole.groups)
    at = 0
    for one in whole.groups:
        values = {
            table.name_of(found) if (found := index.value(row, group)) not in (None, []) else None
            for row in rows
            if row["id"] in {shown.id for shown in whole.rows[at : at + one.count]}
        }
        assert values == {one.name}
        at += one.count


@pytest.mark.slow
def test_ten_thousand_rows_are_answered_in_windows_and_kept_until_one_changes() -> None:
    rows = [made(n, n % 7, {"x": n % 13}, {"loss": float(n * 37 % 101)}) for n in range(10_000)]
    kept = Tables()
    ask = TableQuery(where="x>2", sort="loss", columns=("loss",), limit=200)
    seen: list[str] = []
    for offset in range(0, 10_000, 200):
        found = kept.window(rows, TableQuery(**{**_fields(ask), "offset": offset}))
        seen += [row.id for row in found.rows]
    assert seen == [row["id"] for row in index.chosen(rows, where="x>2", sort="loss")]
    changed = list(rows)
    changed[9] = made(9, 2, {"x": 9}, {"loss": -1.0})
    assert kept.window(changed, ask).rows[0].values == {"loss": -1.0}
    assert kept.window(rows, ask).rows[0].values == {"loss": 0.0}


def _fields(query: TableQuery) -> dict[str, Any]:
    return {name: getattr(query, name) for name in TableQuery.__dataclass_fields__}


def test_too_many_groups_are_refused_in_one_line() -> None:
    rows = [made(n, None, {"x": n}, {}) for n in range(501)]
    with pytest.raises(cupel.errors.UsageError, match="501 different values"):
        Tables().window(rows, TableQuery(group="x"))


def test_long_and_huge_values_are_cut_and_never_an_error() -> None:
    rows = [made(1, 10**30, {"x": "long" * 500, "y": list(range(100))}, {"z": -math.inf})]
    found = Tables().window(rows, TableQuery(columns=("x", "y", "z", "seed"), limit=1)).rows[0]
    assert len(str(found.values["x"])) == table.LONGEST_TEXT
    assert found.values["y"] == list(range(32))
    assert found.values["seed"] == found.seed == str(10**30)
