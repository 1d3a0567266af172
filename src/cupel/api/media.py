"""What a run can be given besides numbers: texts, tables, histograms, pages, sounds, films.

Each is made where the data are, takes a copy of them, and is encoded when it is logged. The names
and arguments are those of wandb. Pictures are in `cupel.api.images`. numpy is imported when arrays
are looked at; torch never is.
"""

from __future__ import annotations

import io
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cupel.api.told import tell_ignored
from cupel.errors import UsageError
from cupel.record import codec

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Encoded:
    """The file that a medium becomes; `about` goes into its event."""

    kind: str
    suffix: str
    data: bytes
    about: dict[str, Any] = field(default_factory=dict)


class Media(ABC):
    """Base of all that `log` takes besides numbers; `encode` makes the file.

    `keep(inner)` keeps a medium that lies inside of this one, and returns where, relative to the
    run.
    """

    @abstractmethod
    def encode(self, keep: Callable[[Media], str]) -> Encoded:
        """The file. May raise anything: a medium that cannot be made is counted and told."""


class Text(Media):
    """A text of any length, as it is."""

    def __init__(self, text: str) -> None:
        self.text = str(text)

    def encode(self, keep: Callable[[Media], str]) -> Encoded:
        return Encoded("text", "txt", self.text.encode(errors="backslashreplace"))


class Html(Media):
    """A page: HTML itself, an open file, or the path of a file that ends in .html."""

    def __init__(self, data: Any, inject: bool = True, data_is_not_path: bool = False) -> None:
        if hasattr(data, "read"):
            data = data.read()
        names_a_file = isinstance(data, os.PathLike) or str(data).endswith(".html")
        if names_a_file and not data_is_not_path:
            data = Path(data).read_text(encoding="utf-8")
        self.html = str(data)

    def encode(self, keep: Callable[[Media], str]) -> Encoded:
        return Encoded("html", "html", self.html.encode(errors="backslashreplace"))


class Histogram(Media):
    """How many values lie between which edges.

    Of values (numbers, an array or tensor of any shape), counted into `num_bins` equal bins as
    numpy does; or of `np_histogram`, a pair of counts and edges. Values that are not finite are
    left out and counted in `not_finite`. Raises UsageError for anything else.
    """

    def __init__(
        self,
        sequence: Any = None,
        np_histogram: tuple[Any, Any] | None = None,
        num_bins: int = 64,
    ) -> None:
        self.not_finite = 0
        if np_histogram is not None:
            counts, edges = (as_array(part).ravel().tolist() for part in np_histogram)
        elif sequence is not None:
            counts, edges = self._counted(sequence, num_bins)
        else:
            raise UsageError("Histogram() needs values, or np_histogram=(counts, edges)")
        if len(edges) != len(counts) + 1:
            raise UsageError(
                f"Histogram() got {len(counts)} counts and {len(edges)} edges; there must be one "
                "edge more than counts"
            )
        self.histogram: list[float] = counts
        self.bins: list[float] = edges

    def _counted(self, sequence: Any, num_bins: int) -> tuple[list[float], list[float]]:
        import numpy as np

        try:
            values = as_array(sequence).astype(np.float64).ravel()
        except (TypeError, ValueError) as error:
            raise UsageError(f"Histogram() needs numbers: {error}") from error
        if not isinstance(num_bins, int) or num_bins < 1:
            raise UsageError(f"Histogram() got num_bins={num_bins!r}; it must be 1 or more")
        finite = values[np.isfinite(values)]
        self.not_finite = values.size - finite.size
        # Bins no narrower than floats lie apart, and no sum that overflows: numpy refuses both.
        scale = 0.25 if finite.size and np.abs(finite).max() > 1e307 else 1.0
        scaled = finite * scale
        low, high = (scaled.min(), scaled.max()) if scaled.size else (0.0, 1.0)
        least = num_bins * np.spacing(max(abs(low), abs(high)))
        if low == high:
            least = max(0.5, least)
        pad = least if high - low < least else 0.0
        counts, edges = np.histogram(scaled, bins=num_bins, range=(low - pad, high + pad))
        widest = np.finfo(np.float64).max
        edges = np.clip(edges, -widest * scale, widest * scale) / scale
        if finite.size:  # scaling rounds the smallest numbers
            edges[0], edges[-1] = min(edges[0], finite.min()), max(edges[-1], finite.max())
        return counts.tolist(), edges.tolist()

    def encode(self, keep: Callable[[Media], str]) -> Encoded:
        fields = {"counts": self.histogram, "edges": self.bins, "not_finite": self.not_finite}
        return Encoded("histogram", "json", codec.encode_event(fields))


