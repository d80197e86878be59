"""The signal of accounts as numbers: a direction by bar, or the weights of several instruments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from backtest.base import FloatArray
from backtest.engine.frame_signals import describe_weights
from backtest.engine.signal_checks import describe_signal, keep_note, read_signal
from backtest.market import Market, Markets, find_clock, read_weights, weights_to_frame


@dataclass(frozen=True, eq=False)
class Directions:
    """A signal as it was given, and its values at the bars of a market.

    Attributes
    ----------
    given : Any
        The signal as the caller gave it.
    values : FloatArray of shape (n_bars,) or (1,)
        The direction decided at each close; one for a constant.
    market : Market or Markets
        The market whose bars they are of: the one that policies see.
    is_slow : bool
        Whether the bars of the account are shorter.
    """

    given: Any
    values: FloatArray
    market: Any
    is_slow: bool = False

    def describe(self) -> str:
        """Return the signal as text, with a hash of its values."""
        return describe_signal(self.given, self.values)

    def keep_times(self) -> Any:
        """Return a signal that works for any part of the market: by time, or a constant."""
        if len(self.values) == 1:
            return float(self.values[0])
        return keep_note(self.given, pd.Series(self.values, index=self.market.times))

    def take_first(self, stop: int) -> Any:
        """Return the signal of the account's bars before ``stop``."""
        if self.is_slow:
            return self.keep_times()
        return float(self.values[0]) if len(self.values) == 1 else self.values[:stop]


class WeightedDirections(Directions):
    """The weights of several instruments, of shape (n_instruments, n_bars)."""

    def describe(self) -> str:
        """Return the weights as text, with a hash of their values."""
        return describe_weights(self.given, self.values)

    def keep_times(self) -> Any:
        """Return weights by time; equal weights are those of the whole panel in each part."""
        if self.given is None:
            return None
        return keep_note(self.given, weights_to_frame(self.values, self.market))

    def take_first(self, stop: int) -> Any:
        """Return the weights by time, which any part takes its own from."""
        del stop
        return self.keep_times()


def read_directions(
    signal: Any, market: Market | Markets, *, first: int = 0, where: str = "bt.run"
) -> Directions:
    """Return the values of a signal, checked: one that was resolved already.

    An array may begin at the bar ``first``; ``where`` names the function in errors.
    """
    clock = find_clock(market)
    seen, begun = clock.seen, clock.at(first)
    if isinstance(market, Markets):
        weights = read_weights(signal, seen, where=where, first=begun)
        return WeightedDirections(signal, weights, seen, not clock.is_every)
    return Directions(signal, read_signal(signal, seen, begun), seen, not clock.is_every)
