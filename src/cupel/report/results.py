"""The parts of a report that hold numbers: table of arms, a table for each comparison, failures."""

from __future__ import annotations

from collections.abc import Iterator

from cupel.analysis.comparison import Card
from cupel.report.blocks import Block, Bullets, Code, Heading, Paragraph, Table, named, plain
from cupel.report.claims import answers
from cupel.report.entries import name_of, others, with_sd
from cupel.report.ledger import ABSENT, Ledger
from cupel.studies.outcome import Outcome


def banner(found: Outcome, ledger: Ledger) -> list[Block]:
    """A word at the top while runs are missing."""
    if found.finished == len(found.runs):
        return []
    told = (
        f"**{ledger['runs.finished']} of {ledger['runs.planned']} runs are finished; this report "
        "may change.**"
    )
    return [Paragraph(told)]


def abstract(found: Outcome, ledger: Ledger) -> list[Block]:
    """The answer: what every comparison came to, and then what each side of them cost."""
    told = [" ".join(ledger.told(answers(found, ledger, card))) for card in found.cards]
    if not told:
        return [Paragraph("There is one arm, so there is nothing to compare.", lead=True)]
    return [*(Paragraph(text, lead=True) for text in told), _costs_table(found, ledger)]


def _costs_table(found: Outcome, ledger: Ledger) -> Table:
    """A row an arm and point; always there, whatever the numbers."""
    fields = {
        "parameters": "parameters",
        _unit(found): "units",
        "FLOPs": "flops",
        "CPU seconds": "cpu_s",
        "wall seconds": "wall_s",
    }
    rows = []
    for point in found.points:
        for arm in found.arms:
            told = f"{plain(arm)}{f' at {plain(point)}' if point else ''}"
            name = name_of(arm, point)
            rows.append([told, *(ledger[f"{name}.{field}"] for field in fields.values())])
    caption = (
        "What a run costs, the baseline's first: means over finished runs. FLOPs are those of "
        "matrix products."
    )
    return Table(caption, ["", *fields], rows)


def _unit(found: Outcome) -> str:
    return next((run.unit for run in found.runs if run.finished), "units")


def arms_table(found: Outcome, ledger: Ledger, point: str) -> Table:
    """A column an arm, a row a quantity."""
    primary = found.manifest.study.primary
    unit = _unit(found)
    names = [name_of(arm, point) for arm in found.arms]
    rows = [
        ["runs finished", *(f"{ledger[f'{n}.n']} of {ledger['seeds']}" for n in names)],
        [f"`{primary.metric}`, last evaluation", *(with_sd(ledger, f"{n}.last") for n in names)],
        [
            f"`{primary.metric}`, {primary.better[:-2]}est evaluation",
            *(with_sd(ledger, f"{n}.best") for n in names),
        ],
    ]
    if any(f"{name}.ema.mean" in ledger.numbers for name in names):
        cells = [_if_entered(ledger, f"{name}.ema") for name in names]
        rows.append([f"`{primary.metric}_ema`, averaged weights", *cells])
    for label, field in (
        ("perplexity", "perplexity"),
        ("bits a byte", "bits_per_byte"),
        ("steps", "steps"),
        (f"{unit} a run", "units"),
        (f"{unit} a second", "units_per_s"),
        ("parameters", "parameters"),
        ("FLOPs a run", "flops"),
        ("CPU seconds a run", "cpu_s"),
        ("seconds a run", "wall_s"),
    ):
        if any(f"{name}.{field}" in ledger.numbers for name in names):
            rows.append([label, *(ledger[f"{name}.{field}"] for name in names)])
    at = f" at {plain(point)}" if point else ""
    caption = (
        f"Means over finished runs{at}, ± the standard deviation over seeds. What decides is the "
        f"{primary.statistic} `{primary.metric}`; perplexity and bits are of its mean. FLOPs count "
        "matrix products of forward and backward passes."
    )
    return Table(caption, ["", *(plain(arm) for arm in found.arms)], rows)


def others_table(found: Outcome, ledger: Ledger, point: str) -> list[Table]:
    """What else the final evaluation measured, which decides nothing; empty without any."""
    names = [name_of(arm, point) for arm in found.arms]
    rows = [
        [plain(key), *(_of_some(ledger, f"{name}.final.{key}", f"{name}.n") for name in names)]
        for key in others(found, point)
    ]
    at = f" at {plain(point)}" if point else ""
    caption = (
        f"All else that the final evaluation measured{at}: means over finished runs, ± the "
        "standard deviation over seeds, and of how many runs where not all have a finite value. No "
        "verdict rests on these."
    )
    return [Table(caption, ["", *(plain(arm) for arm in found.arms)], rows)] if rows else []


def _of_some(ledger: Ledger, name: str, all_of: str) -> str:
    """Mean and spread, and over how many of the finished runs where it is not all of them."""
    told, count, of = with_sd(ledger, name), ledger[f"{name}.n"], ledger[all_of]
    return told if count in (of, "0") else f"{told} ({count} of {of})"


