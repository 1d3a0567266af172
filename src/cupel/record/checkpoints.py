"""How checkpoints lie in a run: folders by step, pointers, pins, which ones stay, safe deletion.

No tensors and no torch here: `cupel.checkpoint` writes what is inside a folder. It fills a folder
of `temporary_dir`, manifest last, and renames it to `step_dir`; so a checkpoint is complete when
its manifest is there. Whether it is still intact is told by `cupel.record.manifests`.

    checkpoints/step-000001000/manifest.json …   latest.json   best-<metric>.json   pin.json
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from cupel.errors import RecordError, UsageError
from cupel.record import files, manifests
from cupel.record.layout import CHECKPOINTS, SCHEMA
from cupel.record.manifests import MANIFEST

LATEST = "latest"
PINS = "pin.json"


def checkpoints_dir(run_dir: Path) -> Path:
    """The folder of all checkpoints of a run; it need not exist yet."""
    return run_dir / CHECKPOINTS


def step_dir(run_dir: Path, step: int) -> Path:
    """The folder of the checkpoint taken after `step` finished updates."""
    assert step >= 0, f"step {step}"
    return checkpoints_dir(run_dir) / f"step-{step:09d}"


def temporary_dir(run_dir: Path, step: int) -> Path:
    """A new name, beside `step_dir`, to fill before renaming; `sweep` knows its writer by it."""
    return checkpoints_dir(run_dir) / files.temporary_name(step_dir(run_dir, step).name)


def list_steps(run_dir: Path) -> list[int]:
    """The steps of all complete checkpoints, ascending."""
    return [step for step in all_steps(run_dir) if (step_dir(run_dir, step) / MANIFEST).is_file()]


def all_steps(run_dir: Path) -> list[int]:
    """The steps of all checkpoints, ascending, also of those that have lost their manifest."""
    folder = checkpoints_dir(run_dir)
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    matches = (re.fullmatch(r"step-([0-9]{9,})", name) for name in names)
    return sorted(int(match[1]) for match in matches if match)


def check_step(run_dir: Path, step: int) -> Path:
    """The folder of a step's checkpoint. Raises UsageError that lists the steps there are."""
    steps = all_steps(run_dir)
    if step not in steps:
        listed = ", ".join(map(str, steps)) or "none"
        raise UsageError(
            f"run {run_dir.name} has no checkpoint of step {step} (there are: {listed})"
        )
    return step_dir(run_dir, step)


def write_pointer(run_dir: Path, name: str, fields: Mapping[str, Any]) -> None:
    """Replace the pointer `latest` or `best-<metric>`; `fields` must say the `step`.

    Raises OSError. A superseded session must not call this (`Session.superseded`).
    """
    assert isinstance(fields.get("step"), int), f"a pointer without a step: {dict(fields)}"
    files.write_json(_pointer_path(run_dir, name), {"schema": SCHEMA, **fields})


def read_pointer(run_dir: Path, name: str) -> dict[str, Any] | None:
    """What a pointer says; None when there is none. Raises RecordError when it is damaged."""
    path = _pointer_path(run_dir, name)
    return _read(path) if path.exists() else None


def write_best(
    run_dir: Path, metric: str, value: float, *, goal: Literal["min", "max"], step: int
) -> bool:
    """Move `best-<metric>` to this step if the value is better than all before; whether it moved.

    The pointer says metric, value, goal and step. NaN and the infinities are never best, and of
    equals the first stays.
    """
    if not beats(run_dir, metric, value, goal=goal, step=step):
        return False
    fields = {"metric": metric, "value": value, "goal": goal, "step": step}
    write_pointer(run_dir, f"best-{metric}", fields)
    return True


def write_best_recorded(run_dir: Path, metric: str, *, goal: Literal["min", "max"]) -> None:
    """Move `best-<metric>` to the best complete checkpoint, if that is better than all before.

    By the manifests, not by the newest alone: a kill may have come before the pointer moved.
    """
    values = _recorded(run_dir, metric)
    for step in best_steps(run_dir, metric, goal=goal, count=1):
        write_best(run_dir, metric, values[step], goal=goal, step=step)


def beats(
    run_dir: Path, metric: str, value: float, *, goal: Literal["min", "max"], step: int
) -> bool:
    """Whether the value, of this step, is better than that of `best-<metric>`.

    NaN and the infinities never are: what diverged is no best, whatever its sign. A pointer that is
    damaged, was written under another rule, or names such a value, is as good as none: then the
    manifests of the checkpoints that are there tell.
    """
    before = _readable(_pointer_path(run_dir, f"best-{metric}"))
    of_this_rule = before is not None and before.get("goal") == goal
    rivals = _numbers([before.get("value")]) if before and of_this_rule else []
    if not rivals:
        rivals = [rival for other, rival in _recorded(run_dir, metric).items() if other != step]
    sign = 1 if goal == "max" else -1
    return _is_finite(value) and all(sign * value > sign * rival for rival in rivals)


def best_steps(run_dir: Path, metric: str, *, goal: Literal["min", "max"], count: int) -> list[int]:
    """The steps of the `count` best complete checkpoints by their manifests, the best first.

    A value that is not finite or no number is never among them; of equals the earlier is better.
    """
    sign = 1 if goal == "min" else -1
    values = _recorded(run_dir, metric)
    return sorted(values, key=lambda step: (sign * values[step], step))[:count]


