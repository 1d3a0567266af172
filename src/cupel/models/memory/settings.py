"""The size and shape of models with a memory. Imports no torch, so that recipes are checked without
it.

Every place at which the papers are unclear is a field here, with the reading that we take as its
default; docs/memory.md lists them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from itertools import pairwise
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, create_model, model_validator
from pydantic.fields import FieldInfo

from cupel.config import Settings
from cupel.models.memory.points import POINTS

Gate = Literal["none", "fixed", "token", "channel"]
DEFAULT_SCALE = 2.0


class L2Settings(Settings):
    """The squared error."""

    kind: Literal["l2"] = Field("l2", description="which attentional bias")
    scale: float = Field(
        DEFAULT_SCALE,
        gt=0,
        description="the gradient is scale × error: 2 as in Titans' equation 12 (a sum of "
        "squares), 1 as in its Appendix C, 2 / width for a mean; it only rescales the step size",
    )


class DotSettings(Settings):
    """The inner product, by which linear attention writes."""

    kind: Literal["dot"] = Field("dot", description="which attentional bias")


class LpSettings(Settings):
    """The p-th power of the error's l_p norm."""

    kind: Literal["lp"] = Field("lp", description="which attentional bias")
    p: float = Field(3.0, ge=1, description="the power; Moneta has 3")
    smooth: Literal["paper", "exact"] = Field(
        "paper",
        description="paper: p tanh(a r) |r|^(p-1), as printed; exact: the gradient of the smoothed "
        "loss",
    )


class HuberSettings(Settings):
    """Squared for small errors, linear for large ones."""

    kind: Literal["huber"] = Field("huber", description="which attentional bias")
    form: Literal["mixture", "norm", "coordinate"] = Field(
        "mixture",
        description="mixture: MIRAS' equation 16, as Yaad prints it, which jumps at the threshold; "
        "norm: equation 15, continuous; coordinate: equations 13 and 14, a channel by itself",
    )


class ValueShiftSettings(Settings):
    """The squared error in the worst case over values that are moved a little."""

    kind: Literal["value_shift"] = Field("value_shift", description="which attentional bias")
    shift: float = Field(0.1, ge=0, description="by how much a value may be moved")


BiasSettings = Annotated[
    L2Settings | DotSettings | LpSettings | HuberSettings | ValueShiftSettings,
    Field(discriminator="kind"),
]


class L2RetentionSettings(Settings):
    """Gradient descent with decay; with `decay: none` the local part alone."""

    kind: Literal["l2"] = Field("l2", description="which retention")


class LqSettings(Settings):
    """l_q retention."""

    kind: Literal["lq"] = Field("lq", description="which retention")
    q: float = Field(4.0, gt=1, description="the power; Moneta has 4")
    form: Literal["paper", "mirror"] = Field(
        "paper",
        description="paper: A / ||A||_q^(q-2), as printed; mirror: the exact map, for 1 < q <= 2",
    )

    @model_validator(mode="after")
    def _has_a_map(self) -> LqSettings:
        if self.form == "mirror" and self.q > 2:
            raise ValueError(
                f"form mirror needs q of at most 2, and q is {self.q}; set form: paper"
            )
        if self.form == "paper" and self.q == 3:
            raise ValueError("form paper has no inverse for q: 3; set another q, or form: mirror")
        return self


class KLSettings(Settings):
    """Weights that are distributions."""

    kind: Literal["kl"] = Field("kl", description="which retention")
    total: float | None = Field(
        None,
        gt=0,
        description="the sum of the weights of a distribution; null: as many as there are, so that "
        "they are one on average and keys reach the layers behind as large as they are",
    )
    over: Literal["outputs", "all"] = Field(
        "outputs",
        description="outputs: the weights to one output are a distribution; all: those of a layer, "
        "as printed",
    )
    lag: bool = Field(
        True, description="the exact step also behind a chunk's first token (equations 30 to 32)"
    )


class ElasticSettings(Settings):
    """Soft thresholding."""

    kind: Literal["elastic"] = Field("elastic", description="which retention")
    gamma: float = Field(0.01, ge=0, description="weights below it are zero")


class SigmoidSettings(Settings):
    """Mirror descent with weights between 0 and 1."""

    kind: Literal["sigmoid"] = Field("sigmoid", description="which retention")


RetentionSettings = Annotated[
    L2RetentionSettings | LqSettings | KLSettings | ElasticSettings | SigmoidSettings,
    Field(discriminator="kind"),
]


