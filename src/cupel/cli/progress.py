"""What a person sees of a run while it trains: a bar on a terminal, plain lines anywhere else.

It goes to stderr, so that stdout holds results only. The bar is redrawn by the training thread, at
most twice a second; there is no thread of its own to race with. A call of `update` that draws
nothing costs less than a microsecond, and a loss that is a tensor is only read (which waits
for the device) when it is drawn. On a log a line is written for each tenth of the run, and
after ten seconds at most.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, SupportsFloat

from cupel.cli.streams import telling, told_console

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar

REDRAW_S = 0.5
LINE_S = 10.0


class Progress:
    """The display of one session: `preparing`, `start`, then `update` and others, then `stop`.

    `stop` may be called at any time and more than once; after it `line` still prints. Give a
    `console` to write elsewhere than to stderr.
    """

    def __init__(
        self, *, console: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        console = console or told_console()
        self._console = console
        self._clock = clock
        self._bar: Bar | None = None
        self._started = self._next = clock()
        self._start_step = self._total = self._tenth = 0
        self._latest: tuple[int, SupportsFloat, SupportsFloat | None] | None = None
        self._shown: int | None = None
        self._val = ""

    def preparing(self, text: str) -> None:
        """Say what is done before the first step, as "preparing data"."""
        self.line(f"{text} …")

    def start(self, name: str, total_steps: int, start_step: int = 0) -> None:
        """Begin to show steps; `start_step` of them were done by earlier sessions."""
        assert self._bar is None, "the display has been started already"
        resumed = f", resumed after step {start_step:,}" if start_step else ""
        self.line(f"{name}: {total_steps:,} steps{resumed}")
        self._start_step, self._total = start_step, total_steps
        self._tenth = self._tenth_of(start_step)
        self._started = self._next = self._clock()
        if self._console.is_terminal:
            self._bar = _bar(self._console)
            self._bar.add_task("", total=total_steps, completed=start_step, status="starting")
            with telling():
                self._bar.start()

    def update(
        self, step: int, *, loss: SupportsFloat, tokens_per_s: SupportsFloat | None = None
    ) -> None:
        """Step `step` is done, with this loss in nats."""
        self._latest = (step, loss, tokens_per_s)
        if self._clock() >= self._next or (self._bar is None and step >= self._tenth):
            self._show()

    def evaluated(
        self,
        step: int,
        val_loss: float,
        best: float | None = None,
        reference: tuple[str, float] | None = None,
    ) -> None:
        """Print an evaluation; `best` is the lowest validation loss before this one, if any.

        `reference` is a level to compare with, as ("bigram entropy", 2.45).
        """
        self._val = f"val {number(val_loss)}"
        parts = [f"step {step:,}: validation loss {number(val_loss)}"]
        if best is not None:
            parts.append("the lowest so far" if val_loss < best else f"lowest {number(best)}")
        if reference is not None and math.isfinite(val_loss):
            name, level = reference
            side = "below" if val_loss < level else "above"
            parts.append(f"{abs(val_loss - level):.4f} {side} {name} {number(level)}")
        self.line(", ".join(parts))

    def line(self, text: str) -> None:
        """Print a line that stays: a checkpoint that was saved, a warning."""
        with telling():
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def stop(self) -> None:
        """Show the last step and leave the terminal as it was."""
        if self._latest is not None and self._shown != self._latest[0]:
            self._show()
        self._latest = None
        if self._bar is not None:
            with telling():
                self._bar.stop()
            self._bar = None

    def _show(self) -> None:
        assert self._latest is not None
        step = self._latest[0]
        status = self._status(*self._latest)
        self._shown = step
        if self._bar is not None:
            task = self._bar.task_ids[0]
            with telling():
                self._bar.update(task, completed=step, status=status, refresh=True)
            self._next = self._clock() + REDRAW_S
        else:
            self.line(status)
            self._next = self._clock() + LINE_S
            self._tenth = self._tenth_of(step)

    def _status(self, step: int, loss: SupportsFloat, speed: SupportsFloat | None) -> str:
        """What matters most comes first: a narrow terminal cuts the end."""
        parts = [f"step {step:,}/{self._total:,}", f"loss {number(float(loss))}"]
        if self._val:
            parts.append(self._val)
        elapsed, done = self._clock() - self._started, step - self._start_step
        if done > 0:
            parts.append(f"{duration(elapsed / done * (self._total - step))} left")
        if speed is not None:
            parts.append(f"{float(speed):,.0f} tok/s")
        return "  ".join([*parts, f"{duration(elapsed)} elapsed"])

    def _tenth_of(self, step: int) -> int:
        """The first step of the next tenth of the run."""
        tenth = 10 * step // max(1, self._total) + 1
        return -(-tenth * self._total // 10)


def number(loss: float) -> str:
    """A loss with four decimals; NaN and infinities by name, so that nobody overlooks them."""
    if math.isnan(loss):
        return "NaN"
    if math.isinf(loss):
        return "Infinity" if loss > 0 else "-Infinity"
    return f"{loss:.4f}" if abs(loss) < 1e4 else f"{loss:.3e}"


def duration(seconds: float) -> str:
    """Seconds as `0:07`, `12:34` or `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _bar(console: Console) -> Bar:
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.table import Column

    text = TextColumn(
        "{task.fields[status]}",
        markup=False,
        table_column=Column(no_wrap=True, overflow="ellipsis"),
    )
    # stdout stays as it is: rich would send what is printed there to stderr.
    return Progress(
        text,
        BarColumn(bar_width=None),
        console=console,
        auto_refresh=False,
        redirect_stdout=False,
        expand=True,
    )
