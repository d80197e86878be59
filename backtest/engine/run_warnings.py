"""Warnings of a run, each with a category of its own."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backtest.base import (
    BandWarning,
    FloatArray,
    InfiniteLeverageWarning,
    IntArray,
    LastPriceWarning,
    NoFillWarning,
    VenueDateWarning,
    WeightWarning,
    format_time,
    name_values,
    pick_value,
    warn_caller,
)
from backtest.market import as_markets, describe_clock, find_clock, label_names
from backtest.policy import trades_options

if TYPE_CHECKING:
    from backtest.market import Market, Markets
    from backtest.policy import Policy

OF_EACH_RUN = (LastPriceWarning, NoFillWarning, InfiniteLeverageWarning, BandWarning, WeightWarning)


@contextlib.contextmanager
def warn_once(*, is_first: bool) -> Iterator[None]:
    with warnings.catch_warnings():
        for category in () if is_first else (*OF_EACH_RUN, VenueDateWarning):
            warnings.simplefilter("ignore", category)
        yield


def warn_of_market(market: Market | Markets, venue: Any, first: int = 0) -> None:
    markets = as_markets(market)
    warn_of_other_days(markets, venue, first)
    warn_of_thin_bars(markets)
    warn_of_last_prices(markets, list_spot(markets, venue))


def warn_of_thin_bars(markets: Markets) -> None:
    for name, label in label_names(markets).items():
        found = describe_clock(markets[name])
        if "thin_bars" in found:
            whose = f" of {label}" if label else ""
            warn_caller(
                f"{found['thin_bars']:,} bars of {found['decide']}{whose} at whose closes "
                "policies decide have under 90 % of their shorter bars, the first at "
                f"{found['first_thin']} UTC"
            )


def warn_of_weights(signal: object, markets: Markets) -> None:
    if isinstance(signal, pd.DataFrame):
        warn_of_missing_rows(signal, find_clock(markets).seen)
        warn_of_unknown_weights(signal)
    elif isinstance(signal, np.ndarray) and signal.ndim == 2:
        warn_of_unknown_weights(pd.DataFrame(signal, columns=[*markets.names]))


def warn_of_missing_rows(frame: pd.DataFrame, markets: Markets) -> None:
    times = markets.times[:-1]
    has_row = np.asarray(times.isin(frame.index))
    if not has_row.any():
        return
    lacking = np.flatnonzero(~has_row & (np.cumsum(has_row) > 0))
    if len(lacking):
        rows = int(has_row.sum())
        warn_caller(
            f"the weights have {rows:,} row{'s' * (rows != 1)}, and the {len(lacking):,} bars "
            f"without one are flat, first at {times[lacking[0]]:%Y-%m-%d %H:%M} UTC; to hold each "
            "row until the next, stamp it with the moment from which it is known and use "
            "bt.signals.from_frame(markets, frame, carry=True), or --carry-weights",
            WeightWarning,
        )


def warn_of_unknown_weights(frame: pd.DataFrame) -> None:
    unknown = [str(name) for name in frame.columns[frame.isna().all()]]
    if unknown and len(frame):
        warn_caller(
            f"the weights of {', '.join(unknown)} are NaN in all {len(frame):,} rows, which "
            "trades nothing; give numbers, 0 for flat, or leave the column out",
            WeightWarning,
        )


def list_spot(markets: Markets, venue: Any) -> list[str]:
    own = name_values(venue, markets)
    return [name for name in markets if own[name].contract.is_spot]


def warn_of_last_prices(markets: Markets, spot: Sequence[str] = ()) -> None:
    labels = label_names(markets)
    lacking = [
        labels[name] or "the market"
        for name, each in markets.items()
        if not each.has_mark and name not in spot
    ]
    if lacking:
        warn_caller(
            f"{', '.join(lacking)} {'has' if len(lacking) == 1 else 'have'} no mark prices: "
            "liquidations are tested on last prices, which swing "
            "wider than marks; give mark prices: a mark file "
            "in the folder of the data, or bt.Market.from_frames(bars, mark=...)",
            LastPriceWarning,
        )


def warn_of_other_days(markets: Markets, venue: Any, first: int) -> None:
    found: dict[str, list[str]] = {}
    start, labels = int(markets.time[first]), label_names(markets)
    for name, each in markets.items():
        own = pick_value(venue, name)
        end = int(each.time[-1]) + each.interval
        misfit = "" if each.synthetic else own.describe_misfit(max(start, int(each.time[0])), end)
        if misfit:
            found.setdefault(misfit, []).append(labels[name])
    for misfit, names in found.items():
        named = f"{', '.join(names)}: " if names != [""] else ""
        warn_caller(
            f"{named}{misfit}; a preset without @DATE uses at each bar the table in force, where "
            "there is one; venue.override(brackets=...) uses your own",
            VenueDateWarning,
        )


def warn_of_no_option(policies: Iterable[Policy | None]) -> None:
    for name in dict.fromkeys(type(each).__name__ for each in policies if trades_options(each)):
        warn_caller(
            f"{name} held no option: it ordered none, or none with a quote at the next open; what "
            "has an ask in the chain of a close can be bought",
            NoFillWarning,
        )


def warn_of_outcome(name: str, no_fill: str, target: FloatArray, closes: IntArray) -> None:
    """Warn if a policy filled no order, or asked for an infinite leverage.

    ``no_fill`` is the reason, empty if there were fills; ``target`` and ``closes`` are the leverage
    and the time (ns) of each decision.
    """
    if no_fill:
        warn_caller(f"{name} filled no order: {no_fill}", NoFillWarning)
    infinite = np.isinf(target)
    if infinite.any():
        first = format_time(int(closes[int(infinite.argmax())]))
        warn_caller(
            f"{name} asked for an infinite leverage at {int(infinite.sum()):,} of {len(target):,} "
            f"closes, first at {first} UTC (a division by zero?): it took as much as its limits "
            "allow; return float('nan') there to leave the position, or set max_leverage",
            InfiniteLeverageWarning,
        )
