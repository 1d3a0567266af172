"""Whoever is not the dashboard's own page, with its token, is given static text at most."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocket
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from cupel.dashboard.security import SESSION, Guard, cookie_value

TOKEN = "a-token-of-some-length_0123456789"
HOSTS = ("localhost", "127.0.0.1", "[::1]", "gpu1:8765")
OWN = "http://localhost:8765"
WS = "ws://localhost:8765"
SECRET = "the secret of the runs"
COOKIE = {"cookie": f"cupel_8765={cookie_value(TOKEN)}"}
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self'; font-src 'self'; connect-src 'self'; worker-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


async def secret(request: Request) -> Response:
    return PlainTextResponse(SECRET, headers={"Access-Control-Allow-Origin": "*", "etag": "1"})


async def static(request: Request) -> Response:
    return PlainTextResponse("static")


async def failing(request: Request) -> Response:
    raise RuntimeError("on purpose")


async def talk(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text(SECRET)
    await socket.close()


def tiny() -> Starlette:
    ways = ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"]
    return Starlette(
        routes=[
            Route("/", static),
            Route("/healthz", static),
            Route("/run/{project}/{id}", static),
            Route("/assets/{name:path}", static),
            Route("/api/v1/runs", secret, methods=ways),
            Route("/api/v1/failing", failing),
            WebSocketRoute("/ws", talk),
            WebSocketRoute("/elsewhere", talk),
        ]
    )


def guarded(**more: Any) -> Guard:
    return Guard(tiny(), **{"hosts": HOSTS, "token": TOKEN, **more})


def client(guard: Guard | None = None, **headers: str) -> TestClient:
    """One that asks as our own page does, unless told otherwise; a failure is a response."""
    return TestClient(
        guard or guarded(), base_url=OWN, headers=headers, raise_server_exceptions=False
    )


def opened(guard: Guard | None = None) -> TestClient:
    """A client that has the cookie."""
    made = client(guard)
    posted = made.post(SESSION, json={"token": TOKEN}, headers={"origin": OWN})
    assert posted.status_code == 204, posted.text
    return made


def only_line(response: Any) -> str:
    """The one line of a refusal."""
    line: str = json.loads(response.text)["error"]
    assert "\n" not in line
    return line


# ---- names ---------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost:8765", "LOCALHOST:8765", "127.0.0.1", "[::1]:9000"])
@pytest.mark.slow
def test_the_loopback_is_known_by_its_names_at_any_port(host: str) -> None:
    assert client().get("/healthz", headers={"host": host}).status_code == 200


def test_another_name_is_known_at_its_port_only() -> None:
    assert client().get("/healthz", headers={"host": "gpu1:8765"}).status_code == 200
    assert client().get("/healthz", headers={"host": "gpu1:8766"}).status_code == 421
    assert client().get("/healthz", headers={"host": "gpu1"}).status_code == 421


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:8765",  # a page of this name that now points to 127.0.0.1
        "localhost.evil.example:8765", "evil.example", "127.0.0.1.evil.example", "localhost.",
        "127.1", "0.0.0.0:8765", "", "localhost:8765:8765", "localhost:x", "user@localhost:8765",
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/", "/healthz", "/api/v1/runs", "/assets/main.js"])
def test_a_name_that_was_pointed_here_reads_nothing(host: str, path: str) -> None:
    found = client().get(path, headers={"host": host, **COOKIE})
    assert found.status_code == 421
    assert SECRET not in found.text
    assert found.text.count("\n") <= 1


@pytest.mark.parametrize("hosts", [[], [b"localhost:8765", b"evil.example"]])
def test_no_host_or_two_of_them_are_refused(hosts: list[bytes]) -> None:
    raw = [(b"host", host) for host in hosts]
    assert asked_raw("GET", "/healthz", raw)[0] == 421


# ---- origins -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "http://localhost:9999", "https://localhost:8765",
     "http://127.0.0.1:8765", "http://localhost:8765.evil.example", "", "http://localhost:8765/"],
)  # fmt: skip
def test_a_foreign_origin_gets_nothing_in_any_way(origin: str) -> None:
    mine = opened(guarded(writes=True))
    headers = {"origin": origin, "x-cupel": "1"}
    for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        found = mine.request(method, "/api/v1/runs", headers=headers)
        assert (found.status_code, SECRET in found.text) == (403, False), method
    posted = mine.post(SESSION, json={"token": TOKEN}, headers=headers)
    assert posted.status_code == 403
    assert "set-cookie" not in posted.headers


@pytest.mark.parametrize("site", ["cross-site", "same-site", "nonsense"])
def test_another_pages_request_is_known_by_what_the_browser_says(site: str) -> None:
    """Another port of localhost is the same site: the cookie is sent, so SameSite does not help."""
    mine = opened()
    assert mine.get("/api/v1/runs", headers={"sec-fetch-site": site}).status_code == 403
    assert mine.get("/", headers={"sec-fetch-site": site}).status_code == 200  # a link to the page
    for own in ("same-origin", "none"):
        assert mine.get("/api/v1/runs", headers={"sec-fetch-site": own}).status_code == 200


def test_without_an_origin_nothing_is_posted() -> None:
    found = client().post(SESSION, json={"token": TOKEN})
    assert found.status_code == 403
    assert "Origin is missing" in only_line(found)


# ---- the token -----------------------------------------------------------------------------


def test_the_token_opens_a_session_that_outlives_the_server() -> None:
    mine = opened()
    assert mine.get("/api/v1/runs").text == SECRET
    again = client(guarded())  # the same token, another process
    again.cookies = mine.cookies
    assert again.get("/api/v1/runs").text == SECRET
    other = client(guarded(token=TOKEN + "x"))
    other.cookies = mine.cookies
    assert other.get("/api/v1/runs").status_code == 401


@pytest.mark.parametrize("tls", [False, True])
def test_the_cookie_cannot_be_read_by_scripts_or_sent_by_other_sites(tls: bool) -> None:
    origin = OWN.replace("http", "https") if tls else OWN
    posted = client(guarded(tls=tls)).post(
        SESSION, json={"token": TOKEN}, headers={"origin": origin}
    )
    name, *flags = posted.headers["set-cookie"].split("; ")
    assert name == f"cupel_8765={cookie_value(TOKEN)}"
    assert TOKEN not in posted.headers["set-cookie"]
    assert set(flags) == {"Path=/", "HttpOnly", "SameSite=Strict"} | ({"Secure"} if tls else set())


def test_servers_on_other_ports_do_not_take_each_others_cookie() -> None:
    found = client().get("/api/v1/runs", headers={"host": "localhost:9000", **COOKIE})
    assert found.status_code == 401
    through_a_tunnel = {"host": "localhost:9000", "origin": "http://localhost:9000"}
    posted = client().post(SESSION, json={"token": TOKEN}, headers=through_a_tunnel)
    assert posted.headers["set-cookie"].startswith("cupel_9000=")


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"{}", b'"x"', b"{", b'{"token": null}', b'{"token": 1}', b"\xff",
     b'{"token": ["a"]}', b'{"token": {"a": 1}}', b'{"token": true}', b"[" * 4000, b"9" * 4090],
)  # fmt: skip
def test_a_body_without_a_token_is_told_what_is_expected(body: bytes) -> None:
    found = client().post(SESSION, content=body, headers={"origin": OWN})
    assert found.status_code == 400
    assert "expected JSON" in only_line(found)


@pytest.mark.parametrize("token", ["", "x", TOKEN[:-1], TOKEN + "x", "ä", "\ud800", "\0"])
def test_another_token_opens_nothing(token: str) -> None:
    body = json.dumps({"token": token})
    found = client().post(SESSION, content=body, headers={"origin": OWN})
    assert found.status_code == 401
    assert "set-cookie" not in found.headers


def test_a_long_body_is_not_read() -> None:
    found = client().post(SESSION, content=b" " * 100_000, headers={"origin": OWN})
    assert found.status_code == 413


def test_guessing_is_slowed_down_and_forgiven_after_a_minute() -> None:
    now = [0.0]
    mine = client(guarded(clock=lambda: now[0]))
    wrong = [
        mine.post(SESSION, json={"token": f"guess {n}"}, headers={"origin": OWN}).status_code
        for n in range(22)
    ]
    assert wrong == [401] * 20 + [429] * 2
    assert mine.get("/api/v1/runs", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 429
    right = mine.post(SESSION, json={"token": TOKEN}, headers={"origin": OWN})
    assert (right.status_code, right.headers["retry-after"]) == (429, "60")
    assert mine.get("/api/v1/runs", headers=COOKIE).status_code == 200  # whoever is in stays in
    now[0] = 61
    right = mine.post(SESSION, json={"token": TOKEN}, headers={"origin": OWN})
    assert right.status_code == 204


@pytest.mark.parametrize("kind", ["Bearer", "bearer"])
def test_a_script_may_bring_the_token_itself(kind: str) -> None:
    found = client().get("/api/v1/runs", headers={"authorization": f"{kind} {TOKEN}"})
    assert found.text == SECRET
    for wrong in (f"{kind} {TOKEN}x", f"Basic {TOKEN}", kind, f"{kind} ", TOKEN):
        found = client().get("/api/v1/runs", headers={"authorization": wrong})
        assert found.status_code == 401, wrong


# ---- what is given to whom -----------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["/api", "/api/", "/api/v1/runs", "/API/v1/runs", "//api/v1", "/ws", "/api/none", "/Ws/"],
)
def test_without_the_token_the_api_says_only_where_it_is(path: str) -> None:
    status, body = asked_raw("GET", path, [(b"host", b"localhost:8765")])
    assert status == 401
    assert "address that the command printed" in json.loads(body)["error"]


@pytest.mark.parametrize("path", ["/", "/healthz", "/assets/main-AB12CD34.js", "/run/p/r"])
def test_the_static_page_is_given_to_everybody(path: str) -> None:
    assert client().get(path).text == "static"


def test_nothing_is_written_unless_that_was_allowed_and_asked_for_by_a_script() -> None:
    own = {"origin": OWN}
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        found = opened().request(method, "/api/v1/runs", headers={**own, "x-cupel": "1"})
        assert (found.status_code, "--allow-writes" in only_line(found)) == (403, True)
        mine = opened(guarded(writes=True))
        assert mine.request(method, "/api/v1/runs", headers=own).status_code == 403
        assert mine.request(method, "/api/v1/runs", headers={**own, "x-cupel": "1"}).text == SECRET
        nobody = client(guarded(writes=True))
        for path in ("/api/v1/runs", "/"):
            found = nobody.request(method, path, headers={**own, "x-cupel": "1"})
            assert found.status_code == 401


# ---- headers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/", {}, 200), ("/nothing", {}, 404), ("/assets/main-AB12CD34.js", {}, 200),
        ("/api/v1/runs", {}, 401), ("/api/v1/runs", COOKIE, 200), ("/api/none", COOKIE, 404),
        ("/api/v1/failing", COOKIE, 500), ("/", {"host": "evil.example"}, 421),
        ("/api/v1/runs", {"origin": "null"}, 403),
    ],
)  # fmt: skip
def test_every_response_carries_the_headers(
    path: str, headers: Mapping[str, str], status: int
) -> None:
    found = client().get(path, headers=headers)
    assert found.status_code == status
    assert found.headers["content-security-policy"] == CSP
    assert found.headers["x-content-type-options"] == "nosniff"
    assert found.headers["referrer-policy"] == "no-referrer"
    assert found.headers["cross-origin-opener-policy"] == "same-origin"
    assert found.headers["cross-origin-resource-policy"] == "same-origin"
    assert not [name for name in found.headers if name.startswith("access-control-")]
    kept = path.startswith("/assets/") and status == 200
    assert ("immutable" in found.headers["cache-control"]) == kept
    assert ("no-store" in found.headers["cache-control"]) == (not kept)


def test_an_error_inside_of_another_middleware_carries_the_headers_too() -> None:
    from starlette.middleware import Middleware

    inner = tiny()
    app = Starlette(routes=inner.routes, middleware=[Middleware(Guard, hosts=HOSTS, token=TOKEN)])
    found = TestClient(app, base_url=OWN, raise_server_exceptions=False).get(
        "/api/v1/failing", headers=COOKIE
    )
    assert found.status_code == 500
    assert found.headers["content-security-policy"] == CSP
    assert "on purpose" not in only_line(found)


@pytest.mark.parametrize(
    "name", ["main.js", "icon.svg", "none-AB12CD34/../x.js", "main-ab12cd34.js"]
)
def test_only_what_has_its_hash_in_its_name_is_kept_for_ever(name: str) -> None:
    assert client().get(f"/assets/{name}").headers["cache-control"] == "no-store"


def test_a_missing_asset_is_not_kept_for_ever() -> None:
    guard = Guard(Starlette(), hosts=HOSTS, token=TOKEN)
    found = client(guard).get("/assets/main-AB12CD34.js")
    assert (found.status_code, found.headers["cache-control"]) == (404, "no-store")


# ---- WebSockets ----------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/ws", "/elsewhere"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403), ({"origin": "null"}, 403), ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://localhost:9999"}, 403),
        ({"origin": "http://evil.example", "host": "evil.example"}, 421),
        ({"authorization": f"Bearer {TOKEN}"}, 403),
    ],
)  # fmt: skip
def test_a_socket_of_another_page_is_not_accepted(
    path: str, headers: Mapping[str, str], status: int
) -> None:
    with pytest.raises(WebSocketDenialResponse) as refused:
        client().websocket_connect(WS + path, headers={**COOKIE, **headers}).__enter__()
    assert refused.value.status_code == status
    assert refused.value.headers["content-security-policy"] == CSP
    assert only_line(refused.value)


@pytest.mark.parametrize("path", ["/ws", "/elsewhere"])
def test_a_socket_needs_the_token(path: str) -> None:
    with pytest.raises(WebSocketDenialResponse) as refused:
        client().websocket_connect(WS + path, headers={"origin": OWN}).__enter__()
    assert refused.value.status_code == 401
    for known in (COOKIE, {"authorization": f"Bearer {TOKEN}"}):
        with client().websocket_connect(WS + path, headers={"origin": OWN, **known}) as mine:
            assert mine.receive_text() == SECRET


def test_a_server_that_cannot_refuse_in_words_closes_the_socket() -> None:
    scope = {"type": "websocket", "path": "/ws", "headers": [(b"host", b"localhost")]}
    assert sent_for(scope) == [{"type": "websocket.close", "code": 1008}]


@contextmanager
def served() -> Iterator[int]:
    """The same behind the real server, with its own reading of requests; gives the port."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        guarded(), log_level="critical", ws="websockets-sansio", lifespan="off", http="h11"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


