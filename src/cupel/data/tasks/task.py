"""What a synthetic task offers: batches as a pure function of (seed, split, step), and its score.

A sequence is made of its own row of random words and of nothing else. So shares of a batch are
its rows, there is nothing to save or to restore, and the set of examples is as good as endless:
training never comes to its end. Evaluation sets draw from streams of their own, without the run's
seed: they are the same in every run, and share no draw with training.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from cupel.config import Settings
from cupel.data.tasks import draws
from cupel.data.tasks.draws import Bools, Ids, Words
from cupel.errors import DataError, UnknownName

# B: sequences, T: positions, V: symbols, W: random words of a sequence.
IGNORE = -100  # the target of a position that asks for nothing
TRAIN = "train"
VERSION = 1  # counted up by whoever changes what a seed draws


class TokenBatch(NamedTuple):
    """One right token at each position that asks: tokens and targets, int64, (B, T).

    `targets` is IGNORE where nothing is asked. They are aligned: nobody has to shift them.
    """

    tokens: Ids
    targets: Ids


class SetBatch(NamedTuple):
    """A set of right symbols at each position: tokens (B, T), targets (B, T, V), mask (B, T)."""

    tokens: Ids
    targets: Bools
    mask: Bools


@dataclass(frozen=True, slots=True)
class Share:
    """How many were right of how many: added over batches it stays exact."""

    right: int
    of: int

    def __add__(self, other: Share) -> Share:
        return Share(self.right + other.right, self.of + other.of)

    @property
    def value(self) -> float:
        """The share as a number; NaN of nothing."""
        return self.right / self.of if self.of else float("nan")


Scores = Mapping[str, Share]


def score_tokens(predicted_BT: Ids, targets_BT: Ids) -> Scores:
    """`accuracy` over the positions that ask, `exact` over the sequences right at all of theirs."""
    assert predicted_BT.shape == targets_BT.shape, (predicted_BT.shape, targets_BT.shape)
    asked_BT = targets_BT != IGNORE
    return _scores((predicted_BT == targets_BT) & asked_BT, asked_BT)


def score_sets(predicted_BTV: Bools, targets_BTV: Bools, mask_BT: Bools) -> Scores:
    """The same of sets: a position is right when its whole set is, a sequence when all of them are.

    `predicted_BTV` says which symbols are taken as possible, for instance those with a logit > 0.
    """
    assert predicted_BTV.shape == targets_BTV.shape, (predicted_BTV.shape, targets_BTV.shape)
    return _scores((predicted_BTV == targets_BTV).all(axis=2) & mask_BT, mask_BT)


def _scores(right_BT: Bools, asked_BT: Bools) -> Scores:
    sequences_B = asked_BT.any(axis=1)
    whole_B = (right_BT == asked_BT).all(axis=1) & sequences_B
    return {
        "accuracy": Share(int(right_BT.sum()), int(asked_BT.sum())),
        "exact": Share(int(whole_B.sum()), int(sequences_B.sum())),
    }


class Task(Protocol):
    """What a workload sees of a task; `cupel.data.tasks.build.build` makes one of its settings."""

    @property
    def kind(self) -> str:
        """Its name in recipes."""

    @property
    def vocabulary(self) -> int:
        """Tokens are below it."""

    @property
    def outputs(self) -> int:
        """Targets are below it; of sets, the symbols V."""

    @property
    def block(self) -> int:
        """Positions of a training sequence; `length` knows those of evaluation sets."""

    @property
    def evaluations(self) -> tuple[str, ...]:
        """Names of the evaluation sets, the main one first."""

    @property
    def headline(self) -> Literal["accuracy", "exact"]:
        """The score that the task's paper reports."""

    @property
    def readout(self) -> Literal["each", "last"]:
        """Where a target is predicted: at its own position, or all at the last position."""

    def length(self, split: str) -> int:
        """Positions of a sequence of that split."""

    def batch(
        self, split: str, step: int, size: int, *, part: tuple[int, int] = (0, 1)
    ) -> TokenBatch | SetBatch:
        """The batch of a step, or one share of it."""

    def fixed(self, name: str, *, count: int, batch: int) -> list[Any]:
        """The first batches of an evaluation set."""

    def score(self, predicted: NDArray[Any], batch: Any) -> Scores:
        """What was right: int tokens (B, T) against a TokenBatch, bools (B, T, V) a SetBatch."""

    def describe(self) -> dict[str, Any]:
        """What the record keeps."""


