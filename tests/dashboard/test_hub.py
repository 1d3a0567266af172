"""The socket: what is asked is sent, what is new is sent once, who is slow costs no memory."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.testclient import TestClient
from tests.dashboard.pages import Chart

from cupel.dashboard import hub
from cupel.dashboard.app import create_app
from cupel.record.session import Session

TOKEN = "a-token-of-some-length"
HEADERS = {"authorization": f"Bearer {TOKEN}", "origin": "http://127.0.0.1"}


@contextmanager
def serving(root: Path) -> Iterator[TestClient]:
    app = create_app(root, token=TOKEN, hosts=["127.0.0.1"])
    with TestClient(app, base_url="http://127.0.0.1", headers=HEADERS) as client:
        yield client


def started(root: Path, name: str = "one") -> tuple[Session, str]:
    session = Session.start(root=root, project="p", name=name, config={}, identity=name)
    return session, f"p/{session.run_id}"


def say(socket: Any, **message: Any) -> None:
    socket.send_text(text_of(message))


def text_of(message: Any) -> str:
    return msgspec.json.encode(message).decode()


def hear(socket: Any, *wanted: str, within: float = 20.0) -> Any:
    """The next message of one of some kinds: a frame of a chart as bytes, others as JSON."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        message = socket.receive()
        if message.get("bytes") is not None:
            if "chart" in wanted:
                return message["bytes"]
            continue
        found = msgspec.json.decode(message["text"])
        if found["type"] in wanted:
            return found
    raise AssertionError(f"none of {wanted} within {within} s")


def chart_of(run: str, **more: Any) -> dict[str, Any]:
    return {"kind": "chart", "runs": [run], "metric": "loss", **more}


def test_a_page_is_sent_a_snapshot_and_then_what_is_new(tmp_path: Path) -> None:
    session, key = started(tmp_path)
    session.log({"loss": 1.0}, step=1)
    with (
        serving(tmp_path) as client,
        client.websocket_connect("ws://127.0.0.1/ws", ["cupel.v1"]) as socket,
    ):
        say(socket, type="hello", proto="cupel.v1")
        assert hear(socket, "welcome")["proto"] == "cupel.v1"
        say(socket, type="sub", id="a", query=chart_of(key))
        page, frame = Chart(), hear(socket, "chart")
        assert frame[:64].rstrip(b"\0") == b"a"
        assert page.take(frame[64:])
        session.log({"loss": 2.0}, step=2)
        while len(page.rows) < 2:
            assert page.take(hear(socket, "chart")[64:])
        assert [held[0][0] for _, held in sorted(page.rows.items())] == [1.0, 2.0]
    session.finish("finished")


def test_a_page_that_comes_back_with_its_cursor_is_sent_only_what_is_new(tmp_path: Path) -> None:
    session, key = started(tmp_path)
    for step in range(1, 2001):
        session.log({"loss": float(step)}, step=step)
    page = Chart()
    with serving(tmp_path) as client, client.websocket_connect("ws://127.0.0.1/ws") as socket:
        say(socket, type="sub", id="a", query=chart_of(key, px=4000))
        first = hear(socket, "chart")
        assert page.take(first[64:])
    session.log({"loss": 0.5}, step=2001)
    # Another server, with nothing but the record and what the page has.
    with serving(tmp_path) as client, client.websocket_connect("ws://127.0.0.1/ws") as socket:
        say(socket, type="sub", id="a", query=chart_of(key, px=4000), cursor=page.plain_cursor)
        second = hear(socket, "chart")
        assert len(second) < len(first) / 10
        assert page.take(second[64:])
    assert len(page.rows) == 2001
    session.finish("finished")


@pytest.mark.slow
def test_a_state_is_sent_again_only_when_it_is_another(tmp_path: Path) -> None:
    session, key = started(tmp_path)
    session.log({"loss": 1.0}, step=1)
    session.finish("finished")
    with serving(tmp_path) as client, client.websocket_connect("ws://127.0.0.1/ws") as socket:
        say(socket, type="sub", id="r", query={"kind": "run", "run": key})
        first = hear(socket, "state")
        assert first["data"]["status"] == "finished"
        assert first["data"]["step"] == 1
        say(socket, type="sub", id="r", query={"kind": "run", "run": key}, name=first["name"])
        say(socket, type="ping", n=1)
        time.sleep(2.2)
        say(socket, type="ping", n=2)
        heard = [hear(socket, "state", "pong") for _ in range(2)]
        assert [message["type"] for message in heard] == ["pong", "pong"]


