"""A measurement of run.py as Markdown: the targets and whether they hold, then every number."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

READING_S = {
    "one metric of 1,000,000 points, raw": 2.0,
    "one metric of 1,000,000 lines of ten scalars, raw": 2.0,
    "one metric of 1,000,000 points, compacted": 0.5,
    "2,000 buckets of 10,000,000 points, warm": 0.1,
    "table of 1,000 runs": 0.2,
    "table of 10,000 runs": 1.0,
}


def tables(found: dict[str, Any]) -> Iterable[str]:
    """The lines of the page."""
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
    if "log" in found:
        yield from _log_table(found["log"])
    if "kills" in found:
        yield from _kill_table(found["kills"])
    if "reading" in found:
        yield from _reading_table(found["reading"])
    if "checkpoint" in found:
        yield from _checkpoint_table(found["checkpoint"])


def targets(found: dict[str, Any]) -> Iterable[tuple[str, str, bool]]:
    """What was aimed at, what was measured, and whether it holds."""
    if "cupel" in found.get("log", {}):
        yield from _log_targets(found["log"], found.get("kills", {}))
    kills = found.get("kills", {}).get("cupel, as fast as it can")
    if kills:
        told = f"{kills['lost']:,} of {kills['returned']:,} in {kills['kills']} kills"
        yield "no returned call lost by `kill -9`", told, kills["lost"] == 0
    if "reading" in found:
        for name, most in READING_S.items():
            seconds = found["reading"]["seconds"][name]
            yield f"{name}: ≤ {most:g} s", f"{seconds:.3f} s", seconds <= most
        for name, most in (("raw", 40), ("compacted", 12)):
            size = found["reading"]["bytes_a_scalar"][name]
            yield f"bytes a scalar, {name}: ≤ {most}", f"{size:.1f}", size <= most
    if "checkpoint" in found:
        ratios = found["checkpoint"]["ratios"]
        for told, name, most in (
            ("checkpoint of 100 M parameters with AdamW stalls ≤ 0.2 × `torch.save`", "stall", 0.2),
            ("… and takes ≤ 1.5 × in all", "background", 1.5),
        ):
            ratio = ratios[f"{name} / torch.save"]["median"]
            yield told, f"{ratio:.2f} ×", ratio <= most


def _log_targets(
    costs: dict[str, dict[str, Any]], losses: dict[str, dict[str, Any]]
) -> Iterable[tuple[str, str, bool]]:
    own = costs["cupel"]
    yield "`log` of ten scalars: ≤ 10 µs", f"{own['median_us']:.1f} µs", own["median_us"] <= 10
    peers = {name: cost for name, cost in costs.items() if not name.startswith("cupel")}
    durable = {
        name: cost for name, cost in peers.items() if name in losses and losses[name]["lost"] == 0
    }
    for told, chosen, least in (
        ("5 × faster than the fastest peer that lost no call here", durable, 5),
        ("faster than every peer", peers, 1),
    ):
        if chosen:
            name = min(chosen, key=lambda name: float(chosen[name]["median_us"]))
            times = chosen[name]["median_us"] / own["median_us"]
            shown = f"{times:.1f} × ({name} {chosen[name]['version']})"
            yield f"`log` is {told}", shown, times >= least
    yield "import and init: ≤ 0.3 s", f"{own['open_s']:.2f} s", own["open_s"] <= 0.3


def _log_table(costs: dict[str, dict[str, Any]]) -> Iterable[str]:
    yield "\n| one call with ten scalars | version | median µs | × cupel | p99 µs | CPU µs |" + (
        " import + init s | bytes a scalar |"
    )
    yield "|---|---|---:|---:|---:|---:|---:|---:|"
    base = costs.get("cupel", {}).get("median_us")
    for name, cost in sorted(costs.items(), key=lambda item: item[1]["median_us"]):
        times = f"{cost['median_us'] / base:,.1f}" if base else "–"
        yield (
            f"| {name} | {cost['version']} | {cost['median_us']:,.1f} | {times} | "
            f"{cost['p99_us']:,.0f} | {cost['cpu_us']:,.1f} | {cost['open_s']:.2f} | "
            f"{cost['bytes_a_scalar']:,.1f} |"
        )


def _kill_table(losses: dict[str, dict[str, Any]]) -> Iterable[str]:
    yield "\n| `kill -9` in mid-stream | pace | kills | calls returned | lost | most at once |"
    yield "|---|---|---:|---:|---:|---:|"
    for name, loss in losses.items():
        pace = f"{1 / loss['pace']:,.0f} a second" if loss["pace"] else "none"
        yield (
            f"| {name} | {pace} | {loss['kills']} | {loss['returned']:,} | {loss['lost']:,} | "
            f"{loss['most_lost']:,} |"
        )


def _reading_table(found: dict[str, Any]) -> Iterable[str]:
    yield "\n| reading | seconds |"
    yield "|---|---:|"
    for name, seconds in found["seconds"].items():
        yield f"| {name} | {seconds:.3f} |"


def _checkpoint_table(found: dict[str, Any]) -> Iterable[str]:
    size = found["bytes"] / 1e9
    yield (
        f"\n| checkpoint of {found['parameters']:,} parameters with AdamW, {size:.1f} GB, "
        f"torch {found['torch']} | first | median of {found['rounds']} later |"
    )
    yield "|---|---:|---:|"
    for key, seconds in found["median"].items():
        yield f"| {key.replace('_', ' ')}, s | {found['first'][key]:.3f} | {seconds:.3f} |"
    for name, ratio in found["ratios"].items():
        yield f"| {name} | {ratio['first']:.2f} | {ratio['median']:.2f} |"
