"""Several processes of one training: one records unless told otherwise, all find one session."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

import cupel
from cupel.api import current, rendezvous
from cupel.errors import UsageError
from cupel.record.reader import RunRecord, list_runs

Init = Callable[..., cupel.Run]
WORLD = {
    "WORLD_SIZE": "2",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "localhost",
    "MASTER_PORT": "29411",
    "OMP_NUM_THREADS": "1",
}


def start(code: str, tmp_path: Path, **environment: str) -> subprocess.Popen[str]:
    path = tmp_path / "train.py"
    if not path.exists() or path.read_text() != code:
        path.write_text(code)  # never while another process may be reading it
    return subprocess.Popen(
        [sys.executable, path],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def printed(children: list[subprocess.Popen[str]]) -> list[str]:
    """What processes print; all must succeed, and when one does not, the others are ended."""
    try:
        while any(child.poll() is None for child in children):
            assert not any(child.poll() for child in children)
            time.sleep(0.02)
    except AssertionError:
        for child in children:
            child.kill()
    told = [child.communicate(timeout=120) for child in children]
    assert [child.returncode for child in children] == [0] * len(children), told
    return [out for out, _ in told]


def ranks(code: str, tmp_path: Path, size: int = 2) -> list[str]:
    """What the ranks of one start print."""
    here = tempfile.mkdtemp(dir=tmp_path)
    world = {**WORLD, "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size), "HERE": here}
    children = [
        start(code, tmp_path, **world, RANK=str(rank), LOCAL_RANK=str(rank))
        for rank in reversed(range(size))  # rank 0 comes last
    ]
    return printed(children)[::-1]


LOGS = """
import os, sys, time, cupel
from pathlib import Path
run = cupel.init("p", "n", {"lr": 1}, settings={"ranks": "RANKS"})
here = Path(os.environ["HERE"])  # as in training, nobody is done before all have begun
(here / os.environ["RANK"]).touch()
while len(list(here.iterdir())) < int(os.environ["WORLD_SIZE"]):
    time.sleep(0.02)
run.log({"loss": float(os.environ["RANK"])}, step=3)
run.summary["rank"] = os.environ["RANK"]
run.config.late = 1
run.log_text("note", os.environ["RANK"])
run.name = "renamed by " + os.environ["RANK"]
print(run.disabled, run.id)
"""


@pytest.mark.slow
def test_by_default_only_rank_0_records(tmp_path: Path, root: Path) -> None:
    out = ranks(LOGS.replace("RANKS", "zero"), tmp_path)
    assert [line.split()[0] for line in out] == ["False", "True"]
    (run,) = list_runs(root)
    assert [row["loss"] for row in run.history()] == [0.0]
    assert run.status == "finished"


@pytest.mark.slow
def test_all_ranks_record_into_one_session_if_asked_to(tmp_path: Path, root: Path) -> None:
    out = ranks(LOGS.replace("RANKS", "all"), tmp_path, size=3)
    (run,) = list_runs(root)
    assert {line.split()[1] for line in out} == {run.run_id}
    assert len(run.sessions) == 1
    for rank in (0, 1, 2):
        assert [row["loss"] for row in run.history(rank=rank)] == [float(rank)]
        (note,) = [event for event in run.events(rank=rank) if event["_event"] == "media"]
        assert (run.run_dir / note["path"]).read_text() == str(rank)
    assert run.run["name"] == "renamed by 0"
    assert run.status == "finished"


@pytest.mark.slow
def test_a_second_training_does_not_meet_the_first_ones_session(tmp_path: Path, root: Path) -> None:
    """The file of the first one is still there, and names a session that has ended."""
    for _ in range(2):
        ranks(LOGS.replace("RANKS", "all"), tmp_path)
    first, second = list_runs(root)
    for run in (first, second):
        assert [row["loss"] for row in run.history(rank=1)] == [1.0]


TRAINS = """
import os, time, torch, cupel
from pathlib import Path
here = Path(os.environ["HERE"])
weight = torch.nn.Linear(2, 1)
run = cupel.init("p", "n", resume="auto", settings={"ranks": "RANKS"})
run.register(weight=weight)
TOTAL = int(os.environ["TOTAL"])
made = []
for step in run.steps(TOTAL, save_every=2):
    if not made:  # as in training, nobody is a step ahead before all have restored
        (here / os.environ["RANK"]).touch()
        while len(list(here.iterdir())) < int(os.environ["WORLD_SIZE"]):
            time.sleep(0.02)
    with torch.no_grad():
        weight.weight.fill_(step)
    made.append(step)
