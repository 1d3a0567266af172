"""The pictures, texts, tables, histograms, sounds and films of a run, by ids and never by paths.

    GET /api/v1/runs/{id}/media             ?project= &key= &offset= &limit=   what counts
    GET /api/v1/runs/{id}/media/{m}         ?project=                          the file
    GET /api/v1/runs/{id}/media/{m}/content ?project= &offset= &limit=         as JSON, in pages
    GET /api/v1/runs/{id}/histograms        ?project= &key=                    all of a key, by step

An id is made of the hash of the file and of its place. What a browser may show has its own type; an
SVG file, a page of HTML and all else can only be downloaded, so that nothing of a run is ever run
in the dashboard's name (an <img> shows an SVG file all the same, and runs no script in it). A file
of JSON up to 64 MiB is read whole for each page of it: about 60 ms for a table of 100,000 rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Route

from cupel.dashboard.export import disposition
from cupel.dashboard.replies import Number, reply, whole
from cupel.dashboard.store import Store
from cupel.errors import RecordError, UnknownName, UsageError
from cupel.record import files
from cupel.record.codec import WORDS
from cupel.record.media import MEDIA
from cupel.record.reader import RunRecord

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

MOST_LISTED = 2000
MOST_ROWS = 1000
LARGEST_JSON = 64 * 1024 * 1024
LONGEST_TEXT = 200_000  # bytes
LONGEST_CELL = 2000  # characters
HISTOGRAMS, BINS = 160, 64

# What a browser may show under the dashboard's own address.
SHOWN = {
    "png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "gif": "image/gif",
    "webp": "image/webp", "txt": "text/plain; charset=utf-8", "json": "application/json",
    "wav": "audio/wav", "mp3": "audio/mpeg", "flac": "audio/flac", "m4a": "audio/mp4",
    "ogg": "audio/ogg", "opus": "audio/ogg", "mp4": "video/mp4", "webm": "video/webm",
    "ogv": "video/ogg", "mov": "video/quicktime",
}  # fmt: skip
# What it may show inside of an <img>, but only download when its address is opened.
IN_PICTURES = {"svg": "image/svg+xml"}
_SANDBOX = "default-src 'none'; sandbox"


def routes() -> list[BaseRoute]:
    """The addresses of media."""
    return [
        Route("/api/v1/runs/{id}/media", _list),
        Route("/api/v1/runs/{id}/media/{media}", _file),
        Route("/api/v1/runs/{id}/media/{media}/content", _content),
        Route("/api/v1/runs/{id}/histograms", _histograms),
    ]


class Medium(msgspec.Struct):
    """One medium of a step."""

    id: str
    key: str
    step: int | None
    kind: str
    """image, figure, text, html, histogram, table, audio, video or another."""
    type: str
    """The type under which the file is given; application/octet-stream can only be downloaded."""
    name: str
    bytes: int | None
    session: int
    time: float | None
    caption: str | None
    width: int | None
    height: int | None
    rows: int | None


class MediaKey(msgspec.Struct):
    """What one key has: how many media, of which kinds, from which step to which."""

    key: str
    kinds: list[str]
    count: int
    first: int | None
    last: int | None


class MediaList(msgspec.Struct):
    """The media that count, oldest first: `total` of them, and those from `offset` on."""

    keys: list[MediaKey]
    total: int
    offset: int
    items: list[Medium]


class TablePage(msgspec.Struct, tag_field="kind", tag="table"):
    """Some rows of a table of `total`; a cell that is a medium is {"media": id, "kind": …}."""

    columns: list[str]
    rows: list[list[Any]]
    total: int
    offset: int


class HistogramContent(msgspec.Struct, tag_field="kind", tag="histogram"):
    """How many values lie between which edges, of which there is one more."""

    counts: list[Number]
    edges: list[Number]
    not_finite: int


class TextContent(msgspec.Struct, tag_field="kind", tag="text"):
    """A text, or its beginning; `bytes` is how long all of it is."""

    text: str
    bytes: int


class HistogramsOverSteps(msgspec.Struct):
    """The histograms of a key under common edges, a list of counts for each of some steps."""

    key: str
    steps: list[int]
    edges: list[Number]
    counts: list[list[Number]]
    of: int
    """How many there are; of more than 160 only so many are shown, evenly chosen."""


def media_of(record: RunRecord) -> list[dict[str, Any]]:
    """The events of all media that count and are well-formed, each with its `id`."""
    found = []
    for event in record.media():
        key, path, digest = (event.get(name) for name in ("key", "path", "sha256"))
        if isinstance(key, str) and isinstance(path, str) and isinstance(digest, str):
            named = f"{digest}\0{path}".encode(errors="surrogatepass")
            found.append({**event, "id": blake2b(named, digest_size=12).hexdigest()})
    return found


def file_of(run_dir: Path, event: Mapping[str, Any]) -> Path:
    """The file of a medium. Raises UnknownName when it is not there, or not among the media."""
    folder, path = (run_dir / MEDIA).resolve(), run_dir / str(event["path"])
    try:
        inside = path.resolve().is_relative_to(folder) and path.is_file()
    except (OSError, ValueError, RuntimeError):  # a null byte, links in a circle
        inside = False
    if not inside:
        shown = f"{event['key'][:100]} of step {event.get('step')}"
        raise UnknownName(
            "file of the run's media", shown, [], hint="it was deleted from the record"
        )
    return path


def type_of(event: Mapping[str, Any]) -> str:
    """The type under which a medium is given."""
    suffix = event["path"].rpartition(".")[2].lower()
    return SHOWN.get(suffix) or IN_PICTURES.get(suffix) or "application/octet-stream"


def read_json(path: Path, kind: type[Any]) -> Any:
    """A file of JSON as a struct. Raises UsageError for one that is too large, and RecordError."""
    if (size := path.stat().st_size) > LARGEST_JSON:
        raise UsageError(
            f"this file has {size:,} bytes, and at most {LARGEST_JSON:,} are shown; download it"
        )
    try:
        with files.open_regular(path) as file:
            return msgspec.json.decode(file.read(), type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError, OSError) as error:
        raise RecordError(f"{path.name} is damaged: {str(error)[:200]}") from error


# ---- lists ----------------------------------------------------------------


def listed(store: Store, run: str, key: str | None, offset: int, limit: int) -> MediaList:
    """The media of a run, or of one of its keys. Raises UnknownName."""
    with store.reading(run) as opened:
        found = media_of(opened.record)
    items = [event for event in found if key is None or event["key"] == key]
    shown = [_medium(event) for event in items[offset : offset + limit]]
    return MediaList(_keys(found), len(items), offset, shown)


def _medium(event: Mapping[str, Any]) -> Medium:
    def number(name: str) -> int | None:
        value = event.get(name)
        return value if type(value) is int else None

    t, caption = event.get("_t"), event.get("caption")
    return Medium(
        event["id"], event["key"], number("step"), str(event.get("kind")), type_of(event),
        event["path"].rpartition("/")[2], number("bytes"), event["_session"],
        float(t) if isinstance(t, int | float) and math.isfinite(t) else None,
        caption if isinstance(caption, str) else None, number("width"), number("height"),
        number("rows"),
    )  # fmt: skip


def _keys(found: Sequence[Mapping[str, Any]]) -> list[MediaKey]:
    """All keys but those of what lies in the cells of tables."""
    tables = {event["key"] for event in found if event.get("kind") == "table"}
    keys: dict[str, MediaKey] = {}
    for event in found:
        name = event["key"]
        if name.removesuffix("/media") in tables and name not in tables:
            continue
        one = keys.setdefault(name, MediaKey(name, [], 0, None, None))
        one.count += 1
        if (kind := str(event.get("kind"))) not in one.kinds:
            one.kinds.append(kind)
        if type(step := event.get("step")) is int:
            one.first = step if one.first is None else min(one.first, step)
            one.last = step if one.last is None else max(one.last, step)
    return [keys[name] for name in sorted(keys)]


# ---- contents -------------------------------------------------------------


class _TableFile(msgspec.Struct):
    columns: list[str]
    rows: list[msgspec.Raw]


class HistogramFile(msgspec.Struct):
    """A histogram as the record has it."""

    counts: list[float | str]
    edges: list[float | str]
    not_finite: int = 0

    def numbers(self) -> tuple[list[float], list[float]]:
        """Counts and edges. Raises RecordError for what is no histogram."""
        try:
            counts, edges = (
                [WORDS[v] if isinstance(v, str) else float(v) for v in part]
                for part in (self.counts, self.edges)
            )
        except KeyError as error:
            raise RecordError(f"a histogram holds {error}, which is no number") from error
        if len(edges) != len(counts) + 1:
            raise RecordError(f"a histogram has {len(counts)} counts and {len(edges)} edges")
        return counts, edges


Content = TablePage | HistogramContent | TextContent


def content(store: Store, run: str, media_id: str, offset: int, limit: int) -> Content:
    """What is in a table, a histogram or a text. Raises UsageError for anything else."""
    record, event, found = _found(store, run, media_id)
    path, kind = file_of(record.run_dir, event), event.get("kind")
    if kind == "table":
        ids = {one["path"]: {"media": one["id"], "kind": one.get("kind")} for one in found}
        return _table(read_json(path, _TableFile), ids, offset, limit)
    if kind == "histogram":
        histogram = read_json(path, HistogramFile)
        counts, edges = histogram.numbers()
        return HistogramContent(list(counts), list(edges), histogram.not_finite)
    if kind == "text":
        return text_content(path)
    raise UsageError(f"a medium of kind {str(kind)[:40]!r} has no content as JSON; get its file")


def text_content(path: Path, most: int = LONGEST_TEXT) -> TextContent:
    """The beginning of a text. Raises RecordError."""
    try:
        with files.open_regular(path) as file:
            text = file.read(most)
        return TextContent(text.decode(errors="replace"), path.stat().st_size)
    except OSError as error:
        raise RecordError(f"cannot read {path.name}: {error.strerror}") from error


def _table(
    table: _TableFile, ids: Mapping[str, Mapping[str, Any]], offset: int, limit: int
) -> TablePage:
    rows = []
    for raw in table.rows[offset : offset + limit]:
        row = msgspec.json.decode(raw)
        rows.append([_cell(cell, ids) for cell in (row if isinstance(row, list) else [row])])
    return TablePage(table.columns, rows, len(table.rows), offset)


def _cell(cell: Any, ids: Mapping[str, Mapping[str, Any]]) -> Any:
    if isinstance(cell, dict) and isinstance(path := cell.get("media"), str):
        return ids.get(path)
    if isinstance(cell, dict | list):
        cell = msgspec.json.encode(cell).decode()
    if isinstance(cell, str) and len(cell) > LONGEST_CELL:
        return f"{cell[:LONGEST_CELL]}…"
    return cell


def _found(
    store: Store, run: str, media_id: str
) -> tuple[RunRecord, dict[str, Any], list[dict[str, Any]]]:
    with store.reading(run) as opened:
        found = media_of(opened.record)
    for event in found:
        if event["id"] == media_id:
            return opened.record, event, found
    raise UnknownName("medium", media_id[:80], [], hint="list them: /api/v1/runs/{id}/media")


# ---- histograms over steps ------------------------------------------------


def histograms(store: Store, run: str, key: str) -> HistogramsOverSteps:
    """The histograms of a key, counted anew between common edges. Raises UnknownName."""
    import numpy as np

    with store.reading(run) as opened:
        record = opened.record
        found = [event for event in media_of(record) if event.get("kind") == "histogram"]
    mine = {e["step"]: e for e in found if e["key"] == key and type(e.get("step")) is int}
    if not mine:
        raise UnknownName("histogram", key[:200], {event["key"] for event in found})
    steps = sorted(mine)
    if len(steps) > HISTOGRAMS:
        chosen = np.linspace(0, len(steps) - 1, HISTOGRAMS).round().astype(int)
        steps = [steps[place] for place in chosen.tolist()]
    read = [read_json(file_of(record.run_dir, mine[s]), HistogramFile).numbers() for s in steps]
    counts, edges = common([(np.array(c), np.array(e)) for c, e in read])
    return HistogramsOverSteps(key, steps, edges.tolist(), counts.tolist(), len(mine))


def common(histograms: Sequence[tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
    """Counts of some histograms between 64 common equal stretches, and the ends of these.

    A stretch that cuts a bin gets that part of its count. Bins whose ends are not finite are left
    out.
    """
    import numpy as np

    ends = np.concatenate([np.empty(0), *(edges for _, edges in histograms)])
    ends = ends[np.isfinite(ends)]
    low, high = (float(ends.min()), float(ends.max())) if len(ends) else (0.0, 1.0)
    part = np.arange(BINS + 1) / BINS
    edges = low * (1 - part) + high * part  # the difference could overflow
    rows = np.zeros((len(histograms), BINS))
    for row, (counts, own) in zip(rows, histograms, strict=True):
        if np.isfinite(own).all() and (own[1:] >= own[:-1]).all() and len(own) > 1:
            below = np.concatenate([[0.0], np.cumsum(counts)])
            row[:] = np.diff(np.interp(edges, own, below))
    return rows, edges


# ---- the routes -----------------------------------------------------------


async def _key(request: Request) -> tuple[Store, str]:
    store: Store = request.app.state.store
    project = request.query_params.get("project")
    return store, await store.call(store.find, request.path_params["id"], project)


async def _list(request: Request) -> Response:
    store, run = await _key(request)
    offset = whole(request, "offset", 0, most=10**9)
    limit = whole(request, "limit", 500, most=MOST_LISTED)
    key = request.query_params.get("key")
    return reply(await store.call(listed, store, run, key, offset, limit))


async def _content(request: Request) -> Response:
    store, run = await _key(request)
    offset = whole(request, "offset", 0, most=10**9)
    limit = whole(request, "limit", 100, most=MOST_ROWS)
    media_id = request.path_params["media"]
    return reply(await store.call(content, store, run, media_id, offset, limit))


async def _histograms(request: Request) -> Response:
    store, run = await _key(request)
    key = request.query_params.get("key", "")
    return reply(await store.call(histograms, store, run, key))


async def _file(request: Request) -> Response:
    store, run = await _key(request)
    record, event, _ = await store.call(_found, store, run, request.path_params["media"])
    path = await store.call(file_of, record.run_dir, event)
    kind = type_of(event)
    headers = {"x-content-type-options": "nosniff"}
    if kind not in SHOWN.values():
        headers["content-disposition"] = disposition(path.name)
        headers["content-security-policy"] = _SANDBOX
    return FileResponse(path, headers=headers, media_type=kind)
