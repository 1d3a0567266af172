"""`SummaryWriter`: tags, steps and wall times are those that were given."""

from __future__ import annotations

import ast
import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cupel
from cupel.compat import SummaryWriter
from cupel.record.reader import RunRecord, list_runs


def rows(writer: SummaryWriter) -> list[dict[str, Any]]:
    record = RunRecord(writer.log_dir)
    return [{k: v for k, v in row.items() if k != "_t"} for row in record.history()]


def media(writer: SummaryWriter) -> list[dict[str, Any]]:
    return [e for e in RunRecord(writer.log_dir).events() if e["_event"] == "media"]


@pytest.mark.parametrize(
    "log_dir,comment,project,name",
    [
        ("runs/exp1", "", "default", "exp1"),
        ("logs/mnist/lr-0.1", "", "mnist", "lr-0.1"),
        ("exp1", "", "default", "exp1"),
        (Path("/tmp/a/b"), "", "a", "b"),
        ("./x/../.y/z", "", "y", "z"),
        (".", "", "default", "default"),
    ],
)
def test_the_folder_says_project_and_name(
    root: Path, log_dir: Any, comment: str, project: str, name: str
) -> None:
    with SummaryWriter(log_dir, comment=comment) as writer:
        pass
    (record,) = list_runs(root)
    assert (record.run["project"], record.run["name"]) == (project, name)
    assert record.status == "finished"
    assert writer.get_logdir() == str(record.run_dir)


def test_without_a_folder_the_name_is_the_time_and_the_comment(root: Path) -> None:
    with SummaryWriter(comment="_lr") as writer:
        assert writer.run.name.endswith("_lr")
        assert writer.run.name.count("-") == 2


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["loss", "acc/val"]),
            st.integers(-5, 100),
            st.floats(),
            st.floats(1e9, 2e9),
        ),
        max_size=10,
    )
)
@pytest.mark.slow
def test_every_scalar_comes_back_with_step_and_wall_time(
    root: Path, points: list[tuple[str, int, float, float]]
) -> None:
    with SummaryWriter("logs/x") as writer:
        for tag, step, value, at in points:
            writer.add_scalar(tag, value, step, walltime=at)
    expected: dict[int, dict[str, Any]] = {}
    for tag, step, value, at in points:
        expected.setdefault(step, {}).update({tag: value, "_step": step, "_t": at})
    found = RunRecord(writer.log_dir).history()
    assert [repr({k: row[k] for k in sorted(row)}) for row in found] == [
        repr({k: expected[step][k] for k in sorted(expected[step])}) for step in sorted(expected)
    ]


def test_without_a_step_the_points_of_a_tag_are_counted(root: Path) -> None:
    with SummaryWriter("logs/x") as writer:
        for value in (3.0, 2.0):
            writer.add_scalar("a", value)
        writer.add_scalar("a", 1.0, 9)
        writer.add_scalar("a", 0.0)
        writer.add_scalar("further", 5.0)
    assert rows(writer) == [
        {"_step": 0, "a": 3.0, "further": 5.0},
        {"_step": 1, "a": 2.0},
        {"_step": 9, "a": 1.0},
        {"_step": 10, "a": 0.0},
    ]


def test_numbers_of_every_kind_are_taken(root: Path) -> None:
    with SummaryWriter("logs/x") as writer:
        writer.add_scalar("tensor", torch.tensor([2.5], requires_grad=True), 1)
        writer.add_scalar("array", np.array([[3.5]]), 1)
        writer.add_scalar("double", 0.1, np.int64(1), double_precision=True)
        writer.add_scalars("both", {"a": torch.tensor(1), "b": 2}, 1)
    assert rows(writer) == [
        {"_step": 1, "tensor": 2.5, "array": 3.5, "double": 0.1, "both/a": 1, "both/b": 2}
    ]


def test_all_else_that_is_kept_becomes_media_with_step_and_wall_time(root: Path) -> None:
    from matplotlib import pyplot

    figure = pyplot.figure()
    pixels = np.arange(24, dtype=np.uint8).reshape(3, 2, 4)
    with SummaryWriter("logs/x") as writer:
        writer.add_histogram("h", torch.arange(10.0), 1, walltime=5.0, bins=5)
        writer.add_text("t", "text", 1)
        writer.add_image("chw", pixels, 1)
        writer.add_image("hwc", pixels.transpose(1, 2, 0), 1, dataformats="HWC")
        writer.add_image("hw", pixels[0], 1, dataformats="HW")
        writer.add_images("batch", torch.zeros(4, 3, 2, 2), 1)
        writer.add_figure("f", figure, 1)
        writer.add_audio("s", torch.zeros(1, 100), 1, sample_rate=8000)
    found = {event["key"]: event for event in media(writer)}
    assert {event["step"] for event in found.values()} == {1}
    assert found["h"]["_t"] == 5.0
    one = json.loads((writer.run.dir / found["h"]["path"]).read_text())
    assert one["counts"] == [2, 2, 2, 2, 2]
    assert found["chw"]["sha256"] == found["hwc"]["sha256"]
    assert (found["chw"]["width"], found["chw"]["height"]) == (4, 2)
    assert [found[key]["kind"] for key in "tfs"] == ["text", "figure", "audio"]
    assert not pyplot.fignum_exists(figure.number)  # closed, as TensorBoard's does


