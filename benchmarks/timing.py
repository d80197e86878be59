"""How every benchmark takes time: works in turn, the least CPU time of each."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

INSTALLED = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
"""The environment of a process that finds the bytecode of its modules, as that of a user does."""
FIRST_TIMES = """
import sys, time
from typing import Annotated
import numpy as np
import backtest as bt

class Fresh(bt.Policy):
    half: Annotated[float, bt.Range(0, 9)] = 0.5
    def leverage(self, bar, account):
        return self.half + {number} * bar.close / bar.open

market = bt.Market.sample(bars=200)
terms = {{"venue": bt.Venue.preset("binance-usdm", "BTCUSDT"), "account": bt.Account()}}
start = time.perf_counter()
{work}
print(time.perf_counter() - start)
"""


def timed(work: Callable[[], Any], unit: float = 1.0) -> Callable[[], float]:
    """Return a function that does some work and says its CPU seconds / unit, after a first time."""
    work()

    def take() -> float:
        start = time.process_time()
        work()
        return (time.process_time() - start) / unit

    return take


def timed_process(*words: str) -> Callable[[], float]:
    """Return a function that runs Python with some words and says its CPU seconds."""

    def take() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *words], check=True, capture_output=True, env=INSTALLED)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    take()
    return take


def best_of(repeat: int, *works: Callable[[], float]) -> list[float]:
    """Return the least of what each work says it took, the works taking turns."""
    best = [float("inf")] * len(works)
    for _ in range(repeat):
        best = [min(least, work()) for least, work in zip(best, works, strict=True)]
    return best


def time_first(work: str) -> dict[str, float]:
    """Return the seconds of a policy's first work: all cold, a new policy, a second process.

    ``work`` is a line of Python that uses ``Fresh``, ``market`` and ``terms``.
    """
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "fresh.py"
        for name, number in (("cold", 0.25), ("new_policy", 0.26), ("second_process", 0.26)):
            script.write_text(FIRST_TIMES.format(number=number, work=work))
            done = subprocess.run(
                [sys.executable, str(script)], check=True, capture_output=True, text=True,
                env={**INSTALLED, "BACKTEST_CACHE_DIR": folder},
            )  # fmt: skip
            seconds[name] = float(done.stdout)
    return seconds


def describe_machine() -> dict[str, Any]:
    """Return the processor, its cores and their load."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }
