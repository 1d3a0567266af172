"""Frames: what is packed is unpacked, and the bytes that the page's tests read are ours.

Write tests/golden/dashboard/ anew with `python tests/dashboard/test_frames.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cupel.dashboard import frames

GOLDEN = Path(__file__).parents[1] / "golden" / "dashboard"


def curve(**facts: object) -> dict[str, object]:
    plain = {"run": "p/r", "session": 1, "role": "run", "band": True, "smooth": False,
             "points": 3, "marks": [], "more_marks": 0}  # fmt: skip
    return {**plain, **facts}


def written() -> dict[str, bytes]:
    """A snapshot and two appends to it, as a server sends them."""
    grid = {"width": 2.0, "log": False, "first": 0}
    header = {
        "type": "snapshot", "grid": grid, "x": "step", "cut": 0,
        "curves": [curve(marks=[[1, 1, 0, 0]])],
        "sessions": [{"run": "p/r", "zero": 0.0, "sessions": []}],
        "cursor": [[1, False], 0, 2, [[1, 0, 5, "ab"]]], "from": None, "to": "one",
    }  # fmt: skip
    first = frames.pack(header, [
        np.array([0, 1, 2], np.int32), np.array([1.0, np.nan, 3.0], np.float32),
        np.array([0.5, 2.0, 3.0], np.float32), np.array([1.5, 2.5, 3.0], np.float32),
    ])  # fmt: skip
    more = {**header, "type": "append", "cut": 2, "from": "one", "to": "two",
            "curves": [curve(band=False)]}  # fmt: skip
    second = frames.pack(more, [np.array([2, 4], np.int32), np.array([3.5, 4.5], np.float64)])
    gap = {**more, "cut": 5, "from": "three", "to": "four"}
    third = frames.pack(gap, [np.array([5], np.int32), np.array([9.0], np.float32)])
    return {"snapshot.bin": first, "append.bin": second, "gap.bin": third}


@pytest.mark.parametrize("name", sorted(written()))
def test_the_bytes_that_the_page_is_tested_with_are_those_that_are_sent(name: str) -> None:
    assert (GOLDEN / name).read_bytes() == written()[name], (
        "type: python tests/dashboard/test_frames.py"
    )


_array = st.sampled_from(["i4", "f4", "f8"]).flatmap(
    lambda kind: st.lists(st.integers(-1000, 1000), max_size=9).map(
        lambda values: np.array(values, kind)
    )
)


@given(st.lists(_array, max_size=6), st.text(max_size=20))
@pytest.mark.slow
def test_what_is_packed_is_unpacked(arrays: list[np.ndarray], text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    frame = frames.pack({"text": text}, arrays)
    header, found = frames.unpack(frame)
    assert header["text"] == text
    assert len(found) == len(arrays)
    for one, other in zip(arrays, found, strict=True):
        assert one.dtype == other.dtype
        assert one.tolist() == other.tolist()
    at = frame.find(b"}") and int.from_bytes(frame[:4], "little") + 4
    assert at % 8 == 0, "columns must begin where a page may use them in place"


@pytest.mark.parametrize(
    "values,fine",
    [([0.0, 1.0], False), ([1.7e9, 1.7e9 + 1], True), ([1e39, 1.0], True), ([5.0, 5.0], False),
     ([float("nan")], False), ([], False), ([-1e-30, 1e-30], False), ([1.0, 1.0001], True)],
)  # fmt: skip
def test_float64_is_taken_where_float32_would_be_seen(values: list[float], fine: bool) -> None:
    assert frames.is_fine(np.array(values)) is fine


def test_a_piece_of_a_frame_is_refused() -> None:
    with pytest.raises((ValueError, msgspec.DecodeError)):
        frames.unpack(written()["snapshot.bin"][:20])


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name, content in written().items():
        (GOLDEN / name).write_bytes(content)
    sys.stdout.write(f"written: {', '.join(written())}\n")
