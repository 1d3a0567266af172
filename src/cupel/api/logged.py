"""Takes apart what `log` was given: numbers under names with slashes, media, and mistakes.

Only called when something else than plain numbers is there; a mistake costs its own metric only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cupel.api.media import Html, Media, Table, is_dataframe

_DEEPEST = 32
_SHOWN = 100  # letters of a name in a message


@dataclass(slots=True)
class Logged:
    """`wrong` holds a line's mistakes by what they are to be called."""

    numbers: dict[Any, Any] = field(default_factory=dict)
    media: list[tuple[str, Media]] = field(default_factory=list)
    wrong: dict[str, Exception] = field(default_factory=dict)


def taken_apart(metrics: Mapping[Any, Any]) -> Logged:
    """`{"a": {"b": 1}}` is a/b, a list of media several media of one name."""
    found = Logged()
    _take(metrics, "", _DEEPEST, found)
    return found


def _take(metrics: Mapping[Any, Any], prefix: str, deeper: int, found: Logged) -> None:
    for name, value in metrics.items():
        key = f"{prefix}{name}" if prefix else name
        if isinstance(value, Mapping):
            if deeper:
                _take(value, f"{key}/", deeper - 1, found)
            else:
                found.wrong[f"metric {key[:_SHOWN]}"] = ValueError("nested too deeply")
            continue
        try:
            media = as_media(value)
        except Exception as error:  # a figure that cannot be drawn is one metric less
            found.wrong[f"media {str(key)[:_SHOWN]}"] = error
            continue
        if media is None:
            found.numbers[key] = value
        else:
            found.media += [(str(key), one) for one in media]


def as_media(value: Any) -> list[Media] | None:
    """The media that a logged value stands for; None when it is none.

    Figures of matplotlib and plotly, pictures of PIL and tables of pandas and polars are taken
    as they are.
    """
    if isinstance(value, Media):
        return [value]
    if isinstance(value, list | tuple):
        several = bool(value) and all(isinstance(one, Media) for one in value)
        return list(value) if several else None
    if is_dataframe(value):
        return [Table(dataframe=value)]
    from cupel.api import images

    if images.is_figure(value):
        return [images.Figure(value)]
    if images.is_picture(value):
        return [images.Image(value)]
    if hasattr(value, "to_html") and type(value).__module__.startswith("plotly"):
        return [Html(value.to_html(include_plotlyjs="cdn"), data_is_not_path=True)]
    return None
