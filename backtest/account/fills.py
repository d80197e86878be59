"""The orders of a bar from targets to fills, at market and at limits."""

from __future__ import annotations

import math

from backtest import margin
from backtest.account import balance, options, order_limits, orders
from backtest.account import records as r
from backtest.account.events import Event
from backtest.account.money import Wallet
from backtest.account.position import compute_backing, compute_profit, worsen
from backtest.core.kernels import inlined


def fill_decisions(bar: r.AccountBar, t: int, equity: float) -> None:
    """Fill the decisions of the last close at the quotes' fills: reductions, then increases."""
    state, quotes, scratch = bar.state, bar.quotes, bar.scratch
    balance.value_at(state, quotes.fill, quotes.asset_fill)
    choose_orders(bar, equity)
    for i in range(len(state.positions)):
        plan = scratch.plans[i]
        if plan.kind == r.REDUCE:
            wanted = plan.side * plan.target * (1.0 / abs(quotes.instruments[i].fill))
            trade_to(bar, t, i, wanted + 0.0, False)
    factor = 1.0
    options.begin_options(bar, t, equity)
    if has_order(scratch, r.INCREASE) or options.is_adding_options(state):
        cut_increases(bar, equity)
        cut_to_balance(bar)
        factor = order_limits.fit_increases(bar)
        for i in range(len(state.positions)):
            if scratch.plans[i].kind == r.INCREASE:
                trade_to(bar, t, i, size_increase(bar, i, factor), True)
        balance.take_from_isolated(bar.terms, state)
        options.add_options(bar, t, factor)
    for i in range(len(state.positions)):
        state.positions[i].is_pending = 0
    if len(scratch.cuts) > 0:
        for i in range(len(state.positions)):
            order_limits.plan_order(bar, factor, i)
        order_limits.count_decisions(bar, t, equity)


def has_order(scratch: r.Scratch, kind: int) -> bool:
    is_any = False
    for i in range(len(scratch.plans)):
        is_any = is_any or scratch.plans[i].kind == kind
    return is_any


def choose_orders(bar: r.AccountBar, equity: float) -> None:
    """Write the kind of each order, after bands and the cap of gross leverage (4.1, 4.2).

    IN_BAND where the target is within the band.
    """
    terms, state, scratch = bar.terms, bar.state, bar.scratch
    for i in range(len(state.positions)):
        plan = scratch.plans[i]
        plan.kind = aim(bar, equity, i)
        plan.cap_and_band, plan.cut_by_share = 0.0, 0.0
    if terms.max_gross_leverage < math.inf:
        order_limits.scale_targets(bar, equity)
    for i in range(len(state.positions)):
        plan = scratch.plans[i]
        if plan.kind == r.IN_BAND:
            rules = r.pick_instrument(terms, i)
            if orders.is_outside(rules, equity, plan.target, plan.notional_held):
                plan.kind = order_limits.classify_order(scratch, i)
    if terms.max_gross_leverage < math.inf:
        order_limits.narrow_bands(bar, equity)


@inlined
def is_deciding(state: r.AccountState, quotes: r.MarketBar, i: int) -> bool:
    is_waiting = state.positions[i].is_pending == 1 and state.wallet.is_ruined == 0.0
    return bool(is_waiting and quotes.instruments[i].is_listed == 1)


@inlined
def is_ending(state: r.AccountState, i: int) -> bool:
    return bool(state.positions[i].is_halted == 1 or state.wallet.is_over != 0.0)


def aim(bar: r.AccountBar, equity: float, i: int) -> int:
    """Write the target of instrument i into scratch; return its kind before bands."""
    plan = bar.scratch.plans[i]
    state, quotes = bar.state, bar.quotes
    plan.target, plan.notional_added, plan.notional_kept = 0.0, 0.0, 0.0
    if not is_deciding(state, quotes, i):
        return r.NO_TARGET
    if is_ending(state, i):
        return r.REDUCE if r.is_held(state, i) else r.NO_TARGET
    is_asking, side, held, reach = measure_target(bar, equity, i)
    if not math.isnan(plan.target_contracts):  # in contracts
        ordered, value = plan.target_contracts, abs(quotes.instruments[i].fill)
        held, plan.target_contracts = state.positions[i].quantity, math.nan
        side = -1.0 if ordered < 0.0 or (ordered == 0.0 and held < 0.0) else 1.0
        is_asking, held, reach = True, held * (side * value), abs(ordered) * value
    if not is_asking:
        return r.NO_TARGET
    plan.side, plan.notional_held = side, held
    plan.target = compute_everything(bar, equity, i) if reach == math.inf else reach
    return r.IN_BAND


