"""A run's summary: what it came to. The last numbers by themselves, and whatever is set.

Each setting is one recorded line, so it survives `kill -9`. What was set wins over what was logged.
Reading asks the record, at about 1 µs a line; setting costs as much as a `log`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

from cupel.errors import UsageError


class Summary(MutableMapping[str, Any]):
    """`run.summary["best"] = 0.9`, or `run.summary.best = 0.9`.

    `record(values)` writes a line, and says whether the run still takes one; `recorded()` gives all
    that the record says by now.
    """

    def __init__(
        self,
        record: Callable[[dict[str, Any]], bool],
        recorded: Callable[[], Mapping[str, Any]],
    ) -> None:
        self.__dict__.update(_record=record, _recorded=recorded, _set={})

    def update(self, given: Any = (), /, **named: Any) -> None:
        """Set several at once, in one line. Raises UsageError for what is no dict."""
        try:
            pairs = dict(given)
        except (TypeError, ValueError):
            raise UsageError(
                f"summary.update() takes a dict, as {{'best': 0.5}}, not {type(given).__name__}"
            ) from None
        values = {str(key): value for key, value in {**pairs, **named}.items()}
        if values and self._record(values):
            self._set.update(values)

    def __setitem__(self, key: str, value: Any) -> None:
        self.update({key: value})

    def __getitem__(self, key: str) -> Any:
        return self._set[key] if key in self._set else self._recorded()[key]

    def __delitem__(self, key: str) -> None:
        self[key] = None  # the line that set it stays

    def __iter__(self) -> Iterator[str]:
        return iter({**self._recorded(), **self._set})

    def __len__(self) -> int:
        return len({**self._recorded(), **self._set})

    def __contains__(self, key: object) -> bool:
        return key in self._set or key in self._recorded()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the summary has no '{name}'") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __repr__(self) -> str:
        return repr({**self._recorded(), **self._set})
