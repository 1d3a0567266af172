"""Dashboards for tests: a tiny application behind the real `serve`, in processes that end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from cupel.beside import STATE
from cupel.dashboard import launch
from cupel.dashboard.idle import Idle
from cupel.dashboard.launch import Server, serve
from cupel.dashboard.security import Guard

T = TypeVar("T")


def tiny(root: Path, *, token: str, hosts: Sequence[str], writes: bool) -> Starlette:
    """An application that says which root it is of, and a socket that stays open."""

    async def say(request: Request) -> Response:
        return PlainTextResponse(str(root))

    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        await socket.receive_text()

    return Starlette(
        routes=[Route("/healthz", say), Route("/api/v1/root", say), WebSocketRoute("/ws", talk)],
        middleware=[Middleware(Guard, hosts=hosts, token=token, writes=writes)],
    )


def start(root: Path, **options: Any) -> subprocess.Popen[str]:
    """A process that serves a root and prints what it found: `ready URL` or `found URL`."""
    return subprocess.Popen(
        [sys.executable, "-m", "dashboards", str(root), json.dumps(options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@contextmanager
def served(root: Path, **options: Any) -> Iterator[tuple[Server, subprocess.Popen[str]]]:
    """A server that runs and answers, and its process; both are gone afterwards."""
    process = start(root, **options)
    try:
        found = launch.wait(root, 30)
        assert found is not None, said(process)
        yield found, process
    finally:
        ended(process)


def ended(process: subprocess.Popen[str]) -> None:
    """Take away a process that may have ended."""
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def said(process: subprocess.Popen[str]) -> str:
    """All that a process said, when it ends by itself."""
    return process.communicate(timeout=30)[0]


@contextmanager
def stopped(root: Path) -> Iterator[None]:
    """Whatever dashboard of a root runs at the end of this is ended, also one that is starting."""
    try:
        yield
    finally:
        time.sleep(0.1)
        for _ in range(100):
            if not launch._is_locked(root):
                break
            launch.stop(root) if launch.running(root) else time.sleep(0.1)
        assert not launch._is_locked(root), "a dashboard outlives its test"


def eventually(found: Callable[[], T], timeout: float = 20) -> T:
    """What is true in the end, or an AssertionError."""
    until = time.monotonic() + timeout
    while not (value := found()):
        assert time.monotonic() < until, "it did not come to pass"
        time.sleep(0.02)
    return value


def state(root: Path) -> dict[str, Any]:
    """What the last server of a root wrote down."""
    found: dict[str, Any] = json.loads((root / STATE).read_text())
    return found


def environment(**more: str) -> Mapping[str, str]:
    """The environment of a command at which nobody looks on, but for what is given."""
    left = {k: v for k, v in os.environ.items() if not k.startswith(("CUPEL_", "PYTEST_", "CI"))}
    return {**left, **more}


def main(root: str, options: str) -> None:
    given = json.loads(options)
    if "idle_s" in given:
        given["idle"] = Idle(lambda: False, after_s=given.pop("idle_s"))
        launch._IDLE_EVERY_S = 1

    def ready(server: Server) -> None:
        print("ready", server.url, flush=True)

    found = serve(Path(root), factory=tiny, ready=ready, **given)
    if found is not None:
        print("found", found.url, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
