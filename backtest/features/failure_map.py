"""The failure line of a book in the moves of two of its prices."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from backtest.base import FloatArray, Number, ParameterError, did_you_mean
from backtest.features.priced_book import CheckedBook

BEYOND = 6
"""Places beyond the span at which the ends of a range are searched, on either side."""
LEAST = -0.999
"""The lowest move of a price."""
SPAN = Number(0, 1, open_low=True, open_high=True)


class FailureMap(NamedTuple):
    """Where a book fails, by the moves of the prices of two instruments, all others frozen.

    ``x`` and ``y`` are the instruments. For each move of x in ``moves``, a fraction within ``span``
    on either side of 0, the book holds at moves of y from ``low`` to ``high``. These are searched
    within twice the span, and are its ends where it holds up to there, and NaN where it holds
    nowhere. ``distance`` has shape (n, n): what is left over the requirement at the moves of x
    (columns) and y (rows), negative where it fails.
    """

    x: str
    y: str
    span: float
    moves: FloatArray
    low: FloatArray
    high: FloatArray
    distance: FloatArray

    def to_dict(self) -> dict[str, Any]:
        return self._asdict()


def map_failure(
    book: CheckedBook, x: str, y: str, *, span: float = 0.5, points: int = 41
) -> FailureMap:
    """Return where a book fails in the moves of two prices.

    Parameters
    ----------
    book : Book
        From :func:`backtest.features.priced_book.read_arguments`.
    x, y : str
        Two of its instruments.
    span : float
        The largest move on either side, a fraction below 1.
    points : int
        Moves of x, odd so that 0 is one of them.
    """
    if len(book.quantities) < 2:
        raise ParameterError(
            f"a map of failures needs two instruments, the book has {', '.join(book.quantities)}"
        )
    for axis, name in (("x", x), ("y", y)):
        check_axis(book, axis, name)
    if x == y:
        raise ParameterError(f"x and y must be two instruments, got {x!r} twice")
    wide = float(SPAN.check("span", span))
    moves = np.linspace(-wide, wide, points)
    distance = np.array([[left(book, x, y, a, b) for a in moves] for b in moves])
    beyond = np.linspace(wide, 2.0 * wide, BEYOND)[1:]
    below = np.maximum(-beyond[::-1], LEAST)
    pairs = []
    for k, a in enumerate(moves.tolist()):
        outside = [np.array([left(book, x, y, a, b) for b in each]) for each in (below, beyond)]
        column = np.concatenate([outside[0], distance[:, k], outside[1]])
        pairs.append(find_range(book, x, y, a, np.concatenate([below, moves, beyond]), column))
    low, high = np.array(pairs).T
    return FailureMap(x, y, wide, moves, low, high, distance)


def check_axis(book: CheckedBook, axis: str, name: str) -> None:
    if name not in book.quantities:
        raise ParameterError(
            f"{axis} must be one of {', '.join(book.quantities)}, got {name!r}"
            + did_you_mean(name, book.quantities)
        )


def left(book: CheckedBook, x: str, y: str, a: float, b: float) -> float:
    return book.move({x: 1.0 + a, y: 1.0 + b}).distance()


def find_range(
    book: CheckedBook, x: str, y: str, a: float, moves: FloatArray, column: FloatArray
) -> tuple[float, float]:
    sound = np.flatnonzero(column > 0.0)
    if not book.held():
        return float(moves[0]), float(moves[-1])
    if not sound.size:
        return math.nan, math.nan
    first, last = int(sound[0]), int(sound[-1])

    def at(b: float) -> float:
        return left(book, x, y, a, b)

    low = moves[0] if first == 0 else find_zero(at, moves[first - 1], moves[first])
    high = moves[-1] if last == len(moves) - 1 else find_zero(at, moves[last], moves[last + 1])
    return float(low), float(high)


def find_zero(function: Callable[[float], float], start: float, end: float) -> float:
    from scipy.optimize import brentq  # noqa: PLC0415 - slow to import, and only needed here

    return float(brentq(function, start, end, xtol=1e-12))
