"""The steps of a bar, with their entries in ledger and log."""

from __future__ import annotations

from backtest.account.account_records import (
    Balances,
    InstrumentRules,
    Quote,
)
from backtest.account.auto_margin import add_from_wallet, can_add
from backtest.account.balances import is_failing
from backtest.account.exits import PROFIT, STOP, TRAIL
from backtest.account.fills import stop_out
from backtest.account.ledger import (
    EQUITY_STOPPED,
    STOPPED,
    TOOK_PROFIT,
    TRAILED,
    Ledger,
    Log,
    enter_liquidation,
    enter_trade,
    log_liquidation,
    log_trade,
)
from backtest.account.liquidation import liquidate
from backtest.base.units import TOLERANCE

# -------------------------------------------------------------------------------- step 1: flows


def has_wealth(wealth: float, flows: float) -> bool:
    return wealth + flows > TOLERANCE * abs(flows)


# ---------------------------------------------------------------- steps 2, 3, 6: funding, interest


def liquidate_if_failing(
    rules: InstrumentRules, balances: Balances, ledger: Ledger, quote: Quote, log: Log, t: int
) -> tuple[Balances, Ledger]:
    is_failed = is_failing(rules, balances, quote.mark_open, quote.multiplier)
    if is_failed and can_add(rules, balances):
        balances = add_from_wallet(rules, balances, quote.mark_open, quote, log, t)
        is_failed = is_failing(rules, balances, quote.mark_open, quote.multiplier)
    if is_failed:
        done = liquidate(rules, balances, quote.mark_open, quote)
        log_liquidation(log, t, quote.mark_open, done)
        return done.balances, enter_liquidation(ledger, done)
    return balances, ledger


# ------------------------------------------------------------------------ steps 4, 7: forced closes


def close_by_stop(
    rules: InstrumentRules,
    balances: Balances,
    ledger: Ledger,
    quote: Quote,
    value: float,
    kind: int,
    log: Log,
    t: int,
) -> tuple[Balances, Ledger]:
    done = stop_out(rules, balances, value, quote)
    log_trade(log, t, name_stop(kind), done)
    is_profit = kind == PROFIT
    stops, profits = 0 if is_profit else 1, 1 if is_profit else 0
    return done.balances, enter_trade(ledger, done, stops, profits)


def name_stop(kind: int) -> int:
    if kind == STOP:
        return STOPPED
    if kind == PROFIT:
        return TOOK_PROFIT
    return TRAILED if kind == TRAIL else EQUITY_STOPPED
