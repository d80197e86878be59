"""The close of a bar: what measures need of it, what is shown to policies, and what is recorded."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from backtest.account import (
    AccountBar,
    AccountState,
    Balances,
    EventLog,
    MarketBar,
    Scratch,
    Terms,
    close_options,
    compute_balance,
    compute_initial_needed,
    compute_pool,
    compute_pool_backing,
    compute_pool_needed,
    compute_root,
    count_cross,
    find_value_with_options,
    is_far_with_options,
    is_held,
    is_isolated,
    is_moved_by,
    is_spot,
    is_walking,
    measure_shares,
    pick_instrument,
    pick_margin,
    pick_position,
    share,
    total,
)
from backtest.account import records as r
from backtest.base.units import TOLERANCE
from backtest.measures import (
    Clock,
    add_free,
    finish_sample,
    fold_product,
    invert,
    mark_drawdown,
    raise_ratio,
)
from backtest.measures import tally as y
from backtest.measures.tally import FARTHEST, NEAR
from backtest.venue import (
    Waypoint,
    compute_collateral_value,
    compute_full_value,
    compute_liquidation_value,
    compute_own_maintenance,
    compute_price,
    compute_value,
    find_failure_ratio,
    find_own_maintenance,
)

if TYPE_CHECKING:
    from backtest.base import FloatArray, IntArray
    from backtest.engine.record import AccountFields, Closes, HeldAtCloses


class CloseFacts(NamedTuple):
    gross: float
    backing: float
    needed: float
    worst_backing: float
    worst_needed: float
    is_near: bool


def count_bar(  # noqa: PLR0913, PLR0917 - the arguments of a kernel
    clock: Clock,
    tally: FloatArray,
    state: AccountState,
    before: FloatArray,
    started: float,
    quotes: MarketBar,
    money: FloatArray,
    is_fast: bool,
    close: CloseFacts,
    log_returns: FloatArray,
    cap: float,
    held: FloatArray,
    t: int,
) -> None:
    """Add bar t to the tally.

    ``before`` are the marks of the last close, ``started`` the equity then; ``log_returns`` of
    shape (n_bars, n) those of the marks. ``money`` are the sums of the ledger, of a fast bar the
    profit alone. ``cap`` is that of gross leverage, ``held`` the quantities held over the bar.
    """
    unit, equity = state.wallet[r.UNIT], state.wallet[r.EQUITY]
    add_free(clock, tally, t)
    if clock.ends_sample[t] != 0.0:
        finish_sample(tally, unit)
    base, is_forced = tally[y.INVERSE], False
    if is_fast:
        tally[y.MONEY + r.PRICE_PNL] += money[r.PRICE_PNL]
    else:
        moved = money[r.FLOWS] + money[r.TOP_UP]
        base = base if moved == 0.0 else invert(started + moved)
        is_forced = money[r.LIQUIDATIONS] + money[r.STOPS] + money[r.TAKE_PROFITS] > 0.0
        tally[y.CARRY] += money[r.FUNDING] * base
        tally[y.CARRY] += money[r.INTEREST] * base
        tally[y.CARRY] += money[r.FEES] * base
        for term in range(y.N_TALLY - y.MONEY):
            tally[y.MONEY + term] += money[term]
        note_first(tally, y.FIRST_LIQUIDATION, money[r.LIQUIDATIONS] > 0.0, t)
        note_first(tally, y.FIRST_RUIN, state.wallet[r.IS_RUINED] != 0.0, t)
        note_first(tally, y.FIRST_AMBIGUOUS, money[r.AMBIGUOUS] > 0.0, t)
        note_first(tally, y.FIRST_BOTH, money[r.BOTH_REACHED] > 0.0, t)
    if not is_forced:
        count_decay(tally, held, before, quotes, log_returns, base, t)
    tally[y.INVERSE] = invert(equity)
    mark_drawdown(tally, unit, t)
    expose(tally, close, cap)
    tally[y.BARS] += 1.0
    tally[y.EQUITY_SUM] += equity


def note_first(tally: FloatArray, row: int, is_so: bool, t: int) -> None:
    if is_so and tally[row] < 0.0:
        tally[row] = t


def expose(tally: FloatArray, close: CloseFacts, cap: float) -> None:
    leverage = close.gross * tally[y.INVERSE]
    tally[y.PEAK_NEEDED], tally[y.PEAK_BACKING] = raise_ratio(
        tally[y.PEAK_NEEDED],
        tally[y.PEAK_BACKING],
        close.worst_needed,
        close.worst_backing,
        close.gross > 0.0,
    )
    tally[y.NEAR_BARS] += 1.0 if close.is_near else 0.0
    tally[y.OVER_CAP] += 1.0 if is_over_cap(leverage, cap) else 0.0
    tally[y.LEVERAGE] += leverage
    tally[y.PEAK_LEVERAGE] = max(tally[y.PEAK_LEVERAGE], leverage)


def is_over_cap(leverage: float, cap: float) -> bool:
    return leverage > cap * (1.0 + TOLERANCE)


def count_decay(
    tally: FloatArray,
    quantities: FloatArray,
    before: FloatArray,
    quotes: MarketBar,
    log_returns: FloatArray,
    inverse: float,
    t: int,
) -> None:
    drift, grown = 0.0, 1.0
    for i in range(len(before)):
        move = log_returns[t, i]
        if quantities[i] != 0.0 and not math.isnan(move):
            scale = quantities[i] * inverse
            drift += scale * (abs(before[i]) * move)
            grown += scale * (quotes.mark_close[i] - before[i])
    product = tally[y.DECAY_PRODUCT]
    if grown > 0.0:
        tally[y.DECAY_HELD] += drift
        product *= grown
    tally[y.DECAY_LOG], tally[y.DECAY_PRODUCT] = fold_product(tally[y.DECAY_LOG], product)


# ------------------------------------------------------------------------ what is shown at a close


def look_at_close(bar: AccountBar, has_prices: bool) -> CloseFacts:
    terms, state, quotes, scratch = bar.terms, bar.state, bar.quotes, bar.scratch
    gross, needed, backing = 0.0, 0.0, 1.0
    has_pool = count_cross(terms, state) > 0
    if has_pool:
        needed = compute_pool_needed(terms, state, quotes, len(state.margin))
        backing = compute_pool(terms, state)
    worst_needed, worst_backing = raise_ratio(0.0, 1.0, needed, backing, has_pool)
    is_near = False
    for i in range(len(state.margin)):
        scratch.failure[i] = math.nan
        if is_held(state, i):
            notional = abs(state.held.quantities[i]) * abs(quotes.mark_close[i])
            gross += notional
            if is_isolated(terms, i):
                worst_needed, worst_backing = raise_ratio(
                    worst_needed,
                    worst_backing,
                    compute_pool_needed(terms, state, quotes, i),
                    compute_pool_backing(terms, state, i),
                    True,
                )
        if is_any_near(terms, state, scratch, i, backing - needed, has_prices):
            scratch.failure[i] = find_failure_value(
                terms, state, quotes, scratch, i, backing - needed
            )
            is_near = is_near or is_near_failure(quotes, i, scratch.failure[i])
    return CloseFacts(
        gross=gross,
        backing=backing,
        needed=needed,
        worst_backing=worst_backing,
        worst_needed=worst_needed,
        is_near=is_near,
    )


def measure_gross(bar: AccountBar) -> CloseFacts:
    state, gross = bar.state, 0.0
    for i in range(len(state.margin)):
        if is_held(state, i):
            gross += abs(state.held.quantities[i]) * abs(bar.quotes.mark_close[i])
    return CloseFacts(
        gross=gross, backing=1.0, needed=0.0, worst_backing=1.0, worst_needed=0.0, is_near=False
    )


def is_any_near(
    terms: Terms,
    state: AccountState,
    scratch: Scratch,
    i: int,
    excess: float,
    has_prices: bool,
) -> bool:
    if is_walking(terms, state) and not is_isolated(terms, i):
        if not is_moved_by(terms, state, i):
            return False
        return has_prices or not is_far_with_options(terms, state, scratch, i, excess)
    if not is_held(state, i):
        return False
    notional = abs(state.held.quantities[i]) * abs(state.held.values[i])
    return has_prices or not is_far(terms, state, i, notional, excess)


def is_far(terms: Terms, state: AccountState, i: int, notional: float, excess: float) -> bool:
    level = terms.rules.level
    if is_isolated(terms, i):
        level = 1.0
        profit = state.held.quantities[i] * (state.held.values[i] - state.held.entries[i])
        excess = state.margin[i] + profit - find_own_maintenance(terms.rules, state.held, i)
    return excess > (FARTHEST - 1.0) * (1.0 + level) * notional


def is_near_failure(quotes: MarketBar, i: int, value: float) -> bool:
    close = quotes.mark_close[i]
    ratio = value / close if close > 0.0 else close / value
    if math.isnan(ratio):
        return False
    return bool(1.0 / (1.0 + NEAR) - TOLERANCE <= ratio <= 1.0 / (1.0 - NEAR) + TOLERANCE)


def find_failure_value(
    terms: Terms, state: AccountState, quotes: MarketBar, scratch: Scratch, i: int, excess: float
) -> float:
    """Return the price of one instrument at which its margin pool fails, others fixed; NaN if none.

    ``excess`` is D = M - level R of the pool now.
    """
    if is_isolated(terms, i):
        balances = Balances(0.0, (pick_position(state, i),))
        return compute_root(share(pick_instrument(terms, i)), balances, quotes.multiplier[i])
    if is_walking(terms, state):
        return find_nearer_value(terms, state, scratch, i, excess)
    held, value = state.held, state.held.values[i]
    if not terms.rules.has_scenarios and terms.rules.level == 1.0:
        margin = pick_margin(terms, i)
        own = compute_own_maintenance(terms.rules, held, i)
        quantity, x = held.quantities[i], quotes.multiplier[i]
        if is_spot(terms, i) and quantity > 0.0:
            quantity *= 1.0 - terms.rules.spot.haircuts[i]
        base = excess + own - quantity * value
        return compute_liquidation_value(margin, quantity, held.entries[i], base, x)
    for j in range(len(state.margin)):
        scratch.mark[j] = held.values[j]
    for c in range(len(held.prices)):
        scratch.price[c] = held.prices[c]
    start, end = (
        Waypoint(scratch.mark, scratch.price),
        Waypoint(scratch.mark_end, scratch.price_end),
    )
    cash = state.wallet[r.CASH]
    ratio = find_failure_ratio(terms.rules, held, cash, i, start, end)
    return float(value / ratio if terms.rules.brackets.are_inverse[i] else value * ratio)


def find_nearer_value(
    terms: Terms, state: AccountState, scratch: Scratch, i: int, excess: float
) -> float:
    value = state.held.values[i]
    left = excess - TOLERANCE * abs(compute_pool(terms, state) - excess)
    down = find_value_with_options(terms, state, scratch, i, False, left)
    up = find_value_with_options(terms, state, scratch, i, True, left)
    size, is_inverse = terms.rules.brackets.sizes[i], terms.rules.brackets.are_inverse[i]
    price = compute_price(size, is_inverse, value)
    of_down = price - compute_price(size, is_inverse, down)
    of_up = compute_price(size, is_inverse, up) - price
    return down if math.isnan(up) or of_down < of_up else up


# ------------------------------------------------------------------------- closes of the record


def fill_closes(
    bar: AccountBar, held: HeldAtCloses, closes: Closes, first: int, is_whole: bool
) -> None:
    """Write what follows from what an account holds at closes, that of bar ``first`` and later.

    Only backing and initial margin unless ``is_whole``.
    """
    bar = share(
        AccountBar(
            terms=share(bar.terms), feed=share(bar.feed), state=share(bar.state),
            quotes=share(bar.quotes), scratch=share(bar.scratch), ledger=bar.ledger,
            log=share(bar.log),
        )
    )  # fmt: skip
    terms, state = bar.terms, bar.state
    for row in range(len(held.cash)):
        set_close(bar, held, row, first + row)
        closes.backing[row] = compute_pool(terms, state)
        closes.initial[row] = compute_all_initial(terms, state)
        if is_whole:
            fill_close(bar, closes, row)


def fill_close(bar: AccountBar, closes: Closes, row: int) -> None:
    terms, state, scratch = bar.terms, bar.state, bar.scratch
    closes.balance[row] = compute_balance(terms, state)
    closes.collateral[row] = compute_full_value(state.held)
    at_rate = compute_collateral_value(terms.rules.collateral, state.held)
    closes.collateral_at_rate[row] = at_rate
    needed = measure_shares(terms, state, scratch)
    closes.distance[row] = closes.backing[row] - terms.rules.level * needed
    n = len(state.margin)
    for i in range(n):
        closes.share[row, i] = scratch.shares[i]
        if is_isolated(terms, i):
            closes.own[row, i] = compute_pool_needed(terms, state, bar.quotes, i)
    for c in range(len(state.held.amounts)):
        closes.collateral_share[row] += scratch.shares[n + c]
    closes.requirement[row] = look_at_close(bar, True).needed
    for i in range(n):
        closes.failure[row, i] = scratch.failure[i]


def set_close(bar: AccountBar, held: HeldAtCloses, row: int, t: int) -> None:
    terms, feed, state, quotes = bar.terms, bar.feed, bar.state, bar.quotes
    brackets = terms.rules.brackets
    state.wallet[r.CASH] = held.cash[row]
    for i in range(len(state.margin)):
        if feed.span[i, 0] <= t < feed.span[i, 1]:
            size, is_inverse = brackets.sizes[i], brackets.are_inverse[i]
            quotes.mark_close[i] = compute_value(size, is_inverse, feed.mark_close[t, i])
            quotes.multiplier[i] = feed.multiplier[min(t, len(feed.multiplier) - 1), i]
            brackets.multipliers[i] = quotes.multiplier[i]
            initial = feed.initial[min(t, len(feed.initial) - 1), i]
            brackets.initial_multipliers[i] = initial
        state.held.values[i] = quotes.mark_close[i]
        state.held.quantities[i] = held.quantity[row, i]
        state.held.entries[i] = held.entry[row, i]
        state.margin[i] = held.margin[row, i]
    for c in range(len(state.held.amounts)):
        state.held.amounts[c] = held.amounts[row, c]
        state.held.prices[c] = feed.asset_mark_close[c, t]
    for k in range(len(state.options.targets)):
        state.options.positions.quantities[k] = held.options[row, k]
    close_options(bar, t)


def compute_all_initial(terms: Terms, state: AccountState) -> float:
    found = compute_initial_needed(terms, state)
    for i in range(len(state.margin)):
        if is_isolated(terms, i):
            found += state.margin[i]
    return found


# -------------------------------------------------------------------------------------- the record


class Lanes(NamedTuple):
    """Lives of one account on bars that lie end to end; none in a run.

    ``places`` of shape (lanes, 5) has the first bar of each lane, the first one lived, one past the
    last, and the numbers of its first settlement and flow. ``lives`` of shape (5, bars) are wealth,
    liquidations, bad debt, margin calls and whether the account is ruined. ``numbers`` are those of
    the account and of the memory of its policies, which begin each life as in ``begun``.
    """

    places: IntArray
    lives: FloatArray
    begun: FloatArray
    numbers: FloatArray


class RunTape(NamedTuple):
    """What a run writes; ``pool`` are requirement and backing of the pool at the last close."""

    log: EventLog
    record: Any
    cursor: IntArray
    before: FloatArray
    is_on: IntArray
    units: FloatArray
    pool: FloatArray
    lanes: Lanes


def record_account(bar: AccountBar, tape: RunTape, is_fast: bool, t: int) -> None:
    """Write one bar; in one that ``is_fast`` prices moved, and nothing else happened."""
    state, ledger = bar.state, bar.ledger
    account, wallet = tape.record.account, state.wallet
    account.equity[t] = wallet[r.EQUITY]
    write(account.cash, wallet[r.CASH], t)
    write(account.reserve, wallet[r.RESERVE], t)
    account.unit[t] = wallet[r.UNIT]
    account.overlay[t] = wallet[r.OVERLAY]
    write_total(account.price_pnl, ledger, r.PRICE_PNL, t)
    if not is_fast:
        record_money(account, ledger, t)
    for i in range(len(state.margin)):
        record_position(tape, state, ledger, is_fast, i, t)
    for k in range(len(state.options.targets)):
        record_option(tape, state, k, t)


def record_money(account: AccountFields, ledger: FloatArray, t: int) -> None:
    write_total(account.fees, ledger, r.FEES, t)
    write_total(account.slippage, ledger, r.SLIPPAGE, t)
    write_total(account.impact, ledger, r.IMPACT, t)
    write_total(account.funding, ledger, r.FUNDING, t)
    write_total(account.interest, ledger, r.INTEREST, t)
    write_total(account.liquidation_loss, ledger, r.LOSS, t)
    write(account.flows, total(ledger, r.FLOWS) + total(ledger, r.TOP_UP), t)
    write_total(account.top_up, ledger, r.TOP_UP, t)
    write_total(account.bad_debt, ledger, r.BAD_DEBT, t)
    write_total(account.collateral_pnl, ledger, r.COLLATERAL_PNL, t)
    write_total(account.conversion, ledger, r.CONVERSION, t)


def write_total(column: FloatArray, ledger: FloatArray, term: int, t: int) -> None:
    write(column, total(ledger, term), t)


def write(column: FloatArray, value: float, t: int) -> None:
    """Write what is not 0: new memory that stays untouched costs nothing."""
    if value != 0.0:
        column[t] = value


def write_of(column: FloatArray, value: float, t: int, i: int) -> None:
    if value != 0.0:
        column[t, i] = value


def record_position(
    tape: RunTape, state: AccountState, ledger: FloatArray, is_fast: bool, i: int, t: int
) -> None:
    held = tape.record.positions
    write_of(held.quantity, state.held.quantities[i], t, i)
    write_of(held.entry, state.held.entries[i], t, i)
    write_of(held.margin, state.margin[i], t, i)
    write_of(held.target, state.leverage[i], t, i)
    is_alone = len(state.margin) == 1 and len(state.options.targets) == 0
    if not is_alone:  # whose money is the account's, but bad debt: see new_record
        write_of(held.price_pnl, ledger[r.PRICE_PNL, i], t, i)
    if is_fast:
        return
    write_of(held.bad_debt, ledger[r.BAD_DEBT, i], t, i)
    if is_alone:
        return
    write_of(held.fees, ledger[r.FEES, i], t, i)
    write_of(held.slippage, ledger[r.SLIPPAGE, i], t, i)
    write_of(held.impact, ledger[r.IMPACT, i], t, i)
    write_of(held.funding, ledger[r.FUNDING, i], t, i)
    write_of(held.liquidation_loss, ledger[r.LOSS, i], t, i)


def record_option(tape: RunTape, state: AccountState, k: int, t: int) -> None:
    own, options = state.options, tape.record.options
    options.quantity[t, k], options.value[t, k] = own.positions.quantities[k], own.priced[k]
    options.price_pnl[t, k], options.fees[t, k] = own.profits[k], own.fees[k]
    options.slippage[t, k], options.liquidation_loss[t, k] = own.slippage[k], own.losses[k]
