"""A bar in which prices move, funding is paid and the orders of an account fill: nothing else acts.

Such a bar is *quiet*. Its other steps, those of :mod:`.bar`, have nothing to do, so a few tests and
one valuation take their place; a bar that may not be quiet is left to :func:`.bar.process_bar`,
which gives a quiet bar the same numbers. An account of any positions asks
:func:`take_together`. That of one position has functions of its own, on values that stay in
registers: its notional lies in a bracket of the margin table, which stays the same from bar to bar
as long as the notional stays inside.

====================  ==============================================================================
word                  what it is, and its unit
====================  ==============================================================================
value                 contract value: notional of one contract, signed as by its kind
opened                equity at the open of the bar, before any fill: money
due                   of settlements of funding: none, one at the open of the bar, or others too
bracket               row of the margin table: notionals ``above`` a limit, and at ``most`` another
bound                 a test that may find too many bars, and never too few, that are not quiet
crossed               a cross position is held, which stands behind the cash
sound                 nothing is left to do at the close: equity and wallet are not under 0, no ruin
====================  ==============================================================================
"""

from __future__ import annotations

import math
from typing import NamedTuple

from backtest import margin
from backtest.account import balance, fills, money, payments, price_walk
from backtest.account import bar as bars
from backtest.account import position as p
from backtest.account import records as r
from backtest.account.cut_counts import count_decisions
from backtest.account.equity_floors import CAUTION
from backtest.account.money import Wallet
from backtest.account.orders import is_outside, is_too_small
from backtest.core import FloatArray
from backtest.core.kernels import inlined
from backtest.core.units import TOLERANCE

HAS_ORDER_FEE = r.FLAGS.index("has_order_fee")
HAS_EXITS = r.FLAGS.index("has_exits")
LEFT, QUIET, PAID, FILLED, WHOLE = range(5)
"""How a bar was passed: not at all, without a fill, so and with funding, with fills, or with fills
and general steps."""
NONE_DUE, OPEN_DUE, MORE_DUE = range(3)
"""Settlements of funding in a bar: none, a single one at its open, or others."""


class One(NamedTuple):
    """The only position, and what stays the same of it while its bars are quiet.

    ``level`` is that of its margin test: 1 if it is isolated, else that of the pool.
    """

    wallet: Wallet
    position: r.PositionState
    quote: r.Quote
    plan: r.OrderPlan
    size: float
    is_inverse: bool
    is_isolated: bool
    has_stop: bool
    level: float


class Prices(NamedTuple):
    """Prices of the market, of shape (n_bars,), and the largest leverage by date."""

    open: FloatArray
    high: FloatArray
    low: FloatArray
    mark_open: FloatArray
    mark_high: FloatArray
    mark_low: FloatArray
    mark_close: FloatArray
    limit: FloatArray


class Unpaid(NamedTuple):
    """What a settlement of funding changes in an account of one position, as it was before."""

    cash: float
    margin: float
    last_funding: float
    events: int


class InitialBracket(NamedTuple):
    """Initial margin of notionals over ``above`` and up to ``most``: N * multiplier / leverage."""

    leverage: float
    multiplier: float
    above: float
    most: float


def may_be_quiet(terms: r.Terms, feed: r.MarketFeed, state: r.AccountState) -> bool:
    """Return whether an account may have quiet bars at all, by its rules; asked once for a run.

    A quiet bar is one in which prices move and orders fill at the open, and nothing else acts.
    """
    # Interest, margin calls and time stops act in bars without a fill. Limit orders and fills at a
    # close need other prices than the open.
    if terms.has_interest or terms.margin_call != 0.0 or terms.tracks_openings:
        return False
    if terms.fill != r.AT_OPEN:
        return False

    # Collateral and options have prices of their own.
    if len(state.held.amounts) > 0 or len(state.options.targets) > 0:
        return False

    # What changes by date must be written into the rules, bar by bar. Columns of one row hold for
    # all bars.
    if len(feed.multiplier) != 1 or len(feed.initial) != 1 or len(feed.costs) != 1:
        return False
    for i in range(len(state.positions)):
        if terms.flags[i, HAS_ORDER_FEE] != 0 or terms.flags[i, HAS_EXITS] != 0:
            return False
    return True


