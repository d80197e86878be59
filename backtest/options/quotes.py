"""Quotes of one expiry, as a fit reads them."""

from __future__ import annotations

from typing import NamedTuple

from backtest.base.units import FloatArray

WIDENING = 0.005
"""Volatility added to half the spread: differences within it weigh little."""


class Quotes(NamedTuple):
    """Two-sided quotes of one expiry: log-moneyness, and volatilities of bid and ask."""

    k: FloatArray
    bid: FloatArray
    ask: FloatArray
    years: float

    @property
    def mid(self) -> FloatArray:
        """The middle volatilities."""
        return 0.5 * (self.bid + self.ask)

    @property
    def tolerance(self) -> FloatArray:
        """Half the spread, widened: the unit of the residuals."""
        return 0.5 * (self.ask - self.bid) + WIDENING
