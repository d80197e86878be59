"""The instruments of a panel, checked, their clock and spans; ``Markets`` adds loading and cuts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from backtest.base import (
    BoolArray,
    DataError,
    IntArray,
    ParameterError,
    call_later,
    checked,
    count_nouns,
    did_you_mean,
    find_currency,
    format_duration,
    format_time,
    freeze,
    repr_plain,
)
from backtest.market.market import Market
from backtest.market.panel import Panel, make_panel
from backtest.market.tables.market_data import BarClock
from backtest.market.tables.read_options import time_text
from backtest.market.tables.settlements import JITTER

MAX_AGE = "14d"
read_listing = call_later("backtest.options.option_listing", "read_listing")


def check_markets(markets: object) -> None:
    if not isinstance(markets, Mapping):
        raise ParameterError(
            f"markets must be a mapping of names to markets, got {type(markets).__name__}"
        )
    if not markets:
        raise ParameterError("markets must be at least one, got none")
    for name, market in markets.items():
        _check_entry(name, market)


def _check_entry(name: object, market: object) -> None:
    if not isinstance(name, str) or not name.strip() or name != name.strip():
        raise ParameterError(
            f"the name of a market must be text without spaces around it, got {name!r}"
        )
    if not isinstance(market, Market):
        raise ParameterError(f"{name!r} must be a Market, got {type(market).__name__}")


def check_frames(bars: Mapping[str, Any], **more: Mapping[str, Any] | None) -> None:
    for key, frames in more.items():
        unknown = [name for name in frames or () if name not in bars]
        if unknown:
            raise ParameterError(
                f"{key} must be of instruments with bars, got one of {unknown[0]!r}"
                + did_you_mean(unknown[0], bars)
            )


def check_known(name: str, names: Collection[str]) -> None:
    if not isinstance(name, str) or name not in names:
        raise ParameterError(
            f"an instrument must be one of the panel, {', '.join(names)}, got {repr_plain(name)}"
            f"{did_you_mean(name, names)}"
        )


def check_replacement(name: str, market: Market, markets: Mapping[str, Market]) -> None:
    check_known(name, markets)
    _check_entry(name, market)
    if not np.array_equal(market.time, markets[name].time):
        raise DataError(
            f"a market must have the bars of the one that it replaces, {name!r} has other times"
        )


def check_same_terms(markets: Mapping[str, Market]) -> None:
    lengths = {name: format_duration(market.interval) for name, market in markets.items()}
    if len({*lengths.values()}) > 1:
        raise DataError(
            f"markets must have one interval, got {_list_both(lengths)}; market.resample makes "
            "longer bars"
        )
    clocks = {n: format_duration(m.decide or m.interval) for n, m in markets.items()}
    if len({*clocks.values()}) > 1:
        raise DataError(
            f"policies must decide on one clock, got {_list_both(clocks)}; give the markets as "
            "they are, and decide= to the run"
        )
    calendars = {n: "sessions" if m.sessions else "no sessions" for n, m in markets.items()}
    if len({*calendars.values()}) > 1:
        raise DataError(
            f"markets must have one calendar, got {_list_both(calendars)}; load all with "
            "sessions=True, or run those that close in an account of their own"
        )


def read_currency(given: object) -> str:
    """Return the settlement currency that a caller gives."""
    if not isinstance(given, str) or not given.strip():
        raise ParameterError(f"currency must be text, got {given!r}")
    return given


def agree_currency(markets: Mapping[str, Market], said: Mapping[str, str]) -> str:
    """Return the settlement currency of markets, empty if unknown or if there are several."""
    found = {
        name: said.get(name) or find_currency(market.instrument) or find_currency(name)
        for name, market in markets.items()
    }
    known = {name: currency for name, currency in found.items() if currency}
    return next(iter(known.values()), "") if len({*known.values()}) == 1 else ""


def make_clock(markets: Mapping[str, Market]) -> tuple[IntArray, IntArray]:
    """Return the union of the opens, of shape (n_bars,), and the spans, of shape (n, 2)."""
    times = [market.time for market in markets.values()]
    is_shared = all(np.array_equal(each, times[0]) for each in times[1:])
    time = times[0] if is_shared else np.unique(np.concatenate(times))
    starts = np.searchsorted(time, [market.start for market in markets.values()])
    stops = np.searchsorted(time, [int(m.time[-1]) for m in markets.values()]) + 1
    spans = np.stack([starts, stops], axis=1).astype(np.int64)
    for (name, market), (first, stop) in zip(markets.items(), spans, strict=True):
        _check_whole(name, market, time[first:stop], markets)
    _check_overlap([*markets], spans, time)
    return freeze(time), freeze(spans)


def _check_whole(name: str, market: Market, clock: IntArray, markets: Mapping[str, Market]) -> None:
    if clock.size == market.time.size:
        return
    missing = np.setdiff1d(clock, market.time, assume_unique=True)
    other = next(n for n, each in markets.items() if np.isin(missing[0], each.time))
    raise DataError(
        "an instrument must have all bars of the others between its first and its last one, "
        f"{name!r} lacks {missing.size} of {clock.size}, the first at "
        f"{format_time(int(missing[0]))} UTC, where {other!r} has one; fill the hole, or cut the "
        "panel with between="
    )


def _check_overlap(names: list[str], spans: IntArray, time: IntArray) -> None:
    order = np.argsort(spans[:, 0], kind="stable")
    reach, latest = -1, ""
    for row in order:
        first, stop = (int(bar) for bar in spans[row])
        if latest and first >= reach:
            raise DataError(
                f"the spans of the instruments must overlap, {names[row]!r} begins at "
                f"{format_time(int(time[first]))} UTC, after the last bar of {latest!r} at "
                f"{format_time(int(time[reach - 1]))} UTC"
            )
        if stop > reach:
            reach, latest = stop, names[row]


def _list_both(values: Mapping[str, str]) -> str:
    first = next(iter(values.items()))
    other = next(item for item in values.items() if item[1] != first[1])
    return " and ".join(f"{value} for {name!r}" for name, value in (first, other))


def require_panel(markets: object) -> None:
    if not isinstance(markets, PanelData):
        raise ParameterError(
            f"markets must be a Markets, got {type(markets).__name__}; "
            'bt.Markets({"BTCUSDT": market, "ETHUSDT": other})'
        )


def has_others(markets: Mapping[str, Any]) -> bool:
    return any(not isinstance(each, Market) for each in markets.values())


class PanelData(Mapping[str, Market], BarClock):
    """Markets by name on one clock; :class:`backtest.Markets` describes each field."""

    names: tuple[str, ...]
    sessions: bool
    decide: int
    currency: str
    spans: IntArray
    listing: Any

    def __init__(
        self,
        markets: Mapping[str, Any],
        *,
        currency: str | None = None,
        surfaces: Mapping[str, Any] | None = None,
        chains: Mapping[str, Any] | None = None,
        quote_age: str | None = None,
        max_age: str = MAX_AGE,
    ) -> None:
        listing, given = None, markets
        more = (surfaces, chains, quote_age, None if max_age is MAX_AGE else max_age)
        has_more = any(each is not None for each in more)
        if isinstance(given, Mapping) and (has_more or has_others(given)):
            markets, listing = read_listing(given, *more[:3], max_age)
        check_markets(markets)
        source = f"Markets({', '.join(map(repr, given))})"
        lasts = {name: int(market.time[-1]) for name, market in markets.items()}
        self._fill(dict(markets), currency, source, lasts, listing)

    def _fill(
        self,
        markets: dict[str, Market],
        currency: str | None,
        source: str,
        lasts: Mapping[str, int],
        listing: Any,
    ) -> None:
        check_same_terms(markets)
        self.listing = None if listing is None else listing.keep(markets)
        self._lasts = dict(lasts)
        self._markets = markets
        self.names = tuple(markets)
        is_given = currency is not None
        self.currency = read_currency(currency) if is_given else agree_currency(markets, {})
        self.time, self.spans = make_clock(markets)
        first = next(iter(markets.values()))
        self.interval, self.sessions = first.interval, first.sessions
        self.decide = first.decide
        self.source = source
        self.facts: dict[str, Any] = {}  # of compute_once
        self._panels: dict[int, Panel] = {}

    def __getitem__(self, name: str) -> Market:
        if name not in self._markets:
            raise KeyError(f"{name!r} is not among {', '.join(self.names)}")
        return self._markets[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PanelData):
            return NotImplemented
        return self is other or self.content_hash == other.content_hash

    def __hash__(self) -> int:
        return hash(self.content_hash)

    def __repr__(self) -> str:
        names = ", ".join(self.names[:6]) + (", ..." if len(self) > 6 else "")
        names += f" and {count_nouns(len(self.options), 'option')}" if self.options else ""
        length, start = format_duration(self.interval), time_text(self.start)
        return f"<Markets: {names}; {length}, {self.n_bars} bars from {start}>"

    @property
    def options(self) -> dict[str, Any]:
        """The listed option contracts by name; they are not among :attr:`names`."""
        return {} if self.listing is None else dict(self.listing.options)

    @property
    def instrument(self) -> str:
        """The names as one text."""
        return ", ".join(self.names)

    @property
    def synthetic(self) -> bool:
        """Whether the prices of one of them are generated."""
        return any(market.synthetic for market in self.values())

    @property
    def has_mark(self) -> bool:
        """Whether mark prices were given for all instruments."""
        return all(market.has_mark for market in self.values())

    @cached_property
    def content_hash(self) -> str:
        """SHA-256, hex, of the names in order, the content of each market, currency and options."""
        content: list[Any] = [[name, market.content_hash] for name, market in self.items()]
        listed = [] if self.listing is None else [self.listing.describe()]
        return hashlib.sha256(json.dumps([self.currency, content, *listed]).encode()).hexdigest()

    @property
    def last_opens(self) -> dict[str, int]:
        """The last open, UTC ns, of each instrument of the panel that this one was cut from."""
        return dict(self._lasts)

    @property
    def names_of_whole(self) -> tuple[str, ...]:
        """The names of the panel that this one was cut from, or its own."""
        return tuple(self._lasts)

    @checked
    def panel(self, jitter: int = JITTER) -> Panel:
        """Return the prices on the clock, NaN outside the spans, and all settlements in time order.

        Parameters
        ----------
        jitter : int
            How far from an open, in ns, a settlement still belongs to it.

        Notes
        -----
        The arrays of the last call are kept, and may be shared: do not write to them.
        """
        if jitter not in self._panels:
            found = make_panel([*self.values()], self.spans, self.n_bars, jitter)
            self._panels = {jitter: found}
        return self._panels[jitter]

    def tradable(self) -> BoolArray:
        """Return where a decision at a close can be filled, of shape (n_instruments, n_bars).

        An instrument must have this bar, and not be in the last one before it is delisted. An
        instrument is delisted if its span ends while the clock goes on. Both are read from the
        spans of the panel that this one was cut from, so a part of it has the same values.
        """
        found = np.zeros((len(self), self.n_bars), dtype=np.bool_)
        end = max(self._lasts.values())
        for row, name, (first, stop) in zip(found, self.names, self.spans, strict=True):
            last = self._lasts[name]
            row[first:stop] = (last == end) | (self.time[first:stop] < last)
        return found
