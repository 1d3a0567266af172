"""A measurement of run.py as Markdown: the targets and whether they hold, then every number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

JOBS, SECONDS, SLOTS = 216, 0.05, 2
IDEAL_S = JOBS * SECONDS / SLOTS
SHOWN = {
    "cupel warm": "cupel, warm worker: full records",
    "cupel cold": "cupel, a new process a run: full records",
    "pool": "ProcessPoolExecutor, the floor: keeps nothing",
    "submitit": "submitit, local executor",
    "hydra": "Hydra, launcher of joblib",
    "optuna": "Optuna, SQLite, two processes",
    "huey": "huey, SQLite, two processes",
}


def tables(found: dict[str, Any]) -> Iterator[str]:
    """The lines of the page."""
    if "machine" in found:
        machine = found["machine"]
        yield (
            f"\n{machine['date']}, Python {machine['python']}, {machine['platform']}, "
            f"{machine['cpus']} CPUs; load average {machine['load_average_before']:.1f} before, "
            f"{machine['load_average_after']:.1f} after."
        )
        for name, why in found["left out"].items():
            yield f"\n{name} was left out: {why}"
        yield "\n| target | measured | holds |"
        yield "|---|---:|---|"
        for target, measured, holds in targets(found):
            yield f"| {target} | {measured} | {'yes' if holds else '**no**'} |"
        yield from _job_table(found)
    if "large" in found:
        yield from _large_table(found["large"])
    if "faults" in found:
        yield from _fault_table(found["faults"])
    if "disturbed" in found:
        yield from _disturbed_table(found["disturbed"])


def whole(one: dict[str, float]) -> float:
    """Wall seconds of all 216 jobs; of fewer, scaled."""
    return one["wall_s"] * JOBS / one["jobs"]


def targets(found: dict[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """What was aimed at, what was measured, and whether it holds."""
    jobs = found["jobs"]
    if "cupel warm" in jobs:
        own = whole(jobs["cupel warm"])
        yield (
            f"{JOBS} jobs of 50 ms, warm: ≤ {2 * IDEAL_S:.1f} s, twice the ideal",
            f"{own:.1f} s",
            own <= 2 * IDEAL_S,
        )
        peers = {name: whole(one) for name, one in jobs.items() if name in found["versions"]}
        if peers:
            name = min(peers, key=lambda name: peers[name])
            told = f"{peers[name] / own:.1f} × ({found['versions'][name]})"
            yield "faster than every peer", told, peers[name] > own
    if large := found.get("large"):
        runs = f"{large['runs']:,} runs planned"
        claim, status = large["claim_median_ms"], large["status_s"]
        yield f"{runs}: a claim ≤ 5 ms", f"{claim:.1f} ms", claim <= 5
        yield f"{runs}: status ≤ 1 s", f"{status:.2f} s", status <= 1
        size = large["worker"]["rss_mb"]
        holds = size < 150 and not large["worker"]["torch"]
        yield f"{runs}: a worker < 150 MB, without torch", f"{size:.0f} MB", holds


def _job_table(found: dict[str, Any]) -> Iterator[str]:
    yield (
        f"\n| {JOBS} jobs of 50 ms, two at a time | version | s | × ideal | CPU ms a job | load |"
    )
    yield "|---|---|---:|---:|---:|---:|"
    for name, one in sorted(found["jobs"].items(), key=lambda item: whole(item[1])):
        scaled = "" if one["jobs"] == JOBS else f" ({one['jobs']:.0f} jobs, scaled)"
        yield (
            f"| {SHOWN[name]}{scaled} | {found['versions'].get(name, '')} | {whole(one):.1f} | "
            f"{whole(one) / IDEAL_S:.1f} | {1e3 * one['cpu_s'] / one['jobs']:.0f} | "
            f"{one['load']:.1f} |"
        )


def _large_table(large: dict[str, Any]) -> Iterator[str]:
    worker = large["worker"]
    yield f"\n| a plan of {large['runs']:,} runs, {large['accepted']:,} of them accepted | |"
    yield "|---|---:|"
    for told, value in (
        ("planning and freezing it, s", f"{large['plan_s']:.1f}"),
        ("status when nothing has begun, s", f"{large['status_new_s']:.2f}"),
        ("status, every record read, s", f"{large['status_first_s']:.2f}"),
        ("status, with the index, s", f"{large['status_s']:.2f}"),
        ("a claim, median, ms", f"{large['claim_median_ms']:.2f}"),
        ("a claim, 99th percentile, ms", f"{large['claim_p99_ms']:.2f}"),
        ("loading a worker and the plan, s", f"{worker['load_s']:.2f}"),
        ("memory of a worker, MB", f"{worker['rss_mb']:.0f}"),
        ("… at most, MB", f"{worker['peak_mb']:.0f}"),
    ):
        yield f"| {told} | {value} |"


def _fault_table(told: dict[str, Any]) -> Iterator[str]:
    plan, done, found = told["plan"], told["done"], told["found"]
    kills = done["kills"]
    outcomes = found["outcomes"]
    yield f"\n| a tormented sweep, {told['date']} | |"
    yield "|---|---:|"
    for name, value in (
        ("runs", plan["runs"]),
        ("processes killed: training", kills.get("job", 0)),
        ("… guards and zygotes", kills.get("guard", 0)),
        ("… workers", kills.get("worker", 0)),
        ("workers stopped with their runs for longer than the lease", done["pauses"]),
        ("seconds", round(done["seconds"])),
        ("runs accepted", found["accepted"]),
        ("sessions", found["sessions"]),
        ("… killed and judged", outcomes.get("killed", 0)),
        ("… lost with their worker", outcomes.get("nobody judged it", 0)),
        ("… that went on when they had a successor", found["zombies"]),
        ("broken promises", len(found["problems"])),
    ):
        yield f"| {name} | {value:,} |"


def _disturbed_table(told: dict[str, Any]) -> Iterator[str]:
    yield f"\n| loss-slope-smoke, left alone and disturbed, {told['date']} | |"
    yield "|---|---:|"
    failures = ", ".join(f"{n} {name}" for name, n in sorted(told["failures_injected"].items()))
    kills = " and ".join(map(str, told["processes_killed_with_the_command"]))
    counts = told["counts"]
    for name, value in (
        ("runs", f"{told['runs']:,}"),
        ("seconds, left alone", f"{told['quiet_s']:.0f}"),
        ("seconds, disturbed", f"{told['disturbed_s']:.0f}"),
        (f"failures that came ({failures})", f"{told['failures_met']:,}"),
        ("processes killed at once, the command included", kills),
        ("runs accepted, diverged, failed, missing", " / ".join(map(str, counts.values()))),
        ("what `study verify` found wrong", f"{told['problems']:,}"),
        ("numbers compared with those of the sweep left alone, all equal",
         f"{told['numbers_equal']:,}"),
    ):  # fmt: skip
        yield f"| {name} | {value} |"
