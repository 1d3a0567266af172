"""`WorkloadContract`: the tests that every workload must pass. Derive, name it, run pytest.

    class TestMine(WorkloadContract):
        workload = "my_package.my_module:MyWorkload"
        settings = {"data": {"path": "small.txt"}}

Keep the settings small: the workload is built several times. Needs torch and pytest.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, ClassVar


class WorkloadContract:
    """What a workload owes to the loop that trains it."""

    workload: ClassVar[str]
    settings: ClassVar[Mapping[str, Any]] = {}
    seed: ClassVar[int] = 3

    def build(self, *, seed: int | None = None) -> Any:
        """A fresh workload."""
        from cupel import registry

        settings = registry.settings_of("workload", self.workload).model_validate(self.settings)
        found = registry.resolve("workload", self.workload)
        return found.build(settings, seed=self.seed if seed is None else seed)

    def test_the_settings_are_importable_without_torch(self) -> None:
        code = (
            "import sys; from cupel import registry; "
            f"registry.settings_of('workload', {self.workload!r}); "
            "sys.exit('torch' in sys.modules)"
        )
        # What pytest put on the path (a folder of tests, say) is on the other one's path as well.
        surroundings = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        assert subprocess.run([sys.executable, "-c", code], env=surroundings).returncode == 0

    def test_equal_seeds_build_equal_models_and_other_seeds_do_not(self) -> None:
        one, two, other = self.build(), self.build(), self.build(seed=self.seed + 1)
        assert _weights(one) == _weights(two)
        assert _weights(one) != _weights(other)

    def test_a_batch_is_a_function_of_its_step(self) -> None:
        one, two = self.build(), self.build()
        for step in (5, 1, 5):
            assert _plain(one.batch(step)) == _plain(two.batch(step))
        assert _plain(one.batch(1)) != _plain(one.batch(2)), "every step has the same batch"

    def test_shares_make_up_the_whole_batch(self) -> None:
        import torch

        workload = self.build()
        shares = [workload.batch(3, part=(i, 2)) for i in range(2)]
        for whole, *parts in zip(_tensors(workload.batch(3)), *map(_tensors, shares), strict=True):
            assert torch.equal(whole, torch.cat(parts)), "shares are not consecutive rows"

    def test_the_loss_is_finite_and_has_a_gradient(self) -> None:
        workload = self.build()
        loss, numbers = workload.loss(workload.batch(1))
        loss.backward()
        assert math.isfinite(float(loss.detach()))
        assert isinstance(numbers, Mapping)
        assert any(p.grad is not None for p in workload.model.parameters())

    def test_an_evaluation_can_be_repeated(self) -> None:
        import torch

        workload = self.build()
        workload.model.eval()
        with torch.no_grad():
            first, second = workload.evaluate(), workload.evaluate()
        assert first == second
        assert math.isfinite(first["val_loss"])

    def test_the_loss_does_not_move_the_model(self) -> None:
        workload = self.build()
        before = _weights(workload)
        workload.loss(workload.batch(1))[0].backward()
        assert _weights(workload) == before

    def test_stateful_parts_can_be_saved_and_loaded(self) -> None:
        for name, part in self.build().stateful().items():
            assert name.isidentifier()
            part.load_state_dict(part.state_dict())

    def test_says_what_throughput_counts(self) -> None:
        workload = self.build()
        assert workload.units_per_step > 0
        assert isinstance(workload.unit, str)


def _weights(workload: Any) -> list[Any]:
    return [p.detach().tolist() for p in workload.model.parameters()]


def _tensors(batch: Any) -> list[Any]:
    if isinstance(batch, Mapping):
        return [tensor for value in batch.values() for tensor in _tensors(value)]
    if isinstance(batch, tuple | list):
        return [tensor for value in batch for tensor in _tensors(value)]
    return [batch]


def _plain(batch: Any) -> list[Any]:
    return [tensor.tolist() for tensor in _tensors(batch)]
