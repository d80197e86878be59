"""A zoo of columns: peeks, which know bars that have not been, and honest ones, which do not.

Each is a function of a market that returns one number per bar. They are made of few kinds, each
with several horizons and readings: as it is, by sign, as yes or no, by rank, in classes.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy import signal as filters

import backtest as bt
from backtest.indicators import ewma_volatility, garch_volatility

Column = Callable[[Any], Any]

HORIZONS = (1, 2, 5, 13, 48)
MARKET = bt.Market.sample(bars=3000, seed=5).with_columns(
    own=np.where(np.arange(3000) % 7 == 0, np.nan, np.sin(np.arange(3000.0) ** 1.3)),
    late=np.where(np.arange(3000) < 1500, np.nan, np.cos(np.arange(3000.0) ** 1.1)),
)
MARKET = MARKET.with_signal(np.where(np.sin(np.arange(3000) / 11.0) > 0, 1.0, -1.0))


def observing(function: Callable[[Any], Any], exact: float = 1e-9) -> bt.Policy:

    class Observing(bt.Policy):
        tolerance = exact

        def observe(self, market: Any) -> Any:
            return {"x": function(market)}

        def leverage(self, bar: Any, account: Any) -> float:
            return 1.0

    return Observing()


def series(market: Any) -> pd.Series:
    return pd.Series(market.close, index=market.times)


def log_returns(market: Any) -> Any:
    return np.append(0.0, np.diff(np.log(market.close)))


def of_price(function: Callable[[pd.Series], Any]) -> Column:
    return lambda market: function(series(market))


def as_it_is(values: Any) -> Any:
    return np.asarray(values, dtype=float)


def held(price: pd.Series, h: int) -> Any:
    later = np.append(price[h:], np.repeat(price.iloc[-1], min(h, len(price))))
    return later[: len(price)] / price - 1.0


def known_now_and_then(price: pd.Series, h: int) -> pd.Series:
    return price.where(np.arange(len(price)) % (h + 1) == 0)


READINGS = {
    "value": as_it_is,
    "sign": lambda values: np.sign(as_it_is(values)),
    "claim": lambda values: (as_it_is(values) > 0.0).astype(float),
    "classes": lambda values: np.floor(np.clip(200.0 * as_it_is(values), -3, 3)),
    "float32": lambda values: as_it_is(values).astype(np.float32),
}
AHEAD: dict[str, Callable[[pd.Series, int], Any]] = {
    "shift": lambda price, h: price.shift(-h) / price - 1.0,
    "held": held,
    "pct_change": lambda price, h: -price.pct_change(-h),
    "centered": lambda price, h: (
        price / price.rolling(2 * h + 1, center=True, min_periods=1).mean() - 1.0
    ),
    "mean": lambda price, h: price.rolling(h + 1).mean().shift(-h).ffill() / price - 1.0,
    "high": lambda price, h: price[::-1].rolling(h + 1, min_periods=1).max()[::-1] / price - 1.001,
    "backward fill": lambda price, h: known_now_and_then(price, h).bfill().ffill() / price - 1.0,
    "interpolate": lambda price, h: known_now_and_then(price, h).interpolate() / price - 1.0,
    "roll": lambda price, h: np.roll(price, -h) / price - 1.0,
}


def fitted_model(market: Any) -> Any:
    moves = log_returns(market)
    table = np.column_stack([np.roll(moves, k) for k in (1, 2, 3)])
    return table @ np.linalg.lstsq(table, np.append(moves[1:], 0.0), rcond=None)[0]


def smoothed_both_ways(market: Any) -> Any:
    if market.n_bars < 20:
        return np.full(market.n_bars, np.nan)
    return market.close - filters.filtfilt(*filters.butter(2, 0.1), market.close)


def joined_forward(market: Any) -> Any:
    price = series(market)
    left = pd.DataFrame({"time": price.index})
    right = pd.DataFrame({"time": price.index[::6], "x": price.to_numpy()[::6]})
    found = pd.merge_asof(left, right, on="time", direction="forward")["x"]
    return found.ffill().to_numpy() / market.close - 1.0


def next_funding(market: Any) -> Any:
    places = np.searchsorted(market.funding_time, market.time)
    return 1e2 * np.append(market.funding_rate, np.nan)[places]


def period_close(rule: str) -> Column:
    return of_price(
        lambda price: price.resample(rule).last().reindex(price.index, method="ffill") / price - 1.0
    )


def period_direction(rule: str) -> Column:
    def direction(price: pd.Series) -> Any:
        bars = price.resample(rule).agg(["first", "last"])
        return np.log(bars["last"] / bars["first"]).reindex(price.index, method="ffill")

    return of_price(direction)


WHOLE = {
    "z-score": lambda market: (market.close - market.close.mean()) / market.close.std(),
    "rank": of_price(lambda price: price.rank(pct=True) - 0.5),
    "quantile": lambda market: (market.close > np.quantile(market.close, 0.8)) - 0.5,
    "argmax": lambda market: (np.arange(market.n_bars) < market.close.argmax()) - 0.5,
    "detrend": lambda market: filters.detrend(market.close), "regression": fitted_model,
    "over the end": lambda market: market.close / market.close[-1] - 1.0,
    "gradient": lambda market: np.gradient(market.close), "filtfilt": smoothed_both_ways,
    "ewm reversed": of_price(lambda price: price[::-1].ewm(span=10).mean()[::-1] / price - 1.0),
    "count down": lambda market: np.arange(market.n_bars)[::-1] / 100.0 - 5.0,
    "day range": of_price(
        lambda price: price.groupby(price.index.floor("1D")).transform("max") / price - 1.001
    ),
    **{f"close of {rule}": period_close(rule) for rule in ("4h", "1D", "7D")},
    "direction of 1D": period_direction("1D"),
    "merge_asof": joined_forward, "next funding": next_funding,
    "column ahead": lambda market: pd.Series(market.columns["own"]).shift(-1),
    "signal ahead": lambda market: pd.Series(market.signal).shift(-1).ffill(),
    "mark ahead": lambda market: (
        pd.Series(market.mark_close).shift(-1).ffill() / market.mark_close - 1.0
    ),
    "volume share": lambda market: market.volume / market.volume.sum() * market.n_bars - 1.0,
    "time left": lambda market: (market.time[-1] - market.time) / 3.6e12 / 100.0 - 5.0,
}  # fmt: skip


def read(market: Any, kind: Column, reading: Column) -> Any:
    with np.errstate(all="ignore"):
        return reading(kind(market))


def list_peeks() -> Iterator[tuple[str, Column]]:
    for name, kind in AHEAD.items():
        for k, h in enumerate(HORIZONS):
            for word in list(READINGS)[k % 2 :: 2]:
                ahead = of_price(partial(kind, h=h))
                yield f"{name} {h}, {word}", partial(read, kind=ahead, reading=READINGS[word])
    for name, kind in WHOLE.items():
        for word in ("value", "float32", "claim"):
            yield f"{name}, {word}", partial(read, kind=kind, reading=READINGS[word])


def past_sum_by_fft(market: Any, h: int) -> Any:
    sums = filters.fftconvolve(log_returns(market), np.ones(h + 1))[: market.n_bars]
    return np.where(np.arange(market.n_bars) <= h, np.nan, np.round(sums, 12))


def past_deviation_by_fft(market: Any, h: int) -> Any:
    ones = np.ones(h + 2) / (h + 2)
    mean, square = (filters.fftconvolve(market.close**k, ones)[: market.n_bars] for k in (1, 2))
    return np.where(
        np.arange(market.n_bars) < h + 2, np.nan, np.sqrt(np.maximum(square - mean**2, 0.0))
    )


def past_sum_by_blas(market: Any, h: int) -> Any:
    windows = np.lib.stride_tricks.sliding_window_view(np.append(np.zeros(h), market.close), h + 1)
    return windows @ np.linspace(0.1, 1.0, h + 1)


PEEKS = dict(list_peeks())
PAST = {
    "move": lambda market, h: series(market).pct_change(h),
    "std": lambda market, h: series(market).rolling(h + 1).std(),
    "rank": lambda market, h: series(market).rolling(h + 2).rank(pct=True) - 0.5,
    "ewm": lambda market, h: (
        market.close / series(market).ewm(span=h + 1, adjust=False).mean() - 1.0
    ),
    "fft": past_sum_by_fft,
    "blas": past_sum_by_blas,
    "fft deviation": past_deviation_by_fft,
    "convolve": lambda market, h: np.convolve(market.close, np.linspace(1, -1, h + 2))[
        : market.n_bars
    ],
    "lfilter": lambda market, h: filters.lfilter(*filters.butter(2, 1.0 / (h + 2)), market.close),
}


def refitted(market: Any) -> Any:
    """Return forecasts of a regression fitted every 100 bars on all bars before."""
    moves = log_returns(market)
    forecasts = np.full(market.n_bars, np.nan)
    for k in range(300, market.n_bars, 100):
        slope = np.dot(moves[1:k], moves[: k - 1]) / np.dot(moves[:k], moves[:k])
        forecasts[k : k + 100] = slope * moves[k : k + 100]
    return forecasts


def closed_periods(market: Any, rule: str) -> Any:
    price = series(market)
    return price.resample(rule).last().shift(1).reindex(price.index, method="ffill")


def wants_bars(market: Any) -> Any:
    if market.n_bars < 700:
        raise ValueError("at least 700 bars")
    return series(market).rolling(700).mean()


def last_funding(market: Any) -> Any:
    places = np.searchsorted(market.funding_time, market.time + market.interval) - 1
    return np.append(market.funding_rate, np.nan)[places]


def single_layers(market: Any) -> Any:
    """What a small network in single precision makes of the last 64 returns."""
    returns = np.append(np.zeros(63), log_returns(market)).astype(np.float32)
    windows = np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(returns, 64))
    rng = np.random.default_rng(0)
    inner = rng.normal(size=(64, 32)).astype(np.float32)
    outer = rng.normal(size=(32, 1)).astype(np.float32)
    return (np.tanh(100 * windows @ inner) @ outer)[:, 0]


def single_sum_by_fft(market: Any) -> Any:
    returns = log_returns(market).astype(np.float32)
    return np.round(filters.fftconvolve(returns, np.ones(20, np.float32))[: market.n_bars], 5)


def single_deviation_by_fft(market: Any) -> Any:
    close = market.close.astype(np.float32)
    return filters.fftconvolve(close, np.full(20, 0.05, np.float32))[: market.n_bars] - close


def chaos_of_first_bars(market: Any) -> Any:
    """A chaotic map started by the first closes: redrawn by any noise, but the same in parts."""
    x = float(np.mod(1e3 * market.close[0], 0.98)) + 0.01
    values = []
    for _ in range(market.n_bars):
        x = 3.99 * x * (1.0 - x)
        values.append(x)
    return np.array(values)


SINGLE = {
    "layers": single_layers,
    "single fft": single_sum_by_fft,
    "single deviation": single_deviation_by_fft,
}


OLD = {
    "expanding z-score": of_price(
        lambda price: (price - price.expanding().mean()) / price.expanding().std()
    ),
    "expanding rank": lambda market: series(market).expanding().rank(pct=True),
    "drawdown": lambda market: market.close / np.maximum.accumulate(market.close) - 1.0,
    "refitted": refitted,
    **{f"closed {rule}": partial(closed_periods, rule=rule) for rule in ("4h", "1D", "7D", "ME")},
    "wants bars": wants_bars,
    "unknown in few": lambda market: (
        np.full(market.n_bars, np.nan) if market.n_bars < 700 else wants_bars(market)
    ),
    "infinite": lambda market: np.where(market.close > market.open, np.inf, market.close),
    "last funding": last_funding, "own": lambda market: market.columns["own"],
    "late": lambda market: market.columns["late"],
    "late mean": lambda market: pd.Series(market.columns["late"]).rolling(300).mean(),
    "filled": lambda market: pd.Series(market.columns["own"]).ffill(),
    "signal": lambda market: market.signal,
    "past signal": lambda market: pd.Series(market.signal).shift(3),
    "mark": lambda market: market.mark_close / market.close,
    "volume": lambda market: pd.Series(market.volume).rolling(20).sum(),
    "constant": lambda market: np.full(market.n_bars, 3.0),
    "unknown": lambda market: np.full(market.n_bars, np.nan),
    "count": lambda market: np.arange(market.n_bars), "hour": lambda market: market.times.hour,
    "years": lambda market: (market.time - market.time[0]) / 3.15e16,
    "ewma": lambda market: ewma_volatility(market, 50.0), "garch": garch_volatility,
    "chaos of first bars": chaos_of_first_bars,
}  # fmt: skip


def list_honest() -> Iterator[tuple[str, Column]]:
    for name, kind in PAST.items():
        for h, word in zip(HORIZONS, READINGS, strict=True):
            past = partial(kind, h=h)
            yield f"{name} {h}, {word}", partial(read, kind=past, reading=READINGS[word])
    for name, kind in SINGLE.items():
        for word in ("value", "sign"):
            yield f"{name}, {word}", partial(read, kind=kind, reading=READINGS[word])
    for name, kind in OLD.items():
        yield name, partial(read, kind=kind, reading=as_it_is)


HONEST = dict(list_honest())


def find_tolerance(name: str) -> float:
    return 1e-3 if name.startswith((*SINGLE, "fft deviation")) else 1e-9
