"""What fits on one machine at once: `Ledger`, `machine()`, and how many workers pay: `recommend`.

A ledger counts what jobs declare, and never gives out more than there is. It holds nobody to what
was declared, and knows only its own jobs: two ledgers on one machine know nothing of each other.
"""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cupel.errors import UsageError
from cupel.jobs.backend import Resources
from cupel.record.system import visible

MARGIN = 0.1  # of a memory: what is not in anybody's measurement, such as fragmentation
WORTH = 0.1  # what one more worker must add to the throughput
_SLACK, _SLACK_MB = 1e-9, 1e-3  # 0.1 + 0.2 is not to be more than 0.3
_MB = 1024 * 1024
_UNLIMITED = 2**60  # cgroup v1 writes the largest page count for "no limit"


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU: the driver's number for it, its name, and its memory (0: not known)."""

    index: int
    name: str = ""
    memory_mb: int = 0


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a job goes: the driver's numbers of its GPUs, and the variables that hold it there.

    For a job without GPUs there are none of these, so it sees whatever its worker sees.
    """

    devices: tuple[int, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Taken:
    cpus: float
    memory_mb: int
    part: float  # of each of its devices: 1 for whole ones, and for those kept empty beside it
    gpu_memory_mb: float | None  # measured; None: its part of the device's memory
    devices: tuple[int, ...]


class Ledger:
    """What a machine has, and what its jobs were given of it.

    Memory that a job does not declare is not counted. A GPU is given whole, or in parts to as many
    jobs as both the parts and the memory allow; a job whose memory on it was measured counts with
    that, another one with its part of what the `margin` leaves.
    """

    def __init__(
        self, cpus: float, memory_mb: int, gpus: Sequence[Gpu] = (), *, margin: float = MARGIN
    ) -> None:
        assert cpus > 0, cpus
        assert memory_mb > 0, memory_mb
        assert 0 <= margin < 1, margin
        assert len({gpu.index for gpu in gpus}) == len(gpus), gpus
        self.cpus, self.memory_mb, self.margin = cpus, memory_mb, margin
        self.gpus = tuple(sorted(gpus, key=lambda gpu: gpu.index))
        self._taken: dict[str, _Taken] = {}

    def place(
        self,
        name: str,
        resources: Resources,
        *,
        alone: bool = False,
        avoid: Collection[int] = (),
    ) -> Placement | None:
        """Take what a job needs; None when it does not fit now.

        The GPUs are those that it fits most closely; never those to avoid. With `alone`, a job
        that has a GPU or a part of one has it to itself. Raises UsageError for a job that is larger
        than the machine.
        """
        assert name not in self._taken, f"{name} is placed already"
        self.check(name, resources)
        if not self._has_cores_and_memory(resources):
            return None
        devices = self._devices(resources, alone=alone, avoid=avoid)
        if devices is None:
            return None
        self._taken[name] = _Taken(
            resources.cpus,
            resources.memory_mb or 0,
            1.0 if alone else min(1.0, resources.gpus),
            resources.gpu_memory_mb,
            devices,
        )
        return Placement(devices, _environment(devices))

    def free(self, name: str) -> None:
        """Give back what a job was given."""
        assert name in self._taken, f"{name} is not placed"
        del self._taken[name]

    def check(self, name: str, resources: Resources) -> None:
        """Raise UsageError for a job that would not fit if it were the only one."""
        gpus, memory = resources.gpus, resources.gpu_memory_mb
        if resources.cpus > self.cpus + _SLACK:
            raise _too_large(name, f"{resources.cpus:g} CPU cores", f"{self.cpus:g}", "cpus")
        if (resources.memory_mb or 0) > self.memory_mb:
            asked = f"{resources.memory_mb} MB of memory"
            raise _too_large(name, asked, f"{self.memory_mb} MB", "memory_mb")
        if gpus > 1 and not float(gpus).is_integer():
            raise UsageError(
                f"{name} asks for {gpus:g} GPUs; it can have whole ones, or a part of one, such as "
                "study.resources.gpus=0.5"
            )
        if gpus > len(self.gpus):
            has = f"{len(self.gpus)} that can be seen" if self.gpus else "none that can be seen"
            raise _too_large(name, _counted(gpus), has, "gpus")
        large = [gpu for gpu in self.gpus if memory is None or memory <= self._usable(gpu)]
        if gpus > len(large):
            usable = sorted((self._usable(gpu) for gpu in self.gpus), reverse=True)
            has = f"{usable[math.ceil(gpus) - 1]:.0f} MB of it, {100 * self.margin:.0f} % kept free"
            asked = f"{_counted(gpus)} with {memory} MB of memory"
            raise _too_large(name, asked, has, "gpu_memory_mb")

    def has_room(self, resources: Resources, *, avoid: Collection[int] = ()) -> bool:
        """Whether a job that needs so much would fit now."""
        if not self._has_cores_and_memory(resources):
            return False
        return self._devices(resources, alone=False, avoid=avoid) is not None

    @property
    def placed(self) -> tuple[str, ...]:
        """The names of the jobs that have something, in the order in which they got it."""
        return tuple(self._taken)

    @property
    def free_cpus(self) -> float:
        """CPU cores that nobody has."""
        return self.cpus - math.fsum(one.cpus for one in self._taken.values())

    @property
    def free_memory_mb(self) -> int:
        """Memory that nobody has declared."""
        return self.memory_mb - sum(one.memory_mb for one in self._taken.values())

    def free_of(self, gpu: Gpu) -> tuple[float, float]:
        """The part of a GPU that is free, and its free memory in MB without the margin."""
        part, memory = 1.0, self._usable(gpu)
        on_it = [one for one in self._taken.values() if gpu.index in one.devices]
        part -= math.fsum(one.part for one in on_it)
        memory -= math.fsum(self._memory(gpu, one.part, one.gpu_memory_mb) for one in on_it)
        return part, memory

    def _usable(self, gpu: Gpu) -> float:
        return gpu.memory_mb * (1 - self.margin) if gpu.memory_mb else math.inf

    def _memory(self, gpu: Gpu, part: float, measured: float | None) -> float:
        if not gpu.memory_mb:
            return 0.0
        return part * self._usable(gpu) if measured is None else measured

    def _has_cores_and_memory(self, resources: Resources) -> bool:
        cores = resources.cpus <= self.free_cpus + _SLACK
        return cores and (resources.memory_mb or 0) <= self.free_memory_mb

    def _devices(
        self, resources: Resources, *, alone: bool, avoid: Collection[int]
    ) -> tuple[int, ...] | None:
        """The GPUs for a job, of those with room for it the ones that have the least left."""
        if not resources.gpus:
            return ()
        part = 1.0 if alone else min(1.0, resources.gpus)
        room = []
        for gpu in self.gpus:
            free, memory = self.free_of(gpu)
            needed = self._memory(gpu, part, resources.gpu_memory_mb)
            fits = part <= free + _SLACK and needed <= memory + _SLACK_MB
            if fits and gpu.index not in avoid:
                room.append((free, memory, gpu.index))
        count = math.ceil(resources.gpus)
        if len(room) < count:
            return None
        return tuple(sorted(index for *_, index in sorted(room)[:count]))


def _environment(devices: Sequence[int]) -> dict[str, str]:
    # CUDA counts the fastest first unless told to count as the driver does.
    numbers = ",".join(map(str, devices))
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": numbers} if devices else {}


def _too_large(name: str, asked: str, has: str, setting: str) -> UsageError:
    return UsageError(
        f"{name} asks for {asked}, and this machine has {has}; lower study.resources.{setting}, or "
        "run it on a larger one"
    )


def _counted(gpus: float) -> str:
    return f"{gpus:g} {'GPU' if gpus <= 1 else 'GPUs'}"


def machine(
    *, environment: Mapping[str, str] | None = None, root: Path = Path("/"), margin: float = MARGIN
) -> Ledger:
    """The ledger of this machine, or of what a container or a Slurm job was given of it.

    GPUs are those of NVIDIA that nvidia-ml-py finds and CUDA_VISIBLE_DEVICES leaves, its numbers
    read as the driver's; without that package there are none. Parts of a GPU by MIG are not known.
    """
    env = os.environ if environment is None else environment
    groups = list(_groups(root))
    cpus = min(_cores(), *_cpu_limits(groups), _number(env.get("SLURM_CPUS_ON_NODE")))
    cpus = max(1.0, cpus)  # half a core is slow, and still runs one job
    memory = min([_memory_bytes(), *_memory_limits(groups)]) / _MB
    per_core = _number(env.get("SLURM_MEM_PER_CPU"))  # where the memory was asked for by core
    memory = min(memory, _number(env.get("SLURM_MEM_PER_NODE")), per_core * cpus)
    gpus = gpus_of(_nvml(), env.get("CUDA_VISIBLE_DEVICES"))
    return Ledger(cpus, max(1, int(memory)), gpus, margin=margin)


def gpus_of(nvml: Any, chosen: str | None) -> list[Gpu]:
    """The GPUs of the module `pynvml` (None: there are none) that CUDA_VISIBLE_DEVICES leaves."""
    if nvml is None:
        return []
    try:
        nvml.nvmlInit()
        handles = [nvml.nvmlDeviceGetHandleByIndex(n) for n in range(nvml.nvmlDeviceGetCount())]
        uuids = [_text(nvml.nvmlDeviceGetUUID(handle)) for handle in handles]
        return [
            Gpu(
                number,
                _text(nvml.nvmlDeviceGetName(handles[number])),
                int(nvml.nvmlDeviceGetMemoryInfo(handles[number]).total / _MB),
            )
            for number in dict.fromkeys(visible(uuids, chosen))
        ]
    except nvml.NVMLError:  # the package without a driver
        return []


def _nvml() -> Any:
    try:
        return importlib.import_module("pynvml")  # what nvidia-ml-py is imported as
    except ImportError:
        return None


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value  # older bindings gave bytes


def _cores() -> float:
    if hasattr(os, "sched_getaffinity"):
        return float(len(os.sched_getaffinity(0)))
    return float(os.cpu_count() or 1)


def _memory_bytes() -> float:
    import psutil

    return float(psutil.virtual_memory().total)


def _number(text: str | None) -> float:
    """A limit; infinite when there is none, or when it is not a number above 0."""
    try:
        value = float(text or 0)
    except ValueError:
        return math.inf
    return value if 0 < value < _UNLIMITED else math.inf


def _groups(root: Path) -> Iterator[Path]:
    """The folders of this process's cgroups and of all above them: a limit of any of them holds."""
    mounted = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        # A container may see its host's path, which is not there; its own limits are at the top.
        for top in (
            [mounted / name for name in controllers.split(",")] if controllers else [mounted]
        ):
            folder = top / path.lstrip("/")
            yield from (folder, *(parent for parent in folder.parents if top in parent.parents))
            yield top


