"""Use of capital at each close: initial margin, money for new orders, profit by kind, loans."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from backtest.base.units import TOLERANCE, FloatArray, IntArray
from backtest.engine.result_tables import ARRAYS, value_of
from backtest.measures.margin_use import margin_used
from backtest.venue.requirement import read_rules

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backtest.account import Account
    from backtest.venue import Venue


class CapitalUse(NamedTuple):
    """Columns of the table of bars, each of shape (n_bars,); docs/accounting.md defines them."""

    initial_margin: FloatArray
    available: FloatArray
    margin_used: FloatArray
    position_leverage: FloatArray
    realized_pnl: FloatArray
    unrealized_pnl: FloatArray


def compute_use(
    venue: Venue,
    account: Account,
    book: Mapping[str, FloatArray],
    mark: FloatArray,
    x: FloatArray,
    time: IntArray,
    first_unrealized: float,
) -> CapitalUse:
    """Return the use of capital of the record of a run.

    ``x`` is the margin multiplier of each bar, ``first_unrealized`` the unrealized profit at the
    close before the first bar.
    """
    value, quantity, equity = value_of(venue, mark), book["position"], book["equity"]
    notional = np.abs(quantity) * np.abs(value)
    if account.margin == "isolated":
        initial, available = book["margin"], book["cash"]
    else:
        initial = compute_initial_margin(venue, account, notional, x, time)
        available = np.maximum(equity - initial, 0.0)
    initial = np.where(quantity != 0.0, initial, 0.0)
    unrealized = np.where(quantity != 0.0, quantity * (value - book["entry"]), 0.0)
    before = np.concatenate([[first_unrealized], unrealized[:-1]])
    gained = book["price_pnl"] - book["slippage"] - book["impact"]
    realized = gained - (unrealized - before)
    is_noise = np.abs(realized) <= TOLERANCE * (notional + np.abs(book["price_pnl"]))
    with np.errstate(divide="ignore", invalid="ignore"):
        turns = np.where(quantity != 0.0, notional / initial, 0.0)
    return CapitalUse(
        initial_margin=initial,
        available=np.array(available),
        margin_used=margin_used(initial, equity),
        position_leverage=turns,
        realized_pnl=np.where(is_noise, 0.0, realized),
        unrealized_pnl=unrealized,
    )


def compute_initial_margin(
    venue: Venue, account: Account, notional: FloatArray, x: FloatArray, time: IntArray
) -> FloatArray:
    """Return the initial margin of cross positions, under the table of each bar."""
    initial = np.zeros(len(time))
    for table in venue.in_use(time):
        rows = slice(table.first, table.stop)
        rules = read_rules(venue.with_table(table), account.venue_leverage or 0.0)
        initial[rows] = ARRAYS.compute_initial(rules, notional[rows], x[rows])
    return initial


def compute_loan_columns(
    venue: Venue,
    account: Account,
    book: Mapping[str, FloatArray],
    mark: FloatArray,
    maintenance: FloatArray,
) -> dict[str, FloatArray]:
    """Return health factor and loan-to-value ratio at each close, where money is borrowed.

    The collateral is what the position's account owns (a long position, cash), the debt what it
    owes (borrowed cash, a short position).
    """
    quantity = book["position"]
    owned = np.where(quantity != 0.0, quantity * value_of(venue, mark), 0.0)
    cash = book["cash"]
    if account.margin == "isolated":
        cash = book["margin"] - quantity * book["entry"]
    collateral = np.maximum(cash, 0.0) + np.maximum(owned, 0.0)
    debt = np.maximum(-cash, 0.0) + np.maximum(-owned, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        of_long = (collateral - maintenance) / debt
        of_short = collateral / (debt + maintenance)
        ltv = np.where(debt > 0.0, debt / collateral, 0.0)
    health = np.where(owned < 0.0, of_short, of_long)
    return {"health_factor": np.where(debt > 0.0, health, np.inf), "ltv": ltv}
