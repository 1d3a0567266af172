"""YAML as trees in which every value knows where it was written, and one tree laid over another.

`overlay` is the whole rule of composition: mappings merge deeply, lists and scalars replace, and
a mapping whose `kind` changes forgets the branch of the old kind. `Reader` turns YAML 1.2 into
nodes; it refuses aliases, tags, dates and numbers that JSON cannot hold, so that a value has one
origin and one plain meaning. Which files are read, and in what order, is `cupel.compose`'s matter.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.scalarbool import ScalarBoolean


@dataclass(frozen=True, slots=True, order=True)
class Origin:
    """Where a value was written: a file and line, the command line, or nowhere (a default)."""

    where: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.where}:{self.line}" if self.line else self.where


OFF = "off"  # a plain word to YAML 1.2, in which only true and false are truth values
COMMAND_LINE = Origin("command line")
DEFAULT = Origin("default")


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake in a recipe, told in one line."""

    origin: Origin
    text: str

    def __str__(self) -> str:
        return f"{self.origin}: {self.text}"


@dataclass(frozen=True, slots=True)
class Leaf:
    """A scalar or a list: what an overlay replaces whole."""

    value: Any
    origin: Origin


@dataclass(frozen=True, slots=True)
class Branch:
    """A mapping. One that `replaces` does not merge into what is below it."""

    children: dict[str, Leaf | Branch]
    origin: Origin
    replaces: bool = False

    def values(self) -> dict[str, Any]:
        """The plain nested values."""
        return {
            name: child.values() if isinstance(child, Branch) else child.value
            for name, child in self.children.items()
        }

    def leaves(self, *, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Leaf]]:
        """Every scalar and list, with its path."""
        for name, child in self.children.items():
            if isinstance(child, Branch):
                yield from child.leaves(above=(*above, name))
            else:
                yield (*above, name), child

    def nearest(self, path: Sequence[str]) -> tuple[int, Node]:
        """The deepest node on the way along the path, and how many of its names lead there."""
        node: Node = self
        for depth, name in enumerate(path):
            if not isinstance(node, Branch) or name not in node.children:
                return depth, node
            node = node.children[name]
        return len(path), node


Node = Leaf | Branch


def overlay(below: Branch, above: Branch) -> Branch:
    """`above` laid over `below`; of the two, neither is changed."""
    if above.replaces or _changes_kind(below, above):
        return above
    children = dict(below.children)
    for name, child in above.children.items():
        old = children.get(name)
        if isinstance(old, Branch) and isinstance(child, Branch):
            child = overlay(old, child)
        children[name] = child
    return Branch(children, above.origin, below.replaces)


def planted(values: Mapping[str, Any], origin: Origin) -> Branch:
    """Plain nested values as a branch, all of one origin."""
    children: dict[str, Node] = {
        name: planted(value, origin) if isinstance(value, Mapping) else Leaf(value, origin)
        for name, value in values.items()
    }
    return Branch(children, origin)


def placed(path: Sequence[str], node: Node) -> Branch:
    """A branch that holds nothing but `node`, at this path."""
    first, *rest = path
    return Branch({first: placed(rest, node) if rest else node}, node.origin)


def _changes_kind(below: Branch, above: Branch) -> bool:
    old, new = below.children.get("kind"), above.children.get("kind")
    return isinstance(old, Leaf) and isinstance(new, Leaf) and old.value != new.value


@dataclass
class Reader:
    """Turns YAML into nodes; what it cannot turn becomes one of its `problems`.

    Nodes carry the origin that is given here, with lines of their own when `numbered`.
    """

    origin: Origin
    numbered: bool = True
    problems: list[Problem] = field(default_factory=list)
    _containers: list[object] = field(default_factory=list)

    def read_file(self, path: Path) -> Branch:
        """The file's mapping; an empty one when there is a problem."""
        try:
            node = self.read(path.read_text(encoding="utf-8-sig"))
        except OSError as error:
            self._problem(f"cannot be read: {error.strerror}", self.origin)
        except UnicodeDecodeError:
            self._problem("is not UTF-8 text", self.origin)
        else:
            if isinstance(node, Branch):
                return node
            if not self.problems:
                self._problem("holds no settings; write `name: value` lines", self.origin)
        return Branch({}, self.origin)

    def read(self, text: str) -> Node | None:
        """The text's node, or None when it is not YAML."""
        try:
            given = YAML().load(text)
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            origin = self._at(mark.line) if mark else self.origin
            hint = "; put ??? in quotes between braces" if "found '?'" in str(error) else ""
            self._problem(_one_line(error.problem or error) + hint, origin)
        # On odd input ruamel raises others too: ValueError for a 13th month, RecursionError, …
        except Exception as error:
            self._problem(f"is not YAML that can be read: {_one_line(error)}", self.origin)
        else:
            return self._node(given, self.origin)
        return None

    def _at(self, line: int) -> Origin:
        return Origin(self.origin.where, line + 1) if self.numbered else self.origin

    def _problem(self, text: str, origin: Origin) -> None:
        self.problems.append(Problem(origin, text))

    def _node(self, given: Any, origin: Origin) -> Node:
        if isinstance(given, CommentedMap):
            return Branch(self._children(given, origin), origin)
        return Leaf(self._plain(given, origin), origin)

    def _children(self, given: CommentedMap, origin: Origin) -> dict[str, Node]:
        children: dict[str, Node] = {}
        if self._is_odd(given, origin):
            return children
        for name, value in given.items():
            line = self._at(given.lc.key(name)[0])
            if _is_text(name) and name:
                children[str(name)] = self._node(value, line)
            else:
                self._problem("a name must be text; put it in quotes", line)
        return children

    def _plain(self, given: Any, origin: Origin) -> Any:
        """The plain Python value of a scalar or a list, without ruamel's own types."""
        if isinstance(given, CommentedMap):
            return Branch(self._children(given, origin), origin).values()
        if isinstance(given, CommentedSeq):
            odd = self._is_odd(given, origin)
            return [] if odd else [self._plain(one, origin) for one in given]
        if given is None or isinstance(given, bool):
            return given
        if isinstance(given, ScalarBoolean):  # a bool with an anchor, which is an int to Python
            return bool(given)
        if isinstance(given, int):
            return self._whole(int(given), origin)
        if isinstance(given, float) and math.isfinite(given):
            return float(given)
        if _is_text(given):
            return str(given)
        expected = "a finite number, true, false, null, text, a list or a mapping"
        self._problem(f"this value is not {expected}; put text in quotes", origin)
        return None

    def _whole(self, given: int, origin: Origin) -> int | None:
        if -(2**63) <= given < 2**63:
            return given
        self._problem(f"a whole number must lie between {-(2**63)} and {2**63 - 1}", origin)
        return None

    def _is_odd(self, given: CommentedMap | CommentedSeq, origin: Origin) -> bool:
        """Whether this is an alias (so it was seen before), has a merge in it, or is tagged."""
        alias = any(given is seen for seen in self._containers)
        self._containers.append(given)
        odd = alias or bool(getattr(given, "merge", None)) or given.tag.value is not None
        if odd:
            self._problem("aliases (*x, <<) and tags (!x) are not read; use extends", origin)
        return odd


def _is_text(given: object) -> bool:
    """Whether this is a string that can be written out again (no lone half of a surrogate)."""
    return isinstance(given, str) and not any("\ud800" <= letter <= "\udfff" for letter in given)


def _one_line(given: object) -> str:
    return " ".join(str(given).split())
