"""The interface as an OpenAPI 3.1 document, made of the very types that the server replies with.

`python -m cupel.dashboard.openapi` prints it; the page's own types are generated from that. A test
holds the list below against the routes that are served.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from cupel.dashboard import (
    about,
    beside,
    chart,
    comparing,
    insight,
    media,
    model_diff,
    model_view,
    one_run,
    queries,
    runs,
    standing,
    states,
    steering,
    study_plans,
    study_states,
    table,
)

_COMPONENT = "#/components/schemas/{name}"
_BYTES, _CSV, _HTML = "application/octet-stream", "text/csv", "text/html"
_JSON, _SVG = "application/json", "image/svg+xml"
_PROJECT = "project: of the run or study; may be left out where its name is in one project only"


@dataclass(frozen=True, slots=True)
class Operation:
    """One request: `reply` is a type of JSON, a media type, or None for no content.

    `query` lists the parameters as "name: what it means"; with `body`, the type of what is posted.
    """

    path: str
    tells: str
    reply: Any
    query: tuple[str, ...] = ()
    body: Any = None


_SUB = "sub: JSON with `query`, and `cursor` or `name` of what one has"
_RUNS = "run: the key of a run, <project>/<id>; once for each"
_WINDOW = ("offset: how many are passed over", "limit: how many are told")
_EXPORT = (
    "keys: only these metrics; once for each",
    "sessions: all (default) or current",
    _PROJECT,
)
_TABLE = (
    "where: a filter, as of the command `cupel runs ls`",
    "sort: a column, with - from the greatest",
    "project: only its runs", "columns: names with commas", "group: a column", *_WINDOW,
)  # fmt: skip

OPERATIONS = (
    Operation("/healthz", "That the server answers; needs no token.", about.Health),
    Operation("/api/v1/session", "204 for whoever may ask for the rest.", None),
    Operation("/api/v1/about", "Which server this is.", about.About),
    Operation("/api/v1/openapi.json", "This document.", _JSON),
    Operation("/api/v1/delta", "What is new of one subscription; 204 when nothing is. A frame of a "
              "chart, or a state as JSON.", _BYTES, (_SUB,)),
    Operation("/api/v1/points", "Of each run of a chart the point nearest to a place.",
              list[chart.Point], (_SUB, "x: the place, on the axis of the chart")),
    Operation("/api/v1/ahead", "Read ahead what a page of these runs shows first.", None,
              (_RUNS,)),
    Operation("/api/v1/runs", "The table of runs, a window of it.", table.Table, _TABLE),
    Operation("/api/v1/columns", "Every column that runs have.", table.Columns, (_TABLE[2],)),
    Operation("/api/v1/compare", "What differs between some runs.", beside.Comparison, (_RUNS,)),
    Operation("/api/v1/runs/{id}", "What one run is.", one_run.RunFacts, (_PROJECT,)),
    Operation("/api/v1/runs/{id}/console", "The last lines that it printed.", one_run.ConsoleTail,
              ("last: how many", _PROJECT)),
    Operation("/api/v1/runs/{id}/edit", "Change its notes and tags, where that is allowed.",
              runs.Edited, (_PROJECT,), runs.Edit),
    Operation("/api/v1/runs/{id}/anomalies", "What stands out in its losses and gradient norms.",
              insight.RunAnomalies, (_PROJECT,)),
    Operation("/api/v1/runs/{id}/model", "Its model as a tree.", model_view.ModelView, (_PROJECT,)),
    Operation("/api/v1/models/compare", "Two models side by side.", model_diff.ModelDiff,
              ("a: the key of a run", "b: the key of a run")),
    Operation("/api/v1/runs/{id}/export.csv", "Every line that it logged.", _CSV, _EXPORT),
    Operation("/api/v1/runs/{id}/export.json", "Every line that it logged.", _JSON, _EXPORT),
    Operation("/api/v1/export.csv", "Lines of several runs.", _CSV, (_RUNS, "metric: its name")),
    Operation("/api/v1/export.json", "Lines of several runs.", _JSON, (_RUNS, "metric: its name")),
    Operation("/api/v1/chart.svg", "A chart as a drawing.", _SVG,
              (_SUB, "title: above it", "theme: light or dark", "labels: JSON, by key of a run",
               "log_y: 1 for a logarithmic axis", "clip: 1 to leave out the outermost values")),
    Operation("/api/v1/runs/{id}/snapshot.html", "A run as one file.", _HTML, (_PROJECT,)),
    Operation("/api/v1/studies/{name}/snapshot.html", "A study as one file.", _HTML, (_PROJECT,)),
    Operation("/api/v1/runs/{id}/media", "Its pictures, texts, tables and others.", media.MediaList,
              ("key: only of this key", *_WINDOW, _PROJECT)),
    Operation("/api/v1/runs/{id}/media/{media}", "One of them, as it is.", _BYTES, (_PROJECT,)),
    Operation("/api/v1/runs/{id}/media/{media}/content", "A text, a table or a histogram as JSON.",
              media.TextContent | media.TablePage | media.HistogramContent, (*_WINDOW, _PROJECT)),
    Operation("/api/v1/runs/{id}/histograms", "The histograms of one key, over steps.",
              media.HistogramsOverSteps, ("key: its key", _PROJECT)),
    Operation("/api/v1/studies", "All studies.", list[study_plans.StudyRow]),
    Operation("/api/v1/studies/{name}", "A study's plan and how its runs stand.",
              study_plans.StudyPlan, (_PROJECT,)),
    Operation("/api/v1/studies/{name}/comparison", "Its arms against each other.",
              comparing.ArmsComparison, (_PROJECT,)),
    Operation("/api/v1/studies/{name}/cells", "A number of every cell.", study_plans.CellValues,
              ("metric: of the summary", _PROJECT)),
    Operation("/api/v1/studies/{name}/control", "Hold, release, boost, cancel, retry, where "
              "that is allowed.", steering.Steered, (_PROJECT,), steering.Steer),
    Operation("/api/v1/queue", "Every study with open work.", study_states.QueueState),
)  # fmt: skip
# What the WebSocket carries.
MESSAGES = (
    queries.ChartQuery, queries.RunQuery, queries.MetricsQuery, queries.RunsQuery,
    queries.StudyQuery, queries.QueueQuery, standing.RunState, standing.MetricsState,
    states.RunsState, study_states.StudyState,
)  # fmt: skip


def routes() -> list[BaseRoute]:
    return [Route("/api/v1/openapi.json", _openapi)]


async def _openapi(request: Request) -> Response:
    return Response(as_json(), media_type=_JSON)


@cache
def as_json() -> bytes:
    """The document as text: equal for equal types."""
    return msgspec.json.format(msgspec.json.encode(document(), order="sorted"), indent=1) + b"\n"


def document() -> dict[str, Any]:
    """The document as plain data."""
    types = [one.reply for one in OPERATIONS if _is_type(one.reply)]
    types += [one.body for one in OPERATIONS if one.body is not None]
    types += MESSAGES
    schemas, components = msgspec.json.schema_components(types, ref_template=_COMPONENT)
    by_type = dict(zip(map(repr, types), schemas, strict=True))
    paths: dict[str, Any] = {}
    for one in OPERATIONS:
        method = "get" if one.body is None else "post"
        paths.setdefault(one.path, {})[method] = _operation(one, by_type)
    return {
        "openapi": "3.1.0",
        "info": {"title": "cupel dashboard", "version": version("cupel")},
        "paths": paths,
        "components": {"schemas": components},
    }


def _operation(one: Operation, by_type: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"summary": one.tells, "responses": _responses(one, by_type)}
    names = re.findall(r"{(\w+)}", one.path)
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in names
    ]
    for told in one.query:
        name, _, meaning = told.partition(": ")
        parameters.append(
            {"name": name, "in": "query", "description": meaning, "schema": {"type": "string"}}
        )
    if parameters:
        found["parameters"] = parameters
    if one.body is not None:
        found["requestBody"] = {"content": {_JSON: {"schema": by_type[repr(one.body)]}}}
    return found


def _responses(one: Operation, by_type: dict[str, Any]) -> dict[str, Any]:
    if one.reply is None:
        return {"204": {"description": one.tells}}
    if _is_type(one.reply):
        content: dict[str, Any] = {_JSON: {"schema": by_type[repr(one.reply)]}}
    else:
        content = {one.reply: {}}
    return {"200": {"description": one.tells, "content": content}}


def _is_type(reply: Any) -> bool:
    return reply is not None and not isinstance(reply, str)


if __name__ == "__main__":
    sys.stdout.write(as_json().decode())
