"""A monitor that breaks runs of a study for real, as a plan says: `injecting:Injector`.

    cupel study run smoke "monitors.injecting:Injector.plan=plan.json"

The plan is a JSON file: by a run's id the failures that it is to meet, one an attempt. Each comes
once, at the start of a given step, however often the run is killed by others: what came is marked
by a file beside the plan. While there is a file `plan.gate`, runs wait at that step.

Monitors are no part of a run's identity, so the runs are those of the study without it. It writes
no numbers, and a run that the plan does not name is left alone.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from pydantic import Field

from cupel.config import Settings
from cupel.events import Event, StepView


class InjectorSettings(Settings):
    """What is to break, and where."""

    plan: str = Field(description="a JSON file: by the run's id a list of failures")
    step: int = Field(45, ge=1, description="the step at whose start they come")
    every: int = Field(1, ge=1, description="steps between calls")


class Injector:
    """Finds its run's id in the command line (`cupel study work FOLDER RUN`), and breaks it."""

    Settings = InjectorSettings
    on = Event.STEP_START

    def __init__(self, settings: InjectorSettings) -> None:
        self.every, self._step, self._plan = settings.every, settings.step, Path(settings.plan)

    def keys(self, model: Any) -> Iterator[str]:
        return iter(())

    def __call__(self, view: StepView) -> Mapping[str, Any]:
        if view.step == self._step:
            while self._plan.with_suffix(".gate").exists():
                time.sleep(0.02)
            if failure := self._next(sys.argv[-1]):
                CAUSES[failure](view.model)
        return {}

    def _next(self, run_id: str) -> str | None:
        """What comes now; it does not come again."""
        marks = self._plan.with_suffix(".came")
        marks.mkdir(exist_ok=True)
        for number, failure in enumerate(json.loads(self._plan.read_text()).get(run_id, ())):
            mark = marks / f"{run_id}.{number}"
            if not mark.exists():
                mark.touch()
                return str(failure)
        return None


# ---- causes ------------------------------------------------------------------------------------
# A monitor that raises stops nothing, so what is to stop training is raised in the model's forward.


def _killed(model: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _preempted(model: Any) -> None:
    """Asks the run to stop, as a machine does that is wanted back; it writes a checkpoint."""
    os.kill(os.getpid(), signal.SIGTERM)


def _cuda_oom(model: Any) -> None:
    import torch

    told = "CUDA out of memory. Tried to allocate 2.00 GiB (GPU 0; 79.15 GiB total capacity)"
    _in_forward(model, _raising(torch.OutOfMemoryError(told)))


def _host_oom(model: Any) -> None:
    _in_forward(model, _raising(MemoryError("cannot allocate 2.00 GiB")))


def _hung(model: Any) -> None:
    def sleep() -> None:
        while True:
            time.sleep(60)

    _in_forward(model, sleep)


def _node(model: Any) -> None:
    _in_forward(model, _raising(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))


def _unknown(model: Any) -> None:
    _in_forward(model, _raising(RuntimeError("the flux capacitor is empty")))


def _diverged(model: Any) -> None:
    def spoil(module: Any, given: Any, output: Any) -> Any:
        return output * float("inf")

    model.register_forward_hook(spoil)


def _in_forward(model: Any, act: Callable[[], object]) -> None:
    def before(module: Any, given: Any) -> None:
        act()

    model.register_forward_pre_hook(before)


def _raising(error: Exception) -> Callable[[], NoReturn]:
    def act() -> NoReturn:
        raise error

    return act


CAUSES: Mapping[str, Callable[[Any], None]] = {
    "killed": _killed,
    "preempted": _preempted,
    "cuda_oom": _cuda_oom,
    "host_oom": _host_oom,
    "hung": _hung,
    "node": _node,
    "unknown": _unknown,
    "diverged": _diverged,
}