def _cpu_limits(groups: Iterable[Path]) -> list[float]:
    found = []
    for group in groups:
        quota, _, period = _read(group / "cpu.max").partition(" ")  # version 2; "max" for none
        found.append(_cores_of(quota, period))
        quota = _read(group / "cpu.cfs_quota_us")  # version 1; -1 for none
        found.append(_cores_of(quota, _read(group / "cpu.cfs_period_us")))
    return found


def _cores_of(quota: str, period: str) -> float:
    """How many cores it is to run so many microseconds in each period."""
    run, of = _number(quota), _number(period)
    return run / of if math.isfinite(of) else math.inf


def _memory_limits(groups: Iterable[Path]) -> list[float]:
    names = ("memory.max", "memory.limit_in_bytes")
    return [_number(_read(group / name)) for group in groups for name in names]


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, ValueError):
        return ""


@dataclass(frozen=True, slots=True)
class Measure:
    """So many workers at once, as measured: steps a second and largest memory, each of one of them;
    whether one of them ran out of memory."""

    workers: int
    steps_per_s_each: float
    peak_mb_each: float
    oom: bool = False


@dataclass(frozen=True, slots=True)
class Recommendation:
    """How many workers at once: 0 when not even the fewest measured fit.

    `gain` is their throughput over that of the fewest measured (1.8: 80 % more), `minutes` what one
    run takes then, `utilisation` the part of the memory that they fill. The reason is a line on why
    there are no more.
    """

    workers: int
    gain: float
    minutes: float | None
    utilisation: float
    reason: str


