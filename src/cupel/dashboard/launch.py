"""The one dashboard of a record's root: `serve` it, find it, start it apart, end it.

    root/.cache/dashboard/lock           held by the server for as long as it lives
    root/.cache/dashboard/server.json    which process it is, where it listens, its token (0600)
    root/.cache/dashboard/log            what one that was started apart has printed

The lock decides: of any number that start at once one serves, and the others find it. It is the
system's, so no kill leaves it behind; it needs a POSIX system, and a disk that has locks. The port
and the token of before are used again, so that pages that are open find the next server.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import os
import re
import secrets
import signal
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol

from cupel import beside
from cupel.dashboard import ports
from cupel.errors import CupelError, RecordError, UsageError
from cupel.record import files, processes
from cupel.record.processes import Process

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import ASGIApp

    from cupel.dashboard.idle import Idle, Visits

SCHEMA = 1
LOCK = beside.FOLDER / "lock"
NICE = 5  # of one that was started beside a training
LEAST_TOKEN = 16  # characters

_TOKEN = re.compile(rf"[A-Za-z0-9._~-]{{{LEAST_TOKEN},512}}")
_STARTING_S, _ENDING_S, _LOOK_EVERY_S = 10.0, 5.0, 0.05
_GRACE_S = 2
_IDLE_EVERY_S = 20
_LONGEST_MESSAGE = 64 * 1024


class Factory(Protocol):
    """What makes the application: `cupel.dashboard.app.create_app`."""

    def __call__(
        self, root: Path, *, token: str, hosts: Sequence[str], writes: bool
    ) -> ASGIApp: ...


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs. `host` is what it was asked to listen on; its token opens everything."""

    process: Process
    host: str
    port: int
    address: str
    started: float
    automatic: bool
    writes: bool
    version: str
    token: str = field(repr=False)

    @property
    def url(self) -> str:
        """What to open in a browser; the token is in the part that is never sent to a server."""
        return f"{self.address}/#t={self.token}"

    def as_json(self) -> dict[str, Any]:
        """What is written down. `host` is the machine, as in all that says which process it is."""
        return {
            "schema": SCHEMA,
            **self.process.as_json(),
            "listens_on": self.host,
            "port": self.port,
            "address": self.address,
            "started": self.started,
            "automatic": self.automatic,
            "writes": self.writes,
            "version": self.version,
            "token": self.token,
        }

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Server:
        """The inverse. Raises KeyError, TypeError or ValueError on anything else."""
        return cls(
            Process.from_json(found),
            str(found["listens_on"]),
            int(found["port"]),
            str(found["address"]),
            float(found["started"]),
            bool(found["automatic"]),
            bool(found["writes"]),
            str(found["version"]),
            str(found["token"]),
        )


# ---- the one that runs ---------------------------------------------------------------------


def running(root: Path) -> Server | None:
    """The server of a root, if one runs that may be seen from here; else None."""
    found = _read(root)
    if found is None or not _is_ours(found.process) or not _is_locked(root):
        return None
    return found


def wait(root: Path, timeout: float = _STARTING_S) -> Server | None:
    """The server of a root once it answers; None when it does not within so many seconds."""
    until = time.monotonic() + timeout
    while True:
        found = running(root)
        if found is not None and _answers(found):
            return found
        if time.monotonic() > until:
            return None
        time.sleep(_LOOK_EVERY_S)


def start_detached(root: Path) -> None:
    """Start a server as a process of its own, as beside a training, and go on. Raises OSError.

    It does nothing where one runs; `wait` for it.
    """
    beside.spawn(root.absolute(), "--automatic")


def stop(root: Path, timeout: float = _ENDING_S) -> Server | None:
    """End the server of a root, and the one that ran; None when none did. Raises CupelError.

    It is asked first, and killed when it has not ended within so many seconds.
    """
    found = running(root)
    if found is None:
        _refuse_unseen(root)
        return None
    for how, seconds in ((signal.SIGTERM, timeout), (signal.SIGKILL, timeout)):
        with contextlib.suppress(ProcessLookupError):
            if _is_ours(found.process):
                os.kill(found.process.pid, how)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if not _is_ours(found.process):
                return found
            time.sleep(_LOOK_EVERY_S)
    raise CupelError(
        f"the dashboard of {root}, process {found.process.pid}, does not end; it waits for a disk"
    )


