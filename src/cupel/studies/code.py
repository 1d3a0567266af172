"""Which code each run of a study was trained by, held against the code here and now.

Code is what git says of the folder that a command was started in: the commit, and what tracked
files differ by from it. Outside a repository nothing is known, and nothing is reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any

from cupel.errors import RecordError
from cupel.record import environment, layout, secrets
from cupel.record.reader import RunRecord
from cupel.studies.manifest import Manifest, PlannedRun

Code = tuple[str, str]  # the commit, and a hash of what tracked files differ by; both may be empty
_UNKNOWN = "?"  # in place of the hash, of differences that are too large to be kept


def code_here() -> Code | None:
    """The code of this folder; None outside a repository."""
    state = environment.git_state()
    if state is None:
        return None
    if not state["dirty"]:
        return (state["commit"] or "", "")
    patch = environment.dirty_patch()
    mark = _UNKNOWN if patch is None else sha256(secrets.masked_patch(patch)[0]).hexdigest()
    return (state["commit"] or "", mark)


def code_of(facts: Mapping[str, Any]) -> Code | None:
    """The code that an env.json tells of; None when it tells of none."""
    git = facts.get("git")
    if not isinstance(git, Mapping) or not git.get("commit"):
        return None
    mark = facts.get("dirty_patch_sha256") or (_UNKNOWN if git.get("dirty") else "")
    return (str(git["commit"]), str(mark))


def runs_of_other_code(
    manifest: Manifest, runs: Iterable[PlannedRun] | None = None
) -> dict[PlannedRun, str]:
    """The runs, of all or of some, whose newest session was of other code than there is now, each
    with that code."""
    now = code_here()
    if now is None:
        return {}
    found = {}
    for run in manifest.runs if runs is None else runs:
        run_dir = manifest.run_dir(run)
        if not (run_dir / layout.RUN).exists():
            continue
        code = newest_code(RunRecord(run_dir))
        if code is not None and code != now:
            found[run] = code_text(code)
    return found


def newest_code(record: RunRecord) -> Code | None:
    """The code of a run's newest session that tells of some."""
    for session in reversed(record.sessions):
        try:
            code = code_of(session.environment)
        except RecordError:
            continue
        if code is not None:
            return code
    return None


def code_text(code: Code) -> str:
    """`1a2b3c4`, with a + where files differed from the commit."""
    return code[0][:7] + ("+" if code[1] else "")