def recommend(
    measures: Sequence[Measure],
    memory_mb: float,
    *,
    steps: int,
    margin: float = MARGIN,
    worth: float = WORTH,
) -> Recommendation:
    """The workers that pay: more of them as long as each measured number adds `worth` to the
    throughput of the one before, all fit into the memory less its margin, and none ran out of it.

    Several measures of one number count as the slowest and largest of them. `steps` are a run's.
    """
    assert measures, "nothing was measured"
    assert memory_mb > 0, memory_mb
    chosen: Measure | None = None
    first, reason = 0.0, ""
    for one in _merged(measures):
        reason = _too_much(one, memory_mb, margin)
        total = one.workers * one.steps_per_s_each
        if not reason and chosen is not None:
            before = chosen.workers * chosen.steps_per_s_each
            if total < before * (1 + worth):
                more = total / before - 1 if before else 0.0
                reason = (
                    f"{one.workers} workers add {100 * more:.0f} %, less than {100 * worth:.0f} %"
                )
        if reason:
            break
        chosen, first = one, first or total
    if chosen is None:
        return Recommendation(0, 0.0, None, 0.0, reason)
    each = chosen.steps_per_s_each
    return Recommendation(
        chosen.workers,
        chosen.workers * each / first if first else 1.0,
        steps / each / 60 if each > 0 else None,
        chosen.workers * chosen.peak_mb_each / memory_mb,
        reason or f"no more than {chosen.workers} were measured",
    )


def _merged(measures: Iterable[Measure]) -> list[Measure]:
    by_count: dict[int, list[Measure]] = {}
    for one in measures:
        assert one.workers >= 1, one
        by_count.setdefault(one.workers, []).append(one)
    return [
        Measure(
            count,
            min(one.steps_per_s_each for one in alike),
            max(one.peak_mb_each for one in alike),
            any(one.oom for one in alike),
        )
        for count, alike in sorted(by_count.items())
    ]


def _too_much(one: Measure, memory_mb: float, margin: float) -> str:
    workers = f"{one.workers} {'worker' if one.workers == 1 else 'workers'}"
    if one.oom:
        return f"{workers} ran out of memory"
    needed, usable = one.workers * one.peak_mb_each, memory_mb * (1 - margin)
    if needed > usable:
        left = f"{memory_mb:.0f} MB less {100 * margin:.0f} % leave {usable:.0f} MB"
        return f"{workers} need {needed:.0f} MB, and {left}"
    return ""
