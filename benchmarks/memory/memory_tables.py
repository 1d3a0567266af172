"""The tables of `make bench-memory`: what was aimed at, met or missed, and all measured times."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

# depth, pass: the least ratio of titans-pytorch's CPU time to ours, by mode
TARGETS = {
    (1, "forward"): {"paper": 30.0},
    (1, "both"): {"paper": 25.0, "chunk gates": 2.0, "default": 1.0, "token by token": 15.0},
    (2, "forward"): {"paper": 30.0},
    (2, "both"): {"paper": 35.0, "chunk gates": 1.5, "default": 1.0},
}
MEMORY_TARGET, GROWTH_TARGET, ORACLE_TARGET, SAME = 5.0, 4.2, 5.0, 1e-12
PASSES = {"forward": "forward", "both": "forward and backward"}
MODES = {
    "paper": "the paper's rule", "chunk gates": "one gate a chunk",
    "default": "all gradients at the first weights", "token by token": "token by token",
}  # fmt: skip


def tables(found: dict[str, Any]) -> Iterator[str]:
    """Markdown, line by line."""
    machine = found["machine"]
    yield ""
    yield (
        f"{machine['date']}, Python {machine['python']}, {machine['system']}, {machine['cpus']} "
        f"CPUs, {found['torch']}, {found['peer']}; load average "
        f"{machine['load_average_before']:.1f} before, {machine['load_average_after']:.1f} after; "
        f"one thread, medians of {found['turns']} turns, CPU time."
    )
    yield from ("", "| target | measured | holds |", "|---|---:|---|")
    for told, measured, holds in _targets(found):
        yield f"| {told} | {measured} | {'yes' if holds else '**no**'} |"
    yield from ("", "| ms | cupel |" + "".join(f" {name} |" for name in MODES.values()))
    yield "|---|---:|" + "---:|" * len(MODES)
    for name, told in found["time"].items():
        depth, which = name.split()
        cells = [told[mode]["ms"] if mode in told else None for mode in ("cupel", *MODES)]
        shown = "".join(" – |" if cell is None else f" {cell:,.1f} |" for cell in cells)
        yield f"| depth {depth}, {PASSES[which]} |{shown}"
    yield from (
        "",
        "| 1,024 tokens, forward, ms | in chunks | token by token | |",
        "|---|" + "---:|" * 3,
    )
    for name, told in found["oracles"].items():
        ratio = told["sequential"] / told["chunk"]
        yield f"| {name} | {told['chunk']:.1f} | {told['sequential']:,.0f} | {ratio:.1f} × |"


def _targets(found: dict[str, Any]) -> Iterator[tuple[str, str, bool]]:
    for size, told in found["same"].items():
        worst = max(told.values())
        yield (
            f"same numbers in float64 (depth, tokens {size}): ≤ {SAME:g}",
            f"outputs {told['outputs']:.1e}, gradients {told['gradients']:.1e}",
            worst <= SAME,
        )
    for (depth, which), modes in TARGETS.items():
        told = found["time"][f"{depth} {which}"]
        for mode, least in modes.items():
            ratio = told[mode]["ms"] / told["cupel"]["ms"]
            what = f"depth {depth}, {PASSES[which]}, against {MODES[mode]}: ≥ {least:g} ×"
            yield what, f"{ratio:.1f} ×" if ratio >= 9.95 else f"{ratio:.2f} ×", ratio >= least
    growth = found["growth"]["4096"] / found["growth"]["1024"]
    yield (
        f"from 1,024 to 4,096 tokens: ≤ {GROWTH_TARGET} ×",
        f"{growth:.2f} ×",
        growth <= GROWTH_TARGET,
    )
    for depth in (1, 2):
        mine, theirs = found["memory"][f"{depth} cupel"], found["memory"][f"{depth} paper"]
        ratio = theirs / max(mine, 0.1)
        yield (
            f"extra memory, depth {depth}, against the paper's rule: ≥ {MEMORY_TARGET:g} × less",
            f"{ratio:.1f} × ({mine:.0f} and {theirs:.0f} MB)",
            ratio >= MEMORY_TARGET,
        )
    for name, told in found["oracles"].items():
        ratio = told["sequential"] / told["chunk"]
        yield (
            f"{name}, in chunks: ≥ {ORACLE_TARGET:g} × its loop",
            f"{ratio:.1f} ×",
            ratio >= ORACLE_TARGET,
        )
