"""The workload contract passes a good workload, and fails each kind of bad one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import pytest

from cupel.testing.workload import WorkloadContract
from fakes import Regression, RegressionSettings


class TestRegression(WorkloadContract):
    workload = "fakes:Regression"


class TestRegressionWithDropout(WorkloadContract):
    workload = "fakes:Regression"
    settings: ClassVar[Mapping[str, Any]] = {"dropout": 0.5}


class Impure(Regression):
    """Draws its batches from torch's global generator."""

    def _rows(self, step: int) -> Any:
        import torch

        return torch.randn(self.settings.batch, 4)


class OneBatch(Regression):
    def _rows(self, step: int) -> Any:
        return super()._rows(1)


class Overlapping(Regression):
    """Gives every share the first rows."""

    def batch(self, step: int, *, part: tuple[int, int] = (0, 1)) -> Any:
        return super().batch(step, part=(0, part[1]))


class Unseeded(Regression):
    @classmethod
    def build(cls, settings: RegressionSettings, *, seed: int) -> Self:
        import secrets

        return super().build(settings, seed=secrets.randbits(62))


class Seedless(Regression):
    @classmethod
    def build(cls, settings: RegressionSettings, *, seed: int) -> Self:
        return super().build(settings, seed=0)


class Wandering(Regression):
    """Changes its weights in the loss."""

    def loss(self, batch: Any) -> tuple[Any, Mapping[str, Any]]:
        import torch

        with torch.no_grad():
            next(self.model.parameters()).add_(1.0)
        return super().loss(batch)


class Gradientless(Regression):
    def loss(self, batch: Any) -> tuple[Any, Mapping[str, Any]]:
        loss, numbers = super().loss(batch)
        return loss.detach().requires_grad_(), numbers


class Infinite(Regression):
    def loss(self, batch: Any) -> tuple[Any, Mapping[str, Any]]:
        loss, numbers = super().loss(batch)
        return loss / 0, numbers


class Restless(Regression):
    """Evaluates on other rows each time."""

    def evaluate(self) -> dict[str, float]:
        import torch

        return {"val_loss": float(self.loss(torch.randn(8, 4))[0])}


class Nameless(Regression):
    """Evaluates, and does not say val_loss."""

    def evaluate(self) -> dict[str, float]:
        return {"loss_of_validation": super().evaluate()["val_loss"]}


class Stateless(Regression):
    """Has a part that cannot be restored."""

    def stateful(self) -> Mapping[str, Any]:
        return {"part": object()}


class Uncounted(Regression):
    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.units_per_step = 0


@pytest.mark.parametrize(
    "bad, caught_by",
    [
        (Impure, "test_a_batch_is_a_function_of_its_step"),
        (OneBatch, "test_a_batch_is_a_function_of_its_step"),
        (Overlapping, "test_shares_make_up_the_whole_batch"),
        (Unseeded, "test_equal_seeds_build_equal_models_and_other_seeds_do_not"),
        (Seedless, "test_equal_seeds_build_equal_models_and_other_seeds_do_not"),
        (Wandering, "test_the_loss_does_not_move_the_model"),
        (Gradientless, "test_the_loss_is_finite_and_has_a_gradient"),
        (Infinite, "test_the_loss_is_finite_and_has_a_gradient"),
        (Restless, "test_an_evaluation_can_be_repeated"),
        (Nameless, "test_an_evaluation_can_be_repeated"),
        (Stateless, "test_stateful_parts_can_be_saved_and_loaded"),
        (Uncounted, "test_says_what_throughput_counts"),
    ],
)
def test_a_bad_workload_is_caught(bad: type[Regression], caught_by: str) -> None:
    class Contract(WorkloadContract):
        workload = ""

        def build(self, *, seed: int | None = None) -> Any:
            return bad.build(RegressionSettings(), seed=self.seed if seed is None else seed)

    with pytest.raises((AssertionError, AttributeError, KeyError)):
        getattr(Contract(), caught_by)()


@pytest.mark.slow
def test_settings_that_bring_in_torch_are_caught(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "heavy.py").write_text("import torch\nclass W:\n    class Settings: pass\n")
    monkeypatch.syspath_prepend(tmp_path)

    class Contract(WorkloadContract):
        workload = "heavy:W"

    with pytest.raises(AssertionError):
        Contract().test_the_settings_are_importable_without_torch()
