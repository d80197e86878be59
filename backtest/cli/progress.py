"""Show progress on a terminal, for work that takes longer than a second."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

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
    meter = Meter(what, unit, wait)
    with draw(meter) as is_watched:
        yield meter.report if is_watched else None


@contextmanager
def show_activity(what: str, patience: float | None = None) -> Iterator[None]:
    with draw(Meter(what, ""), patience):
        yield


@contextmanager
def show_phases(plan: str) -> Iterator[Callable[[str, int, int], None]]:
    meter = PhaseMeter(plan)
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
    meter = SearchMeter(what, objective)
    with draw(meter) as is_watched:
        yield meter.report_search if is_watched else None


class Meter:
    def __init__(self, what: str, unit: str, wait: str = COMPILES) -> None:
        self.what = what
        self.unit = unit
        self.wait = wait
        self.done, self.total = 0, 0
        self.note = ""

    def set_note(self, text: str) -> None:
        self.note = text

    def report(self, done: int, total: int) -> None:
        self.note = "" if done > self.done else self.note
        self.done, self.total = done, total

    def describe(self, speed: float | None = None) -> str:
        if not self.done:
            text = f"{self.what} ({self.wait})" if self.unit else self.what
            return f"{text} {self.note}".rstrip()
        text = f"{self.what}: {self.done:,} {self.unit}"
        text += f" of {self.total:,}" if self.total else ""
        text += f", {format_rate(speed)} per second" if speed else ""
        text += f" ({COMPILING_NOW})" if COMPILING.is_running else ""
        return f"{text} {self.note}".rstrip()

    def draw_above(self) -> list[Any]:
        return []


class PhaseMeter(Meter):
    def __init__(self, plan: str, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(plan, "")
        self.clock = clock
        self.phase = ""
        self.began = 0.0
        self.is_announced = False
        self.over: list[str] = []

    def report_phase(self, phase: str, done: int, total: int) -> None:
        if phase != self.phase:
            if self.phase:
                self.over.append(f"{self.phase}: {self.done_units()}{self.took()}")
            self.phase, self.began, self.is_announced = phase, self.clock(), False
        self.report(done, total)

    def print_phase(self, phase: str, done: int, total: int) -> None:
        self.report_phase(phase, done, total)
        whole = self.estimate_seconds()
        if whole >= LONG and done < total and not self.is_announced:
            self.is_announced = True
            sys.stderr.write(f"{self.phase}: {total:,} in about {format_clock(whole)}\n")
            sys.stderr.flush()

    def done_units(self) -> str:
        return f"{self.done:,}, " if self.total > 1 else ""

    def took(self) -> str:
        return format_clock(self.clock() - self.began)

    def estimate_seconds(self) -> float:
        if not (self.done and self.total):
            return 0.0
        return (self.clock() - self.began) / self.done * self.total

    def describe(self, speed: float | None = None) -> str:  # noqa: ARG002 - phases have their own
        if not (self.done and self.total):
            return f"{self.phase} ({self.took()})" if self.phase else ""
        left = self.estimate_seconds() * (1.0 - self.done / self.total)
        return (
            f"{self.phase}: {self.done:,} of {self.total:,} ({self.done / self.total:.0%}), "
            f"{self.took()} so far, about {format_clock(left)} left"
        )

    def draw_above(self) -> list[Any]:
        from rich.text import Text  # noqa: PLC0415 - most runs are over before

        return [Text(each) for each in (self.what, *self.over)]


class SearchMeter(Meter):
    def __init__(self, what: str, objective: str) -> None:
        super().__init__(what, "sets")
        self.objective = objective
        self.stage = ""
        self.best: list[Progress] = []

    def report_search(self, now: Progress) -> None:
        if now.best_values and (not self.best or now.best_score > self.best[-1].best_score):
            self.best = [*self.best, now][-SHOWN:]
        self.stage = f", {STAGES.get(now.stage, now.stage)}"
        self.report(now.trials, now.total or 0)

    def describe(self, speed: float | None = None) -> str:
        return super().describe(speed) + self.stage

    def draw_above(self) -> list[Any]:
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
    columns = () if isinstance(meter, PhaseMeter) else (TimeRemainingColumn(compact=True),)
    bar = Progress(BarColumn(60), *columns, console=console)
    task = bar.add_task("", total=None)

    def render() -> Group:
        bar.update(task, completed=meter.done, total=(meter.done and meter.total) or None)
        return Group(*meter.draw_above(), Text(meter.describe(bar.tasks[0].speed)), bar)

    return Live(get_renderable=render, console=console, transient=True, refresh_per_second=5)
