"""The WebSocket of the page: what it asked for, at once; what is new, at most ten times a second.

Protocol `cupel.v1`. Text frames are JSON, binary ones are charts (`cupel.dashboard.frames`).

    page → server  hello   {proto, client}
                   sub     {id, query, cursor?|name?}    cursor of a chart, name of a state it has
                   unsub   {id}
                   at      {id, n, x}                     the points nearest to a place of a chart
                   pause, resume                          a hidden tab is sent nothing
                   ping    {n}
    server → page  welcome {proto, server, now, hz, root}
                   snapshot, append (binary)              {id, cursor, from, to, cut, curves, …}
                   state   {id, name, data}
                   reading {id, read, of}                 bytes of a file, while a chart takes long
                   at      {id, n, points}
                   pong    {n, now}; beat {now} every 10 s
                   refused {id?, error}

Of a client only the ids of what is stale for it are kept, never messages: who reads slowly is sent
less often, and what it is sent then is the newest. What it has is named by its cursor, so nothing
has to be remembered for one that comes back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from cupel.dashboard import chart, states
from cupel.dashboard.chart import Cursor
from cupel.dashboard.queries import ChartQuery, Query, RunQuery, parse
from cupel.dashboard.replies import encode
from cupel.dashboard.store import Store
from cupel.dashboard.watch import TICK_S, Watch
from cupel.errors import CupelError

_logger = logging.getLogger(__name__)

PROTOCOL = "cupel.v1"
MOST_CLIENTS = 40
MOST_SUBSCRIPTIONS = 64
HZ = 10
STATE_S = 1.0  # between two looks at a state
BEAT_S = 10.0
READING_S = 1.0  # until, and between, words of how far the reading for a chart is
LONGEST_ID = 64
MOST_SHARED = 64  # charts whose last news are kept

_News = tuple[bytes, Cursor] | None


@dataclass(slots=True, eq=False)
class _Sub:
    """What one client asked for under one id, and what it has of it."""

    query: Query
    cursor: Cursor | None = None
    name: str | None = None
    stale: bool = True
    asked: float = 0.0  # when it was last looked at
    failed: bool = False  # it is tried again, and told once

    @property
    def runs(self) -> list[str]:
        """The runs whose files tell when it is stale."""
        if isinstance(self.query, ChartQuery):
            return self.query.runs
        return [self.query.run] if isinstance(self.query, RunQuery) else []


@dataclass(slots=True, eq=False)
class _Client:
    socket: WebSocket
    subs: dict[str, _Sub] = field(default_factory=dict)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    fresh: asyncio.Event = field(default_factory=asyncio.Event)  # it has asked for something else
    paused: bool = False
    asked: list[dict[str, Any]] = field(default_factory=list)  # points; the last of each id


class Hub:
    """All clients of a server; `serve` is the endpoint, `run` looks for what has changed."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.server = secrets.token_hex(8)
        self._clients: set[_Client] = set()
        self._states = states.Recent(store, STATE_S / 2)
        self._computed: dict[bytes, tuple[object, asyncio.Future[_News]]] = {}
        self._watch = Watch(lambda key: store.root / key if store.is_run(key) else None)

    @property
    def clients(self) -> int:
        """How many pages are connected."""
        return len(self._clients)

    async def run(self) -> None:
        """Look at the runs that pages show, until cancelled."""
        while True:
            began = time.monotonic()
            if due := self._watch.due():
                try:
                    changed = self._watch.take(await self.store.call(self._watch.read, due))
                except Exception as error:  # one run that cannot be looked at is not all of them
                    _logger.warning("cannot look at what has changed: %s", error)
                    changed = set()
                for client in list(self._clients):
                    self._mark(client, changed)
            await asyncio.sleep(max(0.01, TICK_S - (time.monotonic() - began)))

    async def serve(self, socket: WebSocket) -> None:
        """One page, from its first message to its last."""
        if len(self._clients) >= MOST_CLIENTS:
            await socket.close(1013, f"{MOST_CLIENTS} pages are open already; close one")
            return
        await socket.accept(PROTOCOL if PROTOCOL in socket.scope["subprotocols"] else None)
        client = _Client(socket)
        self._clients.add(client)
        sender = asyncio.create_task(self._send_all(client))
        receiver = asyncio.create_task(self._receive_all(client))
        # Whichever ends first: a page that nothing is sent to any more must not seem live. Who
        # cancels this ends it, as a page that goes does.
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait((sender, receiver), return_when=asyncio.FIRST_COMPLETED)
        for name in list(client.subs):
            self._drop(client, name)
        self._clients.discard(client)
        for task in (sender, receiver):
            task.cancel()
            try:
                await task
            except (asyncio.CancelledError, WebSocketDisconnect, RuntimeError):
                pass  # the page has gone
            except Exception as error:
                _logger.warning("a page was left: %r", error)
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await socket.close(1011)

    async def close(self) -> None:
        """Tell all pages that the server ends."""
        for client in list(self._clients):
            with contextlib.suppress(Exception):
                await client.socket.close(1001, "the server was stopped")

    async def _receive_all(self, client: _Client) -> None:
        while True:
            message = await client.socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            try:
                plain = msgspec.json.decode(message.get("text") or b"")
                if not isinstance(plain, dict):
                    raise msgspec.DecodeError("no object")
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                await self._say(client, {"type": "refused", "error": "this is no JSON object"})
                continue
            await self._take(client, plain)

    async def _take(self, client: _Client, message: dict[str, Any]) -> None:
        kind, name = message.get("type"), message.get("id")
        if kind == "hello":
            await self._say(client, {
                "type": "welcome", "proto": PROTOCOL, "server": self.server, "now": time.time(),
                "hz": HZ, "root": str(self.store.root.name),
            })  # fmt: skip
        elif kind == "ping":
            await self._say(client, {"type": "pong", "n": message.get("n"), "now": time.time()})
        elif kind in ("pause", "resume"):
            client.paused = kind == "pause"
            client.wake.set()
        elif not isinstance(name, str) or not 0 < len(name) <= LONGEST_ID:
            error = f"{str(kind)[:20]!r} without an id, or no message of {PROTOCOL}"
            await self._say(client, {"type": "refused", "error": error})
        elif kind == "sub":
            await self._subscribe(client, name, message)
        elif kind == "unsub":
            self._drop(client, name)
        elif kind == "at" and name in client.subs:
            client.asked = [one for one in client.asked if one["id"] != name] + [message]
            client.wake.set()

    async def _subscribe(self, client: _Client, name: str, message: dict[str, Any]) -> None:
        self._drop(client, name)
        try:
            if len(client.subs) >= MOST_SUBSCRIPTIONS:
                raise CupelError(f"more than {MOST_SUBSCRIPTIONS} subscriptions; end some first")
            sub = _Sub(parse(message.get("query")))
        except CupelError as error:
            await self._say(client, {"type": "refused", "id": name, "error": str(error)})
            return
        if message.get("cursor") is not None:
            sub.cursor = chart.cursor_of(message["cursor"])
        if isinstance(message.get("name"), str):
            sub.name = message["name"]
        client.subs[name] = sub
        for key in sub.runs:
            self._watch.add(key)
        client.wake.set()
        client.fresh.set()

    def _drop(self, client: _Client, name: str) -> None:
        sub = client.subs.pop(name, None)
        for key in sub.runs if sub else ():
            self._watch.remove(key)

    def _mark(self, client: _Client, changed: set[str]) -> None:
        """Note what is stale for a client, and wake its sender."""
        now = time.monotonic()
        for sub in client.subs.values():
            if isinstance(sub.query, ChartQuery) and not sub.failed:
                sub.stale = sub.stale or not changed.isdisjoint(sub.query.runs)
            elif now - sub.asked > STATE_S:
                sub.stale = True
        if any(sub.stale for sub in client.subs.values()):
            client.wake.set()

    async def _send_all(self, client: _Client) -> None:
        beat = time.monotonic()
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(client.wake.wait(), 1.0)
            client.wake.clear()
            began = time.monotonic()
            while client.asked:
                await self._answer(client, client.asked.pop(0))
            if not client.paused:
                self._mark(client, set())
                await self._update_all(client)
            if time.monotonic() - beat > BEAT_S:
                beat = time.monotonic()
                await self._say(client, {"type": "beat", "now": time.time()})
            await self._rest(client, began + 1 / HZ)

    async def _rest(self, client: _Client, until: float) -> None:
        """Wait for the next turn; what is asked for the first time meanwhile does not."""
        while (left := until - time.monotonic()) > 0:
            try:
                await asyncio.wait_for(client.fresh.wait(), left)
            except TimeoutError:
                return
            client.fresh.clear()  # and not before: something may have been asked meanwhile
            if not client.paused:
                await self._update_all(client, first=True)

    async def _update_all(self, client: _Client, *, first: bool = False) -> None:
        """Send what is new of all that is stale, or of what has never been looked at."""
        for name, sub in list(client.subs.items()):
            if sub.stale and client.subs.get(name) is sub and not (first and sub.asked):
                sub.stale = False
                await self._update(client, name, sub)

    async def _update(self, client: _Client, name: str, sub: _Sub) -> None:
        """Send what is new of a subscription, if anything is."""
        sub.asked = time.monotonic()
        try:
            message = await self._patiently(client, name, sub)
            if client.subs.get(name) is not sub:  # it was asked anew, or not at all, meanwhile
                return
        except Exception as error:  # a run that was deleted, a disk that fails: others go on
            if not isinstance(error, CupelError):
                _logger.warning("cannot read what a page asked for: %r", error)
            if not sub.failed:
                text = " ".join(str(error).split()) or type(error).__name__
                await self._say(client, {"type": "refused", "id": name, "error": text})
            sub.failed, sub.cursor, sub.name = True, None, None
            return
        sub.failed = False
        if isinstance(message, bytes):
            await client.socket.send_bytes(message)
        elif message is not None:
            await client.socket.send_text(message)

    async def _patiently(self, client: _Client, name: str, sub: _Sub) -> bytes | str | None:
        """The news of a subscription; while they take long, the page is told how far they are."""
        news = asyncio.ensure_future(self._news(name, sub))
        try:
            while not (await asyncio.wait({news}, timeout=READING_S))[0]:
                if not isinstance(sub.query, ChartQuery) or client.paused:
                    continue
                if client.subs.get(name) is sub and (far := self.store.being_read(sub.runs)):
                    read, of = far
                    told = {"type": "reading", "id": name, "read": read, "of": of}
                    with contextlib.suppress(
                        WebSocketDisconnect, RuntimeError
                    ):  # the page has gone
                        await self._say(client, told)
            return news.result()
        finally:
            news.cancel()

    async def _news(self, name: str, sub: _Sub) -> bytes | str | None:
        """The message with what is new of a subscription, which then has it; None for nothing."""
        if isinstance(sub.query, ChartQuery):
            found = await self._shared(sub.query, sub.cursor)
            if found is None:
                return None
            frame, sub.cursor = found
            return _named(frame, name)
        data, now = await self.store.call(self._states.state, sub.query)
        if now == sub.name:
            return None
        sub.name = now
        head = encode({"type": "state", "id": name, "name": now}).decode()
        return f'{head[:-1]},"data":{data.decode()}}}'

    async def _shared(self, query: ChartQuery, cursor: Cursor | None) -> _News:
        """What is new of a chart, computed once for all pages that show it and have the same."""
        seen, asked = self._watch.versions, msgspec.json.encode(query)
        state = (tuple(seen.get(key, 0) for key in query.runs), cursor.name if cursor else None)
        known = self._computed.get(asked)
        if known is None or known[0] != state:
            work = asyncio.ensure_future(self.store.call(_chart_news, self.store, query, cursor))
            work.add_done_callback(lambda done: done.cancelled() or done.exception())
            known = self._computed[asked] = state, work
            while len(self._computed) > MOST_SHARED:
                self._computed.pop(next(iter(self._computed)))
        try:
            return await asyncio.shield(known[1])
        except BaseException:
            if self._computed.get(asked) is known:
                del self._computed[asked]
            raise

    async def _answer(self, client: _Client, message: dict[str, Any]) -> None:
        sub = client.subs.get(message["id"])
        x = message.get("x")
        if sub is None or not isinstance(sub.query, ChartQuery) or not isinstance(x, int | float):
            return
        with contextlib.suppress(CupelError, OSError, OverflowError):
            points = await self.store.call(chart.points_at, self.store, sub.query, float(x))
            answer = {"type": "at", "id": message["id"], "n": message.get("n"), "points": points}
            await self._say(client, answer)

    async def _say(self, client: _Client, message: dict[str, Any]) -> None:
        if client.socket.application_state == WebSocketState.CONNECTED:
            await client.socket.send_text(encode(message).decode())


def _chart_news(store: Store, query: ChartQuery, cursor: Cursor | None) -> _News:
    return chart.append(store, query, cursor) if cursor else chart.snapshot(store, query)


def _named(frame: bytes, name: str) -> bytes:
    """A frame of a chart for a subscription."""
    return name.encode()[:LONGEST_ID].ljust(LONGEST_ID, b"\0") + frame
