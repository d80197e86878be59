"""The table of a result by bar: the account, and beside it its position if there is only one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from backtest.account.terms import TERMS
from backtest.base import FloatArray, utc_index
from backtest.engine.option_results import pick_columns
from backtest.engine.result_tables import price_of, value_of
from backtest.engine.run_closes import (
    compute_loan_columns,
    find_available,
    find_margin_used,
    find_realized,
)
from backtest.engine.run_data import forecast_touches

if TYPE_CHECKING:
    from backtest.engine.run_closes import RunCloses


def bars_table(run: RunCloses) -> pd.DataFrame:
    account = tabulate_account(run)
    own = tabulate_position(run) if run.has_one_instrument else {}
    return pd.DataFrame(account | own, index=utc_index(run.time), copy=False)


def tabulate_account(run: RunCloses) -> dict[str, FloatArray]:
    account, closes = run.record.account, run.closes
    pool = run.read_pool(slice(None))
    needed, backing, equity = closes.requirement, closes.backing, account.equity
    notionals = run.notionals
    gross = np.abs(notionals).sum(axis=1)
    profits = run.unrealized
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(backing > 0.0, needed / backing, np.inf)
        gross_leverage = np.where(equity > 0.0, gross / equity, 0.0)
    peak = np.maximum.accumulate(np.maximum(account.unit, run.first_peak))
    return {
        "equity": equity,
        "gross_leverage": gross_leverage,
        "net_leverage": run.net_leverage,
        "backing": backing,
        "requirement": needed,
        "margin_ratio": np.where(needed > 0.0, ratio, 0.0),
        "balance": closes.balance,
        "collateral": closes.collateral,
        "collateral_at_rate": closes.collateral_at_rate,
        **{name: getattr(account, name) for name in (*TERMS, "top_up", "cash", "reserve")},
        **({} if run.options is None else pick_columns(run, run.options)),
        "overlay": account.overlay,
        "unit": account.unit / run.first_unit,
        "drawdown": 1.0 - account.unit / peak,
        "initial_margin": closes.initial,
        "available": find_available(run.record, run.marks, pool, run.modes, run.list_venues()),
        "margin_used": find_margin_used(pool[1], equity),
        "realized_pnl": find_realized(run.record, gross, profits, run.before.unrealized),
        "unrealized_pnl": profits.sum(axis=1),
    }


def tabulate_position(run: RunCloses) -> dict[str, FloatArray]:
    fields, initial, equity = run.record.of_one(), run.closes.initial, run.record.account.equity
    quantity, value = fields["quantity"], value_of(run.venue, run.mark)
    is_held, is_isolated = quantity != 0.0, run.modes[0] == "isolated"
    needed = run.own_margins[0][0] if is_isolated else run.closes.requirement
    with np.errstate(divide="ignore", invalid="ignore"):
        leverage = quantity * np.abs(value) / equity
        turns = np.where(is_held, np.abs(run.notionals[:, 0]) / initial, 0.0)
    price = run.liquidation_prices
    columns = {
        "close": run.close,
        "mark": run.mark,
        "position": quantity,
        "leverage": np.where(is_held, leverage, 0.0),
        "maintenance": needed,
        "liquidation_price": price[:, 0],
        "liquidation_probability": forecast_touches(run, price)[:, 0],
        "entry": price_of(run.venue, fields["entry"]),
        "margin": fields["margin"],
        "target": fields["target"],
        "position_leverage": turns,
    }
    if is_isolated:
        columns["margin_ratio"] = run.own_margins[0][1]
    if run.venue.interest_on != "loan":
        return columns
    loan = compute_loan_columns(run.venue, run.record, run.mark, needed, is_isolated=is_isolated)
    return columns | loan
