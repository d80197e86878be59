"""One's own account in a cascade: read from a run, an account or a position, and its outcome."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.account import Account, find_least
from backtest.base import ParameterError, repr_plain
from backtest.crowd.account_margin import to_price, to_value
from backtest.crowd.crowd import Crowd
from backtest.engine import Result
from backtest.venue import read_rules

if TYPE_CHECKING:
    from backtest.crowd.cascade_state import CascadeState
    from backtest.venue import Venue


class OwnAccount(NamedTuple):
    quantity: float
    entry: float
    collateral: float
    equity: float

    def join(self, crowd: Crowd) -> Crowd:
        return replace(
            crowd,
            quantity=np.append(crowd.quantity, self.quantity),
            entry=np.append(crowd.entry, self.entry),
            collateral=np.append(crowd.collateral, self.collateral),
            equity=np.append(crowd.equity, self.equity),
        )

    def describe(self) -> dict[str, float]:
        return self._asdict()


def read_own_account(
    me: Result | Account | Mapping[str, Any] | None, venue: Venue, price: float
) -> OwnAccount | None:
    if me is None:
        return None
    if isinstance(me, Result):
        return read_result(me)
    if isinstance(me, Account):
        return read_account(me, venue, price)
    if isinstance(me, Mapping):
        row = Crowd.from_positions(pd.DataFrame([dict(me)]))
        return OwnAccount(*(float(getattr(row, name)[0]) for name in OwnAccount._fields))
    raise ParameterError(
        f"me must be a Result, an Account or a position as a mapping of side, quantity, entry and "
        f"collateral, got {repr_plain(me)}"
    )


def read_result(result: Result) -> OwnAccount:
    rules = read_rules(result.venue)
    last = {name: float(values[-1]) for name, values in result.record.of_one().items()}
    quantity, entry = last["quantity"], last["entry"]
    if quantity == 0.0:
        raise ParameterError("me must be a run that ends with a position, got a flat end")
    if result.account.margin == "isolated":
        collateral, more = last["margin"], last["cash"] + last["reserve"]
    else:
        collateral, more = last["cash"] + quantity * entry, last["reserve"]
    price = float(to_price(rules, np.asarray(entry)))
    return OwnAccount(quantity, price, collateral, collateral + more)


def read_account(account: Account, venue: Venue, price: float) -> OwnAccount:
    leverage = account.venue_leverage
    leverage = find_least(account.max_leverage) if leverage is None else leverage
    if not 0.0 < leverage < math.inf:
        raise ParameterError(
            f"me must be an account with a finite venue_leverage or max_leverage, got {leverage:g}"
        )
    value = abs(float(to_value(read_rules(venue), price)))
    capital = account.capital
    size = capital * leverage / value
    return OwnAccount(size, price, capital, capital + account.reserve)


def describe_own_account(state: CascadeState, start: float, final: float) -> dict[str, Any]:
    before = float(state.first_equity[-1] + state.first_quantity[-1] * (
        float(to_value(state.rules, start)) - state.entry[-1]))  # fmt: skip
    after = float(state.equity(float(to_value(state.rules, final)))[-1])
    closed = float(state.closed[-1])
    at = float(state.closed_money[-1]) / closed if closed > 0.0 else math.nan
    return {
        "liquidated": bool(state.first_round[-1] > 0),
        "round": int(state.first_round[-1]),
        "quantity": float(state.quantity[-1]),
        "close_price": float(to_price(state.rules, np.asarray(at))) if closed > 0.0 else math.nan,
        "equity_before": before,
        "equity": after,
        "loss": before - after,
        "deleveraged": float(state.deleveraged[-1]),
        "haircut": float(state.haircut[-1]),
        "liquidation_price": float(state.liquidation[-1]),
    }
