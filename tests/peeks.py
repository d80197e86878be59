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
from backtest.features import ewma_volatility
from backtest.features.garch import garch_volatility

Column = Callable[[Any], Any]

HORIZONS = (1, 2, 3, 5, 8, 13, 24, 48)
MARKET = bt.Market.sample(bars=3000, seed=5).with_columns(
    own=np.where(np.arange(3000) % 7 == 0, np.nan, np.sin(np.arange(3000.0) ** 1.3)),
    late=np.where(np.arange(3000) < 1500, np.nan, np.cos(np.arange(3000.0) ** 1.1)),
)
MARKET = MARKET.with_signal(np.where(np.sin(np.arange(3000) / 11.0) > 0, 1.0, -1.0))


def observing(function: Callable[[Any], Any]) -> bt.Policy:
    """Return a policy that observes what a function makes of the market."""

    class Observing(bt.Policy):
        def observe(self, market: Any) -> Any:
            return {"x": function(market)}

        def leverage(self, bar: Any, account: Any) -> float:
            return 1.0

    return Observing()


def series(market: Any) -> pd.Series:
    return pd.Series(market.close, index=market.times)


def log_returns(market: Any) -> Any:
    return np.append(0.0, np.diff(np.log(market.close)))


# ----------------------------------------------------------------------------------------- readings


def as_it_is(values: Any) -> Any:
    return np.asarray(values, dtype=float)


def as_sign(values: Any) -> Any:
    return np.sign(as_it_is(values))


def as_claim(values: Any) -> Any:
    return (as_it_is(values) > 0.0).astype(float)  # NaN is no


def as_classes(values: Any) -> Any:
    return np.floor(np.clip(200.0 * as_it_is(values), -3, 3))


def as_small(values: Any) -> Any:
    return as_it_is(values).astype(np.float32)


READINGS = {
    "value": as_it_is,
    "sign": as_sign,
    "claim": as_claim,
    "classes": as_classes,
    "float32": as_small,
}


# ---------------------------------------------------------------------- peeks at so many bars ahead


def move_ahead(market: Any, h: int) -> Any:
    price = series(market)
    return price.shift(-h) / price - 1.0


def move_ahead_held(market: Any, h: int) -> Any:
    close = market.close
    later = np.append(close[h:], np.repeat(close[-1], min(h, len(close))))[: len(close)]
    return later / close - 1.0


def change_backwards(market: Any, h: int) -> Any:
    return -series(market).pct_change(-h)


def centered_mean(market: Any, h: int) -> Any:
    price = series(market)
    return price / price.rolling(2 * h + 1, center=True, min_periods=1).mean() - 1.0


def mean_ahead(market: Any, h: int) -> Any:
    price = series(market)
    return price.rolling(h + 1).mean().shift(-h).ffill() / price - 1.0


def high_ahead(market: Any, h: int) -> Any:
    price = series(market)
    return price[::-1].rolling(h + 1, min_periods=1).max()[::-1] / price - 1.001


def filled_backwards(market: Any, h: int) -> Any:
    price = series(market)
    known = price.where(np.arange(len(price)) % (h + 1) == 0)
    return known.bfill().ffill() / price - 1.0


def interpolated(market: Any, h: int) -> Any:
    price = series(market)
    known = price.where(np.arange(len(price)) % (h + 1) == 0)
    return known.interpolate() / price - 1.0


def rolled_round(market: Any, h: int) -> Any:
    return np.roll(market.close, -h) / market.close - 1.0


AHEAD = {
    "shift": move_ahead,
    "held": move_ahead_held,
    "pct_change": change_backwards,
    "centered": centered_mean,
    "mean": mean_ahead,
    "high": high_ahead,
    "backward fill": filled_backwards,
    "interpolate": interpolated,
    "roll": rolled_round,
}


# ------------------------------------------------------------------------ peeks at the whole sample


def z_score(market: Any) -> Any:
    price = market.close
    return (price - price.mean()) / price.std()


def rank_of_all(market: Any) -> Any:
    return series(market).rank(pct=True) - 0.5


def over_quantile(market: Any, q: float) -> Any:
    return (market.close > np.quantile(market.close, q)) - 0.5


def scaled_to_range(market: Any) -> Any:
    price = market.close
    return (price - price.min()) / (price.max() - price.min() + 1e-9) - 0.5


def until_the_top(market: Any) -> Any:
    return (np.arange(market.n_bars) < market.close.argmax()) - 0.5


def until_the_bottom(market: Any) -> Any:
    return (np.arange(market.n_bars) < market.close.argmin()) - 0.5


def fitted_line(market: Any) -> Any:
    x = np.arange(market.n_bars)
    return market.close - np.polyval(np.polyfit(x, market.close, 1), x)


def detrended(market: Any) -> Any:
    return filters.detrend(market.close)


def fitted_model(market: Any) -> Any:
    moves = log_returns(market)
    table = np.column_stack([np.roll(moves, k) for k in (1, 2, 3)])
    later = np.append(moves[1:], 0.0)
    return table @ np.linalg.lstsq(table, later, rcond=None)[0]


