"""The memory workload keeps the contract on every kind of task, and is resumed exactly."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from pydantic import ValidationError

from cupel.cli.main import main
from cupel.config import load
from cupel.errors import RecipeError, UsageError
from cupel.models.memory.model import MemoryLM
from cupel.models.memory.points import POINTS
from cupel.models.memory.settings import NAMED
from cupel.studies.spec import plan_study
from cupel.testing.workload import WorkloadContract
from cupel.workloads.memory import MemoryWorkload
from cupel.workloads.settings import MemoryWorkloadSettings

SMALL: dict[str, Any] = {
    "kind": "memory", "layers": 1, "width": 16, "heads": 2, "persistent": 2, "window": 8,
    "segment": 8, "memory": {"chunk": 4},
}  # fmt: skip


class TestRecall(WorkloadContract):
    workload = "memory"
    settings: ClassVar[dict[str, Any]] = {
        "data": {"kind": "mqar", "pairs": 4, "block": 32}, "model": SMALL, "batch": 8,
        "val_batches": 1, "val_batch": 8,
    }  # fmt: skip


class TestSets(WorkloadContract):
    workload = "memory"
    settings: ClassVar[dict[str, Any]] = {
        "data": {"kind": "formal", "language": "shuffle2", "longest": 12, "bins": [[13, 20]]},
        "model": {**SMALL, "mixer": "mac"}, "batch": 8, "val_batches": 1, "val_batch": 8,
    }  # fmt: skip


class TestGPTOnATask(WorkloadContract):
    workload = "memory"
    settings: ClassVar[dict[str, Any]] = {
        "data": {"kind": "parity", "longest": 12, "bins": [[13, 20]]}, "batch": 8,
        "model": {"kind": "gpt", "layers": 1, "heads": 2, "width": 16},
        "val_batches": 1, "val_batch": 8,
    }  # fmt: skip


class TestLevelsThatForetell(WorkloadContract):
    workload = "memory"
    settings: ClassVar[dict[str, Any]] = {
        "data": {"kind": "formal", "language": "parity", "longest": 12, "bins": [[13, 20]]},
        "model": {
            **SMALL, "mixer": "hope",
            "hope": {"depth": 1, "chunk": 1, "cms": {"signal": "local", "chunk": 4}},
        },
        "batch": 8, "val_batches": 1, "val_batch": 8,
    }  # fmt: skip


def build(*, seed: int = 1, **settings: Any) -> MemoryWorkload:
    given = {"model": SMALL, "batch": 8, "val_batches": 2, "val_batch": 8, **settings}
    return MemoryWorkload.build(MemoryWorkloadSettings.model_validate(given), seed=seed)


class Answers(torch.nn.Module):
    """A model that knows all answers, or all of one sequence's but one."""

    def __init__(self, workload: MemoryWorkload, *, wrong: int = 0) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.task, self.wrong = workload.task, wrong
        self.fixed = [batch for found in workload._fixed.values() for batch in found]

    def forward(self, tokens_BT: torch.Tensor) -> tuple[torch.Tensor, None]:
        for batch in self.fixed:
            if torch.equal(torch.from_numpy(batch.tokens), tokens_BT):
                break
        else:
            raise AssertionError("tokens that no evaluation set has")
        targets = torch.from_numpy(batch.targets)
        if targets.dim() == 3:
            logits_BTV = 20.0 * (2 * targets.float() - 1)
        else:
            logits_BTV = (
                20.0 * torch.nn.functional.one_hot(targets.clamp_min(0), self.task.outputs).float()
            )
            asked = (targets[0] >= 0).nonzero().flatten()[: self.wrong]
            logits_BTV[0, asked] *= -1
        return logits_BTV, None


@pytest.mark.parametrize("data", [{"kind": "mqar"}, {"kind": "formal", "language": "anbn"}])
def test_a_model_that_knows_the_answers_has_all_of_them_right(data: dict[str, Any]) -> None:
    workload = build(data=data)
    workload.model = Answers(workload)
    found = workload.evaluate()
    shares = {name: value for name, value in found.items() if name != "val_loss"}
    assert set(shares.values()) == {1.0}
    assert found["val_loss"] < 1e-6
    for name in workload.task.evaluations:
        assert {f"acc/{name}", f"exact/{name}"} <= set(found)


