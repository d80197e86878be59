"""Markets: the aligned histories of several instruments on one clock."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from backtest import core
from backtest.core import DataError, FloatArray, IntArray, ParameterError, checked, format_time
from backtest.market.layouts import find_sources
from backtest.market.loading import load_fields, read_options
from backtest.market.market import BarClock, Market, compute_once, trust_fields
from backtest.market.names import find_currency
from backtest.market.read_options import time_text
from backtest.market.tables import JITTER, FundingGaps, MarkGaps, Span, place_on_bars
from backtest.market.weight_frame import Weights, make_index, read_weights

MAX_AGE = "14d"


class Panel(NamedTuple):
    """Prices of shape (n_instruments, n_bars), NaN outside the spans, and funding by settlement.

    The arrays of funding have shape (n_events,). They are in the order of the stamps, equal stamps
    in the order of the instruments. ``funding_is_open`` is 1 for a settlement paid at the open of
    its bar, 0 for one inside it; ``funding_price`` is the price that the venue settled on, NaN if
    unknown; ``funding_time`` is the stamp in ns.
    """

    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    mark_open: FloatArray
    mark_high: FloatArray
    mark_low: FloatArray
    mark_close: FloatArray
    volume: FloatArray
    funding_time: IntArray
    funding_bar: IntArray
    funding_is_open: IntArray
    funding_instrument: IntArray
    funding_price: FloatArray
    funding_rate: FloatArray


PRICES = Panel._fields[:9]
"""The fields of shape (n_instruments, n_bars)."""
FUNDING = Panel._fields[9:]
"""The fields of shape (n_events,)."""


def check_markets(markets: object) -> None:
    """Raise ParameterError unless it is a mapping of names to markets, at least one."""
    if not isinstance(markets, Mapping):
        raise ParameterError(
            f"markets must be a mapping of names to markets, got {type(markets).__name__}"
        )
    if not markets:
        raise ParameterError("markets must be at least one, got none")

    for name, market in markets.items():
        if not isinstance(name, str) or not name.strip() or name != name.strip():
            raise ParameterError(
                f"the name of a market must be text without spaces around it, got {name!r}"
            )
        if not isinstance(market, Market):
            raise ParameterError(f"{name!r} must be a Market, got {type(market).__name__}")


def agree_currency(markets: Mapping[str, Market], said: Mapping[str, str]) -> str:
    """Return the settlement currency of markets, empty if unknown or if there are several.

    ``said`` has that of markets whose files say it, by name; of others their names may say it.
    """
    currencies = set()
    for name, market in markets.items():
        currency = said.get(name)
        if not currency:
            currency = find_currency(market.instrument) or find_currency(name)
        if currency:
            currencies.add(currency)

    if len(currencies) != 1:
        return ""
    return str(currencies.pop())


def make_clock(markets: Mapping[str, Market]) -> tuple[IntArray, IntArray]:
    """Return the clock of markets: the opens of all their bars, (n_bars,), and the spans, (n, 2).

    A span is the first bar of a market on the clock, and the one after its last. Raises DataError
    if a market lacks bars of the others inside its span, or if markets do not overlap.
    """
    time = join_times([market.time for market in markets.values()])

    spans = np.empty((len(markets), 2), np.int64)
    for i, (name, market) in enumerate(markets.items()):
        first = np.searchsorted(time, market.time[0])
        stop = np.searchsorted(time, market.time[-1]) + 1
        if stop - first != market.n_bars:
            raise report_hole(name, markets, time[first:stop])
        spans[i] = first, stop

    check_overlap([*markets], time, spans)
    return core.freeze(time), core.freeze(spans)


def join_times(times: Sequence[IntArray]) -> IntArray:
    """Return all opens of several markets, each once, in order; equal ones stay one array."""
    first, *others = times
    if all(np.array_equal(other, first) for other in others):
        return first
    return np.unique(np.concatenate(times))


def report_hole(name: str, markets: Mapping[str, Market], time: IntArray) -> DataError:
    """Return the error of an instrument that lacks bars of others inside its span ``time``."""
    missing = np.setdiff1d(time, markets[name].time, assume_unique=True)
    first_missing = int(missing[0])
    owners = [n for n, market in markets.items() if np.isin(first_missing, market.time)]
    return DataError(
        "an instrument must have all bars of the others between its first and its last "
        f"one, {name!r} lacks {missing.size} of {len(time)}, the first at "
        f"{format_time(first_missing)} UTC, where {owners[0]!r} has one; fill the hole, or "
        "cut the panel with since= and until="
    )


def check_overlap(names: Sequence[str], time: IntArray, spans: IntArray) -> None:
    """Raise DataError if there is a time, between two bars of the clock, at which no span goes on.

    ``time`` is the clock, ``spans`` of shape (n, 2) the first bar of each instrument on it and one
    past its last. In the order of their starts, one begins after all before it have ended.
    """
    starts, stops = spans.T
    order = np.argsort(starts, kind="stable")

    # The bar up to which the instruments so far have reached.
    reached = np.maximum.accumulate(stops[order])
    starts_of_next = starts[order[1:]]
    apart = np.flatnonzero(starts_of_next >= reached[:-1])
    if not apart.size:
        return

    k = int(apart[0])
    later = order[k + 1]
    latest = order[int(np.argmax(stops[order] == reached[k]))]
    begins = format_time(int(time[starts[later]]))
    ended = format_time(int(time[reached[k] - 1]))
    raise DataError(
        f"the spans of the instruments must overlap, {names[later]!r} begins at {begins} UTC, "
        f"after the last bar of {names[latest]!r} at {ended} UTC"
    )


def check_alike(markets: Mapping[str, Market]) -> None:
    """Raise DataError if two markets differ in interval, clock of policies or calendar."""
    first, one = next(iter(markets.items()))
    for name, other in markets.items():
        pairs = zip(describe_kind(one), describe_kind(other), strict=True)
        for (what, of_first, cure), (_, of_other, _) in pairs:
            if of_first != of_other:
                raise DataError(
                    f"markets must have one {what}, got {of_first} for {first!r} "
                    f"and {of_other} for {name!r}; {cure}"
                )


def describe_kind(market: Market) -> list[tuple[str, str, str]]:
    """Return what markets of a panel have in common: what it is, its value, and a cure."""
    decided = core.format_duration(market.decision_interval or market.interval)
    calendar = "no sessions"
    if market.sessions:
        calendar = "sessions"
    return [
        (
            "interval",
            core.format_duration(market.interval),
            "market.resample makes longer bars",
        ),
        (
            "clock of policies",
            decided,
            "give the markets as they are, and decision_interval= to the run",
        ),
        (
            "calendar",
            calendar,
            "load all with sessions=True, or run those that close in an account of their own",
        ),
    ]


def require_panel(markets: object) -> None:
    if not isinstance(markets, Markets):
        raise ParameterError(
            f"markets must be a Markets, got {type(markets).__name__}; "
            'bt.Markets({"BTCUSDT": market, "ETHUSDT": other})'
        )


class Markets(BarClock, Mapping[str, Market]):
    """Aligned histories of several instruments, by name; immutable.

    Raises ParameterError if there are no markets, or a name is not text; DataError if the markets
    have several intervals, calendars or settlement currencies, their spans do not overlap, or one
    lacks a bar inside its span that another has.

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

    Examples
    --------
    >>> early = Market.sample(bars=48).between(None, "2023-01-02")
    >>> markets = Markets({"A": Market.sample(bars=48), "B": early})
    >>> markets.names, len(markets), markets.n_bars, markets.spans.tolist()
    (('A', 'B'), 2, 48, [[0, 48], [0, 24]])
    """

    noun = "panel"
    names: tuple[str, ...]
    sessions: bool
    decision_interval: int
    currency: str
    spans: IntArray
    listing: Any
    last_opens: dict[str, int]
    """The last open, UTC ns, of each instrument of the panel that this one was cut from."""

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
        """Hold markets by name, with the options that are listed on them, if any."""
        listing = None
        given = markets
        if isinstance(given, Mapping):
            # The room of options is loaded where something says that there are options.
            has_options = not all(isinstance(value, Market) for value in given.values())
            settings = (surfaces, chains, quote_age)
            has_settings = any(setting is not None for setting in settings)
            if has_options or has_settings or max_age is not MAX_AGE:
                from backtest.options.option_listing import read_listing  # noqa: PLC0415 - where options are

                markets, listing = read_listing(given, surfaces, chains, quote_age, max_age)

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
        """Write the fields of checked markets; ParameterError if their bars do not fit together.

        ``lasts`` are the opens of the last bars, ns; ``listing`` are the options.
        """
        check_alike(markets)
        if currency is not None and not (isinstance(currency, str) and currency.strip()):
            raise ParameterError(f"currency must be text, got {currency!r}")
        if currency is None:
            currency = agree_currency(markets, {})
        if listing is not None:
            listing = listing.keep(markets)

        self._markets = markets
        self.names = tuple(markets)
        self.listing = listing
        self.last_opens = dict(lasts)
        self.currency = currency
        one = next(iter(markets.values()))
        self.time, self.spans = make_clock(markets)
        self.interval = one.interval
        self.sessions = one.sessions
        self.decision_interval = one.decision_interval
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

    def __repr__(self) -> str:
        text = ", ".join(self.names[:6])
        if len(self) > 6:
            text = f"{text}, ..."
        if self.options:
            text = f"{text} and {core.count_nouns(len(self.options), 'option')}"
        length = core.format_duration(self.interval)
        return f"<Markets: {text}; {length}, {self.n_bars} bars from {time_text(self.start)}>"

    @property
    def options(self) -> dict[str, Any]:
        """The listed option contracts by name; they are not among :attr:`names`."""
        if self.listing is None:
            return {}
        return dict(self.listing.options)

    @property
    def instrument(self) -> str:
        """The names as one text."""
        return ", ".join(self.names)

    @property
    def names_by_symbol(self) -> dict[str, str]:
        """The names of markets by the symbol of their data, where the two differ.

        Data of BTCUSDT in a folder ``btc`` are ``btc`` in a run, and BTCUSDT at their venue. A
        symbol that several markets have, or that is the name of one, is left out.
        """
        symbols = [market.instrument for market in self.values()]
        names = dict(zip(symbols, self.names, strict=True))
        return {
            symbol: name
            for symbol, name in names.items()
            if symbol and symbol not in self and symbols.count(symbol) == 1
        }

    @property
    def synthetic(self) -> bool:
        """Whether the prices of one of them are generated."""
        return any(market.synthetic for market in self.values())

    @property
    def has_mark(self) -> bool:
        """Whether mark prices were given for all instruments."""
        return all(market.has_mark for market in self.values())

    def _hash_content(self) -> str:
        """Return the SHA-256 of all markets, their currency and their options."""
        markets = [[name, market.content_hash] for name, market in self.items()]
        content: list[Any] = [self.currency, markets]
        if self.listing is not None:
            content.append(self.listing.describe())
        text = json.dumps(content)
        return hashlib.sha256(text.encode()).hexdigest()

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
            panel = Panel(**self._align_prices(), **self._join_settlements(jitter))
            self._panels = {jitter: panel}
        return self._panels[jitter]

    def _align_prices(self) -> dict[str, Any]:
        """Return the prices of all instruments on the clock, (n, n_bars); NaN out of spans."""
        markets = [*self.values()]
        has_mark = any(market.has_mark for market in markets)
        prices: dict[str, FloatArray] = {}
        for name in PRICES:  # last prices, and then their marks
            is_mark = name.startswith("mark_")
            if is_mark and not has_mark:
                # No market has marks: they are the same arrays as the last prices.
                prices[name] = prices[name.removeprefix("mark_")]
                continue

            # All instruments of a bar stand side by side, as the loop over bars reads them.
            by_bar = np.full((self.n_bars, len(markets)), np.nan)
            for column, market in enumerate(markets):
                first, stop = self.spans[column]
                by_bar[first:stop, column] = getattr(market, name)
            prices[name] = by_bar.T
        return prices

    def _join_settlements(self, jitter: int) -> dict[str, Any]:
        """Return the settlements of all instruments in the order of their stamps.

        Each field of FUNDING is an array of shape (n_settlements,), without the settlements before
        the first bar of their instrument and after its last.
        """
        parts: dict[str, list[np.ndarray]] = {name: [] for name in FUNDING}
        for i, market in enumerate(self.values()):
            time = market.funding_time
            bar, is_open = place_on_bars(time, market.time, market.interval, jitter)
            first_on_clock = self.spans[i, 0]
            fields = {
                "funding_time": time,
                "funding_bar": bar + first_on_clock,
                "funding_is_open": is_open.astype(np.int64),
                "funding_instrument": np.full(len(time), i, dtype=np.int64),
                "funding_price": market.funding_mark,
                "funding_rate": market.funding_rate,
            }
            is_inside = (bar >= 0) & (bar < market.n_bars)
            for name, values in fields.items():
                parts[name].append(values[is_inside])

        # Stable: settlements of one time stay in the order of the instruments.
        joined = {name: np.concatenate(values) for name, values in parts.items()}
        order = np.argsort(joined["funding_time"], kind="stable")
        return {name: values[order] for name, values in joined.items()}

    def tradable(self) -> core.BoolArray:
        """Return where a decision at a close can be filled, of shape (n_instruments, n_bars).

        An instrument must have this bar, and not be in the last one before it is delisted. An
        instrument is delisted if its span ends while the clock goes on. Both are read from the
        spans of the panel that this one was cut from, so a part of it has the same values.
        """
        return compute_once(self, "tradable", self._find_tradable)

    def _find_tradable(self) -> core.BoolArray:
        """Return what :meth:`tradable` keeps: bool of shape (n_instruments, n_bars)."""
        is_tradable = np.zeros((len(self), self.n_bars), dtype=np.bool_)
        last_of_all = max(self.last_opens.values())
        for i, name in enumerate(self.names):
            first, stop = self.spans[i]
            is_tradable[i, first:stop] = True

            last = self.last_opens[name]
            is_delisted = last < last_of_all
            if is_delisted:
                is_tradable[i, first:stop] = self.time[first:stop] < last
        return is_tradable

    @classmethod
    @checked
    def load(
        cls,
        *paths: str | Path,
        instruments: Sequence[str] | None = None,
        interval: str | None = None,
        timezone: str | None = None,
        mark_gaps: MarkGaps = None,
        funding_gaps: FundingGaps = None,
        sessions: bool | None = None,
        since: core.TimeLike | None = None,
        until: core.TimeLike | None = None,
        now: core.TimeLike | None = None,
        currency: str | None = None,
    ) -> Markets:
        """Return the markets in one or several folders.

        A folder holds one market as :meth:`Market.save` writes it, a folder for each of several
        markets, or files with the names of freqtrade or of Binance's archive.

        Raises DataError if a market does not load, or the markets do not fit together;
        ParameterError if an instrument is not among the data, or an argument is unknown or
        unreadable.

        Parameters
        ----------
        *paths : str or Path
            With one path, a market is named after its instrument, or else its folder. With several
            paths, it is named after the pair that the names of its files say. Without a pair, or
            where several folders have the same one, a folder's only market is named after it.
        instruments : sequence of str, optional
            Which markets to load, in this order, under these names: those of their instruments
            (``"BTCUSDT"``; in freqtrade's files also ``"BTC/USDT:USDT"``) or of their folders.
            Default: all, in the order of the paths and of the names in them.
        interval, timezone, mark_gaps, funding_gaps, sessions, since, until, now
            As in :meth:`Market.load`, for each of them. The span must lie inside the panel, and
            may reach beyond the bars of one instrument, which must have one in it.
        currency : str, optional
            Default: the one that the files or the names say.
        """
        # The arguments that say how data are read, out of all of them, by their names.
        options = read_options(locals())
        if not paths:
            raise ParameterError("load needs a path, got none")

        sources = find_sources([Path(path) for path in paths], instruments)
        loaded = {}
        for name, source in sources.items():
            of_market = options._replace(instrument=source.instrument or "", clips=True)
            try:
                fields = load_fields([source.path], of_market)
            except ParameterError as error:  # an argument that does not fit this market
                raise ParameterError(f"{name}: {error}") from error
            loaded[name] = Market(**fields, source=of_market.expression([source.path]))

        said = {name: source.currency for name, source in sources.items()}
        markets = cls(loaded, currency=currency or agree_currency(loaded, said) or None)
        names = None
        if instruments is not None:
            names = [*instruments]
        markets.source = options.expression(
            paths, loader="Markets.load", instruments=names, currency=currency
        )

        known = Span(markets.start, markets.end)
        span = known.replace(options.since, options.until)
        if not known.has_days_of(span, sessions=markets.sessions):
            raise ParameterError(
                f"since and until must lie in the days of the panel, {known}, got {span}"
            )
        return markets

    def __reduce__(self) -> tuple[object, ...]:
        return rebuild, (self._markets, self.currency, self.source, self.last_opens, self.listing)

    def index(self, signal: Weights = None) -> Market:
        """Return the portfolio index: the price of one unit of equity that holds the weights.

        Bar t holds the weights of the signal of bar t - 1, rebalanced at its open without costs;
        the first bar holds nothing. Between the waypoints of a bar (open, first extreme, second
        extreme, close) all prices move together and linearly; the first extreme of an instrument
        is its low where its last close is not under its last open, else its high.

        Raises ParameterError if the signal does not fit the panel; DataError if the index reaches
        0.

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

        Raises ParameterError if a name is unknown, or what it names is no market; DataError if a
        market has other bars than the one it replaces.
        """
        check_markets(markets or self)
        for name, market in markets.items():
            core.Choice(*self).check("an instrument", name)
            if not np.array_equal(market.time, self[name].time):
                raise DataError(
                    f"a market must have the bars of the one that it replaces, {name!r} has other "
                    "times"
                )
        replaced = {**self, **markets}
        return rebuild(replaced, self.currency, self.source, self.last_opens, self.listing)

    def select(self, *names: str) -> Markets:
        """Return the markets of some instruments, in the order of the names.

        Raises ParameterError if a name is unknown or given twice, or there is none; DataError if
        the spans of the rest do not overlap.
        """
        for name in names:
            core.Choice(*self).check("an instrument", name)
        if len({*names}) < len(names):
            raise ParameterError(f"an instrument is selected once, got {', '.join(names)}")

        chosen = {name: self[name] for name in names}
        check_markets(chosen)
        last_opens = {name: self.last_opens[name] for name in names}
        listed = ", ".join(map(repr, names))
        source = f"{self.source}.select({listed})"
        return rebuild(chosen, self.currency, source, last_opens, self.listing)

    @checked
    def resample(self, interval: str) -> Markets:
        """Return the panel with the bars of each instrument combined, as :meth:`Market.resample`.

        Parameters
        ----------
        interval : str
            The length of the new bars, such as ``"4h"``: a multiple of the present one.
        """
        return remake(self, {name: market.resample(interval) for name, market in self.items()})

    @checked
    def end_at(self, ends: Mapping[str, int]) -> Markets:
        """Return the panel with some instruments delisted after their last bar before a time.

        ``ends`` are the times by name, UTC ns. Raises ParameterError if no bar opens before one.
        """
        markets = {**self}
        lasts = dict(self.last_opens)
        for name, end in ends.items():
            core.Choice(*self).check("an instrument", name)
            stop = int(np.searchsorted(self[name].time, end))
            if stop == 0:
                raise ParameterError(
                    f"{name} has no bar before it expires at {time_text(end)}; leave it out of the "
                    "markets, or correct Contract(expires=...)"
                )
            markets[name] = _slice(self[name], 0, stop)

            # Where the data end before the expiry, its last open is only known to be before that.
            last = int(markets[name].time[-1])
            if stop == self[name].n_bars and last + self.interval < end:
                last = end - 1
            lasts[name] = min(lasts[name], last)
        return rebuild(markets, self.currency, self.source, lasts, self.listing)

    def _slice(self, first: int, stop: int, step: str) -> Any:
        parts: dict[str, Market] = {}
        for (name, market), (listed, gone) in zip(self.items(), self.spans.tolist(), strict=True):
            low = max(first - listed, 0)
            high = min(stop, gone) - listed
            if low < high:
                parts[name] = _slice(market, low, high)
        return rebuild(parts, self.currency, self.source + step, self.last_opens, self.listing)


def as_markets(market: Market | Mapping[str, Market]) -> Markets:
    if isinstance(market, Markets):
        return market
    if isinstance(market, Mapping):
        return Markets(market)
    if not isinstance(market, Market):
        raise ParameterError(f"market must be a Market or Markets, got {core.repr_plain(market)}")
    return Markets({market.instrument or "market": market})


def unwrap_market(
    market: Market | Markets, problem: str = "one market is needed, markets['NAME']"
) -> Market:
    markets = as_markets(market)
    if len(markets) > 1:
        raise ParameterError(f"{problem}, got {', '.join(markets.names)}")
    return next(iter(markets.values()))


def as_given(values: Mapping[str, object], market: Market | Mapping[str, Market]) -> Any:
    """Return values by instrument, or the only one for a single market."""
    if isinstance(market, Market):
        return next(iter(values.values()))
    return values


def label_names(names: Collection[str]) -> dict[str, str]:
    """Return how each name is written in texts; a single one is not."""
    if len(names) > 1:
        return {name: name for name in names}
    return dict.fromkeys(names, "")


def _slice(market: Market, first: int, stop: int) -> Market:
    if (first, stop) == (0, market.n_bars):
        return market
    return market.slice(first, stop)


def remake(markets: Markets, others: Mapping[str, Market]) -> Markets:
    """Return a panel of other markets, with the currency and the options of one."""
    made = Markets(others, currency=markets.currency or None)
    if markets.listing is not None:
        made.listing = markets.listing.keep(made.names)
    return made


def rebuild(
    markets: dict[str, Market], currency: str, source: str, lasts: Mapping[str, int], listing: Any
) -> Markets:
    part = Markets.__new__(Markets)
    part._fill(markets, currency or None, source, lasts, listing)
    return part


def detach(market: Market | Markets) -> Any:
    """Return a market in memory of its own, from which none of the bars around it can be read."""
    if isinstance(market, Markets):
        return market.with_markets({name: detach(one) for name, one in market.items()})
    fields = market.fields() | {"source": market.source, "signal": market.signal}
    return trust_fields({name: copy_values(value) for name, value in fields.items()})


def copy_values(value: Any) -> Any:
    if isinstance(value, Mapping):
        return MappingProxyType({name: copy_values(inner) for name, inner in value.items()})
    if not isinstance(value, np.ndarray):
        return value
    if value.strides == (0,):  # a constant stays one
        return np.broadcast_to(np.frombuffer(value[:1].tobytes(), value.dtype), value.shape)
    return np.frombuffer(value.tobytes(), value.dtype)
