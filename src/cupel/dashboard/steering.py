"""What may be asked of a study's runs from the page, exactly as `cupel jobs` does: `steer`.

It appends a line to the study's `control.jsonl`; workers read it within a second.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from cupel.dashboard.glance import Glance
from cupel.errors import UnknownName, UsageError
from cupel.jobs import control
from cupel.studies.manifest import Manifest
from cupel.studies.narrowing import select

_Text = Annotated[str, Meta(max_length=400)]
_Texts = Annotated[list[_Text], Meta(max_length=100_000)]


class Steer(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What is asked, and of which runs: ids, a filter, `failed` (for retry), or `all`; or, for
    release, a host that is in quarantine."""

    what: Literal["hold", "release", "boost", "cancel", "retry"]
    runs: _Texts = []
    arms: _Texts = []
    tags: _Texts = []
    where: _Texts = []
    """Filters in the language of `cupel runs ls`."""
    failed: bool = False
    all: bool = False
    host: _Text = ""
    why: _Text = ""
    priority: Annotated[int, Meta(ge=-(10**9), le=10**9)] | None = None
    """For boost."""


class Steered(msgspec.Struct):
    """What was asked, and of how many runs."""

    what: str
    study: str
    runs: int


def asked(body: bytes) -> Steer:
    """What a request asks. Raises UsageError."""
    try:
        found = msgspec.json.decode(body, type=Steer)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        raise UsageError(f"this cannot be asked: {' '.join(str(error)[:200].split())}") from error
    meant = [found.runs, found.arms or found.tags or found.where, found.failed, found.all]
    meant.append(found.host)
    if sum(map(bool, meant)) != 1:
        raise UsageError(
            "say of which runs: give one of runs, arms (with tags and where), failed, all, or host"
        )
    if found.failed and found.what != "retry":
        raise UsageError("failed is for retry; name the runs")
    if found.host and found.what != "release":
        raise UsageError("host is for release; name runs")
    if (found.what == "boost") != (found.priority is not None):
        raise UsageError("boost needs a priority, and nothing else takes one")
    return found


def steer(glance: Glance, asks: Steer) -> Steered:
    """Ask it. Raises UnknownName, UsageError, and RecordError where it cannot be written."""
    manifest = glance.seen().manifest
    if asks.host:
        known = {place[0] for place in control.Control.of(manifest.folder).quarantined}
        if asks.host not in known:
            raise UnknownName("host in quarantine", asks.host, known)
        control.append(manifest.folder, "release", [], why=asks.why, host=asks.host)
        glance.forget()
        return Steered(asks.what, glance.key, 0)
    names = _chosen(glance, manifest, asks)
    if asks.what == "retry":
        runs = manifest.runs if names is None else [manifest.run(name) for name in names]
        folders = {run.run_id: manifest.run_dir(run) for run in runs}
        control.forgive(manifest.folder, folders, why=asks.why)
    else:
        facts = {} if asks.priority is None else {"priority": asks.priority}
        control.append(manifest.folder, asks.what, names, why=asks.why, **facts)
    glance.forget()
    return Steered(asks.what, glance.key, len(manifest.runs) if names is None else len(names))


def _chosen(glance: Glance, manifest: Manifest, asks: Steer) -> list[str] | None:
    """The ids of the runs that are meant; None for all."""
    if asks.all:
        return None
    if asks.failed:
        states = glance.seen(no_older=0).states
        names = [one.run.run_id for one in states if one.status in ("failed", "refused")]
        if not names:
            raise UsageError(f"no run of {manifest.name} has failed")
        return names
    if asks.runs:
        return list(dict.fromkeys(manifest.run(name).run_id for name in asks.runs))
    chosen = select(manifest, arms=asks.arms, tags=asks.tags, where=asks.where)
    return [run.run_id for run in chosen]
