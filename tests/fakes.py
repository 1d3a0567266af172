"""The smallest real parts: a workload, and monitors, named in recipes as `fakes:Regression`.

And what several tests need: a part of a checkpoint, a child made by fork, a disk that is watched.
Importing this file brings in no torch, as the contract of settings wants.
"""

from __future__ import annotations

import os
import re
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field

from cupel.config import Settings
from cupel.events import Event, StepView
from cupel.randomness import Streams

if TYPE_CHECKING:
    import pytest

    from cupel.checkpoint.parts import Parts


class RegressionSettings(Settings):
    """A network of two layers that learns the sine of a sum."""

    batch: int = Field(8, ge=1, description="rows an update")
    dropout: float = Field(0.0, ge=0, lt=1, description="between the two layers")


class Regression:
    """Its batches, and its validation set, are drawn from streams; nothing else is random."""

    Settings = RegressionSettings
    unit = "rows"

    def __init__(self, settings: RegressionSettings, *, model: Any, seed: int) -> None:
        self.settings, self.model, self._streams = settings, model, Streams(seed)
        self.units_per_step = settings.batch

    @classmethod
    def build(cls, settings: RegressionSettings, *, seed: int) -> Self:
        import torch
        from torch import nn

        torch.default_generator.manual_seed(Streams(seed).key("init"))
        middle = (nn.Tanh(), nn.Dropout(settings.dropout))
        model = nn.Sequential(nn.Linear(4, 16), *middle, nn.Linear(16, 1))
        return cls(settings, model=model, seed=seed)

    def stateful(self) -> Mapping[str, Any]:
        return {}

    def batch(self, step: int, *, part: tuple[int, int] = (0, 1)) -> Any:
        rows = self.settings.batch // part[1]
        return self._rows(step)[part[0] * rows : (part[0] + 1) * rows]

    def loss(self, batch: Any) -> tuple[Any, Mapping[str, Any]]:
        error = self.model(batch) - batch.sum(1, keepdim=True).sin()
        return (error**2).mean(), {"error/largest": error.detach().abs().max()}

    def evaluate(self) -> dict[str, float]:
        batch = self._rows(0).to(next(self.model.parameters()).device)
        return {"val_loss": float(self.loss(batch)[0])}

    def _rows(self, step: int) -> Any:
        import torch

        generator = torch.Generator().manual_seed(self._streams.key("data", step=step))
        return torch.randn(self.settings.batch, 4, generator=generator)


class Breaking(Regression):
    """Breaks at its third step, always alike."""

    def loss(self, batch: Any) -> tuple[Any, Mapping[str, Any]]:
        self.calls = getattr(self, "calls", 0) + 1
        if self.calls == 3:
            raise RuntimeError("the third step breaks")
        return super().loss(batch)


class _Every(Settings):
    every: int = Field(1, ge=1, description="steps between calls")


class GateSettings(_Every):
    """Where to wait."""

    step: int = Field(ge=1, description="the step at whose start training waits")
    path: str = Field(description="waits until this file is gone, and says so in <path>.waiting")


class Gate:
    """Holds training up within a step, so that a test can send a signal there without a race."""

    Settings = GateSettings
    on = Event.STEP_START

    def __init__(self, settings: GateSettings) -> None:
        self.every, self._step, self._path = settings.every, settings.step, Path(settings.path)

    def keys(self, model: Any) -> Iterator[str]:
        return iter(())

    def __call__(self, view: StepView) -> Mapping[str, Any]:
        if view.step == self._step and self._path.exists():
            self._path.with_suffix(".waiting").touch()
            while self._path.exists():
                time.sleep(0.005)
        return {}


class Slow:
    """Makes every step last twenty milliseconds more, so that a kill comes before the end."""

    Settings = _Every
    on = Event.STEP_START

    def __init__(self, settings: _Every) -> None:
        self.every = settings.every

    def keys(self, model: Any) -> Iterator[str]:
        return iter(())

    def __call__(self, view: StepView) -> Mapping[str, Any]:
        time.sleep(0.02)
        return {}


class Nudge:
    """A monitor that must not be: it changes a gradient by the least that can be seen."""

    Settings = _Every
    on = Event.AFTER_BACKWARD

    def __init__(self, settings: _Every) -> None:
        self.every = settings.every

    def keys(self, model: Any) -> Iterator[str]:
        return iter(["nudged"])

    def __call__(self, view: StepView) -> Mapping[str, Any]:
        gradient = next(view.model.parameters()).grad
        gradient.view(-1)[0] += 1e-6
        return {"nudged": 1}


class StopSettings(_Every):
    """When to ask for a stop."""

    step: int = Field(ge=1, description="the step at whose start this process gets a SIGTERM")


class Stop:
    """Asks its own process to stop, as a scheduler would."""

    Settings = StopSettings
    on = Event.STEP_START

    def __init__(self, settings: StopSettings) -> None:
        self.every, self._step = settings.every, settings.step

    def keys(self, model: Any) -> Iterator[str]:
        return iter(())

    def __call__(self, view: StepView) -> Mapping[str, Any]:
        if view.step == self._step:
            os.kill(os.getpid(), signal.SIGTERM)
        return {}


class Box:
    """A part of a checkpoint that holds any state as it is."""

    def __init__(self, state: Any = None) -> None:
        self.state = state

    def state_dict(self) -> Any:
        return self.state

    def load_state_dict(self, state: Any) -> None:
        self.state = state


def boxed(state: Any) -> Parts:
    """The parts of a run that has one, `box`, in this state."""
    from cupel.checkpoint.parts import Parts

    parts = Parts()
    parts.register("box", Box(state))
    return parts


def status_of_fork(work: Callable[[], object], *, patience: float = 20.0) -> int | None:
    """How a forked child ends that does this work: 0, or 1 when it raised; None when it hangs."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    until = time.monotonic() + patience
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.01)
    return os.waitstatus_to_exitcode(ended[1])


def watch_disk(monkeypatch: pytest.MonkeyPatch, root: Path) -> list[str]:
    """A list that grows by what is synced and named below a folder, while the calls are made.

    `sync a.json 12` is a file synced when it had twelve bytes, `sync .` a folder, `name a.json`
    a rename or a hard link. Of a temporary only the name that it will have is told: `<a.json>`.
    """
    told: list[str] = []

    def inner(path: Any) -> str:
        name = Path(path).relative_to(root).as_posix()
        return re.sub(r"\.tmp-([^~/]*)~[^/]*", r"<\1>", name)

    def sync(fd: int) -> None:
        real_sync(fd)
        about = os.fstat(fd)
        found = (path for path in (root, *root.rglob("*")) if path.stat().st_ino == about.st_ino)
        if path := next(found, None):
            told.append(f"sync {inner(path)}" + (f" {about.st_size}" if path.is_file() else ""))

    def naming(call: Callable[..., None]) -> Callable[..., None]:
        def name(source: Any, target: Any, **more: Any) -> None:
            call(source, target, **more)
            told.append(f"name {inner(target)}")

        return name

    real_sync = os.fsync
    monkeypatch.setattr(os, "fsync", sync)
    for call in ("rename", "replace", "link"):
        monkeypatch.setattr(os, call, naming(getattr(os, call)))
    return told
