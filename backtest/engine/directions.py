"""The signal of accounts as numbers: a direction by bar, or the weights of several instruments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import pandas as pd

from backtest.base import FloatArray
from backtest.engine.frame_signals import compute_frame, describe_weights
from backtest.engine.signal_checks import compute_signal, describe_signal, keep_note, read_signal
from backtest.market import Market, Markets, find_clock, read_weights, weights_to_frame

if TYPE_CHECKING:
    from backtest.engine.signal_rule import SignalRule


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

    compute: ClassVar[Callable[..., Any]] = staticmethod(compute_signal)

    @staticmethod
    def follow(rule: SignalRule, market: Any) -> Any:
        return rule.apply(market)

    @staticmethod
    def list_columns(market: Any) -> Mapping[str, FloatArray]:
        columns: Mapping[str, FloatArray] = market.columns
        return columns

    @staticmethod
    def read(signal: Any, market: Any, *, first: int) -> FloatArray:
        return read_signal(signal, market, first)

    def describe(self) -> str:
        return describe_signal(self.given, self.values)

    def keep_times(self) -> Any:
        if len(self.values) == 1:
            return float(self.values[0])
        return keep_note(self.given, pd.Series(self.values, index=self.market.times))

    def take_first(self, stop: int) -> Any:
        if self.is_slow:
            return self.keep_times()
        return float(self.values[0]) if len(self.values) == 1 else self.values[:stop]


class WeightedDirections(Directions):
    """The weights of several instruments, of shape (n_instruments, n_bars)."""

    compute: ClassVar[Callable[..., Any]] = staticmethod(compute_frame)

    @staticmethod
    def follow(rule: SignalRule, market: Any) -> Any:
        return rule.weigh(market)

    @staticmethod
    def list_columns(market: Any) -> Mapping[str, FloatArray]:
        del market
        return {}

    @staticmethod
    def read(signal: Any, market: Any, *, first: int) -> FloatArray:
        return read_weights(signal, market, first=first)

    def describe(self) -> str:
        return describe_weights(self.given, self.values)

    def keep_times(self) -> Any:
        if self.given is None:
            return None
        return keep_note(self.given, weights_to_frame(self.values, self.market))

    def take_first(self, stop: int) -> Any:
        del stop
        return self.keep_times()


def read_directions(signal: Any, market: Market | Markets, *, first: int = 0) -> Directions:
    clock, form = find_clock(market), choose_directions(market)
    values = form.read(signal, clock.seen, first=clock.at(first))
    return form(signal, values, clock.seen, not clock.is_every)


def choose_directions(market: Market | Markets) -> type[Directions]:
    return WeightedDirections if isinstance(market, Markets) else Directions
