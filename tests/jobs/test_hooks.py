"""Alerts reach a URL and a command, and neither can disturb who sends them."""

from __future__ import annotations

import json
import os
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cupel.errors import UsageError
from cupel.jobs.alerts import Alert
from cupel.jobs.hooks import WAITING, Hooks, check_hooks

ALERT = Alert("disk", True, "5 % of the disk is free; the limit is 10 %", "error", 1.5)
QUICK = (0.01, 0.02)


class Server:
    """An HTTP server; `answers` are taken one after the other, the last one again and again.

    An answer is a status, or None to hang until the end.
    """

    def __init__(self) -> None:
        self.answers: list[int | None] = [200]
        self.got: list[tuple[str, dict[str, str], Any]] = []
        self.over = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                outer.got.append((self.path, headers, json.loads(content)))
                answers = outer.answers
                answer = answers.pop(0) if len(answers) > 1 else answers[0]
                if answer is None:
                    outer.over.wait(30)
                    return
                self.send_response(answer)
                if 300 <= answer < 400:
                    self.send_header("Location", "/elsewhere")
                self.end_headers()

            def do_GET(self) -> None:
                outer.got.append((self.path, {}, None))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Nothing: tests are quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"

    def close(self) -> None:
        self.over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    found = Server()
    yield found
    found.close()


def python(code: str) -> str:
    """A command that runs code."""
    return shlex.join([sys.executable, "-c", code])


def alert(number: int) -> Alert:
    return Alert(f"silent/r{number}", True, "…", "warning", float(number))


def comes_true(holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + 20
    while not holds() and time.monotonic() < end:
        time.sleep(0.01)
    return holds()


def test_the_url_gets_each_alert_as_json(server: Server) -> None:
    hooks = Hooks(webhook=server.url, about={"study": "s"})
    hooks.deliver(ALERT)
    hooks.deliver(alert(2))
    assert hooks.close(20)
    assert hooks.failures == 0
    path, headers, first = server.got[0]
    assert (path, headers["content-type"]) == ("/hook", "application/json")
    assert first == {
        "study": "s", "key": "disk", "raised": True, "severity": "error", "t": 1.5,
        "text": "5 % of the disk is free; the limit is 10 %",
    }  # fmt: skip
    assert [content["key"] for _, _, content in server.got] == ["disk", "silent/r2"]


def test_the_command_gets_each_alert_on_its_stdin(tmp_path: Path) -> None:
    out = tmp_path / "out"
    hooks = Hooks(
        command=python(f"import sys; open({str(out)!r}, 'a').write(sys.stdin.read())"),
        about={"study": "s"},
    )
    hooks.deliver(ALERT)
    hooks.deliver(alert(2))
    assert hooks.close(20)
    assert hooks.failures == 0
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(one["study"], one["key"]) for one in found] == [("s", "disk"), ("s", "silent/r2")]


def test_the_command_is_run_by_no_shell(tmp_path: Path) -> None:
    out = tmp_path / "out"
    code = f"import sys; open({str(out)!r}, 'w').write(repr(sys.argv[1:]))"
    hooks = Hooks(command=f"{python(code)} '$HOME' ; *")
    hooks.deliver(ALERT)
    assert hooks.close(20)
    assert out.read_text() == repr(["$HOME", ";", "*"])


def test_without_hooks_nothing_is_delivered_and_nothing_fails() -> None:
    hooks = Hooks()
    hooks.deliver(ALERT)
    assert hooks.close(0)
    assert hooks.failures == 0


def test_a_server_that_recovers_gets_the_alert_once_more(server: Server) -> None:
    server.answers = [500, 503, 200]
    problems: list[str] = []
    hooks = Hooks(webhook=server.url, on_problem=problems.append, waits_s=QUICK)
    hooks.deliver(ALERT)
    assert hooks.close(20)
    assert (len(server.got), hooks.failures, problems) == (3, 0, [])


