"""Why a process ended: what each piece of evidence means, and which one outweighs which."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cupel import errors
from cupel.jobs.attempts import CLASSES, Attempt, Failure, read_attempt, write_attempt
from cupel.jobs.backend import Ended
from cupel.jobs.classify import STATES, classify, signature
from cupel.record.layout import session_dir

HEAD = "Traceback (most recent call last):\n"
OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."


def why(
    code: int,
    said: str = "",
    *,
    failure: Mapping[str, Any] | None = None,
    began: bool = True,
    asked: str | None = None,
    hung: bool = False,
    nonfinite: bool = False,
    state: str = "",
    oom_kills: int = 0,
) -> Failure | None:
    return classify(
        Ended(code, state=state, oom_kills=oom_kills),
        failure=failure, log_tail=said, began=began, asked=asked, hung=hung, nonfinite=nonfinite,
    )  # fmt: skip


def kind(code: int, said: str = "", **more: Any) -> str | None:
    found = why(code, said, **more)
    return found and found.kind


def of(error: BaseException, *, step: int = 12, begun: bool = True) -> dict[str, Any]:
    """What a process writes into failure.json when it dies of this error."""
    named = type(error)
    home = "" if named.__module__ == "builtins" else f"{named.__module__}."
    return {
        "schema": 1, "type": f"{home}{named.__qualname__}",
        "mro": [one.__name__ for one in named.__mro__[:-2]], "message": str(error),
        "where": "cupel.train.loop:245", "step": step, "begun": begun,
    }  # fmt: skip


CUDA_OOM = {
    "type": "torch.OutOfMemoryError",
    "mro": ["OutOfMemoryError", "RuntimeError", "Exception"],
    "message": "CUDA out of memory. Tried to allocate 2.00 GiB.",
    "where": "torch.nn:9", "step": 12, "begun": True,
}  # fmt: skip


# --- no failure ---


def test_a_process_that_was_done_has_not_failed() -> None:
    assert why(0) is None
    assert why(0, "Warning: CUDA out of memory, a smaller batch is tried") is None
    assert why(0, asked="timeout") is None, "it was done just then"
    assert why(0, state="COMPLETED") is None
    assert why(0, oom_kills=1) is None, "it got along without the process that was killed"


@pytest.mark.parametrize("asked", ["preempted", "interrupted"])
def test_a_stop_with_a_checkpoint_that_was_asked_for_is_an_interruption(asked: str) -> None:
    assert why(75, asked=asked) is None
    assert why(75, asked=asked, oom_kills=1) is None


def test_a_stop_with_a_checkpoint_for_another_reason_keeps_its_class() -> None:
    assert kind(75, asked="timeout") == "timeout"
    assert kind(75, asked="cancelled") == "cancelled"
    assert kind(75) == "killed", "a signal that nobody of ours sent"


# --- the scheduler and the kernel ---


@pytest.mark.parametrize("state", STATES)
def test_the_schedulers_word_beats_signal_and_exit_code(state: str) -> None:
    for code in (-9, -15, 1, 137, 0, 2):
        assert kind(code, f"{HEAD}{OOM}", state=state) == STATES[state]


def test_the_schedulers_word_is_read_as_it_is_printed() -> None:
    assert kind(-15, state="CANCELLED by 1000") == "cancelled"
    assert kind(-15, state="CANCELLED+") == "cancelled"
    assert kind(-9, state="out_of_memory") == "host_oom"


def test_an_unknown_word_of_a_scheduler_decides_nothing() -> None:
    assert kind(1, OOM, state="FAILED") == "cuda_oom"
    assert kind(-9, state="REVOKED") == "killed"


def test_the_kernels_kills_beat_signal_error_and_hang() -> None:
    assert kind(-9, oom_kills=1) == "host_oom"
    assert kind(137, oom_kills=2) == "host_oom"
    assert kind(1, failure=of(RuntimeError("DataLoader worker is killed")), oom_kills=1) == (
        "host_oom"
    )
    assert kind(-9, hung=True, oom_kills=1) == "host_oom", "it waited for the process killed"


def test_what_we_cancelled_ourselves_has_ended_for_our_reason() -> None:
    assert kind(-15, state="CANCELLED", asked="timeout") == "timeout"
    assert kind(-9, state="CANCELLED", hung=True) == "hung"
    assert kind(-9, state="CANCELLED", asked="cancelled") == "cancelled"


# --- the process's own error ---


@pytest.mark.parametrize(
    "error, expected",
    [
        (errors.Diverged("loss is nan at step 12"), "diverged"),
        (MemoryError(), "host_oom"),
        (ModuleNotFoundError("No module named 'x'"), "import"),
        (errors.MissingDependency("optuna", extra="search", purpose="a search"), "import"),
        (IndentationError("unexpected indent"), "import"),
        (errors.UsageError("no"), "configuration"),
        (errors.RecipeError(["no such setting", "another"]), "configuration"),
        (errors.PreflightError("too large"), "configuration"),
        (errors.RecordError("cannot write the record: No space left on device"), "node"),
        (OSError(116, "Stale file handle", "/data"), "node"),
        (RuntimeError("NCCL error in: x.cpp:1, unhandled system error"), "node"),
        (RuntimeError("CUDA error: out of memory"), "cuda_oom"),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), "cuda_oom"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "host_oom"),
        (errors.Superseded("session 4 has taken over"), "lost"),
        (KeyboardInterrupt(), "killed"),
        (errors.TrainingFailed("no"), "unknown"),
        (ValueError("odd"), "unknown"),
    ],
)
def test_an_error_is_known_by_its_class_and_its_words(error: BaseException, expected: str) -> None:
    assert kind(1, failure=of(error)) == expected


def test_an_error_beats_what_was_printed_and_how_the_process_then_ended() -> None:
    assert kind(1, "NCCL watchdog error", failure=CUDA_OOM) == "cuda_oom"
    assert kind(-9, failure=CUDA_OOM, hung=True) == "cuda_oom", "its end hung, for this reason"
    assert kind(-6, failure=CUDA_OOM, asked="timeout") == "cuda_oom"
    assert kind(1, OOM, failure=of(ValueError("odd"))) == "unknown"
    assert kind(1, OOM, failure=of(ValueError("odd")), hung=True) == "hung"


MISTAKES = [
    AssertionError("a mask"), TypeError("f() takes 1"), AttributeError("no"), KeyError("x"),
    UnboundLocalError("x"),
]  # fmt: skip


@pytest.mark.parametrize("error", MISTAKES)
def test_a_programmers_mistake_before_the_first_step_is_one_of_the_configuration(
    error: Exception,
) -> None:
    assert kind(1, failure=of(error, step=0, begun=False), began=False) == "configuration"
    assert kind(1, failure=of(error, step=0), began=True) == "configuration", "in the first step"
    assert kind(1, f"{HEAD}  File\n{type(error).__name__}: x", began=False) == "configuration"
    assert kind(1, failure=of(error, step=3), began=True) == "unknown"
    assert kind(1, f"{HEAD}  File\n{type(error).__name__}: x", began=True) == "unknown"


def test_a_loss_that_is_no_number_makes_an_unknown_end_a_divergence() -> None:
    assert kind(1, failure=of(ValueError("odd")), nonfinite=True) == "diverged"
    assert kind(1, f"{HEAD}ValueError: odd", nonfinite=True) == "diverged"
    assert kind(1, failure=CUDA_OOM, nonfinite=True) == "cuda_oom"
    assert kind(-9, nonfinite=True) == "killed"
    assert kind(-9, nonfinite=True, hung=True) == "hung"


# --- what we did, exit codes, signals ---


def test_what_we_did_explains_a_signal() -> None:
    assert kind(-9, hung=True) == "hung"
    assert kind(-9, asked="timeout") == "timeout"
    assert kind(-15, asked="preempted") == "preempted"
    assert kind(143, asked="interrupted") == "preempted"
    assert kind(130, asked="timeout", failure=of(KeyboardInterrupt())) == "timeout"
    assert kind(-9, asked="cancelled", failure=CUDA_OOM) == "cancelled"


def test_a_refusal_is_the_last_line_for_people() -> None:
    said = "loading\ncupel: no setting is called 'lr'\ncupel: train.steps must be positive\n"
    found = why(2, said, began=False)
    assert found == Failure(
        "configuration", "train.steps must be positive", "train.steps must be positive"
    )
    assert kind(2, said, asked="timeout") == "configuration", "it ended by itself"
    assert kind(2, "something else") == "unknown"
    assert kind(2, "cupel: X needs the package 'y', which is not installed; type: pip") == "import"
    assert kind(2, "cupel: cannot write the record to x: No space left on device") == "node"


def test_signals_from_outside_are_not_explained_by_what_was_printed() -> None:
    for code in (-9, -15, -2, -1, 130, 137, 143):
        assert kind(code, f"{OOM} A smaller batch is tried.") == "killed"
    assert kind(-9, "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=7.0") == "host_oom"


def test_a_signal_that_came_of_itself_is_explained_by_what_was_printed() -> None:
    assert kind(-6, "[rank0] NCCL watchdog: error\nterminate called") == "node"
    assert kind(-6, "terminate called after throwing an instance of 'std::bad_alloc'") == (
        "host_oom"
    )
    assert kind(-11, "Fatal Python error: Segmentation fault") == "killed"
    assert kind(-7) == "node"
    assert kind(135) == "node"


# --- what was printed ---


@pytest.mark.parametrize(
    "line, expected",
    [
        (OOM, "cuda_oom"),
        ("RuntimeError: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`", "cuda_oom"),
        ("RuntimeError: [at x.cpp:1] DefaultCPUAllocator: can't allocate memory", "host_oom"),
        ("slurmstepd: error: Detected 2 oom_kill events in StepId=7.0", "host_oom"),
        ("numpy._core._exceptions._ArrayMemoryError: Unable to allocate 8 GiB", "host_oom"),
        ("MemoryError", "host_oom"),
        ("RuntimeError: CUDA error: uncorrectable ECC error encountered", "node"),
        ("NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus", "node"),
        ("RuntimeError: CUDA driver version is insufficient for CUDA runtime version", "node"),
        ("RuntimeError: No CUDA GPUs: no CUDA-capable device is detected", "node"),
        ("RuntimeError: CUDA initialization: CUDA unknown error", "node"),
        ("torch.distributed.DistBackendError: NCCL error in: x.cpp:1", "node"),
        ("OSError: [Errno 28] No space left on device: '/scratch/x'", "node"),
        ("OSError: [Errno 116] Stale file handle", "node"),
        ("RuntimeError: DataLoader worker (pid 7) is killed by signal: Bus error.", "node"),
        ("ModuleNotFoundError: No module named 'einops'", "import"),
        ("ImportError: cannot import name 'x' from 'y'", "import"),
        ("cupel.errors.UnknownName: no workload is called 'gtp'", "configuration"),
        ("ValueError: odd", "unknown"),
    ],
)  # fmt: skip
def test_what_was_printed_last_is_known_by_its_words(line: str, expected: str) -> None:
    assert kind(1, f'{HEAD}  File "x.py", line 3, in f\n    f()\n{line}\n') == expected
    assert kind(1, f"    f()\n{line}\n") == expected, "the traceback's head was out of sight"


def test_a_warning_explains_nothing() -> None:
    warned = "torch/cuda/__init__.py:1: UserWarning: CUDA initialization: no NVIDIA driver\n"
    assert kind(1, f"{warned}{HEAD}  File\nValueError: odd") == "unknown"
    assert kind(1, warned) == "unknown"


def test_the_last_exception_counts_and_not_one_that_was_handled() -> None:
    chained = (
        f"{HEAD}  File\nModuleNotFoundError: No module named 'fast'\n\n"
        "During handling of the above exception, another exception occurred:\n\n"
        f"{HEAD}  File\nTypeError: slow() takes 1\n"
    )
    assert kind(1, f"step 3\n{chained}", began=True) == "unknown"
    found = why(1, f"step 3\n{chained}", began=False)
    assert found is not None
    assert (found.kind, found.detail) == ("configuration", "TypeError: slow() takes 1")


def test_real_processes_are_understood() -> None:
    for script, expected in [
        ("import cupel_has_no_such_module", "import"),
        ("bytearray(1 << 62)", "host_oom"),
        ("open('/dev/full', 'w', buffering=1).write('a' * 99 + chr(10))", "node"),
        ("import os; os.kill(os.getpid(), 9)", "killed"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGBUS)", "node"),
        ("{}['a']", "configuration"),
        ("1 / 0", "unknown"),
    ]:
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert kind(done.returncode, done.stderr, began=False) == expected, done.stderr


# --- detail ---


def test_the_detail_is_one_line_that_says_what_went_wrong() -> None:
    def detail(code: int, said: str = "", **more: Any) -> str:
        found = why(code, said, **more)
        assert found is not None
        return found.detail

    assert detail(1, failure=CUDA_OOM) == OOM
    assert detail(1, f"loading\n{HEAD}  File\n{OOM}\n  more\n") == OOM
    assert detail(-9) == "killed by SIGKILL"
    assert detail(1) == "stopped with exit code 1; it printed nothing"
    assert detail(1, "one\ntwo\n\n") == "two"
    assert detail(1, "cupel: the room is full") == "the room is full"
    assert detail(-9, state="TIMEOUT") == "ended by the scheduler: TIMEOUT"
    assert detail(1, failure={"type": "E", "message": "2 mistakes:\na\nb"}) == "E: 2 mistakes: a"
    assert len(detail(1, "x" * 5000)) == 300
    assert detail(1, "red \x1b[31m text") == "red  [31m text"


# --- signatures ---


def test_a_signature_keeps_the_words_and_leaves_out_what_varies() -> None:
    assert signature("CUDA out of memory. Tried to allocate 2.00 GiB (GPU 0; 79.1 GiB)") == (
        "CUDA out of memory. Tried to allocate … GiB (GPU …; … GiB)"
    )
    assert signature("[Errno 2] No such file: '/data/a b/c.txt'") == ("[Errno …] No such file: '…'")
    assert signature("run 20261121-015422-gpt-tiny-7522327-c3e8 at 0x7f3a: odd") == (
        "run … at …: odd"
    )
    assert signature("can't load arm-s3-0badcafe, shape (3, 4, 5)") == "can't load …, shape (…)"


def test_different_failures_have_different_signatures() -> None:
    said = ["No module named 'einops'", "No module named 'optuna'", "KeyError: 'text'", "odd"]
    assert len({signature(line) for line in said}) == len(said)


def test_an_assertion_without_words_is_known_by_its_place() -> None:
    bare = of(AssertionError())
    one, same, other = (
        why(1, failure=bare | {"where": where}) for where in ("a.b:3", "a.b:9", "a.c:3")
    )
    assert one is not None
    assert same is not None
    assert other is not None
    assert one.signature == same.signature == "AssertionError (a.b:…)"
    assert other.signature != one.signature


WORDS = st.sampled_from(
    ["step", "is not", "file:", "(", ")", "'", '"', "can't", "loss=", "x.y", ",", "…", "é", "the"]
)
NUMBER = st.one_of(
    st.integers().map(str),
    st.floats().map(repr),
    st.integers(0).map(hex),
    st.integers(0).map("{:,}".format),
)
PATH = st.lists(st.text("abcé_-.1", min_size=1), min_size=1, max_size=4).map(
    lambda parts: "/" + "/".join(parts)
)
ID = st.one_of(
    st.uuids().map(str),
    st.from_regex(r"[a-z]{2,9}-[a-z]{2,9}-s[0-9]{1,3}-[0-9a-f]{8}", fullmatch=True),
    st.from_regex(r"2026[0-9]{4}-[0-9]{6}-[a-z-]{1,9}-[0-9a-f]{7}-[0-9a-f]{4}", fullmatch=True),
)
VARYING = st.one_of(NUMBER, PATH, ID)


@given(st.data())
@pytest.mark.slow
def test_texts_that_differ_in_numbers_paths_and_ids_have_one_signature(data: st.DataObject) -> None:
    parts = data.draw(st.lists(st.one_of(WORDS, st.none()), max_size=12))
    one, other = (
        " ".join(data.draw(VARYING) if part is None else part for part in parts) for _ in range(2)
    )
    assert signature(one) == signature(other)
    quoted = (f"no '{data.draw(VARYING)}' in {data.draw(VARYING)}" for _ in range(2))
    assert len({signature(text) for text in quoted}) == 1


@given(st.one_of(st.text(), st.lists(st.one_of(WORDS, VARYING)).map("".join)))
@pytest.mark.slow
def test_a_signatures_signature_is_itself(text: str) -> None:
    once = signature(text)
    assert signature(once) == once
    assert len(once) <= max(200, len(text))


# --- garbage ---

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
    max_leaves=5,
)
LINES = st.lists(
    st.one_of(
        st.text(),
        st.sampled_from([HEAD.strip(), "  | ", "  + Exception Group " + HEAD, OOM, "cupel: ", ":"]),
    )
).map("\n".join)


@given(
    code=st.one_of(st.integers(), st.integers(-70, 260)),
    state=st.one_of(st.text(), st.sampled_from(sorted(STATES))),
    oom_kills=st.integers(-1, 2),
    failure=st.one_of(
        st.none(),
        st.dictionaries(st.text(), JSON),
        st.fixed_dictionaries(
            {"type": JSON, "mro": JSON, "message": JSON, "where": JSON, "step": JSON}
        ),
    ),
    said=LINES,
    began=st.booleans(),
    asked=st.one_of(st.none(), st.text(), st.sampled_from(["timeout", "cancelled", "preempted"])),
    hung=st.booleans(),
    nonfinite=st.booleans(),
)
@pytest.mark.slow
def test_garbage_is_classified_too(
    code: int, state: str, oom_kills: int, failure: dict[str, Any] | None, said: str, began: bool,
    asked: str | None, hung: bool, nonfinite: bool,
) -> None:  # fmt: skip
    more = {"asked": asked, "hung": hung, "nonfinite": nonfinite, "state": state}
    found = why(code, said, failure=failure, began=began, oom_kills=oom_kills, **more)
    if found is None:
        assert code in (0, 75)
        return
    assert found.kind in CLASSES
    assert found.detail.isprintable()
    assert len(found.detail) <= 300
    assert found == why(code, said, failure=failure, began=began, oom_kills=oom_kills, **more)


def test_what_is_found_can_be_written(tmp_path: Path) -> None:
    found = why(1, "\ud800 broken \x00 text")
    assert found is not None
    session_dir(tmp_path, 1).mkdir(parents=True)
    attempt = Attempt(1, found.kind, found.detail, found.signature)
    assert write_attempt(tmp_path, attempt)
    assert read_attempt(tmp_path, 1) == attempt
