"""Studies and the queue for the page: what is told live, and the addresses below /api/v1/studies.

GET  /api/v1/studies                        all studies of the root
GET  /api/v1/studies/{name}?project=        the plan of one, and how its runs stand
GET  /api/v1/studies/{name}/comparison      its arms, compared as it declared
GET  /api/v1/studies/{name}/cells?metric=   a number of the runs' summaries, cell by cell
POST /api/v1/studies/{name}/control         hold, release, boost, cancel, retry
GET  /api/v1/queue                          what is open, who works, what failed
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cupel.dashboard import comparing, steering, study_plans
from cupel.dashboard.glance import Glance, desk_of
from cupel.dashboard.replies import encode
from cupel.dashboard.store import Store
from cupel.dashboard.study_states import queue, standing
from cupel.errors import UsageError

__all__ = ["queue", "routes", "standing"]

LARGEST_ASKED = 4 * 2**20  # bytes: 100,000 ids


def routes() -> list[Route]:
    """The addresses of studies and of the queue."""
    one = "/api/v1/studies/{name}"
    return [
        Route("/api/v1/studies", _get_studies),
        Route(one, _get_study),
        Route(f"{one}/comparison", _get_comparison),
        Route(f"{one}/cells", _get_cells),
        Route(f"{one}/control", _post_control, methods=["POST"]),
        Route("/api/v1/queue", _get_queue),
    ]


async def _get_studies(request: Request) -> Response:
    return await _told(request, study_plans.rows)


async def _get_study(request: Request) -> Response:
    return await _told(request, lambda store: study_plans.plan(store, _asked_for(request)))


async def _get_comparison(request: Request) -> Response:
    return await _told(request, lambda store: comparing.comparison(_asked_for(request)))


async def _get_cells(request: Request) -> Response:
    metric = request.query_params.get("metric")
    return await _told(request, lambda store: study_plans.cells(store, _asked_for(request), metric))


async def _get_queue(request: Request) -> Response:
    return await _told(request, queue)


async def _post_control(request: Request) -> Response:
    if not request.app.state.writes:  # the Guard has refused it before
        raise UsageError("this dashboard only reads; start it with --allow-writes to change runs")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_ASKED:
            raise UsageError(f"more than {LARGEST_ASKED >> 20} MiB was sent; use filters, or all")
    asks = steering.asked(body)
    return await _told(request, lambda store: steering.steer(_asked_for(request), asks))


async def _told(request: Request, function: Callable[[Store], Any]) -> Response:
    """What a function says of the store, computed and encoded outside of the event loop."""
    store: Store = request.app.state.store
    body = await store.call(lambda: encode(function(store)))
    return Response(body, media_type="application/json")


def _asked_for(request: Request) -> Glance:
    desk = desk_of(request.app.state.store)
    return desk.find(request.path_params["name"], request.query_params.get("project"))
