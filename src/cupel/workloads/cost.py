"""What a run costs: measured FLOPs of its updates; tokens and seconds over all its sessions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, autograd

from cupel.record.reader import RunRecord, SessionInfo, newest_lines
from cupel.train.protocols import Workload


def flops_per_update(workload: Workload) -> int | None:
    """FLOPs of matrix products and convolutions in one update: forward and backward, all ranks.

    Counted by torch on a real pass over the first sequence (image) of the first batch, times the
    sequences of a batch; so Fourier transforms, sines and the optimizer are not in it. Attention
    is counted whole, by its plain formula, whatever kernel trains. None when a workload's loss
    cannot be taken of one sequence. Leaves the model as it was, without gradients. Costs one CPU
    second, most of it torch's own imports, so it is done at a run's end.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    model = workload.model
    batch = workload.batch(1)
    rows = max((len(tensor) for tensor in _tensors(batch)), default=0)
    modes = [(module, module.training) for module in model.modules()]
    model.eval()  # so that nothing is drawn, and no running mean moves
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            loss, _ = workload.loss(_first(batch))
            autograd.backward([loss])
    except (RuntimeError, ValueError, TypeError, IndexError):
        return None
    finally:
        model.zero_grad(set_to_none=True)
        for module, training in modes:
            module.training = training
    return int(counter.get_total_flops()) * rows


def _first(batch: Any) -> Any:
    if isinstance(batch, Tensor):
        return batch[:1]
    if isinstance(batch, Mapping):
        return {name: _first(one) for name, one in batch.items()}
    if isinstance(batch, tuple | list):
        return type(batch)(_first(one) for one in batch)
    return batch


def _tensors(batch: Any) -> list[Tensor]:
    if isinstance(batch, Tensor):
        return [batch] if batch.dim() else []
    if isinstance(batch, Mapping):
        return [tensor for one in batch.values() for tensor in _tensors(one)]
    if isinstance(batch, tuple | list):
        return [tensor for one in batch for tensor in _tensors(one)]
    return []


def totals(record: RunRecord, workload: Workload, *, step: int, cpu_s: float) -> dict[str, Any]:
    """A run's cost over all its sessions, for results.json.

    Units (tokens) and FLOPs are those of the steps that count, not of what a killed session did in
    vain. `wall_s` runs from each session's start to its last line of metrics. `cpu_s` is None
    unless the run had one session, since a killed one tells nobody its CPU seconds.
    """
    sessions, flops = record.sessions, flops_per_update(workload)
    return {
        "updates": step,
        workload.unit: step * workload.units_per_step,
        "flops": None if flops is None else flops * step,
        "wall_s": sum(_seconds(session) for session in sessions),
        "cpu_s": cpu_s if len(sessions) == 1 else None,
        "sessions": len(sessions),
    }


def _seconds(session: SessionInfo) -> float:
    """From a session's start to its last line of metrics."""
    started, ended = session.started, next(newest_lines(session), {}).get("_t")
    if started is None or not isinstance(ended, int | float):
        return 0.0
    return max(0.0, ended - started)
