"""The columns of the table of bars: the account, and the position of one instrument."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from backtest import core
from backtest.account.money import TERMS
from backtest.core.units import TOLERANCE
from backtest.indicators import find_day, forecast_liquidation
from backtest.results import performance, tables
from backtest.results.run_data import RunData


def tabulate_account(
    run: RunData,
    options: Mapping[str, core.FloatArray],
) -> dict[str, core.FloatArray]:
    """Return the columns of the account by bar, with those of its ``options`` in their place."""
    account = run.record.account
    closes = run.closes
    equity = account.equity
    gross = np.abs(run.notionals).sum(axis=1)
    peak = np.maximum.accumulate(np.maximum(account.unit, run.first_peak))

    # What needs no margin has a ratio of 0, whatever backs it.
    needed = closes.requirement
    margin_ratio = performance.divide(needed, closes.backing, empty=math.inf)
    margin_ratio = np.where(needed > 0.0, margin_ratio, 0.0)

    # Where margin is posted without any equity, it uses more than all of it.
    initial = closes.initial
    is_broke = (initial > 0.0) & ~(equity > 0.0)
    margin_used = np.where(is_broke, np.inf, performance.divide(initial, equity))
    return {
        "equity": equity,
        "gross_leverage": performance.divide(gross, equity),
        "net_leverage": run.net_leverage,
        "backing": closes.backing,
        "requirement": needed,
        "margin_ratio": margin_ratio,
        "balance": closes.balance,
        "collateral": closes.collateral,
        "collateral_at_rate": closes.collateral_at_rate,
        **{name: getattr(account, name) for name in (*TERMS, "top_up", "cash", "reserve")},
        **options,
        "overlay": account.overlay,
        "unit": account.unit / run.first_unit,
        "drawdown": 1.0 - account.unit / peak,
        "initial_margin": initial,
        "available": find_available(run),
        "margin_used": margin_used,
        "realized_pnl": find_realized(run, gross),
        "unrealized_pnl": run.unrealized.sum(axis=1),
    }


def find_available(run: RunData) -> core.FloatArray:
    """Return the money that backs no position yet, of shape (n_bars,).

    The part of a profit that does not back an order is not available, nor is what isolated
    positions posted a need of the pool.
    """
    uncounted_shares = np.array([1.0 - venue.profit_share() for venue in run.list_venues()])
    uncounted = uncounted_shares * np.maximum(run.profits, 0.0)
    uncounted_of_pool = np.where(run.are_isolated, 0.0, uncounted)
    counted = run.closes.backing - uncounted_of_pool.sum(axis=1)
    posted = run.record.held["margin"][:, run.are_isolated].sum(axis=1)
    tied = run.closes.initial - posted
    return np.asarray(np.maximum(counted - tied, 0.0))


def find_realized(run: RunData, gross: core.FloatArray) -> core.FloatArray:
    """Return the profit that each bar realized; what is left of rounding is 0."""
    account = run.record.account
    before = float(np.sum(run.before.unrealized))
    change = np.diff(run.unrealized.sum(axis=1), prepend=before)
    realized = account.price_pnl - account.slippage - account.impact - change
    is_rounding = np.abs(realized) <= TOLERANCE * (gross + np.abs(account.price_pnl))
    return np.where(is_rounding, 0.0, realized)


def tabulate_position(run: RunData) -> dict[str, core.FloatArray]:
    """Return the columns of the only instrument, by bar."""
    fields = run.record.of_one()
    quantity = fields["quantity"]
    value = tables.value_of(run.venue.contract, run.mark)
    is_held = quantity != 0.0
    is_isolated = bool(run.are_isolated[0])
    needed = run.closes.requirement
    if is_isolated:
        needed = run.closes.own[:, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        leverage = quantity * np.abs(value) / fields["equity"]
        position_leverage = np.abs(run.notionals[:, 0]) / run.closes.initial

    price = run.liquidation_prices[:, 0]
    probability = forecast_liquidation(
        quantity,
        run.mark,
        price,
        sigma=run.volatilities[0][:, 0],
        years=find_day(run.interval, is_session=run.is_session),
    )
    columns = {
        "close": run.close,
        "mark": run.mark,
        "position": quantity,
        "leverage": np.where(is_held, leverage, 0.0),
        "maintenance": needed,
        "liquidation_price": price,
        "liquidation_probability": probability,
        "entry": tables.price_of(run.venue.contract, fields["entry"]),
        "margin": fields["margin"],
        "target": fields["target"],
        "position_leverage": np.where(is_held, position_leverage, 0.0),
    }

    cash = fields["cash"]
    if is_isolated:
        backing = fields["margin"] + run.unrealized[:, 0]
        margin_ratio = performance.divide(needed, backing, empty=math.inf)
        columns["margin_ratio"] = np.where(is_held, margin_ratio, 0.0)
        cash = fields["margin"] - quantity * fields["entry"]
    if run.venue.interest_on == "loan":
        owned = np.where(is_held, quantity * value, 0.0)
        columns |= measure_loan(cash, owned, needed)
    return columns


def measure_loan(
    cash: core.FloatArray,
    owned: core.FloatArray,
    needed: core.FloatArray,
) -> dict[str, core.FloatArray]:
    """Return the health factor and the loan to value of an account that borrows, by bar.

    A long borrows money against what it owns; a short borrows what it sold against its cash.
    """
    collateral = np.maximum(cash, 0.0) + np.maximum(owned, 0.0)
    debt = np.maximum(-cash, 0.0) + np.maximum(-owned, 0.0)
    has_debt = debt > 0.0

    # What is owned may fall by its requirement, what is owed may rise by it.
    with np.errstate(divide="ignore", invalid="ignore"):
        of_long = (collateral - needed) / debt
        of_short = collateral / (debt + needed)
        loan_to_value = debt / collateral
    health = np.where(owned < 0.0, of_short, of_long)
    return {
        "health_factor": np.where(has_debt, health, np.inf),
        "ltv": np.where(has_debt, loan_to_value, 0.0),
    }
