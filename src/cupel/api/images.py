"""Pictures: `Image`, from arrays, tensors, figures, PIL pictures and files.

PNG is written here, with zlib, so pictures need neither Pillow nor torchvision; files of other
kinds are kept as they are. About 10 ms for a megapixel.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cupel.api.media import Encoded, Media, as_array, captioned, suffix_of
from cupel.api.told import tell_ignored
from cupel.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

_COLOUR = {1: 0, 2: 4, 3: 2, 4: 6}  # channels -> colour type of PNG
_KINDS = ("png", "jpg", "jpeg", "gif", "webp", "bmp", "svg", "tif", "tiff")


class Image(Media):
    """One picture.

    An array is height × width (× channels: grey, grey and alpha, RGB, RGBA), a tensor of torch
    channels × height × width, a batch of either becomes a grid. Whole numbers are 0 to 255,
    floats 0 to 1; floats beyond are 0 to 255 when they fit, else stretched from their least to
    their greatest. Also the path of a file, a figure of matplotlib, a picture of PIL. Raises
    UsageError for anything else.
    """

    def __init__(
        self,
        data_or_path: Any,
        mode: str | None = None,
        caption: str | None = None,
        *,
        channels_first: bool | None = None,
        file_type: str | None = None,
        **others: Any,
    ) -> None:
        tell_ignored("Image", others, "only pixels and the caption are kept")
        self.caption = caption
        self._about: dict[str, Any] = {}
        self._pixels: np.ndarray[Any, Any] | None = None
        if isinstance(data_or_path, str | os.PathLike):
            self._suffix, self._data = _read(Path(data_or_path))
        elif is_figure(data_or_path):
            self._suffix, self._data = "png", drawn(data_or_path)
        elif hasattr(data_or_path, "save"):
            buffer = io.BytesIO()
            (data_or_path.convert(mode) if mode else data_or_path).save(buffer, format="PNG")
            self._suffix, self._data = "png", buffer.getvalue()
        else:
            first = hasattr(data_or_path, "detach") if channels_first is None else channels_first
            self._pixels = pixels(as_array(data_or_path), channels_first=first)
            height, width, _ = self._pixels.shape
            self._about = {"width": width, "height": height}

    def encode(self, keep: Callable[[Media], str]) -> Encoded:
        about = {**self._about, **captioned(self.caption)}
        if self._pixels is not None:
            return Encoded("image", "png", png(self._pixels), about)
        return Encoded("image", self._suffix, self._data, about)


class Figure(Media):
    """A figure of matplotlib, drawn when this is made: as png, svg or pdf."""

    def __init__(self, figure: Any, *, suffix: str = "png", caption: str | None = None) -> None:
        self._suffix, self._data = suffix, drawn(figure, suffix=suffix)
        self._about = captioned(caption)

    def encode(self, keep: Callable[[Media], str]) -> Encoded:
        return Encoded("figure", self._suffix, self._data, self._about)


def is_picture(value: Any) -> bool:
    """Whether a value is a picture of PIL."""
    return type(value).__module__.startswith("PIL.")


def is_figure(value: Any) -> bool:
    """Whether a value is a figure of matplotlib, or pyplot itself, which stands for its figure."""
    return hasattr(value, "savefig")


def drawn(figure: Any, *, suffix: str = "png") -> bytes:
    """A figure of matplotlib as the bytes of a file."""
    if hasattr(figure, "gcf"):
        figure = figure.gcf()
    buffer = io.BytesIO()
    figure.savefig(buffer, format=suffix, bbox_inches="tight")
    return buffer.getvalue()


def pixels(values: np.ndarray[Any, Any], *, channels_first: bool) -> np.ndarray[Any, Any]:
    """Any array that is a picture, or a batch of them, as height × width × channels in bytes.

    Raises UsageError that shows the shape of what is none.
    """
    import numpy as np

    shape = values.shape
    if values.dtype.kind not in "fiub" or not values.size:
        raise UsageError(f"Image() needs numbers, not {values.dtype} of shape {shape}")
    if values.ndim == 2:
        values = values[:, :, None]
    elif channels_first and values.ndim in (3, 4):
        values = np.moveaxis(values, -3, -1)
    if values.ndim == 4:
        values = _grid(values)
    if values.ndim != 3 or values.shape[-1] not in _COLOUR:
        order = "channels × height × width" if channels_first else "height × width × channels"
        raise UsageError(
            f"Image() cannot tell what an array of shape {shape} shows; it must be {order}, with "
            "1 to 4 channels"
        )
    return _bytes(values)


def png(image: np.ndarray[Any, Any]) -> bytes:
    """The PNG file of bytes in height × width × channels. PNG (Third Edition), sections 5 and 9."""
    height, width, channels = image.shape
    rows = image.reshape(height, -1)
    filtered = b"".join(b"\0" + row.tobytes() for row in rows)  # filter 0 in front of each row
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR[channels], 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(filtered, 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in parts)


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _bytes(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    import numpy as np

    if values.dtype.kind == "b":
        return values.astype(np.uint8) * 255
    if values.dtype.kind == "f":
        values = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=1.0, neginf=0.0)
        least, most = values.min(), values.max()
        if least < 0 or most > 255:
            values = (values - least) / ((most - least) or 1.0)
            most = 1.0
        if most <= 1:
            values = values * 255
    return values.clip(0, 255).round().astype(np.uint8)


def _grid(batch: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Pictures side by side, as square as can be, with a line of two pixels between."""
    import numpy as np

    count, height, width, channels = batch.shape
    columns = int(np.ceil(np.sqrt(count)))
    lines = -(-count // columns)
    shape = (lines * (height + 2) - 2, columns * (width + 2) - 2, channels)
    grid = np.zeros(shape, batch.dtype)
    for number, one in enumerate(batch):
        top, left = (height + 2) * (number // columns), (width + 2) * (number % columns)
        grid[top : top + height, left : left + width] = one
    return grid


def _read(path: Path) -> tuple[str, bytes]:
    suffix = suffix_of(path)
    if suffix not in _KINDS:
        raise UsageError(
            f"Image() does not know the ending of {path}; it knows {', '.join(_KINDS)}"
        )
    try:
        return suffix, path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the picture {path}: {error.strerror}") from error
