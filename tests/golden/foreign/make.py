"""Makes the files beside it with the real tools: `python make.py FOLDER [TOOL…]`.

    pip install tensorboard==2.21.0 tensorboardX==2.6.5 torch==2.13.0 wandb==0.31.0 mlflow==3.17.2

The files here were written by these versions, under Python 3.11. Every tool logs NUMBERS under
`loss`, one a step of STEPS; what each does besides says its function. `expected.json` holds the
versions and what every file should give: [name, step, number as text, time or null]. Nothing here
needs cupel: the expected numbers are the logged ones, rounded where the tool says that it rounds.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import shutil
import struct
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

NUMBERS = [
    0.1, -0.0, 1 / 3, 5e-324, 1e-310, 1e300, 16777217.0, 3.0,
    math.nan, math.inf, -math.inf, 2.5, -7.25, 0.30000000000000004,
]  # fmt: skip
STEPS = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1000, 2**31, 2**40]
TIME = 1_700_000_000.125  # of the first point; each is 1.5 s after the one before
STEP_BACK = [20, 10, 10, 30]  # for the tools that let steps go back and repeat

PICTURE = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010804000000b51c0c020000000b4944415478da6364600000"
    "0006000233d08a6b0000000049454e44ae426082"
)  # one pixel

Expected = list[tuple[str, int, str, float | None]]


def single(value: float) -> float:
    """The float32 of a number, where that is what a tool keeps."""
    try:
        return struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)


def times(count: int) -> list[float]:
    return [TIME + 1.5 * number for number in range(count)]


def rename(folder: Path) -> None:
    """Event files are named after time, machine and process; these are not."""
    paths = sorted(folder.rglob("*tfevents*"), key=lambda path: (len(path.parts), path))
    for number, path in enumerate(paths):
        path.rename(path.with_name(f"events.out.tfevents.{1_700_000_000 + number}.host"))


def tensorboard(folder: Path) -> Expected:
    """TensorBoard's own writer and its summaries: simple values (float32), the tensors of float32
    that TensorFlow 2 writes, tensors of float64 by value and by content, steps that go back, a
    histogram, a text, an image; hyperparameters.
    """
    import numpy as np
    from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, types_pb2
    from tensorboard.plugins.histogram.summary_v2 import histogram_pb
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb
    from tensorboard.plugins.scalar import metadata
    from tensorboard.plugins.scalar.summary_v2 import scalar_pb
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    expected: Expected = []
    writer = EventFileWriter(str(folder / "first" / "seed0"))

    def write(summary, step: int, t: float) -> None:
        writer.add_event(event_pb2.Event(wall_time=t, step=step, summary=summary))

    def add(name: str, value: float, step: int, t: float, **parts) -> None:
        summary = summary_pb2.Summary()
        summary.value.add(tag=name, **parts)
        write(summary, step, t)
        expected.append((name, step, repr(value), t))

    write(hparams_pb({"lr": 0.1, "layers": 3, "act": "gelu", "bias": True}), 0, TIME)
    for value, step, t in zip(NUMBERS, STEPS, times(len(NUMBERS)), strict=True):
        add("loss", single(value), step, t, simple_value=single(value))
        with np.errstate(over="ignore"):
            write(scalar_pb("v2", value), step, t)
        expected.append(("v2", step, repr(single(value)), t))
        form = {"metadata": metadata.create_summary_metadata("", "")}
        double = tensor_pb2.TensorProto(dtype=types_pb2.DT_DOUBLE, double_val=[value])
        add("double/value", value, step, t, tensor=double, **form)
        content = struct.pack("<d", value)
        double = tensor_pb2.TensorProto(dtype=types_pb2.DT_DOUBLE, tensor_content=content)
        add("double/content", value, step, t, tensor=double, **form)
    for number, (step, t) in enumerate(zip(STEP_BACK, times(4), strict=True)):
        add("back", float(number), step, t, simple_value=number)
    write(histogram_pb("weights", np.arange(100.0)), 1, TIME)
    image = summary_pb2.Summary()
    image.value.add(tag="picture", image=summary_pb2.Summary.Image(height=1, width=1))
    image.value[0].image.encoded_image_string = PICTURE
    write(image, 1, TIME)
    writer.close()
    rename(folder)
    return expected


def tensorboardx(folder: Path) -> Expected:
    """tensorboardX: `add_scalar` with and without a description, a histogram, a text;
    hyperparameters, which it puts into a run of their own.
    """
    import numpy as np
    from tensorboardX import SummaryWriter

    expected: Expected = []
    with SummaryWriter(str(folder / "run")) as writer:
        for value, step, t in zip(NUMBERS, STEPS, times(len(NUMBERS)), strict=True):
            writer.add_scalar("loss", value, step, t)
            writer.add_scalar("named", value, step, t, "a name", "a description")
            expected += [(name, step, repr(single(value)), t) for name in ("loss", "named")]
        writer.add_histogram("weights", np.arange(3.0), 1, walltime=TIME)
        writer.add_text("note", "a text", 1, walltime=TIME)
        writer.add_hparams({"lr": 0.1, "act": "gelu"}, {"score": 0.5}, "trial", 3)
    expected.append(("score", 3, "0.5", None))
    rename(folder)
    return expected


def torch(folder: Path) -> Expected:
    """torch's SummaryWriter: `add_scalar` in its three forms; a start at step 3 that voids what
    was logged from there on, in a second file.
    """
    from torch.utils.tensorboard import SummaryWriter

    expected: Expected = []
    with SummaryWriter(str(folder / "run")) as writer:
        for value, step, t in zip(NUMBERS, STEPS, times(len(NUMBERS)), strict=True):
            writer.add_scalar("loss", value, step, t)
            writer.add_scalar("new", value, step, t, new_style=True)
            writer.add_scalar("double", value, step, t, new_style=True, double_precision=True)
            if step < 3:
                expected += [(name, step, repr(single(value)), t) for name in ("loss", "new")]
                expected.append(("double", step, repr(value), t))
    rename(folder)
    with SummaryWriter(str(folder / "run"), purge_step=3, filename_suffix=".z") as writer:
        writer.add_scalar("loss", 0.5, 3, TIME + 100)
    expected.append(("loss", 3, "0.5", TIME + 100))
    rename(folder)
    return expected


def wandb(folder: Path) -> Expected:
    """wandb, offline: nested names, a list, an integer, a flag, a text, a histogram, a step that
    goes back (which wandb drops); a definition, configuration, summary, tags, notes.
    """
    import wandb

    settings = wandb.Settings(
        mode="offline", x_disable_meta=True, disable_git=True, host="host", silent=True,
        console="off", disable_code=True,
    )  # fmt: skip
    expected: Expected = []
    with tempfile.TemporaryDirectory() as place:
        run = wandb.init(
            dir=place, project="peers", name="first", id="abcd1234", group="all", notes="a note",
            tags=["a", "b"], config={"lr": 0.1, "model": {"layers": 3, "act": "gelu"}},
            settings=settings,
        )  # fmt: skip
        run.define_metric("loss", summary="min")
        for value, step in zip(NUMBERS, STEPS, strict=True):
            run.log({"loss": value, "nested": {"inner": {"x": value}}}, step=step)
            expected += [("loss", step, repr(value), None)]
            expected += [("nested.inner.x", step, repr(value), None)]
        last = STEPS[-1] + 1
        run.log({"dropped": 1.0}, step=5)
        run.log({"many": [1, 2, 3], "flag": True, "whole": 2**60, "text": "words"}, step=last)
        expected += [("many", last, "[1, 2, 3]", None), ("flag", last, "True", None)]
        expected += [("whole", last, str(2**60), None)]
        run.log({"weights": wandb.Histogram([1.0, 2.0])}, step=last + 1)
        run.summary["best"] = 0.05
        run.config.update({"late": 7})
        run.finish()
        wandb.teardown()  # or its process may not have written anything yet
        (path,) = Path(place).rglob("*.wandb")
        shutil.copy(path, folder / path.name)
    return expected


def mlflow(folder: Path) -> Expected:
    """MLflow's SQLite store, compressed here since even an empty one has 1 MB: two runs, the
    second one failed, and one that was deleted; parameters, tags, a note. Times are milliseconds.
    """
    import mlflow

    expected: Expected = []
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        mlflow.set_tracking_uri(f"sqlite:///{place}/mlflow.db")
        client = mlflow.MlflowClient()
        experiment = client.create_experiment("peers", artifact_location="artifacts")

        def add(run: str, name: str, value: float, step: int, t: float) -> None:
            t = int(t * 1000)
            client.log_metric(run, name, value, t, step)
            expected.append((name, step, repr(value + 0.0), t / 1000))  # SQLite has no -0.0

        tags = {"team": "x", "mlflow.note.content": "a note", "mlflow.user": "someone"}
        first = client.create_run(experiment, int(TIME * 1000), tags, "first").info.run_id
        for name, value in {"lr": 0.1, "layers": 3, "act": "gelu", "bias": True}.items():
            client.log_param(first, name, value)
        for value, step, t in zip(NUMBERS, STEPS, times(len(NUMBERS)), strict=True):
            add(first, "loss", value, step, t)
        for number, (step, t) in enumerate(zip(STEP_BACK, times(4), strict=True)):
            add(first, "back", float(number), step, t)
        client.set_terminated(first, "FINISHED", int(TIME * 1000) + 60_000)
        second = client.create_run(experiment, int(TIME * 1000), run_name="second").info.run_id
        client.log_metric(second, "loss", 1.0, int(TIME * 1000), 0)
        client.set_terminated(second, "FAILED", int(TIME * 1000) + 1000)
        client.delete_run(client.create_run(experiment, run_name="third").info.run_id)
        content = Path(place, "mlflow.db").read_bytes()
        os.chdir(folder)
    (folder / "mlflow.db.gz").write_bytes(gzip.compress(content, mtime=0))
    return expected


MAKERS = {maker.__name__: maker for maker in (tensorboard, tensorboardx, torch, wandb, mlflow)}


def main(folder: Path, names: list[str]) -> None:
    os.environ |= {
        "WANDB_MODE": "offline",
        "WANDB_ERROR_REPORTING": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
        "LOGNAME": "someone",
    }
    listed = folder / "expected.json"
    found = json.loads(listed.read_text()) if listed.exists() else {}
    for name in names or MAKERS:
        place = folder / name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        found[name] = {"version": version(name), "points": MAKERS[name](place)}
        listed.write_text(json.dumps(found, separators=(",", ":")).replace("],[", "],\n[") + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2:])