@pytest.mark.slow
def test_real_upgrades_are_judged_by_what_is_on_the_wire() -> None:
    with served() as port:
        own = f"http://127.0.0.1:{port}"
        cookie = {"Cookie": f"cupel_{port}={cookie_value(TOKEN)}"}
        address = f"ws://127.0.0.1:{port}/ws"
        with connect(address, origin=own, additional_headers=cookie) as mine:
            assert mine.recv() == SECRET
        for origin, headers, status in (
            (None, cookie, 403), ("null", cookie, 403), ("http://evil.example", cookie, 403),
            (own, {}, 401), (own, {"Cookie": f"cupel_{port}=x"}, 401),
        ):  # fmt: skip
            with pytest.raises(InvalidStatus) as refused:
                connect(address, origin=origin, additional_headers=headers)  # type: ignore[arg-type]
            assert refused.value.response.status_code == status
            assert refused.value.response.headers["Content-Security-Policy"] == CSP
        for host, status in (("localhost:1", 200), ("evil.example", 421)):
            asked = http.client.HTTPConnection("127.0.0.1", port)
            asked.request("GET", "/healthz", headers={"Host": host})
            answer = asked.getresponse()
            assert answer.status == status
            answer.read()
            asked.close()


# ---- garbage -------------------------------------------------------------------------------