def _if_entered(ledger: Ledger, name: str) -> str:
    return with_sd(ledger, name) if f"{name}.mean" in ledger.numbers else "–"


def card_blocks(found: Outcome, ledger: Ledger, card: Card) -> list[Block]:
    """One comparison as a table, the interval first and the verdict last."""
    name = f"{name_of(card.arm, card.point)}.difference"
    level = f"{100 * card.confidence:.4g} %"
    together = f", all {card.comparisons} together" if card.simultaneous else ""
    rows = []
    if card.interval is not None:
        ends = f"[{ledger[f'{name}.low']}, {ledger[f'{name}.high']}]"
        rows.append([f"mean difference, {level} t interval{together}",
                     f"{ledger[f'{name}.mean']} {ends}"])  # fmt: skip
    rows += [
        [f"difference of seed {seed}", ledger[f"{name}.seed{seed}"]] for seed in card.differences
    ]
    rows.append(["pairs", f"{ledger[f'{name}.n']} of {ledger['seeds']}"])
    rows += [[label, text] for label, text in _absent(card)]
    if card.n > 1:
        rows += [
            ["standard deviation of differences", ledger[f"{name}.sd"]],
            ["correlation of pairs", _or_dash(ledger[f"{name}.correlation"])],
            ["paired t test, p", _or_dash(ledger[f"{name}.p"])],
        ]
    if card.p_adjusted is not None:
        told = f"p, corrected for {ledger['comparisons']} comparisons"
        rows.append([told, ledger[f"{name}.p_adjusted"]])
    if card.detectable is not None:
        rows.append(["difference that would show 8 times in 10", ledger[f"{name}.detectable"]])
    for label, field in (("parameters", "parameters"), ("CPU seconds", "cpu_s")):
        rows.append([f"{label} against the baseline", ledger[f"{name}.{field}_percent"]])
    rows.append(["verdict", f"{card.verdict or 'none'}: {plain(card.reason)}"])
    at = f" at {plain(card.point)}" if card.point else ""
    primary = found.manifest.study.primary
    caption = (
        f"{plain(card.arm)} − {plain(card.baseline)}{at}: `{primary.metric}` "
        f"({primary.statistic}), {primary.better} values are wanted."
    )
    title = f"{plain(card.arm)} against {plain(card.baseline)}{at}"
    return [Heading(3, title), Table(caption, ["", "value"], rows)]


def _absent(card: Card) -> Iterator[tuple[str, str]]:
    for word, arm, seeds in (
        ("missing", card.arm, card.missing_arm),
        ("missing", card.baseline, card.missing_baseline),
        ("diverged", card.arm, card.diverged_arm),
        ("diverged", card.baseline, card.diverged_baseline),
    ):
        if seeds:
            yield f"seeds {word} in {plain(arm)}", ", ".join(map(str, seeds))
    if card.complete:
        yield "seeds missing", "none"


def _or_dash(text: str) -> str:
    return "–" if text == ABSENT else text


def unequal(found: Outcome) -> list[Block]:
    """What was not equal between arms."""
    base = plain(found.baseline)
    if not found.unequal:
        return [Paragraph(f"Everything that is compared is equal in all arms ({_compared()}).")]
    rows = [
        [plain(o.arm), named(o.name), plain(o.values[1]), plain(o.values[0])] for o in found.unequal
    ]
    caption = f"Compared were {_compared()}; what is not listed is equal."
    return [Table(caption, ["arm", "what", "its value", f"in {base}"], rows, numbers=False)]


def _compared() -> str:
    return (
        "all settings but names, observers (monitors, figures, checkpoints) and samples; data and "
        "their order, validation set, parameters, steps taken, CPU seconds to 5 %"
    )


def failures(found: Outcome) -> list[Block]:
    """Runs without a value, each with its reason."""
    lines = [
        f"`{run.run.run_id}`: {run.status}: {plain(run.reason)}"
        for run in found.runs
        if not run.finished or run.reason
    ]
    more = [run for run in found.runs if run.sessions > 1]
    blocks: list[Block] = (
        [Bullets(lines)] if lines else [Paragraph("Every planned run finished with a value.")]
    )
    if more:
        listed = ", ".join(f"`{run.run.run_id}` ({run.sessions} sessions)" for run in more)
        told = f"Interrupted and resumed: {listed}. A resumed run goes on exactly."
        blocks.append(Paragraph(told))
    return blocks


def samples(found: Outcome) -> list[Block]:
    """A text by the first finished run of each arm, when runs write any."""
    from cupel.record.reader import RunRecord

    blocks: list[Block] = []
    for arm in found.arms:
        first = next((run for run in found.of(arm) if run.finished), None)
        written = (RunRecord(first.run_dir).results or {}).get("samples") if first else None
        if first and written and isinstance(written[0], dict):
            text = f"{written[0].get('prompt', '')}{written[0].get('text', '')}"
            summary = f"{arm}, seed {first.run.seed}"
            blocks.append(Code(_printable(text), summary=summary))
    return blocks


def _printable(text: str) -> str:
    """Control characters written out, so that no file of ours holds them."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
