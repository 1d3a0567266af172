"""A root has one dashboard: real processes that start at once, are killed, and are found."""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.sync.client import connect

from cupel.beside import LOG, STATE
from cupel.dashboard import launch, ports
from cupel.dashboard.idle import Idle, Visits
from cupel.dashboard.launch import Server
from cupel.dashboard.security import cookie_value
from cupel.errors import CupelError, UsageError
from cupel.record import processes
from dashboards import ended, eventually, said, served, start

# Where one server ends and the next takes its port, no third may come between.
pytestmark = pytest.mark.xdist_group("browser")

TOKEN = "a-token-of-some-length"


def asked(server: Server, path: str, **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


# ---- one server a root ---------------------------------------------------------------------


@pytest.mark.slow
def test_of_many_that_start_at_once_one_serves_and_the_others_find_it(tmp_path: Path) -> None:
    processes = [start(tmp_path) for _ in range(5)]
    try:
        found = eventually(lambda: launch.wait(tmp_path, 1), 60)
        serving = [one for one in processes if one.pid == found.process.pid]
        others = [said(one) for one in processes if one.pid != found.process.pid]
        assert len(serving) == 1
        assert others == [f"found {found.url}\n"] * 4
        assert serving[0].poll() is None
        assert asked(found, "/healthz") == (200, str(tmp_path))
    finally:
        for one in processes:
            ended(one)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_next_server_has_the_token_and_the_port_of_one_that_ended_anyhow(
    tmp_path: Path, how: signal.Signals
) -> None:
    with served(tmp_path) as (first, process):
        process.send_signal(how)
        assert process.wait(10) == (-9 if how == signal.SIGKILL else 0)
        assert launch.running(tmp_path) is None
        assert process.stdout is not None
        assert process.stdout.read() == f"ready {first.url}\n"  # neither traceback nor token
    with served(tmp_path) as (second, _):
        assert second.url == first.url
        assert second.process != first.process


@pytest.mark.slow
def test_two_roots_have_two_servers(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    with served(one) as (first, _), served(other) as (second, _):
        assert first.port != second.port
        assert first.token != second.token
        assert asked(first, "/healthz") == (200, str(one))
        assert asked(second, "/healthz") == (200, str(other))


@pytest.mark.slow
def test_it_listens_where_nobody_else_can_ask_and_knows_its_own_page(tmp_path: Path) -> None:
    with served(tmp_path) as (found, _):
        bearer = {"Authorization": f"Bearer {found.token}"}
        assert asked(found, "/api/v1/root")[0] == 401
        assert asked(found, "/api/v1/root", **bearer) == (200, str(tmp_path))
        assert asked(found, "/api/v1/root", Host=f"evil.example:{found.port}", **bearer)[0] == 421
        mine = socket.gethostbyname(socket.gethostname())
        if not mine.startswith("127."):
            with pytest.raises(OSError):  # noqa: PT011 - whatever the network says of it
                socket.create_connection((mine, found.port), timeout=1).close()


@pytest.mark.slow
def test_an_open_page_does_not_keep_a_server_from_ending(tmp_path: Path) -> None:
    with served(tmp_path) as (found, process):
        own = f"http://127.0.0.1:{found.port}"
        cookie = {"Cookie": f"cupel_{found.port}={cookie_value(found.token)}"}
        with connect(f"{own.replace('http', 'ws')}/ws", origin=own, additional_headers=cookie):  # type: ignore[arg-type]
            stopped = launch.stop(tmp_path)
            assert stopped == found
            assert process.wait(5) == 0
    assert launch.stop(tmp_path) is None


@pytest.mark.slow
def test_a_server_that_hangs_is_killed(tmp_path: Path) -> None:
    with served(tmp_path) as (found, process):
        process.send_signal(signal.SIGSTOP)
        assert launch.running(tmp_path) == found  # it lives, and does not answer
        assert launch.wait(tmp_path, 0.1) is None
        assert launch.stop(tmp_path, 0.2) == found
        assert process.wait(5) == -signal.SIGKILL


@pytest.mark.slow
def test_one_that_nobody_needs_ends_and_one_that_is_needed_does_not(tmp_path: Path) -> None:
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    by_hand = start(mine, idle_s=0.1)
    automatic = start(theirs, idle_s=0.1, automatic=True)
    try:
        assert said(automatic).startswith("ready")
        assert automatic.returncode == 0
        found = launch.wait(mine)
        assert found is not None
        assert not found.automatic
    finally:
        ended(by_hand)
        ended(automatic)


# ---- what is written down ------------------------------------------------------------------


@pytest.mark.slow
def test_the_token_is_for_its_owner_alone_and_in_no_log(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with served(tmp_path, token=TOKEN) as (found, _):
            folder = tmp_path / STATE.parent
            for path in folder.iterdir():
                holds = TOKEN in path.read_text()
                assert holds == (path.name == "server.json")
                assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
            assert TOKEN not in repr(found)
    finally:
        os.umask(before)


def write(root: Path, **changes: object) -> Server:
    """A server.json of this living process."""
    server = Server(
        processes.this_process(), "127.0.0.1", 8765, "http://127.0.0.1:8765", 0.0, True, False,
        "0", TOKEN,
    )  # fmt: skip
    path = root / STATE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**server.as_json(), **changes}))
    path.chmod(0o600)
    return server


