"""Devices are there or refused; a world of one needs no process group."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cupel.errors import PreflightError
from cupel.train.parallel import World, choose_device, distribute, without_sync

CPU = torch.device("cpu")
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


@pytest.mark.parametrize("asked", ["gpu", "", "cuda:-1", "cpu cuda", "CPU"])
def test_what_is_no_device_is_refused_in_one_line(asked: str) -> None:
    with pytest.raises(PreflightError, match=r"is no device; expected auto, cpu") as caught:
        choose_device(asked)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("asked", ["meta", "cuda:99", "mps", "xpu", "vulkan"])
def test_a_device_that_is_not_there_is_refused_in_one_line(asked: str) -> None:
    with pytest.raises(PreflightError, match=r"is not there .* type train\.device=auto") as caught:
        choose_device(asked)
    assert "\n" not in str(caught.value)


@no_gpu
def test_without_a_gpu_auto_is_the_cpu_and_cuda_is_refused() -> None:
    assert choose_device("auto", local_rank=3) == CPU
    with pytest.raises(PreflightError, match="0 CUDA devices found"):
        choose_device("cuda")


def test_a_world_of_one_agrees_with_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    world = World.join("cpu")
    assert (world.rank, world.size, world.first) == (0, 1, True)
    value = torch.tensor(3.0)
    assert world.mean(value) is value
    assert (world.any(True), world.any(False)) == (True, False)
    assert world.from_first("x") == "x"
    world.barrier()
    world.leave()
    module = nn.Linear(1, 1)
    assert distribute(module, world) is module  # type: ignore[arg-type]
    with without_sync(module, skip=True):
        pass
