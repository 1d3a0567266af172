"""A logger for Lightning's Trainer: `Trainer(logger=CupelLogger(project="mnist"))`.

Works with `lightning` and with `pytorch_lightning`: whichever is imported already, else whichever
is installed. Numbers go to the step that Lightning gives them. The run is opened by the first
process when something is logged, and ends with the script or by `cupel.finish()`, since `test` may
follow `fit`. Lightning's own checkpoints lie in the run's folder.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cupel.api.current as current
from cupel.api.run import Run
from cupel.errors import MissingDependency
from cupel.record.layout import record_root


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ModuleNotFoundError, ValueError):  # its parent is not there, or it is barred
        return False


if TYPE_CHECKING:
    from lightning_fabric.loggers.logger import rank_zero_experiment
    from lightning_utilities.core.rank_zero import rank_zero_only
    from pytorch_lightning.loggers.logger import Logger
else:
    names = ("lightning.pytorch", "pytorch_lightning")
    package = next((name for name in names if sys.modules.get(name) is not None), None)
    package = package or next((name for name in reversed(names) if _is_installed(name)), None)
    if package is None:
        raise MissingDependency("pytorch-lightning", extra="lightning", purpose="CupelLogger")
    Logger = import_module(f"{package}.loggers.logger").Logger
    rank_zero_experiment = import_module(f"{package}.loggers.logger").rank_zero_experiment
    rank_zero_only = import_module(f"{package}.utilities.rank_zero").rank_zero_only


class CupelLogger(Logger):
    """Logs to a run of cupel.

    The arguments are `cupel.init`'s; `run` is one that is open already, and `prefix` is put in
    front of every metric's name. `log_model=True` keeps the best checkpoint as an artifact at the
    end of `fit`.
    """

    def __init__(
        self,
        project: str = "default",
        name: str | None = None,
        *,
        run: Run | None = None,
        prefix: str = "",
        log_model: bool = False,
        **arguments: Any,
    ) -> None:
        super().__init__()
        self._project, self._name = project, name
        self._run, self._prefix, self._log_model = run, prefix, log_model
        self._arguments = arguments
        self._checkpoints: Any = None

    @property
    @rank_zero_experiment
    def experiment(self) -> Run:
        """The run, which this opens; in other processes than the first a dummy."""
        if self._run is None:
            open_run = current.current_run()
            self._run = open_run or current.init(self._project, self._name, **self._arguments)
        return self._run

    @property
    def name(self) -> str:
        """The project: Lightning makes a folder's name of it."""
        return self._run.project if self._run else self._project

    @property
    def version(self) -> str | None:
        """The run's id; None before it is opened."""
        return self._run.id if self._run else None

    @property
    def root_dir(self) -> str:
        """The record's root."""
        return str(record_root(self._arguments.get("root")))

    @property
    def save_dir(self) -> str:
        """The record's root: below it Lightning's checkpoints lie in the run's own folder."""
        return self.root_dir

    @property
    def log_dir(self) -> str:
        """The run's folder."""
        return str(self.experiment.dir)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Numbers of a step."""
        self.experiment.log(
            {f"{self._prefix}{key}": value for key, value in metrics.items()}, step=step
        )

    @rank_zero_only
    def log_hyperparams(
        self, params: Mapping[str, Any] | Namespace | None = None, *_: Any, **__: Any
    ) -> None:
        """Settings, into the run's config."""
        if params:
            self.experiment.config.update(params)

    @rank_zero_only
    def log_image(self, key: str, images: Sequence[Any], step: int | None = None) -> None:
        """Pictures of one name."""
        for image in images:
            self.experiment.log_image(f"{self._prefix}{key}", image, step=step)

    @rank_zero_only
    def log_text(self, key: str, text: str, step: int | None = None) -> None:
        """A text."""
        self.experiment.log_text(f"{self._prefix}{key}", text, step=step)

    @rank_zero_only
    def log_table(self, key: str, *given: Any, **named: Any) -> None:
        """A table; see `Run.log_table`."""
        self.experiment.log_table(f"{self._prefix}{key}", *given, **named)

    def watch(self, model: Any, *given: Any, **named: Any) -> None:
        """Watch a model; see `Run.watch`."""
        self.experiment.watch(model, *given, **named)

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """Remember who knows the best checkpoint."""
        self._checkpoints = checkpoint_callback

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Keep the best model, if that was asked for; the run stays open."""
        if self._run is None or self._run.finished:
            return
        best = getattr(self._checkpoints, "best_model_path", "")
        if self._log_model and status == "success" and best and Path(best).exists():
            self._run.log_artifact(best, name="model", type="model")
