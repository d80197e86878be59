"""A bar of an account: the eight steps of section 2 of ``docs/accounting.md``, in order.

:func:`process_bar` is a bar of any account. Its steps are functions of the other files of this
room: flows, funding and interest in :mod:`.payments`, margin calls in :mod:`.margin_calls`, orders
in :mod:`.fills` and :mod:`.limit_orders`, the way of the prices in :mod:`.price_walk`, liquidations
in :mod:`.liquidation` and :mod:`.pool_liquidation`, ruin in :mod:`.ruin`, options in
:mod:`.options`.

====================  ============================================================================
word                  what it is, and its unit
====================  ============================================================================
equity                what cash, positions, collateral and options are worth, without the reserve
equity_before         the equity at the last close
wealth                equity and reserve
reserve               money outside of the account that tops it up after a margin call
unit                  value of a share of the account: its return, whatever is paid in or out
pending decision      what the policy decided at the last close, and has not filled
quote.fill            contract value at which decisions fill: the open, or a close
mark                  price by which the venue values and liquidates; the last price trades
====================  ============================================================================
"""

from __future__ import annotations

from backtest.account import (
    balance,
    equity_floors,
    exits,
    fills,
    limit_orders,
    margin_calls,
    margin_moves,
    money,
    options,
    payments,
    price_walk,
    ruin,
)
from backtest.account import records as r
from backtest.account.cut_counts import count_decisions
from backtest.account.events import Event
from backtest.account.orders import trade
from backtest.account.position import follow_prices, has_wealth
from backtest.core.structs import Structs


def process_bar(bar: r.AccountBar, t: int) -> None:
    """Take the account through bar t: the eight steps of accounting 2, in order."""
    wallet = bar.state.wallet
    equity_before = wallet.equity
    wealth_before = wallet.equity + wallet.reserve
    open_bar(bar, t, equity_before)
    finish_bar(bar, t, equity_before, wealth_before)


def open_bar(bar: r.AccountBar, t: int, equity_before: float) -> None:
    """Take an account through the steps of bar t before prices move: 0 to 6.

    ``equity_before`` is that at the last close. ``step[0]`` is the number that the log gives the
    events of a step. Times are floats of ns here: ``1.0 *`` makes them so.
    """
    terms = bar.terms
    step = bar.log.step
    start_bar(bar, t)

    # 0. Decisions that fill at the close that made them, and the market data of options.
    step[0] = 0
    if terms.fill == r.EARLY and t > 0:
        fill_early(bar, t)
    options.open_options(bar, t)
    options.book_profits(bar.state, bar.ledger)

    # 1. Deposits, withdrawals, conversion, top-ups.
    step[0] = 1
    payments.take_flows(bar, t)
    if bar.state.wallet.is_converting == 1.0:
        convert_collateral(bar, t)
    margin_calls.answer_calls(bar, t)
    follow_flows(bar, equity_before)

    # 2. Funding at the open, paid by the position carried into it.
    step[0] = 2
    payments.settle_funding(bar, t, is_open=1)
    options.expire_options(bar, t, options.EXPIRES_AT_OPEN, options.ENDLESS)

    # 3. Interest since the last open; before the first bar there is none.
    step[0] = 3
    if terms.has_interest and t > 0:
        payments.charge_interest(bar, t)

    # 4. The gap: liquidations and stops at the open, before the trader can act.
    step[0] = 4
    exits.check_gap(bar, t)
    exits.stop_by_time(bar, t, 1.0 * bar.feed.time[t])

    # 5. The fill of the decision. The first bar never trades: nothing was decided. What it opened
    # gets the time of this open, and keeps the distances of its stops from here on.
    step[0] = 5
    if terms.fill in (r.AT_OPEN, r.RESTING) and t > 0:
        fill_pending(bar, t)
    exits.stamp_openings(terms, bar.state, 1.0 * bar.feed.time[t])
    exits.keep_distances(bar)

    # 6. Funding inside the bar, on the position held now.
    step[0] = 6
    payments.settle_funding(bar, t, is_open=0)
    options.expire_options(bar, t, options.EXPIRES_INSIDE, options.ENDLESS)