@inlined
def measure_target(bar: r.AccountBar, equity: float, i: int) -> tuple[bool, float, float, float]:
    """Return whether there is a target, its side, and notional held and wanted on that side."""
    rules, quote = r.pick_instrument(bar.terms, i), bar.quotes.instruments[i]
    return measure_order(rules, bar.state.wallet, bar.state.positions[i], quote, equity)


@inlined
def measure_order(
    rules: r.InstrumentRules,
    wallet: Wallet,
    position: r.PositionState,
    quote: r.Quote,
    equity: float,
) -> tuple[bool, float, float, float]:
    """Return the same of one position, of its rules and its quote."""
    leverage, signal, overlay = position.leverage, position.signal, wallet.overlay
    is_unchanged = (math.isnan(leverage) or math.isnan(overlay)) and signal != 0.0
    if is_unchanged or not equity > orders.compute_order_fee(rules, quote):
        return False, 1.0, 0.0, 0.0
    side = 1.0 if signal > 0.0 else -1.0
    held = position.quantity * (side * abs(quote.fill))
    reach = orders.compute_target(rules, quote, equity, leverage, signal)
    reach = reach * overlay if overlay > 0.0 else 0.0  # not infinite times 0
    return True, side, held, reach


def compute_everything(bar: r.AccountBar, equity: float, i: int) -> float:
    """Return the notional of a target of infinite leverage: all that margin allows."""
    plan = bar.scratch.plans[i]
    terms, state, scratch, quote = bar.terms, bar.state, bar.scratch, bar.quotes.instruments[i]
    rules, held = r.share(r.pick_instrument(terms, i)), plan.notional_held
    is_isolated = r.is_isolated(terms, i)
    if is_isolated:
        balances = balance.pick_balances(terms, state, i)
        free = orders.compute_counted(rules, balances, quote, equity, held)
    else:
        free = balance.compute_pool(terms, state)
        free += margin.compute_haircut(terms.rules, state.held, i)
        free -= order_limits.compute_all_uncounted(bar, -1 if held > 0.0 else i)
    is_summed = not is_isolated and terms.rules.has_scenarios
    counted = math.inf if is_summed else free  # together, a table has no say but its cap
    most = margin.compute_largest_notional(rules.margin, counted, 0.0, 0.0, quote.initial, math.inf)
    if is_summed:
        unit = plan.side / abs(state.positions[i].value)
        order_limits.hide_others(state, scratch, i, unit)  # the initial margin of a unit alone
        rate = margin.compute_portfolio_requirement(terms.rules, state.held, True)
        rate += margin.compute_haircuts(terms.rules, state.held)
        order_limits.show_others(state, scratch)
        if rate > 0.0:
            most = min(most, max(free, 0.0) / rate)
    scale = abs(state.positions[i].signal)
    return held if scale == 1.0 and held > most else scale * most


def cut_increases(bar: r.AccountBar, equity: float) -> None:
    """Write what each increase costs, and keeps and adds within its own bracket and wallet."""
    scratch = bar.scratch
    for i in range(len(bar.state.positions)):
        plan = scratch.plans[i]
        if plan.kind != r.INCREASE:
            continue
        price_order(bar, i)
        if order_limits.cut_to_share(bar, equity, i):
            price_order(bar, i)
        kept, limit = max(plan.notional_held, 0.0), find_own_limit(bar, equity, i)
        plan.notional_kept = kept
        plan.notional_added = max(min(plan.target, limit) - kept, 0.0)
        plan.allowed_by_margin = find_margin_limit(bar, equity, i, limit)
        if plan.notional_added == 0.0 and plan.notional_held >= 0.0:
            plan.fee = 0.0  # nothing is left of it, and nothing needs room for its fee


def price_order(bar: r.AccountBar, i: int) -> None:
    """Write cost, fee rate, fixed fee and price concession of the order of instrument i."""
    plan = bar.scratch.plans[i]
    rules, quote = r.pick_instrument(bar.terms, i), bar.quotes.instruments[i]
    worsening, side = rules.slippage, plan.side
    if rules.has_impact:
        added = max(plan.target - plan.notional_held, 0.0)
        worsening += orders.compute_square_root_impact(rules.impact, quote, added)
    worsening = min(worsening, orders.LARGEST_WORSENING)
    if rules.rounds_price:
        worsening = orders.round_worsening(r.share(rules), quote.fill, side, worsening)
    plan.cost, plan.fee_rate = orders.compute_cost(rules, side, worsening), rules.fee
    plan.fee = orders.compute_order_fee(rules, quote)
    plan.worsening = worsening


