"""Binary frames: a JSON header, then columns, which the page uses without copying.

    u32 little endian   bytes of the header, a multiple of 8 with its padding, less 4
    header              JSON; `blocks` lists [type, count] of what follows
    blocks              "i4", "f4" or "f8", little endian, each begun at a multiple of 8 bytes

A curve is sent as f4 where that shows: of a value around 1.7e9 that changes by seconds, or beyond
3e38, it would not, and f8 is taken.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from cupel.dashboard.replies import encode

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_ALIGNED = 8
_NARROW = 2.0**-11  # of the values: a span below this part of them is drawn from f8
_LARGEST_F4 = 3e38


def pack(header: dict[str, Any], arrays: Sequence[Any]) -> bytes:
    """One frame of a header and of arrays of int32, float32 or float64."""
    blocks = [[f"{array.dtype.kind}{array.dtype.itemsize}", len(array)] for array in arrays]
    text = encode({**header, "blocks": blocks})
    text += b" " * (-(len(text) + 4) % _ALIGNED)
    parts = [struct.pack("<I", len(text)), text]
    for array in arrays:
        content = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        parts += [content, b"\0" * (-len(content) % _ALIGNED)]
    return b"".join(parts)


def unpack(frame: bytes) -> tuple[dict[str, Any], list[Any]]:
    """A frame taken apart again, as the page does it. Raises ValueError for what is none."""
    import numpy as np

    if len(frame) < 4:
        raise ValueError("a frame of less than 4 bytes")
    (size,) = struct.unpack_from("<I", frame)
    header: dict[str, Any] = msgspec.json.decode(frame[4 : 4 + size])
    arrays, at = [], 4 + size
    for kind, count in header["blocks"]:
        arrays.append(np.frombuffer(frame, f"<{kind}", count, at))
        at += -(-arrays[-1].nbytes // _ALIGNED) * _ALIGNED
    return header, arrays


def is_fine(*columns: Floats) -> bool:
    """Whether the columns of a curve need float64 to be drawn."""
    import numpy as np

    finite = np.concatenate([column[np.isfinite(column)] for column in columns])
    if not len(finite):
        return False
    low, high = float(finite.min()), float(finite.max())
    largest = max(abs(low), abs(high))
    return largest > _LARGEST_F4 or 0 < high - low < _NARROW * largest
