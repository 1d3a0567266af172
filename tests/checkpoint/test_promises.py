"""Promises of a checkpoint whose mechanism no other test takes apart.

The docstring of a test that proves a promise tells of a mutation: how the code was broken, on a
copy, and what the test then said. ARCHITECTURE.md lists all of these tests.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open

from cupel.checkpoint.parts import Parts
from cupel.checkpoint.room import CheckpointRoom
from cupel.checkpoint.settings import CheckpointSettings
from fakes import boxed, watch_disk


def test_a_checkpoint_gets_its_name_when_every_byte_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mutations, one at a time: no sync of the tensors (stream.py), none of their folder's name
    (`CheckpointRoom._publish`), and a folder that is copied instead of renamed.

        -                os.fsync(self._file.fileno())

        -        files.sync_folder(path.parent)

        -        temporary.rename(path)
        +        shutil.copytree(temporary, path)

    Then `'sync <step-000000002>/<manifest.json> 577' != 'sync <step-000000002>/box.safetensors
    4104'`; `'sync <latest.json> 31' != 'sync .'`; and
    `'sync .' != 'name step-000000002'`.
    """
    run_dir = tmp_path / "run"
    room = CheckpointRoom(run_dir, settings=CheckpointSettings())
    parts = boxed({"w": torch.ones(1000), "b": b"x" * 5000})
    room.save(1, parts)
    told = watch_disk(monkeypatch, run_dir / "checkpoints")
    saved = room.save(2, parts)
    size = {
        path.name: path.stat().st_size
        for path in (*saved.path.iterdir(), *saved.path.parent.glob("*.json"))
    }
    new = "<step-000000002>"
    assert told == [
        f"sync {new}/box.safetensors {size['box.safetensors']}",
        f"sync {new}/state.json {size['state.json']}",
        f"sync {new}/<manifest.json> {size['manifest.json']}",
        f"name {new}/manifest.json",
        f"sync {new}",
        "name step-000000002",
        "sync .",
        f"sync <latest.json> {size['latest.json']}",
        "name latest.json",
        "sync .",
    ]  # fmt: skip


def training() -> Parts:
    """The parts of a real training, after a step of it."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Embedding(5, 4), torch.nn.Linear(4, 5, bias=False))
    model[1].weight = model[0].weight
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    model(torch.tensor([1, 2])).sum().backward()
    optimizer.step()
    schedule.step()
    parts = Parts()
    for name, part in {"model": model, "optimizer": optimizer, "schedule": schedule}.items():
        parts.register(name, part)
    return parts


RESTORES_WITHOUT_PICKLE = """
import runpy, sys
from pathlib import Path
made = runpy.run_path(sys.argv[1])
parts = made["training"]()
before = parts.hashes()
parts.state()["model"]["0.weight"].detach().zero_()
assert parts.hashes() != before
room = made["CheckpointRoom"](Path(sys.argv[2]), settings=made["CheckpointSettings"]())

def refuse(event, arguments):
    if event == "pickle.find_class":
        raise SystemExit(f"a pickle asks for {arguments}")

sys.addaudithook(refuse)
restored = room.restore(parts)
print(restored.step, restored.skipped, parts.hashes() == before)
"""


@pytest.mark.slow
def test_a_checkpoint_is_safetensors_and_json_and_reading_it_unpickles_nothing(
    tmp_path: Path,
) -> None:
    """Mutations of folder.py: tensors as torch.save writes them, a pickled state.json, and tensors
    that are copied by pickle when they are read; of codec.py: tied tensors are different ones.

        +                torch.save(tensors, path)

        -        state = json.dumps({"schema": SCHEMA, "parts": skeletons}).encode()
        +        state = pickle.dumps({"schema": SCHEMA, "parts": skeletons})

        -    return {name: tensor.clone() for name, tensor in load_file(path).items()}
        +    return {name: pickle.loads(pickle.dumps(tensor)) for name, tensor in …}

        -        identity = _identity(tensor)
        +        identity = object()

    Then `optimizer.safetensors is no safetensors file: …; it begins with b'PK\\x03\\x04'`;
    `'utf-8' codec can't decode byte 0x80`; `a pickle asks for ('torch._utils',
    '_rebuild_tensor_v2')`; and `['0.weight', '1.weight'] == ['0.weight']`.
    """
    parts = training()
    saved = CheckpointRoom(tmp_path, settings=CheckpointSettings()).save(3, parts)
    names = {path.name for path in saved.path.iterdir()}
    assert names == {"manifest.json", "state.json", "model.safetensors", "optimizer.safetensors"}
    for path in saved.path.glob("*.json"):
        json.loads(path.read_text(encoding="utf-8"))
    held = {}
    for path in saved.path.glob("*.safetensors"):
        try:
            with safe_open(path, "pt") as file:
                held[path.stem] = sorted(file.keys())
        except SafetensorError as error:
            pytest.fail(
                f"{path.name} is no safetensors file: {error}; it begins with "
                f"{path.read_bytes()[:4]!r}"
            )
    assert held["model"] == ["0.weight"], "1.weight is tied to it, and an alias in state.json"
    assert held["optimizer"] == [f"state/0/{name}" for name in ("exp_avg", "exp_avg_sq", "step")]
    command = [sys.executable, "-c", RESTORES_WITHOUT_PICKLE, __file__, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("3 [] True\n", 0), done.stderr
