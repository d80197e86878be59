"""A bar of an account: the eight steps, in order."""

from __future__ import annotations

import math

from backtest.account import balance, fills, limit_orders, money, options, payments, price_walk
from backtest.account import records as r
from backtest.account.cut_counts import count_decisions
from backtest.account.events import Event
from backtest.account.orders import is_outside, is_too_small, trade
from backtest.account.position import NOTHING_LEFT, follow_prices, has_wealth
from backtest.core.kernels import inlined
from backtest.core.structs import Structs
from backtest.core.units import TOLERANCE

HAS_ORDER_FEE, HAS_EXITS = r.FLAGS.index("has_order_fee"), r.FLAGS.index("has_exits")


def may_use_fast_path(terms: r.Terms, feed: r.MarketFeed, state: r.AccountState) -> bool:
    """Return whether the rules of the account allow bars in which only prices move."""
    may_use = not terms.has_interest and terms.margin_call == 0.0 and terms.fill == r.AT_OPEN
    may_use = may_use and len(state.held.amounts) == 0 and not terms.has_time_stop
    may_use = may_use and len(state.options.targets) == 0
    may_use = may_use and len(feed.multiplier) == 1 and len(feed.initial) == 1
    may_use = may_use and len(feed.costs) == 1
    for i in range(len(state.positions)):
        may_use = may_use and terms.flags[i, HAS_ORDER_FEE] == 0 and terms.flags[i, HAS_EXITS] == 0
    return bool(may_use)


def take_fast_path(bar: r.AccountBar, t: int, is_clear: bool) -> bool:
    """Try bar t as one in which only prices move; False, with the state unchanged, if it is not."""
    terms, state, quotes = bar.terms, bar.state, bar.quotes
    if is_event_due(bar.feed, state, t):
        return False
    set_opens(bar, t)
    balance.value_at(state, quotes.open, quotes.asset_open)
    opened = balance.compute_account_equity(terms, state)
    if is_any_trading(bar, opened):
        return False
    if not set_rest(bar, t) or not price_walk.is_quiet(bar):
        return False
    balance.value_at(state, quotes.mark_close, quotes.asset_mark_close)
    equity = balance.compute_account_equity(terms, state)
    if not is_sound(terms, state, equity):
        return False
    if not is_clear:
        money.clear_ledger(bar.ledger)
    for i in range(len(state.positions)):
        position, profit = state.positions[i], 0.0
        if position.quantity != 0.0:
            close = quotes.instruments[i].mark_close
            profit += position.quantity * (close - position.marked)
            position.marked = close
        bar.ledger[i].price_pnl = profit
        position.since += 1.0
        position.since_stop += 1.0
    wallet = state.wallet
    wealth = wallet.equity + wallet.reserve
    wallet.pool_failed = 0.0
    wallet.since_pool += 1.0
    wallet.equity = equity
    if has_wealth(wealth, 0.0) and wallet.is_ruined == 0.0:
        wallet.unit = wallet.scale * (equity + wallet.reserve)
    wallet.peak = max(wallet.unit, wallet.peak)
    if len(bar.scratch.cuts) > 0:
        count_quiet_decisions(bar, t, opened)
    return True


def count_quiet_decisions(bar: r.AccountBar, t: int, equity: float) -> None:
    """Count the decisions of a bar that fills none; orders too small to fill are planned."""
    if not fills.has_order(bar.scratch, r.SMALL):
        count_decisions(bar, t, equity)
        return
    fills.fill_decisions(bar, t, equity)
    balance.value_at(bar.state, bar.quotes.mark_close, bar.quotes.asset_mark_close)


def is_event_due(feed: r.MarketFeed, state: r.AccountState, t: int) -> bool:
    for i in range(len(state.positions)):
        if feed.span[i, 0] == t:
            return True
    flow, event = state.cursor[r.FLOW_NEXT], state.cursor[r.FUNDING_NEXT]
    is_flow = flow < len(feed.flow_bar) and feed.flow_bar[flow] == t
    return bool(is_flow or (event < len(feed.funding_bar) and feed.funding_bar[event] == t))


def set_opens(bar: r.AccountBar, t: int) -> None:
    """Write what decides whether an order fills: listing, opens and limits."""
    for i in range(len(bar.state.positions)):
        quote = bar.quotes.instruments[i]
        if r.read_open(bar.terms, bar.feed, quote, t, i):
            quote.fill = quote.open


