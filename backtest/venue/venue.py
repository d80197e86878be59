"""The rules of a venue: its parts, its interest, and the margin table of each day.

Every cost must be given; none has a default of zero. Rates are fractions of notional unless they
are per year. Notionals are in the settlement currency.

Words of this room:

- *venue*: the rules of one instrument at one exchange, broker or protocol
- *contract*: what one unit of the instrument is: its size, steps, expiry and settlement
- *table*, *bracket*: a margin table, and one of its rows, from a floor up to a cap of notional
- *rate*: a fraction of notional per trade or, of interest, per year
- *cost*: a rate that may change over time: a number, a series, or a column of the market
- *dated*: a cost that does so; *newest*: its last value
- *multiplier*: scales maintenance rates and divides allowed leverages, by date or by a rule
- *level*: m of a margin rule, the maintenance margin per notional at a day's close
- *preset*: tables that the package or a file has for a symbol; *group*: one of its subjects
- *listing*: what an exchange or a tool states of a symbol, beside the preset of all the rest
- *day*: from which a table is in force; ``"latest"`` in its place: the newest alone
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
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
    ChangedFrom,
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


INTEREST_RATES = ("borrow_rate", "cash_rate", "short_rate")
"""The fields of a venue that are interest, a year."""


def find_charged(venue: Any) -> list[str]:
    """Return the names of the interest rates that are not 0 at all times."""
    return [name for name in INTEREST_RATES if np.any(np.asarray(getattr(venue, name)) != 0.0)]


def choose_multipliers(venue: Any) -> dict[str, Rate]:
    """Return the multipliers of margin in force: those of their own, or the one that sets both."""
    chosen = {}
    for name in ("initial_multiplier", "maintenance_multiplier"):
        multiplier = getattr(venue, name)
        if multiplier is not None:
            chosen[name] = multiplier
    return chosen or {"margin_multiplier": venue.margin_multiplier}


SPOT_VALUES = {
    "includes_close_fee": False,
    "maintenance_at": "mark",
    "profit_counts": "all",
    "liquidation.full_below_health": 0.0,
}
"""What a spot contract leaves no choice of."""


ACCOUNT_FIELDS = (
    "interest_on", "borrow_rate", "cash_rate", "short_rate", "day_count", "funding_jitter",
    "call_grace",
)  # fmt: skip


def find_spot_faults(venue: Any) -> Faults:
    """Yield the field and the rule of all that does not fit a spot contract.

    It has no margin by brackets. Its haircut is the part of a long that backs nothing, and the only
    bracket has the largest leverage that the venue allows.
    """
    haircut = venue.contract.haircut or 0.0
    if len(venue.brackets) != 1 or venue.earlier:
        yield "brackets", "must be one for a spot contract, of rate 0"
    elif haircut * venue.brackets[0].max_leverage >= 1.0:
        rule = f"must be under 1 / haircut, {1.0 / haircut:g}, or a long backs nothing"
        yield "brackets.0.max_leverage", rule

    for name, value in SPOT_VALUES.items():
        if attrgetter(name)(venue) != value:
            yield name, f"must be {value!r} for a spot contract"

    # Rules of margin: the haircut alone says how much a leg needs.
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
        Simple interest per year on borrowed cash, idle cash and short positions; ``short_rate`` is
        charged with ``interest_on="loan"`` only.
    day_count : float
        Days in a year of interest and of ``Contract(expense=)``, 360 to 366.
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
    changed_from : ChangedFrom or None
        The preset of the rules beside the brackets where ``override`` changed these, and the rates
        of interest that it set; None where ``in_force`` says all.
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
    changed_from: ChangedFrom | None = None

    def faults(self) -> Faults:
        """Yield the faults that no field has alone, as the name of a field and what it must be.

        Each field was checked for itself before. Here are those that contradict each other: fees,
        margin tables with the fee of closing, interest, multipliers of margin, and spot contracts.
        """
        yield from self._find_fee_faults()

        # Margin tables. Some venues add the taker fee of closing to each maintenance rate.
        close_fee = 0.0
        if self.includes_close_fee:
            close_fee = find_newest(self.fees.taker)
        is_spot = self.contract.is_spot
        yield from find_table_faults(self.brackets, "brackets", close_fee, is_spot=is_spot)
        for k, table in enumerate(self.earlier):
            if k and table.end <= self.earlier[k - 1].end:
                yield f"earlier.{k}.until", "must be after the table before it"
            # An earlier table has checked itself, but does not know the fee of closing.
            if close_fee > 0.0:
                yield from find_table_faults(table.brackets, f"earlier.{k}.brackets", close_fee)

        # Interest: a rate that is not 0 needs to know on what it is charged.
        charged = find_charged(self)
        if charged and self.interest_on is None:
            rule = "must be 'loan' (margin loans) or 'balance' (derivatives) when a rate is not 0"
            yield "interest_on", f"{rule}: {', '.join(charged)}"
        if self.interest_on == "balance" and "short_rate" in charged:
            yield "short_rate", "must be 0 with interest_on='balance', which never charges it"

        # One multiplier for both margins, or one for each.
        chosen = choose_multipliers(self)
        has_common = is_series(self.margin_multiplier) or self.margin_multiplier != 1.0
        if "margin_multiplier" not in chosen and has_common:
            rule = f"must be left out with {' and '.join(chosen)}: it sets both"
            yield "margin_multiplier", rule
        if is_spot:
            yield from find_spot_faults(self)

    def _find_fee_faults(self) -> Faults:
        """Yield the faults of fees that exclude each other: tiers, fees by date, closing fees.

        ``includes_close_fee`` is True where the venue adds the taker fee of closing to its
        maintenance rates. Its margin tables need one taker rate then.
        """
        # The fields of fees that are series, such as "fees.taker".
        dated = [name for name in list_dated(self) if "fees" in name]

        # A tier has one rate for all times.
        if self.fees.tiers and dated:
            yield "fees.tiers", f"must be left out with costs over time: {', '.join(dated)}"
        if self.fees.tiers and self.includes_close_fee:
            rule = "must be left out where includes_close_fee is True: give one taker rate"
            yield "fees.tiers", rule
        if "fees.taker" in dated and self.includes_close_fee:
            yield "fees.taker", "must be a number where includes_close_fee is True"

    def _settle(self) -> None:
        self._set_fields(brackets=complete_table(self.brackets))

    def _complete_changes(self, changes: dict[str, Any]) -> dict[str, Any]:
        completed = {"changed_from": self._find_changed_from(changes), **changes}

        # New brackets are of no preset, and had none before them, unless the caller says so.
        if "brackets" in changes:
            completed = {"in_force": None, "earlier": (), **completed}
        return completed

    def _find_changed_from(self, changes: dict[str, Any]) -> ChangedFrom | None:
        """Return ``changed_from`` of the venue after changes: its preset, and the stated rates.

        A report reads it where margin rules are no longer the preset's, or to say of a rate of
        interest whether the preset assumed it or the user stated it, by ``override``. None where
        both need no word: no preset is known, or neither these changes nor earlier ones touch
        margin brackets or rates of interest.
        """
        preset = self.preset_of_rules
        if not preset:
            return None

        stated_rates = self._list_stated(changes)
        has_new_brackets = "brackets" in changes
        was_changed = self.changed_from is not None
        if not (stated_rates or has_new_brackets or was_changed):
            return None
        return ChangedFrom(preset=preset, stated=stated_rates)

    def _list_stated(self, changes: dict[str, Any]) -> list[str]:
        """Return the rates of interest that the user stated: before, and by these changes."""
        stated: list[str] = []
        if self.changed_from is not None:
            stated = [*self.changed_from.stated]

        for name in INTEREST_RATES:
            # A preset that leaves a rate at 0 assumes none, so nobody asks who stated it.
            rate = getattr(self, name)
            is_assumed = is_series(rate) or rate != 0.0
            if name in changes and is_assumed and name not in stated:
                stated.append(name)
        return stated

    @property
    def preset_of_rules(self) -> str:
        """The preset of the rules beside the margin table, with its symbol; empty for none."""
        if self.changed_from is not None:
            return self.changed_from.preset
        if self.in_force is not None:
            return self.in_force.like or self.in_force.preset
        return ""

    def profit_share(self) -> float:
        """Return the share of an unrealized profit that backs orders and withdrawals."""
        if isinstance(self.profit_counts, str):
            return WHOLE_SHARES[self.profit_counts]
        return self.profit_counts

    def __repr__(self) -> str:
        """Return preset, leverage and interest in a line, and a line for each part of the venue."""
        name = "no preset"
        if self.in_force:
            name = self.in_force.preset
        count = core.count_nouns(len(self.brackets), "bracket")
        table = f"{count}, {self.brackets[0].max_leverage:g}x"
        interest = ", ".join(find_charged(self)) or "no interest"

        parts = (self.contract, self.fees, self.slippage, self.liquidation)
        lines = [f"<Venue of {name}: {table}, {interest}", *map(repr, parts)]
        text = "\n ".join(lines)
        return f"{text}>"

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
            return cls._read_presets(venue, symbol, at)
        name, day = preset_files.split_day(symbol)
        if day is None:
            day_or_latest = at
        elif at is not None or not day:
            raise core.VenueError(
                f"the day of a preset must be given once, got {symbol!r} and at={at!r}"
            )
        else:
            day_or_latest = day

        data = preset_files.read_preset(venue, name, day_or_latest)
        return cls.from_dict(data, where=f"{venue}:{symbol}")

    @classmethod
    def _read_presets(cls, venue: str, symbols: Any, at: core.TimeLike | None) -> dict[str, Self]:
        """Return the venues of several symbols, by symbol without the day after @.

        Raises VenueError if ``symbols`` is not a list of different names.
        """
        names: list[Any] = []
        if isinstance(symbols, list | tuple):
            names = [*symbols]
        without_days = {name.partition("@")[0] for name in names if isinstance(name, str)}
        if not names or len(without_days) < len(names):
            raise core.VenueError(
                "symbol must be a name, or a list of different names, got "
                f"{core.repr_plain(symbols)}"
            )
        return {name.partition("@")[0]: cls.preset(venue, name, at) for name in names}

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
        if maker is None:
            maker = taker
        if liquidation_slippage is None:
            liquidation_slippage = slippage
        return cls(
            contract=Contract(lot=lot, tick=1e-8, min_notional=0.0),
            brackets=[Bracket(0.0, np.inf, max_leverage, maintenance_rate)],
            fees=Fees(taker=taker, maker=maker),
            slippage=Slippage(rate=slippage),
            liquidation=Liquidation(mode=mode, fee=liquidation_fee, slippage=liquidation_slippage),
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
            The venue of the other instruments. The spot leg shares what belongs to the account:
            interest, margin calls, and the mode, step and order of liquidations.

        Examples
        --------
        >>> spot = Venue.spot(taker=0.001, slippage=1e-4, haircut=0.05, borrow_rate=0.04)
        >>> spot.contract.haircut, spot.brackets[0].max_leverage
        (0.05, 10.0)
        """
        if max_leverage is None:
            if not haircut > 0.0:
                raise core.VenueError("max_leverage is needed with a haircut of 0, 10 for example")
            max_leverage = 0.5 / haircut
        if maker is None:
            maker = taker
        if liquidation_fee is None:
            liquidation_fee = taker
        liquidation = Liquidation(mode="close", fee=liquidation_fee, slippage=slippage)

        # What belongs to the account is that of the other instruments.
        shared = {}
        if like is not None:
            other: Venue = read_venue(like)
            shared = {name: getattr(other, name) for name in ACCOUNT_FIELDS}
            names = ["mode", "order"]
            if other.liquidation.step != "bracket":  # a spot leg has one bracket
                names.append("step")
            changes = {name: getattr(other.liquidation, name) for name in names}
            liquidation = liquidation.override(changes)
        return cls(
            contract=Contract(
                kind="spot",
                haircut=haircut,
                borrow_rate=borrow_rate,
                lot=lot,
                tick=1e-8,
                min_notional=0.0,
            ),
            brackets=[Bracket(0.0, math.inf, max_leverage, 0.0)],
            fees=Fees(taker=taker, maker=maker),
            slippage=Slippage(rate=slippage),
            liquidation=liquidation,
            **shared,
        )

    @checked
    def describe_misfit(self, start: int, end: int) -> str:
        """Describe the part of a span, in ns, that no dated margin table covers.

        Empty if all of it is covered, or if the brackets are of no preset.
        """
        table = self.in_force
        if table is None:
            return ""

        clauses = []
        if table.since and start < core.to_nanoseconds(table.since):
            clauses.append(f"but the run uses it from {core.format_time(start)[:10]} on")
        if table.until and end > core.to_nanoseconds(table.until):
            clauses.append(f"it was replaced on {table.until}, before the run ends")
        if not clauses:
            return ""

        noun = "margin table"
        if self.earlier:
            noun = "oldest margin table"
        problem = " and ".join(clauses)
        return f"the {noun} of {table.preset} is of {table.since}, {problem}"

    def tables(self) -> tuple[Sequence[Bracket], ...]:
        """Return all margin tables, the oldest first."""
        return (*(table.brackets for table in self.earlier), self.brackets)

    def days(self) -> tuple[str | None, ...]:
        """Return the day from which each margin table applies, the oldest first; None: unknown."""
        first = None
        if self.in_force is not None:
            first = self.in_force.since
        return (first, *(table.until for table in self.earlier))

    @checked
    def in_use(self, time: core.IntArray) -> list[InUse]:
        """Return the margin tables that apply to some bars, each with the bars that it applies to.

        ``time`` of shape (n_bars,) are the opens, UTC ns. A table without a bar is left out.
        """
        core.check_shape("time", time, (-1,))
        # Each table begins with the bar at which the one before it ends.
        ends = np.array([table.end for table in self.earlier], dtype=np.int64)
        edges = [0, *np.searchsorted(time, ends).tolist(), len(time)]

        # A table without a bar is not in use.
        used = []
        tables = zip(self.days(), self.tables(), itertools.pairwise(edges), strict=True)
        for day, brackets, (first, stop) in tables:
            if first < stop:
                used.append(InUse(day, brackets, first, stop))
        return used

    def multiply_margin(self, market: Market) -> tuple[core.FloatArray, core.FloatArray]:
        """Return the multipliers of the margin rule, each of shape (n_bars,), or (1,) without one.

        The first is in force in each bar, the second is announced at its close.
        """
        if self.margin is None:
            return np.ones(1), np.ones(1)
        lowest_rates, _ = self.find_lowest(market.time)
        return self.margin.multiply(market, lowest_rates)

    def find_lowest(self, time: core.IntArray) -> tuple[core.FloatArray, core.FloatArray]:
        """Return maintenance rate and largest leverage of the lowest bracket at times, (n,) each.

        They are of the margin table in force at each time, before multipliers.
        """
        rates = np.empty(len(time))
        leverages = np.empty(len(time))
        for table in self.in_use(time):
            rates[table.first : table.stop] = table.brackets[0].maintenance_rate
            leverages[table.first : table.stop] = table.brackets[0].max_leverage
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
        venue = object.__new__(type(self))  # checked already; a run repeats this for each table
        vars(venue).update(vars(self), brackets=table.brackets, earlier=())
        return venue


VenueLike: TypeAlias = Venue | str | Mapping[str, Venue | str]
"""A venue, the name of a preset (``"binance-usdm:BTCUSDT"``), or one of them by instrument."""


def read_venue(venue: Any) -> Any:
    """Return a venue in place of its name, or venues in place of names by instrument.

    ``NAME:SYMBOL[@DAY]`` names a preset, ``file:PATH#SYMBOL?like=NAME`` a listing. Anything else
    stays as it is. Raises VenueError if there is no such preset or listing.
    """
    if isinstance(venue, Mapping):
        return {name: read_venue(of_instrument) for name, of_instrument in venue.items()}
    if not isinstance(venue, str):
        return venue

    if venue.startswith(listing.SCHEME):
        name = listing.parse_listing_name(venue)
        return Venue.read(name.path, name.symbol, name.like, name.date)
    return Venue.preset(*preset_files.parse_name(venue))
