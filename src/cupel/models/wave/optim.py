"""Two optimizers on the spectra of weight matrices: resonant gradient descent and wave-native.

RGD is AdamW whose update is damped at the 2-D frequencies where weights or update are weak. It runs
torch's own AdamW and then corrects the weights, so that strength 0 is AdamW by construction. It
costs three FFTs a matrix in every update, ten to fifty times the AdamW step itself; for an
embedding of GPT-2's vocabulary about a second on one CPU thread. `benchmarks/spectral_costs.py`
prints it by shape. While it steps it holds half a spectrum of every matrix; between steps nothing.

At strength 0.3 its update points where Adam's does (cosine 0.998 to 0.999) and is shorter: 0.79 to
0.81 of it on random matrices, 0.76 in the first 400 steps of gpt-tiny. So a comparison with AdamW
needs an arm whose learning rate is as much lower.

WaveNative costs two thin products a matrix in an update, and a singular value decomposition in
every `every`-th one: 0.1 s for 1536 × 384, one second for an embedding of GPT-2's vocabulary.

Shapes: N matrices of one shape, R rows, C columns (all dimensions but the first, flattened),
F = C // 2 + 1 frequencies along the columns, K modes.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from cupel.errors import TrainingFailed
from cupel.models.wave.precision import wide
from cupel.models.wave.settings import RGDSettings, WaveNativeSettings

# Elements that are filtered in one call. Small matrices gain from company, up to three times; past
# the cache they lose by it.
_STACKED = 2**18


def rgd(model: nn.Module, settings: RGDSettings) -> Optimizer:
    """RGD; its AdamW is fused where torch has the kernel, as cupel's AdamW is."""
    return RGD(
        _decay_groups(model, settings.weight_decay),
        lr=settings.lr,
        betas=settings.betas,
        eps=settings.eps,
        fused=settings.fused if settings.fused is not None else _fused_exists(model),
        strength=settings.strength,
        warmup=settings.warmup,
        resonance_eps=settings.resonance_eps,
    )


def wave_native(model: nn.Module, settings: WaveNativeSettings) -> Optimizer:
    """WaveNative on matrices with decay and vectors without."""
    return WaveNative(
        _decay_groups(model, settings.weight_decay),
        lr=settings.lr,
        damping=settings.damping,
        projected=settings.projected,
        modes=settings.modes,
        every=settings.every,
    )


class RGD(AdamW):
    """Resonant gradient descent: w ← w − lr · Re IFFT2(Û · (α · res + 1 − α)), after AdamW's decay.

    u is Adam's update, Û its FFT2, Ŵ that of the weights before the step, and
    res = sqrt((|Ŵ| / max|Ŵ|) · (|Û| / max|Û|) + eps). α = strength · min(1, n / warmup) for the
    n-th update, from 1. Because the FFT is linear, that is AdamW's own step, and then
    w ← w + lr · α · (u − Re IFFT2(Û · res)). Vectors take AdamW's step alone. A matrix of zeros
    resonates at no frequency, so its update is damped to sqrt(eps) · α + 1 − α.

    n is kept in each group as `updates`, and so in `state_dict`: a plain attribute would be lost
    in a checkpoint, and a resumed run would warm up a second time.
    """

    def __init__(
        self,
        params: Any,
        *,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        fused: bool | None = None,
        strength: float = 0.3,
        warmup: int = 500,
        resonance_eps: float = 1e-8,
    ) -> None:
        super().__init__(
            params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=fused
        )
        own = {
            "strength": strength,
            "warmup": warmup,
            "resonance_eps": resonance_eps,
            "updates": 0,
        }
        self.defaults |= own
        for group in self.param_groups:
            for name, value in own.items():
                group.setdefault(name, value)
        # GradScaler hands overflows to the fused kernel, which drops the update where we would not
        # see it. Without this mark it drops the whole call, as it does for other optimizers.
        self._step_supports_amp_scaling = False

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update; returns what the closure returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        waiting = []
        for group in self.param_groups:
            group["updates"] += 1
            if (alpha := _alpha(group)) > 0:
                for stack in _stacks(group["params"]):
                    power_NRF = _power(torch.fft.rfft2(_matrices(stack)))
                    waiting.append((group, alpha, stack, power_NRF))
        _without_hooks(AdamW.step)(self)
        for group, alpha, stack, power_NRF in waiting:
            self._damp(group, alpha, stack, power_NRF)
        return loss

    def _damp(
        self, group: dict[str, Any], alpha: float, stack: list[Tensor], power_NRF: Tensor
    ) -> None:
        """Take back the part of AdamW's step that does not resonate."""
        u_NRC = self._updates(group, stack)
        back_NRC = u_NRC.sub_(_resonant(u_NRC, power_NRF, eps=group["resonance_eps"]))
        for weight, back_RC in zip(stack, back_NRC, strict=True):
            weight.add_(back_RC.view(weight.shape), alpha=group["lr"] * alpha)

    def _updates(self, group: dict[str, Any], stack: list[Tensor]) -> Tensor:
        """u = m̂ / (sqrt(v̂) + eps), from the moments that AdamW has just moved."""
        states = [self.state[weight] for weight in stack]
        m_NRC = _matrices([state["exp_avg"] for state in states])
        v_NRC = _matrices([state["exp_avg_sq"] for state in states])
        steps_N11 = torch.stack([state["step"] for state in states]).view(-1, 1, 1).to(m_NRC)
        first, second = (_unbiased(beta, steps_N11) for beta in group["betas"])
        # In place, as everywhere below: fresh memory costs more than the arithmetic.
        return m_NRC.div_(first).div_(v_NRC.div_(second).sqrt_().add_(group["eps"]))


