"""The trackers that are measured, each behind the same four calls, as their own pages show them.

Runs in each tracker's own environment, so nothing but the standard library is imported at module
level. `open` is what a script pays before its first step, `log` one call with some scalars,
`close` the orderly end, `recover` reads the steps back with the tracker's own reader, in a new
process. Nothing is sent anywhere: offline modes, and telemetry is off.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

PROJECT = "bench"
QUIET = {
    "WANDB_MODE": "offline",
    "WANDB_SILENT": "true",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_DISABLE_GIT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "AIM_ANALYTICS": "false",
    "__AIM_DISABLE_TELEMETRY__": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_OFFLINE": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


class Backend(Protocol):
    """One tracker. `package` names the distribution whose version is printed."""

    package: str

    def open(self, folder: Path) -> None: ...

    def log(self, values: Mapping[str, float], step: int) -> None: ...

    def close(self) -> None: ...

    @staticmethod
    def recover(folder: Path) -> set[int]:
        """The steps that can be read from a folder of `open`, however its writer ended."""
        ...


class Cupel:
    """cupel as it comes: console capture, system metrics, git and packages, all on."""

    package = "cupel"

    def open(self, folder: Path) -> None:
        import cupel

        self._run = cupel.init(project=PROJECT, name="bench", root=folder, resume="never")

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(values, step=step)

    def close(self) -> None:
        self._run.finish()

    @staticmethod
    def recover(folder: Path) -> set[int]:
        from cupel.record.reader import list_runs

        return {row["_step"] for run in list_runs(folder) for row in run.history()}


class CupelSync(Cupel):
    """cupel with `durability: sync`: each call waits for the disk."""

    def open(self, folder: Path) -> None:
        import cupel

        self._run = cupel.init(
            project=PROJECT,
            name="bench",
            root=folder,
            resume="never",
            settings={"durability": "sync"},
        )


class TensorBoard:
    """torch.utils.tensorboard, one add_scalar a value."""

    package = "tensorboard"

    def open(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(folder / "tb"))

    def log(self, values: Mapping[str, float], step: int) -> None:
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)

    def close(self) -> None:
        self._writer.close()

    @staticmethod
    def recover(folder: Path) -> set[int]:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        found = EventAccumulator(str(folder / "tb"), size_guidance={"scalars": 0})
        found.Reload()
        tags = found.Tags()["scalars"]
        # A call has returned when its last value is there; values are written in order.
        steps = [{event.step for event in found.Scalars(tag)} for tag in tags if tag == "last"]
        return steps[0] if steps else set()


class TensorBoardX(TensorBoard):
    """tensorboardX, one add_scalar a value."""

    package = "tensorboardX"

    def open(self, folder: Path) -> None:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tb"))


class Wandb:
    """wandb, offline."""

    package = "wandb"

    def open(self, folder: Path) -> None:
        import wandb

        self._run = wandb.init(project=PROJECT, mode="offline", dir=str(folder))

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()

    @staticmethod
    def recover(folder: Path) -> set[int]:
        # wandb ships no reader of its offline file any more; this one is cupel's importer.
        from cupel.errors import RecordError
        from cupel.record.exchange.importing import import_runs
        from cupel.record.reader import RunRecord

        steps: set[int] = set()
        for file in sorted(folder.rglob("*.wandb")):
            try:
                runs = import_runs(file, root=folder / "imported", project=PROJECT)
            except RecordError as error:
                if "no readable record" not in str(error):
                    raise
                continue  # killed before the first block of it was written: nothing is there
            for run in runs:
                steps |= {row["_step"] for row in RunRecord(run).history(["last"])}
        return steps


class Trackio:
    """trackio, local."""

    package = "trackio"

    def open(self, folder: Path) -> None:
        os.environ["TRACKIO_DIR"] = str(folder / "trackio")
        import trackio

        self._trackio = trackio
        trackio.init(project=PROJECT, name="bench")

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._trackio.log(dict(values), step=step)

    def close(self) -> None:
        self._trackio.finish()

    @staticmethod
    def recover(folder: Path) -> set[int]:
        os.environ["TRACKIO_DIR"] = str(folder / "trackio")
        from trackio.sqlite_storage import SQLiteStorage

        return {int(row["step"]) for row in SQLiteStorage.get_logs(PROJECT, "bench")}


class MLflow:
    """MLflow, SQLite store, synchronous."""

    package = "mlflow"

    def open(self, folder: Path) -> None:
        import mlflow

        self._mlflow = mlflow
        folder.mkdir(parents=True, exist_ok=True)
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        mlflow.set_experiment(PROJECT)
        mlflow.start_run()

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._mlflow.log_metrics(dict(values), step=step)

    def close(self) -> None:
        self._mlflow.end_run()

    @staticmethod
    def recover(folder: Path) -> set[int]:
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
        steps: set[int] = set()
        for experiment in client.search_experiments():
            for run in client.search_runs([experiment.experiment_id]):
                steps |= {m.step for m in client.get_metric_history(run.info.run_id, "last")}
        return steps


class Aim:
    """Aim, one track a value."""

    package = "aim"

    def open(self, folder: Path) -> None:
        from aim import Run

        folder.mkdir(parents=True, exist_ok=True)
        self._run = Run(repo=str(folder), experiment=PROJECT, log_system_params=False)

    def log(self, values: Mapping[str, float], step: int) -> None:
        for key, value in values.items():
            self._run.track(value, name=key, step=step)

    def close(self) -> None:
        self._run.close()

    @staticmethod
    def recover(folder: Path) -> set[int]:
        # Without a reindex a killed run is not visible at all.
        aim = Path(sys.executable).with_name("aim")
        command = [str(aim), "storage", "--repo", str(folder), "reindex", "-y"]
        subprocess.run(command, input=b"y\n", capture_output=True, timeout=120, check=False)
        from aim import Repo

        repo = Repo(str(folder))
        steps: set[int] = set()
        for found in repo.query_metrics("metric.name == 'last'").iter_runs():
            for metric in found:
                # Its indices are hashes; the value of `last` is the step.
                _, values = metric.values.sparse_numpy()
                steps |= {int(value) for value in values}
        return steps


BACKENDS: dict[str, type[Backend]] = {
    "cupel": Cupel,
    "cupel sync": CupelSync,
    "trackio": Trackio,
    "wandb offline": Wandb,
    "tensorboard": TensorBoard,
    "tensorboardX": TensorBoardX,
    "mlflow": MLflow,
    "aim": Aim,
}
