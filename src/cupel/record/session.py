"""One process start within a run: it opens the record, writes into it, and closes it.

The exclusive mkdir of `sessions/000N` is the session's number and its fence. Once a session with
a higher number exists, this one writes only inside its own folder and moves no pointer. Logging
never stops training: what the disk refuses is counted, told once on stderr, and shown at the end.
A run that is moved on its disk while it runs is written to where it then lies.
Opening costs about 20 ms, while a thread asks git, the packages and the GPUs (`env.json` is there
at once, and whole in a second or so). Here are its beginning and its end; its lines are in
`saying`, its JSON files in `describing`.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

from cupel.errors import RecordError
from cupel.record import codec, environment, files, layout
from cupel.record.claims import Claim, adopt_session, has_begun, read_lease
from cupel.record.console import Console
from cupel.record.describing import Describing
from cupel.record.heartbeat import TOUCH_S, Heartbeat
from cupel.record.opening import (
    How,
    check_document,
    check_group,
    lost_race,
    next_number,
    recording,
    take_rank,
    take_session,
)
from cupel.record.system import System
from cupel.record.writer import Durability

Outcome = Literal["finished", "failed", "interrupted"]


class Session(Describing):
    """A running session; `start`, `resume` and `join` make one, `finish` ends it.

    `strict=True` makes `log` raise on values that cannot be recorded, for tests and debugging.
    `durability="sync"` makes what `log` returned from survive a power loss, too. `console=True`
    keeps what Python prints, and `system_every=10` measures the machine every ten seconds.
    After a fork only the parent writes: what a child logs counts as lost in the child.
    """

    def __init__(
        self,
        run_dir: Path,
        number: int,
        beat: Path,
        facts: Mapping[str, Any],
        how: How,
        *,
        rank: int = 0,
        resumed: bool = False,
        claim: Claim | None = None,
    ) -> None:
        """Open the place that was taken by `beat`. Raises OSError, and gives it back then."""
        try:
            super().__init__(run_dir, number, rank, facts, how, resumed=resumed)
        except OSError:  # leave nothing behind that would count as alive
            if rank == 0 and claim is None:
                shutil.rmtree(beat.parent, ignore_errors=True)
            else:
                beat.unlink(missing_ok=True)
            raise
        self._console: Console | None = None
        self._system: System | None = None
        self._heartbeat = Heartbeat(
            beat,
            sync=self._sync,
            on_problem=partial(self.problem, "heartbeat"),
            folder=self._folder.fd,
            every=_beat_of(claim),
        )
        try:
            if how.system_every:
                self._system = self._measuring(how.system_every)
            if how.console:
                self._console = Console(
                    partial(self._folder.append, self._folder.printed()),
                    on_problem=partial(self.problem, "console"),
                )
        except Exception as error:  # both are extras: a run goes on without them
            self.problem("opening", error)

    @classmethod
    def start(
        cls,
        *,
        root: str | Path | None = None,
        project: str,
        name: str,
        config: Mapping[str, Any],
        identity: str,
        origins: Mapping[str, str] | None = None,
        tags: Sequence[str] = (),
        notes: str = "",
        group: str | None = None,
        details: Mapping[str, Any] | None = None,
        run_id: str | None = None,
        strict: bool = False,
        durability: Durability = "process",
        console: bool = False,
        system_every: float = 0.0,
        claim: Claim | None = None,
    ) -> Self:
        """Begin a new run; `identity` is the hash of what its configuration means.

        `details` are further facts for run.json (the workload, hashes of the data), and `group`
        names what runs belong together. With `claim`, the run's session was taken beforehand, and
        is adopted. A project's folder may be a link; the run's may not.
        Raises UsageError for impossible names and for what JSON cannot hold, before anything is
        written; RecordError when the root cannot be written to or the run exists already; and what
        `adopt_session` raises.
        """
        how = How(strict, durability, console, system_every)
        number = claim.number if claim else 1
        check_group(group)
        root = layout.record_root(root)
        layout.check_name("project", project)
        facts = environment.at_once()
        commit = (facts["git"] or {}).get("commit")
        run_id = layout.check_name("run", run_id or layout.new_run_id(name, commit))
        run_dir = root / project / run_id
        shared = {"schema": layout.SCHEMA, "identity": identity}
        run = {
            **(details or {}),
            **shared,
            "run_id": run_id,
            "project": project,
            "name": name,
            "tags": list(tags),
            "notes": notes,
            **({} if group is None else {"group": group}),
            "created": time.time(),
            "status": "running",
            "session": number,
        }
        described = {**shared, "config": config, "origins": origins or {}}
        check_document(layout.CONFIG, described)
        check_document(layout.RUN, run)
        with recording(root):
            layout.refuse_link(run_dir)
            run_dir.mkdir(parents=True, exist_ok=True)
            beat = adopt_session(claim) if claim else None
            # Never replaced: whoever else starts the same run writes the same, or comes too late.
            files.create_json_exclusively(run_dir / layout.CONFIG, described, named=False)
            files.create_json_exclusively(run_dir / layout.RUN, run)  # syncs both names
            try:
                beat = beat or take_session(run_dir, 1)
            except FileExistsError as error:
                raise RecordError(
                    f"the run {run_id} exists already in {run_dir.parent}; resume it, or start "
                    "one with another id"
                ) from error
            return cls(run_dir, number, beat, facts, how, claim=claim)

    @classmethod
    def resume(
        cls,
        run_dir: Path,
        *,
        strict: bool = False,
        durability: Durability = "process",
        console: bool = False,
        system_every: float = 0.0,
        claim: Claim | None = None,
    ) -> Self:
        """Open the next session of an existing run, or with `claim` adopt the one that was taken.

        Raises ResumeError when the run is finished, when its last session is alive, or when
        another process opens the next session first; RecordError when there is no such run; and
        what `adopt_session` raises.
        """
        how = How(strict, durability, console, system_every)
        number = claim.number if claim else next_number(run_dir)
        facts = environment.at_once()
        with recording(run_dir):
            files.sweep(run_dir)
            try:
                beat = adopt_session(claim) if claim else take_session(run_dir, number)
            except FileExistsError as error:
                raise lost_race(run_dir, number) from error
            resumed = has_begun(run_dir, before=number)
            session = cls(run_dir, number, beat, facts, how, resumed=resumed, claim=claim)
            session._update_run("running")
        return session

    @classmethod
    def join(
        cls,
        run_dir: Path,
        number: int,
        rank: int,
        *,
        strict: bool = False,
        durability: Durability = "process",
        console: bool = False,
        system_every: float = 0.0,
    ) -> Self:
        """A further rank of a living session, in a process of its own.

        It writes its own files only (`metrics.r1.000.jsonl`, …) and moves no pointer: what the
        session is, and how the run ends, rank 0 says. Raises RecordError when there is no such
        session, when it does not run, and when another process is this rank already.
        """
        how = How(strict, durability, console, system_every)
        with recording(run_dir):
            beat = take_rank(run_dir, number, rank)
            return cls(run_dir, number, beat, {}, how, rank=rank)

    def finish(
        self,
        status: Outcome,
        *,
        results: Mapping[str, Any] | None = None,
        error: str | None = None,
    ) -> None:
        """End the session; a second call does nothing, nor does a forked child's.

        `finished` has its results accepted for the run, once, unless a newer session exists. A
        further rank ends its own files only.
        Raises RecordError when the results cannot be written: they are not lost silently.
        """
        if self._finished or os.getpid() != self._pid:
            return
        self._finished = True
        outcome: str = status
        try:
            if status == "finished" and self.rank == 0:
                self._sync()  # what they come from lasts before they do
                self._accept(results or {})
        except Exception as failure:  # whatever it is, the session ends, and it is raised then
            outcome, error = "failed", f"results: {failure}"
            raise
        finally:
            self._close(outcome, error)

    def _close(self, status: str, error: str | None) -> None:
        if self._system is not None:
            self._system.stop()
        if self.rank == 0:
            self._wait_for_looking()
        self.event("finish", status=status, error=error, **(self._counts() if self.rank else {}))
        self._heartbeat.stop()
        if self._console is not None:
            self._console.stop()
        self._sync()
        if self.rank == 0:
            self._say_how_it_ended(status, error)
        self._closed = True
        self._folder.seal()
        if self.rank == 0:
            self._correct_how_it_ended()
        self._folder.close()

    def _counts(self) -> dict[str, Any]:
        """What a further rank says of itself at its end, but of the file that takes it."""
        self._sync()
        self._metrics.close()  # what another thread logs from here on is lost
        files = self._folder.written()
        files = {name: told for name, told in files.items() if name != self._events.path.name}
        return {"lost": self.lost, "problems": dict(self.problems), "files": files}

    def _sync(self) -> None:
        """Make the lines survive a power loss, and write what was printed and has not ended."""
        if self._console is not None:
            self._console.tick()
        self._folder.sync()

    def _measuring(self, every: float) -> System:
        measured = self._folder.lines("system")

        def take(sample: Mapping[str, float]) -> None:
            line = codec.encode_line({"_t": time.time(), **sample})
            self._folder.append(measured, line)

        return System(
            every,
            place=lambda: self.dir,
            take=take,
            on_problem=partial(self.problem, "system"),
        )


def _beat_of(claim: Claim | None) -> float | None:
    """Seconds between two signs of life where a short lease needs more of them."""
    lease = None if claim is None else read_lease(claim.run_dir, claim.number).get("lease_s")
    return min(TOUCH_S, lease / 4) if isinstance(lease, int | float) and lease > 0 else None