def is_one_plain(terms: r.Terms, state: r.AccountState) -> bool:
    """Return whether the account has one position, under the plain rules of margin.

    They are brackets at the price now: no scenarios, no rule of the user's own, no spot leg.
    """
    if len(state.positions) != 1:
        return False
    rules = terms.rules
    is_plain = rules.own == 0 and not rules.has_scenarios and not rules.spot.has_any
    is_plain = is_plain and not rules.brackets.are_valued_at_entry[0]
    # A cap of gross leverage and floors of the equity have steps of their own.
    return bool(is_plain and terms.max_gross_leverage == math.inf and not terms.has_floor)


def take_together(bar: r.AccountBar, t: int, is_clear: bool) -> int:
    """Simulate bar t by a fast path, for bars in which nothing acts but prices and orders.

    The fast path leaves out the steps of a bar that would do nothing, and gives the same numbers.
    Returns what happened:

    - LEFT: it cannot take this bar. The caller must take all steps (:func:`.bar.process_bar`),
      which write again what was written here, quotes and values;
    - QUIET: prices moved, and nothing else;
    - FILLED: orders filled too;
    - WHOLE: orders filled, and after that more may act, so the bar was ended by the general steps.

    ``is_clear`` says that the ledger holds nothing but price profits, as after a QUIET bar, so that
    it need not be emptied.
    """
    terms = bar.terms
    state = bar.state
    quotes = bar.quotes
    if is_event_due(bar.feed, state, t):
        return LEFT

    # Orders are chosen from the equity at the open. A venue that reduces positions after a margin
    # call does so before they fill.
    set_opens(bar, t)
    balance.value_at(state, quotes.open, quotes.asset_open)
    opened = balance.compute_account_equity(terms, state)
    plan_opens(bar, opened)
    is_filling = is_any_filling(bar.scratch)
    has_reductions = terms.grace >= 0.0
    if is_filling and has_reductions:
        return LEFT

    # Steps 1 to 4 have nothing to do if no price of the bar liquidates or stops what is held.
    if not set_rest(bar, t, is_filling) or not price_walk.is_quiet(bar):
        return LEFT

    # Steps 5 to 7. Orders fill, and then no price of the bar may liquidate or stop what is held.
    equity_before: float = state.wallet.equity
    is_calm = True
    if is_filling:
        begin_ledger(bar)
        fill_at_open(bar, t, opened)
        is_calm = balance.count_open(state) > 0 and price_walk.is_quiet(bar)

    # Step 8, the close. If it needs more than marks, a bar without fills can still be left to the
    # caller. A bar with fills cannot, so the general steps end it here.
    balance.value_at(state, quotes.mark_close, quotes.asset_mark_close)
    equity = balance.compute_account_equity(terms, state)
    if not (is_calm and is_sound(terms, state, equity)):
        if not is_filling:
            return LEFT
        finish_at_close(bar, t, equity_before)
        return WHOLE

    # The ledger of the last bar is emptied, if there is more in it than the profits that
    # close_together writes over. Before fills it was emptied above.
    if not is_filling and not is_clear:
        money.clear_ledger(bar.ledger)
    close_together(bar, equity, is_filling)
    if is_filling:
        return FILLED
    if len(bar.scratch.cuts) > 0:
        count_quiet_decisions(bar, t, opened)
    return QUIET