def test_a_living_process_that_does_not_hold_the_lock_is_no_server(tmp_path: Path) -> None:
    """A pid that is used again, even with its very start time, does not deceive."""
    server = write(tmp_path)
    assert launch.running(tmp_path) is None
    with launch._locked(tmp_path) as is_mine:
        assert is_mine
        assert launch.running(tmp_path) == server


@pytest.mark.parametrize(
    "changes", [{"start": "1"}, {"pid": 1}, {"boot_id": "other"}, {"host": "other"}, {"pid": 0}]
)
def test_a_lock_does_not_vouch_for_another_process(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    write(tmp_path, **changes)
    with launch._locked(tmp_path):
        assert launch.running(tmp_path) is None
        with pytest.raises(CupelError, match="cannot be reached from here"):
            launch.stop(tmp_path)


def test_a_file_that_others_may_have_read_or_written_is_not_believed(tmp_path: Path) -> None:
    write(tmp_path)
    with launch._locked(tmp_path):
        (tmp_path / STATE).chmod(0o644)
        assert launch.running(tmp_path) is None
        (tmp_path / STATE).rename(tmp_path / "elsewhere")
        (tmp_path / "elsewhere").chmod(0o600)
        (tmp_path / STATE).symlink_to(tmp_path / "elsewhere")
        assert launch.running(tmp_path) is None


@given(st.one_of(st.binary(max_size=60), st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.dictionaries(
        st.sampled_from(["pid", "start", "host", "boot_id", "pid_namespace", "port", "token"]),
        inner, max_size=6,
    ), max_leaves=8,
).map(lambda value: json.dumps(value).encode())))  # fmt: skip
def test_a_damaged_file_is_no_server(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    root = tmp_path_factory.mktemp("root")
    write(root)
    (root / STATE).write_bytes(content)
    with launch._locked(root):
        assert launch.running(root) is None


def test_a_server_is_what_it_wrote(tmp_path: Path) -> None:
    server = write(tmp_path)
    assert Server.from_json(server.as_json()) == server


def test_a_disk_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No such disk is at hand, so the system's answer is given in its stead."""

    def refuse(fd: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(CupelError, match="No locks available; this disk has no locks"):
        launch.serve(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_root_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(CupelError, match="cannot write"):
        launch.serve(tmp_path)


def test_a_root_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(CupelError, match="cannot write"):
        launch.serve(tmp_path / "runs")


@pytest.mark.parametrize(
    "token", ["", "short", "a" * 15, "with a space in it", "ä" * 20, "a\n" * 9]
)
def test_a_token_that_can_be_guessed_or_not_be_sent_is_refused_and_not_repeated(
    tmp_path: Path, token: str
) -> None:
    with pytest.raises(UsageError, match="16 characters or more") as refused:
        launch.serve(tmp_path, token=token)
    assert not token or token not in str(refused.value)
    assert not (tmp_path / STATE).exists()


def test_a_factory_that_fails_leaves_no_server_behind(tmp_path: Path) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        launch.serve(tmp_path, factory=fail)  # type: ignore[arg-type]
    assert launch.running(tmp_path) is None
    with launch._locked(tmp_path) as is_mine:
        assert is_mine


# ---- ports ---------------------------------------------------------------------------------


def test_a_port_is_taken_on_both_loopbacks() -> None:
    first = ports.listen()
    try:
        families = {one.family for one in first.sockets}
        assert socket.AF_INET in families
        with pytest.raises(UsageError, match=f"port {first.port} is in use; type another"):
            ports.listen(port=first.port)
        second = ports.listen(before=first.port)
        second.close()
        assert second.port != first.port
        socket.create_connection(("127.0.0.1", first.port)).close()
    finally:
        first.close()
    again = ports.listen(port=first.port)
    again.close()


def test_the_port_of_before_is_preferred() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    found = ports.listen(before=port)
    found.close()
    assert found.port == port


def test_a_port_that_only_the_other_loopback_has_free_is_not_taken() -> None:
    """`localhost` may mean the other one, and our requests would go to a stranger."""
    if not socket.has_ipv6:
        pytest.skip("needs IPv6")
    try:
        theirs = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("needs ::1")
    with theirs, pytest.raises(UsageError, match="in use"):
        ports.listen(port=theirs.getsockname()[1])


def test_a_host_that_is_not_this_machine_is_refused() -> None:
    with pytest.raises(UsageError, match="--host must name this machine"):
        ports.listen("192.0.2.1")  # kept for documentation: nobody's
    with pytest.raises(UsageError, match="--host must name this machine"):
        ports.listen("no-such-machine.invalid")


def test_a_server_knows_the_names_it_is_called_by() -> None:
    loopback = ["localhost", "127.0.0.1", "[::1]"]
    for host in ("localhost", "127.0.0.1", "::1"):
        assert ports.hosts_of(host, 8765) == loopback
        assert ports.address_of(host, 8765) == "http://127.0.0.1:8765"
    assert ports.hosts_of("gpu1", 9000) == [*loopback, "gpu1:9000"]
    assert ports.hosts_of("2001:db8::1", 9000) == [*loopback, "[2001:db8::1]:9000"]
    everywhere = ports.hosts_of("0.0.0.0", 9000)
    assert f"{socket.gethostname()}:9000" in everywhere
    assert "127.0.0.1:9000" in everywhere
    assert "0.0.0.0:9000" not in everywhere


# ---- idleness ------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(st.floats(0, 100), st.sampled_from(["page", "request", "run", "nothing"])),
        max_size=30,
    )
)
def test_it_is_over_when_nothing_has_been_of_use_for_that_long(
    moments: list[tuple[float, str]],
) -> None:
    now, what = 0.0, "nothing"
    idle = Idle(lambda: what == "run", after_s=60, clock=lambda: now)
    visits = Visits(lambda *_: None, clock=lambda: now)  # type: ignore[arg-type,return-value]
    used = 0.0
    for seconds, what in moments:
        now += seconds
        visits.open = int(what == "page")
        if what == "request":
            visits.last = now
        if what in ("page", "request") or (what == "run" and now - used >= 60):
            used = now
        assert idle.is_over(visits) == (now - used >= 60)


def test_whether_a_run_lives_is_asked_only_when_nobody_looks() -> None:
    calls: list[bool] = []
    now = 0.0
    idle = Idle(lambda: bool(calls.append(True)), after_s=60, clock=lambda: now)
    visits = Visits(lambda *_: None)  # type: ignore[arg-type,return-value]
    visits.open = 1
    now = 100.0
    assert not idle.is_over(visits)
    assert not calls


def test_what_a_run_that_lives_is_comes_from_the_record(tmp_path: Path) -> None:
    from cupel.record.session import Session

    idle = launch._idle(tmp_path, None)
    assert not idle._lives()
    session = Session.start(root=tmp_path, project="p", name="n", config={}, identity="i")
    assert idle._lives()
    session.finish("interrupted")
    assert not idle._lives()


def test_one_that_is_started_apart_begins_its_log_anew_and_leaves_the_cores_to_others(
    tmp_path: Path,
) -> None:
    log = tmp_path / LOG
    log.parent.mkdir(parents=True)
    log.write_text("old\n")
    code = (
        "import os, pathlib; from cupel.dashboard import launch; "
        f"launch._step_back(pathlib.Path({str(tmp_path)!r})); print(os.nice(0))"
    )
    with log.open("a") as file:
        subprocess.run([sys.executable, "-c", code], stdout=file, check=True)
    assert log.read_text() == f"{min(19, os.nice(0) + launch.NICE)}\n"
