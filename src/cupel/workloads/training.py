"""From a validated recipe to a finished run: `train(recipe, …)`. The one way in which a run runs.

`cupel.workloads.prepare` builds and refuses before anything is written; from then on the record
tells how the run ends, whatever happens.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from cupel.checkpoint.room import CheckpointRoom
from cupel.checkpoint.stop import StopRequest
from cupel.config import Recipe
from cupel.errors import CupelError
from cupel.events import Dispatcher, Event
from cupel.record.claims import Claim
from cupel.record.described import ModelFile
from cupel.record.reader import RunRecord
from cupel.record.session import Session
from cupel.train.loop import OBJECTIVE, Loop, Outcome
from cupel.train.parallel import World
from cupel.train.protocols import SilentRecorder
from cupel.train.settings import TrainSettings
from cupel.workloads.cost import totals
from cupel.workloads.figures import CurveDrawer
from cupel.workloads.measured import MeasuredDrawer
from cupel.workloads.prepare import Prepared, prepare


@dataclass(frozen=True, slots=True)
class Trained:
    """How a run ended, for whoever shows it. On ranks other than 0, only `status` and `step`."""

    status: Literal["finished", "interrupted"]
    step: int
    signal: str | None = None
    run_dir: Path | None = None
    results: Mapping[str, Any] = field(default_factory=dict)
    references: Mapping[str, float] = field(default_factory=dict)
    figures: list[Path] = field(default_factory=list)
    problems: int = 0


class Display:
    """Whoever watches a run; this one shows nothing. Derive from it to show something."""

    def say(self, text: str) -> None:
        """Hear, in a few words, what is being prepared or what went wrong."""

    def ready(self, run_dir: Path, references: Mapping[str, float]) -> None:
        """Hear where the run is written, and which levels its loss is held against."""

    def __call__(self, event: Event, payload: Any) -> None:
        """Hear of every event."""


def train(
    recipe: Recipe,
    *,
    root: Path,
    resume: Path | None = None,
    run_id: str | None = None,
    details: Mapping[str, Any] | None = None,
    display: Display | None = None,
    debug: bool = False,
    claim: Claim | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Trained:
    """Train a recipe to its end, in a new run or as a new session of the run at `resume`.

    A new run is called `run_id`, or gets a free id; `details` are further facts for its run.json.
    `claim` is the session that was taken for it, and `changes` are settings of this session only,
    by dotted name; both are recorded.
    Raises UsageError for what can be known before the first step, TrainingFailed or
    CheckpointError for what cannot; such a failure is in the record before it is raised.
    """
    display = display or Display()
    settings = recipe.section("train", TrainSettings)
    _set_up_torch(settings)
    world = World.join(settings.device)
    try:
        display.say("preparing data and model")
        ready = prepare(recipe, world, root=root, resume=resume, debug=debug, changes=changes)
        # From here on a signal to stop is heard, so that the session always tells how it ended.
        with StopRequest(leaving=True) as stop:
            session = None
            if world.first and resume is not None:
                session = Session.resume(resume, claim=claim)
            elif world.first:
                session = _start(
                    ready, root=root, run_id=run_id, details=details or {}, claim=claim
                )
            if session is not None and changes:
                session.event("deviation", changes=dict(changes))
                session.note(f"in this session only: {_listed(changes)}")
            run_dir = Path(world.from_first(str(session.run_dir) if session else ""))
            if session is None:
                trained = _follow(ready, run_dir, stop)
            else:
                trained = _lead(ready, session, stop, display)
        # torchrun ends all ranks when one has left with 75: rank 0 closes the record first.
        world.barrier()
        return trained
    finally:
        world.leave()


def _set_up_torch(settings: TrainSettings) -> None:
    """Threads and determinism, for this process."""
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    if settings.deterministic:
        torch.use_deterministic_algorithms(True)


def _start(
    ready: Prepared,
    *,
    root: Path,
    run_id: str | None,
    details: Mapping[str, Any],
    claim: Claim | None,
) -> Session:
    """The first session of a new run. Raises RecordError."""
    recipe = ready.planned
    return Session.start(
        root=root,
        project=recipe.project,
        name=recipe.name,
        config=recipe.resolved(),
        identity=recipe.identity(),
        origins=recipe.origins,
        run_id=run_id,
        claim=claim,
        tags=details.get("tags", ()),
        details={
            **details,
            "about": recipe.about,
            "workload": recipe.workload,
            "seed": recipe.seed,
            "steps": ready.train.steps,
            "data": ready.offer("describe", {}),
        },
    )


def _listed(changes: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in changes.items())


def _follow(ready: Prepared, run_dir: Path, stop: StopRequest) -> Trained:
    """A rank other than 0: trains along and writes nothing."""
    loop = _loop(ready, run_dir, session=None)
    loop.restore()
    outcome = loop.run(stop)
    return Trained(outcome.status, outcome.step, outcome.signal)


def _lead(ready: Prepared, session: Session, stop: StopRequest, display: Display) -> Trained:
    """Rank 0: trains, and keeps the record truthful however it ends."""
    try:
        return _recorded(ready, session, stop, display)
    except KeyboardInterrupt:
        session.finish("interrupted", error="aborted by Ctrl-C, without a checkpoint")
        raise
    except BaseException as error:
        told = str(error) if isinstance(error, CupelError) else traceback.format_exc()
        session.event("failure", error=type(error).__name__, message=str(error))
        session.finish("failed", error=told)
        raise


def _recorded(ready: Prepared, session: Session, stop: StopRequest, display: Display) -> Trained:
    references: dict[str, float] = ready.offer("references", {})
    # A resumed run keeps the file of its first session, whatever has become of the code since.
    described = ModelFile(session, ready.workload.model, replace=False)
    described.begin()
    ready.dispatcher.add_listener("model.json", FirstStep(described), FirstStep.events)
    _describe(ready, session, display, references)
    drawer = CurveDrawer(session.run_dir, ready.figures, references=references)
    measured = MeasuredDrawer(session.run_dir, ready.figures)
    ready.dispatcher.on_problem = session.problem
    ready.dispatcher.add_listener("figures", drawer, CurveDrawer.events)
    ready.dispatcher.add_listener("measured", measured, MeasuredDrawer.events)
    ready.dispatcher.add_listener("display", display, Event)
    display.ready(session.run_dir, references)

    loop = _loop(ready, session.run_dir, session=session)
    start = _restore(loop, session, display)
    clock = _Clock()
    try:
        outcome = loop.run(stop)
    finally:
        described.complete(loop.progress.step)
    seconds = clock.seconds()
    results: dict[str, Any] = {}
    if outcome.status == "interrupted":
        session.finish("interrupted", error=f"asked to stop by {outcome.signal}")
    else:
        results = _results(ready, loop, outcome, start=start, seconds=seconds)
        results["totals"] = totals(
            RunRecord(session.run_dir), ready.workload, step=outcome.step, cpu_s=seconds["cpu_s"]
        )
        results["samples"] = _samples(ready, session)
        session.finish("finished", results=results)
    return Trained(
        outcome.status,
        outcome.step,
        outcome.signal,
        run_dir=session.run_dir,
        results=results,
        references=references,
        figures=[*drawer.drawn, *measured.drawn],
        problems=sum(session.problems.values()),
    )


def _describe(
    ready: Prepared, session: Session, display: Display, references: Mapping[str, float]
) -> None:
    """Write down what must be known to read the record alone, and what changed since last time."""
    for note in (*ready.offer("notes", ()), *ready.monitor_notes()):
        session.note(note)
        display.say(note)
    if not session.resumed:
        for name, content in ready.offer("files", {}).items():
            session.write_run_json(name, content)
    session.describe(
        torch=torch.__version__,
        torch_threads=torch.get_num_threads(),
        data=ready.offer("describe", {}),
        references=references,
    )
    if changes := session.changes():
        told = f"since the last session: {'; '.join(changes)} (so bits may differ)"
        session.event("environment_changed", changes=changes)
        session.note(told)
        display.say(told)


def _restore(loop: Loop, session: Session, display: Display) -> int:
    """Load the newest intact checkpoint; the step after which this session goes on."""
    restored = loop.restore()
    for line in restored.skipped if restored else ():
        session.note(line)
        display.say(line)
    start = restored.step if restored else 0
    session.begin_at(start)
    session.note(f"session {session.number} begins after step {start}")
    return start


def _loop(ready: Prepared, run_dir: Path, *, session: Session | None) -> Loop:
    room = CheckpointRoom(
        run_dir if session is None else lambda: session.run_dir,
        settings=ready.checkpoint,
        superseded=session.superseded if session is not None else lambda: False,
        about={"identity": ready.planned.identity()},
    )
    return Loop(
        ready.workload,
        ready.train,
        seed=ready.recipe.seed,
        room=room,
        recorder=session if session is not None else SilentRecorder(),
        dispatcher=ready.dispatcher if session is not None else Dispatcher(),
        world=ready.world,
        checkpoint_every=ready.checkpoint.every,
    )


class FirstStep:
    """Has the first training step of a session looked at for `model.json`; a listener."""

    events = (Event.STEP_START, Event.STEP_END, Event.RUN_END, Event.FAILURE)

    def __init__(self, described: ModelFile) -> None:
        self._described, self._step = described, 0

    def __call__(self, event: Event, payload: Any) -> None:
        if event == Event.STEP_START and not self._step:
            self._step = payload["step"]
            self._described.watch()
        else:  # that step is over, or training is
            self._described.complete(self._step)


class _Clock:
    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def seconds(self) -> dict[str, float]:
        return {
            "wall_s": time.perf_counter() - self._wall,
            "cpu_s": time.process_time() - self._cpu,
        }


def _results(
    ready: Prepared, loop: Loop, outcome: Outcome, *, start: int, seconds: dict[str, float]
) -> dict[str, Any]:
    """`results.json`: final metrics, the best and its rule, seconds of this session, hashes."""
    progress, workload = loop.progress, ready.workload
    units = (outcome.step - start) * workload.units_per_step
    last_session = {
        "steps": outcome.step - start,
        **seconds,
        f"{workload.unit}_per_s": units / seconds["wall_s"] if units else None,
        f"{workload.unit}_per_cpu_s": units / seconds["cpu_s"] if units else None,
    }
    return {
        "step": outcome.step,
        "final": progress.evaluation,
        # One batch: not to be held against an evaluation.
        "last_logged": {"step": progress.logged_at, "loss": progress.loss},
        "best": {OBJECTIVE: progress.best, "step": progress.best_step, "rule": "lowest"},
        "last_session": last_session,
        "monitors": {name: asdict(cost) for name, cost in loop.dispatcher.costs().items()},
        "state": loop.parts.hashes(),
    }


def _samples(ready: Prepared, session: Session) -> list[Any]:
    """What the workload writes at the end; a failure here does not undo a finished training."""
    try:
        samples: list[Any] = ready.offer("samples", [])
    except Exception as error:
        session.problem("samples", error)
        return []
    return samples
