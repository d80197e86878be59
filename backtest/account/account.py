"""The account: capital, margin mode, limits of leverage, stops, flows, and how decisions fill."""

from __future__ import annotations

import contextlib
import functools
import zoneinfo
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, TypeAlias

import numpy as np

from backtest import core
from backtest.core.code_names import is_series, pd
from backtest.core.fields import COST, INNER_SHARE, NOT_NEGATIVE, POSITIVE
from backtest.core.units import TOLERANCE
from backtest.margin import Brackets, Collateral, MarginRule, Requirement
from backtest.market import Market, find_column
from backtest.venue import Venue


@dataclass(frozen=True)
class ByInstrument(core.Declaration):
    """A value for all instruments, or a table of values by instrument."""

    each: core.Declaration

    @property
    def kind(self) -> type:  # type: ignore[override] # that of each entry
        return self.each.kind

    def read(self, value: Any) -> object:
        """Return the value, or a frozen table of values; a fault names its instrument."""
        if not isinstance(value, Mapping):
            return self.each.read(value)
        if not value:
            raise core.Fault("must name at least one instrument, {'BTCUSDT': 1} for example")

        # A mapping of the names of the value's own fields is one value, written as a table:
        # {"multiple": 2, "column": "atr"} is one stop, and not a table by instrument.
        fields: frozenset[str] = getattr(self.each, "names", frozenset())
        if fields.issuperset(value):
            return self.each.read(value)

        entries: dict[str, object] = {}
        for instrument, entry in value.items():
            entries[str(instrument)] = self._read_entry(str(instrument), entry)
        return core.FrozenTable(entries)

    def _read_entry(self, instrument: str, entry: Any) -> object:
        """Return the value of an instrument, None for one that has none."""
        if entry is None:
            return None
        try:
            return self.each.read(entry)
        except core.Fault as fault:
            shown = f"{fault.found or core.repr_given(entry)} for {instrument}"
            raise core.Fault(str(fault), shown) from None


class Multiple(core.Value):
    """A distance of a stop: a multiple of a column of the market.

    The value known at the previous close holds for the whole bar. A value that is missing (NaN) or
    0 means no stop in that bar.

    Parameters
    ----------
    multiple : float
        The factor.
    column : str
        A column of the market, see :meth:`backtest.Market.with_columns`.
    unit : str
        ``"price"`` if the column is in units of the price, such as an average true range;
        ``"fraction"`` if it is a fraction of the price, such as a volatility.
    fixed : bool
        Whether a position keeps the distance of the bar in which it was opened.

    Examples
    --------
    >>> Multiple(2.0, "atr")
    Multiple(multiple=2.0, column='atr')
    """

    multiple: Annotated[float, POSITIVE]
    column: Annotated[str, core.Text()]
    unit: Annotated[str, core.Choice("price", "fraction")] = "price"
    fixed: Annotated[bool, core.Flag()] = False

    def __str__(self) -> str:
        distance = f"{self.multiple:g} x {self.column}"
        if self.fixed:
            return f"{distance} at entry"
        return distance


Distance: TypeAlias = Multiple | float | None
"""The distance of a stop: a fraction of a price, a multiple of a column, or None for no stop."""


@dataclass(frozen=True)
class StopDistance(core.Declaration):
    """A fraction of a price, or a :class:`Multiple`; also written as the text ``"2*atr"``."""

    number: core.Real
    kind: ClassVar[type] = float
    names: ClassVar[frozenset[str]] = frozenset({"multiple", "column", "unit", "fixed"})

    def read(self, value: Any) -> Multiple | float:
        if isinstance(value, Multiple):
            return value
        if isinstance(value, Mapping):
            return Multiple.from_dict(value)
        if isinstance(value, str):
            return self._read_text(value)
        return self.number.read(value)

    def _read_text(self, text: str) -> Multiple:
        factor, _, column = text.partition("*")
        multiple = None
        with contextlib.suppress(ValueError):
            multiple = float(factor)
        if multiple is None or not column.strip():
            raise core.Fault("must be a fraction, or a multiple of a column such as '2*atr'")
        return Multiple(multiple, column.strip())


