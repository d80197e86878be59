"""The rules of a venue: contract, margin brackets, fees, slippage, liquidation, interest.

Every cost must be given; none has a default of zero. Rates are fractions of notional unless they
are per year. Notionals are in the settlement currency.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self, overload

import numpy as np

from backtest.base import (
    AS_TUPLE,
    Choice,
    Cost,
    Duration,
    Faults,
    Flag,
    IntArray,
    Number,
    Rate,
    Timed,
    TimeLike,
    Value,
    Viewable,
    Whole,
    check_shape,
    checked,
    count_nouns,
    declared,
)
from backtest.base.fields import POSITIVE
from backtest.venue import preset_files
from backtest.venue.option_contract import OptionCosts
from backtest.venue.venue_parts import (
    RATES,
    WHOLE_SHARES,
    Bracket,
    Contract,
    Earlier,
    Fees,
    FeeTier,
    InForce,
    InUse,
    Liquidation,
    OpenInterestMargin,
    ShareOrWord,
    Slippage,
    complete_table,
    find_charged,
    find_fee_faults,
    find_interest_faults,
    find_multiplier_faults,
    find_newest,
    find_spot_faults,
    find_table_faults,
    force_spot,
    list_in_use,
    list_spot_parts,
)

__all__ = [
    "Bracket",
    "Contract",
    "Earlier",
    "FeeTier",
    "Fees",
    "InForce",
    "Liquidation",
    "OpenInterestMargin",
    "Slippage",
    "Venue",
]

_ANNUAL = Timed(Number(-1, 10))
_OF_NO_PRESET: Mapping[str, object] = {"in_force": None, "earlier": ()}


@declared(kw_only=True)
class Venue(Value, Viewable):
    """The rules of one instrument at one venue.

    Parameters
    ----------
    contract, fees, slippage, liquidation
        See :class:`Contract`, :class:`Fees`, :class:`Slippage`, :class:`Liquidation`.
    brackets : sequence of Bracket
        The margin table, from the lowest notional up; stored as a tuple, with every amount.
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
        ``"losses"`` (0: only losses count), or a number from 0 to 1. Maintenance counts all of it.
    in_force : InForce or None
        The preset and the days of the brackets and of ``earlier``; None if they are of no preset.
    earlier : sequence of Earlier
        The margin tables before ``brackets``, the oldest first. A run uses the table in force at
        each bar, the calculators use the newest. Default: one table for all times.
    initial_multiplier : float, Series by UTC time, or None
        Divides the allowed leverages: the initial margin of orders and withdrawals.
    maintenance_multiplier : float, Series by UTC time, or None
        Scales the maintenance rates: margin ratio, margin calls and liquidation.
    open_interest_margin : OpenInterestMargin or None
        Initial margin that rises with open interest, from a column of the market.
    option_costs : OptionCosts or None
        Fees, ticks and spread of options on the instrument; needed where there are any.
    """

    contract: Contract
    brackets: Annotated[Sequence[Bracket], AS_TUPLE]
    fees: Fees
    slippage: Slippage
    liquidation: Liquidation
    interest_on: Annotated[str | None, Choice("balance", "loan")] = None
    borrow_rate: Annotated[Rate, _ANNUAL] = 0.0
    cash_rate: Annotated[Rate, _ANNUAL] = 0.0
    short_rate: Annotated[Rate, _ANNUAL] = 0.0
    day_count: Annotated[float, Number(360, 366)] = 365.0
    funding_jitter: Annotated[str, Duration()] = "60s"
    isolated_funding: Annotated[str, Choice("margin", "wallet")] = "margin"
    maintenance_at: Annotated[str, Choice("mark", "entry")] = "mark"
    includes_close_fee: Annotated[bool, Flag()] = False
    margin_multiplier: Annotated[Rate, Timed(POSITIVE)] = 1.0
    call_grace: Annotated[int | None, Whole(0)] = None
    in_force: InForce | None = None
    earlier: Annotated[Sequence[Earlier], AS_TUPLE] = ()
    initial_multiplier: Annotated[Rate | None, Timed(POSITIVE)] = None
    maintenance_multiplier: Annotated[Rate | None, Timed(POSITIVE)] = None
    open_interest_margin: OpenInterestMargin | None = None
    profit_counts: Annotated[float | str, ShareOrWord(0, WHOLE_SHARES)] = "all"
    option_costs: OptionCosts | None = None

    def faults(self) -> Faults:
        """Yield what the parts contradict each other in."""
        is_spot = self.contract.is_spot
        yield from find_fee_faults(self)
        fee = find_newest(self.fees.taker) if self.includes_close_fee else 0.0
        yield from find_table_faults(self.brackets, "brackets", fee, is_spot=is_spot)
        for k, each in enumerate(self.earlier):
            if k and each.end <= self.earlier[k - 1].end:
                yield f"earlier.{k}.until", "must be after that of the table before it"
            if fee > 0.0:
                yield from find_table_faults(each.brackets, f"earlier.{k}.brackets", fee)
        yield from find_interest_faults(self)
        yield from find_multiplier_faults(self)
        if is_spot:
            yield from find_spot_faults(self)

    def _settle(self) -> None:
        self._set_fields(brackets=complete_table(self.brackets))

    def _complete_changes(self, changes: dict[str, Any]) -> dict[str, Any]:
        return {**(_OF_NO_PRESET if "brackets" in changes else {}), **changes}

    def profit_share(self) -> float:
        """Return the share of an unrealized profit that backs orders and withdrawals."""
        if isinstance(self.profit_counts, str):
            return WHOLE_SHARES[self.profit_counts]
        return self.profit_counts

    def rates(self) -> dict[str, Rate]:
        """Return the rates of interest by name."""
        return {name: getattr(self, name) for name in RATES}

    def __repr__(self) -> str:
        name = self.in_force.preset if self.in_force else "no preset"
        table = f"{count_nouns(len(self.brackets), 'bracket')}, {self.brackets[0].max_leverage:g}x"
        interest = ", ".join(find_charged(self.rates())) or "no interest"
        parts = (self.contract, self.fees, self.slippage, self.liquidation)
        return "\n ".join([f"<Venue of {name}: {table}, {interest}", *map(repr, parts)]) + ">"

    @checked
    def override(self, changes: Mapping[str, object] | None = None, /, **groups: object) -> Self:
        """Return the venue with some of its rules changed; see :meth:`Value.override`.

        Changes apply at all times, under every margin table. New brackets replace the tables of all
        days unless ``earlier`` is given with them, and belong to no preset unless ``in_force`` is.

        Examples
        --------
        >>> venue = Venue.preset("binance-usdm", "BTCUSDT")
        >>> cheap = venue.override({"fees.taker": 0.0004}, liquidation={"fee": 0.01})
        >>> cheap.fees.taker, cheap.fees.maker, cheap.liquidation.fee
        (0.0004, 0.0002, 0.01)
        """
        return super().override(changes, **groups)

    @overload
    @classmethod
    def preset(cls, venue: str, symbol: str, at: TimeLike | None = None) -> Self: ...

    @overload
    @classmethod
    def preset(
        cls, venue: str, symbol: list[str] | tuple[str, ...], at: TimeLike | None = None
    ) -> dict[str, Self]: ...

    @classmethod
    def preset(
        cls, venue: str, symbol: str | list[str] | tuple[str, ...], at: TimeLike | None = None
    ) -> Self | dict[str, Self]:
        """Return the rules of a symbol from a preset of the package or from a file.

        Parameters
        ----------
        venue : str
            One of :func:`backtest.venue.preset_files.available`, or the path of a file of such
            tables, which ``backtest venues import`` writes.
        symbol : str or list of str
            The venue's name of the instrument, which may end with ``@`` and a day as at the command
            line, ``"BTCUSDT@2021-05-19"``; a list gives a table of venues by name.
        at : str or Timestamp, optional
            By default, or with ``"history"``: the margin tables of all days (a run uses the one in
            force at each bar) and the newest table of the other groups. With a day in UTC: the last
            table of each group dated on or before it, or the oldest if all are later. With
            ``"latest"``: the newest table of each group. With a day or ``"latest"`` there is one
            margin table for all bars.

        Raises
        ------
        VenueError
            If there is no such venue or symbol, or the symbol has a day beside ``at``.

        Examples
        --------
        >>> Venue.preset("binance-usdm", "BTCUSDT@2024-10-24").brackets[1].amount
        50.0
        >>> Venue.preset("binance-usdm", "BTCUSDT", at="2021-05-19").brackets[1].cap
        250000.0
        >>> Venue.preset("binance-usdm", "BTCUSDT").days()
        ('2021-03-18', '2022-12-29', '2024-10-24', '2026-09-29')
        """
        if not isinstance(symbol, str):
            names = preset_files.check_list(symbol)
            return {each.partition("@")[0]: cls.preset(venue, each, at) for each in names}
        name, day = preset_files.split_day(symbol, at)
        return cls.from_dict(preset_files.read_preset(venue, name, day), where=f"{venue}:{symbol}")

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

        Parameters
        ----------
        taker, slippage, liquidation_fee : float, Series by UTC time, or str
            Costs per unit of notional; they have no default because nothing is free. A text names a
            column of the market.
        maintenance_rate, max_leverage : float
            The one bracket, with unlimited notional.
        maker : float, Series by UTC time, or str, optional
            The maker fee; by default the taker fee.
        liquidation_slippage : float, Series by UTC time, or str, optional
            Slippage of a liquidation; by default ``slippage``.
        mode : str
            What a liquidation does: ``"close"``, ``"takeover"`` or ``"partial"``.
        lot : float
            Step of quantity; 0 means any quantity. There is no smallest notional.
        interest_on : str, optional
            What the rates are charged on, ``"balance"`` or ``"loan"``; required with them.
        borrow_rate, cash_rate : float or Series by UTC time
            Interest per year: paid on what is borrowed, earned on cash.

        Examples
        --------
        >>> venue = Venue.simple(taker=5e-4, slippage=1e-4, maintenance_rate=0.005,
        ...                      max_leverage=100, liquidation_fee=0.0125)
        >>> venue.brackets
        (Bracket(floor=0.0, cap=inf, max_leverage=100.0, maintenance_rate=0.005, amount=0.0),)
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
        like: Venue | None = None,
    ) -> Venue:
        """Return the venue of a spot leg: the coin itself, held beside margined positions.

        Parameters
        ----------
        taker, slippage : float, Series by UTC time, or the name of a column of the market
            Costs per unit of notional.
        haircut : float
            The share of a long's value that does not back positions, from 0 to under 1.
        borrow_rate : float or Series by UTC time
            What a short pays per year on the value of the coins that it borrowed. The rates of
            money are those of the account, :class:`Venue`.
        max_leverage : float, optional
            Largest leverage of an order, under 1 / haircut. Default: 1 / (2 haircut).
        maker, liquidation_fee : float, optional
            By default the taker fee. A liquidation has the slippage of a trade.
        lot : float
            Step of quantity, in coins; 0 means any quantity. There is no smallest notional.
        like : Venue, optional
            The venue of the other instruments. The spot leg takes over what belongs to the account:
            interest, margin calls, and the mode, step and order of liquidations.

        Examples
        --------
        >>> perpetual = Venue.preset("binance-usdm", "BTCUSDT")
        >>> spot = Venue.spot(taker=0.001, slippage=1e-4, haircut=0.05, borrow_rate=0.04,
        ...                   like=perpetual)
        >>> spot.contract.haircut, spot.brackets[0].max_leverage, spot.liquidation.mode
        (0.05, 10.0, 'close')
        """
        parts = list_spot_parts(haircut, borrow_rate, max_leverage, lot, like)
        return cls(
            **parts,
            fees=Fees(taker=taker, maker=taker if maker is None else maker),
            slippage=Slippage(rate=slippage),
            liquidation=force_spot(
                taker if liquidation_fee is None else liquidation_fee, slippage, like
            ),
        )

    @checked
    def describe_misfit(self, start: int, end: int) -> str:
        """Describe the part of a span, in ns, that no dated margin table covers.

        Empty if all of it is covered, or if the brackets are of no preset.
        """
        if self.in_force is None:
            return ""
        said = self.in_force.describe_misfit(start, end)
        return said.replace("the margin", "the oldest margin", 1) if self.earlier else said

    def tables(self) -> tuple[Sequence[Bracket], ...]:
        """Return all margin tables, the oldest first."""
        return (*(each.brackets for each in self.earlier), self.brackets)

    def days(self) -> tuple[str | None, ...]:
        """Return the day from which each margin table applies, the oldest first.

        The first is None if it is unknown: if the tables are of no preset.
        """
        first = None if self.in_force is None else self.in_force.since
        return (first, *(each.until for each in self.earlier))

    @checked
    def in_use(self, time: IntArray) -> list[InUse]:
        """Return the margin tables that apply to bars with these open times, with their bars.

        Examples
        --------
        >>> bars = np.array(["2024-10-23", "2024-10-24", "2024-10-25"], dtype="M8[ns]").view("i8")
        >>> used = Venue.preset("binance-usdm", "BTCUSDT").in_use(bars)
        >>> [(each.since, each.first, each.stop) for each in used]
        [('2022-12-29', 0, 1), ('2024-10-24', 1, 3)]
        """
        check_shape("time", time, (-1,))
        return list_in_use(self.tables(), self.days(), [each.end for each in self.earlier], time)

    @checked
    def with_table(self, table: InUse) -> Venue:
        """Return the venue with one of its margin tables for all times."""
        if not self.earlier:
            return self
        own = object.__new__(type(self))  # checked already; a run repeats this for each table
        vars(own).update(vars(self), brackets=table.brackets, earlier=())
        return own

    @checked
    def describe_changes(self, start: int, end: int) -> str:
        """List the days within a span, in ns, on which a margin table came into force."""
        return ", ".join(each.until for each in self.earlier if start < each.end < end)
