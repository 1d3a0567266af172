"""Names in recipes → import paths. Listing and checking names imports nothing heavy.

A component is named in a recipe by a registered name (`gpt`) or by `package.module:Object`.
Each entry holds two import paths: the object itself, which may import torch, and its settings,
which may not; so recipes are validated without torch. For `package.module:Object` the settings
are `Object.Settings`, and importing the module is the price.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from typing import Any

from cupel.errors import (
    TRAIN_PACKAGES,
    MissingDependency,
    UnknownName,
    UsageError,
    did_you_mean,
)

_PATH = re.compile(r"\w+(\.\w+)*:\w+(\.\w+)*")


@dataclass(frozen=True, slots=True)
class Entry:
    """One registered component: where it and its settings come from, and a line about it."""

    target: str
    settings: str
    about: str


TABLES: dict[str, dict[str, Entry]] = {
    "workload": {
        "gpt": Entry(
            "cupel.workloads.gpt:GPTWorkload",
            "cupel.workloads.settings:GPTSettings",
            "a GPT on bytes or locally trained BPE tokens of any text",
        ),
        "images": Entry(
            "cupel.workloads.images:ImagesWorkload",
            "cupel.workloads.settings:ImagesSettings",
            "a classifier of small images",
        ),
        "memory": Entry(
            "cupel.workloads.memory:MemoryWorkload",
            "cupel.workloads.settings:MemoryWorkloadSettings",
            "a sequence model on a synthetic task: recall, formal languages, needles",
        ),
    },
    "model": {
        "gpt": Entry(
            "cupel.models.gpt.model:GPT",
            "cupel.models.gpt.settings:GPTModelSettings",
            "a GPT in the shape of GPT-2",
        ),
        "wave": Entry(
            "cupel.models.wave.model:WaveGPT",
            "cupel.models.wave.settings:WaveModelSettings",
            "a GPT of wave packets that attends by interference",
        ),
        "resnet": Entry(
            "cupel.models.resnet.model:ResNet",
            "cupel.models.resnet.settings:ResNetModelSettings",
            "a ResNet for small images",
        ),
        "memory": Entry(
            "cupel.models.memory.model:MemoryLM",
            "cupel.models.memory.settings:MemoryModelSettings",
            "a model of neural memories: Titans, MIRAS and what they reduce to",
        ),
    },
    "objective": {
        "cross_entropy": Entry(
            "cupel.models.gpt.loss:CrossEntropy",
            "cupel.models.gpt.settings:CrossEntropySettings",
            "cross-entropy of the next token",
        ),
        "qfe": Entry(
            "cupel.models.wave.loss:QFE",
            "cupel.models.wave.settings:QFESettings",
            "cross-entropy and coherence of phases along the sequence",
        ),
        "coherence": Entry(
            "cupel.models.wave.loss:Coherence",
            "cupel.models.wave.settings:CoherenceSettings",
            "cross-entropy and penalties on phases, norms and amplitudes of a wave model",
        ),
    },
    "optimizer": {
        "adamw": Entry(
            "cupel.train.optim:adamw", "cupel.train.settings:AdamWSettings", "AdamW, fused"
        ),
        "sgd": Entry(
            "cupel.train.optim:sgd", "cupel.train.settings:SGDSettings", "SGD with momentum"
        ),
        "rgd": Entry(
            "cupel.models.wave.optim:rgd",
            "cupel.models.wave.settings:RGDSettings",
            "resonant gradient descent: AdamW with a spectral filter on its update",
        ),
        "wave_native": Entry(
            "cupel.models.wave.optim:wave_native",
            "cupel.models.wave.settings:WaveNativeSettings",
            "damped momentum on gradients projected onto the weights' modes",
        ),
        "dgd": Entry(
            "cupel.models.memory.optim:dgd",
            "cupel.models.memory.optim_settings:DGDSettings",
            "delta gradient descent: steps that also erase along their inputs",
        ),
        "delta_momentum": Entry(
            "cupel.models.memory.optim:delta_momentum",
            "cupel.models.memory.optim_settings:DeltaMomentumSettings",
            "momentum that forgets along the gradient",
        ),
        "dmgd": Entry(
            "cupel.models.memory.optim:dmgd",
            "cupel.models.memory.optim_settings:DMGDSettings",
            "deep momentum: a network trained to answer gradients with descent",
        ),
        "m3": Entry(
            "cupel.models.memory.optim:m3",
            "cupel.models.memory.optim_settings:M3Settings",
            "multi-scale momentum with orthogonal updates",
        ),
    },
    "schedule": {
        "cosine": Entry(
            "cupel.train.schedule:cosine",
            "cupel.train.settings:CosineSettings",
            "warm-up, then a cosine down to a floor",
        ),
        "linear": Entry(
            "cupel.train.schedule:linear",
            "cupel.train.settings:LinearSettings",
            "warm-up, then a straight line down to a floor",
        ),
        "step": Entry(
            "cupel.train.schedule:step",
            "cupel.train.settings:StepSettings",
            "warm-up, then a factor at every milestone",
        ),
        "constant": Entry(
            "cupel.train.schedule:constant",
            "cupel.train.settings:ConstantSettings",
            "warm-up, then no change",
        ),
    },
    "monitor": {
        "norms": Entry(
            "cupel.monitors.norms:Norms",
            "cupel.monitors.settings:NormsSettings",
            "norms of gradients and weights, whole and by layer",
        ),
        "throughput": Entry(
            "cupel.monitors.throughput:Throughput",
            "cupel.monitors.settings:ThroughputSettings",
            "steps and tokens a second, in wall and CPU seconds",
        ),
        "spectral": Entry(
            "cupel.monitors.spectral:Spectral",
            "cupel.monitors.settings:SpectralSettings",
            "frequencies, phases, amplitudes, packets and interference of a wave model",
        ),
        "memories": Entry(
            "cupel.monitors.memories:Memories",
            "cupel.monitors.settings:MemoriesSettings",
            "norm, surprise and gates of neural memories over a sequence",
        ),
    },
}

# Sections that every recipe of a run has, whatever its workload.
SECTIONS: dict[str, str] = {
    "train": "cupel.train.settings:TrainSettings",
    "checkpoint": "cupel.checkpoint.settings:CheckpointSettings",
    "figures": "cupel.figures.settings:FigureSettings",
}


def names(kind: str) -> list[str]:
    """The registered names of one kind (`workload`, `optimizer`, `schedule`, `monitor`)."""
    return sorted(_table(kind))


def entry(kind: str, name: str) -> Entry:
    """The entry of a registered name, or one made up for `package.module:Object`.

    Raises UnknownName with the nearest registered name.
    """
    if name in _table(kind):
        return _table(kind)[name]
    if ":" in name:
        return Entry(name, f"{name}.Settings", "")
    raise UnknownName(kind, name, names(kind), hint="or give your own as package.module:Object")


def resolve(kind: str, name: str) -> Any:
    """Import the component itself (this is where torch may come in)."""
    return import_object(entry(kind, name).target)


def settings_of(kind: str, name: str) -> Any:
    """Import the component's settings class; for a registered name this never imports torch."""
    return import_object(entry(kind, name).settings)


def import_object(path: str) -> Any:
    """Import `package.module:Object` or `package.module:Object.Attribute`.

    Raises UsageError that says which part was not found, MissingDependency for torch's absence.
    """
    if not _PATH.fullmatch(path):
        raise UsageError(f"'{path}' is no import path; write it as package.module:Object")
    module_name, _, attributes = path.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as missing:
        raise _explain(path, module_name, missing) from missing
    for attribute in attributes.split("."):
        if not hasattr(found, attribute):
            hint = did_you_mean(attribute, [n for n in dir(found) if not n.startswith("_")])
            raise UsageError(f"'{path}': nothing called '{attribute}' in {module_name}{hint}")
        found = getattr(found, attribute)
    return found


def _explain(path: str, module_name: str, missing: ModuleNotFoundError) -> UsageError:
    if missing.name in TRAIN_PACKAGES:
        return MissingDependency(missing.name, extra="train", purpose=f"'{path}'")
    if missing.name and module_name.split(".")[0] == missing.name.split(".")[0]:
        return UsageError(
            f"'{path}': there is no module '{missing.name}' on Python's path; "
            "write it as package.module:Object, and start cupel where `import package` works"
        )
    return UsageError(f"'{path}': importing {module_name} failed: {missing}")


def _table(kind: str) -> dict[str, Entry]:
    if kind not in TABLES:
        raise UnknownName("kind of component", kind, TABLES)
    return TABLES[kind]
