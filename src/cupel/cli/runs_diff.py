"""`cupel runs diff RUN RUN`: everything that was different: settings, code, machine, packages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cupel.cli.root import Root, runs_root
from cupel.cli.runs_common import Json, Run, opened

if TYPE_CHECKING:
    from cupel.record.reader import RunRecord

# What is never the same, or stands elsewhere in what is printed.
_LEFT_OUT = ("schema", "packages", "git", "dirty_patch_sha256", "cpu.load_average")
_MOST_LINES = 400  # of a difference between two patches that are shown to people


def diff(one: Run, other: Run, root: Root = None, json: Json = False) -> None:
    """Show how two runs differ: settings, code, machine.

    Code is the commit and what was changed and not committed; packages are compared, too.
    Of each run it is its newest session's code and machine.

    \b
    cupel runs diff 20261121-1 20261121-2
    """
    from cupel.cli.runs_compare import apart, flat_config
    from cupel.cli.tables import print_json

    where = runs_root(root)
    records = [opened(where, one), opened(where, other)]
    facts = [_environment(record) for record in records]
    found = {
        "runs": [record.run_id for record in records],
        "config": apart([flat_config(record) for record in records]),
        "code": _code(records, facts),
        "environment": apart([_flat(side) for side in facts]),
        "packages": apart([_mapping(side.get("packages")) for side in facts]),
    }
    if json:
        print_json(found)
    else:
        _print(found)


def _environment(record: RunRecord) -> dict[str, Any]:
    """What the newest session says of its code and machine; nothing when it cannot be read."""
    from cupel.cli.streams import tell
    from cupel.errors import RecordError

    sessions = record.sessions
    try:
        return sessions[-1].environment if sessions else {}
    except RecordError as error:
        tell(f"cupel: {record.run_id}: {error}")
        return {}


def _flat(facts: Mapping[str, Any]) -> dict[str, Any]:
    from cupel.record.index import flattened

    flat = flattened(facts)
    return {
        name: value
        for name, value in flat.items()
        if not any(name == left or name.startswith(f"{left}.") for left in _LEFT_OUT)
    }


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _code(records: list[RunRecord], facts: list[dict[str, Any]]) -> dict[str, Any]:
    """Commits, branches, and how the uncommitted changes differ."""
    from cupel.cli.runs_compare import apart

    git = [_mapping(side.get("git")) for side in facts]
    patches = [_patch(record) for record in records]
    found: dict[str, Any] = dict(apart(git))
    if patches[0] != patches[1]:
        found["uncommitted changes"] = _patch_difference(records, patches)
    return found


def _patch(record: RunRecord) -> list[str]:
    from cupel.record import layout

    sessions = record.sessions
    path = (sessions[-1].dir if sessions else Path()) / layout.DIRTY_PATCH
    try:
        return path.read_text(errors="replace").splitlines() if sessions else []
    except OSError:
        return []


def _patch_difference(records: list[RunRecord], patches: list[list[str]]) -> list[str]:
    """The difference of two patches; of one patch alone, the patch."""
    import difflib

    one, other = patches
    if not one or not other:
        has, patch = (records[0], one) if one else (records[1], other)
        return [f"only {has.run_id} has some:", *patch]
    names = [record.run_id for record in records]
    return list(difflib.unified_diff(one, other, names[0], names[1], lineterm="", n=2))


def _print(found: Mapping[str, Any]) -> None:
    from cupel.cli.tables import cell, print_table, printable

    one, other = found["runs"]
    if one == other:
        one, other = f"{one} (first)", f"{other} (second)"
    any_ = False
    for part in ("config", "code", "environment", "packages"):
        differences = dict(found[part])
        patch = differences.pop("uncommitted changes", [])
        if not differences and not patch:
            continue
        print(f"\n{part}" if any_ else part)
        any_ = True
        rows = [
            {"": f"  {name}", one: _shown(a), other: _shown(b)}
            for name, (a, b) in differences.items()
        ]
        print_table(rows, apart=True)
        if commits := differences.get("commit"):
            print(f"  see it with: git diff {cell(commits[0])} {cell(commits[1])}")
        if patch:
            print("  uncommitted changes")
        for line in patch[:_MOST_LINES]:
            print(printable(f"    {line}"))
        if len(patch) > _MOST_LINES:
            print(f"    … and {len(patch) - _MOST_LINES:,} lines more; --json has all of them")
    if not any_:
        print("nothing differs: neither settings nor code, machine or packages")


def _shown(value: Any) -> Any:
    return repr(value) if isinstance(value, float) else value