@pytest.mark.slow
def test_settings_and_their_results_are_config_and_summary(root: Path) -> None:
    with SummaryWriter("logs/mnist/base") as writer:
        for lr in (0.1, 0.1, 0.2, 0.3):
            writer.add_hparams({"lr": lr}, {"hparam/acc": torch.tensor(lr * 2)}, run_name=None)
    found = {record.run["name"]: record for record in list_runs(root)}
    assert {name: record.config["lr"] for name, record in found.items()} == {
        "base": 0.1, "base-2": 0.2, "base-3": 0.3,
    }  # fmt: skip
    assert found["base-3"].summary["hparam/acc"] == pytest.approx(0.6)
    assert {record.run["project"] for record in found.values()} == {"mnist"}
    assert {record.status for record in found.values()} == {"finished"}


@pytest.mark.slow
def test_several_writers_are_open_beside_each_other_and_the_current_run(root: Path) -> None:
    run = cupel.init("p", "current")
    train, val = SummaryWriter("logs/x/train"), SummaryWriter("logs/x/val")
    shared = SummaryWriter()
    train.add_scalar("loss", 1.0, 1)
    val.add_scalar("loss", 2.0, 1)
    shared.add_scalar("loss", 3.0, 1)
    shared.close()
    assert not run.finished
    run.finish()
    for writer in (train, val):
        writer.close()
        writer.add_scalar("late", 1.0, 2)  # told, not written
    values = {record.run["name"]: record.history()[0]["loss"] for record in list_runs(root)}
    assert values == {"train": 1.0, "val": 2.0, "current": 3.0}
    assert rows(train) == [{"_step": 1, "loss": 1.0}]


@pytest.mark.slow
def test_a_writer_without_close_is_ended_with_python(root: Path, tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "from cupel.compat import SummaryWriter\na = SummaryWriter('logs/x/a')\n"
        "b = SummaryWriter('logs/x/b')\na.add_scalar('l', 1.0, 0)\nb.add_scalar('l', 1.0, 0)"
    )
    for ending, status in (("", "finished"), ("\n1 / 0", "failed")):
        subprocess.run([sys.executable, "-c", code + ending], capture_output=True, timeout=60)
        assert {record.status for record in list_runs(root)[:2]} == {status}


def test_a_writer_may_share_a_given_run(root: Path) -> None:
    with cupel.init("p", "n") as run:
        writer = SummaryWriter("ignored", run=run)
        writer.add_scalar("a", 1.0, 3)
        writer.flush()
        writer.close()
        assert not run.finished
    assert rows(writer) == [{"_step": 3, "a": 1.0}]


def test_a_failing_medium_stops_nothing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with SummaryWriter("logs/x") as writer:
        writer.add_image("bad", np.zeros(7), 1)
        writer.add_histogram("text", ["a"], 1)
        writer.add_scalar("loss", 1.0, 1)
    assert rows(writer) == [{"_step": 1, "loss": 1.0}]
    assert capsys.readouterr().err.count("training goes on") == 2


def test_what_is_not_recorded_says_so_once(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with SummaryWriter("logs/x", purge_step=3) as writer:
        for _ in range(2):
            writer.add_graph(None)
            writer.add_embedding(None)
            writer.add_mesh("m", None)
            writer.add_video("v", None)
            writer.add_pr_curve("p", None, None)
            writer.add_onnx_graph("x")
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 7
    assert all("is not recorded" in line or "no effect" in line for line in told)


def test_it_takes_what_torchs_writer_takes() -> None:
    """Every method of the real one is there, with its arguments in their order."""
    source = Path(torch.__file__).parent / "utils" / "tensorboard" / "writer.py"
    tree = ast.parse(source.read_text())  # importing it needs tensorboard
    (real,) = (
        node
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name == "SummaryWriter"
    )
    known = 0
    for method in real.body:
        if not isinstance(method, ast.FunctionDef) or not hasattr(SummaryWriter, method.name):
            continue
        if method.name in ("__enter__", "__exit__"):
            continue  # Python calls them by position
        theirs = [argument.arg for argument in method.args.args]
        ours = list(inspect.signature(getattr(SummaryWriter, method.name)).parameters)
        assert ours[: len(theirs)] == theirs, method.name
        known += method.name.startswith("add_")
    assert known >= 9


def test_no_other_name_is_taken_for_a_call(root: Path) -> None:
    with SummaryWriter("logs/x") as writer, pytest.raises(AttributeError, match="has no 'ad_sc'"):
        writer.ad_sc("a", 1)
