"""Which synthetic task to train on, and how hard it is. Imports no numpy, no torch.

Every default is the smallest setting of the task's paper, or is smaller; docs/tasks.md has the
sources. What does not fit together is refused here, so that a task can be made of any settings.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from cupel.config import Settings

DEFAULT_POWER = 0.01
DEFAULT_FILLERS = 16
# Below this length every row's order fits into the 16 low bits of a word; see draws.py.
LONGEST = 32768

# What a needle takes of the block, in tokens: needle and query without their values, one value.
NEEDLE_BYTES = {"passkey": (61, 7), "number": (61, 7), "uuid": (57, 36)}
NEEDLE_SYMBOLS = {"passkey": (4, 7), "number": (4, 7), "uuid": (4, 32)}


class MqarSettings(Settings):
    """Multi-query associative recall (Zoology, arXiv 2312.04927)."""

    kind: Literal["mqar"] = Field("mqar", description="multi-query associative recall")
    block: int = Field(64, ge=4, le=LONGEST, description="tokens of a sequence")
    pairs: int = Field(8, ge=1, le=4096, description="pairs of key and value in a sequence")
    queries: int = Field(1, ge=1, le=64, description="how often each key is asked for")
    keys: int = Field(64, ge=1, le=2**20, description="different keys")
    values: int = Field(64, ge=1, le=2**20, description="different values")
    gaps: Literal["power", "uniform"] = Field(
        "power", description="where the queries stand: mostly soon after the pairs, or anywhere"
    )
    power: float = Field(
        DEFAULT_POWER,
        gt=0,
        le=1,
        description="a of the weights i^(a-1) of a query's place i, for gaps: power only",
    )
    noise: float = Field(
        0.0, ge=0, le=0.9, description="share of filler tokens, among the pairs and in the gaps"
    )
    fillers: int = Field(
        DEFAULT_FILLERS, ge=1, le=2**20, description="different filler tokens, with noise only"
    )

    @property
    def places(self) -> int:
        """Places of two tokens in the first part: one for each pair, and those of filler."""
        return round(self.pairs / (1 - self.noise))

    @model_validator(mode="after")
    def _everything_fits(self) -> MqarSettings:
        for name, there in (("keys", self.keys), ("values", self.values)):
            if there < self.pairs:
                raise ValueError(
                    f"{name} is {there}, but {self.pairs} pairs need as many different {name}; "
                    f"set {name}: {self.pairs}, or fewer pairs"
                )
        asked = self.pairs * self.queries
        if self.block < (needed := 2 * (self.places + asked)):
            raise ValueError(
                f"block is {self.block}, but {self.pairs} pairs ({2 * self.places} tokens with "
                f"their noise) and {asked} queries (two tokens each) need {needed}; "
                f"set block: {needed}, or fewer pairs"
            )
        if self.gaps == "uniform" and self.power != DEFAULT_POWER:
            raise ValueError(
                f"power is {self.power:g}, but gaps are uniform; remove it, or set gaps: power"
            )
        if not self.noise and self.fillers != DEFAULT_FILLERS:
            raise ValueError(
                f"fillers is {self.fillers}, but noise is 0; remove it, or set noise: 0.2"
            )
        return self


class _Lengths(Settings):
    """Short sequences to train on, longer ones to evaluate on."""

    shortest: int = Field(2, ge=1, le=LONGEST, description="least length to train on")
    longest: int = Field(50, ge=1, le=LONGEST, description="greatest length to train on")
    bins: tuple[tuple[int, int], ...] = Field(
        ((51, 100), (101, 150)),
        description="further ranges of lengths to evaluate on, each [least, greatest]",
    )

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """The range to train on, then those to evaluate on."""
        return ((self.shortest, self.longest), *self.bins)

    @model_validator(mode="after")
    def _ranges_are_ranges(self) -> _Lengths:
        if self.shortest > self.longest:
            raise ValueError(
                f"shortest is {self.shortest}, and longest is {self.longest}; "
                f"set longest: {self.shortest} or more"
            )
        for low, high in self.bins:
            if not 1 <= low <= high <= LONGEST:
                raise ValueError(
                    f"bins holds [{low}, {high}]; a bin is [least, greatest], from 1 to {LONGEST}"
                )
        if len(set(self.ranges)) < len(self.ranges):
            raise ValueError(
                f"bins holds a range twice, or the one to train on ([{self.shortest}, "
                f"{self.longest}], which is always evaluated); name each once"
            )
        return self


# A language's name -> its strings' lengths are the multiples of this.
LANGUAGES = {"parity": 1, "aa": 2, "abab": 4, "anbn": 2, "anbncn": 3, "shuffle2": 2}


class FormalSettings(_Lengths):
    """A formal language: which symbols may come next (arXiv 2009.11264)."""

    kind: Literal["formal"] = Field("formal", description="next symbols of a formal language")
    language: Literal["parity", "aa", "abab", "anbn", "anbncn", "shuffle2"] = Field(
        "parity",
        description="an even number of ones; (aa)*; (abab)*; a^n b^n; a^n b^n c^n; "
        "two kinds of brackets, each balanced by itself",
    )

    @model_validator(mode="after")
    def _each_range_has_strings(self) -> FormalSettings:
        unit = LANGUAGES[self.language]
        for low, high in self.ranges:
            if high // unit * unit < low:
                raise ValueError(
                    f"no string of {self.language} is {low} to {high} long: their lengths are "
                    f"multiples of {unit}; widen the range to {-(-low // unit) * unit}"
                )
        return self


class ParitySettings(_Lengths):
    """The parity of all bits so far, at every position: tracking a state of one bit."""

    kind: Literal["parity"] = Field("parity", description="running parity of random bits")


class NeedleSettings(Settings):
    """One needle in a haystack, after the S-NIAH tasks of RULER (arXiv 2404.06654)."""

    kind: Literal["needle"] = Field("needle", description="a value hidden in a long sequence")
    variant: Literal["passkey", "number", "uuid"] = Field(
        "passkey",
        description="passkey: a number in a repeated passage; number, uuid: one in ever new text",
    )
    tokens: Literal["byte", "symbol"] = Field(
        "byte",
        description="byte: bytes of text; symbol: a token for each mark, key, digit and filler",
    )
    block: int = Field(256, ge=16, le=LONGEST, description="tokens of a training sequence")
    lengths: tuple[Annotated[int, Field(ge=16, le=LONGEST)], ...] = Field(
        (256, 512, 1024), min_length=1, description="tokens of the sequences to evaluate on"
    )
    depths: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(
        (),
        description="depths to evaluate each length on by themselves, from 0 (beginning) to 1; "
        "otherwise a needle is at a random depth",
    )

    @model_validator(mode="after")
    def _haystack_has_room(self) -> NeedleSettings:
        frame, value = (NEEDLE_BYTES if self.tokens == "byte" else NEEDLE_SYMBOLS)[self.variant]
        needed = frame + 2 * value
        for name, length in (("block", self.block), *(("lengths", one) for one in self.lengths)):
            if length < needed:
                raise ValueError(
                    f"{name} has {length}, but needle, query and answer of {self.variant} take "
                    f"{needed} {self.tokens}s; set {needed} or more"
                )
        for name, given in (("lengths", self.lengths), ("depths", self.depths)):
            if len(set(given)) < len(given):
                raise ValueError(f"{name} is {list(given)}, with a value twice; name each once")
        return self


class _Recall(Settings):
    """What recall has with noise and without."""

    block: int = Field(128, ge=4, le=LONGEST, multiple_of=2, description="tokens of a sequence")
    vocabulary: int = Field(
        16, ge=2, le=2**20, description="keys and values: the lower half are keys"
    )


class RecallSettings(_Recall):
    """In-context recall of MAD (arXiv 2403.17844)."""

    kind: Literal["recall"] = Field("recall", description="in-context recall")


class NoisyRecallSettings(_Recall):
    """Noisy in-context recall of MAD."""

    kind: Literal["noisy_recall"] = Field("noisy_recall", description="recall among noise")
    noise: float = Field(0.2, gt=0, lt=1, description="probability that a pair is noise instead")
    noise_vocabulary: int = Field(
        16, ge=1, le=2**20, description="different noise tokens, beside the vocabulary"
    )


class FuzzyRecallSettings(Settings):
    """Fuzzy in-context recall of MAD."""

    kind: Literal["fuzzy_recall"] = Field(
        "fuzzy_recall", description="recall of keys and values of several tokens"
    )
    block: int = Field(128, ge=4, le=LONGEST, description="tokens of a sequence")
    vocabulary: int = Field(
        16, ge=3, le=1024, description="tokens: keys, as many or one more values, and padding"
    )
    key_size: int = Field(3, ge=1, le=4, description="tokens of the longest keys")
    value_size: int = Field(3, ge=1, le=4, description="tokens of the longest values")

    @model_validator(mode="after")
    def _everything_fits(self) -> FuzzyRecallSettings:
        keys = (self.vocabulary - 1) // 2
        for name, size, there in (
            ("key_size", self.key_size, keys),
            ("value_size", self.value_size, self.vocabulary - 1 - keys),
        ):
            if size > there:
                raise ValueError(
                    f"{name} is {size}, but a vocabulary of {self.vocabulary} has only {there} "
                    f"tokens for it, and they must differ; set vocabulary: {2 * size + 1} or more"
                )
        if self.block < (needed := 2 * (self.key_size + self.value_size)):
            raise ValueError(
                f"block is {self.block}, but the longest pair and its query take {needed}; "
                f"set block: {needed} or more"
            )
        return self


class SelectiveCopyingSettings(Settings):
    """Selective copying of MAD."""

    kind: Literal["selective_copying"] = Field(
        "selective_copying", description="copying tokens in their order, without the blanks"
    )
    block: int = Field(256, ge=4, le=LONGEST, description="tokens of a sequence")
    vocabulary: int = Field(
        16, ge=3, le=2**20, description="tokens, of which the last two are blank and copy"
    )
    copies: int = Field(16, ge=1, description="tokens to copy")

    @model_validator(mode="after")
    def _everything_fits(self) -> SelectiveCopyingSettings:
        if self.block < (needed := 2 * self.copies + 1):
            raise ValueError(
                f"block is {self.block}, but {self.copies} tokens, the copy token and the copies "
                f"need {needed}; set block: {needed}, or fewer copies"
            )
        return self


class MemorizationSettings(Settings):
    """Memorization of MAD."""

    kind: Literal["memorization"] = Field(
        "memorization", description="facts that are the same in every sequence"
    )
    block: int = Field(32, ge=2, le=LONGEST, multiple_of=2, description="tokens of a sequence")
    vocabulary: int = Field(
        256, ge=3, le=LONGEST, description="keys, values, and the token that asks for a value"
    )


class CompressionSettings(Settings):
    """Compression of MAD."""

    kind: Literal["compression"] = Field(
        "compression", description="all tokens recovered from the state at the last position"
    )
    block: int = Field(32, ge=2, le=LONGEST, description="tokens of a sequence")
    vocabulary: int = Field(
        16, ge=2, le=2**20, description="tokens, of which the last one ends the sequence"
    )


TaskSettings = Annotated[
    MqarSettings
    | FormalSettings
    | ParitySettings
    | NeedleSettings
    | RecallSettings
    | NoisyRecallSettings
    | FuzzyRecallSettings
    | SelectiveCopyingSettings
    | MemorizationSettings
    | CompressionSettings,
    Field(discriminator="kind"),
]
