"""What was not equal between a study's arms: settings, data, parameters, costs.

`inequalities` lists it over the whole study, `unequal_settings` the part of it that was set, for
one comparison: leaf by leaf of two resolved configurations.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cupel.config import INERT, NOT_IDENTITY, Settings, from_config
from cupel.studies.manifest import MANIFEST, Manifest
from cupel.studies.runs import RunOutcome, mean_of

_CLOCK_TOLERANCE = 0.05  # CPU seconds of equal runs differ by some per cent on any machine


@dataclass(frozen=True, slots=True)
class Inequality:
    """Something that two arms did not have in common: its name, and each arm's value as text."""

    name: str
    arm: str
    values: tuple[str, str]  # of the baseline, of the arm


class Seconds(float):
    """A time, which is compared with a tolerance and shown to a tenth."""


_CPU = "CPU seconds"
_ABSENT = "absent"  # of a setting that only one side has
# Names that read better than the dotted setting; these are listed first, in this order.
_NAMES = {
    "workload": "workload",
    "model.kind": "model",
    "objective.kind": "objective",
    "train.optimizer.kind": "optimizer",
    "train.steps": "steps",
    "data.batch": "batch",
    "train.accumulate": "micro-batches a step",
    "model.block": "context",
    "train.optimizer.lr": "learning rate",
    "train.schedule.kind": "schedule",
    "train.optimizer.weight_decay": "weight decay",
    "train.optimizer.betas": "betas",
    "train.clip": "gradient clipping",
    "model.dropout": "dropout",
    "train.stopping": "early stopping",
    "train.precision": "precision",
    "train.device": "device",
    "train.threads": "threads",
}
# What changes no result: names and observers; the seed, which all arms share; how often is logged.
_WITHOUT_EFFECT = {*NOT_IDENTITY, "seed", "train.log_every"}
# Settings that count only where another one of their section has this value.
_ONLY_WITH: dict[str, tuple[str, str]] = {
    "model.pure": ("attention", "pure"),
    "model.ratio_steps": ("ratio", "decay"),
    "model.harmonics": ("embedding", "packet"),
    "data.vocabulary": ("tokens", "bpe"),
}


def inequalities(manifest: Manifest, runs: Sequence[RunOutcome]) -> list[Inequality]:
    """What differs between each arm and the baseline, at any point of the grid, with values.

    Compared are settings, data, the order of data (which is a function of seed, batch and
    context), the validation set, parameters, and CPU seconds when they differ by more than 5 %.
    """
    baseline = manifest.baseline
    facts = {arm: _facts(manifest, runs, arm) for arm in manifest.study.arms}
    found = []
    for arm, theirs in facts.items():
        if arm == baseline:
            continue
        found += _over_points(manifest, arm)
        for name, value in theirs.items():
            base = facts[baseline][name]
            if not _same(name, base, value):
                found.append(Inequality(name, arm, (_told_all(base), _told_all(value))))
    return found


def unequal_settings(manifest: Manifest, arm: str, point: str) -> list[Inequality]:
    """Every setting that differs between an arm and the baseline at a point and can matter.

    Where two components differ in kind, what only one of them has stands in brackets behind its
    kind. Left out are names, observers, samples, and fields marked INERT; the last are known of
    settings that this cupel accepts.
    """
    configs = {cell.arm: cell.config for cell in manifest.cells if cell.point == point}
    if manifest.baseline not in configs or arm not in configs:  # left out there by a filter
        return []
    base, other = dict(configs[manifest.baseline]), dict(configs[arm])
    left_out = _WITHOUT_EFFECT | _inert(base) | _inert(other)
    if ":" not in str(other.get("workload")):  # of a workload of a user's own it may be anything
        left_out |= {"sample"}
    apart = _apart(_counting(base, left_out), _counting(other, left_out))
    found = {path: (a, b) for path, a, b in apart}
    first = [path for path in _NAMES if path in found]
    order = [*first, *(path for path in found if path not in _NAMES)]
    return [Inequality(_NAMES.get(path, path), arm, found[path]) for path in order]


def _over_points(manifest: Manifest, arm: str) -> list[Inequality]:
    """An arm's unequal settings, each once, with the values of all points at which it differs."""
    merged: dict[str, tuple[list[str], list[str]]] = {}
    for point in dict.fromkeys(cell.point for cell in manifest.cells):
        for one in unequal_settings(manifest, arm, point):
            for texts, value in zip(merged.setdefault(one.name, ([], [])), one.values, strict=True):
                texts.append(value)
    return [
        Inequality(name, arm, (_told_all(_several(base)), _told_all(_several(theirs))))
        for name, (base, theirs) in merged.items()
    ]


