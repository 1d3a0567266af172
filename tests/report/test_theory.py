"""Formulas that a report prints are what the code computes: each is computed here again, in numpy,
and held against the real module, together with the piece of TeX that says so."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from cupel.models.wave.attention import IntensityAttention, InterferenceAttention
from cupel.models.wave.embedding import PhysicsEmbedding, WavePacketEmbedding
from cupel.models.wave.loss import QFE, harmonic_deviation, norm_drift, phase_variance
from cupel.models.wave.mlp import MLP
from cupel.models.wave.model import WaveGPT
from cupel.models.wave.optim import RGD, WaveNative
from cupel.models.wave.pure import PureWaveAttention
from cupel.models.wave.ratio import RatioSchedule, WaveRatio
from cupel.models.wave.settings import QFESettings, WaveModelSettings
from cupel.report.blocks import Code, Heading, Maths, Paragraph
from cupel.report.theory import theory_of, uses

Array = NDArray[np.float64]
V, C, W, H, HEADS, T = 11, 6, 5, 3, 2, 7  # no two alike, so that no term passes for another
SIZES = {"vocabulary": V, "width": C, "waves": W, "heads": HEADS, "layers": 2, "block": T}
RATIOS, BIASES = ("scheduled", "free", "decay"), (True, False)
CLOSE = {"rtol": 1e-9, "atol": 1e-11}  # of float64, after some hundred operations


def told(*arms: Mapping[str, Any]) -> str:
    """All that is printed of wave models with these settings, formulas and words in order."""
    return text_of(*({"model": {"kind": "wave", **arm}} for arm in arms))


def text_of(*configs: Mapping[str, Any]) -> str:
    lines = []
    for block in theory_of(configs):
        assert isinstance(block, Heading | Paragraph | Maths | Code)
        lines.append(block.tex if isinstance(block, Maths) else block.text)
    return "\n".join(lines)


def settings(**changes: Any) -> WaveModelSettings:
    own = {} if changes.get("embedding") == "physics" else {"harmonics": H}
    return WaveModelSettings(**{**SIZES, **own, **changes})


def double(module: nn.Module) -> Any:
    """The module in float64, with every parameter drawn at random, so that none hides as 0 or 1."""
    torch.manual_seed(1)
    module.double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.7)
    return module


def array(tensor: torch.Tensor) -> Array:
    return tensor.detach().double().numpy()


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def linear(layer: nn.Linear, x: Array) -> Array:
    shift = 0.0 if layer.bias is None else array(layer.bias)
    return x @ array(layer.weight).T + shift


def evaluated(formula: str) -> float:
    """A printed count such as `2VW + Vd/2 + 1`, with letters beside each other multiplied."""
    product = re.sub(r"(?<=[\dA-Za-z])(?=[A-Za-z])", "*", formula.rstrip(" ."))
    assert re.fullmatch(r"[\dVWHd*/+ ]+", product), product
    return float(eval(product, {"V": V, "W": W, "H": H, "d": C}))


def counted(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# ---- counts of parameters --------------------------------------------------------------------


@pytest.mark.parametrize("ratio, bias", list(itertools.product(RATIOS, BIASES)))
@pytest.mark.parametrize("embedding", ["packet", "physics"])
def test_the_printed_count_of_an_embedding_is_the_modules_own(
    embedding: str, ratio: str, bias: bool
) -> None:
    chosen: dict[str, Any] = {"embedding": embedding, "ratio": ratio, "bias": bias}
    kind = {"packet": WavePacketEmbedding, "physics": PhysicsEmbedding}[embedding]
    ((where, formula),) = re.findall(
        r"With (.*) it has, .*as many parameters as\n(.*)", told(chosen)
    )
    assert evaluated(formula) == counted(kind(settings(**chosen)))
    assert f"`ratio: {ratio}`" in where
    assert (f"`bias: {str(bias).lower()}`" in where) == (embedding == "packet")


@pytest.mark.parametrize("bias", BIASES)
def test_the_printed_count_of_the_norm_after_the_embedding_is_the_models_own(bias: bool) -> None:
    with_norm, without = (
        counted(WaveGPT(settings(bias=bias, input_norm=chosen))) for chosen in (True, False)
    )
    text = told({"bias": bias, "input_norm": True})
    (formula,) = re.findall(r"one more layer norm stands.*of \$(.*)\$ parameters", text)
    assert evaluated(formula) == with_norm - without
    assert "one more layer norm" not in told({"bias": bias})


# ---- embeddings ------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio, bias", list(itertools.product(RATIOS, BIASES)))
def test_the_packet_is_computed_as_printed(ratio: str, bias: bool) -> None:
    module = double(WavePacketEmbedding(settings(ratio=ratio, bias=bias)))
    tokens = torch.tensor([[3, 0, 10, 3]])
    t, n = array(tokens[0]).astype(int), np.arange(4)[:, None, None]
    f, phi, A = (array(x)[t] for x in (module.frequencies, module.phases, module.amplitudes))
    h = np.arange(1, H + 1)
    p = array(module.position_frequencies)[:, None]
    theta = 2 * np.pi * h * f[..., None] + phi[..., None] + n * p
    s = np.concatenate([(A * wave(theta)).reshape(4, -1) for wave in (np.sin, np.cos)], axis=1)
    r = 1.0 if ratio == "decay" else sigmoid(array(module.ratio.logit))
    mixed = r * linear(module.project, s) + (1 - r) * array(module.lookup.weight)[t]
    centred = mixed - mixed.mean(1, keepdims=True)
    x = centred / np.sqrt((centred**2).mean(1, keepdims=True) + module.norm.eps)
    x = x * array(module.norm.weight) + (array(module.norm.bias) if bias else 0.0)
    np.testing.assert_allclose(array(module(tokens))[0], x, **CLOSE)

    text = told({"ratio": ratio, "bias": bias})
    assert r"2\pi h f_{t,w} + \varphi_{t,w} + n\,p_w" in text
    assert (r"r\,(M s_t(n) + b) + (1 - r)\,E_t" in text) == bias
    assert (r"r\,M s_t(n) + (1 - r)\,E_t" in text) == (not bias)
    assert ("a gain and a shift" in text, "a gain and no shift" in text) == (bias, not bias)
    assert "the share of the waves" in text
    assert "lookup table" not in text


@pytest.mark.parametrize("ratio", RATIOS)
def test_the_embedding_of_ranks_is_computed_as_printed(ratio: str) -> None:
    ranks = torch.arange(V).flip(0)
    chosen = settings(embedding="physics", ratio=ratio)
    module = double(PhysicsEmbedding(chosen, ranks_V=ranks))
    tokens = torch.tensor([[3, 0, 10, 3]])
    t, n, k = tokens[0].numpy(), np.arange(4)[:, None], np.arange(1, C // 2 + 1)
    omega = 1 / np.sqrt(1 / (ranks.numpy()[t] + 1))
    theta = k * omega[:, None] * n + array(module.phases)[t]
    s = np.concatenate([np.sin(theta) / k, np.cos(theta) / k], axis=1)
    r = 1.0 if ratio == "decay" else sigmoid(array(module.ratio.logit))
    x = (1 - r) * s + r * array(module.lookup.weight)[t]
    np.testing.assert_allclose(array(module(tokens))[0], x, **CLOSE)

    text = told({"embedding": "physics", "ratio": ratio})
    assert r"\tfrac{1}{k}\sin(k\omega_i n + \varphi_{i,k})" in text
    assert r"(1 - r)\,s_i(n) + r\,E_i" in text
    assert "the share of that lookup table" in text
    assert "share of the waves" not in text


@pytest.mark.parametrize("embedding", ["packet", "physics"])
@pytest.mark.parametrize("ratio", RATIOS)
def test_the_ratio_moves_as_printed(ratio: Any, embedding: str) -> None:
    steps, updates = 20, 40
    module = WaveRatio(learned=ratio != "decay").double()
    schedule = RatioSchedule(module, ratio, steps=steps)
    r = float(module().detach())
    assert r == pytest.approx(1.0 if ratio == "decay" else sigmoid(0.5))
    for u in range(1, updates + 1):
        if ratio == "scheduled":
            r = min(max(0.99 * r + 0.01 * (0.5 + 0.4 * u / updates), 0.01), 0.99)
        elif ratio == "decay":
            r = max(0.0, 1 - u / steps)
        assert schedule.step(updates) == pytest.approx(r, abs=1e-12)

    text = told({"embedding": embedding, "ratio": ratio, "ratio_steps": steps})
    assert f"With `ratio: {ratio}`" in text
    learned, pulled = r"r = \sigma(\rho)", r"0.99\,r + 0.01\,(0.5 + 0.4\,u/T)"
    assert (learned in text, pulled in text) == (ratio != "decay", ratio == "scheduled")
    assert ("begins at 0.5" in text) == (ratio != "decay")
    assert (r"\max\!\left(0,\; 1 - u/20\right)" in text) == (ratio == "decay")
    assert ("is left to the optimizer" in text) == (ratio == "free")


# ---- attention and activation ----------------------------------------------------------------


def inputs() -> torch.Tensor:
    torch.manual_seed(2)
    return torch.randn(1, T, C, dtype=torch.float64)


def causal() -> Array:
    return np.tril(np.ones((T, T)))


def heads(x: Array) -> Array:
    """(T, heads · n) as (heads, T, n)."""
    return x.reshape(T, HEADS, -1).transpose(1, 0, 2)


def joined(y: Array) -> Array:
    return y.transpose(1, 0, 2).reshape(T, -1)


@pytest.mark.parametrize("bias", BIASES)
def test_interference_is_computed_as_printed(bias: bool) -> None:
    module, x = double(InterferenceAttention(settings(bias=bias))), inputs()
    q, k, v = np.split(linear(module.qkv, array(x)[0]), [HEADS * W, 2 * HEADS * W], axis=1)
    phases = array(module.phases)
    q, k = heads(q) + phases[0][:, None], heads(k) + phases[1][:, None]
    cosine = (q @ k.transpose(0, 2, 1)) / (
        np.linalg.norm(q, axis=2)[:, :, None] * np.linalg.norm(k, axis=2)[:, None]
    )
    scores = np.exp(cosine / array(module.temperature)) * causal()
    y = scores / scores.sum(2, keepdims=True) @ heads(v)
    np.testing.assert_allclose(array(module(x))[0], linear(module.out, joined(y)), **CLOSE)
    fresh = InterferenceAttention(settings()).temperature.detach()
    assert float(fresh) == pytest.approx(math.sqrt(W))

    text = told({"bias": bias})
    assert r"\frac{1}{\tau}\, \frac{q_i \cdot k_j}{\lVert q_i\rVert\,\lVert k_j\rVert}" in text
    said = "with biases, which the formulas leave out (`bias: true`)"
    assert (said in text, "maps without biases (`bias: false`)" in text) == (bias, not bias)


KERNELS = {
    "elu": (lambda u: np.where(u > 0, u, np.exp(u) - 1) + 1, r"\mathrm{elu}(u) + 1"),
    "sigmoid": (sigmoid, r"\frac{1}{1 + e^{-u}}"),
    "exp": (np.exp, r"\phi(u) = e^{u}"),
}


@pytest.mark.parametrize(
    "kernel, form, normaliser",
    list(itertools.product(KERNELS, ["linear", "quadratic"], ["sqrt", "sum"])),
)
def test_the_kernel_of_sines_is_computed_as_printed(
    kernel: str, form: str, normaliser: str
) -> None:
    pure = {"kernel": kernel, "form": form, "normaliser": normaliser}
    module, x = double(PureWaveAttention(settings(attention="pure", pure=pure))), inputs()
    f, phi, v = np.split(linear(module.qkv, array(x)[0]), [2 * HEADS * W, 4 * HEADS * W], axis=1)
    sines = np.sin(f * np.arange(T)[:, None] + phi).reshape(T, 2 * HEADS, W)
    u = W**0.25 * sines / np.linalg.norm(sines, axis=2, keepdims=True)
    features = KERNELS[kernel][0](u).transpose(1, 0, 2)
    products = features[:HEADS] @ features[HEADS:].transpose(0, 2, 1) * causal()
    z = np.sqrt(np.arange(T) + 1)[:, None]
    if normaliser == "sum":
        z = products.sum(2, keepdims=True)
    y = (products @ heads(v)) / z
    np.testing.assert_allclose(array(module(x))[0], linear(module.out, joined(y)), **CLOSE)

    text = told({"attention": "pure", "pure": pure})
    assert r"W^{1/4}\, \frac{\sin(f n + \varphi)}{\lVert \sin(f n + \varphi) \rVert}" in text
    for name, (_, tex) in KERNELS.items():
        assert (tex in text, f"`pure.kernel: {name}`" in text) == (name == kernel,) * 2
    divisors = {"sqrt": r"z_i = \sqrt{i + 1}", "sum": r"z_i = \sum_{j \le i} \phi(q_i) \cdot"}
    for name, tex in divisors.items():
        assert (tex in text, f"`pure.normaliser: {name}`" in text) == (name == normaliser,) * 2
    forms = {"linear": "linear in the number", "quadratic": "the square of the number"}
    for name, said in forms.items():
        assert (said in text, f"`pure.form: {name}`" in text) == (name == form,) * 2


def test_the_intensity_is_computed_as_printed() -> None:
    module, x = double(IntensityAttention(settings(attention="physics"))), inputs()
    parts = np.split(linear(module.qkv, array(x)[0]), [n * HEADS * W for n in range(1, 7)], axis=1)
    w_q, w_k, p_q, p_k, a_q, a_k = (heads(part) for part in parts[:6])
    a_q, a_k = (np.log1p(np.exp(a)) for a in (a_q, a_k))
    q, k = np.index_exp[:, :, None], np.index_exp[:, None]
    t = np.arange(T)
    elapsed = (t[:, None] - t)[..., None]
    turn = (w_q[q] - w_k[k]) * elapsed + p_q[q] - p_k[k]
    intensity = (a_q[q] ** 2 + a_k[k] ** 2 + 2 * a_q[q] * a_k[k] * np.cos(turn)).sum(3)
    alpha = intensity / ((a_q[q] + a_k[k]) ** 2).sum(3) * causal()
    np.testing.assert_allclose(array(module.weights(x))[0], alpha, **CLOSE)
    y = linear(module.out, joined(alpha @ heads(parts[6])))
    np.testing.assert_allclose(array(module(x))[0], y, **CLOSE)

    text = told({"attention": "physics"})
    assert r"A_q^2 + A_k^2 + 2 A_q A_k \cos(\Delta\omega\,\Delta t + \Delta\varphi)" in text
    assert r"\frac{I_{ij}}{\sum_w (A_q + A_k)^2}" in text


def gelu(u: Array) -> Array:
    return 0.5 * u * (1 + np.vectorize(math.erf)(u / math.sqrt(2)))


ACTIVATIONS = {
    "gelu_sine": (lambda u: gelu(u) + 0.1 * np.sin(u), r"a(u) = \mathrm{gelu}(u) + 0.1\,\sin u ."),
    "sine": (lambda u: np.sin(u) + 0.1 * u, r"a(u) = \sin u + 0.1\,u ."),
    "gelu": (gelu, r"a(u) = \mathrm{gelu}(u) ."),
}


@pytest.mark.parametrize("mlp", ACTIVATIONS)
def test_the_activation_is_computed_as_printed(mlp: str) -> None:
    module, x = double(MLP(settings(mlp=mlp))), inputs()
    inside = linear(module.up, array(x)[0])
    assert inside.shape[1] == 4 * C
    y = linear(module.down, ACTIVATIONS[mlp][0](inside))
    np.testing.assert_allclose(array(module(x))[0], y, **CLOSE)
    text = told({"mlp": mlp})
    for name, (_, tex) in ACTIVATIONS.items():
        assert (tex in text, f"`mlp: {name}`" in text) == (name == mlp,) * 2


# ---- optimizers and objectives ---------------------------------------------------------------


def stepped(optimizer: Any, weight: nn.Parameter, gradients: list[Array]) -> Array:
    for gradient in gradients:
        weight.grad = torch.tensor(gradient)
        optimizer.step()
    return array(weight)


def drawn(*shape: int) -> list[Array]:
    """Weights, and gradients of five updates."""
    random = np.random.default_rng(3)
    return [random.normal(size=shape) for _ in range(6)]


@pytest.mark.parametrize("shape", [(6, 4), (3, 2, 2), (5,)])
def test_rgd_steps_as_printed(shape: tuple[int, ...]) -> None:
    lr, strength, warmup, floor, decay, eps = 0.1, 0.4, 3, 1e-3, 0.2, 1e-8
    start, *gradients = drawn(*shape)
    weight = nn.Parameter(torch.tensor(start))
    own = {"strength": strength, "warmup": warmup, "resonance_eps": floor}
    optimizer = RGD([weight], lr=lr, betas=(0.8, 0.9), eps=eps, weight_decay=decay, **own)
    if len(shape) < 2:
        optimizer.param_groups[0]["weight_decay"] = 0.0  # as `rgd` groups vectors
    P, m, v = start.copy(), 0.0, 0.0
    for t, g in enumerate(gradients, start=1):
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g**2
        u = (m / (1 - 0.8**t)) / (np.sqrt(v / (1 - 0.9**t)) + eps)
        if len(shape) >= 2:
            P = P - lr * decay * P
            alpha = strength * min(1, t / warmup)
            P_hat, u_hat = (np.fft.fft2(one.reshape(shape[0], -1)) for one in (P, u))
            both = [np.abs(one) / np.abs(one).max() for one in (P_hat, u_hat)]
            R = np.sqrt(both[0] * both[1] + floor)
            u = np.fft.ifft2(u_hat * (alpha * R + 1 - alpha)).real.reshape(shape)
        P = P - lr * u
    np.testing.assert_allclose(stepped(optimizer, weight, gradients), P, rtol=1e-7)

    text = text_of({"train": {"optimizer": {"kind": "rgd", **own}}})
    assert "`strength: 0.4`, `warmup: 3`, `resonance_eps: 0.001`" in text
    assert "R ← √((|P̂| / max|P̂|) · (|û| / max|û|) + resonance_eps)" in text
    assert r"\rho = \alpha R + 1 - \alpha" in text


@pytest.mark.parametrize("shape", [(6, 4), (3, 2, 2), (5,)])
def test_the_wave_native_optimizer_steps_as_printed(shape: tuple[int, ...]) -> None:
    own = {"projected": 0.6, "modes": 0.6, "every": 2, "damping": 0.3}
    lr, decay = 0.1, 0.2 if len(shape) > 1 else 0.0
    start, *gradients = drawn(*shape)
    weight = nn.Parameter(torch.tensor(start))
    optimizer = WaveNative([weight], lr=lr, weight_decay=decay, **own)
    P, v = start.copy(), 0.0
    for t, g in enumerate(gradients):
        if len(shape) >= 2:
            flat = g.reshape(shape[0], -1)
            if t % own["every"] == 0:
                left, _, right = np.linalg.svd(P.reshape(shape[0], -1), full_matrices=False)
                K = max(1, round(own["modes"] * min(flat.shape)))
                U, Vt = left[:, :K], right[:K]
            s = own["projected"]
            g = (s * U @ U.T @ flat @ Vt.T @ Vt + (1 - s) * flat).reshape(shape)
        P = P - lr * decay * P
        v = (1 - own["damping"]) * v - lr * g
        P = P + v
    np.testing.assert_allclose(stepped(optimizer, weight, gradients), P, rtol=1e-7)

    text = text_of({"train": {"optimizer": {"kind": "wave_native", **own, "weight_decay": decay}}})
    settled = "`projected: 0.6`, `modes: 0.6`, `every: 2`, `damping: 0.3`, `weight_decay: "
    assert settled in text
    assert r"G' = s\,U U^{\top} G\, V V^{\top} + (1 - s)\,G" in text
    assert r"v \leftarrow (1 - \gamma)\,v - \eta\,G'" in text
    assert "K ← max(1, round(modes · min(R, C)))" in text


@pytest.mark.parametrize("projection", [256, 8])
def test_qfe_is_computed_as_printed(projection: int) -> None:
    own = {"temperature": 0.7, "threshold": 0.4, "projection": projection}
    qfe = QFE(QFESettings(weight=0.1, **own), vocabulary=V, key=1).double()
    logits, targets = torch.randn(2, T, V, dtype=torch.float64), torch.randint(V, (2, T))
    p = np.exp(array(logits) / 0.7)
    p, y = p / p.sum(2, keepdims=True), np.eye(V)[targets.numpy()]
    if projection < V:
        assert qfe.projection is not None
        p, y = p @ array(qfe.projection), y @ array(qfe.projection)
    F_p, F_y = np.fft.rfft(p, axis=1), np.fft.rfft(y, axis=1)
    mask = (np.abs(F_p) > 0.4) & (np.abs(F_y) > 0.4)
    turn = 1 - np.cos(np.angle(F_p) - np.angle(F_y))
    expected = (mask * np.abs(F_p) * np.abs(F_y) * turn).sum() / mask.sum()
    np.testing.assert_allclose(float(qfe.coherence(logits, targets)), expected, **CLOSE)

    text = text_of({"objective": {"kind": "qfe", "weight": 0.1, **own}})
    assert r"m_k = [A^{p}_k > \tau] \cdot [A^{y}_k > \tau]" in text
    assert (
        f"`weight: 0.1`, `temperature: 0.7`, `threshold: 0.4`, `projection: {projection}`" in text
    )


def test_the_penalties_of_coherence_are_computed_as_printed() -> None:
    torch.manual_seed(4)
    phases, amplitudes = torch.randn(V, W).double(), torch.randn(V, W, H).double()
    norms = torch.rand(5).double() + 0.5
    turning = np.abs(np.exp(1j * array(phases)).mean(1))
    np.testing.assert_allclose(float(phase_variance(phases)), 1 - turning.mean(), **CLOSE)
    n = array(norms)
    np.testing.assert_allclose(float(norm_drift(norms)), ((n[1:] / n[0] - 1) ** 2).mean(), **CLOSE)
    A, h = np.abs(array(amplitudes)), np.arange(1, H + 1)
    apart = (A - A[..., :1] / h) ** 2 / (A**2).sum(2, keepdims=True)
    np.testing.assert_allclose(float(harmonic_deviation(amplitudes)), apart.mean(), **CLOSE)

    text = text_of({"objective": {"kind": "coherence", "norm_drift": 0.0}})
    assert r"L = L_{\mathrm{CE}} + \lambda_1 P + \lambda_2 D + \lambda_3 H" in text
    assert r"\left| \tfrac{1}{W} \sum_w e^{i\varphi_{t,w}} \right|" in text
    assert r"\left( \frac{n_l}{n_0} - 1 \right)^2" in text
    assert r"\frac{(|A_{t,w,h}| - |A_{t,w,1}|/h)^2}{\sum_k A_{t,w,k}^2}" in text
    assert "`phase_variance: 0.01`, `norm_drift: 0.0`, `harmonic_deviation: 0.01`" in text


# ---- what is printed of several arms ---------------------------------------------------------


def test_of_two_readings_both_are_printed_and_each_names_its_setting() -> None:
    pure = {"attention": "pure", "pure": {"kernel": "sigmoid", "normaliser": "sum"}}
    text = told(
        {"ratio": "scheduled", "mlp": "sine", "bias": True, "attention": "pure"},
        {"ratio": "decay", "ratio_steps": 70, "mlp": "gelu", "bias": False, **pure},
        {"ratio": "decay", "ratio_steps": 90, "embedding": "physics"},
    )
    for setting in (
        *("ratio: scheduled", "ratio: decay", "ratio_steps: 70", "ratio_steps: 90"),
        *("mlp: sine", "mlp: gelu", "bias: true", "bias: false"),
        *("pure.kernel: elu", "pure.kernel: sigmoid"),
        *("pure.normaliser: sqrt", "pure.normaliser: sum", "pure.form: linear"),
    ):
        assert f"`{setting}`" in text, setting
    assert "1 - u/70" in text
    assert "1 - u/90" in text
    for absent in ("ratio: free", "pure.kernel: exp", "pure.form: quadratic"):
        assert absent not in text
    assert text.count("Wave packet embedding") == text.count("Wave ratio") == 1


def test_settings_of_optimizers_and_objectives_are_printed_for_every_arm() -> None:
    text = text_of(
        {"train": {"optimizer": {"kind": "rgd", "strength": 0.3}}},
        {"train": {"optimizer": {"kind": "rgd", "strength": 0.5}}},
        {"train": {"optimizer": {"kind": "rgd", "strength": 0.5, "lr": 7.0}}},
    )
    first, second = "`strength: 0.3`, `warmup: 500`", "`strength: 0.5`, `warmup: 500`"
    assert re.search(rf"{first}, `resonance_eps: 1e-08`; or {second}", text)
    assert text.count("strength: 0.5") == 1


def test_a_setting_that_a_record_lacks_has_the_default_that_the_run_had() -> None:
    assert told({}) == told(WaveModelSettings().model_dump(mode="json"))


def test_components_of_a_users_own_have_no_theory() -> None:
    configs = [
        {
            "model": {"kind": "own:Model", "attention": "pure", "embedding": "packet"},
            "train": {"optimizer": {"kind": "own:Optimizer"}},
            "objective": None,
        },
        {"workload": "own:Work", "model": "small"},
    ]
    assert theory_of(configs) == []
    assert not uses(configs, {"model.kind": "wave", "model.attention": "pure"})
    assert uses(configs, {"workload": "own:Work"})
