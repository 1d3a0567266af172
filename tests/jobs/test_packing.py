"""What fits on one machine at once, and how many workers pay."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cupel.errors import UsageError
from cupel.jobs.backend import Resources
from cupel.jobs.packing import (
    Gpu,
    Ledger,
    Measure,
    Placement,
    gpus_of,
    machine,
    recommend,
)

BIG, SMALL = 80_000, 24_000


def with_gpus(count: int = 2, memory_mb: int = BIG, *, cpus: float = 64) -> Ledger:
    return Ledger(cpus, 500_000, [Gpu(number, "H", memory_mb) for number in range(count)])


def part(gpus: float, memory_mb: int | None = None) -> Resources:
    return Resources(cpus=1, gpus=gpus, gpu_memory_mb=memory_mb)


def where(placement: Placement | None) -> tuple[int, ...]:
    assert placement is not None
    return placement.devices


def test_cores_are_not_given_twice() -> None:
    ledger = Ledger(4, 1000)
    assert ledger.place("a", Resources(cpus=3)) == Placement()
    assert ledger.place("b", Resources(cpus=2)) is None
    assert ledger.place("c", Resources(cpus=1)) == Placement()
    ledger.free("a")
    assert ledger.place("b", Resources(cpus=2)) == Placement()
    assert ledger.placed == ("c", "b")


def test_ten_tenths_of_a_core_are_a_core() -> None:
    ledger = Ledger(1, 1000)
    for number in range(10):
        assert ledger.place(f"{number}", Resources(cpus=0.1)) is not None
    assert ledger.place("more", Resources(cpus=0.1)) is None


def test_declared_memory_is_not_given_twice_and_what_is_not_declared_is_not_counted() -> None:
    ledger = Ledger(8, 1000)
    assert ledger.place("a", Resources(memory_mb=600)) is not None
    assert ledger.place("b", Resources(memory_mb=600)) is None
    assert ledger.place("c", Resources(memory_mb=None)) is not None
    assert ledger.free_memory_mb == 400


def test_there_is_room_for_what_would_be_placed_now_and_for_nothing_else() -> None:
    ledger = Ledger(4, 1000, [Gpu(0, 100), Gpu(1, 100)])
    half = Resources(gpus=0.5)
    assert ledger.has_room(half)
    assert not ledger.has_room(Resources(cpus=5))
    for name in "abcd":
        assert ledger.place(name, replace(half, cpus=0.5)) is not None
    assert not ledger.has_room(half)
    assert ledger.has_room(Resources())
    ledger.free("a")
    assert ledger.has_room(half)
    assert not ledger.has_room(half, avoid=[0, 1])


@pytest.mark.parametrize(
    "resources, said",
    [
        (Resources(cpus=65), ("65 CPU cores", "64", "resources.cpus")),
        (Resources(memory_mb=600_000), ("600000 MB", "500000 MB", "resources.memory_mb")),
        (part(3), ("3 GPUs", "has 2", "resources.gpus")),
        (part(1, 79_000), ("79000 MB", "72000 MB", "10 % kept free", "resources.gpu_memory_mb")),
        (part(0.25, 79_000), ("79000 MB", "72000 MB")),
        (part(1.5), ("1.5 GPUs", "whole ones", "resources.gpus=0.5")),
    ],
)
def test_a_job_larger_than_the_machine_is_refused_with_both_numbers(
    resources: Resources, said: tuple[str, ...]
) -> None:
    with pytest.raises(UsageError) as refused:
        with_gpus().place("job", resources)
    assert "\n" not in str(refused.value)
    assert all(text in str(refused.value) for text in ("job asks for", *said)), refused.value


def test_without_gpus_a_job_that_wants_one_is_refused() -> None:
    with pytest.raises(UsageError, match="this machine has none that can be seen"):
        Ledger(4, 1000).place("job", part(1))


def test_no_two_gpus_are_large_enough_where_only_one_is() -> None:
    ledger = Ledger(4, 1000, [Gpu(0, "s", SMALL), Gpu(1, "h", BIG)])
    with pytest.raises(UsageError, match=r"2 GPUs with 50000 MB .* has 21600 MB"):
        ledger.place("job", part(2, 50_000))
    assert where(ledger.place("job", part(1, 50_000))) == (1,)


def test_a_job_with_gpus_sees_only_its_own_and_counted_as_the_driver_counts() -> None:
    ledger = Ledger(8, 1000, [Gpu(3, "H", BIG), Gpu(5, "H", BIG), Gpu(1, "H", BIG)])
    placement = ledger.place("job", part(2))
    assert placement is not None
    assert placement.devices == (1, 3)
    assert placement.environment == {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": "1,3",
    }
    assert ledger.place("cpu", Resources()) == Placement((), {})


def test_parts_fill_one_gpu_before_the_next() -> None:
    ledger = with_gpus()
    assert [where(ledger.place(f"{n}", part(0.5))) for n in range(4)] == [(0,), (0,), (1,), (1,)]
    assert ledger.place("more", part(0.5)) is None


def test_three_thirds_are_a_gpu() -> None:
    ledger = with_gpus(1)
    for number in range(3):
        assert ledger.place(f"{number}", part(1 / 3)) is not None


def test_a_whole_gpu_is_shared_with_nobody() -> None:
    ledger = with_gpus(1)
    ledger.place("part", part(0.1))
    assert ledger.place("whole", part(1)) is None
    ledger.free("part")
    assert where(ledger.place("whole", part(1))) == (0,)
    assert ledger.place("part", part(0.1)) is None


def test_parts_that_allow_more_than_the_memory_does_are_held_to_the_memory() -> None:
    ledger = with_gpus(1)  # 72,000 MB without the margin
    assert ledger.place("a", part(0.25, 30_000)) is not None
    assert ledger.place("b", part(0.25, 30_000)) is not None
    assert ledger.place("c", part(0.25, 30_000)) is None
    assert ledger.place("d", part(0.25, 12_000)) is not None


def test_a_job_that_was_not_measured_counts_with_its_part_of_the_memory() -> None:
    ledger = with_gpus(1)
    assert ledger.place("unknown", part(0.5)) is not None  # 36,000 MB
    assert ledger.place("large", part(0.25, 40_000)) is None
    assert ledger.place("fits", part(0.25, 36_000)) is not None


def test_a_gpu_of_unknown_memory_is_shared_by_parts_only() -> None:
    ledger = with_gpus(1, 0)
    assert ledger.place("a", part(0.5, 90_000)) is not None
    assert ledger.place("b", part(0.5, 90_000)) is not None
    assert ledger.place("c", part(0.1)) is None


def test_the_smallest_gpu_that_will_do_is_taken() -> None:
    ledger = Ledger(8, 1000, [Gpu(0, "h", BIG), Gpu(1, "s", SMALL)])
    assert where(ledger.place("small", part(1, 20_000))) == (1,)
    assert where(ledger.place("next", part(1, 20_000))) == (0,)


def test_alone_nobody_is_put_beside_it_nor_it_beside_anybody() -> None:
    ledger = with_gpus(2)
    assert where(ledger.place("first", part(0.25))) == (0,)
    assert where(ledger.place("alone", part(0.25), alone=True)) == (1,)
    assert where(ledger.place("second", part(0.25))) == (0,)
    assert ledger.place("large", part(0.75)) is None
    ledger.free("alone")
    assert where(ledger.place("large", part(0.75))) == (1,)


def test_a_gpu_to_be_avoided_is_not_used_and_the_job_may_wait_for_another() -> None:
    ledger = with_gpus(2)
    assert where(ledger.place("a", part(1), avoid={0})) == (1,)
    assert ledger.place("b", part(1), avoid={0}) is None
    assert where(ledger.place("b", part(1))) == (0,)


JOBS = st.builds(
    Resources,
    cpus=st.floats(0.01, 10),
    gpus=st.one_of(st.floats(0.01, 1), st.sampled_from([0.0, 1.0, 2.0, 3.0])),
    memory_mb=st.none() | st.integers(1, 12_000),
    gpu_memory_mb=st.none() | st.integers(1, 90_000),
)
LEDGERS = st.builds(
    lambda cpus, memory, sizes, margin: Ledger(
        cpus, memory, [Gpu(n, "g", size) for n, size in enumerate(sizes)], margin=margin
    ),
    st.floats(0.5, 16),
    st.integers(1000, 20_000),
    st.lists(st.sampled_from([0, SMALL, BIG]), max_size=4),
    st.floats(0, 0.5),
)
# What is done one after the other: a job is placed (alone or not, avoiding some), or one is freed.
DOINGS = st.lists(
    st.tuples(JOBS, st.booleans(), st.frozensets(st.integers(0, 3), max_size=2))
    | st.integers(0, 9),
    max_size=40,
)


@given(LEDGERS, DOINGS)
@pytest.mark.slow
def test_no_sequence_of_jobs_gets_more_than_there_is(ledger: Ledger, doings: list[Any]) -> None:
    held: dict[str, tuple[Resources, bool, tuple[int, ...]]] = {}
    for number, doing in enumerate(doings):
        if isinstance(doing, int):
            if held:
                name = sorted(held)[doing % len(held)]
                ledger.free(name)
                del held[name]
            continue
        resources, alone, avoid = doing
        try:
            placement = ledger.place(f"{number}", resources, alone=alone, avoid=avoid)
        except UsageError:
            continue
        if placement is not None:
            assert len(placement.devices) == math.ceil(resources.gpus)
            assert not avoid & set(placement.devices)
            held[f"{number}"] = (resources, alone, placement.devices)
        _check_totals(ledger, held)
    _check_totals(ledger, held)


def _check_totals(ledger: Ledger, held: dict[str, tuple[Resources, bool, tuple[int, ...]]]) -> None:
    jobs = list(held.values())
    assert sum(r.cpus for r, _, _ in jobs) <= ledger.cpus + 1e-6
    assert sum(r.memory_mb or 0 for r, _, _ in jobs) <= ledger.memory_mb
    for gpu in ledger.gpus:
        on_it = [(r, alone) for r, alone, devices in jobs if gpu.index in devices]
        assert sum(min(1.0, r.gpus) for r, _ in on_it) <= 1 + 1e-6
        if any(alone or r.gpus >= 1 for r, alone in on_it):
            assert len(on_it) == 1
        if gpu.memory_mb:
            usable = gpu.memory_mb * (1 - ledger.margin)
            known = sum(r.gpu_memory_mb or 0 for r, _ in on_it)
            assert known <= usable + 0.01


@given(LEDGERS, st.lists(JOBS, max_size=20), st.randoms())
@pytest.mark.slow
def test_when_all_is_freed_all_is_there_again(
    ledger: Ledger, jobs: list[Resources], random: Any
) -> None:
    def fill() -> dict[str, Placement | None]:
        placed = {}
        for number, job in enumerate(jobs):
            try:
                placed[f"{number}"] = ledger.place(f"{number}", job)
            except UsageError:
                continue
        return placed

    first = fill()
    names = [name for name, placement in first.items() if placement is not None]
    random.shuffle(names)
    for name in names:
        ledger.free(name)
    assert (ledger.free_cpus, ledger.free_memory_mb) == (ledger.cpus, ledger.memory_mb)
    assert fill() == first


@given(LEDGERS, JOBS, st.booleans())
def test_on_an_empty_machine_a_job_either_fits_or_is_refused(
    ledger: Ledger, job: Resources, alone: bool
) -> None:
    try:
        ledger.check("job", job)
    except UsageError:
        with pytest.raises(UsageError, match=r"\Ajob asks for .+\Z"):
            ledger.place("job", job, alone=alone)
    else:
        assert ledger.place("job", job, alone=alone) is not None


def put(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
TOTAL_MB = psutil.virtual_memory().total // (1024 * 1024)


def test_the_ledger_of_this_machine_promises_no_more_than_it_has() -> None:
    found = machine()
    assert 1 <= found.cpus <= CORES
    assert 0 < found.memory_mb <= TOTAL_MB


def test_without_limits_it_is_what_this_process_may_use(tmp_path: Path) -> None:
    found = machine(environment={}, root=tmp_path)
    assert (found.cpus, found.memory_mb) == (CORES, TOTAL_MB)


def test_limits_of_cgroups_of_version_two_hold_those_above_included(tmp_path: Path) -> None:
    root = put(
        tmp_path,
        {
            "proc/self/cgroup": "0::/pod/box\n",
            "sys/fs/cgroup/pod/box/cpu.max": "max 100000\n",
            "sys/fs/cgroup/pod/box/memory.max": "536870912\n",
            "sys/fs/cgroup/pod/cpu.max": "120000 100000\n",
            "sys/fs/cgroup/pod/memory.max": "max\n",
        },
    )
    found = machine(environment={}, root=root)
    assert found.cpus == min(CORES, 1.2)
    assert found.memory_mb == 512


def test_limits_of_cgroups_of_version_one_hold(tmp_path: Path) -> None:
    root = put(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/box\n3:cpu,cpuacct:/box\n1:name=systemd:/\n",
            "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us": "125000\n",
            "sys/fs/cgroup/cpu/box/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/memory/box/memory.limit_in_bytes": "268435456\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        },
    )
    found = machine(environment={}, root=root)
    assert (found.cpus, found.memory_mb) == (min(CORES, 1.25), 256)


def test_in_a_container_that_is_shown_its_hosts_path_the_limits_at_the_top_hold(
    tmp_path: Path,
) -> None:
    root = put(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/docker/0123456789ab\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "268435456\n",
        },
    )
    assert machine(environment={}, root=root).memory_mb == 256


def test_no_limit_is_no_limit(tmp_path: Path) -> None:
    root = put(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/\n3:cpu:/\nnot a line\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        },
    )
    found = machine(environment={"SLURM_MEM_PER_NODE": "0"}, root=root)
    assert (found.cpus, found.memory_mb) == (CORES, TOTAL_MB)


def test_less_than_a_core_still_runs_one_job(tmp_path: Path) -> None:
    root = put(
        tmp_path,
        {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000"},
    )
    assert machine(environment={}, root=root).cpus == 1


def test_what_slurm_gave_is_the_machine(tmp_path: Path) -> None:
    given_ = {"SLURM_CPUS_ON_NODE": "1", "SLURM_MEM_PER_NODE": "300"}
    found = machine(environment=given_, root=tmp_path)
    assert (found.cpus, found.memory_mb) == (1, 300)
    by_core = {"SLURM_CPUS_ON_NODE": "1", "SLURM_MEM_PER_CPU": "200"}
    assert machine(environment=by_core, root=tmp_path).memory_mb == 200
    assert machine(environment={"SLURM_CPUS_ON_NODE": "many"}, root=tmp_path).cpus == CORES


@given(st.binary(max_size=40), st.binary(max_size=40))
@pytest.mark.slow
def test_garbage_in_cgroups_is_no_limit_and_no_crash(
    tmp_path_factory: pytest.TempPathFactory, group: bytes, limit: bytes
) -> None:
    assume(not limit.strip().isdigit())
    root = tmp_path_factory.mktemp("root")
    put(root, {"proc/self/cgroup": "", "sys/fs/cgroup/cpu.max": "", "sys/fs/cgroup/memory.max": ""})
    (root / "proc/self/cgroup").write_bytes(b"0::/\n" + group)
    (root / "sys/fs/cgroup/cpu.max").write_bytes(limit)
    (root / "sys/fs/cgroup/memory.max").write_bytes(limit)
    assert 1 <= machine(environment={}, root=root).cpus <= CORES


class NvmlError(Exception):
    """What the bindings raise."""


def driver(*names: str) -> SimpleNamespace:
    """As much of the bindings as is asked, with so many GPUs."""
    return SimpleNamespace(
        NVMLError=NvmlError,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: len(names),
        nvmlDeviceGetHandleByIndex=lambda number: number,
        nvmlDeviceGetUUID=lambda handle: f"GPU-{handle}",
        nvmlDeviceGetName=lambda handle: names[handle].encode(),
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(total=80 * 1024**3),
    )


@pytest.mark.parametrize(
    "chosen, numbers",
    [(None, [0, 1, 2]), ("2,0", [2, 0]), ("", []), ("GPU-1", [1]), ("1,7,0", [1]), ("1,1", [1])],
)
def test_only_gpus_that_the_variable_leaves_are_there(
    chosen: str | None, numbers: list[int]
) -> None:
    found = gpus_of(driver("A", "B", "C"), chosen)
    assert found == [Gpu(number, "ABC"[number], 80 * 1024) for number in numbers]


def test_without_bindings_or_without_a_driver_there_are_no_gpus() -> None:
    def fails() -> None:
        raise NvmlError("no driver")

    assert gpus_of(None, None) == []
    assert gpus_of(SimpleNamespace(NVMLError=NvmlError, nvmlInit=fails), None) == []


def measured(*rates: float, peak_mb: float = 1000) -> list[Measure]:
    """With one worker, two, …; the rates are those of all of them together."""
    return [Measure(n, rate / n, peak_mb) for n, rate in enumerate(rates, start=1)]


def test_workers_are_added_as_long_as_they_pay() -> None:
    found = recommend(measured(10, 18, 22, 23, 40), 100_000, steps=6600)
    assert found.workers == 3
    assert found.gain == pytest.approx(2.2)
    assert found.minutes == pytest.approx(6600 / (22 / 3) / 60)
    assert found.utilisation == pytest.approx(0.03)
    assert found.reason == "4 workers add 5 %, less than 10 %"


def test_workers_that_slow_each_other_down_are_not_added() -> None:
    found = recommend(measured(10, 9), 100_000, steps=100)
    assert (found.workers, found.gain) == (1, 1)
    assert found.reason == "2 workers add -10 %, less than 10 %"


def test_the_memory_keeps_its_margin() -> None:
    found = recommend(measured(10, 20, 30, peak_mb=4000), 10_000, steps=100)
    assert found.workers == 2
    assert found.reason == "3 workers need 12000 MB, and 10000 MB less 10 % leave 9000 MB"
    assert recommend(measured(10, 20, 30, peak_mb=4600), 10_000, steps=100).workers == 1
    assert recommend(measured(10, 20, peak_mb=4600), 10_000, steps=100, margin=0).workers == 2


def test_a_number_that_ran_out_of_memory_once_is_never_advised() -> None:
    measures = [*measured(10, 20, 30), Measure(2, 10, 1000, oom=True)]
    found = recommend(measures, 100_000, steps=100)
    assert (found.workers, found.reason) == (1, "2 workers ran out of memory")


def test_where_not_even_one_fits_none_is_advised() -> None:
    found = recommend([Measure(1, 10, 500, oom=True)], 1000, steps=100)
    assert (found.workers, found.minutes) == (0, None)
    assert found.reason == "1 worker ran out of memory"


def test_what_was_not_measured_is_not_advised() -> None:
    found = recommend(measured(10, 20), 100_000, steps=100)
    assert (found.workers, found.reason) == (2, "no more than 2 were measured")


@given(
    st.lists(
        st.builds(Measure, st.integers(1, 8), st.floats(0, 100), st.floats(0, 5000), st.booleans()),
        min_size=1,
    ),
    st.floats(100, 20_000),
)
@pytest.mark.slow
def test_what_is_advised_fits_and_never_ran_out_of_memory(
    measures: list[Measure], memory_mb: float
) -> None:
    found = recommend(measures, memory_mb, steps=100)
    alike = [one for one in measures if one.workers == found.workers]
    assert bool(alike) == (found.workers > 0)
    assert not any(one.oom for one in alike)
    assert all(one.workers * one.peak_mb_each <= 0.9 * memory_mb for one in alike)
    assert found.utilisation <= 0.9 + 1e-9
    assert found.reason
    assert "\n" not in found.reason
