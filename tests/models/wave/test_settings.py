"""Settings of wave models, their optimizers and losses: each acts, or is refused by its name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn

from cupel.models.gpt.settings import GPTModelSettings
from cupel.models.wave.loss import QFE, Coherence
from cupel.models.wave.model import WaveGPT
from cupel.models.wave.optim import rgd, wave_native
from cupel.models.wave.settings import (
    CoherenceSettings,
    PureWaveSettings,
    QFESettings,
    RGDSettings,
    WaveModelSettings,
    WaveNativeSettings,
)

# At least two waves: one alone, normalised, is a sign, of which some kernels make equal weights.
VALUES: dict[str, list[Any]] = {
    "layers": [1, 2],
    "heads": [1, 2],
    "width": [4, 8],
    "waves": [2, 3],
    "harmonics": [4, 1, 2],
    "block": [4, 6],
    "vocabulary": [7, 9],
    "bias": [True, False],
    "head_bias": [False, True],
    "input_norm": [False, True],
    "dropout": [0.0, 0.25, 0.5],
    "embedding": ["packet", "physics"],
    "attention": ["interference", "pure", "physics"],
    "pure.kernel": ["elu", "sigmoid", "exp"],
    "pure.form": ["linear", "quadratic"],
    "pure.normaliser": ["sqrt", "sum"],
    "mlp": ["gelu_sine", "sine", "gelu"],
    "ratio": ["scheduled", "free", "decay"],
    "ratio_steps": [3000, 50],
}
START = {name: values[0] for name, values in VALUES.items()}
# The form is a price, not a number: tests/models/wave/test_pure.py holds both forms to be equal.
SAME_NUMBERS = {"pure.form"}


def made(values: dict[str, Any]) -> WaveModelSettings:
    own = {name: value for name, value in values.items() if "." not in name}
    inner = {name[5:]: value for name, value in values.items() if name.startswith("pure.")}
    return WaveModelSettings(**own, pure=inner)


def refusal(values: dict[str, Any]) -> str | None:
    try:
        made(values)
    except ValidationError as error:
        (mistake,) = error.errors()
        return str(mistake["ctx"]["error"])
    return None


def numbers(chosen: WaveModelSettings) -> dict[str, Tensor]:
    """A model's state, what it makes of its longest context in training, and its wave ratios."""
    torch.manual_seed(0)
    model = WaveGPT(chosen)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():  # fresh blocks hardly change what they are given
            parameter.normal_(std=0.5)
    tokens = torch.arange(2 * chosen.block).remainder(5).view(2, -1)
    logits, loss = model(tokens, tokens.roll(1, 1))
    loss.backward()
    gradients = {f"∂{name}": p.grad for name, p in model.named_parameters()}
    schedule = model.ratio_schedule()
    ratios = torch.tensor([schedule.step(9) for _ in range(2)])
    return state | gradients | {"logits": logits.detach(), "ratios": ratios}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_every_field_of_the_model_is_held_to_act():
    own = set(WaveModelSettings.model_fields) - {"kind", "pure"}
    assert own | {f"pure.{name}" for name in PureWaveSettings.model_fields} == set(VALUES)


