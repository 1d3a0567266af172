"""Cross-entropy as an objective: the plain one that the others are compared with.

An objective is a class made as `Objective(settings, vocabulary=…, key=…)` and called as
`objective(model, tokens_BT, targets_BT)`. It returns the loss with its graph, and further numbers
to log, detached and still on the device. It draws what it needs from `key`, and keeps in buffers
what a checkpoint must hold. Its settings may have `check_model(model)`, which is given the model's
settings and raises ValueError where they do not fit: that line then refuses the recipe.
"""

from __future__ import annotations

from torch import Tensor, nn

from cupel.models.gpt.settings import CrossEntropySettings


class CrossEntropy(nn.Module):
    """The model's own mean cross-entropy of the next token, in nats."""

    def __init__(self, settings: CrossEntropySettings, *, vocabulary: int, key: int) -> None:
        super().__init__()

    def forward(
        self, model: nn.Module, tokens_BT: Tensor, targets_BT: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and nothing else to log."""
        _, loss = model(tokens_BT, targets_BT)
        return loss, {}
