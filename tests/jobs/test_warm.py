"""Jobs that are forked from a process with their modules: like `python -m`, and as mortal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from cupel.jobs.backend import Ended, Handle, Job, Resources
from cupel.jobs.local import LocalBackend
from cupel.jobs.warm import Warm
from families import ALL_THERE, FAMILY, left_of, lives, pids_in, until

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")

# Says how it was imported, and leaves a line in a file each time.
PRELOADED = """
import os
with open(os.environ["IMPORTS"], "a") as file:
    file.write("imported\\n")
import atexit
atexit.register(print, "the exit of what was preloaded")
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path of jobs; with a module `preloaded`."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "preloaded.py").write_text(PRELOADED)
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{os.environ['PYTHONPATH']}")
    monkeypatch.setenv("IMPORTS", str(tmp_path / "imports"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return folder


@pytest.fixture
def backend(modules: Path, tmp_path: Path) -> Iterator[LocalBackend]:
    with LocalBackend(Warm(("preloaded",)), grace_s=0.5) as backend:
        yield backend
    assert not left_of(tmp_path / "pids")
    assert not zygotes()


def python(modules: Path, code: str, *arguments: str, name: str = "job", **variables: str) -> Job:
    """A job that runs a module with this code."""
    (modules / f"module_{name}.py").write_text(code)
    folder = modules.parent
    return Job(
        name,
        (sys.executable, "-m", f"module_{name}", *arguments),
        folder / f"{name}.log",
        {"PIDS": str(folder / "pids"), **variables},
    )


def end_of(backend: LocalBackend, handle: Handle) -> Ended:
    until(lambda: backend.poll([handle])[0].ended is not None)
    ended = backend.poll([handle])[0].ended
    assert ended is not None
    return ended


def run(backend: LocalBackend, job: Job) -> tuple[int, str]:
    """Exit code and log of a job that was forked from the zygote."""
    (handle,) = backend.submit([job])
    code = end_of(backend, handle).code
    assert backend._started[handle.id].guard is None, "it was not forked from the zygote"
    return code, backend.logs(handle)


def zygotes() -> list[psutil.Process]:
    return [
        process
        for process in psutil.Process().children()
        if process.status() != psutil.STATUS_ZOMBIE and "cupel.jobs.warm" in process.cmdline()
    ]


def pid_of(backend: LocalBackend, handle: Handle) -> int:
    until(lambda: backend.poll([handle])[0].state == "running")
    return int(backend.poll([handle])[0].detail.removeprefix("pid "))


# ---- like `python -m` --------------------------------------------------------------------------


def test_modules_are_imported_once_for_all_jobs(
    backend: LocalBackend, modules: Path, tmp_path: Path
) -> None:
    job = python(modules, "import preloaded, os; print(os.getppid() != 1)")
    assert [run(backend, replace(job, log=tmp_path / f"log{n}")) for n in range(3)] == [
        (0, "True")
    ] * 3
    assert (tmp_path / "imports").read_text() == "imported\n"


def test_a_job_sees_what_python_m_would_show_it(
    backend: LocalBackend, modules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import os, sys, signal, pickle, threading\n"
        "class Mine: pass\n"
        "assert isinstance(pickle.loads(pickle.dumps(Mine())), Mine)\n"
        "print(__name__, __spec__.name, sys.argv, sys.path[0], os.getcwd())\n"
        "print(sys.orig_argv[1:], os.environ['WORD'], os.environ.get('GONE'))\n"
        "print([signal.getsignal(n) for n in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP)])\n"
        "print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)\n"
        "print(signal.pthread_sigmask(signal.SIG_BLOCK, []), threading.active_count())\n"
        "print(os.getsid(0) == os.getpgrp() == os.getpid(), sys.stdin.read() == '')\n"
        "print(sorted(os.listdir('/proc/self/fd'))[:4])\n"
    )
    monkeypatch.setenv("GONE", "only when the zygote begins")
    assert run(backend, python(modules, "", name="first")) == (0, "")
    monkeypatch.delenv("GONE")
    monkeypatch.chdir(modules)
    job = python(modules, code, "--a", "b c", WORD="hello")
    (warm,) = backend.submit([job])
    os.close(os.dup(0))
    until(lambda: backend.poll([warm])[0].state == "running")
    # Its stdin ends when we close it.
    os.close(backend._started[warm.id].stdin)
    backend._started[warm.id].stdin = os.open(os.devnull, os.O_RDONLY)
    assert end_of(backend, warm).code == 0
    cold = subprocess.run(
        job.command, env={**os.environ, **job.environment}, capture_output=True, text=True,
        start_new_session=True, stdin=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    assert backend.logs(warm) == cold.stdout.strip()
    assert "hello None" in cold.stdout


@pytest.mark.parametrize(
    "code, expected",
    [
        ("pass", 0),
        ("raise SystemExit", 0),
        ("import sys; sys.exit(75)", 75),
        ("import sys; sys.exit(256 + 3)", 3),
        ("import sys; sys.exit('a reason')", 1),
        ("raise ValueError('a mistake')", 1),
        ("import os; os._exit(7)", 7),
        ("import os; os.kill(os.getpid(), 9)", -9),
        ("raise KeyboardInterrupt", -2),
        ("import no_such_module", 1),
        ("a syntax error", 1),
    ],
)
def test_exit_codes_are_those_of_python(
    backend: LocalBackend, modules: Path, code: str, expected: int
) -> None:
    job = python(modules, f"print('printed')\n{code}")
    found, log = run(backend, job)
    cold = subprocess.run(job.command, capture_output=True, text=True)
    assert found == cold.returncode == expected
    last = lambda text: text.strip().splitlines()[-1:]  # noqa: E731
    assert last(log) == last(cold.stdout + cold.stderr)


def test_a_module_that_is_not_there_is_told_in_the_log(
    backend: LocalBackend, modules: Path
) -> None:
    job = replace(python(modules, ""), command=(sys.executable, "-m", "no_such_module"))
    code, log = run(backend, job)
    assert code == 1
    assert "No module named no_such_module" in log


@pytest.mark.slow
def test_a_job_does_at_its_exit_what_it_wants_itself_and_not_what_was_preloaded(
    backend: LocalBackend, modules: Path
) -> None:
    code = (
        "import atexit, tempfile, threading, time, weakref, logging, os\n"
        "atexit.register(print, 'at exit')\n"
        "folder = tempfile.TemporaryDirectory()\n"
        "print(folder.name)\n"
        "def later():\n    time.sleep(0.1)\n    print('a thread that is waited for')\n"
        "threading.Thread(target=later).start()\n"
    )
    code, log = run(backend, python(modules, "import warnings\n" + code))[0], None
    assert code == 0
    (folder, *rest) = (modules.parent / "job.log").read_text().splitlines()
    assert not Path(folder).exists()
    assert [line for line in rest if "Implicitly" not in line and "_warnings" not in line] == [
        "a thread that is waited for",
        "at exit",
    ], log


def test_random_numbers_differ_between_jobs(backend: LocalBackend, modules: Path) -> None:
    job = python(modules, "import random; print(random.random())", name="random")
    run(backend, job)
    run(backend, job)
    assert len(set(job.log.read_text().split())) == 2


@pytest.mark.slow
def test_a_job_may_start_processes_of_its_own(backend: LocalBackend, modules: Path) -> None:
    code = (
        "import multiprocessing as m\n"
        "def twice(x): return 2 * x\n"
        "if __name__ == '__main__':\n"
        "    for way in ('fork', 'spawn'):\n"
        "        with m.get_context(way).Pool(2) as pool: print(pool.map(twice, [1, 2]))\n"
    )
    assert run(backend, python(modules, code)) == (0, "[2, 4]\n[2, 4]")


@pytest.mark.slow
def test_limits_cancels_and_costs_are_as_for_other_jobs(
    backend: LocalBackend, modules: Path
) -> None:
    sleeps = "import time; print('ready', flush=True); time.sleep(600)"
    late = replace(python(modules, sleeps, name="late"), resources=Resources(time_s=0.3))
    asked = python(modules, sleeps, name="asked")
    burns = python(
        modules, "import time\nwhile time.process_time() < 0.3: pass\nx = bytearray(64 << 20)",
        name="burns",
    )  # fmt: skip
    handles = backend.submit([late, asked, burns])
    until(lambda: backend.logs(handles[1]) == "ready")
    backend.cancel([handles[1]])
    ends = [end_of(backend, handle) for handle in handles]
    assert [(ended.code, ended.state) for ended in ends] == [
        (-15, "TIMEOUT"), (-15, "CANCELLED"), (0, ""),
    ]  # fmt: skip
    assert 0.3 <= (ends[2].cpu_s or 0) < 5
    assert 64 < (ends[2].peak_mb or 0) < 256


# ---- what does not come from the zygote --------------------------------------------------------


@pytest.mark.slow
def test_other_commands_and_other_early_settings_go_through_a_guard(
    backend: LocalBackend, modules: Path
) -> None:
    job = python(modules, "import os; print(os.environ['OMP_NUM_THREADS'])")
    jobs = [
        replace(job, command=("sh", "-c", "echo shell")),
        replace(job, environment={**job.environment, "OMP_NUM_THREADS": "2"}),
        replace(job, environment={**job.environment, "PYTHONHASHSEED": "0"}),
        job,
    ]
    for one, said in zip(jobs, ["shell", "2", "1", "1"], strict=True):
        (handle,) = backend.submit([one])
        assert end_of(backend, handle).code == 0
        assert backend.logs(handle, lines=1) == said
        assert (backend._started[handle.id].guard is None) == (one is job)


def test_variables_of_the_zygote_are_its_jobs_variables(modules: Path) -> None:
    warm = Warm(("preloaded",), {"OMP_NUM_THREADS": "3", "WORD": "of warm"})
    with LocalBackend(warm) as backend:
        code = "import os; print(os.environ['OMP_NUM_THREADS'], os.environ['WORD'])"
        assert run(backend, python(modules, code)) == (0, "3 of warm")
        assert run(backend, python(modules, code, WORD="its own"))[1] == "3 of warm\n3 its own"


@pytest.mark.parametrize(
    "code, reason",
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        (
            "import threading, time\n"
            "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
            "the preloaded modules have begun 1 threads, which would not be forked",
        ),
        (
            "import sys, types\ntorch = sys.modules['torch'] = types.ModuleType('torch')\n"
            "torch.cuda = types.SimpleNamespace(is_initialized=lambda: True)",
            "a preloaded module uses CUDA, which no process can that is forked from it",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_preloaded_is_told_in_the_log_of_each_job(
    modules: Path, code: str, reason: str
) -> None:
    (modules / "bad.py").write_text(code)
    with LocalBackend(Warm(("bad",))) as backend:
        for _ in range(2):
            found, log = run(backend, python(modules, "print('it runs')"))
            assert found == 1
            assert log.splitlines()[-1] == reason
            assert "it runs" not in log


# ---- nothing is left ---------------------------------------------------------------------------

RELATIVES = (
    "import os, subprocess, sys, time, signal\n"
    f"subprocess.run(['sh', '-c', {FAMILY + ALL_THERE!r}])\n"
    "for leaves in (False, True):\n"  # a fork, and a fork that makes itself a daemon
    "    if os.fork() == 0:\n"
    "        if leaves:\n"
    "            os.setsid()\n"
    "            if os.fork(): os._exit(0)\n"
    "        signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "        open(os.environ['PIDS'], 'a').write(f'{os.getpid()}\\n')\n"
    "        time.sleep(600)\n"
    "while len(open(os.environ['PIDS']).readlines()) < 5: time.sleep(0.02)\n"
    "print('ready', flush=True)\n"
)


def family(modules: Path, tmp_path: Path, end: str) -> Job:
    return python(modules, RELATIVES + end, name="family")


def nothing_is_left(tmp_path: Path) -> bool:
    return not left_of(tmp_path / "pids") and not any(map(lives, pids_in(tmp_path / "pids")))


def test_what_outlives_a_job_is_killed(
    backend: LocalBackend, modules: Path, tmp_path: Path
) -> None:
    assert run(backend, family(modules, tmp_path, "sys.exit(4)"))[0] == 4
    assert len(pids_in(tmp_path / "pids")) == 5
    assert nothing_is_left(tmp_path)


@pytest.mark.slow
def test_of_a_job_whose_guard_is_killed_nothing_is_left(
    backend: LocalBackend, modules: Path, tmp_path: Path
) -> None:
    other = python(modules, "input()", name="other", PIDS="other")
    handle, spared = backend.submit([family(modules, tmp_path, "time.sleep(600)"), other])
    until(lambda: backend.logs(handle) == "ready")
    pid_of(backend, spared)
    guard = psutil.Process(pid_of(backend, handle)).parent()
    assert guard is not None
    guard.kill()
    assert end_of(backend, handle) == Ended(-signal.SIGKILL)
    until(lambda: nothing_is_left(tmp_path))
    assert backend.poll([spared])[0].state == "running"


@pytest.mark.slow
def test_when_the_zygote_is_killed_its_jobs_are_and_the_next_one_gets_a_new_zygote(
    backend: LocalBackend, modules: Path, tmp_path: Path
) -> None:
    strangers = set(psutil.Process().children())  # of other tests
    (handle,) = backend.submit([family(modules, tmp_path, "time.sleep(600)")])
    until(lambda: backend.logs(handle) == "ready")
    (zygote,) = zygotes()
    zygote.kill()
    assert end_of(backend, handle).code == -signal.SIGKILL
    until(lambda: nothing_is_left(tmp_path))
    assert run(backend, python(modules, "print('again')")) == (0, "again")
    (other,) = zygotes()
    assert other.pid != zygote.pid
    assert set(psutil.Process().children()) - strangers == {other}, "a guard is left, or a zombie"


@pytest.mark.slow
def test_a_job_that_waits_for_a_zygote_which_is_killed_is_told_to_have_been_killed(
    modules: Path,
) -> None:
    (modules / "slow.py").write_text("import time; time.sleep(600)")
    with LocalBackend(Warm(("slow",))) as backend:
        (handle,) = backend.submit([python(modules, "print('begun')")])
        assert not backend.wait(0.3)
        assert backend.poll([handle])[0].state == "pending"
        (zygote,) = zygotes()
        zygote.kill()
        assert end_of(backend, handle).code == -signal.SIGKILL
        assert backend.logs(handle) == ""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.slow
def test_of_a_worker_that_dies_nothing_is_left(
    modules: Path, tmp_path: Path, number: signal.Signals
) -> None:
    ends = "signal.signal(15, lambda *_: print('asked', flush=True))\nwhile True: time.sleep(0.02)"
    job = family(modules, tmp_path, ends)
    script = (
        "import sys\nfrom pathlib import Path\n"
        "from cupel.jobs.backend import Job\nfrom cupel.jobs.local import LocalBackend\n"
        "from cupel.jobs.warm import Warm\n"
        "backend = LocalBackend(Warm(('preloaded',)), grace_s=0.5)\n"
        "log, mark, *command = sys.argv[1:]\n"
        "backend.submit([Job('job', tuple(command), Path(log), {'PIDS': mark})])\n"
        "while True: backend.wait(60)\n"
    )
    given = [str(job.log), str(tmp_path / "pids"), *job.command]
    worker = subprocess.Popen([sys.executable, "-c", script, *given], stderr=subprocess.DEVNULL)
    until(lambda: job.log.exists() and "ready" in job.log.read_text())
    processes = psutil.Process(worker.pid).children(recursive=True)
    assert len(processes) >= 8  # zygote, guard, job, and its five relatives
    worker.send_signal(number)
    worker.wait()
    until(lambda: not any(lives(process.pid) for process in processes))
    assert nothing_is_left(tmp_path)
    assert "asked" in job.log.read_text()


@pytest.mark.slow
def test_torch_and_the_training_can_be_preloaded(modules: Path) -> None:
    code = (
        "import sys; print('torch' in sys.modules)\n"
        "import torch, cupel.workloads.training\n"
        "torch.manual_seed(0)\n"
        "x = torch.randn(64, 64, requires_grad=True)\n"
        "(x @ x).square().sum().backward()\n"
        "print(x.grad.double().sum().item(), torch.get_num_threads())\n"
    )
    job = python(modules, code)
    with LocalBackend(Warm()) as backend:
        found = run(backend, job)
    cold = subprocess.run(job.command, capture_output=True, text=True, check=True)
    assert found == (0, cold.stdout.strip().replace("False", "True"))


@pytest.mark.slow
def test_a_zygote_that_still_imports_is_not_waited_for(modules: Path) -> None:
    (modules / "slow.py").write_text("import time; time.sleep(600)")
    with LocalBackend(Warm(("slow",)), grace_s=0.2) as backend:
        (handle,) = backend.submit([python(modules, "print('it runs')")])
        backend._grace_s = -4.0  # its guard does not exist yet, so nobody hears a cancel
    assert not zygotes()
    assert backend.poll([handle])[0].state == "ended"


def test_a_zygote_that_still_imports_ends_with_its_worker(modules: Path, tmp_path: Path) -> None:
    (modules / "slow.py").write_text("import time; time.sleep(600)")
    script = (
        "import sys, time\nfrom pathlib import Path\n"
        "from cupel.jobs.backend import Job\nfrom cupel.jobs.local import LocalBackend\n"
        "from cupel.jobs.warm import Warm\nbackend = LocalBackend(Warm(('slow',)))\n"
        "job = Job('job', (sys.executable, '-m', 'this'), Path(sys.argv[1]))\n"
        "backend.submit([job])\nprint('submitted', flush=True)\ntime.sleep(600)\n"
    )
    worker = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "log")], stdout=subprocess.PIPE
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == b"submitted\n"
    (zygote,) = psutil.Process(worker.pid).children()
    worker.kill()
    worker.wait()
    worker.stdout.close()
    until(lambda: not lives(zygote.pid))
