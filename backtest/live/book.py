"""The orders of a decision as one table: of each instrument what is sent, and why not."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

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


def tabulate_orders(
    setup: Setup,
    orders: Mapping[str, Any],
    sizes: Mapping[str, float],
    prices: Mapping[str, float],
    leverage: Mapping[str, float],
    warnings: Sequence[Caution],
) -> pd.DataFrame:
    """Return by instrument its order, the price to the tick, notional, and why it is not sent."""
    rows = {}
    for name, size in sizes.items():
        contract = setup.venues[name].contract
        price = round_to_tick(prices[name], contract.tick, is_buy=size > 0.0)
        reasons = [*find_reasons(setup, name, orders[name], size, leverage[name], warnings)]
        rows[name] = {
            "side": "" if size == 0.0 else "buy" if size > 0.0 else "sell",
            "quantity": abs(size),
            "price": price,
            "notional": compute_notional(size, contract.size, contract, price),
            "sent": not reasons,
            "why_not": "; ".join(dict.fromkeys(reasons)),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("instrument")


def round_to_tick(price: float, tick: float | None, *, is_buy: bool) -> float:
    """Return a price in whole ticks, up for a buy and down for a sell; as it is without a tick."""
    if tick is None:
        return price
    steps = price / tick
    nearest = round(steps)
    if abs(steps - nearest) > 1e-6:
        nearest = math.ceil(steps) if is_buy else math.floor(steps)
    return round(nearest * tick, 12)


def find_reasons(
    setup: Setup,
    name: str,
    order: Any,
    size: float,
    leverage: float,
    warnings: Sequence[Caution],
) -> Iterator[str]:
    """Yield why an order is not sent: it is none, the data are old, a step is unknown, a stop."""
    if size == 0.0:
        causes = [WORDS.get(cut.cause, cut.cause) for cut in order.cuts]
        if math.isnan(leverage):
            yield "the policy leaves the position"
        elif causes:
            yield from causes
        else:
            yield "the position is at its target"

    markets = setup.markets
    end = int(markets.spans[markets.names.index(name)][1])
    if end < markets.n_bars:
        closed = int(markets.time[end - 1]) + markets.interval
        yield f"stale data: its bars end at {format_time(closed)}"
    if setup.venues[name].contract.lot is None and size != 0.0:
        yield "unknown lot"
    for caution in warnings:
        if caution.stops and caution.instrument in ("", name):
            yield caution.text


def write_table(orders: pd.DataFrame) -> str:
    """Return the orders as lines: what is sent first, then each that is not, with the reason."""
    lines = []
    for is_sent in (True, False):
        for name, row in orders[orders["sent"] == is_sent].iterrows():
            asked = f"{row['side'] or 'no order of'} {row['quantity']:.12g} {name}"
            if row["quantity"] == 0.0:
                asked = f"no order of {name}"
            at = f" at {row['price']:.12g}, notional {row['notional']:,.2f}"
            at = "" if row["quantity"] == 0.0 else at
            lines.append(f"  {asked}{at}" + ("" if is_sent else f": not sent, {row['why_not']}"))
    return "\n".join(lines)
