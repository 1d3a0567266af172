"""cupel: a local-first laboratory for training experiments in PyTorch.

    import cupel
    with cupel.init(project="demo", config={"lr": 0.1}) as run:
        run.log({"loss": 0.5}, step=1)

The names are wandb's where they mean the same, so `import cupel as wandb` runs scripts that keep to
its core. Importing this loads neither torch nor numpy; names are fetched when they are first used.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cupel.api.arguments import Settings
    from cupel.api.current import (
        alert,
        define_metric,
        finish,
        init,
        load_checkpoint,
        log,
        log_artifact,
        log_figure,
        log_histogram,
        log_image,
        log_model,
        log_table,
        log_text,
        login,
        register,
        save,
        save_checkpoint,
        steps,
        unwatch,
        watch,
    )
    from cupel.api.facts import AlertLevel
    from cupel.api.images import Image
    from cupel.api.kept import Artifact
    from cupel.api.media import Audio, Histogram, Html, Table, Text, Video
    from cupel.api.reading import runs
    from cupel.api.run import Run
    from cupel.api.summary import Summary

    run: Run | None
    summary: Summary

__all__ = [
    "AlertLevel",
    "Artifact",
    "Audio",
    "Histogram",
    "Html",
    "Image",
    "Run",
    "Settings",
    "Table",
    "Text",
    "Video",
    "alert",
    "define_metric",
    "finish",
    "init",
    "load_checkpoint",
    "log",
    "log_artifact",
    "log_figure",
    "log_histogram",
    "log_image",
    "log_model",
    "log_table",
    "log_text",
    "login",
    "register",
    "runs",
    "save",
    "save_checkpoint",
    "steps",
    "unwatch",
    "watch",
]

_HOMES = {
    "AlertLevel": "cupel.api.facts",
    "Artifact": "cupel.api.kept",
    "Image": "cupel.api.images",
    "Run": "cupel.api.run",
    "Settings": "cupel.api.arguments",
    "runs": "cupel.api.reading",
    **dict.fromkeys(("Audio", "Histogram", "Html", "Table", "Text", "Video"), "cupel.api.media"),
}
_CURRENT = "cupel.api.current"
# What belongs to the current run, and so is asked for anew each time.
_OF_THE_RUN = {"run": "current_run", "config": "current_config", "summary": "current_summary"}


class _Face(ModuleType):
    """This module. `cupel.config` is the current run's, although a module of ours has that name.

    Importing that module would set the attribute; `from cupel.config import …` does not need it.
    """

    @property
    def config(self) -> Any:
        return __getattr__("config")

    @config.setter
    def config(self, given: Any) -> None:
        if not isinstance(given, ModuleType):  # old scripts say wandb.config = args
            self.config.update(given)


sys.modules[__name__].__class__ = _Face


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _OF_THE_RUN:
        return getattr(import_module(_CURRENT), _OF_THE_RUN[name])()
    if name == "__version__":
        from importlib.metadata import version

        return version("cupel")
    if name not in __all__:
        hint = "; of wandb's names it has those of its core, see docs/tracking.md"
        raise AttributeError(f"module 'cupel' has no attribute '{name}'{hint}")
    found = getattr(import_module(_HOMES.get(name, _CURRENT)), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*__all__, *_OF_THE_RUN])