def find_margin_notional(
    bar: r.AccountBar, equity: float, i: int, cost: float, enough: float
) -> float:
    """Return the notional that the margin of instrument i alone allows; of a pool, its table.

    Where that is at least ``enough``, any such number.
    """
    plan = bar.scratch.plans[i]
    terms, quote = bar.terms, bar.quotes.instruments[i]
    rules, held, free = r.pick_margin(terms, i), plan.notional_held, math.inf
    if r.is_isolated(terms, i):
        own = r.share(r.pick_instrument(terms, i))
        balances = balance.pick_balances(terms, bar.state, i)
        free = orders.compute_counted(own, balances, quote, equity, held) - plan.fee
    return margin.compute_largest_notional(rules, free, held, cost, quote.initial, enough)


def find_own_limit(bar: r.AccountBar, equity: float, i: int) -> float:
    """Return the notional up to which the order of instrument i passes alone (4.3)."""
    plan = bar.scratch.plans[i]
    terms, quote = bar.terms, bar.quotes.instruments[i]
    limit = find_margin_notional(bar, equity, i, plan.cost, plan.target)
    if not r.is_isolated(terms, i):
        return limit
    rules = r.share(r.pick_instrument(terms, i))
    balances = balance.pick_balances(terms, bar.state, i)
    side, reach, held, fixed = plan.side, plan.target, plan.notional_held, plan.fee
    quantity, unit = balances.position.quantity, abs(quote.fill)
    filled = worsen(rules, quote.fill, side, plan.worsening)
    closed = balances.cash + compute_backing(rules, balances, filled)
    closed -= rules.fee * abs(quantity) * abs(filled)
    wallet = (closed if side * quantity < 0.0 else balances.cash) - fixed
    posted = 1.0 / margin.compute_setting(rules.margin, quote.initial)
    dearest = orders.bound_unit(rules, quote, side, plan.worsening)
    room, kept = wallet * (1.0 / (dearest * (posted + rules.fee))), max(side * quantity, 0.0)
    size = kept + min(min(reach, limit) * (1.0 / unit) - kept, max(room, 0.0))
    wanted = quantity if limit <= held else side * size
    wanted = side * reach * (1.0 / unit) if reach <= held else wanted
    return float(side * (0.0 if reach == 0.0 else wanted) * unit)


def find_margin_limit(bar: r.AccountBar, equity: float, i: int, limit: float) -> float:
    """Return the notional that margin alone leaves of an increase, whatever the wallet holds."""
    plan = bar.scratch.plans[i]
    if r.is_isolated(bar.terms, i) and limit < plan.target:
        limit = find_margin_notional(bar, equity, i, plan.cost, plan.target)
    return float(max(min(plan.target, limit), plan.notional_kept))


def price_balance(bar: r.AccountBar, i: int) -> None:
    """Write what an increase takes from the balance per notional, and what a flip returns."""
    plan = bar.scratch.plans[i]
    terms = bar.terms
    rules, quote = r.share(r.pick_instrument(terms, i)), bar.quotes.instruments[i]
    filled = worsen(rules, quote.fill, plan.side, plan.worsening)
    ratio = abs(filled) / abs(quote.fill)
    if not r.is_isolated(terms, i):
        plan.cost_of_balance = ratio * plan.fee_rate
        if r.is_spot(terms, i) and plan.side > 0.0:
            plan.cost_of_balance += ratio
        return
    posted = 1.0 / margin.compute_setting(rules.margin, quote.initial)
    dearest = orders.bound_unit(rules, quote, plan.side, plan.worsening)
    plan.cost_of_balance = dearest / abs(quote.fill) * (posted + plan.fee_rate)
    plan.returned_by_flip = -plan.fee
    if plan.notional_held < 0.0:
        position = r.pick_position(bar.state, i)
        fee = plan.fee_rate * abs(position.quantity) * abs(filled)
        plan.returned_by_flip += position.margin + compute_profit(position, filled) - fee
    elif plan.notional_added == 0.0:
        plan.returned_by_flip = 0.0


