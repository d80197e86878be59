"""The instruments of a panel, their clock and their spans; ``Markets`` adds loading and cuts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cached_property

import numpy as np
import pandas as pd

from backtest.base.checked_calls import checked
from backtest.base.errors import ParameterError
from backtest.base.units import BoolArray, IntArray, format_duration, utc_index
from backtest.base.viewable import Viewable
from backtest.market.market import Market
from backtest.market.panel import Panel, make_panel
from backtest.market.panel_checks import (
    agree_currency,
    check_markets,
    check_same_terms,
    make_clock,
    read_currency,
)
from backtest.market.tables.read_options import time_text
from backtest.market.tables.settlements import JITTER


def require_panel(markets: object, *, where: str) -> None:
    """Raise unless the argument is a panel of markets."""
    if not isinstance(markets, PanelData):
        raise ParameterError(
            f"markets must be a Markets, got {type(markets).__name__}",
            where=where,
            cure='give bt.Markets({"BTCUSDT": market, "ETHUSDT": other})',
        )


class PanelData(Mapping[str, Market], Viewable):
    """Markets by name on one clock; :class:`backtest.Markets` describes each field."""

    names: tuple[str, ...]
    interval: int
    sessions: bool
    currency: str
    time: IntArray
    spans: IntArray

    def __init__(self, markets: Mapping[str, Market], *, currency: str | None = None) -> None:
        check_markets(markets)
        lasts = {name: int(market.time[-1]) for name, market in markets.items()}
        source = f"Markets({', '.join(map(repr, markets))})"
        self._fill(dict(markets), currency, source, lasts)

    def _fill(
        self,
        markets: dict[str, Market],
        currency: str | None,
        source: str,
        lasts: Mapping[str, int],
    ) -> None:
        """Set the fields; ``lasts`` holds the last open of each instrument in the whole panel."""
        check_same_terms(markets)
        self._lasts = dict(lasts)
        self._markets = markets
        self.names = tuple(markets)
        is_given = currency is not None
        self.currency = read_currency(currency) if is_given else agree_currency(markets, {})
        self.time, self.spans = make_clock(markets)
        first = next(iter(markets.values()))
        self.interval, self.sessions = first.interval, first.sessions
        self.source = source
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
        length, start = format_duration(self.interval), time_text(self.start)
        return f"<Markets: {names}; {length}, {self.n_bars} bars from {start}>"

    @property
    def n_bars(self) -> int:
        """The number of bars of the clock."""
        return int(self.time.size)

    @property
    def start(self) -> int:
        """The first open, UTC ns."""
        return int(self.time[0])

    @property
    def end(self) -> int:
        """The last close (last open + interval), UTC ns."""
        return int(self.time[-1]) + self.interval

    @property
    def times(self) -> pd.DatetimeIndex:
        """The clock as a UTC index."""
        return utc_index(self.time)

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
        """SHA-256, hex, of the names in their order, the content of each market, the currency."""
        content = [[name, market.content_hash] for name, market in self.items()]
        return hashlib.sha256(json.dumps([self.currency, content]).encode()).hexdigest()

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
