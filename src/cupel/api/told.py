"""Says on stderr, once a process, what was accepted for wandb's sake and what became of it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from typing import Any

_told: set[str] = set()


def tell_once(about: str, line: str) -> None:
    """Write one line; a second one about the same thing is not written."""
    if about in _told:
        return
    _told.add(about)
    with contextlib.suppress(OSError, ValueError, AttributeError):  # a closed or absent stderr
        sys.stderr.write(f"cupel: {line}\n")


def tell_ignored(call: str, given: Mapping[str, Any], why: str) -> None:
    """Say of each argument that it has no effect; those that are None or False are none."""
    for name, value in given.items():
        if value is not None and value is not False:
            tell_once(f"{call} {name}", f"{call}({name}=…) has no effect here: {why}")