def cut_to_balance(bar: r.AccountBar) -> None:
    """Scale isolated increases and premiums so that the balance pays for them."""
    terms, state, scratch = bar.terms, bar.state, bar.scratch
    is_any = options.is_adding_options(state)
    for i in range(len(scratch.plans)):
        is_any = is_any or (scratch.plans[i].kind == r.INCREASE and r.is_isolated(terms, i))
    if not is_any:
        return
    returned, (fees, taken) = 0.0, options.sum_premiums(terms, state)
    for i in range(len(state.positions)):
        plan = scratch.plans[i]
        if plan.kind == r.INCREASE:
            price_balance(bar, i)
            if r.is_isolated(terms, i):
                is_cut = plan.notional_added == 0.0
                taken += plan.cost_of_balance * plan.notional_added
                returned += max(plan.returned_by_flip, 0.0) if is_cut else plan.returned_by_flip
            else:
                traded = plan.notional_kept + plan.notional_added - plan.notional_held
                fees += plan.cost_of_balance * traded + (plan.fee if traded > 0.0 else 0.0)
    most = max(max(balance.compute_balance(terms, state) - fees, 0.0) + returned, 0.0)
    if taken > most:
        for i in range(len(state.positions)):
            plan = scratch.plans[i]
            if plan.kind == r.INCREASE and r.is_isolated(terms, i):
                plan.notional_added *= most / taken
        for k in range(len(state.options.added)):
            state.options.added[k] *= most / taken if state.options.added[k] > 0.0 else 1.0


def size_increase(bar: r.AccountBar, i: int, factor: float) -> float:
    """Return the signed contracts after an increase, what it adds scaled by a factor."""
    plan = bar.scratch.plans[i]
    size = plan.notional_kept + factor * plan.notional_added
    if size <= plan.notional_held and plan.notional_held > 0.0:
        return float(bar.state.positions[i].quantity)
    return float(plan.side * size * (1.0 / abs(bar.quotes.instruments[i].fill)) + 0.0)


def trade_to(bar: r.AccountBar, t: int, i: int, wanted: float, is_increase: bool) -> None:
    """Trade instrument i to some signed contracts at the fill of its quote, and book it."""
    terms, state, quotes = bar.terms, bar.state, bar.quotes
    position = state.positions[i]
    if wanted == position.quantity:
        return
    rules, quote = r.pick_instrument(terms, i), quotes.instruments[i]
    before = balance.pick_balances(terms, state, i)
    done = orders.fill(rules, before, quote, wanted, rules.fee)
    balance.enter_fill(bar, t, i, Event.FILL, before, done, 0)
    if is_increase and r.is_isolated(terms, i):
        post_in_full(bar, before, done, i)
    if done.quantity != 0.0:
        position.factor = state.wallet.overlay
    follow_best(state, i, before.position.quantity)


def post_in_full(bar: r.AccountBar, before: r.Balances, done: r.Trade, i: int) -> None:
    """Post the margin of a rounded isolated order as if it had filled as it was held."""
    rules, quote = r.share(r.pick_instrument(bar.terms, i)), bar.quotes.instruments[i]
    position = bar.state.positions[i]
    held = position.quantity
    _, posted = orders.move_margin(rules, before, held, done.value, quote.initial)
    bar.state.wallet.cash -= posted - position.margin
    position.margin = posted


def follow_best(state: r.AccountState, i: int, held: float) -> None:
    """Start the best value u and the time of opening anew, if a trade opened the position."""
    position = state.positions[i]
    if held * position.quantity <= 0.0:
        position.best = position.entry
        position.opened = math.nan


TICK_SLACK = 1e-6
"""Ticks by which a price may miss the one that fills an order: the rounding of floats."""
ROUNDING = 1e-9
"""Share of its notional by which the wallet may miss what an order needs."""