def _read(root: Path) -> Server | None:
    """What the last server said of itself, unless others may have written or read it."""
    path = root / beside.STATE
    try:
        seen = path.lstat()
        if seen.st_uid != os.getuid() or stat.S_IMODE(seen.st_mode) != 0o600:
            return None
        return Server.from_json(files.read_json(path))
    except (OSError, RecordError, KeyError, TypeError, ValueError, OverflowError):
        return None


def _is_ours(process: Process) -> bool:
    """Whether that very process lives, at this place."""
    here = processes.this_place()
    return (
        here.shares_pids_with(process.place)
        and here.boot_id == process.place.boot_id
        and processes.lives(process.pid, process.start)
    )


def _answers(server: Server) -> bool:
    name = server.address.partition("://")[2]
    asked = http.client.HTTPConnection(name, timeout=2)
    try:
        asked.request("GET", "/healthz")
        return asked.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        asked.close()


# ---- the lock ------------------------------------------------------------------------------


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[bool]:
    """A context in which this process is the server of a root, or hears that another one is."""
    path = root / LOCK
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise RecordError(
            f"cannot write {path}: {error.strerror}; the dashboard of a root keeps its state there"
        ) from error
    try:
        yield _lock(fd, fcntl.LOCK_EX, path)
    finally:
        os.close(fd)


def _is_locked(root: Path) -> bool:
    """Whether somebody is the server of a root."""
    path = root / LOCK
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # another user's
    try:
        return not _lock(fd, fcntl.LOCK_SH, path)
    finally:
        os.close(fd)


def _lock(fd: int, kind: int, path: Path) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise CupelError(
            f"cannot lock {path}: {error.strerror}; this disk has no locks, as some network disks: "
            "keep the root on another one, or look at a copy with --root"
        ) from error
    return True


def _refuse_unseen(root: Path) -> None:
    """Raise CupelError when a server runs that cannot be asked from here."""
    if not _is_locked(root):
        return
    found = _read(root)
    where = f"on {found.process.place.host}" if found else "of another user"
    raise CupelError(
        f"a dashboard of {root} runs already, {where}, and cannot be reached from here; end it "
        "there with: cupel dashboard --stop"
    )


# ---- serving -------------------------------------------------------------------------------


def serve(
    root: Path,
    *,
    host: str = ports.LOOPBACK,
    port: int | None = None,
    token: str | None = None,
    writes: bool = False,
    automatic: bool = False,
    factory: Factory | None = None,
    ready: Callable[[Server], object] = lambda server: None,
    idle: Idle | None = None,
) -> Server | None:
    """Serve a root until SIGINT or SIGTERM; or, at once, the server that does so already.

    `ready` hears where, once connections are taken. An automatic one ends by itself when it is
    of no use; `idle` says when. Raises UsageError and CupelError.
    """
    root = root.absolute()
    if token is not None:
        check_token(token)
    until = time.monotonic() + _STARTING_S
    while True:
        with _locked(root) as is_mine:
            if is_mine:
                made = _Made(root, host, port, token, writes, automatic)
                _serve(made, factory or _create_app, ready, idle)
                return None
        found = running(root)
        if found is not None:
            return found
        if time.monotonic() > until:  # longer than anybody takes to say where it listens
            _refuse_unseen(root)
            raise CupelError(f"another dashboard of {root} is starting and does not get on")
        time.sleep(_LOOK_EVERY_S)


def check_token(token: str) -> None:
    """Raise UsageError for what cannot be a token; it is not repeated."""
    if not _TOKEN.fullmatch(token):
        raise UsageError(
            f"the token must be {LEAST_TOKEN} characters or more of A-Z, a-z, 0-9 and -._~; make "
            'one with: python -c "import secrets; print(secrets.token_urlsafe(32))"'
        )


