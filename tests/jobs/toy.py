"""A training process without a model, for tests of whoever starts and judges such processes.

    python -m toy RUN_DIR ENDINGS

ENDINGS are separated by commas: the first session ends as the first one says, the second as the
second one, and all further ones as the last one. It adopts the session that `CUPEL_LEASE` names;
without that variable it opens one by itself. Each session goes on from the last step that the run
has logged and logs one step more, so that every attempt makes progress, unless its ending says
otherwise. SIGTERM asks it to stop: it is `interrupted` at the next step, with exit code 75.

    finishes            its results are accepted
    works:STEPS:S       logs up to step STEPS, one step every S seconds, then finishes
    waits               until it is asked to stop
    hangs               makes no further step; SIGTERM ends it, without a word
    deaf                makes no further step, and ignores SIGTERM
    fails[:WHY]         ends as failed, with an error of its own
    errs:TYPE[:WHY]     the same, with a failure.json that names this class of error
    errs-first:TYPE     the same, before it has made a step
    diverges            its loss is NaN, and it says that it diverged
    killed              dies of SIGKILL after its step
    killed-stuck        dies of SIGKILL, and got no further than the session before
    refused[:WHY]       is refused before it has a record: exit code 2, and a line for people
    exits:CODE          exits before it has a record, without a word
    late:S:ENDING       opens its record S seconds late, then ends as ENDING says
    dies:N:ENDING       dies of SIGKILL before the N-th change that it would make to its files

After a session `toy-log` in the folder of the project holds two lines of it: `begin RUN SESSION
PID` and `end RUN SESSION PID`; of one that was killed, one.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from cupel.jobs.progress import progress
from cupel.record import files, layout
from cupel.record.claims import VARIABLE, Claim
from cupel.record.session import Outcome, Session

asked: list[int] = []


def opened(run_dir: Path, claim: Claim | None) -> Session:
    """The session that was claimed for this process, or the next one."""
    if (run_dir / layout.RUN).exists():
        return Session.resume(run_dir, claim=claim)
    return Session.start(
        root=run_dir.parents[1],
        project=run_dir.parent.name,
        name=run_dir.name,
        run_id=run_dir.name,
        config={"train": {"steps": 1}},
        identity="toy",
        claim=claim,
    )


def tell(session: Session, what: str) -> None:
    """One line, in one write, into the file that all toys of a project share."""
    fd = os.open(session.run_dir.parent / "toy-log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.write(fd, f"{what} {session.run_id} {session.number} {os.getpid()}\n".encode())
    os.close(fd)


def end(session: Session, status: Outcome, code: int, **given: Any) -> NoReturn:
    """End the session, then the process."""
    session.finish(status, **given)
    tell(session, "end")
    sys.exit(code)


def fail(session: Session, kind: str, why: str) -> NoReturn:
    """End like a training process that has died of an exception."""
    names = [kind, "RuntimeError", "Exception"]
    fields = {"schema": 1, "type": kind, "mro": names, "message": why, "begun": True}
    files.write_json(session.dir / "failure.json", fields)
    end(session, "failed", 1, error=f"{kind}: {why}")


def pause(seconds: float) -> None:
    """Sleep; a SIGTERM ends it."""
    until = time.monotonic() + seconds
    while not asked and (left := until - time.monotonic()) > 0:
        time.sleep(min(left, 0.01))


def main(run_dir: Path, endings: list[str]) -> NoReturn:
    """Be one session."""
    signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
    faulthandler.register(signal.SIGUSR2)
    os.chdir("/")  # no git, whose answer takes longer than all of this
    told = os.environ.pop(VARIABLE, None)
    claim = Claim.from_text(run_dir, told) if told else None
    numbers = layout.session_numbers(run_dir)
    number = claim.number if claim else max(numbers, default=0) + 1
    ending, *given = endings[min(number, len(endings)) - 1].split(":")
    if ending == "late":
        pause(float(given[0]))
        ending, *given = given[1:]
    if ending == "dies":
        from failpoint import arm

        arm(run_dir, int(given[0]))
        ending, *given = given[1:]
    if ending == "exits":
        sys.exit(int(given[0]))
    if ending == "refused":
        print(f"cupel: {given[0] if given else 'there is no such corpus'}", file=sys.stderr)
        sys.exit(2)
    session = opened(run_dir, claim)
    tell(session, "begin")
    step = progress(run_dir).step
    session.begin_at(step)
    if ending == "killed-stuck":
        os.kill(os.getpid(), signal.SIGKILL)
    if ending == "errs-first":
        fail(session, given[0], f"in the first step of {run_dir.name!r}")
    last = int(given[0]) if ending == "works" else step + 1
    loss = float("nan") if ending == "diverges" else 1.0
    while step < last:
        step += 1
        session.log({"loss": loss}, step=step)
        if ending == "works":
            pause(float(given[1]))
        if asked:
            end(session, "interrupted", 75)
    if ending in ("hangs", "deaf"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN if ending == "deaf" else signal.SIG_DFL)
        time.sleep(600)
    if ending == "waits":
        pause(600)
        end(session, "interrupted", 75)
    if ending == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if ending == "fails":
        end(session, "failed", 1, error=given[0] if given else "the data ended at step 3")
    if ending == "errs":
        fail(session, given[0], given[1] if len(given) > 1 else "as it was told")
    if ending == "diverges":
        fail(session, "Diverged", f"the loss is NaN at step {step}")
    assert ending in ("finishes", "works"), ending
    end(session, "finished", 0, results={"step": step, "final": {"loss": loss}})


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), sys.argv[2].split(","))
