"""What a session ran on is told from the machine, and nothing about it can fail a run."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path

import pytest

from cupel.record import environment


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    done = subprocess.run(
        ["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    git(tmp_path, "init", "-q", "-b", "trunk")
    (tmp_path / "code.py").write_text("a = 1\n")
    git(tmp_path, "add", ".")
    return tmp_path


def test_git_tells_commit_branch_and_difference(repository: Path) -> None:
    assert environment.git_state() == {"commit": None, "branch": "trunk", "dirty": True}
    git(repository, "commit", "-qm", "first")
    commit = git(repository, "rev-parse", "HEAD")
    assert environment.git_state() == {"commit": commit, "branch": "trunk", "dirty": False}
    assert environment.dirty_patch() is None
    (repository / "untracked").write_text("x")
    assert environment.git_state() == {"commit": commit, "branch": "trunk", "dirty": False}
    (repository / "code.py").write_text("a = 2\n")
    state = environment.git_state()
    assert state is not None
    assert state["dirty"]
    patch = environment.dirty_patch()
    assert patch is not None
    git(repository, "checkout", "-q", "code.py")
    subprocess.run(["git", "apply"], input=patch, cwd=repository, check=True)
    assert (repository / "code.py").read_text() == "a = 2\n"


def test_a_patch_beyond_the_limit_is_left_out(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(repository, "commit", "-qm", "first")
    (repository / "code.py").write_text("a = 2\n")
    monkeypatch.setattr(environment, "PATCH_LIMIT", 10)
    assert environment.dirty_patch() is None


def test_outside_a_repository_and_without_git_all_else_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    facts = environment.collect()
    assert facts["git"] is None
    assert facts["gpus"] == []
    assert facts["python"] == platform.python_version()
    assert facts["packages"]["cupel"]
    assert facts["memory_bytes"] > 1 << 28
    json.dumps(facts, allow_nan=False)


def test_the_home_folder_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "somebody"
    (home / "work").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home / "work")
    monkeypatch.setattr("sys.argv", [f"{home}/train.py", "--lr=1"])
    facts = environment.collect()
    assert facts["cwd"] == "~/work"
    assert facts["argv"] == ["~/train.py", "--lr=1"]
    assert "somebody" not in json.dumps(facts)


def test_keys_in_the_command_and_the_variables_are_masked_and_the_rest_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("SLURM_SUBMIT_DIR", "/home/somebody/work")
    monkeypatch.setenv("NCCL_DEBUG_FILE", "https://me:password@host/x")
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef0123456789abcdef01234567")
    monkeypatch.setattr("sys.argv", ["train.py", "--api-key=abc", "--lr=0.1"])
    facts = environment.at_once()
    assert facts["argv"] == ["train.py", "--api-key=***", "--lr=0.1"]
    assert facts["variables"]["SLURM_SUBMIT_DIR"] == "~/work"
    told = json.dumps(facts)
    assert not [secret for secret in ("somebody", "password@", "89abcdef0123") if secret in told]


def test_what_is_told_at_once_is_told_the_same_in_time(repository: Path) -> None:
    assert environment.at_once()["git"] is None  # no commit yet
    git(repository, "commit", "-qm", "first")
    early, late = environment.at_once()["git"], environment.in_time()["git"]
    assert early.items() <= late.items()
    git(repository, "checkout", "-q", "--detach")
    early, late = environment.at_once()["git"], environment.in_time()["git"]
    assert early.items() <= late.items()
    assert early["branch"] == "(detached)"


def test_a_patch_is_kept_without_keys_and_its_hash_is_that_of_the_file(repository: Path) -> None:
    git(repository, "commit", "-qm", "first")
    path = repository / "dirty.patch"
    assert environment.keep_patch(path) == {"dirty_patch_sha256": None}
    assert not path.exists()
    (repository / "code.py").write_text("a = 2\n")
    told = environment.keep_patch(path)
    assert told == {"dirty_patch_sha256": sha256(path.read_bytes()).hexdigest()}
    (repository / "code.py").write_text("a = 'hf_" + "a1B2" * 9 + "'\n")
    told = environment.keep_patch(path)
    assert told["dirty_patch_masked_lines"] == 1
    assert told["dirty_patch_sha256"] == sha256(path.read_bytes()).hexdigest()
    assert b"+a = '***'\n" in path.read_bytes()


def test_packages_are_those_that_python_itself_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        expected.setdefault(distribution.metadata["Name"], distribution.version)
    assert environment.packages() == expected
    damaged = tmp_path / "damaged-1.0.dist-info"
    damaged.mkdir()
    (damaged / "METADATA").write_bytes(b"Name: dam\xff\xfeaged\n")
    other = tmp_path / "other-2.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_bytes(b"Name: other\r\nVersion: 2.0\r\n\r\nVersion: 3\r\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert environment.packages() == {**expected, "other": "2.0"}


def test_a_folder_that_was_deleted_under_the_process_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    facts = environment.collect()
    assert (facts["cwd"], facts["git"]) == (None, None)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only there it is known how")
def test_what_is_told_at_once_starts_no_process_but_git(repository: Path) -> None:
    """Each costs milliseconds at the start of every run."""
    code = """
import platform, sys
sys.addaudithook(lambda name, given: started.append(given[0]) if name == "subprocess.Popen" else 0)
started = []
from cupel.record import environment
found = environment.at_once()["platform"]
print(list(started), platform.platform().startswith(found))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=repository
    )
    assert done.stdout == "['git'] True\n"


def test_collecting_costs_less_than_a_third_of_a_second() -> None:
    best = min(_seconds() for _ in range(3))
    assert best < 0.3


def _seconds() -> float:
    began = time.perf_counter()
    environment.collect()
    return time.perf_counter() - began
