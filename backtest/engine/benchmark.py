"""The benchmark of a run: what alpha, beta and the break-evens compare the account with."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from backtest.base import (
    FloatArray,
    ParameterError,
    did_you_mean,
    format_number,
    format_percent,
    format_time,
)
from backtest.engine.tables import is_inverse, value_of
from backtest.market import Markets, read_stamps, read_weights
from backtest.measures import sample_moves
from backtest.venue import Venue

BenchmarkLike: TypeAlias = "str | pd.DataFrame | Mapping[str, float] | pd.Series | None"


class Benchmark(NamedTuple):
    """What it is, and its simple returns by bar of the market, of shape (n_bars,)."""

    text: str
    moves: FloatArray


def read_benchmark(
    given: BenchmarkLike, markets: Markets, venues: Mapping[str, Venue], first: int
) -> Benchmark | None:
    if given is None or (isinstance(given, str) and markets.names == (given,)):
        return None
    if isinstance(given, pd.Series):
        moves = read_prices(given, markets, first)
        return Benchmark(f"{given.name or 'series'} {hash_values(moves[first:])}", moves)
    if isinstance(given, str):
        name = check_name(given, markets)
        return Benchmark(name, follow_instrument(markets, venues, name))
    if not isinstance(given, pd.DataFrame | Mapping):
        raise ParameterError(
            "benchmark must be the name of an instrument, weights by time and instrument or a "
            f"Series of prices by the opens of the bars, got {type(given).__name__}"
        )
    weights = read_weights(given, markets, argument="benchmark")
    text = f"index of given weights {hash_values(weights)}"
    return Benchmark(text, measure_moves(markets, venues, weights))


def index_traded(
    markets: Markets, venues: Mapping[str, Venue], signal: FloatArray, first: int
) -> Benchmark:
    weights = spread_weights(signal, markets)
    own = weights[:, first:]
    names = [name for name, row in zip(markets.names, own, strict=True) if row.any()]
    if len(names) == 1:
        return Benchmark(names[0], follow_instrument(markets, venues, names[0]))
    text = f"index of what is traded: {', '.join(names)}"
    return Benchmark(text, measure_moves(markets, venues, weights))


def spread_weights(signal: FloatArray, markets: Markets) -> FloatArray:
    """Return the weights of the index of what is traded, of shape (n_instruments, n_bars)."""
    size = np.abs(signal)
    total = size.sum(axis=0)
    if not total.any():
        return read_weights(None, markets)
    has_any = np.flatnonzero(total)
    last = np.searchsorted(has_any, np.arange(len(total)), side="right") - 1
    kept = np.where(markets.tradable(), size[:, has_any[np.maximum(last, 0)]], 0.0)
    sums = kept.sum(axis=0)
    weights: FloatArray = kept / np.where(sums > 0.0, sums, 1.0)
    return weights


def measure_moves(markets: Markets, venues: Mapping[str, Venue], weights: FloatArray) -> FloatArray:
    """Return the simple returns of the index's mark from close to close, of shape (n_bars,).

    Bar t holds the weights of bar t - 1, rebalanced at its open without costs; the first bar has no
    return. Gains are those of the value of a contract in the settlement currency.
    """
    panel, inverse = markets.panel(), [is_inverse(venues[name]) for name in markets.names]
    held = np.concatenate((weights[:, :1], weights[:, :-1]), axis=1)
    following = np.roll(panel.open, -1, axis=1)
    following[:, -1] = np.nan
    following = np.where(np.isnan(following), panel.close, following)
    growth = 1.0 + add_gains(held, following, panel.open, inverse)
    opens = np.concatenate(([1.0], np.cumprod(growth[:-1])))
    close = opens * (1.0 + add_gains(held, panel.mark_close, panel.open, inverse))
    before = np.concatenate((close[:1], close[:-1]))
    moves: FloatArray = (close - before) / before
    return moves


def sample_benchmark(
    moves: FloatArray, ends_sample: FloatArray, name: str, venues: Mapping[str, Venue]
) -> FloatArray:
    side = -1.0 if name in venues and is_inverse(venues[name]) else 1.0
    return side * sample_moves(side * moves, ends_sample)


def begin_moves(moves: FloatArray, first: int, *, is_resumed: bool) -> FloatArray:
    own = moves[first:].copy()
    own[0] = own[0] if is_resumed else 0.0
    return own


def follow_instrument(markets: Markets, venues: Mapping[str, Venue], name: str) -> FloatArray:
    value = value_of(venues[name], markets.panel().mark_close[markets.names.index(name)])
    before = np.concatenate((value[:1], value[:-1]))
    return np.nan_to_num((value - before) / np.abs(before))


def add_gains(
    held: FloatArray, price: FloatArray, base: FloatArray, inverse: Sequence[bool]
) -> FloatArray:
    total = np.zeros(held.shape[1])
    for weight, one, other, is_coin in zip(held, price, base, inverse, strict=True):
        gain = 1.0 - other / one if is_coin else one / other - 1.0
        total += np.where(weight != 0.0, weight * gain, 0.0)
    return total


def read_prices(prices: pd.Series, markets: Markets, first: int) -> FloatArray:
    stamps = read_stamps(prices.index, "benchmark")
    values = pd.Series(prices.to_numpy(dtype=np.float64), index=stamps).reindex(markets.time)
    own = values.to_numpy()[first:]
    bad = np.flatnonzero(~((own > 0.0) & np.isfinite(own)))
    if len(bad):
        raise ParameterError(
            f"benchmark must have a positive price at each bar, {len(bad):,} of {len(own):,} have "
            f"none, the first at {format_time(int(markets.time[first + bad[0]]))} UTC; fill it: "
            "prices.reindex(markets.times, method='ffill')"
        )
    moves = values.to_numpy() / values.shift().to_numpy() - 1.0
    return np.where(np.isnan(moves), 0.0, moves)


def describe_benchmark(manifest: Mapping[str, Any], metrics: Mapping[str, float]) -> str:
    beta, alpha = metrics["beta"], metrics["alpha"]
    return (
        f"{name_benchmark(manifest)}; beta {format_number(beta)} ± "
        f"{format_number(metrics['beta_error'])}, alpha {format_percent(alpha)} ± "
        f"{format_percent(metrics['alpha_error'])} per year (standard errors)"
    )


def name_benchmark(manifest: Mapping[str, Any]) -> str:
    return find_benchmark(manifest).partition(" sha256")[0]


def find_benchmark(manifest: Mapping[str, Any]) -> str:
    default = "index of equal weights" if "kind" in manifest else "the market at 1x"
    return str(manifest.get("benchmark", manifest.get("compared_with", default)))


def check_name(name: str, markets: Markets) -> str:
    if name not in markets:
        raise ParameterError(
            f"benchmark must be an instrument of the run, one of {', '.join(markets.names)}, or a "
            f"Series of prices, got {name!r}{did_you_mean(name, markets.names)}"
        )
    return name


def hash_values(values: FloatArray) -> str:
    return f"sha256:{hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()}"
