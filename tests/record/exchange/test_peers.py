"""The real tools write what is read here, and read what is written here.

Run where the variable CUPEL_PEERS is the path of a python with the tools of
`tests/golden/foreign/make.py`; skipped elsewhere.
"""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import struct
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cupel.record.exchange.exporting import export_run
from cupel.record.exchange.importing import import_runs
from cupel.record.exchange.points import Line
from cupel.record.reader import RunRecord
from exchanges import GOLDEN, check_expected, lines_of, planted_run, same, unzipped_database

PEERS = os.environ.get("CUPEL_PEERS")
QUIET = {
    "WANDB_MODE": "offline",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_SILENT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
}
TOOLS = {"tensorboard": "tensorboard", "tensorboardx": "tensorboardX", "torch": "torch",
         "wandb": "wandb", "mlflow": "mlflow"}  # fmt: skip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not PEERS, reason="CUPEL_PEERS is not the path of a python with the tools of make.py"
    ),
]

MAKE = """
import runpy, sys
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
LINES = [
    Line(0, 1.7e9, {"loss": 0.1, "single": 0.5, "count": 3, "flag": True}),
    Line(1, 1.7e9 + 1.125, {"loss": math.nan, "single": math.inf, "count": 2**53 + 1}),
    Line(2**40, 1.7e9 + 2.25, {"loss": 1e300, "single": -0.0, "count": -1, "flag": False}),
]


def peer(code: str, *arguments: object, cwd: Path) -> str:
    """What a script prints in the environment of the tools."""
    assert PEERS
    done = subprocess.run(
        [PEERS, "-c", code, *map(str, arguments)],
        cwd=cwd, env=os.environ | QUIET | {"PYTHONPATH": ""}, capture_output=True, text=True,
        timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def needed(tool: str, folder: Path) -> None:
    code = "import importlib.util, sys; print(importlib.util.find_spec(sys.argv[1]) is not None)"
    if "True" not in peer(code, TOOLS[tool], cwd=folder):
        pytest.skip(f"{TOOLS[tool]} is not installed where CUPEL_PEERS points to")


@pytest.mark.parametrize("tool", TOOLS)
def test_what_the_tool_writes_today_is_read_to_the_bit(tool: str, tmp_path: Path) -> None:
    needed(tool, tmp_path)
    made = tmp_path / "made"
    made.mkdir()
    peer(MAKE, GOLDEN / "make.py", made, tool, cwd=tmp_path)
    wanted = json.loads((made / "expected.json").read_text())
    source = made / tool
    if tool == "mlflow":
        (tmp_path / "db").mkdir()
        source = unzipped_database(tmp_path / "db", made / "mlflow" / "mlflow.db.gz")
    runs = import_runs(source, root=tmp_path / "root", tell=print)
    found = [line for run in runs[: 1 if tool == "mlflow" else None] for line in lines_of(run)]
    check_expected(tool, found, wanted)


READ = """
import json, sys
from tensorboard.backend.event_processing import (
    data_provider, event_accumulator, plugin_event_multiplexer)
from tensorboard.context import RequestContext
from tensorboard.data.provider import RunTagFilter
from tensorboard.plugins.hparams import plugin_data_pb2

folder = sys.argv[1]
events = event_accumulator.EventAccumulator(folder, size_guidance={"scalars": 0})
events.Reload()
shown = {tag: [(e.step, e.wall_time, e.value) for e in events.Scalars(tag)]
         for tag in events.Tags()["scalars"]}
runs = plugin_event_multiplexer.EventMultiplexer().AddRun(folder, "run")
runs.Reload()
read = data_provider.MultiplexerDataProvider(runs, folder).read_scalars(
    RequestContext(), experiment_id="", plugin_name="scalars", downsample=1000,
    run_tag_filter=RunTagFilter(runs=["run"]))
provided = {tag: [(e.step, e.wall_time, e.value) for e in found]
            for tag, found in read["run"].items()}
content = runs.PluginRunToTagToContent("hparams")["run"]
start = plugin_data_pb2.HParamsPluginData.FromString(
    content["_hparams_/session_start_info"]).session_start_info
hparams = {key: getattr(value, value.WhichOneof("kind")) for key, value in start.hparams.items()}
end = plugin_data_pb2.HParamsPluginData.FromString(
    content["_hparams_/session_end_info"]).session_end_info