class MemorySettings(Settings):
    """One neural memory: structure, bias, retention, algorithm. Recipes name one of `NAMED`."""

    kind: str = Field("own", description="which memory")
    depth: int = Field(1, ge=1, le=8, description="layers of the memory; 1 is a matrix")
    expansion: float = Field(
        2.0, gt=0, description="width of its hidden layers, as a multiple of a head's width"
    )
    activation: Literal["silu", "gelu", "relu", "tanh", "identity"] = Field(
        "silu", description="between its layers"
    )
    residual: bool = Field(False, description="M(x) = x + …, as MIRAS and Hope have it")
    norm: bool = Field(False, description="LayerNorm behind its last layer, as MIRAS has it")
    bias: BiasSettings = Field(L2Settings(), description="what it minimises when it is written")
    retention: RetentionSettings = Field(L2RetentionSettings(), description="what it retains")
    chunk: int = Field(
        16, ge=1, description="tokens written with the same weights; 1 is the online rule"
    )
    decay: Gate = Field(
        "token", description="forgetting: none, fixed a head (RetNet), a token, a channel"
    )
    momentum: Gate = Field("token", description="past surprise: none, fixed, a token, a channel")
    step: Gate = Field("token", description="step size: none (1), fixed, a token, a channel")
    step_max: float | None = Field(
        None,
        gt=0,
        description="the largest step size; null: step_scale / chunk, since the writes of a chunk "
        "are all made at its start, and add up",
    )
    step_scale: float = Field(
        1.0,
        gt=0,
        description="with step_max null, the sum of a chunk's largest steps; 1: a key that fills a "
        "whole chunk is moved by its gradient once",
    )
    surprise_max: float | None = Field(
        None,
        gt=0,
        description="a token's gradient has at most this norm, times the root of a head's width; "
        "null: any, as printed, with which a memory of layers can grow to infinity",
    )
    damped: bool = Field(
        True,
        description="with momentum the step size is times 1 - eta, so that all that one surprise "
        "moves is what it would move without; false: as it is, with which a key that is often "
        "repeated can make a memory grow without bound",
    )
    rank: int | None = Field(
        None, ge=1, description="gates are made by projections of this rank; null: of full rank"
    )
    erase: Literal["none", "keep", "one"] = Field(
        "none",
        description="what a key held is erased before it is written, within a chunk too. keep: "
        "alpha M (I - beta k k^T), Gated DeltaNet; one: M (alpha I - eta k k^T), Hope",
    )
    read: Literal["after", "before"] = Field(
        "after",
        description="whether a token's read sees its own write: Titans' equation 15 reads M_t, "
        "Hope's 86 reads M_(t-1)",
    )
    conv: int = Field(4, ge=0, description="width of the convolution on q, k and v; 0: none")
    conv_on: Literal["projected", "silu"] = Field(
        "projected", description="the convolution is before the activation of q, k, v, or behind it"
    )
    normalised: bool = Field(True, description="q and k have norm one")
    first: Literal["learned", "zero"] = Field(
        "learned", description="the weights before the first token; zero needs depth 1"
    )

    @property
    def largest_step(self) -> float:
        """The step size of an open gate."""
        return self.step_scale / self.chunk if self.step_max is None else self.step_max

    @model_validator(mode="after")
    def _fits_together(self) -> MemorySettings:
        if self.first == "zero" and self.depth > 1:
            raise ValueError(
                f"first: zero has no gradient through depth {self.depth}; set first: learned"
            )
        linear = self.retention.kind == "l2"
        if not linear and self.momentum != "none":
            raise ValueError(
                f"retention {self.retention.kind} is mirror descent, which has no momentum here; "
                "set momentum: none"
            )
        if self.erase != "none" and (self.momentum != "none" or not linear):
            raise ValueError("erase needs momentum: none and retention l2")
        if self.erase != "none" and "channel" in (self.decay, self.step):
            raise ValueError("erase takes gates of tokens, not of channels")
        if self.retention.kind in ("kl", "sigmoid") and self.first == "zero":
            raise ValueError(f"retention {self.retention.kind} has no weights of zero")
        return self


def _named(name: str, point: Mapping[str, Any]) -> type[MemorySettings]:
    """Settings of a named memory: `MemorySettings` with the defaults of a point."""
    fields: dict[str, Any] = {"kind": (Literal[name], Field(name, description="which memory"))}
    for field, value in point.items():
        whole = MemorySettings.model_fields[field]
        fields[field] = (whole.annotation, FieldInfo.merge_field_infos(whole, default=value))
    made: type[MemorySettings] = create_model(name, __base__=MemorySettings, **fields)
    made.__module__ = __name__
    globals()[name] = made  # where pickle looks for it
    made.__doc__ = f"The point {name}: {', '.join(point)} of their own."
    return made


NAMED = {name: _named(name, point) for name, point in POINTS.items()}
if TYPE_CHECKING:
    NamedMemory = MemorySettings
else:
    NamedMemory = Annotated[reduce(or_, NAMED.values()), Field(discriminator="kind")]