Made = TypeVar("Made", TokenBatch, SetBatch)


class Drawn(ABC, Generic[Made]):
    """A task whose sequences are made of random words: subclasses only say how many, and how."""

    headline: ClassVar[Literal["accuracy", "exact"]] = "accuracy"
    readout: ClassVar[Literal["each", "last"]] = "each"

    def __init__(
        self, settings: Settings, *, seed: int, vocabulary: int, lengths: Mapping[str, int],
        outputs: int | None = None,
    ) -> None:  # fmt: skip
        assert next(iter(lengths)) == TRAIN, lengths
        self.seed, self.vocabulary = seed, vocabulary
        self.outputs = vocabulary if outputs is None else outputs
        self.kind = str(settings.model_dump(include={"kind"})["kind"])
        self.block = lengths[TRAIN]
        self.evaluations = tuple(name for name in lengths if name != TRAIN)
        self._lengths, self._settings = lengths, settings

    def length(self, split: str) -> int:
        """Positions of a sequence of that split. Raises UnknownName."""
        if split not in self._lengths:
            raise UnknownName(f"split of the task {self.kind}", split, self._lengths)
        return self._lengths[split]

    def batch(self, split: str, step: int, size: int, *, part: tuple[int, int] = (0, 1)) -> Made:
        """The batch of a step, or one share of it.

        `split` is "train", or the name of an evaluation set, of which `step` counts the batches.
        `part=(i, n)` is the i-th of n equal shares of the same batch, for micro-steps and ranks.
        Raises DataError when n does not divide the batch, UnknownName for the split.
        """
        index, shares = part
        assert 0 <= index < shares, part
        assert size >= 1, size
        length = self.length(split)
        if size % shares:
            raise DataError(
                f"a batch of {size} sequences cannot be shared equally by {shares} (ranks × "
                f"micro-steps); make it a multiple of {shares}"
            )
        train = split == TRAIN
        stream = f"task/{self.kind}/{TRAIN if train else f'evaluate/{split}'}"
        seed = self.seed if train else 0
        words_BW = draws.words(seed, stream, step, size, self._words(length))
        own = size // shares
        return self._make(words_BW[index * own : (index + 1) * own], split)

    def fixed(self, name: str, *, count: int, batch: int) -> list[Made]:
        """The first `count` batches of an evaluation set, the same in every run."""
        assert name != TRAIN, name
        return [self.batch(name, step, batch) for step in range(count)]

    def score(self, predicted: NDArray[Any], batch: Made) -> Scores:
        """What was right of a batch: see `score_tokens` and `score_sets`."""
        if isinstance(batch, SetBatch):
            return score_sets(predicted, batch.targets, batch.mask)
        return score_tokens(predicted, batch.targets)

    def describe(self) -> dict[str, Any]:
        """What the record keeps: JSON-able, and enough to draw the same sequences again."""
        return {
            "task": self.kind,
            "version": VERSION,
            "vocabulary": self.vocabulary,
            "outputs": self.outputs,
            "block": self.block,
            "evaluations": {name: self._lengths[name] for name in self.evaluations},
            "headline": self.headline,
            "settings": self._settings.model_dump(mode="json"),
        }

    @abstractmethod
    def _words(self, length: int) -> int:
        """Random words that a sequence of that length is made of."""

    @abstractmethod
    def _make(self, words_BW: Words, split: str) -> Made:
        """The sequences, each of its row of words."""


def cut(words_BW: Words, *columns: int) -> list[Words]:
    """The words in pieces of so many columns, one after the other."""
    ends = np.cumsum(columns)
    assert ends[-1] == words_BW.shape[1], (columns, words_BW.shape)
    return np.split(words_BW, ends[:-1], axis=1)
