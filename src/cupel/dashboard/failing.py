"""What failed in studies, by class, with what to do about each: `failures(glances)`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from cupel.dashboard.glance import Glance, Seen

MOST_NAMED = 20

# By class of `cupel.jobs.attempts`; what follows by itself is the table of docs/failures.md.
ADVICE: Mapping[str, str] = {
    "configuration": "refused before the first step; mend the setting or the data, then retry",
    "import": "a module is missing or does not import; install or mend it, then retry",
    "cuda_oom": "the GPU's memory was full; it is tried alone, then with half the micro-batch",
    "host_oom": "the machine's memory was full; it is tried with half as much again",
    "timeout": "its time was over; it goes on from its checkpoint; give it more resources.time_min",
    "preempted": "its place was needed; it goes on from its checkpoint",
    "diverged": "a loss was not finite; that is a result and is not tried again; lower the rate",
    "hung": "no step for too long; look at the stacks in its log before you retry",
    "node": "a fault of the host; it is tried elsewhere, look at the host's driver and disk",
    "killed": "a signal that nobody of ours sent; it goes on, look for who kills processes there",
    "lost": "no sign of life; it goes on elsewhere, look whether the host is up",
    "cancelled": "somebody cancelled it; retry tries it again",
    "unknown": "its log says more; retry tries it again",
    "interrupted": "it was asked to stop; it goes on where workers are",
    "damaged": "its record cannot be read; cupel runs verify names the file",
}


class FailedRun(msgspec.Struct):
    """A run that failed, or waits for another try."""

    run: str
    study: str
    state: str
    reason: str
    attempts: int


class Failures(msgspec.Struct):
    """All that failed of one class: how many for good, how many are tried again, the first few."""

    kind: str
    count: int
    again: int
    advice: str
    runs: list[FailedRun]


def failures(glances: Iterable[tuple[Glance, Seen]]) -> list[Failures]:
    """By class, the most frequent first."""
    found: dict[str, Failures] = {}
    for glance, seen in glances:
        for state, kind in glance.failures(seen):
            one = found.get(kind)
            if one is None:
                advice = ADVICE.get(kind, ADVICE["unknown"])
                one = found[kind] = Failures(kind, 0, 0, advice, [])
            one.count += 1
            one.again += state.status == "waiting"
            if len(one.runs) < MOST_NAMED:
                reason = state.reason or ""
                one.runs.append(
                    FailedRun(state.run.run_id, glance.key, state.status, reason, state.attempts)
                )
    return sorted(found.values(), key=lambda one: (-one.count, one.kind))
