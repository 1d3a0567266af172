"""Makes a record with everything in it: `python make_record.py FOLDER`, which holds it then.

`record-v1-full` beside this file was made by it, with cupel 0.1.0 and torch 2.13.0. It is never
made again: it shows what version 1 wrote. Whoever raises the version makes another one beside it.

One run, killed in its first session and finished in its second, with two ranks. At last three
things are broken on purpose, a line, a checkpoint and the end of a file, and what tells of the
machine is replaced.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RUN, PROJECT = "full", "golden"
TIME = 1_790_000_000.0  # a session begins 100 seconds after the one before

PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010804000000b51c0c020000000b4944415478da6364600000"
    "0006000233d08a6b0000000049454e44ae426082"
)
PROCESS = {
    "pid": 4711,
    "start": "169512",
    "host": "golden",
    "boot_id": "976f97fe-5be2-4ef8-b959-c19e77cbbff6",
    "pid_namespace": "pid:[4026531836]",
}
ENVIRONMENT = {
    "git": None,
    "python": "3.11.7",
    "packages": {"cupel": "0.1.0", "torch": "2.13.0"},
    "host": "golden",
    "argv": ["train.py", "--name", "Bremsstärke \\udce9"],
    "gpus": [],
}


def main() -> None:
    folder = Path(sys.argv[1]).absolute()
    with tempfile.TemporaryDirectory() as made:
        os.chdir(made)  # no repository: its patch would be recorded
        child = os.fork()
        if child == 0:
            train(Path(made), first=True)
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL, status
        train(Path(made), first=False)
        shutil.move(Path(made) / PROJECT / RUN, folder)
    replace_the_machine(folder)
    break_three_things(folder)


def train(root: Path, *, first: bool) -> None:
    """One session: six steps until a kill, or two more and the end."""
    import torch

    import cupel
    from cupel.record import checkpoints, writer
    from cupel.record.session import Session

    writer.SEGMENT_BYTES = 400
    run = cupel.init(
        PROJECT,
        "a full record",
        {"lr": 0.1, "clip": float("inf"), "model": {"layers": [1, 2]}, "note": "Bremsstärke"},
        id=RUN,
        root=root,
        tags=["a", "b"],
        notes="everything that a record can hold",
        group="goldens",
        job_type="test",
        resume="never" if first else "must",
        settings={"console": first, "system_every": 1.0 if first else 0},
    )
    one = Session.join(run.dir, 1 if first else 2, 1, console=not first)
    model, optimizer = tied_model()
    run.register(model=model, optimizer=optimizer, odd=Odd())
    run.define_metric("val/*", summary="best", goal="min", step_metric="epoch")
    begin = 0 if first else run.load_checkpoint()
    assert begin == (0 if first else 4)
    assert torch.equal(model.embed, torch.full((2, 3), 1.0 - 0.5 * begin))
    for step in range(begin + 1, 7 if first else 9):
        optimizer.zero_grad()
        model.embed.grad = torch.ones(2, 3)
        optimizer.step()
        run.log(numbers(step, first=first), step=step)
        run.log({"val/loss": 2.0 - step / 8, "epoch": step // 2}, step=step)
        one.log({"loss": 10.0 * step, "of/rank": 1}, step=step)
        print(f"step {step}", end="\r" if step % 2 else "\n", flush=True)
        if step in (2, 4, 8):
            saved = run.save_checkpoint(metrics={"val/loss": 2.0 - step / 8})
            while not (saved / "manifest.json").is_file():  # a thread may be writing it
                time.sleep(0.01)
        if step == 2:
            checkpoints.pin(run.dir, 2)
        if step in (2, 6):
            (root / "pixel.png").write_bytes(PIXEL)
            run.log({"picture": cupel.Image(root / "pixel.png", caption="a pixel")}, step=step)
            run.log_table("a/table", ["name", "value"], [["a", 1], ["b", float("nan")]], step=step)
            run.log_histogram("weights", [0.0, 0.5, 1.0, float("inf")], step=step)
    one.note(f"rank 1 of session {1 if first else 2}")
    if first:
        time.sleep(1.5)  # for a look at the machine
        os.kill(os.getpid(), signal.SIGKILL)
    run.config.update({"late": True})
    run.summary["told"] = "by hand"
    run.log({"odd": {1}}, step=8)  # a problem, told once
    (root / "notes.txt").write_text("an artifact\n")
    run.log_artifact(root / "notes.txt", name="the notes", type="text")
    run.alert("the end", "is near")
    one.finish("finished")
    run.finish()


def numbers(step: int, *, first: bool) -> dict[str, Any]:
    odd = {3: float("nan"), 5: float("inf")}
    loss = odd.get(step, 1 / step) if first else 100.0 + step
    return {
        "loss": loss,
        "count": 2**60 + step,
        "even": step % 2 == 0,
        "few": [step, -float("inf")],
    }


class Odd:
    """A part with values that JSON has no words for."""

    def __init__(self) -> None:
        self.state: Any = {"big": 2**70, "nan": float("nan"), 7: (None, b"bytes", -0.0)}

    def state_dict(self) -> Any:
        return self.state

    def load_state_dict(self, state: Any) -> None:
        self.state = state


def tied_model() -> tuple[Any, Any]:
    import torch

    model = torch.nn.Module()
    model.embed = torch.nn.Parameter(torch.full((2, 3), 1.0))
    model.head = model.embed
    return model, torch.optim.SGD([model.embed], lr=0.5)


def replace_the_machine(folder: Path) -> None:
    for path in folder.glob("sessions/*/*"):
        if path.name.startswith("heartbeat") or path.name == "session.json":
            fields = json.loads(path.read_text())
            fields.pop("machine", None)
            fields |= PROCESS
            for name in ("started", "ended"):
                if fields.get(name):
                    fields[name] = TIME + 100 * fields["number"] + 20 * (name == "ended")
            path.write_text(json.dumps(fields, indent=2))
        elif path.name == "env.json":
            path.write_text(json.dumps({"schema": 1, **ENVIRONMENT}, indent=2))
        elif path.suffix == ".jsonl":
            session, segment = int(path.parent.name), int(path.name.split(".")[-2])
            begin = TIME + 100 * session + 2 * segment
            lines = enumerate(path.read_bytes().splitlines(keepends=True))
            path.write_bytes(b"".join(_timed(line, begin + number / 4) for number, line in lines))
    run = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(run | {"created": TIME}, indent=2))


def _timed(line: bytes, at: float) -> bytes:
    return re.sub(rb'"_t":[0-9.]+', b'"_t":%r' % at, line)


def break_three_things(folder: Path) -> None:
    first, *_, last = sorted((folder / "sessions/0001").glob("metrics.r0.*.jsonl"))
    lines = first.read_bytes().splitlines(keepends=True)
    lines[1] = b"#" * (len(lines[1]) - 1) + b"\n"
    first.write_bytes(b"".join(lines))
    with last.open("ab") as file:
        file.write(b'{"_step":7,"_t":179000')
    tensors = folder / "checkpoints/step-000000002/model.safetensors"
    content = bytearray(tensors.read_bytes())
    content[-1] ^= 1
    tensors.write_bytes(content)


if __name__ == "__main__":
    main()
