"""A language model whose layers are memories, and what it carries from call to call.

- token embedding, no positions: memories have an order, and attention has rotary positions
- blocks with an RMSNorm before each branch: a mixer (LMM, MAC, MAG, MAL, Hope, Hope-attention, or
  attention alone), a SwiGLU
- a last RMSNorm; an output head without bias, tied to the embedding if asked
- initial weights N(0, 0.02), projections into the residual stream divided by √(2 · layers);
  those to a memory's values N(0, 1/C), so that they are as large as what it says

A sequence may be given in any number of calls: each returns the state behind it, and the outputs
are those of one call. Levels that targets teach (`learn`) are an exception: their calls end where
chunks do. Sequences of any length; `settings.block` is only what training takes.

Legend: B sequences, T tokens, C width, V vocabulary.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cupel.errors import UsageError
from cupel.models.memory.attention import WindowAttention
from cupel.models.memory.hope import Hope, HopeAttention, teach
from cupel.models.memory.neural import Projections
from cupel.models.memory.settings import MemoryModelSettings
from cupel.models.memory.state import LayerState, State
from cupel.models.memory.titans import LMM, MAC, MAG, MAL, Persistent, attended
from cupel.models.memory.trace import trace

_STD = 0.02


class Attention(nn.Module):
    """A window of attention and persistent tokens, without a memory."""

    def __init__(self, width: int, heads: int, *, persistent: int, window: int) -> None:
        super().__init__()
        self.attention = WindowAttention(width, heads, window)
        self.persistent = Persistent(persistent, width)

    def forward(
        self, x_BTC: Tensor, state: LayerState | None = None, start: int = 0
    ) -> tuple[Tensor, LayerState]:
        tokens, past = self.persistent.tokens, attended(state or LayerState())
        found, (keys, values) = self.attention(
            x_BTC, prefix_PC=tokens if len(tokens) else None, past=past, start=start
        )
        return found, LayerState(keys=keys, values=values)


def mixer(settings: MemoryModelSettings) -> nn.Module:
    """What the settings put where a transformer has attention."""
    size, memory, some = (settings.width, settings.heads), settings.memory, settings.persistent
    if settings.mixer == "lmm":
        return LMM(*size, memory, persistent=some)
    if settings.mixer == "mac":
        return MAC(
            *size, memory, persistent=some, segment=settings.segment,
            literal=settings.literal_mask,
        )  # fmt: skip
    if settings.mixer == "mag":
        return MAG(*size, memory, persistent=some, window=settings.window)
    if settings.mixer == "mal":
        return MAL(*size, memory, persistent=some, window=settings.window)
    if settings.mixer == "hope":
        return Hope(*size, settings.hope)
    if settings.mixer == "hope-attention":
        return HopeAttention(*size, settings.hope, persistent=some, window=settings.window)
    return Attention(*size, persistent=some, window=settings.window)


class SwiGLU(nn.Module):
    """`(SiLU(x W_1) * x W_2) W_3`."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x_BTC: Tensor) -> Tensor:
        gate, value = self.up(x_BTC).chunk(2, -1)
        found: Tensor = self.down(F.silu(gate) * value)
        return found


class Block(nn.Module):
    """Mixer and SwiGLU, each behind its norm and added to the residual stream."""

    def __init__(self, settings: MemoryModelSettings) -> None:
        super().__init__()
        self.mixer_norm = nn.RMSNorm(settings.width, eps=1e-6)
        self.mixer = mixer(settings)
        hidden = round(settings.hidden * settings.width)
        self.mlp_norm = nn.RMSNorm(settings.width, eps=1e-6) if hidden else None
        self.mlp = SwiGLU(settings.width, hidden) if hidden else None

    def forward(
        self, x_BTC: Tensor, state: LayerState | None, start: int
    ) -> tuple[Tensor, LayerState]:
        y_BTC, after = self.mixer(self.mixer_norm(x_BTC), state, start)
        x_BTC = x_BTC + y_BTC
        if self.mlp is not None and self.mlp_norm is not None:
            x_BTC = x_BTC + self.mlp(self.mlp_norm(x_BTC))
        return x_BTC, after


