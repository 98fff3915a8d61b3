"""Reports the progress of long work: as a bar on a terminal, elsewhere as one line per minute."""

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 60.0


class Reporting:
    """A scope of work, in which `reach` tells how much is done.

    Args:
        description: The name of the work.
        total: The amount of work, if it is known.
        done: How much was done before; it does not count for the speed.
        shown: Whether this process reports anything.
    """

    def __init__(self, description: str, total: int | None = None, done: int = 0, shown: bool = True):
        self._description = description
        self._total = total
        self._before = done
        self._begun = self._said = time.monotonic()
        console = Console(stderr=True)
        self._lines = shown and not console.is_terminal
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
        )
        self._bar = Progress(
            *columns, TimeRemainingColumn(), console=console, transient=True, disable=not shown or self._lines
        )
        self._task = self._bar.add_task(description, total=total, completed=done, speed="")

    def __enter__(self) -> "Reporting":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def reach(self, done: int) -> None:
        """Report that `done` of the work is done."""
        now = time.monotonic()
        speed = (done - self._before) / max(now - self._begun, 1e-9)
        self._bar.update(self._task, completed=done, speed=f"{speed:,.1f}/s")
        if self._lines and now - self._said >= SECONDS_BETWEEN_LINES:
            self._said = now
            of = "" if self._total is None else f" of {self._total:,}"
            left = "" if self._total is None or not speed else f", {(self._total - done) / speed / 60:.0f} minutes left"
            print(f"{self._description}: {done:,}{of}, {speed:,.1f}/s{left}", file=sys.stderr, flush=True)
