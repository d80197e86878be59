"""Show progress on a terminal, for work that takes longer than a second."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from backtest.base import format_rate, format_value
from backtest.base.compile_choice import COMPILING

if TYPE_CHECKING:
    from rich.live import Live

    from backtest.tune import Progress

PATIENCE = 1.0
"""Seconds before anything appears."""
STAGES = {
    "search": "searching",
    "neighbour": "looking around the best",
    "part": "looking at parts of the time",
}


class Meter:
    def __init__(self, what: str, unit: str = "") -> None:
        self.what, self.unit, self.note = what, unit, ""
        self.done, self.total = 0, 0

    def report(self, done: int, total: int) -> None:
        self.note = "" if done > self.done else self.note
        self.done, self.total = done, total

    def report_search(self, now: Progress, objective: str) -> None:
        self.report(now.trials, now.total or 0)
        self.note = STAGES.get(now.stage, now.stage)
        if now.best_values:
            values = ", ".join(f"{k} {format_value(v)}" for k, v in now.best_values.items())
            self.note += f"; best {objective} {format_value(now.best_score)} at {values}"

    def describe(self, speed: float | None) -> str:
        text = self.what
        if self.done:
            text = f"{text}: {self.done:,} {self.unit}".rstrip()
            text += f" of {self.total:,}" if self.total else ""
            text += f", {format_rate(speed)} per second" if speed and self.unit else ""
        text += " (waiting for the compiler)" if COMPILING.is_running else ""
        return f"{text}, {self.note}" if self.note else text


@contextmanager
def show_progress(what: str, unit: str = "") -> Iterator[Callable[[int, int], None] | None]:
    with draw(Meter(what, unit)) as meter:
        yield meter.report if meter else None


@contextmanager
def draw(meter: Meter) -> Iterator[Meter | None]:
    """Yield the meter if somebody watches it."""
    if not sys.stderr.isatty():
        yield None
        return
    with ExitStack() as shown:
        timer = threading.Timer(PATIENCE, lambda: shown.enter_context(build_live(meter)))
        timer.daemon = True
        timer.start()
        try:
            yield meter
        finally:
            timer.cancel()
            timer.join()


def build_live(meter: Meter) -> Live:
    from rich.console import Console, Group  # noqa: PLC0415 - most runs are over before
    from rich.live import Live  # noqa: PLC0415
    from rich.progress import BarColumn, Progress, TimeRemainingColumn  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    console = Console(stderr=True)
    bar = Progress(BarColumn(60), TimeRemainingColumn(compact=True), console=console)
    task = bar.add_task("", total=None)

    def render() -> Group:
        bar.update(task, completed=meter.done, total=(meter.done and meter.total) or None)
        return Group(Text(meter.describe(bar.tasks[0].speed)), bar)

    return Live(get_renderable=render, console=console, transient=True, refresh_per_second=5)