def among_best(
    run_dir: Path,
    metric: str,
    value: float,
    *,
    goal: Literal["min", "max"],
    step: int,
    count: int,
    pending: Mapping[int, Any] | None = None,
) -> bool:
    """Whether the value, of this step, makes one of the `count` best checkpoints.

    With a count of 1 the pointer's value counts, though its checkpoint be gone; otherwise those in
    the manifests. `pending` are the values, by step, of checkpoints that are being written.
    """
    if count == 1 and not beats(run_dir, metric, value, goal=goal, step=step):
        return False
    known = {**(pending or {}), **(_recorded(run_dir, metric) if count > 1 else {})}
    rivals = _numbers(rival for other, rival in known.items() if other != step)
    sign = 1 if goal == "max" else -1
    at_least_as_good = sum(sign * rival >= sign * value for rival in rivals)
    return _is_finite(value) and at_least_as_good < count


def _recorded(run_dir: Path, metric: str) -> dict[int, float]:
    """A metric's finite values by step, in the manifests of all complete checkpoints."""
    return {
        step: value
        for step in list_steps(run_dir)
        for value in _numbers([_manifest_metrics(run_dir, step).get(metric)])
    }


def _numbers(values: Iterable[Any]) -> list[float]:
    return [value for value in values if isinstance(value, int | float) and _is_finite(value)]


def _is_finite(value: float) -> bool:
    return isinstance(value, int) or math.isfinite(value)  # an integer may be beyond all floats


def _manifest_metrics(run_dir: Path, step: int) -> dict[str, Any]:
    try:
        metrics = files.read_json(step_dir(run_dir, step) / MANIFEST).get("metrics")
    except RecordError:
        return {}
    return metrics if isinstance(metrics, dict) else {}


def pointed_steps(run_dir: Path) -> dict[str, int]:
    """The step that each `best-…` pointer names, by metric; a damaged pointer names none."""
    pointers = map(_readable, checkpoints_dir(run_dir).glob("best-*.json"))
    return {str(pointer.get("metric")): pointer["step"] for pointer in pointers if pointer}


def pinned_steps(run_dir: Path) -> set[int]:
    """The steps that somebody pinned; retention keeps them. Raises RecordError: never a guess."""
    path = checkpoints_dir(run_dir) / PINS
    if not path.exists():
        return set()
    steps = files.read_json(path).get("steps")
    if not isinstance(steps, list) or not all(type(step) is int for step in steps):
        raise RecordError(f"{path} lists no steps; delete it, and pin again what is to stay")
    return set(steps)


def pin(run_dir: Path, step: int) -> None:
    """Keep a checkpoint whatever retention says; also while the run goes on.

    Raises UsageError when there is none of that step (any more), RecordError when `pin.json` is
    damaged, OSError. Two pins at the same moment may be one.
    """
    check_step(run_dir, step)
    _write_pins(run_dir, pinned_steps(run_dir) | {step})
    if not step_dir(run_dir, step).is_dir():  # retention was faster
        unpin(run_dir, step)
        check_step(run_dir, step)


def unpin(run_dir: Path, step: int) -> None:
    """Leave a checkpoint to retention again. Raises as `pin` does, but for one that is gone."""
    pinned = pinned_steps(run_dir)
    if step not in pinned:
        listed = ", ".join(map(str, sorted(pinned))) or "none"
        raise UsageError(f"step {step} of run {run_dir.name} is not pinned (pinned: {listed})")
    _write_pins(run_dir, pinned - {step})


def _write_pins(run_dir: Path, steps: set[int]) -> None:
    path = checkpoints_dir(run_dir) / PINS
    files.write_json(path, {"schema": SCHEMA, "steps": sorted(steps)})


def retained(
    steps: Iterable[int], *, keep_last: int, keep_every: int = 0, pinned: Iterable[int] = ()
) -> set[int]:
    """The steps that stay: the last `keep_last`, multiples of `keep_every` (0: none), pinned."""
    assert keep_last >= 1, f"keep_last is {keep_last}; the newest checkpoint always stays"
    ordered = sorted(set(steps))
    spaced = {step for step in ordered if keep_every and step % keep_every == 0}
    return set(ordered[-keep_last:]) | spaced | (set(pinned) & set(ordered))


def prune(run_dir: Path, keep: set[int]) -> list[int]:
    """Delete the complete checkpoints that are not in `keep`; returns their steps.

    Whatever `keep` says, these stay: the newest, the newest whose sizes are right, the one that
    `latest` names, and what is pinned. Raises OSError, and RecordError, with nothing deleted, when
    the pins cannot be read.
    """
    steps = list_steps(run_dir)
    latest = _readable(_pointer_path(run_dir, LATEST))
    safe = keep | pinned_steps(run_dir) | set(steps[-1:]) | ({latest["step"]} if latest else set())
    whole = (step for step in reversed(steps) if not manifests.problem(step_dir(run_dir, step)))
    safe |= set(islice(whole, 1))
    gone = []
    for step in steps:
        # Asked anew, for deleting takes its time, and somebody may pin meanwhile.
        if step not in safe and step not in pinned_steps(run_dir):
            files.move_to_trash(step_dir(run_dir, step))
            gone.append(step)
    return gone


def sweep(run_dir: Path) -> list[Path]:
    """Remove what dead writers left half-done; returns what was removed."""
    return files.sweep(checkpoints_dir(run_dir))


def _pointer_path(run_dir: Path, name: str) -> Path:
    # Metric names hold slashes: best-grad_norm%2Ftotal.json.
    return checkpoints_dir(run_dir) / f"{quote(name, safe='')}.json"


def _readable(path: Path) -> dict[str, Any] | None:
    """What a pointer says; None when it is absent or damaged: the next one written replaces it."""
    try:
        return _read(path) if path.exists() else None
    except RecordError:
        return None


def _read(path: Path) -> dict[str, Any]:
    fields = files.read_json(path)
    if not isinstance(fields.get("step"), int):
        raise RecordError(f"{path} names no step; delete it, the next checkpoint writes it anew")
    return fields
