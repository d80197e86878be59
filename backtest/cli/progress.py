"""Show progress on a terminal, for work that takes longer than a second."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from backtest.base.compile_time import COMPILING
from backtest.base.number_text import format_clock, format_rate, format_value

if TYPE_CHECKING:
    from rich.live import Live

    from backtest.tune import Progress

PATIENCE = 1.0
"""Seconds before anything appears."""
SHOWN = 6
"""Number of best sets that a search shows."""
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
    """Yield a function that takes the units done and the total; None without a terminal.

    ``wait`` explains why nothing is done yet.
    """
    meter = Meter(what, unit, wait)
    with draw(meter) as is_watched:
        yield meter.report if is_watched else None


@contextmanager
def show_activity(what: str) -> Iterator[None]:
    """Show that work is going on whose progress cannot be counted."""
    with draw(Meter(what, "")):
        yield


@contextmanager
def show_download(
    what: str,
) -> Iterator[tuple[Callable[[int, int], None] | None, Callable[[str], None]]]:
    """Yield a function that takes the days done and the total, and one that takes notices.

    Without a terminal the first is None, and the second prints lines to stderr.
    """
    meter = Meter(what, "days", "asking the venue")
    with draw(meter) as is_watched:
        if is_watched:
            yield meter.report, meter.set_note
        else:
            yield None, partial(print, file=sys.stderr, flush=True)


@contextmanager
def show_search(what: str, objective: str) -> Iterator[Callable[[Progress], None] | None]:
    """Yield a function that takes the progress of a search; None without a terminal."""
    meter = SearchMeter(what, objective)
    with draw(meter) as is_watched:
        yield meter.report_search if is_watched else None


class Meter:
    """The progress of some work, and how a terminal shows it."""

    def __init__(self, what: str, unit: str, wait: str = COMPILES) -> None:
        self.what = what
        self.unit = unit
        self.wait = wait
        self.done, self.total = 0, 0
        self.note = ""

    def set_note(self, text: str) -> None:
        """Show a text until there is more progress."""
        self.note = text

    def report(self, done: int, total: int) -> None:
        """Set how many units are done, and the total."""
        self.note = "" if done > self.done else self.note
        self.done, self.total = done, total

    def describe(self, speed: float | None = None) -> str:
        """Describe the progress, the speed, and what the work waits for."""
        if not self.done:
            text = f"{self.what} ({self.wait})" if self.unit else self.what
            return f"{text} {self.note}".rstrip()
        text = f"{self.what}: {self.done:,} {self.unit}"
        text += f" of {self.total:,}" if self.total else ""
        text += f", {format_rate(speed)} per second" if speed else ""
        text += f" ({COMPILING_NOW})" if COMPILING.is_running else ""
        return f"{text} {self.note}".rstrip()

    def draw_above(self) -> list[Any]:
        """Return the renderables above the progress bar."""
        return []


class SearchMeter(Meter):
    """The progress of a search, and its best sets so far."""

    def __init__(self, what: str, objective: str) -> None:
        super().__init__(what, "sets")
        self.objective = objective
        self.stage = ""
        self.best: list[Progress] = []

    def report_search(self, now: Progress) -> None:
        """Set the progress of the search."""
        if now.best_values and (not self.best or now.best_score > self.best[-1].best_score):
            self.best = [*self.best, now][-SHOWN:]
        self.stage = f", {STAGES.get(now.stage, now.stage)}"
        self.report(now.trials, now.total or 0)

    def describe(self, speed: float | None = None) -> str:
        """Describe the progress and the stage of the search."""
        return super().describe(speed) + self.stage

    def draw_above(self) -> list[Any]:
        """Return the table of the best sets so far, the latest at the bottom."""
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


@contextmanager
def draw(meter: Meter) -> Iterator[bool]:
    """Draw a meter on stderr after ``PATIENCE``; yield whether stderr is a terminal."""
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
    """Build the live display of a meter, which is erased at the end."""
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
