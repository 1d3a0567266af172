"""A search asks for cells by what the earlier ones came to, and remembers the records alone."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cupel.errors import MissingDependency, UsageError
from cupel.jobs.attempts import Attempt, write_attempt
from cupel.record.session import Session
from cupel.studies.manifest import Manifest, PlannedRun, freeze, load_manifest
from cupel.studies.search import advance, next_points, settled_values, trials_of
from cupel.studies.spec import plan_study
from plans import HEAD

BEST = 0.3  # of `dropout`: what the quadratic is lowest at
SEARCH = """\
  arms: {plain: {}}
  seeds: [1]
  search:
    trials: 8
    at_once: 3
    sampler: SAMPLER
    space:
      dropout: {low: 0.0, high: 0.9}
      train.optimizer.lr: {low: 1.0e-4, high: 1.0e-1, log: true}
"""
SAMPLERS = ["tpe", "random", "cmaes", "qmc", "gp"]


class Searching:
    """A study that searches, whose runs come to a quadratic of their settings."""

    def __init__(self, folder: Path, section: str = SEARCH, sampler: str = "tpe") -> None:
        self.path, self.root = folder / "sine.yaml", folder / "runs"
        self.path.write_text(HEAD + section.replace("SAMPLER", sampler))
        self.diverging: set[str] = set()

    def advance(self, manifest: Manifest | None, *overrides: str) -> Manifest | None:
        return advance(self.path, overrides, self.root, manifest)

    def begin(self, *overrides: str) -> Manifest:
        manifest = self.advance(None, *overrides)
        assert manifest is not None
        return manifest

    def train(self, manifest: Manifest) -> None:
        """What every run that is open comes to."""
        for run in manifest.runs:
            if not manifest.run_dir(run).exists():
                write(manifest, run, quadratic(manifest.config_of(run), run.seed))

    def whole(self, *overrides: str) -> Manifest:
        manifest = self.begin(*overrides)
        while True:
            self.train(manifest)
            wide = self.advance(manifest, *overrides)
            if wide is None:
                return manifest
            manifest = wide


def quadratic(config: Mapping[str, Any], seed: int) -> float:
    lr = math.log10(config["train"]["optimizer"]["lr"])
    return float((config["dropout"] - BEST) ** 2 + 0.01 * (lr + 2) ** 2 + 1e-4 * seed)


def write(manifest: Manifest, run: PlannedRun, value: float | None, *, error: str = "") -> None:
    """The record of one run, by the real writer; a value of None is a failure."""
    session = Session.start(
        root=manifest.root, project=manifest.project, name=manifest.name,
        config=manifest.config_of(run), identity=run.identity, run_id=run.run_id,
    )  # fmt: skip
    session.begin_at(0)
    if value is None:
        session.finish("failed", error=error)
        kind = "diverged" if "is nan" in error else "configuration"
        write_attempt(
            manifest.run_dir(run),
            Attempt(1, kind, error, signature=error, begun=True, ended=2.0, code=1),
        )
        return
    session.log({"val_loss": value}, step=40)
    session.finish("finished", results={"step": 40, "final": {"val_loss": value}})


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_search_asks_for_all_its_trials_each_of_them_new_and_in_its_space(
    tmp_path: Path, sampler: str
) -> None:
    found = Searching(tmp_path, sampler=sampler).whole()
    trials = trials_of(found)
    assert len(trials) == len({str(one) for one in trials}) == 8
    assert (len(found.cells), len(found.runs), found.parts) == (8, 8, 3)
    for one in trials:
        assert 0 <= one["dropout"] <= 0.9
        assert 1e-4 <= one["train.optimizer.lr"] <= 1e-1
    for cell, one in zip(found.cells, trials, strict=True):
        assert cell.config["dropout"] == one["dropout"]
        assert cell.config["train"]["optimizer"]["lr"] == one["train.optimizer.lr"]


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_history_gives_the_same_next_points_in_another_process(
    tmp_path: Path, sampler: str
) -> None:
    searching = Searching(tmp_path, sampler=sampler)
    manifest = searching.begin()
    for _ in range(2):
        searching.train(manifest)
        wide = searching.advance(manifest)
        assert wide is not None
        manifest = wide
    searching.train(manifest)
    finished = settled_values(manifest)
    assert finished is not None
    here = next_points(manifest, finished)
    assert next_points(manifest, finished) == here
    code = (
        "import sys; from pathlib import Path\n"
        "from cupel.studies.manifest import load_manifest\n"
        "from cupel.studies.search import next_points, settled_values\n"
        "manifest = load_manifest(Path(sys.argv[1]))\n"
        "print(next_points(manifest, settled_values(manifest)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(manifest.folder)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == str(here)


@pytest.mark.slow
def test_what_was_learned_brings_it_nearer_than_drawing_at_random(tmp_path: Path) -> None:
    late = {}
    for sampler in ("tpe", "random"):
        folder = tmp_path / sampler
        folder.mkdir()
        trials = trials_of(Searching(folder, sampler=sampler).whole("study.search.trials=24"))
        late[sampler] = sum(abs(one["dropout"] - BEST) for one in trials[12:]) / 12
    assert late["tpe"] < 0.6 * late["random"]


@pytest.mark.slow
def test_higher_is_better_is_searched_for_upwards(tmp_path: Path) -> None:
    searching = Searching(tmp_path)
    manifest = searching.begin()
    searching.train(manifest)
    finished = settled_values(manifest)
    assert finished is not None
    up = Searching(tmp_path).begin("study.primary.better=higher", "name=up")
    assert trials_of(up) == trials_of(manifest)  # nothing is known yet
    # With values turned round, the best of the one are the best of the other.
    turned = {
        there.run_id: -finished[here.run_id]  # type: ignore[operator]
        for here, there in zip(manifest.runs, up.runs, strict=True)
    }
    assert next_points(up, turned) == next_points(manifest, finished)


# ---- going on ----------------------------------------------------------------------------------


def test_while_runs_are_open_nothing_is_asked_for(tmp_path: Path) -> None:
    searching = Searching(tmp_path)
    manifest = searching.begin("study.seeds=[1,2]")
    assert len(trials_of(manifest)) == 3
    assert searching.advance(manifest) is None
    write(manifest, manifest.runs[0], 0.5)
    assert searching.advance(manifest) is None
    assert searching.begin("study.seeds=[1,2]") == manifest  # the same command after a kill
    assert load_manifest(manifest.folder) == manifest


@pytest.mark.slow
def test_a_search_that_was_stopped_after_any_batch_goes_on_as_if_it_were_not(
    tmp_path: Path,
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    whole = Searching(tmp_path / "one").whole("study.search.trials=6")
    searching = Searching(tmp_path / "two")
    for _ in range(3):
        manifest = searching.begin("study.search.trials=6")
        searching.train(manifest)
    assert trials_of(searching.begin("study.search.trials=6")) == trials_of(whole)


@pytest.mark.slow
def test_a_finished_search_is_given_back_and_grows_by_more_trials(tmp_path: Path) -> None:
    searching = Searching(tmp_path)
    done = searching.whole("study.search.trials=3")
    assert searching.begin("study.search.trials=3") == done
    more = searching.begin("study.search.trials=5")
    assert trials_of(more)[:3] == trials_of(done)
    assert len(trials_of(more)) == 5


@pytest.mark.slow
def test_more_seeds_are_run_before_further_trials(tmp_path: Path) -> None:
    searching = Searching(tmp_path)
    manifest = searching.begin()
    searching.train(manifest)
    wide = searching.begin("study.seeds=[1,2]")
    assert trials_of(wide) == trials_of(manifest)
    assert {run.seed for run in wide.runs} == {1, 2}


# ---- runs that came to nothing -----------------------------------------------------------------


@pytest.mark.slow
def test_a_trial_that_diverged_counts_as_the_worst_and_one_that_failed_as_none(
    tmp_path: Path,
) -> None:
    searching = Searching(tmp_path)
    manifest = searching.begin()
    for run in manifest.runs:
        error = {0: "the loss is nan at step 3; lower the rate", 1: "no such file"}.get(run.cell)
        value = quadratic(manifest.config_of(run), run.seed)
        write(manifest, run, None if error else value, error=error or "")
    finished = settled_values(manifest)
    assert finished is not None
    assert [finished[run.run_id] for run in manifest.runs[1:2]] == [None]
    assert math.isnan(finished[manifest.runs[0].run_id])  # type: ignore[arg-type]
    asked = next_points(manifest, finished)
    worst = {**finished, manifest.runs[0].run_id: finished[manifest.runs[2].run_id]}
    assert next_points(manifest, worst) == asked  # with one value, that is the worst
    wide = searching.advance(manifest)
    assert wide is not None
    assert trials_of(wide)[3:] == asked


@pytest.mark.slow
def test_all_runs_of_a_batch_diverging_does_not_stop_the_search(tmp_path: Path) -> None:
    searching = Searching(tmp_path)
    manifest = searching.begin()
    for run in manifest.runs:
        write(manifest, run, None, error="the loss is nan at step 3; lower the rate")
    wide = searching.advance(manifest)
    assert wide is not None
    assert len(trials_of(wide)) == 6


# ---- spaces ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_space_that_is_used_up_ends_the_search(tmp_path: Path) -> None:
    section = """\
  arms: {plain: {}}
  seeds: [1]
  search:
    trials: 50
    space: {batch: [4, 8], train.steps: {low: 10, high: 12, int: true}}