def first_component(market: Any) -> Any:
    table = np.column_stack([np.log(market.high), np.log(market.low), np.log(market.close)])
    table = table - table.mean(axis=0)
    return table @ np.abs(np.linalg.svd(table, full_matrices=False)[2][0])


def over_the_end(market: Any) -> Any:
    return market.close / market.close[-1] - 1.0


def gradient(market: Any) -> Any:
    return np.gradient(market.close)


def smoothed_both_ways(market: Any) -> Any:
    if market.n_bars < 20:
        return np.full(market.n_bars, np.nan)
    return market.close - filters.filtfilt(*filters.butter(2, 0.1), market.close)


def savitzky_golay(market: Any) -> Any:
    return market.close - filters.savgol_filter(market.close, 11, 2)


def ewm_from_the_end(market: Any) -> Any:
    price = series(market)
    return price[::-1].ewm(span=10).mean()[::-1] / price - 1.0


def count_down(market: Any) -> Any:
    return np.arange(market.n_bars)[::-1] / 100.0 - 5.0


def day_range(market: Any) -> Any:
    price = series(market)
    return price.groupby(price.index.floor("1D")).transform("max") / price - 1.001


def period_close(market: Any, rule: str) -> Any:
    price = series(market)
    return price.resample(rule).last().reindex(price.index, method="ffill") / price - 1.0


def period_direction(market: Any, rule: str) -> Any:
    price = series(market)
    bars = price.resample(rule).agg(["first", "last"])
    up = np.log(bars["last"] / bars["first"])
    return up.reindex(price.index, method="ffill")


def joined_forward(market: Any) -> Any:
    price = series(market)
    left = pd.DataFrame({"time": price.index})
    right = pd.DataFrame({"time": price.index[::6], "x": price.to_numpy()[::6]})
    found = pd.merge_asof(left, right, on="time", direction="forward")["x"]
    return found.ffill().to_numpy() / market.close - 1.0


def next_funding(market: Any) -> Any:
    places = np.searchsorted(market.funding_time, market.time)
    rates = np.append(market.funding_rate, np.nan)
    return 1e2 * rates[places]


def next_funding_held(market: Any) -> Any:
    return pd.Series(next_funding(market)).ffill().fillna(0.0)


def column_ahead(market: Any) -> Any:
    return pd.Series(market.columns["own"]).shift(-1)


def column_filled(market: Any) -> Any:
    return pd.Series(market.columns["own"]).bfill().ffill()


def signal_ahead(market: Any) -> Any:
    return pd.Series(market.signal).shift(-1).ffill()


def mark_ahead(market: Any) -> Any:
    return pd.Series(market.mark_close).shift(-1).ffill() / market.mark_close - 1.0


def volume_share(market: Any) -> Any:
    return market.volume / market.volume.sum() * market.n_bars - 1.0


def time_left(market: Any) -> Any:
    return (market.time[-1] - market.time) / 3.6e12 / 100.0 - 5.0


def standardised_volume(market: Any) -> Any:
    return (market.volume - market.volume.mean()) / market.volume.std()


def clusters(market: Any) -> Any:
    moves = np.abs(log_returns(market))
    return (moves > np.median(moves)) - 0.5


