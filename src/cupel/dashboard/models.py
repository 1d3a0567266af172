"""Where the model of a run is asked for: `routes`, and what they read of the record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from cupel.dashboard.model_diff import ModelDiff, compare
from cupel.dashboard.model_view import ModelView, norm_keys, view
from cupel.dashboard.replies import reply
from cupel.dashboard.store import Store
from cupel.errors import RecordError, UsageError
from cupel.record.files import read_json

NAME = "model.json"


def routes() -> list[BaseRoute]:
    """A run's model, and two of them side by side."""
    return [
        Route("/api/v1/runs/{id}/model", _model),
        Route("/api/v1/models/compare", _compared),
    ]


def read_view(store: Store, key: str) -> ModelView:
    """The model of a run as it stands in its record. Raises UnknownName."""
    with store.reading(key) as opened:
        try:
            model = _read(opened.record.run_dir / NAME)
        except RecordError:
            return ModelView(False, f"{NAME} of this run is damaged: it cannot be read")
        norms: dict[str, tuple[int, Any]] = {}
        keys = norm_keys(model)
        _, logged = opened.logged(*keys)
        for one in set(keys) & logged.kinds().keys():
            last = logged.last(one)
            if last is not None and isinstance(last[1], int | float):
                norms[one] = last
    return view(model, norms)


def read_diff(store: Store, left: str, right: str) -> ModelDiff:
    """The models of two runs side by side. Raises UnknownName."""
    return compare(read_view(store, left), read_view(store, right))


def _read(path: Path) -> dict[str, Any] | None:
    return read_json(path) if path.exists() else None


async def _model(request: Request) -> Response:
    store: Store = request.app.state.store
    project = request.query_params.get("project")
    key = await store.call(store.find, request.path_params["id"], project)
    return reply(await store.call(read_view, store, key))


async def _compared(request: Request) -> Response:
    store: Store = request.app.state.store
    keys = [request.query_params.get(side, "") for side in ("a", "b")]
    if not all(keys):
        raise UsageError("two runs are compared; ask for ?a=PROJECT/RUN&b=PROJECT/RUN")
    return reply(await store.call(read_diff, store, *keys))
