"""Compares two records of what should be the same training, bit for bit.

Floats in the record are shortest round-trip decimals, so equal text is equal bits. What a clock
measured (`perf/…`, `time/…`) is left out. Of both runs the history after rewinding is compared,
and the hashes of every stateful part that each wrote at its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cupel.record.reader import RunRecord

MEASURED_BY_CLOCK = ("perf/", "time/")
_OWN = ("_step", "_t")  # the record's own fields


@dataclass(frozen=True, slots=True)
class Comparison:
    """What two records have in common and where they first part.

    `first` is (step, metric, value here, value there); `parts` are the stateful parts whose
    hashes differ. `steps` and `numbers` count what was compared.
    """

    steps: int
    numbers: int
    first: tuple[int, str, Any, Any] | None
    parts: list[str]
    compared_parts: list[str]

    @property
    def equal(self) -> bool:
        """Equal in every number and every part, of which there must be some to compare."""
        compared = self.numbers > 0 or bool(self.compared_parts)
        return self.first is None and not self.parts and compared


def compare(here: RunRecord, there: RunRecord, *, only_common: bool = False) -> Comparison:
    """Compare two finished runs.

    A metric that one of them lacks is a difference; with `only_common` it is left out (for runs
    with different monitors).
    """
    rows, others = _numbers(here), _numbers(there)
    numbers = 0
    first: tuple[int, str, Any, Any] | None = None
    for step in sorted(rows.keys() | others.keys()):
        one, two = rows.get(step, {}), others.get(step, {})
        keys = one.keys() & two.keys() if only_common else one.keys() | two.keys()
        for key in sorted(keys):
            numbers += 1
            if first is None and not _same(one.get(key), two.get(key)):
                first = (step, key, one.get(key), two.get(key))
    state, other_state = _state(here), _state(there)
    names = state.keys() | other_state.keys()
    differing = sorted(n for n in names if state.get(n) != other_state.get(n))
    return Comparison(len(rows), numbers, first, differing, sorted(names))


def _numbers(record: RunRecord) -> dict[int, dict[str, Any]]:
    return {
        row["_step"]: {
            key: value
            for key, value in row.items()
            if not key.startswith(MEASURED_BY_CLOCK) and key not in _OWN
        }
        for row in record.history()
    }


def _state(record: RunRecord) -> Mapping[str, str]:
    state: Mapping[str, str] = (record.results or {}).get("state", {})
    return state


def _same(one: Any, two: Any) -> bool:
    # Not `==`: NaN, also within arrays, equals itself here; 0.0 and -0.0, or 1 and 1.0, differ.
    return repr(one) == repr(two)
