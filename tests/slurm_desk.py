"""A real Slurm for tests: `a_slurm()` starts one and ends it. Needs root and apt-get."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("slurm.sh")


@contextmanager
def a_slurm(*options: str) -> Iterator[Path]:
    """Its folder; this process, and those that it starts, use it meanwhile.

    `options` are those of `tests/slurm.sh start`. Several may run at a time, one inside the other.
    """
    if os.geteuid() != 0:
        pytest.skip("a Slurm of our own is started by root alone (tests/slurm.sh)")
    if not (shutil.which("apt-get") or shutil.which("slurmctld")):
        pytest.skip("Slurm is not installed, and neither is apt-get (tests/slurm.sh)")
    # Not pytest's folder: a socket's path must be short.
    folder = Path(tempfile.mkdtemp(prefix="cupel-slurm-", dir="/tmp"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        patch.setenv("CUPEL_SLURM_PORT", str(free_ports()))
        try:
            run("start", folder, *options)
            yield folder
        finally:
            run("stop", folder)
            shutil.rmtree(folder, ignore_errors=True)


def free_ports() -> int:
    """The first of four that nobody listens on, below those that the kernel gives away."""
    for first in range(20000, 32000, 4):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + 4):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
    raise AssertionError("no four ports in a row are free")


def run(verb: str, folder: Path, *options: str) -> None:
    """Call the script. Not by pipes: daemons would hold them open."""
    with tempfile.TemporaryFile("w+") as said:
        code = subprocess.call([SCRIPT, verb, folder, *options], stdout=said, stderr=said)
        said.seek(0)
        assert code == 0, said.read()
