"""When a study will be done: held against a simulation that is plain and slow."""

from __future__ import annotations

import random
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cupel.jobs.eta import (
    ONE_BY_ONE,
    Eta,
    Pace,
    Throughput,
    eta,
    throughput,
    unknown_because,
)

NOW = 1_700_000_000.0
SECONDS = st.floats(1, 1000)


def done(seconds: float, variant: str = "a", *, ended: float = NOW) -> Pace:
    return Pace("d", variant, "done", seconds, 100, 100, ended)


def running(seconds: float, step: int, variant: str = "a") -> Pace:
    return Pace("r", variant, "running", seconds, step, 100)


def opened(variant: str = "a", count: int = 1) -> list[Pace]:
    return [Pace(f"o{number}", variant, "open", steps=100) for number in range(count)]


def known(runs: list[Pace], slots: int, *, seed: int = 0) -> Eta:
    found = eta(runs, slots=slots, now=NOW, seed=seed)
    assert found is not None, unknown_because(runs, slots=slots)
    return found


def plainly(runs: list[Pace], slots: int, *, draws: int) -> list[float]:
    """Seconds until the end by each of many draws, sorted; nothing is saved in computing them."""
    draw, ends = random.Random(5), []
    for _ in range(draws):
        pools: dict[str, list[float]] = {}
        for run in runs:
            if run.state == "done" or (run.state == "running" and run.step >= 2):
                part = run.step / run.steps
                pools.setdefault(run.variant, []).append(run.seconds / part)
        pools = {name: [draw.choice(pool) for _ in pool] for name, pool in pools.items()}
        loads = [0.0] * slots
        for run in sorted(runs, key=lambda run: run.state != "running"):
            if run.state == "done":
                continue
            takes = draw.choice(pools[run.variant])
            if run.state == "running" and run.step >= 2:
                takes = run.seconds / (run.step / run.steps)
            loads[loads.index(min(loads))] += max(0.0, takes - run.seconds)
        ends.append(max(loads))
    return sorted(ends)


def mixed(count: int) -> list[Pace]:
    draw = random.Random(3)
    runs = [done(draw.uniform(40, 160), draw.choice("ab")) for _ in range(12)]
    runs += [running(30, 40, "a"), running(5, 1, "b")]
    return runs + [opened(draw.choice("ab"))[0] for _ in range(count)]


@pytest.mark.parametrize("count, slots", [(0, 2), (5, 2), (30, 3), (30, 40)])
def test_it_agrees_with_a_plain_simulation(count: int, slots: int) -> None:
    runs = mixed(count)
    ends = plainly(runs, slots, draws=3000)
    found = known(runs, slots)
    # 200 draws place the 10 % quantile between about the 6 % and the 15 % one (3 deviations),
    # the median between the 39 % and the 61 % one.
    for at, low, high in (
        (found.low, 0.03, 0.17),
        (found.at, 0.39, 0.61),
        (found.high, 0.83, 0.97),
    ):
        assert ends[int(low * 3000)] <= at - NOW + 1e-6
        assert at - NOW - 1e-6 <= ends[int(high * 3000)]


@pytest.mark.slow
def test_of_very_many_runs_the_sum_agrees_with_a_plain_simulation() -> None:
    runs = mixed(3 * ONE_BY_ONE)
    ends = plainly(runs, 8, draws=60)
    found = known(runs, 8)
    middle, width = ends[30], ends[54] - ends[6]
    # 60 plain draws and 50 of ours: the medians differ by about 0.25 deviations, and 0.1 of a
    # width is 0.26 of them; three times that, and the widths by less than a factor of two.
    assert abs(found.at - NOW - middle) < 0.3 * width
    assert 0.5 < (found.high - found.low) / width < 2


def test_alike_runs_end_when_counting_says() -> None:
    runs = [done(60), done(60), running(15, 25), running(45, 75), *opened(count=4)]
    # left are 45 and 15 s; then 60 s each: slot one 45 + 120, slot two 15 + 120
    assert known(runs, 2) == Eta(NOW + 165, NOW + 165, NOW + 165)


def test_runs_beyond_the_slots_make_no_room_until_enough_have_ended() -> None:
    runs = [done(60), done(60), running(30, 50), running(15, 25), *opened()]
    assert known(runs, 1).at == NOW + 45 + 60


def test_when_nothing_is_left_it_is_now() -> None:
    assert eta([done(5)], slots=0, now=NOW) == Eta(NOW, NOW, NOW)
    assert eta([], slots=1, now=NOW) == Eta(NOW, NOW, NOW)


def test_two_samples_leave_a_wide_interval_also_for_many_runs() -> None:
    for count in (300, ONE_BY_ONE + 300):
        found = known([done(50), done(150), *opened(count=count)], 1)
        # Were the two the truth, it would be within 100·count ± 1.3·50·√count.
        assert found.high - found.low > 0.5 * count * 100


def test_it_is_the_same_each_time_and_another_for_another_seed() -> None:
    runs = mixed(20)
    assert known(runs, 3) == known(runs, 3)
    assert known(runs, 3) != known(runs, 3, seed=1)


def test_without_two_samples_it_is_unknown_and_the_variants_are_named() -> None:
    runs = [done(60, "a"), done(60, "a"), done(60, "b"), *opened("a"), *opened("b"), *opened("c")]
    assert eta(runs, slots=2, now=NOW) is None
    why = unknown_because(runs, slots=2)
    assert "b has 1, c has 0" in why
    assert "a has" not in why


def test_of_many_variants_that_lack_samples_a_few_are_named() -> None:
    runs = [opened(f"v{number}")[0] for number in range(10)]
    assert unknown_because(runs, slots=1).endswith(
        "v0 has 0, v1 has 0, v2 has 0, and 7 more variants"
    )


