"""Plain cross-entropy as an objective."""

from __future__ import annotations

import torch

from cupel.models.gpt.loss import CrossEntropy
from cupel.models.gpt.model import GPT
from cupel.models.gpt.settings import CrossEntropySettings, GPTModelSettings


def test_it_is_the_models_own_loss_and_has_no_state():
    torch.manual_seed(0)
    model = GPT(GPTModelSettings(layers=1, heads=1, width=8, block=4, vocabulary=11))
    tokens, targets = torch.randint(11, (2, 2, 4)).unbind()
    objective = CrossEntropy(CrossEntropySettings(), vocabulary=11, key=5)
    loss, numbers = objective(model, tokens, targets)
    expected = model(tokens, targets)[1]
    assert expected is not None
    assert torch.equal(loss, expected)
    assert loss.requires_grad
    assert numbers == {}
    assert objective.state_dict() == {}
