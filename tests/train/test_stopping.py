"""Early stopping against a reference that remembers everything, and what progress remembers."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from cupel.train.settings import StoppingSettings
from cupel.train.stopping import EarlyStopping, Progress

VALUES = st.lists(
    st.sampled_from([1.0, 1.5, 2.0, 2.5, 3.0, math.nan, math.inf, -math.inf]), max_size=12
)


def stops_at(values: list[float], patience: int, min_delta: float) -> int | None:
    """The reference: the first evaluation after `patience` ones without an improvement."""
    best, best_at = math.inf, -1
    for i, value in enumerate(values):
        if math.isfinite(value) and value < best - min_delta:
            best, best_at = value, i
        elif i - best_at >= patience:
            return i
    return None


@given(VALUES, st.integers(1, 4), st.sampled_from([0.0, 0.5, 0.75]))
def test_it_stops_after_patience_evaluations_without_improvement(
    values: list[float], patience: int, min_delta: float
) -> None:
    stopping = EarlyStopping(StoppingSettings(patience=patience, min_delta=min_delta))
    found = None
    for i, value in enumerate(values):
        stopping.update(value)
        if stopping.stopped:
            found = i
            break
    assert found == stops_at(values, patience, min_delta)


@given(VALUES, st.integers(0, 12))
def test_a_resumed_memory_is_the_same(values: list[float], cut: int) -> None:
    settings = StoppingSettings(patience=2)
    one, two = EarlyStopping(settings), EarlyStopping(settings)
    for value in values[:cut]:
        one.update(value)
    two.load_state_dict(one.state_dict())
    for value in values[cut:]:
        one.update(value)
        two.update(value)
    assert one.state_dict() == two.state_dict()
    assert one.stopped == two.stopped


@given(VALUES)
def test_progress_knows_the_lowest_value_and_its_first_step(values: list[float]) -> None:
    progress = Progress()
    for step, value in enumerate(values, start=1):
        progress.step = step
        progress.evaluated({"val_loss": value}, key="val_loss")
    real = [(value, step) for step, value in enumerate(values, start=1) if math.isfinite(value)]
    best, best_step = min(real, default=(math.inf, 0))
    assert (progress.best, progress.best_step) == (best, best_step)
    assert progress.evaluated_at == len(values)


@given(VALUES)
def test_restored_progress_is_equal_and_shares_nothing(values: list[float]) -> None:
    one, two = Progress(), Progress()
    for step, value in enumerate(values, start=1):
        one.step, one.loss = step, value
        one.evaluated({"val_loss": value, "val_acc": 0.5}, key="val_loss")
    two.load_state_dict(one.state_dict())
    assert repr(two.state_dict()) == repr(one.state_dict())  # repr: NaN is not equal to itself
    two.evaluation["val_loss"] = 9.0
    assert one.evaluation.get("val_loss") != 9.0