print(made, float(weight.weight[0, 0]))
if TOTAL == 4:
    run.finish("interrupted")
"""


@pytest.mark.slow
@pytest.mark.parametrize("recorded", ["zero", "all"])
def test_every_rank_goes_on_from_rank_0s_checkpoint(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, recorded: str
) -> None:
    code = TRAINS.replace("RANKS", recorded)
    monkeypatch.setenv("TOTAL", "4")
    assert ranks(code, tmp_path)[0] == "[1, 2, 3, 4] 4.0\n"
    monkeypatch.setenv("TOTAL", "6")
    assert ranks(code, tmp_path) == ["[5, 6] 6.0\n"] * 2
    (run,) = list_runs(root)
    assert len(run.sessions) == 2


@pytest.mark.slow
def test_it_works_under_torchrun(tmp_path: Path, root: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "import os, torch.distributed as dist, cupel\ndist.init_process_group('gloo')\n"
        "run = cupel.init('p', 'n', settings={'ranks': 'all'})\n"
        "run.log({'rank': dist.get_rank()})\ndist.barrier()\nrun.finish()\n"
        "dist.destroy_process_group()\n"
    )
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [sys.executable, *launch, script],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    (run,) = list_runs(root)
    assert [run.history(rank=rank)[0]["rank"] for rank in (0, 1)] == [0, 1]


@pytest.mark.slow
def test_a_rank_that_nobody_leads_says_so(init: Init, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**WORLD, "RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(rendezvous, "_PATIENCE_S", 0.3)
    with pytest.raises(UsageError, match=r"rank 1 waited 0 s for the run of rank 0 in .*; call"):
        init(settings={"ranks": "all"})
    run = init()
    assert run.disabled
    with pytest.raises(UsageError, match="rank 1 waited"):
        run.load_checkpoint()


LATE = """
import os, sys, time, cupel
from pathlib import Path
here = Path(os.environ["HERE"])
def wait_for(name):
    while not (here / name).exists():
        time.sleep(0.02)
if os.environ["RANK"] == "0":
    wait_for("begun")
    time.sleep(2.5)
    cupel.init("p", "n").finish()
    (here / "over").touch()
    sys.exit()
(here / "begun").touch()
wait_for("over")
cupel.init("p", "n", settings={"ranks": "all"})
"""


@pytest.mark.slow
def test_a_rank_that_comes_after_rank_0_has_finished_says_so_at_once(
    tmp_path: Path, root: Path
) -> None:
    world = {**WORLD, "HERE": tempfile.mkdtemp(dir=tmp_path)}
    leader, late = (start(LATE, tmp_path, **world, RANK=str(rank)) for rank in (0, 1))
    _, told = late.communicate(timeout=60)
    leader.communicate(timeout=60)
    (run,) = list_runs(root)
    assert told.splitlines()[-1].endswith(
        f"rank 1 comes too late: run {run.run_id} of rank 0 has ended, as finished; call "
        "cupel.init() in every rank before rank 0 finishes its run"
    )
    assert (leader.returncode, late.returncode) == (0, 1)


@pytest.mark.slow
def test_a_rank_waits_for_the_next_training_where_the_last_one_ended_before_it_began(
    init: Init, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**WORLD, "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    run = init()
    run.finish("interrupted")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(rendezvous, "_PATIENCE_S", 0.3)
    said = run.dir / "sessions/0001/session.json"
    began = psutil.Process().create_time()
    said.write_text(json.dumps({**json.loads(said.read_text()), "ended": began + 3}))
    with pytest.raises(UsageError, match=f"too late: run {run.id} of rank 0 .* as interrupted"):
        rendezvous.rank_zeros_session(root, "p")
    for ended in (began - 10, began + 1):
        said.write_text(json.dumps({**json.loads(said.read_text()), "ended": ended}))
        with pytest.raises(UsageError, match="rank 1 waited"):
            rendezvous.rank_zeros_session(root, "p")
    elsewhere = {**json.loads(said.read_text()), "ended": began + 10, "host": "another"}
    said.write_text(json.dumps(elsewhere))
    with pytest.raises(UsageError, match="rank 1 waited"):  # its clock may be ahead
        rendezvous.rank_zeros_session(root, "p")


def test_a_rank_says_at_once_that_rank_0_was_killed(
    init: Init, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**WORLD, "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    run = init(resume="auto")
    monkeypatch.setenv("RANK", "1")
    beat = run.dir / "sessions/0001/heartbeat.r0"
    beat.write_text(json.dumps({**json.loads(beat.read_text()), "start": "1"}))
    os.utime(beat, (psutil.Process().create_time() + 3,) * 2)
    with pytest.raises(UsageError, match=f"too late: run {run.id} of rank 0 has .* as crashed"):
        rendezvous.rank_zeros_session(root, "p")
    said = run.dir / "sessions/0001/session.json"
    said.write_text(json.dumps({**json.loads(said.read_text()), "start_step": None}))
    with pytest.raises(UsageError, match="as crashed, and never loaded a checkpoint; call load_"):
        rendezvous.step_of_rank_zero(run.dir, 1)


CHILD = """
import os, cupel
with cupel.init(os.environ.get("PROJECT", "p"), "n", {"lr": 0.1}) as run:
    run.log({"child": 1.0})
    print(run.id, run._session.rank)