def finish_bar(bar: r.AccountBar, t: int, equity_before: float, wealth_before: float) -> None:
    """Take an account through the last two of the eight steps of a bar: the walk and the close.

    Called after its fills at the open (step 5) and its funding (step 6). ``equity_before`` is the
    equity at the last close, ``wealth_before`` the same with the reserve. ``step[0]`` numbers the
    events that each step logs.
    """
    terms = bar.terms
    step = bar.log.step

    # 7. The walk along the prices. Limit orders fill on it, so openings are stamped, and what
    # limits cut of their decisions is counted, after it. The first bar has no decision.
    step[0] = 7
    price_walk.walk(bar, t)
    if terms.fill == r.RESTING:
        exits.stamp_openings(terms, bar.state, 1.0 * bar.feed.time[t])
        counts_cuts = len(bar.scratch.cuts) > 0
        if counts_cuts and t > 0 and bar.state.wallet.is_ruined == 0.0:
            count_decisions(bar, t, equity_before)
    # Trailing stops follow the extremes of the bar from the next bar on.
    follow_bests(bar)

    # 8. The close, at which late decisions fill before anything is marked.
    step[0] = 8
    if terms.fill == r.LATE:
        fill_late(bar, t)
    close_bar(bar, t, wealth_before)


def start_bar(bar: r.AccountBar, t: int) -> None:
    """Write the quotes of the bar, empty its ledger, and begin its day."""
    set_quotes(bar.terms, bar.feed, bar.quotes, t)
    exits.keep_distances(bar)
    money.clear_ledger(bar.ledger)
    bar.state.wallet.pool_failed = 0.0
    equity_floors.begin_day(bar, t)
    equity_floors.keep_pause(bar, t)


def fill_early(bar: r.AccountBar, t: int) -> None:
    """Fill decisions at the close that made them (``"same_close"``), as step 0 of the next bar.

    Positions are marked to that close first: the order starts from their profit there.
    """
    state = bar.state
    for i in range(len(state.positions)):
        if r.is_held(state, i):
            balance.mark_to_ledger(state, i, bar.quotes.instruments[i].fill, bar.ledger)
    fill_pending(bar, t)

    # A call that a forced reduction has ended is not answered again in step 1.
    for pool in range(len(state.calls)):
        if bar.ledger[pool].calls_met + bar.ledger[pool].calls_failed > 0.0:
            state.calls[pool].is_open = 0
            state.calls[pool].is_called = 0


def fill_late(bar: r.AccountBar, t: int) -> None:
    """Fill at the close of bar t what was decided at close t - 1 (``Account(fill="next_close")``).

    Called after the prices of bar t were walked through, as the old position met all of them. Its
    contracts are kept in ``walk.carried``, because the report of this bar shows them. A decision
    made at close t is not there yet: it fills at close t + 1.
    """
    state = bar.state
    for i in range(len(state.positions)):
        bar.scratch.walk[i].carried = state.positions[i].quantity
        # An instrument that is delisted is closed at this close, whatever was decided of it.
        if bar.quotes.instruments[i].is_last == 1:
            state.positions[i].is_pending = 0
    # Before the first close nothing was decided.
    if t > 0:
        fill_pending(bar, t)


def convert_collateral(bar: r.AccountBar, t: int) -> None:
    """Sell collateral at the open for a balance that was too negative at the last close."""
    state = bar.state
    state.wallet.is_converting = 0.0
    balance.value_at(state, bar.quotes.open, bar.quotes.asset_open)
    balance.sell_collateral(bar, t, -balance.compute_balance(bar.terms, state))


def follow_flows(bar: r.AccountBar, equity_before: float) -> None:
    """Adjust what returns and losses are measured from to the flows and top-ups of this bar.

    So a deposit is no gain and a withdrawal no loss. The unit value, which returns are of, stays.
    The highest equity, for the equity stop, changes in proportion. The equity at which the day and
    the week began, for the limits of loss, changes by the amount. ``equity_before`` is that at the
    last close.
    """
    wallet = bar.state.wallet
    rescale_unit(bar.state, bar.ledger, equity_before)
    moved = money.total_from_outside(bar.ledger)

    # The equity stop: the highest equity changes in proportion (section 5).
    if bar.terms.equity_stop > 0.0 and moved != 0.0 and equity_before > 0.0:
        ratio = (equity_before + moved) / equity_before
        wallet.highest = max(wallet.highest * ratio, 0.0)
    # The losses of the day and the week count from an equity that flows are added to.
    if len(bar.feed.days) > 0:
        wallet.day_open += moved
        wallet.week_open += moved


def set_quotes(terms: r.Terms, feed: r.MarketFeed, quotes: r.MarketBar, t: int) -> None:
    """Write the quotes of bar t as contract values, and the multipliers and costs of its date.

    Multipliers go into the margin tables of ``terms`` too, and costs that change by date into the
    rules there, so that all rules of the bar read those of its date. The quote of an instrument
    that is not listed keeps what it had, but for ``is_listed`` and ``is_last``.
    """
    for i in range(len(quotes.instruments)):
        quote = quotes.instruments[i]
        # The last bar of an instrument that is delisted after it.
        is_last = feed.ends[i] == 1 and t == feed.span[i, 1] - 1
        quote.is_last = 1 if is_last else 0
        # Writes listing, open and limit of leverage.
        if not r.read_open(terms, feed, quote, t, i):
            continue
        r.read_extremes(terms, feed, quote, t, i)
        r.read_mark_close(terms, feed, quote, t, i)
        r.read_multipliers(terms, feed, quote, t, i)
        r.read_scales(feed, quote, t, i)

        # What the bar trades and knows, and what orders cost in it.
        quote.close = r.read_value(terms, feed.close, t, i)
        r.read_known(feed, quote, t, i)
        quote.order_fee = r.at_column(feed.order_fee, t, i)
        # A single row: no cost changes by date.
        if len(feed.costs) > 1:
            r.write_costs(terms, feed.costs[t], i)

        set_fill(terms, feed, quote, t, i)

    for c in range(len(quotes.assets)):
        set_asset(terms, feed, quotes.assets[c], t, c)


