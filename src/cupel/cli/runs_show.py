"""`cupel runs show RUN`: one run at a glance, its curves and what it came to."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cupel.cli.root import Root, runs_root
from cupel.cli.runs_common import Json, Run, moment, opened, ranks_of

if TYPE_CHECKING:
    from cupel.record.reader import RunRecord, SessionInfo

_MOST_CURVES = 6
_MOST_NUMBERS = 40  # of a summary that are shown to people
_LONGEST_TEXT = 500  # of a text in one


def show(
    run: Run,
    spark: Annotated[
        bool | None,
        typer.Option("--spark/--no-spark", help="Draw its losses; by default on a terminal."),
    ] = None,
    root: Root = None,
    json: Json = False,
) -> None:
    """Show one run: its sessions, its numbers, its files.

    \b
    cupel runs show 20261121
    cupel runs show demo/20261121 --json
    """
    from cupel.cli.tables import packed, print_json, printable, terminal_width

    record = opened(runs_root(root), run)
    facts = _facts(record)
    if json:
        print_json({**facts, **_more(record)})
        return
    if sys.stdout.isatty() if spark is None else spark:
        from cupel.cli.sparks import curves

        facts["curves"] = curves(record, facts.get("summary", {}), most=_MOST_CURVES)
    for name, value in facts.items():
        if isinstance(value, list):
            print(f"{name}")
            for item in value:
                for line in packed([printable(f"{item}")], terminal_width(), indent="  "):
                    print(line)
        elif isinstance(value, dict):
            _print_mapping(name, value)
        else:
            _print_fact(f"{name:<12}", value)


def _print_mapping(name: str, values: Mapping[str, Any], *, indent: str = "") -> None:
    from cupel.cli.tables import named

    if not values:
        return
    print(f"{indent}{named(name)}")
    indent += "  "
    for key in list(values)[:_MOST_NUMBERS]:
        value = values[key]
        if isinstance(value, dict):
            _print_mapping(key, value, indent=indent)
        else:
            _print_fact(f"{named(key):<28}", _brief(value), indent=indent)
    if len(values) > _MOST_NUMBERS:
        print(f"{indent}… and {len(values) - _MOST_NUMBERS} more; --json has all of them")


def _print_fact(name: str, value: object, *, indent: str = "") -> None:
    """A name and what it has; on a terminal that is too narrow below each other."""
    from cupel.cli.tables import packed, printable, terminal_width

    line, most = printable(f"{indent}{name} {value}"), terminal_width()
    if most is None or max(map(len, line.split("\n"))) <= most:
        print(line)
        return
    for part in packed([name.strip()], most, indent=indent):
        print(part)
    for text in printable(str(value)).split("\n"):
        for part in packed([text], most, indent=f"{indent}  "):
            print(part)


def _brief(value: Any) -> Any:
    """A number as it is; of a recorded array, what it holds, and of a long text its beginning
    (`--json` has all of it)."""
    from cupel.cli.tables import beginning, cell

    if isinstance(value, str):
        return beginning(cell(value), _LONGEST_TEXT)
    return f"{len(value)} values" if isinstance(value, list) else value


def _facts(record: RunRecord) -> dict[str, Any]:
    """Everything worth knowing at a glance, as plain data."""
    from cupel.record.editing import tags_of

    results, problem = _results(record)
    found = record.summarised()
    sessions, ranks = record.sessions, ranks_of(record)
    media = Counter(str(event.get("kind")) for event in record.media())
    facts: dict[str, Any] = {
        "run": record.run_id,
        "project": record.run_dir.absolute().parent.name,
        "status": record.status,
        "folder": str(record.run_dir),
        "created": moment(record.created) if record.created else None,
        "problem": problem or (sessions and sessions[-1].fields.get("error")),
        "group": record.run.get("group"),
        "tags": ", ".join(tags_of(record.run)),
        "study": record.run.get("study"),
        "arm": record.run.get("arm"),
        "seed": record.run.get("seed"),
        "about": record.run.get("about"),
        "notes": record.run.get("notes"),
        "sessions": [
            f"{s.number:04d}  {s.status:<12} after step {s.start_step}, {_seconds(s)}"
            for s in sessions
        ],
        "ranks": ", ".join(map(str, ranks)) if ranks != [0] else None,
        "steps": found.step,
        "summary": found.values,
        "results": {
            key: value
            for key, value in results.items()
            if key in ("final", "best", "last_session") and value
        },
        "checkpoints": record.checkpoints(),
        "artifacts": [_artifact(event) for event in record.artifacts()],
        "media": dict(media),
        "figures": sorted(str(p) for p in (record.run_dir / "figures").glob("*.png")),
        "damaged lines": record.damaged_lines,
        "lost lines": sum(_count(session.fields.get("lost")) for session in sessions),
        "problems": _problems(record),
    }
    return {name: value for name, value in facts.items() if value not in (None, "", [], {}, 0)}


def _more(record: RunRecord) -> dict[str, Any]:
    """What JSON says besides: everything that is known."""
    from cupel.errors import RecordError
    from cupel.record.compaction import cache_folder
    from cupel.record.metrics import Metrics
    from cupel.record.summary import summarise

    metrics = Metrics(cache_folder(record.run_dir, record.run))
    try:
        config: dict[str, Any] | None = record.config
    except RecordError:
        config = None
    return {
        "record": record.run,
        "config": config,
        "ranks": ranks_of(record),
        "last": summarise(metrics, record.sessions, []).values,  # whatever define_metric says
        "sessions": [
            {"number": session.number, **session.fields, "status": session.status}
            for session in record.sessions
        ],
        "artifacts": record.artifacts(),
        "media": record.media(),
    }


def _problems(record: RunRecord) -> dict[str, int]:
    """What failed beside training, and how often, as far as sessions have ended; else that it did.

    The first failure of each kind is an event; how many there were, a session says at its end.
    """
    found: Counter[str] = Counter()
    for session in record.sessions:
        problems = session.fields.get("problems")
        for name, count in (problems if isinstance(problems, dict) else {}).items():
            found[str(name)] += _count(count)
    for event in record.events():
        if event.get("_event") == "problem" and not found[str(event.get("name"))]:
            found[str(event.get("name"))] = 1
    return dict(found)


def _count(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _artifact(event: dict[str, Any]) -> str:
    from cupel.cli.runs_common import size

    count = event.get("bytes")
    told = f", {size(count)}" if isinstance(count, int) else ""
    return f"{event.get('name')}  v{event.get('version')}  {event.get('kind')}{told}"


def _results(record: RunRecord) -> tuple[dict[str, Any], str | None]:
    """The results, with a mapping as `final` whatever the file holds; and what is damaged."""
    from cupel.errors import RecordError

    problem = record.problem
    try:
        results = record.results or {}
    except RecordError as error:
        results, problem = {}, problem or str(error)
    final = results.get("final")
    return {**results, "final": final if isinstance(final, dict) else {}}, problem


def _seconds(session: SessionInfo) -> str:
    started, ended = session.started, session.ended
    if not isinstance(started, int | float) or not isinstance(ended, int | float):
        return "no end recorded"
    if ended < started:
        return "ended before it began: the clock was set back"
    return f"{ended - started:.1f} s"
