"""Puts this folder on the path, for tests and the processes they start: `fakes` is a module."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

HERE = str(Path(__file__).parent)
sys.path.insert(0, HERE)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [HERE, os.environ.get("PYTHONPATH")]))

# Under nohup a hang-up is ignored, also by cupel and by the processes that tests start.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
