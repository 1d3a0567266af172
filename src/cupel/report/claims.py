"""The sentences that a report may write, each with the rule that decides whether it does.

A rule looks at numbers and at nothing else. A verdict's words (`better`, `worse`, `equivalent`)
stand in the sentence of that verdict only; `undecided` is never called a tie or no difference.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from cupel.analysis.comparison import POWER, Card
from cupel.report.blocks import named, plain
from cupel.report.entries import excess, name_of
from cupel.report.ledger import Claim, Ledger
from cupel.studies.outcome import Outcome
from cupel.studies.runs import mean_of
from cupel.studies.unequal import dotted, unequal_settings

UNEQUAL_SIZE = 2.0  # per cent of parameters from which the answer itself tells of them
_UNEQUAL_COST = 5.0  # per cent of CPU seconds: less is noise of the clock
_NORMAL_FROM = 10  # pairs from which the t interval forgives skewed differences


def answers(found: Outcome, ledger: Ledger, card: Card) -> Iterator[Claim]:
    """What one comparison answers: a sentence with its verdict, and what is not in it."""
    arm, base = f"**{plain(card.arm)}**", f"**{plain(card.baseline)}**"
    metric = _metric(found)
    at = f" at {plain(card.point)}" if card.point else ""
    name = f"{name_of(card.arm, card.point)}.difference"
    evidence = tuple(f"{name}.{part}" for part in ("mean", "low", "high", "n"))
    interval = f"the mean difference is {_measured(ledger, card, name)}{_size(found, ledger, card)}"
    verdict = card.verdict
    level = "1 − 2α" if found.manifest.study.compare.correction == "none" else "1 − 2α/m"
    for word in ("better", "worse"):
        yield Claim(
            f"{arm} is {word} than {base} on {metric}{at}: {interval}.", verdict == word, evidence
        )
    yield Claim(
        f"{arm} and {base} are equivalent on {metric}{at} within the margin of "
        f"±{ledger['margin']} that was declared beforehand: {interval}, and the interval at "
        f"{level}, [{ledger[f'{name}.narrow.low']}, {ledger[f'{name}.narrow.high']}], lies inside "
        "the margin.",
        verdict == "equivalent",
        (*evidence, "margin", f"{name}.narrow.low", f"{name}.narrow.high"),
    )
    yield Claim(
        f"It is undecided whether {arm} and {base} differ on {metric}{at}: {interval}; "
        f"{plain(card.reason)}.",
        verdict == "undecided",
        evidence,
    )
    yield Claim(
        f"A true difference of {ledger[f'{name}.detectable']} would show in {POWER * 10:g} of 10 "
        "studies of this size; a smaller one would be missed more often.",
        verdict == "undecided" and card.detectable is not None,
        (f"{name}.detectable",),
    )
    yield Claim(
        f"There is no verdict on {arm} against {base}{at}: {plain(card.reason)}.",
        verdict is None,
        (f"{name}.n",),
    )
    yield Claim(
        f"The one pair of runs differs by {ledger[f'{name}.mean']} "
        f"(n = {ledger[f'{name}.n']}, no interval){_size(found, ledger, card)}.",
        verdict is None and card.mean is not None,
        (f"{name}.mean",),
    )
    yield from _absences(card)


def _measured(ledger: Ledger, card: Card, name: str) -> str:
    kind = f"{100 * card.confidence:.4g} % t interval"
    return (
        f"{ledger[f'{name}.mean']} ({kind} [{ledger[f'{name}.low']}, {ledger[f'{name}.high']}], "
        f"n = {ledger[f'{name}.n']} paired seeds)"
    )


def _size(found: Outcome, ledger: Ledger, card: Card) -> str:
    """A clause on parameters, from 2 % on."""
    percent = excess(found, card, "parameters")
    if percent is None or abs(percent) <= UNEQUAL_SIZE:
        return ""
    own, theirs = (
        ledger[f"{name_of(arm, card.point)}.parameters"] for arm in (card.arm, card.baseline)
    )
    entered = ledger[f"{name_of(card.arm, card.point)}.difference.parameters_percent"]
    return f", between models of unequal size ({own} parameters against {theirs}, {entered})"


def _absences(card: Card) -> Iterator[Claim]:
    for arm, missing, diverged in (
        (card.arm, card.missing_arm, card.diverged_arm),
        (card.baseline, card.missing_baseline, card.diverged_baseline),
    ):
        yield Claim(f"Missing: {_seeds(missing)} of **{plain(arm)}**.", bool(missing))
        yield Claim(
            f"Diverged: {_seeds(diverged)} of **{plain(arm)}**; the comparison is of seeds that "
            "did not diverge on either side.",
            bool(diverged),
        )


def _seeds(seeds: tuple[int, ...]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def discussion(found: Outcome, ledger: Ledger) -> Iterator[Claim]:
    """What the verdicts rest on, and what they do not say."""
    yield from _contributions(found, ledger)
    for card in found.cards:
        yield from _about_card(found, ledger, card)
    study = found.manifest.study
    decided = [card for card in found.cards if card.verdict is not None]
    yield Claim(
        f"{ledger['comparisons']} comparisons were made, each at {ledger['confidence']} on its "
        "own: that at least one of them misleads is likelier than that a given one does.",
        len(decided) > 1 and study.compare.correction == "none",
        ("comparisons", "confidence"),
    )
    tests = study.compare.kind != "interval" and bool(decided)
    yield Claim(
        "*Better* and *worse* go by p values corrected for the family of comparisons, "
        "*equivalent* by intervals at 1 − 2α/m for m comparisons; the intervals that are printed "
        "are not adjusted, each holds on its own.",
        tests and study.compare.correction == "holm",
    )
    yield Claim(
        "*Better* and *worse* go by exact sign-flip tests, which assume no distribution; the t "
        "intervals beside them assume differences that are about normal, so the two may disagree.",
        study.compare.kind == "exact" and bool(decided),
    )
    yield Claim(
        "The intervals are widened so that all of them hold together, as do the corrected p "
        "values by which *better* and *worse* go.",
        tests and any(card.simultaneous for card in decided),
    )
    yield Claim(
        "What decides is the extreme of all evaluations of a run, which flatters every arm, and "
        "flatters more the noisier its evaluations are.",
        study.primary.statistic == "best",
    )
    yield Claim(
        "The arms' means stand in another order by the other statistic (last evaluation against "
        "extreme of all): what was declared decides, and the two are not mixed.",
        _order(found, "last") != _order(found, "best"),
    )
    few = [card for card in decided if card.n < _NORMAL_FROM]
    yield Claim(
        "With so few pairs a t interval rests on differences being about normal; it covers "
        "skewed ones less often than it says.",
        bool(few),
    )
    cells = found.manifest.cells
    rates = any(path.endswith(".lr") for path in study.grid)
    rates |= len({dotted(cell.config, "train.optimizer.lr") for cell in cells}) > 1
    yield Claim(
        "No learning rate was searched for in this study; a verdict holds for the rates that were "
        "set, and another rate may change it.",
        bool(decided) and not rates,
    )
    yield Claim(
        "Runs trained beside each other on one machine, so seconds tell costs roughly.",
        study.workers > 1 and any(run.finished for run in found.runs),
    )
    data = {run.data for run in found.runs if run.data}
    yield Claim(
        "All runs saw one corpus, at one length of training: nothing is said about others.",
        len(data) == 1 and len({run.steps for run in found.runs if run.finished}) == 1,
    )


def _about_card(found: Outcome, ledger: Ledger, card: Card) -> Iterator[Claim]:
    arm, base = f"**{plain(card.arm)}**", f"**{plain(card.baseline)}**"
    at = f" at {plain(card.point)}" if card.point else ""
    causes = _causes(found, card)
    yield Claim(
        f"{arm}{at} differs from {base} in several things at once ({', '.join(causes)}): a "
        "difference cannot be put down to one of them.",
        len(causes) > 1 and card.verdict is not None,
    )
    percent = excess(found, card, "cpu_s")
    name = f"{name_of(card.arm, card.point)}.difference"
    yield Claim(
        f"A run of {arm}{at} costs {ledger[f'{name}.cpu_s_percent']} CPU seconds against one of "
        f"{base}: of equal time this comparison says nothing.",
        percent is not None and abs(percent) > _UNEQUAL_COST,
        (f"{name}.cpu_s_percent",),
    )
    yield Claim(
        f"In the pairs of {arm}{at} all differences are the same up to rounding: look whether the "
        "seed reaches the runs.",
        card.sd == 0,
    )


def _contributions(found: Outcome, ledger: Ledger) -> Iterator[Claim]:
    """Which changes measurably move the metric most; only arms with a verdict are ranked."""
    for point in found.points:
        cards = [card for card in found.cards if card.point == point]
        moved = [card for card in cards if card.verdict in ("better", "worse")]
        moved.sort(key=lambda card: -abs(card.mean or 0))
        names = [name_of(card.arm, card.point) for card in moved]
        listed = ", ".join(
            f"**{plain(card.arm)}** ({ledger[f'{name}.difference.mean']})"
            for card, name in zip(moved, names, strict=True)
        )
        at = f" at {plain(point)}" if point else ""
        apart = len(moved) > 1 and _apart(moved[0], moved[1])
        order = "" if apart else "; the first two intervals overlap, so their order is not settled"
        yield Claim(
            f"Ranked by the size of the mean difference{at}, of the arms that have a verdict "
            f"against the baseline: {listed}{order}.",
            len(moved) > 1,
            tuple(f"{name}.difference.mean" for name in names),
        )


def _apart(one: Card, two: Card) -> bool:
    """Whether the intervals of two effects' sizes do not overlap."""
    sizes = []
    for card in (one, two):
        assert card.interval is not None, card
        sizes.append(sorted(abs(end) for end in card.interval))
    return sizes[0][0] > sizes[1][1]


def _causes(found: Outcome, card: Card) -> list[str]:
    """Which settings differ between two arms; a component of another kind is one of them."""
    names = [named(one.name) for one in unequal_settings(found.manifest, card.arm, card.point)]
    return [name if name.startswith("`") else f"the {name}" for name in names]


def _order(found: Outcome, statistic: str) -> list[tuple[str, str]]:
    """Arms and points in the order of their means, among those with values."""
    means = {
        (arm, point): mean_of(getattr(r, statistic) for r in found.of(arm, point) if r.finished)
        for point in found.points
        for arm in found.arms
    }
    known = {k: mean for k, mean in means.items() if mean is not None and math.isfinite(mean)}
    return sorted(known, key=lambda key: known[key])


def _metric(found: Outcome) -> str:
    primary = found.manifest.study.primary
    return f"`{primary.metric}` ({primary.statistic})"
