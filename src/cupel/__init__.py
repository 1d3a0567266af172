"""cupel: a local-first laboratory for training experiments in PyTorch.

    import cupel
    with cupel.init(project="demo", config={"lr": 0.1}) as run:
        run.log({"loss": 0.5}, step=1)

Importing this loads neither torch nor numpy; names are fetched when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cupel.api.current import finish, init, log
    from cupel.api.run import Run

__all__ = ["Run", "finish", "init", "log"]

_HOMES = {
    "Run": "cupel.api.run",
    "finish": "cupel.api.current",
    "init": "cupel.api.current",
    "log": "cupel.api.current",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'cupel' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
