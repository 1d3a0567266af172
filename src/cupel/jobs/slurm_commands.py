"""Slurm's commands, called: what was answered, and why not.

Each is given `TIMEOUT_S`; then it is killed with all that it started, since sites wrap them. The
accounts (sacct), the controller (scontrol) and scancel are asked in the ways that
`cupel.jobs.slurm` needs.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from signal import SIGKILL, SIGTERM, Signals

from cupel.errors import JobsError
from cupel.jobs.slurm_states import SACCT_FIELDS, Tasks, read_sacct, read_scontrol

TIMEOUT_S = 30.0  # of each command


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command said; without a code it was not there, or too late."""

    command: str
    code: int | None
    stdout: str = ""
    stderr: str = ""
    missing: bool = False

    @property
    def late(self) -> bool:
        """Whether it may have done what it was to do, and nobody knows."""
        return self.code is None and not self.missing

    @property
    def why(self) -> str:
        """Why it failed, in a line."""
        if self.missing:
            return f"{self.command} is not here; run this where Slurm's commands are installed"
        if self.late:
            return f"{self.command} did not answer within {TIMEOUT_S:g} s"
        lines = [line.strip() for line in self.stderr.splitlines() if line.strip()]
        said = "; ".join(re.sub(r"^\w+: (error: )?", "", line) for line in lines[-2:])
        return f"{self.command}: {said or f'exit code {self.code}'}"

    def told(self) -> str:
        """What was printed. Raises JobsError when the command failed."""
        if self.code != 0:
            raise JobsError(self.why)
        return self.stdout


def run(command: str, *arguments: str, without: Iterable[str] = ()) -> Answer:
    """Call a command of Slurm's, without these variables, to its end."""
    process = _start(command, *arguments, without=without)
    if process is None:
        return Answer(command, None, missing=True)
    with process:
        try:
            stdout, stderr = process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            _end(process, SIGKILL)
            return Answer(command, None)
    return Answer(command, process.returncode, stdout, stderr)


def ask_controller(ids: Iterable[str]) -> tuple[Tasks, str]:
    """What the controller remembers (of ended jobs for MinJobAge), and why it said nothing."""
    found: Tasks = {}
    for array in _arrays_of(ids):
        answer = run("scontrol", "--oneliner", "show", "job", array)
        if answer.code == 0:
            found |= read_scontrol(answer.stdout)
        elif "Invalid job id" not in answer.stderr:
            return found, answer.why  # the next question would wait as long
    return found, ""


def ask_accounts(ids: Iterable[str]) -> tuple[Tasks, Answer]:
    """What the accounts say, and how sacct ended."""
    answer = run(
        "sacct", "--noheader", "--parsable2", "--allocations",
        f"--format={','.join(SACCT_FIELDS)}", f"--jobs={','.join(_arrays_of(ids))}",
    )  # fmt: skip
    return read_sacct(answer.stdout) if answer.code == 0 else {}, answer


def cancel(ids: Iterable[str]) -> None:
    """End jobs. Raises JobsError when that failed, unless for those that have ended meanwhile."""
    answer = run("scancel", *ids)
    if answer.code is None:
        raise JobsError(answer.why)
    _check_cancelled(answer.stderr)


def send(one: str, number: Signals) -> None:
    """Send a signal to a job's batch step, once. Raises JobsError as `cancel` does.

    While other tasks of its array wait, scancel sends the signal, takes the answer for a refusal
    and sends it again every few seconds, for minutes. It is ended as soon as it says so.
    """
    process = _start("scancel", "--verbose", "--batch", f"--signal={int(number)}", one)
    if process is None:
        raise JobsError(Answer("scancel", None, missing=True).why)
    # A silent process gives no line to look at the clock after.
    timer = threading.Timer(TIMEOUT_S, _end, (process, SIGKILL))
    timer.start()
    said: list[str] = []
    with process:
        assert process.stderr is not None
        for line in process.stderr:
            if "transitional state, retrying" in line:
                _end(process, SIGTERM)
                said.clear()
                break
            said.append(line)
    timer.cancel()
    if process.returncode == -SIGKILL:
        raise JobsError(Answer("scancel", None).why)
    _check_cancelled("".join(said))


def _start(
    command: str, *arguments: str, without: Iterable[str] = ()
) -> subprocess.Popen[str] | None:
    """A process in a session of its own; None when there is no such command."""
    try:
        return subprocess.Popen(
            (command, *arguments), env=_environment(without), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
            start_new_session=True,
        )  # fmt: skip
    except OSError:
        return None


def _end(process: subprocess.Popen[str], number: Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _environment(without: Iterable[str]) -> Mapping[str, str]:
    """Ours, and no limit to the length of a list of array tasks, which Slurm would cut off."""
    left = {name: value for name, value in os.environ.items() if name not in set(without)}
    return {**left, "SLURM_BITSTR_LEN": "0"}


def _check_cancelled(stderr: str) -> None:
    for line in stderr.splitlines():
        if "error: " in line and not re.search(r"Invalid job id|already compl", line):
            raise JobsError(f"scancel: {line.partition('error: ')[2]}")


def _arrays_of(ids: Iterable[str]) -> list[str]:
    """The arrays' job ids."""
    return sorted({one.partition("_")[0] for one in ids}, key=int)