def check_change(values: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    """The values after the change, which acts; or as they were, where it is refused."""
    changed = values | {name: value}
    if (told := refusal(changed)) is not None:
        assert name.split(".")[0] in told
        assert "\n" not in told
        return values
    if changed != values and name not in SAME_NUMBERS:
        same = equal(numbers(made(values)), numbers(made(changed)))
        assert not same, (values, name, value)
    return changed


CHANGES = [(name, value) for name in VALUES for value in VALUES[name] if value != START[name]]


@pytest.mark.parametrize("first", CHANGES, ids=lambda change: f"{change[0]}={change[1]}")
@pytest.mark.slow
def test_each_setting_acts_beside_each_other_or_is_refused_by_its_name(first):
    values = START | dict([first])
    if refusal(values) is None:
        for name, value in CHANGES:
            check_change(values, name, value)


@given(walk=st.lists(st.sampled_from(CHANGES) | st.sampled_from([*START.items()]), max_size=10))
@settings(deadline=None, max_examples=30)
@pytest.mark.slow
def test_each_change_of_many_acts_or_is_refused_by_its_name(walk):
    values = START
    for name, value in walk:
        values = check_change(values, name, value)


def test_the_numbers_that_are_compared_are_those_of_the_settings_alone():
    assert equal(numbers(made(START)), numbers(made(START)))


@pytest.mark.parametrize(
    "given_values, told",
    [
        (
            {"embedding": "physics", "harmonics": 2},
            "harmonics is 2, but embedding is physics, whose harmonics are half of width; "
            "set harmonics: 4 (the default), or embedding: packet",
        ),
        (
            {"pure.kernel": "exp"},
            "pure is set, but attention is interference; remove it, or set attention: pure",
        ),
        (
            {"ratio_steps": 50},
            "ratio_steps is set, but ratio is scheduled; remove it, or set ratio: decay",
        ),
    ],
)
def test_a_setting_without_effect_is_refused_with_what_to_type(given_values, told):
    assert refusal(START | given_values) == told


def test_the_default_number_of_harmonics_fits_every_embedding():
    """So that an arm which extends a packet model says no more than its embedding."""
    assert made(START | {"embedding": "physics"}).harmonics == 4


# ---- the penalties on waves --------------------------------------------------------------------

SIZES = {"layers": 1, "heads": 1, "block": 6, "vocabulary": 7}
wave_sizes = st.fixed_dictionaries(
    {
        "embedding": st.sampled_from(["packet", "physics"]),
        "waves": st.integers(1, 3),
        "harmonics": st.sampled_from([1, 2, 4]),
        "width": st.sampled_from([2, 4]),
    }
)


def complaint(objective: CoherenceSettings, model: Any) -> str | None:
    try:
        objective.check_model(model)
    except ValueError as refused:
        return str(refused)
    return None


def penalised(objective: CoherenceSettings, model: WaveGPT) -> list[Tensor]:
    tokens = torch.arange(12).remainder(5).view(2, 6)
    loss, _ = Coherence(objective, vocabulary=7, key=0)(model, tokens, tokens.roll(1, 1))
    return [loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))]


@given(sizes=wave_sizes, name=st.sampled_from(sorted(CoherenceSettings.model_fields)))
@settings(deadline=None, max_examples=60)
@pytest.mark.slow
def test_a_weight_changes_the_loss_or_is_refused_by_its_name(sizes, name):
    assume(name != "kind")
    assume(sizes["embedding"] == "packet" or sizes["harmonics"] == 4)
    chosen = WaveModelSettings(**SIZES, **sizes)
    objective = CoherenceSettings(**{name: 0.5})
    if (told := complaint(objective, chosen)) is not None:
        assert told.startswith(f"{name} is 0.5, but ")
        assert "\n" not in told
        assert complaint(CoherenceSettings(), chosen) is None
        assert complaint(CoherenceSettings(**{name: 0}), chosen) is None  # it is off indeed
        return
    torch.manual_seed(0)
    model = WaveGPT(chosen)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    found = zip(penalised(CoherenceSettings(), model), penalised(objective, model), strict=True)
    # Above rounding: a penalty that is 0 but for that would move nothing.
    assert max((one - other).abs().max() for one, other in found) > 1e-4


