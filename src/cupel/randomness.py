"""Stateless randomness: every draw is a function of (seed, stream, step, micro-step, rank).

There is no hidden global stream, so a checkpoint has nothing to save and a monitor that draws a
number disturbs nobody. This file only derives 64-bit keys; numpy and torch code puts a key into a
generator of its own (`numpy.random.Philox(key=…)`, `torch.Generator().manual_seed(…)`).
Deriving a key costs one or two microseconds.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

_MASK_63 = (1 << 63) - 1


def derive(seed: int, stream: str, *position: int) -> int:
    """The key of one place in one stream: an integer in [0, 2**63).

    BLAKE2b over the fields with their lengths, so that ("a", 11) and ("a1", 1) differ. The result
    is the same on every machine and Python version; changing this function changes every run.
    """
    name = stream.encode()
    packed = struct.pack(f"<q I {len(position)}q", seed, len(name), *position)
    digest = hashlib.blake2b(packed + name, digest_size=8).digest()
    return int.from_bytes(digest, "little") & _MASK_63


@dataclass(frozen=True, slots=True)
class Streams:
    """The named streams of one run: `Streams(seed).key("dropout", step=3, micro=1, rank=0)`."""

    seed: int

    def key(self, stream: str, *, step: int = 0, micro: int = 0, rank: int = 0) -> int:
        """The 63-bit key for one draw; see `derive`."""
        return derive(self.seed, stream, step, micro, rank)
