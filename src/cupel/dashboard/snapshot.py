"""A run or a study as one HTML file that opens without a server: `run_page`, `study_page`.

    GET /api/v1/runs/{id}/snapshot.html       ?project=
    GET /api/v1/studies/{name}/snapshot.html  ?project=

It holds what was known when it was taken, and says when that was: facts, drawings of all metrics,
configuration, sessions, small pictures and texts. Pictures of up to 256 KiB are in it, 8 MiB of
them in all, the newest four of a key; of a text the first 20,000 characters. Drawings follow the
reader's theme, light or dark, and are printed light.
"""

from __future__ import annotations

import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from cupel.dashboard import comparing, drawing, media, one_run, sheet
from cupel.dashboard.comparing import ArmsComparison
from cupel.dashboard.export import disposition
from cupel.dashboard.glance import Glance, Seen, desk_of
from cupel.dashboard.queries import ChartQuery
from cupel.dashboard.sheet import Html, Sheet, inside, table, tag
from cupel.dashboard.store import Store
from cupel.errors import CupelError, RecordError, UnknownName
from cupel.record import files

STRETCHES = 600
MOST_CHARTS = 200
MOST_OF_A_KEY = 4
LARGEST_PICTURE = 256 * 1024
MOST_PICTURES = 8 * 1024 * 1024  # bytes in all
LONGEST_TEXT = 20_000  # bytes
MOST_RUNS = 1000  # rows of a study's table, and curves of its drawing

_WIDTH, _HEIGHT = 440, 290


def routes() -> list[BaseRoute]:
    """The snapshots' addresses."""
    return [
        Route("/api/v1/runs/{id}/snapshot.html", _run),
        Route("/api/v1/studies/{name}/snapshot.html", _study),
    ]


def run_page(store: Store, key: str, *, now: float | None = None) -> str:
    """All of a run as one file. Raises UnknownName."""
    found = one_run.facts(store, key)
    row, title = found.row, found.row.name or found.row.id
    page = Sheet(f"{title} – cupel")
    page.add(tag("h1", title), _taken(f"run {key}", row.status, now))
    for text in filter(None, [found.problem]):
        page.add(tag("p", f"Damaged: {text}"))
    if found.damaged_lines:
        page.add(tag("p", f"{found.damaged_lines} damaged lines were left out."))
    if found.notes:
        page.add(tag("p", found.notes, "notes"))
    page.add(sheet.facts(_facts_of(found)))
    page.section("Metrics", *_charts(store, key, [m.name for m in found.metrics]))
    page.section("Summary", sheet.mapping(found.summary, "metric"))
    page.section("Configuration", sheet.mapping(found.settings))
    page.section("Sessions", _sessions(found.sessions))
    page.section("Checkpoints", _checkpoints(found.checkpoints))
    page.section("Media", *_media(store, key))
    return page.done()


def study_page(store: Store, key: str, *, now: float | None = None) -> str:
    """All of a study as one file. Raises UnknownName and RecordError."""
    glance = desk_of(store).glance(key)
    seen, study = glance.seen(), None
    manifest = seen.manifest
    study = manifest.study
    page = Sheet(f"{manifest.name} – cupel")
    page.add(tag("h1", manifest.name), tag("p", study.question))
    page.add(_taken(f"study {key}", "", now))
    page.add(sheet.facts([
        ("runs", f"{seen.counts.get('finished', 0)} of {len(seen.states)} finished"),
        *((f"{state} runs", count) for state, count in seen.counts.items() if state != "finished"),
        ("primary metric", f"{study.primary.metric}, {study.primary.statistic}"),
        ("better", study.primary.better),
        ("baseline", manifest.baseline),
        ("seeds", ", ".join(map(str, study.seeds))),
        ("planned", sheet.when(manifest.created)),
    ]))  # fmt: skip
    page.section("Alerts", *(tag("p", alert.text) for alert in seen.alerts))
    page.section("Cells", _cells(seen))
    page.section("Comparison", *_comparison(glance))
    page.section("Primary metric by arm", *_by_arm(store, seen))
    page.section("Runs", *_runs(seen))
    return page.done()


def _taken(what: str, status: str, now: float | None) -> Html:
    at = sheet.when(time.time() if now is None else now)
    told = f"{what}, as it was on {at}. Taken by cupel {version('cupel')}; nothing in it changes."
    parts = [*([sheet.state(status), Html("&ensp;")] if status else []), tag("span", told, "soft")]
    return inside("p", parts)


# ---- a run ----------------------------------------------------------------


