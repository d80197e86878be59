"""What benchmarks share: their command line, JSON, shares, and time: the least of works in turn."""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

INSTALLED = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
"""The environment of a process that finds the bytecode of its modules, as that of a user does."""


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


def count_share(claims: list[bool]) -> dict[str, Any]:
    """Return a share, its number, and its 95 % interval (Clopper and Pearson 1934)."""
    from scipy.stats import beta  # noqa: PLC0415 - a second, only where shares are counted

    n = len(claims)
    k = int(sum(claims))
    low = float(beta.ppf(0.025, k, n - k + 1)) if k else 0.0
    high = float(beta.ppf(0.975, k + 1, n - k)) if k < n else 1.0
    return {"n": n, "count": k, "share": k / n, "interval": [round(low, 4), round(high, 4)]}


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
    time_process(*words)
    return lambda: time_process(*words)


def time_process(*words: str) -> float:
    """Return the CPU seconds of Python with some words."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *words], check=True, capture_output=True, env=INSTALLED)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def best_of(repeat: int, *works: Callable[[], float]) -> list[float]:
    """Return the least of what each work says it took, the works taking turns."""
    best = [float("inf")] * len(works)
    for _ in range(repeat):
        best = [min(least, work()) for least, work in zip(best, works, strict=True)]
    return best


def describe_machine() -> dict[str, Any]:
    """Return the processor, its cores and their load."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }
