"""The tolerances of a baseline's measures, and which way a measure became better."""

from __future__ import annotations

import contextlib
import fnmatch
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from backtest import core
from backtest.core import units
from backtest.results.measure_table import ABOUT
from backtest.results.measure_table import MONEY as MONEY_UNIT

FIGURES = {
    "walk_growth": ("growth_out_of_sample", 1),
    "walk_growth_in_sample": ("growth_in_sample", 0),
    "walk_growth_fixed": ("growth_fixed", 0),
    "walk_efficiency": ("efficiency", 1),
    "walk_efficiency_difference": ("efficiency_difference", 1),
    "walk_mean_rank": ("mean_rank", 1),
    "walk_probabilistic_sharpe": ("probabilistic_sharpe", 1),
}
"""Measures of a walk: its figure, and whether more of it is better (1), or neither (0)."""
OVERFIT = "walk_pbo"
BETTER_IF = {**{name: sign for name, (_, sign) in FIGURES.items()}, OVERFIT: -1}
"""Whether more of a measure of a walk is better (1), worse (-1), or neither (0)."""
FLOOR = 1e-12
"""Differences up to this count as rounding: a relative band of a measure of 0 has no width."""
WIDEST = 1e3
"""The widest relative tolerance; a wider one does not fail whatever the run does."""
STRICT = 1e-9
"""The relative tolerance of a measure for which none is given."""
BETTER = "better"
WORSE = "worse"
NEITHER = "neither better nor worse"
BEST_IF_NEVER = ("ruin_time", "time_to_first_liquidation")
"""Times that are NaN if what they time did not happen, which is the best outcome."""


class Band(NamedTuple):
    """A tolerance, relative or absolute; without both, any value lies in it."""

    relative: float | None = None
    absolute: float | None = None

    @property
    def is_open(self) -> bool:
        return self.relative is None and self.absolute is None

    def holds(self, was: float, now: float) -> bool:
        """Return whether a measure that was one value may be another one now."""
        if self.is_open or was == now:
            return True
        if math.isnan(was) and math.isnan(now):
            return True
        if not (math.isfinite(was) and math.isfinite(now)):
            return False

        width = self.absolute or 0.0
        if self.relative is not None:
            width = self.relative * abs(was)
        # A difference of exactly the width may be rounded to a little more.
        rounding = units.TOLERANCE * max(abs(was), abs(now))
        return abs(now - was) <= max(width, FLOOR) + rounding

    def __str__(self) -> str:
        if self.is_open:
            return "any"
        if self.relative is None:
            return f"{self.absolute:g}"
        if self.relative < 1e-4:
            return f"{self.relative:g} rel."
        return f"{self.relative * 100.0:g} %"

    def to_data(self) -> Any:
        if self.is_open:
            return "any"
        return {name: value for name, value in self._asdict().items() if value is not None}


def read_band(declared: object, name: str) -> Band:
    """Read a tolerance: ``0.05``, ``"5%"``, ``"any"``, or what :meth:`Band.to_data` returns.

    Raises ParameterError for anything else, and for a relative one over :data:`WIDEST`.
    """
    if isinstance(declared, str) and declared.strip() == "any":
        return Band()

    kind: Any = "absolute"
    value = declared
    if isinstance(declared, Mapping) and len(declared) == 1:
        ((kind, value),) = declared.items()

    scale = 1.0
    if isinstance(value, str) and value.rstrip().endswith("%"):
        kind = "relative"
        value = value.rstrip()[:-1]
        scale = 100.0

    # What is no number stays NaN, and is refused with the others.
    width = math.nan
    if isinstance(value, str | float | int) and not isinstance(value, bool):
        with contextlib.suppress(ValueError):
            width = float(value) / scale

    if kind not in Band._fields or not 0.0 <= width < math.inf:
        raise core.ParameterError(
            f"{name} must be a number from 0, a percentage (5%) or 'any', which is reported and "
            f"never fails, got {declared!r:.60}"
        )
    if kind == "relative" and width > WIDEST:
        raise core.ParameterError(
            f"{name} must be at most {WIDEST:g} relative, got {declared!r:.60}"
        )
    return Band(**{kind: width})


def check_bands(metrics: Mapping[str, float], bands: Mapping[str, Band]) -> None:
    """Raise ParameterError for a baseline that cannot fail.

    It has no measures, or none with a tolerance, or an absolute tolerance over :data:`WIDEST`
    times the size of its measure.
    """
    if not metrics:
        raise core.ParameterError("a baseline must have measures, got none")
    if all(bands[name].is_open for name in metrics):
        raise core.ParameterError(
            "a baseline must have a tolerance of at least one measure, got 'any' for all"
        )

    for name, value in metrics.items():
        width = bands[name].absolute
        most = WIDEST * find_scale(name, value, metrics)
        if width is not None and width > most:
            raise core.ParameterError(
                f"tolerance of {name} must be at most {most:g}, {WIDEST:g} times its size, got "
                f"{width:g}"
            )


def find_scale(name: str, value: float, metrics: Mapping[str, float]) -> float:
    """Return what an absolute tolerance is judged by: 1, the value, of money also all others."""
    sizes = [1.0, value]
    if is_money(name):
        sizes += [metrics.get(other, 0.0) for other in ABOUT if is_money(other)]
    return max(abs(size) for size in sizes if math.isfinite(size))


def is_money(name: str) -> bool:
    return name in ABOUT and ABOUT[name].unit == MONEY_UNIT


def choose_bands(
    metrics: Iterable[str],
    wanted: Mapping[str, object],
    under: Mapping[str, Band],
) -> dict[str, Band]:
    """Return the tolerance of each measure: the last pattern of ``wanted`` that names it.

    A measure that none names has that of ``under``, or :data:`STRICT`.
    """
    names = list(metrics)
    bands = {name: under.get(name, Band(relative=STRICT)) for name in names}
    for pattern, declared in wanted.items():
        band = read_band(declared, f"tolerance.{pattern}")
        for name in match_names(pattern, names, "tolerance"):
            bands[name] = band
    return bands


def match_names(pattern: str, known: Sequence[str], argument: str) -> list[str]:
    """Return the known measures that a pattern names; raise ParameterError if none."""
    names = fnmatch.filter(known, pattern)
    if not names:
        raise core.ParameterError(
            f"{argument} must name measures (docs/metrics.md) or a pattern such as es_*, got "
            f"{pattern!r}{core.did_you_mean(pattern, known)}"
        )
    return names


def find_direction(name: str, was: float, now: float) -> str:
    """Return whether a measure became better or worse, as far as its sign says."""
    sign = BETTER_IF.get(name, 0)
    if name in ABOUT:
        sign = ABOUT[name].better

    # The time to what never came is NaN, and counts as infinite.
    if name in BEST_IF_NEVER:
        was = math.inf if math.isnan(was) else was
        now = math.inf if math.isnan(now) else now

    if sign == 0 or was == now or math.isnan(was) or math.isnan(now):
        return NEITHER
    is_more = now > was
    if is_more == (sign > 0):
        return BETTER
    return WORSE