def close_together(bar: r.AccountBar, equity: float, is_filling: bool) -> None:
    """Mark all positions at the close of a quiet bar, and enter their profits into the ledger.

    A quiet bar is one in which prices move and orders fill, and nothing else acts. ``is_filling``
    says that orders did: then fills have entered the profit up to their price into ``price_pnl``,
    and marked the position there. Without fills what stands there is of the last bar. ``equity`` is
    that at the close.
    """
    state = bar.state
    for i in range(len(state.positions)):
        position = state.positions[i]
        profit = 0.0
        if position.quantity != 0.0:
            # From the value at which it was last marked to the close.
            close = bar.quotes.instruments[i].mark_close
            profit += position.quantity * (close - position.marked)
            position.marked = close
        elif is_filling:
            # Fills may have closed it: a flat position has no best value since its entry.
            position.best = 0.0

        if is_filling:
            profit += bar.ledger[i].price_pnl
        bar.ledger[i].price_pnl = profit

        # Bars since the last liquidation, and since the last stop.
        position.since += 1.0
        position.since_stop += 1.0
    close_wallet(state.wallet, equity)


@inlined
def close_wallet(wallet: Wallet, equity: float) -> None:
    """Write the equity at the close of a quiet bar, and the unit value.

    The unit value is scale * (equity + reserve): the return of the account, whatever is paid in or
    out. An account without wealth at the last close has no return: its unit stays. ``since_pool``
    counts bars since the pool was last liquidated.
    """
    # Read before the equity is written over: that of the last close.
    wealth_before = wallet.equity + wallet.reserve
    wallet.pool_failed = 0.0
    wallet.since_pool += 1.0
    wallet.equity = equity
    if p.has_wealth(wealth_before, 0.0) and wallet.is_ruined == 0.0:
        wallet.unit = wallet.scale * (equity + wallet.reserve)
    wallet.peak = max(wallet.unit, wallet.peak)


def count_quiet_decisions(bar: r.AccountBar, t: int, equity: float) -> None:
    """Count the decisions of a quiet bar t in which no order filled, for the report of cuts.

    Orders that are under the minimum notional have only been bounded: their stages are written by
    the general steps, which fill nothing.
    """
    if not fills.has_order(bar.scratch, r.SMALL):
        count_decisions(bar, t, equity)
        return
    fills.fill_decisions(bar, t, equity)
    balance.value_at(bar.state, bar.quotes.mark_close, bar.quotes.asset_mark_close)


def is_event_due(feed: r.MarketFeed, state: r.AccountState, t: int) -> bool:
    """Return whether a listing, a flow or a settlement of funding is due in bar t.

    ``span`` has the first bar of each instrument. ``cursor`` has the numbers of the next flow and
    the next settlement in the feed, whose columns have the bar of each.
    """
    for i in range(len(state.positions)):
        if feed.span[i, 0] == t:
            return True

    flow = state.cursor[r.FLOW_NEXT]
    if flow < len(feed.flow_bar) and feed.flow_bar[flow] == t:
        return True
    settlement = state.cursor[r.FUNDING_NEXT]
    return bool(settlement < len(feed.funding_bar) and feed.funding_bar[settlement] == t)


def set_opens(bar: r.AccountBar, t: int) -> None:
    """Write what decides whether an order fills: listing, opens and limits."""
    for i in range(len(bar.state.positions)):
        quote = bar.quotes.instruments[i]
        if r.read_open(bar.terms, bar.feed, quote, t, i):
            quote.fill = quote.open


def set_rest(bar: r.AccountBar, t: int, is_filling: bool) -> bool:
    """Write marks and extremes of what is or may be held into the quotes of bar t.

    ``is_filling`` says that an order fills at the open: then anything listed may be held. Returns
    False if the general steps must take the bar: prices are missing, an open lies outside of low
    and high, or an instrument that is or may be held ends.
    """
    feed = bar.feed
    state = bar.state
    for i in range(len(state.positions)):
        quote = bar.quotes.instruments[i]
        if quote.is_listed == 0:
            continue
        r.read_mark_close(bar.terms, feed, quote, t, i)
        if state.positions[i].quantity == 0.0 and not is_filling:
            continue

        # In its last bar an instrument that ends is closed.
        if feed.ends[i] == 1 and t == feed.span[i, 1] - 1:
            return False

        # Prices that are missing, NaN, fail these tests too.
        r.read_extremes(bar.terms, feed, quote, t, i)
        if not quote.low <= quote.open <= quote.high:
            return False
        if not quote.mark_low <= quote.mark_open <= quote.mark_high:
            return False
    return True


def plan_opens(bar: r.AccountBar, equity: float) -> None:
    """Write into plans which orders would fill at the open, before margin and wallet cut them.

    ``equity`` is that at the open: targets are multiples of it. Quotes must have the opens before.
    """
    # With a cap of gross leverage an order depends on those of the other positions.
    if bar.terms.max_gross_leverage < math.inf:
        fills.choose_orders(bar, equity)
        return

    state = bar.state
    for i in range(len(state.positions)):
        quote = bar.quotes.instruments[i]
        plan = bar.scratch.plans[i]
        plan.kind = r.NO_TARGET
        if quote.is_listed != 0:
            rules = r.pick_instrument(bar.terms, i)
            plan_open(rules, state.wallet, state.positions[i], quote, plan, equity)


def is_any_filling(scratch: r.Scratch) -> bool:
    """Return whether an order would fill at the open, by what :func:`plan_opens` has written.

    Its kind is FILLS, or under a cap of gross leverage one of REDUCE and INCREASE.
    """
    for i in range(len(scratch.plans)):
        if scratch.plans[i].kind in (r.FILLS, r.REDUCE, r.INCREASE):
            return True
    return False


@inlined
def plan_open(
    rules: r.InstrumentRules,
    wallet: Wallet,
    position: r.PositionState,
    quote: r.Quote,
    plan: r.OrderPlan,
    equity: float,
) -> None:
    """Write into the plan of an instrument what its decision would trade at the open.

    That is its target, the notional held, and its kind: FILLS if an order would fill, before limits
    of margin have cut it. Else nothing trades: NO_TARGET (nothing was decided), IN_BAND (the target
    is near what is held) or SMALL (surely under the minimum notional). ``equity`` is that at the
    open.
    """
    plan.kind = r.NO_TARGET
    if position.is_pending == 0.0 or wallet.is_ruined != 0.0:
        return

    # Where trading has ended, what is held is closed.
    if position.is_halted == 1.0 or wallet.is_over != 0.0:
        if position.quantity != 0.0:
            plan.kind = r.FILLS
        return

    target = fills.measure_order(rules, wallet, position, quote, equity)
    if not target.is_there:
        return
    notional = target.notional
    notional_held = target.notional_held
    plan.notional_held = notional_held
    plan.target = notional

    # 4.2 The band. An infinite target is outside of any, and never too small: limits cut it.
    is_infinite = notional == math.inf
    if not is_infinite and not is_outside(rules, equity, notional, notional_held):
        plan.kind = r.IN_BAND
    elif not is_infinite and is_too_small(rules, abs(quote.fill), notional, notional_held):
        plan.kind = r.SMALL
    else:
        plan.kind = r.FILLS


def is_sound(terms: r.Terms, state: r.AccountState, equity: float) -> bool:
    """Return whether the close of a quiet bar needs only marks: no debt to settle, and no ruin.

    Counts what is held for :func:`is_sound_with`, which has the tests. ``equity`` is that at the
    close.
    """
    is_held = False
    is_crossed = False
    for i in range(len(state.positions)):
        if state.positions[i].quantity != 0.0:
            is_held = True
            is_crossed = is_crossed or not r.is_isolated(terms, i)
    return is_sound_with(terms, state.wallet, equity, is_held, is_crossed)