class Table(Media):
    """Named columns and rows of numbers, texts and media.

    From rows (`columns`, `data`), from a pandas or polars `dataframe`, or row by row with
    `add_data`. Raises UsageError for a row that is longer or shorter than the columns.
    """

    def __init__(
        self,
        columns: Sequence[Any] | None = None,
        data: Any = None,
        rows: Any = None,
        dataframe: Any = None,
        **others: Any,
    ) -> None:
        tell_ignored("Table", others, "every column takes what it is given")
        given = data if data is not None else rows
        if is_dataframe(given):
            dataframe, given = given, None
        if dataframe is not None:
            columns = [str(name) for name in dataframe.columns]
            given = _rows_of(dataframe)
        given = [] if given is None else list(as_array(given) if hasattr(given, "shape") else given)
        if columns is None:
            columns = [str(n) for n in range(len(given[0]))] if given else ["Input", "Output"]
        self.columns = [str(column) for column in columns]
        self.data: list[list[Any]] = []
        for row in given:
            self.add_data(*row)

    def add_data(self, *row: Any) -> None:
        """Add one row."""
        if len(row) != len(self.columns):
            raise UsageError(
                f"a row of {len(row)} values does not fit the {len(self.columns)} columns "
                f"{self.columns}"
            )
        self.data.append(list(row))

    def add_column(self, name: str, data: Any) -> None:
        """Add a column with a value for each row; to a table without rows it brings them."""
        values = list(data)
        if self.data and len(values) != len(self.data):
            raise UsageError(
                f"the column '{name}' has {len(values)} values and the table {len(self.data)} rows"
            )
        if not self.data:
            self.columns, self.data = [], [[] for _ in values]
        self.columns.append(str(name))
        for row, value in zip(self.data, values, strict=True):
            row.append(value)

    def get_column(self, name: str) -> list[Any]:
        """The values of one column."""
        at = self.columns.index(name)
        return [row[at] for row in self.data]

    def iterrows(self) -> Iterator[tuple[int, list[Any]]]:
        """The rows with their numbers."""
        yield from enumerate(self.data)

    def encode(self, keep: Callable[[Media], str]) -> Encoded:
        rows = [[_cell(value, keep) for value in row] for row in self.data]
        fields = {"columns": self.columns, "rows": rows}
        return Encoded("table", "json", codec.encode_event(fields), {"rows": len(rows)})


class Audio(Media):
    """A sound: the path of a file, or samples in [-1, 1] (mono, or a column a channel)."""

    def __init__(
        self, data_or_path: Any, sample_rate: int | None = None, caption: str | None = None
    ) -> None:
        self.caption = caption
        if isinstance(data_or_path, str | os.PathLike):
            self._suffix, self._data = _file(data_or_path)
        elif sample_rate is None:
            raise UsageError("Audio() of samples needs sample_rate=, as 16000")
        else:
            self._suffix, self._data = "wav", _wav(as_array(data_or_path), sample_rate)

    def encode(self, keep: Callable[[Media], str]) -> Encoded:
        return Encoded("audio", self._suffix, self._data, captioned(self.caption))


class Video(Media):
    """A film, by the path of its file; arrays of frames are not encoded here."""

    def __init__(
        self,
        data_or_path: Any,
        caption: str | None = None,
        format: str | None = None,
        **others: Any,
    ) -> None:
        tell_ignored("Video", others, "the file is kept as it is")
        if not isinstance(data_or_path, str | os.PathLike):
            raise UsageError(
                "Video() takes the path of a file, since cupel has no encoder of films; write the "
                "frames with a library of your choice first"
            )
        self.caption = caption
        self._suffix, self._data = _file(data_or_path)

    def encode(self, keep: Callable[[Media], str]) -> Encoded:
        return Encoded("video", self._suffix, self._data, captioned(self.caption))


def as_array(value: Any) -> np.ndarray[Any, Any]:
    """A copy of numbers as an array: of a tensor on any device, of a list, of an array."""
    import numpy as np

    if hasattr(value, "detach"):
        value = value.detach()
        if hasattr(value, "to_dense") and getattr(value, "is_sparse", False):
            value = value.to_dense()
        if str(value.dtype) == "torch.bfloat16":  # numpy has none
            value = value.float()
        value = value.cpu().numpy()
    return np.array(value)


def captioned(caption: str | None) -> dict[str, Any]:
    """The field of an event that says what is seen or heard; none without a caption."""
    return {} if caption is None else {"caption": str(caption)}


def is_dataframe(value: Any) -> bool:
    """Whether a value is a table of pandas or polars."""
    return type(value).__name__ == "DataFrame" and hasattr(value, "columns")


def _rows_of(dataframe: Any) -> list[Any]:
    rows = dataframe.rows() if hasattr(dataframe, "rows") else dataframe.itertuples(index=False)
    return list(rows)


def _cell(value: Any, keep: Callable[[Media], str]) -> Any:
    if isinstance(value, Media):
        return {"media": keep(value)}
    try:
        return codec.document(value)
    except (TypeError, RecursionError):
        return str(value)


def _file(path: str | os.PathLike[str]) -> tuple[str, bytes]:
    try:
        return suffix_of(Path(path)), Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


def suffix_of(path: Path) -> str:
    """The ending of a file's name, as one of ours may have it; `bin` when it cannot."""
    ending = path.suffix.lower().lstrip(".")
    return ending if ending.isascii() and ending.isalnum() and len(ending) <= 8 else "bin"


def _wav(samples: np.ndarray[Any, Any], sample_rate: int) -> bytes:
    import wave

    import numpy as np

    columns = samples.reshape(len(samples), -1)
    if columns.dtype.kind == "f":
        columns = (np.nan_to_num(columns).clip(-1, 1) * 32767).round()
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(columns.shape[1])
        file.setsampwidth(2)
        file.setframerate(int(sample_rate))
        file.writeframes(columns.astype("<i2").tobytes())
    return buffer.getvalue()
