"""What a contract is: its worth, steps, expiry and settlement currency."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from backtest import core
from backtest.core import Faults, Rate, Real, Timed, Value
from backtest.core.fields import NOT_NEGATIVE, POSITIVE
from backtest.market import Currency, find_coin, find_currency

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
        The share of a long spot position's value that does not back positions, from 0 to under 1;
        needed by spot contracts only.
    borrow_rate : float or Series by UTC time, optional
        What a short spot position pays per year on the coins it borrowed; needed by spot contracts
        only.
    expense : float
        What longs and shorts pay per year of the venue's ``day_count`` on the notional at the mark
        open, 0.0095 of a fund that costs .95 % a year; a cost of its own, `expense`. The prices
        must be those before this cost.

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
        was_inverse = self.kind == "inverse"
        becomes_inverse = changes.get("kind", self.kind) == "inverse"
        if was_inverse != becomes_inverse:
            return {"min_notional": USUAL, **changes}
        return changes

    def faults(self) -> Faults:
        """Yield the faults of a contract: fields that its kind needs, or does not have."""
        if self.round_to_tick and self.tick is None:
            yield "tick", "must be known with round_to_tick"

        for name, example in (("haircut", 0.05), ("borrow_rate", 0.08)):
            is_declared = getattr(self, name) is not None
            if self.is_spot and not is_declared:
                yield name, f"is needed by a spot contract, {example} for example"
            elif is_declared and not self.is_spot:
                yield name, f"is of spot contracts only, the kind is {self.kind!r}"

    def _settle(self) -> None:
        if self.min_notional != USUAL:
            return
        if self.kind == "inverse":
            self._set_fields(min_notional=0.0)
        else:
            self._set_fields(min_notional=5.0)


def choose_settlement(contract: Contract, by_name: str, given: str) -> str:
    """Return the currency in which a contract settles, empty if nothing says it.

    Its venue is believed first. An inverse contract settles in the coin of its name, which a
    currency for all markets does not replace; for a linear one the currency given comes first.
    """
    if contract.settles:
        return contract.settles
    if contract.kind == "inverse":
        return by_name or given
    return given or by_name


def agree_settlement(
    contracts: Mapping[str, Contract],
    *,
    said: Mapping[str, Collection[str]] | None = None,
    given: str = "",
) -> str:
    """Return the currency in which all contracts settle, empty if it is unknown.

    Raises ParameterError if they do not settle in one. ``said`` has other names of each instrument,
    read before its key. ``given`` is the caller's for all: it replaces what names of linear
    contracts say, and must agree with all others.
    """
    # Markets whose names say another currency than their venues are an error among several.
    is_checked = bool(said) and not given and len(contracts) > 1
    currency_of: dict[str, str] = {}
    for name, contract in contracts.items():
        names = (*(said or {}).get(name, ()), name)
        by_name = find_first_currency(names, is_inverse=contract.kind == "inverse")
        if is_checked:
            check_name_of_market(name, names, contract, by_name)

        # Those of which nothing says it are left out.
        currency = choose_settlement(contract, by_name, given)
        if currency:
            currency_of[name] = currency

    # All that is known must be one currency, and the caller's; beside an inverse contract, which
    # settles in a coin, all must be known.
    inverse = find_inverse(contracts)
    check_one_currency(currency_of, has_inverse=bool(inverse))
    check_all_known(contracts, currency_of, inverse)
    first = next(iter(currency_of), "")
    agreed = currency_of.get(first, given)
    if given and agreed != given:
        raise core.ParameterError(
            f"currency of the markets must be that in which their venues settle, got {given!r} and "
            f"{agreed!r} for {first!r}"
        )
    return agreed


def find_inverse(contracts: Mapping[str, Contract]) -> str:
    """Return the name of the first inverse contract, empty if there is none."""
    for name, contract in contracts.items():
        if contract.kind == "inverse":
            return name
    return ""


def check_all_known(
    contracts: Mapping[str, Contract], currency_of: Mapping[str, str], inverse: str
) -> None:
    """Raise ParameterError if a contract beside an inverse one has no known currency.

    It may settle in money, which cannot be added to the coin in which the inverse one settles.
    """
    if not inverse or len(contracts) == 1 or len(currency_of) == len(contracts):
        return
    unknown = next(name for name in contracts if name not in currency_of)
    raise core.ParameterError(
        "venue: positions beside an inverse contract must have a known settlement currency, "
        f"got none for {unknown!r} beside {inverse!r}; "
        "venue.override({'contract.settles': 'BTC'}) gives it"
    )


def find_first_currency(names: Collection[str], *, is_inverse: bool) -> str:
    """Return the settlement currency that the first of some names says, empty if none does."""
    for name in names:
        currency = find_currency(name, is_inverse=is_inverse)
        if currency:
            return currency
    return ""


def check_name_of_market(
    name: str, names: Collection[str], contract: Contract, by_name: str
) -> None:
    """Raise ParameterError if a market's name says another settlement currency than its venue.

    ``names`` are all names of the market, ``by_name`` the currency that they say, empty if none.
    """
    said = by_name
    if not said and contract.kind == "inverse":  # it settles in its coin
        said = next(filter(None, map(find_coin, names)), "")
    if said == "XBT":  # BitMEX and Kraken name the coin so
        said = "BTC"
    if contract.settles and said not in ("", contract.settles):
        raise core.ParameterError(
            f"venue: a market must be in the currency in which its venue settles, got {said} "
            f"by the name of {name!r} and {contract.settles} of its venue; to count the two "
            f"as one, give bt.Markets(..., currency={contract.settles!r})"
        )


def check_one_currency(known: Mapping[str, str], *, has_inverse: bool) -> None:
    """Raise ParameterError if instruments settle in several currencies.

    ``known`` has the currency of each instrument of which it is known. ``has_inverse``: one of them
    settles in a coin.
    """
    first = next(iter(known), "")
    for name, currency in known.items():
        if currency == known[first]:
            continue

        # A coin and money of one value can be counted as one, a coin and money cannot.
        cure = "give each currency an account of its own"
        if not has_inverse:
            override = f"venue.override({{'contract.settles': {known[first]!r}}})"
            cure = f"{cure}; to count the two as one, give {name!r} {override}"
        raise core.ParameterError(
            f"venue: the positions of one account must settle in one currency, got "
            f"{known[first]} for {first!r} and {currency} for {name!r}; {cure}"
        )