@pytest.mark.parametrize(
    "text", ["", "nothing", "[]", '{"type": "sub"}', '{"type": "sub", "id": ""}', "\x00", "{" * 500,
             '{"type": "sub", "id": "a", "query": {"kind": "chart"}}',
             '{"type": "sub", "id": "a", "query": {"kind": "run", "run": "../../etc"}}',
             '{"type": "odd", "id": "a"}x'],
)  # fmt: skip
def test_what_is_no_message_is_refused_and_the_line_stays_open(tmp_path: Path, text: str) -> None:
    with serving(tmp_path) as client, client.websocket_connect("ws://127.0.0.1/ws") as socket:
        socket.send_text(text)
        assert "\n" not in hear(socket, "refused")["error"]
        say(socket, type="ping", n=7)
        assert hear(socket, "pong")["n"] == 7


@pytest.mark.slow
def test_points_are_told_exactly_as_the_record_has_them(tmp_path: Path) -> None:
    session, key = started(tmp_path)
    for step in range(100):
        session.log({"loss": 1 / 3 + step}, step=step, t=1.7e9 + step)
    session.finish("finished")
    with serving(tmp_path) as client, client.websocket_connect("ws://127.0.0.1/ws") as socket:
        say(socket, type="sub", id="a", query=chart_of(key, px=16))
        hear(socket, "chart")
        say(socket, type="at", id="a", n=1, x=41.3)
        (point,) = hear(socket, "at")["points"]
    assert (point["step"], point["value"], point["time"]) == (41, 1 / 3 + 41, 1.7e9 + 41)
    assert point["session"] == 1


@pytest.mark.slow
def test_a_paused_page_is_sent_one_frame_when_it_goes_on(tmp_path: Path) -> None:
    session, key = started(tmp_path)
    session.log({"loss": 1.0}, step=1)
    with serving(tmp_path) as client, client.websocket_connect("ws://127.0.0.1/ws") as socket:
        say(socket, type="sub", id="a", query=chart_of(key))
        page = Chart()
        assert page.take(hear(socket, "chart")[64:])
        say(socket, type="pause")
        say(socket, type="ping", n=1)
        hear(socket, "pong")
        for step in range(2, 30):
            session.log({"loss": float(step)}, step=step)
            time.sleep(0.02)
        time.sleep(0.5)
        say(socket, type="ping", n=2)
        assert hear(socket, "pong", "chart")["n"] == 2, "a frame was sent while it was hidden"
        say(socket, type="resume")
        assert page.take(hear(socket, "chart")[64:])
        assert len(page.rows) == 29
    session.finish("finished")


@pytest.mark.slow
def test_while_a_long_run_is_read_a_page_is_told_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "READING_S", 0.005)
    session, key = started(tmp_path)
    session.log({"loss": 0.0}, step=0)
    session.finish("finished")
    (lines,) = session.run_dir.glob("sessions/0001/metrics.r0.*")
    with lines.open("ab") as file:
        for step in range(1, 200_000):
            file.write(b'{"_step":%d,"_t":1.0,"loss":%d}\n' % (step, step))
    size = lines.stat().st_size
    with (
        serving(tmp_path) as client,
        client.websocket_connect("ws://127.0.0.1/ws", ["cupel.v1"]) as socket,
    ):
        say(socket, type="sub", id="a", query=chart_of(key))
        told = []
        while (message := socket.receive()).get("bytes") is None:
            told.append(msgspec.json.decode(message["text"]))
    assert len(told) > 1
    assert {(one["type"], one["id"], one["of"]) for one in told} == {("reading", "a", size)}
    parts = [one["read"] for one in told]
    assert parts == sorted(parts)
    assert 0 < parts[0] < parts[-1] <= size


