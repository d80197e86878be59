"""What a run keeps: its record, its options, its events and its fills."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from backtest.account.ledger import FILL
from backtest.account.pool_liquidation import CAUSED
from backtest.base import (
    FloatArray,
    IntArray,
    ParameterError,
    format_money,
    repr_plain,
)
from backtest.engine.record import OptionFields
from backtest.engine.tables import OWNER
from backtest.features import find_day, forecast_liquidation, forecast_volatility
from backtest.measures import (
    OptionQuotes,
    OptionTerms,
    RunSpan,
    compute_prices,
    compute_volatilities,
    explain_profit,
    measure_greeks,
    multiply,
)
from backtest.venue import ScenarioMargin

if TYPE_CHECKING:
    from backtest.account import Account, OptionFeed
    from backtest.engine.inputs import TradedDays
    from backtest.engine.record import Record
    from backtest.market import Market, Markets
    from backtest.measures import Tally
    from backtest.policy import Policy
    from backtest.venue import Option, Venue


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


# ------------------------------------------------------------------------------------- the account

T = TypeVar("T")


class Quotes(NamedTuple):
    """Prices, signals and margin multipliers at closes, of shape (n_bars, n)."""

    close: FloatArray
    mark: FloatArray
    mark_low: FloatArray
    mark_high: FloatArray
    signal: FloatArray
    multiplier: FloatArray
    initial_multiplier: FloatArray
    low: FloatArray
    high: FloatArray


class Before(NamedTuple):
    """What a run knew at the close before its first bar, by instrument, of shape (n,).

    ``stands`` of shape (n + 3,) are where the causes of a liquidation stood at the last high of the
    unit value, with what each has gained since (:mod:`backtest.engine.run_closes`). ``trails`` of
    shape (n, 4) are those of :func:`backtest.features.forecast_volatility`.
    """

    mark: FloatArray
    signal: FloatArray
    unrealized: FloatArray
    stands: FloatArray
    trails: FloatArray


@dataclass(frozen=True, eq=False, repr=False)
class RunData:
    """The data of a run; ``RunRecord`` adds measures and tables, ``Result`` the analyses.

    ``state`` is a :class:`backtest.account.AccountState`.
    ``record`` is what the loop wrote. ``asset_marks`` are mark closes of the collateral, of shape
    (n_bars, C).
    ``spans`` are the bars of each instrument. ``benchmark`` has the returns by bar of the one that
    was given, or of what is traded; None if it is the market. ``markets`` are None in a result that
    was loaded, and ``policies`` empty. ``setup`` is what the loop began with; ``target_cut_rows``
    are the rows of the table ``target_cuts``. ``options`` are those that were
    held, None without any.
    """

    policies: Mapping[str, Policy]
    overlay: Policy | None
    venues: Mapping[str, Venue]
    account: Account
    manifest: Mapping[str, Any]
    names: tuple[str, ...]
    span: RunSpan
    spans: IntArray
    interval: int
    is_session: bool
    tally: Tally
    state: Any
    memory: Any
    started: int
    first_peak: float
    record: Record
    entries: FloatArray
    quotes: Quotes
    asset_marks: FloatArray
    ends_sample: FloatArray
    before: Before
    benchmark: FloatArray | None = None
    markets: Markets | None = None
    setup: Any = None
    target_cut_rows: Sequence[Mapping[str, Any]] = ()
    no_fill: str = ""
    traded: TradedDays | None = None
    options: RunOptions | None = None

    # ------------------------------------------------------------------- what it ran on

    @property
    def has_one_instrument(self) -> bool:
        """Whether it ran on one instrument, whose columns stand beside those of the account."""
        return len(self.names) == 1

    @property
    def has_one_position(self) -> bool:
        """Whether one position and money are all that the account can hold."""
        is_plain = not self.account.collateral and self.options is None
        return self.has_one_instrument and is_plain

    @property
    def time(self) -> IntArray:
        """Open times of the bars, int64 ns of shape (n_bars,)."""
        return self.span.closes - self.interval

    @property
    def last_time(self) -> int:
        """Open time of the last bar, in ns."""
        return int(self.time[-1])

    @property
    def marks(self) -> FloatArray:
        """Mark closes, of shape (n_bars, n); NaN outside the spans of the instruments."""
        return self.quotes.mark

    @property
    def policy(self) -> Policy | None:
        """The policy of the only instrument; None in a result that was loaded."""
        return self._only("policy", self.policies) if self.policies else None

    @property
    def venue(self) -> Venue:
        """The venue of the only instrument."""
        return self._only("venue", self.venues)

    @property
    def market(self) -> Market | None:
        """The market of the only instrument; None in a result that was loaded."""
        return None if self.markets is None else self._only("market", self.markets)

    @property
    def close(self) -> FloatArray:
        """Closes of the only instrument, of shape (n_bars,)."""
        return self._column("close")

    @property
    def mark(self) -> FloatArray:
        """Mark closes of the only instrument, of shape (n_bars,)."""
        return self._column("mark")

    @property
    def signal(self) -> FloatArray:
        """Signal of the only instrument at closes, of shape (n_bars,) or (1,)."""
        return self._column("signal")

    def _only(self, name: str, values: Mapping[str, T]) -> T:
        if len(values) != 1:
            raise ParameterError(
                f"only a result of one instrument has a single {name}, got {len(values)} "
                "instruments; read policies, venues, markets, marks and positions"
            )
        return next(iter(values.values()))

    def _column(self, name: str) -> FloatArray:
        values: FloatArray = getattr(self.quotes, name)
        return self._only(name, dict(zip(self.names, values.T, strict=True)))

    def list_venues(self) -> list[Venue]:
        """Return the venues of the instruments, in their order."""
        return [self.venues[name] for name in self.names]

    # ------------------------------------------------------------------- fields by name

    def of_account(self, name: str) -> FloatArray:
        """Return a field of the account at each close, of shape (n_bars,)."""
        return read_field(self.record.account._asdict(), name)

    def of_positions(self, name: str) -> FloatArray:
        """Return a field of the positions at each close, of shape (n_bars, n)."""
        return read_field(self.record.positions._asdict(), name)

    # ------------------------------------------------------------------- forecasts

    @cached_property
    def volatilities(self) -> tuple[FloatArray, FloatArray]:
        """Forecasts of shape (n_bars, n), and their trails after the last bar, of shape (n, 4)."""
        forecasts = np.full((len(self.time), len(self.names)), np.nan)
        trails = np.empty_like(self.before.trails)
        for i, (first, stop) in enumerate(self.spans.tolist()):
            rows = slice(first, stop)
            close = self.quotes.close[rows, i]
            forecasts[rows, i], trails[i] = forecast_volatility(
                self.before.trails[i],
                self.time[rows],
                close,
                self.interval,
                is_session=self.is_session,
            )
        return forecasts, trails


def read_field(fields: Mapping[str, FloatArray], name: object) -> FloatArray:
    if not isinstance(name, str) or name not in fields:
        raise ParameterError(f"name must be one of {', '.join(fields)}, got {repr_plain(name)}")
    return fields[name]


def forecast_touches(run: RunData, prices: FloatArray) -> FloatArray:
    """Return the probabilities that the marks of a run touch prices within a day.

    ``prices``, and what is returned, are of shape (n_bars, n).
    """
    years = find_day(run.interval, is_session=run.is_session)
    columns = zip(
        run.of_positions("quantity").T, run.marks.T, prices.T, run.volatilities[0].T, strict=True
    )
    return np.stack([forecast_liquidation(*each, years) for each in columns], axis=1)


def explain_idle_options(run: RunData) -> str:
    """Say what the long options at the last close are worth if that backs no position."""
    rule = run.account.requirement
    is_counted = isinstance(rule, ScenarioMargin) or getattr(rule, "option_value", "") == "long"
    if run.options is None or is_counted or getattr(rule, "loan_value", 0.0) > 0.0:
        return ""
    held, value = run.options.record.quantity[-1], run.options.record.value[-1]
    worth = float(np.nansum(np.where(held > 0.0, held * value, 0.0)))
    if worth == 0.0:
        return ""
    return (
        f"the options held are worth {format_money(worth)}, which back no position before they are "
        "sold: the requirement counts no option as money"
    )
