"""Twelve wrong inputs at the command line: one clear line, the right exit code, nothing lost.

Each is typed into a real process. A refusal may not change a byte of what was recorded before.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cupel.record.reader import RunRecord, list_runs
from desk import RECIPE, Desk, complaint, new_desk, wait_for_checkpoint, wait_for_step


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return new_desk(tmp_path / "desk")


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A desk with one run that SIGTERM stopped; tests work on copies."""
    desk = new_desk(tmp_path_factory.mktemp("interrupted") / "desk")
    process = desk.start("run", "tiny.yaml", "train.steps=100000")
    wait_for_step(desk.runs, 35, process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 75
    return desk


@pytest.fixture
def stopped(interrupted: Desk, tmp_path: Path) -> Desk:
    shutil.copytree(interrupted.folder, tmp_path / "desk")
    return Desk(tmp_path / "desk")


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A small tmpfs, where mounting is permitted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs is not permitted here (needs root)")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
def test_an_unknown_key_is_named_with_the_nearest(desk: Desk) -> None:
    line = complaint(desk.type("run", "tiny.yaml", "train.stesp=5"))
    assert line == "command line: train.stesp: no such setting; did you mean 'steps'?"
    assert not desk.runs.exists()


@pytest.mark.slow
def test_a_misspelt_workload_is_named_with_file_and_line(desk: Desk) -> None:
    (desk.folder / "tiny.yaml").write_text(RECIPE.replace("workload: gpt", "workload: gtp"))
    line = complaint(desk.type("run", "tiny.yaml"))
    assert line.startswith("tiny.yaml:2: ")
    assert "did you mean 'gpt'?" in line


@pytest.mark.slow
def test_a_bad_value_is_named_with_file_and_line(desk: Desk) -> None:
    (desk.folder / "tiny.yaml").write_text(RECIPE.replace("steps: 40", "steps: many"))
    line = complaint(desk.type("run", "tiny.yaml"))
    assert line.startswith("tiny.yaml:5: train.steps")
    assert "many" in line


@pytest.mark.slow
def test_an_open_value_says_what_to_type(desk: Desk) -> None:
    (desk.folder / "tiny.yaml").write_text(RECIPE.replace("path: text.txt", 'path: "???"'))
    line = complaint(desk.type("run", "tiny.yaml"))
    assert line == "tiny.yaml:3: data.path must be given; type data.path=VALUE"


@pytest.mark.slow
def test_a_missing_corpus_is_refused_before_anything_is_written(desk: Desk) -> None:
    line = complaint(desk.type("run", "tiny.yaml", "data.path=nowhere.txt"))
    assert "nowhere.txt" in line
    assert not desk.runs.exists()


@pytest.mark.slow
def test_an_empty_corpus_is_refused_before_anything_is_written(desk: Desk) -> None:
    (desk.folder / "text.txt").write_text("")
    line = complaint(desk.type("run", "tiny.yaml"))
    assert "empty" in line
    assert not desk.runs.exists()


@pytest.mark.slow
def test_a_wrong_run_id_lists_those_that_there_are(interrupted: Desk) -> None:
    before = interrupted.fingerprint()
    for command in (["runs", "show", "zzz"], ["sample", "zzz"]):
        line = complaint(interrupted.type(*command))
        assert "no run is called 'zzz'" in line
        assert interrupted.only_run().run_id in line
    line = complaint(interrupted.type("run", "tiny.yaml", "--resume", "zzz"))
    assert "no run is called 'zzz'" in line
    assert interrupted.fingerprint() == before


@pytest.mark.slow
def test_resuming_with_a_changed_model_is_refused(stopped: Desk) -> None:
    before = stopped.fingerprint()
    run = stopped.only_run().run_id
    line = complaint(
        stopped.type("run", "tiny.yaml", "train.steps=100000", "model.width=32", "--resume", run)
    )
    assert "model.width: 16 -> 32" in line
    assert "--resume never" in line
    assert stopped.fingerprint() == before


@pytest.mark.slow
def test_a_corrupt_checkpoint_is_skipped_for_the_one_before(stopped: Desk) -> None:
    run = stopped.only_run()
    *_, older, newest = run.checkpoints()
    damage(run, newest)
    process = stopped.start("run", "tiny.yaml", "train.steps=100000", "--resume", "auto")
    wait_for_step(stopped.runs, newest + 5, process, session=2)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 75
    assert f"step {newest}" in stderr
    assert run.sessions[-1].start_step == older


@pytest.mark.slow
def test_a_run_whose_checkpoints_are_all_corrupt_does_not_start_anew(stopped: Desk) -> None:
    run = stopped.only_run()
    history = run.history()
    for step in run.checkpoints():
        damage(run, step)
    done = stopped.type("run", "tiny.yaml", "train.steps=100000", "--resume", "auto")
    assert "no intact checkpoint" in complaint(done, code=1)
    assert run.history() == history
    assert run.status == "failed"


@pytest.mark.slow
def test_two_processes_cannot_resume_one_run(stopped: Desk) -> None:
    run = stopped.only_run()
    command = ("run", "tiny.yaml", "train.steps=100000", "--resume", run.run_id)
    first, second = stopped.start(*command), stopped.start(*command)
    deadline = time.monotonic() + 60
    while first.poll() is None and second.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    loser, winner = (first, second) if second.poll() is None else (second, first)
    _, stderr = loser.communicate(timeout=60)
    line = complaint((loser.returncode, stderr))
    assert "is running" in line or "is resuming" in line
    wait_for_step(stopped.runs, 1, winner, session=2)
    winner.send_signal(signal.SIGTERM)
    winner.communicate(timeout=60)
    assert winner.returncode == 75
    assert len(run.sessions) == 2


@pytest.mark.slow
def test_a_read_only_record_root_is_refused(desk: Desk, tmp_path: Path) -> None:
    with mounted(tmp_path / "readonly", "ro,size=4m") as root:
        line = complaint(desk.type("run", "tiny.yaml", root=root))
    assert "Read-only file system" in line
    assert "--root" in line


@pytest.mark.slow
def test_a_disk_too_small_for_the_checkpoints_is_refused_before_the_first_step(
    desk: Desk, tmp_path: Path
) -> None:
    with mounted(tmp_path / "small", "size=64k") as root:
        line = complaint(desk.type("run", "tiny.yaml", root=root))
        assert not list_runs(root)
    assert "checkpoints" in line
    assert "free" in line


@pytest.mark.slow
def test_a_disk_that_fills_up_loses_nothing_that_was_recorded(desk: Desk, tmp_path: Path) -> None:
    with mounted(tmp_path / "filling", "size=2m") as root:
        process = desk.start("run", "tiny.yaml", "train.steps=100000", root=root)
        wait_for_step(root, 25, process)
        wait_for_checkpoint(root, 20)  # it is written beside training
        fill(root / "filler")
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "Traceback" not in stderr
        assert "No space left on device" in stderr.splitlines()[-1]
        (run,) = list_runs(root)
        steps = [row["_step"] for row in run.history(["loss"])]
        assert steps[:25] == list(range(1, 26))
        assert run.damaged_lines <= 1
        assert 20 in run.checkpoints()
        (root / "filler").unlink()
        process = desk.start(
            "run", "tiny.yaml", "train.steps=100000", "--resume", "auto", root=root
        )
        wait_for_step(root, run.checkpoints()[-1] + 3, process, session=2)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode == 75


def damage(run: RunRecord, step: int) -> None:
    path = run.run_dir / "checkpoints" / f"step-{step:09d}" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def fill(path: Path) -> None:
    """Leave no room on the disk."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            pass
