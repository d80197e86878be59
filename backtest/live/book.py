"""The orders of a decision: what one more bar trades, and the table of what to send, or why not."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from backtest.core import format_time
from backtest.core.code_names import pd
from backtest.engine import Setup
from backtest.live.contracts import Caution, compute_notional

WORDS = {
    "band": "within the band",
    "min_notional": "under the minimum notional",
    "lot": "under a lot",
    "initial_margin": "margin allows no more",
    "margin_share": "margin allows no more",
    "venue_leverage": "the venue's leverage setting allows no more",
    "wallet": "the available balance allows no more",
    "max_leverage": "the account's maximum leverage allows no more",
    "max_gross_leverage": "the account's maximum leverage allows no more",
    "participation": "the volume of the last bar allows no more",
}
"""Why an order is none, by the cause that cut it."""
NEAR_TICK = 1e-6
"""Share of a tick by which a price may miss it by rounding alone."""
DIGITS = 12
"""Decimals of prices and sizes after rounding, under every tick and lot that is listed."""


class Cut(NamedTuple):
    """How much leverage a cause took from what was asked, both in turns; negative if it added."""

    instrument: str
    cause: str
    turns: float
    asked: float

    def __str__(self) -> str:
        verb = "removed" if self.turns >= 0.0 else "added"
        turns = format_leverage(abs(self.turns))
        return f"{self.instrument}: {self.cause} {verb} {turns} of {format_leverage(self.asked)}"


class Order(NamedTuple):
    """What one more bar trades of an instrument: contracts, value of the last fill, costs.

    ``limit`` is the notional that the venue's table allows with the equity after it.
    """

    size: float
    value: float
    costs: dict[str, float]
    limit: float
    is_forced: bool
    cuts: tuple[Cut, ...]


def format_leverage(turns: float) -> str:
    if abs(turns) >= 0.1 or turns == 0.0:
        return f"{turns:.2f}x"
    return f"{turns:.2g}x"


def write_in_lots(size: float, lot: float) -> float:
    """Return a size in the digits of its lots: 0.007, where a difference left 0.00699999..."""
    if not lot > 0.0:
        return size

    whole = round(round(size / lot) * lot, DIGITS)
    if abs(size - whole) <= NEAR_TICK * lot:
        return whole
    return size


def round_to_tick(price: float, tick: float | None, *, is_buy: bool) -> float:
    """Return a price in whole ticks, up for a buy and down for a sell; as it is without a tick."""
    if tick is None:
        return price

    steps = price / tick
    nearest = round(steps)
    if abs(steps - nearest) > NEAR_TICK:
        nearest = math.ceil(steps) if is_buy else math.floor(steps)
    return round(nearest * tick, DIGITS)


def tabulate_orders(
    setup: Setup,
    orders: Mapping[str, Order],
    sizes: Mapping[str, float],
    prices: Mapping[str, float],
    leverage: Mapping[str, float],
    warnings: Sequence[Caution],
) -> pd.DataFrame:
    """Return by instrument its order, the price to the tick, notional, and why not to send it.

    Nothing was sent: ``to_send`` says that no reason is known against it.
    """
    rows = {}
    for name, size in sizes.items():
        contract = setup.venues[name].contract
        price = round_to_tick(prices[name], contract.tick, is_buy=size > 0.0)

        reasons = [
            *find_reasons_for_none(orders[name], size, leverage[name]),
            *find_reasons_to_wait(setup, name, size, warnings),
        ]
        rows[name] = {
            "side": name_side(size),
            "quantity": abs(size),
            "price": price,
            "notional": compute_notional(size, contract.size, contract, price),
            "to_send": not reasons,
            "why_not": "; ".join(dict.fromkeys(reasons)),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("instrument")


def name_side(size: float) -> str:
    if size == 0.0:
        return ""
    return "buy" if size > 0.0 else "sell"


def find_reasons_for_none(order: Order, size: float, leverage: float) -> Iterator[str]:
    """Yield why there is no order: the policy leaves the position, a limit, or the target."""
    if size != 0.0:
        return

    if math.isnan(leverage):
        yield "the policy leaves the position"
    elif order.cuts:
        for cut in order.cuts:
            yield WORDS.get(cut.cause, cut.cause)
    else:
        yield "the position is at its target"


def find_reasons_to_wait(
    setup: Setup,
    name: str,
    size: float,
    warnings: Sequence[Caution],
) -> Iterator[str]:
    """Yield why not to send an order as it is: old data, an unknown lot, a warning that stops."""
    markets = setup.markets
    _, end = markets.spans[markets.names.index(name)].tolist()
    if end < markets.n_bars:
        closed = int(markets.time[end - 1]) + markets.interval
        yield f"stale data: its bars end at {format_time(closed)}"

    if size != 0.0 and setup.venues[name].contract.lot is None:
        yield "unknown lot"

    for caution in warnings:
        if caution.stops and caution.instrument in ("", name):
            yield caution.text


def write_table(orders: pd.DataFrame) -> str:
    """Return the orders as lines: what to send first, then each other with the reason."""
    to_send = []
    others = []
    for name, row in orders.iterrows():
        if row["quantity"] == 0.0:
            others.append(f"  no order of {name}: {row['why_not']}")
            continue

        text = (
            f"  {row['side']} {row['quantity']:.12g} {name} at {row['price']:.12g}, "
            f"notional {row['notional']:,.2f}"
        )
        if row["to_send"]:
            to_send.append(text)
        else:
            others.append(f"{text}: do not send, {row['why_not']}")

    return "\n".join([*to_send, *others])