def test_one_wrong_answer_is_counted_once() -> None:
    workload = build(data={"kind": "mqar", "pairs": 8})
    workload.model = Answers(workload, wrong=1)
    found = workload.evaluate()
    # one position of eight, in the first sequence of each of two batches of eight
    assert found["acc/val"] == pytest.approx(1 - 1 / 64)
    assert found["exact/val"] == pytest.approx(1 - 1 / 8)


def test_the_loss_of_sets_is_binary_cross_entropy_over_what_is_asked() -> None:
    workload = build(data={"kind": "formal", "language": "parity", "longest": 6, "bins": []})
    tokens_BT, targets_BTV = workload.batch(2)
    logits_BTV = workload.model(tokens_BT)[0].double().detach()[..., : workload.task.outputs]
    total = 0.0
    for b in range(len(tokens_BT)):
        asked = [t for t in range(tokens_BT.shape[1]) if targets_BTV[b, t, 0] >= 0]
        parts = []
        for t in asked:
            p = logits_BTV[b, t].sigmoid()
            y = targets_BTV[b, t].double()
            parts.append(float(-(y * p.log() + (1 - y) * (1 - p).log()).sum()))
        total += sum(parts) / len(parts)
    assert workload.loss((tokens_BT, targets_BTV))[0].item() == pytest.approx(
        total / len(tokens_BT), rel=1e-5
    )


def test_vocabulary_and_block_come_from_the_task() -> None:
    workload = build(data={"kind": "formal", "language": "aa", "longest": 10, "bins": [[11, 40]]})
    assert workload.model.settings.block >= 40
    assert workload.model.settings.vocabulary == workload.task.vocabulary
    with pytest.raises(UsageError, match="the task has 129 tokens"):
        build(data={"kind": "mqar"}, model={**SMALL, "vocabulary": 5})


def test_a_task_that_needs_a_decoder_is_refused() -> None:
    with pytest.raises(UsageError, match="decoder"):
        build(data={"kind": "compression"})


def test_levels_are_not_taught_the_answers_of_a_task() -> None:
    with pytest.raises(ValidationError, match=r"set hope\.cms\.signal: local"):
        build(model={**SMALL, "mixer": "hope"})
    for cms in ({"signal": "local"}, {"frequencies": [0.0]}, {"frequencies": []}):
        build(model={**SMALL, "mixer": "hope", "hope": {"cms": cms}})


@pytest.mark.parametrize("name", POINTS)
def test_every_point_is_named_in_a_recipe(name: str, tmp_path: Path) -> None:
    recipe = load("memory-small", [f"model.memory.kind={name}"])
    memory = recipe.workload_settings.model.memory
    assert memory.kind == name
    assert memory.model_dump(include=set(POINTS[name])) == NAMED[name]().model_dump(
        include=set(POINTS[name])
    )


def memory_of(width: int, heads: int, inner: int, *, gates: int, parts: int = 3) -> int:
    """Maps to q, k and v and their kernels of 4, gates, both layers, and the norm of a head."""
    head = width // heads
    return parts * width * (width + 4) + gates + heads * 2 * head * inner + head


def mlp_of(width: int, hidden: int) -> int:
    """SwiGLU: up twice, and down."""
    return 3 * width * hidden


def gates_of(width: int, count: int, *, rank: int = 0) -> int:
    """Maps to `count` numbers and what is added to them."""
    return width * rank + rank * count + count if rank else width * count + count


