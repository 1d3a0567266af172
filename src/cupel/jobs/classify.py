"""Why a process ended, as one of a dozen classes: `classify(ended, …)`, and `signature(text)`.

Evidence is weighed in this order, the strongest first:

1. exit code 0, unless a scheduler says otherwise; then, that somebody cancelled the run
2. the scheduler's word for it (`TIMEOUT`, `OUT_OF_MEMORY`, …) and the kernel's kills for memory
3. the error that the process itself wrote (`failure.json`) or was refused for (exit code 2 and a
   line for people), where its class is known
4. what we did to it: it was found hung and ended, or it was asked to stop
5. an error of its own whose class is not known: what it printed besides explains nothing then
6. signals from outside, a bus error, and a stop (75) that nobody of ours asked for
7. what it printed last, by the table of patterns; a signal that came of itself

An error that 5 or 7 leave unknown, of a run whose last loss was no number, is a divergence.
Nothing here reads a file, and nothing here raises, whatever a process left behind. What follows
from a class is decided in `cupel.jobs.policy`; docs/failures.md tells users of both.
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Mapping
from dataclasses import dataclass
from signal import Signals
from typing import Any

from cupel import errors
from cupel.jobs.attempts import Failure, FailureClass
from cupel.jobs.backend import Ended
from cupel.jobs.reasons import in_a_line, refusal_in

REFUSED = 2
INTERRUPTED = 75  # asked to stop, and stopped with a checkpoint
DETAIL, SIGNATURE = 300, 200  # characters, at most

STATES: dict[str, FailureClass] = {
    "OUT_OF_MEMORY": "host_oom",
    "TIMEOUT": "timeout",
    "DEADLINE": "timeout",
    "PREEMPTED": "preempted",
    "NODE_FAIL": "node",
    "BOOT_FAIL": "node",
    "CANCELLED": "cancelled",
}
# By the name of an error's class or of a class above it; the first row that fits counts.
ERRORS: tuple[tuple[FailureClass, frozenset[str]], ...] = (
    ("diverged", frozenset({"Diverged"})),
    ("cuda_oom", frozenset({"OutOfMemoryError"})),  # torch's; Python's own is MemoryError
    ("host_oom", frozenset({"MemoryError"})),
    ("import", frozenset({"ImportError", "MissingDependency", "SyntaxError"})),
    ("lost", frozenset({"Superseded"})),  # another session has taken the run over
)
# By words in an error's message, or in what a process printed.
PATTERNS: tuple[tuple[FailureClass, re.Pattern[str]], ...] = (
    (
        "cuda_oom",
        re.compile(
            r"(CUDA|HIP) out of memory|CUDA error: out of memory|cudaErrorMemoryAllocation"
            r"|torch\.(cuda\.)?OutOfMemoryError|CU(BLAS|DNN|SOLVER|SPARSE)_STATUS_ALLOC_FAILED"
        ),
    ),
    (
        "host_oom",
        re.compile(
            r"[Dd]etected \d+ oom[-_ ]kill event|\b\w*MemoryError\b|std::bad_alloc"
            r"|DefaultCPUAllocator: (can't allocate|not enough) memory|Cannot allocate memory"
        ),
    ),
    (
        "node",
        re.compile(
            r"[Uu]ncorrectable ECC|ECC error|\bXid\b|GPU is lost|fallen off the bus|CUDA driver"
            r"|no CUDA-capable device|CUDA-capable devices? .*busy or unavailable"
            r"|CUDA initialization|\bNCCL\b.*([Ee]rror|[Ww]atchdog|[Tt]ime(d )?out)"
            r"|nccl(System|Internal|Remote|UnhandledCuda)Error|DistBackendError"
            r"|No space left on device|[Ss]tale (NFS )?file handle|Input/output error"
            r"|Transport endpoint is not connected|[Bb]us error|insufficient shared memory"
        ),
    ),
    (
        "import",
        re.compile(r"needs the package '[^']*', which is not installed"),
    ),
)
# After the patterns: also a full disk can be the reason why a record is refused.
REFUSALS = frozenset({"UsageError"})
# A programmer's mistakes. Before the first step, each run with these settings ends in the same one.
MISTAKES = frozenset({"AssertionError", "TypeError", "AttributeError", "NameError", "KeyError"})

# People and machines send these; nothing that a process does leads to them.
_FROM_OUTSIDE = {Signals.SIGKILL, Signals.SIGTERM, Signals.SIGINT, Signals.SIGHUP}
_OOM_KILL = re.compile(r"oom[-_ ]kill", re.IGNORECASE)
_TRACEBACK = re.compile(r"\s*([|+]\s+)*(\w+ ){0,2}Traceback \(most recent call last\):\s*")
_EXCEPTION = re.compile(r"(?:\w+\.)*(\w*(?:Error|Exception|Interrupt)|(?<=\.)[A-Z]\w*)(?:: |:?$)")
_NO_LETTER = re.compile(r"[\s|+]*")  # an empty line, also within an exception group


def classify(
    ended: Ended,
    *,
    failure: Mapping[str, Any] | None,
    log_tail: str,
    began: bool,
    asked: str | None,
    hung: bool,
    nonfinite: bool = False,
) -> Failure | None:
    """Why a process ended; None when it was done, or was asked to stop and stopped well (75).

    `failure` is what the process wrote into failure.json; `log_tail` is the end of what it
    printed, without what earlier processes did. `began`: it got beyond its preparation. `asked`:
    why we asked it to stop ("timeout", "cancelled", "preempted", any word for another reason).
    `nonfinite`: the run's last loss was NaN or infinite.

    A process that stopped well because its time was over has timed out nevertheless. It goes on
    like an interrupted one, but not for ever when it makes no progress.
    """
    state = _state_of(ended)
    if ended.code == 0 and state not in STATES:
        return None
    if asked == "cancelled":
        return _failure("cancelled", "cancelled")
    if found := _by_the_system(ended, state, ours=hung or asked is not None):
        return found
    printed = _lines_of(log_tail)
    error = _Error.written(failure) or _Error.refused(ended.code, printed)
    if error and (kind := error.kind(before=not began)):
        return error.failure(kind)
    if hung:
        return _failure("hung", "it made no progress for too long, and was ended")
    if asked == "timeout":
        return _failure("timeout", "its time was over")
    if asked is not None and ended.code == INTERRUPTED:
        return None
    if asked is not None:
        return _failure("preempted", f"asked to stop ({asked}); {_ending(ended.code)}")
    unknown: FailureClass = "diverged" if nonfinite else "unknown"
    if error:
        return error.failure("killed" if "KeyboardInterrupt" in error.names else unknown)
    if found := _by_the_code(ended.code, printed):
        return found
    error = _Error.printed(printed)
    kind = error.kind(before=not began)
    if kind is None and _signal_of(ended.code):
        return _failure("killed", _ending(ended.code))
    if not error.line:
        return _failure(kind or unknown, f"{_ending(ended.code)}; it printed nothing")
    return error.failure(kind or unknown)


def signature(text: str) -> str:
    """What alike failures share: the text with `…` for numbers, addresses, paths and ids.

    A quoted name stays when it is made of letters ('encoder.weight'). The signature of a
    signature is itself.
    """
    while (shorter := _without_varying(text)) != text:
        text = shorter
    return text


# In quotation marks that belong together: none of them is an apostrophe.
_QUOTED = re.compile(r"(?<!\w)(['\"`])(?!\1)(.*?)\1(?!\w)")
_PLAIN = re.compile(r"[^\W\d]+(\.[^\W\d]+)*")
_TOKEN = re.compile(r"[A-Za-z]:(?=[\\/])[\w./\\+~@%#…-]*|[\w./\\+~@%#…-]+")
_VARYING = re.compile(r"\d|[/\\…]|^[-+]?(nan|inf|[a-f]{8,})\.?$", re.IGNORECASE)
_SEVERAL = re.compile(r"…(?:[\s,:×]*…)+")


def _without_varying(text: str) -> str:
    """One pass. None lengthens the text, and what it puts in is what it leaves alone: it ends."""
    text = " ".join(text.split())
    text = _QUOTED.sub(lambda m: m[0] if _PLAIN.fullmatch(m[2]) else f"{m[1]}…{m[1]}", text)
    text = _TOKEN.sub(lambda m: "…" if _VARYING.search(m[0]) else m[0], text)
    return _SEVERAL.sub("…", text)[:SIGNATURE]


@dataclass(frozen=True, slots=True)
class _Error:
    """An error: a line that says it, the names of its class and those above, where it was."""

    line: str
    names: frozenset[str] = frozenset()
    message: str = ""
    where: str = ""
    first_step: bool = False  # no step of the run was done yet

    @staticmethod
    def written(failure: Mapping[str, Any] | None) -> _Error | None:
        """The error that a process wrote down; None when there is none to be made out."""
        if not isinstance(failure, Mapping):
            return None
        name, message = _text_of(failure, "type"), _text_of(failure, "message")
        if not (name or message):
            return None
        above = failure.get("mro")
        names = [one for one in above if isinstance(one, str)] if isinstance(above, list) else []
        shown, called = _in_a_line(_lines_of(message)), name.removeprefix("builtins.")
        if shown and "CupelError" in names:  # its message is a line for people
            called = ""
        return _Error(
            f"{called}: {shown}" if called and shown else called or shown,
            frozenset(one.rpartition(".")[2] for one in names) | _family(name),
            message,
            _text_of(failure, "where"),
            failure.get("begun") is False or failure.get("step") == 0,
        )

    @staticmethod
    def refused(code: int, lines: list[str]) -> _Error | None:
        """The line for people with which a process refused what it was given."""
        last = max((n for n, line in enumerate(lines) if refusal_in(line)), default=None)
        if code != REFUSED or last is None:
            return None
        message = _in_a_line(lines[last:])
        return _Error(refusal_in(message) or message, REFUSALS, message)

    @staticmethod
    def printed(lines: list[str]) -> _Error:
        """What a process printed last, as an error, should it be one: all of it is its message,
        from the first traceback on."""
        starts = [n for n, line in enumerate(lines) if _TRACEBACK.fullmatch(line)]
        named = [n for n, line in enumerate(lines) if _EXCEPTION.match(line)]
        if starts:
            line = _in_a_line(lines[starts[0] :])
        else:  # a traceback's head may be out of sight
            line = _in_a_line(lines[named[-1] if named else -1 :])
        found = _EXCEPTION.match(line)
        names = _family(found[1]) if found else frozenset()
        message = "\n".join(lines[starts[0] :] if starts else lines)
        return _Error(refusal_in(line) or line, names, message)

    def kind(self, *, before: bool) -> FailureClass | None:
        """Its class; None when it is not known. `before`: it came before the first step."""
        for kind, names in ERRORS:
            if names & self.names:
                return kind
        if found := _pattern_in(self.message.splitlines()):
            return found
        mistakes = MISTAKES if before or self.first_step else frozenset()
        return "configuration" if self.names & (REFUSALS | mistakes) else None

    def failure(self, kind: FailureClass) -> Failure:
        return _failure(kind, self.line, f"{self.line} ({self.where})" if self.where else "")


def _by_the_system(ended: Ended, state: str, *, ours: bool) -> Failure | None:
    """What a scheduler and the kernel know. What was cancelled by us was ended for our reason."""
    if ended.oom_kills > 0 and ended.code not in (0, INTERRUPTED):
        return _failure("host_oom", "the kernel killed a process of it for lack of memory")
    kind = STATES.get(state)
    if kind is None or (kind == "cancelled" and ours):
        return None
    return _failure(kind, f"ended by the scheduler: {state}")


def _by_the_code(code: int, lines: list[str]) -> Failure | None:
    """What an exit code tells on its own."""
    signal = _signal_of(code)
    if signal in _FROM_OUTSIDE:
        told = [line for line in lines if _OOM_KILL.search(line)]
        return _failure("host_oom", told[-1]) if told else _failure("killed", _ending(code))
    if signal == Signals.SIGBUS:
        return _failure("node", _ending(code))
    if code == INTERRUPTED:
        return _failure("killed", f"{_ending(code)}, and nobody of ours asked for it")
    return None


def _pattern_in(lines: list[str]) -> FailureClass | None:
    """The first row of the table that fits a line. Warnings are passed over: torch warns of
    "CUDA initialization" wherever there is no GPU."""
    said = [line for line in lines if "Warning" not in line]
    return next((kind for kind, words in PATTERNS if any(map(words.search, said))), None)


def _state_of(ended: Ended) -> str:
    """The scheduler's word alone: `CANCELLED by 1000` and `CANCELLED+` are `CANCELLED`."""
    return next(iter(ended.state.upper().split()), "").rstrip("+")