def set_fill(terms: r.Terms, feed: r.MarketFeed, quote: r.Quote, t: int, i: int) -> None:
    """Write at which contract values orders of instrument i fill in bar t, by ``terms.fill``.

    ``quote.fill`` is where market orders fill. ``quote.decided`` is the close from which the limits
    of limit orders are measured; other orders do not read it.

    ==========  ======================  ======================
    terms.fill  quote.fill              quote.decided
    ==========  ======================  ======================
    AT_OPEN     open of bar t           open of bar t
    EARLY       close of bar t - 1      close of bar t - 1
    LATE        close of bar t          close of bar t
    RESTING     open of bar t           close of bar t - 1
    ==========  ======================  ======================
    """
    quote.fill = quote.open
    quote.decided = quote.open
    if terms.fill == r.AT_OPEN:
        return

    # Where the instrument has no data in the bar of that close, no order was decided on it, and
    # both stay at the open.
    bar_of_close = t if terms.fill == r.LATE else max(t - 1, 0)
    if not feed.span[i, 0] <= bar_of_close < feed.span[i, 1]:
        return
    quote.decided = r.read_value(terms, feed.close, bar_of_close, i)
    if terms.fill in (r.LATE, r.EARLY):
        quote.fill = quote.decided


def set_asset(terms: r.Terms, feed: r.MarketFeed, asset: r.Quote, t: int, c: int) -> None:
    """Write the prices of collateral c in bar t into its quote, ``asset``.

    ``fill`` is the price at which it is sold, when orders fill (``terms.fill``): the close of this
    bar for LATE, the close of the last bar for EARLY, else the open.
    """
    asset.open = feed.asset_open[c, t]
    asset.mark_open = feed.asset_mark_open[c, t]
    asset.mark_low = feed.asset_mark_low[c, t]
    asset.mark_high = feed.asset_mark_high[c, t]
    asset.mark_close = feed.asset_mark_close[c, t]

    asset.fill = asset.open
    if terms.fill == r.LATE:
        asset.fill = feed.asset_close[c, t]
    elif terms.fill == r.EARLY:
        asset.fill = feed.asset_close[c, max(t - 1, 0)]


def rescale_unit(state: r.AccountState, ledger: Structs[money.Money], equity: float) -> None:
    """Keep the unit value unchanged by flows: unit = scale (equity + reserve)."""
    flows = money.total(ledger, money.MONEY.flows)
    wealth = equity + state.wallet.reserve + money.total(ledger, money.MONEY.top_up)
    if flows != 0.0 and has_wealth(wealth, flows):
        state.wallet.scale = state.wallet.unit / (wealth + flows)


def fill_pending(bar: r.AccountBar, t: int) -> None:
    """Fill or place in bar t the orders of what the last close decided (step 5).

    Changes of margin settings come before them, and so do reductions that the venue forces, which
    drop the decisions of what they reduce.
    """
    terms = bar.terms
    state = bar.state
    if state.wallet.is_ruined != 0.0:
        return

    balance.value_at(state, bar.quotes.fill, bar.quotes.asset_fill)
    equity = balance.compute_account_equity(terms, state)
    margin_moves.change_settings(bar, t)
    # Only a venue that waits for margin after a call forces reductions: others have no grace, -1.
    if terms.grace >= 0.0:
        margin_calls.force_reductions(bar, t)

    # Market orders are sized by the equity at their fill.
    if terms.fill != r.RESTING:
        fills.fill_decisions(bar, t, equity)
        return

    # Limit orders are sized by the equity at the close that decided them. An account that a gap
    # left without equity places none.
    equity_of_decision = state.wallet.equity if equity > 0.0 else 0.0
    limit_orders.place_orders(bar, t, equity_of_decision)


