"""Draw the accounts of a crowd: leverage from a distribution, entries from a market's past."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from backtest.base import FloatArray, ParameterError, parse_duration, repr_plain

if TYPE_CHECKING:
    from backtest.base import BoolArray
    from backtest.market import Market

ROUNDS = 64
"""How often an entry is drawn again if the account would not have survived since."""


class Distribution(NamedTuple):
    name: str
    low: float
    high: float

    def draw(self, n: int, rng: np.random.Generator) -> FloatArray:
        share = rng.random(n)
        if self.name == "loguniform":
            return np.asarray(self.low * (self.high / self.low) ** share)
        return self.low + (self.high - self.low) * share


def read_leverage(leverage: object) -> Distribution | FloatArray:
    if isinstance(leverage, str):
        return read_distribution(leverage)
    try:
        values = np.asarray(leverage, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise leverage_error(leverage) from error
    if not values.size or not np.all((values > 0.0) & np.isfinite(values)):
        raise leverage_error(leverage)
    return Distribution("uniform", float(values), float(values)) if values.ndim == 0 else values


def read_distribution(text: str) -> Distribution:
    name, _, rest = text.partition(":")
    parts = rest.split(":")
    try:
        low, high = (float(each) for each in (parts if len(parts) == 2 else parts * 2))
    except ValueError as error:
        raise leverage_error(text) from error
    is_constant = name == "constant" and len(parts) == 1
    is_range = name in ("loguniform", "uniform") and len(parts) == 2
    if not (is_constant or is_range) or not 0.0 < low <= high < np.inf:
        raise leverage_error(text)
    return Distribution("uniform" if is_constant else name, low, high)


def leverage_error(found: object) -> ParameterError:
    return ParameterError(
        "leverage must be 'loguniform:LOW:HIGH', 'uniform:LOW:HIGH', 'constant:X', a positive "
        f"number or an array of them, got {repr_plain(found)}"
    )


def draw_entries(
    market: Market,
    leverage: FloatArray,
    is_long: BoolArray,
    lookback: str,
    rng: np.random.Generator,
    margin: float = 0.0,
) -> FloatArray:
    first = find_first(market, lookback)
    close, weight = market.close[first:], market.volume[first:].astype(np.float64)
    weight = weight if weight.sum() > 0.0 else np.ones(len(close))
    edges = np.cumsum(weight) / np.sum(weight)
    worst_low = find_later_extreme(market.low[first:], np.minimum)
    worst_high = find_later_extreme(market.high[first:], np.maximum)
    row = np.full(len(leverage), len(close) - 1)
    open_rows = np.arange(len(leverage))
    for _ in range(ROUNDS):
        drawn = np.searchsorted(edges, rng.random(len(open_rows)), side="right")
        drawn = np.minimum(drawn, len(close) - 1)
        share = 1.0 / leverage[open_rows]
        survives = np.where(
            is_long[open_rows],
            worst_low[drawn] > close[drawn] * (1.0 - share) / (1.0 - margin),
            worst_high[drawn] < close[drawn] * (1.0 + share) / (1.0 + margin),
        )
        row[open_rows[survives]] = drawn[survives]
        open_rows = open_rows[~survives]
        if not len(open_rows):
            break
    return np.asarray(close[row])


def find_first(market: Market, lookback: str) -> int:
    length = parse_duration(lookback, "lookback")
    return max(0, market.n_bars - max(1, length // market.interval))


def find_later_extreme(prices: FloatArray, reduce: np.ufunc) -> FloatArray:
    none = np.inf if reduce is np.minimum else -np.inf
    later = np.append(prices[1:], none)
    return np.asarray(reduce.accumulate(later[::-1])[::-1])
