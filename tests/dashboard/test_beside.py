"""The dashboard beside a training: started when a person looks on, never in the way."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cupel import beside
from cupel.beside import LOG, STATE, Beside, spawn, start
from cupel.dashboard import launch
from cupel.record import processes
from dashboards import environment, eventually, state, stopped

# Where one server ends and the next takes its port, no third may come between.
pytestmark = pytest.mark.xdist_group("browser")

SCRIPT = """
import sys, time, cupel
with cupel.init(root=sys.argv[1], config={"seed": sys.argv[2]}) as run:
    until, step = time.monotonic() + float(sys.argv[3]), 0
    while time.monotonic() < until:
        run.log({"loss": 1.0}); step += 1; time.sleep(0.01)
print("steps", step)
"""


@contextlib.contextmanager
def looked_at(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Iterator[None]:
    """As if a person had started this process on a terminal, and nothing else.

    No fixture, since pytest gives stderr anew to each phase of a test.
    """
    for name in ("CI", "RANK", "WORLD_SIZE", *beside._STARTED_BY_OTHERS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(beside, "_warned", set())
    for name, value in {beside.VARIABLE: "auto", **variables}.items():
        monkeypatch.setenv(name, value)
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as terminal, os.fdopen(leader, "rb"), monkeypatch.context() as m:
        m.setattr(sys, "stderr", terminal)
        yield


def told_of(root: Path, **fields: Any) -> None:
    """A server.json as of this process."""
    path = root / STATE
    path.parent.mkdir(parents=True, exist_ok=True)
    found = {
        **processes.this_process().as_json(), "address": "http://127.0.0.1:1", "token": "t",
        **fields,
    }  # fmt: skip
    path.write_text(json.dumps(found))


# ---- whether there is one ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, True), ({"CUPEL_DASHBOARD": "0"}, False), ({"CUPEL_DASHBOARD": "1"}, True),
        ({"CUPEL_DASHBOARD": ""}, True), ({"CUPEL_DASHBOARD": " AUTO "}, True),
        ({"CI": "true"}, False), ({"CI": "false"}, True), ({"CI": ""}, True),
        ({"PYTEST_CURRENT_TEST": "x"}, False), ({"CUPEL_JOB": "x"}, False),
        ({"CUPEL_LEASE": "1:x"}, False), ({"CUPEL_SESSION": "1"}, False),
        ({"SLURM_JOB_ID": "1"}, False), ({"RAY_JOB_ID": "1"}, False),
        ({"RANK": "0", "WORLD_SIZE": "2"}, True), ({"RANK": "1", "WORLD_SIZE": "2"}, False),
        ({"RANK": "x"}, False), ({"CUPEL_DASHBOARD": "1", "RANK": "1"}, False),
        ({"CUPEL_DASHBOARD": "1", "CI": "1", "SLURM_JOB_ID": "1"}, True),
        ({"CUPEL_DASHBOARD": "0", "RANK": "x"}, False),
    ],
)  # fmt: skip
def test_one_is_started_when_a_person_looks_on(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], wanted: bool
) -> None:
    with looked_at(monkeypatch, **variables):
        assert beside._wanted() == wanted


def test_without_a_terminal_nobody_looks_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with looked_at(monkeypatch), (tmp_path / "log").open("w") as log:
        assert beside._wanted()
        for stream in (log, None):  # a file, and as pythonw has it
            sys.stderr = stream  # type: ignore[assignment]
            assert not beside._wanted()


def test_another_word_is_told_once_and_taken_for_auto(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(beside, "_warned", set())
    monkeypatch.setenv("CUPEL_DASHBOARD", "yes")
    assert not beside._wanted()
    assert not beside._wanted()
    told = capsys.readouterr().err
    assert told == "cupel: CUPEL_DASHBOARD='yes' is none of 0, 1 and auto; taken for auto\n"


# ---- that it is never in the way -----------------------------------------------------------


def test_starting_takes_less_than_ten_milliseconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The least of five, so that a busy machine does not decide; measured 1 to 2 ms."""
    monkeypatch.setenv(beside.VARIABLE, "1")
    monkeypatch.setattr(sys, "executable", "/bin/true")
    took = []
    for n in range(5):
        began = time.perf_counter()
        assert start(tmp_path / str(n)) is not None
        took.append(time.perf_counter() - began)
    assert min(took) < 0.010, took


@pytest.mark.parametrize("executable", ["/no/such/python", "/etc/passwd", ""])
def test_what_cannot_be_started_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, executable: str
) -> None:
    monkeypatch.setenv(beside.VARIABLE, "1")
    monkeypatch.setattr(sys, "executable", executable)
    assert start(tmp_path) is None


