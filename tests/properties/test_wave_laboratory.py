"""The wave laboratory's eighteen properties, each a Hypothesis test that carries its number.

Real runs of a wave GPT of some hundred parameters, in this process. Interruptions are a SIGTERM
that the process sends to itself; kills of whole processes are in tests/exact and tests/record.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cupel.config import load
from cupel.record.checkpoints import step_dir
from cupel.record.index import table
from cupel.record.reader import RunRecord
from cupel.record.session import Session
from cupel.workloads.training import Trained, train

pytestmark = pytest.mark.slow

HERE = Path(__file__).read_text()
COUNT = 18
TINY = [
    *("data.batch=2", "data.val_batches=1", "data.val_batch=2", "sample.tokens=2"),
    *("model.layers=1", "model.width=8", "model.heads=2", "model.waves=2", "model.harmonics=2"),
    *("model.block=4", "train.device=cpu", "train.log_every=1", "train.ema=0.9"),
    *("train.optimizer.warmup=5", "checkpoint.best=null", "monitors.norms=off"),
    *("monitors.spectral={every: 1, tokens: [97, 98]}", "figures.themes=[light]"),
]
# Without shrinking: a smaller plan is not clearer, and each costs a second.
real_runs = settings(
    max_examples=4,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@dataclass(frozen=True)
class Plan:
    """A short run: its steps, its intervals, and where it is interrupted, if it is."""

    steps: int
    evaluate: int
    checkpoint: int
    keep: int
    seed: int
    figures: int | None = None
    stop: int | None = None
    other: list[str] = field(default_factory=list)

    def overrides(self, *, interrupted: bool) -> list[str]:
        drawn = [f"figures.every={self.figures}", "figures.formats=[svg]"]
        stop = [f"monitors.fakes:Stop={{step: {self.stop}}}"] if interrupted else []
        return [
            *TINY,
            *(drawn if self.figures is not None else ["figures.formats=[]"]),
            *stop,
            *self.other,
            f"train.steps={self.steps}",
            f"train.evaluate_every={self.evaluate}",
            f"checkpoint.every={self.checkpoint}",
            f"checkpoint.keep_last={self.keep}",
            f"seed={self.seed}",
        ]


@st.composite
def plans(draw: st.DrawFn, *, figures: bool = False, stops: bool = False) -> Plan:
    steps = draw(st.integers(4, 9))
    return Plan(
        steps=steps,
        evaluate=draw(st.integers(1, 4)),
        checkpoint=draw(st.integers(1, 4)),
        keep=draw(st.integers(1, 3)),
        seed=draw(st.integers(0, 2**40)),
        figures=draw(st.integers(2, 4)) if figures else None,
        stop=draw(st.integers(2, steps - 1)) if stops else None,
    )


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    (folder / "text.txt").write_text("the cat sat on the mat, and the dog sat on the cat. " * 40)
    return folder


class Desk:
    """A record root in which plans are run."""

    def __init__(self, root: Path, text: Path) -> None:
        self.root, self._data = root, [f"data.path={text}/text.txt", f"data.cache={text}/cache"]

    def run(self, plan: Plan, *, interrupted: bool = False, resume: Path | None = None) -> Trained:
        overrides = [*self._data, *plan.overrides(interrupted=interrupted)]
        return train(load("wave-tiny", overrides), root=self.root, resume=resume)

    def finished(self, plan: Plan) -> RunRecord:
        """The plan's run; interrupted and resumed when the plan says so."""
        done = self.run(plan, interrupted=plan.stop is not None)
        if done.status == "interrupted":
            done = self.run(plan, resume=done.run_dir)
        assert done.run_dir is not None
        assert done.status == "finished"
        return RunRecord(done.run_dir)

    def interrupted(self, plan: Plan) -> RunRecord:
        done = self.run(plan, interrupted=True)
        assert done.run_dir is not None
        assert done.status == "interrupted"
        return RunRecord(done.run_dir)


@pytest.fixture
def desks(text: Path) -> Iterator[Any]:
    """A new desk for each example of a Hypothesis test."""

    @contextmanager
    def desk() -> Iterator[Desk]:
        root = Path(tempfile.mkdtemp())
        try:
            yield Desk(root, text)
        finally:
            shutil.rmtree(root)

    return desk


def figures_of(record: RunRecord) -> set[str]:
    return {path.name for path in (record.run_dir / "figures").glob("*.svg")}


def test_every_property_has_its_test() -> None:
    numbers = [int(n) for n in re.findall(r"^def test_property_(\d\d)_", HERE, flags=re.M)]
    assert numbers == list(range(1, COUNT + 1))


# ---- checkpoints -------------------------------------------------------------------------------


