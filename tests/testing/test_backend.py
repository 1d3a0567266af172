"""The backend contract passes a good backend, and fails each kind of bad one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals
from typing import Any

import pytest

from cupel.errors import CupelError
from cupel.jobs.backend import Handle, Job, Report
from cupel.jobs.local import LocalBackend
from cupel.jobs.warm import Warm
from cupel.testing.backend import BackendContract


@pytest.mark.slow
class TestLocal(BackendContract):
    job = Job
    limit_s = 0.3

    @pytest.fixture
    def backend(self) -> Iterator[LocalBackend]:
        with LocalBackend(grace_s=0.5) as backend:
            yield backend


@pytest.mark.slow
class TestLocalWithAZygoteBesides(TestLocal):
    def anew(self, backend: Any) -> LocalBackend:
        return LocalBackend(Warm(()))

    @pytest.fixture
    def backend(self) -> Iterator[LocalBackend]:
        with LocalBackend(Warm(()), grace_s=0.5) as backend:
            yield backend


# ---- bad ones ----------------------------------------------------------------------------------


class Checked(BackendContract):
    """Not collected by pytest, for its name."""

    job = Job
    patience_s = 1.5
    many = 3


class Bad(LocalBackend):
    def __init__(self) -> None:
        super().__init__(grace_s=0.3)


class LosesSignals(Bad):
    """Tells a death by signal like a shell does, but names no state."""

    def poll(self, handles: Sequence[Handle]) -> list[Report]:
        return [
            replace(report, ended=replace(report.ended, code=0))
            if report.ended and report.ended.code < 0
            else report
            for report in super().poll(handles)
        ]


class Sorts(Bad):
    def poll(self, handles: Sequence[Handle]) -> list[Report]:
        return super().poll(sorted(handles, key=lambda handle: handle.job.name))


class Forgets(Bad):
    """Tells an end once."""

    def __init__(self) -> None:
        super().__init__()
        self.told: set[str] = set()

    def poll(self, handles: Sequence[Handle]) -> list[Report]:
        reports = super().poll(handles)
        known = set(self.told)
        if all(report.ended for report in reports):
            self.told |= {handle.id for handle in handles}
        return [
            Report("unknown") if handle.id in known else report
            for handle, report in zip(handles, reports, strict=True)
        ]


class Overwrites(Bad):
    def submit(self, jobs: Sequence[Job]) -> list[Handle]:
        for job in jobs:
            job.log.unlink(missing_ok=True)
        return super().submit(jobs)


class WithoutVariables(Bad):
    def submit(self, jobs: Sequence[Job]) -> list[Handle]:
        started = super().submit([replace(job, environment={}) for job in jobs])
        return [Handle(job, one.id) for job, one in zip(jobs, started, strict=True)]


class StartsTheFirst(Bad):
    def submit(self, jobs: Sequence[Job]) -> list[Handle]:
        return [handle for job in jobs for handle in super(StartsTheFirst, self).submit([job])]


class Deaf(Bad):
    def signal(self, handles: Sequence[Handle], number: Signals) -> None:
        if number == SIGKILL:
            super().signal(handles, number)


class Indiscriminate(Bad):
    """Signals all that it ever started."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[Handle] = []

    def submit(self, jobs: Sequence[Job]) -> list[Handle]:
        self.all += super().submit(jobs)
        return self.all[-len(jobs) :]

    def signal(self, handles: Sequence[Handle], number: Signals) -> None:
        super().signal(self.all, number)


class KillsAtOnce(Bad):
    def cancel(self, handles: Sequence[Handle]) -> None:
        self.signal(handles, SIGKILL)


class OnlyAsks(Bad):
    def cancel(self, handles: Sequence[Handle]) -> None:
        self.signal(handles, SIGTERM)


class CallsEverythingCancelled(Bad):
    def __init__(self) -> None:
        super().__init__()
        self.cancelled: set[str] = set()

    def cancel(self, handles: Sequence[Handle]) -> None:
        super().cancel(handles)
        self.cancelled |= {handle.id for handle in handles}

    def poll(self, handles: Sequence[Handle]) -> list[Report]:
        return [
            replace(report, ended=replace(report.ended, code=-SIGTERM))
            if report.ended and handle.id in self.cancelled
            else report
            for handle, report in zip(handles, super().poll(handles), strict=True)
        ]