def place_orders(bar: r.AccountBar, t: int, equity: float) -> None:
    """Place limit orders for the decisions of the last close; closings at market first."""
    terms, state, quotes, scratch = bar.terms, bar.state, bar.quotes, bar.scratch
    n = len(state.positions)
    balance.value_at(state, quotes.open, quotes.asset_open)
    for i in range(n):
        plan = scratch.plans[i]
        quote = quotes.instruments[i]
        quote.fill = quote.decided
        plan.resting_quantity, plan.opened_now = math.nan, 0.0
    choose_orders(bar, equity)
    for i in range(n):
        quote = quotes.instruments[i]
        quote.fill = quote.open
        trade_at_market(bar, t, i)
    for i in range(n):
        if scratch.plans[i].kind == r.INCREASE:
            aim_increase(bar, equity, i)
    factor = 1.0
    if has_order(scratch, r.INCREASE):
        cut_to_balance(bar)
        factor = order_limits.fit_increases(bar)
        for i in range(n):
            if scratch.plans[i].kind == r.INCREASE:
                rest(bar, t, i, size_increase(bar, i, factor))
    for i in range(n):
        plan = scratch.plans[i]
        is_reducing = plan.kind == r.REDUCE and r.is_held(state, i)
        if is_reducing and not goes_to_market(terms, state, i):
            held = state.positions[i].quantity
            set_limit(terms, quotes, scratch, i, -1.0 if held > 0.0 else 1.0)
            unit = 1.0 / abs(quotes.instruments[i].fill)
            wanted = plan.side * plan.target * unit + 0.0
            if abs(wanted) < abs(held) and not math.isnan(plan.beyond_limit):
                rest(bar, t, i, wanted)
        order_limits.plan_order(bar, factor, i)
        quote = quotes.instruments[i]
        quote.fill = quote.open
        state.positions[i].is_pending = 0 if math.isnan(plan.resting_quantity) else 1


def goes_to_market(terms: r.Terms, state: r.AccountState, i: int) -> bool:
    return not terms.rests_closing or is_ending(state, i)


def trade_at_market(bar: r.AccountBar, t: int, i: int) -> None:
    """Fill at market what does not rest: closings, and the closing part of a flip."""
    plan = bar.scratch.plans[i]
    if not goes_to_market(bar.terms, bar.state, i):
        return
    if plan.kind == r.REDUCE:
        wanted = plan.side * plan.target * (1.0 / abs(bar.quotes.instruments[i].decided))
        trade_to(bar, t, i, wanted + 0.0, False)
    elif plan.kind == r.INCREASE and plan.notional_held < 0.0:
        trade_to(bar, t, i, 0.0, False)


def set_limit(terms: r.Terms, quotes: r.MarketBar, scratch: r.Scratch, i: int, side: float) -> None:
    """Write the limit of an order as a value u, and the u that the price must go through.

    NaN if there is no such price.
    """
    rules = r.share(r.pick_instrument(terms, i))
    quote = quotes.instruments[i]
    value = worsen(rules, quote.decided, -side, terms.offsets[i])
    if rules.rounds_price:
        value = orders.round_price(rules, value, side)
    quote.fill = value
    size, is_inverse = terms.rules.brackets.sizes[i], terms.rules.brackets.are_inverse[i]
    price = margin.compute_price(size, is_inverse, value) - side * rules.tick * (1.0 - TICK_SLACK)
    through = margin.compute_value(size, is_inverse, price) if price > 0.0 else math.nan
    scratch.plans[i].beyond_limit = through


def aim_increase(bar: r.AccountBar, equity: float, i: int) -> None:
    """Write limit, costs and size of a resting increase, or UNPLACED."""
    plan = bar.scratch.plans[i]
    terms, quotes, scratch = bar.terms, bar.quotes, bar.scratch
    side = plan.side
    set_limit(terms, quotes, scratch, i, side)
    quote = quotes.instruments[i]
    plan.notional_held = bar.state.positions[i].quantity * (side * abs(quote.fill))
    kept = max(plan.notional_held, 0.0)
    plan.allowed_by_margin = plan.target
    is_left = plan.notional_held < 0.0 and not terms.rests_closing
    if is_left or math.isnan(plan.beyond_limit) or not plan.target > kept:
        plan.kind = r.UNPLACED
        quote.fill = quote.open
        return
    lost = max(side * (quote.fill - quote.open), 0.0) / abs(quote.fill)
    plan.fee_rate = max(terms.makers[i], 0.0)
    plan.cost, plan.worsening = plan.fee_rate + lost, 0.0
    plan.fee = orders.compute_order_fee(r.pick_instrument(terms, i), quote)
    order_limits.cut_to_share(bar, equity, i)
    most = find_resting_limit(bar, equity, i)
    plan.notional_kept = kept
    plan.notional_added = max(min(plan.target, most) - kept, 0.0)
    plan.allowed_by_margin = find_margin_limit(bar, equity, i, most)
    if plan.notional_added == 0.0 and plan.notional_held >= 0.0:
        # held, and valued at the open as the others
        plan.kind, plan.fee = r.UNPLACED, 0.0
        quote.fill = quote.open


