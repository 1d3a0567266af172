"""Jobs as processes of this machine: `LocalBackend`.

Each process leads a session of its own, so Ctrl-C at the terminal reaches only whoever started it.
Its stdin is a pipe that we hold open and write nothing into: it ends when we end, however that
comes, which is how a job learns that nobody waits for it any more.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path
from signal import SIGKILL, Signals

from cupel.errors import RecordError
from cupel.jobs.backend import Handle, Job

_TAIL_BYTES = 64 * 1024


class LocalBackend:
    """Starts jobs here; they write to their log files what they print."""

    def __init__(self) -> None:
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def submit(self, job: Job) -> Handle:
        """Start a process. Raises RecordError when its log cannot be written."""
        try:
            job.log.parent.mkdir(parents=True, exist_ok=True)
            log = job.log.open("ab")
        except OSError as error:
            raise RecordError(f"cannot write the log {job.log}: {error.strerror}") from error
        with log:
            process = subprocess.Popen(
                job.command,
                env={**os.environ, **job.environment},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                bufsize=0,
            )
        handle = Handle(job, f"{len(self._processes)}:{process.pid}")  # pids are used again
        self._processes[handle.id] = process
        return handle

    def poll(self, handle: Handle) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        process = self._processes[handle.id]
        code = process.poll()
        if code is not None and process.stdin is not None:
            process.stdin.close()
        return code

    def signal(self, handle: Handle, number: Signals) -> None:
        """Send a signal; SIGKILL goes to the whole session."""
        process = self._processes[handle.id]
        if process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            if number == SIGKILL:
                os.killpg(process.pid, number)
            else:
                process.send_signal(number)

    def logs(self, job: Job, *, lines: int = 20) -> str:
        """The last lines of the log file; empty when there is none."""
        return tail(job.log, lines=lines)


def tail(log: Path, *, lines: int) -> str:
    """The last lines of a file; empty when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
