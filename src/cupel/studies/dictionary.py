"""What every column of a study's export means: the data dictionary, as JSON and as Markdown.

Made from the schema that the tables are written with, so a column without an entry cannot be. What
a setting means is its description in the settings' own models; where a workload of one's own
cannot be imported, that is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from cupel.config import Settings, from_config
from cupel.errors import CupelError
from cupel.studies.manifest import MANIFEST, Manifest

SCHEMA = 1

Type = Literal["float64", "int64", "string", "bool"]


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its name, its type, what it means, its unit where it has one."""

    name: str
    type: Type
    meaning: str
    unit: str | None = None
    nullable: bool = True


@dataclass(slots=True)
class Described:
    """A table as it was written: its files, rows, and how many nulls each column has."""

    name: str
    about: str
    columns: Sequence[Column]
    files: list[str] = field(default_factory=list)
    rows: int = 0
    nulls: dict[str, int] = field(default_factory=dict)

    def count(self, rows: int, nulls: Mapping[str, int]) -> None:
        """Add what one file of the table holds."""
        self.rows += rows
        for name, count in nulls.items():
            self.nulls[name] = self.nulls.get(name, 0) + count


RUN_COLUMNS = (
    Column("study", "string", "the study's name", nullable=False),
    Column("arm", "string", "the named variant; null of a deviation of no planned run"),
    Column("point", "string", "the point of the grid; empty without a grid"),
    Column("fold", "int64", "the fold of the cross-validation"),
    Column("seed", "int64", "of every random draw of the run"),
    Column("run_id", "string", "the run, which is the name of its folder", nullable=False),
    Column("identity", "string", "SHA-256 of all settings that can change a number of the run"),
    Column(
        "status",
        "string",
        "accepted, diverged, failed or missing; deviation of a run that never counts",
        nullable=False,
    ),
    Column("failure", "string", "the class of the failure, where it failed or diverged"),
    Column("reason", "string", "why it failed or is missing, in a line"),
    Column("primary", "string", "the metric that decides the study", nullable=False),
    Column("primary_last", "float64", "that metric in the final evaluation"),
    Column("primary_best", "float64", "its best finite value over all evaluations"),
    Column("primary_best_step", "int64", "the step of that best value, the first of equal ones"),
    Column("steps", "int64", "updates that the results are of; else those of the last evaluation"),
    Column("attempts", "int64", "sessions of the run: how often it was begun", nullable=False),
    Column("accepted_session", "int64", "the session whose results were accepted"),
    Column("deviation_of", "string", "the planned run that this one was derived from"),
    Column("changes", "string", "JSON: by session, settings that it ran with otherwise"),
    Column("wall_s", "float64", "time of training over all sessions", "s"),
    Column("cpu_s", "float64", "CPU time of training over all sessions", "s"),
    Column("git_commit", "string", "the code's commit in the accepted, else the newest session"),
    Column("git_dirty", "bool", "whether tracked files differed from that commit"),
    Column("torch", "string", "version of PyTorch in that session"),
    Column("host", "string", "the machine of that session"),
    Column("config_json", "string", "JSON: every setting of the run"),
)
ATTEMPT_COLUMNS = (
    Column("run_id", "string", "the run", nullable=False),
    Column("session", "int64", "number of the session within the run, from 1", nullable=False),
    Column(
        "outcome",
        "string",
        "finished, interrupted or a class of failure; without a supervisor's word what the record "
        "tells: running, crashed, failed, silent",
        nullable=False,
    ),
    Column("class", "string", "the outcome, where it is a class of failure"),
    Column("detail", "string", "why it ended so, in a line"),
    Column("begun", "bool", "whether it got beyond its preparation"),
    Column("first_step", "int64", "the step after which it began"),
    Column("last_step", "int64", "the last step that it came to"),
    Column("started", "float64", "when it began", "s since 1970, UTC"),
    Column("seconds", "float64", "from its beginning to its end", "s"),
    Column("cpu_s", "float64", "CPU time", "s"),
    Column("peak_mb", "float64", "most memory that was used", "MB"),
    Column("host", "string", "the machine"),
    Column("device", "string", "the device on it"),
    Column("worker", "string", "who supervised it"),
    Column("code", "int64", "exit code of its process, negative for a signal"),
    Column("changes", "string", "JSON: settings that it ran with otherwise than planned"),
)
POINT_COLUMNS = (
    Column("run_id", "string", "the run", nullable=False),
    Column("step", "int64", "updates so far", nullable=False),
    Column("time", "float64", "when the value was logged", "s since 1970, UTC"),
    Column("key", "string", "the metric", nullable=False),
    Column("value", "float64", "as it was logged; integers beyond 2^53 are rounded", None, False),
)


def flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting by its dotted name; a list is one setting."""
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def meanings(manifest: Manifest) -> dict[str, str]:
    """What each dotted setting of the study's cells means, as far as its models can be had."""
    found: dict[str, str] = {}
    seen: set[str] = set()
    for cell in manifest.cells:
        names = {name for name, _ in flat(cell.config)}
        if names <= seen:  # validating each of 10,000 cells would take a while
            continue
        seen |= names
        try:
            settings = from_config(cell.config, where=MANIFEST).settings
        except (CupelError, ImportError):  # an older study, or a workload that is not here
            continue
        for name, meaning in _described(settings, ""):
            found.setdefault(name, meaning)
    return found


def _described(settings: Settings, prefix: str) -> Iterator[tuple[str, str]]:
    for name, one in type(settings).model_fields.items():
        value = getattr(settings, name)
        yield f"{prefix}{name}", " ".join((one.description or "").split())
        if isinstance(value, Settings):
            yield from _described(value, f"{prefix}{name}.")
        elif isinstance(value, Mapping):
            for key, inner in value.items():
                if isinstance(inner, Settings):
                    yield from _described(inner, f"{prefix}{name}.{key}.")


def as_json(
    manifest: Manifest, tables: Sequence[Described], files: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """The whole dictionary as plain data; `files` says size and SHA-256 of each file."""
    return {
        "schema": SCHEMA,
        "study": manifest.name,
        "project": manifest.project,
        "planned": manifest.created,
        "question": manifest.study.question,
        "primary": manifest.study.primary.model_dump(mode="json"),
        "tables": [
            {
                "name": table.name,
                "about": table.about,
                "files": table.files,
                "rows": table.rows,
                "columns": [
                    {
                        "name": column.name,
                        "type": column.type,
                        "unit": column.unit,
                        "meaning": column.meaning,
                        "nullable": column.nullable,
                        "nulls": table.nulls.get(column.name, 0),
                    }
                    for column in table.columns
                ],
            }
            for table in tables
        ],
        "files": files,
    }


def as_markdown(dictionary: Mapping[str, Any]) -> str:
    """The same for people: a table for each table."""
    primary = dictionary["primary"]
    lines = [
        f"# Data of the study {dictionary['study']}",
        "",
        f"{dictionary['question']} Decided by `{primary['metric']}` ({primary['statistic']}, "
        f"{primary['better']} is better).",
        "",
        "A null is a value that there is not; NaN is a value that was logged as NaN.",
    ]
    for table in dictionary["tables"]:
        files = ", ".join(f"`{name}`" for name in table["files"])
        lines += ["", f"## {table['name']}", "", f"{table['about']} {table['rows']:,} rows.", ""]
        lines += [f"Files: {files}", "", "| column | type | unit | meaning | nulls |"]
        lines += ["|---|---|---|---|---|"]
        for column in table["columns"]:
            nulls = f"{column['nulls']:,}" if column["nullable"] else "never"
            cells = (f"`{column['name']}`", column["type"], column["unit"] or "", column["meaning"])
            lines.append("| " + " | ".join(map(_cell, (*cells, nulls))) + " |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
