"""Quantities of another program in the contracts of the venue, and figures that would contradict.

ccxt counts contracts. The ``contractSize`` of one is in coins, or in the quote currency for an
inverse contract. A venue of ours has a ``contract.size`` of its own. The notional at a mark
price, the cost of a fill and the liquidation price are second figures, which ours must agree with.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from backtest.account import Account
from backtest.core import ParameterError, format_money, format_price, warn_caller
from backtest.core.code_names import pd
from backtest.engine import Setup
from backtest.live.state import AccountSnapshot, HeldPosition
from backtest.market import Markets
from backtest.results.tables import value_of
from backtest.venue import Contract, Venue

CLOSE = 0.02
"""How far apart two figures of one size or value may be, relative."""
NEAR = {"isolated": 0.01, "cross": 0.05}
"""How far apart two liquidation prices may be, as a share of the mark price; in cross margin those
of venues depend on other positions and orders."""


class Caution(NamedTuple):
    """What must be known before an order is sent; ``instrument`` is empty if it is of them all."""

    text: str
    stops: bool = True
    instrument: str = ""

    def __str__(self) -> str:
        return self.text


def compute_notional(
    quantity: float,
    size: float,
    contract: Contract,
    price: float,
) -> float:
    """Return |q| |u(P)| of contracts of some size, in the settlement currency."""
    return abs(quantity) * abs(float(value_of(replace(contract, size=size), price)))


def find_size(
    contract: Contract,
    quantity: float,
    *,
    stated: float | None,
    value: float,
    price: float,
) -> tuple[float, bool]:
    """Return the size of one contract of another program, and whether anything says it.

    A size that is not ``stated`` is that at which the quantity has its ``value`` at a ``price``
    (NaN: unknown), where it is near that of the venue or a power of ten; else that of the venue.
    """
    if stated is not None:
        return stated, True

    unit = compute_notional(quantity, 1.0, contract, price)
    if not (value > 0.0 and unit > 0.0):
        return contract.size, False

    implied = value / unit
    nearest_power = 10.0 ** round(math.log10(implied))
    for size in (contract.size, nearest_power):
        if abs(implied / size - 1.0) <= CLOSE:
            return size, True
    return contract.size, False


def check_value(
    contract: Contract,
    quantity: float,
    size: float,
    *,
    value: float,
    price: float,
    what: str,
) -> None:
    """Raise ParameterError if contracts of a size have another value at a price than is reported.

    ``what`` names the reported value and its place. NaN is unknown, and nothing is compared.
    """
    ours = compute_notional(quantity, size, contract, price)
    is_known = value >= 0.0 and ours > 0.0
    if not is_known or abs(value / ours - 1.0) <= CLOSE:
        return

    raise ParameterError(
        f"{what} must be within {100.0 * CLOSE:g} % of {format_money(ours)}, which "
        f"{abs(quantity):.12g} contracts of {size:.12g} are worth at {format_price(price)}, "
        f"got {format_money(value)}; give the right contractSize and quantity, or leave the value "
        "out"
    )


def describe_size(
    name: str,
    contract: Contract,
    quantity: float,
    size: float,
    *,
    is_known: bool,
) -> Caution | None:
    """Return what is to be said of the size of contracts of another program, None if nothing."""
    if not is_known:
        return Caution(
            f"the contract size of {name} is not known, that of the venue, {contract.size:.12g}, "
            "is assumed; give contractSize, or the notional or cost beside its price",
            stops=contract.size != 1.0,
        )

    if size == contract.size:
        return None
    return Caution(
        f"{quantity:.12g} contracts of {size:.12g} of {name} are "
        f"{quantity * size / contract.size:.12g} of the venue's, whose contract.size is "
        f"{contract.size:.12g}",
        stops=False,
    )


def name_as_markets(markets: Markets, snapshot: AccountSnapshot) -> AccountSnapshot:
    """Return a snapshot whose positions have the names of markets, where they had their symbols."""
    names = markets.names_by_symbol
    positions = {}
    for symbol, held in snapshot.positions.items():
        name = names.get(symbol, symbol)
        if name in snapshot.positions:  # there under both
            name = symbol
        positions[name] = held
    return replace(snapshot, positions=positions)


def count_as_venue(
    account: Account,
    venues: Mapping[str, Venue],
    snapshot: AccountSnapshot,
) -> tuple[AccountSnapshot, list[Caution]]:
    """Return a snapshot in the contracts of the venues, and what was converted or assumed."""
    is_of_ccxt = snapshot.counted_by == "ccxt"
    cautions: list[Caution] = []
    positions: dict[str, HeldPosition] = dict(snapshot.positions)
    posted = 0.0

    for name, held in snapshot.positions.items():
        if name not in venues or held.quantity == 0.0:
            continue

        if account.for_instrument(name).margin == "isolated":
            posted += held.margin
            if is_of_ccxt and held.margin == 0.0:
                cautions.append(Caution(f"ccxt has no collateral of {name}, which is isolated"))

        if is_of_ccxt or held.contract_size is not None:
            positions[name], caution = count_position(name, held, venues[name].contract)
            if caution is not None:
                cautions.append(caution)

    wallet = snapshot.wallet
    if is_of_ccxt and wallet is not None:
        wallet -= posted  # theirs contains what is posted, ours does not
    counted = replace(
        snapshot,
        positions=positions,
        wallet=wallet,
        counted_by="venue",
    )
    return counted, cautions


def count_position(
    name: str,
    held: HeldPosition,
    contract: Contract,
) -> tuple[HeldPosition, Caution | None]:
    """Return a position of another program in contracts of the venue, and a caution about it.

    The caution is None where its contracts are known to have the size of the venue's.
    """
    notional = math.nan if held.notional is None else held.notional
    price = math.nan if held.mark_price is None else held.mark_price

    # The size of their contracts, stated or found from the notional, must give that notional.
    size, is_known = find_size(
        contract,
        held.quantity,
        stated=held.contract_size,
        value=notional,
        price=price,
    )
    what = f"the notional of {name} at its mark price"
    check_value(
        contract,
        held.quantity,
        size,
        value=notional,
        price=price,
        what=what,
    )
    caution = describe_size(
        name,
        contract,
        held.quantity,
        size,
        is_known=is_known,
    )

    # Contracts of the same size stay as they are, to the bit.
    quantity = held.quantity
    if size != contract.size:
        quantity = held.quantity * size / contract.size
    return replace(held, quantity=quantity, contract_size=None, notional=None), caution


def count_fills(setup: Setup, fills: pd.DataFrame) -> pd.DataFrame:
    """Return fills of another program in the contracts of the venues; warn of what was converted.

    ``traded`` is the value of each fill, 0 or NaN where it is unknown.
    """
    quantities = fills["quantity"].to_numpy(dtype=np.float64).copy()
    values = fills["traded"].where(fills["traded"] > 0.0).to_numpy(dtype=np.float64)
    prices = fills["price"].to_numpy(dtype=np.float64)

    for name, venue in setup.venues.items():
        rows = np.flatnonzero(fills["instrument"] == name)
        if len(rows) == 0:
            continue

        # The size of all fills of an instrument is that of the largest, the least rounded one.
        contract = venue.contract
        largest = rows[np.argmax(np.nan_to_num(values[rows]))]
        size, is_known = find_size(
            contract,
            quantities[largest],
            stated=None,
            value=values[largest],
            price=prices[largest],
        )
        for k in rows.tolist():
            what = f"the cost of fill {k + 1:,} ({name})"
            check_value(
                contract,
                quantities[k],
                size,
                value=values[k],
                price=prices[k],
                what=what,
            )

        whole = float(np.abs(quantities[rows]).sum())
        caution = describe_size(
            name,
            contract,
            whole,
            size,
            is_known=is_known,
        )
        if caution is not None and (is_known or caution.stops):
            warn_caller(caution.text)
        if size != contract.size:
            quantities[rows] *= size / contract.size

    return fills.assign(quantity=quantities)


def is_near(
    ours: float,
    theirs: float,
    quantity: float,
    *,
    mark: float,
    tolerance: float,
) -> bool:
    """Return whether two liquidation prices of a position are close, as a share of the mark price.

    ``ours`` is NaN where there is none: of a long position that is a price of 0. Of a short one it
    is infinite, and 1 / price is compared, as a share of 1 / mark.
    """
    if not math.isnan(ours):
        return abs(ours - theirs) <= tolerance * mark
    if quantity > 0.0:
        return theirs <= tolerance * mark
    return mark <= tolerance * theirs


def compare_liquidations(
    setup: Setup,
    snapshot: AccountSnapshot,
    ours: Mapping[str, float],
) -> Iterator[Caution]:
    """Yield where the liquidation price of a position, by name, is far from the reported one."""
    for name, held in snapshot.positions.items():
        theirs = held.liquidation_price
        if name not in ours or theirs is None or held.quantity == 0.0:
            continue

        mark = held.mark_price or float(setup.markets[name].mark_close[-1])
        mode = str(setup.account.for_instrument(name).margin)
        if is_near(ours[name], theirs, held.quantity, mark=mark, tolerance=NEAR[mode]):
            continue

        price = "none" if math.isnan(ours[name]) else format_price(ours[name])
        yield Caution(
            f"the liquidation price of {name} is {price} by the rules of the venue and "
            f"{format_price(theirs)} as reported; --liquidation ours (liquidation='ours' in "
            "Python) acts on the first",
            stops=snapshot.liquidation != "ours",
        )
