"""Every number in the report's tables is computed again from raw files, by other code."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cupel.report.build import build_report
from planted import WAVE, Arm, arm_config, around, plant

SEEDS = (1, 2, 3, 4)
T95 = 3.182446305284263  # 97.5 % quantile of t with 3 degrees of freedom, from a table


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    root = tmp_path_factory.mktemp("numbers")
    arms = {
        "standard": Arm(around(2.0, seeds=SEEDS), flops=4.5e9),
        "wave": Arm(around(1.9, 0.05, SEEDS), arm_config(WAVE), parameters=12_345, cpu_s=17.5),
    }
    build_report(plant(root, arms, seeds=SEEDS), root / "report")
    return root, (root / "report" / "report.md").read_text()


@pytest.fixture
def built(whole: tuple[Path, str]) -> tuple[Path, str]:
    """The folder, and the section of results."""
    root, text = whole
    return root, text[text.index("## Results") : text.index("## What was not equal")]


@pytest.fixture
def answered(whole: tuple[Path, str]) -> tuple[Path, str]:
    """The folder, and the answer."""
    root, text = whole
    return root, text[text.index("## Answer") : text.index("## How it was decided")]


def raw(root: Path, arm: str) -> list[dict[str, Any]]:
    """results.json, model.json and the lines of metrics of every run of an arm."""
    found = []
    for seed in SEEDS:
        folder = root / "p" / f"planted-{arm}-s{seed}-00000000"
        lines = (folder / "sessions/0001/metrics.r0.000.jsonl").read_text().splitlines()
        found.append(
            {
                **json.loads((folder / "results.json").read_text()),
                "parameters": json.loads((folder / "model.json").read_text())["parameters"],
                "val": [v for line in lines if (v := json.loads(line).get("val_loss")) is not None],
            }
        )
    return found


def cells(text: str, label: str) -> list[list[str]]:
    """The cells of every table row with this label, without the label."""
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row[1:]] for row in rows if row[0].strip() == label]


def number(text: str) -> float:
    return float(text.replace("−", "-").replace(",", "").removesuffix("%"))


def printed(value: float, digits: int) -> float:
    """Half a unit of the last printed digit."""
    return 0.5 * 10.0**-digits + 1e-12 * abs(value)


def check(text: str, value: float, digits: int) -> None:
    assert number(text) == pytest.approx(value, abs=printed(value, digits))


@pytest.mark.parametrize("column, arm", [(0, "standard"), (1, "wave")])
@pytest.mark.slow
def test_the_table_of_arms_is_what_the_raw_files_give(
    built: tuple[Path, str], column: int, arm: str
) -> None:
    root, text = built
    runs = raw(root, arm)
    last = np.array([run["final"]["val_loss"] for run in runs])
    lowest = np.array([min(run["val"]) for run in runs])
    for label, values in (("last", last), ("lowest", lowest)):
        (row,) = cells(text, f"`val_loss`, {label} evaluation")
        mean, deviation = row[column].split(" ± ")
        check(mean, values.mean(), 4)
        check(deviation, math.sqrt(((values - values.mean()) ** 2).sum() / (len(values) - 1)), 4)
    totals = [run["totals"] for run in runs]
    seconds = np.array([one["wall_s"] for one in totals])
    tokens = np.array([one["tokens"] for one in totals])
    for label, value, digits in (
        ("perplexity", np.exp(last.mean()), 3),
        ("bits a byte", last.mean() / np.log(2) / 2.0, 4),  # two bytes a token were planted
        ("tokens a run", tokens.mean(), 0),
        ("tokens a second", (tokens / seconds).mean(), 0),
        ("parameters", np.mean([run["parameters"] for run in runs]), 0),
        ("CPU seconds a run", np.mean([one["cpu_s"] for one in totals]), 1),
        ("seconds a run", seconds.mean(), 1),
        ("steps", np.mean([run["step"] for run in runs]), 0),
    ):
        (row,) = cells(text, label)
        check(row[column], float(value), digits)
    (row,) = cells(text, "FLOPs a run")
    assert number(row[column]) == pytest.approx(np.mean([t["flops"] for t in totals]), rel=1e-3)


@pytest.mark.slow
def test_what_else_was_measured_stands_beside_what_decides(tmp_path: Path) -> None:
    arms = {
        "standard": Arm(around(2.0, seeds=SEEDS), beside={"acc/long": 0.5, "val_loss_ema": 0.1}),
        "wave": Arm(around(1.9, 0.05, SEEDS), beside={"acc/long": math.inf, "a|b`c": -1.0}),
    }
    build_report(plant(tmp_path, arms, seeds=SEEDS), tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    short = np.array([run["final"]["a|b`c"] for run in raw(tmp_path, "wave")])
    long = np.array([run["final"]["acc/long"] for run in raw(tmp_path, "standard")])
    escaped = text.replace("\\|", "/")  # so that it parts no cells
    for label, column, values in (("acc/long", 0, long), ("a/b\\`c", 1, short)):
        (row,) = cells(escaped, label)
        mean, deviation = row[column].split(" ± ")
        check(mean, values.mean(), 4)
        check(deviation, values.std(ddof=1), 4)
        assert row[1 - column] == "–"  # not measured, or not finite
    assert cells(text, "val\\_loss\\_ema") == cells(text, "val\\_loss") == []
    numbers = json.loads((tmp_path / "report" / "numbers.json").read_text())["numbers"]
    (source,) = (n["source"] for n in numbers if n["name"] == "wave.final.acc/long.mean")
    assert source.endswith("mean over the 0 of 4 finished runs in which it is finite")


@pytest.mark.slow
def test_a_mean_over_some_of_the_runs_says_over_how_many(tmp_path: Path) -> None:
    """And numbers of any size neither end the report nor become nothing."""
    same = Arm(around(2.0, seeds=SEEDS))
    planted = plant(tmp_path, {"a": same, "b": same}, seeds=SEEDS)
    for seed in SEEDS:
        path = tmp_path / "p" / f"planted-a-s{seed}-00000000" / "results.json"
        found = json.loads(path.read_text())
        found["final"] |= {"some": 3.0 if seed == 1 else "NaN", "huge": 1.7e308, "tiny": 2e-7}
        path.write_text(json.dumps(found))
    build_report(planted, tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    assert cells(text, "some") == [["3.0000 (1 of 4)", "–"]]
    assert cells(text, "huge") == [["–", "–"]]
    assert cells(text, "tiny") == [["2.000e−07 ± 0.000e+00", "–"]]


@pytest.mark.parametrize("arm", ["standard", "wave"])
@pytest.mark.slow
def test_the_costs_below_the_answer_are_what_the_raw_files_give(
    answered: tuple[Path, str], arm: str
) -> None:
    root, text = answered
    runs = raw(root, arm)
    ((parameters, tokens, flops, cpu, wall),) = cells(text, arm)
    check(parameters, np.mean([run["parameters"] for run in runs]), 0)
    totals = [run["totals"] for run in runs]
    check(tokens, np.mean([one["tokens"] for one in totals]), 0)
    assert number(flops) == pytest.approx(np.mean([one["flops"] for one in totals]), rel=1e-3)
    check(cpu, np.mean([one["cpu_s"] for one in totals]), 1)
    check(wall, np.mean([one["wall_s"] for one in totals]), 1)


@pytest.mark.slow
def test_the_table_of_a_comparison_is_what_the_raw_files_give(built: tuple[Path, str]) -> None:
    root, text = built
    one, two = (
        np.array([run["final"]["val_loss"] for run in raw(root, arm)])
        for arm in ("wave", "standard")
    )
    differences = one - two
    for seed, value in zip(SEEDS, differences, strict=True):
        ((cell,),) = cells(text, f"difference of seed {seed}")
        check(cell, value, 4)
    mean = differences.sum() / 4
    deviation = math.sqrt(((differences - mean) ** 2).sum() / 3)
    half = T95 * deviation / 2
    ((cell,),) = cells(text, "mean difference, 95 % t interval")
    found = re.fullmatch(r"(\S+) \[(\S+), (\S+)\]", cell)
    assert found
    for shown, value in zip(found.groups(), (mean, mean - half, mean + half), strict=True):
        check(shown, value, 4)
    ((cell,),) = cells(text, "standard deviation of differences")
    check(cell, deviation, 4)
    ((cell,),) = cells(text, "correlation of pairs")
    check(cell, np.corrcoef(one, two)[0, 1], 2)
    ((cell,),) = cells(text, "parameters against the baseline")
    check(cell, 23.45, 1)
    ((cell,),) = cells(text, "CPU seconds against the baseline")
    check(cell, 75.0, 1)


@pytest.mark.parametrize("section", ["built", "answered"])
@pytest.mark.slow
def test_every_number_of_answer_and_results_stands_in_numbers_json(
    request: pytest.FixtureRequest, section: str
) -> None:
    root, text = request.getfixturevalue(section)
    entered = json.loads((root / "report" / "numbers.json").read_text())["numbers"]
    texts = {number["text"] for number in entered}
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    shown = {
        found
        for line in rows
        if not line.startswith(("|  |", "| ---", "| verdict"))
        for cell in line.strip("|").split("|")[1:]
        for found in re.findall(r"[+−]?\d[\d,]*(?:\.\d+)?(?:e[+−]\d+)?(?: %)?", cell)
    }
    assert len(shown) > {"built": 20, "answered": 6}[section]
    assert shown <= texts, shown - texts
    assert all(number["source"] for number in entered)
