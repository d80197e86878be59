"""Bad debt and ruin of an account with several positions, at the close of a bar."""

from __future__ import annotations

from backtest.account.account_records import Position
from backtest.account.ledger import BAD_DEBT as DEBT
from backtest.account.ledger import RUINED
from backtest.account.option_marks import name_option
from backtest.account.option_orders import trade_option
from backtest.account.orders import find_limit
from backtest.account.portfolio_balance import (
    compute_account_equity,
    count_cross,
    count_open,
    has_collateral,
)
from backtest.account.portfolio_ledger import (
    BAD_DEBT,
    TRADED,
    note,
)
from backtest.account.portfolio_records import (
    CASH,
    PAID_IN,
    RESERVE,
    AccountBar,
    AccountState,
    MarketBar,
    Terms,
    is_held,
    is_isolated,
    pick_instrument,
    pick_quote,
    put_position,
    share,
)
from backtest.account.ruin import NOTHING_LEFT
from backtest.base.units import TOLERANCE
from backtest.venue import compute_best_leverage


def settle_debt(bar: AccountBar, t: int) -> None:
    terms, state, ledger = bar.terms, bar.state, bar.ledger
    debt = 0.0
    if count_cross(terms, state) == 0 and not has_collateral(state) and state.wallet[CASH] < 0.0:
        debt = -state.wallet[CASH]
        state.wallet[CASH] = 0.0
    equity = compute_account_equity(terms, state)
    if equity < 0.0:
        debt -= equity
        state.wallet[CASH] -= equity
    if debt != 0.0:
        ledger[BAD_DEBT, ledger.shape[1] - 1] += debt
        note(bar.log, t, -1, DEBT, 1.0, 0.0, debt)


def is_portfolio_ruined(
    terms: Terms, state: AccountState, quotes: MarketBar, equity: float
) -> bool:
    wealth, paid_in = equity + state.wallet[RESERVE], state.wallet[PAID_IN]
    is_under = wealth <= terms.ruin_at * paid_in * (1.0 + TOLERANCE)
    is_under = is_under or equity <= NOTHING_LEFT * paid_in * (1.0 + TOLERANCE)
    if is_under or count_open(state) > 0:
        return bool(is_under)
    return is_portfolio_poor(terms, quotes, wealth)


def is_portfolio_poor(terms: Terms, quotes: MarketBar, wealth: float) -> bool:
    found = False
    for i in range(len(quotes.open)):
        if quotes.is_listed[i] == 1:
            rules, quote = share(pick_instrument(terms, i)), pick_quote(quotes, i)
            most = compute_best_leverage(rules.margin, quote.initial)
            limit = find_limit(rules, quote)
            most = limit if limit < most else most
            least = max(rules.min_notional, rules.lot * abs(quote.mark_close))
            is_ban = rules.has_limits is not None and not limit > 0.0
            if rules.has_rounding is None or is_ban:
                return False
            if not wealth * most < least * (1.0 - TOLERANCE):
                return False
            found = True
    return found


def end_portfolio(bar: AccountBar, t: int) -> None:
    state, ledger, log = bar.state, bar.ledger, bar.log
    if count_open(state) == 0:
        note(log, t, -1, RUINED, 1.0, 0.0, 0.0)
    for i in range(len(state.margin)):
        if is_held(state, i):
            value, held = bar.quotes.mark_close[i], state.held.quantities[i]
            note(log, t, i, RUINED, value, 0.0 - held, abs(held) * abs(value))
            ledger[TRADED, i] += abs(held) * abs(value)
            if is_isolated(bar.terms, i):
                profit = held * (value - state.held.entries[i])
                state.wallet[CASH] += state.margin[i] + profit
            else:
                state.wallet[CASH] += held * value
            put_position(state, i, Position(0.0, 0.0, 0.0, value))
    for k in range(len(state.options.targets)):
        held, mark = state.options.positions.quantities[k], state.options.positions.marks[k]
        if held != 0.0:
            trade_option(state, ledger, k, 0.0, mark)
            note(log, t, name_option(state, k), RUINED, mark, 0.0 - held, abs(held) * mark)
    if count_open(state) == 0 and not has_collateral(state) and state.wallet[CASH] < 0.0:
        debt = -state.wallet[CASH]
        state.wallet[CASH] = 0.0
        ledger[BAD_DEBT, ledger.shape[1] - 1] += debt
        note(log, t, -1, DEBT, 1.0, 0.0, debt)
