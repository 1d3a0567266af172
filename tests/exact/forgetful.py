"""`python forgetful.py PART run …`: cupel, with one part left out of every checkpoint.

When restored, that part keeps the state that it was made with. All else is as it is in cupel.
With `optimizer:NAME` only the fields NAME of the optimizer's groups are forgotten.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cupel.checkpoint import folder
from cupel.checkpoint.parts import Parts
from cupel.cli.main import main

forgotten, _, name = sys.argv.pop(1).partition(":")
write_all, load_all = folder.write, Parts.load


def write(path: Path, step: int, states: Mapping[str, Any], **given: Any) -> dict[str, Any]:
    kept = {part: state for part, state in states.items() if part != forgotten or name}
    there = f"this run has no part '{forgotten}': {list(states)}"
    assert name or len(kept) == len(states) - 1, there
    return write_all(path, step, kept, **given)


def load(self: Parts, states: Mapping[str, Any]) -> None:
    as_made = self.state()[forgotten]
    if name:
        loaded = states[forgotten]
        for group, old in zip(loaded["param_groups"], as_made["param_groups"], strict=True):
            group[name] = old[name]
        as_made = loaded
    load_all(self, {**states, forgotten: as_made})


folder.write = write
Parts.load = load  # type: ignore[method-assign]
main()
