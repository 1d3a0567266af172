"""`cupel study plan` as typed: everything that is worth knowing before the first run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cupel.cli.main import main
from cupel.record.session import Session
from cupel.studies.manifest import Manifest, freeze
from cupel.studies.spec import plan_study

RECIPE = """\
about: A network that learns a sine
workload: fakes:Regression
train: {steps: 40, evaluate_every: 10, optimizer: {kind: adamw, lr: 1e-2}}
study:
  question: Does dropout help?
  arms: {plain: {}, drop: {dropout: 0.5}}
  seeds: [1, 2]
"""


@pytest.fixture
def typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Typed:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUPEL_ROOT", str(tmp_path / "runs"))
    (tmp_path / "sine.yaml").write_text(RECIPE)
    return Typed(tmp_path, capsys)


class Typed:
    """Types `cupel study plan sine.yaml …` in this process."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.root, self._capsys = folder, folder / "runs", capsys
        self.recipe = folder / "sine.yaml"

    def __call__(self, *words: str, code: int = 0) -> list[str]:
        with pytest.raises(SystemExit) as end:
            main(["study", "plan", "sine.yaml", *words])
        told = self._capsys.readouterr()
        assert (end.value.code or 0) == code, told.err
        return (told.err if code else told.out).splitlines()


def accept(manifest: Manifest) -> None:
    """The record of the first run, accepted after 40 steps of half a second."""
    run = manifest.runs[0]
    session = Session.start(
        root=manifest.root, project=manifest.project, name=manifest.name,
        config=manifest.config_of(run), identity=run.identity, run_id=run.run_id,
    )  # fmt: skip
    session.begin_at(0)
    session.log({"val_loss": 1.0}, step=40)
    last = {"steps": 40, "wall_s": 20.0, "cpu_s": 1.0}
    session.finish("finished", results={"step": 40, "final": {}, "last_session": last})


def line(lines: list[str], begins: str) -> str:
    (found,) = (one for one in lines if one.startswith(begins))
    return found


def test_a_small_plan_lists_every_run_and_what_each_cell_sets(typed: Typed) -> None:
    lines = typed()
    assert "plain  –      dropout=0.0" not in lines  # an arm that sets nothing
    assert "plain  –      nothing" in lines
    assert "drop   –      dropout=0.5" in lines
    assert sum(one.startswith("sine-") for one in lines) == 4
    assert "4 runs: 2 cells × 2 seeds; 2 at a time, CPU threads each: 1" in lines
    assert "decides  1 comparison by t intervals at 95 % of 2 pairs; nothing is tested" in lines
    assert not typed.root.exists()


def test_more_than_thirty_runs_are_summed_up_by_arm_and_point_with_priorities_and_tags(
    typed: Typed,
) -> None:
    many = ["study.seeds=[1,2,3,4,5,6,7,8,9]", "study.grid.batch=[4,8]"]
    rule = "study.priorities=[{where: 'batch=8', add: 50}]"
    lines = typed(*many, rule, "--tags", "night")
    assert not any(one.startswith("sine-") for one in lines)
    head = line(lines, "arm    point    runs").split()
    assert head == ["arm", "point", "runs", "seeds", "priority", "tags"]
    assert ["plain", "batch=8", "9", "9", "150", "night"] in [one.split() for one in lines]
    assert "36 runs: 4 cells × 9 seeds; 2 at a time, CPU threads each: 1" in lines


def test_more_than_thirty_cells_are_summed_up_by_arm(typed: Typed) -> None:
    lines = typed("study.random={draws: 40, space: {train.optimizer.lr: {low: 0.1, high: 0.5}}}")
    assert ["plain", "40", "80", "2", "100", "–"] in [one.split() for one in lines]
    assert "… and 50 more cells; --json has them all" in lines
    assert len(lines) < 60


@pytest.mark.slow
def test_time_and_disk_are_unknown_without_a_run_and_else_of_the_earlier_ones(
    typed: Typed,
) -> None:
    assert line(typed(), "time") == (
        "time     unknown for plain, drop: no such run is in the record root yet; run one, or "
        "cupel jobs probe tells"
    )
    manifest = freeze(plan_study(typed.recipe, root=typed.root))
    accept(manifest)
    told = line(typed(), "time")
    assert told.startswith("time     about 0:40 of 3 runs that are left, 2 at a time, by 1 earlier")
    assert "plain 500 ms a step" in told
    assert "are free" in line(typed(), "disk")


def test_a_disk_that_is_too_small_is_told(typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    manifest = freeze(plan_study(typed.recipe, root=typed.root))
    accept(manifest)
    full = shutil.disk_usage(typed.root)._replace(free=10)
    monkeypatch.setattr("shutil.disk_usage", lambda path: full)
    assert "10 B are free: too little; lower checkpoint.keep_last" in line(typed(), "disk")


def test_resources_are_shown_when_something_is_said_of_them(typed: Typed) -> None:
    assert not any(one.startswith("given") for one in typed())
    lines = typed("study.resources={gpus: 0.25, memory_mb: 900}")
    assert line(lines, "given") == "given    gpus 0.25, memory_mb 900"


def test_tests_that_cannot_reject_are_refused_in_one_line(typed: Typed) -> None:
    (told,) = typed("study.compare.kind=exact", code=2)
    assert "1 exact paired test of 2 pairs cannot reject" in told
    assert "6 seeds can, type study.seeds=[1, 2, 3, 4, 5, 6]" in told


def test_what_comes_next_has_every_option_that_was_typed(typed: Typed) -> None:
    lines = typed("train.steps=50", "--param", "batch=4,8", "--arm", "plain", "--tags", "a b")
    assert lines[-1].endswith(
        "study run sine.yaml train.steps=50 --param batch=4,8 --arm plain --tags 'a b'"
    )


def test_a_search_says_what_it_will_ask_for_and_needs_no_optuna(typed: Typed) -> None:
    lines = typed(
        "study.search={trials: 9, at_once: 3, space: {train.optimizer.lr: {low: 0.1, high: 0.5}}}"
    )
    assert "searched by tpe, seed 0: 9 points, 3 at once, each for all arms and seeds" in lines
    assert (
        "9 points × 2 arms × 2 seeds, asked for as results come; 2 at a time, CPU threads each: 1"
        in lines
    )


def test_json_has_cells_runs_estimate_and_power(typed: Typed) -> None:
    plan = json.loads("\n".join(typed("--json")))
    assert len(plan["cells"]) == 2
    assert len(plan["runs"]) == 4
    assert plan["estimate"]["unknown"] == ["plain", "drop"]
    assert plan["power"]["statement"].startswith("1 comparison by t intervals")
    assert plan["power"]["pairs"] == [2]
