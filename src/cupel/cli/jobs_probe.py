"""`cupel jobs probe RECIPE`: how many runs at a time pay on this machine, measured.

Each number of workers trains the real thing for a few steps, in a temporary record root, in
processes like those of a study. Steps count only while all of them train, so that loading PyTorch
is left out; so are evaluations, checkpoints and figures. What else the machine does is measured,
too.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cupel.cli.root import Root, runs_root
from cupel.cli.study_run import Overrides

if TYPE_CHECKING:
    from cupel.jobs.backend import Ended, Handle
    from cupel.jobs.local import LocalBackend
    from cupel.jobs.packing import Ledger, Measure, Recommendation
    from cupel.studies.manifest import Manifest, PlannedRun

PROBES = "probes.json"  # in RUNS/.cache: derived, may be deleted
_PLENTY = 10_000_000  # steps of a training that is ended before
_LOADING_S, _LOOK_S, _GRACE_S = 300.0, 0.05, 20.0
_SPARE = 1.25  # of a measured memory, for what evaluations and checkpoints take


def probe(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A recipe, of a study or of one run.")
    ],
    overrides: Overrides = None,
    workers: Annotated[
        str, typer.Option(metavar="N,N…", help="How many at a time to try.")
    ] = "1,2,3,4",
    steps: Annotated[
        int, typer.Option(min=2, help="Steps of each training that are measured.")
    ] = 30,
    seconds: Annotated[
        float, typer.Option(min=1, help="Measure no longer, if each has made two steps by then.")
    ] = 60,
    root: Root = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure how many runs at a time pay here, for each arm of a study.

    One to four trainings run at once for a few steps; more workers pay as long as each adds a tenth
    to the throughput and all fit into the memory. Prints what to write into the recipe. The record
    root gets nothing but RUNS/.cache/probes.json.

    \b
    cupel jobs probe quickstart
    cupel jobs probe mine.yaml --workers 1,2 --steps 100
    """
    from cupel.cli.streams import tell
    from cupel.cli.tables import print_json
    from cupel.jobs.packing import machine

    counts, where = _counts(workers), runs_root(root)
    ledger = machine()
    found = []
    for variant in variants(recipe, overrides or [], where):
        measures = []
        for count in counts:
            tell(f"{variant.name}: {count} at a time")
            measures.append(measure(variant, count, steps=steps, seconds=seconds))
            if measures[-1].oom:
                break
        found.append(probed(variant, measures, ledger))
    store(where, found)
    if json:
        print_json({"recipe": recipe, "variants": [one.facts() for one in found]})
        return
    _show(found)


@dataclass(frozen=True, slots=True)
class Variant:
    """One arm at its first point, or a recipe: its resolved settings, and the steps of a run."""

    name: str
    config: Mapping[str, Any]
    steps: int
    on_gpu: bool = False


@dataclass(frozen=True, slots=True)
class Probed:
    """A variant with what was measured of it, and what that recommends."""

    variant: Variant
    device: str
    measures: tuple[Measure, ...]
    recommended: Recommendation

    @property
    def key(self) -> str:
        """What it holds for: settings of this shape, on such a device."""
        from cupel.studies.estimate import shape_of

        return f"{shape_of(self.variant.config)} {self.device}"

    @property
    def peak_mb(self) -> float:
        """The most that one run took."""
        return max(one.peak_mb_each for one in self.measures)

    def facts(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "variant": self.variant.name,
            "device": self.device,
            "memory": "gpu" if self.variant.on_gpu else "host",
            "steps": self.variant.steps,
            "measures": [asdict(one) for one in self.measures],
            "recommended": asdict(self.recommended),
            "resources": resources_of(self),
        }


# ---- what is measured --------------------------------------------------------------------------


def variants(recipe: str, overrides: Sequence[str], root: Path) -> list[Variant]:
    """What a recipe trains: each arm at its first point, or the one run.

    Raises what `plan_study` and `load` raise.
    """
    from cupel.compose import compose
    from cupel.config import load
    from cupel.jobs.packing import machine
    from cupel.studies.points import middle
    from cupel.studies.spec import is_study, plan_study

    if is_study(compose(recipe, overrides)):
        planned = plan_study(recipe, overrides, root=root)
        if planned.study.search:
            middles = [middle(planned.study.search)]
            planned = plan_study(recipe, overrides, root=root, asked=middles)
        first = {cell.arm: dict(cell.config.items()) for cell in reversed(planned.cells)}
        configs = {arm: first[arm] for arm in planned.study.arms if arm in first}
    else:
        loaded = load(recipe, overrides)
        configs = {loaded.name: loaded.resolved()}
    gpus = bool(machine().gpus)
    return [
        Variant(name, config, config["train"]["steps"], gpus and config["train"]["device"] != "cpu")
        for name, config in configs.items()
    ]


