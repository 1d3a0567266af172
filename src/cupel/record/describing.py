"""What a session says in JSON files: what it ran on, with which settings, how it and its run stand.

Files of the session are its own. Those of the run belong to its newest session: once one with a
higher number exists, this one writes none of them any more. Further ranks write no JSON at all;
what they have to say of themselves becomes an event.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cupel.errors import RecordError, Superseded
from cupel.record import environment, files, layout, processes
from cupel.record.opening import How, recording
from cupel.record.saying import Saying

_LOOKING_S = 15.0  # git and the driver's tool have their own, shorter patience
_LOCKING_S = 1.0  # an editor needs some milliseconds; one that was stopped shall stop no training
_LOCK_EVERY_S = 0.005


class Describing(Saying):
    """The documents of a session; `Session` adds its beginning and its end."""

    def __init__(
        self,
        run_dir: Path,
        number: int,
        rank: int,
        facts: Mapping[str, Any],
        how: How,
        *,
        resumed: bool,
    ) -> None:
        """Write session.json, unless it is a further rank's, and open the lines. Raises OSError."""
        self.run_id, self.number = run_dir.name, number
        self.resumed = resumed
        self._finished = False
        self._facts = {**facts, **environment.kept()}
        self._added: dict[str, Any] = {}  # settings, by this session
        self._additions = 0
        # A signal handler may add settings while its own thread is adding some: reentrant.
        self._adding = threading.RLock()
        self._state: dict[str, Any] = {
            "number": number,
            "status": "running",
            "started": time.time(),
            "ended": None,
            "start_step": None if resumed else 0,
            **processes.this_process().as_json(),
        }
        del self._state["machine"]  # for the heartbeat only, by which a process is looked for
        folder = layout.session_dir(run_dir, number)
        if rank == 0:
            files.write_json(folder / layout.SESSION, {"schema": layout.SCHEMA, **self._state})
        super().__init__(folder, rank, how)
        self._looking = threading.Thread(
            target=self._look_around, name="cupel-environment", daemon=True
        )
        if rank == 0:
            self._folder.publish(layout.ENVIRONMENT, self._facts)
            self._looking.start()

    def begin_at(self, step: int) -> None:
        """Say from which step this session goes on: later steps of older sessions are void.

        Raises Superseded when a newer session exists: it has seen those steps, and goes on from
        them.
        """
        before = self._state["start_step"]
        if self.rank == 0:
            self._check_newest("its first step")
            if before != step:  # of a new run it says 0 already
                self._say_start(step)
                if self.superseded():  # by one that came meanwhile
                    self._say_start(before)
                    self._check_newest("its first step")
        self.event("begin", step=step)

    def _say_start(self, step: int | None) -> None:
        self._state["start_step"] = step
        self._folder.publish(layout.SESSION, self._state, named=True)  # it voids others' steps

    def describe(self, **facts: Any) -> None:
        """Add facts to env.json: hashes of data, torch's version, threads; of a further rank, an
        event.
        """
        if self.rank:
            self.event("described", **facts)
            return
        self._facts.update(facts)
        self._folder.publish(layout.ENVIRONMENT, self._facts)

    def changes(self) -> list[str]:
        """What may make this session's bits differ from those of the one before; none if first.

        Waits for what is still being found out about this one.
        """
        if not self.resumed or self.rank:
            return []
        self._looking.join(_LOOKING_S)
        before = layout.session_dir(self.run_dir, self.number - 1) / layout.ENVIRONMENT
        try:
            return environment.changes(files.read_json(before), self._facts)
        except RecordError:
            return [f"session {self.number - 1:04d} left no readable {layout.ENVIRONMENT}"]

    def set_config(self, values: Mapping[str, Any]) -> None:
        """Add settings that were not known at the start; the run's identity stays what it was.

        Each addition is an event first, and counts from then on: should a kill keep it from
        config.json, the reader still finds it. What JSON cannot hold is dropped and told, as
        `log` does. Raises Superseded when a newer session exists.
        """
        self._check_newest(layout.CONFIG)
        good = self._writable("config", values)
        if not good:
            return
        if self.rank or self._finished or self.in_child:
            self.event("config", set=good)
            return  # rank 0 says what the run's settings are
        with self._adding:  # so that the events are in the order in which they count
            self.event("config", set=good)
            self._added |= good
            self._additions += 1
            self._write_config()

    def _write_config(self) -> None:
        """Put what was added into config.json; again, if a signal handler added more meanwhile."""
        try:
            while True:
                additions = self._additions
                path = self.run_dir / layout.CONFIG
                described = files.read_json(path)
                described["config"] = {**(described.get("config") or {}), **self._added}
                files.write_json(path, described)
                if additions == self._additions:
                    return
        except (OSError, RecordError) as error:
            self.problem(f"writing {layout.CONFIG}", error)

    def write_run_json(self, name: str, fields: Mapping[str, Any]) -> None:
        """Write a JSON file of the whole run (`model.json`). Raises Superseded or RecordError.

        A forked child writes none: its call counts as a lost line.
        """
        assert self.rank == 0, f"rank {self.rank} may not write {name}"
        assert Path(name).name == name, f"{name} is no name of a file"
        if self.in_child:
            self.event("described", file=name)  # which a child loses, counts and tells
            return
        self._check_newest(name)
        run_dir = self.run_dir
        with recording(run_dir):
            files.write_json(run_dir / name, {"schema": layout.SCHEMA, **fields})

    def edit_run(self, change: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
        """Change fields of run.json as it stands now: people edit it, too, while a run runs.

        Waits for another editor, for a second at most. Raises Superseded or RecordError; a forked
        child's call is lost, as in `write_run_json`.
        """
        if self.in_child:
            self.event("described", file=layout.RUN)
            return
        run_dir = self.run_dir
        with recording(run_dir), _locked(run_dir):
            run = files.read_json(run_dir / layout.RUN)
            self.write_run_json(layout.RUN, {**run, **change(run)})

    def superseded(self) -> bool:
        """Whether a newer session of this run exists."""
        return layout.session_dir(self.run_dir, self.number + 1).exists()

    def _check_newest(self, name: str) -> None:
        if self.superseded():
            raise Superseded(
                f"session {self.number:04d} of run {self.run_id} has a successor; "
                f"it may not write {name} any more"
            )

    def _accept(self, results: Mapping[str, Any]) -> None:
        """Make these the run's results, unless it has some. Raises RecordError."""
        if self.superseded():
            self.note("a newer session of this run exists; these results are not accepted")
            return
        run_dir = self.run_dir
        marks = {"schema": layout.SCHEMA, "run": self.run_id, "accepted_session": self.number}
        with recording(run_dir):
            accepted = files.create_json_exclusively(
                run_dir / layout.RESULTS, {**marks, **results, **marks}
            )
        if not accepted:
            self.note("the results of another session were accepted before")

    def _say_how_it_ended(self, status: str, error: str | None) -> None:
        self._state.update(
            status=status,
            ended=time.time(),
            error=error,
            superseded=self.superseded(),
            lost=self.lost,
            problems=dict(self.problems),
            files=self._folder.written(),
            last=self._last(),
            **({"steps_went_back": self.steps_went_back} if self.steps_went_back else {}),
        )
        self._folder.publish(layout.SESSION, self._state)
        self._update_run(status)

    def _last(self) -> dict[str, Any] | None:
        """`last`; whatever goes wrong there, a session ends in order."""
        try:
            return self.last()
        except Exception as error:
            self.problem("last numbers", error)
            return None

    def _correct_how_it_ended(self) -> None:
        """Say anew what another thread, or a failure, has added while that was written."""
        now = {
            "files": self._folder.written(),
            "problems": dict(self.problems),
            "last": self._last(),
        }
        if any(self._state[name] != value for name, value in now.items()):
            self._state.update(now, lost=self.lost)
            self._folder.publish(layout.SESSION, self._state)

    def _update_run(self, status: str) -> None:
        """Copy the status into run.json, for people and other tools."""
        if self.superseded():
            return
        try:
            path = self.run_dir / layout.RUN
            run = files.read_json(path)  # tags may have been edited meanwhile
            files.write_json(path, {**run, "status": status, "session": self.number})
        except (OSError, RecordError) as error:
            self.problem(f"writing {layout.RUN}", error)

    def _look_around(self) -> None:
        """Find out what takes time, and write it down; in a thread."""
        try:
            self._folder.sync_parents()
            facts = environment.kept()
            if not facts:  # else they are written already
                facts = environment.in_time()
                self.describe(**facts)
            if (facts["git"] or {}).get("dirty"):
                self.describe(**self._kept_patch())
        except Exception as error:  # a thread has nobody to raise to, and a run goes on without
            self.problem("environment", error)

    def _kept_patch(self) -> dict[str, Any]:
        while True:
            place = self.dir
            try:
                return environment.keep_patch(place / layout.DIRTY_PATCH)
            except OSError:
                if self.dir == place:
                    raise  # else it was moved meanwhile

    def _wait_for_looking(self) -> None:
        self._looking.join(_LOOKING_S)
        if self._looking.is_alive():
            told = f"git, or a GPU's driver, did not answer; {layout.ENVIRONMENT} is not whole"
            self.problem("environment", TimeoutError(told))


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """A context in which no editor (`editing.locked`) writes, unless one keeps the lock too long.

    Raises OSError when the folder cannot be opened.
    """
    fd = files.open_folder(folder)
    try:
        until = time.monotonic() + _LOCKING_S
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    break
                time.sleep(_LOCK_EVERY_S)
            except OSError:  # some network disks have no locks
                break
        yield
    finally:
        os.close(fd)
