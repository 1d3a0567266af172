"""The continuum memory system: MLPs that learn while they are read, each at a frequency of its own.

Nested Learning (arXiv 2512.24695), equations 70 to 74. Every C^(l) tokens level l takes from its
weights the sum of the last C^(l) tokens' steps, all of them with the weights as they were (71). So
an update is seen by later tokens only. Each sequence of a batch has weights of its own, which begin
as the parameters; with a step size of zero this is the plain MLPs. Costs an MLP's weights for each
sequence and level, and keeps those of each chunk for the backward pass.

Our readings, where the paper is unclear:
- exactly C^(l) terms a sum (the print has one more), and `C^(l) = chunk * max f / f_l` tokens
- what a level learns from (`signal`): "teach", the gradient of the task's loss at the system's
  output, which the training loop hands in by `teach` behind each call; its tokens must be of one
  chunk. Tokens of which it never hands in anything leave no trace. Or "local": half the squared
  error, as a mean over channels, with which a level's output at one token foretells its own next
  input
- nested (72): the slower level's step on the weights that a faster one begins anew from is of first
  order: the sum of the faster one's gradients over the slower one's chunk
- step sizes are one number a token and level, `step_max` times a sigmoid of a linear map of its
  input

Legend: B sequences, T tokens, C width, I and O a layer's input and output widths.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cupel.errors import UsageError
from cupel.models.memory.net import ACTIVATIONS, Net, Tape
from cupel.models.memory.neural import Gate
from cupel.models.memory.settings import CMSSettings
from cupel.models.memory.state import CMSState, Level
from cupel.tags import implements

_FIRST_STEP = 0.2  # the share of `step_max` with which levels begin, as memories do


class CMS(nn.Module):
    """Levels of two-layer MLPs: (B, T, C) → (B, T, C) and the state behind them.

    `biases` gives each layer one. Without levels this is the identity.
    """

    def __init__(self, width: int, settings: CMSSettings, *, biases: bool = False) -> None:
        super().__init__()
        self.settings, self.biases, self.periods = settings, biases, settings.periods()
        self.net = Net(settings.activation, residual=settings.residual)
        hidden = max(1, round(settings.expansion * width))
        self.first = nn.ModuleList(self._drawn(width, hidden) for _ in self.periods)
        self.gates = nn.ModuleDict(
            {
                str(n): Gate("token", width, 1, rank=None, first=_FIRST_STEP)
                for n, period in enumerate(self.periods)
                if period is not None
            }
        )
        if settings.variant == "independent":
            self.shares = nn.Parameter(
                torch.full((len(self.periods),), 1 / max(1, len(self.periods)))
            )
        self.owners = _owners(self.periods) if settings.variant == "nested" else {}

    @classmethod
    def from_mlps(cls, mlps: Sequence[tuple[nn.Linear, nn.Linear]], settings: CMSSettings) -> CMS:
        """Levels that begin as copies of trained MLPs (section 7.3); they learn from there.

        Raises UsageError where there is not one MLP a level, from and to one width.
        """
        widths = {(up.in_features, down.out_features) for up, down in mlps}
        fit = all(up.out_features == down.in_features for up, down in mlps)
        square = fit and len({width for pair in widths for width in pair}) == 1
        if len(mlps) != len(settings.frequencies) or not square:
            raise UsageError(
                f"got {len(mlps)} MLPs of (input, output) widths {sorted(widths)} for "
                f"{len(settings.frequencies)} frequencies; give one MLP for each, all of one width"
            )
        biases = any(layer.bias is not None for pair in mlps for layer in pair)
        found = cls(mlps[0][0].in_features, settings, biases=biases)
        found.first = nn.ModuleList(
            nn.ParameterList(nn.Parameter(_weight(layer, biases)) for layer in pair)
            for pair in mlps
        )
        return found.to(mlps[0][0].weight.dtype)

    def begin(self, batch: int) -> CMSState:
        """Every sequence begins with the same weights."""
        levels = []
        for n, period in enumerate(self.periods):
            weights = [weight.expand(batch, *weight.shape) for weight in self._own(n)]
            none = [torch.zeros_like(weight) for weight in weights] if period is not None else []
            anew = n in self.owners
            levels.append(Level(weights, none, weights if anew else None, none if anew else None))
        return CMSState(tuple(levels))

    def forward(self, x_BTC: Tensor, state: CMSState | None = None) -> tuple[Tensor, CMSState]:
        """Read every token, and with `signal: local` learn from it."""
        if not self.periods:
            return x_BTC, state or CMSState(())
        state = state or self.begin(len(x_BTC))
        outputs, at = [], 0
        while at < x_BTC.shape[1]:
            if self.settings.signal == "teach":
                state = self._turned(state)
            size = min(self.settings.left(state.seen), x_BTC.shape[1] - at)
            part_BTC = x_BTC[:, at : at + size].to(self._own(0)[0].dtype)
            y_BTC, state = self._piece(part_BTC, state)
            outputs.append(y_BTC)
            at += size
        found = torch.cat(outputs, 1).to(x_BTC.dtype)
        if self.settings.signal == "teach":
            # Tokens of two chunks cannot be taught: the later ones should have seen the update.
            pending = state.pending if len(outputs) == 1 else None
            if torch.is_grad_enabled() and not found.requires_grad:
                found.requires_grad_()  # gradients are asked for also where all weights are frozen
            state = state._replace(pending=pending, output=found)
        return found, state

    def teach(self, grad_BTC: Tensor, state: CMSState) -> CMSState:
        """Learn from the gradient of a loss at what the last call gave, (B, T, C).

        Of the sum of all tokens' losses: a mean would make the step depend on the length. Raises
        UsageError where there is nothing to learn it for.
        """
        if self.settings.signal != "teach":
            raise UsageError("signal is local, so there is nothing to teach; set signal: teach")
        if not self.periods:
            return state
        if state.pending is None:
            raise UsageError(
                "the last call's tokens cannot be taught: they have been, or are of two chunks; "
                f"call with at most {self.settings.left(0)} tokens, up to a chunk's end, and teach "
                "them before the next call"
            )
        assert grad_BTC.shape == state.pending[0].shape, (grad_BTC.shape, state.pending[0].shape)
        grads, tapes = self._back(grad_BTC.to(state.pending[0].dtype), state)
        state = self._summed(state, tapes, grads, self._steps(state.pending))
        return self._turned(state._replace(pending=None, output=None))

    def finish(self, state: CMSState) -> CMSState:
        """The end of a context: levels learn what they have of their chunks, which begin anew."""
        state = self._turned(state, all_levels=True)
        return CMSState(state.levels)

    @implements("nl.v1:eq71")
    def _piece(self, x_BTC: Tensor, state: CMSState) -> tuple[Tensor, CMSState]:
        """Tokens between two updates of any level."""
        inputs, tapes, y_BTC = self._through(x_BTC, state)
        state = state._replace(seen=state.seen + x_BTC.shape[1])
        if self.settings.signal == "teach":
            return y_BTC, state._replace(pending=inputs)
        state = self._foretold(state, inputs, tapes)
        last = [given[:, -1:] for given in inputs]
        return y_BTC, self._turned(state._replace(tails=last))

    @implements("nl.v1:eq70", "nl.v1:eq73", "nl.v1:eq74")
    def _through(self, x_BTC: Tensor, state: CMSState) -> tuple[list[Tensor], list[Tape], Tensor]:
        """Each level's inputs (behind that of the piece before) and tape, and the output."""
        length = x_BTC.shape[1]
        tails = state.tails or [x_BTC[:, :0]] * len(self.periods)
        inputs: list[Tensor] = []
        outs: list[Tensor] = []
        tapes: list[Tape] = []
        for n, level in enumerate(state.levels):
            separate = self.settings.variant == "independent" or n == 0
            given = x_BTC if separate else outs[-1]
            # The last token of the piece before foretells the first of this one.
            inputs.append(torch.cat((tails[n], given), 1))
            out, tape = self._forward(inputs[-1], level.weights)
            outs.append(out[:, -length:])
            tapes.append(tape)
        return inputs, tapes, self._joined(outs)

    @implements("nl.v1:eq70", "nl.v1:eq73", "nl.v1:eq74")
    def _joined(self, outs: Sequence[Tensor]) -> Tensor:
        """The last level's output, or all of them with learned weights."""
        if self.settings.variant != "independent":
            return outs[-1]
        return torch.einsum("l,lbtc->btc", self.shares.to(outs[0].dtype), torch.stack(list(outs)))

    def _foretold(
        self, state: CMSState, inputs: Sequence[Tensor], tapes: Sequence[Tape]
    ) -> CMSState:
        """Add up the local loss's steps: a level's answer to one token against its next input."""
        grads, cut = [], []
        for x_BTC, tape in zip(inputs, tapes, strict=True):
            answer = self.net.finish(x_BTC, tape.last)
            grads.append((answer[:, :-1] - x_BTC[:, 1:]) / x_BTC.shape[-1])
            inner, slopes = [h[:, :-1] for h in tape.inputs], [h[:, :-1] for h in tape.slopes]
            cut.append(Tape(inner, slopes, tape.last[:, :-1]))
        return self._summed(state, cut, grads, self._steps([x_BTC[:, 1:] for x_BTC in inputs]))

    def _back(self, grad_BTC: Tensor, state: CMSState) -> tuple[list[Tensor], list[Tape]]:
        """The gradient at each level's output, from that at the system's."""
        assert state.pending is not None
        grads: list[Tensor] = []
        tapes: list[Tape] = []
        for n in reversed(range(len(state.levels))):
            weights = state.levels[n].weights
            out_grad = grad_BTC
            if self.settings.variant == "independent":
                out_grad = self.shares[n].to(grad_BTC.dtype) * grad_BTC
            _, tape = self._forward(state.pending[n], weights)
            deltas = self.net.deltas(out_grad, tape, self._maps(weights))
            below = torch.matmul(deltas[0], self._maps(weights)[0].mT)
            if self.settings.variant != "independent":
                grad_BTC = below + grad_BTC if self.net.residual else below
            grads.append(out_grad)
            tapes.append(tape)
        return grads[::-1], tapes[::-1]

    def _steps(self, inputs: Sequence[Tensor]) -> dict[int, Tensor]:
        """The step size of each token in each level that learns, (B, T)."""
        return {
            int(name): self.settings.step_max * torch.sigmoid(gate(inputs[int(name)]))
            for name, gate in self.gates.items()
        }

    def _summed(
        self,
        state: CMSState,
        tapes: Sequence[Tape],
        grads: Sequence[Tensor],
        steps: dict[int, Tensor],
    ) -> CMSState:
        """The state with a piece's steps added to what its chunks will take."""
        levels = list(state.levels)
        for n, eta_BT in steps.items():
            level = levels[n]
            deltas = self.net.deltas(grads[n], tapes[n], self._maps(level.weights))
            sums = _added(level.sums, tapes[n], deltas, eta_BT)
            above = level.above
            if above is not None:
                above = _added(above, tapes[n], deltas, steps[self.owners[n]])
            levels[n] = level._replace(sums=sums, above=above)
        return state._replace(levels=tuple(levels))

    @implements("nl.v1:eq71", "nl.v1:eq72")
    def _turned(self, state: CMSState, *, all_levels: bool = False) -> CMSState:
        """The state behind the updates that are due: of levels of which a chunk has just ended."""
        due = {
            n
            for n, period in enumerate(self.periods)
            if period is not None and state.seen and (all_levels or state.seen % period == 0)
        }
        levels = list(state.levels)
        for n in due:
            weights = _less(levels[n].weights, levels[n].sums)
            levels[n] = levels[n]._replace(weights=weights, sums=_zeros(levels[n].sums))
        for n, owner in self.owners.items():
            first, above = levels[n].first, levels[n].above
            if owner in due and first is not None and above is not None:
                anew = _less(first, above)
                levels[n] = levels[n]._replace(weights=anew, first=anew, above=_zeros(above))
        return state._replace(levels=tuple(levels))

    @implements("nl.v1:eq70")
    def _forward(self, x_BTC: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, Tape]:
        """One level's answer, and what its gradients need. A bias is the weight of a constant."""
        both = ACTIVATIONS[self.net.activation]
        inputs, slopes = [self._with_one(x_BTC)], []
        z = torch.matmul(inputs[0], weights[0])
        for weight in weights[1:]:
            hidden, slope = both(z)
            inputs.append(self._with_one(hidden))
            slopes.append(slope)
            z = torch.matmul(inputs[-1], weight)
        return self.net.finish(x_BTC, z), Tape(inputs, slopes, z)

    def _own(self, n: int) -> list[Tensor]:
        """The parameters with which a level begins."""
        return list(self.first[n].parameters())

    def _with_one(self, x_BTI: Tensor) -> Tensor:
        return F.pad(x_BTI, (0, 1), value=1.0) if self.biases else x_BTI

    def _maps(self, weights: Sequence[Tensor]) -> list[Tensor]:
        """Weights without the rows that are biases."""
        return [weight[:, :-1] if self.biases else weight for weight in weights]

    def _drawn(self, width: int, hidden: int) -> nn.ParameterList:
        found = nn.ParameterList()
        for into, out in ((width, hidden), (hidden, width)):
            weight = torch.randn(into + self.biases, out) / math.sqrt(into)
            if self.biases:
                weight[-1] = 0.0
            found.append(nn.Parameter(weight))
        if self.settings.residual:
            # Near the identity, so that any number of levels can be put behind each other.
            found[-1].data.mul_(0.1)
        return found


