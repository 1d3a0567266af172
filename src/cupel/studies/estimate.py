"""How long the runs of a study will take, and how much disk: `estimate(manifest)`.

By what accepted runs of the same shape took: those of the study itself, then others in the same
record root. A shape is every setting but seeds, folds, names, rates (numbers with a fraction), the
count of steps, and how often something is written or drawn. Nothing is invented: without such runs
it is unknown. A figure holds for the machine and the load that those runs had.
"""

from __future__ import annotations

import hashlib
import heapq
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from cupel.errors import CupelError
from cupel.jobs.attempts import read_attempt
from cupel.record import layout
from cupel.record.files import read_json
from cupel.record.reader import RunRecord
from cupel.record.usage import usage_of
from cupel.studies.planned import Manifest, PlannedRun, compact

ENOUGH = 5  # runs of a shape: more are not read
MOST_READ = 400  # other runs of the record root that are looked at, the newest first
_NO_SHAPE = ("seed", "name", "about", "project", "figures", "sample")
_NO_SHAPE_IN_TRAIN = ("steps", "schedule", "stopping")
_NOWHERE = ("every", "evaluate_every", "log_every", "fold")

Tell = Callable[[str], None]  # what is looked at


@dataclass(frozen=True, slots=True)
class Cost:
    """What one accepted run took: seconds before and after its steps, seconds a step, bytes that
    do not grow with steps, and bytes a step."""

    start_s: float
    step_s: float
    fixed_bytes: float
    step_bytes: float
    host: str = ""


@dataclass(frozen=True, slots=True)
class ArmEstimate:
    """What is left of an arm. `step_s`, `run_s` and `run_bytes` are medians over its runs that are
    left, None when one of them has no like; `by` is how many runs that rests on."""

    arm: str
    left: int
    step_s: float | None = None
    run_s: float | None = None
    run_bytes: float | None = None
    by: int = 0


@dataclass(frozen=True, slots=True)
class Estimate:
    """Time and disk of what is left of a study. `seconds` are those on the clock with so many
    workers at a time; None where a run has no like. `free_bytes` is what the disk has now."""

    left: int
    accepted: int
    workers: int
    arms: tuple[ArmEstimate, ...] = ()
    seconds: float | None = None
    bytes: float | None = None
    free_bytes: int | None = None
    by: int = 0  # runs that it rests on
    hosts: tuple[str, ...] = ()  # where those ran

    @property
    def too_large(self) -> bool:
        """Whether it would not fit on the disk."""
        return None not in (self.bytes, self.free_bytes) and self.bytes > self.free_bytes  # type: ignore[operator]

    @property
    def unknown(self) -> tuple[str, ...]:
        """The arms of which nothing is known."""
        return tuple(one.arm for one in self.arms if one.run_s is None)


def estimate(
    manifest: Manifest, *, workers: int | None = None, tell: Tell | None = None
) -> Estimate:
    """Time and disk of the runs that are not accepted. `workers` are those at a time, else
    `study.workers`. Reads a few small files of each run that it looks at, about 1 ms."""
    slots = workers or manifest.study.workers
    accepted, left = _sorted_out(manifest)
    free = _free(manifest.root)
    if not left:
        return Estimate(0, len(accepted), slots, free_bytes=free)
    shapes = [shape_of(cell.config) for cell in manifest.cells]
    steps = [_steps(cell.config) for cell in manifest.cells]
    wanted = {shapes[run.cell] for run in left}
    known = _known(manifest, accepted, shapes, wanted, tell)
    costs = {shape: _middle(found) for shape, found in known.items()}
    durations, sizes = list[float | None](), list[float | None]()
    for run in left:
        cost = costs.get(shapes[run.cell])
        count = steps[run.cell]
        if cost is None or count is None:
            durations.append(None)
            sizes.append(None)
        else:
            durations.append(cost.start_s + count * cost.step_s)
            sizes.append(cost.fixed_bytes + count * cost.step_bytes)
    arms = tuple(_arms(left, shapes, durations, sizes, known))
    complete = None not in durations
    return Estimate(
        len(left),
        len(accepted),
        slots,
        arms,
        seconds=_together([one for one in durations if one is not None], slots)
        if complete
        else None,
        bytes=sum(one for one in sizes if one is not None) if complete else None,
        free_bytes=free,
        by=sum(map(len, known.values())),
        hosts=tuple(sorted({one.host for found in known.values() for one in found if one.host})),
    )


def shape_of(config: Mapping[str, Any]) -> str:
    """A hash of what decides how long a step takes and how much it writes; see above."""
    kept = {name: value for name, value in config.items() if name not in _NO_SHAPE}
    if isinstance(train := kept.get("train"), Mapping):
        kept["train"] = {k: v for k, v in train.items() if k not in _NO_SHAPE_IN_TRAIN}
    return hashlib.sha256(compact(_without_rates(kept))).hexdigest()[:16]


def _without_rates(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_rates(value[name]) for name in sorted(value) if name not in _NOWHERE}
    if isinstance(value, list | tuple):
        return [_without_rates(one) for one in value]
    return "a number" if isinstance(value, float) else value


# ---- runs that were accepted -------------------------------------------------------------------


