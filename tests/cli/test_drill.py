"""Drills on scripts that are good, and on scripts that give them nothing to prove."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cupel.cli.drill import Drill, Verdict, kill_after, resumed_like, verify_monitors, verify_resume
from cupel.errors import CupelError, RecipeError, UsageError

pytestmark = pytest.mark.slow

# A counter whose loss is a function of its state. No torch: a process costs a quarter second.
COUNTS = """
import json, os, sys, time
from pathlib import Path
from cupel.record.reader import find_unfinished
from cupel.record.session import Session

forget, begin_anew = "forget" in sys.argv, "begin_anew" in sys.argv
root = os.environ["CUPEL_ROOT"]
found = None if begin_anew else find_unfinished(root, "p", "i")
if found:
    session = Session.resume(found.run_dir)
else:
    session = Session.start(root=root, project="p", name="r", config={}, identity="i")
state = session.run_dir / "state.json"
step, total = json.loads(state.read_text()) if state.exists() else (0, 0)
total = 0 if forget else total
session.begin_at(step)
while step < 40:
    step += 1
    total += step
    session.log({"loss": 1 / total}, step=step)
    if step % 5 == 0 and "never_save" not in sys.argv:
        state.with_suffix(".new").write_text(json.dumps([step, total]))
        state.with_suffix(".new").rename(state)
        session.event("checkpoint_saved", step=step)
    time.sleep(0.01)
session.finish("finished", results={"state": {"total": str(total)}})
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "counts.py"
    path.write_text(COUNTS)
    return path


def resumed(script: Path, *arguments: str, kill_at: int | None = None) -> Verdict:
    with Drill.prepare(str(script), arguments, steps=40, keep=None) as drill:
        return verify_resume(drill, kill_at=kill_at)


def test_an_exact_script_passes_at_a_random_step(script: Path) -> None:
    verdict = resumed(script)
    assert verdict.equal, verdict.lines
    assert verdict.lines[-1] == "resume is exact"
    assert 5 <= verdict.facts["resumed_from"] <= verdict.facts["killed_at"] < 40
    assert verdict.facts["parts"] == ["total"]


def test_a_script_that_forgets_its_state_is_caught_at_the_first_step(script: Path) -> None:
    verdict = resumed(script, "forget", kill_at=12)
    assert not verdict.equal
    went_on = verdict.facts["resumed_from"]
    assert verdict.facts["first_difference"][:2] == (went_on + 1, "loss")
    assert verdict.facts["different_parts"] == ["total"]
    assert any(f"FIRST DIFFERENCE at step {went_on + 1}" in line for line in verdict.lines)
    assert verdict.lines[-1] == "resume is NOT exact"


def test_a_run_without_a_checkpoint_to_go_on_from_is_refused(script: Path) -> None:
    with pytest.raises(UsageError, match="saves no checkpoint before step 39 of 40"):
        resumed(script, "never_save")


def test_a_kill_before_the_first_checkpoint_proves_nothing(script: Path, tmp_path: Path) -> None:
    """Training that merely repeats itself is not called an exact resume."""
    with Drill.prepare(str(script), ["never_save"], steps=40, keep=tmp_path) as drill:
        undisturbed = drill.finish("undisturbed", drill.start("undisturbed"))
        verdict = resumed_like(drill, undisturbed, killed_at=kill_after(drill, after=12))
    assert verdict.facts["first_difference"] is None
    assert not verdict.equal
    assert any(line.startswith("NOTHING RESTORED") for line in verdict.lines)


def test_a_script_that_begins_anew_is_told_how_to_go_on(script: Path) -> None:
    with pytest.raises(UsageError, match="left 2 runs in its record, not 1"):
        resumed(script, "begin_anew", kill_at=12)


@pytest.mark.parametrize("kill_at", [5, 40])
def test_a_kill_before_the_first_checkpoint_or_after_the_end_is_refused(
    kill_at: int, script: Path
) -> None:
    told = rf"--kill-at {kill_at}: .* first checkpoint \(5\) and before the last step \(40\)"
    with pytest.raises(UsageError, match=told):
        resumed(script, kill_at=kill_at)


