"""The servers that are compared, each started as its own pages say, and what they use."""

from __future__ import annotations

import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
from peers import python_of

TOKEN = secrets.token_urlsafe(24)
_TRACKIO = (
    "import sys, trackio; trackio.show(project='bench', open_browser=False, "
    "server_port=int(sys.argv[1]), block_thread=True)"
)


@dataclass
class Server:
    """One that answers."""

    tool: str
    address: str
    process: psutil.Process
    serving_s: float
    """From its start until it answered a request."""
    data_s: float
    """From its start until all runs could be asked for."""

    def cpu(self) -> float:
        """Processor seconds of it and of all that it started."""
        found = 0.0
        for process in self._all():
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue
            found += times.user + times.system
        return found

    def rss_mb(self) -> float:
        """Resident memory of it and of all that it started."""
        return sum(process.memory_info().rss for process in self._all()) / 1e6

    def kill(self, number: int) -> None:
        for process in self._all():
            process.send_signal(number)

    def _all(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]


@contextmanager
def serving(
    tool: str, folder: Path, runs: Sequence[str], *, automatic: bool = False, code: str = ""
) -> Iterator[Server]:
    """A tool's server on its folder, until the end of this.

    Of ours: `automatic` as a training starts it, and `code` that is run before.
    """
    port = free_port()
    log = folder.parent / f"{tool}.log"
    began = time.perf_counter()
    with log.open("wb") as out:
        process = subprocess.Popen(
            [python_of(tool), *_command(tool, folder, port, automatic=automatic, code=code)],
            stdout=out,
            stderr=out,
            env=_environment(tool, folder),
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        _until(process, log, lambda: _get(port, "/healthz" if tool == "cupel" else "/") is not None)
        serving_s = time.perf_counter() - began
        _until(process, log, lambda: _has_all(tool, port, len(runs)))
        data_s = time.perf_counter() - began
        yield Server(tool, address, psutil.Process(process.pid), serving_s, data_s)
    finally:
        _end(process)


def page_of(tool: str, address: str, runs: Sequence[str]) -> str:
    """Where a person sees all runs in one chart."""
    if tool == "tensorboard":
        return address + "/"
    if tool == "trackio":
        return address + "/?project=bench"
    asked = "&".join(f"run={quote(key, safe='')}" for key in runs)
    return f"{address}/compare?{asked}#t={TOKEN}"


def run_page(address: str, key: str, more: str = "") -> str:
    """Our page of one run."""
    return f"{address}/run/{key}{more}#t={TOKEN}"


def forget(tool: str, folder: Path) -> None:
    """Take away what a tool can make anew from what was logged."""
    if tool == "cupel":
        shutil.rmtree(folder / ".cache", ignore_errors=True)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


def _command(tool: str, folder: Path, port: int, *, automatic: bool, code: str) -> list[str]:
    if tool == "tensorboard":
        return ["-m", "tensorboard.main", "--logdir", str(folder), "--port", str(port)]
    if tool == "trackio":
        return ["-c", _TRACKIO, str(port)]
    how = (
        ["-m", "cupel"] if not code else ["-c", f"{code}; from cupel.cli.main import main; main()"]
    )
    more = ["--automatic"] if automatic else []
    return [*how, "dashboard", "--root", str(folder), "--port", str(port), "--no-open", *more]


def _environment(tool: str, folder: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("CUPEL_")}
    more = {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    if tool == "cupel":
        more["CUPEL_DASHBOARD_TOKEN"] = TOKEN
    if tool == "trackio":
        more |= {"TRACKIO_DIR": str(folder), "HF_HUB_OFFLINE": "1"}
    return kept | more


def _has_all(tool: str, port: int, runs: int) -> bool:
    """Whether all runs can be asked for; TensorBoard alone answers before it has read them."""
    if tool != "tensorboard":
        return True
    found = _get(port, "/data/plugin/scalars/tags")
    if found is None:
        return False
    tags: dict[str, Any] = json.loads(found)
    if len(tags) < runs:
        return False
    # Its loader goes through the files in turns; the last step says that a run is read.
    for run in tags:
        series = _get(port, f"/data/plugin/scalars/scalars?run={run}&tag=loss")
        if series is None or not json.loads(series):
            return False
    return _settled(port, list(tags))


def _settled(port: int, runs: list[str]) -> bool:
    """Whether a second later no run has a later last step."""
    ends = []
    for wait in (0.0, 1.0):
        time.sleep(wait)
        series = [_get(port, f"/data/plugin/scalars/scalars?run={run}&tag=loss") for run in runs]
        ends.append([json.loads(one or "[[0, 0, 0]]")[-1][1] for one in series])
    return ends[0] == ends[1]


def _get(port: int, path: str) -> bytes | None:
    asked = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        asked.request("GET", path)
        answer = asked.getresponse()
        return answer.read() if answer.status == 200 else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        asked.close()


def _until(process: subprocess.Popen[bytes], log: Path, there: Callable[[], bool]) -> None:
    until = time.monotonic() + 600
    while not there():
        if process.poll() is not None or time.monotonic() > until:
            raise SystemExit(f"no server: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.01)


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGCONT, signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            os.killpg(process.pid, number)
            if number != signal.SIGCONT:
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    continue
    process.wait()