def find_factor(stop: Distance) -> float:
    """Return the fraction or the factor of a stop; 0 if there is none."""
    if isinstance(stop, Multiple):
        return stop.multiple
    return stop or 0.0


def is_fixed_distance(stop: Distance) -> bool:
    """Return whether a position keeps the distance of the bar in which it was opened."""
    return isinstance(stop, Multiple) and stop.fixed


def is_price_distance(stop: Distance) -> bool:
    """Return whether a distance is in units of the price, not a fraction of it."""
    return isinstance(stop, Multiple) and stop.unit == "price"


def measure_stop(stop: Multiple | float, market: Market, entry: core.FloatArray) -> core.FloatArray:
    """Return the distance of a stop from entries after each close, as a fraction of their price.

    ``entry`` of shape (n_bars,) are the prices. NaN where the column is unknown.
    """
    if not isinstance(stop, Multiple):
        return np.full(market.n_bars, stop)
    distance = stop.multiple * find_column(market, stop.column, "account")
    return distance / entry if stop.unit == "price" else distance


def read_scale(stop: Distance, market: Market, key: str) -> core.FloatArray:
    """Return what multiplies the factor of a stop in each bar: the column at the previous close.

    Of shape (n_bars,), NaN in the first bar; a single 1 for a stop that is a fraction. Raises
    DataError for a column with negative numbers. ``key`` names the field in messages.
    """
    if not isinstance(stop, Multiple):
        return np.ones(1)
    values = find_column(market, stop.column, key)

    negative = np.flatnonzero(values < 0.0)
    if len(negative):
        first = negative[0]
        time = core.format_time(int(market.time[first]))
        raise core.DataError(
            f"{key} must be a distance of at least 0, got {stop.column} {values[first]:g} "
            f"in {len(negative):,} bars, first at {time} UTC"
        )
    # Before the first bar no close is known.
    return np.concatenate([[np.nan], values[:-1]])


NEXT_MONTH = "next month"
"""The pause that ends with its month."""


class AfterStop(core.Declaration):
    """What follows an equity stop: one of a few words, or the duration of a pause."""

    words: ClassVar[tuple[str, ...]] = ("continue", "halt", NEXT_MONTH)

    def read(self, value: Any) -> str:
        if isinstance(value, str) and value in self.words:
            return value
        try:
            return core.Duration().read(value)
        except core.Fault:
            shown = f"{core.repr_given(value)}{core.did_you_mean(value, self.words)}"
            rule = f"must be {', '.join(self.words)}, or a duration such as '7d'"
            raise core.Fault(rule, shown) from None


LIMIT = core.Timed(core.Real(0, may_be_infinite=True))
HEDGED = (
    "an account has one net position in each instrument (one-way mode): a long and a short in the "
    "same instrument earn what their difference earns, for two fees and, under brackets, the "
    "margin of both; to pay for both, give the market twice: bt.Markets({'long': market, "
    "'short': market})"
)

BY_INSTRUMENT = (
    "margin",
    "venue_leverage",
    "min_leverage",
    "max_leverage",
    "band",
    "stop_loss",
    "max_holding",
    "offset",
    "margin_share",
)
"""Fields that may be tables by instrument."""

STOPS = (
    "stop_loss",
    "take_profit",
    "trailing_stop",
    "equity_stop",
    "max_holding",
    "daily_loss",
    "weekly_loss",
)
"""Fields that close positions without the policy."""

WHOLE = (
    "collateral",
    "requirement",
    "intrabar",
    "max_gross_leverage",
    "max_overlay",
    "negative_limit",
    "conversion",
)
"""Fields of the account as a whole, which no single position has."""

OTHER_EXITS = ("take_profit", "trailing_stop", "equity_stop", "daily_loss", "weekly_loss")
"""Stops besides a stop-loss that is a fraction of the entry price."""

find_zones = functools.cache(zoneinfo.available_timezones)
"""The names of all time zones, read once: from files, 7 ms for each account of a sweep."""