"""


@pytest.mark.slow
def test_a_child_that_opens_the_same_run_is_a_further_rank_of_it(
    init: Init, tmp_path: Path, root: Path
) -> None:
    run = init()
    assert os.environ["CUPEL_RUN_ID"] == run.id
    children = [start(CHILD, tmp_path) for _ in range(3)]
    told = sorted(out.split() for out in printed(children))
    assert told == [[run.id, "1"], [run.id, "2"], [run.id, "3"]]
    run.log({"parent": 1.0})
    run.finish()
    (record,) = list_runs(root)
    assert record.status == "finished"
    assert len(record.sessions) == 1
    assert [list(record.history(rank=rank)[0])[-1] for rank in range(4)] == [
        "parent", "child", "child", "child",
    ]  # fmt: skip
    assert "CUPEL_RUN_ID" not in os.environ
    assert not list((root / ".cache" / "ranks").glob("*.r*"))


@pytest.mark.parametrize("other", ["project", "config"])
@pytest.mark.slow
def test_a_child_with_other_settings_has_a_run_of_its_own(
    init: Init, tmp_path: Path, root: Path, other: str
) -> None:
    run = init(config={"lr": 0.2} if other == "config" else {"lr": 0.1})
    child = start(CHILD, tmp_path, **({"PROJECT": "q"} if other == "project" else {}))
    (out,) = printed([child])
    assert out.split()[0] != run.id
    run.finish()
    assert {record.status for record in list_runs(root)} == {"finished"}
    assert len(list_runs(root)) == 2


@pytest.mark.slow
def test_a_child_outlives_its_parents_run_with_one_of_its_own(
    init: Init, tmp_path: Path, root: Path
) -> None:
    run = init()
    told = {name: os.environ[name] for name in ("CUPEL_RUN_ID", "CUPEL_SESSION")}
    run.finish()
    (out,) = printed([start(CHILD, tmp_path, **told)])
    assert out.split()[1:] == ["0"]
    assert len(list_runs(root)) == 2


def test_the_variable_alone_names_the_run(
    init: Init, monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    monkeypatch.setenv("CUPEL_RUN_ID", "my-run")
    with init() as run:
        assert run.id == "my-run"
    assert (root / "p" / "my-run" / "results.json").is_file()


@pytest.mark.slow
def test_another_process_that_opens_the_run_by_its_id_is_refused(
    init: Init, tmp_path: Path
) -> None:
    run = init(id="mine")
    code = 'import cupel\ncupel.init("p", "n", {"lr": 0.1}, id="mine")'
    for how in ("", ', resume="allow"', ', resume="must"'):
        child = start(
            code.replace('id="mine"', f'id="mine"{how}'),
            tmp_path,
            CUPEL_RUN_ID="",
            CUPEL_SESSION="",
        )
        _, err = child.communicate(timeout=120)
        assert child.returncode == 1
        last = err.splitlines()[-1]
        assert ("exists already" in last) if not how else ("is running: pid" in last)
    run.finish()
    assert RunRecord(run.dir).status == "finished"


@pytest.mark.slow
def test_a_file_of_an_earlier_training_is_not_believed(
    init: Init, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its session is alive, but it is older than this process: another training's."""
    for name, value in {**WORLD, "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    run = init()
    (path,) = (root / ".cache" / "ranks").glob("*.json")
    assert json.loads(path.read_text())["run"] == run.id
    monkeypatch.setenv("RANK", "1")
    assert rendezvous.rank_zeros_session(root, "p") == (run.dir, 1)
    os.utime(path, (1, 1))
    monkeypatch.setattr(rendezvous, "_PATIENCE_S", 0.3)
    with pytest.raises(UsageError, match="rank 1 waited"):
        rendezvous.rank_zeros_session(root, "p")
    assert current._current is run
