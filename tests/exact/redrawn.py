"""`python redrawn.py KEY PART run …`: cupel, with QFE's projection drawn from KEY, not the seed.

So a resumed process would have another projection than the one that was killed, unless it comes
from the checkpoint. PART is left out of every checkpoint, as by forgetful.py; `nothing` is not.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

from cupel.cli.main import main
from cupel.models.wave.loss import QFE

key = int(sys.argv.pop(1))
made = QFE.__init__


def redrawn(self: QFE, settings: Any, **given: Any) -> None:
    made(self, settings, **{**given, "key": key})


QFE.__init__ = redrawn  # type: ignore[method-assign]
if sys.argv[1] == "nothing":
    del sys.argv[1]
    main()
runpy.run_path(str(Path(__file__).with_name("forgetful.py")), run_name="__main__")
