"""What Slurm says about jobs, read: `sacct` and `scontrol show job` to reports by array task.

Reads the forms of Slurm 20 to 25. A state, a line or an id that is not known ends no job: it is
left out, or reported as unknown. Asks nobody; `cupel.jobs.slurm` does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from signal import SIGKILL, SIGTERM

from cupel.jobs.backend import Ended, Report, State

# https://slurm.schedmd.com/job_state_codes.html: base states, and flags, which hide them.
_STATES: dict[str, State] = {
    **dict.fromkeys(
        ("PENDING", "CONFIGURING", "POWER_UP_NODE", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD",
         "RESV_DEL_HOLD", "SPECIAL_EXIT"),
        "pending",
    ),
    **dict.fromkeys(
        ("RUNNING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING", "STAGE_OUT", "COMPLETING",
         "EXPEDITING", "UPDATE_DB"),
        "running",
    ),
    **dict.fromkeys(
        ("COMPLETED", "FAILED", "TIMEOUT", "PREEMPTED", "OUT_OF_MEMORY", "NODE_FAIL", "CANCELLED",
         "DEADLINE", "BOOT_FAIL"),
        "ended",
    ),
}  # fmt: skip
# Slurm queues these again by itself where it may; a moment later the same job is pending.
COMES_BACK = frozenset({"PREEMPTED", "NODE_FAIL", "BOOT_FAIL"})

_SIGNALS = 64  # Slurm writes numbers of its own beyond them: 125 for a job out of memory
_MOST_TASKS = 1_000_000  # of an array; a range beyond is not read

SACCT_FIELDS = ("JobID", "State", "ExitCode", "ElapsedRaw", "TotalCPU")
Tasks = dict[str, Report]


def read_sacct(text: str) -> Tasks:
    """Reports by `<job>_<index>` from `sacct --parsable2 --noheader --format=SACCT_FIELDS`."""
    found: Tasks = {}
    for line in text.splitlines():
        fields = line.split("|")
        if len(fields) < len(SACCT_FIELDS):
            continue
        job, word, code, wall, cpu = (field.strip() for field in fields[: len(SACCT_FIELDS)])
        report = report_of(word, code, wall_s=_number(wall), cpu_s=seconds_of(cpu))
        found |= dict.fromkeys(_tasks_of(job), report)
    return found


def read_scontrol(text: str) -> Tasks:
    """Reports by `<job>_<index>` from `scontrol --oneliner show job <job>`."""
    found: Tasks = {}
    for line in text.splitlines():
        fields = _pairs(line)
        array, indices = fields.get("ArrayJobId"), fields.get("ArrayTaskId")
        if array is None or indices is None:
            continue
        report = report_of(
            fields.get("JobState", ""),
            fields.get("ExitCode", ""),
            reason=fields.get("Reason", ""),
            wall_s=seconds_of(fields.get("RunTime", "")),
        )
        found |= {f"{array}_{index}": report for index in indices_of(indices)}
    return found


def report_of(
    word: str,
    exit_code: str,
    *,
    reason: str = "",
    wall_s: float | None = None,
    cpu_s: float | None = None,
) -> Report:
    """A report from Slurm's word for a state, as `CANCELLED by 1000`, and its `code:signal`."""
    first = word.split()[0].rstrip("+") if word.split() else ""
    state = _STATES.get(first, "unknown")
    why = f" ({reason})" if reason not in ("", "None") else ""
    if state != "ended":
        return Report(state, detail=f"{word}{why}")
    code = _code(first, exit_code)
    if code is None:
        return Report("unknown", detail=f"{word}{why}, exit code {exit_code!r}")
    killed = int(first == "OUT_OF_MEMORY")
    ended = Ended(code, first, oom_kills=killed, wall_s=wall_s, cpu_s=cpu_s)
    return Report("ended", ended, f"{word}{why}")


def indices_of(text: str) -> Iterator[int]:
    """`0-8:4,12%2` → 0, 4, 8, 12. What cannot be read, or was cut off (`...`), is left out."""
    for part in re.sub(r"%\d+$", "", text.strip()).split(","):
        found = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9})(?::(\d{1,9}))?)?", part.strip(), re.ASCII)
        if found is None:
            continue
        first, last = int(found[1]), int(found[2] or found[1])
        step = int(found[3] or 1)
        if step and last - first < _MOST_TASKS:
            yield from range(first, last + 1, step)


def seconds_of(text: str) -> float | None:
    """`1-02:03:04`, `03:04.5` or `04` as seconds; None for anything else."""
    found = re.fullmatch(
        r"(?:(\d{1,6})-)?(?:(\d{1,4}):)?(?:(\d{1,4}):)?(\d{1,4}(?:\.\d{1,9})?)", text, re.ASCII
    )
    if found is None:
        return None
    days, hours, minutes, seconds = found.groups()
    if minutes is None:
        hours, minutes = None, hours  # two numbers are minutes and seconds
    return (
        float(days or 0) * 86400 + int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(seconds)
    )


def _code(state: str, text: str) -> int | None:
    """Of `code:signal`; None when that cannot be read.

    A job that Slurm ended may show `0:0`, as if all had been well. It was asked to end by SIGTERM.
    """
    found = re.fullmatch(r"(\d{1,5}):(\d{1,5})", text, re.ASCII)
    if found is None:
        return None
    code, signal = int(found[1]), int(found[2])
    if state == "COMPLETED":
        return 0
    if state == "OUT_OF_MEMORY" and (signal > _SIGNALS or code == signal == 0):
        return -SIGKILL
    if signal:
        return -signal
    return code or (-SIGTERM if state != "FAILED" else 1)


def _tasks_of(job: str) -> Iterator[str]:
    """`12_3` → itself; `12_[3-5%2]` → each; steps (`12_3.batch`) and other jobs → nothing."""
    found = re.fullmatch(r"(\d{1,12})_(?:\[([^\]]*)\]|(\d{1,9}))", job, re.ASCII)
    if found is not None:
        yield from (f"{found[1]}_{index}" for index in indices_of(found[2] or found[3]))


def _pairs(text: str) -> Mapping[str, str]:
    """`A=1 B=2` as a mapping, the first of each name."""
    found: dict[str, str] = {}
    for name, value in re.findall(r"(?:^| )([A-Za-z/:]+)=(\S*)", text):
        found.setdefault(name, value)
    return found


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"\d{1,12}", text, re.ASCII) else None
