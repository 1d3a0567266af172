"""How checkpoints lie in a run: folders by step, pointers, which ones stay, and safe deletion.

No tensors and no torch here: `cupel.checkpoint` writes and verifies what is inside a folder. It
fills a folder of `temporary_dir`, manifest last, and renames it to `step_dir`; so a checkpoint is
complete when its manifest is there. Whether its bytes are still right is not known here.

    checkpoints/step-000001000/manifest.json …      latest.json      best-<metric>.json
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from cupel.errors import RecordError
from cupel.record import files
from cupel.record.layout import CHECKPOINTS, SCHEMA

MANIFEST = "manifest.json"
LATEST = "latest"


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
    folder = checkpoints_dir(run_dir)
    found = [p for p in (folder.iterdir() if folder.is_dir() else ()) if (p / MANIFEST).is_file()]
    matches = (re.fullmatch(r"step-([0-9]{9,})", path.name) for path in found)
    return sorted(int(match[1]) for match in matches if match)


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

    The pointer says metric, value, goal and step. NaN is never best, and of equals the first stays.
    """
    if not beats(run_dir, metric, value, goal=goal, step=step):
        return False
    fields = {"metric": metric, "value": value, "goal": goal, "step": step}
    write_pointer(run_dir, f"best-{metric}", fields)
    return True


def beats(
    run_dir: Path, metric: str, value: float, *, goal: Literal["min", "max"], step: int
) -> bool:
    """Whether the value, of this step, is better than that of `best-<metric>`; NaN never is.

    A pointer that is damaged, or was written under another rule, is as good as none: then the
    manifests of the checkpoints that are there tell.
    """
    before = _readable(_pointer_path(run_dir, f"best-{metric}"))
    known = before is not None and before.get("goal") == goal
    rivals = [before.get("value")] if before and known else _recorded(run_dir, metric, but=step)
    numbers = [v for v in rivals if isinstance(v, int | float) and not math.isnan(v)]
    sign = 1 if goal == "max" else -1
    return not math.isnan(value) and all(sign * value > sign * rival for rival in numbers)


def _recorded(run_dir: Path, metric: str, *, but: int) -> list[Any]:
    """A metric's values in the manifests of all checkpoints, but that of one step."""
    return [
        _manifest_metrics(run_dir, step).get(metric) for step in list_steps(run_dir) if step != but
    ]


def _manifest_metrics(run_dir: Path, step: int) -> dict[str, Any]:
    try:
        metrics = files.read_json(step_dir(run_dir, step) / MANIFEST).get("metrics")
    except RecordError:
        return {}
    return metrics if isinstance(metrics, dict) else {}


def pinned_steps(run_dir: Path) -> set[int]:
    """The steps that `best-…` pointers name; retention keeps them. A damaged one names none."""
    pointers = map(_readable, checkpoints_dir(run_dir).glob("best-*.json"))
    return {pointer["step"] for pointer in pointers if pointer is not None}


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

    The newest, and the one that `latest` names, stay whatever `keep` says. Raises OSError.
    """
    steps = list_steps(run_dir)
    latest = _readable(_pointer_path(run_dir, LATEST))
    safe = keep | set(steps[-1:]) | ({latest["step"]} if latest else set())
    gone = [step for step in steps if step not in safe]
    for step in gone:
        files.move_to_trash(step_dir(run_dir, step))
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
