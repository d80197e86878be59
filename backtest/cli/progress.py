"""Show on a terminal how far work is that takes longer than a second."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from backtest.base.compile_time import COMPILING
from backtest.base.number_text import format_clock, format_value

if TYPE_CHECKING:
    from rich.live import Live

    from backtest.tune import Progress

PATIENCE = 1.0
"""Seconds of silence before anything appears."""
SHOWN = 6
"""The best sets so far that are shown, the last one below."""
COMPILES = "the first time compiles"
COMPILING_NOW = "waiting for the compiler, which is not counted"
STAGES = {
    "search": "searching",
    "neighbour": "looking around the best",
    "part": "looking at parts of the time",
}


@contextmanager
def show_progress(
    what: str, unit: str = "bars", *, wait: str = COMPILES
) -> Iterator[Callable[[int, int], None] | None]:
    """Yield a function to call with how many are done and how many there are.

    None where nobody watches. ``wait`` says why nothing is done yet.
    """
    meter = Meter(what, unit, wait)
    with draw(meter) as is_watched:
        yield meter.report if is_watched else None


@contextmanager
def show_activity(what: str) -> Iterator[None]:
    """Show that something is being done, for what cannot count how far it is."""
    with draw(Meter(what, "")):
        yield


@contextmanager
def show_download(
    what: str,
) -> Iterator[tuple[Callable[[int, int], None] | None, Callable[[str], None]]]:
    """Yield a function to call with days done and days in all, and one to call with trouble.

    Where nobody watches the first is None, and the second prints lines to stderr.
    """
    meter = Meter(what, "days", "asking the venue")
    with draw(meter) as is_watched:
        yield (meter.report, meter.take_note) if is_watched else (None, print_line)


def print_line(text: str) -> None:
    """Print a line to stderr."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


@contextmanager
def show_search(what: str, objective: str) -> Iterator[Callable[[Progress], None] | None]:
    """Yield a function to call with how far a search is, which shows the best so far.

    None where nobody watches.
    """
    board = Board(what, objective)
    with draw(board) as is_watched:
        yield board.take if is_watched else None


class Meter:
    """How far some work is, and what a terminal shows of it."""

    def __init__(self, what: str, unit: str, wait: str = COMPILES) -> None:
        self.what = what
        self.unit = unit
        self.wait = wait
        self.done, self.total = 0, 0
        self.note = ""

    def take_note(self, text: str) -> None:
        """Show a text until there is more progress."""
        self.note = text

    def report(self, done: int, total: int) -> None:
        """Take the state of the work."""
        self.note = "" if done > self.done else self.note
        self.done, self.total = done, total

    def describe(self, speed: float | None = None) -> str:
        """Return how far the work is, at which speed, and what it waits for."""
        if not self.done:
            text = f"{self.what} ({self.wait})" if self.unit else self.what
            return f"{text} {self.note}".rstrip()
        text = f"{self.what}: {self.done:,} {self.unit}"
        text += f" of {self.total:,}" if self.total else ""
        text += f", {speed:,.0f} per second" if speed else ""
        text += f" ({COMPILING_NOW})" if COMPILING.is_running else ""
        return f"{text} {self.note}".rstrip()

    def draw_above(self) -> list[Any]:
        """Return what stands above the bar."""
        return []


class Board(Meter):
    """How far a search is, and the best sets so far."""

    def __init__(self, what: str, objective: str) -> None:
        super().__init__(what, "sets")
        self.objective = objective
        self.stage = ""
        self.best: list[Progress] = []

    def take(self, now: Progress) -> None:
        """Take the state of the search."""
        if now.best_values and (not self.best or now.best_score > self.best[-1].best_score):
            self.best = [*self.best, now][-SHOWN:]
        self.stage = f", {STAGES.get(now.stage, now.stage)}"
        self.report(now.trials, now.total or 0)

    def describe(self, speed: float | None = None) -> str:
        """Return how far the search is, and what it does."""
        return super().describe(speed) + self.stage

    def draw_above(self) -> list[Any]:
        """Return the table of the best sets so far, the last one below."""
        if not self.best:
            return []
        from rich import box  # noqa: PLC0415 - most searches are over before
        from rich.table import Table  # noqa: PLC0415

        names = list(self.best[-1].best_values)
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1))
        for name in ("best so far", self.objective, *names):
            table.add_column(name, justify="right", overflow="fold")
        for each in self.best:
            values = [format_value(each.best_values[name]) for name in names]
            place = f"{format_clock(each.seconds)}, {each.trials:,} sets"
            table.add_row(place, format_value(each.best_score), *values)
        return [table]


# ---------------------------------------------------------------------------------- the terminal


@contextmanager
def draw(meter: Meter) -> Iterator[bool]:
    """Draw on a terminal's stderr, after a while; yield whether it is one."""
    if not sys.stderr.isatty():
        yield False
        return
    with ExitStack() as shown:
        timer = threading.Timer(PATIENCE, lambda: shown.enter_context(build_live(meter)))
        timer.daemon = True
        timer.start()
        try:
            yield True
        finally:
            timer.cancel()
            timer.join()


def build_live(meter: Meter) -> Live:
    """Return the display of a meter, which redraws itself and leaves nothing behind."""
    from rich.console import Console, Group  # noqa: PLC0415 - most runs are over before
    from rich.live import Live  # noqa: PLC0415
    from rich.progress import BarColumn, Progress, TimeRemainingColumn  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(stderr=True)
    bar = Progress(BarColumn(60), TimeRemainingColumn(compact=True), console=console)
    task = bar.add_task("", total=None)

    def render() -> Group:
        bar.update(task, completed=meter.done, total=(meter.done and meter.total) or None)
        return Group(*meter.draw_above(), Text(meter.describe(bar.tasks[0].speed)), bar)

    return Live(get_renderable=render, console=console, transient=True, refresh_per_second=5)