def follow_bests(bar: r.AccountBar) -> None:
    """Advance the best contract value of trailing stops by this bar; 0 where nothing is held.

    ``best`` of a position is the best last price since it was opened. It moves after the walk, so
    that a stop follows an extreme from the next bar on.
    """
    state = bar.state
    for i in range(len(state.positions)):
        position = state.positions[i]
        if not r.is_held(state, i):
            position.best = 0.0
            continue

        # The extremes of the bar may have come before a limit order opened the position.
        opened_now = bar.scratch.plans[i].opened_now == limit_orders.OPENED
        if bar.terms.fill == r.RESTING and opened_now:
            continue
        quote = bar.quotes.instruments[i]
        if quote.is_listed == 1 and r.has_exits(bar.terms, i):
            position.best = follow_prices(position.best, r.pick_position(state, i), quote)


def close_bar(bar: r.AccountBar, t: int, wealth_before: float) -> None:
    """Mark the account at the close of bar t, test ruin and calls, and write equity and unit.

    That is step 8 of a bar. Each part reads what those before it wrote, so their order is a rule:
    marks and debts, ruin, margin calls, then equity, counts and the unit value. ``wealth_before``
    are equity and reserve at the last close.
    """
    terms = bar.terms
    wallet = bar.state.wallet
    mark_account(bar, t)
    ruin.settle_debt(bar, t)
    equity = balance.compute_account_equity(terms, bar.state)

    # Ruin comes before calls: a ruined account fails its calls. A bar without a loss ruins nobody.
    is_lost = wallet.is_ruined == 0.0 and ruin.is_account_ruined(bar, equity)
    is_lost = is_lost and money.earn(bar.ledger) < 0.0
    if is_lost:
        ruin.end_account(bar, t)
        equity = balance.compute_account_equity(terms, bar.state)
    margin_calls.close_calls(bar, t, is_lost)

    # The next open converts collateral where the balance is too negative here.
    must_convert = balance.is_under_limit(terms, bar.state, equity)
    wallet.is_converting = 1.0 if must_convert else 0.0
    wallet.equity = equity
    equity_floors.follow_highest(bar, t, equity)
    count_bars(bar)

    # The bar of the ruin still has a return, so the unit is written before the flag.
    follow_unit(bar, equity, wealth_before)
    if is_lost:
        wallet.is_ruined = 1.0


def mark_account(bar: r.AccountBar, t: int) -> None:
    """Mark positions, options and collateral at the close, and close what is delisted.

    To mark is to enter the profit since the last mark into the ledger. Last, the account is valued
    at the closes, which is what the tests after this read.
    """
    state = bar.state
    quotes = bar.quotes
    options.value_options_at_close(bar, t)
    for i in range(len(state.positions)):
        if not r.is_held(state, i):
            continue
        quote = quotes.instruments[i]
        balance.mark_to_ledger(state, i, quote.mark_close, bar.ledger)
        if quote.is_last == 1:
            delist(bar, t, i)

    options.book_profits(state, bar.ledger)
    balance.mark_collateral(state, quotes.asset_mark_close, bar.ledger)
    balance.value_at(state, quotes.mark_close, quotes.asset_mark_close)


def count_bars(bar: r.AccountBar) -> None:
    """Count the bars since liquidations and stops, and add the bar's money of collateral.

    Sweeps and stress tests, which keep no bars, read the sums of that money since the start: the
    profit of collateral, and the cost of what was converted.
    """
    state = bar.state
    wallet = state.wallet
    wallet.since_pool += 1.0
    for i in range(len(state.positions)):
        position = state.positions[i]
        position.since += 1.0
        position.since_stop += 1.0

    # Without collateral, nothing has prices to be marked at.
    if len(state.priced) > 0:
        wallet.assets_so_far += money.total(bar.ledger, money.MONEY.collateral_pnl)
        wallet.converted_so_far += money.total(bar.ledger, money.MONEY.conversion)


def follow_unit(bar: r.AccountBar, equity: float, wealth_before: float) -> None:
    """Write the value of a unit at the close, and its peak.

    An account that flows have emptied has no return: its unit stays.
    """
    wallet = bar.state.wallet
    flows = money.total(bar.ledger, money.MONEY.flows)
    if has_wealth(wealth_before, flows) and wallet.is_ruined == 0.0:
        wallet.unit = wallet.scale * (equity + wallet.reserve)
    wallet.peak = max(wallet.unit, wallet.peak)


def delist(bar: r.AccountBar, t: int, i: int) -> None:
    """Close a position at its last mark, at the taker fee."""
    rules = r.by_reference(r.pick_instrument(bar.terms, i))
    quote = bar.quotes.instruments[i]
    before = balance.pick_balances(bar.terms, bar.state, i)
    rates = r.CostRates(slippage=0.0, impact=0.0, fee=rules.taker)
    done = trade(rules, before, quote.mark_close, 0.0, rates, quote, is_order=False)
    balance.enter_fill(bar, t, i, Event.DELISTED, before, done, stops=0)
