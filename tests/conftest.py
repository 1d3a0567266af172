"""What all tests share: this folder on the path (`fakes` is a module), signals as a terminal has
them, no deadlines for what Hypothesis tries (machines are shared), no dashboard that nobody asked
for, and `gate`, which holds checkpoints back."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

HERE = str(Path(__file__).parent)
sys.path.insert(0, HERE)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [HERE, os.environ.get("PYTHONPATH")]))

os.environ["CUPEL_DASHBOARD"] = "0"  # tests of it set it themselves, and end what they started

settings.register_profile("cupel", deadline=None)
settings.load_profile("cupel")

# Under nohup a hang-up is ignored, and behind `&` of a script Ctrl-C and Ctrl-\\ are, also by cupel
# and by the processes that tests start.
for _number, _usual in (
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGQUIT, signal.SIG_DFL),
    (signal.SIGINT, signal.default_int_handler),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What shares a port, a cluster or a costly fixture runs in one process, or not at all.

    xdist 3.8 tells its scheduler the groups by the names of tests, which pytest 9.2 ignores.
    """
    if not getattr(config.option, "loadgroup", False):
        return
    for item in items:
        if item.get_closest_marker("xdist_group") and "@" not in item.nodeid:
            raise pytest.UsageError(
                f"pytest {pytest.__version__} and xdist do not keep groups of tests together; "
                "constraints.txt names versions that do: rm .venv/.ready, then make test"
            )


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Until it is set, or the test has ended, no checkpoint gets past its first file."""
    from cupel.checkpoint import folder

    opened = threading.Event()
    write = folder.write

    def held(*given: Any, **named: Any) -> Any:
        assert opened.wait(30)
        return write(*given, **named)

    monkeypatch.setattr(folder, "write", held)
    yield opened
    opened.set()
