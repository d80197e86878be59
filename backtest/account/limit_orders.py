"""Orders that rest at a limit: placed at the open, filled on the way of the prices.

:func:`place_orders` takes the steps of :mod:`.fills`, whose words these are, for
``Account(fill="limit")``: step 5 of a bar. :func:`fill_resting` fills one of them in step 7, once
the price has gone beyond its limit.

====================  ============================================================================
word                  what it is, and its unit
====================  ============================================================================
limit_value           contract value at the limit of an order
beyond_limit          contract value that prices must reach to fill it; NaN if there is none
resting_quantity      signed contracts to hold after the fill; NaN if no order rests
opened_now            what a resting order did to its position in this bar: OPENED, INCREASED or 0
====================  ============================================================================
"""

from __future__ import annotations

import math

from backtest import margin
from backtest.account import balance, fills, order_limits, orders
from backtest.account import records as r
from backtest.account.events import Event
from backtest.account.position import worsen

# Placing.

TICK_SLACK = 1e-6
"""Part of a tick by which a price may miss the price beyond the limit: float rounding."""
OPENED, INCREASED = 1.0, 2.0
"""What a resting order did to its position in this bar: ``OrderPlan.opened_now``."""


def place_orders(bar: r.AccountBar, t: int, equity: float) -> None:
    """Place limit orders for the decisions of the last close; closings trade at market.

    ``quote.fill`` means three things on the way: the price of the decision (for targets and bands),
    then the open (for what trades at market), then the limit (for what rests). Each step sets it,
    so their order matters. At the end it is the open again.
    """
    start_placing(bar)
    fills.choose_orders(bar, equity)
    trade_at_market(bar, t)

    # What rests frees no margin now, so reductions need not come before increases.
    common_factor = place_increases(bar, t, equity)
    place_reductions(bar, t)
    finish_placing(bar, common_factor)


def start_placing(bar: r.AccountBar) -> None:
    """Value what is held at the open, and orders at the price of their decision.

    Writes the values of the account and ``quote.fill``, and forgets the orders of the last bar.
    """
    balance.value_at(bar.state, bar.quotes.open, bar.quotes.asset_open)
    for i in range(len(bar.state.positions)):
        quote = bar.quotes.instruments[i]
        quote.fill = quote.decided
        plan = bar.scratch.plans[i]
        plan.resting_quantity = math.nan
        plan.opened_now = 0.0


def trade_at_market(bar: r.AccountBar, t: int) -> None:
    """Fill at the open what does not rest: reductions, and the closing part of flips.

    From here on ``quote.fill`` is the open, for all instruments.
    """
    for i in range(len(bar.state.positions)):
        plan = bar.scratch.plans[i]
        quote = bar.quotes.instruments[i]
        quote.fill = quote.open
        if not goes_to_market(bar.terms, bar.state, i):
            continue

        # The quantity is that of the decision, at its price.
        if plan.kind == r.REDUCE:
            quantity = fills.compute_target_quantity(plan, abs(quote.decided))
            fills.trade_to(bar, t, i, quantity, is_increase=False)
        elif plan.kind == r.INCREASE and plan.notional_held < 0.0:
            fills.trade_to(bar, t, i, quantity=0.0, is_increase=False)


def goes_to_market(terms: r.Terms, state: r.AccountState, i: int) -> bool:
    """Return whether closings trade at market; forced ones always do."""
    return not terms.rests_closing or fills.is_ending(state, i)


def place_increases(bar: r.AccountBar, t: int, equity: float) -> float:
    """Cut the increases, and place those that are left as limit orders; return the common factor.

    That is the part, 0 to 1, of all increases that the initial margin allows; 1 where none is left.
    The cuts are those of fills at market, in their order: the own limits of each increase, the
    balance that isolated ones share, the margin of all together.
    """
    scratch = bar.scratch
    # This also writes the limit into ``quote.fill``, at which all cuts after it value the order.
    for i in range(len(scratch.plans)):
        if scratch.plans[i].kind == r.INCREASE:
            limit_increase(bar, equity, i)
    # Those that cannot rest have left the kind INCREASE.
    if not fills.has_order(scratch, r.INCREASE):
        return 1.0

    fills.cut_to_balance(bar)
    common_factor = order_limits.fit_increases(bar)
    for i in range(len(scratch.plans)):
        if scratch.plans[i].kind == r.INCREASE:
            quantity = fills.compute_increased_quantity(bar, i, common_factor)
            place_order(bar, t, i, quantity)
    return common_factor


