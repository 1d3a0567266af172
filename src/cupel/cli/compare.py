"""`cupel study compare STUDY`: arms side by side, then a card for each, then what was not equal.

The interval comes first and the verdict last; a comparison that cannot be made says why. All of
it fits 60 columns; a wider terminal shows more arms beside each other.
"""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cupel.cli.root import Root, runs_root

if TYPE_CHECKING:
    from cupel.analysis.comparison import Card
    from cupel.studies.manifest import Manifest
    from cupel.studies.outcome import Outcome

ABSENT = "not recorded"


def compare(
    study: Annotated[str, typer.Argument(help="A study's name, project/name, or its folder.")],
    root: Root = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare a study's arms with its baseline, as it declared before its first run.

    \b
    cupel study compare quickstart
    cupel study compare quickstart --json
    """
    from cupel.cli.tables import print_json
    from cupel.studies.manifest import find_study, load_manifest
    from cupel.studies.outcome import outcome

    manifest = load_manifest(find_study(runs_root(root), study))
    if json:
        print_json(comparison_facts(outcome(manifest)))
    else:
        print_comparison(manifest)


def print_comparison(manifest: Manifest) -> None:
    """Print the whole comparison to stdout."""
    from cupel.cli.tables import printable
    from cupel.studies.outcome import outcome

    found = outcome(manifest)
    width = max(50, min(100, shutil.get_terminal_size().columns))
    lines = [
        *_wrapped(manifest.study.question, width),
        *_wrapped(_declared(found), width),
        *_progress(found, width),
        *(line for point in found.points for line in _table(found, point, width)),
        *(line for card in found.cards for line in _card(found, card, width)),
        *_unequal(found, width),
        *_failures(found, width),
    ]
    plain = _is_utf8(sys.stdout.encoding)
    for line in lines:
        text = printable(line.rstrip())
        print(text if plain else text.translate(_ASCII).encode("ascii", "replace").decode())


def comparison_facts(found: Outcome) -> dict[str, Any]:
    """Everything that is printed and more, as plain data."""
    from dataclasses import asdict

    return {
        "study": found.manifest.name,
        "question": found.manifest.study.question,
        "primary": found.manifest.study.primary.model_dump(),
        "compare": {**found.manifest.study.compare.model_dump(), "baseline": found.baseline},
        "planned": len(found.runs),
        "finished": found.finished,
        "runs": [
            {**asdict(run.run), **_without(asdict(run), "run", "evaluations")} for run in found.runs
        ],
        "cards": [
            {**_keyed(asdict(card)), "n": card.n, "complete": card.complete} for card in found.cards
        ],
        "unequal": [asdict(one) for one in found.unequal],
    }


def _without(fields: dict[str, Any], *names: str) -> dict[str, Any]:
    kept = {name: value for name, value in fields.items() if name not in names}
    return {**kept, "run_dir": str(kept["run_dir"])}


def _keyed(card: dict[str, Any]) -> dict[str, Any]:
    """JSON has text for keys only."""
    differences = {str(seed): value for seed, value in card["differences"].items()}
    return {**card, "differences": differences}


def _declared(found: Outcome) -> str:
    study = found.manifest.study
    margin = "no margin" if study.compare.margin is None else f"margin ±{study.compare.margin:g}"
    names = {"tests": "paired t tests", "exact": "exact sign-flip tests"}
    name = names.get(study.compare.kind)
    tests = f", {name} ({study.compare.correction})" if name else ""
    return (
        f"Decided by {study.primary.metric} ({study.primary.statistic}), {study.primary.better} "
        f"is better; {study.compare.confidence * 100:g} % t intervals{tests}; {margin}; "
        f"seeds {', '.join(map(str, study.seeds))}."
    )


def _progress(found: Outcome, width: int) -> list[str]:
    if found.finished == len(found.runs):
        return [""]
    text = f"{found.finished} of {len(found.runs)} runs are finished; this comparison may change."
    return [*_wrapped(text, width), ""]


def _table(found: Outcome, point: str, width: int) -> list[str]:
    """Rows of quantities, a column an arm; as many arms beside each other as fit."""
    columns = [[arm, *_column(found, arm, point)] for arm in found.arms]
    labels = ["", *_labels(found)]
    first = max(map(len, labels))
    widths = [max(len(cell) for cell in column) for column in columns]
    lines = [f"At {point}", ""] if point else []
    shown = list(range(len(columns)))
    while shown:
        fitting: list[int] = []
        used = first
        while shown and (not fitting or used + 2 + widths[shown[0]] <= width):
            used += 2 + widths[shown[0]]
            fitting.append(shown.pop(0))
        for row, label in enumerate(labels):
            cells = [columns[c][row].rjust(widths[c]) for c in fitting]
            lines.append("  ".join([label.ljust(first), *cells]))
        lines.append("")
    return lines


def _labels(found: Outcome) -> list[str]:
    from cupel.studies.runs import in_nats

    primary = found.manifest.study.primary
    losses = any(in_nats(run, primary.metric) for run in found.runs)
    other = "best" if primary.statistic == "last" else "last"
    return [
        "runs finished",
        f"{primary.metric}, {primary.statistic}",
        f"{primary.metric}, {other}",
        *(["perplexity", "bits a byte"] if losses else []),
        f"{_unit(found)} a second",
        f"{_unit(found)} a run",
        "parameters",
        "FLOPs a run",
        "CPU s a run",
    ]


def _column(found: Outcome, arm: str, point: str) -> list[str]:
    from cupel.studies.runs import bits_per_byte, in_nats, mean_of, perplexity

    runs = found.of(arm, point)
    done = [run for run in runs if run.finished]
    primary = found.manifest.study.primary
    values = [run.value for run in done if run.value is not None and math.isfinite(run.value)]
    others = [run.best if primary.statistic == "last" else run.last for run in done]
    losses: list[str] = []
    if any(in_nats(run, primary.metric) for run in found.runs):
        mean, size = mean_of(values), next((r.bytes_per_token for r in done), None)
        losses = [ABSENT, ABSENT]
        if mean is not None:
            bits = ABSENT if size is None else f"{bits_per_byte(mean, size):.4f}"
            losses = [f"{perplexity(mean):.3f}", bits]
    return [
        f"{len(done)}/{len(runs)}",
        _spread(values),
        _spread([value for value in others if value is not None]),
        *losses,
        _count(mean_of(run.units_per_s for run in done)),
        _count(mean_of(run.units for run in done)),
        _count(mean_of(run.parameters for run in done)),
        _scientific(mean_of(run.flops for run in done)),
        _count(mean_of(run.cpu_s for run in done), digits=1),
    ]


def _unit(found: Outcome) -> str:
    return next((run.unit for run in found.runs if run.finished), "tokens")


def _spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation over seeds."""
    from statistics import fmean, stdev

    if not values:
        return "–"
    return f"{fmean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")


