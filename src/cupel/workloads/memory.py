"""The memory workload: a sequence model that learns a synthetic task.

Composition only: tasks are `cupel.data.tasks`, models are `cupel.models`. Importing this file does
not import torch; `build` does. Language models of text with memories are the workload `gpt` with
`model: {kind: memory}`.

Tasks ask for one token at some positions (cross-entropy), or for a set of symbols at each (binary
cross-entropy of every symbol, as Bhattamishra et al. 2020 train it). Evaluations are shares of what
is right, over sets that are the same in every run, some of them of longer sequences than were
trained.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from cupel import registry
from cupel.errors import UsageError
from cupel.randomness import Streams
from cupel.workloads.settings import MemoryWorkloadSettings

if TYPE_CHECKING:
    from torch import Tensor

    from cupel.data.tasks.task import Share, Task

Batch = tuple["Tensor", "Tensor"]
_UNASKED = -1.0  # of a position whose set nobody asks for


class MemoryWorkload:
    """A task. Batches are drawn, a pure function of (seed, step), so there are no epochs."""

    Settings = MemoryWorkloadSettings
    unit = "tokens"

    def __init__(self, settings: MemoryWorkloadSettings, *, model: Any, task: Task) -> None:
        self.settings, self.model, self.task = settings, model, task
        self.units_per_step = settings.batch * task.block
        self._fixed = {
            name: task.fixed(name, count=settings.val_batches, batch=settings.val_batch)
            for name in task.evaluations
        }

    @classmethod
    def build(cls, settings: MemoryWorkloadSettings, *, seed: int) -> Self:
        """The task and a freshly initialised model, on the CPU.

        Raises UsageError for a model that is too small for the task, and for tasks whose targets
        all stand at the last position.
        """
        import torch

        from cupel.data.tasks.build import build

        task = build(settings.data, seed=seed)
        if task.readout == "last":
            raise UsageError(
                f"task {task.kind} asks for everything at the last position, which needs a decoder "
                "that this workload does not have; take another task"
            )
        torch.default_generator.manual_seed(Streams(seed).key("init"))
        chosen = fitted(settings.model, task)
        model = registry.resolve("model", chosen.kind)(chosen)
        return cls(settings, model=model, task=task)

    def stateful(self) -> dict[str, Any]:
        """Nothing besides the model."""
        return {}

    def batch(self, step: int, *, part: tuple[int, int] = (0, 1)) -> Batch:
        """Tokens (B, T), and targets: ids (B, T), or sets (B, T, V) with -1 where none is asked."""
        return _tensors(self.task.batch("train", step, self.settings.batch, part=part))

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Any]]:
        """Mean over what is asked, in nats, and `acc`: the share of positions that are right."""
        tokens_BT, targets = batch
        logits_BTV, _ = self.model(tokens_BT)
        loss, right = self._judged(logits_BTV.float(), targets)
        return loss, {"acc": right}

    def evaluate(self) -> dict[str, float]:
        """Of each evaluation set the shares of right positions and of right sequences.

        `val_loss` and `val_acc` are those of the first set, by the score that the task's paper
        reports; `acc/<set>` and `exact/<set>` are those of each.
        """
        found: dict[str, float] = {}
        for name, batches in self._fixed.items():
            loss, scores = self._evaluated(batches)
            if name == self.task.evaluations[0]:
                found["val_loss"], found["val_acc"] = loss, scores[self.task.headline]
            found[f"acc/{name}"], found[f"exact/{name}"] = scores["accuracy"], scores["exact"]
        return found

    def describe(self) -> dict[str, Any]:
        """What the record keeps about the data."""
        return self.task.describe()

    def _evaluated(self, batches: list[Any]) -> tuple[float, dict[str, float]]:
        device = next(self.model.parameters()).device
        total = 0.0
        scores: dict[str, Share] = {}
        for batch in batches:
            tokens_BT, targets = (part.to(device) for part in _tensors(batch))
            logits_BTV = self.model(tokens_BT)[0].float()
            total += float(self._judged(logits_BTV, targets)[0])
            predicted = self._predicted(logits_BTV, targets).cpu().numpy()
            for name, share in self.task.score(predicted, batch).items():
                scores[name] = scores[name] + share if name in scores else share
        return total / len(batches), {name: share.value for name, share in scores.items()}

    def _predicted(self, logits_BTV: Tensor, targets: Tensor) -> Tensor:
        """The likeliest token, or every symbol that is likelier than not."""
        logits_BTV = logits_BTV[..., : self.task.outputs]
        return logits_BTV > 0 if targets.dim() == 3 else logits_BTV.argmax(-1)

    def _judged(self, logits_BTV: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Loss, and the share of positions that are right of those that are asked.

        Both are means over sequences of means over what each asks, so that equal shares of a batch
        have the batch as their mean.
        """
        from torch.nn import functional as F

        logits_BTV = logits_BTV[..., : self.task.outputs]
        predicted = self._predicted(logits_BTV, targets).detach()
        if targets.dim() == 2:
            asked_BT = targets >= 0
            each_BT = F.cross_entropy(logits_BTV.mT, targets, reduction="none")
            right_BT = predicted == targets
        else:
            asked_BT = targets[..., 0] >= 0
            each_BTV = F.binary_cross_entropy_with_logits(
                logits_BTV, targets.clamp_min(0), reduction="none"
            )
            each_BT, right_BT = each_BTV.sum(-1), (predicted == (targets > 0)).all(-1)
        weight_BT = asked_BT / asked_BT.sum(1, keepdim=True).clamp_min(1) / len(asked_BT)
        return (each_BT * weight_BT).sum(), (right_BT * weight_BT).sum()


def _tensors(batch: Any) -> Batch:
    import torch

    tokens_BT = torch.from_numpy(batch.tokens)
    if not hasattr(batch, "mask"):
        return tokens_BT, torch.from_numpy(batch.targets)
    targets_BTV = torch.from_numpy(batch.targets).float()
    mask_BT = torch.from_numpy(batch.mask)
    return tokens_BT, targets_BTV.masked_fill(~mask_BT.unsqueeze(-1), _UNASKED)


def fitted(settings: Any, task: Task) -> Any:
    """The model's settings with its vocabulary and block filled in from the task.

    Raises UsageError for a vocabulary that is too small.
    """
    needed = max(task.vocabulary, task.outputs)
    asked = settings.vocabulary
    if asked is not None and asked < needed:
        raise UsageError(
            f"model.vocabulary is {asked}, but the task has {needed} tokens; leave it out, or set "
            f"it to {needed} or more"
        )
    longest = max(task.block, *(task.length(name) for name in task.evaluations))
    return settings.model_copy(update={"vocabulary": asked or needed, "block": longest})
