"""Settings of every kind of task, small, for the tests that hold of all of them."""

from __future__ import annotations

from typing import get_args

from cupel.config import Settings
from cupel.data.tasks.settings import (
    LANGUAGES,
    CompressionSettings,
    FormalSettings,
    FuzzyRecallSettings,
    MemorizationSettings,
    MqarSettings,
    NeedleSettings,
    NoisyRecallSettings,
    ParitySettings,
    RecallSettings,
    SelectiveCopyingSettings,
    TaskSettings,
)

EXAMPLES: dict[str, Settings] = {
    "mqar": MqarSettings(),
    "mqar-noisy": MqarSettings(block=96, queries=2, noise=0.4, gaps="uniform"),
    **{
        f"formal-{name}": FormalSettings(language=name, longest=24, bins=((25, 40),))
        for name in LANGUAGES
    },
    "parity": ParitySettings(longest=24, bins=((25, 70),)),
    **{
        f"needle-{variant}-{tokens}": NeedleSettings(
            variant=variant, tokens=tokens, lengths=(256, 300), depths=(0.0, 0.5, 1.0)
        )
        for variant in ("passkey", "number", "uuid")
        for tokens in ("byte", "symbol")
    },
    "recall": RecallSettings(block=64),
    "noisy_recall": NoisyRecallSettings(block=64),
    "fuzzy_recall": FuzzyRecallSettings(block=64),
    "selective_copying": SelectiveCopyingSettings(block=64),
    "memorization": MemorizationSettings(),
    "compression": CompressionSettings(),
}
KINDS = [one.model_fields["kind"].default for one in get_args(get_args(TaskSettings)[0])]
assert {name.split("-")[0] for name in EXAMPLES} == set(KINDS)
