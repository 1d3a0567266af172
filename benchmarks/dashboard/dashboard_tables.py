"""A measurement of run.py as Markdown: the targets and whether they hold, then every number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

OURS, PEERS = "cupel", ("tensorboard", "trackio")
TIMES = 5  # sooner, and less browser time, than each peer
FIRST_BYTES, HEAP_MB = 200_000, 15
OVERVIEW_S, ZOOM_MS, PAINTED_MS = 1.0, 200, 500
WITHIN = 0.01
SLOPE_MB, FRAME_MS = 0.2, 100
SHOWN = {"tensorboard": "TensorBoard", "trackio": "trackio"}

Target = tuple[str, str, dict[str, str], str, bool]


def tables(found: dict[str, Any]) -> Iterator[str]:
    """The lines of the page."""
    for name, part in found.items():
        machine = part["machine"]
        yield (
            f"\n{TITLES[name]}: {machine['date']}, Python {machine['python']}, "
            f"{machine['platform']}, {machine['cpus']} CPUs, {machine['chromium']}; load average "
            f"{machine['load_average_before']:.1f} before, {machine['load_average_after']:.1f} "
            f"after{', a quick look only' if machine['quick'] else ''}."
        )
        for peer, why in part.get("left out", {}).items():
            yield f"\n{peer} was left out: {why}"
    yield "\n| target | cupel | TensorBoard | trackio | ratio | holds |"
    yield "|---|---:|---:|---:|---:|---|"
    for told, ours, peers, ratio, holds in targets(found):
        theirs = " | ".join(peers.get(peer, "") for peer in PEERS)
        yield f"| {told} | {ours} | {theirs} | {ratio} | {'yes' if holds else '**no**'} |"
    for name, part in found.items():
        yield from TABLES[name](part)


def targets(found: dict[str, Any]) -> Iterator[Target]:
    """What was aimed at, what was measured, of peers too, their ratio, and whether it holds."""
    if "first" in found:
        yield from _first_targets(found["first"]["views"])
    if "long" in found:
        long = found["long"]
        warm, worst = long["warm_s"], long["drawn_worst_ms"]
        yield (
            f"{long['points']:,} points: overview ≤ {OVERVIEW_S:g} s, warm",
            f"{warm:.2f} s", {}, "", warm <= OVERVIEW_S,
        )  # fmt: skip
        yield (
            f"… any zoom drawn ≤ {ZOOM_MS} ms (worst of {long['zooms']})",
            f"{worst:.0f} ms", {}, "", worst <= ZOOM_MS,
        )  # fmt: skip
    if "live" in found:
        p95 = found["live"]["p95_ms"]
        told = f"`log()` to painted, ten runs at 10 Hz: p95 ≤ {PAINTED_MS} ms"
        yield told, f"{p95:.0f} ms", {}, "", p95 <= PAINTED_MS
    if "training" in found:
        for name, one in found["training"]["conditions"].items():
            if name == "absent":
                continue
            for kind, shown in (("wall_ms", "time"), ("cpu_ms", "processor time")):
                mean, low, high = one[f"{kind}_differs"]
                told = f"{shown} of a training step, dashboard {name}: within {WITHIN:.0%} of none"
                yield told, _percent(mean, low, high), {}, "", max(-low, high) <= WITHIN
    if "appends" in found:
        slope = found["appends"]["slope_mb"]
        told = f"heap of the page: ≤ {SLOPE_MB} MB for 1,000 appends"
        shown = "not enough appends" if slope is None else f"{slope:+.3f} MB"
        yield told, shown, {}, "", slope is not None and slope <= SLOPE_MB
    if "table" in found:
        table = found["table"]
        longest = max(table[how]["longest_frame_ms"] for how in ("cold", "warm"))
        told = f"scrolling {table['runs']:,} runs: no frame over {FRAME_MS} ms"
        yield told, f"{longest:.0f} ms", {}, "", longest <= FRAME_MS


def _first_targets(views: dict[str, dict[str, float]]) -> Iterator[Target]:
    for how in ("cold", "warm"):
        for key, told in (
            ("opened_s", f"first chart, {how}: ≥ {TIMES} × sooner than each"),
            ("cpu_s", f"… browser's processor time, {how}: ≥ {TIMES} × less"),
        ):
            own = views[f"{OURS}, {how}"][key]
            theirs = {p: views[f"{p}, {how}"][key] for p in PEERS if f"{p}, {how}" in views}
            times = min((value / own for value in theirs.values()), default=0.0)
            shown = {peer: f"{value:.2f} s" for peer, value in theirs.items()}
            yield told, f"{own:.2f} s", shown, f"{times:.1f} ×", times >= TIMES
    for key, told, most, scale, unit in (
        ("bytes_with_idle", f"first view: ≤ {FIRST_BYTES // 1000} KB", FIRST_BYTES, 1e3, "KB"),
        ("heap_mb", f"JavaScript heap after it: ≤ {HEAP_MB} MB", HEAP_MB, 1, "MB"),
    ):
        own = max(views[f"{OURS}, {how}"][key] for how in ("cold", "warm"))
        theirs = {p: views[f"{p}, warm"][key] for p in PEERS if f"{p}, warm" in views}
        digits = 0 if unit == "KB" else 1
        shown = {peer: f"{value / scale:,.{digits}f} {unit}" for peer, value in theirs.items()}
        times = min((value / own for value in theirs.values()), default=0.0)
        yield told, f"{own / scale:,.{digits}f} {unit}", shown, f"{times:.1f} ×", own <= most


_VIEW_LINES = (
    ("server start to answering, s", "serving_s", 1, 2),
    ("… to all data read, s", "data_s", 1, 2),
    ("opening the page to its first chart, s", "chart_s", 1, 2),
    ("… as soon as the server answers, s", "opened_s", 1, 2),
    ("server start to the first chart, s", "from_start_s", 1, 2),
    ("browser's processor s to the first chart", "cpu_to_chart_s", 1, 2),
    ("… and 4 s after it", "cpu_s", 1, 2),
    ("… of all its processes", "cpu_all_s", 1, 2),
    ("server's processor s", "server_cpu_s", 1, 2),
    ("requests", "requests", 1, 0),
    ("KB on the wire to the first chart", "bytes", 1e3, 0),
    ("… and 4 s after it", "bytes_with_idle", 1e3, 0),
    ("JavaScript heap, MB", "heap_mb", 1, 1),
    ("… and what it holds beside, MB", "backing_mb", 1, 1),
    ("server's memory, MB", "rss_mb", 1, 0),
)


def _first_table(part: dict[str, Any]) -> Iterator[str]:
    views, versions = part["views"], part["versions"]
    names = [f"{tool} {versions[tool]}, {how}" for tool, _, how in _three(views)]
    yield (
        f"\n| ten runs of 100,000 points, median of {part['rounds']} | " + " | ".join(names) + " |"
    )
    yield "|---|" + "---:|" * len(names)
    for told, key, scale, digits in _VIEW_LINES:
        values = " | ".join(f"{view[key] / scale:,.{digits}f}" for view in views.values())
        yield f"| {told} | {values} |"


def _three(views: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [name.partition(", ") for name in views]


def _long_table(part: dict[str, Any]) -> Iterator[str]:
    yield f"\n| one run of {part['points']:,} points, median of {part['rounds']} | |"
    yield "|---|---:|"
    for told, value in (
        ("first chart, nothing read before, s", f"{part['cold_s']:.2f}"),
        ("… of the next browser, s", f"{part['warm_s']:.2f}"),
        ("… of a new server that finds the cache, s", f"{part['restarted_s']:.2f}"),
        ("KB of a first view", f"{part['warm_bytes'] / 1e3:.0f}"),
        (f"{part['zooms']} zooms: the server's answer, median, ms", f"{part['answer_ms']:.0f}"),
        ("… worst, ms", f"{part['answer_worst_ms']:.0f}"),
        ("… drawn, median, ms", f"{part['drawn_ms']:.0f}"),
        ("… worst, ms", f"{part['drawn_worst_ms']:.0f}"),
        ("server's memory, MB", f"{part['rss_mb']:.0f}"),
    ):
        yield f"| {told} | {value} |"


def _live_table(part: dict[str, Any]) -> Iterator[str]:
    clients = part["clients"]
    others = "" if clients == 1 else f", {clients} clients"
    yield f"\n| ten live runs at 10 Hz, {part['seconds']:g} s{others} | |"
    yield "|---|---:|"
    lines = [
        ("values logged", f"{part['of']:,}"),
        ("… of which seen", f"{part['values']:,}"),
        ("`log()` to painted, median, ms", f"{part['p50_ms']:.0f}"),
        ("… 95th percentile, ms", f"{part['p95_ms']:.0f}"),
        ("… worst, ms", f"{part['worst_ms']:.0f}"),
        ("times drawn", f"{part['frames']:,}"),
        ("server, part of a core", f"{part['server_cpu']:.0%}"),
        ("browser, part of a core", f"{part['page_cpu']:.0%}"),
    ]
    if part["others_p50_ms"] is not None:
        lines += [
            (
                "`log()` to received by the other clients, median, ms",
                f"{part['others_p50_ms']:.0f}",
            ),
            ("… 95th percentile, ms", f"{part['others_p95_ms']:.0f}"),
        ]
    for told, value in lines:
        yield f"| {told} | {value} |"


def _training_table(part: dict[str, Any]) -> Iterator[str]:
    yield (
        f"\n| {part['rounds']} trainings, {part['cycles']} × {part['steps']:,} steps each, "
        "dashboard … | step ms | "
        "against none, 95 % | processor ms a step | against none, 95 % | server, part of a core |"
    )
    yield "|---|---:|---:|---:|---:|---:|"
    for name, one in part["conditions"].items():
        wall, cpu = (_percent(*one[f"{kind}_differs"]) for kind in ("wall_ms", "cpu_ms"))
        told = "absent (and absent again)" if name == "absent" else name
        yield (
            f"| {told} | {one['wall_ms']:.2f} | {wall} | {one['cpu_ms']:.2f} | {cpu} | "
            f"{one['server_cpu']:.0%} |"
        )


def _appends_table(part: dict[str, Any]) -> Iterator[str]:
    heaps = [used + backing for used, backing in part["heap_mb"]]
    yield f"\n| {part['appends']:,} appends to one chart | |"
    yield "|---|---:|"
    for told, value in (
        ("times drawn", f"{part['drawn']:,}"),
        ("heap after the first thousand, MB", f"{heaps[0]:.2f}"),
        ("… at the end, MB", f"{heaps[-1]:.2f}"),
        ("server's memory at first, MB", f"{part['rss_mb'][0]:.0f}"),
        ("… at the end, MB", f"{part['rss_mb'][-1]:.0f}"),
        ("browser, processor ms an append", f"{part['page_cpu_ms']:.1f}"),
        ("server, processor ms an append", f"{part['server_cpu_ms']:.1f}"),
    ):
        yield f"| {told} | {value} |"


def _table_table(part: dict[str, Any]) -> Iterator[str]:
    yield f"\n| a table of {part['runs']:,} runs | cold | warm |"
    yield "|---|---:|---:|"
    for told, key, scale, digits in (
        ("opening the page to its first rows, s", "rows_s", 1, 2),
        ("browser's processor s, a second later", "cpu_s", 1, 2),
        ("KB on the wire", "bytes", 1e3, 0),
        ("pixels scrolled", "scrolled_to", 1, 0),
        ("frames meanwhile", "frames", 1, 0),
        ("longest frame, ms", "longest_frame_ms", 1, 0),
        ("… 99th percentile, ms", "p99_frame_ms", 1, 0),
        ("longest task of the page, ms", "longest_task_ms", 1, 0),
        ("JavaScript heap, MB", "heap_mb", 1, 1),
    ):
        values = (f"{part[how][key] / scale:,.{digits}f}" for how in ("cold", "warm"))
        yield f"| {told} | {' | '.join(values)} |"


def _percent(mean: float, low: float, high: float) -> str:
    return f"{mean:+.1%} ({low:+.1%} to {high:+.1%})"


TITLES = {
    "first": "First view",
    "long": "Long run",
    "live": "Live",
    "clients": "Clients",
    "training": "Training",
    "appends": "Appends",
    "table": "Table",
}
TABLES = {
    "first": _first_table,
    "long": _long_table,
    "live": _live_table,
    "clients": _live_table,
    "training": _training_table,
    "appends": _appends_table,
    "table": _table_table,
}