class TakesTheUnknownForDead(Bad):
    def poll(self, handles: Sequence[Handle]) -> list[Report]:
        return [
            replace(report, state="ended") if report.state == "unknown" else report
            for report in super().poll(handles)
        ]


class Silent(Bad):
    """Starts what does not exist, and lets it end well."""

    def submit(self, jobs: Sequence[Job]) -> list[Handle]:
        return super().submit([replace(job, command=("true",)) for job in jobs])


class EndsWithoutLimit(Bad):
    def submit(self, jobs: Sequence[Job]) -> list[Handle]:
        boundless = [replace(job, resources=replace(job.resources, time_s=None)) for job in jobs]
        return super().submit(boundless)


ENDS = "ends_are_told_in_the_order_asked_and_stay_as_they_are"
SAYS = "a_job_has_its_variables_and_each_start_adds_to_its_log"
SILENT = "a_silent_job_has_an_empty_log_and_of_an_unknown_one_nothing_is_told"
SIGNAL = "a_signal_reaches_its_job_and_no_other"
CANCEL = "cancel_asks_first_then_kills_all_and_changes_nothing_that_has_ended"


@pytest.mark.slow
@pytest.mark.parametrize(
    "bad, test",
    [
        (LosesSignals, ENDS),
        (Sorts, ENDS),
        (Forgets, ENDS),
        (Overwrites, SAYS),
        (WithoutVariables, SAYS),
        (StartsTheFirst, "a_log_that_cannot_be_written_is_refused_and_nothing_is_started"),
        (Deaf, SIGNAL),
        (Indiscriminate, SIGNAL),
        (KillsAtOnce, CANCEL),
        (OnlyAsks, CANCEL),
        (CallsEverythingCancelled, CANCEL),
        (TakesTheUnknownForDead, SILENT),
        (Silent, "a_command_that_does_not_exist_is_refused_or_fails_with_a_line_in_its_log"),
        (EndsWithoutLimit, "a_job_beyond_its_time_is_ended_and_the_end_says_so"),
    ],
)  # fmt: skip
def test_fails_a_backend_that(bad: type[Bad], test: str, tmp_path: Path) -> None:
    contract = Checked()
    contract.limit_s = 0.3  # type: ignore[misc]
    with bad() as backend, pytest.raises(AssertionError):
        getattr(contract, f"test_{test}")(backend, tmp_path)


@pytest.mark.slow
class TestOneThatOutlivesWhoeverSubmitted(BackendContract):
    job = Job
    survives = True

    @pytest.fixture
    def backend(self) -> Iterator[LocalBackend]:
        with Bad() as backend:
            yield backend

    def anew(self, backend: Any) -> Any:
        return backend  # the nearest that there is without a scheduler


@pytest.mark.slow
@pytest.mark.parametrize(
    "claim, test",
    [
        ({"survives": True}, "another_backend_knows_a_job_by_its_handle_or_says_that_it_does_not"),
        ({"all_cpus": 1.0}, "what_is_cancelled_while_it_waits_never_begins"),
    ],
)
def test_fails_a_backend_that_claims_too_much(
    claim: dict[str, Any], test: str, tmp_path: Path
) -> None:
    contract = type("Claiming", (Checked,), claim)()
    with Bad() as backend, pytest.raises(AssertionError):
        getattr(contract, f"test_{test}")(backend, tmp_path)


def test_what_is_refused_names_what_does_not_exist(tmp_path: Path) -> None:
    class Refuses(Bad):
        def submit(self, jobs: Sequence[Job]) -> list[Handle]:
            raise CupelError(f"there is no {jobs[0].command[0]}")

    name = "test_a_command_that_does_not_exist_is_refused_or_fails_with_a_line_in_its_log"
    getattr(Checked(), name)(Refuses(), tmp_path)


@pytest.mark.slow
def test_patience_is_for_each_job(tmp_path: Path) -> None:
    began = time.monotonic()
    with Bad() as backend:
        contract = Checked()
        contract.patience_s = 0.2  # type: ignore[misc]
        (handle,) = backend.submit([contract._job(tmp_path, "slow", "sleep 600")])
        with pytest.raises(AssertionError, match=r"it never became true; .*running"):
            contract._ends(backend, [handle, handle])
    assert 0.4 <= time.monotonic() - began < 20
