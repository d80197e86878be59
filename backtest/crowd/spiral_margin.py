"""The multiplier of maintenance margin in a cascade: fixed, or by a rule that sees the rounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd

from backtest.base import ParameterError, check_range, utc_index
from backtest.market import Market

if TYPE_CHECKING:
    from backtest.crowd.cascade_state import CascadeState

MarginRule: TypeAlias = "Callable[[Market], pd.Series[float]]"
MarginSource: TypeAlias = "float | MarginRule | None"
WHERE = "bt.cascade, margin"
MOST_BARS = 2_000
"""The last bars of the market that a rule sees."""


class FixedMargin:
    def __init__(self, multiplier: float) -> None:
        self.first = multiplier

    def update(self, state: CascadeState, mark: float) -> None:
        """Leave the multiplier as it is."""

    def describe(self) -> float:
        return self.first


class SpiralMargin:
    def __init__(self, rule: MarginRule, market: Market) -> None:
        self.rule = rule
        self.market = market
        self.marks: list[float] = []
        self.first = self.compute()

    def update(self, state: CascadeState, mark: float) -> None:
        self.marks.append(mark)
        found = self.compute()
        if found != state.multiplier:
            state.multiplier = found
            state.recompute(slice(None))

    def compute(self) -> float:
        market = self.market
        n = min(market.n_bars, MOST_BARS)
        last = float(market.close[-1])
        close = [last, *self.marks]
        opens = np.concatenate([market.open[-n:], [last], close[:-1], close[-1:]])
        closes = np.concatenate([market.close[-n:], [last], close[1:], close[-1:]])
        high = np.concatenate([market.high[-n:], np.maximum(opens, closes)[n:]])
        low = np.concatenate([market.low[-n:], np.minimum(opens, closes)[n:]])
        step = market.interval * (1 + np.arange(len(closes) - n))
        time = np.concatenate([market.time[-n:], market.time[-1] + step])
        bars = pd.DataFrame(
            {"open": opens, "high": high, "low": low, "close": closes}, index=utc_index(time)
        )
        extended = Market.from_frames(bars, sessions=market.sessions)
        found = self.rule(extended)
        last_value = float(found.iloc[-1]) if isinstance(found, pd.Series) else float("nan")
        return check_range(
            "the multiplier of the rule", last_value, where=WHERE, low=0.0, high=100.0,
            open_low=True,
        )  # fmt: skip

    def describe(self) -> str:
        return str(getattr(self.rule, "__qualname__", type(self.rule).__name__))


def read_margin_source(margin: MarginSource, market: Market | None) -> FixedMargin | SpiralMargin:
    if margin is None:
        return FixedMargin(1.0)
    if not callable(margin):
        found: Any = check_range("margin", margin, where=WHERE, low=0.0, high=100.0, open_low=True)
        return FixedMargin(found)
    if market is None:
        raise ParameterError(
            "a rule of margin needs the market of the crowd, there is none",
            where=WHERE,
            cure="make the crowd with bt.Crowd.from_leverage(entries=market)",
        )
    return SpiralMargin(margin, market)
