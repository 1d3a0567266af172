"""The table of runs, what one run is, and some side by side, as REST: `routes()`.

`content` in a reply is a name of it: equal as long as the same question has the same answer.
"""

from __future__ import annotations

from functools import partial
from hashlib import blake2b
from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cupel.dashboard import beside, one_run, table
from cupel.dashboard.beside import Comparison
from cupel.dashboard.replies import encode, reply, whole
from cupel.dashboard.store import Store
from cupel.dashboard.table import Columns, Table, TableQuery, Tables
from cupel.errors import UsageError
from cupel.record import editing, files, layout

MOST_ROWS = 500
MOST_NOTES = 20_000
_MOST_BODY = 256 * 1024
_SHOWN = 60


class Edit(msgspec.Struct, forbid_unknown_fields=True):
    """What to change of a run."""

    notes: Annotated[str, Meta(max_length=MOST_NOTES)] | None = None
    """In place of the notes there are; an empty text deletes them."""
    tags_add: Annotated[list[str], Meta(max_length=100)] = msgspec.field(default_factory=list)
    tags_remove: Annotated[list[str], Meta(max_length=100)] = msgspec.field(default_factory=list)


class Edited(msgspec.Struct):
    """What a run's notes and tags are now."""

    notes: str
    tags: list[str]


def routes() -> list[Route]:
    """All of it; what is kept of the table is kept with these."""
    return [
        Route("/api/v1/runs", partial(_table, Tables())),
        Route("/api/v1/columns", _columns),
        Route("/api/v1/compare", _compare),
        Route("/api/v1/runs/{id}", _run),
        Route("/api/v1/runs/{id}/console", _console),
        Route("/api/v1/runs/{id}/edit", _edit, methods=["POST"]),
    ]


async def _table(tables: Tables, request: Request) -> Response:
    asked = request.query_params
    query = TableQuery(
        where=asked.get("where", ""),
        sort=_sort(asked.get("sort", "")),
        project=asked.get("project") or None,
        group=asked.get("group") or None,
        columns=_names(asked.get("columns", "")),
        offset=whole(request, "offset", 0, most=10_000_000),
        limit=whole(request, "limit", 100, most=MOST_ROWS),
    )
    return _json(await _store(request).call(_window, tables, _store(request), query))


def _window(tables: Tables, store: Store, query: TableQuery) -> bytes:
    return _named(tables.window(store.rows(), query))


async def _columns(request: Request) -> Response:
    asked = request.query_params
    query = TableQuery(where=asked.get("where", ""), project=asked.get("project") or None)
    return reply(await _store(request).call(_columns_of, _store(request), query))


def _columns_of(store: Store, query: TableQuery) -> Columns:
    return table.columns(store.rows(), query)


async def _compare(request: Request) -> Response:
    keys = list(dict.fromkeys(request.query_params.getlist("run")))
    if not keys:
        raise UsageError("no run is named; expected ?run=project/id, once for each run")
    if len(keys) > beside.MOST:
        raise UsageError(f"{len(keys)} runs are named; at most {beside.MOST} are compared")
    return _json(await _store(request).call(_comparison, _store(request), keys))


def _comparison(store: Store, keys: list[str]) -> bytes:
    return _named(beside.comparison(store, keys))


async def _run(request: Request) -> Response:
    store = _store(request)
    return reply(await store.call(lambda: one_run.facts(store, _found(store, request))))


async def _console(request: Request) -> Response:
    store = _store(request)
    last = whole(request, "last", 200, least=1, most=one_run.MOST_LINES)
    return reply(await store.call(lambda: one_run.console(store, _found(store, request), last)))


async def _edit(request: Request) -> Response:
    store, body = _store(request), await _body(request)
    try:
        edit = msgspec.json.decode(body, type=Edit)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        why = " ".join(str(error)[:200].split())
        raise UsageError(f'this is no edit: {why}; expected {{"notes": …, "tags_add": […], '
                         '"tags_remove": […]}') from error  # fmt: skip
    return reply(await store.call(lambda: _edited(store, _found(store, request), edit)))


def _edited(store: Store, key: str, edit: Edit) -> Edited:
    folder = store.folder(key)
    if edit.tags_add or edit.tags_remove:  # first: these may be refused, and nothing is changed
        editing.change_tags(folder, add=edit.tags_add, remove=edit.tags_remove)
    if edit.notes is not None:
        editing.add_note(folder, edit.notes, replace=True)
    store.rows(no_older=0)  # who edited sees it at the next look
    run = files.read_json(folder / layout.RUN)
    return Edited(editing.notes_of(run), editing.tags_of(run))


def _found(store: Store, request: Request) -> str:
    return store.find(request.path_params["id"], request.query_params.get("project") or None)


async def _body(request: Request) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _MOST_BODY:
            raise UsageError(f"the body has more than {_MOST_BODY:,} bytes")
    return body


def _sort(text: str) -> str:
    if text and not text.removeprefix("-"):
        raise UsageError("sort=- names no column; as in: sort=val_loss or sort=-val_loss")
    return text


def _names(text: str) -> tuple[str, ...]:
    """Names of columns: `a,b`, or a list in JSON, `["a","b"]`, for names with commas in them."""
    found = text.split(",")
    if text.startswith("["):
        try:
            found = msgspec.json.decode(text, type=list[str])
        except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
            raise UsageError(f"columns={text[:_SHOWN]!r} is no list of names") from error
    names = tuple(dict.fromkeys(name for one in found if (name := one.strip())))
    if len(names) > table.MOST_COLUMNS:
        raise UsageError(f"{len(names)} columns; at most {table.MOST_COLUMNS} are given at once")
    return names


def _named(content: Table | Comparison) -> bytes:
    """A reply as JSON, named by its own hash."""
    body = encode(content)
    empty = b'{"content":""'
    assert body.startswith(empty), body[:40]
    name = blake2b(body, digest_size=8).hexdigest()
    return b'{"content":"' + name.encode() + b'"' + body[len(empty) :]


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")


def _store(request: Request) -> Store:
    found: Store = request.app.state.store
    return found
