"""Media by ids: what counts is listed, no path leads out, nothing of a run is run by a browser."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.dashboard.test_export import started
from tests.dashboard.test_hub import serving

from cupel.dashboard import media
from cupel.dashboard.media import BINS, HISTOGRAMS, common
from cupel.record.media import store_media
from cupel.record.session import Session

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 20
PAGE = b"<script>alert(1)</script>"


def keep(
    session: Session, key: str, step: int, kind: str, suffix: str, data: bytes, **about: Any
) -> None:
    store_media(session, key, step=step, kind=kind, suffix=suffix, data=data, **about)


def as_json(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def address(key: str, rest: str = "") -> str:
    return f"/api/v1/runs/{key.partition('/')[2]}/media{rest}"


def only(client: Any, key: str) -> dict[str, Any]:
    (item,) = client.get(address(key)).json()["items"]
    found: dict[str, Any] = item
    return found


def test_what_was_logged_is_listed_with_its_facts_by_key_and_in_pages(tmp_path: Path) -> None:
    session, key = started(tmp_path)
    for step in range(5):
        keep(session, "a/b", step, "image", "png", PNG + bytes([step]), caption=f"c{step}", width=2)
    keep(session, "note", 3, "text", "txt", b"hello")
    session.finish("finished")
    with serving(tmp_path) as client:
        found = client.get(address(key)).json()
        assert found["total"] == 6
        assert found["keys"] == [
            {"key": "a/b", "kinds": ["image"], "count": 5, "first": 0, "last": 4},
            {"key": "note", "kinds": ["text"], "count": 1, "first": 3, "last": 3},
        ]
        one = found["items"][1]
        assert (one["step"], one["caption"], one["width"], one["session"]) == (1, "c1", 2, 1)
        assert (one["type"], one["bytes"]) == ("image/png", 29)
        part = client.get(address(key, "?key=a/b&offset=3&limit=1")).json()
        assert (part["total"], [item["step"] for item in part["items"]]) == (5, [3])
        assert client.get(address(key, "?limit=100000")).status_code == 400
        assert client.get(address(key, f"/{one['id']}")).content == PNG + b"\x01"


def test_what_a_resume_took_back_is_not_listed(tmp_path: Path) -> None:
    session, key = started(tmp_path)
    session.begin_at(0)
    for step in (1, 2, 3):
        keep(session, "k", step, "text", "txt", b"old %d" % step)
    session.finish("interrupted")
    resumed = Session.resume(session.run_dir)
    resumed.begin_at(1)
    keep(resumed, "k", 2, "text", "txt", b"new")
    resumed.finish("finished")
    with serving(tmp_path) as client:
        items = client.get(address(key)).json()["items"]
        assert [(item["step"], item["session"]) for item in items] == [(1, 1), (2, 2)]


@pytest.mark.parametrize(
    ("suffix", "type_", "shown"),
    [
        ("png", "image/png", True), ("jpg", "image/jpeg", True), ("gif", "image/gif", True),
        ("webp", "image/webp", True), ("txt", "text/plain; charset=utf-8", True),
        ("json", "application/json", True), ("wav", "audio/wav", True),
        ("mp3", "audio/mpeg", True), ("mp4", "video/mp4", True),
        ("svg", "image/svg+xml", False), ("html", "application/octet-stream", False),
        ("htm", "application/octet-stream", False), ("xml", "application/octet-stream", False),
        ("js", "application/octet-stream", False), ("pdf", "application/octet-stream", False),
        ("xhtml", "application/octet-stream", False), ("bin", "application/octet-stream", False),
    ],
)  # fmt: skip
def test_only_what_can_do_no_harm_is_shown_all_else_is_downloaded(
    tmp_path: Path, suffix: str, type_: str, shown: bool
) -> None:
    session, key = started(tmp_path)
    keep(session, "k", 1, "image", suffix, PAGE)
    session.finish("finished")
    with serving(tmp_path) as client:
        found = client.get(address(key, f"/{only(client, key)['id']}"))
    assert found.headers["content-type"] == type_
    assert found.headers["x-content-type-options"] == "nosniff"
    assert found.headers["content-security-policy"].startswith("default-src 'none'")
    assert ("attachment" in found.headers.get("content-disposition", "")) is not shown
    assert found.content == PAGE


def event_of(session: Session, path: str) -> None:
    digest = sha256(path.encode()).hexdigest()
    session.event("media", key="k", step=1, kind="text", path=path, sha256=digest, bytes=1)


@pytest.mark.parametrize(
    "path",
    ["../../../outside.txt", "/etc/passwd", "run.json", "media/../config.json", "media/link.txt",
     "media/k/gone.txt", "media", "media/\0.txt", "media/loop/x.txt", ""],
)  # fmt: skip
def test_no_event_leads_out_of_the_media(tmp_path: Path, path: str) -> None:
    (tmp_path / "outside.txt").write_text("secret")
    session, key = started(tmp_path / "root")
    folder = session.run_dir / "media"
    folder.mkdir()
    (folder / "link.txt").symlink_to(tmp_path / "outside.txt")
    (folder / "loop").symlink_to(folder / "loop")
    event_of(session, path)
    session.finish("finished")
    with serving(tmp_path / "root") as client:
        media_id = only(client, key)["id"]
        for rest in (f"/{media_id}", f"/{media_id}/content"):
            found = client.get(address(key, rest))
            assert found.status_code == 404
            assert "secret" not in found.text
            assert str(tmp_path) not in found.text
        for other in ("..%2f..%2frun.json", "x", "%00"):
            assert client.get(address(key, f"/{other}")).status_code == 404


def test_events_that_are_none_are_left_out(tmp_path: Path) -> None:
    session, key = started(tmp_path)
    session.event("media", key=1, step=1, kind="text", path="media/x", sha256="a", bytes=1)
    session.event("media", key="k", path="media/x")
    session.event("media", key="k", step="x", kind=7, path="media/x", sha256="a", bytes="many")
    session.finish("finished")
    with serving(tmp_path) as client:
        item = only(client, key)
        assert (item["step"], item["kind"], item["bytes"]) == (None, "7", None)


@pytest.mark.slow
def test_a_table_of_100_000_rows_comes_in_pages(tmp_path: Path) -> None:
    session, key = started(tmp_path)
    rows = [[n, f"row {n}", n / 3] for n in range(100_000)]
    keep(session, "t", 1, "table", "json", as_json(columns=["n", "text", "x"], rows=rows))
    session.finish("finished")
    with serving(tmp_path) as client:
        where = address(key, f"/{only(client, key)['id']}/content")
        found = client.get(f"{where}?offset=99990&limit=50").json()
        assert found["columns"] == ["n", "text", "x"]
        assert (found["kind"], found["total"], found["offset"]) == ("table", 100_000, 99_990)
        assert found["rows"] == rows[99_990:]
        assert len(client.get(where).content) < 10_000
        assert client.get(f"{where}?limit=100000").status_code == 400


def test_cells_of_tables_are_short_and_media_in_them_have_ids(tmp_path: Path) -> None:
    session, key = started(tmp_path)
    keep(session, "t/media", 1, "image", "png", PNG)
    (picture,) = (session.run_dir / "media").rglob("*.png")
    where = picture.relative_to(session.run_dir).as_posix()
    cells = [{"media": where}, {"media": "../run.json"}, "x" * 10_000, [1, 2], "NaN", None]
    keep(session, "t", 1, "table", "json", as_json(columns=list("abcdef"), rows=[cells]))
    session.finish("finished")
    with serving(tmp_path) as client:
        found = client.get(address(key)).json()
        assert [one["key"] for one in found["keys"]] == ["t"]
        image, item = found["items"]
        (row,) = client.get(address(key, f"/{item['id']}/content")).json()["rows"]
        assert row[0] == {"media": image["id"], "kind": "image"}
        assert row[1] is None
        assert len(row[2]) == 2001
        assert row[3:] == ["[1,2]", "NaN", None]


@pytest.mark.parametrize(
    ("kind", "data"),
    [("table", b"{"), ("table", b'{"columns":1,"rows":[]}'), ("histogram", b"[]"),
     ("histogram", b'{"counts":[1],"edges":[0]}'), ("histogram", b'{"counts":["x"],"edges":[0,1]}'),
     ("image", b"x")],
)  # fmt: skip
def test_a_damaged_file_is_refused_in_a_line(tmp_path: Path, kind: str, data: bytes) -> None:
    session, key = started(tmp_path)
    keep(session, "k", 1, kind, "json", data)
    session.finish("finished")
    with serving(tmp_path) as client:
        found = client.get(address(key, f"/{only(client, key)['id']}/content"))
        assert found.status_code == 400
        assert "\n" not in found.json()["error"]


def test_a_file_that_is_too_large_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, key = started(tmp_path)
    keep(session, "t", 1, "table", "json", as_json(columns=[], rows=[[1]] * 100))
    session.finish("finished")
    monkeypatch.setattr(media, "LARGEST_JSON", 100)
    with serving(tmp_path) as client:
        found = client.get(address(key, f"/{only(client, key)['id']}/content"))
        assert found.status_code == 400
        assert "download" in found.json()["error"]


def test_histograms_and_texts_are_told(tmp_path: Path) -> None:
    session, key = started(tmp_path)
    keep(
        session,
        "h",
        1,
        "histogram",
        "json",
        as_json(counts=[1, 2], edges=[0, 0.5, 1], not_finite=3),
    )
    keep(session, "t", 1, "text", "txt", "é\n".encode() + b"\xff")
    session.finish("finished")
    with serving(tmp_path) as client:
        one, other = (item["id"] for item in client.get(address(key)).json()["items"])
        assert client.get(address(key, f"/{one}/content")).json() == {
            "kind": "histogram", "counts": [1.0, 2.0], "edges": [0.0, 0.5, 1.0], "not_finite": 3,
        }  # fmt: skip
        assert client.get(address(key, f"/{other}/content")).json() == {
            "kind": "text", "text": "é\n\ufffd", "bytes": 4,
        }  # fmt: skip


@pytest.mark.slow
def test_histograms_over_steps_are_so_many_and_keep_their_counts(tmp_path: Path) -> None:
    session, key = started(tmp_path)
    for step in range(400):
        data = as_json(counts=[10, step], edges=[step, step + 1, step + 3])
        keep(session, "w", step, "histogram", "json", data)
    session.finish("finished")
    with serving(tmp_path) as client:
        where = f"/api/v1/runs/{key.partition('/')[2]}/histograms"
        found = client.get(f"{where}?key=w").json()
        assert (len(found["steps"]), found["of"]) == (HISTOGRAMS, 400)
        assert (found["steps"][0], found["steps"][-1]) == (0, 399)
        assert (found["edges"][0], found["edges"][-1]) == (0.0, 402.0)
        for step, counts in zip(found["steps"], found["counts"], strict=True):
            assert sum(counts) == pytest.approx(10 + step)
        assert client.get(f"{where}?key=x").status_code == 404


COUNTS = st.lists(st.integers(0, 1000), min_size=1, max_size=9)


@given(st.lists(st.tuples(COUNTS, st.floats(-1e6, 1e6), st.floats(1e-3, 1e6)), min_size=1))
@pytest.mark.slow
def test_common_edges_lose_no_value(drawn: list[tuple[list[int], float, float]]) -> None:
    given_ = [
        (np.array(counts, float), np.linspace(low, low + width, len(counts) + 1))
        for counts, low, width in drawn
    ]
    rows, edges = common(given_)
    assert rows.shape == (len(drawn), BINS)
    assert len(edges) == BINS + 1
    assert (rows >= -1e-9).all()
    assert rows.sum(1) == pytest.approx([counts.sum() for counts, _ in given_])
