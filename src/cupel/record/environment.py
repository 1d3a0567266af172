"""On what and from what a session ran: code, packages, machine, command.

About 0.1 s, most of it git. Nothing here can fail a run: what cannot be found out is left out or
None. The name of the user is not recorded, and the home folder is written as `~`. Files that git
does not track are not seen: their code is recorded by nobody.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PATCH_LIMIT = 5_000_000  # bytes; a larger difference is data, not code

_GIT_TIMEOUT_S = 5.0
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "MKL_NUM_THREADS")


def collect() -> dict[str, Any]:
    """All facts about this process, its code and its machine, ready for JSON."""
    return {
        "git": git_state(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages(),
        "cpu": {
            "model": _cpu_model(),
            "count": os.cpu_count(),
            "affinity": _affinity(),
            "load_average": list(os.getloadavg()),
        },
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": _gpus(),
        "threads": {name: os.environ.get(name) for name in _THREAD_VARIABLES},
        "argv": [_without_home(argument) for argument in sys.argv],
        "cwd": _without_home(str(Path.cwd())),
        "host": socket.gethostname(),
    }


# Facts on which the bits of a result may depend, as paths into env.json.
_BITS_DEPEND_ON = (
    ("git", "commit"),
    ("dirty_patch_sha256",),
    ("python",),
    ("torch",),
    ("torch_threads",),
    ("cpu", "model"),
    ("gpus",),
)


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two sessions' environments that may change bits: `torch: 2.6 -> 2.7`."""
    pairs = [(path, _at(before, path), _at(now, path)) for path in _BITS_DEPEND_ON]
    return [f"{' '.join(path)}: {old} -> {new}" for path, old, new in pairs if old != new]


def _at(facts: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    found: Any = facts
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def git_state() -> dict[str, Any] | None:
    """Commit, branch, and whether tracked files differ from it; None outside a repository."""
    out = _git("status", "--porcelain=v2", "--branch", "--untracked-files=no")
    if out is None:
        return None
    lines = out.decode(errors="replace").splitlines()
    heads = dict(line[2:].split(" ", 1) for line in lines if line.startswith("# "))
    commit = heads.get("branch.oid", "(initial)")
    return {
        "commit": None if commit == "(initial)" else commit,
        "branch": heads.get("branch.head"),
        "dirty": any(not line.startswith("#") for line in lines),
    }


def dirty_patch() -> bytes | None:
    """What tracked files differ by from the commit; None for nothing, no git, or over 5 MB."""
    patch = _git("diff", "HEAD", "--no-ext-diff", "--no-color", "--no-textconv")
    return patch if patch and len(patch) <= PATCH_LIMIT else None


def packages() -> dict[str, str]:
    """Name → version of every installed distribution, by name; the first on the path counts."""
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        metadata = distribution.metadata
        if metadata["Name"]:
            found.setdefault(metadata["Name"], metadata["Version"])
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def _git(*arguments: str) -> bytes | None:
    # Without optional locks git only reads: a `git commit` beside us is not disturbed.
    command = ["git", "--no-optional-locks", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_GIT_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def _cpu_model() -> str:
    try:
        with Path("/proc/cpuinfo").open() as lines:
            names = (line.partition(":")[2].strip() for line in lines if line[:10] == "model name")
            return next(names, platform.processor())
    except OSError:
        return platform.processor()


def _affinity() -> list[int] | None:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def _gpus() -> list[dict[str, str]]:
    # Asked of the driver's own tool: asking torch would start CUDA in this process.
    if shutil.which("nvidia-smi") is None:
        return []
    fields = ["name", "memory.total", "driver_version", "uuid"]
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=10, check=True, text=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [dict(zip(fields, line.split(", "), strict=False)) for line in done.stdout.splitlines()]


def _without_home(text: str) -> str:
    home = str(Path.home())
    return text.replace(home, "~") if len(home) > 1 else text