def test_what_is_asked_for_the_first_time_does_not_wait_for_the_next_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "HZ", 1 / 60)
    session, key = started(tmp_path)
    session.log({"loss": 1.0, "lr": 0.1}, step=1)
    with (
        serving(tmp_path) as client,
        client.websocket_connect("ws://127.0.0.1/ws", ["cupel.v1"]) as socket,
    ):
        for name, metric in (("a", "loss"), ("b", "lr"), ("a", "lr")):
            say(socket, type="sub", id=name, query={**chart_of(key), "metric": metric})
            assert hear(socket, "chart")[:64].rstrip(b"\0").decode() == name
        for name in "cdefgh":  # at once: some come while others are being answered
            say(socket, type="sub", id=name, query=chart_of(key))
        heard = {hear(socket, "chart")[:64].rstrip(b"\0").decode() for _ in "cdefgh"}
        assert heard == set("cdefgh")
    session.finish("finished")


def test_a_client_asks_for_no_more_than_is_allowed(tmp_path: Path) -> None:
    session, key = started(tmp_path)
    session.finish("finished")
    with serving(tmp_path) as client, client.websocket_connect("ws://127.0.0.1/ws") as socket:
        for number in range(hub.MOST_SUBSCRIPTIONS + 1):
            say(socket, type="sub", id=f"s{number}", query={"kind": "run", "run": key})
        assert str(hub.MOST_SUBSCRIPTIONS) in hear(socket, "refused")["error"]


def test_the_fallback_gives_what_the_socket_would(tmp_path: Path) -> None:
    session, key = started(tmp_path)
    for step in range(50):
        session.log({"loss": float(step)}, step=step)
    session.finish("finished")
    with serving(tmp_path) as client:
        asked = {"query": chart_of(key)}
        answer = client.get("/api/v1/delta", params={"sub": text_of(asked)})
        page = Chart()
        assert page.take(answer.content)
        assert len(page.rows) == 50
        asked["cursor"] = page.plain_cursor
        again = client.get("/api/v1/delta", params={"sub": text_of(asked)})
        assert (again.status_code, again.content) == (204, b"")
        wrong = client.get("/api/v1/delta", params={"sub": "{"})
        assert wrong.status_code == 400
        assert "\n" not in wrong.json()["error"]


@pytest.mark.slow
def test_points_are_told_without_a_socket_too(tmp_path: Path) -> None:
    session, key = started(tmp_path)
    for step in range(50):
        session.log({"loss": float(step) if step != 41 else math.nan}, step=step)
    session.finish("finished")
    asked = text_of({"query": chart_of(key)})
    with serving(tmp_path) as client, client.websocket_connect("ws://127.0.0.1/ws") as socket:
        say(socket, type="sub", id="a", query=chart_of(key))
        hear(socket, "chart")
        for x in (7.3, 41.3):
            say(socket, type="at", id="a", n=1, x=x)
            answer = client.get("/api/v1/points", params={"sub": asked, "x": x})
            assert answer.json() == hear(socket, "at")["points"]
        assert answer.json()[0]["value"] == "NaN"
        for wrong in ({"sub": asked}, {"sub": asked, "x": "nan"}, {"x": 1},
                      {"sub": text_of({"query": {"kind": "runs"}}), "x": 1}):  # fmt: skip
            refused = client.get("/api/v1/points", params=wrong)
            assert refused.status_code == 400
            assert "\n" not in refused.json()["error"]


@pytest.mark.slow
def test_what_a_page_shows_first_is_read_before_it_asks(tmp_path: Path) -> None:
    session, key = started(tmp_path)
    for step in range(8000):
        session.log({"loss": float(step), "lr": 0.1}, step=step)
    session.finish("finished")
    with serving(tmp_path) as client:
        assert client.get("/api/v1/ahead", params={"run": "p/nothing"}).status_code == 204
        assert client.get("/api/v1/ahead", params={"run": key}).status_code == 204
        columns = tmp_path / ".cache" / "columns" / key
        until = time.monotonic() + 20
        while not list(columns.glob("*.json")):
            assert time.monotonic() < until
            time.sleep(0.02)
        (index,) = columns.glob("*.json")
        assert '"loss"' in index.read_text()
        assert '"lr"' not in index.read_text(), "of the first metric alone"


