"""What stands out in a run, asked for by itself: anomalies of its losses and its gradient norms."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from cupel.dashboard.replies import Number, reply
from cupel.dashboard.standing import names_of
from cupel.dashboard.store import Store
from cupel.record.series import STEP

MOST_METRICS = 40
NEWEST = 1_000_000  # points of a metric that are looked at, about 0.5 s


class AnomalyFacts(msgspec.Struct):
    """One: "not finite" (`count` in a row), "jump", or "spike" of a gradient norm."""

    kind: str
    step: int
    value: Number
    threshold: Number | None
    """Median + 6 MAD of the 100 values before it; None of what is not finite."""
    count: int


class MetricAnomalies(msgspec.Struct):
    """Those of one metric: how many in all, and the newest."""

    metric: str
    points: int
    total: int
    shown: list[AnomalyFacts]


class RunAnomalies(msgspec.Struct):
    """Of each metric that is a loss or a gradient norm."""

    run: str
    anomalies: list[MetricAnomalies]


def routes() -> list[BaseRoute]:
    return [Route("/api/v1/runs/{id}/anomalies", _anomalies)]


async def _anomalies(request: Request) -> Response:
    store: Store = request.app.state.store
    key = store.find(request.path_params["id"], request.query_params.get("project"))
    return reply(await store.call(of_run, store, key))


def of_run(store: Store, key: str) -> RunAnomalies:
    """What stands out in a run. Raises UnknownName."""
    found: list[MetricAnomalies] = []
    with store.reading(key) as run:
        names = [name for name in names_of(store, key, run) if _is_looked_at(name)]
        for name in names[:MOST_METRICS]:
            _, logged = run.logged(name)
            steps, _, values = logged.curve(name, STEP).newest(NEWEST)
            found.append(_of_metric(name, steps, values))
    return RunAnomalies(key, found)


def _is_looked_at(name: str) -> bool:
    return "loss" in name.lower() or name.startswith("grad_norm/")


def _of_metric(name: str, steps: Any, values: Any) -> MetricAnomalies:
    from cupel.analysis.anomalies import anomalies

    came = anomalies(steps, values, log=name.startswith("grad_norm/"))
    shown = [
        AnomalyFacts(one.kind, int(one.step), one.value, one.threshold, one.count)
        for one in came.shown
    ]
    return MetricAnomalies(name, len(values), came.total, shown)