def _signal_of(code: int) -> int:
    """The signal of an exit code, of Python's kind (-9) or a shell's (137); 0 for none."""
    number = -code if code < 0 else code - 128
    return number if number in set(Signals) else 0


def _ending(code: int) -> str:
    if signal := _signal_of(code):
        return f"killed by {Signals(signal).name}"
    return f"killed by signal {-code}" if code < 0 else f"stopped with exit code {code}"


def _family(name: str) -> frozenset[str]:
    """The names of an error's class and those above it, of Python's own errors and of cupel's."""
    name = name.rpartition(".")[2]
    found = getattr(errors, name, None) or getattr(builtins, name, None)
    above = found.__mro__ if isinstance(found, type) and issubclass(found, BaseException) else ()
    return frozenset({name, *(one.__name__ for one in above)}) if name else frozenset()


def _lines_of(text: str) -> list[str]:
    return [line for line in text.splitlines() if not _NO_LETTER.fullmatch(line)]


def _in_a_line(lines: list[str]) -> str:
    return in_a_line("\n".join(lines))


def _text_of(failure: Mapping[str, Any], name: str) -> str:
    found = failure.get(name)
    return found.strip() if isinstance(found, str) else ""


def _failure(kind: FailureClass, detail: str, alike: str = "") -> Failure:
    """Of one line that can be shown and written anywhere, and no longer than is read."""
    shown = _printable(detail).strip()
    shown = shown if len(shown) <= DETAIL else f"{shown[: DETAIL - 1]}…"
    return Failure(kind, shown, signature(_printable(alike or detail)))


def _printable(text: str) -> str:
    return "".join(one if one.isprintable() else " " for one in text)
