"""The measurement of kills that docs/benchmarks.md shows, small: nothing is lost."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

HARNESS = Path(__file__).parents[2] / "benchmarks/record"


@pytest.fixture
def kills(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """benchmarks/record/kills.py, whose neighbours are modules only while it is used."""
    own = {path.stem for path in HARNESS.glob("*.py")}
    assert not own & sys.modules.keys()
    with monkeypatch.context() as within:
        within.syspath_prepend(HARNESS)
        yield importlib.import_module("kills")
    for name in own & sys.modules.keys():
        del sys.modules[name]


@pytest.mark.slow
def test_twenty_kills_of_writers_in_mid_stream_lose_no_call_that_had_returned(
    kills: ModuleType,
) -> None:
    """The numbers of each kill are those of the page: `benchmarks/record/kills.py` makes them.

    Mutation: `LineWriter.append` keeps ten lines together and says that they are written.

        +        self._kept = [*getattr(self, "_kept", []), line]
        +        if len(self._kept) < 10: return True
        +        line, self._kept = b"".join(self._kept), []

    Then `(119, 9) == (0, 0)`: of 45,687 calls 119 were lost, and up to nine by one kill.
    """
    began = time.monotonic()
    found = kills.measure("cupel", sys.executable, trials=4, writers=5, seed=1)
    print(f"{found} in {time.monotonic() - began:.0f} s")
    assert found.kills == 20
    assert found.returned > 20 * 100, "too few calls to have killed in mid-stream"
    assert (found.lost, found.most_lost) == (0, 0)
