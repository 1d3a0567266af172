"""cupel's loop beside the bare one, in one process, in short turns.

A busy machine makes any two programs that run one after the other look different. So the two
loops take turns of a few steps, and each turn of one is compared with the turn of the other just
before it: what counts is the median of these ratios. Nothing in cupel is opened for it: the bare
loop makes its steps inside a listener that cupel's loop tells of the next step.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch
from bare_loop import BareLoop, Batch, equal_weights

from cupel import registry
from cupel.checkpoint.stop import StopRequest
from cupel.config import Recipe, load
from cupel.events import Dispatcher, Event
from cupel.record.session import Session
from cupel.train.loop import Loop
from cupel.train.parallel import World
from cupel.train.settings import TrainSettings
from cupel.workloads.gpt import GPTWorkload

BATCHES = 64  # kept in memory, so that making them is in neither measurement
WARM_UP = 3  # turns that do not count


class FixedWorkload(GPTWorkload):
    """The GPT workload with batches made beforehand, and an evaluation that costs nothing."""

    batches: list[Batch]

    def batch(self, step: int, *, part: tuple[int, int] = (0, 1)) -> Batch:
        return self.batches[step % len(self.batches)]

    def evaluate(self) -> dict[str, float]:
        return {"val_loss": 0.0}


class Turns:
    """Listens to cupel's loop; between two of its turns the bare loop has one of its own.

    `bare` and `cupel` hold (CPU seconds, wall seconds) of each turn.
    """

    def __init__(self, bare_loop: BareLoop, *, turns: int, steps: int) -> None:
        self.bare: list[tuple[float, float]] = []
        self.cupel: list[tuple[float, float]] = []
        self._bare_loop, self._turns, self._steps = bare_loop, turns, steps
        self._began: tuple[float, float] | None = None

    def __call__(self, event: Event, payload: Any) -> None:
        if payload["step"] % self._steps != 1:
            return
        if self._began is not None:
            self.cupel.append(_since(self._began))
        if len(self.bare) == self._turns:
            return
        began = _now()
        self._bare_loop.make(self._steps)
        self.bare.append(_since(began))
        self._tell()
        self._began = _now()

    def _tell(self) -> None:
        if len(self.bare) % 25 == 0:
            print(f"  turn {len(self.bare)}", file=sys.stderr, flush=True)


def measure(folder: Path, *, turns: int, steps: int) -> dict[str, Any]:
    """Train `gpt-tiny` in both loops, and compare them turn by turn.

    The record goes to `folder`. Raises AssertionError when the two models are not equal in the
    end: then the loops have not done the same work.
    """
    torch.set_num_threads(1)
    # One step more than whole turns: the last step, with its evaluation, is in none of them.
    whole = (turns + WARM_UP) * steps
    recipe = load("gpt-tiny").with_changes({"train.steps": whole + 1})
    settings = recipe.section("train", TrainSettings)
    workload, twin = _workload(recipe), _workload(recipe)
    session = Session.start(root=folder, project="bench", name="loop", config={}, identity="none")
    dispatcher = Dispatcher(debug=True)
    for name, chosen in recipe.monitors.items():
        dispatcher.add_monitor(name, registry.resolve("monitor", name)(chosen))
    optimizer = registry.resolve("optimizer", settings.optimizer.kind)(
        twin.model, settings.optimizer
    )
    factor = registry.resolve("schedule", settings.schedule.kind)(settings.schedule, settings.steps)
    assert settings.clip is not None
    bare = BareLoop(
        twin.model, optimizer, batches=workload.batches, factor=factor, clip=settings.clip
    )
    taking_turns = Turns(bare, turns=turns + WARM_UP, steps=steps)
    dispatcher.add_listener("turns", taking_turns, [Event.STEP_START])
    loop = Loop(
        workload,
        settings,
        seed=recipe.seed,
        recorder=session,
        dispatcher=dispatcher,
        world=World.join("cpu"),
    )
    loop.run(StopRequest())
    bare.make(1)
    assert equal_weights(loop.model, twin.model), "the two loops have not done the same work"
    session.finish("finished")
    costs = {name: cost.cpu_s / settings.steps for name, cost in dispatcher.costs().items()}
    return {
        "parameters": sum(p.numel() for p in twin.model.parameters()),
        "turns": turns,
        "steps_a_turn": steps,
        **_compared(taking_turns, steps=steps, units=workload.units_per_step),
        "monitors_us_a_step": {name: 1e6 * cost for name, cost in costs.items()},
    }


def _workload(recipe: Recipe) -> FixedWorkload:
    made = FixedWorkload.build(recipe.workload_settings, seed=recipe.seed)
    made.batches = [GPTWorkload.batch(made, step) for step in range(1, BATCHES + 1)]
    return made


def _compared(turns: Turns, *, steps: int, units: int) -> dict[str, Any]:
    pairs = list(zip(turns.cupel, turns.bare, strict=True))[WARM_UP:]
    bare_cpu = _spread([bare[0] / steps for _, bare in pairs])
    cupel_cpu = _spread([cupel[0] / steps for cupel, _ in pairs])
    return {
        "cpu_ratio_of_totals": sum(c[0] for c, _ in pairs) / sum(b[0] for _, b in pairs),
        "cpu_ratio": _spread([cupel[0] / bare[0] for cupel, bare in pairs]),
        "wall_ratio": _spread([cupel[1] / bare[1] for cupel, bare in pairs]),
        "bare_cpu_s_a_step": bare_cpu,
        "cupel_cpu_s_a_step": cupel_cpu,
        "bare_tokens_per_cpu_s": units / bare_cpu["median"],
        "cupel_tokens_per_cpu_s": units / cupel_cpu["median"],
    }


def _spread(values: list[float]) -> dict[str, float]:
    """Median, quartiles, and a 95 % interval of the median from order statistics."""
    ordered, n = sorted(values), len(values)
    half = 0.98 * n**0.5  # 1.96 standard deviations of a binomial count with p = 1/2
    at = {
        "median": n / 2,
        "quartile_1": n / 4,
        "quartile_3": 3 * n / 4,
        "low": n / 2 - half,
        "high": n / 2 + half,
    }
    return {name: ordered[min(n - 1, max(0, int(place)))] for name, place in at.items()}


def _now() -> tuple[float, float]:
    return time.process_time(), time.perf_counter()


def _since(began: tuple[float, float]) -> tuple[float, float]:
    cpu, wall = _now()
    return cpu - began[0], wall - began[1]