def _sorted_out(manifest: Manifest) -> tuple[list[PlannedRun], list[PlannedRun]]:
    """The runs that are accepted, and the others."""
    there = {folder.name for folder in layout.run_dirs(manifest.root, manifest.project)}
    accepted, left = list[PlannedRun](), list[PlannedRun]()
    for run in manifest.runs:
        done = run.run_id in there and (manifest.run_dir(run) / layout.RESULTS).exists()
        (accepted if done else left).append(run)
    return accepted, left


def _known(
    manifest: Manifest,
    accepted: Iterable[PlannedRun],
    shapes: Sequence[str],
    wanted: set[str],
    tell: Tell | None,
) -> dict[str, list[Cost]]:
    """What runs of the wanted shapes took; the study's own come first."""
    found: dict[str, list[Cost]] = {}

    def take(shape: str, folder: Path) -> None:
        if shape not in wanted or len(found.get(shape, ())) >= ENOUGH:
            return
        if (cost := cost_of(folder)) is not None:
            found.setdefault(shape, []).append(cost)

    for run in accepted:
        take(shapes[run.cell], manifest.run_dir(run))
    lacking = wanted - found.keys()
    own = {run.run_id for run in manifest.runs}
    for number, folder in enumerate(_newest(manifest.root, own) if lacking else (), 1):
        if all(len(found.get(shape, ())) >= ENOUGH for shape in lacking):
            break
        if tell is not None:
            tell(f"earlier runs: {number}")
        if (config := _config(folder)) is not None:
            take(shape_of(config), folder)
    return found


def cost_of(run_dir: Path) -> Cost | None:
    """What an accepted run took; None of one that tells no seconds or no steps."""
    try:
        results = read_json(run_dir / layout.RESULTS)
        step, last = results["step"], results["last_session"]
        seconds, steps = float(last["wall_s"]), int(last["steps"])
    except (CupelError, KeyError, TypeError, ValueError):
        return None
    if steps < 1 or step < 1 or seconds <= 0:
        return None
    number = max(layout.session_numbers(run_dir), default=0)
    attempt = read_attempt(run_dir, number)
    # What a process takes to begin and to end is known where one has watched it.
    beside = max(0.0, attempt.ended - attempt.started - seconds) if attempt else 0.0
    used = usage_of(run_dir)
    return Cost(
        start_s=beside,
        step_s=seconds / steps,
        fixed_bytes=used.total - used.metrics,
        step_bytes=used.metrics / step,
        host=_host(run_dir, number),
    )


def _host(run_dir: Path, number: int) -> str:
    try:
        return str(read_json(layout.session_dir(run_dir, number) / layout.ENVIRONMENT)["host"])
    except (CupelError, KeyError, TypeError):
        return ""


def _config(run_dir: Path) -> Mapping[str, Any] | None:
    if not (run_dir / layout.RESULTS).exists():
        return None
    try:
        config = RunRecord(run_dir).config
    except CupelError:
        return None
    return config if isinstance(config, Mapping) else None


def _newest(root: Path, but: set[str]) -> Iterator[Path]:
    """The other runs of a record root, the last begun first."""
    folders = [folder for folder in layout.run_dirs(root) if folder.name not in but]

    def changed(folder: Path) -> float:
        try:
            return folder.stat().st_mtime
        except OSError:  # deleted meanwhile
            return 0.0

    yield from heapq.nlargest(MOST_READ, folders, key=changed)


def _middle(costs: Sequence[Cost]) -> Cost:
    return Cost(
        median(one.start_s for one in costs),
        median(one.step_s for one in costs),
        median(one.fixed_bytes for one in costs),
        median(one.step_bytes for one in costs),
    )


# ---- what that comes to ------------------------------------------------------------------------


def _arms(
    left: Sequence[PlannedRun],
    shapes: Sequence[str],
    durations: Sequence[float | None],
    sizes: Sequence[float | None],
    known: Mapping[str, Sequence[Cost]],
) -> Iterator[ArmEstimate]:
    by_arm: dict[str, list[int]] = {}
    for place, run in enumerate(left):
        by_arm.setdefault(run.arm, []).append(place)
    for arm, places in by_arm.items():
        own = {shapes[left[place].cell] for place in places}
        times = [one for place in places if (one := durations[place]) is not None]
        bytes_ = [one for place in places if (one := sizes[place]) is not None]
        if len(times) < len(places):
            yield ArmEstimate(arm, len(places))
            continue
        yield ArmEstimate(
            arm,
            len(places),
            median(_middle(known[shape]).step_s for shape in own),
            median(times),
            median(bytes_),
            sum(len(known[shape]) for shape in own),
        )


def _together(durations: Sequence[float], workers: int) -> float:
    """When the last one is done, each taken by the worker that is free first, in their order."""
    if len(durations) <= workers:
        return max(durations, default=0.0)
    ends = [0.0] * workers
    for seconds in durations:
        heapq.heapreplace(ends, ends[0] + seconds)
    return max(ends)


def _steps(config: Mapping[str, Any]) -> int | None:
    train = config.get("train")
    steps = train.get("steps") if isinstance(train, Mapping) else None
    return steps if isinstance(steps, int) else None


def _free(root: Path) -> int | None:
    """The bytes that are free where a record root lies, or will."""
    folder = root.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None
