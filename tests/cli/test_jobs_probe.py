"""`cupel jobs probe` measures real trainings, and leaves nothing but its numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from ruamel.yaml import YAML

from cupel.cli.jobs_probe import (
    Probed,
    Variant,
    gpu_mb,
    lines_to_paste,
    probe,
    probed,
    probes_path,
    resources_of,
    stored,
    variants,
)
from cupel.errors import JobsError, UsageError
from cupel.jobs.packing import Gpu, Ledger, Measure
from cupel.record.session import Session
from cupel.studies.settings import StudySettings

ONE = """\
workload: fakes:Regression
train: {steps: 600, evaluate_every: 10, threads: 1, optimizer: {kind: adamw, lr: 1e-2}}
checkpoint: {every: 10}
"""
STUDY = """\
study:
  question: Does dropout help?
  arms: {plain: {}, wide: {batch: 32}}
  grid: {train.optimizer.lr: [0.01, 0.02]}
  seeds: [1, 2]
"""
HUNGRY = """\
from fakes import Regression
import torch

class Hungry(Regression):
    def loss(self, batch):
        self.calls = getattr(self, "calls", 0) + 1
        if self.calls == 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().loss(batch)
"""


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUPEL_ROOT", str(tmp_path / "runs"))
    (tmp_path / "one.yaml").write_text(ONE)
    (tmp_path / "study.yaml").write_text(ONE + STUDY)
    return tmp_path


def type_probe(*words: str) -> None:
    app = typer.Typer()
    app.command()(probe)
    app(list(words), standalone_mode=False)


@pytest.mark.slow
def test_each_arm_of_a_study_is_trained_by_one_and_by_two_and_nothing_else_is_left(
    desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    type_probe("study.yaml", "--workers", "1,2", "--steps", "6", "--json")
    told = json.loads(capsys.readouterr().out)
    assert [one["variant"] for one in told["variants"]] == ["plain", "wide"]
    for one in told["variants"]:
        assert [each["workers"] for each in one["measures"]] == [1, 2]
        assert one["steps"] == 600
        for each in one["measures"]:
            assert each["steps_per_s_each"] > 0
            assert 50 < each["peak_mb_each"] < 5000  # a process with PyTorch in it
            assert not each["oom"]
        assert one["recommended"]["workers"] in (1, 2)
        assert one["resources"]["cpus"] == 1
    left = [path for path in (desk / "runs").rglob("*") if path.is_file()]
    assert left == [probes_path(desk / "runs")]
    known = stored(desk / "runs")
    assert {one["variant"] for one in known.values()} == {"plain", "wide"}
    assert all("cores" in key for key in known)


@pytest.mark.slow
def test_one_run_is_probed_like_an_arm_and_what_to_write_down_is_a_study_section(
    desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    type_probe("one.yaml", "--workers", "1", "--steps", "4")
    told = capsys.readouterr().out
    assert told.startswith("one: 600 steps a run; ")
    pasted = YAML(typ="safe").load(told[told.index("study:") :])["study"]
    settings = StudySettings(question="?", arms={"a": {}}, **pasted)
    assert settings.workers == 1
    assert settings.resources.memory_mb is not None
    assert settings.resources.memory_mb > 50
    type_probe("one.yaml", "--workers", "1", "--steps", "4")
    assert len(stored(desk / "runs")) == 1  # measured anew, not twice


@pytest.mark.slow
def test_a_training_that_runs_out_of_memory_ends_the_probe_of_its_arm_with_that_result(
    desk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (desk / "hungry.py").write_text(HUNGRY)
    monkeypatch.syspath_prepend(str(desk))
    (desk / "hungry.yaml").write_text(ONE.replace("fakes:Regression", "hungry:Hungry"))
    type_probe("hungry.yaml", "--workers", "1,2", "--steps", "20")
    told = capsys.readouterr().out
    assert "out of memory" in told
    assert "→ 0 at a time: 1 worker ran out of memory" in told
    assert "Nothing to write down: not even the fewest workers fit for hungry" in told
    (known,) = stored(desk / "runs").values()
    assert [one["oom"] for one in known["measures"]] == [True]  # two were not tried


@pytest.mark.slow
def test_a_training_that_breaks_is_told_in_one_line(desk: Path) -> None:
    (desk / "breaking.yaml").write_text(ONE.replace("Regression", "Breaking"))
    with pytest.raises(JobsError) as error:
        type_probe("breaking.yaml", "--workers", "1")
    assert str(error.value) == (
        "a training of the probe ended by itself: RuntimeError: the third step breaks"
    )
    assert not (desk / "runs").exists()


@pytest.mark.parametrize("text", ["", "0", "two", "1,,2", "-1"])
def test_numbers_of_workers_that_are_none_are_refused(desk: Path, text: str) -> None:
    with pytest.raises(UsageError, match="give numbers from 1 on, as --workers 1,2,3,4"):
        type_probe("one.yaml", "--workers", text)


def test_a_search_is_probed_at_the_middle_of_its_space(desk: Path) -> None:
    space = "study.search={trials: 5, space: {dropout: {low: 0.0, high: 0.5}}}"
    found = variants("study.yaml", [space], desk / "runs")
    assert [one.name for one in found] == ["plain", "wide"]
    assert [one.config["dropout"] for one in found] == [0.25, 0.25]


# ---- what is recommended -----------------------------------------------------------------------


def of(*totals: float, name: str = "a", gpu: bool = False, mb: float = 1000.0) -> Probed:
    """Probed with these throughputs of one worker, two, …"""
    config: dict[str, Any] = {"workload": "w", "train": {"threads": 2, "steps": 600}}
    measures = [Measure(n, total / n, mb) for n, total in enumerate(totals, 1)]
    ledger = Ledger(8, 64_000, [Gpu(0, "A GPU", 8_000)] if gpu else [])
    return probed(Variant(name, config, 600, gpu), measures, ledger)


def test_workers_that_suit_every_arm_and_the_largest_needs_are_written_down() -> None:
    found = [of(10, 19, 27), of(10, 15, 15.1, name="b", mb=2000)]
    assert [one.recommended.workers for one in found] == [3, 2]
    assert lines_to_paste(found)[1:] == [
        "study:",
        "  workers: 2",
        "  resources: {cpus: 2, memory_mb: 2500}",
    ]


def test_on_a_gpu_its_memory_limits_and_each_run_gets_a_part_of_it() -> None:
    one = of(10, 19, 28, 36, gpu=True, mb=2000)
    assert one.device == "A GPU"
    assert one.recommended.workers == 3  # four need 8000 MB, of which a tenth is kept free
    assert resources_of(one) == {"cpus": 2, "gpus": 0.3333, "gpu_memory_mb": 2500}


def test_memory_of_a_gpu_is_what_the_runs_saw_in_use_shared_evenly(tmp_path: Path) -> None:
    folders = []
    for number, lines in enumerate(("", '{"gpu.0.memory": 4194304000, "gpu.1.memory": 5}\n{"gp')):
        session = Session.start(
            root=tmp_path, project="p", name="n", config={}, identity="i", run_id=f"r{number}"
        )
        session.begin_at(0)
        session.finish("finished", results={})
        folders.append(tmp_path / "p" / f"r{number}")
        system = folders[-1] / "sessions/0001/system.r0.000.jsonl"
        system.write_text(lines)
    assert gpu_mb(folders) == 2000
    with pytest.raises(JobsError, match="give more --steps"):
        gpu_mb(folders[:1])


def test_a_probe_holds_for_a_shape_and_a_device() -> None:
    here, other = of(10), of(10, name="b")
    assert here.key == other.key
    assert here.key != of(10, gpu=True).key


def test_what_was_stored_and_cannot_be_read_is_measured_anew(tmp_path: Path) -> None:
    assert stored(tmp_path) == {}
    probes_path(tmp_path).parent.mkdir()
    probes_path(tmp_path).write_text("{")
    assert stored(tmp_path) == {}
    probes_path(tmp_path).write_text('{"probes": []}')
    assert stored(tmp_path) == {}
