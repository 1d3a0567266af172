"""The mathematics and pseudocode that a report prints, each only when an arm uses it.

What an arm uses is read from its settings, and each text names the setting that it belongs to, so
that arms which read one thing in two ways get both. The texts describe what the code computes;
they praise nothing, and what a mechanism is good for is left to the results.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from cupel.report import theory_model as model
from cupel.report import theory_training as training
from cupel.report.blocks import Block
from cupel.report.readings import Arms, Teller
from cupel.settings import settings_of
from cupel.studies.unequal import dotted


def theory_of(configs: Iterable[Mapping[str, Any]]) -> list[Block]:
    """The sections that the settings of these arms call for, each once."""
    configs = list(configs)
    models = _by_kind(configs, "model", {"wave"}).get("wave", [])
    sections = [tell(arms) for tell, arms in _chosen(_EMBEDDINGS, models, "embedding")]
    if models:
        sections += [model.ratio(models), model.input_norm(models)]
    sections += [tell(arms) for tell, arms in _chosen(_ATTENTIONS, models, "attention")]
    if models:
        sections.append(model.activation(models))
    for path, tellers in (("train.optimizer", _OPTIMIZERS), ("objective", _OBJECTIVES)):
        found = _by_kind(configs, path, tellers)
        sections += [tellers[kind](arms) for kind, arms in found.items()]
    return [block for section in sections for block in section]


def uses(configs: Iterable[Mapping[str, Any]], settings: Mapping[str, Any]) -> bool:
    """Whether any arm has all of these dotted settings."""
    return any(
        all(dotted(config, path) == value for path, value in settings.items()) for config in configs
    )


def _by_kind(
    configs: Iterable[Mapping[str, Any]], path: str, kinds: Collection[str]
) -> dict[str, list[dict[str, Any]]]:
    """The settings at `path` of the arms, completed with their defaults, by kind."""
    found: dict[str, list[dict[str, Any]]] = {}
    for config in configs:
        given = dotted(config, path)
        if isinstance(given, Mapping) and (kind := given.get("kind")) in kinds:
            found.setdefault(str(kind), []).append(_completed(path.split(".")[-1], given))
    return found


def _chosen(tellers: Mapping[str, Teller], arms: Arms, name: str) -> Iterator[tuple[Teller, Arms]]:
    """What tells of each value that the setting has in some arm, and those arms."""
    for value, tell in tellers.items():
        if chosen := [arm for arm in arms if arm[name] == value]:
            yield tell, chosen


def _completed(component: str, given: Mapping[str, Any]) -> dict[str, Any]:
    full: dict[str, Any] = settings_of(component, given["kind"])().model_dump(mode="json")
    for name, value in given.items():
        nested = isinstance(value, Mapping) and isinstance(full.get(name), dict)
        full[name] = {**full[name], **value} if nested else value
    return full


_EMBEDDINGS: dict[str, Teller] = {"packet": model.packet, "physics": model.physics_embedding}
_ATTENTIONS: dict[str, Teller] = {
    "interference": model.interference,
    "pure": model.pure,
    "physics": model.intensity,
}
_OPTIMIZERS: dict[str, Teller] = {"rgd": training.rgd, "wave_native": training.wave_native}
_OBJECTIVES: dict[str, Teller] = {"qfe": training.qfe, "coherence": training.coherence}
