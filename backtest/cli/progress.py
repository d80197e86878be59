"""Show progress on a terminal, for work that takes longer than a second."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING

import typer

from backtest.base import format_clock, format_rate, format_value
from backtest.base.compile_choice import COMPILING

if TYPE_CHECKING:
    from rich.live import Live

    from backtest.tune import Progress

PATIENCE = 1.0
"""Seconds before anything appears."""
EARLY = 0.5
"""The same for work that may take minutes."""
LONG = 10.0
"""Seconds from which on a phase says how long it takes without a terminal."""
COMPILES = "the first time compiles"
COMPILING_NOW = "waiting for the compiler, which is not counted"
STAGES = {
    "search": "searching",
    "neighbour": "looking around the best",
    "part": "looking at parts of the time",
}


class Meter:
    def __init__(self, what: str, unit: str = "", wait: str = COMPILES) -> None:
        self.what, self.unit, self.wait = what, unit, wait
        self.done, self.total, self.note = 0, 0, ""
        self.phase, self.began, self.is_announced = "", 0.0, False

    def set_note(self, text: str) -> None:
        self.note = text

    def report(self, done: int, total: int) -> None:
        self.note = "" if done > self.done else self.note
        self.done, self.total = done, total

    def report_phase(self, phase: str, done: int, total: int) -> None:
        if phase != self.phase:
            self.phase, self.began, self.is_announced = phase, time.monotonic(), False
        self.report(done, total)

    def print_phase(self, phase: str, done: int, total: int) -> None:
        self.report_phase(phase, done, total)
        whole = (time.monotonic() - self.began) / done * total if done else 0.0
        if whole >= LONG and done < total and not self.is_announced:
            self.is_announced = True
            typer.echo(f"{phase}: {total:,} in about {format_clock(whole)}", err=True)

    def report_search(self, now: Progress, objective: str) -> None:
        self.report(now.trials, now.total or 0)
        self.note = STAGES.get(now.stage, now.stage)
        if now.best_values:
            values = ", ".join(f"{k} {format_value(v)}" for k, v in now.best_values.items())
            self.note += f"; best {objective} {format_value(now.best_score)} at {values}"

    def describe(self, speed: float | None) -> str:
        what = f"{self.what}\n{self.phase}" if self.phase else self.what
        if not self.done:
            text = f"{what} ({self.wait})" if self.unit else what
        else:
            text = f"{what}: {self.done:,} {self.unit}".rstrip()
            text += f" of {self.total:,}" if self.total else ""
            text += f", {format_rate(speed)} per second" if speed and self.unit else ""
            text += f" ({COMPILING_NOW})" if COMPILING.is_running else ""
        return f"{text}, {self.note}" if self.note else text


@contextmanager
def show_progress(
    what: str, unit: str = "bars", *, wait: str = COMPILES
) -> Iterator[Callable[[int, int], None] | None]:
    meter = Meter(what, unit, wait)
    with draw(meter) as is_watched:
        yield meter.report if is_watched else None


@contextmanager
def show_activity(what: str, patience: float | None = None) -> Iterator[None]:
    with draw(Meter(what), patience):
        yield


@contextmanager
def show_phases(plan: str) -> Iterator[Callable[[str, int, int], None]]:
    meter = Meter(plan)
    with draw(meter, EARLY) as is_watched:
        yield meter.report_phase if is_watched else meter.print_phase


@contextmanager
def show_download(
    what: str,
) -> Iterator[tuple[Callable[[int, int], None] | None, Callable[[str], None]]]:
    meter = Meter(what, "days", "asking the venue")
    with draw(meter) as is_watched:
        if is_watched:
            yield meter.report, meter.set_note
        else:
            yield None, partial(print, file=sys.stderr, flush=True)


@contextmanager
def show_search(what: str, objective: str) -> Iterator[Callable[[Progress], None] | None]:
    meter = Meter(what, "sets")
    with draw(meter) as is_watched:
        yield partial(meter.report_search, objective=objective) if is_watched else None


@contextmanager
def draw(meter: Meter, patience: float | None = None) -> Iterator[bool]:
    if not sys.stderr.isatty():
        yield False
        return
    with ExitStack() as shown:
        wait = PATIENCE if patience is None else patience
        timer = threading.Timer(wait, lambda: shown.enter_context(build_live(meter)))
        timer.daemon = True
        timer.start()
        try:
            yield True
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
