"""The state of an account with one position, as the loop of several positions goes on from it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from backtest.account import AccountState, State
from backtest.account.portfolio_records import (
    CASH,
    EQUITY,
    HIGHEST,
    IS_OVER,
    IS_RUINED,
    N_WALLET,
    OVERLAY,
    PAID_IN,
    PEAK,
    RESERVE,
    SCALE,
    SINCE_POOL,
    UNIT,
)
from backtest.base import FloatArray
from backtest.engine.option_arrays import no_options
from backtest.venue import Holdings

if TYPE_CHECKING:
    from backtest.engine.run_record import RunRecord


def read_state(result: RunRecord) -> AccountState:
    state = result.state
    if not isinstance(state, State):
        found: AccountState = state
        return found
    setting = result.account.venue_leverage or 0.0
    is_isolated = result.account.margin == "isolated"
    return convert_state(state, is_isolated=is_isolated, setting=setting)


def read_memory(result: RunRecord) -> FloatArray:
    if isinstance(result.state, State):
        return np.array([*result.memory, 0.0])
    return np.asarray(result.memory)


def generalize(result: Any) -> Any:
    return replace(result, state=read_state(result), memory=read_memory(result))


def convert_state(state: State, *, is_isolated: bool, setting: float) -> AccountState:
    (position,), is_over = state.balances.positions, np.int64(state.is_over)
    wallet = np.zeros(N_WALLET)
    wallet[[CASH, RESERVE, EQUITY, HIGHEST]] = (
        state.balances.cash, state.reserve, state.equity, state.watch.highest,
    )  # fmt: skip
    wallet[[UNIT, PEAK, SCALE, PAID_IN]] = state.unit, state.peak, state.scale, state.paid_in
    wallet[[IS_OVER, IS_RUINED, OVERLAY]] = state.is_over, state.is_ruined, 1.0
    wallet[SINCE_POOL] = np.inf if is_isolated else state.since

    def of_pool(value: float, other: float) -> FloatArray:
        return np.array([value, other] if is_isolated else [other, value])

    return AccountState(
        held=Holdings(
            quantities=np.array([position.quantity]),
            entries=np.array([position.entry]),
            values=np.full(1, np.nan),
            amounts=np.zeros(0),
            prices=np.zeros(0),
        ),
        margin=np.array([position.margin]),
        marked=np.array([position.value]),
        priced=np.zeros(0),
        best=np.array([state.watch.best]),
        leverage=np.array([state.leverage]),
        signal=np.array([state.signal]),
        is_pending=np.ones(1, np.int64),
        is_halted=np.array([is_over]),
        factor=np.ones(1),
        setting=np.array([setting]),
        asked=np.full(1, np.nan),
        refused=np.zeros(1, np.int64),
        opened=np.full(1, np.nan),
        since=np.array([state.since]),
        since_stop=np.array([state.since_stop]),
        last_funding=np.array([state.last_funding]),
        ratio=of_pool(state.ratio, 0.0),
        is_called=of_pool(state.is_called, 0.0).astype(np.int64),
        unmet=of_pool(state.unmet, -1.0),
        is_call_open=of_pool(state.is_call_open, 0.0).astype(np.int64),
        called_at=of_pool(state.called_at, np.nan),
        wallet=wallet,
        cursor=np.zeros(2, np.int64),
        options=no_options(),
    )
