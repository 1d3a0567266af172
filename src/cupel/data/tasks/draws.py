"""Random choices made of raw 64-bit words, for all rows of a batch at once.

Raw words, since numpy promises their stream for ever, but not that of Generator's methods. A
remainder favours some choices by less than choices / 2**64, an order some by less than 1 in 2**40.
Each row of a result depends on the same row of the words alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cupel import randomness

# B: rows of a batch, N: columns, here whatever is chosen among.
Words = NDArray[np.uint64]
Ids = NDArray[np.int64]
Bools = NDArray[np.bool_]

# An order is a sort of words whose low bits are their columns: plain sorts are several times
# faster than argsort, have no ties, and so give the same order on every machine.
_COLUMN = np.uint64(0xFFFF)


def words(seed: int, stream: str, step: int, rows: int, columns: int) -> Words:
    """The words of one place in a stream, (rows, columns)."""
    raw = np.random.Philox(key=randomness.derive(seed, stream, step)).random_raw(rows * columns)
    return np.asarray(raw, dtype=np.uint64).reshape(rows, columns)


def below(words: Words, count: int) -> Ids:
    """A number below `count` for each word."""
    return (words % np.uint64(count)).astype(np.int64)


def share(words: Words) -> NDArray[np.float64]:
    """A number in [0, 1) for each word."""
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def bits(words_BN: Words, count: int) -> Ids:
    """`count` bits a row, (B, count), 64 of each word."""
    octets = words_BN.astype("<u8").view(np.uint8)
    return np.unpackbits(octets, axis=1, count=count, bitorder="little").astype(np.int64)


def distinct(words_BN: Words, choices: int) -> Ids:
    """N different numbers below `choices` a row, in every order equally likely."""
    count = words_BN.shape[1]
    assert count <= choices, (count, choices)
    drawn = (words_BN % (np.uint64(choices) - np.arange(count, dtype=np.uint64))).astype(np.int64)
    # Column i is a place among the choices that its predecessors leave (a Lehmer code). From the
    # last one back, the later ones step over it.
    for i in range(count - 2, -1, -1):
        drawn[:, i + 1 :] += drawn[:, i + 1 :] >= drawn[:, i : i + 1]
    return drawn


def chosen(words_BN: Words, among_B: Ids, count_B: Ids) -> Bools:
    """A random `count` of each row's first `among` columns, as a mask."""
    column_N = np.arange(words_BN.shape[1], dtype=np.uint64)
    keyed = np.where(column_N < among_B[:, None], words_BN, ~np.uint64(0))
    keyed = (keyed & ~_COLUMN) | column_N
    last = np.take_along_axis(np.sort(keyed, axis=1), np.maximum(count_B, 1)[:, None] - 1, axis=1)
    return (keyed <= last) & (count_B > 0)[:, None]


def race(words_BN: Words, weights_N: NDArray[np.float64], count: int) -> Ids:
    """`count` columns a row, drawn one after the other by weight, none twice, in that order.

    An exponential race (Efraimidis and Spirakis 2006): waiting times log(1/u) / weight, soonest
    first. Times that a logarithm's last digits decide are one in 2**36.
    """
    unit = (words_BN >> np.uint64(11)).astype(np.float64) + 1.0
    times = np.log(2.0**53 / unit) / weights_N
    # The bits of positive floats are ordered as they are.
    column_N = np.arange(words_BN.shape[1], dtype=np.uint64)
    keyed = (times.view(np.uint64) & ~_COLUMN) | column_N
    return (np.sort(keyed, axis=1)[:, :count] & _COLUMN).astype(np.int64)


def firsts(codes_BN: Ids) -> Ids:
    """For each column, the first column of its row with the same code (codes below 2**47)."""
    place_N = np.arange(codes_BN.shape[1])
    keyed = np.sort((codes_BN << 16) | place_N, axis=1)
    begins = np.ones_like(keyed, dtype=np.bool_)
    begins[:, 1:] = (keyed[:, 1:] >> 16) != (keyed[:, :-1] >> 16)
    leader = np.maximum.accumulate(np.where(begins, place_N, 0), axis=1)
    column_BN = keyed & 0xFFFF
    found = np.empty_like(codes_BN)
    np.put_along_axis(found, column_BN, np.take_along_axis(column_BN, leader, axis=1), axis=1)
    return found
