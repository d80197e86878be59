"""Columns that go on from the end of history, along many paths at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from backtest.base import FloatArray
from backtest.market import Market

CONTINUED = "continued"


class Continuation(NamedTuple):
    """A column of a market that ends with a path, and how it goes on along others.

    ``extend`` takes closes of shape (n, width) of paths in place of the last ``width`` bars, and
    returns the column there: the bits that it has on a market with such an end. The first bar is
    the same in all.
    """

    column: FloatArray
    extend: Callable[[FloatArray], FloatArray]


def keep_continuations(market: Market) -> list[Continuation]:
    kept: list[Continuation] = vars(market)["facts"].setdefault(CONTINUED, [])
    return kept


def add_continuation(
    market: Market, column: FloatArray, extend: Callable[[FloatArray], FloatArray]
) -> None:
    kept = vars(market)["facts"].get(CONTINUED)
    if kept is not None:
        kept.append(Continuation(column, extend))


def find_continuation(kept: list[Continuation], column: FloatArray) -> Continuation | None:
    return next(
        (
            each
            for each in kept
            if each.column.size == column.size and np.may_share_memory(each.column, column)
        ),
        None,
    )
