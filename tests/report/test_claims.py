"""A report writes what its numbers bear: planted studies, and which sentences they get."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from cupel.report.build import build_report, document_of
from cupel.report.ledger import Ledger
from cupel.report.markdown import as_markdown
from cupel.studies.manifest import Manifest
from cupel.studies.outcome import outcome
from planted import ADAMW, GPT, RGD, WAVE, Arm, arm_config, around, plant

VERDICTS = ("better", "worse", "equivalent", "undecided")
# Words that claim more than a verdict does, or claim what "undecided" is not.
BANNED = ("significant", "no difference", "outperform", "superior", "state of the art", "proves")


def written(manifest: Manifest, ledger: Ledger) -> str:
    """The report as Markdown, without its figures, which take longest."""
    return as_markdown(document_of(outcome(manifest), ledger))


def report(root: Path, wave: Arm, standard: Arm | None = None, **study: Any) -> tuple[str, str]:
    """The whole report, and what it says in its own words: without question, rules and methods."""
    arms = {"standard": standard or Arm(around(2.0)), "wave": wave}
    text = written(plant(root / "runs", arms, **{"question": "Which?", **study}), Ledger())
    said = re.sub(r"## How it was decided.*?## Results", "## Results", text, flags=re.S)
    said = re.sub(r"## References.*", "", said, flags=re.S)
    return text, said


def words(said: str, *expected: str) -> None:
    """Of the words of verdicts, exactly the expected ones occur, and none that claims more."""
    found = {word for word in VERDICTS if re.search(rf"\b{word}\b", said)}
    assert found == set(expected), said
    for banned in BANNED:
        assert banned not in said.lower(), banned
    # "best" is the name of a statistic and of nothing else.
    assert not re.search(r"\bbest\b", re.sub(r"\(best\)|the best `", "", said)), said


@pytest.mark.slow
def test_a_win_is_called_better_with_interval_and_n(tmp_path: Path) -> None:
    _, said = report(tmp_path, Arm(around(1.8)))
    words(said, "better")
    assert re.search(
        r"\*\*wave\*\* is better than \*\*standard\*\* on `val_loss` \(last\): the mean difference "
        r"is −0\.20\d\d \(95 % t interval \[−0\.\d{4}, −0\.\d{4}\], n = 3 paired seeds\)\.",
        said,
    )


@pytest.mark.slow
def test_a_loss_is_called_worse(tmp_path: Path) -> None:
    _, said = report(tmp_path, Arm(around(2.2)))
    words(said, "worse")
    assert "**wave** is worse than **standard**" in said


@pytest.mark.slow
def test_higher_values_can_be_the_better_ones(tmp_path: Path) -> None:
    _, said = report(tmp_path, Arm(around(2.2)), primary={"better": "higher"})
    words(said, "better")
    assert "highest evaluation" in said


@pytest.mark.slow
def test_a_tie_within_the_margin_is_equivalent(tmp_path: Path) -> None:
    _, said = report(tmp_path, Arm(around(2.001)), compare={"margin": 0.05})
    words(said, "equivalent")
    assert "within the margin of ±0.05 that was declared beforehand" in said


@pytest.mark.slow
def test_a_tie_without_a_margin_is_undecided_and_says_what_could_have_been_seen(
    tmp_path: Path,
) -> None:
    _, said = report(tmp_path, Arm({1: 2.03, 2: 1.97, 3: 2.02}))
    words(said, "undecided")
    assert "It is undecided whether **wave** and **standard** differ" in said
    assert "would show in 8 of 10 studies of this size" in said
    assert "the interval includes 0" in said


@pytest.mark.slow
def test_one_seed_gets_no_verdict(tmp_path: Path) -> None:
    _, said = report(tmp_path, Arm({1: 1.5}), Arm({1: 2.0}), seeds=(1,))
    words(said)
    assert "one run an arm: nothing tells chance from effect" in said
    assert "The one pair of runs differs by −0.5000 (n = 1, no interval)" in said
    assert "verdict | none: " in said


@pytest.mark.slow
def test_a_missing_seed_is_named_and_the_report_says_that_it_may_change(tmp_path: Path) -> None:
    _, said = report(tmp_path, Arm({1: 1.8, 2: 1.81}))
    assert "**5 of 6 runs are finished; this report may change.**" in said
    assert "Missing: seed 3 of **wave**." in said
    assert "| pairs | 2 of 3 |" in said
    assert "| seeds missing in wave | 3 |" in said
    assert "`planted-wave-s3-00000000`: planned: not started" in said


@pytest.mark.slow
def test_a_failed_run_is_missing_with_its_reason(tmp_path: Path) -> None:
    _, said = report(tmp_path, Arm({1: 1.8, 2: 1.81}, failed=[3]))
    assert "Missing: seed 3 of **wave**." in said
    assert "failed: RuntimeError: a planted failure" in said
    assert "Diverged" not in said


@pytest.mark.slow
def test_a_diverged_run_is_counted_as_such(tmp_path: Path) -> None:
    _, said = report(tmp_path, Arm({1: 1.8, 2: 1.81}, diverged=[3]))
    assert "Diverged: seed 3 of **wave**" in said
    assert "Missing" not in said


@pytest.mark.slow
def test_a_complete_study_names_nothing_missing(tmp_path: Path) -> None:
    _, said = report(tmp_path, Arm(around(1.8)))
    assert "Missing" not in said
    assert "this report may change" not in said
    assert "| seeds missing | none |" in said
    assert "Every planned run finished with a value." in said


@pytest.mark.parametrize("parameters, told", [(10_150, False), (10_300, True), (9_000, True)])
@pytest.mark.slow
def test_unequal_sizes_stand_in_the_answer_itself(
    tmp_path: Path, parameters: int, told: bool
) -> None:
    _, said = report(tmp_path, Arm(around(1.8), parameters=parameters))
    (answer,) = [line for line in said.splitlines() if line.startswith("> ")]
    assert ("models of unequal size" in answer) == told
    assert (f"({parameters:,} parameters against 10,000" in answer) == told


def answer(said: str) -> str:
    return said[said.index("## Answer") : said.index("## Results")]


@pytest.mark.slow
def test_costs_of_all_arms_stand_below_the_answers_and_absent_ones_are_said_to_be(
    tmp_path: Path,
) -> None:
    _, said = report(tmp_path, Arm(around(1.8), flops=None, cpu_s=20.0))
    rows = [line for line in answer(said).splitlines() if line.startswith("| ")]
    assert rows == [
        "|  | parameters | tokens | FLOPs | CPU seconds | wall seconds |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| standard | 10,000 | 2,560 | 4.000e+09 | 10.0 | 20.0 |",
        "| wave | 10,000 | 2,560 | not recorded | 20.0 | 40.0 |",
    ]
    assert "costs +100.0 % CPU seconds against one of **standard**" in said


@pytest.mark.slow
def test_the_baselines_costs_are_told_once_however_many_arms_and_first_at_every_point(
    tmp_path: Path,
) -> None:
    arms = {name: Arm(around(2.0 - n / 10)) for n, name in enumerate(("a", "b", "c"))}
    compare = {"baseline": "b"}
    grid = {"points": ("lr=0.1", "lr=1"), "grid": {"train.optimizer.lr": (0.1, 1)}}
    text = written(plant(tmp_path, arms, compare=compare, **grid), Ledger())
    rows = re.findall(r"^\| (\w at \S+) \|", answer(text), flags=re.M)
    assert rows == [f"{arm} at {point}" for point in grid["points"] for arm in "bac"]
    assert "seconds of wall time" not in text


@pytest.mark.slow
def test_equal_costs_are_not_remarked_on(tmp_path: Path) -> None:
    _, said = report(tmp_path, Arm(around(1.8), cpu_s=10.2))
    assert "of equal time" not in said


@pytest.mark.parametrize(
    "own, base, causes",
    [
        (arm_config(WAVE, RGD), arm_config(), "the model, the optimizer"),
        (arm_config(WAVE), arm_config(), None),
        (
            arm_config(
                GPT, {**RGD, "strength": 0.3, "warmup": 5, "lr": 0.002, "betas": [0.9, 0.9]}
            ),
            arm_config(GPT, {**ADAMW, "betas": [0.9, 0.99]}),
            "the optimizer, the learning rate, the betas",
        ),
        (
            arm_config(GPT, {**RGD, "strength": 0.5, "lr": 0.002}),
            arm_config(GPT, {**RGD, "strength": 0.3}),
            "the learning rate, `train.optimizer.strength`",
        ),
        (
            arm_config({**WAVE, "mlp": "sine", "attention": "pure", "pure": {"kernel": "exp"}}),
            arm_config({**WAVE, "pure": {"kernel": "elu"}}),
            "`model.attention`, `model.mlp`",
        ),
        (arm_config({**WAVE, "mlp": "sine"}), arm_config(WAVE), None),
        (arm_config(ema=0.99, threads=2), arm_config(), "the threads, `train.ema`"),
        (
            arm_config(objective="qfe", clip=None),
            arm_config(),
            "the objective, the gradient clipping",
        ),
    ],
)
@pytest.mark.slow
def test_an_arm_that_differs_in_several_settings_is_told_so_and_one_in_a_single_one_is_not(
    tmp_path: Path, own: dict[str, Any], base: dict[str, Any], causes: str | None
) -> None:
    _, said = report(tmp_path, Arm(around(1.8), config=own), Arm(around(2.0), config=base))
    told = re.findall(r"in several things at once \((.*)\): a", said)
    assert told == ([causes] if causes else [])


@pytest.mark.slow
def test_what_was_not_equal_stands_in_a_table_with_settings_as_they_are_typed(
    tmp_path: Path,
) -> None:
    config = arm_config(GPT, {**RGD, "strength": 0.3}, ema=0.99)
    _, said = report(tmp_path, Arm(around(1.8), config=config))
    assert "| wave | optimizer | rgd (strength 0.3) | adamw |" in said
    assert "| wave | `train.ema` | 0.99 | none |" in said


@pytest.mark.slow
def test_the_statistic_best_is_said_to_flatter_and_last_is_not(tmp_path: Path) -> None:
    _, said = report(tmp_path / "best", Arm(around(1.8)), primary={"statistic": "best"})
    assert "flatters every arm" in said
    _, said = report(tmp_path / "last", Arm(around(1.8)))
    assert "flatters" not in said


@pytest.mark.slow
def test_contributions_are_ranked_among_arms_with_a_verdict_only(tmp_path: Path) -> None:
    arms = {
        "base": Arm(around(2.0)),
        "some": Arm(around(1.9)),
        "much": Arm(around(1.5)),
        "open": Arm({1: 1.0, 2: 3.0, 3: 1.9}),
    }
    text = written(plant(tmp_path / "runs", arms), Ledger())
    (ranked,) = [line for line in text.splitlines() if "Ranked by" in line]
    assert re.search(r"\*\*much\*\* \(−0\.\d+\), \*\*some\*\* \(−0\.\d+\)\.$", ranked)
    assert "open" not in ranked
    assert "3 comparisons were made" in text


@pytest.mark.slow
def test_corrected_tests_are_said_to_decide_beside_unadjusted_intervals(tmp_path: Path) -> None:
    tests = {"kind": "tests", "correction": "holm"}
    _, said = report(tmp_path, Arm(around(1.8)), compare=tests)
    assert "go by p values corrected" in said
    assert "better: p after Holm's correction is below 0.05" in said


@pytest.mark.slow
def test_claims_that_do_not_hold_are_kept_beside_the_numbers_as_not_written(
    tmp_path: Path,
) -> None:
    ledger = Ledger()
    text = written(plant(tmp_path, {"a": Arm(around(2.0)), "b": Arm(around(1.8))}), ledger)
    fields = ledger.as_json()
    names = {number["name"] for number in fields["numbers"]}
    holding = [claim for claim in fields["claims"] if claim["holds"]]
    assert holding
    assert len(holding) < len(fields["claims"])
    for claim in fields["claims"]:
        assert set(claim["evidence"]) <= names
        assert (claim["text"] in text) == claim["holds"], claim


@pytest.mark.slow
def test_every_point_of_a_grid_is_answered_and_tabled_on_its_own(tmp_path: Path) -> None:
    points = {"points": ("lr=0.1", "lr=1"), "grid": {"train.optimizer.lr": (0.1, 1)}}
    _, said = report(tmp_path, Arm(around(1.8)), **points)
    for point in points["points"]:
        assert f"`val_loss` (last) at {point}: the mean" in said
        assert f"### wave against standard at {point}" in said
        assert f"Means over finished runs at {point}" in said
    assert "No learning rate was searched for" not in said
    assert "2 comparisons were made" in said


@pytest.mark.slow
def test_a_question_in_markdown_or_html_is_shown_as_it_was_typed(tmp_path: Path) -> None:
    question = "Is *a|b* <script>alert(1)</script> `x` $y$ better?"
    build_report(plant(tmp_path, {"a": Arm(around(1.8))}, question=question), tmp_path / "report")
    page = (tmp_path / "report" / "report.html").read_text()
    assert "<script" not in page
    shown = "Is *a|b* &lt;script&gt;alert(1)&lt;/script&gt; `x` $y$ better?"
    assert f"<h1>{shown}</h1>" in page


def test_a_study_without_any_run_has_a_report(tmp_path: Path) -> None:
    text, said = report(tmp_path, Arm({}), Arm({}))
    words(said)
    assert "**0 of 6 runs are finished" in said
    assert "no seed has a value on both sides" in said
    assert "–" in text
