"""On what and from what a session ran: code, packages, machine, command, some variables.

`at_once` takes about 5 ms; `in_time` what git needs to compare a tree (from 10 ms to seconds),
and a second or more where the driver of a GPU must wake: it is for a thread. Nothing here can fail
a run: what cannot be found out is left out or None. The name of the user is not recorded, the home
folder is written as `~`, and what looks like a key is masked (`cupel.record.secrets`). Files that
git does not track are not seen: their code is recorded by nobody.
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
from hashlib import sha256
from pathlib import Path
from typing import Any

from cupel.record import files, secrets

PATCH_LIMIT = 5_000_000  # bytes; a larger difference is data, not code

_GIT_TIMEOUT_S = 5.0
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "MKL_NUM_THREADS")


# What `keep` found: it holds for this process and for all that are forked from it.
_kept: dict[str, Any] = {}


def keep() -> None:
    """Find out once, for this process and its forks, what takes time: the state of the code, the
    packages, the GPUs, the machine. For a process whose forks run the code as it has imported it.
    """
    _kept.update(head=_git_head(), machine=_machine(), **in_time())
    if (_kept["git"] or {}).get("dirty"):
        _kept["patch"] = _masked_patch()


def kept() -> dict[str, Any]:
    """The facts of `in_time` where `keep` has found them already; empty otherwise."""
    return in_time() if _kept else {}


def collect() -> dict[str, Any]:
    """All facts about this process, its code and its machine, ready for JSON."""
    return {**at_once(), **in_time()}


def at_once() -> dict[str, Any]:
    """The facts that cost little; of `git` only commit and branch."""
    machine = _kept["machine"] if "machine" in _kept else _machine()
    cpu = {**machine["cpu"], "affinity": _affinity(), "load_average": _load_average()}
    return {
        "git": _kept["head"] if "head" in _kept else _git_head(),
        **machine,
        "cpu": cpu,
        "threads": {name: os.environ.get(name) for name in _THREAD_VARIABLES},
        "variables": {n: _without_home(value) for n, value in secrets.variables().items()},
        "argv": [_without_home(word) for word in secrets.arguments(sys.argv)],
        "cwd": _cwd(),
        "host": socket.gethostname(),
    }


def _machine() -> dict[str, Any]:
    """What stays the same for all processes of this Python on this machine."""
    return {
        "python": platform.python_version(),
        "platform": _platform(),
        "cpu": {"model": _cpu_model(), "count": os.cpu_count()},
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }


def _platform() -> str:
    """`platform.platform()`, but on Linux without the process that it starts for the processor."""
    if not sys.platform.startswith("linux"):
        return platform.platform()
    system, libc = os.uname(), "".join(platform.libc_ver())
    return f"{system.sysname}-{system.release}-{system.machine}" + (libc and f"-with-{libc}")


def in_time() -> dict[str, Any]:
    """The facts that may take seconds: the state of the code, the packages, the GPUs."""
    if _kept:
        return {name: _kept[name] for name in ("git", "packages", "gpus")}
    return {"git": git_state(), "packages": packages(), "gpus": _gpus()}


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


def _git_head() -> dict[str, Any] | None:
    out = _git("rev-parse", "HEAD", "--abbrev-ref", "HEAD")
    if out is None:  # no repository, or one without a commit: `git_state` tells them apart
        return None
    commit, branch = out.decode(errors="replace").split("\n")[:2]
    return {"commit": commit, "branch": "(detached)" if branch == "HEAD" else branch}


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


def keep_patch(path: Path) -> dict[str, Any]:
    """Write how the code differs from the commit, without keys; what env.json says of the file.

    The hash is of what is kept. Raises OSError, and leaves no part of a file then.
    """
    found = _kept["patch"] if "patch" in _kept else _masked_patch()
    if found is None:
        return {"dirty_patch_sha256": None}
    patch, masked = found
    files.write_bytes(path, patch)
    told = {"dirty_patch_sha256": sha256(patch).hexdigest()}
    return {**told, "dirty_patch_masked_lines": masked} if masked else told


def _masked_patch() -> tuple[bytes, int] | None:
    """The difference without keys, and in how many lines there were some."""
    patch = dirty_patch()
    return None if patch is None else secrets.masked_patch(patch)


def packages() -> dict[str, str]:
    """Name → version of every installed distribution, by name; the first on the path counts."""
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        try:
            text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
        except (OSError, ValueError):  # a damaged installation
            continue
        # `distribution.metadata` parses all of it as an e-mail, which takes six times as long.
        head = text.replace("\r\n", "\n").partition("\n\n")[0]
        fields = dict(line.split(": ", 1) for line in reversed(head.split("\n")) if ": " in line)
        if "Name" in fields and "Version" in fields:
            found.setdefault(fields["Name"].strip(), fields["Version"].strip())
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
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()  # starts a process, so only if it must


def _affinity() -> list[int] | None:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def _load_average() -> list[float] | None:
    try:
        return list(os.getloadavg())
    except OSError:
        return None


def _cwd() -> str | None:
    try:
        return _without_home(str(Path.cwd()))
    except OSError:  # deleted under us
        return None


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
    try:
        home = str(Path.home())
    except RuntimeError:  # a user without one
        return text
    return text.replace(home, "~") if len(home) > 1 else text