@real_runs
@given(plan=plans())
def test_property_01_every_reached_checkpoint_holds_model_optimizer_step_and_config(
    plan: Plan, desks: Any
) -> None:
    with desks() as desk:
        record = desk.finished(Plan(**{**vars(plan), "keep": 20}))
        reached = {n for n in range(1, plan.steps + 1) if n % plan.checkpoint == 0} | {plan.steps}
        assert set(record.checkpoints()) == reached
        for step in reached:
            manifest = json.loads((step_dir(record.run_dir, step) / "manifest.json").read_text())
            assert {"model", "optimizer", "wave_ratio", "progress"} <= manifest["parts"].keys()
            assert manifest["step"] == step
            # Settings are in config.json; the checkpoint says by its hash which ones it belongs to.
            assert manifest["about"]["identity"] == record.identity
        assert record.config["train"]["steps"] == plan.steps


@real_runs
@given(plan=plans(stops=True))
def test_property_02_the_first_loss_after_a_resume_is_the_uninterrupted_one(
    plan: Plan, desks: Any
) -> None:
    with desks() as desk:
        whole = desk.finished(Plan(**{**vars(plan), "stop": None}))
        resumed = desk.finished(plan)
        assert len(resumed.sessions) == 2
        losses = [[row["loss"] for row in record.history(["loss"])] for record in (whole, resumed)]
        assert losses[0] == losses[1]


@real_runs
@given(first=plans(), second=plans())
def test_property_03_two_runs_never_share_a_checkpoint(
    first: Plan, second: Plan, desks: Any
) -> None:
    with desks() as desk:
        runs = [desk.finished(plan) for plan in (first, second)]
        paths = [{step_dir(r.run_dir, step) for step in r.checkpoints()} for r in runs]
        assert all(paths)
        assert not paths[0] & paths[1]


@real_runs
@given(plan=plans())
def test_property_04_only_the_newest_checkpoints_stay(plan: Plan, desks: Any) -> None:
    with desks() as desk:
        record = desk.finished(plan)
        reached = {n for n in range(1, plan.steps + 1) if n % plan.checkpoint == 0} | {plan.steps}
        assert record.checkpoints() == sorted(reached)[-plan.keep :]


# ---- logs --------------------------------------------------------------------------------------

metrics = st.dictionaries(
    st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=8).filter(
        lambda name: not name.startswith("_")
    ),
    st.floats(allow_nan=False, allow_infinity=False),
    max_size=5,
)


def opened(root: Path) -> Session:
    return Session.start(root=root, project="p", name="n", config={}, identity="i")


@settings(max_examples=10, deadline=None)
@given(rows=st.lists(metrics, min_size=1, max_size=6))
def test_property_05_an_entry_is_on_disk_when_log_returns(rows: list[dict[str, float]]) -> None:
    root = Path(tempfile.mkdtemp())
    session = opened(root)
    try:
        path = session.dir / "metrics.r0.000.jsonl"
        for step, row in enumerate(rows):
            session.log(row, step=step)
            line = json.loads(path.read_bytes().splitlines()[-1])
            assert (line.pop("_step"), line.pop("_t") > 0) == (step, True)
            assert line == row
    finally:
        session.finish("finished")
        shutil.rmtree(root)


@real_runs
@given(plan=plans(stops=True))
def test_property_06_all_logged_steps_survive_an_interruption(plan: Plan, desks: Any) -> None:
    with desks() as desk:
        record = desk.interrupted(plan)
        steps = [row["_step"] for row in record.history(["loss"])]
        assert steps == list(range(1, (plan.stop or 0) + 1))
        desk.run(plan, resume=record.run_dir)
        after = [row["_step"] for row in record.history(["loss"])]
        assert after == list(range(1, plan.steps + 1))


@real_runs
@given(plan=plans())
def test_property_07_every_line_is_json_with_step_and_time_and_every_step_has_its_loss(
    plan: Plan, desks: Any
) -> None:
    with desks() as desk:
        record = desk.finished(plan)
        (path,) = record.sessions[0].dir.glob("metrics.*.jsonl")
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert all(isinstance(line["_step"], int) and line["_t"] > 1.7e9 for line in lines)
        assert {line["_step"] for line in lines if "loss" in line} == set(range(1, plan.steps + 1))


@real_runs
@given(plan=plans())
def test_property_08_entries_hold_the_rate_and_what_is_the_models_own(
    plan: Plan, desks: Any
) -> None:
    with desks() as desk:
        own = {"loss", "lr", "wave_ratio", "loss/cross_entropy", "loss/coherence"}
        rows = [row for row in desk.finished(plan).history() if "loss" in row]
        assert len(rows) == plan.steps
        assert all(own <= row.keys() for row in rows)


# ---- figures -----------------------------------------------------------------------------------


@real_runs
@given(plan=plans(figures=True))
def test_property_09_figures_exist_at_multiples_of_the_interval(plan: Plan, desks: Any) -> None:
    with desks() as desk:
        names = figures_of(desk.finished(plan))
        due = {n for n in range(1, plan.steps) if n % (plan.figures or 1) == 0} | {plan.steps}
        for step in due:
            assert f"training-curves_step-{step:09d}.light.svg" in names