@inlined
def is_sound_with(
    terms: r.Terms, wallet: Wallet, equity: float, is_held: bool, is_crossed: bool
) -> bool:
    """Return whether the close of a quiet bar needs only marks: no debt to settle, and no ruin.

    ``equity`` is that at the close. ``is_held``: the account holds anything. ``is_crossed``: it
    holds a cross position, which stands behind a cash that is negative.
    """
    if equity < 0.0 or (not is_crossed and wallet.cash < 0.0):
        return False
    # Where nothing is held nothing is lost, and a bar without a loss ruins nobody.
    if not is_held or wallet.is_ruined != 0.0:
        return True

    # 5. Ruin: wealth under the limit of the account, or nothing left to trade with.
    wealth = equity + wallet.reserve
    paid_in = wallet.paid_in
    is_ruined = wealth <= terms.ruin_at * paid_in * (1.0 + TOLERANCE)
    is_empty = equity <= p.NOTHING_LEFT * paid_in * (1.0 + TOLERANCE)
    return not (is_ruined or is_empty)


@inlined
def pick_prices(feed: r.MarketFeed) -> Prices:
    """Return the prices of the only instrument, which compiled code keeps in registers."""
    return Prices(
        open=feed.open[:, 0],
        high=feed.high[:, 0],
        low=feed.low[:, 0],
        mark_open=feed.mark_open[:, 0],
        mark_high=feed.mark_high[:, 0],
        mark_low=feed.mark_low[:, 0],
        mark_close=feed.mark_close[:, 0],
        limit=feed.limit[:, 0],
    )


def find_quiet_end(bar: r.AccountBar, t: int, stop: int) -> int:
    """Return the first bar from t on, at most ``stop``, in which more than a price may act.

    For an account of one instrument. That is the bar of the next deposit or withdrawal, the last
    bar of an instrument that is delisted, or bar t itself if the instrument was not listed before
    it. Funding is not looked at: :func:`find_due` tells it bar by bar.
    """
    feed = bar.feed
    if feed.span[0, 0] >= t:
        return t

    # ``span`` ends one past the last bar. ``ends`` is 1 for an instrument that is delisted, whose
    # last bar, in which it is closed, is left out too.
    end = min(stop, feed.span[0, 1] - feed.ends[0])
    flow = bar.state.cursor[r.FLOW_NEXT]
    if flow < len(feed.flow_bar):
        end = min(end, feed.flow_bar[flow])
    return int(end)


@inlined
def find_due(feed: r.MarketFeed, state: r.AccountState, t: int) -> int:
    """Return which funding settlements are due in bar t: NONE_DUE, OPEN_DUE or MORE_DUE.

    OPEN_DUE is a single one at the open of the bar, which a quiet bar can pay; MORE_DUE is anything
    else. ``cursor`` has the number of the next settlement in the feed.
    """
    settlement = state.cursor[r.FUNDING_NEXT]
    count = len(feed.funding_bar)
    if settlement >= count or feed.funding_bar[settlement] != t:
        return NONE_DUE

    # One inside the bar comes after the fills, and is for the general bar.
    is_followed = settlement + 1 < count and feed.funding_bar[settlement + 1] == t
    if is_followed or feed.funding_is_open[settlement] == 0:
        return MORE_DUE
    return OPEN_DUE


@inlined
def pick_unpaid(bar: r.AccountBar, one: One) -> Unpaid:
    """Return what :func:`put_back` needs to undo a settlement."""
    return Unpaid(
        cash=one.wallet.cash,
        margin=one.position.margin,
        last_funding=one.position.last_funding,
        events=bar.log.written[0],
    )


def pay_at_open(bar: r.AccountBar, one: One, mark_open: float, t: int) -> None:
    """Pay the settlement at the open of bar t, as step 2 of a bar: ledger and log begin with it.

    ``mark_open`` is a contract value. Whether an isolated position fails then is tested with the
    prices of the whole bar, of which the mark open is one.
    """
    begin_ledger(bar)
    one.quote.mark_open = mark_open
    bar.log.step[0] = 2
    payments.pay_next(bar, t)
    bar.log.step[0] = 8


