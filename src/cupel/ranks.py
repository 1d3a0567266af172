"""Which of several processes this one is, by torchrun's variables: `rank` and `place`.

Only reads the environment; who joins whom, and on which device, is `cupel.train.parallel`'s part.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from cupel.errors import UsageError

_NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, slots=True)
class Place:
    """`rank` of `size` processes in all, and `local_rank` on this machine; all count from 0."""

    rank: int
    size: int
    local_rank: int


def rank() -> int:
    """This process's rank; 0 when it is alone. Raises UsageError when RANK is no number."""
    return _number("RANK", 0)


def place() -> Place:
    """This process's place; rank 0 of 1 when nothing is set.

    Raises UsageError for variables by which no process could find the others.
    """
    found = Place(rank(), _number("WORLD_SIZE", 1), _number("LOCAL_RANK", 0))
    if found == Place(0, 1, found.local_rank):
        return found
    told = [name for name in _NEEDED if name in os.environ]
    missing = [name for name in _NEEDED if name not in os.environ]
    if missing:
        raise UsageError(
            f"{told[0]} is set but {missing[0]} is not: start with torchrun, or unset RANK and "
            "WORLD_SIZE"
        )
    if found.rank >= found.size:
        raise UsageError(
            f"RANK is {found.rank} and WORLD_SIZE {found.size}: ranks count from 0; start with "
            "torchrun, or unset RANK and WORLD_SIZE"
        )
    return found


def _number(name: str, otherwise: int) -> int:
    text = os.environ.get(name, str(otherwise))
    if not (text.isascii() and text.isdecimal()):
        raise UsageError(
            f"{name} is '{text}', which is no number: start with torchrun, or unset {name}"
        )
    return int(text)