def sent_for(scope: dict[str, Any]) -> list[dict[str, Any]]:
    """All that is sent back for a request given as a server hands it on."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(guarded()(scope, receive, send))
    return sent


def asked_raw(
    method: str, path: str, headers: list[tuple[bytes, bytes]], kind: str = "http"
) -> tuple[int, bytes]:
    scope = {
        "type": kind, "method": method, "path": path, "raw_path": path.encode(), "root_path": "",
        "query_string": b"", "headers": headers, "client": ("127.0.0.1", 1), "scheme": "http",
        "server": ("127.0.0.1", 8765), "extensions": {"websocket.http.response": {}},
        "http_version": "1.1", "subprotocols": [],
    }  # fmt: skip
    sent = sent_for(scope)
    status = next((one["status"] for one in sent if "status" in one), 101)
    return status, b"".join(one.get("body", b"") for one in sent)


PIECES = st.sampled_from(
    [b",", b"localhost", b"127.0.0.1", b"[::1]", b":8765", b"http://", b"null", b"cupel_8765", b"=",
     b"; ", b"Bearer ", cookie_value(TOKEN)[:32].encode(), TOKEN.encode()[:-1], b"\n", b"\x00"]
)  # fmt: skip
GARBAGE = st.one_of(st.binary(max_size=40), st.lists(PIECES, max_size=8).map(b"".join))
NAMES = st.sampled_from(
    [b"host", b"origin", b"cookie", b"authorization", b"sec-fetch-site", b"x-cupel"]
)


@given(
    st.lists(st.tuples(NAMES, GARBAGE), max_size=8),
    st.booleans(),
    st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE"]),
    st.sampled_from(["http", "websocket"]),
)
@pytest.mark.slow
def test_garbage_is_refused_and_never_an_error(
    headers: list[tuple[bytes, bytes]], named: bool, method: str, kind: str
) -> None:
    headers = [*headers, (b"host", b"localhost:8765")] if named else headers
    path = "/ws" if kind == "websocket" else "/api/v1/runs"
    status, body = asked_raw(method, path, headers, kind)
    assert status in (401, 403, 421, 429)
    assert SECRET.encode() not in body


@given(st.binary(max_size=200))
@pytest.mark.slow
def test_garbage_in_a_body_opens_nothing(body: bytes) -> None:
    found = client().post(SESSION, content=body, headers={"origin": OWN})
    assert found.status_code in (400, 401)
