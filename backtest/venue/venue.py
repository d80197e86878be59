"""The rules of a venue: contract, margin brackets, fees, slippage, liquidation, interest.

Every cost must be given; none has a default of zero. Rates are fractions of notional unless they
are per year. Notionals are in the settlement currency.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple, Self, TypeAlias, overload

import numpy as np

from backtest import core
from backtest.core import Cost, DatedCost, Faults, Rate, Real, Timed, Value, checked
from backtest.core.code_names import is_series
from backtest.core.fields import COST, NOT_NEGATIVE, OVER_ZERO, POSITIVE, SHARE
from backtest.core.units import TOLERANCE
from backtest.market import Currency, Market, find_coin, find_currency
from backtest.venue import listing, preset_files
from backtest.venue.margin_rules import ANNOUNCED, IN_FORCE, DynamicMargin, Rule
from backtest.venue.option_contract import OptionCosts

MAKER = Real(-1, 1, open_low=True, open_high=True)


class FeeTier(Value):
    """The fees per unit of notional from a traded volume on; a negative maker rate is a rebate.

    ``volume`` is the notional of the last 30 UTC days without the current one, in the settlement
    currency.
    """

    volume: Annotated[float, POSITIVE]
    taker: Annotated[float, COST]
    maker: Annotated[float, MAKER]


MIN_STEP = 0.001
"""The smallest step of a partial liquidation: smaller ones would need thousands in one bar."""
WHOLE_SHARES = {"all": 1.0, "losses": 0.0}


@dataclass(frozen=True)
class ShareOrWord(core.Declaration):
    least: float
    words: Collection[str]
    kind: ClassVar[type] = object

    def read(self, value: Any) -> float | str:
        if isinstance(value, str) and value not in self.words:
            listed = " or ".join(map(repr, self.words))
            shown = core.repr_given(value) + core.did_you_mean(value, self.words)
            raise core.Fault(f"must be a share from {self.least:g} to 1, or {listed}", shown)
        return value if isinstance(value, str) else Real(self.least, 1).read(value)


ORDERS = (
    "most_relief", "largest_loss", "largest_requirement", "largest_notional",
    "futures_then_options",
)  # fmt: skip


class ReductionOrder(core.Declaration):
    def read(self, value: Any) -> str | tuple[str, ...]:
        if isinstance(value, str) and value in ORDERS:
            return value
        is_list = isinstance(value, Sequence) and not isinstance(value, str) and bool(value)
        if not is_list or not all(isinstance(each, str) and each for each in value):
            shown = core.repr_given(value) + core.did_you_mean(value, ORDERS)
            raise core.Fault(f"must be one of {', '.join(ORDERS)}, or a list of instruments", shown)
        if len(set(value)) < len(value):
            raise core.Fault("must name each instrument once")
        return tuple(value)


STEPS = ("lot", "tick", "min_notional")
"""What a venue's own listing says of an order's size and price."""
UNKNOWN = "unknown"
"""How files write a step that no source gives: TOML has no null, and 0 means no rounding."""
USUAL: Any = "usual"
"""The smallest order where none is stated: 5 in the quote currency, none of inverse contracts."""


@dataclass(frozen=True)
class Step(core.Declaration):
    """A step that a listing states, None where it is unknown."""

    rule: Real
    words: Collection[str] = (UNKNOWN,)
    kind: ClassVar[type] = float

    def read(self, value: Any) -> Any:
        if value is None or value == UNKNOWN:
            return None
        if isinstance(value, str) and value in self.words:
            return value
        return self.rule.read(value)


class Contract(Value, kw_only=True):
    """The worth of one contract, and the steps of its quantity and price.

    Parameters
    ----------
    kind : str
        ``"linear"`` (settled in the quote currency), ``"inverse"`` (settled in the coin), or
        ``"spot"`` (the coin itself, paid in the quote currency when it is bought).
    size : float
        Base units per contract if linear or spot, quote units per contract if inverse.
    lot : float or None
        Step of quantity, in contracts; 0 means no rounding. None: no source gives it, quantities
        are not rounded, and :meth:`backtest.Backtest.decide` warns.
    tick : float or None
        Step of price, in price also for inverse contracts; None if no source gives it.
    min_notional : float or None
        Smallest order that does not close a position, in the settlement currency; None if no source
        gives it. Default: 5 in the quote currency, none if inverse.
    min_quantity : float
        Smallest order in contracts. Where it is over the lot, quantities are whole multiples of it.
    round_to_tick : bool
        Whether the prices of fills and stops are rounded to the tick, against the trader.
    expires : str, optional
        When it expires, in UTC. A run of several instruments closes the position at the mark close
        of the last bar that opens before; the market of one instrument must end there.
    settles : str, optional
        The currency in which it settles, ``"BTC"``. Default: what the name of a linear contract
        says (``"BTCUSDT"``), else unknown.
    haircut : float, optional
        Of a spot contract, which needs it: the share of a long's value that does not back
        positions, from 0 to under 1.
    borrow_rate : float or Series by UTC time, optional
        Of a spot contract, which needs it: what a short pays per year on the coins it borrowed.
    expense : float
        What longs and shorts pay per year on the notional at the mark open, 0.0095 of a fund that
        costs .95 % a year; booked as interest. The prices must be those before this cost.

    Files write ``"unknown"`` for None.
    """

    _omitted = frozenset(
        {"round_to_tick", "expires", "settles", "haircut", "borrow_rate", "expense", "min_quantity"}
    )

    kind: Annotated[str, core.Choice("linear", "inverse", "spot")] = "linear"
    size: Annotated[float, POSITIVE] = 1.0
    lot: Annotated[float | None, Step(NOT_NEGATIVE)] = 0.001
    tick: Annotated[float | None, Step(POSITIVE)] = 0.1
    min_notional: Annotated[float | None, Step(NOT_NEGATIVE, (UNKNOWN, USUAL))] = USUAL
    round_to_tick: Annotated[bool, core.Flag()] = False
    expires: Annotated[str | None, core.Time()] = None
    settles: Annotated[str | None, Currency()] = None
    haircut: Annotated[float | None, Real(0, 1, open_high=True)] = None
    borrow_rate: Annotated[Rate | None, Timed(Real(0, 10))] = None
    expense: Annotated[float, Real(0, 1)] = 0.0
    min_quantity: Annotated[float, NOT_NEGATIVE] = 0.0

    @property
    def is_spot(self) -> bool:
        """Whether it is paid when it is bought, and needs no margin by brackets."""
        return self.kind == "spot"

    @property
    def order_step(self) -> float:
        """The quantity of which orders are whole multiples, in contracts; 0 for any quantity."""
        return max(self.lot or 0.0, self.min_quantity)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Which of lot, tick and min_notional no source gives."""
        return tuple(name for name in STEPS if getattr(self, name) is None)

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as data for JSON or TOML; a step that is not known is ``"unknown"``."""
        return {**super().to_dict(), **dict.fromkeys(self.unknown, UNKNOWN)}

    def _complete_changes(self, changes: dict[str, Any]) -> dict[str, Any]:
        # A least notional of the quote currency is none of the coin.
        is_other = (self.kind == "inverse") != (changes.get("kind", self.kind) == "inverse")
        return {"min_notional": USUAL, **changes} if is_other else changes

    def faults(self) -> Faults:
        if self.round_to_tick and self.tick is None:
            yield "tick", "must be known with round_to_tick"
        for name, example in (("haircut", 0.05), ("borrow_rate", 0.08)):
            is_given = getattr(self, name) is not None
            if self.is_spot and not is_given:
                yield name, f"is needed by a spot contract, {example} for example"
            elif is_given and not self.is_spot:
                yield name, f"is of spot contracts only, the kind is {self.kind!r}"

    def _settle(self) -> None:
        if self.min_notional == USUAL:
            self._set_fields(min_notional=0.0 if self.kind == "inverse" else 5.0)


class Fees(Value, kw_only=True):
    """The fees of a trade: rates per unit of notional, and a fixed amount.

    Parameters
    ----------
    taker, maker : float, Series by UTC time, or name of a column of the market
        Fee rates; a negative maker rate is a rebate.
    maker_share : float
        The share of every trade that pays the maker rate, from 0 to 1.
    tiers : sequence of FeeTier
        Other rates from volumes of the last 30 days on, the lowest volume first.
    per_order : float or Series by UTC time
        For every fill, stop and forced reduction, in the settlement currency: gas, or a ticket fee.
    """

    _omitted = frozenset({"tiers"})

    taker: Annotated[Cost, DatedCost(COST)]
    maker: Annotated[Cost, DatedCost(MAKER)]
    maker_share: Annotated[float, SHARE] = 0.0
    tiers: Annotated[Sequence[FeeTier], core.AS_TUPLE] = ()
    per_order: Annotated[Rate, Timed(NOT_NEGATIVE)] = 0.0

    def faults(self) -> Faults:
        for k, (before, tier) in enumerate(pairwise(self.tiers), 1):
            if not before.volume < tier.volume:
                yield f"tiers.{k}.volume", f"must be over {before.volume:.12g}, the one before it"


class Slippage(Value, kw_only=True):
    """How much worse than the open price a trade is filled.

    Parameters
    ----------
    rate : float, Series by UTC time, or name of a column of the market
        Worsening of every fill, as a fraction of the price.
    impact : float
        Y in ``Y sigma sqrt(notional / daily volume)``; 0 means no impact.
    impact_window : str
        The time over which sigma and volume are measured, for example ``"1d"``.
    max_participation : float or None
        Largest share of the previous bar's volume that may be traded in one bar.
    spread : float, Series by UTC time, or name of a column of the market
        From bid to ask, as a fraction of the price: every fill pays half of it besides ``rate``.
    """

    _omitted = frozenset({"spread"})

    rate: Annotated[Cost, DatedCost(COST)]
    impact: Annotated[float, NOT_NEGATIVE] = 0.0
    impact_window: Annotated[str, core.Duration()] = "1d"
    max_participation: Annotated[float | None, Real(0, 1, open_low=True)] = None
    spread: Annotated[Cost, DatedCost(COST)] = 0.0


class Liquidation(Value, kw_only=True):
    """How a venue liquidates a position that fails its maintenance requirement.

    Parameters
    ----------
    mode : str
        ``"close"``, ``"takeover"`` (all margin is lost; fee and slippage do not apply) or
        ``"partial"``.
    fee : float, Series by UTC time, or name of a column of the market
        Per unit of notional closed, paid from what is left.
    slippage : float, Series by UTC time, or name of a column of the market
        How much worse than the liquidation price the position is closed, a fraction of the price.
    step : float or str
        In a partial liquidation, the fraction of the position closed at a time, or ``"bracket"``
        (down to the floor of its bracket).
    full_below : float
        In a partial liquidation, positions up to this notional are closed completely.
    full_below_health : float
        In a partial liquidation, a step at a health factor up to this one repays the whole debt:
        it closes a short, and of a long as much as pays the debt and the fee. Of one position.
    impact : float
        Y of :class:`Slippage`, with its window, which worsens the price of a liquidation further.
    order : str or sequence of str
        Which of several cross positions a partial liquidation reduces first: ``"most_relief"``,
        ``"largest_loss"``, ``"largest_requirement"``, ``"largest_notional"``,
        ``"futures_then_options"`` (each by the largest delta), or names of instruments, after which
        come options. None: the most relief under scenarios, the largest loss under brackets.
    """

    _omitted = frozenset({"order", "full_below_health"})

    mode: Annotated[str, core.Choice("close", "takeover", "partial")] = "close"
    fee: Annotated[Cost, DatedCost(COST)]
    slippage: Annotated[Cost, DatedCost(COST)]
    step: Annotated[float | str, ShareOrWord(MIN_STEP, ("bracket",))] = 0.2
    full_below: Annotated[float, NOT_NEGATIVE] = 0.0
    impact: Annotated[float, NOT_NEGATIVE] = 0.0
    order: Annotated[str | Sequence[str] | None, ReductionOrder()] = None
    full_below_health: Annotated[float, COST] = 0.0

    def faults(self) -> Faults:
        if self.impact > 0 and self.mode == "takeover":
            yield "impact", "must be 0 with mode 'takeover', which costs all margin"
        for name in ("full_below", "full_below_health"):
            if getattr(self, name) > 0 and self.mode != "partial":
                yield name, f"must be 0 unless mode is 'partial', the mode is {self.mode!r}"


DATED = (
    "fees.taker", "fees.maker", "slippage.rate", "slippage.spread", "liquidation.fee",
    "liquidation.slippage",
)  # fmt: skip


def pick_cost(venue: Any, name: str) -> Cost:
    return attrgetter(name)(venue)  # type: ignore[no-any-return]


def list_dated(venue: Any) -> list[str]:
    costs = {name: pick_cost(venue, name) for name in DATED}
    return [name for name, cost in costs.items() if isinstance(cost, str) or is_series(cost)]


def has_spread(venue: Any) -> bool:
    spread = venue.slippage.spread
    return isinstance(spread, str) or bool(np.any(np.asarray(spread, dtype=np.float64) > 0.0))


def find_newest(cost: Cost) -> float:
    if isinstance(cost, str):
        return math.nan
    return float(cost.iloc[-1]) if is_series(cost) else cost


def read_newest(cost: Cost, name: str, place: str) -> float:
    check_no_column(cost, name, place)
    return find_newest(cost)


def scale_cost(venue: Any, name: str, factor: float, most: float) -> Cost:
    cost = pick_cost(venue, name)
    check_no_column(cost, f"venue.{name}")
    if is_series(cost):
        return (cost * factor).clip(upper=most)
    return min(cost * factor, most)  # type: ignore[operator] # not a column


def check_no_column(cost: Cost, name: str, place: str = "to be varied") -> None:
    if isinstance(cost, str):
        raise core.ParameterError(
            f"{name} must be a number or a series {place}, got the column {cost!r}"
        )


def agree_settlement(
    contracts: Mapping[str, Contract],
    *,
    said: Mapping[str, Collection[str]] | None = None,
    given: str = "",
) -> str:
    """Return the currency in which all contracts settle, empty if it is unknown.

    ``said`` has other names of each instrument, read before its key. ``given`` is the caller's for
    all: it replaces what names of linear contracts say, and must agree with all others.
    """
    inverse = next((name for name, each in contracts.items() if each.kind == "inverse"), "")
    is_checked = bool(said) and not given and len(contracts) > 1
    known: dict[str, str] = {}
    for name, each in contracts.items():
        is_inverse, names = each.kind == "inverse", (*(said or {}).get(name, ()), name)
        by_name = next(filter(None, (find_currency(x, is_inverse=is_inverse) for x in names)), "")
        coins = map(find_coin, names if is_inverse else ())  # an inverse one settles in its coin
        found = by_name or next(filter(None, coins), "")
        found = "BTC" if found == "XBT" else found  # BitMEX and Kraken name the coin so
        if is_checked and each.settles and found not in ("", each.settles):
            raise core.ParameterError(
                f"venue: a market must be in the currency in which its venue settles, got {found} "
                f"by the name of {name!r} and {each.settles} of its venue; to count the two "
                f"as one, give bt.Markets(..., currency={each.settles!r})"
            )
        currency = each.settles or (by_name or given if is_inverse else given or by_name)
        if currency:
            known[name] = currency
    first = next(iter(known), "")
    for name, currency in known.items():
        if currency != known[first]:
            one = f"venue.override({{'contract.settles': {known[first]!r}}})"
            cure = "" if inverse else f"; to count the two as one, give {name!r} {one}"
            raise core.ParameterError(
                f"venue: the positions of one account must settle in one currency, got "
                f"{known[first]} for {first!r} and {currency} for {name!r}; give each currency an "
                f"account of its own{cure}"
            )
    if inverse and len(known) < len(contracts) > 1:
        unknown = next(name for name in contracts if name not in known)
        raise core.ParameterError(
            "venue: positions beside an inverse contract must have a known settlement currency, "
            f"got none for {unknown!r} beside {inverse!r}; "
            "venue.override({'contract.settles': 'BTC'}) gives it"
        )
    if given and known.get(first, given) != given:
        raise core.ParameterError(
            f"currency of the markets must be that in which their venues settle, got {given!r} and "
            f"{known[first]!r} for {first!r}"
        )
    return known.get(first, given)


AMOUNT_SLACK = 0.02
AMOUNT_SLACK_RELATIVE = 1e-6
"""How far a published cumulative amount may be from the derived one: venues round theirs."""


class Bracket(Value):
    """One row of a venue's margin table.

    Parameters
    ----------
    floor, cap : float
        The notionals that it covers, floor < N <= cap, in the settlement currency; the last cap of
        a table may be infinite.
    max_leverage : float
        Largest leverage of an order that reaches into this bracket.
    maintenance_rate : float
        Maintenance margin per unit of notional, between 0 and 1; 0 only of spot contracts.
    amount : float or None
        Cumulative amount: MM(N) = maintenance_rate N - amount. Derived; one that is given is
        checked.
    """

    floor: Annotated[float, NOT_NEGATIVE]
    cap: Annotated[float, OVER_ZERO]
    max_leverage: Annotated[float, POSITIVE]
    maintenance_rate: Annotated[float, COST]
    amount: Annotated[float | None, NOT_NEGATIVE] = None

    def faults(self) -> Faults:
        if not self.cap > self.floor:
            yield "cap", f"must be over the floor {self.floor:.12g}"
        yield from self.find_demand_faults(0.0)

    def find_demand_faults(self, close_fee: float) -> Faults:
        """Yield a demand over 1 at the largest leverage: rates of maintenance and of closing."""
        demand = (self.maintenance_rate + close_fee) * self.max_leverage
        if demand > 1 + TOLERANCE:
            rate = "(maintenance_rate + closing fee)" if close_fee else "maintenance_rate"
            rule = f"must be at most 1 / {rate}, or an order is liquidated at once"
            yield "max_leverage", f"{rule}: their product is {demand:g}"


def derive_amounts(brackets: Sequence[Bracket]) -> list[float]:
    """Return c_k = c_{k-1} + f_k (r_k - r_{k-1}) of each bracket, in the settlement currency.

    In exact fractions of the written decimals: the amounts that venues publish, to the last digit.
    """
    amount, last, amounts = Fraction(0), Fraction(0), list[float]()
    for row in brackets:
        rate = Fraction(repr(row.maintenance_rate))
        amount += Fraction(repr(row.floor)) * (rate - last)
        last = rate
        amounts.append(float(amount))
    return amounts


def find_table_faults(
    table: Sequence[Bracket], place: str, close_fee: float = 0.0, *, is_spot: bool = False
) -> Faults:
    if not table:
        yield place, "must have at least one bracket"
        return
    if table[0].floor != 0:
        yield f"{place}.0.floor", "must be 0, where the table begins"
    for k, (row, derived) in enumerate(zip(table, derive_amounts(table), strict=True)):
        slack = AMOUNT_SLACK + AMOUNT_SLACK_RELATIVE * abs(derived)
        if row.amount is not None and abs(row.amount - derived) > slack:
            yield f"{place}.{k}.amount", f"must be {derived!r}, derived from floors and rates"
        if is_spot != (row.maintenance_rate == 0.0):
            rule = "must be 0 of a spot contract, and over 0 of others"
            yield f"{place}.{k}.maintenance_rate", rule
        for name, rule in row.find_demand_faults(close_fee) if close_fee else ():
            yield f"{place}.{k}.{name}", rule
    for k, (before, row) in enumerate(pairwise(table), 1):
        if row.floor != before.cap:
            yield f"{place}.{k}.floor", f"must be {before.cap:.12g}, the cap before it"
        if not row.maintenance_rate > before.maintenance_rate:
            rule = f"must be over {before.maintenance_rate}, the one before it"
            yield f"{place}.{k}.maintenance_rate", rule
        if row.max_leverage > before.max_leverage:
            rule = f"must be at most {before.max_leverage:g}, the one before it"
            yield f"{place}.{k}.max_leverage", rule


def complete_table(table: Sequence[Bracket]) -> tuple[Bracket, ...]:
    return tuple(
        row if row.amount == amount else replace(row, amount=amount)
        for row, amount in zip(table, derive_amounts(table), strict=True)
    )


class InForce(Value, kw_only=True):
    """The preset or listing, and the days, that the brackets of a venue come from.

    ``since`` is the day on which the oldest table came into force or, if no source says that, was
    read, None if a listing has no day; ``until`` that of the preset's next table, if any. Of a
    listing, ``preset`` is its file and symbol, ``tiers.json#BTCUSDT``, ``listed`` what it states,
    and ``like`` the preset of all other rules.
    """

    _omitted = frozenset({"like", "listed"})

    preset: Annotated[str, core.Text()]
    since: Annotated[str | None, core.Time()] = None
    until: Annotated[str | None, core.Time()] = None
    like: Annotated[str | None, core.Text()] = None
    listed: Annotated[Sequence[str], core.AS_TUPLE] = ()

    @property
    def symbol(self) -> str:
        """The venue's name of the instrument."""
        return self.preset.rpartition("#" if self.like else ":")[2]


class Earlier(Value, kw_only=True):
    """A margin table that a later one replaced at bars that open at ``until`` (UTC) or later."""

    until: Annotated[str, core.Time()]
    brackets: Annotated[Sequence[Bracket], core.AS_TUPLE]

    def faults(self) -> Faults:
        yield from find_table_faults(self.brackets, "brackets")

    def _settle(self) -> None:
        self._set_fields(brackets=complete_table(self.brackets))

    @property
    def end(self) -> int:
        """``until`` in ns."""
        return core.to_nanoseconds(self.until)


class InUse(NamedTuple):
    since: str | None
    brackets: Sequence[Bracket]
    first: int
    stop: int


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
