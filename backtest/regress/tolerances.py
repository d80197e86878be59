"""Tolerance bands of measures, and the direction in which a measure is better."""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from backtest.base import ParameterError, did_you_mean
from backtest.base.units import TOLERANCE
from backtest.measures.measure_names import ABOUT
from backtest.measures.run_measures import METRICS
from backtest.regress.walk_facts import BETTER_IF

FLOOR = 1e-12
"""Differences up to this count as rounding: a relative band of a measure of 0 has no width."""
CURE = "write 0.05 (absolute), 5% (relative) or any (reported, never fails)"
BETTER, WORSE, NEITHER = "better", "worse", "neither better nor worse"
NEVER_IS_BEST = ("ruin_time", "time_to_first_liquidation")
"""Times that are NaN if the event never happened."""

_PERCENT = re.compile(r"(.+?)\s*%")


class Band(NamedTuple):
    """The tolerance of a measure: relative or absolute; with neither, any value is allowed."""

    relative: float | None = None
    absolute: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether any value is allowed."""
        return self.relative is None and self.absolute is None

    def holds(self, was: float, now: float) -> bool:
        """Return whether a value lies in the band around its baseline; NaN only matches NaN.

        Examples
        --------
        >>> Band(relative=0.05).holds(2.0, 2.1), Band(absolute=0.05).holds(2.0, 2.1)
        (True, False)
        """
        if self.is_open or was == now or (math.isnan(was) and math.isnan(now)):
            return True
        if not (math.isfinite(was) and math.isfinite(now)):
            return False
        width = self.absolute if self.relative is None else self.relative * abs(was)
        ends = TOLERANCE * max(abs(was), abs(now))
        return abs(now - was) <= max(width or 0.0, FLOOR) + ends

    def __str__(self) -> str:
        if self.is_open:
            return "any"
        if self.relative is None:
            return f"{self.absolute:g}"
        return (
            f"{self.relative * 100.0:g} %" if self.relative >= 1e-4 else f"{self.relative:g} rel."
        )

    def to_data(self) -> Any:
        """Return the band as data for a baseline's file."""
        if self.is_open:
            return "any"
        return {name: value for name, value in self._asdict().items() if value is not None}


TIGHT = Band(relative=1e-9)
"""The default band of a measure."""


def read_band(given: object, *, where: str) -> Band:
    """Return a band from a number, a text, or the data in a baseline's file.

    Examples
    --------
    >>> read_band("5%", where="doc"), read_band(0.1, where="doc")
    (Band(relative=0.05, absolute=None), Band(relative=None, absolute=0.1))
    """
    if isinstance(given, Band):
        return given
    if isinstance(given, Mapping) and len(given) == 1 and {*given} <= {*Band._fields}:
        ((name, value),) = given.items()
        return Band(**{name: _read_width(value, given, where)})
    if isinstance(given, str) and given.strip() == "any":
        return Band()
    if isinstance(given, str) and (match := _PERCENT.fullmatch(given.strip())):
        return Band(relative=_read_width(match[1], given, where) / 100.0)
    return Band(absolute=_read_width(given, given, where))


def _read_width(value: object, given: object, where: str) -> float:
    """Parse the width of a band, a finite number of at least 0."""
    is_text = isinstance(value, str)
    try:
        width = float(value) if is_text or type(value) in (int, float) else math.nan  # type: ignore[arg-type] # one of these
    except ValueError:
        width = math.nan
    if not 0.0 <= width < math.inf:
        raise ParameterError(
            f"a tolerance must be a number from 0, a percentage or 'any', got {given!r:.60}",
            where=where,
            cure=CURE,
        )
    return width


def choose_bands(
    metrics: Iterable[str], wanted: Mapping[str, object], under: Mapping[str, Band], *, where: str
) -> dict[str, Band]:
    """Return the band of each measure: the last match in ``wanted``, else that in ``under``.

    ``wanted`` has bands by name or pattern (``"es_*"``), in a form that :func:`read_band` accepts.
    Measures in neither mapping have the band :data:`TIGHT`. ``where`` is for error messages.
    """
    names = list(metrics)
    bands = {name: under.get(name, TIGHT) for name in names}
    for pattern, given in wanted.items():
        band = read_band(given, where=f"{where}, {pattern}")
        for name in match_names(pattern, names, where=where):
            bands[name] = band
    return bands


def match_names(pattern: str, names: Iterable[str], *, where: str) -> list[str]:
    """Return the names that match a pattern; raise if there are none."""
    known = list(names)
    found = fnmatch.filter(known, pattern)
    if not found:
        raise ParameterError(
            f"a measure must be known, got {pattern!r}{did_you_mean(pattern, known)}",
            where=where,
            cure=f"choose of {', '.join(METRICS[:10])}, ... (docs/metrics.md), or a pattern: es_*",
        )
    return found


def find_direction(name: str, was: float, now: float) -> str:
    """Return whether a measure became better, worse, or neither.

    Examples
    --------
    >>> find_direction("sharpe", 1.0, 0.9), find_direction("ruin_time", math.nan, 3.0)
    ('worse', 'worse')
    >>> find_direction("fees", 10.0, 9.0)
    'better'
    """
    better = BETTER_IF.get(name, 0) if name not in ABOUT else ABOUT[name].better
    if name in NEVER_IS_BEST:
        was, now = (math.inf if math.isnan(value) else value for value in (was, now))
    if better == 0 or was == now or math.isnan(was) or math.isnan(now):
        return NEITHER
    return BETTER if (now > was) == (better > 0) else WORSE
