"""Jobs of a Slurm cluster: `SlurmBackend`, by sbatch, sacct, scontrol and scancel.

Jobs that are submitted together and are given the same become one array, a task each. The
controller is asked first, because accounts call a job ended whose processes still live; then sacct,
where there are accounts. What neither lists, or a Slurm that is silent, is unknown: no end.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from signal import SIGTERM, Signals

from cupel.errors import JobsError, RecordError
from cupel.jobs import slurm_commands as slurm
from cupel.jobs.backend import Ended, Handle, Job, Report, Resources
from cupel.jobs.local import tail
from cupel.jobs.slurm_script import SlurmSettings, list_of, script_of
from cupel.jobs.slurm_states import COMES_BACK, Tasks

_AT_ONCE = 200  # ids on one command line
# Between a job's end and its next start: one within the same second, by the node's clock, is taken
# for the job that was just killed, and fails ("Job credential revoked").
_APART_S = 5
_CANCELLED = Report("ended", Ended(-SIGTERM, "CANCELLED"), "CANCELLED while it waited")
_ID = re.compile(r"\d{1,12}_\d{1,9}", re.ASCII)
# Set by people or sites for their own jobs, and stronger than what a script says.
_OVERRIDES = {
    f"SBATCH_{name}"
    for name in ("ARRAY_INX", "EXPORT", "JOB_NAME", "NO_REQUEUE", "OPEN_MODE", "OUTPUT", "REQUEUE",
                 "SIGNAL", "WAIT")
}  # fmt: skip
_OF_A_SETTING = {
    "--account": "SBATCH_ACCOUNT",
    "--constraint": "SBATCH_CONSTRAINT",
    "--gres": "SBATCH_GRES",
    "--partition": "SBATCH_PARTITION",
    "--qos": "SBATCH_QOS",
    "--time": "SBATCH_TIMELIMIT",
    "--mem": "SBATCH_MEM_PER_NODE",
}


@dataclass(frozen=True, slots=True)
class _Array:
    """Jobs that become one array: their places in what was asked, script and list with names."""

    places: tuple[int, ...]
    script: Path
    script_text: str
    listed: Path
    list_text: str


class SlurmBackend:
    """Queues jobs with Slurm. A handle's id is `<array's job id>_<index>`, in any process."""

    def __init__(self, settings: SlurmSettings) -> None:
        self.settings = settings
        self._keeps_accounts = True  # until sacct says that it does not

    def submit(self, jobs: Sequence[Job]) -> list[Handle]:
        """Queue jobs: one array for all that are given the same resources. Raises UsageError for
        resources that Slurm cannot give, RecordError and JobsError as `Backend.submit` says."""
        arrays = self._arrays(jobs, self._next_number())
        for job in jobs:
            _make_writable(job.log)
        for array in arrays:
            self._write(array)
        several = ("--hold",) if len(arrays) > 1 else ()
        if several:  # held, a job is not looked at closely enough to be refused
            for array in arrays:
                self._sbatch(array, "--test-only").told()
        held: list[str] = []
        try:
            for array in arrays:
                held += [self._queue(array, *several)]  # one by one: what stands is to be ended
            if several:  # so none begins when a later array is refused
                slurm.run("scontrol", "release", ",".join(held)).told()
        except JobsError:
            if held:
                slurm.run("scancel", *held)
            raise
        ids = {
            place: f"{job_id}_{n}"
            for job_id, array in zip(held, arrays, strict=True)
            for n, place in enumerate(array.places)
        }
        return [Handle(job, ids[place]) for place, job in enumerate(jobs)]

    def dry_run(self, jobs: Sequence[Job]) -> str:
        """The scripts and lists that `submit` would write now, each below its path."""
        arrays = self._arrays(jobs, self._next_number())
        return "\n".join(
            f"# {path}\n{text}"
            for array in arrays
            for path, text in ((array.script, array.script_text), (array.listed, array.list_text))
        )

    def poll(self, handles: Sequence[Handle]) -> list[Report]:
        """How each job stands. Never raises; `detail` says why a state is unknown."""
        ids = {handle.id for handle in handles if _ID.fullmatch(handle.id)}
        found, silence = slurm.ask_controller(ids)
        unlisted = ids - found.keys()
        found |= self._sacct(unlisted)
        if silence:  # so nobody says whether Slurm has queued it again
            found = {one: _doubted(found[one], silence) for one in found}
        else:
            found |= dict.fromkeys(unlisted - found.keys() & self._never_began(), _CANCELLED)
        nothing = Report("unknown", detail=silence or "Slurm lists no such job")
        return [found.get(handle.id, nothing) for handle in handles]

    def cancel(self, handles: Sequence[Handle]) -> None:
        """End jobs: SIGTERM to the job, after Slurm's KillWait SIGKILL to all of it. Raises
        JobsError when Slurm does not take it."""
        ids = list(dict.fromkeys(handle.id for handle in handles if _ID.fullmatch(handle.id)))
        states, silence = slurm.ask_controller(ids)
        if silence:
            raise JobsError(silence)
        living = [one for one in ids if one in states and states[one].state != "ended"]
        for first in range(0, len(living), _AT_ONCE):
            slurm.cancel(living[first : first + _AT_ONCE])
        # Slurm forgets a task of an array that is cancelled before it begins, in all its books.
        self._remember(one for one in living if states[one].state == "pending")

    def signal(self, handles: Sequence[Handle], number: Signals) -> None:
        """Send a signal to the process of each running job. Of SIGKILL that process dies, and Slurm
        kills what it leaves behind. Raises JobsError when Slurm does not take it."""
        ids = {handle.id for handle in handles if _ID.fullmatch(handle.id)}
        if not ids:
            return
        states, silence = slurm.ask_controller(ids)
        if silence:
            raise JobsError(silence)
        running = [one for one in ids & states.keys() if states[one].state == "running"]
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda one: slurm.send(one, number), running))

    def requeue(self, handles: Sequence[Handle], *, patience_s: float = 10.0) -> None:
        """End jobs (SIGTERM, then SIGKILL) and queue them again under the same ids.

        They may start after five seconds. Slurm's own wait of two minutes stays where a job takes
        longer than `patience_s` to end. Raises JobsError when Slurm refuses.
        """
        for handle in handles:
            slurm.run("scontrol", "requeue", handle.id).told()
        deadline = time.monotonic() + patience_s
        waiting = [handle.id for handle in handles]
        while waiting and time.monotonic() < deadline:
            time.sleep(0.2)
            states, _ = slurm.ask_controller(waiting)
            for one in list(waiting):
                if one in states and states[one].state == "pending":
                    soon = f"StartTime=now+{_APART_S}"
                    slurm.run("scontrol", "update", f"JobId={one}", soon)
                    waiting.remove(one)

    def logs(self, handle: Handle, *, lines: int = 20) -> str:
        """The end of what the job printed; where it printed nothing, of what Slurm said of it."""
        said = self.settings.folder / f"slurm-{handle.id}.out"
        return tail(handle.job.log, lines=lines) or tail(said, lines=lines)

    # ---- submitting ----------------------------------------------------------------------------

    def _arrays(self, jobs: Sequence[Job], number: int) -> list[_Array]:
        """Jobs by resources, in the order of each group's first, and no array too long."""
        groups: dict[Resources, list[int]] = {}
        for place, job in enumerate(jobs):
            groups.setdefault(job.resources, []).append(place)
        most, folder = self.settings.array_max, self.settings.folder.absolute()
        arrays: list[_Array] = []
        for resources, group in groups.items():
            for places in (group[n : n + most] for n in range(0, len(group), most)):
                stem = folder / f"slurm-{number + len(arrays)}"
                listed = stem.with_suffix(".jsonl")
                arrays.append(
                    _Array(
                        tuple(places),
                        stem.with_suffix(".sh"),
                        script_of(self.settings, resources, listed, len(places)),
                        listed,
                        list_of(self.settings, [jobs[place] for place in places]),
                    )
                )
        return arrays

    def _next_number(self) -> int:
        names = self.settings.folder.glob("slurm-*.sh")
        found = (re.fullmatch(r"slurm-(\d{1,9})\.sh", path.name) for path in names)
        return max((int(name[1]) for name in found if name), default=0) + 1

    def _write(self, array: _Array) -> None:
        try:
            array.script.parent.mkdir(parents=True, exist_ok=True)
            pairs = (array.script, array.script_text), (array.listed, array.list_text)
            for path, text in pairs:
                with path.open("x", encoding="utf-8") as file:
                    file.write(text)
        except FileExistsError as error:
            raise JobsError(
                f"{error.filename} was written just now by somebody else; submit again"
            ) from error
        except OSError as error:
            raise RecordError(f"cannot write {array.script}: {error.strerror}") from error

    def _sbatch(self, array: _Array, *options: str) -> slurm.Answer:
        said = [option for option in _OF_A_SETTING if f"#SBATCH {option}=" in array.script_text]
        without = _OVERRIDES | {_OF_A_SETTING[option] for option in said}
        return slurm.run("sbatch", *options, str(array.script), without=without)

    def _queue(self, array: _Array, *options: str) -> str:
        """The job id of the array."""
        answer = self._sbatch(array, "--parsable", *options)
        if answer.late:
            may = f"the jobs of {array.script} may be queued all the same"
            raise JobsError(f"{answer.why}; {may}: look with squeue --name {self.settings.name}")
        found = re.findall(r"^(\d{1,12})(?:;\S+)?$", answer.told(), flags=re.M)
        if not found:
            raise JobsError(f"sbatch gave no job id for {array.script}: {answer.stdout.strip()!r}")
        return str(found[-1])

    # ---- asking --------------------------------------------------------------------------------

    def _sacct(self, ids: set[str]) -> Tasks:
        """What the accounts say, where Slurm keeps some."""
        if not (ids and self._keeps_accounts):
            return {}
        found, answer = slurm.ask_accounts(ids)
        if answer.missing or "storage is disabled" in answer.stderr:
            self._keeps_accounts = False
        return {one: told for one, told in found.items() if one in ids}

    # ---- cancelled before they began -----------------------------------------------------------

    @property
    def _book(self) -> Path:
        return self.settings.folder / "slurm-cancelled.txt"

    def _remember(self, ids: Iterable[str]) -> None:
        if lines := "".join(f"{one}\n" for one in ids):
            try:
                with self._book.open("a", encoding="ascii") as file:
                    file.write(lines)
            except OSError as error:
                raise RecordError(f"cannot write {self._book}: {error.strerror}") from error

    def _never_began(self) -> set[str]:
        try:
            return set(self._book.read_text(encoding="ascii", errors="replace").split())
        except OSError:
            return set()


def _doubted(report: Report, why: str) -> Report:
    """An end that Slurm may have made a new start of by now is unknown."""
    if report.ended is None or report.ended.state not in COMES_BACK:
        return report
    return Report("unknown", detail=f"{report.detail}; {why}")


def _make_writable(log: Path) -> None:
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.open("ab").close()
    except OSError as error:
        raise RecordError(f"cannot write the log {log}: {error.strerror}") from error