def _count(value: float | None, *, digits: int = 0) -> str:
    return ABSENT if value is None else f"{value:,.{digits}f}"


def _scientific(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.3g}"


def _card(found: Outcome, card: Card, width: int) -> list[str]:
    """One comparison: the mean difference with its interval, the seeds, the verdict."""
    at = f" at {card.point}" if card.point else ""
    lines = [f"{card.arm} − {card.baseline}{at}", *_wrapped(f"  {_headline(card)}", width)]
    if card.n:
        seeds = ", ".join(f"{seed}: {value:+.4f}" for seed, value in card.differences.items())
        lines += [f"  {_dots(card, width - 4)}", *_wrapped(f"  seeds {seeds}", width)]
    lines += [*_wrapped(f"  n = {card.n} pairs{_absent(card)}", width)]
    if details := _details(card):
        lines += _wrapped(f"  {details}", width)
    verdict = card.verdict or "no verdict"
    return [*lines, *_wrapped(f"  → {verdict}: {card.reason}", width), ""]


def _headline(card: Card) -> str:
    if card.mean is None:
        return "no difference can be taken"
    if card.interval is None:
        return f"the one difference is {card.mean:+.4f}, without an interval"
    low, high = card.interval
    kind = f"{card.confidence * 100:.4g} % t interval"
    if card.simultaneous:
        kind += f", so that all {card.comparisons} hold together"
    return f"mean difference {card.mean:+.4f} [{low:+.4f}, {high:+.4f}], {kind}"


def _absent(card: Card) -> str:
    """Which seeds are not in it, and why, on both sides."""
    parts = []
    for word, arm, seeds in (
        ("missing", card.arm, card.missing_arm),
        ("missing", card.baseline, card.missing_baseline),
        ("diverged", card.arm, card.diverged_arm),
        ("diverged", card.baseline, card.diverged_baseline),
    ):
        if seeds:
            parts.append(f"{word} in {arm}: {', '.join(map(str, seeds))}")
    return f"; {'; '.join(parts)}" if parts else "; no seed is missing"


def _details(card: Card) -> str:
    parts = []
    if card.p_adjusted is not None:
        parts.append(f"p {card.p:.4f}, adjusted {card.p_adjusted:.4f}")
    if card.sd is not None:
        parts.append(f"sd {card.sd:.4f}")
    if card.correlation is not None:
        parts.append(f"pairs correlate by {card.correlation:.2f}")
    if card.detectable is not None:
        parts.append(f"a true difference of {card.detectable:.4f} would show 8 times in 10")
    return "; ".join(parts)


def _dots(card: Card, columns: int) -> str:
    """Seeds as dots, the interval in brackets, zero as a bar, on one line of characters."""
    values = [*card.differences.values(), *(card.interval or ()), 0.0]
    low, high = min(values), max(values)
    scale = (columns - 1) / ((high - low) or 1.0)
    place = [round((value - low) * scale) for value in values]
    line = [" "] * columns
    if card.interval is not None:
        start, end = place[card.n], place[card.n + 1]
        line[start : end + 1] = ["─"] * (end + 1 - start)
        line[start], line[end] = "[", "]"
    line[place[-1]] = "0"
    for seed in place[: card.n]:
        line[seed] = "●"
    return "".join(line).rstrip()


def _unequal(found: Outcome, width: int) -> list[str]:
    if not found.unequal:
        return ["Equal between arms: everything that is compared.", ""]
    lines = [f"Not equal to {found.baseline}"]
    for one in found.unequal:
        base, other = one.values
        lines += _wrapped(f"  {one.arm}: {one.name} {other}, not {base}", width)
    return [*lines, ""]


def _failures(found: Outcome, width: int) -> list[str]:
    lines = []
    for run in found.runs:
        if not run.finished or run.reason:
            lines += _wrapped(f"  {run.run.run_id}: {run.status}: {run.reason}", width)
    return ["Runs without a value", *lines, ""] if lines else []


def _wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width`; what follows the first is indented two more than it."""
    import textwrap

    indent = " " * (len(text) - len(text.lstrip()))
    return textwrap.wrap(
        text, width, subsequent_indent=f"{indent}  " if indent else "", break_on_hyphens=False
    )


def _is_utf8(encoding: str | None) -> bool:
    return (encoding or "ascii").lower().replace("-", "").replace("_", "") == "utf8"


_ASCII = str.maketrans({"−": "-", "±": "+-", "●": "o", "─": "-", "→": "=>", "–": "-", "…": "..."})
