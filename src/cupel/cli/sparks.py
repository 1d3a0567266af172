"""A curve in one line of characters: the least of a run's loss at the bottom, the greatest on top.

Each character is the mean of an equal stretch of steps; a stretch in which something was not
finite is a cross, one without points a space. Plain ASCII where a stream is not UTF-8.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cupel.record.reader import RunRecord

WIDTH = 16
_UTF8, _ASCII = "▁▂▃▄▅▆▇█", "_.-~=+*#"
_LARGE = 1 << 20  # bytes of metrics above which numpy is worth its loading


def spark(values: Sequence[float | None], *, encoding: str | None) -> str:
    """Values as characters; None for a stretch without points."""
    plain = (encoding or "ascii").lower().replace("-", "").replace("_", "") != "utf8"
    levels, bad = (_ASCII, "x") if plain else (_UTF8, "✗")
    finite = [value for value in values if value is not None and math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    half = 1.0 if math.isfinite(high - low) else 0.5  # or the difference would be infinite
    shown = []
    for value in values:
        if value is None:
            shown.append(" ")
        elif not math.isfinite(value):
            shown.append(bad)
        else:
            over, all_of_it = value * half - low * half, high * half - low * half
            part = over / all_of_it if high > low else 0.0
            shown.append(levels[min(len(levels) - 1, int(part * len(levels)))])
    return "".join(shown).rstrip()


def main_metrics(summary: Collection[str]) -> list[str]:
    """The names of what a run is watched by, the loss first; none when nothing is a loss."""

    def rank(name: str) -> tuple[int, str]:
        last = name.rsplit("/", 1)[-1].lower()
        known = {"loss": 0, "train_loss": 1, "val_loss": 2}
        return known.get(last, 3), name

    losses = [name for name in summary if "loss" in name.lower()]
    scores = [name for name in summary if any(s in name.lower() for s in ("acc", "score", "ppl"))]
    return [*sorted(losses, key=rank), *sorted(set(scores) - set(losses))]


def curve_of(record: RunRecord, key: str, *, width: int = WIDTH) -> list[float | None]:
    """The means of a metric in equal stretches of a run; empty when it has no numbers."""
    from cupel.record import layout

    size = sum(
        path.stat().st_size
        for session in record.sessions
        for path in layout.segments(session.dir, "metrics")
    )
    if size >= _LARGE:
        found = record.buckets([key], points=width)[key]
        pairs = zip(found.mean.tolist(), (found.count + found.nan).tolist(), strict=True)
        return [mean if count else None for mean, count in pairs]
    rows = [row for row in record.history([key]) if _is_number(row[key])]
    if not rows:
        return []
    first, last = rows[0]["_step"], rows[-1]["_step"]
    parts: list[list[float]] = [[] for _ in range(min(width, len(rows)))]
    for row in rows:
        place = (row["_step"] - first) * len(parts) // max(1, last - first)
        parts[min(place, len(parts) - 1)].append(float(row[key]))
    return [math.fsum(part) / len(part) if _finite(part) else _bad(part) for part in parts]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and (isinstance(value, float) or abs(value) < 2**1000)


def _finite(part: Sequence[float]) -> bool:
    return bool(part) and all(map(math.isfinite, part)) and max(map(abs, part)) < 1e300


def _bad(part: Sequence[float]) -> float | None:
    return None if not part else math.nan


def curves(record: RunRecord, summary: Mapping[str, object], *, most: int) -> dict[str, str]:
    """A line of characters for each of the main metrics that a run has."""
    import sys

    found = {}
    for key in main_metrics(summary)[:most]:
        if values := curve_of(record, key):
            found[key] = spark(values, encoding=sys.stdout.encoding)
    return found
