"""From a validated recipe to a finished run: `train(recipe, …)`. The one way in which a run runs.

Order matters: everything that can refuse (data, model, preflight, resume) does so before the run
folder is touched, so that a mistake leaves nothing half-written behind.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from cupel import registry
from cupel.checkpoint.room import CheckpointRoom
from cupel.checkpoint.settings import CheckpointSettings
from cupel.checkpoint.stop import StopRequest
from cupel.config import NOT_IDENTITY, Recipe, differences
from cupel.errors import CupelError, MissingDependency, ResumeError
from cupel.events import Dispatcher, Event
from cupel.figures.settings import FigureSettings
from cupel.record.model import describe_model
from cupel.record.reader import RunRecord
from cupel.record.session import Session
from cupel.train import preflight
from cupel.train.loop import OBJECTIVE, Loop, Outcome
from cupel.train.parallel import World
from cupel.train.protocols import SilentRecorder, Workload
from cupel.train.settings import TrainSettings
from cupel.workloads.figures import CurveDrawer


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
    display: Display | None = None,
    debug: bool = False,
) -> Trained:
    """Train a recipe to its end, in a new run or as a new session of the run at `resume`.

    Raises UsageError for what can be known before the first step, TrainingFailed or
    CheckpointError for what cannot; such a failure is in the record before it is raised.
    """
    display = display or Display()
    settings = recipe.section("train", TrainSettings)
    _set_up_torch(settings)
    _require_figures(recipe.section("figures", FigureSettings))
    world = World.join(settings.device)
    try:
        display.say("preparing data and model")
        workload = registry.resolve("workload", recipe.workload).build(
            recipe.workload_settings, seed=recipe.seed
        )
        for note in _offer(workload, "notes", ()):
            display.say(note)
        _check(recipe, workload, root=root, resume=resume, world=world)
        # From here on a signal to stop is heard, so that the session always tells how it ended.
        with StopRequest() as stop:
            session = (
                _open(recipe, workload, display, root=root, resume=resume) if world.first else None
            )
            run_dir = Path(world.from_first(str(session.run_dir) if session else ""))
            if session is None:
                trained = _follow(recipe, workload, run_dir, world, stop)
            else:
                trained = _lead(
                    recipe, workload, session, world, stop, display=display, debug=debug
                )
        # torchrun ends all ranks when one has left with 75: rank 0 closes the record first.
        world.barrier()
        return trained
    finally:
        world.leave()


def _follow(
    recipe: Recipe, workload: Workload, run_dir: Path, world: World, stop: StopRequest
) -> Trained:
    """A rank other than 0: trains along and writes nothing."""
    loop = _loop(recipe, workload, run_dir, world)
    loop.restore()
    outcome = loop.run(stop)
    return Trained(outcome.status, outcome.step, outcome.signal)


def _lead(
    recipe: Recipe,
    workload: Workload,
    session: Session,
    world: World,
    stop: StopRequest,
    *,
    display: Display,
    debug: bool,
) -> Trained:
    """Rank 0: trains, and keeps the record truthful however it ends."""
    try:
        return _recorded(recipe, workload, session, world, stop, display, debug)
    except KeyboardInterrupt:
        session.finish("interrupted", error="aborted by Ctrl-C, without a checkpoint")
        raise
    except BaseException as error:
        told = str(error) if isinstance(error, CupelError) else traceback.format_exc()
        session.event("failure", error=type(error).__name__, message=str(error))
        session.finish("failed", error=told)
        raise


def _recorded(
    recipe: Recipe,
    workload: Workload,
    session: Session,
    world: World,
    stop: StopRequest,
    display: Display,
    debug: bool,
) -> Trained:
    references: dict[str, float] = _offer(workload, "references", {})
    session.describe(references=references)
    dispatcher = Dispatcher(debug=debug, on_problem=session.problem)
    for name, chosen in recipe.monitors.items():
        dispatcher.add_monitor(name, registry.resolve("monitor", name)(chosen))
    drawer = CurveDrawer(
        session.run_dir, recipe.section("figures", FigureSettings), references=references
    )
    dispatcher.add_listener("figures", drawer, CurveDrawer.events)
    dispatcher.add_listener("display", display, Event)
    display.ready(session.run_dir, references)

    loop = _loop(recipe, workload, session.run_dir, world, session=session, dispatcher=dispatcher)
    restored = loop.restore()
    start = restored.step if restored else 0
    for line in restored.skipped if restored else ():
        session.note(line)
        display.say(line)
    session.begin_at(start)
    session.note(f"session {session.number} begins after step {start}")
    clock = _Clock()
    outcome = loop.run(stop)
    seconds = clock.seconds()
    if outcome.status == "interrupted":
        session.finish("interrupted", error=f"asked to stop by {outcome.signal}")
        return _trained(outcome, session, loop, drawer, references, {})
    results = _results(loop, workload, outcome, start=start, seconds=seconds)
    session.finish("finished", results=results)
    return _trained(outcome, session, loop, drawer, references, results)


def _loop(
    recipe: Recipe,
    workload: Workload,
    run_dir: Path,
    world: World,
    *,
    session: Session | None = None,
    dispatcher: Dispatcher | None = None,
) -> Loop:
    chosen = recipe.section("checkpoint", CheckpointSettings)
    superseded = session.superseded if session is not None else (lambda: False)
    about = {"identity": recipe.identity()}
    room = CheckpointRoom(run_dir, settings=chosen, superseded=superseded, about=about)
    return Loop(
        workload,
        recipe.section("train", TrainSettings),
        seed=recipe.seed,
        room=room,
        recorder=session if session is not None else SilentRecorder(),
        dispatcher=dispatcher if dispatcher is not None else Dispatcher(),
        world=world,
        checkpoint_every=chosen.every,
        checkpoint_best=chosen.best == OBJECTIVE,
    )


# ---- before the first step ---------------------------------------------------------------------


def _set_up_torch(settings: TrainSettings) -> None:
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    if settings.deterministic:
        torch.use_deterministic_algorithms(True)


def _require_figures(settings: FigureSettings) -> None:
    from importlib.util import find_spec

    if settings.formats and find_spec("matplotlib") is None:
        raise MissingDependency("matplotlib", extra="analysis", purpose="drawing figures")


def _check(
    recipe: Recipe, workload: Workload, *, root: Path, resume: Path | None, world: World
) -> None:
    """Refuse what cannot work, before anything is written."""
    if resume is not None:
        _same_run(recipe, workload, RunRecord(resume))
    shares = world.size * recipe.section("train", TrainSettings).accumulate
    workload.batch(1, part=(0, shares))  # a batch that cannot be shared says so now
    chosen = recipe.section("checkpoint", CheckpointSettings)
    folder = root
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    preflight.check(
        workload.model,
        recipe.section("train", TrainSettings),
        folder=folder,
        checkpoints_kept=chosen.keep_last + (1 if chosen.best else 0),
        device=world.device,
    )


def _same_run(recipe: Recipe, workload: Workload, record: RunRecord) -> None:
    """A run goes on only with the settings and the data that it began with."""
    if record.identity != recipe.identity():
        changed = [
            line
            for line in differences(record.config, recipe.resolved())
            if line.split(":")[0].split(".")[0] not in NOT_IDENTITY
        ]
        listed = "; ".join(changed[:4]) + ("; …" if len(changed) > 4 else "")
        raise ResumeError(
            f"run {record.run_id} was started with other settings ({listed}); "
            "give it the same ones, or start a new run with --resume never"
        )
    before, now = record.run.get("data"), _offer(workload, "describe", {})
    if before and now and before.get("sha256") != now.get("sha256"):
        raise ResumeError(
            f"run {record.run_id} was trained on data with SHA-256 "
            f"{str(before.get('sha256'))[:12]}…, and the data is now {str(now.get('sha256'))[:12]}…"
            "; restore the data, or start a new run with --resume never"
        )


def _open(
    recipe: Recipe, workload: Workload, display: Display, *, root: Path, resume: Path | None
) -> Session:
    """The session of this process, with what must be known to read its record alone."""
    if resume is not None:
        session = Session.resume(resume)
    else:
        session = Session.start(
            root=root,
            project=recipe.project,
            name=recipe.name,
            config=recipe.resolved(),
            identity=recipe.identity(),
            origins=recipe.origins,
            details={
                "about": recipe.about,
                "workload": recipe.workload,
                "seed": recipe.seed,
                "steps": recipe.section("train", TrainSettings).steps,
                "data": _offer(workload, "describe", {}),
            },
        )
        session.write_run_json("model.json", describe_model(workload.model))
        for name, content in _offer(workload, "files", {}).items():
            session.write_run_json(name, content)
    session.describe(
        torch=torch.__version__,
        torch_threads=torch.get_num_threads(),
        data=_offer(workload, "describe", {}),
    )
    if changes := session.changes():
        told = f"since the last session: {'; '.join(changes)} (so bits may differ)"
        session.event("environment_changed", changes=changes)
        session.note(told)
        display.say(told)
    return session


def _offer(workload: Any, name: str, otherwise: Any) -> Any:
    """What a workload offers beyond its protocol: `describe`, `notes`, `references`, `files`,
    `samples`."""
    method = getattr(workload, name, None)
    return method() if callable(method) else otherwise


# ---- after the last step -----------------------------------------------------------------------


class _Clock:
    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def seconds(self) -> dict[str, float]:
        return {
            "wall_s": time.perf_counter() - self._wall,
            "cpu_s": time.process_time() - self._cpu,
        }


def _results(
    loop: Loop, workload: Workload, outcome: Outcome, *, start: int, seconds: dict[str, float]
) -> dict[str, Any]:
    """`results.json`: final metrics, the best and its rule, seconds of this session, a sample."""
    progress = loop.progress
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
        "last_step": {"loss": progress.loss},  # one batch: not to be held against an evaluation
        "best": {OBJECTIVE: progress.best, "step": progress.best_step, "rule": "lowest"},
        "last_session": last_session,
        "monitors": {
            name: {"calls": c.calls, "failures": c.failures, "wall_s": c.wall_s, "cpu_s": c.cpu_s}
            for name, c in loop.dispatcher.costs().items()
        },
        "state": loop.parts.hashes(),
        "samples": _offer(workload, "samples", []),
    }


def _trained(
    outcome: Outcome,
    session: Session,
    loop: Loop,
    drawer: CurveDrawer,
    references: dict[str, float],
    results: dict[str, Any],
) -> Trained:
    return Trained(
        outcome.status,
        outcome.step,
        outcome.signal,
        run_dir=session.run_dir,
        results=results,
        references=references,
        figures=drawer.drawn,
        problems=sum(session.problems.values()),
    )
