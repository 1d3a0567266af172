"""When a study will be done, and how fast it goes: `eta(runs)`, `throughput(runs, window)`.

The durations of ended runs, and of running ones scaled by how far they are, are drawn again for
what is left (a bootstrap), 200 times; each time the runs are given to the slots in order, as
workers do. A draw first draws the variant's durations anew and then each run's from those: two
samples say little about the mean of a hundred runs, and the interval has to show that. A running
run is taken to go on as so far.

Up to 1,000 runs that are left are simulated one by one, from 300 on with fewer draws. Of more, all
but the last 1,000 are a sum (normal, shared evenly by the slots), which is off by less than one
run's length. What is drawn does not depend on the slots, so more of them never end later.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

DRAWS = 200
FEWEST_DRAWS = 20
ONE_BY_ONE = 1000  # runs of one draw that are simulated; the rest is a sum
WORK = 60_000  # runs times draws, about 0.1 s
SCALED_FROM = 0.02  # of a run's steps: before, its start-up weighs too much
SAMPLE_FROM = 0.2  # from here on its scaled duration counts as a sample
SAMPLES = 2  # of each variant, before anything is said

State = Literal["done", "running", "open"]


@dataclass(frozen=True, slots=True)
class Pace:
    """How far a run is: seconds of all its sessions so far, its step, and the steps it will take.

    `ended` is when it was done, in Unix seconds; only the throughput asks for it.
    """

    name: str
    variant: str
    state: State
    seconds: float = 0.0
    step: int = 0
    steps: int = 0
    ended: float = 0.0

    @property
    def part(self) -> float:
        """How much of it is done, from 0 to 1; 0 where the steps are not known."""
        return min(1.0, self.step / self.steps) if self.steps > 0 else 0.0

    @property
    def scaled(self) -> float | None:
        """What it takes in all, in seconds, if it goes on as so far; None when it is too early."""
        if self.state == "done":
            return self.seconds
        early = self.state == "open" or self.step < 1 or self.part < SCALED_FROM
        return None if early else self.seconds / self.part


@dataclass(frozen=True, slots=True)
class Eta:
    """When the last run will be done, in Unix seconds: the median, and the 10–90 % interval."""

    at: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Throughput:
    """What was done in a window of time."""

    runs_per_hour: float
    steps_per_s: float


def eta(runs: Sequence[Pace], *, slots: int, now: float, seed: int = 0) -> Eta | None:
    """When all runs will be done on so many slots, those that are busy included.

    Open runs begin in the order given. None when it cannot be known; `unknown_because` says why.
    At most about 0.2 s, also for 100,000 runs.
    """
    if unknown_because(runs, slots=slots):
        return None
    left = _Left(runs, slots)
    ends = sorted(left.drawn(Random(f"{seed}/{draw}")) for draw in range(left.draws))
    low, at, high = (ends[round(part * (len(ends) - 1))] for part in (0.1, 0.5, 0.9))
    return Eta(now + at, now + low, now + high)


def unknown_because(runs: Iterable[Pace], *, slots: int) -> str:
    """Why there is no ETA yet, in a line; empty when there is one."""
    samples: Counter[str] = Counter()
    needing: dict[str, None] = {}
    waiting = False
    for run in runs:
        waiting |= run.state == "open"
        if run.state == "done" or (run.state == "running" and run.part > SAMPLE_FROM):
            samples[run.variant] += 1
        if run.state == "open" or (run.state == "running" and run.scaled is None):
            needing[run.variant] = None
    if waiting and slots < 1:
        return "runs are open, and no worker is there to take them"
    lacking = [name for name in needing if samples[name] < SAMPLES]
    if not lacking:
        return ""
    shown = ", ".join(f"{name} has {samples[name]}" for name in lacking[:3])
    more = f", and {len(lacking) - 3} more variants" if len(lacking) > 3 else ""
    return f"{SAMPLES} runs of each variant must be done, or far enough: {shown}{more}"


def throughput(runs: Iterable[Pace], window: float, *, now: float) -> Throughput:
    """Runs an hour and steps a second of the last `window` seconds, or since the first run began.

    The steps of a run are taken as evenly spread over the seconds just before it ended, or now.
    """
    assert window > 0, window
    spans = [
        (run, run.ended if run.state == "done" else now) for run in runs if run.state != "open"
    ]
    begun = min((end - run.seconds for run, end in spans), default=now)
    since = max(now - window, begun)
    if since >= now:
        return Throughput(0.0, 0.0)
    done = sum(run.state == "done" and since < end <= now for run, end in spans)
    steps = sum(
        run.step * max(0.0, min(end, now) - max(since, end - run.seconds)) / run.seconds
        for run, end in spans
        if run.seconds > 0
    )
    return Throughput(done / (now - since) * 3600, steps / (now - since))


class _Left:
    """What is left to do, made ready to be drawn from."""

    def __init__(self, runs: Sequence[Pace], slots: int) -> None:
        self.slots = slots
        self.pools = _pools(runs)
        self.running = [run for run in runs if run.state == "running"]
        opened = [run.variant for run in runs if run.state == "open"]
        self.last = opened[max(0, len(opened) - ONE_BY_ONE) :]
        self.bulk = _Bulk(self.pools, opened[: len(opened) - len(self.last)])
        work = len(self.running) + len(self.last)
        self.draws = max(FEWEST_DRAWS, min(DRAWS, WORK // max(1, work)))

    def drawn(self, random: Random) -> float:
        """How long it takes by one draw, in seconds."""
        draw = _Draw(self.pools, random)
        shift = random.gauss(0, 1)  # drawn in any case, so that more runs change no other's draw
        remaining = [self._remaining(run, draw) for run in self.running]
        # Where more run than there are slots, those that end first make no room.
        busy = heapq.nlargest(self.slots, remaining)
        if not self._open:
            return max(remaining, default=0.0)
        free = min(self.slots - len(busy), self._open)
        loads = _filled(busy, free, self.bulk.seconds(shift))
        end = max(max(loads), max(remaining, default=0.0))
        heapq.heapify(loads)
        for variant in self.last:
            load = loads[0] + draw.duration(variant)
            heapq.heapreplace(loads, load)
            end = max(end, load)
        return end

    @property
    def _open(self) -> int:
        return self.bulk.count + len(self.last)

    def _remaining(self, run: Pace, draw: _Draw) -> float:
        scaled = run.scaled
        return max(0.0, (draw.duration(run.variant) if scaled is None else scaled) - run.seconds)


class _Draw:
    """One draw of the bootstrap: durations of each variant drawn anew, and runs from those.

    A variant's sample is drawn when it is first asked for, one member at a time: only a few of
    thousands of variants may be asked, and a few of a variant's thousand members.
    """

    def __init__(self, pools: Mapping[str, Sequence[float]], random: Random) -> None:
        self._pools, self._random = pools, random.random
        self._anew: dict[tuple[str, int], float] = {}

    def duration(self, variant: str) -> float:
        pool, random = self._pools[variant], self._random
        key = (variant, int(random() * len(pool)))
        found = self._anew.get(key)
        if found is None:
            found = self._anew[key] = pool[int(random() * len(pool))]
        return found


class _Bulk:
    """Many runs as one sum. Its variance is that of the runs, and that of their means."""

    def __init__(self, pools: Mapping[str, Sequence[float]], variants: Sequence[str]) -> None:
        self.count = len(variants)
        self._mean = self._least = self._most = variance = 0.0
        for variant, count in Counter(variants).items():
            pool = pools[variant]
            mean = math.fsum(pool) / len(pool)
            spread = math.fsum((value - mean) ** 2 for value in pool) / len(pool)
            self._mean += count * mean
            self._least += count * min(pool)
            self._most += count * max(pool)
            variance += count * spread * (1 + count / len(pool))
        self._deviation = math.sqrt(variance)

    def seconds(self, shift: float) -> float:
        """The sum, so many standard deviations beside its mean."""
        return min(self._most, max(self._least, self._mean + shift * self._deviation))


def _pools(runs: Iterable[Pace]) -> dict[str, list[float]]:
    pools: defaultdict[str, list[float]] = defaultdict(list)
    for run in runs:
        if (scaled := run.scaled) is not None:
            pools[run.variant].append(scaled)
    return pools


def _filled(busy: Iterable[float], free: int, work: float) -> list[float]:
    """The loads of busy and free slots after work that may be divided at will has gone to the
    least loaded ones."""
    ordered = sorted(busy)
    level = work / free if free else math.inf
    for count, load in enumerate(ordered, start=free + 1):
        if load >= level:
            break
        work += load
        level = work / count
    return [level] * free + [max(load, level) for load in ordered]
