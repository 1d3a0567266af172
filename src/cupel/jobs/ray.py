"""Jobs on a Ray cluster: `RayBackend`; needs `pip install 'cupel[ray]'`.

Each job is one task of Ray core with what the job is given: CPUs, GPUs, memory. Ray finds the node
and notices when one is lost; it starts nothing a second time. The task has a keeper
(`cupel.jobs.keeper`) run the job's command on whatever node, so folders and logs must lie on a disk
that all nodes see, and cupel must be installed on each. Memory is what Ray counts with, not a limit
that it keeps.

What is asked of a running job is a line in a small file next to its log, which its keeper reads
twice a second: a signal arrives within half a second, plus what a network disk adds. In Ray, tasks
die with the process that submitted them: a handle of another process is "unknown" here, and its
record says what became of it. When the head node is gone, Ray ends the submitting process, too.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from signal import SIGTERM, Signals
from typing import Any

from cupel.errors import JobsError, MissingDependency, RecordError
from cupel.jobs import keeper, stopping
from cupel.jobs.backend import Ended, Handle, Job, Report
from cupel.jobs.local import tail

_LOST_S = keeper.ALONE_S + 5.0  # a keeper that lives has told its end by then
_LOOK_S = 0.5
_KNOCK_S = 10.0
_NODES_S = 5.0
_STATES = {"OutOfMemoryError": "OUT_OF_MEMORY", "NodeDiedError": "NODE_FAIL"}
_MB = 2**20
_STORE_BYTES = 100 * _MB  # the smallest that Ray takes much less of; we put nothing there


@dataclass(frozen=True, slots=True)
class RaySettings:
    """How long a job may take to end after SIGTERM, what each job needs besides (Ray's own custom
    resources by name), and what a Ray that is started here is said to have; None: what is found."""

    grace_s: float = 30.0
    needs: Mapping[str, float] = field(default_factory=dict)
    cpus: float | None = None
    gpus: float | None = None
    memory_mb: int | None = None
    folder: Path | None = None  # for Ray's own files; None: /tmp/ray


@dataclass(slots=True)
class _Known:
    """A job that this object submitted."""

    job: Job
    ref: Any
    asked: Path
    state: Path
    begun: str = ""  # where it runs; empty while it waits
    look_at: float = 0.0
    lost_at: float | None = None  # when Ray told that its worker is gone
    cancelled: bool = False
    report: Report | None = None  # once it has ended


class RayBackend:
    """Runs jobs as tasks of a Ray cluster that this process joins when it first submits.

    `address` is HOST:PORT of the cluster's head; None or "auto" for the one that the environment
    (RAY_ADDRESS, as inside `ray job submit`) or this machine knows; "local" starts one in this
    process, to try things. This process must run on a node of the cluster.
    """

    def __init__(self, address: str | None = None, settings: RaySettings | None = None) -> None:
        self.address = address or "auto"
        self.settings = settings or RaySettings()
        self._known: dict[str, _Known] = {}
        self._prefix = secrets.token_hex(4)
        self._nodes: list[dict[str, float]] = []
        self._ask_at = 0.0
        self._asking: threading.Thread | None = None

    def submit(self, jobs: Sequence[Job]) -> list[Handle]:
        """Queue jobs with Ray. Raises MissingDependency without ray, JobsError when no cluster
        answers or it refuses, RecordError for a log that cannot be written; then none is queued."""
        if not jobs:
            return []
        ray = self._joined()
        tasks = [self._task(ray, job) for job in jobs]
        handles: list[Handle] = []
        for job in jobs:
            handles.append(Handle(job, f"{self._prefix}-{len(self._known) + len(handles)}"))
        _prepare(handles)
        for handle, task in zip(handles, tasks, strict=True):
            asked, state = _files(handle)
            ref = task.remote(self._order(handle))
            self._known[handle.id] = _Known(handle.job, ref, asked, state)
        return handles

    def poll(self, handles: Sequence[Handle]) -> list[Report]:
        """How each job stands; "unknown" for those of other processes, and for all of them while
        the cluster does not answer."""
        mine = {h.id: self._known[h.id] for h in handles if h.id in self._known}
        waiting = {id: known for id, known in mine.items() if known.report is None}
        silent = ""
        try:
            for known in self._done(waiting.values()):
                self._conclude(known)
        except _silences() as error:
            silent = _line(error)
        return [self._report(mine.get(handle.id), silent) for handle in handles]

    def cancel(self, handles: Sequence[Handle]) -> None:
        """End jobs: SIGTERM, and SIGKILL to all that they started after the grace of the settings.
        One that waits is taken from Ray's queue."""
        for known in self._living(handles):
            self._cancel(known)

    def signal(self, handles: Sequence[Handle], number: Signals) -> None:
        """Send a signal to jobs that run; SIGKILL to all that they started. It arrives within half
        a second. One that waits gets none, but for SIGKILL, which takes it from the queue."""
        for known in self._living(handles):
            if known.begun or keeper.read_state(known.state):
                _ask(known, str(int(number)))
            elif number == signal.SIGKILL:
                self._cancel(known)

    def logs(self, handle: Handle, *, lines: int = 20) -> str:
        """The end of the log file."""
        return tail(handle.job.log, lines=lines)

    # ---- joining -------------------------------------------------------------------------------

    def _joined(self) -> Any:
        """Ray, with this process as a driver of the cluster."""
        with _our_signals():
            ray = _ray()
        if ray.is_initialized():
            return ray
        given: dict[str, Any] = {"address": self.address}
        if self.address == "local":
            given |= self._of_our_own()
        elif "://" in self.address:
            raise JobsError(
                f"cannot use Ray at {self.address}: cupel runs on a node of the cluster, not "
                "through Ray Client; give HOST:PORT there, or start it by: ray job submit"
            )
        else:
            _knock(self.address)
        try:
            with _our_signals():
                ray.init(**given, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # Ray raises a dozen kinds for a cluster that is not there
            raise JobsError(
                f"cannot use Ray at {self.address}: {_line(error)}; start one by "
                "'ray start --head', or give the address local to try things here"
            ) from error
        # It prints a lost worker to stdout, which is ours; poll tells the same.
        vars(importlib.import_module("ray._private.worker"))["_worker_logs_enabled"] = False
        return ray

    def _of_our_own(self) -> dict[str, Any]:
        settings = self.settings
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told of what runs here
        given = {
            "num_cpus": settings.cpus,
            "num_gpus": settings.gpus,
            "_memory": settings.memory_mb and settings.memory_mb * _MB,
            "_temp_dir": settings.folder and str(settings.folder),
        }
        there = {name: value for name, value in given.items() if value is not None}
        return there | {"include_dashboard": False, "object_store_memory": _STORE_BYTES}

    # ---- submitting ----------------------------------------------------------------------------

    def _task(self, ray: Any, job: Job) -> Any:
        given = job.resources
        if given.gpus > 1 and given.gpus != int(given.gpus):
            raise JobsError(f"{job.name}: Ray gives whole GPUs, or a part of one, not {given.gpus}")
        try:
            return ray.remote(_task).options(
                name=job.name,
                num_cpus=given.cpus,
                num_gpus=given.gpus,
                memory=given.memory_mb and given.memory_mb * _MB,
                resources=dict(self.settings.needs),
                max_retries=0,
                retry_exceptions=False,
            )
        except (TypeError, ValueError) as error:
            raise JobsError(f"{job.name}: Ray refuses it: {_line(error)}") from error

    def _order(self, handle: Handle) -> keeper.Order:
        job, (asked, state) = handle.job, _files(handle)
        # Ray hides no GPU from a task that was given none.
        hidden = {} if job.resources.gpus else {"CUDA_VISIBLE_DEVICES": ""}
        return {
            "name": job.name,
            "command": list(job.command),
            "environment": {**hidden, **job.environment},
            "folder": str(Path.cwd()),
            "log": str(job.log.absolute()),
            "asked": str(asked.absolute()),
            "state": str(state.absolute()),
            "grace_s": self.settings.grace_s,
            "time_s": job.resources.time_s,
            "about": {},
        }

    # ---- asking --------------------------------------------------------------------------------

    def _living(self, handles: Sequence[Handle]) -> Iterator[_Known]:
        for handle, report in zip(handles, self.poll(handles), strict=True):
            if handle.id in self._known and report.state != "ended":
                yield self._known[handle.id]

    def _cancel(self, known: _Known) -> None:
        if known.cancelled:
            return
        known.cancelled = True
        _ask(known, keeper.CANCEL)
        # One that begins this very moment finds the line above before it starts anything.
        if not known.begun and not keeper.read_state(known.state):
            with contextlib.suppress(*_silences()):
                _ray().cancel(known.ref, force=False)

    def _done(self, known: Iterable[_Known]) -> list[_Known]:
        by_ref = {one.ref: one for one in known}
        if not by_ref:
            return []
        ready, _ = _ray().wait(list(by_ref), num_returns=len(by_ref), timeout=0)
        return [by_ref[ref] for ref in ready]

    def _conclude(self, known: _Known) -> None:
        """What came of a task that Ray says is over; of a lost one, not before its keeper has told
        the end of the job, or can no longer."""
        errors = _ray().exceptions
        why, code, state = "", -int(SIGTERM), "CANCELLED"
        try:
            told = _ray().get(known.ref, timeout=5)
        except errors.GetTimeoutError:
            raise
        except errors.TaskCancelledError:
            told, why = keeper.read_state(known.state), "taken from Ray's queue"
        except errors.RayTaskError as error:  # raised in the task, before there was a keeper
            told, why, code, state = {}, _line(error.cause or error), 1, "TASK_FAILED"
        except errors.RayError as error:
            known.lost_at = known.lost_at or time.monotonic()
            told, why, code = keeper.read_state(known.state), _line(error), -int(signal.SIGKILL)
            state = _STATES.get(type(error).__name__, keeper.LOST)
        if "ended" in told:
            ended = Ended(**told["ended"])
            if ended.state == keeper.LOST and known.lost_at is not None:
                ended = replace(ended, state=state)
        elif known.lost_at is not None and time.monotonic() < known.lost_at + _LOST_S:
            return
        else:
            ended = Ended(code, state)
        known.report = Report("ended", ended, why or f"on {told['host']}")
        for path in (known.asked, known.state):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def _report(self, known: _Known | None, silent: str) -> Report:
        if known is None:
            return Report("unknown", detail="not submitted by this process")
        if known.report is not None:
            return known.report
        if silent:
            return Report("unknown", detail=f"Ray does not answer: {silent}")
        if known.lost_at:
            return Report("running", detail="its Ray worker is lost; the job is being ended")
        now = time.monotonic()
        if not known.begun and now >= known.look_at:
            known.look_at = now + _LOOK_S
            told = keeper.read_state(known.state)
            known.begun = f"on {told['host']} (node {told['node'][:8]})" if told else ""
        if known.begun:
            return Report("running", detail=known.begun)
        return Report("pending", detail=self._why_it_waits(known.job))

    def _why_it_waits(self, job: Job) -> str:
        given = job.resources
        needs = {"CPU": given.cpus, "GPU": given.gpus, "memory": (given.memory_mb or 0) * _MB}
        needs |= self.settings.needs
        nodes = self._all_nodes()
        if not nodes or any(all(n.get(key, 0) >= of for key, of in needs.items()) for n in nodes):
            return "waits for free resources"
        wanted = ", ".join(f"{of:g} {key}" for key, of in needs.items() if of)
        return f"no node of the cluster has {wanted}"

    def _all_nodes(self) -> list[dict[str, float]]:
        """What each node has, as of a few seconds ago; empty before that is known. A thread asks,
        since a head node that is silent lets whoever asks wait for minutes."""
        if time.monotonic() >= self._ask_at and not (self._asking and self._asking.is_alive()):
            self._ask_at = time.monotonic() + _NODES_S
            self._asking = threading.Thread(target=self._ask_nodes, daemon=True)
            self._asking.start()
        return self._nodes

    def _ask_nodes(self) -> None:
        with contextlib.suppress(Exception):  # Ray's, whichever: it is about a line for people
            self._nodes = [node["Resources"] for node in _ray().nodes() if node["Alive"]]


def _task(order: keeper.Order) -> dict[str, Any]:
    """Runs in a worker of Ray, on whatever node."""
    order["about"]["node"] = _ray().get_runtime_context().get_node_id()
    return keeper.keep(order)


def _ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError as missing:
        if missing.name != "ray":
            raise
        raise MissingDependency("ray", extra="ray", purpose="running jobs on Ray") from missing


def _silences() -> tuple[type[Exception], ...]:
    """What Ray raises when the cluster does not answer."""
    return (_ray().exceptions.RayError, ConnectionError, TimeoutError)


def _files(handle: Handle) -> tuple[Path, Path]:
    """Where things are asked of a job, and where its keeper tells of it."""
    log, start = handle.job.log, f"{handle.job.log.name}.{handle.id}"
    return log.with_name(f"{start}.asked"), log.with_name(f"{start}.state")


def _prepare(handles: Sequence[Handle]) -> None:
    """See that the logs can be written. The files for what is asked must be there from the start,
    since a network disk remembers for a while that a file was not."""
    for handle in handles:
        log = handle.job.log
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            log.open("ab").close()
            _files(handle)[0].touch()
        except OSError as error:
            for other in handles:
                with contextlib.suppress(OSError):
                    _files(other)[0].unlink(missing_ok=True)
            raise RecordError(f"cannot write the log {log}: {error.strerror}") from error


def _ask(known: _Known, line: str) -> None:
    with known.asked.open("a") as file:
        file.write(f"{line}\n")


def _knock(address: str) -> None:
    """See that somebody listens; Ray itself would try for minutes."""
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", "")
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit()):
        return  # Ray looks on this machine, and says at once what it finds
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_S).close()
    except (OSError, OverflowError) as error:
        raise JobsError(
            f"cannot use Ray at {address}: {error}; is it the address of the cluster's head, as "
            "printed by 'ray start --head'?"
        ) from error


@contextlib.contextmanager
def _our_signals() -> Iterator[None]:
    """A context in which nobody takes over signals that somebody of ours hears."""
    ours = {}
    if threading.current_thread() is threading.main_thread():
        ours = {number: signal.getsignal(number) for number in stopping.HEARD}
    try:
        yield
    finally:
        for number, handler in ours.items():
            if handler is not None:  # Python's own; Ray takes SIGTERM without telling Python
                signal.signal(number, handler)


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