def _facts_of(found: one_run.RunFacts) -> Iterator[tuple[str, Any]]:
    row, env = found.row, found.environment
    yield "status", row.status
    yield "last step", row.step
    yield "created", sheet.when(row.created)
    yield "trained for", sheet.duration(row.seconds)
    yield "sessions", row.sessions
    yield "tags", ", ".join(row.tags)
    yield "study", row.study
    yield "arm", row.arm
    yield "seed", row.seed
    yield "run", row.id
    if env is not None:
        commit = (env.commit or "")[:12]
        yield "commit", f"{commit} with changes" if commit and env.dirty else commit
        yield "host", env.host
        yield (
            "GPU",
            ", ".join(f"{n} × {gpu}" if n > 1 else gpu for gpu, n in Counter(env.gpus).items()),
        )
        yield "Python", env.python
        yield "torch", env.torch


def _charts(store: Store, key: str, metrics: Sequence[str]) -> Iterator[Html]:
    drawn = [
        sheet.chart(
            drawing.chart_svg(
                store, ChartQuery(runs=[key], metric=metric, px=STRETCHES), title=metric,
                theme="page", width=_WIDTH, height=_HEIGHT, legend=False,
            )
        )
        for metric in metrics[:MOST_CHARTS]
    ]  # fmt: skip
    yield inside("div", drawn, "charts")
    if left := metrics[MOST_CHARTS:]:
        yield tag("p", f"{len(left)} further metrics are not drawn: {', '.join(left)}.", "soft")


def _sessions(sessions: Sequence[one_run.SessionFacts]) -> Html:
    return table(
        ["session", "status", "from step", "started", "for", "host", "ended with", "changed"],
        [
            [
                one.number, sheet.ready(sheet.state(one.status)), one.start_step,
                sheet.when(one.started), sheet.duration(one.seconds), one.host, one.error,
                ", ".join(one.changed) or None,
            ]
            for one in sessions
        ],
    )  # fmt: skip


def _checkpoints(found: Sequence[one_run.Checkpoint]) -> Html:
    rows = []
    for one in found:
        words = [f"best {metric}" for metric in one.best]
        words += ["latest"] * one.latest + ["pinned"] * one.pinned
        rows.append([one.step, ", ".join(words) or None])
    return table(["step", "what"], rows)


def _media(store: Store, key: str) -> Iterator[Html]:
    """By key: pictures and texts; of what is not in the file, how much there is."""
    with store.reading(key) as opened:
        run_dir, found = opened.record.run_dir, media.media_of(opened.record)
    left = MOST_PICTURES
    for name in sorted({event["key"] for event in found}):
        events = [event for event in found if event["key"] == name]
        pictures, texts = [], []
        for event in reversed(events[-MOST_OF_A_KEY:]):
            what = _caption(event)
            kind = media.type_of(event)
            if kind.startswith("image/") and (data := _small(run_dir, event, left)) is not None:
                left -= len(data)
                pictures.append(_picture(data, kind, what))
            elif event.get("kind") == "text":
                texts.append(_text(run_dir, event, what))
        kept = len(pictures) + len(texts)
        yield tag("h3", name)
        yield inside("div", pictures, "pictures")
        yield from texts
        if kept < len(events):
            kinds = ", ".join(sorted({str(event.get("kind")) for event in events}))
            of = f"{len(events) - kept} of {len(events)}" if kept else str(len(events))
            yield tag("p", f"{of} ({kinds}) in the record only.", "soft")


def _small(run_dir: Path, event: dict[str, Any], left: int) -> bytes | None:
    """The bytes of a picture that is there, and not too large."""
    try:
        path = media.file_of(run_dir, event)
        most = min(LARGEST_PICTURE, left)
        with files.open_regular(path) as file:
            data = file.read(most + 1)
    except (OSError, UnknownName):
        return None
    return data if len(data) <= most else None


def _picture(data: bytes, kind: str, what: str) -> Html:
    source = f"data:{kind};base64,{b64encode(data).decode()}"
    image = Html(f'<img src="{source}" alt="{drawing.text_of(what)}">')
    return inside("figure", [image, tag("figcaption", what)])


def _text(run_dir: Path, event: dict[str, Any], what: str) -> Html:
    try:
        found = media.text_content(media.file_of(run_dir, event), LONGEST_TEXT)
    except (RecordError, UnknownName) as error:
        return tag("p", f"{what}: {error}", "soft")
    more = f"\n… {found.bytes:,} bytes in all" if found.bytes > LONGEST_TEXT else ""
    return inside("figure", [tag("figcaption", what), tag("pre", found.text + more)])


def _caption(event: dict[str, Any]) -> str:
    told = f"step {event.get('step')}"
    caption = event.get("caption")
    return f"{told}: {caption[:500]}" if isinstance(caption, str) and caption else told


# ---- a study --------------------------------------------------------------


def _cells(seen: Seen) -> Html:
    """How the runs of each cell stand: a row a point, a column an arm."""
    arms = list(dict.fromkeys(state.run.arm for state in seen.states))
    points = list(dict.fromkeys(state.run.point for state in seen.states))
    states: dict[tuple[str, str], Counter[str]] = {}
    for state in seen.states:
        states.setdefault((state.run.point, state.run.arm), Counter())[state.status] += 1
    rows = [
        [point or "all runs", *(sheet.ready(_standing(states.get((point, arm)))) for arm in arms)]
        for point in points
    ]
    return table(["point", *arms], rows)


