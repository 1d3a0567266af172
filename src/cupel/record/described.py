"""`model.json` of a run: the module tree at the start, and what the first training step adds.

`ModelFile.begin` writes the tree at once, so that a run that dies early has it. `watch` puts hooks
on the model for one training pass, and `complete` writes the file again with `calls`. A session
that resumes finds what an earlier one wrote: where that is whole and still true of the model it
stays as it is, and where only `calls` is missing (a kill came first) this session adds it.
"""

from __future__ import annotations

from typing import Any

from cupel.errors import RecordError
from cupel.record.calls import Tracer, trace
from cupel.record.files import read_json
from cupel.record.model import describe_model
from cupel.record.session import Session

NAME = "model.json"


class ModelFile:
    """The file of one model, in one session. Only rank 0 makes one.

    With `replace` the file of another model is written over; without, it stays, and nothing is
    looked at.
    """

    def __init__(self, session: Session, model: Any, *, replace: bool) -> None:
        self._session, self._model, self._replace = session, model, replace
        self._described: dict[str, Any] = {}
        self._wanted = False  # whether `calls` is still to be seen
        self._tracer: Tracer | None = None

    def is_of(self, model: Any) -> bool:
        """Whether it is this very model's."""
        return self._model is model

    @property
    def seen(self) -> bool:
        """Whether the pass that was watched has ended."""
        return self._tracer is not None and self._tracer.done

    def begin(self) -> None:
        """Write the tree, unless the file has it. Raises Superseded or RecordError."""
        self._described = describe_model(self._model)
        if problems := self._described.get("problems"):
            told = "; ".join(f"{part}: {problem}" for part, problem in [*problems.items()][:3])
            more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
            self._session.problem(NAME, RecordError(f"not told: {told}{more}"))
        before = self._before()
        if before is None or (self._replace and not self._tells_of(before)):
            self._session.write_run_json(NAME, self._described)
            self._wanted = True
        elif self._tells_of(before) and not (before.get("calls") or {}).get("complete"):
            self._described = {**before, **self._described}
            self._wanted = True

    def watch(self) -> None:
        """See the model's next training pass, if that is still to be seen. Never raises."""
        if self._wanted and self._tracer is None:
            self._tracer = trace(self._model)

    def complete(self, step: int | None) -> None:
        """Look no longer, and write down what was seen in this step. Never raises; a second call
        does nothing.
        """
        tracer, self._tracer = self._tracer, None
        if tracer is None:
            return
        self._wanted = False
        try:
            calls = tracer.finish(step)
            if tracer.problem is not None:
                self._session.problem(f"{NAME}: calls", tracer.problem)
            if "problems" in self._described:  # a lazy model has its shapes by now
                self._described = describe_model(self._model)
            self._session.write_run_json(NAME, {**self._described, "calls": calls})
        except Exception as error:  # a full disk, a successor: training goes on
            self._session.problem(NAME, error)

    def leave(self) -> None:
        """Look no longer, and write nothing."""
        if self._tracer is not None:
            self._tracer.finish()
            self._tracer = None

    def _before(self) -> dict[str, Any] | None:
        """What an earlier session wrote, if it did and it can be read."""
        if not self._session.resumed:
            return None
        try:
            return read_json(self._session.run_dir / NAME)
        except RecordError:
            return None

    def _tells_of(self, before: dict[str, Any]) -> bool:
        """Whether what an older session (or an older version) wrote is true of this model."""
        return all(
            before[key] == value for key, value in self._described.items() if key in before
        ) and bool(before.keys() & self._described.keys())
