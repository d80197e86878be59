"""What benchmarks share: their command line, JSON, and time: works in turn, the least of each."""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
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


def read_flags(about: str | None, *places: str, **defaults: Any) -> argparse.Namespace:
    """Return the words of a command line; a flag has the type of its default.

    A place takes one word or more. So does a flag with a list; with a tuple, only words in it.
    """
    parser = argparse.ArgumentParser(description=(about or "").partition("\n")[0])
    for name in places:
        parser.add_argument(name, nargs="+")
    for name, default in defaults.items():
        flag = "--" + {"start": "from", "end": "to"}.get(name, name)
        if default is False:
            parser.add_argument(flag, dest=name, action="store_true")
            continue
        how: dict[str, Any] = {"type": type(default)}
        if isinstance(default, list | tuple):
            how = {"nargs": "+", "type": type(default[0])}
        if isinstance(default, tuple):
            how["choices"] = default
        parser.add_argument(flag, dest=name, default=default, **how)
    return parser.parse_args()


def print_json(report: Any) -> None:
    """Print what was found."""
    sys.stdout.write(json.dumps(report, indent=1, default=str) + "\n")


def list_engines() -> list[str]:
    """Return the engines of vectorbt that are installed, the faster one last."""
    return ["numba", *(["rust"] if find_spec("vectorbt_rust") else [])]


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
