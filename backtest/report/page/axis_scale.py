"""Choose a linear or logarithmic axis of money, and the controls a reader has for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from backtest.base import FloatArray
from backtest.report.page.figures import scale_log

LOG_FROM = 4.0
"""Ratio of the largest to the smallest value from which a log scale is used."""
DUST = 1e-6
"""An account that stays below this fraction of its maximum to the end is drawn as 0."""


def choose_scale(
    layout: dict[str, Any],
    own: FloatArray,
    *others: FloatArray,
    held: Sequence[int] = (),
    titles: Sequence[str] = (),
) -> None:
    """Set the scale of the first y axis, and note what the controls of the page may change.

    The axis of ``layout`` becomes logarithmic if the series ask for it. A reader can hide the
    ``others``: ``held`` are the places of their traces, ``titles`` the title of the panel with and
    without them (empty if it stays).
    """
    shown = keep_positive(own)
    drawn = [each for each in (shown, *map(keep_positive, others)) if np.isfinite(each).any()]
    if not np.isfinite(shown).any():
        return
    axes = {"all": scale_log(*drawn), "own": scale_log(shown)}
    is_log = is_wide(np.concatenate(drawn))
    layout["yaxis"] |= axes["all"] if is_log else {}
    layout["meta"] = {"axes": axes, "is_log": is_log, "held": [*held], "titles": [*titles]}


def keep_positive(values: FloatArray) -> FloatArray:
    """Return values with NaN where a log scale cannot show them."""
    known = drop_dust(values)
    return np.where(known > 0.0, known, np.nan)


def drop_dust(values: FloatArray) -> FloatArray:
    """Replace the tiny values at the end of a series by 0: they would stretch a log scale."""
    most = float(np.nanmax(values, initial=0.0))
    large = np.flatnonzero(values >= DUST * most)
    is_end = np.arange(len(values)) > (large[-1] if len(large) else -1)
    return np.where(is_end & (values > 0.0), 0.0, values)


def is_wide(values: FloatArray) -> bool:
    """Return whether values need a log scale."""
    positive = values[values > 0.0]
    return len(positive) > 1 and float(np.max(positive) / np.min(positive)) >= LOG_FROM