class Account(core.Value, kw_only=True):
    """One account, with one position or several on one collateral.

    With several, ``margin``, ``venue_leverage``, ``min_leverage``, ``max_leverage``, ``band``,
    ``stop_loss``, ``max_holding`` and ``offset`` may be a table by instrument too:
    ``{"BTCUSDT": 5, "ETHUSDT": 3}``. The fields from ``collateral`` to ``conversion`` make an
    account with several positions, also of one market.

    Parameters
    ----------
    capital : float
        Money at the start, in the settlement currency.
    margin : str
        ``"cross"`` (everything backs the position) or ``"isolated"`` (only what was posted).
    venue_leverage : float or None
        The leverage set at the venue; None (cross only) means the best setting for every order.
    min_leverage : float
        Minimum target leverage of the policy, times equity.
    max_leverage : float or Series by UTC time
        Maximum target leverage of the policy, times equity. A series limits by date: the
        value in force at the open where a decision fills; 0 allows no position.
    band : float
        No trade while the notional is within this multiple of equity of its target.
    stop_loss : float, Multiple or None
        Close when the price is this fraction of the entry price on the wrong side of it.
        :class:`Multiple` gives the distance as a multiple of a column, here and below.
    margin_call : float or None
        The margin ratio (requirement / equity) at which a margin call is made.
    reserve : float
        Money kept outside the account for top-ups, in the settlement currency.
    top_up_to : float or None
        The margin ratio that a top-up restores.
    after_liquidation : str
        ``"continue"`` with what is left, or ``"halt"`` flat.
    flows : Series by UTC time, or None
        Deposits (positive) and withdrawals (negative), in the settlement currency.
    ruin_at : float or None
        The share of the capital paid in (capital, reserve and deposits) at or under which a loss
        ruins the account: it is closed and never trades again. None: when nothing is left.
    auto_margin : bool
        Whether the wallet adds margin to an isolated position before it would be liquidated.
    fill : str
        When a decision fills: ``"next_open"``; ``"next_close"``, one bar later;
        ``"same_close"``, at the close it was decided on; or ``"limit"``, in the next bar at a limit
        price, or not at all. The third is the convention of academic papers. It is optimistic:
        nobody trades at a price and knows it before.
    take_profit : float, Multiple or None
        Close when the price is this fraction of the entry price on the right side of it.
    trailing_stop : float, Multiple or None
        Close when the price is this fraction of the best last price since the position was opened
        on the wrong side of that price. Only completed bars count for the best price.
    equity_stop : float or None
        Close when the equity is this fraction under its highest at a close since the start or the
        last equity stop.
    after_stop : str
        What follows an equity stop ("continue", "halt", "next month", or a pause such as "7d").
        ``"continue"`` trades on at once; ``"halt"`` never trades again; ``"7d"``, a duration from
        the open of its bar, or ``"next month"`` orders nothing before that time. The highest equity
        starts anew then. It also follows where something else leaves the account flat at or under
        the level of the stop.
    daily_loss, weekly_loss : float or None
        Close everything where the loss since the first open of the day, or of the week (from
        Monday), is this fraction of the base; no order fills before the first open of the next one.
    daily_basis : str
        The base of ``daily_loss`` and ``weekly_loss``: the equity at that first open (``"day"``),
        with the flows since, or what was paid in (``"initial"``: capital, reserve and deposits).
    day : str
        The time zone whose midnight begins a day and a month, such as ``"Europe/Prague"``.
    max_holding : str or None
        Close a position at the first open at which it was held this long, such as ``"7d"``, from
        flat to flat: an increase does not restart the time, a flip does.
    collateral : sequence of Collateral
        Assets held beside the money; stored as a tuple.
    requirement : Brackets, ScenarioMargin, the name of a preset, or a rule of your own
        The requirement of all cross positions together.
    intrabar : str
        How prices move inside a bar: along a ``"path"`` of waypoints, or ``"worst"``, each
        position to its adverse extreme at once, which is a bound.
    max_gross_leverage : float
        Cap on the sum of all notionals over equity: targets are scaled by one factor to
        it. Bands may keep up to a tenth more, and prices may carry it higher between fills.
    max_overlay : float
        Most leverage that an overlay may give the portfolio.
    negative_limit : float or None
        How far under 0 the balance may be at a close before collateral is sold. Required with
        collateral.
    conversion : str
        Which collateral is sold: in the ``"listed"`` order, or ``"pro_rata"``.
    offset : float or None
        How far limit orders are from the close of the decision, as a fraction of the price: a buy
        under it, a sale over it. Required with ``fill="limit"``.
    closing : str
        With ``fill="limit"``, how closings and reductions fill: at the ``"market"``, at the next
        open, or as ``"limit"`` orders too.
    margin_share : float or None
        The most that an order may bring the initial margin of its position to, as a share of the
        equity after its costs. It cuts orders that increase, and never reduces a position.
    """

    _refused = MappingProxyType({"hedge_mode": HEDGED, "position_mode": HEDGED})
    _omitted = frozenset(
        {
            *WHOLE,
            "max_holding",
            "offset",
            "closing",
            "daily_loss",
            "weekly_loss",
            "daily_basis",
            "day",
            "margin_share",
            "after_stop",
        }
    )

    capital: Annotated[float, POSITIVE] = 10_000.0
    margin: Annotated[Any, ByInstrument(core.Choice("cross", "isolated"))] = "cross"
    venue_leverage: Annotated[Any | None, ByInstrument(POSITIVE)] = None
    min_leverage: Annotated[Any, ByInstrument(NOT_NEGATIVE)] = 0.0
    max_leverage: Annotated[Any, ByInstrument(LIMIT)] = inf
    band: Annotated[Any, ByInstrument(NOT_NEGATIVE)] = 0.0
    stop_loss: Annotated[Any | None, ByInstrument(StopDistance(INNER_SHARE))] = None
    margin_call: Annotated[float | None, core.Real(0, 1, open_low=True)] = None
    reserve: Annotated[float, NOT_NEGATIVE] = 0.0
    top_up_to: Annotated[float | None, INNER_SHARE] = None
    after_liquidation: Annotated[str, core.Choice("continue", "halt")] = "continue"
    flows: Annotated[core.FloatSeries | None, core.Timed(core.Real(), constant=False)] = None
    ruin_at: Annotated[float | None, INNER_SHARE] = None
    auto_margin: Annotated[bool, core.Flag()] = False
    fill: Annotated[str, core.Choice("next_open", "next_close", "same_close", "limit")] = (
        "next_open"
    )
    take_profit: Annotated[Distance, StopDistance(POSITIVE)] = None
    trailing_stop: Annotated[Distance, StopDistance(INNER_SHARE)] = None
    equity_stop: Annotated[float | None, INNER_SHARE] = None
    after_stop: Annotated[str, AfterStop()] = "continue"
    daily_loss: Annotated[float | None, INNER_SHARE] = None
    weekly_loss: Annotated[float | None, INNER_SHARE] = None
    daily_basis: Annotated[str, core.Choice("day", "initial")] = "day"
    day: Annotated[str, core.Text()] = "UTC"
    max_holding: Annotated[Any | None, ByInstrument(core.Duration())] = None
    collateral: Annotated[Sequence[Collateral], core.AS_TUPLE] = ()
    requirement: Annotated[MarginRule, Requirement()] = Brackets()
    intrabar: Annotated[str, core.Choice("path", "worst")] = "path"
    max_gross_leverage: Annotated[float, core.Real(0, open_low=True, may_be_infinite=True)] = inf
    max_overlay: Annotated[float, core.Real(0, open_low=True, may_be_infinite=True)] = inf
    negative_limit: Annotated[float | None, NOT_NEGATIVE] = None
    conversion: Annotated[str, core.Choice("listed", "pro_rata")] = "listed"
    offset: Annotated[Any | None, ByInstrument(COST)] = None
    closing: Annotated[str, core.Choice("market", "limit")] = "market"
    margin_share: Annotated[Any | None, ByInstrument(core.Real(0, 1, open_low=True))] = None

    @core.checked
    def for_instrument(self, name: str) -> Account:
        """Return the settings of one instrument, as an account of its own.

        Raises
        ------
        ParameterError
            If its settings contradict each other.
        """
        if name not in self._of_instruments:
            settings = {
                field: core.pick_value(getattr(self, field), name) for field in BY_INSTRUMENT
            }
            settings |= {field: getattr(Account, field) for field in WHOLE}
            self._of_instruments[name] = replace(self, **settings)
        return self._of_instruments[name]

    @functools.cached_property
    def _of_instruments(self) -> dict[str, Account]:
        """The accounts of instruments that were asked for; a run asks for each several times."""
        return {}

    @property
    def has_exits(self) -> bool:
        """Whether there is a stop besides a stop-loss that is a fraction of the entry price."""
        if isinstance(self.stop_loss, Multiple):
            return True
        return any(getattr(self, name) is not None for name in OTHER_EXITS)

    def faults(self) -> core.Faults:
        """Yield each field that contradicts others, and what it must be instead."""
        yield from self._find_faults_of_equity_limits()
        if self.day != "UTC" and self.day not in find_zones():
            yield "day", "must be a time zone, 'Europe/Prague' for example"

        yield from self._find_faults_of_fills()
        yield from self._find_faults_of_collateral()
        # Tables by instrument are checked by for_instrument, each instrument alone.
        if not list_tables(self):
            yield from self._find_margin_faults()
        yield from self._find_faults_of_top_ups()

    def _find_faults_of_top_ups(self) -> core.Faults:
        """Yield the field and the rule of each fault of margin calls and their reserve."""
        called_at = self.margin_call
        goal = self.top_up_to
        if self.reserve > 0 and (called_at is None or goal is None):
            yield "reserve", "is used only with margin_call and top_up_to, 0.8 and 0.5 for example"

        # A top-up that does not bring the ratio under the call would not end it.
        if goal is None:
            return
        if called_at is None or not self.reserve > 0:
            yield "top_up_to", "is used only with a margin_call, 0.8 for example, and a reserve"
        elif not goal < called_at:
            rule = f"must be below margin_call {called_at:g}, or it does not end the call"
            yield "top_up_to", rule

    def _find_faults_of_equity_limits(self) -> core.Faults:
        """Yield the fields that need an equity stop or a limit of loss which is not there."""
        if self.after_stop != "continue" and self.equity_stop is None:
            yield "after_stop", "is used only with equity_stop, 0.1 for example"

        # Limits of loss have a base and a time zone; a pause by month has a time zone too.
        if self.daily_loss is not None or self.weekly_loss is not None:
            return
        rule = "is used only with daily_loss or weekly_loss, 0.05 for example"
        if self.daily_basis != "day":
            yield "daily_basis", rule
        if self.day != "UTC" and self.after_stop != NEXT_MONTH:
            yield "day", f"{rule}, or with after_stop='next month'"

    def _find_margin_faults(self) -> core.Faults:
        """Yield the faults of leverage, isolated margin and automatic margin."""
        largest = float(np.min(self.max_leverage))
        if not self.min_leverage <= largest:
            rule = f"must be at most max_leverage {largest:g}"
            if is_series(self.max_leverage):
                rule = f"{rule} at its lowest"
            yield "min_leverage", rule

        if self.margin == "isolated" and self.venue_leverage is None:
            rule = "is needed with isolated margin, 5 for example: it sets how much is posted"
            yield "venue_leverage", rule
        if self.auto_margin and self.margin != "isolated":
            yield "auto_margin", "must be False in cross margin, where all money backs the position"

    def _find_faults_of_fills(self) -> core.Faults:
        """Yield the faults of limit orders: fields that they need, or that need them."""
        if self.fill != "limit":
            rule = f"is used only with fill='limit', the fill is {self.fill!r}"
            if self.offset is not None:
                yield "offset", rule
            if self.closing != "market":
                yield "closing", rule
            return

        if self.offset is None:
            yield "offset", "is needed with fill='limit', 0.001 of the close for example"
        if self.intrabar == "worst":
            rule = "must be 'path' with fill='limit': worst extremes have no path of prices"
            yield "intrabar", rule

    def _find_faults_of_collateral(self) -> core.Faults:
        """Yield the field and the rule of each fault of collateral, and of ``margin_share``."""
        names = [asset.name for asset in self.collateral]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            yield "collateral", f"must have different names, {', '.join(twice)} occurs twice"

        # A share of the margin of one position needs a margin of one position.
        if self.margin_share is not None and not isinstance(self.requirement, Brackets):
            rule = "needs bt.Brackets(): under another rule no position has its own initial margin"
            yield "margin_share", rule

        if names and self.negative_limit is None:
            rule = "is needed with collateral, which is sold where the balance falls below it"
            yield "negative_limit", rule
        if not names and self.negative_limit is not None:
            yield "negative_limit", "is used only with collateral"


