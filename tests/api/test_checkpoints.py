"""Checkpoints of a loop of one's own: what was registered comes back, and the random states."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import cupel
from cupel.api.random_states import RandomStates
from cupel.checkpoint.codec import flatten, state_hash, unflatten
from cupel.errors import (
    CheckpointDamaged,
    CheckpointError,
    MissingDependency,
    ResumeError,
    UsageError,
)
from cupel.record.reader import RunRecord, list_runs

Init = Callable[..., cupel.Run]


class Counter:
    """A part that counts; `state_dict` is its state."""

    def __init__(self) -> None:
        self.count = 0

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]


def train(
    init: Init, part: Any, total: int, *, at: int = 0, does: Callable[[], Any] = bool
) -> cupel.Run:
    """Go on with a run up to a step; in step `at` something happens."""
    with init(resume="auto") as run:
        run.register(part=part)
        for step in run.steps(total, save_every=2):
            assert run.step == step
            part.count += step
            run.log({"count": part.count})
            if step == at:
                does()
    return run


def die() -> None:
    raise RuntimeError("died")


def test_steps_go_on_from_the_newest_checkpoint(init: Init, root: Path) -> None:
    with pytest.raises(RuntimeError, match="died"):
        train(init, Counter(), 10, at=5, does=die)
    run = train(init, Counter(), 10)
    (record,) = list_runs(root)
    assert record.run_id == run.id
    assert [(r["_step"], r["count"]) for r in record.history()] == [
        (step, step * (step + 1) // 2) for step in range(1, 11)
    ]
    # Step 5 was made, but not saved, so it was made again.
    assert [session.start_step for session in record.sessions] == [0, 4]
    assert record.checkpoints() == [8, 10]
    assert record.results is not None
    assert record.results["final"] == {"count": 55}
    assert record.results["state"]["part"] == state_hash({"count": 55})


def test_a_run_whose_last_step_was_saved_has_none_left_to_make(init: Init) -> None:
    run = init()
    run.register(part=Counter())
    assert list(run.steps(3)) == [1, 2, 3]
    run.finish("interrupted")
    with init(resume="auto") as resumed:
        resumed.register(part=Counter())
        assert list(resumed.steps(3)) == []
        assert resumed.step == 3
    assert RunRecord(run.dir).status == "finished"


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGINT"])
def test_a_request_to_stop_saves_and_leaves_with_75(
    init: Init, name: str, only_run: Callable[[], RunRecord]
) -> None:
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as left:
        train(init, Counter(), 10, at=3, does=lambda: signal.raise_signal(number))
    assert left.value.code == 75
    assert signal.getsignal(number) is before
    record = only_run()
    assert (record.status, record.checkpoints()) == ("interrupted", [2, 3])
    assert record.sessions[0].fields["error"] == f"asked to stop by {name}"
    part = Counter()
    train(init, part, 5)
    assert (only_run().sessions[1].start_step, part.count) == (3, 15)


TRAINS = textwrap.dedent(
    """
    import time, torch, cupel
    torch.set_num_threads(1)
    weight = torch.nn.Linear(2, 1)
    run = cupel.init("p", "n", {"lr": 1}, resume="auto")
    run.register(weight=weight)
    for step in run.steps(40):
        run.log({"step": step})
        print(step, flush=True)
        time.sleep(0.05)
    print("done")
    """
)


@pytest.mark.slow
def test_sigterm_in_a_script_is_resumable(tmp_path: Path, root: Path) -> None:
    command = [sys.executable, "-c", TRAINS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.terminate()
        assert child.wait() == 75
    (run,) = list_runs(root)
    assert run.status == "interrupted"
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("40\ndone\n")
    assert [row["_step"] for row in run.history()] == list(range(1, 41))
    assert (len(run.sessions), run.status) == (2, "finished")


def test_checkpoints_can_be_saved_and_loaded_by_hand(init: Init) -> None:
    model = torch.nn.Linear(2, 1)
    with init() as run:
        run.register(model=model)
        assert run.load_checkpoint() == 0
        run.log({"loss": 1.0}, step=7)
        path = run.save_checkpoint({"val_loss": 0.5})
        before = model.weight.clone()
        torch.nn.init.zeros_(model.weight)
        assert run.load_checkpoint() == 7
        assert torch.equal(model.weight, before)
    assert path.name == "step-000000007"
    events = [event["_event"] for event in RunRecord(run.dir).events()]
    assert events.count("checkpoint_saved") == 1
    assert (run.dir / "checkpoints" / "best-val_loss.json").is_file()


def test_a_damaged_checkpoint_is_passed_over_and_told_of(
    init: Init, capsys: pytest.CaptureFixture[str]
) -> None:
    run = init()
    model = torch.nn.Linear(2, 1)
    run.register(model=model)
    for step in (1, 2):
        run.step = step
        file = next(run.save_checkpoint(wait=True).glob("*.safetensors"))
    run.finish("interrupted")
    file.write_bytes(file.read_bytes()[:-1] + b"\x7f")
    with init(resume="auto") as resumed:
        resumed.register(model=model)
        assert resumed.load_checkpoint() == 1
    assert "cupel: step 2: " in capsys.readouterr().err
    assert "step 2: " in (resumed.dir / "sessions" / "0002" / "training.log").read_text()


def test_when_every_checkpoint_is_damaged_nothing_starts_from_scratch(init: Init) -> None:
    with pytest.raises(RuntimeError, match="died"):
        train(init, Counter(), 10, at=3, does=die)
    run = init(resume="auto")
    (run.dir / "checkpoints" / "step-000000002" / "manifest.json").write_text("{")
    run.register(part=Counter())
    with pytest.raises(CheckpointDamaged):
        next(run.steps(10))


def test_another_model_is_refused(init: Init) -> None:
    run = init()
    run.register(model=torch.nn.Linear(2, 1))
    list(run.steps(1))
    run.finish("interrupted")
    resumed = init(resume="auto")
    resumed.register(model=torch.nn.Linear(3, 1))
    with pytest.raises(ResumeError, match="weight"):
        resumed.load_checkpoint()


def test_what_cannot_be_registered_is_refused_in_one_line(init: Init) -> None:
    with init() as run:
        with pytest.raises(UsageError, match=r"'model' is a int.*state_dict\(\) and"):
            run.register(model=3)
        with pytest.raises(UsageError, match="a part is called 'random' already"):
            run.register(random=Counter())
        with pytest.raises(UsageError, match="save_every is 0; it must be 1 or more"):
            next(run.steps(3, save_every=0))


def test_without_torch_the_command_that_installs_it_is_told(
    init: Init, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "cupel.api.random_states", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    with init() as run, pytest.raises(MissingDependency, match=r"pip install 'cupel\[train\]'"):
        run.register(model=Counter())


def test_a_step_given_inside_of_steps_is_for_that_line_only(init: Init) -> None:
    with init() as run:
        run.register(part=Counter())
        for step in run.steps(4, save_every=2):
            run.log({"val_loss": step}, step=1000 * step)
            assert run.step == step
            run.log({"loss": step})
            if step == 3:
                saved = run.save_checkpoint()
        assert run.step == 4
    assert saved.name == "step-000000003"
    record = RunRecord(run.dir)
    assert record.checkpoints() == [3, 4]
    assert [row["_step"] for row in record.history(["loss"])] == [1, 2, 3, 4]
    assert record.results is not None
    assert record.results["step"] == 4


@settings(max_examples=20, deadline=None)
@given(data=st.data())
@pytest.mark.slow
def test_steps_left_and_taken_up_again_make_every_step_once(data: st.DataObject) -> None:
    """Whatever is logged in between, under whatever step."""
    part = Counter()
    made: list[int] = []
    with cupel.init("p", "n") as run:
        run.register(part=part)
        while run.step < 6:
            leave_at = data.draw(st.integers(1, 7))
            for step in run.steps(6, save_every=2):
                made.append(step)
                part.count += step
                if step >= leave_at:
                    break
            run.log({"val_loss": 0.5}, step=data.draw(st.none() | st.integers(0, 99)))
            assert run.step == made[-1]
    assert made == [1, 2, 3, 4, 5, 6]
    assert part.count == 21


def test_steps_after_loading_by_hand_do_not_restore_again(init: Init) -> None:
    with pytest.raises(RuntimeError, match="died"):
        train(init, Counter(), 10, at=5, does=die)
    with init(resume="auto") as run:
        part = Counter()
        run.register(part=part)
        assert run.load_checkpoint() == 4
        part.count += 100
        assert list(run.steps(6)) == [5, 6]
        assert part.count == 110


def test_of_two_live_loops_over_steps_the_second_is_refused_and_signals_come_back(
    init: Init,
) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with init() as run:
        run.register(part=Counter())
        first, second = run.steps(5), run.steps(5)
        assert next(first) == 1
        with pytest.raises(UsageError, match=r"another loop over steps\(\) is under way; .*close"):
            next(second)
        assert next(first) == 2
        first.close()
        assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
        held = run.steps(5)
        assert next(held) == 3
    # The end of the run gives the signals back, though the loop is still held.
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
    with pytest.raises(UsageError, match=rf"run {run.id} is finished; "):
        next(held)


def test_a_finish_in_another_thread_leaves_the_signals_to_the_loop(init: Init) -> None:
    before = signal.getsignal(signal.SIGTERM)
    run = init()
    run.register(part=Counter())
    steps = run.steps(5)
    next(steps)
    thread = threading.Thread(target=run.finish)
    thread.start()
    thread.join()
    assert RunRecord(run.dir).status == "finished"
    steps.close()
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    "use",
    [
        lambda run: run.register(part=Counter()),
        lambda run: next(run.steps(9)),
        lambda run: run.save_checkpoint(),
        lambda run: run.load_checkpoint(),
        lambda run: run.watch(torch.nn.Linear(1, 1), None),
    ],
)
def test_a_finished_run_is_not_written_to(init: Init, use: Callable[[cupel.Run], Any]) -> None:
    run = init()
    run.register(counter=Counter())
    list(run.steps(2))
    run.finish()
    before = {path: path.read_bytes() for path in run.dir.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match=rf"run {run.id} is finished; ") as raised:
        use(run)
    assert len(str(raised.value).splitlines()) == 1
    assert {path: path.read_bytes() for path in run.dir.rglob("*") if path.is_file()} == before


def test_what_a_checkpoint_cannot_hold_is_refused_in_one_line_with_the_parts_name(
    init: Init,
) -> None:
    class Odd(Counter):
        def state_dict(self) -> dict[str, Any]:
            return {"odd": {1, 2}}

    run = init()
    run.register(odd=Odd())
    with pytest.raises(
        CheckpointError, match=r"the part 'odd' cannot be saved: a builtins.set"
    ) as told:
        run.save_checkpoint()
    assert len(str(told.value).splitlines()) == 1
    assert RunRecord(run.dir).checkpoints() == []


def draw() -> list[float]:
    """A number of every global generator, of both of numpy's and Python's distributions."""
    return [
        random.random(),
        random.gauss(0, 1),
        float(np.random.rand()),
        float(np.random.standard_normal()),
        float(torch.rand(())),
        float(torch.randn(())),
    ]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 700), st.integers(0, 2**32 - 1))
def test_random_states_come_back_exactly_wherever_they_were(draws: int, seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    states = RandomStates()
    for _ in range(draws):
        random.random(), np.random.rand()
    draw()  # leaves half a pair of normal numbers in both caches
    saved = unflatten(*flatten(states.state_dict()))
    expected = [draw(), draw()]
    RandomStates().load_state_dict(saved)
    assert [draw(), draw()] == expected


def test_generators_that_nobody_drew_from_are_left_out(init: Init) -> None:
    """They start from chance, and would make two equal trainings look different at their end."""
    random.seed()
    np.random.seed()
    states = RandomStates()
    torch.rand(())
    assert states.state_dict().keys() == {"torch"}
    random.random()
    assert states.state_dict().keys() == {"torch", "python"}
    np.random.rand()
    assert states.state_dict().keys() == {"torch", "python", "numpy"}


def test_a_resumed_loop_draws_what_the_first_would_have_drawn(init: Init) -> None:
    run = init()
    run.register(part=Counter())
    drawn = []
    for step in run.steps(4, save_every=2):
        drawn.append(draw())
        if step == 3:
            break
    undisturbed = [*drawn, draw()]
    run.finish("interrupted")
    random.seed(0), np.random.seed(0), torch.default_generator.manual_seed(0)
    with init(resume="auto") as resumed:
        resumed.register(part=Counter())
        again = [draw() for _ in resumed.steps(4)]
    assert again == undisturbed[2:]