def set_rest(bar: r.AccountBar, t: int) -> bool:
    """Write the other prices of what is held; False if they need the general bar."""
    terms, feed, state, quotes = bar.terms, bar.feed, bar.state, bar.quotes
    for i in range(len(state.positions)):
        quote = quotes.instruments[i]
        if quote.is_listed == 0:
            continue
        r.read_mark_close(terms, feed, quote, t, i)
        if state.positions[i].quantity == 0.0:
            continue
        if feed.ends[i] == 1 and t == feed.span[i, 1] - 1:
            return False
        r.read_extremes(terms, feed, quote, t, i)
        is_inside = quote.low <= quote.open <= quote.high
        if not (is_inside and quote.mark_low <= quote.mark_open <= quote.mark_high):
            return False
    return True


def is_any_trading(bar: r.AccountBar, equity: float) -> bool:
    """Return whether an order would fill at the open; writes kinds and targets into scratch."""
    terms, state = bar.terms, bar.state
    if terms.max_gross_leverage < math.inf:
        fills.choose_orders(bar, equity)
        return fills.has_order(bar.scratch, r.REDUCE) or fills.has_order(bar.scratch, r.INCREASE)
    is_any = False
    for i in range(len(state.positions)):
        is_any = is_any or is_trading(bar, equity, i)
    return bool(is_any)


@inlined
def is_trading(bar: r.AccountBar, equity: float, i: int) -> bool:
    """Return whether instrument i would fill an order; writes its kind, before and reach."""
    state, quote = bar.state, bar.quotes.instruments[i]
    bar.scratch.plans[i].kind = r.NO_TARGET
    if quote.is_listed == 0:
        return False
    rules = r.pick_instrument(bar.terms, i)
    return plan_quietly(
        rules, state.wallet, state.positions[i], quote, bar.scratch.plans[i], equity
    )


@inlined
def plan_quietly(
    rules: r.InstrumentRules,
    wallet: money.Wallet,
    position: r.PositionState,
    quote: r.Quote,
    plan: r.OrderPlan,
    equity: float,
) -> bool:
    """Return whether what was decided of a position would fill; writes kind, before and reach."""
    plan.kind = r.NO_TARGET
    if position.is_pending == 0.0 or wallet.is_ruined != 0.0:
        return False
    if position.is_halted == 1.0 or wallet.is_over != 0.0:
        return bool(position.quantity != 0.0)
    is_asking, _, held, reach = fills.measure_order(rules, wallet, position, quote, equity)
    if not is_asking:
        return False
    plan.kind, plan.notional_held, plan.target = r.IN_BAND, held, reach
    if reach == math.inf or not is_outside(rules, equity, reach, held):
        return reach == math.inf
    plan.kind = r.SMALL
    return not is_too_small(rules, abs(quote.fill), reach, held)


def is_sound(terms: r.Terms, state: r.AccountState, equity: float) -> bool:
    """Return whether equity, wallet and the test of ruin at the close need nothing done."""
    count, crossed = 0, 0
    for i in range(len(state.positions)):
        if state.positions[i].quantity != 0.0:
            count += 1
            crossed += 0 if r.is_isolated(terms, i) else 1
    if equity < 0.0 or (crossed == 0 and state.wallet.cash < 0.0):
        return False
    if count == 0 or state.wallet.is_ruined != 0.0:
        return True
    wealth, paid_in = equity + state.wallet.reserve, state.wallet.paid_in
    is_under = wealth <= terms.ruin_at * paid_in * (1.0 + TOLERANCE)
    return not (is_under or equity <= NOTHING_LEFT * paid_in * (1.0 + TOLERANCE))


def process_bar(bar: r.AccountBar, t: int) -> None:
    """Take the account through bar t: the eight steps of accounting 2, in order."""
    wallet = bar.state.wallet
    before, wealth = wallet.equity, wallet.equity + wallet.reserve
    open_bar(bar, t, before)
    finish_bar(bar, t, before, wealth)


def finish_bar(bar: r.AccountBar, t: int, before: float, wealth: float) -> None:
    """Take an account from its fills at the open to the close: the way of the prices, and step 8.

    ``before`` and ``wealth`` are the equity at the last close, without and with the reserve.
    """
    terms, state = bar.terms, bar.state
    step = bar.log.step
    step[0] = 7
    price_walk.walk(bar, t)
    if terms.fill == r.RESTING:
        price_walk.stamp_openings(terms, state, 1.0 * bar.feed.time[t])
        if len(bar.scratch.cuts) > 0 and t > 0 and state.wallet.is_ruined == 0.0:
            count_decisions(bar, t, before)
    follow_bests(bar)
    step[0] = 8
    if terms.fill == r.LATE:
        for i in range(len(state.positions)):
            bar.scratch.walk[i].carried = state.positions[i].quantity
            if bar.quotes.instruments[i].is_last == 1:
                state.positions[i].is_pending = 0
        if t > 0:
            fill_pending(bar, t)
    close_bar(bar, t, wealth)


