"""The options that a run held: what they were valued at, and what they made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.account.contagion import CAUSED
from backtest.account.ledger import FILL
from backtest.engine.record import OptionFields
from backtest.engine.result_tables import OWNER
from backtest.measures import (
    OptionQuotes,
    OptionTerms,
    compute_prices,
    compute_volatilities,
    explain_profit,
    measure_greeks,
    multiply,
)

if TYPE_CHECKING:
    from backtest.account import OptionFeed
    from backtest.base import FloatArray, IntArray
    from backtest.venue import Option


@dataclass(frozen=True, eq=False)
class RunOptions:
    """The options that a run held, in the order of the markets; arrays of shape (n_bars, K).

    ``legs`` name the leg of a policy that ordered each first, empty for one held by a schedule.
    ``owners`` (K,) are their numbers in the log. ``opened`` are signed contracts after the fills at
    the open, ``entries`` the average prices of what is held, ``settled`` the prices of the
    underlying at which contracts expired inside a bar, and ``ages`` the days since the surface.
    ``hedged`` are the places of the instruments that policies ordered in contracts beside options.
    """

    contracts: tuple[Option, ...]
    legs: tuple[str, ...]
    owners: IntArray
    terms: OptionTerms
    quotes: OptionQuotes
    record: OptionFields
    opened: FloatArray
    entries: FloatArray
    settled: FloatArray
    ages: FloatArray
    hedged: tuple[int, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        pairs = zip(self.legs, self.terms.names, strict=True)
        return tuple(f"{leg}:{name}" if leg else name for leg, name in pairs)

    @property
    def named(self) -> dict[int, str]:
        return dict(zip(self.owners.tolist(), self.names, strict=True))

    @property
    def profits(self) -> FloatArray:
        held = self.record.quantity
        return multiply(held, self.record.value - self.entries)

    @property
    def carried(self) -> FloatArray:
        held = self.record.quantity
        return np.concatenate((np.zeros_like(held[:1]), held[:-1]))

    @cached_property
    def greeks(self) -> dict[str, FloatArray]:
        return measure_greeks(self.terms, self.quotes, self.record.quantity)

    @cached_property
    def parts(self) -> dict[str, FloatArray]:
        return explain_profit(
            self.terms, self.quotes, self.carried, self.opened, self.record.quantity,
            self.record.price_pnl, self.settled,
        )  # fmt: skip

    def sum_by_underlying(self, values: FloatArray, n: int) -> FloatArray:
        """Return the sums of values over the options of each instrument, of shape (n_bars, n)."""
        found = np.zeros((len(values), n))
        np.add.at(found.T, self.terms.instruments, values.T)
        return found


def read_options(
    setup: Any,
    outcome: Any,
    legs: Mapping[int, str] = MappingProxyType({}),
    hedged: Iterable[int] = (),
) -> RunOptions | None:
    record: Any = outcome.record.options
    listed: Any = getattr(setup.markets, "options", {})
    if not listed or record is None:
        return None
    after = len(setup.markets.names) + len(setup.account.collateral)
    entries, first = outcome.entries, setup.first
    is_own = (entries[:, OWNER] >= after) & (entries[:, 1] != CAUSED)  # causes have numbers too
    kept = np.unique(entries[is_own, OWNER].astype(np.int64)) - after
    kept = np.union1d(kept, np.flatnonzero(record.quantity.any(axis=0)))
    if not len(kept):
        return None
    feed = setup.inputs.feed.options
    names = tuple(listed)
    terms = read_terms(feed, kept, tuple(names[k] for k in kept))
    held = OptionFields(*(each[:, kept] for each in record))
    opens, closes = (
        np.broadcast_to(
            getattr(setup.inputs.feed, name), (len(setup.markets.time), len(setup.markets.names))
        )
        for name in ("mark_open", "mark_close")
    )
    spots = feed.expiry_spots[kept]
    places = find_expiries(feed, kept, first, held.quantity.shape)
    return RunOptions(
        contracts=tuple(listed[name] for name in terms.names),
        legs=tuple(legs.get(k, "") for k in kept.tolist()),
        owners=kept + after,
        terms=terms,
        quotes=read_quotes(feed, kept, terms, opens[first:], closes[first:], places[0], first),
        record=held,
        opened=find_opened(entries, held.quantity, kept + after, first, places[0]),
        entries=find_entries(entries, held.quantity, kept + after, first),
        settled=np.where(places[1], spots, np.nan),
        ages=feed.ages[first:, kept],
        hedged=tuple(sorted(hedged)),
    )


def read_terms(feed: OptionFeed, kept: IntArray, names: tuple[str, ...]) -> OptionTerms:
    return OptionTerms(
        names=names,
        signs=feed.signs[kept],
        strikes=feed.strikes[kept],
        sizes=feed.sizes[kept],
        are_coin=feed.are_coin[kept],
        instruments=feed.instruments[kept],
        expiries=feed.expiry_times[kept],
        rates=feed.rates[kept],
    )


def find_expiries(
    feed: OptionFeed, kept: IntArray, first: int, shape: tuple[int, ...]
) -> tuple[FloatArray, FloatArray]:
    found = np.zeros((2, *shape), dtype=bool)
    for place, k in enumerate(kept):
        bar = int(feed.expiry_bars[k]) - first
        if 0 <= bar < shape[0]:
            found[int(feed.are_inside[k]), bar, place] = True
    return found[0], found[1]


def read_quotes(
    feed: OptionFeed,
    kept: IntArray,
    terms: OptionTerms,
    opens: FloatArray,
    closes: FloatArray,
    expired: FloatArray,
    first: int,
) -> OptionQuotes:
    spots = feed.expiry_spots[kept]
    index = np.where(expired, spots, opens[:, terms.instruments])
    bases = np.where(expired, 1.0, feed.bases_open[first:, kept])
    years = np.where(expired, 0.0, feed.years_open[first:, kept])
    marks = np.where(expired, np.nan, feed.marks_open[first:, kept])
    volatilities = np.where(expired, 0.0, feed.volatilities_open[first:, kept])
    at_open = value_state(terms, index * bases, volatilities, years, marks)
    index_close = closes[:, terms.instruments]
    forward = index_close * feed.bases_close[first:, kept]
    years, volatilities = feed.years_close[first:, kept], feed.volatilities_close[first:, kept]
    marks = feed.marks_close[first:, kept]
    return OptionQuotes(
        index,
        index * bases,
        *at_open,
        index_close,
        forward,
        *value_state(terms, forward, volatilities, years, marks),
    )


def value_state(
    terms: OptionTerms,
    forward: FloatArray,
    volatility: FloatArray,
    years: FloatArray,
    marks: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    bars, options = np.nonzero(years >= 0.0)
    state = np.stack([forward[bars, options], volatility[bars, options], years[bars, options]])
    value, found = np.full(forward.shape, np.nan), volatility.copy()
    value[bars, options] = compute_prices(terms, options, state)
    rows = np.flatnonzero(~np.isnan(marks[bars, options]))
    if len(rows):
        own, at = (bars[rows], options[rows]), state[:, rows]
        value[own] = marks[own]
        found[own] = compute_volatilities(terms, options[rows], at[0], marks[own], at[2])
    return found, years, value * terms.sizes


def find_opened(
    entries: FloatArray, held: FloatArray, owners: IntArray, first: int, expired: FloatArray
) -> FloatArray:
    """Return the contracts after the fills at the open of each bar, of shape (n_bars, K)."""
    opened = np.where(expired, 0.0, np.concatenate((np.zeros_like(held[:1]), held[:-1])))
    is_fill = (entries[:, 1] == FILL) & np.isin(entries[:, OWNER], owners)
    own = entries[is_fill]
    places = np.searchsorted(owners, own[:, OWNER].astype(np.int64))
    np.add.at(opened, (own[:, 0].astype(np.int64) - first, places), own[:, 3])
    return opened


def find_entries(entries: FloatArray, held: FloatArray, owners: IntArray, first: int) -> FloatArray:
    found = np.full(held.shape, np.nan)
    for place, owner in enumerate(owners.tolist()):
        own = entries[(entries[:, OWNER] == owner) & (entries[:, 3] != 0.0)]
        quantity, average = 0.0, np.nan
        for entry in own:
            quantity, average = enter(quantity, average, entry[3], entry[2])
            found[int(entry[0]) - first :, place] = average
    return np.where(held != 0.0, found, np.nan)


def enter(quantity: float, average: float, added: float, price: float) -> tuple[float, float]:
    after = quantity + added
    if quantity * added > 0.0:
        return after, (quantity * average + added * price) / after
    return after, price if quantity * after <= 0.0 else average
