"""One process or several under torchrun: ranks, devices, and the few things that ranks share.

Plain DistributedDataParallel over the workload's loss. Gloo on CPUs, NCCL on GPUs. Two processes
agree with one to about 1e-7 a parameter, not to the bit: sums are taken in another order.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cupel import ranks
from cupel.errors import PreflightError
from cupel.train.protocols import Workload


@dataclass(frozen=True, slots=True)
class World:
    """This process's place among its peers."""

    rank: int
    size: int
    device: torch.device

    @classmethod
    def join(cls, device: str = "auto") -> World:
        """Read torchrun's environment and join the group, or be alone.

        Raises PreflightError when the device asked for is not there, UsageError for variables
        by which ranks cannot find each other.
        """
        place = ranks.place()
        chosen = choose_device(device, local_rank=place.local_rank)
        if chosen.type == "cuda":
            torch.cuda.set_device(chosen)  # NCCL's barriers and broadcasts use the current one
        if place.size > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
        return cls(rank=place.rank, size=place.size, device=chosen)

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which writes the record."""
        return self.rank == 0

    def leave(self) -> None:
        """Leave the process group, if there is one."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def mean(self, value: Tensor) -> Tensor:
        """The mean over ranks of a detached tensor."""
        if self.size == 1:
            return value
        value = value.clone()
        dist.all_reduce(value)
        return value / self.size

    def any(self, flag: bool) -> bool:
        """Whether the flag is up on any rank; all ranks get the same answer."""
        if self.size == 1:
            return flag
        votes = torch.tensor(int(flag), device=self.device)
        dist.all_reduce(votes)
        return bool(votes.item())

    def share_buffers(self, model: nn.Module) -> None:
        """Give every rank rank 0's buffers: each has moved its running means by its own batches."""
        if self.size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, src=0)

    def from_first(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.size > 1:
            dist.barrier()


def choose_device(asked: str, *, local_rank: int = 0) -> torch.device:
    """The device for `auto`, `cpu`, `cuda`, `cuda:1` or another of torch's names."""
    if asked in ("auto", "cuda") and torch.cuda.is_available():
        return torch.device("cuda", local_rank)
    if asked == "auto":
        return torch.device("cpu")
    try:
        device = torch.device(asked)
    except RuntimeError:
        raise PreflightError(
            f"train.device: '{asked}' is no device; expected auto, cpu, cuda or cuda:0"
        ) from None
    try:
        torch.zeros(1, device=device).item()  # torch knows many names, and few of them are there
    # In this order: most back ends, `meta`, and a torch that was built without CUDA.
    except (RuntimeError, NotImplementedError, AssertionError):
        raise PreflightError(
            f"train.device: '{asked}' is not there ({torch.cuda.device_count()} CUDA devices "
            "found); type train.device=auto"
        ) from None
    return device


class Objective(nn.Module):
    """The workload's loss as a module, so that DDP can wrap model and loss alike."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        self.model = workload.model
        self._loss = workload.loss

    def forward(self, batch: Any) -> Any:
        return self._loss(batch)


def distribute(objective: Objective, world: World) -> nn.Module:
    """The objective itself, or wrapped in DDP so that backward averages gradients over ranks."""
    if world.size == 1:
        return objective
    ids = [world.device.index] if world.device.type == "cuda" else None
    return DistributedDataParallel(objective, device_ids=ids)


def without_sync(objective: nn.Module, *, skip: bool) -> AbstractContextManager[Any]:
    """A context in which backward does not average over ranks, for all but the last micro-batch."""
    if skip and isinstance(objective, DistributedDataParallel):
        return objective.no_sync()
    return nullcontext()