@real_runs
@given(plan=plans(figures=True))
def test_property_10_a_figures_name_carries_its_step(plan: Plan, desks: Any) -> None:
    with desks() as desk:
        record = desk.finished(replace(plan, figures=plan.steps - 1))
        for path in (record.run_dir / "figures").iterdir():
            found = re.search(r"_step-(\d{9})\.", path.name)
            assert found is not None, path
            assert 1 <= int(found[1]) <= plan.steps


@real_runs
@given(plan=plans(figures=True, stops=True))
def test_property_11_figures_survive_an_interruption(plan: Plan, desks: Any) -> None:
    with desks() as desk:
        record = desk.interrupted(plan)
        before = {p: p.read_bytes() for p in (record.run_dir / "figures").glob("*")}
        desk.run(plan, resume=record.run_dir)
        # A step that is drawn anew after the resume is drawn from the same numbers.
        assert {p for p in before if not p.exists()} == set()
        assert figures_of(record) >= {path.name for path in before if path.suffix == ".svg"}


@real_runs
@given(plan=plans(figures=True))
def test_property_12_dynamics_and_internals_are_both_drawn(plan: Plan, desks: Any) -> None:
    with desks() as desk:
        names = figures_of(desk.finished(replace(plan, figures=plan.steps)))
        last = f"_step-{plan.steps:09d}.light.svg"
        assert {f"training-curves{last}", f"spectra{last}"} <= names


@real_runs
@given(plan=plans(figures=True))
def test_property_13_no_two_runs_share_a_figure(plan: Plan, desks: Any) -> None:
    with desks() as desk:
        once = replace(plan, figures=plan.steps)  # each drawing costs a second
        runs = [desk.finished(once) for _ in range(2)]
        paths = [set((run.run_dir / "figures").iterdir()) for run in runs]
        assert all(paths)
        assert not paths[0] & paths[1]


# ---- what is known about a run -----------------------------------------------------------------


@real_runs
@given(plan=plans(), rate=st.floats(1e-5, 1e-2), strength=st.floats(0, 1))
def test_property_14_the_configuration_is_complete(
    plan: Plan, rate: float, strength: float, desks: Any
) -> None:
    with desks() as desk:
        other = [f"train.optimizer.lr={rate!r}", f"train.optimizer.strength={strength!r}"]
        record = desk.finished(Plan(**{**vars(plan), "other": other}))
        optimizer = record.config["train"]["optimizer"]
        assert (optimizer["lr"], optimizer["strength"]) == (rate, strength)
        # It is enough to make the same recipe again, without the file that it came from.
        from cupel.config import from_config

        again = from_config(record.config, where="config.json")
        assert again.identity() == record.identity


@real_runs
@given(plan=plans())
def test_property_15_commit_time_and_hardware_are_recorded(plan: Plan, desks: Any) -> None:
    with desks() as desk:
        began = time.time()
        record = desk.finished(plan)
        environment = record.sessions[0].environment
        assert {"git", "python", "packages", "cpu", "gpus", "torch"} <= environment.keys()
        assert began - 1 <= record.created <= time.time()
        assert environment["cpu"]["count"] >= 1


@real_runs
@given(plan=plans())
def test_property_16_results_are_complete(plan: Plan, desks: Any) -> None:
    with desks() as desk:
        record = desk.finished(plan)
        results = record.results or {}
        assert results["step"] == plan.steps
        losses = {row["_step"]: row["val_loss"] for row in record.history(["val_loss"])}
        assert results["final"]["val_loss"] == losses[plan.steps]
        assert results["best"]["val_loss"] == min(losses.values())
        assert results["totals"]["tokens"] == plan.steps * 2 * 4
        assert results["totals"]["flops"] > 0
        assert len(results["samples"]) == 1


@real_runs
@given(plan=plans(stops=True))
def test_property_17_results_are_json_of_one_schema(plan: Plan, desks: Any) -> None:
    with desks() as desk:
        runs = [desk.finished(plan), desk.finished(Plan(**{**vars(plan), "stop": None}))]
        found = [json.loads((run.run_dir / "results.json").read_text()) for run in runs]
        assert found[0].keys() == found[1].keys()
        assert {one["schema"] for one in found} == {1}


numbers = st.floats(allow_nan=True) | st.none() | st.text(max_size=3)
results = st.fixed_dictionaries(
    {}, optional={"step": numbers, "final": st.dictionaries(st.just("val_loss"), numbers)}
)


@settings(max_examples=15, deadline=None)
@given(every=st.lists(st.none() | results, min_size=1, max_size=3))
def test_property_18_a_table_can_be_made_of_any_set_of_results(every: list[Any]) -> None:
    root = Path(tempfile.mkdtemp())
    try:
        for one in every:
            opened(root).finish("failed" if one is None else "finished", results=one)
        rows = table(root)
        assert len(rows) == len(every)
        assert len({tuple(row) for row in rows}) == 1
    finally:
        shutil.rmtree(root)