@pytest.mark.parametrize(
    "model, weights, told",
    [
        (
            {"embedding": "physics"},
            {"harmonic_deviation": 0.1},
            "harmonic_deviation is 0.1, but amplitudes of embedding: physics are 1/n and not "
            "learned; set harmonic_deviation: 0, or leave it out",
        ),
        (
            {"harmonics": 1},
            {"harmonic_deviation": 0.1},
            "harmonic_deviation is 0.1, but model.harmonics is 1, with nothing to deviate; "
            "set harmonic_deviation: 0, or leave it out",
        ),
        (
            {"waves": 1},
            {"phase_variance": 0.1},
            "phase_variance is 0.1, but each token has one phase (model.waves is 1); "
            "set phase_variance: 0, or leave it out",
        ),
        (
            {"embedding": "physics", "width": 2, "heads": 1},
            {"phase_variance": 0.1},
            "phase_variance is 0.1, but each token has one phase (half of model.width, 2); "
            "set phase_variance: 0, or leave it out",
        ),
    ],
)
def test_a_penalty_with_nothing_to_act_on_is_refused_with_what_to_type(model, weights, told):
    assert complaint(CoherenceSettings(**weights), WaveModelSettings(**model)) == told


def test_penalties_on_waves_are_refused_for_a_model_without_waves():
    assert complaint(CoherenceSettings(), GPTModelSettings()) == (
        "kind: coherence measures waves, and model.kind=gpt has none; type model=wave-tiny or "
        "objective.kind=cross_entropy"
    )


@pytest.mark.parametrize("base", [GPTModelSettings, WaveModelSettings])
def test_a_model_of_ones_own_is_not_judged_by_what_its_settings_derive_from(base):
    class Own(base):
        pass

    more = {"waves": 1} if base is WaveModelSettings else {}
    assert complaint(CoherenceSettings(phase_variance=0.5), Own(**more)) is None


# ---- the other components: each field alone, from where it acts ---------------------------------

RGD = {
    "lr": 0.1, "betas": (0.5, 0.9), "eps": 0.1, "weight_decay": 0.5, "strength": 1.0, "warmup": 1,
    "resonance_eps": 0.1,
}  # fmt: skip
NATIVE = {
    "lr": 0.1, "damping": 0.5, "projected": 0.2, "modes": 0.6, "every": 2, "weight_decay": 0.5
}  # fmt: skip


def trained(make: Any, chosen: Any) -> Tensor:
    torch.manual_seed(0)
    model = nn.Linear(6, 5)
    optimizer = make(model, chosen)
    for _ in range(4):
        optimizer.zero_grad()
        model(torch.arange(12.0).view(2, 6)).cos().sum().backward()
        optimizer.step()
    return model.weight.detach()


@pytest.mark.parametrize("name", RGD)
def test_each_setting_of_rgd_changes_its_updates(name):
    found = trained(rgd, RGDSettings(**{name: RGD[name]}))
    assert not torch.equal(found, trained(rgd, RGDSettings()))


@pytest.mark.parametrize("name", NATIVE)
def test_each_setting_of_wave_native_changes_its_updates(name):
    found = trained(wave_native, WaveNativeSettings(**{name: NATIVE[name]}))
    assert not torch.equal(found, trained(wave_native, WaveNativeSettings()))


QFE_START = {"weight": 0.05, "temperature": 1.0, "threshold": 0.01, "projection": 4}
QFE_CHANGED = {"weight": 0.1, "temperature": 2.0, "threshold": 1.0, "projection": 5}


@pytest.mark.parametrize("name", QFE_CHANGED)
def test_each_setting_of_qfe_changes_the_loss(name):
    torch.manual_seed(0)
    model = WaveGPT(WaveModelSettings(**SIZES, width=4))
    tokens = torch.arange(12).remainder(5).view(2, 6)
    found = [
        QFE(QFESettings(**values), vocabulary=7, key=0)(model, tokens, tokens.roll(1, 1))[0]
        for values in (QFE_START, QFE_START | {name: QFE_CHANGED[name]})
    ]
    assert found[0] != found[1]


def test_every_field_of_optimizers_and_losses_is_held_to_act():
    # Fused is the same arithmetic in another kernel.
    assert set(RGDSettings.model_fields) == {*RGD, "kind", "fused"}
    assert set(WaveNativeSettings.model_fields) == {*NATIVE, "kind"}
    assert set(QFESettings.model_fields) == {*QFE_CHANGED, "kind"}