def open_bar(bar: r.AccountBar, t: int, before: float) -> None:
    """Take an account of some equity before through the steps up to the way of the prices."""
    terms, feed, state, quotes, ledger = bar.terms, bar.feed, bar.state, bar.quotes, bar.ledger
    set_quotes(terms, feed, quotes, t)
    price_walk.keep_distances(bar)
    money.clear_ledger(ledger)
    state.wallet.pool_failed = 0.0
    price_walk.begin_day(bar, t)
    price_walk.keep_pause(bar, t)
    step = bar.log.step
    step[0] = 0
    if terms.fill == r.EARLY and t > 0:
        for i in range(len(state.positions)):
            if r.is_held(state, i):
                balance.mark_to_ledger(state, i, quotes.instruments[i].fill, ledger)
        fill_pending(bar, t)
        for pool in range(len(state.calls)):
            if ledger[pool].calls_met + ledger[pool].calls_failed > 0.0:
                state.calls[pool].is_open = state.calls[pool].is_called = 0
    options.open_options(bar, t)
    options.book_profits(state, ledger)
    step[0] = 1
    payments.take_flows(bar, t)
    if state.wallet.is_converting == 1.0:
        state.wallet.is_converting = 0.0
        balance.value_at(state, quotes.open, quotes.asset_open)
        balance.sell_collateral(bar, t, -balance.compute_balance(terms, state))
    payments.answer_calls(bar, t)
    rescale_unit(state, ledger, before)
    moved = money.total(ledger, money.MONEY.flows) + money.total(ledger, money.MONEY.top_up)
    if terms.equity_stop > 0.0 and moved != 0.0 and before > 0.0:  # flows leave the stop unchanged
        state.wallet.highest = max(state.wallet.highest * ((before + moved) / before), 0.0)
    if len(feed.days) > 0:
        state.wallet.day_open += moved
        state.wallet.week_open += moved
    step[0] = 2
    payments.settle_funding(bar, t, 1)
    options.expire_options(bar, t, 0, options.ENDLESS)
    step[0] = 3
    if terms.has_interest and t > 0:
        payments.charge_interest(bar, t)
    step[0] = 4
    price_walk.check_gap(bar, t)
    price_walk.stop_by_time(bar, t, 1.0 * feed.time[t])
    step[0] = 5
    if terms.fill in (r.AT_OPEN, r.RESTING) and t > 0:
        fill_pending(bar, t)
    price_walk.stamp_openings(terms, state, 1.0 * feed.time[t])
    price_walk.keep_distances(bar)
    step[0] = 6
    payments.settle_funding(bar, t, 0)
    options.expire_options(bar, t, 1, options.ENDLESS)


def set_quotes(terms: r.Terms, feed: r.MarketFeed, quotes: r.MarketBar, t: int) -> None:
    """Write the quotes of bar t as values u, and the multipliers and costs of its date."""
    last = max(t - 1, 0)
    decided_at = t if terms.fill == r.LATE else last  # the close that decides, or that fills
    is_at_close = terms.fill in (r.LATE, r.EARLY)
    for i in range(len(quotes.instruments)):
        quote = quotes.instruments[i]
        quote.is_last = 1 if feed.ends[i] == 1 and t == feed.span[i, 1] - 1 else 0
        if not r.read_open(terms, feed, quote, t, i):
            continue
        r.read_extremes(terms, feed, quote, t, i)
        r.read_mark_close(terms, feed, quote, t, i)
        r.read_multipliers(terms, feed, quote, t, i)
        r.read_scales(feed, quote, t, i)
        quote.close = r.read_value(terms, feed.close, t, i)
        r.read_known(feed, quote, t, i)
        quote.order_fee = r.at_column(feed.order_fee, t, i)
        if len(feed.costs) > 1:
            r.write_costs(terms, feed.costs[t], i)

        # Where orders fill: at the open, or at the close that decided them.
        quote.fill = quote.open
        quote.decided = quote.open
        if terms.fill != r.AT_OPEN and feed.span[i, 0] <= decided_at < feed.span[i, 1]:
            quote.decided = r.read_value(terms, feed.close, decided_at, i)
            quote.fill = quote.decided if is_at_close else quote.open

    for c in range(len(quotes.assets)):
        asset = quotes.assets[c]
        asset.open = feed.asset_open[c, t]
        asset.mark_open = feed.asset_mark_open[c, t]
        asset.mark_low = feed.asset_mark_low[c, t]
        asset.mark_high = feed.asset_mark_high[c, t]
        asset.mark_close = feed.asset_mark_close[c, t]
        asset.fill = asset.open
        if is_at_close:
            asset.fill = feed.asset_close[c, decided_at]


