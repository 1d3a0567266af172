"""Enters a study's numbers into the ledger: of every arm, and of every comparison.

What a field is, which file it comes from and what was done with it stands beside it here, and
nowhere else; tables and sentences take the texts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from cupel.analysis.comparison import POWER, Card
from cupel.report.ledger import ABSENT, Ledger
from cupel.studies.outcome import Outcome
from cupel.studies.runs import RunOutcome, bits_per_byte, in_nats, mean_of, perplexity


def name_of(arm: str, point: str) -> str:
    """How an arm at a point is called in the ledger."""
    return f"{arm}@{point}" if point else arm


def enter_all(found: Outcome, ledger: Ledger) -> None:
    """Every number that tables and sentences may print."""
    for point in found.points:
        for arm in found.arms:
            _enter_arm(found, ledger, arm, point)
    for card in found.cards:
        _enter_card(found, ledger, card)
    study = found.manifest.study
    ledger.enter("runs.planned", len(found.runs), source="manifest.json: runs")
    ledger.enter("runs.finished", found.finished, source="results.json is there")
    ledger.enter("seeds", len(study.seeds), source="manifest.json: study.seeds")
    ledger.enter("comparisons", len(found.cards), source="arms but the baseline × points")
    ledger.enter(
        "confidence", 100 * study.compare.confidence, "g", unit=" %",
        source="manifest.json: study.compare.confidence",
    )  # fmt: skip
    ledger.enter("margin", study.compare.margin, "g", source="manifest.json: study.compare.margin")


def _enter_arm(found: Outcome, ledger: Ledger, arm: str, point: str) -> None:
    name, primary = name_of(arm, point), found.manifest.study.primary
    done = [run for run in found.of(arm, point) if run.finished]
    ledger.enter(f"{name}.n", len(done), source="runs with results.json")
    last, best = _finite([run.last for run in done]), _finite([run.best for run in done])
    values = last if primary.statistic == "last" else best
    of = f"over {len(done)} finished runs"
    _enter_spread(ledger, f"{name}.last", last, f"results.json: final.{primary.metric}", of)
    rule = {"lower": "lowest", "higher": "highest"}[primary.better]
    _enter_spread(
        ledger, f"{name}.best", best, f"metrics.jsonl: {rule} {primary.metric} of each run", of
    )
    ema = _finite([run.ema for run in done])
    if ema:
        _enter_spread(ledger, f"{name}.ema", ema, f"results.json: final.{primary.metric}_ema", of)
    for key in others(found, point):
        _enter_other(ledger, f"{name}.final.{key}", key, done)
    if any(in_nats(run, primary.metric) for run in found.runs):
        _enter_units_of_loss(ledger, name, fmean(values) if values else None, done)
    mean = f"mean {of}"
    for field, form, source in (
        ("units", ",.0f", "results.json: totals"),
        ("units_per_s", ",.0f", "results.json: totals, units / wall_s"),
        ("wall_s", ",.1f", "results.json: totals.wall_s"),
        ("cpu_s", ",.1f", "results.json: totals.cpu_s"),
        ("flops", ".3e", "results.json: totals.flops"),
        ("parameters", ",.0f", "model.json: parameters"),
        ("steps", ",.0f", "results.json: step"),
    ):
        value = mean_of(getattr(run, field) for run in done)
        ledger.enter(f"{name}.{field}", value, form, source=f"{source}, {mean}")


def _enter_other(ledger: Ledger, name: str, key: str, done: Sequence[RunOutcome]) -> None:
    """A metric of any size: its values are what others' code has measured."""
    values = _finite([run.final.get(key) for run in done])
    largest = max(map(abs, values), default=0.0)
    form = ".4f" if largest == 0 or 1e-2 <= largest < 1e6 else ".3e"
    of = f"over the {len(values)} of {len(done)} finished runs in which it is finite"
    ledger.enter(f"{name}.n", len(values), source=f"results.json: final.{key}, finite values")
    _enter_spread(ledger, name, values, f"results.json: final.{key}", of, form)