def measure(variant: Variant, workers: int, *, steps: int, seconds: float) -> Measure:
    """Train a variant in so many processes at once; what each of them made and took.

    Raises JobsError when one of them ends by itself, except for lack of memory.
    """
    from cupel.jobs.local import LocalBackend
    from cupel.jobs.packing import Measure

    with tempfile.TemporaryDirectory(prefix="cupel-probe-") as folder:
        manifest = _study_of(variant, Path(folder), workers, steps=steps)
        with LocalBackend(grace_s=_GRACE_S) as backend:
            handles = backend.submit([_job(manifest, run) for run in manifest.runs])
            watching = _Watching(backend, handles, manifest)
            try:
                rates = watching.rates(max(2, steps // 10), steps, seconds)
            except _OutOfMemory:
                return Measure(workers, 0.0, watching.peak_mb(variant), oom=True)
            backend.cancel(handles)
            watching.wait_for_ends()
            each = sum(rates) / len(rates)
            return Measure(workers, each, watching.peak_mb(variant))


class _OutOfMemory(Exception):
    """One of the trainings ran out of memory."""


class _Watching:
    """Follows trainings by their records."""

    def __init__(
        self, backend: LocalBackend, handles: Sequence[Handle], manifest: Manifest
    ) -> None:
        self._backend, self._handles = backend, handles
        self._dirs = [manifest.run_dir(run) for run in manifest.runs]
        self._ended: list[Ended | None] = [None] * len(handles)

    def rates(self, warm: int, steps: int, seconds: float) -> list[float]:
        """Steps a second of each, while all train: from the step `warm` of the last one on."""
        self._until(
            lambda now: min(step for step, _ in now) >= warm,
            _LOADING_S,
            "made no steps",
        )
        begun = self._now()
        until = time.monotonic() + seconds

        def is_enough(now: list[tuple[int, float]]) -> bool:
            made = min(step - first for (step, _), (first, _) in zip(now, begun, strict=True))
            return made >= steps or (made >= 2 and time.monotonic() > until)

        now = self._until(is_enough, max(_LOADING_S, seconds), "made no two steps more")
        return [
            (step - first) / (at - since)
            for (step, at), (first, since) in zip(now, begun, strict=True)
        ]

    def wait_for_ends(self) -> None:
        """Wait until all have ended, which they were asked to."""
        until = time.monotonic() + 2 * _GRACE_S
        while time.monotonic() < until and not self._all_ended():
            self._backend.wait(_LOOK_S)

    def peak_mb(self, variant: Variant) -> float:
        """The largest memory of one of them: of the GPU if it trains on one, else of the host."""
        host = max((one.peak_mb or 0.0 for one in self._ended if one is not None), default=0.0)
        return gpu_mb(self._dirs) if variant.on_gpu else host

    def _until(
        self, is_so: Callable[[list[tuple[int, float]]], bool], seconds: float, else_: str
    ) -> list[tuple[int, float]]:
        from cupel.errors import JobsError

        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._check()
            now = self._now()
            if is_so(now):
                return now
            self._backend.wait(_LOOK_S)
        raise JobsError(f"the trainings {else_} in {seconds:.0f} seconds; try fewer --workers")

    def _now(self) -> list[tuple[int, float]]:
        """The last logged step of each, and when that was."""
        from cupel.jobs.progress import progress

        found = []
        for folder in self._dirs:
            seen = progress(folder) if folder.exists() else None
            found.append((seen.step, seen.time or 0.0) if seen and seen.time else (0, 0.0))
        return found

    def _all_ended(self) -> bool:
        for place, report in enumerate(self._backend.poll(self._handles)):
            if report.ended is not None:
                self._ended[place] = report.ended
        return None not in self._ended

    def _check(self) -> None:
        """Raises when one has ended, which none was asked to."""
        from cupel.errors import JobsError
        from cupel.jobs.classify import classify

        self._all_ended()
        for handle, ended in zip(self._handles, self._ended, strict=True):
            if ended is None:
                continue
            said = self._backend.logs(handle, lines=40)
            why = classify(ended, failure=None, log_tail=said, began=True, asked=None, hung=False)
            if why is not None and why.kind in ("cuda_oom", "host_oom"):
                self._backend.cancel(self._handles)
                self.wait_for_ends()
                raise _OutOfMemory
            detail = why.detail if why is not None else f"it ended with exit code {ended.code}"
            raise JobsError(f"a training of the probe ended by itself: {detail}")


def _study_of(variant: Variant, root: Path, workers: int, *, steps: int) -> Manifest:
    """A frozen study of one arm, with a seed for each worker and more steps than will be taken."""
    from cupel.config import from_config
    from cupel.studies.manifest import Cell, Manifest, PlannedRun, freeze, study_dir
    from cupel.studies.settings import StudySettings

    whole = from_config(variant.config, where="")
    changes = {
        "train.steps": _PLENTY,
        "train.evaluate_every": _PLENTY,
        "train.log_every": min(variant.config["train"]["log_every"], max(1, steps // 10)),
        "checkpoint.every": _PLENTY,
        "figures.formats": [],
        "figures.every": None,
    }
    long = whole.with_changes(changes)
    seeds = tuple(range(1, workers + 1))
    study = StudySettings(question="How many pay?", arms={"probe": {}}, seeds=seeds)
    runs = [
        PlannedRun(f"probe-s{seed}", "probe", "", seed, long.identity() + str(seed), 0)
        for seed in seeds
    ]
    cell = Cell("probe", "", {}, long.resolved())
    folder = study_dir(root, long.project, "probe")  # where the runs themselves will lie
    made = Manifest(folder, "probe", long.project, "", study, (cell,), tuple(runs), time.time())
    return freeze(made)


def _job(manifest: Manifest, run: PlannedRun) -> Any:
    import sys

    from cupel.cli.study_run import environment_of
    from cupel.jobs.backend import Job
    from cupel.studies.state import log_of

    command = (sys.executable, "-m", "cupel", "study", "work", str(manifest.folder), run.run_id)
    return Job(run.run_id, command, log_of(manifest, run), environment_of(manifest, run))


def gpu_mb(run_dirs: Sequence[Path]) -> float:
    """The part of each run in the memory in use on the fullest GPU, by the runs' own records.

    Memory in use by others counts, too. Raises JobsError when nothing was recorded.
    """
    from cupel.errors import JobsError
    from cupel.record.reader import RunRecord

    used = [
        value
        for folder in run_dirs
        for line in _system_lines(RunRecord(folder))
        for name, value in line.items()
        if _is_gpu_memory(name) and isinstance(value, int | float)
    ]
    if not used:
        raise JobsError("the trainings were too short to see a GPU's memory; give more --steps")
    return float(max(used)) / len(run_dirs) / 2**20


def _is_gpu_memory(name: str) -> bool:
    return name.startswith("gpu.") and name.endswith(".memory")


def _system_lines(record: Any) -> Iterator[dict[str, Any]]:
    import json

    from cupel.record import layout

    for session in record.sessions:
        for segment in layout.segments(session.dir, "system"):
            for line in segment.read_text(encoding="utf-8").splitlines():
                try:
                    found = json.loads(line)
                except ValueError:  # its writer was ended within a line
                    continue
                if isinstance(found, dict):
                    yield found


# ---- what that comes to ------------------------------------------------------------------------


def probed(variant: Variant, measures: Sequence[Measure], ledger: Ledger) -> Probed:
    """What was measured, with what it recommends for this machine."""
    from cupel.jobs.packing import recommend

    memory = ledger.memory_mb
    if variant.on_gpu and ledger.gpus and ledger.gpus[0].memory_mb:
        memory = ledger.gpus[0].memory_mb
    chosen = recommend(measures, memory, steps=variant.steps)
    return Probed(variant, device_name(ledger, on_gpu=variant.on_gpu), tuple(measures), chosen)


def device_name(ledger: Ledger, *, on_gpu: bool) -> str:
    """What a probe holds for: the GPU, or the processor with its cores."""
    from cupel.record.environment import at_once

    if on_gpu and ledger.gpus:
        return ledger.gpus[0].name or "GPU"
    return f"{at_once()['cpu']['model'] or 'CPU'}, {ledger.cpus:g} cores"


def resources_of(one: Probed) -> dict[str, Any]:
    """What to write into `study.resources`; empty where not even one run fits."""
    workers = one.recommended.workers
    if not workers:
        return {}
    threads = one.variant.config["train"]["threads"] or 1
    memory = math.ceil(_SPARE * one.peak_mb)
    if one.variant.on_gpu:
        return {"cpus": threads, "gpus": round(1 / workers, 4), "gpu_memory_mb": memory}
    return {"cpus": threads, "memory_mb": memory}


def store(root: Path, found: Sequence[Probed]) -> None:
    """Keep what was measured in RUNS/.cache/probes.json, over what was there of the same shape and
    device. Raises RecordError when it cannot be written."""
    from cupel.errors import RecordError
    from cupel.record import files

    path = probes_path(root)
    known = stored(root)
    for one in found:
        known[one.key] = {**one.facts(), "time": time.time()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(path, {"schema": 1, "probes": known})
    except OSError as error:
        raise RecordError(f"cannot write {path}: {error.strerror or error}") from error


def stored(root: Path) -> dict[str, Any]:
    """What was measured before, by shape and device; what cannot be read counts as nothing."""
    from cupel.errors import RecordError
    from cupel.record import files

    try:
        found = files.read_json(probes_path(root)).get("probes")
    except RecordError:
        return {}
    return dict(found) if isinstance(found, dict) else {}


def probes_path(root: Path) -> Path:
    """Where probes are kept."""
    from cupel.record import layout

    return root / layout.CACHE / PROBES


# ---- what is shown -----------------------------------------------------------------------------


def _show(found: Sequence[Probed]) -> None:
    from cupel.cli.tables import print_table

    for one in found:
        print(f"{one.variant.name}: {one.variant.steps} steps a run; {one.device}\n")
        print_table([_row(one, each) for each in one.measures])
        chosen = one.recommended
        more = "" if chosen.workers <= 1 else f", {chosen.gain:.2f} times the throughput of one"
        print(f"\n→ {chosen.workers} at a time{more}: {chosen.reason}\n")
    for line in lines_to_paste(found):
        print(line)


def _row(one: Probed, each: Measure) -> dict[str, Any]:
    first = one.measures[0]
    base, total = first.workers * first.steps_per_s_each, each.workers * each.steps_per_s_each
    rate = each.steps_per_s_each
    peak = f"peak MB{' of the GPU' if one.variant.on_gpu else ''}"
    return {
        "workers": each.workers,
        "steps/s each": "out of memory" if each.oom else f"{rate:.4g}",
        "gain": f"{total / base:.2f}" if base and not each.oom else None,
        peak: f"{each.peak_mb_each:.0f}",
        "min a run": f"{one.variant.steps / rate / 60:.3g}" if rate else None,
    }


def lines_to_paste(found: Sequence[Probed]) -> list[str]:
    """The lines for the recipe: workers that suit every variant, and what the largest one takes."""
    fitting = [one for one in found if one.recommended.workers]
    if len(fitting) < len(found):
        lost = ", ".join(one.variant.name for one in found if one not in fitting)
        return [f"Nothing to write down: not even the fewest workers fit for {lost}"]
    needs = [resources_of(one) for one in fitting]
    most = {name: max(need[name] for need in needs if name in need) for name in dict.fromkeys(
        name for need in needs for name in need
    )}  # fmt: skip
    workers = min(one.recommended.workers for one in fitting)
    given = ", ".join(f"{name}: {value}" for name, value in most.items())
    return [
        "For the recipe (memory as measured, and a quarter more):",
        "study:",
        f"  workers: {workers}",
        f"  resources: {{{given}}}",
    ]


def _counts(text: str) -> list[int]:
    """Numbers of workers, ascending. Raises UsageError."""
    from cupel.errors import UsageError

    try:
        counts = sorted({int(part) for part in text.split(",")})
    except ValueError:
        counts = []
    if not counts or counts[0] < 1:
        raise UsageError(f"--workers {text}: give numbers from 1 on, as --workers 1,2,3,4")
    return counts
