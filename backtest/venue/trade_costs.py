"""What trades and liquidations cost at a venue: fees, slippage, and the rules of liquidation."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import attrgetter
from typing import Annotated, Any, ClassVar

import numpy as np

from backtest import core
from backtest.core import Cost, DatedCost, Faults, Rate, Real, Timed, Value
from backtest.core.code_names import is_series
from backtest.core.fields import COST, NOT_NEGATIVE, POSITIVE, SHARE

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


@dataclass(frozen=True)
class ShareOrWord(core.Declaration):
    least: float
    words: Collection[str]
    kind: ClassVar[type] = object

    def read(self, value: Any) -> float | str:
        if not isinstance(value, str):
            return Real(self.least, 1).read(value)
        if value not in self.words:
            listed = " or ".join(map(repr, self.words))
            shown = core.repr_given(value) + core.did_you_mean(value, self.words)
            raise core.Fault(f"must be a share from {self.least:g} to 1, or {listed}", shown)
        return value


ORDERS = (
    "most_relief", "largest_loss", "largest_requirement", "largest_notional",
    "futures_then_options",
)  # fmt: skip


class ReductionOrder(core.Declaration):
    def read(self, value: Any) -> str | tuple[str, ...]:
        """Return the order of a liquidation: a known rule, or the instruments one after another.

        Fault if it is neither, or names one twice.
        """
        if isinstance(value, str) and value in ORDERS:
            return value

        is_list = isinstance(value, Sequence) and not isinstance(value, str) and bool(value)
        if not is_list or not all(isinstance(name, str) and name for name in value):
            rule = f"must be one of {', '.join(ORDERS)}, or a list of instruments"
            hint = core.did_you_mean(value, ORDERS)
            raise core.Fault(rule, f"{core.repr_given(value)}{hint}")
        if len(set(value)) < len(value):
            raise core.Fault("must name each instrument once")
        return tuple(value)


class Fees(Value, kw_only=True):
    """The fees of a trade: rates per unit of notional, and a fixed amount.

    Parameters
    ----------
    taker, maker : float, Series by UTC time, or name of a column of the market
        Fees of takers and makers, as fractions of the notional; a negative maker rate is a rebate.
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
        for k, (lower, tier) in enumerate(pairwise(self.tiers), start=1):
            if not lower.volume < tier.volume:
                yield f"tiers.{k}.volume", f"must be over {lower.volume:.12g}, the one before it"


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
    """Return the names of the costs that change over time: series, or columns of the market."""
    names = []
    for name in DATED:
        cost = pick_cost(venue, name)
        if isinstance(cost, str) or is_series(cost):
            names.append(name)
    return names


def has_spread(venue: Any) -> bool:
    spread = venue.slippage.spread
    if isinstance(spread, str):
        return True
    spreads = np.asarray(spread, dtype=np.float64)
    return bool(np.any(spreads > 0.0))


def find_newest(cost: Cost) -> float:
    """Return a cost, or the last of a series; NaN for a column, which a venue does not know."""
    if isinstance(cost, str):
        return math.nan
    if is_series(cost):
        return float(cost.iloc[-1])
    return cost


def read_newest(cost: Cost, name: str, place: str) -> float:
    """Return a cost, or the last of a series; raise ParameterError for a column."""
    check_no_column(cost, name, place)
    return find_newest(cost)


def scale_cost(venue: Any, name: str, factor: float, most: float) -> Cost:
    """Return a cost of a venue times a factor, at most ``most``."""
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
