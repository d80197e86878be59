"""The rules of a venue: contract, margin brackets, fees, slippage, liquidation, interest.

Every cost must be given; none has a default of zero. Rates are fractions of notional unless they
are per year. Notionals are in the settlement currency.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, Self, TypeAlias, overload

import numpy as np

from backtest import core
from backtest.core import Cost, Faults, Rate, Real, Timed, Value, checked
from backtest.core.code_names import is_series
from backtest.core.fields import POSITIVE
from backtest.market import Market
from backtest.venue import listing, preset_files
from backtest.venue.contract import Contract
from backtest.venue.margin_rules import ANNOUNCED, IN_FORCE, DynamicMargin, Rule
from backtest.venue.margin_table import (
    Bracket,
    Earlier,
    InForce,
    InUse,
    complete_table,
    find_table_faults,
)
from backtest.venue.option_contract import OptionCosts
from backtest.venue.trade_costs import (
    Fees,
    Liquidation,
    ShareOrWord,
    Slippage,
    find_newest,
    list_dated,
)

WHOLE_SHARES = {"all": 1.0, "losses": 0.0}


RATES = ("borrow_rate", "cash_rate", "short_rate")


def find_charged(venue: Any) -> list[str]:
    return [name for name in RATES if np.any(np.asarray(getattr(venue, name)) != 0.0)]


def choose_multipliers(venue: Any) -> dict[str, Rate]:
    names = ("initial_multiplier", "maintenance_multiplier")
    given = [name for name in names if getattr(venue, name) is not None]
    return {name: getattr(venue, name) for name in given} or {
        "margin_multiplier": venue.margin_multiplier
    }


ACCOUNT_FIELDS = (
    "interest_on", "borrow_rate", "cash_rate", "short_rate", "day_count", "funding_jitter",
    "call_grace",
)  # fmt: skip


def find_spot_faults(venue: Any) -> Faults:
    haircut = venue.contract.haircut or 0.0
    if len(venue.brackets) != 1 or venue.earlier:
        yield "brackets", "must be one for a spot contract, of rate 0"
    elif haircut * venue.brackets[0].max_leverage >= 1.0:
        rule = f"must be under 1 / haircut, {1.0 / haircut:g}, or a long backs nothing"
        yield "brackets.0.max_leverage", rule
    only = {
        "includes_close_fee": False,
        "maintenance_at": "mark",
        "profit_counts": "all",
        "liquidation.full_below_health": 0.0,
    }
    for name, value in only.items():
        if attrgetter(name)(venue) != value:
            yield name, f"must be {value!r} for a spot contract"
    if venue.margin is not None:
        yield "margin", "must be left out for a spot contract: change the haircut or max_leverage"
    for name, multiplier in choose_multipliers(venue).items():
        if is_series(multiplier) or multiplier != 1.0:
            yield name, "must be 1 for a spot contract: change the haircut or max_leverage"
    if venue.liquidation.step == "bracket":
        yield "liquidation.step", "must be a fraction for a spot contract"
    if venue.interest_on == "loan":
        yield "interest_on", "must be 'balance' for a spot contract: what is borrowed is a balance"


_ANNUAL = Timed(Real(-1, 10))


class Venue(Value, kw_only=True):
    """The rules of one instrument at one venue.

    Parameters
    ----------
    contract, fees, slippage, liquidation
        See :class:`Contract`, :class:`Fees`, :class:`Slippage`, :class:`Liquidation`.
    brackets : sequence of Bracket
        The margin table, from the lowest notional up; stored with every amount.
    interest_on : str or None
        What the rates are charged on: ``"balance"`` (derivatives: the wallet without the profit
        of the position) or ``"loan"`` (spot margin, Reg-T, lending: the cash after paying for the
        position). Required if a rate is not 0.
    borrow_rate, cash_rate, short_rate : float or Series by UTC time
        Interest per year, simple; ``short_rate`` is charged with ``interest_on="loan"`` only.
    day_count : float
        Days in a year of interest, 360 to 366.
    funding_jitter : str
        How far from a bar's open a funding stamp may be and still belong to that open.
    isolated_funding : str
        What pays the funding of an isolated position: its ``"margin"``, or first the ``"wallet"``.
    maintenance_at : str
        The price at which the requirement values the notional: ``"mark"`` or ``"entry"``.
    includes_close_fee : bool
        Whether the requirement includes the taker fee of closing.
    margin_multiplier : float or Series by UTC time
        Scales the maintenance rates and divides the allowed leverages: sets the two multipliers
        below together.
    call_grace : int or None
        Bars that a margin call may stay unmet before the position is reduced; None: any number.
    profit_counts : str or float
        The share of an unrealized profit that backs new orders and withdrawals: ``"all"`` (1),
        ``"losses"`` (0), or a number from 0 to 1. Maintenance counts all of it.
    in_force : InForce or None
        The preset and the days of the brackets and of ``earlier``; None if they are of no preset.
    earlier : sequence of Earlier
        The margin tables before ``brackets``, the oldest first. A run uses the table in force at
        each bar, the calculators the newest. ``override`` with new brackets drops them, and
        ``in_force``, unless they are given too.
    initial_multiplier : float, Series by UTC time, or None
        Divides the allowed leverages: the initial margin of orders and withdrawals.
    maintenance_multiplier : float, Series by UTC time, or None
        Scales the maintenance rates: margin ratio, margin calls and liquidation.
    margin : DynamicMargin or None
        A rule of ``bt.margin_rules`` that scales the margin table with the market, beside the
        multipliers above. Policies see ``margin_multiplier``, in force in a bar, and
        ``announced_multiplier``, known at its close, in ``market.columns``.
    option_costs : OptionCosts or None
        Fees, ticks and spread of options on the instrument; needed where there are any.
    """

    contract: Contract
    brackets: Annotated[Sequence[Bracket], core.AS_TUPLE]
    fees: Fees
    slippage: Slippage
    liquidation: Liquidation
    interest_on: Annotated[str | None, core.Choice("balance", "loan")] = None
    borrow_rate: Annotated[Rate, _ANNUAL] = 0.0
    cash_rate: Annotated[Rate, _ANNUAL] = 0.0
    short_rate: Annotated[Rate, _ANNUAL] = 0.0
    day_count: Annotated[float, Real(360, 366)] = 365.0
    funding_jitter: Annotated[str, core.Duration()] = "60s"
    isolated_funding: Annotated[str, core.Choice("margin", "wallet")] = "margin"
    maintenance_at: Annotated[str, core.Choice("mark", "entry")] = "mark"
    includes_close_fee: Annotated[bool, core.Flag()] = False
    margin_multiplier: Annotated[Rate, Timed(POSITIVE)] = 1.0
    call_grace: Annotated[int | None, core.Whole(0)] = None
    in_force: InForce | None = None
    earlier: Annotated[Sequence[Earlier], core.AS_TUPLE] = ()
    initial_multiplier: Annotated[Rate | None, Timed(POSITIVE)] = None
    maintenance_multiplier: Annotated[Rate | None, Timed(POSITIVE)] = None
    profit_counts: Annotated[float | str, ShareOrWord(0, WHOLE_SHARES)] = "all"
    option_costs: OptionCosts | None = None
    margin: Annotated[DynamicMargin | None, Rule()] = None

    def faults(self) -> Faults:
        is_spot = self.contract.is_spot
        dated, closes = [n for n in list_dated(self) if "fees" in n], self.includes_close_fee
        if self.fees.tiers and dated:
            yield "fees.tiers", f"must be left out with costs over time: {', '.join(dated)}"
        if self.fees.tiers and closes:
            rule = "must be left out where includes_close_fee is True: give one taker rate"
            yield "fees.tiers", rule
        if "fees.taker" in dated and closes:
            yield "fees.taker", "must be a number where includes_close_fee is True"
        fee = find_newest(self.fees.taker) if self.includes_close_fee else 0.0
        yield from find_table_faults(self.brackets, "brackets", fee, is_spot=is_spot)
        for k, each in enumerate(self.earlier):
            if k and each.end <= self.earlier[k - 1].end:
                yield f"earlier.{k}.until", "must be after the table before it"
            if fee > 0.0:
                yield from find_table_faults(each.brackets, f"earlier.{k}.brackets", fee)
        charged = find_charged(self)
        if charged and self.interest_on is None:
            rule = "must be 'loan' (margin loans) or 'balance' (derivatives) when a rate is not 0"
            yield "interest_on", f"{rule}: {', '.join(charged)}"
        if self.interest_on == "balance" and "short_rate" in charged:
            yield "short_rate", "must be 0 with interest_on='balance', which never charges it"
        given, both = choose_multipliers(self), self.margin_multiplier
        if "margin_multiplier" not in given and (is_series(both) or both != 1.0):
            yield "margin_multiplier", f"must be left out with {' and '.join(given)}: it sets both"
        if is_spot:
            yield from find_spot_faults(self)

    def _settle(self) -> None:
        self._set_fields(brackets=complete_table(self.brackets))

    def _complete_changes(self, changes: dict[str, Any]) -> dict[str, Any]:
        of_no_preset = {"in_force": None, "earlier": ()} if "brackets" in changes else {}
        return {**of_no_preset, **changes}

    def profit_share(self) -> float:
        """Return the share of an unrealized profit that backs orders and withdrawals."""
        given = self.profit_counts
        return WHOLE_SHARES[given] if isinstance(given, str) else given

    def __repr__(self) -> str:
        name = self.in_force.preset if self.in_force else "no preset"
        count = core.count_nouns(len(self.brackets), "bracket")
        table = f"{count}, {self.brackets[0].max_leverage:g}x"
        interest = ", ".join(find_charged(self)) or "no interest"
        parts = (self.contract, self.fees, self.slippage, self.liquidation)
        return "\n ".join([f"<Venue of {name}: {table}, {interest}", *map(repr, parts)]) + ">"

    @overload
    @classmethod
    def preset(cls, venue: str, symbol: str, at: core.TimeLike | None = None) -> Self: ...

    @overload
    @classmethod
    def preset(
        cls, venue: str, symbol: list[str] | tuple[str, ...], at: core.TimeLike | None = None
    ) -> dict[str, Self]: ...

    @classmethod
    def preset(
        cls, venue: str, symbol: str | list[str] | tuple[str, ...], at: core.TimeLike | None = None
    ) -> Self | dict[str, Self]:
        """Return the rules of a symbol from a preset of the package or from a file.

        Raises VenueError if there is no such venue or symbol.

        Parameters
        ----------
        venue : str
            A preset that ``backtest venues`` lists, or the path of a file of such tables.
        symbol : str or list of str
            The venue's name of the instrument, which may end with ``@`` and a day,
            ``"BTCUSDT@2021-05-19"``; a list gives a table of venues by name.
        at : str or Timestamp, optional
            By default the margin tables of all days (a run uses the one in force at each bar) and
            the newest table of the other groups. With a day in UTC: the last table of each group
            dated on or before it, or the oldest if all are later. With ``"latest"``: the newest
            table of each group. With a day or ``"latest"`` there is one margin table for all bars.

        Examples
        --------
        >>> Venue.preset("binance-usdm", "BTCUSDT@2024-10-24").brackets[1].amount
        50.0
        >>> Venue.preset("binance-usdm", "BTCUSDT").days()
        ('2021-03-18', '2022-12-29', '2024-10-24', '2026-09-29')
        """
        if not isinstance(symbol, str):
            names = list(symbol) if isinstance(symbol, list | tuple) else []
            plain = {each.partition("@")[0] for each in names if isinstance(each, str)}
            if not names or len(plain) < len(names):
                raise core.VenueError(
                    "symbol must be a name, or a list of different names, got "
                    f"{core.repr_plain(symbol)}"
                )
            return {each.partition("@")[0]: cls.preset(venue, each, at) for each in names}
        name, day = preset_files.split_day(symbol)
        if day is not None and (at is not None or not day):
            raise core.VenueError(
                f"the day of a preset must be given once, got {symbol!r} and at={at!r}"
            )
        at = at if day is None else day
        return cls.from_dict(preset_files.read_preset(venue, name, at), where=f"{venue}:{symbol}")

    @classmethod
    def read(
        cls,
        source: str | Path | Mapping[str, Any] | Sequence[Any],
        symbol: str,
        like: str = listing.DEFAULT_LIKE,
        date: core.TimeLike | None = None,
    ) -> Self:
        """Return the rules of a symbol from what an exchange or a tool lists.

        The listing gives the contract, the brackets and, if it states them, the fees. Slippage,
        liquidation, other rules and what it leaves out are those of a preset. ``in_force`` and the
        summary say which is which. The amounts of brackets are recomputed and compared.

        Raises VenueError if the symbol is not listed, ParameterError with the field of each fault.

        Parameters
        ----------
        source : str, Path, mapping or sequence
            A JSON file, or what is in it: ccxt's ``load_markets()`` or ``fetch_leverage_tiers()``,
            freqtrade's tiers, Binance's ``exchangeInfo`` or ``leverageBracket``, a table with
            ``markets`` and ``tiers``, or a list of files. A folder of dated listings is a margin
            table by date.
        symbol : str
            The name that ccxt or the venue writes, ``"PNUT/USDT:USDT"`` or ``"PNUTUSDT"``.
        like : str
            A preset, ``"binance-usdm"``, or one of its symbols, ``"bybit-linear:BTCUSDT"``.
        date : str or Timestamp, optional
            The day of a listing that has none. Of a folder: the day whose table is used for all
            bars, or ``"latest"``.

        Examples
        --------
        >>> tier = {"minNotional": 0, "maxNotional": 5000, "maxLeverage": 50}
        >>> tiers = {"PNUT/USDT:USDT": [{**tier, "maintenanceMarginRate": 0.015}]}
        >>> venue = Venue.read(tiers, "PNUT/USDT:USDT", date="2026-09-29")
        >>> venue.brackets[0].max_leverage, venue.contract.lot, venue.in_force.like
        (50.0, None, 'binance-usdm:BTCUSDT')
        """
        content = listing.read_listing(source, symbol, like=like, date=date)
        return cls.from_dict(content, where=content["in_force"]["preset"])

    @classmethod
    @checked
    def simple(
        cls,
        *,
        taker: Cost,
        slippage: Cost,
        maintenance_rate: float,
        max_leverage: float,
        liquidation_fee: Cost,
        maker: Cost | None = None,
        liquidation_slippage: Cost | None = None,
        mode: str = "close",
        lot: float = 0.0,
        interest_on: str | None = None,
        borrow_rate: Rate = 0.0,
        cash_rate: Rate = 0.0,
    ) -> Venue:
        """Return a plain linear venue: one bracket of any size, one unit per contract.

        ``maintenance_rate`` and ``max_leverage`` are those of the one bracket. There is no smallest
        notional. ``maker`` is by default the taker fee, ``liquidation_slippage`` the ``slippage``.
        All others are fields of the venue and its parts.
        """
        worse = slippage if liquidation_slippage is None else liquidation_slippage
        return cls(
            contract=Contract(lot=lot, tick=1e-8, min_notional=0.0),
            brackets=[Bracket(0.0, np.inf, max_leverage, maintenance_rate)],
            fees=Fees(taker=taker, maker=taker if maker is None else maker),
            slippage=Slippage(rate=slippage),
            liquidation=Liquidation(mode=mode, fee=liquidation_fee, slippage=worse),
            interest_on=interest_on,
            borrow_rate=borrow_rate,
            cash_rate=cash_rate,
        )

    @classmethod
    @checked
    def spot(
        cls,
        *,
        taker: Cost,
        slippage: Cost,
        haircut: float,
        borrow_rate: Rate,
        max_leverage: float | None = None,
        maker: Cost | None = None,
        liquidation_fee: Cost | None = None,
        lot: float = 0.0,
        like: Venue | str | None = None,
    ) -> Venue:
        """Return the venue of a spot leg: the coin itself, held beside margined positions.

        ``haircut`` and ``borrow_rate`` are those of :class:`Contract`; the rates of money are those
        of the account. A liquidation has the slippage of a trade. There is no smallest notional.

        Parameters
        ----------
        max_leverage : float, optional
            Largest leverage of an order, under 1 / haircut. Default: 1 / (2 haircut).
        maker, liquidation_fee : float, optional
            By default the taker fee.
        like : Venue, optional
            The venue of the other instruments. The spot leg takes over what belongs to the account:
            interest, margin calls, and the mode, step and order of liquidations.

        Examples
        --------
        >>> spot = Venue.spot(taker=0.001, slippage=1e-4, haircut=0.05, borrow_rate=0.04)
        >>> spot.contract.haircut, spot.brackets[0].max_leverage
        (0.05, 10.0)
        """
        if max_leverage is None and not haircut > 0.0:
            raise core.VenueError("max_leverage is needed with a haircut of 0, 10 for example")
        most = 0.5 / haircut if max_leverage is None else max_leverage
        fee = taker if liquidation_fee is None else liquidation_fee
        forced = Liquidation(mode="close", fee=fee, slippage=slippage)
        shared = {}
        if like is not None:
            other: Venue = read_venue(like)
            shared = {name: getattr(other, name) for name in ACCOUNT_FIELDS}
            names = ("mode", "order", *(() if other.liquidation.step == "bracket" else ("step",)))
            forced = forced.override({name: getattr(other.liquidation, name) for name in names})
        return cls(
            contract=Contract(
                kind="spot", haircut=haircut, borrow_rate=borrow_rate, lot=lot, tick=1e-8,
                min_notional=0.0,
            ),
            brackets=[Bracket(0.0, math.inf, most, 0.0)],
            fees=Fees(taker=taker, maker=taker if maker is None else maker),
            slippage=Slippage(rate=slippage),
            liquidation=forced,
            **shared,
        )  # fmt: skip

    @checked
    def describe_misfit(self, start: int, end: int) -> str:
        """Describe the part of a span, in ns, that no dated margin table covers.

        Empty if all of it is covered, or if the brackets are of no preset.
        """
        table, parts = self.in_force, []
        if table is not None and table.since and start < core.to_nanoseconds(table.since):
            parts.append(f"but the run uses it from {core.format_time(start)[:10]} on")
        if table is not None and table.until and end > core.to_nanoseconds(table.until):
            parts.append(f"it was replaced on {table.until}, before the run ends")
        if table is None or not parts:
            return ""
        name = f"the {'oldest ' if self.earlier else ''}margin table of {table.preset}"
        return f"{name} is of {table.since}, {' and '.join(parts)}"

    def tables(self) -> tuple[Sequence[Bracket], ...]:
        """Return all margin tables, the oldest first."""
        return (*(each.brackets for each in self.earlier), self.brackets)

    def days(self) -> tuple[str | None, ...]:
        """Return the day from which each margin table applies, the oldest first; None: unknown."""
        first = None if self.in_force is None else self.in_force.since
        return (first, *(each.until for each in self.earlier))

    @checked
    def in_use(self, time: core.IntArray) -> list[InUse]:
        """Return the margin tables that apply to bars with these open times, with their bars."""
        core.check_shape("time", time, (-1,))
        ends = np.array([each.end for each in self.earlier], dtype=np.int64)
        bars = [0, *np.searchsorted(time, ends).tolist(), len(time)]
        rows = zip(self.days(), self.tables(), pairwise(bars), strict=True)
        used = (InUse(day, table, *span) for day, table, span in rows)
        return [each for each in used if each.first < each.stop]

    def multiply_margin(self, market: Market) -> tuple[core.FloatArray, core.FloatArray]:
        """Return the multipliers of the margin rule, each of shape (n_bars,), or (1,) without one.

        The first is in force in each bar, the second is announced at its close.
        """
        if self.margin is None:
            return np.ones(1), np.ones(1)
        return self.margin.multiply(market, self.find_lowest(market.time)[0])

    def find_lowest(self, time: core.IntArray) -> tuple[core.FloatArray, core.FloatArray]:
        """Return maintenance rate and largest leverage of the lowest bracket at times, (n,) each.

        They are of the margin table in force at each time, before multipliers.
        """
        rates, leverages = np.empty((2, len(time)))
        for each in self.in_use(time):
            rates[each.first : each.stop] = each.brackets[0].maintenance_rate
            leverages[each.first : each.stop] = each.brackets[0].max_leverage
        return rates, leverages

    def show_margin(self, market: Market) -> Market:
        """Return the market with the multipliers of the margin rule as columns, if there is one."""
        if self.margin is None:
            return market
        in_force, announced = self.multiply_margin(market)
        return market.with_columns(**{IN_FORCE: in_force, ANNOUNCED: announced})

    @checked
    def with_table(self, table: InUse) -> Venue:
        """Return the venue with one of its margin tables for all times."""
        if not self.earlier:
            return self
        own = object.__new__(type(self))  # checked already; a run repeats this for each table
        vars(own).update(vars(self), brackets=table.brackets, earlier=())
        return own


VenueLike: TypeAlias = Venue | str | Mapping[str, Venue | str]
"""A venue, the name of a preset (``"binance-usdm:BTCUSDT"``), or one of them by instrument."""


def read_venue(given: Any) -> Any:
    """Return venues with the rules of its preset in place of each text ``NAME:SYMBOL[@DAY]``.

    Of a text ``file:PATH#SYMBOL?like=NAME`` they are those of a listing. Anything else stays as it
    is. Raises VenueError if there is no such preset or listing.
    """
    if isinstance(given, Mapping):
        return {name: read_venue(each) for name, each in given.items()}
    if not isinstance(given, str):
        return given
    if given.startswith(listing.SCHEME):
        name = listing.parse_listing_name(given)
        return Venue.read(name.path, name.symbol, name.like, name.date)
    return Venue.preset(*preset_files.parse_name(given))
