"""A streamed file is the one that safetensors writes, and its hashes are those of its bytes."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cupel.checkpoint import stream
from cupel.checkpoint.codec import DTYPES, content, stored
from cupel.checkpoint.stream import METADATA, write_bytes, write_tensors
from cupel.errors import CheckpointError


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """Contiguous tensors of every dtype."""
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    dtype = draw(st.sampled_from(sorted(DTYPES, key=str)))
    if "float4" in str(dtype) and not shape:
        shape = [1]  # see the last test
    limit = 1 if dtype == torch.bool else 255
    count = torch.Size(shape).numel() * dtype.itemsize
    raw = [min(byte, limit) for byte in draw(st.binary(min_size=count, max_size=count))]
    return torch.tensor(raw, dtype=torch.uint8).view(dtype).reshape(shape)


states = st.dictionaries(
    st.text(st.characters(codec="utf-8"), max_size=6).filter(lambda name: name != "__metadata__"),
    tensors(),
    min_size=1,
    max_size=6,
)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(states)
def test_it_is_the_file_that_safetensors_writes_byte_for_byte(
    tmp_path_factory: pytest.TempPathFactory, state: dict[str, torch.Tensor]
) -> None:
    place = tmp_path_factory.mktemp("stream")
    written = write_tensors(place / "ours", state)
    safetensors.torch.save_file(state, place / "theirs", metadata=METADATA)
    ours = (place / "ours").read_bytes()
    assert ours == (place / "theirs").read_bytes()
    assert written.entry == {"bytes": len(ours), "sha256": hashlib.sha256(ours).hexdigest()}
    assert written.digests == {
        name: hashlib.sha256(content(tensor)).hexdigest() for name, tensor in state.items()
    }


def test_every_dtype_that_a_checkpoint_holds_can_be_streamed(tmp_path: Path) -> None:
    state = {str(dtype): torch.arange(16, dtype=torch.uint8).view(dtype) for dtype in DTYPES}
    state[str(torch.bool)] = torch.tensor([True, False])
    write_tensors(tmp_path / "x", state)
    loaded = safetensors.torch.load_file(tmp_path / "x")
    assert {n: t.dtype for n, t in loaded.items()} == {n: t.dtype for n, t in state.items()}
    assert all(bytes(content(loaded[name])) == bytes(content(state[name])) for name in state)


def test_files_larger_than_a_piece_are_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "_PIECE", 1000)
    state = {"w": torch.randn(1234), "v": torch.randn(250), "empty": torch.empty(0, 3)}
    written = write_tensors(tmp_path / "x", state)
    loaded = safetensors.torch.load_file(tmp_path / "x")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
    assert written.sha256 == hashlib.sha256((tmp_path / "x").read_bytes()).hexdigest()


def test_layouts_and_shared_memory_do_not_matter(tmp_path: Path) -> None:
    base = torch.randn(4, 6)
    odd = torch.view_as_complex(torch.randn(3, 2)).conj()
    state = {"t": base.t(), "all": base, "row": base[1], "conj": odd, "neg": odd.imag}
    written = write_tensors(tmp_path / "x", state)
    loaded = safetensors.torch.load_file(tmp_path / "x")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
    assert written.digests["t"] == hashlib.sha256(content(stored(base.t()))).hexdigest()


def test_the_disk_may_take_a_part_of_what_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one does that is nearly full, or a network's."""

    class Reluctant:
        def __init__(self, file: Any) -> None:
            self._file = file

        def write(self, data: memoryview) -> int:
            return int(self._file.write(data[: max(1, len(data) // 2)]))

        def fileno(self) -> int:
            return int(self._file.fileno())

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *error: object) -> None:
            self._file.close()

    opened = Path.open
    monkeypatch.setattr(
        Path, "open", lambda path, *a, **named: Reluctant(opened(path, *a, **named))
    )
    written = write_bytes(tmp_path / "x", b"some bytes")
    monkeypatch.undo()
    assert (tmp_path / "x").read_bytes() == b"some bytes"
    assert written.entry["bytes"] == 10


def test_it_can_be_given_up_between_two_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "_PIECE", 1000)
    left = iter(range(3))

    def check() -> None:
        if next(left, None) is None:
            raise InterruptedError("enough")

    with pytest.raises(InterruptedError, match="enough"):
        write_tensors(tmp_path / "x", {"w": torch.ones(10_000)}, check=check)
    assert 0 < (tmp_path / "x").stat().st_size <= 3000


def test_the_file_is_on_the_disk_when_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (sizes.append(os.fstat(fd).st_size), fsync(fd)))
    written = write_tensors(tmp_path / "x", {"w": torch.ones(1000)})
    assert sizes == [written.bytes]


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    write_bytes(tmp_path / "x", b"old")
    with pytest.raises(FileExistsError):
        write_bytes(tmp_path / "x", b"new")


def test_what_safetensors_cannot_hold_is_refused_at_once(tmp_path: Path) -> None:
    dtype = getattr(torch, "float4_e2m1fn_x2", None)
    if dtype is None:
        pytest.skip("this torch has no such dtype")
    lone = torch.zeros(1, dtype=torch.uint8).view(dtype).reshape(())
    with pytest.raises(
        CheckpointError, match=r"holds no torch\.float4_e2m1fn_x2 without dimensions"
    ):
        write_tensors(tmp_path / "x", {"w": lone})