def list_shared_settings(account: Account) -> list[str]:
    """Return the fields that only an account of several positions has, of those that are set."""
    changed = [name for name in WHOLE if getattr(account, name) != getattr(Account, name)]
    return [*list_tables(account), *changed]


def list_tables(account: Account) -> list[str]:
    """Return the fields that are tables by instrument."""
    values = {name: getattr(account, name) for name in BY_INSTRUMENT}
    return [name for name, value in values.items() if isinstance(value, core.FrozenTable)]


def find_pause_ends(account: Account, opens: core.IntArray) -> core.FloatArray:
    """Return for each bar the time at which trading resumes if an equity stop acts in it.

    ``opens`` of shape (n_bars,) are the open times of the bars, UTC ns; the result has the same
    shape and unit, as floats. By ``account.after_stop``: "continue" resumes at once, "halt" never
    (infinity), "next month" at midnight of the next month, a duration such as "7d" after it.
    """
    if account.after_stop == "continue":
        return np.asarray(opens, dtype=np.float64)
    if account.after_stop == "halt":
        return np.full(len(opens), inf)
    if account.after_stop != NEXT_MONTH:
        return np.asarray(opens + core.parse_duration(account.after_stop), dtype=np.float64)

    # The midnight that begins the next month on the clocks of the account's days.
    local = core.utc_index(opens).tz_convert(account.day).tz_localize(None)
    next_months = (local.to_period("M") + 1).to_timestamp()

    # Where daylight saving skips that midnight, the next time that exists; where it occurs twice,
    # the first of the two.
    takes_first = np.ones(len(opens), dtype=bool)
    ends = next_months.tz_localize(account.day, ambiguous=takes_first, nonexistent="shift_forward")
    return np.asarray(ends.as_unit("ns").asi8, dtype=np.float64)


