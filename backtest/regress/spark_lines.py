"""Charts of one line of text."""

from __future__ import annotations

import math
from collections.abc import Sequence

LEVELS = "▁▂▃▄▅▆▇█"


def draw_line(values: Sequence[float], low: float, high: float) -> str:
    """Return values as blocks between two levels, a dot for what is not finite.

    Examples
    --------
    >>> draw_line([1.0, 2.0, 3.0], 1.0, 3.0)
    '▁▅█'
    """
    width = high - low
    blocks = []
    for value in values:
        if not math.isfinite(value):
            blocks.append("·")
            continue
        share = (value - low) / width if width > 0.0 else 0.5
        blocks.append(LEVELS[min(int(share * len(LEVELS)), len(LEVELS) - 1)])
    return "".join(blocks)


def draw_pair(was: Sequence[float], now: Sequence[float]) -> tuple[str, str, str]:
    """Return two curves on one scale, and what lies between them on one of its own.

    Parameters
    ----------
    was, now : sequence of float
        Of the same times.

    Returns
    -------
    tuple of str
        Both curves, and now / was - 1; the last is empty where nothing lies between them.
    """
    finite = [value for value in (*was, *now) if math.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    gaps = [new / old - 1.0 if old > 0.0 else math.nan for old, new in zip(was, now, strict=True)]
    known = [gap for gap in gaps if math.isfinite(gap)]
    between = ""
    if any(known):
        between = draw_line(gaps, min(*known, 0.0), max(*known, 0.0))
    return draw_line(was, low, high), draw_line(now, low, high), between
