"""Which module's result another one took: `Flow`, for one forward pass.

Calls come as they begin and end, with the tensors that they take and give. A tensor is known again
by being the same object, or a view of it. It is held weakly, so that none lives longer for being
watched and no number of one that is gone is taken for another. Where a module took nothing that is
known (an addition lies between, say), what is said instead is that it came after the module that
was called before it, and that this is inferred.

Edges are told among siblings: of each container, from which child to which. `""` as the first
stands for what the container was given, as the second for what it gives back.
"""

from __future__ import annotations

import weakref
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

MOST_EDGES = 20_000
OUTSIDE = ""  # the container's own input or output
_GIVEN = None  # in the place of a path: what the container was given


@dataclass(slots=True)
class _Frame:
    """A call that is under way: whose results are known inside of it."""

    path: str
    known: dict[int, tuple[weakref.ref[Any], str | None]] = field(default_factory=dict)
    last: str | None = None  # the child that was called last

    def know(self, tensors: Iterable[Any], path: str | None) -> None:
        for tensor in tensors:
            self.known[id(tensor)] = (weakref.ref(tensor), path)

    def find(self, tensors: Iterable[Any]) -> list[str | None]:
        """Whose results these are, as far as known; each once."""
        found: dict[str | None, None] = {}
        for tensor in tensors:
            for one in (tensor, getattr(tensor, "_base", None)):
                known = None if one is None else self.known.get(id(one))
                if known is not None and known[0]() is one:
                    found[known[1]] = None
                    break
        return list(found)


class Flow:
    """The edges of a pass; `begin` and `end` are told of every call, in the order of time."""

    def __init__(self, root: str) -> None:
        self._frames = [_Frame(root)]
        self._edges: dict[str, dict[tuple[str, str], bool]] = {}
        self._number = 0
        self.cut = False  # whether there were more edges than are kept

    @property
    def depth(self) -> int:
        """How many calls are under way."""
        return len(self._frames) - 1

    @property
    def path(self) -> str:
        """Of the innermost call that is under way."""
        return self._frames[-1].path

    def begin(self, path: str, tensors: Iterable[Any]) -> None:
        """A module is called."""
        tensors = list(tensors)
        frame = self._frames[-1]
        if path != frame.path:
            sources = frame.find(tensors)
            for source in sources:
                self._link(frame.path, source, path, inferred=False)
            if not sources:
                self._link(frame.path, frame.last, path, inferred=True)
        inner = _Frame(path)
        inner.know(tensors, _GIVEN)
        self._frames.append(inner)

    def end(self, paths: Collection[str], tensors: Iterable[Any]) -> str | None:
        """A module returns, called by one of these paths; those inside of it that never did are
        forgotten. Which path it was, or None if it did not begin.
        """
        frames = self._frames
        at = next((i for i in range(self.depth, 0, -1) if frames[i].path in paths), 0)
        if not at:
            return None
        frame, tensors = frames[at], list(tensors)
        del frames[at:]
        if frame.last is not None and tensors:
            sources = frame.find(tensors)
            for source in sources:
                if source is not _GIVEN:
                    self._link_out(frame.path, source, inferred=False)
            if not sources:
                self._link_out(frame.path, frame.last, inferred=True)
        frames[-1].know(tensors, frame.path)
        frames[-1].last = frame.path
        return frame.path

    def forget(self) -> None:
        """No call is under way: those that were have ended by exceptions."""
        del self._frames[1:]

    def edges(self) -> dict[str, list[list[Any]]]:
        """`{container: [[from, to, inferred], …]}`."""
        return {
            container: [[a, b, inferred] for (a, b), inferred in edges.items()]
            for container, edges in self._edges.items()
        }

    def _link(self, scope: str, source: str | None, target: str, *, inferred: bool) -> None:
        """From a child (or what the scope was given) to another one, perhaps of other parents."""
        into = target.split(".")
        if source is _GIVEN:
            top = _parts(scope)
            if into[: len(top)] == top:
                self._link_in(into, len(top), inferred=inferred)
            return
        out = source.split(".")
        common = 0
        while common < min(len(out), len(into)) - 1 and out[common] == into[common]:
            common += 1
        self._add(out[:common], out[common], into[common], inferred=inferred)
        self._link_in(into, common + 1, inferred=inferred)
        for depth in range(common + 1, len(out)):  # containers that were not called themselves
            self._add(out[:depth], out[depth], OUTSIDE, inferred=inferred)

    def _link_in(self, into: list[str], depth: int, *, inferred: bool) -> None:
        for at in range(depth, len(into)):
            self._add(into[:at], OUTSIDE, into[at], inferred=inferred)

    def _link_out(self, scope: str, source: str, *, inferred: bool) -> None:
        out, top = source.split("."), _parts(scope)
        if out[: len(top)] == top:
            for at in range(len(top), len(out)):
                self._add(out[:at], out[at], OUTSIDE, inferred=inferred)

    def _add(self, container: list[str], source: str, target: str, *, inferred: bool) -> None:
        edges = self._edges.setdefault(".".join(container), {})
        if (source, target) in edges:
            edges[source, target] &= inferred
        elif self._number < MOST_EDGES:
            edges[source, target] = inferred
            self._number += 1
        else:
            self.cut = True


def _parts(path: str) -> list[str]:
    return path.split(".") if path else []
