"""Options of `cupel study run` that place runs on a cluster: as typed, without a cluster."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from cupel.cli.app import obey
from cupel.cli.placing import BACKENDS, Place, check_place, typed_place
from cupel.errors import UnknownName, UsageError
from cupel.record.session import Session
from cupel.studies.manifest import Manifest, freeze
from cupel.studies.spec import plan_study

RECIPE = """\
workload: fakes:Regression
train: {steps: 30}
study:
  question: Does dropout help?
  arms: {plain: {}, drop: {dropout: 0.5}}
  seeds: [1, 2, 3]
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The record of a folder with a recipe, in which this process is, without Slurm."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUPEL_ROOT", str(tmp_path / "runs"))
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "sine.yaml").write_text(RECIPE)
    return tmp_path / "runs"


def typed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = obey(["study", "run", "sine.yaml", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def plan(root: Path) -> Manifest:
    return plan_study(root.parent / "sine.yaml", root=root)


# ---- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--backend", "slrum"], "no backend is called 'slrum'; did you mean 'slurm'?"),
        (["--partition", "a", "--gres", "gpu:1"], "--partition, --gres: only Slurm has these"),
        (["--backend", "ray", "--throttle", "2"], "--throttle: only Slurm has these"),
        (["--sbatch", "--nice=1"], "--sbatch: only Slurm has these; add --backend slurm"),
        (["--address", "a:1"], "--address: only Ray has one; add --backend ray"),
        (["--backend", "slurm", "--address", "a:1"], "--address: only Ray has one"),
        (["--pack", "2"], "--pack is for clusters; here, --workers says how many"),
        (["--backend", "slurm", "--warm"], "--warm is for this machine"),
        (["--backend", "ray", "--workers", "3"], "--workers is for this machine; a cluster "),
        (["--backend", "slurm", "--workers", "3"], "--workers is for this machine; a cluster "),
        (["--backend", "slurm", "--sbatch", "nice"], "an option of sbatch is 'nice'; write it as"),
        (["--backend", "slurm", "--gres", 'a"b'], "Slurm's gres is 'a\"b'; it cannot hold"),
        (["--backend", "slurm", "--container", "a 'b"], "Slurm's container is \"a 'b\""),
        (["--dry-run", "--arm", "plain"], "--dry-run tries every arm; leave out --arm"),
        (["--arm", "plan"], "no arm of study sine is called 'plan'; did you mean 'plain'?"),
        (["--code-changed", "kep"], "--code-changed kep; did you mean 'keep'?"),
        (["--webhook", "ftp://x"], "--webhook: 'ftp://x' is no address of the web"),
        (["--on-alert", "nosuch -x"], "--on-alert: 'nosuch' is not there to be run"),
        (["--param", "dropout"], "'dropout' is no axis; type --param section.name=value,value"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_written(
    root: Path, capsys: pytest.CaptureFixture[str], given: list[str], told: str
) -> None:
    code, out, err = typed(capsys, *given)
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith(f"cupel: {told}")
    assert not root.exists()


def test_the_help_of_a_throttle_is_given_where_there_is_one() -> None:
    with pytest.raises(UsageError, match="--throttle limits an array"):
        check_place(Place("slurm"), workers=3)
    with pytest.raises(UsageError, match=r"has room for$"):
        check_place(Place("ray"), workers=3)


def test_every_backend_can_be_named_and_no_other() -> None:
    for backend in BACKENDS:
        check_place(Place(backend))
    with pytest.raises(UnknownName):
        check_place(Place("Slurm"))


def test_the_options_are_typed_again_as_they_were_given() -> None:
    assert typed_place(Place()) == []
    place = Place("slurm", 3, None, "me", None, "gpu:1", 2, "apptainer exec x", ("--nice=1",))
    assert typed_place(place) == [
        "--backend=slurm", "--pack=3", "--account=me", "--gres=gpu:1", "--throttle=2",
        "--container=apptainer exec x", "--sbatch=--nice=1",
    ]  # fmt: skip
    assert typed_place(Place("ray", address="a:1")) == ["--backend=ray", "--address=a:1"]


# ---- the script --------------------------------------------------------------------------------


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, list[dict[str, Any]]]:
    """The script, and the jobs of its list."""
    code, out, err = typed(capsys, "--backend", "slurm", "--dry-run", *arguments)
    assert (code, err) == (0, "")
    script, _, listed = out.partition(".jsonl\n")
    return script, [json.loads(line) for line in listed.splitlines()]


def runs_of(job: dict[str, Any]) -> list[str]:
    """The runs that a job's worker may take."""
    command = job["command"]
    return [command[n + 1] for n, word in enumerate(command) if word == "--run"]


def test_a_dry_run_shows_a_job_a_run_and_writes_nothing_and_needs_no_slurm(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script, jobs = shown(capsys, "--partition", "long", "--throttle", "2", "--sbatch", "--nice=9")
    for line in ("--array=0-5%2", "--partition=long", "--nice=9", "--cpus-per-task=1"):
        assert f"#SBATCH {line}\n" in script
    manifest = plan(root)
    assert [runs_of(job) for job in jobs] == [[run.run_id] for run in manifest.runs]
    for job in jobs:
        words = shlex.join(job["command"])
        assert f"-m cupel jobs work {manifest.folder.absolute()} --workers 1 " in words
    assert len({job["log"] for job in jobs}) == 6
    assert not root.exists()


def test_a_job_may_take_several_runs_and_only_those_of_an_arm(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script, jobs = shown(capsys, "--pack", "2", "--arm", "drop")
    names = [run.run_id for run in plan(root).runs if run.arm == "drop"]
    assert [runs_of(job) for job in jobs] == [names[:2], names[2:]]
    assert "#SBATCH --array=0-1\n" in script


@pytest.mark.slow
def test_accepted_runs_are_not_submitted(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = freeze(plan(root))
    accept(manifest, 0)
    _, jobs = shown(capsys)
    assert [runs_of(job) for job in jobs] == [[run.run_id] for run in manifest.runs[1:]]
    for number in range(1, 6):
        accept(manifest, number)
    code, _, err = typed(capsys, "--backend", "slurm", "--dry-run")
    assert (code, err) == (2, "cupel: every run is accepted; nothing would be submitted\n")


def accept(manifest: Manifest, number: int) -> None:
    run = manifest.runs[number]
    session = Session.start(
        root=manifest.root, project=manifest.project, name="n", config={},
        identity=run.identity, run_id=run.run_id,
    )  # fmt: skip
    session.begin_at(0)
    session.finish("finished", results={"step": 30, "final": {"val_loss": 1.0}})


def test_what_a_container_is_started_by_stands_before_each_command(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, jobs = shown(capsys, "--container", "apptainer exec --nv 'an image.sif'")
    assert jobs[0]["command"][:4] == ["apptainer", "exec", "--nv", "an image.sif"]


def test_resources_of_the_study_are_asked_for(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needs = "study.resources={cpus: 3, gpus: 1, memory_mb: 900, time_min: 30}"
    script, _ = shown(capsys, needs)
    for line in ("--cpus-per-task=3", "--gres=gpu:1", "--mem=900M", "--time=30"):
        assert f"#SBATCH {line}\n" in script


def test_without_slurm_a_real_run_says_what_is_missing(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = typed(capsys, "--backend", "slurm")
    assert (code, out) == (1, "")
    last = err.splitlines()[-1]
    assert last.startswith("cupel: ")
    assert "sbatch" in last
    assert "Traceback" not in err