"""
    searching = Searching(tmp_path, section)
    manifest = searching.begin()
    while True:
        for run in manifest.runs:
            if not manifest.run_dir(run).exists():
                write(manifest, run, 1.0 / manifest.config_of(run)["train"]["steps"])
        wide = searching.advance(manifest)
        if wide is None:
            break
        manifest = wide
    assert len(trials_of(manifest)) == 6


def test_trials_are_read_back_from_the_names_of_their_points(tmp_path: Path) -> None:
    section = """\
  arms: {plain: {}, drop: {dropout: 0.5}}
  seeds: [1]
  grid: {batch: [4, 8]}
  search:
    trials: 4
    space:
      train.optimizer.lr: {low: 1.0e-6, high: 1.0e-1, log: true}
      train.precision: [fp32, bf16]
      train.steps: {low: 1, high: 1000, int: true, log: true}
      train.clip: [null, 0.5, 5.0]
"""
    searching = Searching(tmp_path, section)
    asked = [
        {"train.optimizer.lr": 1e-06, "train.precision": "bf16", "train.steps": 7, "train.clip": c}
        for c in (None, 0.5, 5.0)
    ]
    planned = plan_study(searching.path, root=searching.root, asked=asked)
    assert trials_of(planned) == asked
    assert len(planned.cells) == 3 * 2 * 2
    assert trials_of(freeze(planned)) == asked


@pytest.mark.slow
def test_points_that_a_filter_leaves_out_are_passed_over(tmp_path: Path) -> None:
    searching = Searching(tmp_path, SEARCH + "  where: ['dropout<0.5']\n")
    found = searching.whole("study.search.trials=8")
    trials = trials_of(found)
    assert len(trials) == 8
    assert all(one["dropout"] < 0.5 for one in trials)


# ---- what is refused ---------------------------------------------------------------------------


def test_cmaes_with_one_range_says_what_to_type(tmp_path: Path) -> None:
    section = "  arms: {plain: {}}\n  search: {trials: 2, sampler: cmaes, space: {batch: [4, 8]}}\n"
    with pytest.raises(UsageError, match=r"which has 0; type study\.search\.sampler=tpe"):
        Searching(tmp_path, section).begin()


def test_without_optuna_the_command_to_install_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingDependency, match=r"pip install 'cupel\[search\]'"):
        Searching(tmp_path).begin()


def test_planning_a_search_needs_no_optuna(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert not plan_study(Searching(tmp_path).path, root=tmp_path).runs


@pytest.mark.parametrize(
    ("sampler", "package", "extra"),
    [("cmaes", "cmaes", "search"), ("qmc", "scipy", "search"), ("gp", "torch", "train")],
)
def test_what_a_sampler_needs_besides_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampler: str, package: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependency, match=rf"'{package}'.*pip install 'cupel\[{extra}\]'"):
        Searching(tmp_path, sampler=sampler).begin()
