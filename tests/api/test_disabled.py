"""A disabled run takes every call, writes nothing, and costs next to nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cupel
from cupel.errors import UsageError

Init = Callable[..., cupel.Run]


class Part:
    def __init__(self) -> None:
        self.count = 0

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]


@pytest.mark.slow
def test_every_call_is_taken_and_nothing_is_written(
    init: Init, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = torch.nn.Linear(2, 1)
    with init(mode="disabled", config={"lr": 1}, group="g") as run:
        assert run.disabled
        assert isinstance(run, cupel.Run)
        run.log({"loss": 1.0, "x": cupel.Text("x"), "odd": object()})
        run.log({"loss": 1.0}, step=7)
        assert run.step == 7
        run.log_image("i", np.zeros(3))
        run.log_text("t", "x")
        run.log_table("t", ["a"], [[1]])
        run.log_histogram("h", ["no number"])
        run.log_figure("f", None)
        assert run.log_artifact("absent") is None
        assert run.log_model("absent") is None
        assert run.save("absent*") == []
        run.alert("title")
        run.watch(model)
        run.watch(model, torch.optim.SGD(model.parameters()))
        run.unwatch()
        run.define_metric("x", summary="max")
        run.config.update({"late": 1})
        run.summary["best"] = 2
        run.register(model=model, optimizer=None)
        assert run.load_checkpoint() == 0
        run.save_checkpoint({"val_loss": 1.0}, wait=True)
        run.name = "other"
        run.tags += ("a",)
        assert (run.config.late, run.summary["best"]) == (1, 2)
        assert run.name == "other"
        assert cupel.run is run
    assert run.finished
    assert not root.exists()
    assert capsys.readouterr().err == ""


def test_a_loop_over_steps_runs_through(init: Init, root: Path) -> None:
    part = Part()
    with init(mode="disabled") as run:
        run.register(part=part)
        made = []
        for step in run.steps(3, save_every=1):
            run.log({"loss": 1.0})
            made.append(run.step)
            assert step == run.step
        assert [*run.steps(5)] == [4, 5]
    assert made == [1, 2, 3]
    assert not root.exists()


def test_its_folder_is_temporary_and_made_when_it_is_asked_for(init: Init) -> None:
    with init(mode="disabled") as run:
        (run.dir / "scratch.txt").write_text("x")
        folder = run.dir
        assert folder.is_dir()
    assert not folder.exists()


def test_the_variable_overrules_the_argument(
    init: Init, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUPEL_MODE", "disabled")
    with init(mode="online") as run:
        assert run.disabled
    monkeypatch.setenv("CUPEL_MODE", "offline")
    with init(mode="disabled") as run:
        assert not run.disabled
    assert root.exists()


@pytest.mark.parametrize("mode", ["online", "offline", "local", None])
def test_online_and_offline_both_record_here(init: Init, mode: str | None) -> None:
    with init(mode=mode) as run:
        assert not run.disabled
        assert run.dir.is_dir()


def test_what_is_wrong_with_a_call_is_told_all_the_same(init: Init) -> None:
    with init(mode="disabled") as run:
        with pytest.raises(UsageError, match=r"log\(\) takes a dict"):
            run.log(5)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="is not one of last"):
            run.define_metric("x", summary="median")
    with pytest.raises(UsageError, match="tags must be a list"):
        init(mode="disabled", tags="night")


def test_a_log_of_a_disabled_run_costs_little(init: Init) -> None:
    with init(mode="disabled") as run:
        metrics = {"loss": 1.0, "acc": 0.5}
        least = float("inf")
        for _ in range(20):
            begun = time.perf_counter()
            for step in range(1000):
                run.log(metrics, step=step)
            least = min(least, (time.perf_counter() - begun) / 1000)
    assert least < 10e-6  # measured 0.6 µs; room for a busy machine


@pytest.mark.parametrize("mode", ["online", "disabled"])
def test_config_and_summary_are_those_of_a_recording_run(init: Init, mode: str) -> None:
    with init(mode=mode, config={"lr": 0.1}) as run:
        run.define_metric("val/*", step_metric="epoch", summary="min")
        run.define_metric("acc", summary="best", goal="max")
        run.define_metric("mean", summary="mean")
        run.define_metric("first", summary="first")
        run.define_metric("hidden", summary="none")
        for step, value in enumerate([3.0, 1.0, float("nan"), 2.0]):
            run.log({"epoch": step}, commit=False)
            run.log(dict.fromkeys(("acc", "mean", "first", "hidden", "val/a", "plain"), value))
        run.log({"plain": np.float32(0.5), "nested": {"x": torch.tensor(4)}, "text": "no"}, step=9)
        run.log({"plain": 7.0}, step=8)
        run.log({"plain": 10**5000, "flag": True, "list": [1, 2]})
        run.summary["verdict"] = "good"
        run.summary["acc"] = 5
        run.config.late = Path("a")
    assert dict(run.summary) == {
        "epoch": 3, "acc": 5, "mean": 2.0, "first": 3.0, "val/a": 1.0, "plain": 0.5,
        "nested/x": 4, "flag": True, "verdict": "good",
    }  # fmt: skip
    assert run.config == {"lr": 0.1, "late": "a"}


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.floats(-9, 9) | st.just(float("nan"))), max_size=12
    ),
    st.sampled_from(["last", "first", "min", "max", "mean"]),
)
@pytest.mark.slow
def test_any_metric_comes_to_what_it_would_in_a_record(
    init: Init, lines: list[tuple[str, float]], rule: str
) -> None:
    found = []
    for mode in ("online", "disabled"):
        with init(mode=mode, settings={"console": False}) as run:
            run.define_metric("a", summary=rule)
            for key, value in lines:
                run.log({key: value})
            found.append(dict(run.summary))
    assert found[0] == pytest.approx(found[1], nan_ok=True)


def test_the_first_example_of_the_page_runs_in_disabled_mode(
    script: Callable[..., Any], root: Path
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "tracking.md").read_text()
    example = page.split("```python\n")[1].split("```")[0]
    done = script(example, CUPEL_MODE="disabled")
    assert (done.returncode, done.stdout) == (0, "first 0.1 0.2\n"), done.stderr
    assert not root.exists()


@pytest.mark.parametrize("step", [1.5, -3, True, "abc"])
def test_steps_that_a_recording_run_refuses_are_refused(init: Init, step: Any) -> None:
    with init(mode="disabled") as run, pytest.raises(UsageError, match="must be a whole number"):
        run.log({"loss": 1.0}, step=step)