def test_a_run_that_is_not_there_is_refused_and_the_others_go_on(tmp_path: Path) -> None:
    session, key = started(tmp_path)
    session.log({"loss": 1.0}, step=1)
    session.finish("finished")
    with serving(tmp_path) as client, client.websocket_connect("ws://127.0.0.1/ws") as socket:
        say(socket, type="sub", id="gone", query=chart_of("p/nothing"))
        assert hear(socket, "refused")["id"] == "gone"
        say(socket, type="sub", id="a", query=chart_of(key))
        assert hear(socket, "chart")[:64].rstrip(b"\0") == b"a"


def test_health_says_nothing_of_any_run_and_needs_no_token(tmp_path: Path) -> None:
    started(tmp_path)[0].finish("finished")
    app = create_app(tmp_path, token=TOKEN, hosts=["127.0.0.1"])
    with TestClient(app, base_url="http://127.0.0.1") as client:
        health = client.get("/healthz").json()
        assert health["status"] == "ok"
        assert set(health) == {"status", "service", "protocol", "server", "uptime_s", "clients"}
        assert client.get("/api/v1/about").status_code == 401


@pytest.mark.parametrize("key", ["p/" + "x" * 300, "x//etc", "../..", "p/\0", "studies/a", "p"])
@pytest.mark.slow
def test_a_key_that_is_none_does_not_stop_what_others_are_told(tmp_path: Path, key: str) -> None:
    session, own = started(tmp_path)
    session.log({"loss": 1.0}, step=1)
    with serving(tmp_path) as client, client.websocket_connect("ws://127.0.0.1/ws") as socket:
        say(socket, type="sub", id="odd", query={"kind": "run", "run": key})
        say(socket, type="sub", id="odd chart", query=chart_of(key))
        say(socket, type="sub", id="a", query=chart_of(own))
        page = Chart()
        assert page.take(hear(socket, "chart")[64:])
        time.sleep(0.3)
        session.log({"loss": 2.0}, step=2)
        while len(page.rows) < 2:
            assert page.take(hear(socket, "chart")[64:])
    session.finish("finished")


def test_a_place_beyond_all_numbers_does_not_end_what_a_page_is_told(tmp_path: Path) -> None:
    session, key = started(tmp_path)
    session.log({"loss": 1.0}, step=1)
    with serving(tmp_path) as client, client.websocket_connect("ws://127.0.0.1/ws") as socket:
        say(socket, type="sub", id="a", query=chart_of(key))
        page = Chart()
        assert page.take(hear(socket, "chart")[64:])
        socket.send_text('{"type":"at","id":"a","n":1,"x":1' + "0" * 400 + "}")
        session.log({"loss": 2.0}, step=2)
        while len(page.rows) < 2:
            assert page.take(hear(socket, "chart")[64:])
    session.finish("finished")


@pytest.mark.slow
def test_pages_that_show_the_same_are_all_told(tmp_path: Path) -> None:
    session, key = started(tmp_path)
    session.log({"loss": 1.0}, step=1)
    pages = [Chart() for _ in range(4)]
    with serving(tmp_path) as client:
        lines = [client.websocket_connect("ws://127.0.0.1/ws") for _ in pages]
        sockets = [line.__enter__() for line in lines]
        try:
            for socket in sockets:
                say(socket, type="sub", id="a", query=chart_of(key))
            for step in range(2, 12):
                session.log({"loss": float(step)}, step=step)
                time.sleep(0.03)
            for page, socket in zip(pages, sockets, strict=True):
                while len(page.rows) < 11:
                    assert page.take(hear(socket, "chart")[64:])
        finally:
            for line in lines:
                line.__exit__(None, None, None)
    assert all(page.same_as(pages[0]) for page in pages)
    session.finish("finished")


@pytest.mark.parametrize(
    "cursor", [[[5000, False], 0, 10, []], [[-5000, False], 0, 10, []], "x", {}]
)
def test_a_cursor_that_cannot_be_is_answered_with_everything(tmp_path: Path, cursor: Any) -> None:
    session, key = started(tmp_path)
    session.log({"loss": 1.0}, step=1)
    session.finish("finished")
    with serving(tmp_path) as client:
        asked = {"query": chart_of(key), "cursor": cursor}
        answer = client.get("/api/v1/delta", params={"sub": text_of(asked)})
        assert Chart().take(answer.content)
        deep = client.get("/api/v1/delta", params={"sub": "[" * 5000})
        assert deep.status_code == 400
