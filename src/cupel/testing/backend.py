"""`BackendContract`: the tests that every backend must pass. Derive, give one, run pytest.

    class TestMine(BackendContract):
        job = Job  # of cupel.jobs.backend

        @pytest.fixture
        def backend(self):
            return MyBackend()

The jobs are small shell scripts. Their logs, and the files that they are steered by, lie in
pytest's `tmp_path`, which every place where jobs run must see. Needs pytest and `sh`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from signal import SIGKILL, SIGTERM, SIGUSR1
from typing import Any, ClassVar

import pytest

from cupel.errors import CupelError

LOOK_S = 0.05
QUIET_S = 1.0  # a script that lives writes ten times in it
BEATS = "while :; do echo x >> {file}; sleep 0.1; done"  # shows that it lives; knows no pid
WAITS = "until [ -e {file} ]; do sleep 0.1; done"


class BackendContract:
    """What a backend owes to whoever gives it jobs.

    `patience_s` is how long one job may take from submit to its end; of several that are waited
    for together, each. A backend that ends jobs in two steps should be given a short grace.
    """

    job: ClassVar[Any]  # the class Job: this folder stands below all rooms and imports none
    patience_s: ClassVar[float] = 20.0
    many: ClassVar[int] = 8
    # Jobs outlive the object that submitted them: another one, by `anew`, can ask for them.
    survives: ClassVar[bool] = False
    # All the cores that there are, so that a second job with as many waits; None: no job waits.
    all_cpus: ClassVar[float | None] = None
    # The shortest limit of time that is kept to; None leaves limits untested.
    limit_s: ClassVar[float | None] = None

    def anew(self, backend: Any) -> Any:
        """A backend as another process would make it, which has submitted nothing."""
        return type(backend)()

    # ---- ends ----------------------------------------------------------------------------------

    def test_ends_are_told_in_the_order_asked_and_stay_as_they_are(
        self, backend: Any, tmp_path: Path
    ) -> None:
        scripts = ["exit 0", "exit 1", "exit 75", "kill -TERM $$", "kill -KILL $$"]
        jobs = [self._job(tmp_path, f"end{n}", script) for n, script in enumerate(scripts)]
        with self._submitted(backend, jobs) as handles:
            ends = self._ends(backend, handles)
            assert [handle.job for handle in handles] == jobs
            assert [ended.code for ended in ends[:3]] == [0, 1, 75]
            for ended, number in zip(ends[3:], (SIGTERM, SIGKILL), strict=True):
                assert ended.code == -number or (ended.code and ended.state), ended
            assert self._ends(backend, handles) == ends, "told otherwise when asked again"
            assert self._ends(backend, handles[::-1]) == ends[::-1]
            anew = [replace(handle, job=replace(handle.job)) for handle in handles]
            assert self._ends(backend, anew) == ends, "an equal handle is another job"

    def test_nothing_is_asked_and_nothing_done(self, backend: Any) -> None:
        assert backend.submit([]) == []
        assert backend.poll([]) == []
        backend.cancel([])
        backend.signal([], SIGTERM)

    def test_many_jobs_at_once_are_kept_apart(self, backend: Any, tmp_path: Path) -> None:
        numbers = range(self.many)
        jobs = [self._job(tmp_path, f"many{n}", f"echo job {n}; exit {n % 3}") for n in numbers]
        with self._submitted(backend, jobs) as handles:
            assert len({handle.id for handle in handles}) == self.many
            ends = self._ends(backend, handles)
            assert [ended.code for ended in ends] == [n % 3 for n in numbers]
            for n, handle in zip(numbers, handles, strict=True):
                self._until_printed(backend, [handle], f"job {n}")

    def test_a_command_that_does_not_exist_is_refused_or_fails_with_a_line_in_its_log(
        self, backend: Any, tmp_path: Path
    ) -> None:
        job = replace(self._job(tmp_path, "absent", ""), command=("cupel-no-such-command", "x"))
        refused = ""
        try:
            handles = backend.submit([job])
        except CupelError as error:
            refused, handles = str(error), []
        if not handles:
            assert "cupel-no-such-command" in refused
            return
        (ended,) = self._ends(backend, handles)
        assert ended.code != 0
        self._until(lambda: "cupel-no-such-command" in backend.logs(handles[0]))

    def test_a_job_beyond_its_time_is_ended_and_the_end_says_so(
        self, backend: Any, tmp_path: Path
    ) -> None:
        if self.limit_s is None:
            pytest.skip("limits of time are not tested here")
        job = self._job(tmp_path, "late", "sleep 600")
        job = replace(job, resources=replace(job.resources, time_s=self.limit_s))
        with self._submitted(backend, [job]) as handles:
            (ended,) = self._ends(backend, handles)
            assert ended.state == "TIMEOUT", ended
            assert ended.code != 0

    # ---- what a job is given, and what it says -------------------------------------------------

    def test_a_job_has_its_variables_and_each_start_adds_to_its_log(
        self, backend: Any, tmp_path: Path
    ) -> None:
        script = 'echo "$WORD"; echo wrong >&2; echo x > {file}; exit 3'
        job = self._job(
            tmp_path, "said", script, {"WORD": "two  words, $HOME 'quoted'"}, log="new/folder/log"
        )
        said = ["two  words, $HOME 'quoted'", "wrong"]
        ids = set()
        for start in (1, 2):
            with self._submitted(backend, [job]) as handles:
                assert self._ends(backend, handles)[0].code == 3
                self._until(partial(_has_said, backend, handles[0], said * start))
                ids.add(handles[0].id)
        assert len(ids) == 2, "two starts have one id"
        assert _words(job.log.read_text(), said) == said * 2

    def test_a_log_that_cannot_be_written_is_refused_and_nothing_is_started(
        self, backend: Any, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("a file where a folder should be")
        good = self._job(tmp_path, "good", "touch {file}")
        bad = self._job(tmp_path, "bad", "true", log="file/log")
        with pytest.raises(CupelError, match=re.escape(str(bad.log))):
            backend.submit([good, bad])
        with self._submitted(backend, [self._job(tmp_path, "next", "true")]) as handles:
            self._ends(backend, handles)
        assert not _file(good).exists(), "one of the jobs was started"

    def test_a_silent_job_has_an_empty_log_and_of_an_unknown_one_nothing_is_told(
        self, backend: Any, tmp_path: Path
    ) -> None:
        with self._submitted(backend, [self._job(tmp_path, "silent", "true")]) as handles:
            assert self._ends(backend, handles)[0].code == 0
            assert backend.logs(handles[0]) == ""
            strange = replace(handles[0], id="no-such-id")
            known, unknown = backend.poll([handles[0], strange])
            assert (known.state, unknown.state, unknown.ended) == ("ended", "unknown", None)
            backend.signal([strange], SIGTERM)
            backend.cancel([strange])

    # ---- signals -------------------------------------------------------------------------------

    def test_a_signal_reaches_its_job_and_no_other(self, backend: Any, tmp_path: Path) -> None:
        script = "trap 'exit 7' USR1; trap 'exit 8' TERM; echo ready; " + WAITS
        jobs = [self._job(tmp_path, name, script) for name in ("asked", "spared")]
        with self._submitted(backend, jobs) as handles:
            asked, spared = handles
            self._until_printed(backend, handles, "ready")
            assert [report.state for report in backend.poll(handles)] == ["running", "running"]
            backend.signal([asked], SIGUSR1)
            assert self._ends(backend, [asked])[0].code == 7
            backend.signal([asked], SIGTERM)  # it has ended: nobody is hit, nothing raised
            assert backend.poll([spared])[0].state == "running"
            _file(spared.job).touch()
            assert [ended.code for ended in self._ends(backend, handles)] == [7, 0]

    def test_sigkill_takes_what_the_job_has_started_with_it(
        self, backend: Any, tmp_path: Path
    ) -> None:
        script = f"trap '' TERM; sh -c '{BEATS}' & echo ready; wait"
        job = self._job(tmp_path, "family", script)
        with self._submitted(backend, [job]) as handles:
            self._until_printed(backend, handles, "ready")
            self._until(lambda: _beats(job))
            backend.signal(handles, SIGKILL)
            (ended,) = self._ends(backend, handles)
            assert ended.code == -SIGKILL or (ended.code and ended.state), ended
            self._until(lambda: _is_quiet(job))

    # ---- cancel --------------------------------------------------------------------------------

    def test_cancel_asks_first_then_kills_all_and_changes_nothing_that_has_ended(
        self, backend: Any, tmp_path: Path
    ) -> None:
        """One ends when it is asked, but leaves a child that does not; one does not care itself."""
        child = f"sh -c 'trap \"\" TERM; {BEATS}' & "
        polite = f"{child} trap 'echo asked; exit 75' TERM; echo ready; while :; do sleep 0.1; done"
        stubborn = f"trap '' TERM; echo ready; {BEATS}"
        jobs = [
            self._job(tmp_path, name, script)
            for name, script in (("polite", polite), ("stubborn", stubborn), ("over", "exit 3"))
        ]
        with self._submitted(backend, jobs) as handles:
            self._until_printed(backend, handles[:2], "ready")
            self._until(lambda: all(_beats(job) for job in jobs[:2]))
            over = self._ends(backend, handles[2:])
            backend.cancel(handles)
            backend.cancel(handles)
            ends = self._ends(backend, handles)
            assert all(ended.code != 0 or ended.state for ended in ends[:2]), ends
            assert ends[2:] == over
            self._until(lambda: "asked" in backend.logs(handles[0]).splitlines())
            self._until(lambda: all(_is_quiet(job) for job in jobs[:2]))
            backend.cancel(handles)
            assert self._ends(backend, handles) == ends

    def test_what_is_cancelled_while_it_waits_never_begins(
        self, backend: Any, tmp_path: Path
    ) -> None:
        if self.all_cpus is None:
            pytest.skip("no job waits here")
        jobs = []
        for name, script in (("first", f"echo ready; {WAITS}"), ("second", "touch {file}")):
            job = self._job(tmp_path, name, script)
            jobs.append(replace(job, resources=replace(job.resources, cpus=self.all_cpus)))
        with self._submitted(backend, jobs[:1]) as first:
            self._until_printed(backend, first, "ready")
            with self._submitted(backend, jobs[1:]) as second:
                time.sleep(QUIET_S)  # any job is pending for a moment
                assert backend.poll(second)[0].state == "pending"
                backend.cancel(second)
                self._until(lambda: backend.poll(second)[0].state == "ended")
                _file(jobs[0]).touch()
                assert self._ends(backend, first)[0].code == 0
                assert self._ends(backend, second)[0].code != 0
                assert not _file(jobs[1]).exists()

    # ---- other processes -----------------------------------------------------------------------

    def test_another_backend_knows_a_job_by_its_handle_or_says_that_it_does_not(
        self, backend: Any, tmp_path: Path
    ) -> None:
        job = self._job(tmp_path, "shared", f"echo ready; {WAITS}; exit 7")
        with self._submitted(backend, [job]) as handles:
            self._until_printed(backend, handles, "ready")
            other = self.anew(backend)
            handle = replace(handles[0], job=replace(job))
            expected = "running" if self.survives else "unknown"
            assert other.poll([handle])[0].state == expected
            assert other.logs(handle) == backend.logs(handles[0])
            _file(job).touch()
            assert self._ends(backend, handles)[0].code == 7
            if self.survives:
                assert self._ends(other, [handle])[0].code == 7
            else:
                assert other.poll([handle])[0].state == "unknown"

    # ---- means ---------------------------------------------------------------------------------

    def _job(
        self,
        folder: Path,
        name: str,
        script: str,
        environment: Mapping[str, str] | None = None,
        *,
        log: str = "",
    ) -> Any:
        """A job that runs a script, in which `{file}` is a file of the job's own."""
        command = ("sh", "-c", script.replace("{file}", str(folder / f"{name}.file")))
        return type(self).job(
            name, command, folder / (log or f"{name}.log"), dict(environment or {})
        )

    @contextmanager
    def _submitted(self, backend: Any, jobs: Sequence[Any]) -> Iterator[list[Any]]:
        """Handles of jobs that are no more when the block is left."""
        handles = backend.submit(jobs)
        assert len(handles) == len(jobs)
        try:
            yield handles
        finally:
            backend.signal(handles, SIGKILL)
            backend.cancel(handles)

    def _ends(self, backend: Any, handles: Sequence[Any]) -> list[Any]:
        reports: list[Any] = []

        def all_ended() -> bool:
            reports[:] = backend.poll(handles)
            return all(report.state == "ended" for report in reports)

        self._until(all_ended, lambda: str(reports), times=len(handles))
        return [report.ended for report in reports]

    def _until_printed(self, backend: Any, handles: Sequence[Any], word: str) -> None:
        def all_printed() -> bool:
            return all(word in backend.logs(handle).splitlines() for handle in handles)

        self._until(all_printed, lambda: str(backend.poll(handles)), times=len(handles))

    def _until(
        self, true: Callable[[], object], told: Callable[[], str] = str, *, times: int = 1
    ) -> None:
        deadline = time.monotonic() + self.patience_s * times
        while not true():
            assert time.monotonic() < deadline, f"it never became true; {told()}"
            time.sleep(LOOK_S)


def _file(job: Any) -> Path:
    folder: Path = job.log.parent
    return folder / f"{job.name}.file"


def _beats(job: Any) -> int:
    return _file(job).stat().st_size if _file(job).exists() else 0


def _is_quiet(job: Any) -> bool:
    before = _beats(job)
    time.sleep(QUIET_S)
    return _beats(job) == before


def _words(text: str, known: Sequence[str]) -> list[str]:
    """The lines that a job printed, without what a scheduler adds."""
    return [line for line in text.splitlines() if line in known]


def _has_said(backend: Any, handle: Any, said: Sequence[str]) -> bool:
    return _words(backend.logs(handle), said) == said
