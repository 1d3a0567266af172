"""Puts a queue's runs onto a cluster: `Placer` submits workers, and watches what becomes of them.

A job of the cluster is a worker that may take one run (or a few, one after another): the engine
places, limits and restarts it, and the leases keep two of them from training one run. What was
submitted is written down in `submissions.jsonl`, so whoever watches may be killed and started anew
without submitting anything twice. A state that the scheduler does not know is never a death: then
only the run's own lease tells.

Workers judge how runs end. Where one could not, because it died with its run or before it took one,
that is done here: so the failure policy hears of it, and no job is submitted again and again.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cupel.errors import JobsError, RecordError
from cupel.jobs import control
from cupel.jobs.attempts import FAILURE, Attempt, read_attempt, write_attempt
from cupel.jobs.backend import Backend, Ended, Handle, Job, Report, Resources
from cupel.jobs.classify import classify
from cupel.jobs.control import write_line
from cupel.jobs.leases import end_unbegun, hold_of
from cupel.jobs.progress import steps_of
from cupel.jobs.queue import SETTLED, Queue, Standing, Task
from cupel.jobs.stopping import Stopping
from cupel.jobs.worker import Change
from cupel.record import codec, files, layout, processes
from cupel.record.claims import claim_session, is_claim, read_lease
from cupel.record.reader import SessionInfo

SUBMISSIONS = "submissions.jsonl"
LOOK_S = 2.0  # between two questions to the scheduler
_TICK_S = 0.2
_STARTING_S = 60.0  # for a job that has begun to claim its run
_SILENT_S = 15.0  # three heartbeats: of a session whose job has ended, so long is dead
_AGAIN_S = 30.0  # after a submission that the scheduler refused
_IDLE = 3  # jobs, one after another, that did not fail and did not even claim their run

MakeWorker = Callable[[Sequence[Task], Resources], Job]


@dataclass(slots=True)
class _Placed:
    """One job of the cluster, the runs that it may take, and how many sessions each had before.

    `known` is when the scheduler last knew of it.
    """

    handle: Handle
    runs: tuple[str, ...]
    before: tuple[int, ...]
    submitted: float
    known: float
    report: Report = field(default_factory=lambda: Report("unknown"))
    cancelled: bool = False


@dataclass(slots=True)
class Placer:
    """Has a queue's runs trained by a backend's jobs, `pack` runs a job.

    Iterating over `changes()` does the work, as with a `Worker`. When it is asked to stop, jobs of
    a backend that `survives` its submitter go on; those of another one are cancelled.
    """

    queue: Queue
    backend: Backend
    name: str  # of the backend, as people type it
    make_worker: MakeWorker
    stop: Stopping
    pack: int = 1
    survives: bool = True
    look_s: float = LOOK_S
    _jobs: list[_Placed] = field(default_factory=list)
    _seen: dict[str, tuple[str, int]] = field(default_factory=dict)  # state and session of a run
    _newest: dict[str, str] = field(default_factory=dict)  # of a run, the id of its last job
    _idle: dict[str, int] = field(default_factory=dict)  # of a run, its last jobs without a claim
    _next: float = 0.0
    # What the scheduler said when it refused runs that are given this, and when to try again.
    _refused: dict[Resources, tuple[str, float]] = field(default_factory=dict)

    def changes(self) -> Generator[Change | None]:
        """Submit what is left, and watch; returns when nothing is, or when it is asked to stop."""
        self._jobs = list(self._earlier())
        try:
            while self.stop.name is None:
                if time.monotonic() >= self._next:
                    self._next = time.monotonic() + self.look_s
                    self.queue.refresh()
                    yield from self._poll()
                    yield from self._submit()
                    yield from self._tell()
                    if self._is_done():
                        return
                yield None
                time.sleep(_TICK_S)
            yield from self._stop(self.stop.name)
        finally:
            self.queue.close()

    # ---- submitting ----------------------------------------------------------------------------

    def _submit(self) -> Iterator[Change]:
        """One job for each pack of runs that may begin and that no living job may take.

        Runs that are given the same are submitted together; what is refused does not hold up the
        others, and is tried again later.
        """
        placed = {run for job in self._jobs for run in job.runs if job.report.state != "ended"}
        groups: dict[Resources, list[Task]] = {}
        for task in self.queue.open_tasks():
            if task.name not in placed:
                standing = self.queue.standing(task)
                if standing.state == "queued":
                    groups.setdefault(_needed(task, standing), []).append(task)
        for resources, tasks in groups.items():
            refused, again = self._refused.get(resources, ("", 0.0))
            if time.monotonic() < again:
                continue
            packs = [tasks[n : n + self.pack] for n in range(0, len(tasks), self.pack)]
            before = [tuple(map(_last_session, pack)) for pack in packs]
            try:
                handles = self.backend.submit([self.make_worker(p, resources) for p in packs])
            except JobsError as error:
                if not self._newest:
                    raise
                self._refused[resources] = str(error), time.monotonic() + _AGAIN_S
                if str(error) != refused:
                    told = f"{_runs(len(tasks))} could not be submitted: {error}"
                    yield Change("waiting", detail=told)
                continue
            self._refused.pop(resources, None)
            for handle, pack, numbers in zip(handles, packs, before, strict=True):
                runs, now = tuple(task.name for task in pack), time.time()
                placed_job = _Placed(handle, runs, numbers, now, now, Report("pending"))
                self._jobs.append(placed_job)
                self._newest |= dict.fromkeys(runs, handle.id)
                self._write_down(placed_job)
            yield Change("submitted", detail=_counted(handles, len(tasks), self.name))

    def _write_down(self, placed: _Placed) -> None:
        write_line(
            self.queue.folder / SUBMISSIONS,
            {
                "schema": 1,
                "t": placed.submitted,
                "backend": self.name,
                "id": placed.handle.id,
                "job": placed.handle.job.name,
                "log": str(placed.handle.job.log),
                "runs": list(placed.runs),
                "sessions": list(placed.before),
            },
        )

    def _earlier(self) -> Iterator[_Placed]:
        """What this backend was given before, by whoever watched then."""
        for fields in submissions(self.queue.folder):
            if fields["backend"] == self.name:
                job, runs = Job(fields["job"], (), Path(fields["log"])), tuple(fields["runs"])
                self._newest |= dict.fromkeys(runs, fields["id"])
                # One that dies with its submitter has most likely done so.
                known = time.time() if self.survives else fields["t"]
                handle, before = Handle(job, fields["id"]), tuple(fields["sessions"])
                yield _Placed(handle, runs, before, fields["t"], known)

    # ---- watching ------------------------------------------------------------------------------

    def _poll(self) -> Iterator[Change]:
        """How every job stands; of those that ended, what they left unsaid."""
        asked = [job for job in self._jobs if job.report.state != "ended"]
        reports = self.backend.poll([job.handle for job in asked])
        tasks = {task.name: task for task in self.queue.open_tasks()}
        now = time.time()
        for job, report in zip(asked, reports, strict=True):
            job.report = report
            if report.state != "unknown":
                job.known = now
            elif self._is_gone(job, tasks, now):
                job.report = Report("ended", detail=report.detail)
        self._jobs = [
            job for job in self._jobs
            if job.report.state != "ended" or not self._is_judged(job, tasks)
        ]  # fmt: skip
        self._cancel_what_was_asked()
        return iter(())

    def _is_gone(self, job: _Placed, tasks: Mapping[str, Task], now: float) -> bool:
        """Whether nobody can have a job's runs any more, though the scheduler knows nothing of it.

        A run that nobody holds may be submitted again: should the old job live after all, one of
        the two finds the run claimed and leaves.
        """
        if now - job.known < _patience(self.queue.lease_s):
            return False
        held = [run for run in job.runs if run in tasks
                and self.queue.standing(tasks[run]).state == "running"]  # fmt: skip
        return not held

    def _is_judged(self, job: _Placed, tasks: Mapping[str, Task]) -> bool:
        """Whether all is said of the runs of a job that has ended; what can be said now, is."""
        if job.report.ended is None:  # it is only gone: the runs' leases tell
            return True
        # A later job may have the run now.
        own = [
            (tasks[run], before)
            for run, before in zip(job.runs, job.before, strict=True)
            if run in tasks and self._newest.get(run) == job.handle.id
        ]
        if any(_last_session(task) > before for task, before in own) or len(own) < len(job.runs):
            for task, _ in own:
                self._idle.pop(task.name, None)
            judged = [self._judge(task, job, job.report.ended) for task, _ in own]
            return all(judged)
        # A task that somebody takes out of the engine's queue is no fault of its runs.
        if job.report.ended.code and job.report.ended.state != "CANCELLED":
            asked = self.queue.control.word
            for task, before in own:
                if not asked(task.name).cancelled:
                    self._judge_unclaimed(task, before + 1, job, job.report.ended)
        self._hold_idle([task for task, before in own if _last_session(task) <= before], job)
        return True

    def _hold_idle(self, tasks: Sequence[Task], job: _Placed) -> None:
        """Hold runs that several jobs in a row have left as they were, though none failed: as where
        something else is called in cupel's place, or somebody cancels each job while it waits. The
        same command later lets go of them."""
        held = []
        for task in tasks:
            if self.queue.standing(task).state == "queued":
                self._idle[task.name] = self._idle.get(task.name, 0) + 1
                if self._idle[task.name] >= _IDLE:
                    held.append(task.name)
                    del self._idle[task.name]
        if held:
            printed = self.backend.logs(job.handle).strip().splitlines()[-1:]
            said = printed[0] if printed else job.report.detail or "nothing was printed"
            why = f"{_IDLE} jobs ended without beginning it; of the last one: {said}"
            control.append(self.queue.folder, "hold", held, why=why, breaker=True)
            self.queue.refresh()

    def _judge(self, task: Task, job: _Placed, ended: Ended) -> bool:
        """Write down how an attempt ended whose worker was killed before it could. False while
        it may still live: what is told of a job is not told of its run."""
        number = _last_session(task)
        if not number or (task.run_dir / layout.RESULTS).exists():
            return True
        info = SessionInfo.read(task.run_dir, number)
        told = info.status in ("finished", "failed", "interrupted")
        if read_attempt(task.run_dir, number) is not None or (told and not is_claim(info.dir)):
            return True
        lease_s = min(self.queue.lease_s, _SILENT_S)
        if hold_of(task.run_dir, number, clock=self.queue.clock, lease_s=lease_s) == "held":
            return False
        self._write_attempt(task, number, job, ended)
        return True

    def _judge_unclaimed(self, task: Task, number: int, job: _Placed, ended: Ended) -> None:
        """Write down that a job ended before it took any of its runs, as an attempt of each: or
        they would be submitted again at once, and for ever."""
        facts = {
            "worker": f"{self.name} {job.handle.id}",
            "lease_s": self.queue.lease_s,
            "changes": {},
            "supervisor": processes.this_process().as_json(),
        }
        try:
            claim_session(task.run_dir, number, facts)
        except OSError:  # somebody else has taken it
            return
        self._write_attempt(task, number, job, ended)

    def _write_attempt(self, task: Task, number: int, job: _Placed, ended: Ended) -> None:
        info = SessionInfo.read(task.run_dir, number)
        first, last = steps_of(info)
        lease = read_lease(task.run_dir, number)
        try:
            failure = files.read_json(info.dir / FAILURE)
        except RecordError:
            failure = None
        why = classify(
            ended,
            failure=failure,
            log_tail=self.backend.logs(job.handle, lines=40),
            began=last > first,
            asked="cancelled" if job.cancelled else None,
            hung=False,
        )
        attempt = Attempt(
            number,
            why.kind if why else "interrupted",
            why.detail if why else "stopped with a checkpoint",
            signature=why.signature if why else "",
            begun=last > first,
            first_step=first,
            last_step=last,
            started=info.started or job.submitted,
            ended=time.time(),
            host=info.host or "",
            worker=f"{self.name} {job.handle.id}",
            code=ended.code,
            state=ended.state,
            cpu_s=ended.cpu_s,
            peak_mb=ended.peak_mb,
            alone=lease.get("alone") is True,
            changes=lease.get("changes") or {},
            resources=lease.get("resources") or {},
        )
        try:
            if is_claim(info.dir):
                end_unbegun(
                    task.run_dir,
                    number,
                    status="failed" if why else "interrupted",
                    error=attempt.detail,
                    started=attempt.started,
                )
            write_attempt(task.run_dir, attempt)
        except OSError:
            return  # the lease ends by itself

    def _cancel_what_was_asked(self) -> None:
        """End jobs all of whose runs were cancelled; a worker ends its running one by itself."""
        asked = self.queue.control.word
        these = [
            job for job in self._jobs
            if job.report.state == "pending" and not job.cancelled
            and all(asked(run).cancelled for run in job.runs)
        ]  # fmt: skip
        if these:
            with contextlib.suppress(JobsError):  # asked again at the next look
                self.backend.cancel([job.handle for job in these])
                for job in these:
                    job.cancelled = True

    def _tell(self) -> Iterator[Change]:
        """What has changed in the records since the last look."""
        for task in list(self.queue.tasks):
            before = self._seen.get(task.name)
            if before is not None and before[0] in SETTLED:
                continue
            standing = self.queue.standing(task)
            now = (standing.state, standing.session)
            if before == now:
                continue
            self._seen[task.name] = now
            yield from _told(task.name, before, standing)

    def _is_done(self) -> bool:
        left = [self.queue.standing(task).state for task in self.queue.open_tasks()]
        return not any(state in ("queued", "waiting", "running") for state in left)

    def _stop(self, name: str) -> Iterator[Change | None]:
        handles = [job.handle for job in self._jobs if job.report.state in ("pending", "running")]
        if self.survives:
            told = f"{len(handles)} jobs go on; the same command watches them again"
            yield Change("stopping", detail=f"{name}: {told}")
            return
        yield Change("stopping", detail=name)
        self.backend.cancel(handles)
        until = time.monotonic() + 60
        while time.monotonic() < until and not self.stop.insists:
            if all(one.state in ("ended", "unknown") for one in self.backend.poll(handles)):
                return
            yield None
            time.sleep(_TICK_S)


def submissions(folder: Path) -> list[dict[str, Any]]:
    """Every job that was submitted for a study, oldest first; damaged lines are left out."""
    try:
        content = (folder / SUBMISSIONS).read_bytes()
    except OSError:
        return []
    found = []
    for line in content.split(b"\n"):
        try:
            fields = codec.decode_line(line)
            known = {"backend": str, "id": str, "job": str, "log": str, "runs": list}
            if all(isinstance(fields.get(name), kind) for name, kind in known.items()):
                sessions = fields.get("sessions")
                if not isinstance(sessions, list) or len(sessions) != len(fields["runs"]):
                    sessions = [0] * len(fields["runs"])
                found.append({**fields, "sessions": sessions, "t": float(fields["t"])})
        except (ValueError, KeyError, TypeError):
            continue
    return found


def _patience(lease_s: float) -> float:
    """For how long nothing may be known of a job before its runs may be submitted again."""
    return max(_STARTING_S, 2 * lease_s)


def _last_session(task: Task) -> int:
    """The number of a run's newest session; 0 when it has none."""
    return max(layout.session_numbers(task.run_dir), default=0)


def _needed(task: Task, standing: Standing) -> Resources:
    more = standing.decision.resources if standing.decision else {}
    return replace(task.resources, **more)


def _told(name: str, before: tuple[str, int] | None, standing: Standing) -> Iterator[Change]:
    match standing.state:
        case "accepted":
            yield Change("finished", name)
        case "running" if before is None or before[1] != standing.session:
            yield Change("restarted" if standing.session > 1 else "started", name)
        case "failed" | "diverged" | "cancelled":
            yield Change(standing.state, name, standing.reason)
        case "queued" | "waiting" if before is not None and before[0] == "running":
            yield Change("again", name, standing.reason)
        case "held":
            yield Change("held", name, standing.reason)


def _counted(handles: Sequence[Handle], runs: int, name: str) -> str:
    jobs = "1 job" if len(handles) == 1 else f"{len(handles)} jobs"
    ids = ", ".join(handle.id for handle in itertools.islice(handles, 3))
    more = ", …" if len(handles) > 3 else ""
    return f"{jobs} for {_runs(runs)} to {name}: {ids}{more}"


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"
