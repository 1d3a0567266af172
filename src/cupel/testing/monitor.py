"""`MonitorContract`: the tests that every monitor must pass. Derive, make one, run pytest.

    class TestMine(MonitorContract):
        def make(self):
            return Mine(Mine.Settings(every=1))

It trains a small network for a few steps, with the monitor and without. Needs torch and pytest.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from cupel.events import Dispatcher, Event, Monitor

STEP_EVENTS = (Event.STEP_START, Event.AFTER_FORWARD, Event.AFTER_BACKWARD, Event.STEP_END)
LARGEST_ARRAY = 1024


class MonitorContract:
    """What a monitor owes to the training that it looks at."""

    @abstractmethod
    def make(self) -> Monitor:
        """A fresh monitor."""

    def model(self) -> Any:
        """The network that is watched; replace it when the monitor needs a certain kind."""
        from torch import nn

        return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 1))

    def test_follows_the_protocol(self) -> None:
        monitor = self.make()
        assert isinstance(monitor, Monitor)
        assert monitor.on in STEP_EVENTS, f"on is {monitor.on}; expected a step event"
        assert monitor.every >= 1

    def test_returns_only_the_keys_that_it_told_beforehand(self) -> None:
        monitor = self.make()
        told = set(monitor.keys(_Training(self.model()).model))
        measured = _Training(self.model()).run(monitor)
        assert measured, "the monitor measured nothing in any of the steps"
        assert measured.keys() <= told, f"not told by keys(): {measured.keys() - told}"

    def test_returns_numbers_or_small_arrays(self) -> None:
        for key, value in _Training(self.model()).run(self.make()).items():
            size = len(_numbers(value))
            assert size <= LARGEST_ARRAY, f"{key} holds {size} numbers"

    def test_leaves_weights_gradients_and_optimizer_as_they_are(self) -> None:
        watched, unwatched = _Training(self.model()), _Training(self.model())
        watched.run(self.make())
        unwatched.run(None)
        assert watched.fingerprint() == unwatched.fingerprint(), "the monitor disturbs training"

    def test_leaves_the_training_mode_as_it_is(self) -> None:
        training = _Training(self.model())
        training.run(self.make())
        assert all(module.training for module in training.model.modules())


class _Training:
    """Six steps of a small regression whose dropout is seeded by the step, as in cupel's loop."""

    steps = 6

    def __init__(self, model: Any) -> None:
        import torch

        self.model = model
        torch.default_generator.manual_seed(0)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)

    def run(self, monitor: Monitor | None) -> dict[str, Any]:
        import torch

        from cupel.events import StepView

        dispatcher = Dispatcher(debug=True)
        if monitor is not None:
            dispatcher.add_monitor("monitor", monitor)
        measured: dict[str, Any] = {}
        generator = torch.Generator().manual_seed(1)
        for step in range(1, self.steps + 1):
            batch = torch.randn(16, 4, generator=generator)

            def look(event: Event, loss: Any = None, step: int = step, batch: Any = batch) -> None:
                view = StepView(
                    self.model, self.optimizer, step, loss, batch, self._loss, {"tokens": 16}
                )
                measured.update(dispatcher.measure(event, view))

            look(Event.STEP_START)
            torch.default_generator.manual_seed(step)
            self.optimizer.zero_grad()
            loss = self._loss(batch)
            look(Event.AFTER_FORWARD, loss.detach())
            loss.backward()
            look(Event.AFTER_BACKWARD, loss.detach())
            self.optimizer.step()
            look(Event.STEP_END, loss.detach())
        return measured

    def _loss(self, batch: Any) -> Any:
        return ((self.model(batch) - batch.sum(1, keepdim=True)) ** 2).mean()

    def fingerprint(self) -> list[Any]:
        """Every weight, buffer, gradient and moment, as plain numbers."""
        state = self.optimizer.state_dict()["state"]
        moments = [value.tolist() for one in state.values() for value in one.values()]
        gradients = [p.grad.tolist() for p in self.model.parameters() if p.grad is not None]
        return [[t.tolist() for t in self.model.state_dict().values()], gradients, moments]


def _numbers(value: Any) -> list[float]:
    """A number, an array or a list, flat. Raises TypeError or ValueError for anything else."""
    plain = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(plain, list | tuple):
        return [number for item in plain for number in _numbers(item)]
    return [float(plain)]
