"""The bar loop: for each bar, update the account, check the books, ask the policy, record."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from backtest.account import (
    Ledger,
    Rules,
    State,
    as_index,
    compute_backing,
    compute_requirement,
    compute_root,
)
from backtest.policy import AccountView
from backtest.venue import MarginRules, compute_price

if TYPE_CHECKING:
    from backtest.account import Quote
    from backtest.base import FloatArray, IntArray

DONE, FULL, BROKEN, NEGATIVE = range(4)

IDENTITY_TOLERANCE = 1e-9
DAY_NS = 86_400_000_000_000.0


class Seen(NamedTuple):
    """The market as policies see it, arrays of shape (n_bars,); times in int64 ns."""

    time: IntArray
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    mark: FloatArray
    volume: FloatArray
    interval: int
    start: int
    rows: IntArray


def find_seen(seen: Seen, t: int) -> int:
    return t if len(seen.rows) == 1 else seen.rows[as_index(t)]


def count_days(seen: Seen, t: int) -> float:
    days: float = (seen.time[t] + seen.interval - seen.start) / DAY_NS
    return days


def show_account(
    rules: Rules, state: State, quote: Quote, days: float, wants_root: bool | None
) -> AccountView:
    instrument, balances, position = rules.instrument, state.balances, state.balances.positions[0]
    margin = instrument.margin
    needed, ratio, root, leverage = 0.0, 0.0, math.nan, 0.0
    wallet = balances.cash
    if state.equity > 0.0:
        leverage = position.quantity * abs(quote.mark_close) / state.equity
    if instrument.is_isolated is None:
        wallet += position.quantity * position.entry
    entry = math.nan
    if position.quantity != 0.0:
        entry = compute_price(margin.size, margin.is_inverse, position.entry)
        needed = compute_requirement(instrument, position, quote.mark_close, quote.multiplier)
        backing = compute_backing(instrument, balances, quote.mark_close)
        ratio = needed / backing if backing > 0.0 else math.inf
        if wants_root is not None:
            value = compute_root(instrument, balances, quote.multiplier)
            root = compute_price(margin.size, margin.is_inverse, value)
    return AccountView(
        equity=state.equity,
        peak_equity=state.equity * (state.peak / state.unit),
        drawdown=1.0 - state.unit / state.peak,
        leverage=leverage,
        position=position.quantity,
        entry=entry,
        wallet=wallet,
        reserve=state.reserve,
        maintenance=needed,
        margin_ratio=ratio,
        liquidation_price=root,
        bars_since_liquidation=state.since,
        bars_since_stop=state.since_stop,
        days=days,
        gross_leverage=abs(leverage),
        net_leverage=leverage,
        venue=with_multipliers(margin, quote.multiplier, quote.initial),
    )


def with_multipliers(margin: MarginRules, multiplier: float, initial: float) -> MarginRules:
    if margin.multiplier == multiplier and margin.initial_multiplier == initial:
        return margin
    return MarginRules(
        floors=margin.floors,
        caps=margin.caps,
        rates=margin.rates,
        amounts=margin.amounts,
        leverages=margin.leverages,
        close_fee=margin.close_fee,
        taker=margin.taker,
        size=margin.size,
        setting=margin.setting,
        is_inverse=margin.is_inverse,
        is_isolated=margin.is_isolated,
        is_valued_at_entry=margin.is_valued_at_entry,
        multiplier=multiplier,
        initial_multiplier=initial,
    )


def sum_terms(ledger: Ledger) -> float:
    costs = ledger.fees + ledger.slippage + ledger.impact + ledger.funding + ledger.interest
    gains = ledger.price_pnl + ledger.flows + ledger.top_up + ledger.bad_debt
    return gains - costs - ledger.liquidation_loss


def is_balanced(before: State, after: State, ledger: Ledger, quote: Quote) -> bool:
    gap = abs(after.equity - before.equity - sum_terms(ledger))
    notional = abs(after.balances.positions[0].quantity * quote.mark_close)
    scale = max(before.equity, after.equity, ledger.traded, notional)
    return gap <= IDENTITY_TOLERANCE * scale
