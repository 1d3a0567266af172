"""What the waves of a wave model do: frequencies, phases, amplitudes, packets, as `spectral/…`.

A model is asked by name, not by class: `spectral_state()` gives tensors, of which only the first
must be there,

    frequencies (V, W)   phases (V, W) or (V, W·H)   amplitudes (V, W, H)   ratio ()
    temperatures (layers,)

(they may share memory with the model, and are not written to), and `wave_packets(tokens_N,
positions_T)` gives (N, T). Of any other model the spectrum of its first matrix is measured instead,
and `note` says so. Means are taken over all tokens; quantiles and histograms over at most 2^18
numbers, of evenly spaced tokens. A measurement takes about 3 ms at V = 256, W = 32, H = 4 and 85 ms
at V = 50,257, W = 48 (one CPU thread), and the model's own copy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cupel.events import Event, StepView
from cupel.monitors.settings import SpectralSettings

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
PHASE_BINS = 36
POSITIONS = 64
PAIRED = 24  # tokens whose packets are compared in pairs; a line holds 1,024 numbers and rows
POWER_BINS = 64
MOST_WAVES = 200  # of which five quantiles fit into a line
_MOST_SORTED = 2**18

_OF_WAVES = (
    "wave_ratio",
    "frequency_quantiles",
    "phase_histogram",
    "harmonic_amplitude",
    "harmonic_quantiles",
    "tokens",
    "packets",
    "interference",
    "temperature",
)
_OF_OTHERS = ("embedding_frequency", "embedding_power")

State = Mapping[str, Tensor]


class Spectral:
    """Spectra after an update; draws no random numbers.

    | key | shape | what |
    |---|---|---|
    | `wave_ratio` | number | share of the wave embedding |
    | `frequency_quantiles` | 5 × W | 5, 25, 50, 75, 95 % over tokens; W = 1 if over 200 waves |
    | `phase_histogram` | 36 | shares of phases modulo 2π |
    | `harmonic_amplitude` | H | mean magnitude over tokens and waves, of up to 200 harmonics |
    | `harmonic_quantiles` | 5 × H | the same quantiles of the magnitude |
    | `tokens` | N ≤ 24 | the ids that rows below belong to: those named, then those that follow |
    | `packets` | named × T | wave packets of the named ids at the first T ≤ 64 positions |
    | `interference` | N × N | cosine between packet states at position 0 |
    | `temperature` | layers | what attention divides its scores by |
    | `embedding_frequency`, `embedding_power` | ≤ 64 | of a model without waves |
    """

    Settings = SpectralSettings
    on = Event.STEP_END

    def __init__(self, settings: SpectralSettings) -> None:
        self.every = settings.every
        self._tokens = tuple(dict.fromkeys(settings.tokens))

    def keys(self, model: nn.Module) -> Iterator[str]:
        names = _OF_WAVES if _has_waves(model) else _OF_OTHERS
        return (f"spectral/{name}" for name in names)

    @torch.no_grad()
    def note(self, model: nn.Module) -> str | None:
        """What cannot be measured of this model, in one line; None when all can be."""
        if not _has_waves(model):
            found = _first_matrix(model)
            instead = f"only the spectrum of {found[0]}'s rows" if found else "nothing"
            return f"spectral: {type(model).__name__} has no waves, so {instead} is measured"
        state = _state_of(model)
        missing = [name for name in ("phases", "amplitudes", "ratio") if name not in state]
        missing += [] if hasattr(model, "wave_packets") else ["wave_packets()"]
        told = [f"{type(model).__name__} tells no {', '.join(missing)}"] if missing else []
        vocabulary = len(state["frequencies"])
        if outside := [t for t in self._tokens if not 0 <= t < vocabulary]:
            ids = ", ".join(map(str, outside))
            told.append(f"left out of tokens, as the vocabulary has {vocabulary:,} ids: {ids}")
        amplitudes = state.get("amplitudes")
        if amplitudes is not None and amplitudes.shape[-1] > MOST_WAVES:
            told.append(f"only the first {MOST_WAVES} of {amplitudes.shape[-1]} harmonics")
        return f"spectral: {'; '.join(told)}" if told else None

    @torch.no_grad()
    def __call__(self, view: StepView) -> dict[str, Any]:
        measured = self._waves(view.model) if _has_waves(view.model) else _power(view.model)
        return {f"spectral/{name}": value for name, value in measured.items()}

    def _waves(self, model: nn.Module) -> dict[str, Any]:
        state = _state_of(model)
        measured: dict[str, Any] = {"frequency_quantiles": _frequencies(state["frequencies"])}
        if "ratio" in state:
            measured["wave_ratio"] = float(state["ratio"])
        if "phases" in state:
            measured["phase_histogram"] = _histogram(state["phases"])
        if "amplitudes" in state:
            measured |= _amplitudes(state["amplitudes"])
        if "temperatures" in state:
            measured["temperature"] = state["temperatures"].flatten()[:1000].clone()
        return measured | self._packets(model, state)

    def _packets(self, model: nn.Module, state: State) -> dict[str, Any]:
        vocabulary = len(state["frequencies"])
        named = [token for token in self._tokens if 0 <= token < vocabulary]
        tokens = _with_followers(named, vocabulary)
        measured: dict[str, Any] = {}
        if named and hasattr(model, "wave_packets"):
            measured["packets"] = _wave_packets(model, named)
        states = _packet_states(state, torch.tensor(tokens))
        if states is not None:
            unit = states / states.norm(dim=1, keepdim=True)
            measured["interference"] = (unit @ unit.T).clamp(-1, 1).float()
        return measured | ({"tokens": tokens} if measured else {})


def _has_waves(model: nn.Module) -> bool:
    return callable(getattr(model, "spectral_state", None))


def _state_of(model: Any) -> State:
    """On the CPU in float32, without a copy of what is there already."""
    state: Mapping[str, Tensor | float | None] = model.spectral_state()
    return {
        name: torch.as_tensor(value).detach().to("cpu", torch.float32)
        for name, value in state.items()
        if value is not None
    }


def _spaced(values: Tensor) -> Tensor:
    """Rows of the first axis, evenly spaced, so that few enough numbers remain to be sorted."""
    return values[:: max(1, math.ceil(values.numel() / _MOST_SORTED))]


def _quantiles(values: Tensor) -> Tensor:
    return torch.quantile(values, torch.tensor(QUANTILES), dim=0)


def _frequencies(frequencies_VW: Tensor) -> Tensor:
    spaced = _spaced(frequencies_VW)
    return _quantiles(spaced if spaced.shape[1] <= MOST_WAVES else spaced.reshape(-1, 1))


def _histogram(phases: Tensor) -> Tensor:
    """Shares; less than one in all when some phases are not finite."""
    turned = torch.remainder(_spaced(phases), 2 * math.pi)
    return torch.histc(turned, PHASE_BINS, 0, 2 * math.pi) / turned.numel()


def _amplitudes(amplitudes_VWH: Tensor) -> dict[str, Tensor]:
    amplitudes_VWH = amplitudes_VWH[..., :MOST_WAVES]
    vocabulary, waves, harmonics = amplitudes_VWH.shape
    sums_H = torch.linalg.vector_norm(amplitudes_VWH, 1, dim=(0, 1))  # Σ|A| without a copy
    return {
        "harmonic_amplitude": sums_H / (vocabulary * waves),
        "harmonic_quantiles": _quantiles(_spaced(amplitudes_VWH).reshape(-1, harmonics).abs()),
    }


def _with_followers(named: list[int], vocabulary: int) -> list[int]:
    """The named ids, then those after the last of them, round the vocabulary: of bytes, letters."""
    start = named[-1] + 1 if named else 0
    following = (start + offset for offset in range(min(vocabulary, PAIRED + len(named))))
    return list(dict.fromkeys([*named, *(token % vocabulary for token in following)]))[:PAIRED]


def _wave_packets(model: Any, tokens: list[int]) -> Tensor:
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    block = getattr(getattr(model, "settings", None), "block", POSITIONS)
    positions_T = torch.arange(min(POSITIONS, block), device=device)
    packets_NT: Tensor = model.wave_packets(torch.tensor(tokens, device=device), positions_T)
    return packets_NT.detach().to("cpu", torch.float32)


def _packet_states(state: State, tokens_N: Tensor) -> Tensor | None:
    """A·sin θ and A·cos θ at position 0, in float64; None when the state does not tell them.

    θ = 2π·h·f + φ where each wave has a phase; θ = φ where each harmonic has its own. In the first
    case the position turns all tokens' angles alike, so the cosines hold at every position.
    """
    if not {"phases", "amplitudes"} <= state.keys():
        return None
    f_NW, phi, a_NWH = (
        state[name][tokens_N].double() for name in ("frequencies", "phases", "amplitudes")
    )
    if phi.shape == f_NW.shape:
        turns_NWH = f_NW[..., None] * torch.arange(1, a_NWH.shape[-1] + 1)
        theta_NWH = 2 * math.pi * turns_NWH + phi[..., None]
    elif phi.numel() == a_NWH.numel():
        theta_NWH = phi.reshape(a_NWH.shape)
    else:
        return None
    return torch.cat([a_NWH * theta_NWH.sin(), a_NWH * theta_NWH.cos()], dim=-1).flatten(1)


def _first_matrix(model: nn.Module) -> tuple[str, Tensor] | None:
    named = model.named_parameters()
    return next(((name, p) for name, p in named if p.ndim == 2 and p.numel()), None)


def _power(model: nn.Module) -> dict[str, Tensor]:
    """|Σ_j x_j·exp(−2πi·jk/d)|² / d of the rows x, averaged over rows and into at most 64 bins."""
    found = _first_matrix(model)
    if found is None:
        return {}
    rows_ND = _spaced(found[1].detach()).to("cpu", torch.float32)
    width = rows_ND.shape[1]
    power_K = (torch.fft.rfft(rows_ND).abs().square() / width).mean(0)
    cycles_K = torch.arange(len(power_K)) / width
    bins = min(POWER_BINS, len(power_K))
    pooled = [
        torch.stack([part.mean() for part in values_K.tensor_split(bins)])
        for values_K in (cycles_K, power_K)
    ]
    return dict(zip(("embedding_frequency", "embedding_power"), pooled, strict=True))
