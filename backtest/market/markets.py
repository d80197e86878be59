"""Markets: the aligned histories of several instruments on one clock."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from backtest.base import (
    ParameterError,
    Range,
    TimeLike,
    checked,
    repr_plain,
    to_nanoseconds,
)
from backtest.market.market import Between, FundingGaps, Market, MarkGaps
from backtest.market.panel_data import (
    PanelData,
    agree_currency,
    check_frames,
    check_known,
    check_markets,
    check_replacement,
)
from backtest.market.read.instrument_folders import check_between, load_markets
from backtest.market.tables.read_options import read_options, time_text
from backtest.market.weight_frame import Weights, make_index, read_weights


class Markets(PanelData):
    """Aligned histories of several instruments, by name; immutable.

    Parameters
    ----------
    markets : mapping of str to Market
        In the order in which the account treats the instruments. All have one interval, one
        calendar and one settlement currency.
        :class:`backtest.Option` values among them are listed contracts of the instrument that
        their underlying names: by its name, or by the coin of exactly one instrument.
    currency : str, optional
        The settlement currency of all. Default: the one that the names of the instruments say
        (``"BTCUSDT"`` settles in USDT), empty if none of them says one.
    surfaces : mapping of str to Surfaces, optional
        What values options, by underlying; needed with options.
    chains : mapping of str to Chain, optional
        The venue's quotes of options, by underlying: marks, bids and asks of the contracts.
    quote_age : str, optional
        How long the row of a contract in a chain is its mark. Default: one bar.
    max_age : str
        The largest age of the last surface while an option is listed.

    Attributes
    ----------
    names : tuple of str
        In the order given.
    interval : int
        Length of a bar in ns.
    sessions : bool
        Whether the markets close, so that bars may be further apart than ``interval``.
    currency : str
        The settlement currency, empty if unknown.
    time : IntArray of shape (n_bars,)
        The clock: the opens of all instruments, UTC ns, strictly increasing.
    spans : IntArray of shape (n_instruments, 2)
        The first bar of each instrument on the clock, and one past its last.
    options : dict of str to Option
        The listed option contracts, which are not among the names.

    Raises
    ------
    ParameterError
        If there are no markets, or a name is not text.
    DataError
        If the markets have several intervals, calendars or settlement currencies, their spans do
        not overlap, or one lacks a bar inside its span that another has.

    Examples
    --------
    >>> early = Market.sample(bars=48).between(None, "2023-01-02")
    >>> markets = Markets({"A": Market.sample(bars=48), "B": early})
    >>> markets.names, len(markets), markets.n_bars, markets.spans.tolist()
    (('A', 'B'), 2, 48, [[0, 48], [0, 24]])
    """

    @classmethod
    @checked
    def load(
        cls,
        *paths: str | Path,
        instruments: Sequence[str] | None = None,
        interval: str | None = None,
        funding_interval: str | None = None,
        timezone: str | None = None,
        mark_gaps: MarkGaps = None,
        funding_gaps: FundingGaps = None,
        sessions: bool = False,
        between: Between = None,
        currency: str | None = None,
    ) -> Markets:
        """Return the markets in one or several folders.

        A folder holds one market as :meth:`Market.save` writes it, a folder for each of several
        markets, or files with the names of freqtrade or of Binance's archive.

        Parameters
        ----------
        *paths : str or Path
            With one path, a market is named after its instrument, or else its folder. With several
            paths, the market of a folder with one is named after the folder.
        instruments : sequence of str, optional
            Which markets to load, in this order, under these names: those of their instruments
            (``"BTCUSDT"``; in freqtrade's files also ``"BTC/USDT:USDT"``) or of their folders.
            Default: all, in the order of the paths and of the names in them.
        interval, funding_interval, timezone, mark_gaps, funding_gaps, sessions, between
            As in :meth:`Market.load`, for each of them. ``between`` must lie inside the panel, and
            may reach beyond the bars of one instrument, which must have one in it.
        currency : str, optional
            Default: the one that the files or the names say.

        Raises
        ------
        DataError
            If a market does not load, or the markets do not fit together.
        ParameterError
            If an instrument is not among the data, or an argument is unknown or unreadable.
        """
        options = read_options(
            interval=interval,
            funding_interval=funding_interval,
            timezone=timezone,
            mark_gaps=mark_gaps,
            funding_gaps=funding_gaps,
            sessions=sessions,
            between=between,
        )
        found, said = load_markets([Path(path) for path in paths], instruments, options)
        markets = cls(found, currency=currency or agree_currency(found, said) or None)
        more = {"instruments": None if instruments is None else [*instruments]}
        markets.source = options.expression(paths, loader="Markets.load", **more, currency=currency)
        check_between(markets, options.between)
        return markets

    @classmethod
    @checked
    def from_frames(
        cls,
        bars: Mapping[str, pd.DataFrame],
        *,
        funding: Mapping[str, pd.DataFrame | pd.Series] | None = None,
        mark: Mapping[str, pd.DataFrame] | None = None,
        interval: str | None = None,
        timezone: str | None = None,
        mark_gaps: MarkGaps = None,
        funding_gaps: FundingGaps = None,
        sessions: bool = False,
        currency: str | None = None,
    ) -> Markets:
        """Return the markets of frames by name; each is what :meth:`Market.from_frames` takes.

        Parameters
        ----------
        bars : mapping of str to DataFrame
            The bars of each instrument.
        funding, mark : mapping of str to DataFrame, optional
            Of the instruments that have them.
        interval, timezone, mark_gaps, funding_gaps, sessions, currency
            As in :meth:`Market.from_frames`, for each of them, and in the constructor.

        Raises
        ------
        DataError
            If frames have defects, or the markets do not fit together.
        ParameterError
            If an argument is unknown or unreadable, or a name is not among the bars.
        """
        check_frames(bars, funding=funding, mark=mark)
        found = {
            name: Market.from_frames(
                frame,
                funding=(funding or {}).get(name),
                mark=(mark or {}).get(name),
                instrument=name,
                interval=interval,
                timezone=timezone,
                mark_gaps=mark_gaps,
                funding_gaps=funding_gaps,
                sessions=sessions,
            )
            for name, frame in bars.items()
        }
        return cls(found, currency=currency)

    def __reduce__(self) -> tuple[object, ...]:
        return rebuild, (self._markets, self.currency, self.source, self._lasts, self.listing)

    def index(self, signal: Weights = None) -> Market:
        """Return the portfolio index: the price of one unit of equity that holds the weights.

        Bar t holds the weights of the signal of bar t - 1, rebalanced at its open without costs;
        the first bar holds nothing. Between the waypoints of a bar (open, first extreme, second
        extreme, close) all prices move together and linearly; the first extreme of an instrument
        is its low where its last close is not under its last open, else its high.

        Parameters
        ----------
        signal : DataFrame, array of shape (n_bars, n_instruments), mapping or None
            Direction times weight; see :func:`backtest.market.weight_frame.read_weights`. None is
            1/n in each of the n instruments that can be traded.

        Returns
        -------
        Market
            Prices begin at 1. The funding rate is the sum of weight times rate, the volume is NaN.
            Prices count as those of linear contracts.

        Raises
        ------
        ParameterError
            If the signal does not fit the panel.
        DataError
            If the index reaches 0.

        Examples
        --------
        >>> markets = Markets({"A": Market.sample(bars=48), "B": Market.sample(bars=48, seed=1)})
        >>> markets.index({"A": 0.5, "B": -0.5}).open[:2].tolist()
        [1.0, 1.0]
        """
        return make_index(self, read_weights(signal, self))

    @checked
    def with_markets(self, markets: Mapping[str, Market]) -> Markets:
        """Return the panel with other markets under some of its names, of the same bars.

        For example ``markets.with_markets({"BTCUSDT": markets["BTCUSDT"].with_columns(iv=iv)})``.

        Raises
        ------
        ParameterError
            If a name is unknown, or what it names is no market.
        DataError
            If a market has other bars than the one it replaces.
        """
        for name, market in markets.items():
            check_replacement(name, market, self)
        found = {**self, **markets}
        return rebuild(found, self.currency, self.source, self._lasts, self.listing)

    def select(self, *names: str) -> Markets:
        """Return the markets of some instruments, in the order of the names.

        Raises
        ------
        ParameterError
            If a name is unknown or given twice, or there is none.
        DataError
            If the spans of the rest do not overlap.
        """
        for name in names:
            check_known(name, self)
        if len({*names}) < len(names):
            raise ParameterError(f"an instrument is selected once, got {', '.join(names)}")
        chosen = {name: self[name] for name in names}
        check_markets(chosen)
        lasts = {name: self._lasts[name] for name in names}
        source = f"{self.source}.select({', '.join(map(repr, names))})"
        return rebuild(chosen, self.currency, source, lasts, self.listing)

    @checked
    def prefix(self, n: int) -> Markets:
        """Return the first n bars of the clock; each instrument as :meth:`Market.prefix` cuts it.

        Instruments that are not listed yet are left out. Raises ParameterError if n is not from 1
        to n_bars.
        """
        Range(1, self.n_bars, "bars").check("n", n, whole=True)
        return self._slice(0, n, f".prefix({n})")

    @checked
    def slice(self, first: int, stop: int) -> Markets:
        """Return the bars of the clock from ``first`` up to ``stop``, with their funding.

        Instruments without a bar among them are left out. Raises ParameterError if first is not
        from 0 to n_bars - 1, or stop not from first + 1 to n_bars.
        """
        Range(0, self.n_bars - 1, "bars").check("first", first, whole=True)
        Range(first + 1, self.n_bars, "bars").check("stop", stop, whole=True)
        return self._slice(first, stop, f".slice({first}, {stop})")

    @checked
    def resample(self, interval: str) -> Markets:
        """Return the panel with the bars of each instrument combined, as :meth:`Market.resample`.

        Parameters
        ----------
        interval : str
            The length of the new bars, such as ``"4h"``: a multiple of the present one.
        """
        combined = {name: market.resample(interval) for name, market in self.items()}
        return remake(self, combined)

    @checked
    def between(self, start: TimeLike | None = None, end: TimeLike | None = None) -> Markets:
        """Return the bars that open from ``start`` up to but not including ``end``, both UTC.

        Instruments without a bar among them are left out.

        Raises
        ------
        ParameterError
            If the span is not inside that of the panel, or no bar opens in it.
        """
        low = self.start if start is None else to_nanoseconds(start, "start")
        high = self.end if end is None else to_nanoseconds(end, "end")
        first, stop = (int(row) for row in np.searchsorted(self.time, [low, high]))
        if low < self.start or high > self.end or first >= stop:
            raise ParameterError(
                f"a span must lie inside the panel, {time_text(self.start)} to "
                f"{time_text(self.end)}, and hold a bar, got {time_text(low)} to {time_text(high)}"
            )
        return self._slice(first, stop, f".between({time_text(low)!r}, {time_text(high)!r})")

    @checked
    def end_at(self, ends: Mapping[str, int]) -> Markets:
        """Return the panel with some instruments delisted after their last bar before a time.

        ``ends`` are the times by name, UTC ns. Raises ParameterError if no bar opens before one.
        """
        kept, lasts = {**self}, dict(self._lasts)
        for name, end in ends.items():
            check_known(name, self.names)
            stop = int(np.searchsorted(self[name].time, end))
            if stop == 0:
                raise ParameterError(
                    f"{name} has no bar before it expires at {time_text(end)}; leave it out of the "
                    "markets, or correct Contract(expires=...)"
                )
            kept[name] = _slice(self[name], 0, stop)
            last = int(kept[name].time[-1])
            is_reached = stop < self[name].n_bars or last + self.interval >= end
            lasts[name] = min(lasts[name], last if is_reached else end - 1)
        return rebuild(kept, self.currency, self.source, lasts, self.listing)

    def _slice(self, first: int, stop: int, step: str) -> Markets:
        kept: dict[str, Market] = {}
        for (name, market), (listed, gone) in zip(self.items(), self.spans, strict=True):
            low, high = max(first - int(listed), 0), min(stop, int(gone)) - int(listed)
            if low < high:
                kept[name] = _slice(market, low, high)
        return rebuild(kept, self.currency, self.source + step, self._lasts, self.listing)


def as_markets(market: Market | Mapping[str, Market]) -> Markets:
    if isinstance(market, Mapping):
        return market if isinstance(market, Markets) else Markets(market)
    if not isinstance(market, Market):
        raise ParameterError(f"market must be a Market or Markets, got {repr_plain(market)}")
    return Markets({market.instrument or "market": market})


def unwrap_market(
    market: Market | Markets,
    problem: str = "one market is needed, markets['NAME']",
) -> Market:
    markets = as_markets(market)
    if len(markets) > 1:
        raise ParameterError(f"{problem}, got {', '.join(markets.names)}")
    return next(iter(markets.values()))


def as_given(values: Mapping[str, object], market: Market | Mapping[str, Market]) -> Any:
    return next(iter(values.values())) if isinstance(market, Market) else values


def label_names(names: Collection[str]) -> dict[str, str]:
    return {name: name if len(names) > 1 else "" for name in names}


def _slice(market: Market, first: int, stop: int) -> Market:
    is_whole = (first, stop) == (0, market.n_bars)
    return market if is_whole else market.slice(first, stop)


def remake(markets: Markets, found: Mapping[str, Market]) -> Markets:
    """Return a new panel of other bars, with the currency and the options of one."""
    made = Markets(found, currency=markets.currency or None)
    made.listing = None if markets.listing is None else markets.listing.keep(made.names)
    return made


def rebuild(
    markets: dict[str, Market], currency: str, source: str, lasts: Mapping[str, int], listing: Any
) -> Markets:
    part = Markets.__new__(Markets)
    part._fill(markets, currency or None, source, lasts, listing)
    return part