def rescale_unit(state: r.AccountState, ledger: Structs[money.Money], equity: float) -> None:
    """Keep the unit value unchanged by flows: unit = scale (equity + reserve)."""
    flows = money.total(ledger, money.MONEY.flows)
    wealth = equity + state.wallet.reserve + money.total(ledger, money.MONEY.top_up)
    if flows != 0.0 and has_wealth(wealth, flows):
        state.wallet.scale = state.wallet.unit / (wealth + flows)


def fill_pending(bar: r.AccountBar, t: int) -> None:
    """Fill what the last close decided, after changes of margin and forced reductions (step 5)."""
    terms, state, quotes = bar.terms, bar.state, bar.quotes
    if state.wallet.is_ruined == 0.0:
        balance.value_at(state, quotes.fill, quotes.asset_fill)
        equity = balance.compute_account_equity(terms, state)
        payments.change_settings(bar, t)
        if terms.grace >= 0.0:
            payments.force_reductions(bar, t)
        if terms.fill == r.RESTING:
            known = state.wallet.equity if equity > 0.0 else 0.0
            limit_orders.place_orders(bar, t, known)
        else:
            fills.fill_decisions(bar, t, equity)


def follow_bests(bar: r.AccountBar) -> None:
    """Advance the best value u of trailing stops by this bar; 0 where nothing is held."""
    terms, state, quotes = bar.terms, bar.state, bar.quotes
    for i in range(len(state.positions)):
        is_fresh = terms.fill == r.RESTING and bar.scratch.plans[i].opened_now == 1.0
        position, quote = state.positions[i], quotes.instruments[i]
        if not r.is_held(state, i):
            position.best = 0.0
        elif not is_fresh and quote.is_listed == 1 and r.has_exits(terms, i):
            position.best = follow_prices(position.best, r.pick_position(state, i), quote)


def close_bar(bar: r.AccountBar, t: int, wealth: float) -> None:
    """Mark the account at the close, test ruin and calls, and write equity and unit (step 8)."""
    terms, state, ledger = bar.terms, bar.state, bar.ledger
    quotes = bar.quotes
    options.close_options(bar, t)
    for i in range(len(state.positions)):
        if r.is_held(state, i):
            balance.mark_to_ledger(state, i, quotes.instruments[i].mark_close, ledger)
            if quotes.instruments[i].is_last == 1:
                delist(bar, t, i)
    options.book_profits(state, ledger)
    balance.mark_collateral(state, quotes.asset_mark_close, ledger)
    balance.value_at(state, quotes.mark_close, quotes.asset_mark_close)
    payments.settle_debt(bar, t)
    equity = balance.compute_account_equity(terms, state)
    is_lost = state.wallet.is_ruined == 0.0 and payments.is_account_ruined(bar, equity)
    is_lost = is_lost and money.earn(ledger) < 0.0
    if is_lost:
        payments.end_account(bar, t)
        equity = balance.compute_account_equity(terms, state)
    payments.close_calls(bar, t, is_lost)
    state.wallet.is_converting = 1.0 if balance.is_under_limit(terms, state, equity) else 0.0
    state.wallet.equity = equity
    price_walk.follow_highest(bar, t, equity)
    state.wallet.since_pool += 1.0
    for i in range(len(state.positions)):
        position = state.positions[i]
        position.since += 1.0
        position.since_stop += 1.0
    if len(state.priced) > 0:
        state.wallet.assets_so_far += money.total(ledger, money.MONEY.collateral_pnl)
        state.wallet.converted_so_far += money.total(ledger, money.MONEY.conversion)
    flows = money.total(ledger, money.MONEY.flows)
    if has_wealth(wealth, flows) and state.wallet.is_ruined == 0.0:
        state.wallet.unit = state.wallet.scale * (equity + state.wallet.reserve)
    state.wallet.peak = max(state.wallet.unit, state.wallet.peak)
    if is_lost:
        state.wallet.is_ruined = 1.0


def delist(bar: r.AccountBar, t: int, i: int) -> None:
    """Close a position at its last mark, at the taker fee."""
    rules, quote = r.share(r.pick_instrument(bar.terms, i)), bar.quotes.instruments[i]
    before = balance.pick_balances(bar.terms, bar.state, i)
    done = trade(rules, before, quote.mark_close, 0.0, 0.0, 0.0, rules.taker, quote, False)
    balance.enter_fill(bar, t, i, Event.DELISTED, before, done, 0)