def _counting(section: Mapping[str, Any], left_out: set[str], path: str = "") -> dict[str, Any]:
    """A section without what is left out, and without settings that another one makes idle."""
    kept: dict[str, Any] = {}
    for name, value in section.items():
        decider, wanted = _ONLY_WITH.get(path + name, (name, value))  # most hang on nothing else
        if path + name not in left_out and section.get(decider, wanted) == wanted:
            nested = isinstance(value, Mapping)
            kept[name] = _counting(value, left_out, f"{path}{name}.") if nested else value
    return kept


def _apart(
    one: Mapping[str, Any], two: Mapping[str, Any], path: str = ""
) -> Iterator[tuple[str, str, str]]:
    """What differs between two sections: dotted path, and both values as text."""
    comes_with: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
    for name in dict.fromkeys([*one, *two]):
        if name in one and name in two:
            continue
        if decider := _decider(one, two, path, name):
            of_one, of_two = comes_with.setdefault(decider, ({}, {}))
            if name in one:
                of_one[name] = one[name]
            else:
                of_two[name] = two[name]
        else:
            yield path + name, _told(one.get(name, _ABSENT)), _told(two.get(name, _ABSENT))
    for name in [name for name in one if name in two]:
        mine, other = one[name], two[name]
        if isinstance(mine, Mapping) and isinstance(other, Mapping):
            yield from _apart(mine, other, f"{path}{name}.")
        elif mine != other:
            own, theirs = comes_with.get(name, ({}, {}))
            yield path + name, _told_with(mine, own), _told_with(other, theirs)


def _decider(one: Mapping[str, Any], two: Mapping[str, Any], path: str, key: str) -> str | None:
    """Which differing setting of both sides is why only one of them has this one, if any is."""
    for name in ("kind", _ONLY_WITH.get(path + key, ("", ""))[0]):
        if name in one and name in two and one[name] != two[name]:
            return name
    return None


def _inert(config: Mapping[str, Any]) -> set[str]:
    """The dotted paths of a configuration's fields that are marked INERT."""
    try:
        return set(_marked(from_config(config, where=MANIFEST).settings))
    except Exception:  # settings of another version; or a user's module, which may raise anything
        return set()


def _marked(settings: Settings, path: str = "") -> Iterator[str]:
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if field.json_schema_extra == INERT:
            yield path + name
        elif isinstance(value, Settings):
            yield from _marked(value, f"{path}{name}.")


def _facts(manifest: Manifest, runs: Sequence[RunOutcome], arm: str) -> dict[str, Any]:
    """What an arm's runs had that should be equal; a list where the grid has several."""
    configs = [cell.config for cell in manifest.cells if cell.arm == arm]
    own = [run for run in runs if run.run.arm == arm]
    batch, context = (
        _several(dotted(config, path) for config in configs)
        for path in ("data.batch", "model.block")
    )
    order = f"by seed, {_told_all(batch)} sequences of {_told_all(context)}"
    seconds = mean_of(run.cpu_s for run in own)
    return {
        "data (SHA-256)": _several(run.data for run in own if run.data),
        "validation set": _several(run.validation for run in own if run.validation),
        "order of data": None if None in (batch, context) else order,
        "parameters": _several(run.parameters for run in own if run.parameters is not None),
        "steps taken": _several(sorted({run.steps for run in own if run.finished and run.steps})),
        _CPU: None if seconds is None else Seconds(seconds),
    }


def dotted(config: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path of a nested mapping; None where there is none."""
    found: Any = config
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _several(values: Iterable[Any]) -> Any:
    """The one value of all, a list of the distinct ones in order, or None for none."""
    distinct: list[Any] = []
    for value in values:
        if value not in distinct:
            distinct.append(value)
    return distinct[0] if len(distinct) == 1 else (distinct or None)


def _same(name: str, one: Any, two: Any) -> bool:
    # A run that has not started has no data yet: unknown is not unequal, and the table says so.
    if one is None or two is None:
        return True
    if name == _CPU:
        return math.isclose(one, two, rel_tol=_CLOCK_TOLERANCE, abs_tol=0.1)
    return bool(one == two)


def _told_all(value: Any) -> str:
    """A value, or the several of a grid."""
    return " | ".join(map(_told, value)) if isinstance(value, list) else _told(value)


def _told_with(value: Any, extras: Mapping[str, Any]) -> str:
    """`rgd (strength 0.3, warmup 50)`: a value and what comes with it, without what is off."""
    told = ", ".join(_pairs(extras))
    return f"{_told(value)} ({told})" if told else _told(value)


def _pairs(values: Mapping[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _pairs({f"{name}.{key}": one for key, one in value.items()})
        elif value is not None and value is not False:
            yield f"{name} {_told(value)}"


def _told(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_told, value))}]"
    if isinstance(value, Mapping):
        return ", ".join(_pairs(value)) or "none"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Seconds):
        return f"{value:,.1f}"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return f"{text[:12]}…" if re.fullmatch(r"[0-9a-f]{64}", text) else text