def test_a_script_that_fails_is_shown_with_its_last_line(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("print('so far'); raise SystemExit('no such thing')")
    with pytest.raises(CupelError, match="undisturbed run ended with exit code 1: no such thing"):
        resumed(tmp_path / "bad.py")


def test_a_run_that_ends_before_it_is_killed_is_no_proof(tmp_path: Path, script: Path) -> None:
    (tmp_path / "fast").mkdir()
    fast = COUNTS.replace("time.sleep(0.01)", "pass")
    script.write_text(fast)
    with Drill.prepare(str(script), (), steps=40, keep=tmp_path / "fast") as drill:
        undisturbed = drill.finish("undisturbed", drill.start("undisturbed"))
        drill.finish("killed", drill.start("killed"))  # nobody killed it
        with pytest.raises(UsageError, match="left 2 runs"):
            resumed_like(drill, undisturbed, killed_at=12)


def test_mistakes_in_a_recipe_are_told_before_anything_runs() -> None:
    with (
        pytest.raises(RecipeError, match="layerz"),
        Drill.prepare("gpt-tiny", ["model.layerz=1"], steps=8, keep=None),
    ):
        pass
    with (
        pytest.raises(UsageError, match=r"no script at nothing\.py"),
        Drill.prepare("nothing.py", (), steps=8, keep=None),
    ):
        pass


def test_a_recipe_is_cut_short_except_where_told_otherwise(tmp_path: Path) -> None:
    given = ["train.evaluate_every=3"]
    with Drill.prepare("gpt-tiny", given, steps=16, keep=tmp_path) as drill:
        assert drill.command[:5] == [sys.executable, "-m", "cupel", "run", "gpt-tiny"]
        settings = drill.command[5:]
    assert "train.steps=16" in settings
    assert "checkpoint.every=3" in settings
    assert [s for s in settings if s.startswith("train.evaluate_every")] == given


MONITORED = """
import os, sys
from cupel.record.session import Session

on = os.environ.get("CUPEL_MONITORS") != "off"
disturb, never, fails = (word in sys.argv for word in ("disturb", "never", "fails"))
session = Session.start(
    root=os.environ["CUPEL_ROOT"], project="p", name="r", config={}, identity="i"
)
session.begin_at(0)
for step in range(1, 5):
    loss = 1 / step + (1e-16 if on and disturb and step == 3 else 0)
    session.log({"loss": loss, **({"norm": 2.0} if on else {})}, step=step)
calls = 0 if never else 4
cost = {"calls": calls, "failures": calls if fails else 0, "wall_s": 0.1, "cpu_s": 0.1}
results = {"state": {"model": "a"}, "monitors": {"norms": cost} if on else {}}
session.finish("finished", results=results)
"""


def watched(path: Path, *arguments: str) -> Verdict:
    path.write_text(MONITORED)
    with Drill.prepare(str(path), arguments, steps=4, keep=None) as drill:
        return verify_monitors(drill)


def test_monitors_that_only_look_pass_with_their_cost(tmp_path: Path) -> None:
    verdict = watched(tmp_path / "script.py")
    assert verdict.equal, verdict.lines
    assert verdict.facts["numbers"] == 4, "what only monitors write is left out"
    assert "norms: 4 calls, 25.00 CPU ms each" in verdict.lines


def test_a_monitor_that_disturbs_is_caught(tmp_path: Path) -> None:
    verdict = watched(tmp_path / "script.py", "disturb")
    assert not verdict.equal
    assert verdict.facts["first_difference"][:2] == (3, "loss")
    assert verdict.lines[-1] == "monitors DISTURB the training"


@pytest.mark.parametrize("how", ["never", "fails"])
def test_a_monitor_that_was_never_called_or_always_failed_proves_nothing(
    how: str, tmp_path: Path
) -> None:
    verdict = watched(tmp_path / "script.py", how)
    assert not verdict.equal
    assert verdict.lines[-2:] == [
        "NEVER MEASURED: norms; nothing is proven of it",
        "not every monitor is proven harmless",
    ]


SAVES_ONCE_BY_HAND = """
import time
import cupel, torch
torch.manual_seed(1)
weight = torch.nn.Linear(2, 1)
with cupel.init("p", "n", resume="auto", settings={"console": False}) as run:
    run.register(weight=weight)
    start = run.load_checkpoint()
    for step in range(start + 1, 61):
        run.log({"loss": 1 / step}, step=step)
        if step == 5:
            run.save_checkpoint()
        time.sleep(0.05)
"""


def test_a_checkpoint_that_a_script_saves_once_by_hand_is_seen(tmp_path: Path) -> None:
    """Its event comes only with the script's end, when there is nothing left to kill."""
    path = tmp_path / "by_hand.py"
    path.write_text(SAVES_ONCE_BY_HAND)
    verdict = resumed(path, kill_at=12)
    assert verdict.equal, verdict.lines
    assert verdict.facts["resumed_from"] == 5