class CMSSettings(Settings):
    """A continuum memory system: MLPs that learn while they are read, each at its frequency."""

    variant: Literal["sequential", "nested", "independent"] = Field(
        "sequential",
        description="sequential: each level reads what the one before gives (Nested Learning, 73); "
        "nested: and begins anew, where a slower one learns, from weights that the slower one "
        "learns (72); independent: all read the same and are added up with learned weights (74)",
    )
    frequencies: tuple[Annotated[float, Field(ge=0)], ...] = Field(
        (1.0, 0.25),
        description="how often each level learns, relative to each other, in the order in which a "
        "token passes them; 0: never",
    )
    chunk: int = Field(16, ge=1, description="tokens between two updates of the fastest level")
    expansion: float = Field(4.0, gt=0, description="hidden width as a multiple of the width")
    activation: Literal["silu", "gelu", "relu", "tanh", "identity"] = Field(
        "gelu", description="between the two layers of a level"
    )
    residual: bool = Field(True, description="a level is x + MLP(x)")
    signal: Literal["teach", "local"] = Field(
        "teach",
        description="what a level learns from. teach: the gradient of the task's loss at its "
        "output, chunk by chunk, which needs targets; local: how well it foretells its next input",
    )
    step_max: float = Field(0.05, ge=0, description="the largest step size; 0: nothing learns")

    def periods(self) -> tuple[int | None, ...]:
        """Tokens between two updates of each level: chunk times max f / f; None: never."""
        fastest = max(self.frequencies, default=0.0)
        return tuple(round(self.chunk * fastest / f) if f else None for f in self.frequencies)

    def left(self, seen: int) -> int:
        """Tokens up to where the next level learns, behind `seen` of them; at least one."""
        found = (period - seen % period for period in self.periods() if period is not None)
        return min(found, default=2**62)

    @model_validator(mode="after")
    def _periods_are_whole(self) -> CMSSettings:
        fastest = max(self.frequencies, default=0.0)
        for f, period in zip(self.frequencies, self.periods(), strict=True):
            if period is not None and abs(period * f - self.chunk * fastest) > 1e-5 * period * f:
                raise ValueError(
                    f"frequency {f} would learn every {self.chunk * fastest / f:g} tokens, which "
                    f"is no whole number; the nearest frequency that does: "
                    f"{self.chunk * fastest / period:.9g}"
                )
        if self.variant == "nested":
            learning = sorted(period for period in self.periods() if period is not None)
            for fast, slow in pairwise(learning):
                if fast == slow or slow % fast:
                    raise ValueError(
                        f"nested levels learn every {learning} tokens; each number must be a "
                        "multiple of the one before"
                    )
        return self


class HopeSettings(Settings):
    """Self-modifying memories and a continuum memory system behind them (Nested Learning)."""

    depth: int = Field(2, ge=1, le=8, description="layers of each memory; 1 is a matrix")
    expansion: float = Field(
        2.0, gt=0, description="width of their hidden layers, as a multiple of a head's width"
    )
    activation: Literal["silu", "gelu", "relu", "tanh", "identity"] = Field(
        "gelu", description="between their layers"
    )
    memories: tuple[Literal["q", "k", "v", "alpha", "eta"], ...] = Field(
        ("k", "v", "alpha", "eta"),
        description="what is made by memories that are written too; the rest are linear maps. The "
        "paper's text has q as a map, and its ablation is better so",
    )
    targets: Literal["self", "value"] = Field(
        "self",
        description="what memories are written with. self: what each says of the value (83 to 85); "
        "value: the value itself (79 to 82)",
    )
    unit: Literal["keys", "inputs", "all"] = Field(
        "all",
        description="what has norm one. keys: q and k, as the paper says, with which memories grow "
        "without bound within some ten tokens; inputs: and tokens and values; all: and targets",
    )
    loss: Literal["l2", "dot"] = Field("l2", description="what a write minimises (93 or 92)")
    scale: float = Field(
        1.0,
        gt=0,
        description="of the l2 gradient: 1 as equation 93 prints it, 2 of a sum of squares",
    )
    erase: Literal["all", "first", "none"] = Field(
        "all",
        description="which layers of a memory are written by delta gradient descent, each with its "
        "own input of norm one; none: gradient descent with decay",
    )
    chunk: int = Field(16, ge=1, description="tokens written with the same main memory; 1: online")
    chunk_others: int = Field(
        64, ge=1, description="the same for the memories of keys, values and gates"
    )
    read: Literal["token", "snapshot"] = Field(
        "token",
        description="the main memory is read as the token before left it (86), or as it was at the "
        "start of its chunk",
    )
    max_eta: float = Field(
        0.5,
        gt=0,
        description="the largest step size; with 1/2 no write of the online rule makes a memory "
        "larger, while writes of a chunk add up, and can",
    )
    allow_neg_eigval: bool = Field(
        False,
        description="the step size goes to max_eta (1 + alpha), so that a write can turn what a "
        "key holds into its negative and keep all else; with chunks above 1 this needs loss dot",
    )
    first_alpha: float = Field(
        0.99, gt=0, lt=1, description="what is kept of a memory at each token, before training"
    )
    first_eta: float = Field(
        0.2, gt=0, lt=1, description="the step size before training, as a share of the largest"
    )
    momentum: bool = Field(
        False,
        description="what a token writes goes on to later ones by a gate of the token's, as in "
        "Titans; the paper's ablation has momentum, and none of its equations",
    )
    conv: int = Field(4, ge=0, description="width of the convolution before all maps; 0: none")
    cms: CMSSettings = Field(CMSSettings(), description="the levels behind the memories")

    @model_validator(mode="after")
    def _turns_once(self) -> HopeSettings:
        if self.allow_neg_eigval and self.loss == "l2" and self.chunk > 1:
            raise ValueError(
                f"allow_neg_eigval with loss l2 and chunk {self.chunk} turns a value once for each "
                "of its writes in a chunk, and they add up; set loss: dot, or chunk: 1"
            )
        return self

    @model_validator(mode="after")
    def _cannot_grow(self) -> HopeSettings:
        counted = (self.erase != "none") + (self.scale if self.loss == "l2" else 0)
        if counted * self.max_eta > 1:
            raise ValueError(
                f"max_eta {self.max_eta:g} lets memories grow without bound, also online: loss "
                f"{self.loss} and erase {self.erase} take {counted:g} times the step from a key; "
                f"set max_eta of at most {1 / counted:g}"
            )
        return self