def place_reductions(bar: r.AccountBar, t: int) -> None:
    """Place the reductions that did not go to market."""
    for i in range(len(bar.scratch.plans)):
        if bar.scratch.plans[i].kind == r.REDUCE:
            place_reduction(bar, t, i)


def place_reduction(bar: r.AccountBar, t: int, i: int) -> None:
    """Place a limit order that reduces or closes a position, unless it went to market.

    A long position is sold above the price of the decision, a short one bought below it.
    """
    plan = bar.scratch.plans[i]
    quantity_held = bar.state.positions[i].quantity
    if quantity_held == 0.0 or goes_to_market(bar.terms, bar.state, i):
        return

    # The limit changes the contracts of a notional: some would not reduce any more.
    order_side = -1.0 if quantity_held > 0.0 else 1.0
    set_limit(bar.terms, bar.quotes, bar.scratch, i, order_side)
    contract_notional = abs(bar.quotes.instruments[i].fill)
    quantity = fills.compute_target_quantity(plan, contract_notional)
    is_reduction = abs(quantity) < abs(quantity_held)
    if is_reduction and not math.isnan(plan.beyond_limit):
        place_order(bar, t, i, quantity)


def finish_placing(bar: r.AccountBar, common_factor: float) -> None:
    """Write the stages of all orders, value quotes at the open, and mark what rests.

    Stages are in contracts at the limit, so they come before the quotes change.
    """
    for i in range(len(bar.state.positions)):
        order_limits.write_stages(bar, i, common_factor)
        quote = bar.quotes.instruments[i]
        quote.fill = quote.open
        has_placed = not math.isnan(bar.scratch.plans[i].resting_quantity)
        bar.state.positions[i].is_pending = 1 if has_placed else 0


def set_limit(terms: r.Terms, quotes: r.MarketBar, scratch: r.Scratch, i: int, side: float) -> None:
    """Write the limit of an order of instrument i, and what prices must reach for it to fill.

    ``side`` is 1 for a buy, -1 for a sale. Both are written as contract values:

    - the limit into ``quote.fill``, at which the order is valued from here on;
    - the price one tick beyond the limit into ``beyond_limit`` of its plan, NaN if that is not
      over 0. A price that only touches the limit does not fill the order, which may be last in the
      queue.
    """
    # A buy limit is below the close of the decision, a sale limit above it, by ``offsets``, a
    # fraction of the price. ``worsen`` with the other side moves the price that way.
    rules = r.by_reference(r.pick_instrument(terms, i))
    quote = quotes.instruments[i]
    limit_value = worsen(rules, quote.decided, -side, terms.offsets[i])
    if rules.rounds_price:
        limit_value = orders.round_price(rules, limit_value, side)
    quote.fill = limit_value

    # One tick beyond the limit. Ticks are steps of the price, so the contract value becomes a price
    # and then a contract value again. TICK_SLACK, a small part of a tick, is for float rounding.
    size = terms.rules.brackets.sizes[i]
    is_inverse = terms.rules.brackets.are_inverse[i]
    limit_price = margin.compute_price(size, is_inverse, limit_value)
    price_beyond = limit_price - side * rules.tick * (1.0 - TICK_SLACK)

    plan = scratch.plans[i]
    plan.beyond_limit = math.nan
    if price_beyond > 0.0:
        plan.beyond_limit = margin.compute_value(size, is_inverse, price_beyond)


def limit_increase(bar: r.AccountBar, equity: float, i: int) -> None:
    """Give an increase its limit, and cut it to its own limits there; or leave it UNPLACED.

    ``quote.fill``, the price of the decision before, is the limit from here on, and all notionals
    of the plan are valued at it. Each step reads what those before it wrote into the plan: what is
    held at the limit, whether the order can rest, its costs, its share of the equity, and what
    margin and wallet let it add.
    """
    plan = bar.scratch.plans[i]
    quote = bar.quotes.instruments[i]
    # Writes ``quote.fill``, and the price beyond it that must trade.
    set_limit(bar.terms, bar.quotes, bar.scratch, i, plan.side)
    plan.notional_held = bar.state.positions[i].quantity * (plan.side * abs(quote.fill))

    # Margin has cut nothing of an order that is not placed: the report counts it as unfilled.
    plan.allowed_by_margin = plan.target
    if not can_rest(bar, i):
        leave_unplaced(bar, i)
        return

    write_limit_costs(bar, i)
    order_limits.cut_to_share(bar, equity, i)
    # The margin of an isolated order is tested at its limit, where it has no cost but its fee.
    fills.write_increase(bar, equity, i, cost=plan.fee_rate)

    # Nothing is left and nothing closes: no order, and no fixed fee.
    if plan.notional_added == 0.0 and plan.notional_held >= 0.0:
        leave_unplaced(bar, i)
        plan.fee = 0.0