def test_a_server_that_does_not_recover_is_counted_each_time_and_told_once(server: Server) -> None:
    server.answers = [500]
    problems: list[str] = []
    hooks = Hooks(webhook=server.url, on_problem=problems.append, waits_s=QUICK)
    for number in range(3):
        hooks.deliver(alert(number))
    assert hooks.close(20)
    assert (len(server.got), hooks.failures) == (9, 3)
    assert problems == [
        "an alert did not get through to the webhook at 127.0.0.1: it answered 500 Internal Server "
        "Error"
    ]


@pytest.mark.parametrize("answer", [400, 404, 302])
def test_what_will_not_pass_is_not_tried_again_and_redirects_are_not_followed(
    server: Server, answer: int
) -> None:
    server.answers = [answer]
    hooks = Hooks(webhook=server.url, waits_s=QUICK)
    hooks.deliver(ALERT)
    assert hooks.close(20)
    assert ([path for path, _, _ in server.got], hooks.failures) == (["/hook"], 1)


@pytest.mark.slow
def test_a_server_that_hangs_is_left_after_the_timeout_and_tried_again(server: Server) -> None:
    server.answers = [None, 200]
    hooks = Hooks(webhook=server.url, post_s=0.2, waits_s=QUICK)
    hooks.deliver(ALERT)
    assert hooks.close(20)
    assert (len(server.got), hooks.failures) == (2, 0)


@pytest.mark.slow
def test_a_server_that_hangs_delays_neither_the_caller_nor_the_command(
    server: Server, tmp_path: Path
) -> None:
    server.answers = [None]
    out = tmp_path / "out"
    problems: list[str] = []
    hooks = Hooks(
        webhook=server.url,
        command=python(f"open({str(out)!r}, 'a').write('.')"),
        on_problem=problems.append,
    )
    begun = time.monotonic()
    hooks.deliver(ALERT)
    for number in range(3):
        hooks.deliver(alert(number))
    assert time.monotonic() - begun < 1
    assert comes_true(lambda: out.exists() and out.read_text() == "....")
    assert comes_true(lambda: len(server.got) == 1)
    begun = time.monotonic()
    assert not hooks.close(0.2)
    assert time.monotonic() - begun < 5
    assert hooks.failures >= 3, "the three that waited"
    assert problems == [
        "an alert did not get through to the webhook at 127.0.0.1: there was no time left"
    ]


def test_the_queue_of_a_dead_url_is_bounded(server: Server) -> None:
    server.answers = [None]
    hooks = Hooks(webhook=server.url)
    hooks.deliver(ALERT)
    assert comes_true(lambda: len(server.got) == 1)
    for number in range(WAITING + 7):
        hooks.deliver(alert(number))
    assert hooks.failures == 7
    assert not hooks.close(0)
    assert hooks.failures >= 7 + WAITING


def test_nobody_at_the_other_end_is_a_failure_and_no_exception(server: Server) -> None:
    server.close()
    problems: list[str] = []
    hooks = Hooks(webhook=server.url, on_problem=problems.append, waits_s=QUICK)
    hooks.deliver(ALERT)
    assert hooks.close(20)
    assert hooks.failures == 1
    assert "refused" in problems[0]


def test_a_secret_in_the_address_is_not_told(server: Server) -> None:
    server.answers = [403]
    problems: list[str] = []
    hooks = Hooks(webhook=f"{server.url}/s3cret?token=s3cret", on_problem=problems.append)
    hooks.deliver(ALERT)
    assert hooks.close(20)
    assert len(problems) == 1
    assert "s3cret" not in problems[0]
    assert server.got[0][0] == "/hook/s3cret?token=s3cret"


def test_a_command_that_fails_is_told_with_its_last_line(tmp_path: Path) -> None:
    problems: list[str] = []
    code = "import sys; print('one'); sys.exit('no such channel')"
    hooks = Hooks(command=python(code), on_problem=problems.append)
    hooks.deliver(ALERT)
    hooks.deliver(ALERT)
    assert hooks.close(20)
    assert hooks.failures == 2
    assert problems == [
        f"an alert did not get through to the command {sys.executable}: it ended with code 1: "
        "no such channel"
    ]


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or ") Z " not in stat.read_text()