class MemoryModelSettings(Settings):
    """A language model whose layers are memories; the default is a small Titans of one kind."""

    kind: Literal["memory"] = Field("memory", description="which model")
    mixer: Literal["lmm", "mac", "mag", "mal", "attention", "hope", "hope-attention"] = Field(
        "lmm",
        description="lmm: the memory alone; mac: memory as a context of attention; mag: memory as "
        "a gate beside attention; mal: memory as a layer before attention; attention: no memory; "
        "hope: self-modifying memories, then levels of MLPs that learn; hope-attention: attention, "
        "then such levels",
    )
    memory: NamedMemory = Field(
        NAMED["titans"](), description="the neural memory, by name; fields change it from there"
    )
    hope: HopeSettings = Field(HopeSettings(), description="of mixers hope and hope-attention")
    layers: int = Field(2, ge=1, description="blocks")
    heads: int = Field(4, ge=1, description="heads of attention and memories a layer")
    width: int = Field(128, ge=2, description="size of the residual stream, a multiple of heads")
    hidden: float = Field(
        8 / 3, ge=0, description="width inside the SwiGLU as a multiple of width; 0: none"
    )
    block: int = Field(256, ge=1, description="tokens of a training sequence")
    vocabulary: int | None = Field(
        None, ge=1, description="number of token ids; null for as many as the data has"
    )
    persistent: int = Field(
        4, ge=0, description="learned tokens before the sequence, in each layer; hope has none"
    )
    window: int = Field(64, ge=1, description="what attention sees of the past, in tokens")
    segment: int = Field(32, ge=1, description="tokens of a segment of mac")
    literal_mask: bool = Field(
        False,
        description="mac as in Titans' figure 3a, which lets tokens see later ones: for encoders "
        "only",
    )
    tied: bool = Field(False, description="one matrix for token embedding and output head")

    @property
    def taught(self) -> bool:
        """Whether levels of a continuum memory system learn from the loss of targets."""
        cms, hopes = self.hope.cms, ("hope", "hope-attention")
        return self.mixer in hopes and cms.signal == "teach" and any(cms.frequencies)

    @model_validator(mode="before")
    @classmethod
    def _titans_unless_named(cls, given: Any) -> Any:
        own = given.get("memory") if isinstance(given, dict) else None
        if not isinstance(own, dict) or "kind" in own:
            return given
        return {**given, "memory": {"kind": "titans", **own}}

    @model_validator(mode="after")
    def _heads_divide_width(self) -> MemoryModelSettings:
        if self.width % self.heads or (self.width // self.heads) % 2:
            step = 2 * self.heads
            near = max(1, round(self.width / step)) * step
            raise ValueError(
                f"width {self.width} is not a multiple of twice heads {self.heads}; the nearest "
                f"that is: {near}"
            )
        if self.literal_mask and self.mixer != "mac":
            raise ValueError(f"literal_mask is of mixer mac, and mixer is {self.mixer}")
        return self
