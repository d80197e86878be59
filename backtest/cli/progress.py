"""A progress bar for what takes longer than a second, on a terminal's stderr."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PATIENCE = 1.0
"""Seconds of silence before the bar appears."""


@contextmanager
def show_progress(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """Yield a function to call with bars done and bars in all; None where nobody watches."""
    if not sys.stderr.isatty():
        yield None
        return
    reached = [0, 0]
    finished = threading.Event()

    def report(done: int, total: int) -> None:
        reached[:] = [done, total]

    watcher = threading.Thread(target=_draw, args=(what, reached, finished), daemon=True)
    watcher.start()
    try:
        yield report
    finally:
        finished.set()
        watcher.join()


@contextmanager
def show_activity(what: str) -> Iterator[None]:
    """Show that something is being done, for what cannot count how far it is."""
    with show_progress(what):
        yield


def _draw(what: str, reached: list[int], finished: threading.Event) -> None:
    """Wait, then draw until it is finished; the bar leaves nothing behind."""
    if finished.wait(PATIENCE):
        return
    from rich.console import Console  # noqa: PLC0415 - most runs are over before
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"{what} (the first time compiles)", total=None)
        while not finished.wait(0.1):
            done, total = reached
            if done:
                progress.update(
                    task, description=f"{what}: {done:,} bars", completed=done, total=total
                )
