"""The peers and their environments, which are those of `make bench-record`."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

PEERS = ("tensorboard", "trackio")
_RECORD = Path(__file__).resolve().parents[1] / "record"


def neighbour(name: str) -> ModuleType:
    """A module of benchmarks/record, without making its folder part of the path."""
    spec = importlib.util.spec_from_file_location(f"record_{name}", _RECORD / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def python_of(tool: str) -> str:
    """The interpreter of a tool: cupel's own for cupel."""
    found: str = neighbour("environments").python_of(tool)
    return found


def made(tool: str) -> str | None:
    """Make a tool's environment unless it is there; what went wrong, or None."""
    problem: str | None = neighbour("environments").make(tool)
    return problem


def version_of(tool: str) -> str:
    """The version that runs."""
    code = f"import importlib.metadata as m; print(m.version({tool!r}))"
    told = subprocess.run([python_of(tool), "-c", code], capture_output=True, text=True, check=True)
    return told.stdout.strip()


if __name__ == "__main__":
    sys.exit("this is no command; see run.py")
