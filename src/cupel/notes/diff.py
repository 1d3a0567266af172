"""What changed between two notes of one paper, and which modules and tests that reaches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cupel.errors import UsageError
from cupel.notes import form, graph, ids
from cupel.notes.model import Algorithm, Block, Equation, Paper
from cupel.notes.project import file_of_tests


@dataclass(frozen=True, slots=True)
class Change:
    """One entry that is not what it was: `added`, `removed`, or the aspects that changed."""

    part: str
    name: str
    what: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Diff:
    """The changes, and what needs what changed: equations, modules and files of tests."""

    old: str
    new: str
    changes: tuple[Change, ...]
    front: tuple[str, ...]
    ambiguities: tuple[Change, ...]
    affected: tuple[str, ...]
    modules: tuple[tuple[str, str], ...]  # name and path
    tests: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        return not (self.changes or self.front or self.ambiguities)


def diff(old: Paper, new: Paper) -> Diff:
    """Compare two notes. Raises UsageError when they are of two papers.

    Entries are compared by number, so that two versions of a paper can be: where numbers moved,
    everything that moved is told.
    """
    if old.paper_id != new.paper_id:
        raise UsageError(
            f"{old.at.path} is of {old.paper_id or 'no paper'}, {new.at.path} of "
            f"{new.paper_id or 'no paper'}; give two notes of one paper"
        )
    before, after = _entries(old), _entries(new)
    common = _shared(old, new)
    changes = []
    for part in ids.ordered({*before, *after}):
        change = _change(part, before.get(part), after.get(part), common)
        if change:
            changes.append(change)
    reached = _reached(old, new, changes)
    entries = {**before, **after}
    return Diff(
        old=old.id,
        new=new.id,
        changes=tuple(changes),
        front=_front(old, new),
        ambiguities=_ambiguities(old, new),
        affected=tuple(reached),
        modules=_modules(old, new, [entries[part] for part in reached]),
        tests=tuple(file_of_tests(entries[part]) for part in reached if entries[part].tests),
    )


def _entries(paper: Paper) -> dict[str, Equation | Algorithm]:
    found: dict[str, Equation | Algorithm] = {}
    for entry in paper.entries:
        found.setdefault(ids.split(entry.id)[1], entry)
    return found


def _shared(old: Paper, new: Paper) -> set[str]:
    """The symbols of the whole paper whose shapes changed."""
    before = {s.name: (s.type, s.shape) for s in old.symbols}
    after = {s.name: (s.type, s.shape) for s in new.symbols}
    return {name for name in {*before, *after} if before.get(name) != after.get(name)}


def _change(
    part: str,
    before: Equation | Algorithm | None,
    after: Equation | Algorithm | None,
    shared: set[str],
) -> Change | None:
    if before is None or after is None:
        entry = before or after
        assert entry is not None, part
        return Change(part, entry.name, ("added" if before is None else "removed",))
    was, now = _aspects(before), _aspects(after)
    what = [name for name in {**was, **now} if was.get(name) != now.get(name)]
    if "shapes" not in what and shared & _uses(after):
        what.append("shapes")
    return Change(part, after.name, tuple(what)) if what else None


def _aspects(entry: Equation | Algorithm) -> dict[str, Any]:
    """What is compared, without where it stands and to which version it belongs."""
    found: dict[str, Any] = {
        "name": entry.name,
        "location": entry.location,
        "module": entry.module,
        "requires": tuple(ids.ordered(set(map(_own, entry.requires)))),
        "words": (entry.words, entry.notes),
        "tests": tuple((criterion.kind, criterion.text) for criterion in entry.tests),
    }
    if isinstance(entry, Equation):
        return found | {
            "latex": _bare(entry.latex),
            "form": (_bare(entry.form), _bare(entry.printed)),
            "shapes": tuple((s.name, s.type, s.shape) for s in entry.symbols),
            "role": entry.role,
            "priority": entry.priority,
            "confidence": entry.confidence,
        }
    steps = tuple((s.line, tuple(map(_own, s.equations)), s.module) for s in entry.steps)
    return found | {"pseudocode": _bare(entry.pseudocode), "steps": steps, "purpose": entry.purpose}


def _own(identity: str) -> str:
    """An id without the paper's version, which differs between two of them."""
    paper, part = ids.split(identity)
    return f"{paper.partition('.')[0]}:{part}"


