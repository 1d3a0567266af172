"""What follows a failure: a promise for each row of the table, and what holds for all of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cupel.jobs.attempts import CLASSES, Attempt
from cupel.jobs.policy import (
    TABLE,
    UNLUCKY,
    Decision,
    Hold,
    Row,
    RunFailure,
    breaker,
    decide,
    progressed,
    quarantine,
)

LATER = 1e9
PAGE = Path(__file__).parents[2] / "docs/failures.md"
GOES_ON = ("ready", "wait")


def ended(*outcomes: str | tuple[str, int], start: int = 0, **more: Any) -> list[Attempt]:
    """Attempts that ended so: each at the step given, or where it began."""
    found, step = [], start
    for number, one in enumerate(outcomes, start=1):
        outcome, last = one if isinstance(one, tuple) else (one, step)
        known = {"ended": 100.0 * number, "signature": outcome, "begun": True} | more
        found.append(Attempt(number, outcome, first_step=step, last_step=last, **known))
        step = max(step, last)
    return found


def next_of(*outcomes: str | tuple[str, int], **more: Any) -> Decision:
    return decide(ended(*outcomes), now=LATER, **more)


def kinds_of(outcome: str, times: int) -> list[str]:
    """What is decided after one, two, … failures of a class, without progress."""
    return [next_of(*[outcome] * n).kind for n in range(1, times + 1)]


# --- the table ---


def test_the_table_has_a_row_for_every_class() -> None:
    assert set(TABLE) == {*CLASSES, "interrupted"}


def test_the_page_shows_the_table() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \|.*\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$",
        PAGE.read_text(encoding="utf-8"),
        re.MULTILINE,
    )

    def shown(row: Row) -> tuple[str, ...]:
        limits = ["no limit" if one is None else str(one) for one in (row.retries, row.stalled)]
        limits[1] = "–" if row.stalled is None else limits[1]
        return (*limits, f"{row.backoff_s:g} s" if row.backoff_s else "–")

    assert {name: tuple(cells) for name, *cells in rows} == {
        name: shown(row) for name, row in TABLE.items()
    }


def test_a_run_that_has_not_begun_is_ready() -> None:
    assert decide([], now=0.0) == Decision("ready", "it has not begun")


# --- a promise for each row ---


@pytest.mark.parametrize("outcome", ["configuration", "import"])
def test_what_would_end_alike_is_not_retried(outcome: str) -> None:
    (attempt,) = ended(outcome, detail="no setting is called 'lr'")
    found = decide([attempt], now=LATER)
    assert (found.kind, found.reason) == ("failed", "no setting is called 'lr'; not retried")


def test_cuda_oom_is_tried_alone_and_then_with_half_the_micro_batch_and_half_again() -> None:
    attempts: list[Attempt] = []
    found = decide(attempts, now=LATER, accumulate=1, batch=16)
    seen = []
    while found.kind == "ready":
        seen.append((found.alone, dict(found.changes)))
        attempts.append(replace(came_of(found, len(attempts) + 1), outcome="cuda_oom"))
        found = decide(attempts, now=LATER, accumulate=1, batch=16)
    assert seen == [
        (False, {}),
        (True, {}),
        (True, {"train.accumulate": 2}),
        (True, {"train.accumulate": 4}),
        (True, {"train.accumulate": 8}),
    ]
    assert found.kind == "failed"


def came_of(decision: Decision, session: int, **more: Any) -> Attempt:
    """The attempt that carries a decision out."""
    return Attempt(
        session, "unknown", alone=decision.alone, changes=decision.changes,
        resources=decision.resources, ended=float(session), **more,
    )  # fmt: skip


def test_cuda_oom_of_a_run_that_was_alone_halves_its_micro_batch_at_once() -> None:
    found = decide(ended("cuda_oom", alone=True), now=LATER, accumulate=2, batch=12)
    assert (found.kind, found.changes) == ("ready", {"train.accumulate": 4})
    assert found.reason == "cuda_oom; again with 4 micro-batches a step"


@pytest.mark.parametrize("accumulate, batch", [(1, 3), (4, 12), (None, 16), (1, None), (1, 0)])
def test_cuda_oom_has_failed_where_the_global_batch_could_not_stay_the_same(
    accumulate: int | None, batch: int | None
) -> None:
    attempts = ended("cuda_oom", "cuda_oom")
    found = decide(attempts, now=LATER, accumulate=accumulate, batch=batch)
    assert (found.kind, found.changes) == ("failed", {})
    assert "alone on its device" in found.reason


def test_what_was_changed_for_memory_stays_changed_after_other_failures() -> None:
    first, second = ended("cuda_oom", "cuda_oom")
    changed = {"train.accumulate": 2, "other": "x"}
    for outcome in ("killed", "timeout", "node", "interrupted", "hung", "unknown"):
        third = Attempt(3, outcome, last_step=5, changes=changed, alone=True)
        fourth = Attempt(4, "interrupted", first_step=5, last_step=9)  # and its record says nothing
        found = decide([first, second, third, fourth], now=LATER, accumulate=1, batch=8)
        assert (found.kind, found.alone, found.changes) == ("ready", True, changed)


def test_host_oom_asks_for_half_as_much_memory_again_three_times() -> None:
    attempts: list[Attempt] = []
    asked = []
    while (found := decide(attempts, now=LATER, memory_mb=1000)).kind == "ready":
        asked.append(found.resources.get("memory_mb"))
        attempts.append(replace(came_of(found, len(attempts) + 1), outcome="host_oom"))
    assert asked == [None, 1500, 2250, 3375]
    assert found.kind == "failed"


def test_host_oom_without_a_limit_asks_for_more_than_it_took() -> None:
    found = decide(ended("host_oom", peak_mb=800.5), now=LATER)
    assert (found.kind, found.resources) == ("ready", {"memory_mb": 1202})
    assert decide(ended("host_oom"), now=LATER).resources == {}, "nothing is known"


def test_the_memory_that_was_asked_for_stays_after_other_failures() -> None:
    lacked = Attempt(1, "host_oom", resources={"memory_mb": 1000})
    killed = Attempt(2, "killed", last_step=7, resources={"memory_mb": 1500})
    assert decide([lacked, killed], now=LATER, memory_mb=1000).resources == {"memory_mb": 1500}


@pytest.mark.parametrize("outcome", ["timeout", "preempted"])
def test_who_ran_out_of_time_is_resumed_until_two_attempts_in_a_row_make_no_progress(
    outcome: str,
) -> None:
    assert kinds_of(outcome, 2) == ["ready", "failed"]
    assert next_of(*[(outcome, 10 * n) for n in range(1, 50)]).kind == "ready"
    assert next_of((outcome, 10), outcome, (outcome, 20), outcome).kind == "ready"
    found = next_of((outcome, 10), outcome, outcome)
    assert (found.kind, found.reason) == (
        "failed",
        f"{outcome}; 2 times in a row without getting beyond step 10",
    )


def test_diverged_is_a_result() -> None:
    found = decide(ended("killed", ("diverged", 9), detail="loss is nan"), now=LATER)
    assert (found.kind, found.reason) == ("diverged", "loss is nan")


def test_hung_is_retried_once_whatever_came_between() -> None:
    assert kinds_of("hung", 2) == ["ready", "failed"]
    assert next_of(("hung", 5), ("killed", 90), ("hung", 200)).kind == "failed"


def test_a_fault_of_a_node_is_not_the_runs_and_is_retried_elsewhere_at_most_five_times() -> None:
    attempts = [
        Attempt(1, "node", host="a", device="0"),
        Attempt(2, "node", host="a", device="1"),
        Attempt(3, "node", host="a", device="0"),
        Attempt(4, "node", host="b"),
        Attempt(5, "killed", last_step=4, host="c"),
    ]
    found = decide(attempts, now=LATER)
    assert found.kind == "ready"
    assert found.avoid == (("a", "0"), ("a", "1"), ("b", ""))
    assert kinds_of("node", 6) == ["ready"] * 5 + ["failed"]
    assert next_of("killed", "node", "killed", "node").kind == "ready"
    assert next_of("killed", "node", "killed", "node", "killed").kind == "failed"


@pytest.mark.parametrize("outcome", ["killed", "lost"])
def test_who_was_killed_goes_on_until_three_attempts_in_a_row_make_no_progress(
    outcome: str,
) -> None:
    assert kinds_of(outcome, 3) == ["ready", "ready", "failed"]
    assert next_of(*[(outcome, n) for n in range(1, 50)]).kind == "ready"
    assert next_of((outcome, 5), outcome, outcome).kind == "ready"
    assert next_of((outcome, 5), outcome, outcome, outcome).kind == "failed"
    assert next_of(outcome, outcome, (outcome, 5), outcome, outcome).kind == "ready"


def test_what_is_lost_before_its_first_step_is_nobodys_fault_ten_times_in_a_row() -> None:
    kinds = [decide(ended(*["lost"] * n, begun=False), now=LATER).kind for n in range(1, 12)]
    assert kinds == ["ready"] * 10 + ["failed"]
    mixed = [*ended("killed", "killed"), *ended(*["lost"] * 5, begun=False)]
    assert decide(mixed, now=LATER).kind in GOES_ON


def test_what_is_lost_with_its_supervisor_is_nobodys_fault_unless_it_never_comes_further() -> None:
    """A power cut, or a `kill -9` of everything, at any moment and however often."""
    kinds = [decide(ended(*["lost"] * n, orphaned=True), now=LATER).kind for n in range(1, 12)]
    assert kinds == ["ready"] * 10 + ["failed"]
    further = [("lost", step) for step in range(1, 40)]
    assert decide(ended(*further, orphaned=True), now=LATER).kind in GOES_ON
    mixed = [*ended("killed", "killed"), *ended(*["lost"] * 5, orphaned=True)]
    assert decide(mixed, now=LATER).kind in GOES_ON


def test_killed_lost_timeout_and_preempted_count_together() -> None:
    assert next_of("killed", "lost", "killed").kind == "failed"
    assert next_of("timeout", "killed").kind == "ready"
    assert next_of("killed", "timeout").kind == "failed"
    assert next_of("killed", "interrupted", "lost", "hung", "killed").kind == "failed"


def test_cancelled_is_an_end_until_somebody_asks_again() -> None:
    assert next_of(("killed", 5), "cancelled").kind == "failed"


def test_an_unknown_failure_is_retried_once_and_fails_at_once_when_it_comes_again() -> None:
    assert kinds_of("unknown", 2) == ["ready", "failed"]
    first, between, second = ended("unknown", ("killed", 50), ("unknown", 90))
    found = decide([first, between, second], now=LATER)
    assert (found.kind, found.reason) == ("failed", "unknown; it ended alike before")


def test_unknown_failures_that_differ_are_retried_twice_in_all() -> None:
    attempts = [replace(one, signature=f"s{one.session}") for one in ended(*["unknown"] * 3)]
    assert [decide(attempts[:n], now=LATER).kind for n in (1, 2, 3)] == ["ready", "ready", "failed"]


def test_an_interrupted_run_is_ready_at_once_however_often() -> None:
    attempts = ended(*["interrupted"] * 99)
    assert decide(attempts, now=attempts[-1].ended).kind == "ready"
    assert next_of("killed", "killed", *["interrupted"] * 9).kind == "ready"
    assert next_of("killed", "killed", *["interrupted"] * 9, "killed").kind == "failed"


def test_a_finish_without_results_and_an_outcome_of_a_newer_version_are_unknown_failures() -> None:
    for outcome in ("finished", "sunspots"):
        assert kinds_of(outcome, 2) == ["ready", "failed"]
    assert "without results" in next_of("finished").reason


STEPS = st.integers(0, 5)
ATTEMPTS = st.lists(
    st.builds(
        Attempt,
        session=st.integers(1, 99),
        outcome=st.sampled_from([*TABLE, "finished", "of-a-newer-version"]),
        signature=st.sampled_from(["", "a", "b"]),
        first_step=STEPS,
        last_step=STEPS,
        ended=st.floats(0, 1000),
        host=st.sampled_from(["", "a", "b"]),
        device=st.sampled_from(["", "0"]),
        peak_mb=st.none() | st.floats(),
        alone=st.booleans(),
        changes=st.dictionaries(
            st.sampled_from(["train.accumulate", "x"]), st.sampled_from([1, 2, 8, None, "y"])
        ),
        resources=st.dictionaries(st.just("memory_mb"), st.sampled_from([0, 10, None, "y"])),
    ),
    max_size=7,
)


def test_what_was_decided_is_known_also_where_attempts_did_not_record_it() -> None:
    attempts = ended("cuda_oom", "cuda_oom", "lost", "host_oom", "lost")
    plan = {"accumulate": 1, "batch": 8, "memory_mb": 1000}
    found = decide(attempts, now=LATER, **plan)
    assert (found.alone, found.changes) == (True, {"train.accumulate": 2})
    assert found.resources == {"memory_mb": 1500}
    worse = [*attempts, Attempt(6, "cuda_oom"), Attempt(7, "host_oom")]
    found = decide(worse, now=LATER, **plan)
    assert (found.kind, found.changes) == ("ready", {"train.accumulate": 4})
    assert found.resources == {"memory_mb": 2250}


# --- progress ---


def test_repeating_the_same_steps_is_no_progress() -> None:
    again = [Attempt(n, "killed", first_step=0, last_step=500) for n in range(1, 5)]
    assert progressed(again) == [True, False, False, False]
    assert decide(again[:3], now=LATER).kind == "ready"
    assert decide(again, now=LATER).kind == "failed"


@given(ATTEMPTS)
@pytest.mark.slow
def test_progress_is_what_its_definition_says(attempts: list[Attempt]) -> None:
    for number, (one, further) in enumerate(zip(attempts, progressed(attempts), strict=True)):
        before, after = attempts[:number], attempts[number + 1 : number + 2]
        reached = [step for it in before for step in (it.first_step, it.last_step)]
        later = [it.first_step for it in [*before, one]]
        new = one.last_step > max([*reached, attempts[0].first_step])
        assert further == (new or any(it.first_step > max(later) for it in after))


def test_a_later_checkpoint_is_progress_also_of_a_run_that_came_less_far() -> None:
    spans = [(0, 500), (400, 480), (450, 490), (450, 460)]
    attempts = [Attempt(n, "killed", first_step=a, last_step=b) for n, (a, b) in enumerate(spans)]
    assert progressed(attempts) == [True, True, False, False]


# --- waiting ---


def test_waits_double_and_never_depend_on_who_asks() -> None:
    waits = []
    for times in range(1, 6):
        attempts = ended(*["node"] * times)
        found = decide(attempts, now=attempts[-1].ended, salt="run-7")
        assert found.kind == "wait"
        assert found == decide(attempts, now=attempts[-1].ended, salt="run-7")
        assert decide(attempts, now=found.not_before, salt="run-7").kind == "ready"
        waits.append(found.not_before - attempts[-1].ended)
    for number, wait in enumerate(waits):
        assert 0.5 <= wait / (10 * 2**number) < 1.5


def test_runs_that_failed_together_come_back_one_by_one() -> None:
    attempts = ended("lost", "lost")
    due = {decide(attempts, now=200.0, salt=f"run-{n}").not_before for n in range(20)}
    assert len(due) == 20


@pytest.mark.parametrize("outcome", ["killed", "lost"])
def test_what_was_killed_once_or_got_further_is_resumed_at_once(outcome: str) -> None:
    for those in ((outcome,), (outcome, (outcome, 9)), (outcome, (outcome, 9), (outcome, 12))):
        assert decide(ended(*those), now=200.0).kind == "ready"
    stuck = ended(outcome, outcome)
    assert decide(stuck, now=stuck[-1].ended).kind == "wait"


def test_a_clock_that_is_wrong_holds_no_run() -> None:
    assert decide(ended("lost", "lost", ended=1e6), now=100.0).kind == "ready"


# --- all of it ---

PLAN = st.fixed_dictionaries(
    {
        "accumulate": st.none() | st.integers(1, 4),
        "batch": st.none() | st.integers(1, 64),
        "memory_mb": st.none() | st.integers(1, 1000),
        "salt": st.text(max_size=5),
    }
)


@given(attempts=ATTEMPTS, plan=PLAN, now=st.floats(0, 2000))
@pytest.mark.slow
def test_a_decision_is_the_same_whenever_it_is_taken(
    attempts: list[Attempt], plan: dict[str, Any], now: float
) -> None:
    found = decide(attempts, now=now, **plan)
    assert found == decide(list(attempts), now=now, **plan)
    later = decide(attempts, now=now + 1, **plan)
    assert found.kind == later.kind or (found.kind, later.kind) in {
        ("wait", "ready"),
        ("ready", "wait"),  # a clock that was wrong has come round
    }
    assert (found.reason, found.changes) == (later.reason, later.changes)
    assert (found.kind == "wait") <= (found.not_before > now)


@given(
    outcomes=st.lists(
        st.sampled_from(sorted(set(TABLE) - {"interrupted"})), min_size=25, max_size=25
    )
    | st.sampled_from(CLASSES).map(lambda one: [one] * 25),
    plan=PLAN,
    obeyed=st.booleans(),
)
@example(
    outcomes=["lost"] * 25,
    plan={"accumulate": None, "batch": None, "memory_mb": None, "salt": ""},
    obeyed=False,
)
def test_no_run_goes_on_for_ever_without_progress(
    outcomes: Sequence[str], plan: dict[str, Any], obeyed: bool
) -> None:
    attempts: list[Attempt] = []
    for number, outcome in enumerate(outcomes, start=1):
        found = decide(attempts, now=LATER, **plan)
        if found.kind not in GOES_ON:
            break
        attempt = came_of(found, number, signature=outcome) if obeyed else Attempt(number, "")
        attempts.append(replace(attempt, outcome=outcome))
    assert len(attempts) <= 20
    if len(set(outcomes)) == 1:
        no_fault = outcomes[0] == "lost" and (attempts[0].orphaned or not attempts[0].begun)
        assert len(attempts) <= (UNLUCKY + 1 if no_fault else 6)


@given(outcomes=st.lists(st.sampled_from(sorted(TABLE)), max_size=30), plan=PLAN)
@pytest.mark.slow
def test_changes_and_memory_only_grow(outcomes: list[str], plan: dict[str, Any]) -> None:
    attempts: list[Attempt] = []
    before = decide(attempts, now=LATER, **plan)
    for number, outcome in enumerate(outcomes, start=1):
        attempts.append(
            replace(came_of(before, number), outcome=outcome, last_step=number, peak_mb=50.0)
        )
        found = decide(attempts, now=LATER, **plan)
        for old, new in ((before.changes, found.changes), (before.resources, found.resources)):
            assert set(old) <= set(new)
            assert all(new[name] >= old[name] for name in old)
        assert set(before.avoid) <= set(found.avoid)
        assert before.alone <= found.alone
        before = found


@given(plan=PLAN, times=st.integers(2, 5))
def test_half_the_micro_batch_is_half_of_the_same_global_batch(
    plan: dict[str, Any], times: int
) -> None:
    changes = decide(ended(*["cuda_oom"] * times), now=LATER, **plan).changes
    for micro in changes.values():
        assert plan["batch"] % micro == 0
        assert micro in {plan["accumulate"] * 2**halved for halved in (1, 2, 3)}


# --- the breaker ---


def refused(run: str, **but: Any) -> RunFailure:
    return replace(RunFailure(run, "configuration", "no lr", begun=False), **but)


def test_three_runs_that_are_refused_for_one_reason_hold_the_sweep() -> None:
    failed = [refused("a", kin="x"), refused("b", kin="y"), refused("c", kin="x")]
    assert breaker(failed[:2], kins="xyz") is None
    assert breaker(failed, kins="xyz") == Hold("no lr", ("a", "b", "c"))
    assert breaker([*failed[:2], refused("d", signature="other")], kins="xyz") is None


def test_one_run_that_fails_three_times_holds_nothing() -> None:
    assert breaker([refused("a")] * 3) is None


@pytest.mark.parametrize(
    "change", [{"begun": True}, {"kind": "cuda_oom"}, {"kind": "import"}, {"signature": "other"}]
)
def test_only_early_failures_of_one_kind_and_signature_count(change: dict[str, Any]) -> None:
    assert breaker([refused("a"), refused("b"), refused("c", **change)]) is None


def test_a_kin_that_fails_alone_is_held_alone() -> None:
    failed = [refused(run, kin="x") for run in "abc"]
    assert breaker(failed, kins="xyz") == Hold("no lr", ("a", "b", "c"), ("x",))
    assert breaker(failed, kins="x") == Hold("no lr", ("a", "b", "c")), "there is no other"
    assert breaker(failed) == Hold("no lr", ("a", "b", "c"))


def test_where_others_have_begun_only_the_kins_that_failed_are_held() -> None:
    failed = [refused("a", kin="y"), refused("b", kin="x"), refused("c", kin="x")]
    assert breaker(failed, kins="xyz", begun="z") == Hold("no lr", ("a", "b", "c"), ("x", "y"))
    assert breaker(failed, kins="xyz", begun="x") == Hold("no lr", ("a", "b", "c"))


# --- quarantine ---


def fault(
    run: str, device: str = "0", *, host: str = "h", at: float = 5000.0
) -> tuple[str, Attempt]:
    return run, Attempt(1, "node", host=host, device=device, ended=at)


def places(*faults: tuple[str, Attempt], now: float = 6000.0) -> list[tuple[str, str]]:
    return [(host, device) for host, device, _ in quarantine(faults, now=now)]


def test_two_different_runs_put_a_device_into_quarantine() -> None:
    assert places(fault("a"), fault("b")) == [("h", "0")]
    assert places(fault("a"), fault("a")) == [], "it may be the run"
    assert places(fault("a"), fault("b", "1")) == []
    assert places(fault("a"), fault("b", host="g")) == []
    killed = ("b", replace(fault("b")[1], outcome="killed"))
    assert places(fault("a"), killed) == []


def test_a_quarantine_is_over_an_hour_after_its_reason() -> None:
    both = fault("a", at=1000), fault("b", at=4000)
    assert places(*both, now=4600) == [("h", "0")]
    assert places(*both, now=4601) == []


def test_three_devices_in_quarantine_are_their_host() -> None:
    two = [fault(run, device) for device in "01" for run in "ab"]
    assert places(*two, fault("a", "2")) == [("h", "0"), ("h", "1")]
    assert places(*two, fault("a", "2"), fault("b", "2")) == [("h", "")]
    assert places(*two, fault("a", ""), fault("b", "")) == [("h", "")], "the host's own fault"


@given(ATTEMPTS.flatmap(st.permutations), st.floats(0, 9000))
@pytest.mark.slow
def test_a_quarantine_does_not_depend_on_the_order_of_attempts(
    attempts: list[Attempt], now: float
) -> None:
    named = [(str(one.session % 3), one) for one in attempts]
    assert quarantine(named, now=now) == quarantine(named[::-1], now=now)
