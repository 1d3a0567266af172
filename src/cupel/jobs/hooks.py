"""Tells others of alerts: a URL gets each as JSON by POST, a command on its stdin; `Hooks`.

Each of the two has a thread and a short queue of its own, so a URL that hangs delays neither the
caller nor the command. Telling is tried, not promised: what does not get through is counted, and
told once. Nothing here raises, except `check_hooks`, which refuses early what could never work.
"""

from __future__ import annotations

import contextlib
import os
import queue
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from http import HTTPStatus
from typing import IO, Any
from urllib.parse import urlsplit

from cupel.errors import UsageError
from cupel.jobs.alerts import Alert
from cupel.record import codec

POST_S = 10.0  # for each answer of the URL
WAITS_S = (1.0, 5.0)  # before the second and the third attempt
COMMAND_S = 30.0
WAITING = 100  # alerts that wait; more of them are lost, which counts as failures
_SHOWN = 200  # characters of what a command says
# Later, the same may get through.
_PASSING = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}


def check_hooks(*, webhook: str | None = None, command: str | None = None) -> None:
    """Raise UsageError for a URL that is not of http or https, or a command that is not there."""
    if webhook is not None and not _is_web_address(webhook):
        raise UsageError(
            f"study.alerts.webhook: '{_shown(webhook)}' is no address of the web; give one such as "
            "https://host/path, without a user or a password"
        )
    if command is None:
        return
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(
            f"study.alerts.command: {str(error).lower()} in '{_shown(command)}'; quote it as a "
            "shell would want it"
        ) from error
    if not words or shutil.which(words[0]) is None:
        named = f"'{_shown(words[0])}' is not there to be run" if words else "it is empty"
        raise UsageError(
            f"study.alerts.command: {named}; give a program of this machine and its arguments, or "
            "null"
        )


class Hooks:
    """Delivers alerts until `close`. `about` (the study, the project, …) goes with each of them.

    `on_problem` hears, in a line and from another thread, the first failure of the URL and the
    first of the command. Raises UsageError as `check_hooks` does.
    """

    def __init__(
        self,
        *,
        webhook: str | None = None,
        command: str | None = None,
        about: Mapping[str, Any] | None = None,
        on_problem: Callable[[str], object] = lambda problem: None,
        post_s: float = POST_S,
        waits_s: Sequence[float] = WAITS_S,
        command_s: float = COMMAND_S,
    ) -> None:
        check_hooks(webhook=webhook, command=command)
        self._about = dict(about or {})
        self._lanes: list[_Lane] = []
        if webhook is not None:
            self._lanes.append(_Web(webhook, on_problem, post_s, waits_s))
        if command is not None:
            self._lanes.append(_Command(command, on_problem, command_s))

    def deliver(self, alert: Alert) -> None:
        """Queue an alert; returns at once."""
        content = codec.encode_event({**self._about, **asdict(alert)})
        for lane in self._lanes:
            lane.put(content)

    def close(self, timeout: float = 5.0) -> bool:
        """Wait until all is delivered, at most so many seconds; whether it was.

        What waits then is not delivered any more, and counts as failed; a command that still runs
        is killed.
        """
        end = time.monotonic() + timeout
        done = [lane.close(end) for lane in self._lanes]
        return all(done)

    @property
    def failures(self) -> int:
        """How many times an alert did not get through to the URL or to the command."""
        return sum(lane.failures for lane in self._lanes)


class _Failed(Exception):
    """A delivery that did not get through; `passing` when another attempt may."""

    def __init__(self, why: str, *, passing: bool = False) -> None:
        super().__init__(why)
        self.passing = passing