def filtered(
    update_RC: Tensor, weights_RC: Tensor, strength: float, *, eps: float = 1e-8
) -> Tensor:
    """What RGD makes of an update of these weights when its warm-up is over, (R, C)."""
    resonant_NRC = _resonant(update_RC[None], _power(torch.fft.rfft2(weights_RC[None])), eps=eps)
    return torch.lerp(update_RC, resonant_NRC[0], strength)


class WaveNative(Optimizer):
    """Damped momentum on gradients that are projected onto the leading modes of their weights.

    G' = projected · U Uᵀ G V Vᵀ + (1 − projected) · G, then v ← v · (1 − γ) − lr · G' and
    w ← w · (1 − lr · decay) + v; vectors take G' = G. The reference's formula for G' is cut off
    ("0.7 · U (Uᵀ G Vᵀ) V … projection + 0.3 · G"). Ours are: U and V as the leading left and right
    singular vectors of the weights, how many (a share of the smaller side, at least one), that
    momentum takes G' and not G, and the decay. The vectors are those of the weights at every
    `every`-th update and lie in the state, so that a resumed run goes on with the same ones.
    """

    def __init__(
        self,
        params: Any,
        *,
        lr: float = 1e-2,
        damping: float = 0.1,
        projected: float = 0.7,
        modes: float = 0.25,
        every: int = 50,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {
            "lr": lr,
            "damping": damping,
            "projected": projected,
            "modes": modes,
            "every": every,
            "weight_decay": weight_decay,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update; returns what the closure returns.

        Raises TrainingFailed when modes are due and the weights are not finite.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, group)
        return loss

    def _move(self, weight: Tensor, group: dict[str, Any]) -> None:
        assert weight.grad is not None
        state, gradient = self.state[weight], weight.grad
        if not state:
            state |= {"updates": 0, "velocity": torch.zeros_like(weight)}
        if _is_matrix(weight) and group["projected"] > 0:
            if state["updates"] % group["every"] == 0:
                state["left"], state["right"] = _modes(weight.flatten(1), group["modes"])
            gradient = _onto(gradient, state["left"], state["right"], group["projected"])
        state["updates"] += 1
        velocity = state["velocity"]
        velocity.mul_(1.0 - group["damping"]).add_(gradient, alpha=-group["lr"])
        weight.mul_(1.0 - group["lr"] * group["weight_decay"]).add_(velocity)


def _onto(gradient: Tensor, left_RK: Tensor, right_CK: Tensor, share: float) -> Tensor:
    """`share` of the gradient's projection onto the modes, and the rest of it as it is."""
    g_RC = gradient.flatten(1)
    inside_RC = left_RK @ (left_RK.T @ g_RC @ right_CK) @ right_CK.T
    return torch.lerp(g_RC, inside_RC, share).view(gradient.shape)


def _modes(weights_RC: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """The leading singular vectors, (R, K) and (C, K), in the weights' dtype."""
    if not weights_RC.isfinite().all():
        raise TrainingFailed(
            f"weights of shape {tuple(weights_RC.shape)} are not finite, so they have no modes; "
            "try a lower learning rate (train.optimizer.lr) or clipping (train.clip)"
        )
    count = max(1, round(share * min(weights_RC.shape)))
    left_RN, _, right_NC = torch.linalg.svd(wide(weights_RC), full_matrices=False)
    # Copies: slices would keep, and a checkpoint would hold, all of the vectors.
    left_RK, right_CK = (
        vectors[:, :count].to(weights_RC.dtype).clone(memory_format=torch.contiguous_format)
        for vectors in (left_RN, right_NC.T)
    )
    return left_RK, right_CK


def _alpha(group: dict[str, Any]) -> float:
    ramp = min(1.0, group["updates"] / group["warmup"]) if group["warmup"] else 1.0
    return float(group["strength"] * ramp)


def _resonant(u_NRC: Tensor, weight_power_NRF: Tensor, *, eps: float) -> Tensor:
    """Re IFFT2(Û · res)."""
    spectrum_NRF = torch.fft.rfft2(u_NRC)
    both_NRF = _power(spectrum_NRF).mul_(weight_power_NRF).sqrt_()  # |Ŵ| · |Û|, of their maxima
    filter_NRF = both_NRF.add_(eps).sqrt_()
    # irfft2 takes the real part of the full inverse: res is equal at opposite frequencies, as
    # both its factors are amplitudes of real matrices.
    resonant_NRC: Tensor = torch.fft.irfft2(spectrum_NRF.mul_(filter_NRF), s=u_NRC.shape[-2:])
    return resonant_NRC


def _power(spectrum_NRF: Tensor) -> Tensor:
    """Squared amplitude over its maximum; zeros stay zeros.

    Squares, because abs() of complex numbers takes three times as long. The maximum over half a
    real matrix's spectrum is that over all of it.
    """
    imaginary = spectrum_NRF.imag
    power_NRF = spectrum_NRF.real.square().addcmul_(imaginary, imaginary)
    smallest = torch.finfo(power_NRF.dtype).tiny
    return power_NRF.div_(power_NRF.amax((-2, -1), keepdim=True).clamp_(min=smallest))


def _unbiased(beta: float, steps: Tensor) -> Tensor:
    """1 − β^steps; by expm1, since in float32 1 − 0.999 is right to four digits only."""
    return -torch.expm1(steps * (math.log(beta) if beta > 0 else -math.inf))


def _stacks(weights: list[Tensor]) -> Iterator[list[Tensor]]:
    """The matrices that have a gradient, in lists of one shape and not many elements."""
    alike: dict[Any, list[Tensor]] = {}
    for weight in weights:
        if weight.grad is not None and _is_matrix(weight):
            alike.setdefault((weight.shape, weight.dtype, weight.device), []).append(weight)
    for same in alike.values():
        size = max(1, _STACKED // same[0].numel())
        for start in range(0, len(same), size):
            yield same[start : start + size]


def _matrices(tensors: list[Tensor]) -> Tensor:
    """(N, R, C), in float32 at least, since there is no FFT of bfloat16."""
    return wide(torch.stack([tensor.flatten(1) for tensor in tensors]))


def _is_matrix(weight: Tensor) -> bool:
    assert not weight.is_complex(), "the spectra here are those of real weights"
    return weight.dim() >= 2 and weight.numel() > 0


def _without_hooks(step: Callable[..., Any]) -> Callable[..., Any]:
    """An optimizer class's step without the hooks that torch wraps around it.

    The first AdamW that is made in a process has its class's step wrapped. RGD's own is wrapped
    already, and a user's hooks would run twice in an update.
    """
    bare: Callable[..., Any] = inspect.unwrap(
        step, stop=lambda inner: not getattr(inner, "hooked", False)
    )
    return bare


def _decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices, which decay, and vectors, which do not: the groups of cupel.train.optim.

    Written again, as models may not import train; a test compares the two.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    matrices = [weight for weight in weights if weight.dim() >= 2]
    vectors = [weight for weight in weights if weight.dim() < 2]
    groups = [(matrices, weight_decay), (vectors, 0.0)]
    assert weights, "the model has no parameter that requires a gradient"
    return [{"params": held, "weight_decay": decay} for held, decay in groups if held]


def _fused_exists(model: nn.Module) -> bool:
    """As in cupel.train.optim."""
    from torch.utils._foreach_utils import _get_fused_kernels_supported_devices

    supported = _get_fused_kernels_supported_devices()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    return all(w.device.type in supported and torch.is_floating_point(w) for w in weights)
