"""Every exception that cupel raises on purpose.

    CupelError
    ├── UsageError                what was typed or given cannot be used: exit code 2
    │   ├── RecipeError           a recipe does not compose or validate (`.problems`, a line each)
    │   ├── UnknownName           no such workload, monitor, recipe, run …
    │   ├── DataError             a corpus is missing, empty or not what its hash says
    │   ├── RecordError           the record cannot be written or read where it was asked to be
    │   ├── ResumeError           this run cannot be resumed like this
    │   ├── PreflightError        the machine cannot carry this run (device, memory, disk)
    │   └── MissingDependency     an optional package is absent; says the exact pip command
    ├── CheckpointError           a checkpoint could not be written or read
    │   └── CheckpointDamaged     its bytes are not those that its manifest promises
    ├── Superseded                a newer session of this run exists: this process must stop writing
    ├── JobsError                 what runs jobs (a scheduler, a cluster) refuses or cannot be used
    └── TrainingFailed            training itself went wrong
        └── Diverged              a loss is not finite: a result of the settings, not a fault

A message says what was found, what was expected and what to type, in one line. The programmer's
own mistakes are asserts, not exceptions of this family.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

TRAIN_PACKAGES = ("torch", "safetensors")  # the extra [train]


class CupelError(Exception):
    """Base of all of cupel's exceptions; the command line prints it as one line, no traceback."""

    exit_code = 1


class UsageError(CupelError):
    """The user's mistake: bad input, a wrong argument, a missing file."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe that does not compose or validate; `problems` holds one line for each mistake."""

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        assert self.problems, "a RecipeError needs at least one problem"
        super().__init__("\n".join(self.problems))


class UnknownName(UsageError):
    """A name that nothing answers to; the message suggests the nearest one that exists."""

    def __init__(self, kind: str, name: str, known: Iterable[str], *, hint: str = "") -> None:
        known = sorted(known)
        self.kind, self.name = kind, name
        listed = ", ".join(known[:12]) + (", …" if len(known) > 12 else "") if known else "none"
        message = f"no {kind} is called '{name}'{did_you_mean(name, known)} (there are: {listed})"
        super().__init__(f"{message}; {hint}" if hint else message)


class DataError(UsageError):
    """Training data that is missing, empty, unreadable or not what it was."""


class RecordError(UsageError):
    """The record's folder cannot be written to, or does not hold what was asked for."""


class ResumeError(UsageError):
    """A run that cannot be resumed: it is running, finished, or its configuration differs."""


class PreflightError(UsageError):
    """The machine cannot carry the run; found before the first step."""


class MissingDependency(UsageError):
    """An optional package is not installed."""

    def __init__(self, package: str, *, extra: str, purpose: str) -> None:
        self.package, self.extra = package, extra
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed; "
            f"type: pip install 'cupel[{extra}]'"
        )


class CheckpointError(CupelError):
    """A checkpoint could not be written or read; never swallowed."""


class CheckpointDamaged(CheckpointError):
    """A checkpoint whose files do not match its manifest."""


class Superseded(CupelError):
    """Another session has taken over this run; this process may no longer move its pointers."""


class JobsError(CupelError):
    """What runs jobs, a scheduler or a cluster, refuses them or is not there."""


class TrainingFailed(CupelError):
    """Training cannot go on, for a reason that lies in the training itself."""


class Diverged(TrainingFailed):
    """A loss is NaN or infinite. That is a result of the settings: the same run ends so again."""


@contextmanager
def needing_torch(purpose: str) -> Iterator[None]:
    """A context for imports that bring in torch: its absence becomes a MissingDependency."""
    try:
        yield
    except ModuleNotFoundError as missing:
        if missing.name not in TRAIN_PACKAGES:
            raise
        raise MissingDependency(missing.name, extra="train", purpose=purpose) from missing


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the nearest of the known names, or an empty string."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""