def fft_low_pass(market: Any) -> Any:
    spectrum = np.fft.rfft(market.close)
    spectrum[len(spectrum) // 8 :] = 0.0
    return market.close - np.fft.irfft(spectrum, market.n_bars)


WHOLE = {
    "z-score": z_score,
    "rank": rank_of_all,
    **{f"quantile {q}": partial(over_quantile, q=q) for q in (0.2, 0.5, 0.8)},
    "range": scaled_to_range,
    "argmax": until_the_top,
    "argmin": until_the_bottom,
    "line": fitted_line,
    "detrend": detrended,
    "regression": fitted_model,
    "component": first_component,
    "over the end": over_the_end,
    "gradient": gradient,
    "filtfilt": smoothed_both_ways,
    "savgol": savitzky_golay,
    "ewm reversed": ewm_from_the_end,
    "count down": count_down,
    "day range": day_range,
    **{f"close of {rule}": partial(period_close, rule=rule) for rule in ("4h", "1D", "7D")},
    **{f"direction of {rule}": partial(period_direction, rule=rule) for rule in ("4h", "1D")},
    "merge_asof": joined_forward,
    "next funding": next_funding,
    "next funding held": next_funding_held,
    "column ahead": column_ahead,
    "column filled": column_filled,
    "signal ahead": signal_ahead,
    "mark ahead": mark_ahead,
    "volume share": volume_share,
    "volume z-score": standardised_volume,
    "time left": time_left,
    "median split": clusters,
    "fft": fft_low_pass,
}


def read(market: Any, kind: Column, reading: Column) -> Any:
    with np.errstate(all="ignore"):
        return reading(kind(market))


def list_peeks() -> Iterator[tuple[str, Column]]:
    """Yield the peeks by name."""
    for name, kind in AHEAD.items():
        for k, h in enumerate(HORIZONS):
            for word in list(READINGS)[k % 2 :: 2]:
                ahead = partial(kind, h=h)
                yield f"{name} {h}, {word}", partial(read, kind=ahead, reading=READINGS[word])
    for name, kind in WHOLE.items():
        for word in ("value", "float32", "claim"):
            yield f"{name}, {word}", partial(read, kind=kind, reading=READINGS[word])


# ----------------------------------------------------------------------------------- honest columns


def past_move(market: Any, h: int) -> Any:
    return series(market).pct_change(h)


def rolling(market: Any, h: int, what: str) -> Any:
    return getattr(series(market).rolling(h + 1), what)()


def rolling_rank(market: Any, h: int) -> Any:
    return series(market).rolling(h + 2).rank(pct=True) - 0.5


def rolling_quantile(market: Any, h: int) -> Any:
    price = series(market)
    return price / price.rolling(h + 2).quantile(0.8) - 1.0


def recursive_mean(market: Any, h: int) -> Any:
    price = series(market)
    return price / price.ewm(span=h + 1, adjust=False).mean() - 1.0


def past_sum_by_fft(market: Any, h: int) -> Any:
    sums = filters.fftconvolve(log_returns(market), np.ones(h + 1))[: market.n_bars]
    return np.where(np.arange(market.n_bars) <= h, np.nan, sums)


def past_sum_by_blas(market: Any, h: int) -> Any:
    padded = np.append(np.zeros(h), market.close)
    windows = np.lib.stride_tricks.sliding_window_view(padded, h + 1)
    return windows @ np.linspace(0.1, 1.0, h + 1)


def past_deviation_by_fft(market: Any, h: int) -> Any:
    ones = np.ones(h + 2) / (h + 2)
    mean, square = (filters.fftconvolve(market.close**k, ones)[: market.n_bars] for k in (1, 2))
    return np.where(np.arange(market.n_bars) < h + 2, np.nan, np.sqrt(square - mean**2))


def past_mean_by_sums(market: Any, h: int) -> Any:
    sums = np.cumsum(np.append(np.zeros(h + 1), market.close))
    return (sums[h + 1 :] - sums[: -h - 1]) / (h + 1)


def past_slope(market: Any, h: int) -> Any:
    return np.convolve(market.close, np.linspace(1, -1, h + 2))[: market.n_bars]


def one_way_filter(market: Any, h: int) -> Any:
    b, a = filters.butter(2, 1.0 / (h + 2))
    return filters.lfilter(b, a, market.close)


PAST = {
    "move": past_move,
    **{what: partial(rolling, what=what) for what in ("mean", "std", "max", "median")},
    "rank": rolling_rank,
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


def expanding_rank(market: Any) -> Any:
    return series(market).expanding().rank(pct=True)


def drawdown(market: Any) -> Any:
    return market.close / np.maximum.accumulate(market.close) - 1.0


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


def infinite_at_times(market: Any) -> Any:
    return np.where(market.close > market.open, np.inf, market.close)


def last_funding(market: Any) -> Any:
    closes = market.time + market.interval
    places = np.searchsorted(market.funding_time, closes) - 1
    rates = np.append(market.funding_rate, np.nan)
    return rates[places]


def calm(market: Any) -> Any:
    return ewma_volatility(market, 50.0)


def fitted_garch(market: Any) -> Any:
    return garch_volatility(market)


def single_layers(market: Any) -> Any:
    """What a small network in single precision makes of the last 64 returns."""
    returns = np.append(np.zeros(63), log_returns(market)).astype(np.float32)
    windows = np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(returns, 64))
    rng = np.random.default_rng(0)
    inner, outer = (rng.normal(size=size).astype(np.float32) for size in ((64, 32), (32, 1)))
    return (np.tanh(100 * windows @ inner) @ outer)[:, 0]


def single_sum_by_fft(market: Any) -> Any:
    returns = log_returns(market).astype(np.float32)
    return filters.fftconvolve(returns, np.ones(20, np.float32))[: market.n_bars]


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
    "expanding rank": expanding_rank,
    "drawdown": drawdown,
    "refitted": refitted,
    **{f"closed {rule}": partial(closed_periods, rule=rule) for rule in ("4h", "1D", "7D", "ME")},
    "wants bars": wants_bars,
    "unknown in few": unknown_in_few_bars,
    "infinite": infinite_at_times,
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
    "ewma": calm,
    "garch": fitted_garch,
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


PEEKS = dict(list_peeks())
HONEST = dict(list_honest())


class HonestZoo(bt.Policy):
    """Observe every fortieth of the honest columns that are known after a few days."""

    def observe(self, market: Any) -> Any:
        late = ("garch", "wants bars", "unknown", "refitted", "closed 7D", "closed ME")
        kinds = [kind for name, kind in HONEST.items() if not name.startswith((*late, "late"))]
        return {f"c{k}": kind(market) for k, kind in enumerate(kinds[::40])}

    def leverage(self, bar: Any, account: Any) -> float:
        return 1.0