def can_rest(bar: r.AccountBar, i: int) -> bool:
    """Return whether an increase can rest at its limit.

    It cannot if it is a flip whose close at market did not fill whole, if no price is beyond its
    limit, or if its target is no increase at the limit.
    """
    plan = bar.scratch.plans[i]
    if plan.notional_held < 0.0 and not bar.terms.rests_closing:
        return False
    if math.isnan(plan.beyond_limit):
        return False
    return bool(plan.target > max(plan.notional_held, 0.0))


def write_limit_costs(bar: r.AccountBar, i: int) -> None:
    """Write what an increase costs that fills at its limit, as maker, into its plan.

    ``quote.fill`` must be the limit: :func:`set_limit`. Writes ``fee_rate`` and ``cost`` per unit
    of notional, ``fee``, the fixed fee of an order in money, and a ``worsening`` of 0, as a limit
    order fills at its limit, never worse.
    """
    terms = bar.terms
    plan = bar.scratch.plans[i]
    quote = bar.quotes.instruments[i]

    # A rebate, a negative rate, is counted as no fee: it backs no order before it is paid.
    plan.fee_rate = max(terms.makers[i], 0.0)
    plan.fee = orders.compute_order_fee(r.pick_instrument(terms, i), quote)
    plan.worsening = 0.0

    # A buy limit over the open, or a sale under it, trades at once at a price worse than the
    # market: by contract, that is the loss.
    loss_of_contract = max(plan.side * (quote.fill - quote.open), 0.0)
    plan.cost = plan.fee_rate + loss_of_contract / abs(quote.fill)


def leave_unplaced(bar: r.AccountBar, i: int) -> None:
    """Make an increase UNPLACED; its quote is valued at the open again, not a limit."""
    bar.scratch.plans[i].kind = r.UNPLACED
    quote = bar.quotes.instruments[i]
    quote.fill = quote.open


def place_order(bar: r.AccountBar, t: int, i: int, quantity: float) -> None:
    """Place a limit order that leads to ``quantity`` signed contracts, at ``quote.fill``; log it.

    Volume, lots and minimum notional round it first (4.4, 4.5). Writes its plan: the contracts to
    hold after the fill (``resting_quantity``) and the contract value of the limit.
    """
    quantity_held = bar.state.positions[i].quantity
    rules = r.by_reference(r.pick_instrument(bar.terms, i))
    quote = bar.quotes.instruments[i]
    rounded = orders.round_quantity(rules, quantity_held, quote, quantity)
    # What rounding leaves changes nothing: no order.
    if rounded == quantity_held:
        return

    limit_value = quote.fill
    plan = bar.scratch.plans[i]
    plan.resting_quantity = rounded
    plan.limit_value = limit_value
    change = rounded - quantity_held
    notional = abs(change) * abs(limit_value)
    r.log_event(bar.log, t, i, Event.RESTED, limit_value, change, notional)


# Filling along the prices of the bar.

ROUNDING = 1e-9
"""Part of its notional by which the wallet may miss what an order needs: rounding."""
UNREACHED = 2.0
"""Place of a fill that a segment does not reach; places on a segment are 0 to 1."""


def is_resting(state: r.AccountState, scratch: r.Scratch, i: int) -> bool:
    """Return whether a limit order of instrument i rests."""
    is_waiting = state.positions[i].is_pending == 1 and state.wallet.is_ruined == 0.0
    return bool(is_waiting and not math.isnan(scratch.plans[i].resting_quantity))


def is_any_reached(state: r.AccountState, quotes: r.MarketBar, scratch: r.Scratch) -> bool:
    """Return whether the prices of the bar go beyond the limit of any resting order.

    If none do, nothing fills in this bar. ``beyond_limit`` of a plan is the contract value that
    prices must reach.
    """
    for i in range(len(state.positions)):
        if not is_resting(state, scratch, i):
            continue

        # A buy needs a low price. The open may lie outside of low and high.
        plan = scratch.plans[i]
        quote = quotes.instruments[i]
        if plan.resting_quantity > state.positions[i].quantity:
            is_reached = min(quote.low, quote.open) <= plan.beyond_limit
        else:
            is_reached = max(quote.high, quote.open) >= plan.beyond_limit
        if is_reached:
            return True
    return False


