"""The margins of a rule at closes and in bars, and the days and prices that they rest on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from backtest import core, engine
from backtest.core import FloatArray, IntArray
from backtest.engine import Conditions
from backtest.market import Market, as_markets
from backtest.risk.paths import Paths
from backtest.venue import Venue, choose_multipliers
from backtest.venue import margin_rules as by_rule
from backtest.venue.margin_rules import DailyCloses, DynamicMargin


class Levels(NamedTuple):
    """Margins per notional: at closes of days (n_days, ...), and in force in bars (n_bars, ...)."""

    daily: FloatArray
    by_bar: FloatArray


class Prices(NamedTuple):
    """Mark prices by bar, (n_bars, 1) or (n_bars, n_paths), and the bars' opens in ns (n_bars,)."""

    time: IntArray
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray


def list_rules(rule: DynamicMargin) -> list[tuple[str, DynamicMargin]]:
    """Return a rule and those that it wraps, each with the prefix of its dotted names."""
    prefix = ""
    rules = [(prefix, rule)]
    while isinstance(rule, by_rule.Wrapper):
        rule = rule.rule
        prefix = f"{prefix}rule."
        rules.append((prefix, rule))
    return rules


def measure_levels(
    rule: DynamicMargin | None,
    days: DailyCloses,
    time: IntArray,
    venue: Venue,
) -> Levels:
    """Return the margins of a rule at the closes of days, and for bars by their opens ``time``.

    Without a rule they are those of the venue's own table. NaN at closes before the first level.
    """
    rates, _ = venue.find_lowest(time)
    rates_at_close, _ = venue.find_lowest(days.time)
    if rule is None:
        ones = np.ones((1, *days.returns.shape[1:]))
        return Levels(
            daily=multiply_rows(ones, rates_at_close),
            by_bar=multiply_rows(ones, rates),
        )

    # Levels are known some time after each close, and then multiply the table's rates.
    levels = rule.compute_levels(days)
    known_from = days.time + rule.delay
    at_close = rule.place(levels, known_from, days.time, rates_at_close)
    by_bar = rule.place(levels, known_from, time, rates)

    # Before the first level the floor is in force, but the margin of the rule is not known.
    newest = by_rule.find_newest_levels(levels, known_from, days.time)
    is_unknown = np.isnan(newest)
    daily = multiply_rows(at_close, rates_at_close)
    return Levels(
        daily=np.where(is_unknown, np.nan, daily),
        by_bar=multiply_rows(by_bar, rates),
    )


def multiply_rows(multipliers: FloatArray, rates: FloatArray) -> FloatArray:
    """Return multipliers (n_times, ...), each row times its rate, (n_times,)."""
    return np.asarray((multipliers.T * rates).T)


def read_one_market(test: Conditions, name: str) -> tuple[Market, Venue]:
    """Return the only market of a test, and its venue, whose table nothing moves but the rules."""
    markets = as_markets(test.market)
    if len(markets) > 1:
        raise core.ParameterError(
            f"{name} needs one market, got {', '.join(markets)}: give markets one at a time"
        )

    (market,) = markets.values()
    (venue,) = engine.read_venues(test.venue, markets).values()
    if venue.contract.kind != "linear":
        raise core.ParameterError(
            f"{name} needs a linear contract, got a venue of {venue.contract.kind!r} ones"
        )

    if venue.margin is not None:
        raise core.ParameterError(
            f"{name} compares rules with the venue's own table: leave venue.margin out and give "
            f"its rule as an argument, got {venue.margin!r}"
        )

    for key, multiplier in choose_multipliers(venue).items():
        if isinstance(multiplier, pd.Series) or multiplier != 1.0:
            raise core.ParameterError(
                f"{name} compares rules with the venue's own table: leave venue.{key} out and "
                f"scale the rates of venue.brackets, got {core.repr_plain(multiplier):.60}"
            )
    return market, venue


def join_paths(
    market: Market,
    paths: Paths,
    first: int,
    stop: int,
) -> tuple[DailyCloses, Prices]:
    """Return the daily closes of history and of some paths after it, and the prices of the paths.

    Paths are those from ``first`` to before ``stop``. Their bar 0 is the last close of history.
    """
    (bars,) = paths.draw_all(first, stop).values()
    time = paths.calendar.time
    is_history = market.time < time[0]
    joined_time = np.concatenate([market.time[is_history], time])
    rows, ends = by_rule.find_day_ends(joined_time, market.interval)

    # The days of history are the same on all paths.
    n_paths = stop - first
    n_history = int(np.count_nonzero(is_history))
    rows_of_history = rows[rows < n_history]
    rows_of_paths = rows[rows >= n_history] - n_history
    last_marks = market.mark_close[rows_of_history, None]
    closes_of_history = np.repeat(last_marks, n_paths, axis=1)
    closes_of_paths = bars.marks[3].T[rows_of_paths]
    closes = np.concatenate([closes_of_history, closes_of_paths])

    # The first day has no return.
    unknown = np.full((1, n_paths), np.nan)
    moves = np.diff(np.log(closes), axis=0)
    returns = np.concatenate([unknown, moves])

    # Bar 0 is history's.
    opened, high, low, close = (marks.T[1:] for marks in bars.marks)
    prices = Prices(time[1:], open=opened, high=high, low=low, close=close)
    return DailyCloses(ends, rows, returns), prices


def read_prices(market: Market) -> Prices:
    """Return the mark prices of a market, (n_bars, 1)."""
    return Prices(
        time=market.time,
        open=market.mark_open[:, None],
        high=market.mark_high[:, None],
        low=market.mark_low[:, None],
        close=market.mark_close[:, None],
    )
