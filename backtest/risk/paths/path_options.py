"""Options on simulated paths: contracts of a grid, listed as rules choose them."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from backtest.account import OptionFeed, make_option_feed
from backtest.base import IntArray, format_time
from backtest.base.units import DAY, YEAR_DAYS
from backtest.engine import (
    CloseQuotes,
    Contract,
    Instant,
    Setup,
    find_settlement,
    list_instants,
    pack_option_terms,
    write_contract,
)
from backtest.engine.option_inputs import YEAR
from backtest.market import Markets
from backtest.options import MovingSurfaces, find_expiry, quote_contracts
from backtest.risk.paths.simulated_surface import SurfaceMaker
from backtest.venue import Option, Venue, require_costs

SETTLEMENTS = {"inverse": "coin", "linear": "cash", "spot": "cash"}
EMPTY = {"signs": -1.0, "strikes": 1.0, "sizes": 1.0, "rates": 0.0}
FARTHEST = 5.0
"""Standard deviations to expiry up to which strikes are listed."""
LONGEST = 3 * 365 * DAY
"""Time to the last listed expiry, ns."""


@dataclass(eq=False)
class PathLister:
    maker: SurfaceMaker
    surfaces: MovingSurfaces
    markets: Markets
    owner: str
    venue: Venue
    instants: tuple[Instant, Instant]
    feed: OptionFeed
    seen: CloseQuotes
    names: list[str] = field(default_factory=list)
    options: list[Option] = field(default_factory=list)
    expiries: list[pd.Timestamp] = field(default_factory=list)
    numbers: dict[str, int] = field(default_factory=dict)
    same: dict[tuple[Any, ...], int] = field(default_factory=dict)
    is_full: bool = False

    @functools.cached_property
    def expiry_times(self) -> IntArray:
        """All expiries, UTC ns."""
        closes = self.instants[1].time
        return self.maker.surface.list_expiries(int(closes[0]), int(closes[-1]) + LONGEST)

    @property
    def contracts(self) -> dict[str, Option]:
        return dict(zip(self.names, self.options, strict=True))

    def look(self, t: int) -> None:
        self.quote(t, 0)

    def quote(self, t: int, first: int) -> None:
        own, feed, seen = slice(first, len(self.names)), self.feed, self.seen
        spot = self.instants[1].marks[feed.instruments[0], t]
        forwards = spot * feed.bases_close[t, own]
        seen.forwards[t, own] = forwards
        found = quote_contracts(
            feed.signs[own], forwards, feed.strikes[own], feed.years_close[t, own],
            feed.volatilities_close[t, own], feed.half_spreads[t, own], feed.ticks[own],
            is_coin=bool(feed.are_coin[0]),
        )  # fmt: skip
        seen.marks[t, own], seen.bids[t, own], seen.asks[t, own], seen.deltas[t, own] = found

    def list_nearest(
        self, instrument: str, t: int, kind: str, delta: float, tenor: float, roll: float
    ) -> Mapping[str, int]:
        if instrument not in {"", self.owner} or self.is_full:
            return {}
        found = self.find_nearest(t, kind, delta, tenor, roll)
        return {} if found is None else self.enter(t, kind, *found)

    def find_nearest(
        self, t: int, kind: str, delta: float, tenor: float, roll: float
    ) -> tuple[float, int] | None:
        close = int(self.instants[1].time[t])
        days = np.round(YEAR_DAYS * ((self.expiry_times - close) / YEAR), 9)
        later = np.flatnonzero(days > roll)
        if not len(later):
            return None
        order = np.lexsort((days[later], np.round(np.abs(days[later] - tenor), 9)))
        expiry = int(self.expiry_times[later[order[0]]])
        strike = self.find_strike(t, close, expiry, kind, delta)
        return None if strike is None else (strike, expiry)

    def find_strike(self, t: int, close: int, expiry: int, kind: str, delta: float) -> float | None:
        surfaces, step = self.surfaces, self.maker.step
        row, years = surfaces.locate(np.array([close]), "left"), (expiry - close) / YEAR
        spot = float(self.instants[1].marks[self.feed.instruments[0], t])
        if row[0] < 0 or not np.isfinite(spot):
            return None
        one, left = np.array([spot]), np.array([years])
        basis, atm = surfaces.evaluate(row, one, one, left)[:, 0]
        width = FARTHEST * max(1.0, 0.5 * float(atm)) * float(atm) * np.sqrt(years)
        forward = spot * float(basis)
        low = max(int(forward * np.exp(-width) / step), 1)
        high = int(forward * np.exp(min(width, 5.0)) / step) + 2
        strikes = step * np.arange(low, high, dtype=np.float64)
        n = len(strikes)
        same = np.ones(n)
        volatilities = surfaces.evaluate(np.full(n, row[0]), strikes, spot * same, years * same)[1]
        signs = same if kind == "call" else -same
        deltas = quote_contracts(
            signs, forward * same, strikes, years * same, volatilities, 0.0 * same, 0.0 * same,
            is_coin=False,
        )[3]  # fmt: skip
        away = np.round(np.abs(np.abs(deltas) - abs(delta)), 9)
        return float(strikes[np.lexsort((strikes, away))[0]])

    def make_option(self, kind: str, strike: float, expiry: int, settlement: str) -> Option:
        spread = self.maker.surface.spread
        return write_option(kind, strike, expiry, self.owner, settlement, spread)

    def enter(self, t: int, kind: str, strike: float, expiry: int) -> Mapping[str, int]:
        option = self.make_option(kind, strike, expiry, SETTLEMENTS[self.venue.contract.kind])
        same = self.same.get(name_terms(option, expiry))
        if same is not None:
            return {self.names[same]: same}
        if len(self.names) == len(self.feed.signs):
            self.is_full = True
            return {}
        k = self.list_contract(str(option.name), option, expiry)
        self.quote(t, k)
        return {self.names[k]: k}

    def list_contract(self, name: str, option: Option, expiry: int) -> int:
        k = len(self.names)
        contract = Contract(
            name=name,
            option=option,
            costs=require_costs(self.venue.option_costs, self.owner),
            instrument=int(self.feed.instruments[0]),
            owner=self.owner,
            expiry=expiry,
            surfaces=self.surfaces,
        )
        settled = find_settlement(self.markets, self.venue, option, self.owner)
        write_contract(self.feed, k, contract, settled, self.instants)
        self.names.append(name)
        self.options.append(option)
        self.expiries.append(pd.Timestamp(expiry, tz="UTC"))
        self.numbers[name] = self.same[name_terms(option, expiry)] = k
        return k

    def hold(self, held: Mapping[str, Option]) -> None:
        for name, option in held.items():
            own = replace(option, spread=self.maker.surface.spread)
            self.list_contract(name, own, find_expiry(own))


def name_terms(option: Option, expiry: int) -> tuple[Any, ...]:
    return option.kind, option.strike, expiry, option.size, option.settlement


@functools.lru_cache(maxsize=4096)
def write_option(
    kind: str, strike: float, expiry: int, underlying: str, settlement: str, spread: float
) -> Option:
    return Option(
        kind=kind, strike=strike, expiry=format_time(expiry), underlying=underlying,
        settlement=settlement, spread=spread,
    )  # fmt: skip


def make_lister(
    markets: Markets, maker: SurfaceMaker, owner: str, venue: Any, width: int, slots: int
) -> PathLister:
    feed, panel = make_option_feed(slots, markets.n_bars), markets.panel()
    feed.instruments[:] = markets.names.index(owner)
    for name, value in EMPTY.items():
        getattr(feed, name)[:] = value
    feed.expiries[:], feed.pairs[:] = np.arange(slots), np.arange(slots)
    instants = list_instants(markets, panel.mark_open, panel.mark_close)
    stamps = instants[1].time[-width:] - 1
    surfaces = maker.make(stamps, markets[owner].close[-width:])
    seen = CloseQuotes(*np.full((5, markets.n_bars, slots), np.nan))
    return PathLister(maker, surfaces, markets, owner, venue, instants, feed, seen)


def list_grid(
    path: Markets,
    maker: SurfaceMaker,
    owner: str,
    *,
    deltas: Sequence[float],
    tenors: Sequence[float],
    every: int,
    settlement: str,
) -> Markets:
    lister = make_lister(path, maker, owner, None, path.n_bars, 1)
    closes = lister.instants[1].time
    listed = set()
    for t in np.unique(np.searchsorted(closes, np.arange(closes[0], closes[-1], every))).tolist():
        for delta, tenor in product(deltas, tenors):
            kind = "put" if delta < 0.0 else "call"
            found = lister.find_nearest(t, kind, delta, tenor, 0.0)
            listed |= set() if found is None else {(found[1], found[0], kind)}
    options = [
        lister.make_option(kind, strike, expiry, settlement)
        for expiry, strike, kind in sorted(listed)
    ]
    return add_options(path, lister, {str(each.name): each for each in options})


def place_options(setup: Setup, lister: PathLister) -> Setup:
    inputs, names = setup.inputs, lister.markets.names
    rule = setup.account.requirement
    terms = inputs.terms._replace(options=pack_option_terms(rule, lister.feed, names))
    feed = inputs.feed._replace(options=lister.feed)
    return setup._replace(
        inputs=inputs._replace(terms=terms, feed=feed), markets=lister.markets, lister=lister
    )


def add_options(markets: Markets, lister: PathLister, options: Mapping[str, Option]) -> Markets:
    listed: dict[str, Any] = {**markets, **options}
    return Markets(
        listed,
        currency=markets.currency or None,
        surfaces={lister.owner: lister.surfaces},
    )