def others(found: Outcome, point: str) -> list[str]:
    """What the final evaluation measured besides the primary metric, in the order of records."""
    primary = found.manifest.study.primary.metric
    done = [run for run in found.runs if run.finished and run.run.point == point]
    keys = [key for run in done for key in run.final]
    return [key for key in dict.fromkeys(keys) if key not in (primary, f"{primary}_ema")]


def _enter_spread(
    ledger: Ledger, name: str, values: Sequence[float], source: str, of: str, form: str = ".4f"
) -> None:
    try:
        mean = fmean(values) if values else None
        deviation = stdev(values) if len(values) > 1 else None
    except OverflowError:  # of numbers near the largest there are
        mean = deviation = None
    ledger.enter(f"{name}.mean", mean, form, source=f"{source}, mean {of}")
    ledger.enter(f"{name}.sd", deviation, form, source=f"{source}, standard deviation {of}")


def _enter_units_of_loss(
    ledger: Ledger, name: str, mean: float | None, done: Sequence[RunOutcome]
) -> None:
    size = next((run.bytes_per_token for run in done), None)
    exp = None if mean is None else perplexity(mean)
    ledger.enter(f"{name}.perplexity", exp, ".3f", source="e to the mean loss")
    bits = None if mean is None or size is None else bits_per_byte(mean, size)
    ledger.enter(
        f"{name}.bits_per_byte", bits, ".4f",
        source="mean loss / ln 2 / run.json: data.bytes_per_token.val",
    )  # fmt: skip


def _enter_card(found: Outcome, ledger: Ledger, card: Card) -> None:
    name = f"{name_of(card.arm, card.point)}.difference"
    statistic = found.manifest.study.primary.statistic
    what = f"{statistic} {found.manifest.study.primary.metric}, {card.arm} − {card.baseline}"
    ledger.enter(f"{name}.n", card.n, source="seeds with a finite value on both sides")
    for seed, value in card.differences.items():
        ledger.enter(f"{name}.seed{seed}", value, "+.4f", source=f"{what}, seed {seed}")
    ledger.enter(f"{name}.mean", card.mean, "+.4f", source=f"{what}, mean of pairs")
    level = f"{100 * card.confidence:.4g} %"
    for side, at in (("low", 0), ("high", 1)):
        end = None if card.interval is None else card.interval[at]
        ledger.enter(f"{name}.{side}", end, "+.4f", source=f"{what}, {level} t interval")
        end = None if card.narrow is None else card.narrow[at]
        ledger.enter(f"{name}.narrow.{side}", end, "+.4f", source=f"{what}, margin's t interval")
    ledger.enter(f"{name}.sd", card.sd, ".4f", source=f"{what}, standard deviation of pairs")
    ledger.enter(f"{name}.correlation", card.correlation, ".2f", source="Pearson's, of the pairs")
    ledger.enter(f"{name}.p", card.p, ".2g", source=f"{what}, paired t test, two-sided")
    ledger.enter(
        f"{name}.p_adjusted", card.p_adjusted, ".2g",
        source=f"p, corrected for {card.comparisons} comparisons",
    )  # fmt: skip
    ledger.enter(
        f"{name}.detectable", card.detectable, ".4f",
        source=f"true difference that n pairs of this sd show with probability {POWER}",
    )  # fmt: skip
    for field in ("parameters", "cpu_s", "flops"):
        ledger.enter(
            f"{name}.{field}_percent", excess(found, card, field), "+.1f", unit=" %",
            source=f"{field} of {card.arm} over {card.baseline}, minus 1",
        )  # fmt: skip


def excess(found: Outcome, card: Card, field: str) -> float | None:
    """By how many per cent an arm's mean of a field lies above the baseline's."""
    one, two = (
        mean_of(getattr(run, field) for run in found.of(arm, card.point) if run.finished)
        for arm in (card.arm, card.baseline)
    )
    return None if one is None or not two else 100 * (one / two - 1)


def with_sd(ledger: Ledger, name: str) -> str:
    """`mean ± sd`, or as much of it as there is."""
    mean, deviation = ledger[f"{name}.mean"], ledger[f"{name}.sd"]
    if mean == ABSENT:
        return "–"
    return mean if deviation == ABSENT else f"{mean} ± {deviation}"


def _finite(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None and math.isfinite(value)]
