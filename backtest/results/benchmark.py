"""The benchmark of a run: what it is, and its returns by bar."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from backtest import core
from backtest.core.code_names import is_frame, is_series, pd
from backtest.market import BY_BARS, Markets, read_dates, read_weights
from backtest.results import tables
from backtest.venue import Venue

BenchmarkLike: TypeAlias = "str | pd.DataFrame | Mapping[str, float] | pd.Series | None"


class Benchmark(NamedTuple):
    """What it is, and its simple returns by bar of the market, of shape (n_bars,)."""

    text: str
    moves: core.FloatArray


def read_benchmark(
    declared: BenchmarkLike,
    markets: Markets,
    venues: Mapping[str, Venue],
    first: int,
) -> Benchmark | None:
    """Return a benchmark that a user declared; None if it is the only instrument of the run."""
    if declared is None or (isinstance(declared, str) and markets.names == (declared,)):
        return None
    if is_series(declared):
        moves = read_prices(declared, markets, first)
        name = declared.name or "series"
        return Benchmark(f"{name} {hash_values(moves[first:])}", moves)

    if isinstance(declared, str):
        if declared not in markets:
            raise core.ParameterError(
                f"benchmark must be an instrument of the run, one of {', '.join(markets.names)}, "
                f"or a Series of prices, got {declared!r}"
                f"{core.did_you_mean(declared, markets.names)}"
            )
        return Benchmark(declared, follow_instrument(markets, venues, declared))

    if not (isinstance(declared, Mapping) or is_frame(declared)):
        raise core.ParameterError(
            "benchmark must be the name of an instrument, weights by time and instrument or a "
            f"Series of prices by the opens of the bars, got {type(declared).__name__}"
        )
    weights = read_weights(declared, markets, argument="benchmark")
    text = f"index of given weights {hash_values(weights)}"
    return Benchmark(text, measure_moves(markets, venues, weights))


def index_traded(
    markets: Markets,
    venues: Mapping[str, Venue],
    signal: core.FloatArray,
    first: int,
) -> Benchmark:
    """Return the index of what is traded; of one instrument that instrument."""
    weights = spread_weights(signal, markets)
    names = []
    for name, row in zip(markets.names, weights[:, first:], strict=True):
        if row.any():
            names.append(name)

    if len(names) == 1:
        return Benchmark(names[0], follow_instrument(markets, venues, names[0]))
    text = f"index of what is traded: {', '.join(names)}"
    return Benchmark(text, measure_moves(markets, venues, weights))


def spread_weights(signal: core.FloatArray, markets: Markets) -> core.FloatArray:
    """Return the weights of the index of what is traded, of shape (n_instruments, n_bars)."""
    size = np.abs(signal)
    total = size.sum(axis=0)
    if not total.any():
        return read_weights(None, markets)

    # A bar without any signal has the weights of the last bar with one.
    bars_with_signal = np.flatnonzero(total)
    rank = np.searchsorted(bars_with_signal, np.arange(len(total)), side="right") - 1
    last_bar = bars_with_signal[np.maximum(rank, 0)]  # of bars before any, the first with one
    latest = size[:, last_bar]

    # Weights add up to 1, over the instruments that can be traded.
    tradable = np.where(markets.tradable(), latest, 0.0)
    sums = tradable.sum(axis=0)
    return np.asarray(tradable / np.where(sums > 0.0, sums, 1.0))


def measure_moves(
    markets: Markets,
    venues: Mapping[str, Venue],
    weights: core.FloatArray,
) -> core.FloatArray:
    """Return the simple returns of the index's mark from close to close, of shape (n_bars,).

    Bar t holds the weights of bar t - 1, rebalanced at its open without costs; the first bar has no
    return. Gains are those of the value of a contract in the settlement currency.
    """
    contracts = [venues[name].contract for name in markets.names]
    are_inverse = [contract.kind == "inverse" for contract in contracts]
    panel = markets.panel()
    held = np.concatenate((weights[:, :1], weights[:, :-1]), axis=1)

    # The index at each open: it grows from open to open, and to the close where none follows.
    next_open = np.roll(panel.open, -1, axis=1)
    next_open[:, -1] = np.nan
    next_open = np.where(np.isnan(next_open), panel.close, next_open)
    growth = 1.0 + sum_gains(
        held,
        price=next_open,
        start_price=panel.open,
        are_inverse=are_inverse,
    )
    grown = np.cumprod(growth[:-1])
    index_at_open = np.concatenate(([1.0], grown))

    # At each close, by the marks; the first one has none before it to grow from.
    gains_to_close = sum_gains(
        held,
        price=panel.mark_close,
        start_price=panel.open,
        are_inverse=are_inverse,
    )
    index_at_close = index_at_open * (1.0 + gains_to_close)
    close_before = np.concatenate((index_at_close[:1], index_at_close[:-1]))
    moves = (index_at_close - close_before) / close_before
    return np.asarray(moves)


def follow_instrument(
    markets: Markets,
    venues: Mapping[str, Venue],
    name: str,
) -> core.FloatArray:
    """Return the simple returns of an instrument's mark by bar, of shape (n_bars,)."""
    marks = markets.panel().mark_close[markets.names.index(name)]
    value = tables.value_of(venues[name].contract, marks)
    before = np.concatenate((value[:1], value[:-1]))
    moves = (value - before) / np.abs(before)
    return np.nan_to_num(moves)


