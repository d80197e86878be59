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
    Place,
    format_duration,
    parse_duration,
    repr_plain,
)
from backtest.risk.paths.path_set import Paths

WHERE = "bt.liquidation_risk"
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
    chosen = METHODS.check("method", method, where=Place("method", of=WHERE))
    level = Number(0.0, 1.0, open_low=True, open_high=True)
    sure = level.check("confidence", confidence, where=Place("confidence", of=WHERE))
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise ParameterError(
            f"threads must be a whole number of at least 1, got {threads!r}",
            where=Place("threads", of=WHERE),
            cure="give threads=2",
        )
    names = read_horizons(paths, horizons)
    bars = np.array([count_bars(paths, name) for name in names], dtype=np.int64)
    return Question(names, bars - 1, sure, chosen, threads, progress)


def read_horizons(paths: Paths, horizons: Sequence[str] | None) -> tuple[str, ...]:
    if horizons is None:
        fit = tuple(x for x in USUAL if parse_duration(x, where=WHERE) <= paths.horizon)
        usable = tuple(x for x in fit if count_bars(paths, x, is_strict=False) > 0)
        is_whole = any(parse_duration(x, where=WHERE) == paths.horizon for x in usable)
        return usable if is_whole else (*usable, format_duration(paths.horizon))
    given = (horizons,) if isinstance(horizons, str) else horizons
    if not isinstance(given, list | tuple) or not given:
        found = "none" if isinstance(given, list | tuple) else repr_plain(given)
        raise ParameterError(
            f"horizons must name at least one, got {found}",
            where=Place("horizons", of=WHERE),
            cure="give ('1d', '7d')",
        )
    return tuple(given)


def count_bars(paths: Paths, horizon: str, *, is_strict: bool = True) -> int:
    span = parse_duration(horizon, where=Place("horizons", of=WHERE))
    calendar = paths.calendar
    closes = calendar.time[1:] + paths.history.interval
    start = int(calendar.time[0]) + paths.history.interval
    bars = int(np.sum(closes <= start + span))
    if is_strict and (span > paths.horizon or bars < 1):
        raise ParameterError(
            f"horizons must lie between a bar and the length of the paths, "
            f"{format_duration(paths.horizon)}, got {horizon}",
            where=Place("horizons", of=WHERE),
            cure="simulate longer paths, or give shorter horizons",
        )
    return bars