# Of a layer, by hand: what a recipe's model is made of besides tokens, last norm and head.
LAYERS = {
    # norm, memory with three gates a head, its output's gate and map, 4 persistent tokens
    "memory-small": 128 + memory_of(128, 4, 64, gates=3 * gates_of(128, 4)) + 2 * 128**2
    + 4 * 128 + 128 + mlp_of(128, 341),
    # k and v of the memory, q of its own; q, k, v and output of attention; two norms that gate
    "titans-base": 192 + memory_of(192, 6, 64, gates=3 * gates_of(192, 6), parts=2)
    + 192 * (192 + 4) + 4 * 192**2 + 8 * 192 + 2 * 192 + 192 + mlp_of(192, 512),
    # two gates a channel and a threshold a head, all of rank 32; expansion 4
    "miras-yaad": 128 + memory_of(128, 4, 128, gates=2 * gates_of(128, 128, rank=32)
    + gates_of(128, 4, rank=32)) + 2 * 128**2 + 4 * 128 + 128 + mlp_of(128, 341),
    # kernel on tokens, maps to q and v; five memories (main, k, v, alpha, eta), of which the last
    # two end in one number a head; two levels of CMS with a gate each
    "hope-full": 96 + 4 * 96 + 2 * 96**2 + 2 * (4 * 24 + 4) + 5 * 4 * 2 * 24 * 48 + 24 + 2 * 96**2
    + 96 + 2 * (2 * 96 * 192 + gates_of(96, 1)) + 96 + mlp_of(96, 256),
}  # fmt: skip


@pytest.mark.parametrize("recipe", LAYERS)
def test_a_recipe_has_the_parameters_that_its_parts_add_up_to(recipe: str) -> None:
    settings = load(recipe, ["model.vocabulary=256"]).workload_settings.model
    with torch.device("meta"):
        model = MemoryLM(settings)
    ends = 2 * 256 * settings.width + settings.width
    wanted = ends + settings.layers * LAYERS[recipe]
    assert sum(parameter.numel() for parameter in model.parameters()) == wanted


def test_arms_of_a_study_are_memories_of_their_own(tmp_path: Path) -> None:
    """A memory's name once changed nothing in a workload whose defaults were written out."""
    study = plan_study("mqar", root=tmp_path)
    memories = [
        {**study.config_of(run)["model"]["memory"], "kind": None}
        for run in study.runs
        if run.seed == 1
    ]
    assert len(memories) == 6
    assert all(one != other for one, other in combinations(memories, 2))


def test_no_model_of_the_formal_languages_is_cut_off_by_a_length_that_is_asked(
    tmp_path: Path,
) -> None:
    manifest = plan_study("formal-languages", root=tmp_path)
    for cell in manifest.cells:
        model, bins = cell.config["model"], cell.config["data"]["bins"]
        longest = max(high for _, high in bins)
        assert model.get("mixer") != "attention" or model["window"] >= longest, cell.arm
        assert model.get("mixer") != "hope" or model["hope"]["chunk_others"] >= longest, cell.arm
    assert len({cell.arm for cell in manifest.cells}) * 6 == len(manifest.cells)


def test_a_point_that_there_is_not_is_refused_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match="did you mean 'yaad'"):
        load("memory-small", ["model.memory.kind=yaat"])


TASK = """
workload: memory
data: {kind: mqar, pairs: 4, block: 32}
model: {kind: memory, mixer: mag, layers: 1, heads: 2, width: 16, window: 8, memory: {chunk: 4}}
batch: 4
train:
  optimizer: {kind: adamw, lr: 1e-3}
  schedule: {kind: cosine, warmup: 2}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe", ["memory-small", "titans-base", "miras-yaad", "hope-full", "task"]
)
def test_resume_is_exact(recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if recipe == "task":
        (tmp_path / "task.yaml").write_text(TASK)
        recipe = str(tmp_path / "task.yaml")
    small = (
        [] if recipe.endswith(".yaml") else ["data.batch=2", "data.val_batches=1", "model.block=48"]
    )
    steps = ["train.steps=12", "checkpoint.every=3", "train.evaluate_every=6"]
    with pytest.raises(SystemExit) as ended:
        main(["verify", "resume", recipe, *steps, *small])
    assert ended.value.code == 0, capsys.readouterr()