class _Lane:
    """One queue and the thread that empties it."""

    def __init__(self, name: str, on_problem: Callable[[str], object]) -> None:
        self.name, self.failures = name, 0
        self._on_problem = on_problem
        self._queue: queue.Queue[bytes | None] = queue.Queue(WAITING)
        self._lock = threading.Lock()
        self._closing = threading.Event()  # no more alerts; what waits is still delivered
        self._over = threading.Event()  # the time is over
        self._thread = threading.Thread(target=self._work, name=f"cupel-{name}", daemon=True)
        self._thread.start()

    def put(self, content: bytes) -> None:
        if self._closing.is_set():
            self._failed("it came after the end")
            return
        try:
            self._queue.put_nowait(content)
        except queue.Full:
            self._failed(f"{WAITING} alerts wait already")

    def close(self, end: float) -> bool:
        """Deliver what waits until `end`, by the monotonic clock; whether there was time for it."""
        self._closing.set()
        with contextlib.suppress(queue.Full):  # then nobody waits for the queue, either
            self._queue.put_nowait(None)
        self._thread.join(max(0.0, end - time.monotonic()))
        done = not self._thread.is_alive()
        self._over.set()
        self.interrupt()
        with contextlib.suppress(queue.Empty):
            while True:
                if self._queue.get_nowait() is not None:
                    self._failed("there was no time left")
        return done

    def send(self, content: bytes) -> None:
        """Deliver one. Raises _Failed."""
        raise NotImplementedError

    def interrupt(self) -> None:
        """End what `send` is doing, if that is possible."""

    def _work(self) -> None:
        while True:
            try:
                content = self._queue.get(block=not self._closing.is_set())
            except queue.Empty:
                return
            try:
                if content is not None:
                    self.send(content)
            except Exception as error:  # whatever it is, alerts never disturb a study
                self._failed(str(error) or type(error).__name__)

    def _failed(self, why: str) -> None:
        with self._lock:
            self.failures += 1
            first = self.failures == 1
        if first:
            with contextlib.suppress(Exception):
                self._on_problem(f"an alert did not get through to the {self.name}: {why}")


class _Web(_Lane):
    def __init__(
        self,
        url: str,
        on_problem: Callable[[str], object],
        post_s: float,
        waits_s: Sequence[float],
    ) -> None:
        self._url, self._post_s, self._waits_s = url, post_s, waits_s
        # The rest of such an address is often a secret.
        super().__init__(f"webhook at {urlsplit(url).hostname}", on_problem)

    def send(self, content: bytes) -> None:
        for wait in (*self._waits_s, None):
            try:
                self._post(content)
                return
            except _Failed as failed:
                if wait is None or not failed.passing or self._over.wait(wait):
                    raise

    def _post(self, content: bytes) -> None:
        # Here, since it brings in ssl and email, 10 MB that a study without a webhook never needs.
        from http.client import HTTPException
        from urllib.error import HTTPError, URLError
        from urllib.request import HTTPRedirectHandler, Request, build_opener

        class Stay(HTTPRedirectHandler):
            def redirect_request(self, *_: Any) -> None:
                """None: after a redirect urllib would GET, and the alert would be lost."""

        headers = {"Content-Type": "application/json", "User-Agent": "cupel"}
        request = Request(self._url, content, headers, method="POST")
        try:
            build_opener(Stay).open(request, timeout=self._post_s).close()
        except HTTPError as error:
            error.close()
            passing = error.code >= 500 or error.code in _PASSING
            raise _Failed(f"it answered {error.code} {error.reason}", passing=passing) from None
        except URLError as error:
            raise _Failed(str(error.reason), passing=True) from None
        except (OSError, HTTPException) as error:
            raise _Failed(str(error) or type(error).__name__, passing=True) from None


class _Command(_Lane):
    def __init__(self, command: str, on_problem: Callable[[str], object], limit_s: float) -> None:
        self._words, self._limit_s = shlex.split(command), limit_s
        self._process: subprocess.Popen[bytes] | None = None
        super().__init__(f"command {self._words[0]}", on_problem)

    def send(self, content: bytes) -> None:
        # Into a file, not a pipe: whatever the command leaves running could keep that open.
        with tempfile.TemporaryFile() as said:
            try:
                process = subprocess.Popen(
                    self._words,
                    stdin=subprocess.PIPE,
                    stdout=said,
                    stderr=said,
                    start_new_session=True,
                )
            except OSError as error:
                raise _Failed(str(error.strerror)) from error
            self._process = process
            if self._over.is_set():  # since it was started
                self.interrupt()
            try:
                process.communicate(content, timeout=self._limit_s)
            except subprocess.TimeoutExpired:
                self.interrupt()
                process.wait()
                raise _Failed(f"it ran longer than {self._limit_s:g} s and was killed") from None
            finally:
                self._process = None
            if process.returncode:
                raise _Failed(f"it ended with code {process.returncode}{_last_line(said)}")

    def interrupt(self) -> None:
        process = self._process
        if process is not None and process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _is_web_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        fits = fits and parts.username is None  # urllib would take it for a part of the host
    except ValueError:
        return False
    return fits and url.isascii() and url.isprintable() and " " not in url


def _shown(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:57]}…"


def _last_line(said: IO[bytes]) -> str:
    said.seek(max(0, said.seek(0, os.SEEK_END) - 4096))
    lines = said.read().decode(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f": {last[:_SHOWN]}" if last else ""
