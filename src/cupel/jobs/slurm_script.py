"""What `sbatch` is given: a script for one array of jobs, and the list of its jobs.

The script holds settings and no word of a job: command, variables and log of each stand in the
list, a line of JSON a job, so nothing is quoted for a shell. The script's process becomes the job
(exec), so that what Slurm sends to the batch step reaches the job itself.
"""

from __future__ import annotations

import json
import math
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cupel.errors import UsageError
from cupel.jobs.backend import Job, Resources

SIGNAL_S = 90.0  # before the limit; Slurm may be up to a minute early


@dataclass(frozen=True, slots=True)
class SlurmSettings:
    """How jobs are asked of one Slurm. `folder`, seen by all nodes, takes scripts, lists and what
    Slurm itself says; None leaves a choice to the cluster.

    `time_min` is the limit of jobs that name none, and `gres` takes the place of `gpu:<gpus>`.
    `throttle` is how many jobs of an array run at a time; `signal_s`, how many seconds before the
    limit they are sent SIGUSR1 (0: not at all); `container`, a command line before each command,
    as `apptainer exec --nv image.sif`; `extra`, further options of sbatch, as `--reservation=july`;
    `python`, what starts a job on a node, any Python 3 outside of the container. An array is made
    of at most `array_max` jobs; clusters refuse longer ones (MaxArraySize).
    """

    folder: Path
    name: str = "cupel"
    account: str | None = None
    partition: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gres: str | None = None
    time_min: float | None = None
    throttle: int | None = None
    signal_s: float = SIGNAL_S
    requeue: bool = True
    container: str | None = None
    extra: tuple[str, ...] = ()
    python: str = sys.executable
    array_max: int = 1000

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]+", self.name, re.ASCII):
            raise UsageError(f"the name of Slurm jobs is {self.name!r}; use letters, digits, . _ -")
        for name in (*_CHOICES, "folder"):
            value = str(getattr(self, name))
            if re.search(r'[\x00-\x1f"\\]', value):  # sbatch reads them in ways of its own
                raise UsageError(
                    f"Slurm's {name} is {value!r}; it cannot hold \\, quotes or newlines"
                )
        for line in self.extra:
            if not line.startswith("-") or re.search(r"[\x00-\x1f]", line):
                raise UsageError(f"an option of sbatch is {line!r}; write it as --mail-type=END")
        for name, least in (("throttle", 1), ("array_max", 1), ("signal_s", 0)):
            found = getattr(self, name)
            if found is not None and found < least:
                raise UsageError(f"Slurm's {name} is {found}; it must be {least} or more")
        try:
            shlex.split(self.container or "")
        except ValueError as error:
            raise UsageError(f"Slurm's container is {self.container!r}: {error}") from error


_CHOICES = ("account", "partition", "qos", "constraint", "gres")

# Reads one line of the list and becomes that job. Runs on a node with any Python 3, without cupel.
_BECOME = """
import json, os, signal, sys
with open(sys.argv[1], encoding="utf-8") as lines:
    job = json.loads(list(lines)[int(sys.argv[2])])
log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
os.dup2(log, 1)
os.dup2(log, 2)
for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and the job would inherit it
    signal.signal(number, signal.SIG_DFL)
os.environ.update(job["environment"])
try:
    os.execvp(job["command"][0], job["command"])
except OSError as error:
    sys.exit("cannot start " + job["command"][0] + ": " + error.strerror)
"""
assert "'" not in _BECOME


def script_of(settings: SlurmSettings, resources: Resources, listed: Path, count: int) -> str:
    """The script that runs the `count` jobs of the list `listed`, each given `resources`.

    Raises UsageError for what Slurm cannot give.
    """
    options = "".join(f"#SBATCH {line}\n" for line in _options(settings, resources, listed, count))
    become = f"exec {shlex.quote(settings.python)} -I -S -c '{_BECOME}'"
    return (
        f"#!/bin/bash\n{options}\n# Becomes the job on the task's line of the list.\n"
        f'{become} {shlex.quote(str(listed))} "$SLURM_ARRAY_TASK_ID"\n'
    )


def list_of(settings: SlurmSettings, jobs: Sequence[Job]) -> str:
    """The jobs as lines of JSON."""
    before = shlex.split(settings.container or "")
    return "".join(
        json.dumps(
            {
                "name": job.name,
                "command": [*before, *job.command],
                "environment": dict(job.environment),
                "log": str(job.log.absolute()),
            }
        )
        + "\n"
        for job in jobs
    )


def _options(
    settings: SlurmSettings, resources: Resources, listed: Path, count: int
) -> Iterator[str]:
    throttle = f"%{settings.throttle}" if settings.throttle else ""
    output = str(listed.parent).replace("%", "%%") + "/slurm-%A_%a.out"
    yield f"--job-name={settings.name}"
    yield f"--array=0-{count - 1}{throttle}"
    yield "--nodes=1"
    yield "--ntasks=1"
    yield f"--cpus-per-task={max(1, math.ceil(resources.cpus))}"
    if resources.memory_mb is not None:
        yield f"--mem={resources.memory_mb}M"
    for name in _CHOICES:
        if name != "gres" and (value := getattr(settings, name)):
            yield f"--{name}={_quoted(value)}"
    if gres := settings.gres or _gpus(resources):
        yield f"--gres={_quoted(gres)}"
    yield from _times(settings, resources)
    yield "--requeue" if settings.requeue else "--no-requeue"
    yield "--open-mode=append"
    yield f"--output={_quoted(output)}"
    yield "--export=ALL"
    yield from settings.extra


def _gpus(resources: Resources) -> str:
    if resources.gpus != int(resources.gpus):
        raise UsageError(
            f"a job asks for {resources.gpus:g} GPUs, and Slurm gives whole ones; ask for "
            f"{math.ceil(resources.gpus)}, or give --gres, as shard:1"
        )
    return f"gpu:{int(resources.gpus)}" if resources.gpus else ""


def _times(settings: SlurmSettings, resources: Resources) -> Iterator[str]:
    """The limit, in whole minutes as Slurm counts, and how long before it a job hears of it."""
    limit_s = resources.time_s
    if limit_s is None and settings.time_min is not None:
        limit_s = settings.time_min * 60
    if limit_s is not None:
        minutes = max(1, math.ceil(limit_s / 60))
        if minutes * 60 <= settings.signal_s:
            raise UsageError(
                f"a job's limit is {minutes} min, and it is to be told {settings.signal_s:g} s "
                "before; give it more time, or set signal_s lower"
            )
        yield f"--time={minutes}"
    if settings.signal_s:
        yield f"--signal=B:USR1@{math.ceil(settings.signal_s)}"


def _quoted(text: str) -> str:
    """As sbatch reads a value in a script; what it cannot hold was refused."""
    return text if re.fullmatch(r"[\w./:,=%@+*&|()\[\]-]*", text, re.ASCII) else f'"{text}"'