def _owners(periods: Sequence[int | None]) -> dict[int, int]:
    """For each level the next slower one, which learns what it begins anew from."""
    learning = sorted((period, n) for n, period in enumerate(periods) if period is not None)
    return {fast: slow for (_, fast), (_, slow) in pairwise(learning)}


@implements("nl.v1:eq71", "nl.v1:eq72")
def _added(
    sums: Sequence[Tensor], tape: Tape, deltas: Sequence[Tensor], eta_BT: Tensor
) -> list[Tensor]:
    """Sums with these tokens' steps: of each layer the products of its inputs and its deltas."""
    weighted = [eta_BT.unsqueeze(-1) * delta for delta in deltas]
    return [
        total + torch.matmul(given.mT, delta)
        for total, given, delta in zip(sums, tape.inputs, weighted, strict=True)
    ]


def _less(weights: Sequence[Tensor], sums: Sequence[Tensor]) -> list[Tensor]:
    return [weight - total for weight, total in zip(weights, sums, strict=True)]


def _zeros(sums: Sequence[Tensor]) -> list[Tensor]:
    return [torch.zeros_like(total) for total in sums]


def _weight(layer: nn.Linear, biases: bool) -> Tensor:
    """(I, O), or (I + 1, O) with the bias, zero where there is none."""
    weight = layer.weight.detach().T.clone()
    if not biases:
        return weight
    bias = layer.bias.detach() if layer.bias is not None else weight.new_zeros(weight.shape[1])
    return torch.cat((weight, bias.unsqueeze(0)))
