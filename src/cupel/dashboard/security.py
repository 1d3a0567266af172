"""Who may ask the dashboard anything: `Guard`, in front of every request and every WebSocket.

A server on the loopback is no secret: every page that a browser shows may send requests to it, and
every user of the machine may. So three things are asked of each request. Its Host is a name of
ours, or a page of a name that was pointed to 127.0.0.1 would read everything (DNS rebinding). It
comes from our own page: browsers say so in Origin and Sec-Fetch-Site, which a page cannot set. And
it brings the token, as a cookie or as `Authorization: Bearer`; only the static text of the page is
given without. What is written by the token's owner is not looked at here.

The cookie is made of the token, so that it outlives the server; its name carries the port, since
cookies do not tell ports apart.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

SESSION = "/api/v1/session"

_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self'; font-src 'self'; connect-src 'self'; worker-src 'self'; base-uri 'none'; "
    "form-action 'none'; "
    "frame-ancestors 'none'"
)
_HEADERS = {
    b"content-security-policy": _CSP.encode(),
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
}
_NEVER = b"access-control-"  # no page of another origin is ever given leave
_FOR_EVER = b"public, max-age=31536000, immutable"
# As esbuild names what it bundles: main-5XQ7AB2C.js.
_HASHED = re.compile(r"/assets/(?:[^/]+/)*[^/]*-[A-Z0-9]{8}\.[A-Za-z0-9.]+")
_HOST = re.compile(r"(?P<name>[a-z0-9._-]{1,253}|\[[0-9a-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?")
_PRIVATE = ("api", "ws")
_READING = ("GET", "HEAD")
_MOST_BODY = 4096
_WRONG, _WITHIN_S = 20, 60.0
_MOST_ADDRESSES = 256


class Guard:
    """An application that asks who asks, and then hands on to `app`.

    `hosts` are the names by which it may be called, as `localhost` or `[::1]`: with a port
    (`gpu1:8765`) at that port only, without one at any, since `ssh -L` may change it. With `tls`
    the page is an https one. Without `writes` nothing but the session is ever posted; with them
    each needs the header `X-Cupel: 1`, which a form cannot send.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: Sequence[str],
        token: str,
        tls: bool = False,
        writes: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        assert token, "a dashboard needs a token"
        self._app, self._tls, self._writes = app, tls, writes
        self._hosts = frozenset(host.lower() for host in hosts)
        self._token = token.encode()
        self._value = cookie_value(token).encode()
        self._attempts = _Attempts(clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        answer = _Answer(scope, receive, send)
        refusal = self._refusal(scope)
        if refusal is not None:
            await answer.refuse(*refusal)
        elif scope["type"] == "http" and _is_session(scope):
            await self._open_session(scope, receive, answer)
        else:
            await answer.given_by(self._app)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Status and line when a request is refused by what its head says."""
        headers = _Headers(scope["headers"])
        host = headers.one(b"host").lower()
        name = _HOST.fullmatch(host)
        if name is None or not {host, name["name"]} & self._hosts:
            return 421, "this server is not called that; open the address that the command printed"
        if problem := self._foreign(scope, headers, host):
            return 403, problem
        if _is_session(scope):
            return None
        if scope["type"] == "http" and scope["method"] not in _READING:
            if not self._writes:
                return 403, "this dashboard only reads; start it with --allow-writes to change runs"
            if headers.one(b"x-cupel") != "1":
                return 403, "the header X-Cupel: 1 is missing"
        elif scope["type"] == "http" and not _is_private(scope["path"]):
            return None
        return self._unknown(scope, headers, name["port"])

    def _foreign(self, scope: Scope, headers: _Headers, host: str) -> str:
        """What says that another page than ours asks, if anything does."""
        own = f"{'https' if self._tls else 'http'}://{host}"
        reads = scope["type"] == "http" and scope["method"] in _READING
        if b"origin" not in headers:
            if not reads:
                return f"the header Origin is missing; it must be {own}"
        elif headers.one(b"origin").lower() != own:
            return f"the header Origin is another page's; it must be {own}"
        site = headers.one(b"sec-fetch-site").lower()
        if reads and _is_private(scope["path"]) and site not in ("", "same-origin", "none"):
            return "another page asks for this; only the dashboard's own page may"
        return ""

    def _unknown(self, scope: Scope, headers: _Headers, port: str | None) -> tuple[int, str] | None:
        """Why the one who asks is not known, if so."""
        cookie = self._cookie(port).encode()
        if any(
            name == cookie and hmac.compare_digest(value, self._value)
            for name, value in headers.cookies()
        ):
            return None
        kind, _, given = headers.one(b"authorization").partition(" ")
        if kind.lower() == "bearer":
            return self._wrong(scope, given.strip())
        return 401, "open the address that the command printed; its end is the token"

    def _wrong(self, scope: Scope, given: str) -> tuple[int, str] | None:
        """Why a token does not do, if so; those who guess are kept waiting."""
        who = str((scope.get("client") or ("",))[0])
        if self._attempts.too_many(who):
            return 429, "too many wrong tokens; wait a minute"
        if hmac.compare_digest(given.encode("utf-8", "surrogatepass"), self._token):
            return None
        self._attempts.count(who)
        return 401, "that is not the token; open the address that the command printed"

    async def _open_session(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        body = await _body(receive)
        if body is None:
            await answer.refuse(413, f'more than {_MOST_BODY} bytes; expected {{"token": …}}')
            return
        given = _token_in(body)
        if given is None:
            await answer.refuse(400, 'expected JSON: {"token": "…"}')
            return
        if (refusal := self._wrong(scope, given)) is not None:
            await answer.refuse(*refusal)
            return
        host = _HOST.fullmatch(_Headers(scope["headers"]).one(b"host").lower())
        assert host is not None, "it was looked at before"
        made = f"{self._cookie(host['port'])}={self._value.decode()}; Path=/; HttpOnly"
        made += "; SameSite=Strict" + ("; Secure" if self._tls else "")
        await answer.say(204, b"", {b"set-cookie": made.encode()})

    def _cookie(self, port: str | None) -> str:
        """The cookie's name. The port is the browser's, which `ssh -L` may have changed."""
        return f"cupel_{port or ('443' if self._tls else '80')}"


def cookie_value(token: str) -> str:
    """What the cookie of a token holds: equal after a restart, and the token is not in it."""
    return hmac.new(token.encode(), b"the dashboard's cookie", hashlib.sha256).hexdigest()


class _Attempts:
    """Counts wrong tokens by address: so many within a minute, and it is too many."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._times: dict[str, deque[float]] = {}

    def count(self, who: str) -> None:
        times = self._times.pop(who, deque(maxlen=_WRONG))
        times.append(self._clock())
        self._times[who] = times  # the newest is last
        while len(self._times) > _MOST_ADDRESSES:
            del self._times[next(iter(self._times))]

    def too_many(self, who: str) -> bool:
        times = self._times.get(who, deque())
        return len(times) == _WRONG and self._clock() - times[0] < _WITHIN_S


class _Headers:
    """The headers of a request; a name that comes twice where once is right counts as garbage."""

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        self._values: dict[bytes, list[bytes]] = {}
        for name, value in raw:
            self._values.setdefault(name.lower(), []).append(value)

    def __contains__(self, name: bytes) -> bool:
        return name in self._values

    def one(self, name: bytes) -> str:
        """The value of a header; empty when there is none, and a line feed when there are more."""
        found = self._values.get(name, [b""])
        return found[0].decode("latin-1") if len(found) == 1 else "\n"

    def cookies(self) -> Iterator[tuple[bytes, bytes]]:
        for header in self._values.get(b"cookie", ()):
            for part in header.split(b";"):
                name, _, value = part.partition(b"=")
                yield name.strip(), value.strip()


class _Answer:
    """What goes back to who asked: each response with our headers, also those of errors."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._begun = False

    async def given_by(self, app: ASGIApp) -> None:
        """Let an application answer; when it fails before it has begun, there is an answer too."""
        try:
            await app(self._scope, self._receive, self._sent)
        except Exception:
            if not self._begun and self._scope["type"] == "http":
                await self.refuse(500, "the dashboard failed at this; its log says why")
            raise

    async def refuse(self, status: int, line: str) -> None:
        """Answer with one line: JSON where programs ask, plain text where people do."""
        headers = {b"retry-after": b"60"} if status == 429 else {}
        if self._scope["type"] == "websocket" or _is_private(self._scope["path"]):
            body = json.dumps({"error": line}, ensure_ascii=False).encode()
            await self.say(status, body, {**headers, b"content-type": b"application/json"})
        else:
            kind = {b"content-type": b"text/plain; charset=utf-8"}
            await self.say(status, f"{line}\n".encode(), {**headers, **kind})

    async def say(self, status: int, body: bytes, headers: Mapping[bytes, bytes]) -> None:
        """Send a whole response."""
        kind = "http.response"
        if self._scope["type"] == "websocket":
            if "websocket.http.response" not in (self._scope.get("extensions") or {}):
                await self._send({"type": "websocket.close", "code": 1008})
                return
            kind = "websocket.http.response"
        sized = {} if status == 204 else {b"content-length": str(len(body)).encode()}
        head = [*headers.items(), *sized.items()]
        await self._sent({"type": f"{kind}.start", "status": status, "headers": head})
        empty = self._scope.get("method") == "HEAD"
        await self._sent({"type": f"{kind}.body", "body": b"" if empty else body})

    async def _sent(self, message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.http.response.start"):
            self._begun = True
            headers = self._with_ours(message.get("headers", ()), message["status"])
            message = {**message, "headers": headers}
        await self._send(message)

    def _with_ours(
        self, given: Iterable[tuple[bytes, bytes]], status: int
    ) -> list[tuple[bytes, bytes]]:
        """The headers of a response with ours in the place of what it may have of them."""
        kept = status in (200, 206, 304) and _HASHED.fullmatch(self._scope["path"])
        ours = {**_HEADERS, b"cache-control": _FOR_EVER if kept else b"no-store"}
        others = [
            (name, value)
            for name, value in given
            if (name.lower() not in ours or _is_stricter(name, value))
            and not name.lower().startswith(_NEVER)
        ]
        return [*others, *ours.items()]


def _is_stricter(name: bytes, value: bytes) -> bool:
    """Whether a policy sandboxes what is sent: browsers apply it together with ours."""
    return name.lower() == b"content-security-policy" and b"sandbox" in value


def _is_session(scope: Scope) -> bool:
    return scope["type"] == "http" and scope["method"] == "POST" and bool(scope["path"] == SESSION)


def _is_private(path: str) -> bool:
    """Whether a path is no static text; also one that is only spelt otherwise, to be sure."""
    return path.strip("/\\ ").split("/")[0].lower() in _PRIVATE


async def _body(receive: Receive) -> bytes | None:
    """The body of a request; None when it is longer than a token may be."""
    body = b""
    while len(body) <= _MOST_BODY:
        message = await receive()
        body += message.get("body", b"")
        if message["type"] != "http.request" or not message.get("more_body"):
            break
    return body if len(body) <= _MOST_BODY else None


def _token_in(body: bytes) -> str | None:
    """The token in a body of JSON; None for anything else."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    token = found.get("token") if isinstance(found, dict) else None
    return token if isinstance(token, str) else None
