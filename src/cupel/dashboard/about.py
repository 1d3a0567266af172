"""Which server this is, and that it answers; nothing of any run."""

from __future__ import annotations

import time
from importlib.metadata import version

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from cupel.dashboard.hub import PROTOCOL, Hub
from cupel.dashboard.replies import reply
from cupel.dashboard.store import Store


class Health(msgspec.Struct):
    """That the server answers."""

    status: str
    service: str
    protocol: str
    server: str
    """Another one after each start."""
    uptime_s: float
    clients: int
    """How many pages are connected."""


class About(msgspec.Struct):
    """Which server this is, and what may be done through it."""

    version: str
    root: str
    """The name of the root's folder; where it lies is nobody's business."""
    writes: bool


def routes() -> list[BaseRoute]:
    return [
        Route("/healthz", _health),
        Route("/api/v1/session", _entered),
        Route("/api/v1/about", _about),
    ]


async def _health(request: Request) -> Response:
    hub: Hub = request.app.state.hub
    uptime = time.time() - request.app.state.began
    return reply(Health("ok", "cupel", PROTOCOL, hub.server, uptime, hub.clients))


async def _entered(request: Request) -> Response:
    """204: whoever asks may ask for the rest, too. The guard answers others, and takes tokens."""
    return Response(None, 204)


async def _about(request: Request) -> Response:
    store: Store = request.app.state.store
    return reply(About(version("cupel"), store.root.resolve().name, request.app.state.writes))
