"""TensorBoard's `SummaryWriter`, written to a run: steps and wall times are kept as they are given.

A writer has a run of its own beside the current one, or shares the current run when it is given
no `log_dir`. The last two parts of `log_dir` are project and name. Unlike there, a line is on disk
when the call returns, so `flush` has nothing to do; and calls without a step are counted from 0
for each tag, where TensorBoard writes all of them to step 0.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cupel.api.current import current_run, open_run
from cupel.api.images import Figure, Image
from cupel.api.media import Audio, Histogram, Media, Text
from cupel.api.run import Run
from cupel.api.told import tell_ignored, tell_once

_NOT_RECORDED = "is not recorded; cupel keeps numbers, texts, pictures, sounds and histograms"
_INSTEAD = {
    "add_graph": "; run.watch(model) writes the tree of modules",
    "add_pr_curve": "; draw it and call add_figure()",
    "add_video": "; run.log({…: cupel.Video(path)}) keeps a film's file",
}


class SummaryWriter:
    """Writes what TensorBoard's does; `run` is the run that it goes to.

    `log_dir="logs/mnist/lr-0.1"` is the run `lr-0.1` of the project `mnist`; without it, the
    current run if one is open, else a run of the project "default". `root` and `config` are
    `cupel.init`'s.
    """

    def __init__(
        self,
        log_dir: str | Path | None = None,
        comment: str = "",
        purge_step: int | None = None,
        max_queue: int = 10,
        flush_secs: int = 120,
        filename_suffix: str = "",
        *,
        run: Run | None = None,
        root: str | Path | None = None,
        config: Any = None,
    ) -> None:
        tell_ignored("SummaryWriter", {"purge_step": purge_step}, "nothing recorded is taken back")
        shared = run or (current_run() if log_dir is None else None)
        self._owns = shared is None
        if shared is None:
            project, name = _named(log_dir, comment)
            shared = open_run(project=project, name=name, root=root, config=config, current=False)
        self.run = shared
        self._counts: dict[str, int] = {}
        self._hparams: dict[str, Any] | None = None
        self._runs = 1  # with those that add_hparams has made

    @property
    def log_dir(self) -> str:
        """The run's folder."""
        return str(self.run.dir)

    def get_logdir(self) -> str:
        """The run's folder."""
        return self.log_dir

    def add_scalar(
        self,
        tag: str,
        scalar_value: Any,
        global_step: int | None = None,
        walltime: float | None = None,
        new_style: bool = False,
        double_precision: bool = False,
    ) -> None:
        """A number; a float64 stays one."""
        self._log({tag: _number(scalar_value)}, tag, global_step, walltime)

    def add_scalars(
        self,
        main_tag: str,
        tag_scalar_dict: Mapping[str, Any],
        global_step: int | None = None,
        walltime: float | None = None,
    ) -> None:
        """Several numbers of one step, as `main_tag/tag`."""
        numbers = {f"{main_tag}/{tag}": _number(v) for tag, v in tag_scalar_dict.items()}
        self._log(numbers, main_tag, global_step, walltime)

    def add_histogram(
        self,
        tag: str,
        values: Any,
        global_step: int | None = None,
        bins: Any = "tensorflow",
        walltime: float | None = None,
        max_bins: int | None = None,
    ) -> None:
        """The distribution of values, in `bins` bins if that is a number, else in 64."""
        count = bins if isinstance(bins, int) else max_bins or 64
        self._media(tag, lambda: Histogram(values, num_bins=count), global_step, walltime)

    def add_text(
        self,
        tag: str,
        text_string: str,
        global_step: int | None = None,
        walltime: float | None = None,
    ) -> None:
        """A text."""
        self._media(tag, lambda: Text(text_string), global_step, walltime)

    def add_image(
        self,
        tag: str,
        img_tensor: Any,
        global_step: int | None = None,
        walltime: float | None = None,
        dataformats: str = "CHW",
    ) -> None:
        """A picture, whose axes `dataformats` names."""
        first = "C" in dataformats.upper() and not dataformats.upper().endswith("C")
        self._media(tag, lambda: Image(img_tensor, channels_first=first), global_step, walltime)

    def add_images(
        self,
        tag: str,
        img_tensor: Any,
        global_step: int | None = None,
        walltime: float | None = None,
        dataformats: str = "NCHW",
    ) -> None:
        """Several pictures as a grid."""
        self.add_image(tag, img_tensor, global_step, walltime, dataformats)

    def add_figure(
        self,
        tag: str,
        figure: Any,
        global_step: int | None = None,
        close: bool = True,
        walltime: float | None = None,
    ) -> None:
        """A figure of matplotlib, or several, which are closed unless `close` is False."""
        for one in figure if isinstance(figure, list | tuple) else [figure]:
            self._media(tag, lambda one=one: Figure(one), global_step, walltime)
            if close:
                from matplotlib import pyplot

                pyplot.close(one)

    def add_audio(
        self,
        tag: str,
        snd_tensor: Any,
        global_step: int | None = None,
        sample_rate: int = 44100,
        walltime: float | None = None,
    ) -> None:
        """A sound: samples in [-1, 1], in the one-dimensional form that TensorBoard takes."""

        def made() -> Media:
            samples = snd_tensor.squeeze() if hasattr(snd_tensor, "squeeze") else snd_tensor
            return Audio(samples, sample_rate=sample_rate)

        self._media(tag, made, global_step, walltime)

    def add_hparams(
        self,
        hparam_dict: Mapping[str, Any],
        metric_dict: Mapping[str, Any],
        hparam_domain_discrete: Any = None,
        run_name: str | None = None,
        global_step: int | None = None,
    ) -> None:
        """Settings and what they came to: the run's config and summary.

        The first call means this run. One with other settings makes a run of its own, since a run
        has one config; it is called `run_name`, or as this one and a number.
        """
        metrics = {key: _number(value) for key, value in metric_dict.items()}
        if self._hparams in (None, dict(hparam_dict)):
            self._hparams = dict(hparam_dict)
            self.run.config.update(hparam_dict)
            self.run.summary.update(metrics)
            if global_step is not None:
                self._log(metrics, "hparams", global_step, None)
            return
        self._runs += 1
        further = open_run(
            project=self.run.project,
            name=run_name or f"{self.run.name}-{self._runs}",
            root=self.run.dir.parents[1],
            config=dict(hparam_dict),
            mode="disabled" if self.run.disabled else None,
            current=False,
        )
        further.log(metrics, 0 if global_step is None else global_step)
        further.summary.update(metrics)
        further.finish()

    def __getattr__(self, name: str) -> Any:
        """What else TensorBoard's writer can add is accepted, told of once, and not recorded."""
        if not name.startswith("add_"):
            raise AttributeError(f"SummaryWriter has no '{name}'")

        def not_recorded(*_: Any, **__: Any) -> None:
            tell_once(name, f"{name}() {_NOT_RECORDED}{_INSTEAD.get(name, '')}")

        return not_recorded

    def flush(self) -> None:
        """Nothing to do: what returned is on disk."""

    def close(self) -> None:
        """End the run, if it is this writer's own."""
        if self._owns:
            self.run.finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._owns:
            self.run.__exit__(kind, error, trace)

    def _log(
        self, numbers: Mapping[str, Any], tag: str, step: int | None, walltime: float | None
    ) -> None:
        self.run.log_at(numbers, self._step(tag, step), walltime)

    def _media(self, tag: str, makes: Any, step: int | None, walltime: float | None) -> None:
        at = self._step(tag, step)
        if self.run.disabled:
            return
        try:
            made = makes()
        except Exception as error:  # whatever libraries raise, training goes on
            self.run.problem(f"media {tag[:100]}", error)
            return
        self.run.log_at({tag: made}, at, walltime)

    def _step(self, tag: str, step: int | None) -> int:
        at = self._counts.get(tag, 0) if step is None else int(step)
        self._counts[tag] = at + 1
        return at


def _named(log_dir: str | Path | None, comment: str) -> tuple[str, str]:
    """Project and name of a log folder; without one the time and the comment, as TensorBoard's."""
    if log_dir is None:
        return "default", f"{time.strftime('%b%d_%H-%M-%S')}{comment}"
    parts = [part for part in Path(log_dir).parts if part not in ("/", ".", "..")]
    name = parts[-1] if parts else "default"
    project = parts[-2] if len(parts) > 1 and parts[-2] != "runs" else "default"
    return project.lstrip(".") or "default", name


def _number(value: Any) -> Any:
    """What is logged for one scalar: TensorBoard also takes arrays of one number."""
    if hasattr(value, "shape") and hasattr(value, "reshape") and tuple(value.shape):
        return value.reshape(-1)[0] if len(value.reshape(-1)) == 1 else value
    return value
