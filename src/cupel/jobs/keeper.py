"""Keeps one job for somebody who may be lost without it: `keep(order)`, a process of its own.

`keep` starts a keeper and waits for it. The keeper runs the job by `LocalBackend`, does what is
asked in a file, and ends the job when whoever called `keep` is gone. It is nobody's child: those
who kill their children at their own end do not find it, so what it writes of the job's end into
the state file can be believed, also when all that it was started by has been killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from signal import SIGKILL, Signals
from typing import Any, TypedDict

from cupel.jobs.backend import Ended, Handle, Job, Resources
from cupel.jobs.local import LocalBackend

LOOK_S = 0.5  # between two looks at what is asked
ALONE_S = 5.0  # from SIGTERM to SIGKILL once the caller is gone; short, memory may be why
CANCEL = "cancel"  # a line of the file of what is asked; any other is a signal's number
LOST = "WORKER_DIED"


class Order(TypedDict):
    """A job, and where to hear and tell of it: paths that the keeper and whoever asks both see."""

    name: str
    command: list[str]
    environment: dict[str, str]
    log: str
    time_s: float | None
    folder: str  # where it runs
    asked: str  # lines, appended by whoever asks
    state: str  # JSON, replaced by the keeper
    grace_s: float  # from SIGTERM to SIGKILL
    about: dict[str, Any]  # copied into the state


def keep(order: Order) -> dict[str, Any]:
    """Run a job to its end; its state. An interrupt ends nothing: ask for it in the file.

    Raises OSError when there is no such folder here.
    """
    starter = subprocess.Popen(
        [sys.executable, "-P", "-m", "cupel.jobs.keeper"],
        cwd=order["folder"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert starter.stdin is not None
    assert starter.stdout is not None
    with starter.stdin as ours, starter.stdout as theirs:
        ours.write(json.dumps(order).encode() + b"\n")
        ours.flush()
        ended = False
        while not ended:
            with contextlib.suppress(KeyboardInterrupt):
                ended = not os.read(theirs.fileno(), 1)
    starter.wait()
    state = read_state(Path(order["state"]))
    if "ended" not in state:  # the keeper was killed; the job's guard ends the job in its grace
        time.sleep(order["grace_s"] + ALONE_S)
        state["ended"] = asdict(Ended(-SIGKILL, LOST))
    return state


def read_state(path: Path) -> dict[str, Any]:
    """What the keeper tells: `host`, `started`, in the end `ended`; empty before it began."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


class _Keeper:
    def __init__(self, order: Order) -> None:
        self.order = order
        self.backend = LocalBackend(grace_s=order["grace_s"])
        self.state = {**order["about"], "host": socket.gethostname(), "started": time.time()}
        self.heard = 0  # lines of what is asked that are done
        self.lost_at: float | None = None

    def run(self) -> None:
        order = self.order
        if CANCEL in self._asked():
            self._write(ended=asdict(Ended(-Signals.SIGTERM, "CANCELLED")))
            return
        job = Job(
            order["name"],
            tuple(order["command"]),
            Path(order["log"]),
            order["environment"],
            Resources(time_s=order["time_s"]),
        )
        # Before the job can say a word: who hears it may signal at once, and asks whether it began.
        self._write()
        with self.backend:
            handles = self.backend.submit([job])
            while (ended := self.backend.poll(handles)[0].ended) is None:
                self._obey(handles)
                self._mind_the_caller(handles)
                self.backend.wait(LOOK_S)
        fields = asdict(ended)
        if self.lost_at is not None and not ended.state:
            fields["state"] = LOST
        self._write(ended=fields)

    def _asked(self) -> list[str]:
        """Opened anew each time: that is when a network disk looks for what is new."""
        try:
            return Path(self.order["asked"]).read_text().split("\n")[:-1]
        except OSError:
            return []

    def _obey(self, handles: list[Handle]) -> None:
        lines = self._asked()
        for line in lines[self.heard :]:
            if line == CANCEL:
                self.backend.cancel(handles)
            else:
                self.backend.signal(handles, Signals(int(line)))
        self.heard = max(self.heard, len(lines))

    def _mind_the_caller(self, handles: list[Handle]) -> None:
        now = time.monotonic()
        if self.lost_at is None:
            ready, _, _ = select.select([0], [], [], 0)
            if ready and not os.read(0, 1):
                self.lost_at = now
                self.backend.signal(handles, Signals.SIGTERM)
        elif now > self.lost_at + min(ALONE_S, self.order["grace_s"]):
            self.backend.signal(handles, SIGKILL)

    def _write(self, **fields: Any) -> None:
        self.state.update(fields)
        path = Path(self.order["state"])
        temporary = path.with_name(f"{path.name}.tmp")
        with contextlib.suppress(OSError):  # a full disk ends no job
            temporary.write_text(json.dumps(self.state))
            temporary.replace(path)


def main() -> None:
    """The keeper's process: an order on stdin, whose end is the end of whoever waits."""
    if os.fork():
        os._exit(0)
    _Keeper(json.loads(sys.stdin.buffer.readline())).run()


if __name__ == "__main__":
    main()