def _bare(block: Block | None) -> str:
    return " ".join(block.text.split()) if block else ""


def _uses(entry: Equation | Algorithm) -> set[str]:
    """Every name of an entry's form."""
    if not isinstance(entry, Equation) or entry.form is None:
        return set()
    found: set[str] = set()
    for _, text in form.statements(entry.form.text):
        try:
            statement = form.parse_statement(text)
        except form.FormError:
            continue
        found |= {
            name.text for side in (statement.left, statement.right) for name in form.names(side)
        }
    return found


def _reached(old: Paper, new: Paper, changes: Sequence[Change]) -> list[str]:
    """What changed in more than words, and all that needs it, in either of the notes."""
    minor = {"words", "location", "name", "confidence", "priority"}
    begun = [change.part for change in changes if not set(change.what) <= minor]
    found: set[str] = set()
    for paper in (old, new):
        whole = graph.graph_of([paper])
        names = [f"{paper.id}:{part}" for part in begun if f"{paper.id}:{part}" in whole.nodes]
        found |= {ids.split(name)[1] for name in whole.reached(names)}
    return ids.ordered(found)


def _modules(
    old: Paper, new: Paper, entries: Sequence[Equation | Algorithm]
) -> tuple[tuple[str, str], ...]:
    names = dict.fromkeys(entry.module for entry in entries if entry.module)
    for name in dict.fromkeys(m.name for m in (*old.modules, *new.modules)):
        before, after = old.module(name), new.module(name)
        if _faces(before) != _faces(after):
            names.setdefault(name)
    found = []
    for name in sorted(names):
        module = new.module(name) or old.module(name)
        found.append((name, module.path if module else ""))
    return tuple(found)


def _faces(module: Any) -> tuple[str, ...]:
    return () if module is None else (module.path, module.input, module.output, module.parameters)


def _front(old: Paper, new: Paper) -> tuple[str, ...]:
    before = {entry.key: entry.value for entry in old.front}
    after = {entry.key: entry.value for entry in new.front}
    return tuple(key for key in {**before, **after} if before.get(key) != after.get(key))


def _ambiguities(old: Paper, new: Paper) -> tuple[Change, ...]:
    before = {a.number: a for a in old.ambiguities}
    after = {a.number: a for a in new.ambiguities}
    found = []
    for number in ids.ordered({*before, *after}):
        was, now = before.get(number), after.get(number)
        if was is None or now is None:
            one = was or now
            assert one is not None
            found.append(Change(number, one.name, ("added" if was is None else "removed",)))
            continue
        what = tuple(
            aspect
            for aspect in ("name", "readings", "chosen", "reason", "switch")
            if getattr(was, aspect) != getattr(now, aspect)
        )
        if tuple(map(_own, was.equations)) != tuple(map(_own, now.equations)):
            what = (*what, "equations")
        if what:
            found.append(Change(number, now.name, what))
    return tuple(found)


def as_data(found: Diff) -> dict[str, Any]:
    """A diff as plain data."""
    return {
        "old": found.old,
        "new": found.new,
        "front": list(found.front),
        "changes": [
            {"id": one.part, "name": one.name, "what": list(one.what)} for one in found.changes
        ],
        "ambiguities": [
            {"id": one.part, "name": one.name, "what": list(one.what)} for one in found.ambiguities
        ],
        "affected": list(found.affected),
        "modules": [{"module": name, "path": path} for name, path in found.modules],
        "tests": list(found.tests),
    }