def find_resting_limit(bar: r.AccountBar, equity: float, i: int) -> float:
    """Return the notional up to which a resting increase passes alone."""
    plan = bar.scratch.plans[i]
    terms, quote = bar.terms, bar.quotes.instruments[i]
    rules, before, rate = r.share(r.pick_instrument(terms, i)), plan.notional_held, plan.fee_rate
    most = find_margin_notional(bar, equity, i, rate, math.inf)
    if not r.is_isolated(terms, i):
        return most
    balances = balance.pick_balances(terms, bar.state, i)
    wallet = balances.cash - plan.fee
    if before < 0.0:
        wallet += compute_backing(rules, balances, quote.fill) + rate * before
    room = max(wallet / (1.0 / margin.compute_setting(rules.margin, quote.initial) + rate), 0.0)
    kept = max(before, 0.0)
    return float(kept + min(most - kept, room))


def rest(bar: r.AccountBar, t: int, i: int, wanted: float) -> None:
    """Place an order for some signed contracts at the fill of its quote, and log it."""
    plan = bar.scratch.plans[i]
    quotes = bar.quotes
    rules, held = r.share(r.pick_instrument(bar.terms, i)), bar.state.positions[i].quantity
    quote = quotes.instruments[i]
    quantity = orders.round_quantity(rules, held, quote, wanted)
    if quantity != held:
        plan.resting_quantity, plan.limit_value = quantity, quote.fill
        change = quantity - held
        r.log_event(bar.log, t, i, Event.RESTED, quote.fill, change, abs(change) * abs(quote.fill))


def is_resting(state: r.AccountState, scratch: r.Scratch, i: int) -> bool:
    is_waiting = state.positions[i].is_pending == 1 and state.wallet.is_ruined == 0.0
    return bool(is_waiting and not math.isnan(scratch.plans[i].resting_quantity))


def is_any_reached(state: r.AccountState, quotes: r.MarketBar, scratch: r.Scratch) -> bool:
    is_any = False
    for i in range(len(state.positions)):
        plan = scratch.plans[i]
        if is_resting(state, scratch, i):
            is_buy = plan.resting_quantity > state.positions[i].quantity
            through, quote = plan.beyond_limit, quotes.instruments[i]
            is_low = min(quote.low, quote.open) <= through
            is_high = max(quote.high, quote.open) >= through
            is_any = is_any or (is_low if is_buy else is_high)
    return bool(is_any)


def find_fill_place(state: r.AccountState, scratch: r.Scratch, i: int) -> float:
    """Return at which part of the segment a resting order fills; 2 if it does not."""
    plan = scratch.plans[i]
    if not is_resting(state, scratch, i):
        return 2.0
    side = 1.0 if plan.resting_quantity > state.positions[i].quantity else -1.0
    start, end, through = scratch.walk[i].last, scratch.walk[i].last_end, plan.beyond_limit
    if side * (start - through) <= 0.0:
        return 0.0
    if not side * (end - through) <= 0.0:
        return 2.0
    return float(min(max((through - start) / (end - start), 0.0), 1.0))


def fill_resting(bar: r.AccountBar, t: int, i: int) -> None:
    """Fill a resting order at its limit, at the maker fee, and book it."""
    plan = bar.scratch.plans[i]
    terms, state, quotes = bar.terms, bar.state, bar.quotes
    rules, quote = r.share(r.pick_instrument(terms, i)), quotes.instruments[i]
    before = balance.pick_balances(terms, state, i)
    held, wanted, limit = before.position.quantity, plan.resting_quantity, plan.limit_value
    done = orders.trade(rules, before, limit, wanted, 0.0, 0.0, terms.makers[i], quote, False)
    position = state.positions[i]
    position.is_pending = 0
    if plan.kind == r.INCREASE and r.is_isolated(terms, i):
        wallet, _ = orders.move_margin(rules, before, wanted, limit, quote.initial)
        if wallet - done.fee < -ROUNDING * abs(wanted * limit):
            return
    balance.enter_fill(bar, t, i, Event.FILL, before, done, 0)
    plan.quantity_filled = plan.side * wanted
    if plan.kind == r.INCREASE and r.is_isolated(terms, i):
        post_in_full(bar, before, done, i)
    position.factor = state.wallet.overlay
    follow_best(state, i, held)
    if held * wanted <= 0.0:
        plan.opened_now = 1.0
    elif abs(wanted) > abs(held) and plan.opened_now == 0.0:
        plan.opened_now = 2.0
    balance.take_from_isolated(terms, state)
