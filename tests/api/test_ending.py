"""However a script ends, its run says so: finished, failed, interrupted or crashed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cupel
from cupel.errors import CheckpointError
from cupel.record.reader import RunRecord, list_runs

Init = Callable[..., cupel.Run]
CAUGHT = "try: sys.exit(2)\nexcept SystemExit: pass\n"
IN_ATEXIT = "import atexit; atexit.register(run.log, {'loss': 0.5}, step=0)\n"
IN_THREAD = (
    "import threading; logs = threading.Thread(target=run.log, args=[{'loss': 0.5}],"
    " kwargs={'step': 0})\ntry: sys.exit(3)\nfinally: logs.start(); logs.join()"
)
START = "import cupel, sys\nrun = cupel.init('p', 'n')\ncupel.log({'loss': 0.5})\n"


@pytest.mark.parametrize(
    "ending,code,status,told",
    [
        ("", 0, "finished", None),
        ("sys.exit()", 0, "finished", None),
        ("sys.exit(3)", 3, "failed", "sys.exit(3)"),
        ("sys.exit('no data')", 1, "failed", "sys.exit('no data')"),
        ("exit(3)", 3, "failed", "sys.exit(3)"),
        ("quit('no data')", 1, "failed", "sys.exit('no data')"),
        ("exit(code=0)", 0, "finished", None),
        ("try: sys.exit(3)\nfinally: run.log({'loss': 0.5}, step=0)", 3, "failed", "sys.exit(3)"),
        (IN_ATEXIT + "sys.exit(3)", 3, "failed", "sys.exit(3)"),
        (IN_THREAD, 3, "failed", "sys.exit(3)"),
        (CAUGHT + "run.log({'loss': 0.5}, step=0)", 0, "finished", None),
        ("1 / 0", 1, "failed", "ZeroDivisionError: division by zero"),
        ("raise KeyboardInterrupt", -signal.SIGINT, "interrupted", "KeyboardInterrupt"),
        ("import os; os._exit(0)", 0, "crashed", None),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -9, "crashed", None),
        ("cupel.finish(); sys.exit(1)", 1, "finished", None),
    ],
)  # fmt: skip
@pytest.mark.slow
def test_a_script_without_with_ends_its_run_truthfully(
    script: Callable[..., Any],
    only_run: Callable[[], RunRecord],
    ending: str,
    code: int,
    status: str,
    told: str | None,
) -> None:
    done = script(START + ending)
    assert done.returncode == code, done.stderr
    run = only_run()
    assert run.status == status
    assert [row["loss"] for row in run.history()] == [0.5]
    error = run.sessions[0].fields.get("error")
    assert (error is None) if told is None else (told in error)
    if "1 / 0" in ending:
        assert "line 4, in <module>" in error
        assert "ZeroDivisionError" in done.stderr  # Python's own report still comes
    assert (run.results is not None) == (status == "finished")


@pytest.mark.parametrize(
    "error,status",
    [
        (ValueError("bad"), "failed"),
        (KeyboardInterrupt(), "interrupted"),
        (SystemExit(2), "failed"),
        (SystemExit(0), "finished"),
        (SystemExit(), "finished"),
    ],
)
def test_with_ends_the_run_as_its_body_ended(init: Init, error: BaseException, status: str) -> None:
    with pytest.raises(type(error)), init() as run:
        raise error
    record = RunRecord(run.dir)
    assert record.status == status
    if status == "failed":
        told = record.sessions[0].fields["error"]
        assert told.startswith("Traceback")
        assert type(error).__name__ in told


@pytest.mark.slow
def test_kill_after_log_loses_nothing(tmp_path: Path, root: Path) -> None:
    code = (
        "import cupel\nrun = cupel.init('p', 'n')\n"
        "for step in range(1, 10**9):\n    run.log({'loss': 1 / step}); print(step, flush=True)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        first = child.stdout.readline()
        time.sleep(0.05)
        child.kill()
        printed = first + child.stdout.read()
    returned = int(printed.split("\n")[-2])  # what follows the last newline may be cut
    (run,) = list_runs(root)
    rows = run.history()
    assert len(rows) in (returned, returned + 1)
    assert [row["loss"] for row in rows] == [1 / step for step in range(1, len(rows) + 1)]
    assert run.status == "crashed"


def test_results_that_cannot_be_made_end_the_run_as_failed_and_are_raised(init: Init) -> None:
    class Odd:
        def state_dict(self) -> dict[str, Any]:
            return {"odd": object()}

        def load_state_dict(self, state: Any) -> None:
            pass

    run = init()
    run.register(odd=Odd())
    with pytest.raises(
        CheckpointError, match=r"part 'odd' cannot be hashed: .*checkpointed"
    ) as told:
        run.finish()
    assert len(str(told.value).splitlines()) == 1
    record = RunRecord(run.dir)
    assert record.status == "failed"
    assert "cannot be checkpointed" in record.sessions[0].fields["error"]


@pytest.mark.slow
def test_a_caught_exit_of_one_run_is_not_held_against_the_next(
    script: Callable[..., Any], root: Path
) -> None:
    done = script(START + CAUGHT + "run.finish()\nrun = cupel.init('p', 'n')")
    assert done.returncode == 0, done.stderr
    assert [run.status for run in list_runs(root)] == ["finished", "finished"]


@pytest.mark.slow
def test_the_prompts_hint_how_to_leave_stays(script: Callable[..., Any]) -> None:
    done = script("import cupel\nbefore = repr(exit)\ncupel.init()\nassert repr(exit) == before")
    assert done.returncode == 0, done.stderr
    without_site = script("import builtins; del builtins.exit, builtins.quit\n" + START)
    assert without_site.returncode == 0, without_site.stderr


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_that_ends_does_not_end_the_run(init: Init) -> None:
    run = init()
    child = os.fork()
    if child == 0:
        run.finish()
        os._exit(0 if os.environ.get("CUPEL_RUN_ID") == run.id else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert RunRecord(run.dir).status == "running"
    run.finish()
