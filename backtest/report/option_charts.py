"""What the options of a run pay by the price of their underlying, and their Greeks beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from backtest import core
from backtest.core.code_names import pd
from backtest.core.result_parts import Shown, ShownChart
from backtest.report.option_parts import draw_greeks
from backtest.results.run_record import find_currency
from backtest.results.tables import value_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backtest.results import Result
    from backtest.results.option_profit import OptionTerms
    from backtest.results.run_data import RunOptions

HEIGHT = 340
"""Of both charts, which stand side by side above the picture of the account, in pixels."""
N_PRICES = 121
"""Prices of a payoff between the strikes, beside these."""
REACH = 0.3
"""How far a payoff is drawn at least, as a move of the price."""


def list_first_charts(result: Result) -> Iterator[Shown]:
    """Yield the payoff of what was held last, and the Greeks; nothing where nothing was held."""
    options = result.options
    if options is None or not options.record.quantity.any():
        return
    yield draw_payoff(result, options)
    yield draw_greeks(result)


def choose_prices(price: float, strikes: core.FloatArray) -> core.FloatArray:
    """Return the prices at which a payoff is drawn: about a price and all strikes, with these."""
    low = min((1.0 - REACH) * price, 0.9 * strikes.min())
    high = max((1.0 + REACH) * price, 1.1 * strikes.max())
    even = np.linspace(low, high, N_PRICES)
    return np.unique(np.append(even, strikes))


def compute_payoffs(
    terms: OptionTerms,
    rows: core.IntArray,
    prices: core.FloatArray,
) -> core.FloatArray:
    """Return what a unit of each option pays at expiry at each price, (n_prices, n_options)."""
    price = prices[:, None]
    gains = np.maximum(terms.signs[rows] * (price - terms.strikes[rows]), 0.0)
    return np.where(terms.are_coin[rows], gains / price, gains)


def draw_payoff(result: Result, options: RunOptions) -> ShownChart:
    """Return what the options of one underlying pay at expiry, alone and with the position.

    It is the underlying with the most contracts, at the last close at which any was held.
    """
    terms = options.terms
    held = options.record.quantity
    bars_held = np.flatnonzero(held.any(axis=1))
    bar = int(bars_held[-1])

    # The options of one underlying, in units of it.
    amounts = held[bar] * terms.sizes
    by_underlying = np.bincount(terms.instruments, np.abs(amounts))
    place = int(np.argmax(by_underlying))
    rows = np.flatnonzero((amounts != 0.0) & (terms.instruments == place))
    price = float(options.quotes.index_close[bar, rows[0]])

    prices = choose_prices(price, terms.strikes[rows])
    payoffs = compute_payoffs(terms, rows, prices)
    table = pd.DataFrame({"options": payoffs @ amounts[rows]}, index=prices)

    name = result.names[place]
    caption = (
        f"What the options held at {core.format_time(int(result.span.named[bar]))} pay by the "
        f"price of {name} at their expiry, without their premiums."
    )
    quantity = float(result.of_positions("quantity")[bar, place])
    if quantity != 0.0:
        contract = result.venues[name].contract
        moved = value_of(contract, prices) - value_of(contract, price)
        table["with the position"] = table["options"] + quantity * moved
        caption = f"{caption} With the position: and what it gains from the mark at that time."
    return ShownChart(
        key="payoff",
        title="Payoff",
        caption=caption,
        table=table,
        colors={"options": "accent", "with the position": "loss"},
        x=f"price of {name}",
        y=find_currency(result) or "money",
        marks=(price,),
        mark_names=("mark",),
        has_legend=True,
        size="half",
        height=HEIGHT,
    )