def forking(out: Path) -> str:
    """A command that never ends, and has a child that never does; `out` gets both pids."""
    return python(
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(out)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}} ')\n"
        "time.sleep(60)"
    )


def pids(out: Path) -> list[int]:
    assert comes_true(lambda: out.exists() and out.read_text().endswith(" "))
    return [int(pid) for pid in out.read_text().split()]


@pytest.mark.slow
def test_a_command_that_hangs_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    out = tmp_path / "out"
    problems: list[str] = []
    hooks = Hooks(command=forking(out), on_problem=problems.append, command_s=2)
    hooks.deliver(ALERT)
    found = pids(out)
    assert hooks.close(20)
    assert comes_true(lambda: not any(map(lives, found)))
    assert hooks.failures == 1
    assert problems[0].endswith("it ran longer than 2 s and was killed")


@pytest.mark.slow
def test_at_the_end_a_command_that_still_runs_is_killed(tmp_path: Path) -> None:
    hooks = Hooks(command=forking(tmp_path / "out"))
    hooks.deliver(ALERT)
    found = pids(tmp_path / "out")
    assert not hooks.close(0.1)
    assert comes_true(lambda: not any(map(lives, found)))
    assert comes_true(lambda: hooks.failures == 1)


def test_a_command_that_reads_nothing_succeeds() -> None:
    hooks = Hooks(command="true", about={"much": "x" * 500_000})
    hooks.deliver(ALERT)
    assert hooks.close(20)
    assert hooks.failures == 0


def test_a_listener_that_raises_disturbs_nothing(server: Server) -> None:
    server.answers = [404, 200]

    def broken(problem: str) -> None:
        raise RuntimeError(problem)

    hooks = Hooks(webhook=server.url, on_problem=broken)
    hooks.deliver(ALERT)
    hooks.deliver(ALERT)
    assert hooks.close(20)
    assert (len(server.got), hooks.failures) == (2, 1)


def test_after_the_end_an_alert_is_counted_as_failed(server: Server) -> None:
    hooks = Hooks(webhook=server.url)
    assert hooks.close(20)
    hooks.deliver(ALERT)
    assert (server.got, hooks.failures) == ([], 1)
    assert hooks.close(0)


@pytest.mark.parametrize(
    "url",
    [
        "", "example.org", "ftp://example.org/x", "file:///etc/passwd", "https://", "https:///x",
        "http://host:port/", "http://host:99999/", "http://[::1/", "http://user:word@host/",
        "http://host/a b", "http://host/\n", "httpx://host",
    ],
)  # fmt: skip
def test_a_url_that_could_never_work_is_refused_in_a_line(url: str) -> None:
    with pytest.raises(UsageError, match=r"\Astudy.alerts.webhook: .* is no address of .+\Z"):
        check_hooks(webhook=url)
    with pytest.raises(UsageError):
        Hooks(webhook=url)


@pytest.mark.parametrize(
    "command, said",
    [
        ("", "it is empty"),
        ("no-such-program-here --x", "'no-such-program-here' is not there"),
        ("/etc/passwd", "'/etc/passwd' is not there to be run"),
        ("mail 'me", "no closing quotation"),
    ],
)
def test_a_command_that_could_never_work_is_refused_in_a_line(command: str, said: str) -> None:
    with pytest.raises(UsageError, match=rf"\Astudy.alerts.command: {said}.+\Z"):
        check_hooks(command=command)


def test_good_hooks_are_not_refused() -> None:
    check_hooks()
    check_hooks(webhook="https://hooks.example.org:8443/T00/B00?x=1", command="true --with 'args'")
    check_hooks(webhook="http://[::1]:8080/x")