print(json.dumps([shown, provided, hparams, end.status]))
"""


def single(value: float) -> float:
    try:
        found: float = struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)
    return found


def wanted_scalars() -> dict[str, list[list[Any]]]:
    found: dict[str, list[list[Any]]] = {}
    for line in LINES:
        for name, value in line.metrics.items():
            found.setdefault(name, []).append([line.step, line.t, single(value)])
    return found


def test_tensorboard_shows_every_number_of_an_export_as_float32(tmp_path: Path) -> None:
    needed("tensorboard", tmp_path)
    export_run(planted_run(tmp_path, LINES), tmp_path / "tb", kind="tensorboard")
    shown, provided, hparams, status = json.loads(peer(READ, tmp_path / "tb", cwd=tmp_path))
    assert same(shown, wanted_scalars())
    assert same(provided, wanted_scalars())
    assert hparams == {"lr": 0.1, "layers": 3.0, "model.act": "gelu", "model.bias": True}
    assert status == 1


@pytest.fixture(params=["true", "false"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """TensorBoard as a user starts it, with its fast loader and without."""
    needed("tensorboard", tmp_path)
    assert PEERS
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [PEERS, "-m", "tensorboard.main", "--logdir", str(tmp_path / "logs")]
    command += ["--port", str(port), f"--load_fast={request.param}", "--reload_interval", "1"]
    with (tmp_path / "server.log").open("w") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=os.environ | {"PYTHONPATH": ""},
            start_new_session=True,
        )  # fmt: skip
    yield f"http://127.0.0.1:{port}/data/plugin/scalars/scalars?run=run&tag="
    os.killpg(process.pid, signal.SIGTERM)
    process.wait()


def test_tensorboards_pages_get_every_number_with_either_loader(
    server: str, tmp_path: Path
) -> None:
    run_dir = planted_run(tmp_path, LINES)
    export_run(run_dir, tmp_path / "logs" / "run", kind="tensorboard")
    for name, points in wanted_scalars().items():
        deadline = time.monotonic() + 90
        found: list[list[Any]] = []
        while len(found) < len(points):
            assert time.monotonic() < deadline, (name, found)
            time.sleep(0.5)
            try:
                page = server + urllib.parse.quote(name)
                with urllib.request.urlopen(page, timeout=30) as answer:
                    found = json.loads(answer.read())
            except (urllib.error.URLError, ConnectionError, TimeoutError):  # not yet up
                continue
        got = [[step, t, float(value)] for t, step, value in found]
        assert same(got, points), name


def test_pandas_reads_every_bit_of_the_csv(tmp_path: Path) -> None:
    needed("mlflow", tmp_path)  # which brings pandas
    lines = [line._replace(metrics={"loss": line.metrics["loss"]}) for line in LINES]
    path = export_run(planted_run(tmp_path, lines), tmp_path / "a.csv", kind="csv")
    code = """
import json, sys, pandas
table = pandas.read_csv(sys.argv[1], float_precision="round_trip")
print(json.dumps([table[name].tolist() for name in table]))
"""
    steps, times, losses = json.loads(peer(code, path, cwd=tmp_path))
    assert (steps, times) == ([line.step for line in lines], [line.t for line in lines])
    assert same(losses, [line.metrics["loss"] for line in lines])


def test_a_killed_run_of_wandb_gives_what_had_reached_the_disk(tmp_path: Path) -> None:
    needed("wandb", tmp_path)
    assert PEERS
    code = """
import wandb
run = wandb.init(mode="offline", project="p", settings=wandb.Settings(silent=True))
step = 0
while True:
    run.log({"loss": step / 7, "text": "x" * 500}, step=step)
    step += 1
    if step == 3000:
        print("go", flush=True)
"""
    process = subprocess.Popen(
        [PEERS, "-c", code], cwd=tmp_path, env=os.environ | QUIET | {"PYTHONPATH": ""},
        stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert process.stdout
    try:
        assert process.stdout.readline() == b"go\n"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    (run_dir,) = import_runs(tmp_path / "wandb", root=tmp_path / "root", tell=print)
    lines = lines_of(run_dir)
    assert [line.step for line in lines] == list(range(len(lines)))
    assert all(line.metrics == {"loss": line.step / 7} for line in lines)
    assert len(lines) > 100
    record = RunRecord(run_dir)
    assert record.status == "interrupted"
    assert record.run["imported"]["damaged"] <= 1
