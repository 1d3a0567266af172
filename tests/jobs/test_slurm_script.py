"""The script and the list that sbatch is given: every setting, no word of a job for a shell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.errors import UsageError
from cupel.jobs.backend import Job, Resources
from cupel.jobs.slurm_script import SlurmSettings, list_of, script_of

ALL = {
    "name": "steps",
    "account": "lab 7",
    "partition": "long,short",
    "qos": "high",
    "constraint": "a100&ib",
    "gres": "gpu:a100:1",
    "time_min": 90.0,
    "throttle": 6,
    "signal_s": 120.0,
    "requeue": False,
    "extra": ("--mail-type=END", "--reservation=july"),
    "python": "/opt/my python/bin/python3",
}


def script(folder: Path, resources: Resources | None = None, **choices: Any) -> str:
    found = SlurmSettings(folder=folder, **choices)
    return script_of(found, resources or Resources(), folder / "slurm-1.jsonl", 20)


def options(text: str) -> list[str]:
    prefix = "#SBATCH "
    return [line.removeprefix(prefix) for line in text.splitlines() if line.startswith(prefix)]


def parses(text: str) -> bool:
    return subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0


def test_every_setting_is_in_the_script_and_bash_can_read_it() -> None:
    text = script(Path("/data/100% mine"), Resources(cpus=3.5, memory_mb=4000), **ALL)
    assert options(text) == [
        "--job-name=steps",
        "--array=0-19%6",
        "--nodes=1",
        "--ntasks=1",
        "--cpus-per-task=4",
        "--mem=4000M",
        '--account="lab 7"',
        "--partition=long,short",
        "--qos=high",
        "--constraint=a100&ib",
        "--gres=gpu:a100:1",
        "--time=90",
        "--signal=B:USR1@120",
        "--no-requeue",
        "--open-mode=append",
        '--output="/data/100%% mine/slurm-%A_%a.out"',
        "--export=ALL",
        "--mail-type=END",
        "--reservation=july",
    ]
    assert "exec '/opt/my python/bin/python3' -I -S" in text
    assert parses(text)


def test_what_is_not_set_is_left_to_the_cluster() -> None:
    names = [line.split("=")[0] for line in options(script(Path("/data")))]
    assert not {"--account", "--partition", "--qos", "--constraint", "--gres"} & set(names)
    assert not {"--mem", "--time"} & set(names)
    assert "--requeue" in names
    assert not [line for line in options(script(Path("/d"), signal_s=0)) if "signal" in line]


def test_whole_gpus_are_asked_for_and_a_part_of_one_is_refused() -> None:
    assert "--gres=gpu:2" in options(script(Path("/data"), Resources(gpus=2)))
    with pytest.raises(UsageError, match=r"asks for 0\.25 GPUs.*ask for 1"):
        script(Path("/data"), Resources(gpus=0.25))
    assert "--gres=shard:1" in options(script(Path("/d"), Resources(gpus=0.25), gres="shard:1"))


@pytest.mark.parametrize("limit_s, minutes", [(91, 2), (120, 2), (121, 3), (5400, 90)])
def test_a_limit_is_rounded_up_to_whole_minutes(limit_s: float, minutes: int) -> None:
    text = script(Path("/data"), Resources(time_s=limit_s), time_min=7)
    assert f"--time={minutes}" in options(text), "the job's own limit counts, not that of all"


def test_a_limit_that_is_over_before_the_signal_is_refused() -> None:
    with pytest.raises(UsageError, match=r"limit is 1 min.*90 s before.*signal_s lower"):
        script(Path("/data"), Resources(time_s=30))


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "two words"},
        {"account": 'a"b'},
        {"partition": "a\nb"},
        {"extra": ("mail-type=END",)},
        {"extra": ("--comment=a\n#SBATCH --account=b",)},
        {"throttle": 0},
        {"array_max": 0},
        {"signal_s": -1},
        {"container": "apptainer 'exec"},
    ],
)
def test_settings_that_a_script_cannot_hold_are_refused_by_name(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(UsageError, match="option of sbatch" if name == "extra" else name):
        SlurmSettings(folder=Path("/data"), **wrong)
    with pytest.raises(UsageError, match="folder"):
        SlurmSettings(folder=Path("/a\\b"))


def test_the_container_stands_before_each_command_and_its_quotes_are_read() -> None:
    choices = SlurmSettings(folder=Path("/d"), container="apptainer exec --env 'A=1 2' i.sif")
    (line,) = list_of(choices, [Job("a", ("cupel", "x"), Path("/d/a.log"))]).splitlines()
    expected = ["apptainer", "exec", "--env", "A=1 2", "i.sif", "cupel", "x"]
    assert json.loads(line)["command"] == expected


PRINTABLE = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True).map(lambda name: f"X{name}")


@pytest.mark.slow
@settings(deadline=None, max_examples=20)  # each starts three processes
@given(words=st.lists(PRINTABLE, max_size=4), environment=st.dictionaries(NAMES, PRINTABLE))
def test_any_words_and_variables_reach_the_job_as_they_are(
    words: list[str], environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("a 'folder'", numbered=True)
    show = "import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ)]))"
    job = Job("job", (sys.executable, "-c", show, *words), folder / "job.log", environment)
    other = replace(job, command=("false",))
    become(folder, [other, job], 1)
    said, had = json.loads(job.log.read_text())
    assert said == words
    assert had | environment == had


def become(folder: Path, jobs: list[Job], index: int) -> int:
    """Run the script as a task of the array, without Slurm; the exit code."""
    choices, listed = SlurmSettings(folder=folder), folder / "slurm-1.jsonl"
    listed.write_text(list_of(choices, jobs))
    text = script_of(choices, Resources(), listed, len(jobs))
    env = {**os.environ, "SLURM_ARRAY_TASK_ID": str(index)}
    (folder / "slurm-1.sh").write_text(text)
    return subprocess.run(["bash", folder / "slurm-1.sh"], env=env, timeout=60).returncode


def test_the_script_becomes_the_job_and_its_log_grows(tmp_path: Path) -> None:
    job = Job("job", ("sh", "-c", "echo $PPID; echo wrong >&2; exit 75"), tmp_path / "job.log")
    assert [become(tmp_path, [job], 0), become(tmp_path, [job], 0)] == [75, 75]
    lines = job.log.read_text().splitlines()
    assert lines == [str(os.getpid()), "wrong"] * 2, "another process stands between"


def test_a_job_dies_of_a_broken_pipe_as_it_would_elsewhere(tmp_path: Path) -> None:
    job = Job("job", ("sh", "-c", "kill -PIPE $$; echo survived"), tmp_path / "job.log")
    assert become(tmp_path, [job], 0) == -13
    assert job.log.read_text() == ""


def test_a_command_that_is_not_there_says_so_in_the_log(tmp_path: Path) -> None:
    job = Job("job", ("no-such-command",), tmp_path / "job.log")
    assert become(tmp_path, [job], 0) == 1
    assert job.log.read_text() == "cannot start no-such-command: No such file or directory\n"