def put_back(bar: r.AccountBar, one: One, unpaid: Unpaid) -> None:
    """Undo :func:`pay_at_open` in the account, before the general steps take the bar.

    The ledger stays, as they empty it first. ``unpaid`` is what :func:`pick_unpaid` kept.
    """
    one.wallet.cash = unpaid.cash
    one.position.margin = unpaid.margin
    one.position.last_funding = unpaid.last_funding
    bar.log.written[0] = unpaid.events
    bar.state.cursor[r.FUNDING_NEXT] -= 1


@inlined
def find_initial_bracket(terms: r.Terms, notional: float) -> InitialBracket:
    """Return the bracket of initial margin in which a notional of the only instrument lies.

    There the initial margin is notional * multiplier / leverage, for all notionals over ``above``
    and up to ``most``.
    """
    tables = terms.rules.brackets
    multiplier = tables.initial_multipliers[0]

    # A venue leverage that is set holds for all notionals, and is at most that of the first
    # bracket. The multiplier divides the leverages of the table, not the setting: it is 1 here.
    setting = tables.settings[0]
    if setting > 0.0:
        leverage = min(setting, tables.leverages[0, 0] / multiplier)
        return InitialBracket(leverage=leverage, multiplier=1.0, above=-1.0, most=math.inf)

    # -1 is below every notional, as that of a flat position is 0.
    above = -1.0
    k = 0
    last = tables.counts[0] - 1
    while k < last and notional > tables.caps[0, k]:
        above = tables.caps[0, k]
        k += 1
    # The last bracket holds beyond its cap too.
    most = tables.caps[0, k] if k < last else math.inf
    return InitialBracket(
        leverage=tables.leverages[0, k], multiplier=multiplier, above=above, most=most
    )


@inlined
def follow_bracket(
    terms: r.Terms, bracket: margin.MarginBracket, notional: float
) -> margin.MarginBracket:
    """Return the bracket of a notional, if it may be another one than it was."""
    if bracket.above < notional <= bracket.most:
        return bracket
    return margin.find_bracket(terms.rules.brackets, 0, notional)


@inlined
def follow_initial_bracket(
    terms: r.Terms, initial: InitialBracket, notional: float
) -> InitialBracket:
    """Return the initial bracket of a notional, if it may be another one than it was."""
    if initial.above < notional <= initial.most:
        return initial
    return find_initial_bracket(terms, notional)


@inlined
def compute_in_bracket(terms: r.Terms, bracket: margin.MarginBracket, notional: float) -> float:
    """Return the maintenance margin of a notional, which need not lie in the bracket."""
    if bracket.above < notional <= bracket.most:
        return bracket.rate * notional - bracket.amount
    return float(margin.find_maintenance(terms.rules.brackets, 0, notional))


@inlined
def value_one(one: One, prices: FloatArray, t: int) -> float:
    """Return a price of bar t as a contract value."""
    return margin.compute_value(one.size, one.is_inverse, prices[t])


@inlined
def open_quietly(one: One, prices: Prices, t: int) -> float:
    """Write the open of bar t into the quote of the only instrument; return the equity there.

    Listing, open, price of the fill and largest leverage are what decides whether an order fills.
    """
    quote = one.quote
    opened = value_one(one, prices.open, t)
    quote.is_listed = 1.0
    quote.open = opened
    quote.fill = opened
    quote.limit = r.at(prices.limit, t)
    return compute_equity_of_one(one, opened)


@inlined
def compute_equity_of_one(one: One, value: float) -> float:
    """Return the equity of an account of one position at a contract value: money, without reserve.

    The cash has paid the entry of a cross position, so its whole value counts. For an isolated one
    it has paid the margin alone, so margin and profit count.
    """
    cash = one.wallet.cash
    position = one.position
    if one.is_isolated:
        isolated = position.margin
        if position.quantity != 0.0:
            isolated += position.quantity * (value - position.entry)
        return cash + isolated

    # The value of an instrument that is not held may be NaN.
    if position.quantity == 0.0:
        return cash
    return cash + position.quantity * value


