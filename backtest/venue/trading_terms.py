"""The parts of a venue: contract, fees, slippage and the mode of liquidation.

Every cost must be given; none has a default of zero. Rates are fractions of notional. Those of
type ``Cost`` may change over time: a series by UTC time holds from each stamp on, and the name of a
column of the market means its value at the close before the bar.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any

from backtest.base import (
    AS_TUPLE,
    Choice,
    Cost,
    Currency,
    DatedCost,
    Declaration,
    Duration,
    Fault,
    Faults,
    Flag,
    Number,
    Rate,
    Time,
    Timed,
    Value,
    declared,
    did_you_mean,
    repr_given,
)
from backtest.base.fields import COST, NOT_NEGATIVE, POSITIVE, SHARE

MAKER = Number(-1, 1, open_low=True, open_high=True)


@declared
class FeeTier(Value):
    """The fees from a traded volume on.

    Parameters
    ----------
    volume : float
        Notional that the account has traded in the last 30 UTC days without the current one, in the
        settlement currency, from which the tier holds.
    taker, maker : float
        Its fee rates, per unit of notional; a negative maker rate is a rebate.
    """

    volume: Annotated[float, POSITIVE]
    taker: Annotated[float, COST]
    maker: Annotated[float, MAKER]


LEAST_STEP = 0.001
"""The smallest step of a partial liquidation: smaller ones would need thousands in one bar."""


WHOLE_SHARES = {"all": 1.0, "losses": 0.0}


@dataclass(frozen=True)
class ShareOrWord(Declaration):
    least: float
    words: Collection[str]

    def read(self, value: Any) -> float | str:
        if isinstance(value, str) and value not in self.words:
            listed = " or ".join(map(repr, self.words))
            found = repr_given(value) + did_you_mean(value, self.words)
            raise Fault(f"must be a share from {self.least:g} to 1, or {listed}", found)
        return value if isinstance(value, str) else Number(self.least, 1).read(value)


ORDERS = (
    "most_relief", "largest_loss", "largest_requirement", "largest_notional",
    "futures_then_options",
)  # fmt: skip


class ReductionOrder(Declaration):
    def read(self, value: Any) -> str | tuple[str, ...]:
        if isinstance(value, str) and value in ORDERS:
            return value
        is_list = isinstance(value, Sequence) and not isinstance(value, str) and bool(value)
        if not is_list or not all(isinstance(each, str) and each for each in value):
            found = repr_given(value) + did_you_mean(value, ORDERS)
            raise Fault(f"must be one of {', '.join(ORDERS)}, or a list of instruments", found)
        if len(set(value)) < len(value):
            raise Fault("must name each instrument once")
        return tuple(value)


@declared(kw_only=True)
class Contract(Value):
    """The worth of one contract, and the steps of its quantity and price.

    Parameters
    ----------
    kind : str
        ``"linear"`` (settled in the quote currency), ``"inverse"`` (settled in the coin), or
        ``"spot"`` (the coin itself, paid in the quote currency when it is bought).
    size : float
        Base units per contract if linear or spot, quote units per contract if inverse.
    lot : float
        Step of quantity, in contracts; 0 means no rounding.
    tick : float
        Step of price, in price also for inverse contracts.
    min_notional : float
        Smallest order that does not close a position, in the settlement currency. Default: 5 in
        the quote currency, none if inverse (5 coins would be a fortune).
    round_to_tick : bool
        Whether the prices of fills and stops are rounded to the tick, against the trader.
    expires : str, optional
        When it expires, in UTC. A run of several instruments closes the position at the mark close
        of the last bar that opens before; the market of one instrument must end there.
    settles : str, optional
        The currency in which it settles, ``"BTC"``. All positions of one balance must settle in one
        currency. Default: unknown; the name of a linear contract may say it (``"BTCUSDT"``).
    haircut : float, optional
        Of a spot contract, which needs it: the share of a long's value that does not back
        positions, from 0 to under 1.
    borrow_rate : float or Series by UTC time, optional
        Of a spot contract, which needs it: what a short pays per year on the value of the coins
        that it borrowed.
    """

    _omitted = frozenset({"round_to_tick", "expires", "settles", "haircut", "borrow_rate"})

    kind: Annotated[str, Choice("linear", "inverse", "spot")] = "linear"
    size: Annotated[float, POSITIVE] = 1.0
    lot: Annotated[float, NOT_NEGATIVE] = 0.001
    tick: Annotated[float, POSITIVE] = 0.1
    min_notional: Annotated[float | None, NOT_NEGATIVE] = None
    round_to_tick: Annotated[bool, Flag()] = False
    expires: Annotated[str | None, Time()] = None
    settles: Annotated[str | None, Currency()] = None
    haircut: Annotated[float | None, Number(0, 1, open_high=True)] = None
    borrow_rate: Annotated[Rate | None, Timed(Number(0, 10))] = None

    @property
    def is_spot(self) -> bool:
        """Whether it is paid when it is bought, and needs no margin by brackets."""
        return self.kind == "spot"

    def _complete_changes(self, changes: dict[str, Any]) -> dict[str, Any]:
        """Reset a least notional that a change of kind leaves in another currency."""
        is_other = has_other_unit(self.kind, changes.get("kind", self.kind))
        return {"min_notional": None, **changes} if is_other else changes

    def faults(self) -> Faults:
        """Yield what a spot contract lacks, and what others do not have."""
        for name, example in (("haircut", 0.05), ("borrow_rate", 0.08)):
            is_given = getattr(self, name) is not None
            if self.is_spot and not is_given:
                yield name, f"is needed by a spot contract, {example} for example"
            elif is_given and not self.is_spot:
                yield name, f"is of spot contracts only, the kind is {self.kind!r}"

    def _settle(self) -> None:
        if self.min_notional is None:
            self._set_fields(min_notional=0.0 if self.kind == "inverse" else 5.0)


def has_other_unit(kind: str, other: str) -> bool:
    return (kind == "inverse") != (other == "inverse")


@declared(kw_only=True)
class Fees(Value):
    """The fees of a trade: rates per unit of notional, and a fixed amount.

    Parameters
    ----------
    taker, maker : float, Series by UTC time, or str
        Fee rates; a negative maker rate is a rebate. A text names a column of the market.
    maker_share : float
        The share of every trade that pays the maker rate, from 0 to 1.
    tiers : sequence of FeeTier
        Other rates from volumes of the last 30 days on, the lowest volume first; stored as a tuple.
    per_order : float or Series by UTC time
        A fixed amount for every fill, stop and forced reduction, in the settlement currency: gas,
        or a broker's ticket fee.
    """

    _omitted = frozenset({"tiers"})

    taker: Annotated[Cost, DatedCost(COST)]
    maker: Annotated[Cost, DatedCost(MAKER)]
    maker_share: Annotated[float, SHARE] = 0.0
    tiers: Annotated[Sequence[FeeTier], AS_TUPLE] = ()
    per_order: Annotated[Rate, Timed(NOT_NEGATIVE)] = 0.0

    def faults(self) -> Faults:
        """Yield volumes that do not rise."""
        for k, (before, tier) in enumerate(pairwise(self.tiers), 1):
            if not before.volume < tier.volume:
                yield f"tiers.{k}.volume", f"must be over {before.volume:.12g}, the one before it"


@declared(kw_only=True)
class Slippage(Value):
    """How much worse than the open price a trade is filled.

    Parameters
    ----------
    rate : float, Series by UTC time, or str
        Worsening of every fill, as a fraction of the price. A text names a column of the market.
    impact : float
        Y in ``Y sigma sqrt(notional / daily volume)``; 0 means no impact.
    impact_window : str
        The time over which sigma and volume are measured, for example ``"1d"``.
    max_participation : float or None
        Largest share of the previous bar's volume that may be traded in one bar.
    spread : float, Series by UTC time, or str
        The distance from bid to ask, as a fraction of the price: every fill pays half of it, on top
        of ``rate``. A text names a column of the market.
    """

    _omitted = frozenset({"spread"})

    rate: Annotated[Cost, DatedCost(COST)]
    impact: Annotated[float, NOT_NEGATIVE] = 0.0
    impact_window: Annotated[str, Duration()] = "1d"
    max_participation: Annotated[float | None, Number(0, 1, open_low=True)] = None
    spread: Annotated[Cost, DatedCost(COST)] = 0.0


@declared(kw_only=True)
class Liquidation(Value):
    """How a venue liquidates a position that fails its maintenance requirement.

    Parameters
    ----------
    mode : str
        ``"close"``, ``"takeover"`` (all margin is lost; fee and slippage do not apply) or
        ``"partial"``.
    fee : float, Series by UTC time, or str
        Liquidation fee per unit of notional closed, paid from what is left. A text names a column
        of the market.
    slippage : float, Series by UTC time, or str
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
        Y in ``Y sigma sqrt(notional / daily volume)``, which worsens the price of a liquidation
        further, with the window of :class:`Slippage`; 0 means no impact.
    order : str or sequence of str
        Which of several cross positions a partial liquidation reduces first: ``"most_relief"``,
        ``"largest_loss"``, ``"largest_requirement"``, ``"largest_notional"``,
        ``"futures_then_options"`` (each by the largest delta), or names of instruments, after which
        come options. None: the most relief under scenarios, the largest loss under brackets.
    """

    _omitted = frozenset({"order", "full_below_health"})

    mode: Annotated[str, Choice("close", "takeover", "partial")] = "close"
    fee: Annotated[Cost, DatedCost(COST)]
    slippage: Annotated[Cost, DatedCost(COST)]
    step: Annotated[float | str, ShareOrWord(LEAST_STEP, ("bracket",))] = 0.2
    full_below: Annotated[float, NOT_NEGATIVE] = 0.0
    impact: Annotated[float, NOT_NEGATIVE] = 0.0
    order: Annotated[str | Sequence[str] | None, ReductionOrder()] = None
    full_below_health: Annotated[float, COST] = 0.0

    def faults(self) -> Faults:
        """Yield what does nothing in the mode."""
        if self.impact > 0 and self.mode == "takeover":
            yield "impact", "must be 0 with mode 'takeover', which takes all margin"
        for name in ("full_below", "full_below_health"):
            if getattr(self, name) > 0 and self.mode != "partial":
                yield name, f"must be 0 unless mode is 'partial', the mode is {self.mode!r}"
