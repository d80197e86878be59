"""What to estimate on paths: horizons, confidence, and method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from backtest.base import (
    Choice,
    IntArray,
    Number,
    ParameterError,
    Whole,
    format_duration,
    parse_duration,
    repr_plain,
)
from backtest.risk.paths.path_set import Paths

USUAL = ("1d", "7d", "30d")
METHODS = Choice("auto", "plain")


PhaseProgress = Callable[[str, int, int], None]


class Question(NamedTuple):
    names: tuple[str, ...]
    bars: IntArray
    confidence: float
    method: str
    threads: int
    progress: PhaseProgress | None


def read_question(
    paths: Paths,
    horizons: Sequence[str] | None,
    confidence: float,
    method: str,
    threads: int,
    progress: PhaseProgress | None,
) -> Question:
    chosen = METHODS.check("method", method)
    level = Number(0.0, 1.0, open_low=True, open_high=True)
    sure = level.check("confidence", confidence)
    threads = Whole(1).check("threads", threads)
    names = read_horizons(paths, horizons)
    bars = np.array([count_bars(paths, name) for name in names], dtype=np.int64)
    return Question(names, bars - 1, sure, chosen, threads, progress)


def read_horizons(paths: Paths, horizons: Sequence[str] | None) -> tuple[str, ...]:
    if horizons is None:
        fit = tuple(x for x in USUAL if parse_duration(x) <= paths.horizon)
        usable = tuple(x for x in fit if count_bars(paths, x, is_strict=False) > 0)
        is_whole = any(parse_duration(x) == paths.horizon for x in usable)
        return usable if is_whole else (*usable, format_duration(paths.horizon))
    given = (horizons,) if isinstance(horizons, str) else horizons
    if not isinstance(given, list | tuple) or not given:
        raise ParameterError(f"horizons must be a list of durations, got {repr_plain(given)}")
    return tuple(given)


def count_bars(paths: Paths, horizon: str, *, is_strict: bool = True) -> int:
    span = parse_duration(horizon, "horizons")
    calendar = paths.calendar
    closes = calendar.time[1:] + paths.history.interval
    start = int(calendar.time[0]) + paths.history.interval
    bars = int(np.sum(closes <= start + span))
    if is_strict and (span > paths.horizon or bars < 1):
        raise ParameterError(
            "horizons must lie between a bar and the length of the paths, "
            f"{format_duration(paths.horizon)}, got {horizon}"
        )
    return bars
