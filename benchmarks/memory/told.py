"""Write the tables of docs/results/memory/README.md from the reports beside it.

    python benchmarks/memory/told.py

A table stands between `<!-- NAME -->` and `<!-- end -->`. Every number in it is one of a report's
numbers.json, and every verdict one of its report.md; the papers' numbers are those of the notes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "results" / "memory" / "README.md"
LANGUAGES = {
    "parity": "parity", "aa": "(aa)*", "abab": "(abab)*", "anbn": "aⁿbⁿ", "anbncn": "aⁿbⁿcⁿ",
    "shuffle2": "Shuffle-2",
}  # fmt: skip
# Titans, table 5: perplexity; and MAC, MAG and MAL in place of LMM.
PAPER = {
    "full": 27.01, "linear": 28.49, "no-momentum": 28.98, "no-decay": 29.04, "no-conv": 28.73,
    "no-persistent": 27.63, "mac": 26.67, "mag": 25.70, "mal": 25.91,
}  # fmt: skip


class Report:
    """The numbers and verdicts of one study."""

    def __init__(self, name: str) -> None:
        folder = PAGE.parent / name
        found = json.loads((folder / "numbers.json").read_text(encoding="utf-8"))["numbers"]
        self.numbers: dict[str, float | None] = {one["name"]: one["value"] for one in found}
        self.text = (folder / "report.md").read_text(encoding="utf-8")

    def __getitem__(self, name: str) -> float:
        value = self.numbers[name]
        assert value is not None, name
        return value

    def verdict(self, arm: str, baseline: str, point: str = "") -> str:
        """A word: better, worse, equivalent, undecided, or none."""
        head = f"### {arm} against {baseline}{f' at {point}' if point else ''}\n"
        start = self.text.index(head) + len(head)
        found = re.search(r"\| verdict \| (\w+):", self.text[start:])
        assert found is not None, head
        return found[1]

    def spread(self, name: str, scale: float = 1.0, digits: int = 4) -> str:
        """`mean ± sd`."""
        mean, deviation = scale * self[f"{name}.mean"], scale * self[f"{name}.sd"]
        return f"{mean:.{digits}f} ± {deviation:.{digits}f}"

    def difference(self, arm: str, scale: float = 1.0, digits: int = 4) -> str:
        """`mean [low, high]`."""
        mean, low, high = (
            f"{scale * self[f'{arm}.difference.{part}']:+.{digits}f}".replace("-", "−")
            for part in ("mean", "low", "high")
        )
        return f"{mean} [{low}, {high}]"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown; the first column is text."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def mqar() -> str:
    """Recall by memory."""
    found, base = Report("mqar"), "linear-attention"
    arms = [base, *dict.fromkeys(re.findall(rf"^### (\S+) against {base}$", found.text, re.M))]
    rows = []
    for arm in arms:
        row = [arm, f"{found[f'{arm}.parameters']:,.0f}", found.spread(f"{arm}.last", 100, 2)]
        against = (
            [found.difference(arm, 100, 2), found.verdict(arm, base)] if arm != base else ["–", "–"]
        )
        rows.append([*row, *against, f"{found[f'{arm}.cpu_s']:.0f}"])
    head = ["memory", "parameters", "recalled, %", f"against {base}, points", "verdict", "CPU s"]
    return table(head, rows)


def formal() -> str:
    """Strings that are right throughout, by language, arm and length."""
    found = Report("formal-languages")
    arms = ["hope", "deltanet-negative", "deltanet", "linear-attention", "transformer",
            "transformer-learned"]  # fmt: skip
    rows = []
    for language, shown in LANGUAGES.items():
        cells = []
        for arm in arms:
            name = f"{arm}@language={language}"
            keys = ("final.exact/2-50", "final.exact/51-100", "last")
            cells.append(" / ".join(_percent(found[f"{name}.{key}.mean"]) for key in keys))
        rows.append([shown, *cells])
    return table(["language", *arms], rows)


def _percent(share: float) -> str:
    """With one digit behind the point, unless that is none."""
    return f"{100 * share:.1f}".removesuffix(".0")


def formal_verdicts() -> str:
    """At lengths of 101 to 150, against the transformer."""
    found, rows = Report("formal-languages"), []
    for language, shown in LANGUAGES.items():
        point = f"language={language}"
        for arm in ("hope", "deltanet-negative"):
            told = found.difference(f"{arm}@{point}", 100, 1)
            rows.append([shown, arm, told, found.verdict(arm, "transformer", point)])
    return table(["language", "arm", "against transformer, points", "verdict"], rows)


def ablation() -> str:
    """Titans' parts: losses, differences, and the paper's perplexities."""
    found, rows = Report("titans-ablation"), []
    for arm, paper in PAPER.items():
        against = ["–", "–"]
        sign = "–"
        if arm != "full":
            against = [found.difference(arm), found.verdict(arm, "full")]
            sign = "higher" if paper > PAPER["full"] else "lower"
        told = f"{found[f'{arm}.parameters']:,.0f}"
        rows.append([arm, told, found.spread(f"{arm}.last"), *against, f"{paper:.2f}", sign])
    head = ["arm", "parameters", "loss, nats a byte", "against full", "verdict",
            "the paper's perplexity", "against its full"]  # fmt: skip
    return table(head, rows)


TABLES: dict[str, Callable[[], str]] = {
    "mqar": mqar,
    "formal-languages": formal,
    "formal-verdicts": formal_verdicts,
    "titans-ablation": ablation,
}


def written(text: str) -> str:
    """The page with its tables as the reports have them."""
    for name, make in TABLES.items():
        before, begin, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition("\n<!-- end -->")
        assert begin, f"the page has no place for {name}"
        assert end, f"the place for {name} has no end"
        text = f"{before}{begin}{make()}{end}{after}"
    return text


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