def test_a_running_run_is_a_sample_once_it_is_beyond_a_fifth() -> None:
    for step, enough in ((20, False), (21, True)):
        runs = [done(60), running(10, step), *opened()]
        assert (eta(runs, slots=2, now=NOW) is not None) == enough


def test_a_variant_that_is_done_needs_no_samples() -> None:
    assert eta([done(60, "b"), done(1), done(1), *opened()], slots=1, now=NOW) is not None


def test_a_run_that_has_hardly_begun_needs_samples_of_others() -> None:
    assert eta([running(10, 0)], slots=1, now=NOW) is None
    assert known([running(10, 1), done(60), done(60)], 1).at == NOW + 50
    assert known([running(10, 50)], 1).at == NOW + 10


def test_without_workers_open_runs_have_no_end() -> None:
    runs = [done(60), done(60), *opened()]
    assert eta(runs, slots=0, now=NOW) is None
    assert "no worker" in unknown_because(runs, slots=0)


STUDIES = st.builds(
    lambda samples, busy, kinds: (
        [done(seconds, "ab"[number % 2]) for number, seconds in enumerate(samples)]
        + [running(seconds, step) for seconds, step in busy]
        + [opened(kind)[0] for kind in kinds]
    ),
    st.lists(SECONDS, min_size=4, max_size=8),
    st.lists(st.tuples(SECONDS, st.integers(0, 100)), max_size=4),
    st.lists(st.sampled_from("ab"), max_size=20),
)


@given(STUDIES, st.integers(1, 8), st.integers(1, 30))
@pytest.mark.slow
def test_more_slots_are_never_later(runs: list[Pace], slots: int, more: int) -> None:
    few, many = known(runs, slots), known(runs, slots + more)
    assert many.low <= few.low
    assert many.at <= few.at
    assert many.high <= few.high


@given(STUDIES, st.integers(1, 8), st.sampled_from("ab"))
@pytest.mark.slow
def test_one_more_run_is_never_earlier(runs: list[Pace], slots: int, variant: str) -> None:
    before, after = known(runs, slots), known([*runs, *opened(variant)], slots)
    assert before.low <= after.low
    assert before.at <= after.at
    assert before.high <= after.high


@given(STUDIES, st.integers(1, 8), st.data())
@pytest.mark.slow
def test_slower_runs_are_never_earlier(runs: list[Pace], slots: int, data: st.DataObject) -> None:
    number = data.draw(st.integers(0, len(runs) - 1))
    slower = replace(runs[number], steps=runs[number].steps * 2)
    if slower.state == "done":
        slower = replace(runs[number], seconds=runs[number].seconds * 2)
    if slower.scaled is None and runs[number].scaled is not None:
        return  # it is too early now to go by its own pace
    before = known(runs, slots)
    after = known([*runs[:number], slower, *runs[number + 1 :]], slots)
    assert before.low <= after.low + 1e-6
    assert before.at <= after.at + 1e-6
    assert before.high <= after.high + 1e-6


@given(STUDIES, st.integers(1, 8))
@pytest.mark.slow
def test_the_interval_holds_the_median_and_none_of_it_has_passed(
    runs: list[Pace], slots: int
) -> None:
    found = known(runs, slots)
    assert NOW <= found.low <= found.at <= found.high


@pytest.mark.parametrize("slots", [2, 64, 5000])
@pytest.mark.parametrize("variants", [1, 3000])
@pytest.mark.slow
def test_a_hundred_thousand_runs_take_less_than_a_fifth_of_a_second(
    slots: int, variants: int
) -> None:
    names = [f"v{number}" for number in range(variants)]
    runs = [done(60 + number % 50, name) for number in range(2) for name in names]
    runs += [opened(names[number % variants])[0] for number in range(100_000)]
    taken = []
    for _ in range(3):
        begun = time.process_time()  # not the wall's: others use these cores, too
        known(runs, slots)
        taken.append(time.process_time() - begun)
    assert min(taken) < 0.2


@pytest.mark.slow
def test_very_many_runs_also_end_never_later_with_more_slots() -> None:
    runs = [done(50), done(150), *opened(count=3 * ONE_BY_ONE)]
    ends = [known(runs, slots).at for slots in (1, 2, 3, 10, 100, 1000)]
    assert ends == sorted(ends, reverse=True)
    assert ends[0] - NOW == pytest.approx(3 * ONE_BY_ONE * 100, rel=0.2)  # two samples: ± 35 %


def test_throughput_counts_what_ended_in_the_window() -> None:
    runs = [
        done(100, ended=NOW - 5000),
        done(100, ended=NOW - 600),
        done(400, ended=NOW - 300),
        running(200, 50),
        *opened(),
    ]
    found = throughput(runs, 1000, now=NOW)
    assert found.runs_per_hour == pytest.approx(2 / 1000 * 3600)
    assert found.steps_per_s == pytest.approx((100 + 100 + 50) / 1000)


def test_throughput_takes_of_a_longer_run_what_lies_in_the_window() -> None:
    found = throughput([done(1000, ended=NOW - 100), running(400, 80)], 200, now=NOW)
    assert found.steps_per_s == pytest.approx((10 + 40) / 200)
    assert found.runs_per_hour == pytest.approx(18)


def test_a_study_that_is_younger_than_the_window_is_measured_since_it_began() -> None:
    assert throughput([running(50, 25)], 3600, now=NOW) == Throughput(0.0, 0.5)
    assert throughput(opened(), 3600, now=NOW) == Throughput(0.0, 0.0)
    assert throughput([running(0, 0)], 3600, now=NOW) == Throughput(0.0, 0.0)
