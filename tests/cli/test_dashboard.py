"""`cupel dashboard` as typed, and the dashboard that a run or a study starts beside it."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cupel.beside import STATE
from cupel.dashboard import launch
from cupel.dashboard.launch import Server
from dashboards import environment, stopped
from desk import new_desk

# Where one server ends and the next takes its port, no third may come between.
pytestmark = pytest.mark.xdist_group("browser")

TOKEN = "a-token-of-some-length"


def typed(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Type `cupel dashboard …`, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "cupel", "dashboard", *arguments],
        cwd=folder, env=environment(CUPEL_DASHBOARD="0", **variables),
        capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@contextmanager
def serving(
    folder: Path, *arguments: str, **variables: str
) -> Iterator[tuple[Server, subprocess.Popen[str]]]:
    """A dashboard that serves in the foreground."""
    process = subprocess.Popen(
        [sys.executable, "-m", "cupel", "dashboard", *arguments],
        cwd=folder, env=environment(CUPEL_DASHBOARD="0", **variables),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        found = launch.wait(folder / "runs", 30)
        if found is None:
            process.kill()
            raise AssertionError(process.communicate())
        yield found, process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_it_says_where_it_is_in_one_line_until_ctrl_c(tmp_path: Path) -> None:
    with serving(tmp_path) as (found, process):
        process.send_signal(signal.SIGINT)
        out, told = process.communicate(timeout=10)
        assert process.returncode == 0
        assert out == (
            f"dashboard of runs/: {found.url}  (Ctrl-C ends it; training does not notice)\n"
        )
        assert told == ""


@pytest.mark.slow
def test_typed_again_it_says_where_the_other_one_is(tmp_path: Path) -> None:
    with serving(tmp_path) as (found, _):
        again = typed(tmp_path)
        assert again.returncode == 0
        assert again.stdout == f"dashboard of runs/: {found.url}  (it runs already)\n"
        assert again.stderr == ""
        other = typed(tmp_path, "--port", "9", "--allow-writes")
        assert other.returncode == 0
        assert other.stderr.startswith("cupel: it runs without --port 9 and --allow-writes; ")
        assert "dashboard --stop" in other.stderr

        shown = typed(tmp_path, "--status")
        assert found.url in shown.stdout
        assert "started by hand" in shown.stdout
        facts = json.loads(typed(tmp_path, "--status", "--json").stdout)
        assert facts["running"]
        assert (facts["url"], facts["pid"]) == (found.url, found.process.pid)

        ended = typed(tmp_path, "--stop")
        assert ended.stdout == f"ended the dashboard of runs/ (process {found.process.pid})\n"
    assert json.loads(typed(tmp_path, "--stop", "--json").stdout)["stopped"] is False


@pytest.mark.slow
def test_as_json_it_says_the_same_and_serves(tmp_path: Path) -> None:
    with serving(tmp_path, "--json") as (found, process):
        process.send_signal(signal.SIGTERM)
        facts = json.loads(process.communicate(timeout=10)[0])
        assert process.returncode == 0
        assert facts["url"] == found.url
        assert facts["automatic"] is False


@pytest.mark.slow
def test_where_none_runs_that_is_said(tmp_path: Path) -> None:
    shown = typed(tmp_path, "--status")
    assert shown.returncode == 0
    assert shown.stdout.startswith("no dashboard of runs/ runs; start it with: ")
    assert json.loads(typed(tmp_path, "--status", "--json").stdout) == {
        "running": False, "root": "runs",
    }  # fmt: skip
    assert typed(tmp_path, "--stop").stdout == "no dashboard of runs/ runs\n"
    assert not (tmp_path / "runs").exists()


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = typed(tmp_path, "--port", str(port))
    assert done.returncode == 2
    assert done.stderr == (
        f"cupel: port {port} is in use; type another after --port, or leave it out for a free one\n"
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--stop", "--status"], "type one of them"), (["--port", "0"], "--port"),
        (["--port", "x"], "--port"), (["--root", ""], "--root is empty"),
        (["--token-file", "none"], "cannot read the token in none"),
        (["--host", "0.0.0.0"], "ssh -L 8765:127.0.0.1:8765 MACHINE reaches it as well"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line_and_exit_code_2(
    tmp_path: Path, arguments: list[str], told: str
) -> None:
    done = typed(tmp_path, *arguments)
    assert done.returncode == 2
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_token_that_is_not_secret_is_refused_and_not_repeated(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    file.chmod(0o644)
    done = typed(tmp_path, "--token-file", "token")
    assert (done.returncode, done.stderr) == (
        2, "cupel: others may read the token in token; type: chmod 600 token\n",
    )  # fmt: skip
    done = typed(tmp_path, CUPEL_DASHBOARD_TOKEN="tooshort")
    assert done.returncode == 2
    assert "tooshort" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("by_file", [False, True])
def test_other_machines_may_ask_with_a_token_of_ones_own_and_a_warning(
    tmp_path: Path, by_file: bool
) -> None:
    variables, arguments = {"CUPEL_DASHBOARD_TOKEN": TOKEN}, ["--host", "0.0.0.0"]
    if by_file:
        (tmp_path / "token").write_text(TOKEN + "\n")
        (tmp_path / "token").chmod(0o600)
        variables, arguments = {}, [*arguments, "--token-file", "token"]
    process = subprocess.Popen(
        [sys.executable, "-m", "cupel", "dashboard", *arguments],
        cwd=tmp_path, env=environment(CUPEL_DASHBOARD="0", **variables),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    line = process.stdout.readline()
    found = launch.running(tmp_path / "runs")
    process.send_signal(signal.SIGINT)
    told = process.communicate(timeout=10)[1]
    assert found is not None
    assert found.url == f"http://{socket.gethostname()}:{found.port}/#t={TOKEN}"
    assert found.url in line
    assert told.startswith("cupel: without TLS")
    assert "ssh -L" in told


@pytest.mark.slow
def test_a_browser_is_opened_and_no_command_line_has_the_token(tmp_path: Path) -> None:
    browser, seen = tmp_path / "browser", tmp_path / "seen"
    browser.write_text(f'#!/bin/sh\necho "$@" > {seen}.new; mv {seen}.new {seen}\n')
    browser.chmod(0o700)
    with_display = {"DISPLAY": ":0", "BROWSER": f"{browser} %s"}
    for without in ({"SSH_CONNECTION": "x"}, {"DISPLAY": "", "WAYLAND_DISPLAY": ""}):
        with serving(tmp_path, **{**with_display, **without}):
            pass
        assert not seen.exists()
    with serving(tmp_path, "--no-open", **with_display):
        pass
    assert not seen.exists()
    with serving(tmp_path, **with_display) as (found, _):
        typed(tmp_path, **with_display)
        address = seen.read_text().strip()
        assert address.startswith("file://")
        assert found.token not in address
        page = Path(address.removeprefix("file://"))
        assert f"url={found.url}" in page.read_text()
        assert stat.S_IMODE(page.stat().st_mode) == 0o600


# ---- beside a run --------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_tells_where_it_can_be_watched_and_no_record_has_the_token(tmp_path: Path) -> None:
    desk = new_desk(tmp_path / "desk")
    root = desk.runs
    with stopped(root):
        done = subprocess.run(
            [sys.executable, "-m", "cupel", "run", "tiny.yaml"],
            cwd=desk.folder, env=environment(CUPEL_DASHBOARD="1", OMP_NUM_THREADS="1"),
            capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found = launch.running(root)
        assert found is not None
        assert found.automatic
        assert done.stderr.count(f"dashboard: {found.url}\n") == 1
        assert "dashboard" not in done.stdout
        assert holding(root, found.token) == [root / STATE]

        again = subprocess.run(
            [sys.executable, "-m", "cupel", "run", "tiny.yaml", "--resume", "never"],
            cwd=desk.folder, env=environment(CUPEL_DASHBOARD="1", OMP_NUM_THREADS="1"),
            capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert again.stderr.splitlines()[1] == f"dashboard: {found.url}"  # known from the start
        assert launch.running(root) == found


@pytest.mark.slow
def test_a_study_has_one_and_its_runs_start_none(tmp_path: Path) -> None:
    desk = new_desk(tmp_path / "desk")
    root = desk.runs
    (desk.folder / "study.yaml").write_text(
        "extends: tiny.yaml\ntrain: {steps: 4, evaluate_every: 2}\n"
        "study:\n  question: Does width help?\n"
        "  arms: {wide: {}, narrow: {model: {width: 8}}}\n  seeds: [1, 2]\n  workers: 2\n"
    )
    with stopped(root):
        done = subprocess.run(
            [sys.executable, "-m", "cupel", "study", "run", "study.yaml"],
            cwd=desk.folder, env=environment(CUPEL_DASHBOARD="1", OMP_NUM_THREADS="1"),
            capture_output=True, text=True, timeout=240, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found = launch.running(root)
        assert found is not None
        assert done.stderr.count(f"dashboard: {found.url}\n") == 1
        assert holding(root, found.token) == [root / STATE]
        assert found.process.pid != os.getpid()


def holding(root: Path, token: str) -> list[Path]:
    """The files that hold a token."""
    return [
        path for path in root.rglob("*")
        if path.is_file() and token.encode() in path.read_bytes()
    ]  # fmt: skip
