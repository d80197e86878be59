"""Honest columns: what a policy may know, by windows, filters, fits and rounding."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy import signal as filters

import backtest as bt
from backtest.features import ewma_volatility, garch_volatility
from tests.peeks import (
    HORIZONS,
    READINGS,
    Column,
    as_it_is,
    drawdown,
    log_returns,
    past_slope,
    read,
    series,
)


def rolling(market: Any, h: int, what: str) -> Any:
    return getattr(series(market).rolling(h + 1), what)()


def rolling_quantile(market: Any, h: int) -> Any:
    price = series(market)
    return price / price.rolling(h + 2).quantile(0.8) - 1.0


def recursive_mean(market: Any, h: int) -> Any:
    price = series(market)
    return price / price.ewm(span=h + 1, adjust=False).mean() - 1.0


def past_sum_by_fft(market: Any, h: int) -> Any:
    sums = filters.fftconvolve(log_returns(market), np.ones(h + 1))[: market.n_bars]
    return np.where(np.arange(market.n_bars) <= h, np.nan, np.round(sums, 12))


def past_sum_by_blas(market: Any, h: int) -> Any:
    padded = np.append(np.zeros(h), market.close)
    windows = np.lib.stride_tricks.sliding_window_view(padded, h + 1)
    return windows @ np.linspace(0.1, 1.0, h + 1)


def past_deviation_by_fft(market: Any, h: int) -> Any:
    ones = np.ones(h + 2) / (h + 2)
    mean, square = (filters.fftconvolve(market.close**k, ones)[: market.n_bars] for k in (1, 2))
    return np.where(
        np.arange(market.n_bars) < h + 2, np.nan, np.sqrt(np.maximum(square - mean**2, 0.0))
    )


def past_mean_by_sums(market: Any, h: int) -> Any:
    sums = np.cumsum(np.append(np.zeros(h + 1), market.close))
    return (sums[h + 1 :] - sums[: -h - 1]) / (h + 1)


def one_way_filter(market: Any, h: int) -> Any:
    b, a = filters.butter(2, 1.0 / (h + 2))
    return filters.lfilter(b, a, market.close)


PAST = {
    "move": lambda market, h: series(market).pct_change(h),
    **{what: partial(rolling, what=what) for what in ("mean", "std", "max", "median")},
    "rank": lambda market, h: series(market).rolling(h + 2).rank(pct=True) - 0.5,
    "quantile": rolling_quantile,
    "ewm": recursive_mean,
    "fft": past_sum_by_fft,
    "blas": past_sum_by_blas,
    "fft deviation": past_deviation_by_fft,
    "cumsum": past_mean_by_sums,
    "convolve": past_slope,
    "lfilter": one_way_filter,
}


def expanding_z_score(market: Any) -> Any:
    price = series(market)
    return (price - price.expanding().mean()) / price.expanding().std()


def refitted(market: Any) -> Any:
    """Return forecasts of a regression fitted every 100 bars on all bars before."""
    moves, found = log_returns(market), np.full(market.n_bars, np.nan)
    for k in range(300, market.n_bars, 100):
        slope = np.dot(moves[1:k], moves[: k - 1]) / np.dot(moves[:k], moves[:k])
        found[k : k + 100] = slope * moves[k : k + 100]
    return found


def closed_periods(market: Any, rule: str) -> Any:
    price = series(market)
    last = price.resample(rule).last().shift(1)
    return last.reindex(price.index, method="ffill")


def wants_bars(market: Any) -> Any:
    if market.n_bars < 700:
        raise ValueError("at least 700 bars")
    return series(market).rolling(700).mean()


def unknown_in_few_bars(market: Any) -> Any:
    if market.n_bars < 700:
        return np.full(market.n_bars, np.nan)
    return series(market).rolling(700).mean()


def last_funding(market: Any) -> Any:
    closes = market.time + market.interval
    places = np.searchsorted(market.funding_time, closes) - 1
    rates = np.append(market.funding_rate, np.nan)
    return rates[places]


def single_layers(market: Any) -> Any:
    """What a small network in single precision makes of the last 64 returns."""
    returns = np.append(np.zeros(63), log_returns(market)).astype(np.float32)
    windows = np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(returns, 64))
    rng = np.random.default_rng(0)
    inner, outer = (rng.normal(size=size).astype(np.float32) for size in ((64, 32), (32, 1)))
    return (np.tanh(100 * windows @ inner) @ outer)[:, 0]


def single_sum_by_fft(market: Any) -> Any:
    returns = log_returns(market).astype(np.float32)
    return np.round(filters.fftconvolve(returns, np.ones(20, np.float32))[: market.n_bars], 5)


def single_deviation_by_fft(market: Any) -> Any:
    close = market.close.astype(np.float32)
    return filters.fftconvolve(close, np.full(20, 0.05, np.float32))[: market.n_bars] - close


def garch_by_search(market: Any) -> Any:
    """Forecast by the likeliest of 200 drawn GARCH models, chosen anew every 500 bars."""
    moves, found = log_returns(market), np.full(market.n_bars, np.nan)
    drawn = np.random.default_rng(7).dirichlet((1.0, 3.0, 20.0), 200)
    for k in range(500, market.n_bars, 500):
        best = min(drawn.tolist(), key=lambda each: garch_cost(moves[1:k], each))
        found[k : k + 500] = np.sqrt(garch_variance(moves[1:], best))[k - 1 : k + 499]
    return found


def garch_variance(moves: Any, weights: Any) -> Any:
    usual = np.mean(moves[:75] ** 2)
    long, shock, memory = weights
    drive = long * usual + shock * moves**2
    return filters.lfilter([1.0], [1.0, -memory], drive, zi=[memory * usual])[0]


def garch_cost(moves: Any, weights: Any) -> float:
    variance = garch_variance(moves, weights)[:-1]
    return float(np.sum(np.log(variance) + moves[1:] ** 2 / variance))


def hidden_markov(market: Any, moves: Any = None) -> Any:
    """Return filtered probabilities of a two-state model, fitted by EM every 500 bars."""
    moves = log_returns(market) if moves is None else moves
    found = np.full(market.n_bars, np.nan)
    for k in range(500, market.n_bars, 500):
        sigmas = fit_states(moves[:k])
        found[k : k + 500] = filter_states(moves[: k + 500], sigmas)[k:]
    return found


def fit_states(moves: Any) -> Any:
    """Return the deviations of two states by 15 steps of EM from drawn starting values."""
    sigmas = np.std(moves) * np.random.default_rng(3).uniform(0.3, 2.0, 2)
    for _ in range(15):
        high = filter_states(moves, sigmas)
        shares = np.stack([1.0 - high, high]) + 1e-9
        sigmas = np.sqrt((shares * moves**2).sum(axis=1) / shares.sum(axis=1))
    return sigmas


def filter_states(moves: Any, sigmas: Any) -> Any:
    """Return by bar the probability of the second state, which lasts with 98 %."""
    odds = np.log(sigmas[0] / sigmas[1]) + 0.5 * moves**2 * (sigmas[0] ** -2 - sigmas[1] ** -2)
    found, chance = np.empty(len(moves)), 0.5
    for t, each in enumerate(np.exp(np.clip(odds, -50.0, 50.0)).tolist()):
        before = 0.02 + 0.96 * chance
        chance = before * each / (before * each + 1.0 - before)
        found[t] = chance
    return found


def hidden_markov_of_fft(market: Any) -> Any:
    """The same for returns smoothed by an FFT of the whole, whose rounding differs."""
    smooth = filters.fftconvolve(log_returns(market), np.ones(3))[: market.n_bars]
    return hidden_markov(market, smooth)


def chaos_of_first_bars(market: Any) -> Any:
    """A chaotic map started by the first closes: redrawn by any noise, but the same in parts."""
    x, found = float(np.mod(1e3 * market.close[0], 0.98)) + 0.01, []
    for _ in range(market.n_bars):
        x = 3.99 * x * (1.0 - x)
        found.append(x)
    return np.array(found)


SINGLE = {
    "layers": single_layers,
    "single fft": single_sum_by_fft,
    "single deviation": single_deviation_by_fft,
}


OLD = {
    "expanding z-score": expanding_z_score,
    "expanding rank": lambda market: series(market).expanding().rank(pct=True),
    "drawdown": drawdown,
    "refitted": refitted,
    **{f"closed {rule}": partial(closed_periods, rule=rule) for rule in ("4h", "1D", "7D", "ME")},
    "wants bars": wants_bars,
    "unknown in few": unknown_in_few_bars,
    "infinite": lambda market: np.where(market.close > market.open, np.inf, market.close),
    "last funding": last_funding,
    "own": lambda market: market.columns["own"],
    "late": lambda market: market.columns["late"],
    "late mean": lambda market: pd.Series(market.columns["late"]).rolling(300).mean(),
    "filled": lambda market: pd.Series(market.columns["own"]).ffill(),
    "signal": lambda market: market.signal,
    "past signal": lambda market: pd.Series(market.signal).shift(3),
    "mark": lambda market: market.mark_close / market.close,
    "volume": lambda market: pd.Series(market.volume).rolling(20).sum(),
    "constant": lambda market: np.full(market.n_bars, 3.0),
    "unknown": lambda market: np.full(market.n_bars, np.nan),
    "count": lambda market: np.arange(market.n_bars),
    "hour": lambda market: market.times.hour,
    "years": lambda market: (market.time - market.time[0]) / 3.15e16,
    "ewma": lambda market: ewma_volatility(market, 50.0),
    "garch": garch_volatility,
    "garch by search": garch_by_search,
    "hidden markov": hidden_markov,
    "hidden markov of fft": hidden_markov_of_fft,
    "chaos of first bars": chaos_of_first_bars,
}


def list_honest() -> Iterator[tuple[str, Column]]:
    """Yield the honest columns by name."""
    for name, kind in PAST.items():
        for k, h in enumerate(HORIZONS):
            for word in list(READINGS)[k % 2 :: 2][:2]:
                past = partial(kind, h=h)
                yield f"{name} {h}, {word}", partial(read, kind=past, reading=READINGS[word])
    for name, kind in SINGLE.items():
        for word in ("value", "sign"):
            yield f"{name}, {word}", partial(read, kind=kind, reading=READINGS[word])
    for name, kind in OLD.items():
        yield name, partial(read, kind=kind, reading=as_it_is)


HONEST = dict(list_honest())


def find_tolerance(name: str) -> float:
    """Return the tolerance that a policy with this column declares."""
    return 1e-3 if name.startswith((*SINGLE, "fft deviation")) else 1e-9


class HonestZoo(bt.Policy):
    """Observe every fortieth of the honest columns that are known after a few days."""

    def observe(self, market: Any) -> Any:
        late = ("garch", "wants bars", "unknown", "refitted", "closed 7D", "closed ME")
        kinds = [kind for name, kind in HONEST.items() if not name.startswith((*late, "late"))]
        return {f"c{k}": kind(market) for k, kind in enumerate(kinds[::40])}

    def leverage(self, bar: Any, account: Any) -> float:
        return 1.0
