"""The job of the comparison, as cupel runs it: a session with its record, 50 ms, its results.

python -m sleeping RUN_DIR SECONDS
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from cupel.record.claims import VARIABLE, Claim
from cupel.record.session import Session


def main(run_dir: Path, seconds: float) -> None:
    session = Session.start(
        root=run_dir.parents[1],
        project=run_dir.parent.name,
        name=run_dir.name,
        run_id=run_dir.name,
        config={"seconds": seconds},
        identity=run_dir.name,
        claim=Claim.from_text(run_dir, os.environ.pop(VARIABLE)),
    )
    session.begin_at(0)
    time.sleep(seconds)
    session.log({"loss": 1.0}, step=1)
    session.finish("finished", results={"step": 1, "final": {"loss": 1.0}})


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