class MemoryLM(nn.Module):
    """The whole model. `settings.vocabulary` must be a number by now: the caller asks the data."""

    caches = False

    def __init__(self, settings: MemoryModelSettings) -> None:
        super().__init__()
        assert settings.vocabulary is not None, "fill in settings.vocabulary from the data"
        self.settings = settings
        self.tokens = nn.Embedding(settings.vocabulary, settings.width)
        self.blocks = nn.ModuleList(Block(settings) for _ in range(settings.layers))
        self.norm = nn.RMSNorm(settings.width, eps=1e-6)
        self.head = nn.Linear(settings.width, settings.vocabulary, bias=False)
        self._draw_weights()
        if settings.tied:
            self.head.weight = self.tokens.weight

    def forward(
        self, tokens_BT: Tensor, targets_BT: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Logits (B, T, V), and with targets the mean cross-entropy in nats, in float32.

        Targets of -100 are not asked for. Levels that are taught learn from the targets or, without
        any, from what was read: of a text each token is the target of the one before it. The logits
        are the same, since the one target that is missing is seen by none of them.
        """
        if self.taught:
            known_BT = targets_BT
            if known_BT is None:
                known_BT = F.pad(tokens_BT[:, 1:], (0, 1), value=-100)
            logits_BTV, loss, _ = self.learn(tokens_BT, known_BT)
            return logits_BTV, None if targets_BT is None else loss
        logits_BTV, _ = self.extend(tokens_BT)
        if targets_BT is None:
            return logits_BTV, None
        loss = F.cross_entropy(logits_BTV.flatten(0, 1).float(), targets_BT.flatten())
        return logits_BTV, loss

    def extend(self, tokens_BT: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Logits (B, T, V) of tokens that follow those of a state, and the state behind them."""
        start = 0 if state is None else state.seen
        x_BTC = self.tokens(tokens_BT)
        layers = []
        for n, block in enumerate(self.blocks):
            x_BTC, after = block(x_BTC, None if state is None else state.layers[n], start)
            layers.append(after)
        seen = start + tokens_BT.shape[1]
        logits_BTV: Tensor = self.head(self.norm(x_BTC))
        return logits_BTV, State(tuple(layers), len(tokens_BT), seen)

    def learn(
        self, tokens_BT: Tensor, targets_BT: Tensor, state: State | None = None
    ) -> tuple[Tensor, Tensor, State]:
        """As `extend`, with levels taught by the targets chunk by chunk; with the mean loss.

        Also without gradients: the levels learn all the same, from tokens that have been answered.
        Calls that end where a chunk of the fastest level does give what one call gives. One that
        ends within it does not: later tokens' losses say nothing of the outputs before it.
        Raises UsageError for a model that targets do not teach.
        """
        if not self.taught:
            raise UsageError(
                f"mixer {self.settings.mixer} has no levels that targets teach; call extend, or "
                "set mixer: hope with hope.cms.signal: teach"
            )
        hope = self.settings.hope.cms
        mixers = {n: block.mixer for n, block in enumerate(self.blocks)}
        logits, losses, at = [], [], 0
        outside = torch.is_grad_enabled()
        while at < tokens_BT.shape[1]:
            seen = 0 if state is None else state.seen
            stop = at + hope.left(seen)
            with torch.enable_grad():
                found, state = self.extend(tokens_BT[:, at:stop], state)
                asked = targets_BT[:, at:stop].flatten()
                total = F.cross_entropy(found.flatten(0, 1).float(), asked, reduction="sum")
                state = teach(mixers, total, state)  # type: ignore[arg-type]
            if not outside:
                found, total, state = found.detach(), total.detach(), state.detach()
            logits.append(found)
            losses.append(total)
            at = stop
        assert state is not None
        count = (targets_BT != -100).sum()
        return torch.cat(logits, 1), torch.stack(losses).sum() / count, state

    @property
    def taught(self) -> bool:
        """Whether levels learn from the loss of targets."""
        return self.settings.taught

    def documents(self, tokens_BT: Tensor, first_BT: Tensor) -> Tensor:
        """Logits (B, T, V) of rows in which documents stand one behind the other.

        `first_BT` is true where one begins (and at the first token). Each begins with the memory as
        it is before any token: nothing of another is known to it, not even gates of its chunk.
        Raises UsageError for a model that is taught.
        """
        if self.taught:
            raise UsageError(
                "levels that are taught learn from one sequence; give each document by itself, or "
                "set hope.cms.signal: local"
            )
        begins_BT = first_BT.clone()
        begins_BT[:, 0] = True
        start_D = begins_BT.flatten().nonzero().squeeze(1)
        total = tokens_BT.numel()
        length_D = torch.diff(start_D, append=start_D.new_tensor([total]))
        at_L = torch.arange(int(length_D.max()), device=tokens_BT.device)
        # Behind a short document stand tokens of the next: what comes later changes nothing.
        index_DL = (start_D[:, None] + at_L).clamp_max(total - 1)
        logits_DLV, _ = self.extend(tokens_BT.flatten()[index_DL])
        return logits_DLV[at_L < length_D[:, None]].view(*tokens_BT.shape, -1)

    def memory_trace(self, tokens_T: Tensor) -> dict[str, Tensor]:
        """What each layer's memory does with one sequence: `cupel.models.memory.trace.trace`."""
        return trace(self, tokens_T)

    def _draw_weights(self) -> None:
        small = _STD / math.sqrt(2 * self.settings.layers)
        for name, module in self.named_modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=_STD)
            elif isinstance(module, nn.Linear) and ".gates." not in name:
                last = name.endswith((".out", ".down"))
                nn.init.normal_(module.weight, std=small if last else _STD)
            if isinstance(module, Projections) and module.parts > 1:
                # Values as large as what a memory says: with 0.02 a memory with a LayerNorm is
                # taught noise. Queries and keys, which have norm one, must find each other, and
                # from small weights they do that much sooner.
                width = module.maps.in_features
                nn.init.normal_(module.maps.weight[-width:], std=width**-0.5)
