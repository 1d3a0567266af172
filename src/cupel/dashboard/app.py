"""The dashboard's application: routes, errors, the page; `create_app(root, token=…, hosts=…)`."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute

from cupel.dashboard import (
    about,
    chart,
    drawing,
    export,
    insight,
    media,
    models,
    openapi,
    page,
    runs,
    snapshot,
    standing,
    states,
    studies,
)
from cupel.dashboard.hub import Hub
from cupel.dashboard.queries import MOST_RUNS, ChartQuery, parse
from cupel.dashboard.replies import refused, reply
from cupel.dashboard.security import Guard
from cupel.dashboard.store import Store
from cupel.errors import CupelError, UsageError

_LONGEST_QUERY = 64 * 1024
_BYTES = "application/octet-stream"


def create_app(
    root: Path, *, token: str, hosts: Sequence[str], writes: bool = False, tls: bool = False
) -> Starlette:
    """The application of one root, guarded. `writes` allows notes, tags, hold and stop."""
    store = Store(root)
    hub = Hub(store)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        watching = asyncio.create_task(hub.run())
        try:
            yield
        finally:
            watching.cancel()
            await hub.close()
            store.close()

    app = Starlette(
        routes=_routes(hub),
        lifespan=lifespan,
        exception_handlers={CupelError: refused},
        middleware=[Middleware(Guard, hosts=hosts, token=token, writes=writes, tls=tls)],
    )
    app.state.store, app.state.hub, app.state.writes = store, hub, writes
    app.state.began = time.time()
    return app


def _routes(hub: Hub) -> list[BaseRoute]:
    return [
        *about.routes(),
        *openapi.routes(),
        WebSocketRoute("/ws", hub.serve),
        Route("/api/v1/delta", _delta),
        Route("/api/v1/points", _points),
        Route("/api/v1/ahead", _ahead),
        *runs.routes(),
        *insight.routes(),
        *export.routes(),
        *drawing.routes(),
        *snapshot.routes(),
        *media.routes(),
        *models.routes(),
        *studies.routes(),
        *page.routes(),
    ]


async def _delta(request: Request) -> Response:
    """What the WebSocket would send next for one subscription: for pages that have none.

    `sub` is JSON: `query`, and `cursor` (of a chart) or `name` (of a state) of what the page has.
    204 when nothing is new.
    """
    message = _subscription(request)
    store: Store = request.app.state.store
    query = parse(message.get("query"))
    if isinstance(query, ChartQuery):
        seen = chart.cursor_of(message["cursor"]) if message.get("cursor") is not None else None
        found = await store.call(_chart_delta, store, query, seen)
        return Response(found, media_type=_BYTES) if found else Response(None, 204)
    data, name = await store.call(states.state, store, query)
    if name == message.get("name"):
        return Response(None, 204)
    body = b'{"name":"' + name.encode() + b'","data":' + data + b"}"
    return Response(body, media_type="application/json")


async def _points(request: Request) -> Response:
    """What the WebSocket answers to `at`: the points nearest to the place `x` of a chart."""
    query = parse(_subscription(request).get("query"))
    text = request.query_params.get("x", "")
    try:
        x = float(text)
    except ValueError:
        x = math.nan
    if not isinstance(query, ChartQuery) or not math.isfinite(x):
        raise UsageError(f"x={text[:40]!r} is no place, or sub= holds no query of a chart")
    store: Store = request.app.state.store
    return reply(await store.call(chart.points_at, store, query, x))


async def _ahead(request: Request) -> Response:
    """204: what a page of these runs shows first is read while the page is still on its way."""
    store: Store = request.app.state.store
    store.begin(standing.read_ahead, store, request.query_params.getlist("run")[:MOST_RUNS])
    return Response(None, 204)


def _subscription(request: Request) -> dict[str, Any]:
    """What `sub` holds. Raises UsageError."""
    text = request.query_params.get("sub", "")
    try:
        message: Any = msgspec.json.decode(text[:_LONGEST_QUERY])
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise UsageError(f"sub={text[:60]!r} is no JSON") from error
    if not isinstance(message, dict):
        raise UsageError(f"sub={text[:60]!r} is no JSON object")
    return message


def _chart_delta(store: Store, query: ChartQuery, seen: chart.Cursor | None) -> bytes | None:
    found = chart.snapshot(store, query) if seen is None else chart.append(store, query, seen)
    return found[0] if found else None
