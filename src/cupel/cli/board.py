"""What a person sees of a study while it runs: one table on a terminal, plain lines elsewhere.

It goes to stderr. The table is drawn twice a second by whoever calls `tick`, from the records of
the runs; on a log a line is written when a run begins or ends, and one on all of them every ten
seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TYPE_CHECKING

from cupel.cli.progress import LINE_S, REDRAW_S, duration, number
from cupel.cli.streams import telling, told_console

if TYPE_CHECKING:
    from rich.console import Console, JustifyMethod, RenderableType
    from rich.live import Live

    from cupel.jobs.worker import Change
    from cupel.studies.manifest import Manifest, PlannedRun
    from cupel.studies.state import Look, RunState

_SETTLED = ("finished", "failed", "diverged", "damaged", "refused", "cancelled", "held")
# What a low terminal shows first.
_FIRST = (
    "running", "starting", "failed", "diverged", "refused", "damaged", "crashed", "silent",
    "interrupted", "waiting", "held", "cancelled", "planned", "finished",
)  # fmt: skip


class Board:
    """The display of one study: `start`, then `change` and `tick`, then `stop`.

    `stop` may be called at any time and more than once. Give a `console` to write elsewhere than
    to stderr.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        console = console or told_console()
        self._manifest, self._console, self._clock = manifest, console, clock
        self._labels = {run.run_id: label(run) for run in manifest.runs}
        self._pace: dict[str, tuple[int, float, int]] = {}  # session, when, step: first seen
        self._first: tuple[float, int, int] | None = None  # when, steps, accepted runs: of all
        self._live: Live | None = None
        self._next = clock()

    def start(self) -> None:
        """Begin to show."""
        self._next = self._clock() + (0 if self._console.is_terminal else LINE_S)
        if self._console.is_terminal:
            from rich.live import Live

            self._live = Live(
                console=self._console,
                auto_refresh=False,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            with telling():
                self._live.start()

    def change(self, change: Change) -> None:
        """Tell what happened to a run."""
        if change.kind == "stopping":
            told = f"stopping ({change.detail}): every run writes a checkpoint after its step"
            by_signal = change.detail.startswith("SIG")
            self.line(f"{told}; again, and they are killed" if by_signal else told)
            return
        if not change.name:  # of all runs, or of a place
            self.line(f"{change.kind:<11} {change.detail}")
            return
        text = f"{change.kind:<11} {self._labels[change.name]}"
        if change.kind == "finished":
            text += f"  {self._result(change.name)}"
        self.line(f"{text}: {change.detail}" if change.detail else text)

    def tick(self) -> None:
        """Draw, when it is time to."""
        if self._clock() < self._next:
            return
        self._next = self._clock() + (LINE_S if self._live is None else REDRAW_S)
        self._draw()

    def line(self, text: str) -> None:
        """Print a line that stays."""
        with telling():
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def stop(self) -> None:
        """Draw the last state and leave the terminal as it was."""
        self.look.close()
        if self._live is not None:
            self._draw()
            with telling():
                self._live.stop()
            self._live = None

    def _draw(self) -> None:
        states = self._states()
        if self._live is not None:
            with telling():
                self._live.update(self._table(states), refresh=True)
        else:
            running = [self._one(state) for state in states if state.status == "running"]
            self.line("; ".join([self._total(states), *running]))

    def _states(self) -> list[RunState]:
        states = self.look.states()
        for state in states:
            if state.status == "running":
                self._observe(state)
        if self._first is None:
            self._first = (self._clock(), *_done(states))
        return states

    @cached_property
    def look(self) -> Look:
        """What the display looks at the study with."""
        from cupel.studies.state import Look

        return Look(self._manifest)

    def _observe(self, state: RunState) -> None:
        """Remember where a session was first seen: its pace is counted from there."""
        seen = self._pace.get(state.run.run_id)
        if state.step > 0 and (seen is None or seen[0] != state.sessions):
            self._pace[state.run.run_id] = (state.sessions, self._clock(), state.step)

    def _steps_a_second(self, state: RunState) -> float | None:
        seen = self._pace.get(state.run.run_id)
        if seen is None or state.step <= seen[2] or self._clock() <= seen[1]:
            return None
        return (state.step - seen[2]) / (self._clock() - seen[1])

    def _left(self, state: RunState) -> str:
        pace = self._steps_a_second(state)
        return "" if pace is None else duration((state.steps - state.step) / pace)

    def _one(self, state: RunState) -> str:
        """`wave s1 step 120/900 loss 2.5100`."""
        text = f"{label(state.run)} step {state.step:,}/{state.steps:,}"
        return text if state.loss is None else f"{text} loss {number(state.loss)}"

    def _total(self, states: Iterable[RunState]) -> str:
        """`2 of 6 runs accepted, 1 failed, about 3:12 left`."""
        states = list(states)
        accepted = sum(state.status == "finished" for state in states)
        text = f"{accepted} of {len(states)} runs accepted"
        told = {"failed": ("failed", "damaged")} | {
            word: (word,) for word in ("diverged", "refused", "held", "cancelled")
        }
        for word, among in told.items():
            if count := sum(state.status in among for state in states):
                text += f", {count} {word}"
        steps = sum(state.steps - state.step for state in states if state.status not in _SETTLED)
        pace = self._overall(states)
        return f"{text}, about {duration(steps / pace)} left" if steps and pace > 0 else text

    def _overall(self, states: list[RunState]) -> float:
        """Steps a second of all that run: what they make now; once a run has ended, what all have
        made since we looked first, with what lies between two runs."""
        if self._first is not None:
            began, before, ended = self._first
            steps, accepted = _done(states)
            if accepted > ended and self._clock() > began:
                return (steps - before) / (self._clock() - began)
        running = [state for state in states if state.status == "running"]
        return sum(self._steps_a_second(state) or 0.0 for state in running)

    def _table(self, states: list[RunState]) -> RenderableType:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        for head in ("run", "state", "step", "loss", "val_loss", "left"):
            side: JustifyMethod = "left" if head in ("run", "state") else "right"
            table.add_column(head, justify=side, no_wrap=True)
        shown = self._shown(states)
        for state in shown:
            table.add_row(*map(Text, self._cells(state)))
        hidden = len(states) - len(shown)
        rest = f"; {hidden} not shown" if hidden else ""
        return Group(table, Text(self._total(states) + rest))

    def _cells(self, state: RunState) -> tuple[str, ...]:
        return (
            label(state.run),
            "accepted" if state.status == "finished" else state.status,
            f"{state.step:,}/{state.steps:,}",
            "" if state.loss is None else number(state.loss),
            "" if state.val_loss is None else number(state.val_loss),
            self._left(state) if state.status == "running" else "",
        )

    def _shown(self, states: list[RunState]) -> list[RunState]:
        """As many runs as the terminal has lines for: those that run, then those that failed."""
        room = max(1, self._console.height - 4)
        kept = sorted(range(len(states)), key=lambda i: (_FIRST.index(states[i].status), i))[:room]
        return [states[i] for i in sorted(kept)]

    def _result(self, run_id: str) -> str:
        state = self.look.state(self._manifest.run(run_id))
        val = "" if state.val_loss is None else f", val_loss {number(state.val_loss)}"
        return f"step {state.step:,}{val}, {duration(state.seconds)}"


def _done(states: Iterable[RunState]) -> tuple[int, int]:
    """The steps of all runs, and how many runs are accepted."""
    states = list(states)
    return sum(one.step for one in states), sum(one.status == "finished" for one in states)


def label(run: PlannedRun) -> str:
    """How a run is called among those of its study: `wave lr=0.001 s2`."""
    return " ".join(part for part in (run.arm, run.point, f"s{run.seed}") if part)
