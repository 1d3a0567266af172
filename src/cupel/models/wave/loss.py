"""Two objectives beside cross-entropy: QFE for any model of logits, Coherence for a wave model.

Both add penalties to the cross-entropy that the model itself returns, and report every part as a
number of its own, unweighted. A penalty of weight 0 is measured and stays out of the loss and its
gradients, so that such a run is one of plain cross-entropy, bit for bit. Both compute in float32
under autocast. How objectives are made and called: cupel.models.gpt.loss.

QFE costs a softmax, a product with the projection and two FFTs along the sequence, and keeps a few
arrays of (B, T, K) and one of (B, T, V) for the backward pass. Coherence costs sines and cosines of
all the vocabulary's phases in each call.

Shapes: B batch, T tokens, V vocabulary, K projection (or V where there is none), F frequencies
along the sequence (T // 2 + 1), W waves, H harmonics.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from cupel.errors import UsageError
from cupel.models.wave.precision import wide
from cupel.models.wave.settings import CoherenceSettings, QFESettings


class QFE(nn.Module):
    """Quantum field entanglement loss: cross-entropy + λ · incoherence of predictions and targets.

    The original's definition: F = rFFT along the sequence of the predicted probabilities and of
    the targets (one-hot), both through one fixed Gaussian matrix where the vocabulary is large;
    over the bins where both amplitudes exceed τ, the mean of A_out · A_tgt · (1 − cos Δφ).
    Where it is silent, the FFT is unnormalised, as numpy's and torch's are by default. At τ = 0,
    bins of a target that are zero but for rounding would count in the mean.
    """

    projection: Tensor | None

    def __init__(self, settings: QFESettings, *, vocabulary: int, key: int) -> None:
        super().__init__()
        self.settings, self.vocabulary = settings, vocabulary
        drawn = None
        if vocabulary > settings.projection:
            generator = torch.Generator().manual_seed(key)
            drawn = torch.randn(vocabulary, settings.projection, generator=generator)
            drawn /= math.sqrt(settings.projection)
        self.register_buffer("projection", drawn)

    def forward(
        self, model: Any, tokens_BT: Tensor, targets_BT: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and its two parts."""
        logits_BTV, cross_entropy = model(tokens_BT, targets_BT)
        weight = self.settings.weight
        with torch.set_grad_enabled(torch.is_grad_enabled() and weight > 0):
            coherence = self.coherence(logits_BTV, targets_BT)
        loss = cross_entropy + weight * coherence if weight > 0 else cross_entropy
        return loss, {
            "loss/cross_entropy": cross_entropy.detach(),
            "loss/coherence": coherence.detach(),
        }

    def coherence(self, logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
        """L_coh, unweighted; 0 where no bin has both amplitudes above the threshold."""
        assert logits_BTV.size(2) == self.vocabulary, (logits_BTV.shape, self.vocabulary)
        with torch.autocast(logits_BTV.device.type, enabled=False):
            p_BTV = torch.softmax(wide(logits_BTV) / self.settings.temperature, dim=2)
            out_BFK = torch.fft.rfft(self._projected(p_BTV), dim=1)
            target_BFK = torch.fft.rfft(self._targets(targets_BT, like=p_BTV), dim=1)
            # A·A·cos Δφ is the real part of a product: no angle, whose gradient is singular at 0.
            in_phase_BFK = out_BFK.real * target_BFK.real + out_BFK.imag * target_BFK.imag
            a_out_BFK, a_target_BFK = out_BFK.abs(), target_BFK.abs()
            above = self.settings.threshold
            mask_BFK = (a_out_BFK > above) & (a_target_BFK > above)
            apart_BFK = (a_out_BFK * a_target_BFK - in_phase_BFK) * mask_BFK
            mean: Tensor = apart_BFK.sum() / mask_BFK.sum().clamp(min=1)
            return mean

    def _projected(self, p_BTV: Tensor) -> Tensor:
        return p_BTV if self.projection is None else p_BTV @ self.projection.to(p_BTV.dtype)

    def _targets(self, targets_BT: Tensor, *, like: Tensor) -> Tensor:
        """One-hot targets through the projection: rows of it."""
        if self.projection is not None:
            return self.projection.to(like.dtype)[targets_BT]
        return torch.zeros_like(like).scatter_(2, targets_BT.unsqueeze(2), 1.0)


class Coherence(nn.Module):
    """Cross-entropy plus penalties on phases, norms and amplitudes of a wave model.

    The reference names the three penalties and gives no formula; these are ours, each without
    unit, 0 at best, and unchanged when all amplitudes or norms are scaled alike:
    - phase variance: 1 − |mean of exp(iφ)| over a token's phases, mean over the vocabulary
    - norm drift: (‖x_l‖ / ‖x_0‖ − 1)², mean over blocks; ‖x‖ is a mean over batch and positions
    - harmonic deviation: see `harmonic_deviation`
    The model gives what they need: `coherence_state()` with `phases` and `amplitudes`, and
    `model(tokens, targets, norms=list)`, which appends ‖x_0‖, ‖x_1‖, … to the list.
    """

    def __init__(self, settings: CoherenceSettings, *, vocabulary: int, key: int) -> None:
        super().__init__()
        self.settings = settings

    def forward(
        self, model: Any, tokens_BT: Tensor, targets_BT: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and its four parts. Raises UsageError for a model that is not of waves."""
        if not hasattr(model, "coherence_state"):
            raise UsageError(
                f"objective.kind=coherence measures waves, and {type(model).__name__} has no "
                "coherence_state(); type model.kind=wave or objective.kind=cross_entropy"
            )
        norms: list[Tensor] = []
        _, cross_entropy = model(tokens_BT, targets_BT, norms=norms)
        with torch.autocast(cross_entropy.device.type, enabled=False):
            state = model.coherence_state()
            penalties = {
                "phase_variance": phase_variance(wide(state["phases"])),
                "norm_drift": norm_drift(wide(torch.stack(norms))),
                "harmonic_deviation": harmonic_deviation(wide(state["amplitudes"])),
            }
            loss: Tensor = cross_entropy
            for name, penalty in penalties.items():
                weight = getattr(self.settings, name)
                loss = loss + weight * penalty if weight > 0 else loss
        numbers = {"cross_entropy": cross_entropy, **penalties}
        return loss, {f"loss/{name}": value.detach() for name, value in numbers.items()}


def phase_variance(phases_VW: Tensor) -> Tensor:
    """Circular variance of each token's phases, in [0, 1]; dimensions after the first are waves."""
    phases_VW = phases_VW.flatten(1)
    mean_2V = torch.stack((phases_VW.cos().mean(1), phases_VW.sin().mean(1)))
    # vector_norm, whose gradient at 0 is 0; that of sqrt(x² + y²) would be NaN.
    variance: Tensor = 1.0 - torch.linalg.vector_norm(mean_2V, dim=0).mean()
    return variance


def norm_drift(norms_L: Tensor) -> Tensor:
    """How far the residual stream's norms after each block are from the one before the first."""
    return (norms_L[1:] / norms_L[0] - 1.0).square().mean()


def harmonic_deviation(amplitudes_VWH: Tensor) -> Tensor:
    """How far |A_n| is from |A_1| / n; the mean over harmonics, waves and tokens.

    (|A_n| / |A_1| − 1/n)² has a pole where a fundamental crosses zero, which amplitudes drawn
    around zero do. So each wave's is weighted by A_1² / Σ A_k², the fundamental's share of its
    energy, which leaves (|A_n| − |A_1| / n)² / Σ A_k²: bounded, of the same zeros.
    """
    a_VWH = amplitudes_VWH.abs()
    n_H = torch.arange(1, a_VWH.size(-1) + 1, dtype=a_VWH.dtype, device=a_VWH.device)
    apart_VWH = a_VWH - a_VWH[..., :1] / n_H
    energy_VW1 = a_VWH.square().sum(-1, keepdim=True)
    # Only a wave whose square underflows is below: it counts as 0 and gets no gradient.
    smallest = torch.finfo(a_VWH.dtype).tiny
    return (apart_VWH.square() / energy_VW1.clamp(min=smallest)).mean()
