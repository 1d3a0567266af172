"""Wave models resume bit for bit, with all that RGD, QFE and the wave ratio remember."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from cupel.cli.drill import Drill, Verdict, kill_after, resumed_like
from cupel.cli.main import main

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
STEPS = 24
SMALL = [
    *("data.batch=4", "data.val_batches=2", "data.val_batch=4", "sample.tokens=4"),
    *("model.layers=2", "model.width=32", "model.heads=2", "model.block=16", "model.dropout=0.1"),
    *("model.waves=8", "model.harmonics=2"),
    *("train.accumulate=2", "train.evaluate_every=4", "train.log_every=1"),
    *("train.threads=1", "train.device=cpu", "checkpoint.every=5", "checkpoint.best=null"),
    "figures.formats=[]",
]
SLOWED = "monitors.fakes:Slow.every=1"
PLAIN = ["objective={kind: cross_entropy}", "train.optimizer={kind: adamw}", "train.ema=null"]
# The strength grows for longer than the run lasts, so that every update has another one.
FULL = ["objective.projection=16", "train.optimizer.warmup=100", "train.ema=0.9"]
PHYSICS = [
    *("model.embedding=physics", "model.harmonics=4", "model.attention=physics"),
    *("model.mlp=sine", "model.ratio=decay", "model.ratio_steps=20"),
    "objective={kind: coherence}",
    *("train.optimizer={kind: wave_native, lr: 1e-2, every: 7}", "train.ema=null"),
]
VARIANTS = {
    "wave": PLAIN,
    "wave+RGD+QFE+EMA": FULL,
    "pure linear": [*PLAIN, "model.attention=pure", "model.pure.form=linear"],
    "physics-first": PHYSICS,
}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("data")
    (folder / "text.txt").write_text("the cat sat on the mat, and the dog sat on the cat. " * 100)
    return [f"data.path={folder}/text.txt", f"data.cache={folder}/cache", *SMALL]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_killed_wave_run_is_resumed_with_equal_bits(
    variant: str, settings: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    given = [*settings, *VARIANTS[variant], SLOWED, "--steps", str(STEPS), "--kill-at", "13"]
    with pytest.raises(SystemExit) as left:
        main(["verify", "resume", "wave-tiny", *given, "--json"])
    verdict = json.loads(capsys.readouterr().out)
    assert (left.value.code, verdict["equal"]) == (0, True), verdict["lines"]
    parts = {"model", "optimizer", "schedule", "progress", "wave_ratio"}
    parts |= {"ema", "objective"} if variant == "wave+RGD+QFE+EMA" else set()
    assert set(verdict["facts"]["parts"]) == parts


@pytest.fixture(scope="module")
def halves(settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Drill, Any, int]:
    """A run of everything, undisturbed, and another up to its kill."""
    drill = Drill(command("nothing", [*settings, SLOWED]), tmp_path_factory.mktemp("halves"), STEPS)
    record = drill.finish("undisturbed", drill.start("undisturbed"))
    return drill, record, kill_after(drill, after=13)


def command(part: str, settings: list[str], *, key: int = 7) -> list[str]:
    """A run that forgets a part, and whose projection is drawn from `key`."""
    given = [*settings, *FULL, f"train.steps={STEPS}"]
    return [sys.executable, str(HERE / "redrawn.py"), str(key), part, "run", "wave-tiny", *given]


def resumed(
    part: str, settings: list[str], halves: tuple[Drill, Any, int], folder: Path, *, key: int = 7
) -> Verdict:
    drill, undisturbed, killed_at = halves
    shutil.copytree(drill.folder / "killed", folder / "killed")
    again = Drill(command(part, settings, key=key), folder, STEPS)
    return resumed_like(again, undisturbed, killed_at=killed_at)


@pytest.mark.xdist_group("wave-halves")
@pytest.mark.parametrize("part", ["optimizer", "wave_ratio"])
def test_a_forgotten_counter_or_schedule_is_caught(
    part: str, settings: list[str], halves: tuple[Drill, Any, int], tmp_path: Path
) -> None:
    verdict = resumed(part, settings, halves, tmp_path)
    assert not verdict.equal, verdict.lines


@pytest.mark.xdist_group("wave-halves")
def test_only_rgds_counter_forgotten_is_caught(
    settings: list[str], halves: tuple[Drill, Any, int], tmp_path: Path
) -> None:
    verdict = resumed("optimizer:updates", settings, halves, tmp_path)
    assert not verdict.equal, verdict.lines
    assert "optimizer" in verdict.facts["different_parts"]


@pytest.mark.xdist_group("wave-halves")
def test_a_projection_drawn_anew_is_replaced_by_the_saved_one(
    settings: list[str], halves: tuple[Drill, Any, int], tmp_path: Path
) -> None:
    verdict = resumed("nothing", settings, halves, tmp_path, key=8)
    assert verdict.equal, verdict.lines


@pytest.mark.xdist_group("wave-halves")
def test_a_projection_drawn_anew_and_not_restored_is_caught(
    settings: list[str], halves: tuple[Drill, Any, int], tmp_path: Path
) -> None:
    verdict = resumed("objective", settings, halves, tmp_path, key=8)
    assert not verdict.equal, verdict.lines
    assert "objective" in verdict.facts["different_parts"]
