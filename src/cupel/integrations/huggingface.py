"""A callback for the Trainer of transformers: `Trainer(callbacks=[CupelCallback()])`.

Importing this also makes `TrainingArguments(report_to="cupel")` known: transformers has no other
way in than its own table of integrations. Numbers are logged at `state.global_step` under
the names that its wandb callback gives them (train/loss, eval/loss), the run's totals go into the
summary. The run is the current one, or is opened when training begins; it ends with the script or
by `cupel.finish()`, since `evaluate` and `predict` may follow `train`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cupel.api.current as current
from cupel.api.run import Run
from cupel.errors import MissingDependency

try:
    from transformers import TrainerCallback
    from transformers.integrations import integration_utils
except ModuleNotFoundError as missing:
    raise MissingDependency(
        "transformers", extra="huggingface", purpose="CupelCallback"
    ) from missing

_TOTALS = (
    "train_runtime",
    "train_samples_per_second",
    "train_steps_per_second",
    "train_loss",
    "total_flos",
)


class CupelCallback(TrainerCallback):
    """Logs a Trainer's numbers to a run.

    `run` is one that is open already; else the current one, else one that is opened with
    `cupel.init(**arguments)`. By default the project is `args.project`, the name `args.run_name`,
    and the config the model's and the training's.
    """

    def __init__(self, run: Run | None = None, **arguments: Any) -> None:
        self._run, self._arguments = run, arguments
        self._described = False

    def setup(self, args: Any, state: Any, model: Any) -> Run | None:
        """The run, opened and described if need be; None in other processes than the first."""
        if not state.is_world_process_zero:
            return None
        if self._run is None or self._run.finished:
            config = {**_config_of(model), **args.to_dict()}
            open_run = current.current_run()
            self._run = open_run or current.init(
                **{
                    "project": getattr(args, "project", None) or "huggingface",
                    "name": getattr(args, "run_name", None),
                    "config": config,
                    **self._arguments,
                }
            )
            self._described = open_run is None and "config" not in self._arguments
        if not self._described:
            self._described = True
            self._run.config.setdefaults({**_config_of(model), **args.to_dict()})
        return self._run

    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, **_: Any
    ) -> None:
        self.setup(args, state, model)

    def on_log(
        self,
        args: Any,
        state: Any,
        control: Any,
        model: Any = None,
        logs: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        run = self.setup(args, state, model)
        if run is None or not logs:
            return
        totals = {name: value for name, value in logs.items() if name in _TOTALS}
        if totals:
            run.summary.update(totals)
        numbers = {name: value for name, value in logs.items() if name not in _TOTALS}
        if numbers:
            run.log(_renamed(numbers), step=state.global_step)

    def on_predict(
        self, args: Any, state: Any, control: Any, metrics: Mapping[str, Any], **_: Any
    ) -> None:
        run = self.setup(args, state, None)
        if run is not None:
            run.log(_renamed(metrics), step=state.global_step)


def _renamed(logs: Mapping[str, Any]) -> dict[str, Any]:
    """eval_loss is eval/loss, test_loss test/loss, and the rest train/…: transformers' rule."""
    rename: Any = integration_utils.rewrite_logs
    renamed: dict[str, Any] = rename(dict(logs))
    return renamed


def _config_of(model: Any) -> dict[str, Any]:
    config = getattr(model, "config", None)
    if config is None:
        return {}
    return dict(config if isinstance(config, dict) else config.to_dict())


integration_utils.INTEGRATION_TO_CALLBACK.setdefault("cupel", CupelCallback)
