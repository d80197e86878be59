"""Choose a linear or logarithmic axis of money, and the controls a reader has for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from backtest.base.units import FloatArray
from backtest.report.page.figures import scale_log

LOG_FROM = 4.0
"""What is drawn is on a log scale where its largest value is so many times its smallest."""
DUST = 1e-6
"""What is left of an account, for good, under this share of its most is drawn as nothing."""


def choose_scale(
    layout: dict[str, Any],
    own: FloatArray,
    *others: FloatArray,
    held: Sequence[int] = (),
    titles: Sequence[str] = (),
) -> None:
    """Set the scale of the first y axis, and note what the page's controls may change.

    Parameters
    ----------
    layout : dict
        Of a figure; its y axis is set to a log scale where what is drawn asks for it.
    own, others : array
        What is drawn; ``others`` are what the reader can take off.
    held : sequence of int
        The places of the traces that can be taken off.
    titles : sequence of str
        The title of the panel with these traces, and without; none where it stays.
    """
    shown = keep_positive(own)
    drawn = [each for each in (shown, *map(keep_positive, others)) if np.isfinite(each).any()]
    if not np.isfinite(shown).any():
        return
    axes = {"all": scale_log(*drawn), "own": scale_log(shown)}
    is_log = is_wide(np.concatenate(drawn))
    layout["yaxis"] |= axes["all"] if is_log else {}
    layout["meta"] = {
        "axes": axes,
        "is_log": is_log,
        "held": list(held),
        "titles": list(titles),
    }


def keep_positive(values: FloatArray) -> FloatArray:
    """Return values with NaN where a log scale cannot show them."""
    known = drop_dust(values)
    return np.where(known > 0.0, known, np.nan)


def drop_dust(values: FloatArray) -> FloatArray:
    """Return values with 0 for the dust at their end: it would stretch a log scale for ever."""
    most = float(np.nanmax(values, initial=0.0))
    large = np.flatnonzero(values >= DUST * most)
    is_end = np.arange(len(values)) > (large[-1] if len(large) else -1)
    return np.where(is_end & (values > 0.0), 0.0, values)


def is_wide(values: FloatArray) -> bool:
    """Tell whether values need a log scale."""
    positive = values[values > 0.0]
    return len(positive) > 1 and float(np.max(positive) / np.min(positive)) >= LOG_FROM
