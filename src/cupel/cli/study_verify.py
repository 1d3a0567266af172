"""`cupel study verify STUDY`: whether a study's data is all there, and what is wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cupel.cli.root import Root, runs_root

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cupel.studies.completeness import Completeness, Problem

_SHOWN = 4  # runs of a kind of problem


def verify(
    study: Annotated[str, typer.Argument(help="A study's name, project/name, or its folder.")],
    root: Root = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check that a study's data is complete and sound.

    Every planned run accepted, diverged or failed with a reason; metrics there, as often, as finite
    and in the range that study.quality asks for. Exit code 0 when all is so, 1 when not.

    \b
    cupel study verify quickstart
    cupel study verify quickstart --json
    """
    from cupel.cli.tables import print_json
    from cupel.cli.working import Working
    from cupel.studies.completeness import check
    from cupel.studies.manifest import find_study, load_manifest

    manifest = load_manifest(find_study(runs_root(root), study))
    with Working("verifying") as working:
        found = check(manifest, tell=working)
    if json:
        print_json(completeness_facts(found))
    else:
        _print(found)
    if not found.clean:
        raise typer.Exit(1)


def completeness_facts(found: Completeness) -> dict[str, Any]:
    """Everything that is printed and more, as plain data."""
    from dataclasses import asdict

    return {
        "study": found.manifest.name,
        "complete": found.complete,
        "clean": found.clean,
        "planned": len(found.runs),
        "counts": found.counts(),
        "arms": {arm: found.counts(arm) for arm in _arms(found)},
        "runs": [{**asdict(run.run), **_without_run(asdict(run))} for run in found.runs],
        "problems": [asdict(problem) for problem in found.problems],
        "deviations": [asdict(deviation) for deviation in found.deviations],
        "changed": [asdict(changed) for changed in found.changed],
        "code": [asdict(code) for code in found.code],
    }


def _without_run(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name != "run"}


def _arms(found: Completeness) -> list[str]:
    return list(dict.fromkeys(run.run.arm for run in found.runs))


def _print(found: Completeness) -> None:
    from cupel.cli.tables import print_table, printable

    rows = [
        {"arm": arm, "runs": sum(counts.values()), **counts}
        for arm in _arms(found)
        for counts in (found.counts(arm),)
    ]
    print_table(rows)
    for line in _lines(found):
        print(printable(line))


def _lines(found: Completeness) -> Iterator[str]:
    kinds = dict.fromkeys(problem.kind for problem in found.problems)
    for kind in kinds:
        alike = [problem for problem in found.problems if problem.kind == kind]
        yield ""
        yield f"{kind}: {len(alike)}"
        yield from (f"  {_told(problem)}" for problem in alike[:_SHOWN])
        if len(alike) > _SHOWN:
            yield f"  … and {len(alike) - _SHOWN} more; --json lists them"
    failed = [run for run in found.runs if run.state in ("failed", "diverged")]
    if failed:
        yield ""
        yield f"failed or diverged, with a reason: {len(failed)}"
        yield from (f"  {r.run.run_id}: {r.failure}: {r.reason}" for r in failed[:_SHOWN])
        if len(failed) > _SHOWN:
            yield f"  … and {len(failed) - _SHOWN} more; --json lists them"
    if found.deviations:
        yield ""
        yield f"deviations, which do not count: {len(found.deviations)}"
        yield from (f"  {one.run_id}: of {one.of}" for one in found.deviations[:_SHOWN])
    if found.changed:
        runs = list(dict.fromkeys(one.run_id for one in found.changed))
        yield ""
        yield f"accepted, with sessions of other settings than planned: {len(runs)}"
        yield from (f"  {run_id}: {_changes(found, run_id)}" for run_id in runs[:_SHOWN])
    if len(found.code) > 1:
        yield ""
        versions = ", ".join(f"{code} ({code.runs} runs)" for code in found.code)
        yield f"accepted runs are of {len(found.code)} states of the code: {versions}"
    yield ""
    yield _verdict(found)


def _changes(found: Completeness, run_id: str) -> str:
    return ", ".join(
        f"{name}={value}"
        for one in found.changed
        if one.run_id == run_id
        for name, value in one.changes.items()
    )


def _told(problem: Problem) -> str:
    return f"{problem.run_id}: {problem.detail}" if problem.run_id else problem.detail


def _verdict(found: Completeness) -> str:
    counts = found.counts()
    if found.complete:
        told = ", ".join(f"{n} {state}" for state, n in counts.items() if n)
        and_wrong = f"{len(found.problems)} problems" if found.problems else "nothing is wrong"
        return f"complete: of {len(found.runs)} runs {told}; {and_wrong}"
    wrong = len(found.problems) - counts["missing"]
    more = f", and {wrong} problems" if wrong else ""
    return f"incomplete: {counts['missing']} of {len(found.runs)} runs are missing{more}"
