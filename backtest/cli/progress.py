"""Progress of what takes longer than a second, on a terminal's stderr."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from backtest.base.compile_time import COMPILING
from backtest.base.number_text import format_clock, format_value

if TYPE_CHECKING:
    from backtest.tune import Progress

PATIENCE = 1.0
"""Seconds of silence before anything appears."""
TICK = 0.2
WIDTH = 60
SHOWN = 6
"""The best sets so far that are shown, the last one below."""
COMPILES = "the first time compiles"
COMPILING_NOW = "waiting for the compiler, which is not counted"
STAGES = {
    "search": "searching",
    "neighbour": "looking around the best",
    "part": "looking at parts of the time",
}

Draw = Callable[[Any], Any]


@contextmanager
def show_progress(
    what: str, unit: str = "bars", *, wait: str = COMPILES
) -> Iterator[Callable[[int, int], None] | None]:
    """Yield a function to call with how many are done and how many there are.

    None where nobody watches. ``wait`` says why nothing is done yet.
    """
    meter = Meter(what, unit, wait)
    with draw(meter.render) as is_watched:
        yield meter.report if is_watched else None


@contextmanager
def show_activity(what: str) -> Iterator[None]:
    """Show that something is being done, for what cannot count how far it is."""
    with draw(Meter(what, "").render):
        yield


@contextmanager
def show_download(
    what: str,
) -> Iterator[tuple[Callable[[int, int], None] | None, Callable[[str], None]]]:
    """Yield a function to call with days done and days in all, and one to call with trouble.

    Where nobody watches the first is None, and the second prints lines to stderr.
    """
    meter = Meter(what, "days", "asking the venue")
    with draw(meter.render) as is_watched:
        yield (meter.report, meter.take_note) if is_watched else (None, say)


def say(text: str) -> None:
    """Print a line to stderr."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


@contextmanager
def show_search(what: str, objective: str) -> Iterator[Callable[[Progress], None] | None]:
    """Yield a function to call with how far a search is, which shows the best so far.

    None where nobody watches.
    """
    board = Board(what, objective)
    with draw(board.render) as is_watched:
        yield board.report if is_watched else None


class Meter:
    """How far something is, how fast, and how long it will take."""

    def __init__(self, what: str, unit: str, wait: str = COMPILES) -> None:
        self.what = what
        self.unit = unit
        self.wait = wait
        self.done, self.total = 0, 0
        self.first = (0, math.nan)
        self.note = ""

    def take_note(self, text: str) -> None:
        """Show a text until there is more progress."""
        self.note = text

    def report(self, done: int, total: int) -> None:
        """Take note; where less is done than before, it is the next of several passes."""
        if math.isnan(self.first[1]) or done < self.done:
            self.first = (done, time.monotonic())
        self.note = "" if done > self.done else self.note
        self.done, self.total = done, total

    def find_rate(self) -> float:
        """Return how many are done per second; NaN while that is not known."""
        done, since = self.first
        elapsed = time.monotonic() - since
        return (self.done - done) / elapsed if elapsed > 0.0 and self.done > done else math.nan

    def describe(self) -> str:
        """Return how far it is, in words, and what it waits for."""
        waits = f" ({COMPILING_NOW})" if COMPILING.is_running and self.done else ""
        return f"{self.describe_rate()}{waits}"

    def describe_rate(self) -> str:
        """Return how far it is, how fast, and how long it will take."""
        if not self.done:
            return f"{self.what} ({self.wait})" if self.unit else self.what
        text = f"{self.what}: {self.done:,} {self.unit}"
        rate = self.find_rate()
        if not self.total or math.isnan(rate):
            return text
        text = f"{text} of {self.total:,}, {rate:,.0f} per second"
        left = (self.total - self.done) / rate
        return f"{text}, {format_clock(left)} left" if self.done < self.total else text

    def render(self) -> Any:
        """Return what a terminal shows."""
        text = "\n".join(filter(None, (self.describe(), self.note)))
        return draw_bar(text, self.done, self.total)


class Board:
    """How far a search is, and the best sets so far."""

    def __init__(self, what: str, objective: str) -> None:
        self.what = what
        self.objective = objective
        self.meter = Meter(what, "sets")
        self.now: Progress | None = None
        self.best: list[Progress] = []

    def report(self, now: Progress) -> None:
        """Take note."""
        if now.best_values and (not self.best or now.best_score > self.best[-1].best_score):
            self.best = [*self.best, now][-SHOWN:]
        self.meter.report(now.trials, now.total or 0)
        self.now = now

    def render(self) -> Any:
        """Return what a terminal shows."""
        from rich.console import Group  # noqa: PLC0415 - most searches are over before

        now = self.now
        stage = "" if now is None else f", {STAGES.get(now.stage, now.stage)}"
        bar = draw_bar(self.meter.describe() + stage, self.meter.done, self.meter.total)
        return Group(self.draw_table(), bar) if self.best else bar

    def draw_table(self) -> Any:
        """Return the best sets so far, the last one below."""
        from rich import box  # noqa: PLC0415 - as above
        from rich.table import Table  # noqa: PLC0415

        names = list(self.best[-1].best_values)
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1))
        for name in ("best so far", self.objective, *names):
            table.add_column(name, justify="right", overflow="fold")
        for each in self.best:
            values = [format_value(each.best_values[name]) for name in names]
            place = f"{format_clock(each.seconds)}, {each.trials:,} sets"
            table.add_row(place, format_value(each.best_score), *values)
        return table


# ---------------------------------------------------------------------------------- the terminal


@contextmanager
def draw(render: Callable[[], Any]) -> Iterator[bool]:
    """Draw on a terminal's stderr, after a while; yield whether it is one."""
    if not sys.stderr.isatty():
        yield False
        return
    finished = threading.Event()
    watcher = threading.Thread(target=_draw, args=(render, finished), daemon=True)
    watcher.start()
    try:
        yield True
    finally:
        finished.set()
        watcher.join()


def _draw(render: Callable[[], Any], finished: threading.Event) -> None:
    """Wait, then draw until it is finished; nothing is left behind."""
    if finished.wait(PATIENCE):
        return
    from rich.console import Console  # noqa: PLC0415 - most runs are over before
    from rich.live import Live  # noqa: PLC0415

    console = Console(stderr=True)
    with Live(console=console, transient=True, auto_refresh=False) as live:
        while True:
            live.update(render(), refresh=True)
            if finished.wait(TICK):
                return


def draw_bar(text: str, done: int, total: int) -> Any:
    """Return a text with a bar below it, which only moves while there is no total."""
    from rich.console import Group  # noqa: PLC0415 - most runs are over before
    from rich.progress_bar import ProgressBar  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    is_known = done > 0 and total > 0
    bar = ProgressBar(
        total=total if is_known else None,
        completed=done,
        width=WIDTH,
        pulse=not is_known,
        animation_time=time.monotonic(),
    )
    return Group(Text(text), bar)
