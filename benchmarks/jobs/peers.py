"""A peer's part of the comparison, run in its own environment: 216 jobs of 50 ms, two at a time.

    python peers.py NAME FOLDER JOBS SECONDS        prints JSON

Each as its own pages show it, with its defaults. What it keeps of a job differs: ProcessPool keeps
nothing, submitit and Hydra a folder a job, Optuna and huey a row of SQLite.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path


def sleep(seconds: float) -> float:
    """A job."""
    time.sleep(seconds)
    return seconds


def pool(folder: Path, jobs: int, seconds: float) -> int:
    """The floor: the standard library's processes, which keep nothing."""
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(2) as executor:
        return len(list(executor.map(sleep, [seconds] * jobs)))


def submitit(folder: Path, jobs: int, seconds: float) -> int:
    """Its local executor starts all that is submitted, so two are kept going here."""
    from submitit import LocalExecutor

    executor = LocalExecutor(folder=folder / "logs")
    executor.update_parameters(timeout_min=10)
    running, done, begun = [], 0, 0
    while done < jobs:
        while begun < jobs and len(running) < 2:
            running.append(executor.submit(sleep, seconds))
            begun += 1
        left = [job for job in running if not job.done()]
        done += len(running) - len(left)
        running = left
        time.sleep(0.005)
    return done


HYDRA = """
import time
import hydra

@hydra.main(version_base=None, config_path=None, config_name=None)
def main(config):
    time.sleep(float(config.seconds))

main()
"""


def hydra(folder: Path, jobs: int, seconds: float) -> int:
    """A multirun with the launcher of joblib and two processes."""
    (folder / "app.py").write_text(HYDRA)
    many = ",".join(map(str, range(jobs)))
    given = [f"+seconds={seconds}", f"+n={many}", "hydra/launcher=joblib"]
    command = [sys.executable, "app.py", "-m", *given, "hydra.launcher.n_jobs=2"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return len(list((folder / "multirun").glob("*/*/*/.hydra")))


def optuna(folder: Path, jobs: int, seconds: float) -> int:
    """Two processes of one study in SQLite, as its pages on distribution show it."""
    import optuna

    url = f"sqlite:///{folder}/study.db"
    optuna.create_study(storage=url, study_name="sleep")
    command = [sys.executable, __file__, "optuna-worker", str(folder), str(jobs), str(seconds)]
    workers = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(2)]
    for worker in workers:
        worker.wait()
    trials = optuna.load_study(storage=url, study_name="sleep").trials
    return sum(trial.state.name == "COMPLETE" for trial in trials)


def optuna_worker(folder: Path, jobs: int, seconds: float) -> int:
    import optuna

    study = optuna.load_study(
        storage=f"sqlite:///{folder}/study.db",
        study_name="sleep",
        sampler=optuna.samplers.RandomSampler(),
    )
    study.optimize(
        lambda trial: sleep(seconds) + trial.suggest_float("x", 0, 1), n_trials=jobs // 2
    )
    return jobs // 2


HUEY = """
import time
from huey import SqliteHuey

huey = SqliteHuey(filename="queue.db")

@huey.task()
def job(seconds):
    time.sleep(seconds)
    return seconds
"""


def huey(folder: Path, jobs: int, seconds: float) -> int:
    """Its consumer with two processes and its default waits."""
    (folder / "tasks.py").write_text(HUEY)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    import tasks  # type: ignore[import-not-found]

    results = [tasks.job(seconds) for _ in range(jobs)]
    consumer = Path(sys.executable).with_name("huey_consumer")
    command = [sys.executable, str(consumer), "tasks.huey", "-w", "2", "-k", "process", "-q"]
    worker = subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL)
    try:
        return sum(result.get(blocking=True, timeout=600) == seconds for result in results)
    finally:
        worker.terminate()
        worker.wait()


ALL = {
    "pool": pool,
    "submitit": submitit,
    "hydra": hydra,
    "optuna": optuna,
    "optuna-worker": optuna_worker,
    "huey": huey,
}

if __name__ == "__main__":
    name, place, count, length = sys.argv[1:]
    print(json.dumps({"done": ALL[name](Path(place), int(count), float(length))}))