@dataclass(slots=True)
class _Made:
    """What a server is asked to be."""

    root: Path
    host: str
    port: int | None
    token: str | None
    writes: bool
    automatic: bool


def _create_app(root: Path, *, token: str, hosts: Sequence[str], writes: bool) -> ASGIApp:
    from cupel.dashboard.app import create_app

    return create_app(root, token=token, hosts=hosts, writes=writes)


def _serve(
    made: _Made, factory: Factory, ready: Callable[[Server], object], idle: Idle | None
) -> None:
    """Serve, as the one who has the lock."""
    from cupel.dashboard.idle import Visits

    if made.automatic:
        _step_back(made.root)
    before = _read(made.root)
    listening = ports.listen(
        made.host, port=made.port, before=before.port if before is not None else None
    )
    try:
        server = Server(
            processes.this_process(),
            made.host,
            listening.port,
            ports.address_of(made.host, listening.port),
            time.time(),
            made.automatic,
            made.writes,
            version("cupel"),
            made.token or (before.token if before is not None else secrets.token_urlsafe(32)),
        )
        hosts = ports.hosts_of(made.host, listening.port)
        app = factory(made.root, token=server.token, hosts=hosts, writes=made.writes)
        _write(made.root, server.as_json())
        try:
            ready(server)
            visits = Visits(app)
            _run(visits, listening, _idle(made.root, idle) if made.automatic else None)
        finally:
            _write(made.root, {**server.as_json(), "pid": 0, "start": "", "ended": time.time()})
    finally:
        listening.close()


def _step_back(root: Path) -> None:
    """Leave the cores to who trains, and begin the log anew if that is what is printed to."""
    os.nice(NICE)
    with contextlib.suppress(OSError):
        if os.path.samestat(os.fstat(1), (root / beside.LOG).stat()):
            os.ftruncate(1, 0)


def _write(root: Path, fields: dict[str, Any]) -> None:
    """Write the file of the server, for nobody else to read at any moment."""
    before = os.umask(0o077)
    try:
        files.write_json(root / beside.STATE, fields, lasting=False)
    except OSError as error:
        raise RecordError(f"cannot write {root / beside.STATE}: {error.strerror}") from error
    finally:
        os.umask(before)


def _idle(root: Path, given: Idle | None) -> Idle:
    if given is not None:
        return given
    from cupel.dashboard.idle import Idle
    from cupel.record.index import Index

    index = Index(root)

    def lives() -> bool:
        return any(row["status"] == "running" for row in index.rows())

    return Idle(lives)


def _run(visits: Visits, listening: ports.Listening, idle: Idle | None) -> None:
    """Serve until a signal, or until it has been idle for long."""
    import asyncio
    import logging

    import uvicorn

    async def look() -> None:
        if idle is not None and await asyncio.to_thread(idle.is_over, visits):
            server.should_exit = True

    # Errors of ours to it, and none to anybody: a page without a token that tries again, and one
    # that was waiting for an answer when the server was stopped.
    noise = ("without completing handshake", "timeout graceful shutdown exceeded")
    logging.getLogger("uvicorn.error").addFilter(
        lambda line: not any(part in line.getMessage() for part in noise)
    )
    config = uvicorn.Config(
        visits,
        loop="asyncio",
        http="h11",
        ws="websockets-sansio",
        ws_max_size=_LONGEST_MESSAGE,
        ws_per_message_deflate=False,
        lifespan="on",
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
        callback_notify=look,
        timeout_notify=_IDLE_EVERY_S,
    )
    server = uvicorn.Server(config)

    def end(number: int, frame: FrameType | None) -> None:
        server.should_exit = True

    # uvicorn has its own meanwhile, and sends itself what it heard when it has ended: it would
    # die of that before our state is put in order.
    kinds = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    heard = [kind for kind in kinds if signal.getsignal(kind) not in (None, signal.SIG_IGN)]
    handlers = {kind: signal.signal(kind, end) for kind in heard}
    try:
        server.run(sockets=listening.sockets)
    finally:
        for kind, handler in handlers.items():
            signal.signal(kind, handler)