def without_flows_before(account: Account, start: int) -> Account:
    """Return an account without the flows before a time, UTC ns."""
    if account.flows is None:
        return account
    stamps = pd.DatetimeIndex(account.flows.index).as_unit("ns").asi8
    later = account.flows[stamps >= start]
    return replace(account, flows=later if len(later) else None)


def check_setting(account: Account, venue: Venue, name: str = "") -> None:
    """Raise ParameterError if the settings of an account do not fit its venue.

    Its ``venue_leverage`` must be allowed by the margin table, its ``min_leverage`` must be within
    that, and a venue that waits after a margin call needs one. ``name`` is the instrument, for the
    message.
    """
    of_name = f" for {name}" if name else ""
    # The first bracket of a margin table allows most. The setting holds for the whole run, so the
    # tables of all dates must allow it.
    largest = min(table[0].max_leverage for table in venue.tables())
    setting = largest
    if account.venue_leverage is not None:
        setting = account.venue_leverage

    if setting > largest * (1 + TOLERANCE):
        clauses = [
            f"venue_leverage must be at most {largest:g}{of_name}, the limit of the first bracket, "
            f"got {setting:g}"
        ]
        if venue.earlier:
            clauses.append("the margin tables of all dates count, of a preset with @DATE one")
        raise core.ParameterError("; ".join(clauses))

    if account.min_leverage > setting * (1 + TOLERANCE):
        raise core.ParameterError(
            f"min_leverage must be at most {setting:g}{of_name}, the limit set by initial margin, "
            f"got {account.min_leverage:g}"
        )

    if venue.call_grace is not None and account.margin_call is None:
        raise core.ParameterError(
            f"a venue with call_grace {venue.call_grace} needs a margin_call, 0.8 for example, "
            "got None"
        )