def _standing(counts: Counter[str] | None) -> Html:
    parts = [
        Html(f"{count} {sheet.state(status)}") for status, count in sorted((counts or {}).items())
    ]
    return Html(", ".join(parts) or "—")


def _comparison(glance: Glance) -> Iterator[Html]:
    try:
        found = comparing.comparison(glance)
    except CupelError as error:
        yield tag("p", f"It cannot be computed: {error}")
        return
    if found.finished < found.planned:
        told = f"{found.finished} of {found.planned} runs are finished; this comparison may change."
        yield tag("p", told, "soft")
    if found.problem:
        yield tag("p", found.problem)
    yield table(
        ["point", "arm", "seeds", "mean", "SD", "from", "to", "missing seeds", "diverged seeds"],
        [
            [one.point or "—", one.arm, f"{one.n} of {one.planned}", one.mean, one.sd, one.low,
             one.high, _list(one.missing), _list(one.diverged)]
            for one in found.arms
        ],
    )  # fmt: skip
    yield from _differences(found)
    unequal = [[one.arm, one.name, one.baseline, one.value] for one in found.unequal]
    if unequal:
        yield tag("h3", "Not equal between arms")
        yield table(["arm", "what", found.baseline, "of the arm"], unequal)


def _differences(found: ArmsComparison) -> Iterator[Html]:
    if not found.differences:
        return
    yield tag("h3", f"Differences from {found.baseline}")
    better = "lower" if found.better == "lower" else "higher"
    margin = "no margin" if found.margin is None else f"margin ±{found.margin:g}"
    yield tag("p", f"{found.metric} ({found.statistic}), {better} is better; "
                   f"{found.confidence:.0%} intervals, {margin}.", "soft")  # fmt: skip
    yield table(
        ["point", "arm", "pairs", "difference", "from", "to", "p", "verdict", "why"],
        [
            [one.point or "—", one.arm, one.n, one.mean, one.low, one.high,
             one.p if one.p_adjusted is None else one.p_adjusted, one.verdict or "none", one.reason]
            for one in found.differences
        ],
    )  # fmt: skip


def _by_arm(store: Store, seen: Seen) -> Iterator[Html]:
    """One drawing: the mean over the runs of each arm, with its interval."""
    manifest = seen.manifest
    begun = [
        f"{manifest.project}/{state.run.run_id}" for state in seen.states
        if store.is_run(f"{manifest.project}/{state.run.run_id}")
    ]  # fmt: skip
    if not begun:
        return
    query = ChartQuery(
        runs=begun[:MOST_RUNS], metric=manifest.study.primary.metric, px=STRETCHES, group="arm"
    )
    svg = drawing.chart_svg(store, query, title=query.metric, theme="page", width=720, height=420)
    yield sheet.chart(svg, "wide")
    told = "Mean over all runs of an arm, at all points, with its 95 % interval."
    if len(begun) > MOST_RUNS:
        told += f" Of {len(begun):,} runs the first {MOST_RUNS:,}."
    yield tag("p", told, "soft")


def _runs(seen: Seen) -> Iterator[Html]:
    yield table(
        ["arm", "point", "seed", "status", "step", "of", "loss", "val_loss", "why"],
        [
            [one.run.arm, one.run.point or "—", one.run.seed, sheet.ready(sheet.state(one.status)),
             one.step, one.steps, one.loss, one.val_loss, one.reason]
            for one in seen.states[:MOST_RUNS]
        ],
    )  # fmt: skip
    if len(seen.states) > MOST_RUNS:
        yield tag("p", f"The first {MOST_RUNS:,} of {len(seen.states):,} runs.", "soft")


def _list(numbers: Sequence[int]) -> str | None:
    return ", ".join(map(str, numbers)) or None


# ---- the routes -----------------------------------------------------------


async def _run(request: Request) -> Response:
    run_id, project = request.path_params["id"], request.query_params.get("project")
    return await _page(request, lambda s: run_page(s, s.find(run_id, project)), run_id)


async def _study(request: Request) -> Response:
    name, project = request.path_params["name"], request.query_params.get("project")
    return await _page(request, lambda s: study_page(s, desk_of(s).find(name, project).key), name)


async def _page(request: Request, make: Callable[[Store], str], name: str) -> Response:
    """A file to keep: under the dashboard's own address its style sheet would be refused."""
    store: Store = request.app.state.store
    page = await store.call(lambda: make(store).encode())
    headers = {"content-disposition": disposition(f"{name}.html")}
    return Response(page, headers=headers, media_type="text/html; charset=utf-8")