def test_a_root_that_cannot_be_written_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(beside.VARIABLE, "1")
    (tmp_path / "file").write_text("")
    assert start(tmp_path / "file") is None
    assert start("\0") is None


def test_the_server_takes_nothing_of_the_training_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its open files nor what makes a process part of its run; and one thread."""
    kept = tmp_path / "environment"
    fake = tmp_path / "python"
    fake.write_text(f"#!/bin/sh\nenv > {kept}.new; ls -l /proc/self/fd >> {kept}.new\n"
                    f"pwd >> {kept}.new; mv {kept}.new {kept}\n")  # fmt: skip
    fake.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(fake))
    monkeypatch.chdir(tmp_path)
    for name in ("CUPEL_JOB", "CUPEL_RUN_ID", "CUPEL_SESSION", "CUPEL_LEASE", "CUPEL_ROOT"):
        monkeypatch.setenv(name, "mine")
    monkeypatch.setenv("CUPEL_DASHBOARD_TOKEN", "a-token-of-some-length")
    monkeypatch.setenv("PYTHONPATH", "relative")
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    with (tmp_path / "open-in-the-training").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        process = spawn(tmp_path)
        process.wait(10)
    found = kept.read_text()
    assert "mine" not in found
    assert "CUPEL_DASHBOARD_TOKEN=a-token-of-some-length" in found
    assert "open-in-the-training" not in found
    assert f"PYTHONPATH={tmp_path}/relative" in found
    assert "OMP_NUM_THREADS=1\n" in found
    assert found.endswith("\n/\n")


def test_nobody_is_warned_of_a_process_that_goes_on() -> None:
    code = (
        "import sys, tempfile, pathlib; from cupel import beside; sys.executable = '/bin/true'\n"
        "beside.spawn(pathlib.Path(tempfile.mkdtemp()))\n"
    )
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""


# ---- the address ---------------------------------------------------------------------------


def test_the_address_is_that_of_a_server_that_lives(tmp_path: Path) -> None:
    found = Beside(tmp_path)
    assert found.address() is None
    told_of(tmp_path)
    assert found.address() == "http://127.0.0.1:1/#t=t"
    for changed in (
        {"start": "1"}, {"pid": 0}, {"pid": 2**40}, {"host": "elsewhere"}, {"boot_id": "before"},
    ):  # fmt: skip
        told_of(tmp_path, **changed)
        assert found.address() is None, changed


@given(st.one_of(
    st.binary(max_size=40),
    st.dictionaries(
        st.sampled_from(["pid", "start", "host", "boot_id", "address", "token"]),
        st.none() | st.integers() | st.text(max_size=9) | st.floats(),
    ).map(lambda fields: json.dumps(fields).encode()),
))  # fmt: skip
def test_a_damaged_file_has_no_address(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("root") / "server.json"
    path.write_bytes(content)
    assert beside._address_in(path) is None


def test_what_is_known_is_told_at_once_and_once(tmp_path: Path) -> None:
    told_of(tmp_path)
    found, lines = Beside(tmp_path), list[str]()
    found.tell(lines.append)
    found.tell(lines.append)
    assert lines == ["dashboard: http://127.0.0.1:1/#t=t"]


@pytest.mark.slow
def test_what_is_not_known_is_told_from_a_thread_and_once(tmp_path: Path) -> None:
    found, lines = Beside(tmp_path), list[str]()
    threads: list[threading.Thread] = []

    def line(text: str) -> None:
        lines.append(text)
        threads.append(threading.current_thread())

    found.tell(line)
    found.tell(line)
    assert not lines
    told_of(tmp_path)
    eventually(lambda: lines)
    time.sleep(0.3)  # the second thread has looked as well
    assert lines == ["dashboard: http://127.0.0.1:1/#t=t"]
    assert threads[0] is not threading.main_thread()
    assert threads[0].daemon


def test_after_hush_nothing_is_told(tmp_path: Path) -> None:
    found, lines = Beside(tmp_path), list[str]()
    found.tell(lines.append)
    found.hush()
    told_of(tmp_path)
    time.sleep(0.3)
    found.tell(lines.append)
    assert not lines


def test_one_that_did_not_start_says_where_its_reason_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(beside.VARIABLE, "1")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    found, lines = start(tmp_path), list[str]()
    assert found is not None
    found.tell(lines.append)
    assert eventually(lambda: lines) == [f"dashboard: it did not start; {tmp_path / LOG} says why"]


@pytest.mark.slow
def test_a_slow_one_is_said_to_be_slow_and_then_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beside, "_PATIENCE_S", 0.2)
    found, lines = Beside(tmp_path), list[str]()
    found.tell(lines.append)
    assert eventually(lambda: lines) == ["dashboard: not ready yet; cupel dashboard shows it"]
    told_of(tmp_path)
    time.sleep(0.3)
    assert len(lines) == 1


def test_one_that_runs_is_not_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(beside.VARIABLE, "1")
    told_of(tmp_path)
    found = start(tmp_path)
    assert found is not None
    assert found.process is None
    assert start(tmp_path) is found


# ---- the real one --------------------------------------------------------------------------


def training(root: Path, *, seconds: float = 3.0, seed: int = 0, **more: str) -> Any:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(root), str(seed), str(seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(CUPEL_DASHBOARD="1", **more),
    )


@pytest.mark.slow
def test_a_training_tells_the_address_and_the_token_is_in_no_record(tmp_path: Path) -> None:
    with stopped(tmp_path):
        process = training(tmp_path, seconds=4)
        told = process.communicate(timeout=60)[1]
        found = launch.wait(tmp_path)
        assert found is not None, (tmp_path / LOG).read_text()
        assert found.automatic  # and it outlives the training
        assert told == f"cupel: dashboard: {found.url}\n"
        holding = [
            path for path in tmp_path.rglob("*")
            if path.is_file() and found.token.encode() in path.read_bytes()
        ]  # fmt: skip
        assert holding == [tmp_path / STATE]


@pytest.mark.slow
def test_trainings_that_start_at_once_share_one(tmp_path: Path) -> None:
    with stopped(tmp_path):
        trainings = [training(tmp_path, seed=n, seconds=4) for n in range(3)]
        told = {process.communicate(timeout=60)[1] for process in trainings}
        found = launch.running(tmp_path)
        assert found is not None
        assert told == {f"cupel: dashboard: {found.url}\n"}


@pytest.mark.slow
def test_a_dashboard_that_hangs_or_dies_is_not_noticed(tmp_path: Path) -> None:
    with stopped(tmp_path):
        launch.start_detached(tmp_path)
        found = launch.wait(tmp_path, 30)
        assert found is not None
        os.kill(found.process.pid, signal.SIGSTOP)
        process = training(tmp_path, seconds=1)
        out, told = process.communicate(timeout=60)
        assert told == f"cupel: dashboard: {found.url}\n"
        assert int(out.split()[1]) > 20
        os.kill(found.process.pid, signal.SIGKILL)
        eventually(lambda: not processes.lives(found.process.pid, found.process.start))
        process = training(tmp_path, seed=1, seconds=4)
        assert process.communicate(timeout=60)[1] == f"cupel: dashboard: {found.url}\n"


@pytest.mark.slow
def test_ctrl_c_at_the_training_does_not_reach_the_dashboard(tmp_path: Path) -> None:
    with stopped(tmp_path):
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(tmp_path), "0", "60"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            env=environment(CUPEL_DASHBOARD="1"),
        )  # fmt: skip
        found = launch.wait(tmp_path, 30)
        assert found is not None
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does it
        process.wait(30)
        assert launch.running(tmp_path) == found


@pytest.mark.slow
@pytest.mark.parametrize("variables", [{"CUPEL_DASHBOARD": "0"}, {}])
def test_without_a_terminal_or_when_told_none_is_started(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), "0", "0.1"]
    done = subprocess.run(
        command, env=environment(**variables), capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert not (tmp_path / STATE.parent).exists()


@pytest.mark.slow
def test_on_a_terminal_one_is_started_unasked(tmp_path: Path) -> None:
    leader, follower = pty.openpty()
    with stopped(tmp_path), os.fdopen(leader, "rb", buffering=0) as terminal:
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(tmp_path), "0", "4"],
            stdout=subprocess.DEVNULL, stderr=follower, env=environment(),
        )  # fmt: skip
        os.close(follower)
        process.wait(60)
        told = terminal.read(4096).decode()
        found = launch.wait(tmp_path)
        assert found is not None
        assert told == f"cupel: dashboard: {found.url}\r\n"


@pytest.mark.slow
def test_a_server_that_ended_has_no_address(tmp_path: Path) -> None:
    with stopped(tmp_path):
        launch.start_detached(tmp_path)
        assert launch.wait(tmp_path, 30) is not None
        assert Beside(tmp_path).address() is not None
        launch.stop(tmp_path)
        assert Beside(tmp_path).address() is None
        assert state(tmp_path)["pid"] == 0
