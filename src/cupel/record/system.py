"""What machine and process were doing, every few seconds: `{"cpu": 51.2, "gpu.0.memory": …}`.

cpu, process.cpu        percent of all cores; percent of one core (400: four of them are busy)
memory, process.memory  bytes in use on the machine; resident bytes of this process alone
disk.free               bytes that are free where the record lies
gpu.N.load              percent of the time that something ran on it
gpu.N.memory            bytes in use, by everybody
gpu.N.power, gpu.N.temperature   watts, °C

N is the driver's own number, for the GPUs that CUDA_VISIBLE_DEVICES leaves (which CUDA may count in
another order). They are asked through nvidia-ml-py when it is installed, else left out; so is what
a GPU does not tell. A sample takes about 0.2 ms, and as much again for each GPU, in a thread of its
own: a driver that hangs stops neither training nor the heartbeat.
"""

from __future__ import annotations

import importlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_QUANTITIES: dict[str, Callable[[Any, Any], float]] = {
    "load": lambda nvml, gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu,
    "memory": lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).used,
    "power": lambda nvml, gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000,
    "temperature": lambda nvml, gpu: nvml.nvmlDeviceGetTemperature(gpu, 0),
}
_FIRST_S = 1.0  # so that a run of seconds has a line, too
_STOPPING_S = 2.0

# A child that is forked while a thread imports a module finds that module locked for ever: a fork
# waits until our thread has imported.
_importing = threading.Lock()
os.register_at_fork(
    before=_importing.acquire,
    after_in_parent=_importing.release,
    after_in_child=_importing.release,
)


class System:
    """Calls `take` with a sample every `every` seconds, by a thread, until `stop`.

    `place` tells where the record lies; `on_problem` hears what goes wrong, at every sample.
    """

    def __init__(
        self,
        every: float,
        *,
        place: Callable[[], Path],
        take: Callable[[Mapping[str, float]], object],
        on_problem: Callable[[Exception], object],
    ) -> None:
        assert every > 0, every
        self._every, self._place, self._take = every, place, take
        self._on_problem = on_problem
        self._psutil: Any = None
        self._process: Any = None
        self._nvml: Any = None
        self._gpus: dict[int, Any] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="cupel-system", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; one that hangs in a driver is left to itself."""
        self._stopped.set()
        self._thread.join(_STOPPING_S)

    def sample(self) -> dict[str, float]:
        """One measurement, after `prepare`. The first percentages are since then."""
        memory = self._psutil.virtual_memory()
        return {
            "cpu": self._psutil.cpu_percent(),
            "memory": memory.total - memory.available,
            "process.cpu": self._process.cpu_percent(),
            "process.memory": self._process.memory_info().rss,
            **self._disk(),
            **self._of_gpus(),
        }

    def prepare(self) -> None:
        """Import what measures, and find the GPUs; about 50 ms, more where a driver must wake."""
        with _importing:
            import psutil

            self._psutil, self._nvml = psutil, _nvml()
        self._process = psutil.Process()
        psutil.cpu_percent()  # from now on
        self._process.cpu_percent()
        self._gpus = self._visible_gpus()

    def _watch(self) -> None:
        try:
            self.prepare()
        except Exception as error:  # a package that is broken or missing, whatever it raises
            self._on_problem(error)
            if self._process is None:
                return
        wait = min(_FIRST_S, self._every)
        while not self._stopped.wait(wait):
            began = time.monotonic()
            try:
                self._take(self.sample())
            except Exception as error:  # of a driver; the next sample may succeed
                self._on_problem(error)
            wait = max(0.0, self._every - (time.monotonic() - began))

    def _disk(self) -> dict[str, float]:
        try:
            disk = os.statvfs(self._place())
        except OSError:  # the record was deleted: told of by whoever writes it
            return {}
        return {"disk.free": disk.f_bavail * disk.f_frsize}

    def _visible_gpus(self) -> dict[int, Any]:
        """The driver's number of each GPU that this process may use → its handle."""
        if self._nvml is None:
            return {}
        try:
            self._nvml.nvmlInit()
            count = self._nvml.nvmlDeviceGetCount()
        except self._nvml.NVMLError:  # the package without a driver
            return {}
        handles = [self._nvml.nvmlDeviceGetHandleByIndex(number) for number in range(count)]
        names = [_text(self._nvml.nvmlDeviceGetUUID(handle)) for handle in handles]
        chosen = visible(names, os.environ.get("CUDA_VISIBLE_DEVICES"))
        return {number: handles[number] for number in chosen}

    def _of_gpus(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for number, gpu in self._gpus.items():
            for name, ask in _QUANTITIES.items():
                try:
                    found[f"gpu.{number}.{name}"] = ask(self._nvml, gpu)
                except self._nvml.NVMLError_NotSupported:
                    continue
                except self._nvml.NVMLError as error:  # it has fallen off the bus
                    self._on_problem(error)
        return found


def visible(uuids: list[str], variable: str | None) -> list[int]:
    """The numbers of the GPUs that a value of CUDA_VISIBLE_DEVICES leaves; None leaves all.

    As CUDA reads it: numbers or beginnings of UUIDs, up to the first that there is not.
    """
    if variable is None:
        return list(range(len(uuids)))
    found: list[int] = []
    for text in (part.strip() for part in variable.split(",")):
        if text.isascii() and text.isdecimal() and len(text) < 9 and int(text) < len(uuids):
            found.append(int(text))
        else:
            named = [n for n, uuid in enumerate(uuids) if text and uuid.startswith(text)]
            if len(named) != 1:
                break
            found += named
    return found


def _nvml() -> Any:
    try:
        found = importlib.import_module("pynvml")  # what nvidia-ml-py is imported as
    except ImportError:
        return None
    return found if hasattr(found, "nvmlDeviceGetUUID") else None


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value  # older bindings gave bytes
