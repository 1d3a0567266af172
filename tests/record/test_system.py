"""Measurements of the machine come at their rate, cost little, and stop nothing when they fail."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cupel.record import system
from cupel.record.system import System, visible


class Taken:
    """Collects samples, and waits for a number of them."""

    def __init__(self) -> None:
        self.samples: list[Mapping[str, float]] = []
        self.more = threading.Condition()

    def __call__(self, sample: Mapping[str, float]) -> None:
        with self.more:
            self.samples.append(sample)
            self.more.notify_all()

    def wait(self, count: int) -> list[Mapping[str, float]]:
        with self.more:
            assert self.more.wait_for(lambda: len(self.samples) >= count, 20)
        return self.samples


def no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)  # importing it raises ImportError


@pytest.mark.slow
def test_machine_and_process_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_gpus(monkeypatch)
    taken = Taken()
    watching = System(0.05, place=lambda: tmp_path, take=taken, on_problem=pytest.fail)
    until = time.monotonic() + 0.3
    while time.monotonic() < until:  # work, so that there is something to measure
        sum(range(1000))
    sample = taken.wait(4)[-1]
    watching.stop()
    count = len(taken.samples)
    assert set(sample) == {"cpu", "memory", "process.cpu", "process.memory", "disk.free"}
    assert 0 < sample["memory"] < psutil.virtual_memory().total
    assert 1e6 < sample["process.memory"] < 1e12
    assert sample["disk.free"] >= 0
    assert max(taken["cpu"] for taken in taken.samples) > 0
    assert max(taken["process.cpu"] for taken in taken.samples) > 20
    time.sleep(0.15)
    assert len(taken.samples) == count


def test_a_short_run_has_a_sample_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_gpus(monkeypatch)
    monkeypatch.setattr(system, "_FIRST_S", 0.05)
    taken = Taken()
    watching = System(3600, place=lambda: tmp_path, take=taken, on_problem=pytest.fail)
    taken.wait(1)
    watching.stop()


def test_a_failure_is_told_and_the_next_sample_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_gpus(monkeypatch)
    problems: list[Exception] = []
    taken = Taken()

    def take(sample: Mapping[str, float]) -> None:
        taken(sample)
        raise OSError("no")

    watching = System(0.01, place=lambda: tmp_path / "gone", take=take, on_problem=problems.append)
    samples = taken.wait(3)
    watching.stop()
    assert "disk.free" not in samples[0]
    assert len(problems) >= 2


FORKS_WHILE_IMPORTING = """
import os, sys
from pathlib import Path
from cupel.record.system import System
assert "psutil" not in sys.modules
watching = System(3600, place=Path.cwd, take=print, on_problem=print)
child = os.fork()
if child == 0:
    import psutil
    psutil.cpu_percent()
    os._exit(0)
sys.exit(os.waitpid(child, 0)[1])
"""


@pytest.mark.slow
def test_a_fork_at_the_very_start_does_not_hang_the_child() -> None:
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", FORKS_WHILE_IMPORTING], timeout=60
        )
        assert done.returncode == 0


class NVMLError(Exception):
    pass


class NotSupported(NVMLError):
    pass


def fake_nvml(**changes: Callable[..., Any]) -> types.ModuleType:
    """nvidia-ml-py for a machine with three GPUs, the last of which tells no power."""

    def power(gpu: int) -> int:
        if gpu == 2:
            raise NotSupported
        return 150_500 + gpu

    module = types.ModuleType("pynvml")
    vars(module).update(
        NVMLError=NVMLError,
        NVMLError_NotSupported=NotSupported,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 3,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetUUID=lambda gpu: f"GPU-{gpu}abc".encode(),
        nvmlDeviceGetUtilizationRates=lambda gpu: types.SimpleNamespace(gpu=90 + gpu),
        nvmlDeviceGetMemoryInfo=lambda gpu: types.SimpleNamespace(used=10 * gpu),
        nvmlDeviceGetPowerUsage=power,
        nvmlDeviceGetTemperature=lambda gpu, sensor: 60 + gpu,
    )
    vars(module).update(changes)
    return module


def gpus_of_a_sample(
    module: types.ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> tuple[dict[str, float], list[Exception]]:
    monkeypatch.setitem(sys.modules, "pynvml", module)
    problems: list[Exception] = []
    taken = Taken()
    watching = System(0.01, place=lambda: tmp_path, take=taken, on_problem=problems.append)
    (sample, *_) = taken.wait(1)
    watching.stop()
    return {key: value for key, value in sample.items() if key.startswith("gpu.")}, problems


def test_visible_gpus_are_measured_and_what_one_does_not_tell_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-1")
    found, problems = gpus_of_a_sample(fake_nvml(), monkeypatch, tmp_path)
    assert found == {
        "gpu.1.load": 91,
        "gpu.1.memory": 10,
        "gpu.1.power": 150.501,
        "gpu.1.temperature": 61,
        "gpu.2.load": 92,
        "gpu.2.memory": 20,
        "gpu.2.temperature": 62,
    }
    assert not problems


def test_a_gpu_that_falls_off_the_bus_is_told_and_the_rest_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: Any) -> Any:
        raise NVMLError("GPU is lost")

    module = fake_nvml(nvmlDeviceGetTemperature=lost)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found, problems = gpus_of_a_sample(module, monkeypatch, tmp_path)
    assert {"gpu.0.load", "gpu.1.load", "gpu.2.load"} <= set(found)
    assert str(problems[0]) == "GPU is lost"


def test_the_package_without_a_driver_is_as_if_it_were_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_driver() -> None:
        raise NVMLError("driver not loaded")

    found, problems = gpus_of_a_sample(fake_nvml(nvmlInit=no_driver), monkeypatch, tmp_path)
    assert (found, problems) == ({}, [])


@pytest.mark.parametrize(
    "variable,numbers",
    [
        (None, [0, 1, 2]),
        ("", []),
        ("-1", []),
        ("0,2", [0, 2]),
        ("2,0", [2, 0]),
        ("1,7,0", [1]),
        ("GPU-bb, GPU-a", [1, 0]),
        ("GPU-", []),  # several begin so
        ("MIG-1", []),
    ],
)
def test_gpus_are_read_as_cuda_reads_them(variable: str | None, numbers: list[int]) -> None:
    assert visible(["GPU-aa", "GPU-bb", "GPU-bc"], variable) == numbers


@given(st.text())
def test_any_value_of_the_variable_is_taken(variable: str) -> None:
    assert set(visible(["GPU-a", "GPU-b"], variable)) <= {0, 1}


def test_a_sample_costs_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_gpus(monkeypatch)
    watching = System(3600, place=lambda: tmp_path, take=print, on_problem=pytest.fail)
    watching.prepare()
    costs = []
    for _ in range(50):
        began = time.thread_time()
        watching.sample()
        costs.append(time.thread_time() - began)
    watching.stop()
    print(f"{sorted(costs)[25] * 1e6:.0f} µs of CPU a sample")
    assert sorted(costs)[25] < 5e-3