@inlined
def is_quiet_alone(
    terms: r.Terms,
    rules: r.InstrumentRules,
    one: One,
    prices: Prices,
    bracket: margin.MarginBracket,
    t: int,
) -> bool:
    """Return whether no price of bar t can liquidate or stop the position; False is not certain.

    Its excess, what backs it less its requirement, is concave in the price, so it is least at one
    of the two extremes of the mark. ``bracket`` is the row of the margin table at the last close: a
    notional outside of it is looked up.
    """
    position = one.position
    quantity = position.quantity
    if quantity == 0.0:
        return True
    # Prices that are missing, NaN, or an open beyond the extremes are for the general bar.
    if not prices.low[t] <= prices.open[t] <= prices.high[t]:
        return False
    if not prices.mark_low[t] <= prices.mark_open[t] <= prices.mark_high[t]:
        return False

    # What backs the position at a price: money that no price changes, and the signed notional.
    fixed = one.wallet.cash
    if one.is_isolated:
        fixed = position.margin - quantity * position.entry
    notional_low = quantity * value_one(one, prices.mark_low, t)
    notional_high = quantity * value_one(one, prices.mark_high, t)

    # The excess without the fixed money, at both extremes.
    needed_at_low = one.level * compute_in_bracket(terms, bracket, abs(notional_low))
    needed_at_high = one.level * compute_in_bracket(terms, bracket, abs(notional_high))
    least = min(notional_low - needed_at_low, notional_high - needed_at_high)

    # CAUTION is the part of the notional that must be left: more than float rounding. NaN is not
    # over it either.
    largest_notional = max(abs(notional_low), abs(notional_high))
    if not fixed + least > CAUTION * largest_notional:
        return False

    # The stop of the last price, at its adverse extreme.
    if not one.has_stop:
        return True
    held = r.Position(quantity, position.entry, position.margin, position.marked)
    low = value_one(one, prices.low, t)
    high = value_one(one, prices.high, t)
    return not p.is_stopped(rules, held, p.find_adverse(held, low, high))


def begin_ledger(bar: r.AccountBar) -> None:
    """Empty the ledger for a bar in which more than prices act."""
    money.clear_ledger(bar.ledger)
    bar.state.wallet.pool_failed = 0.0


def fill_at_open(bar: r.AccountBar, t: int, equity: float) -> None:
    """Fill what the last close decided, in a quiet bar: no step before the fills had to act.

    Quotes have the opens of the bar already; volume and volatility, known at the last close, are
    read here. Margins and costs do not change by date in an account that may be quiet. The log
    numbers events by the step of the bar that writes them: fills are those of step 5, and the
    bar goes on with step 8.
    """
    for i in range(len(bar.state.positions)):
        quote = bar.quotes.instruments[i]
        if quote.is_listed == 1.0:
            r.read_known(bar.feed, quote, t, i)

    step = bar.log.step
    step[0] = 5
    fills.fill_decisions(bar, t, equity)
    step[0] = 8


def finish_at_close(bar: r.AccountBar, t: int, equity_before: float) -> None:
    """Take an account from its fills at the open through the bar; its equity was that before."""
    bars.set_quotes(bar.terms, bar.feed, bar.quotes, t)
    bars.finish_bar(bar, t, equity_before, equity_before + bar.state.wallet.reserve)


@inlined
def close_quietly(one: One, close: float, equity: float) -> float:
    """Mark the account of one position at the close of a quiet bar; return the profit since marked.

    ``close`` is the contract value of the mark close, ``equity`` that of the account there. Writes
    quote, position and wallet; the caller enters the profit, money, into the ledger.
    """
    position = one.position
    one.quote.mark_close = close
    position.value = close

    profit = 0.0
    if position.quantity != 0.0:
        profit += position.quantity * (close - position.marked)
        position.marked = close

    # Bars since the last liquidation, and since the last stop.
    position.since += 1.0
    position.since_stop += 1.0

    close_wallet(one.wallet, equity)
    return profit
