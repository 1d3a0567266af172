"""A manifest promises what was written, and everything that differs from it is found."""

from __future__ import annotations

import hashlib
import math
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.errors import CheckpointDamaged, CheckpointError
from cupel.record import manifests


def written(folder: Path, **contents: bytes) -> Path:
    folder.mkdir(parents=True)
    entries = {}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        entries[name] = {"bytes": len(content), "sha256": digest}
    fields = {"schema": 1, "step": 3, "metrics": {"loss": math.nan}, "files": entries}
    manifests.write_manifest(folder, fields)
    return folder


def test_what_was_written_is_read_and_intact(tmp_path: Path) -> None:
    folder = written(tmp_path / "x", data=b"abc", empty=b"")
    for read in (manifests.read_manifest, manifests.check_sizes, manifests.check_bytes):
        manifest = read(folder)
        assert math.isnan(manifest["metrics"]["loss"])
        assert manifest["files"]["data"]["bytes"] == 3
    assert manifests.problem(folder) is None


@settings(deadline=None, max_examples=60)
@given(content=st.binary(min_size=1, max_size=40), place=st.floats(0, 1, exclude_max=True))
@pytest.mark.slow
def test_a_changed_byte_is_found_by_its_hash_and_not_by_its_size(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, place: float
) -> None:
    folder = written(tmp_path_factory.mktemp("m") / "x", data=content)
    changed = bytearray(content)
    changed[int(place * len(content))] ^= 1
    (folder / "data").write_bytes(changed)
    manifests.check_sizes(folder)
    with pytest.raises(CheckpointDamaged, match="data has changed: its SHA-256 begins with"):
        manifests.check_bytes(folder)


@pytest.mark.parametrize("content", [b"", b"ab", b"abcd", None])
def test_a_file_of_another_size_is_found_at_once(tmp_path: Path, content: bytes | None) -> None:
    folder = written(tmp_path / "x", data=b"abc")
    (folder / "data").unlink()
    if content is not None:
        (folder / "data").write_bytes(content)
    for check in (manifests.check_sizes, manifests.check_bytes):
        with pytest.raises(CheckpointDamaged, match="missing" if content is None else "it had 3"):
            check(folder)
    assert "data" in str(manifests.problem(folder))


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=60) | st.sampled_from([b"{}", b"[]", b'{"schema": 1}', b'{"seal": 3}']))
@pytest.mark.slow
def test_garbage_is_called_damaged(
    tmp_path_factory: pytest.TempPathFactory, garbage: bytes
) -> None:
    folder = written(tmp_path_factory.mktemp("m") / "x", data=b"abc")
    (folder / manifests.MANIFEST).write_bytes(garbage)
    with pytest.raises(CheckpointDamaged, match=r"manifest\.json"):
        manifests.read_manifest(folder)
    assert manifests.problem(folder) is not None


def test_one_of_a_newer_cupel_is_told_apart_from_damage(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    manifests.write_manifest(tmp_path / "x", {"schema": 2, "files": {}})
    with pytest.raises(CheckpointError, match="schema 2, and this cupel reads up to 1") as told:
        manifests.read_manifest(tmp_path / "x")
    assert not isinstance(told.value, CheckpointDamaged)


def test_verifying_needs_no_torch() -> None:
    code = "import cupel.record.inventory, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    "change",
    [
        *({"files": []}, {"files": {"data": 3}}, {"files": {"data": {"bytes": "3", "sha256": ""}}}),
        *({"parts": None}, {"metrics": 1}, {"step": "x"}, {"schema": None}),
    ],
    ids=str,
)
def test_a_manifest_of_another_form_is_damaged_though_it_is_sealed(
    tmp_path: Path, change: dict[str, object]
) -> None:
    folder = written(tmp_path / "x", data=b"abc")
    fields = manifests.read_manifest(folder)
    manifests.write_manifest(folder, {**fields, **change})
    with pytest.raises(CheckpointDamaged, match="is no manifest of a checkpoint"):
        manifests.check_bytes(folder)
