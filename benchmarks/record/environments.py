"""A virtual environment for each peer, at the versions pinned here, under .bench/peers.

Made once, one after the other (about 2 GB and some minutes, most of it MLflow, Aim and torch); an
environment whose pins changed is made anew. Peers never share one: their requirements conflict.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

HOME = Path(__file__).parents[2] / ".bench" / "peers"
PINS = {
    "trackio": ("trackio==0.43.0",),
    "wandb": ("wandb==0.31.0",),
    "tensorboard": ("tensorboard==2.21.0", "torch==2.13.0"),
    "tensorboardX": ("tensorboardX==2.6.5", "tensorboard==2.21.0"),
    "mlflow": ("mlflow==3.17.2",),
    "aim": ("aim==3.29.1",),
}
PEERS = {
    "trackio": "trackio",
    "wandb offline": "wandb",
    "tensorboard": "tensorboard",
    "tensorboardX": "tensorboardX",
    "mlflow": "mlflow",
    "aim": "aim",
}


def python_of(backend: str) -> str:
    """The interpreter that runs a backend: cupel's own for cupel, else the peer's."""
    return str(_bin(PEERS[backend]) / "python") if backend in PEERS else sys.executable


def make(backend: str) -> str | None:
    """Make a backend's environment unless it is there; what went wrong, or None."""
    if backend not in PEERS:
        return None
    name = PEERS[backend]
    folder, pins = HOME / name, "\n".join(PINS[name])
    done = folder / "pins.txt"
    if done.exists() and done.read_text() == pins:
        return None
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    pip = [str(_bin(name) / "python"), "-m", "pip", "--disable-pip-version-check"]
    installed = subprocess.run(
        [*pip, "install", "--quiet", *PINS[name]], capture_output=True, text=True, check=False
    )
    if installed.returncode:
        return f"{name} cannot be installed: {installed.stderr.strip().splitlines()[-1]}"
    done.write_text(pins)
    return None


def _bin(name: str) -> Path:
    return HOME / name / "bin"
