"""`python forgetful.py PART run …`: cupel, with one part left out of every checkpoint.

When restored, that part keeps the state that it was made with. All else is as it is in cupel.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cupel.checkpoint import folder
from cupel.checkpoint.parts import Parts
from cupel.cli.main import main

forgotten = sys.argv.pop(1)
write_all, load_all = folder.write, Parts.load


def write(path: Path, step: int, states: Mapping[str, Any], **given: Any) -> dict[str, Any]:
    kept = {name: state for name, state in states.items() if name != forgotten}
    assert len(kept) == len(states) - 1, f"this run has no part '{forgotten}': {list(states)}"
    return write_all(path, step, kept, **given)


def load(self: Parts, states: Mapping[str, Any]) -> None:
    load_all(self, {**states, forgotten: self.state()[forgotten]})


folder.write = write
Parts.load = load  # type: ignore[method-assign]
main()