def find_fill_place(state: r.AccountState, scratch: r.Scratch, i: int) -> float:
    """Return at which part of a segment (0 to 1) a resting order fills, or UNREACHED.

    The segment leads from the contract value ``last`` of the walk to ``last_end``.
    """
    if not is_resting(state, scratch, i):
        return UNREACHED

    # By side, a value is beyond the limit where its distance is not positive.
    plan = scratch.plans[i]
    is_buy = plan.resting_quantity > state.positions[i].quantity
    side = 1.0 if is_buy else -1.0
    start = scratch.walk[i].last
    end = scratch.walk[i].last_end
    if side * (start - plan.beyond_limit) <= 0.0:
        return 0.0
    if not side * (end - plan.beyond_limit) <= 0.0:
        return UNREACHED
    return float(min(max((plan.beyond_limit - start) / (end - start), 0.0), 1.0))


def fill_resting(bar: r.AccountBar, t: int, i: int) -> None:
    """Fill a resting order at its limit and the maker fee, book it, and end the order.

    An isolated increase that the wallet no longer pays is dropped instead.
    """
    terms = bar.terms
    state = bar.state
    plan = bar.scratch.plans[i]
    before = balance.pick_balances(terms, state, i)

    # At its limit, never better. It was rounded when placed, so it fills whole.
    trade = orders.trade(
        r.by_reference(r.pick_instrument(terms, i)),
        before,
        plan.limit_value,
        plan.resting_quantity,
        rates=r.CostRates(slippage=0.0, impact=0.0, fee=terms.makers[i]),
        quote=bar.quotes.instruments[i],
        is_order=False,
    )
    state.positions[i].is_pending = 0
    # The trade is computed, not booked yet: one that the wallet cannot pay is dropped.
    is_isolated_increase = plan.kind == r.INCREASE and r.is_isolated(terms, i)
    if is_isolated_increase and not can_pay(bar, i, before, trade):
        return

    debt_before = balance.compute_debt(state)
    book_resting_fill(bar, t, i, before, trade)
    # The fee may have emptied the wallet: isolated margins pay then (section 3), for what was
    # charged now, not for what the wallet owed before.
    if is_isolated_increase:
        fills.post_in_full(bar, before, trade, i)
        balance.take_from_isolated(terms, state, debt_before)


def book_resting_fill(
    bar: r.AccountBar, t: int, i: int, before: r.Balances, trade: r.Trade
) -> None:
    """Write the fill of a resting order into account, ledger, log and plan.

    ``before`` are the balances that the trade started from.
    """
    plan = bar.scratch.plans[i]
    balance.enter_fill(bar, t, i, Event.FILL, before, trade, stops=0)
    plan.quantity_filled = plan.side * plan.resting_quantity
    note_opening(plan, quantity_before=before.position.quantity)

    bar.state.positions[i].factor = bar.state.wallet.overlay
    fills.restart_if_opened(bar.state, i, quantity_before=before.position.quantity)


def can_pay(bar: r.AccountBar, i: int, before: r.Balances, trade: r.Trade) -> bool:
    """Return whether the wallet pays margin and fee of a resting isolated order.

    Funding and other fills may have used it up since the order was placed.
    """
    plan = bar.scratch.plans[i]
    rules = r.by_reference(r.pick_instrument(bar.terms, i))
    initial = bar.quotes.instruments[i].initial
    wallet, _ = orders.move_margin(rules, before, plan.resting_quantity, plan.limit_value, initial)
    missing_by_rounding = ROUNDING * abs(plan.resting_quantity * plan.limit_value)
    return bool(not wallet - trade.fee < -missing_by_rounding)


def note_opening(plan: r.OrderPlan, quantity_before: float) -> None:
    """Write OPENED or INCREASED, what a resting order that filled did to its position.

    The walk asks: the low and high of the bar may have come before the fill. A position that was
    opened in this bar and then increased stays OPENED.
    """
    quantity = plan.resting_quantity
    if quantity_before * quantity <= 0.0:
        plan.opened_now = OPENED
    elif abs(quantity) > abs(quantity_before) and plan.opened_now == 0.0:
        plan.opened_now = INCREASED