def sum_gains(
    held: core.FloatArray,
    price: core.FloatArray,
    start_price: core.FloatArray,
    are_inverse: Sequence[bool],
) -> core.FloatArray:
    """Return the return of weights from one price to another, of shape (n_bars,)."""
    is_coin = np.array(are_inverse)[:, None]
    gains_in_coin = 1.0 - start_price / price
    gains_in_quote = price / start_price - 1.0
    gains = np.where(is_coin, gains_in_coin, gains_in_quote)

    # An instrument that is not held may have no price.
    weighted = np.where(held != 0.0, held * gains, 0.0)
    return np.asarray(weighted.sum(axis=0))


def read_prices(
    prices: pd.Series,
    markets: Markets,
    first: int,
) -> core.FloatArray:
    """Return the simple returns of a Series of prices by bar; 0 where none is before.

    Raises ParameterError for a bar of the run, from ``first`` on, without a positive price.
    """
    stamps = read_dates(prices.index, "benchmark", BY_BARS)
    numbers = core.to_numbers(prices, "benchmark")
    values = pd.Series(numbers, index=stamps).reindex(markets.time)
    in_run = values.to_numpy()[first:]
    missing = np.flatnonzero(~((in_run > 0.0) & np.isfinite(in_run)))
    if len(missing):
        time = core.format_time(int(markets.time[first + missing[0]]))
        raise core.ParameterError(
            f"benchmark must have a positive price at each bar, {len(missing):,} of "
            f"{len(in_run):,} have none, the first at {time} UTC; fill "
            "it: prices.reindex(markets.times, method='ffill')"
        )

    moves = values.to_numpy() / values.shift().to_numpy() - 1.0
    return np.where(np.isnan(moves), 0.0, moves)


def describe_benchmark(manifest: Mapping[str, Any], metrics: Mapping[str, float]) -> str:
    """Return the benchmark of a run, with alpha and beta against it, as a sentence."""
    beta = core.format_number(metrics["beta"])
    beta_error = core.format_number(metrics["beta_error"])
    alpha = core.format_percent(metrics["alpha"])
    alpha_error = core.format_percent(metrics["alpha_error"])
    return (
        f"{name_benchmark(manifest)}; beta {beta} ± {beta_error}, "
        f"alpha {alpha} ± {alpha_error} per year (standard errors)"
    )


def name_benchmark(manifest: Mapping[str, Any]) -> str:
    """Return the name of a benchmark, without the hash of its values."""
    return find_benchmark(manifest).partition(" sha256")[0]


def find_benchmark(manifest: Mapping[str, Any]) -> str:
    """Return the benchmark of a saved run: the one declared, or what it was compared with."""
    return str(manifest.get("benchmark", manifest["compared_with"]))


def hash_values(values: core.FloatArray) -> str:
    content = np.ascontiguousarray(values).tobytes()
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
