"""What the cross positions have, need and fail by; the balances of one position.

The letters are those of ``docs/portfolio.md``, "What the account holds".

====================  ============================================================================
word                  what it is, and its unit
====================  ============================================================================
cash                  w: money after paying for the cross positions; the wallet has it
balance               B: cash without the unrealized profit of cross positions, money realized
pool                  all cross positions and options, with the collateral that backs them
backing               M: what backs the pool, at the values being tested
requirement           R: what the rule of the account asks of the pool
excess                D: backing less level times requirement; the pool fails at 0
balances              what pays for orders in one instrument, and a copy of its position: w of a
                      cross one; of an isolated one B, or 0 where that is negative
debt                  cash that is missing; what nothing backs at the close the venue bears
====================  ============================================================================

Values being tested are those that :func:`value_at` wrote last.
"""

from __future__ import annotations

from backtest import margin
from backtest.account import records as r
from backtest.account.events import Event
from backtest.account.money import Money
from backtest.account.options import count_options, holds_options, must_value_options
from backtest.account.position import mark_position
from backtest.core import FloatArray
from backtest.core.kernels import inlined, of_options
from backtest.core.structs import Structs
from backtest.core.units import TOLERANCE
from backtest.margin import is_pool_failing as is_short

NO_INSTRUMENT = -1
"""Owner of an event in the log that is the account's; the last row of the ledger is its own."""
LEAST = 1e-300
"""More than nothing: keeps a pool that owes nothing from failing at an excess of 0."""


@inlined
def value_at(state: r.AccountState, values: FloatArray, prices: FloatArray) -> None:
    """Write the contract values of positions and prices of collateral at which all is valued."""
    for i in range(len(values)):
        state.positions[i].value = values[i]
    for c in range(len(prices)):
        state.held.prices[c] = prices[c]


def count_cross(terms: r.Terms, state: r.AccountState) -> int:
    """Return how many cross positions and options are held."""
    count = count_options(state)
    for i in range(len(state.positions)):
        if r.is_held(state, i) and not r.is_isolated(terms, i):
            count += 1
    return count


def count_open(state: r.AccountState) -> int:
    """Return how many positions and options are held."""
    count = count_options(state)
    for i in range(len(state.positions)):
        if r.is_held(state, i):
            count += 1
    return count


def has_only_position(terms: r.Terms, state: r.AccountState) -> bool:
    """Return whether one margined position and money are all that the account holds now.

    It may be declared for more, and have rules of a pool; see :func:`is_for_one_position`.
    """
    n_held = 0
    for i in range(len(state.positions)):
        if not r.is_held(state, i):
            continue
        if r.is_spot(terms, i):
            return False
        n_held += 1

    return n_held == 1 and not has_collateral(state) and not must_value_options(terms, state)


def is_for_one_position(terms: r.Terms, state: r.AccountState) -> bool:
    """Return whether the account is declared for one margined position, without rules of a pool.

    So it follows ``docs/accounting.md`` alone. Other collateral, a spot leg, options, scenarios or
    a level of liquidation make it one of ``docs/portfolio.md``, also of one market.
    """
    if len(state.positions) != 1 or r.is_spot(terms, 0):
        return False
    if len(state.held.amounts) != 0 or len(state.options.targets) != 0:
        return False
    return not terms.rules.has_scenarios and terms.rules.level == 1.0


def has_collateral(state: r.AccountState) -> bool:
    """Return whether the account has collateral besides cash, or owes some.

    A negative amount is a debt in that asset, which cannot be sold: :func:`can_sell_collateral`.
    """
    for c in range(len(state.held.amounts)):  # noqa: SIM110 - numba compiles no generators
        if state.held.amounts[c] != 0.0:
            return True
    return False


def can_sell_collateral(state: r.AccountState) -> bool:
    """Return whether any collateral can be sold for cash."""
    for amount in state.held.amounts:  # noqa: SIM110 - numba compiles no generators
        if amount > 0.0:
            return True
    return False


def compute_balance(terms: r.Terms, state: r.AccountState) -> float:
    """Return the balance: cash without the unrealized profit of cross positions, money realized."""
    balance = state.wallet.cash
    for i in range(len(state.positions)):
        position = state.positions[i]
        if position.quantity != 0.0 and not r.is_isolated(terms, i) and not r.is_spot(terms, i):
            balance += position.quantity * position.entry
    return float(balance)


def compute_debt(state: r.AccountState) -> float:
    """Return what the wallet owes, money; 0 if it has some."""
    return max(-state.wallet.cash, 0.0)


def take_from_isolated(terms: r.Terms, state: r.AccountState, debt_before: float) -> None:
    """Pay fees and interest that the wallet could not pay from isolated margins (accounting 3).

    Called after the charges have been taken from the cash, which may be below 0 now. Each isolated
    position pays in proportion to its posted margin, at most all of it. If the account is for one
    position alone, that position pays everything, even more than its margin. Writes margins and
    cash. Returns at once if there is nothing to pay, or if something else backs a negative cash.

    ``debt_before`` is what the wallet owed before the charges, from closing positions at a loss
    beyond their margin. No other position pays for that: it stays, and is bad debt at the close.
    """
    # Cross positions and collateral back a negative cash: it is a loan then.
    charged = compute_debt(state) - debt_before
    if not charged > 0.0 or count_cross(terms, state) > 0 or has_collateral(state):
        return

    posted = 0.0
    for i in range(len(state.positions)):
        if r.is_isolated(terms, i) and r.is_held(state, i):
            posted += max(state.positions[i].margin, 0.0)
    owes_whole = is_for_one_position(terms, state) and count_open(state) == 1
    paid = charged if owes_whole else min(charged, posted)

    for i in range(len(state.positions)):
        if r.is_isolated(terms, i) and r.is_held(state, i) and paid > 0.0:
            position = state.positions[i]
            share = 1.0
            if not owes_whole:
                share = max(position.margin, 0.0) / posted
            position.margin -= share * paid

    # Cash was -(charged + debt_before). Summed in this order, nothing is left of charges that were
    # paid in full, not even rounding.
    state.wallet.cash = paid - charged - debt_before


def compute_pool(terms: r.Terms, state: r.AccountState) -> float:
    """Return what backs the cross positions and options: money.

    That is cash, the value of positions, collateral at its rates, and what counts of options, at
    the prices that :func:`value_at` wrote last.
    """
    backing = margin.compute_portfolio_backing(terms.rules, state.held, state.wallet.cash)
    if holds_options(state):
        backing += compute_counted(terms, state)
    return backing


def compute_counted(terms: r.Terms, state: r.AccountState) -> float:
    """Return what options add to the backing of the pool."""
    return margin.compute_counted_value(terms.options.rules, state.options.positions)


def compute_needed(terms: r.Terms, state: r.AccountState, is_initial: bool) -> float:
    """Return what the rule of the account asks of cross positions and options: money.

    That is their initial margin, or without ``is_initial`` their maintenance margin.
    """
    if holds_options(state):
        return compute_with_options(terms, state, is_initial)
    return margin.compute_portfolio_requirement(terms.rules, state.held, is_initial)


@of_options(returns=0.0)
def compute_with_options(terms: r.Terms, state: r.AccountState, is_initial: bool) -> float:
    """Return the margin that an account with options needs: money.

    With ``is_initial`` initial margin, else maintenance margin.
    """
    pool = margin.OptionPool(terms.rules, state.held, state.options.positions, terms.options.rules)
    return margin.compute_option_requirement(pool, is_initial)


def compute_account_equity(terms: r.Terms, state: r.AccountState) -> float:
    """Return the equity of the account at the prices that :func:`value_at` wrote last: money.

    Without the reserve, which is money outside of the account.
    """
    return compute_equity_at(terms, state, state.held.values, state.held.prices)


@inlined
def compute_equity_at(
    terms: r.Terms, state: r.AccountState, values: FloatArray, prices: FloatArray
) -> float:
    """Return the equity without the reserve, at some contract values and prices of collateral.

    Money. The cash has paid the entry of each cross position, so of these the whole value counts.
    For an isolated position it has paid the margin alone, so margin and profit count. Options count
    at the marks that they have now: price them before (:func:`.options.price_options`).
    """
    equity = state.wallet.cash
    isolated = 0.0
    for i in range(len(state.positions)):
        position = state.positions[i]
        if r.is_isolated(terms, i):
            isolated += position.margin
            if position.quantity != 0.0:
                isolated += position.quantity * (values[i] - position.entry)
        elif position.quantity != 0.0:
            equity += position.quantity * values[i]

    for c in range(len(prices)):
        equity += state.held.amounts[c] * prices[c]
    if holds_options(state):
        equity += margin.compute_options_value(state.options.positions)
    return float(equity + isolated)


def compute_excess(terms: r.Terms, state: r.AccountState) -> float:
    """Return what the pool has over its requirement, at the prices of :func:`value_at`: money.

    That is its backing less the level of liquidation times the maintenance margin: it fails at 0.
    """
    needed = terms.rules.level * compute_needed(terms, state, is_initial=False)
    return compute_pool(terms, state) - needed


def is_pool_short(terms: r.Terms, state: r.AccountState) -> bool:
    """Return whether the pool fails at the prices that :func:`value_at` wrote last (accounting 5).

    It fails where its backing is at most the level of liquidation times its maintenance margin. A
    pool without positions owes nothing, so it never fails.
    """
    if count_cross(terms, state) == 0:
        return False
    if not holds_options(state):
        return is_short(terms.rules, state.held, state.wallet.cash)
    return compute_cautious_excess(terms, state) <= 0.0


def compute_cautious_excess(terms: r.Terms, state: r.AccountState) -> float:
    """Return what a pool with options has over its requirement, money; the pool fails at 0 or less.

    That is its backing less the level of liquidation times its maintenance margin, at the values
    being tested. Rounding counts against the trader: a requirement that is met to the last digit
    fails. Of a pool of long options alone it counts for the trader, as such a pool cannot lose more
    than it is worth: met to the last digit, it holds.
    """
    backing = compute_pool(terms, state)
    needed = terms.rules.level * compute_needed(terms, state, is_initial=False)

    # Against the trader: what is needed is rounded up.
    has_positions = count_cross(terms, state) != count_options(state)
    if has_positions or has_short_options(state):
        return backing - needed * (1.0 + TOLERANCE)

    # For the trader: what is needed is rounded down, and what the options are worth up.
    excess = backing - needed * (1.0 - TOLERANCE)
    excess += TOLERANCE * margin.compute_options_value(state.options.positions)
    if excess < 0.0:
        return excess

    # Callers read 0 as failing, but here 0 holds: LEAST, the smallest excess, says so.
    return excess + LEAST


def has_short_options(state: r.AccountState) -> bool:
    """Return whether a short option is held."""
    for quantity in state.options.positions.quantities:  # noqa: SIM110 - numba has no generators
        if quantity < 0.0:
            return True
    return False


def pick_balances(terms: r.Terms, state: r.AccountState, i: int) -> r.Balances:
    """Return what pays for orders in instrument i, and a copy of its position.

    The cash of a cross position is that of the account, w. An isolated one may spend the balance B
    alone, which has no profit of cross positions that is not realized; one that is negative pays
    nothing.
    """
    cash = state.wallet.cash
    if r.is_isolated(terms, i):
        cash = max(compute_balance(terms, state), 0.0)
    return r.Balances(cash, r.pick_position(state, i))


def put_balances(
    terms: r.Terms, state: r.AccountState, i: int, before: r.Balances, after: r.Balances
) -> None:
    """Write the balances of instrument i after a trade into the account: cash and position.

    ``before`` are those of :func:`pick_balances` that the trade started from.
    """
    # The cash of isolated balances is B, not w, so what the trade changed of it is added.
    if r.is_isolated(terms, i):
        state.wallet.cash += after.cash - before.cash
    else:
        state.wallet.cash = after.cash
    r.put_position(state, i, after.position)


def enter_fill(
    bar: r.AccountBar, t: int, i: int, kind: int, before: r.Balances, done: r.Trade, stops: int
) -> None:
    """Log a trade of instrument i, enter it into the ledger, and write the balances that it left.

    ``kind`` is the event that the log calls it, ``before`` are the balances that it started from,
    and ``stops`` is 1 if a stop that limits a loss traded, else 0. A trade of 0 contracts is not
    logged.
    """
    money = bar.ledger[i]
    notional = abs(done.quantity) * abs(done.value)
    if done.quantity != 0.0:
        money.fills += 1.0
        r.log_event(bar.log, t, i, kind, done.value, done.quantity, notional)
        r.log_costs(bar.log, fee=done.fee, slippage=done.slippage, impact=done.impact)

    money.price_pnl += done.price_pnl
    money.fees += done.fee
    money.slippage += done.slippage
    money.impact += done.impact
    money.traded += notional
    money.stops += stops

    put_balances(bar.terms, bar.state, i, before, done.balances)


def is_under_limit(terms: r.Terms, state: r.AccountState, equity: float) -> bool:
    """Return whether the balance is so negative that the venue converts collateral.

    Rounding, as a share of the limit and the equity, counts against the trader.
    """
    limit = terms.negative_limit * (1.0 - TOLERANCE) + TOLERANCE * max(equity, 0.0)
    return has_collateral(state) and compute_balance(terms, state) < -limit


def is_unbacked(terms: r.Terms, state: r.AccountState) -> bool:
    """Return whether cash is under 0 with no cross position, option or collateral behind it."""
    is_bare = count_cross(terms, state) == 0 and not has_collateral(state)
    return is_bare and state.wallet.cash < 0.0


def write_off(bar: r.AccountBar, t: int, debt: float) -> None:
    """Write off cash that is missing, ``debt`` of money: the venue bears it as bad debt."""
    bar.state.wallet.cash += debt
    book_bad_debt(bar, t, NO_INSTRUMENT, value=1.0, debt=debt)


def book_bad_debt(bar: r.AccountBar, t: int, i: int, value: float, debt: float) -> None:
    """Enter bad debt of instrument i, or of the account (NO_INSTRUMENT), into ledger and log.

    ``debt`` is money that the account owes and cannot pay, positive: the venue's loss. ``value`` is
    the contract value at which the position was closed, 1 for the account.
    """
    row = len(bar.ledger) - 1 if i == NO_INSTRUMENT else i
    bar.ledger[row].bad_debt += debt
    r.log_event(bar.log, t, i, Event.BAD_DEBT, value, quantity=0.0, amount=debt)


def mark_to_ledger(state: r.AccountState, i: int, value: float, ledger: Structs[Money]) -> None:
    """Mark a position at a contract value, and enter its profit into the ledger."""
    marked, pnl = mark_position(r.pick_position(state, i), value)
    r.put_position(state, i, marked)
    ledger[i].price_pnl += pnl


def mark_collateral(state: r.AccountState, prices: FloatArray, ledger: Structs[Money]) -> None:
    """Mark the collateral at ``prices`` of shape (C,), and enter its profit into the ledger.

    ``priced`` has the prices up to which its profit is booked already. It counts in the last row of
    the ledger, that of the account.
    """
    of_account = ledger[len(ledger) - 1]
    for c in range(len(prices)):
        if state.held.amounts[c] != 0.0:
            pnl = state.held.amounts[c] * (prices[c] - state.priced[c])
            of_account.collateral_pnl += pnl
        state.priced[c] = prices[c]


def compute_proceeds(terms: r.Terms, state: r.AccountState) -> float:
    """Return the money that the sale of all collateral would bring."""
    total = 0.0
    for c in range(len(state.held.amounts)):
        if state.held.amounts[c] > 0.0:
            kept = 1.0 - terms.rules.collateral.slippages[c]
            total += state.held.amounts[c] * state.held.prices[c] * kept
    return total


def sell_collateral(bar: r.AccountBar, t: int, missing: float) -> None:
    """Sell collateral for ``missing`` money, or all of it where it brings less.

    Pro rata to its value, or one asset after the other in the order declared, as the account says.
    Writes amounts, cash, ledger and log.
    """
    if not missing > 0.0:
        return
    if bar.terms.conversion_is_pro_rata:
        sell_pro_rata(bar, t, missing)
    else:
        sell_in_order(bar, t, missing)


def sell_pro_rata(bar: r.AccountBar, t: int, missing: float) -> None:
    """Sell the same share of each collateral, so that all sales together bring ``missing`` money.

    All of it where it brings less. Debts in an asset, which are negative amounts, stay. Writes
    amounts, cash, ledger and log.
    """
    held = bar.state.held
    proceeds_of_all = compute_proceeds(bar.terms, bar.state)
    # Nothing can be sold: a share of 0.
    share = min(missing / proceeds_of_all, 1.0) if proceeds_of_all > 0.0 else 0.0
    for c in range(len(held.amounts)):
        if held.amounts[c] > 0.0:
            sale_price = compute_sale_price(bar, c)
            book_sale(bar, t, c, held.amounts[c] * share, sale_price)


def sell_in_order(bar: r.AccountBar, t: int, missing: float) -> None:
    """Sell one collateral after the other, each whole, until what is missing is there.

    Of the last one only what is still missing then. Writes amounts, cash, ledger and log.
    """
    held = bar.state.held
    for c in range(len(held.amounts)):
        if not (missing > 0.0 and held.amounts[c] > 0.0):
            continue
        sale_price = compute_sale_price(bar, c)
        sold = held.amounts[c]
        # An asset that is just enough is sold whole: no dust of it is left by rounding.
        if sold * sale_price > missing * (1.0 + TOLERANCE):
            sold = missing / sale_price
        missing -= sold * sale_price
        book_sale(bar, t, c, sold, sale_price)


def compute_sale_price(bar: r.AccountBar, c: int) -> float:
    """Return the price at which collateral c sells now, less its slippage."""
    slippage = bar.terms.rules.collateral.slippages[c]
    return float(bar.state.held.prices[c] * (1.0 - slippage))


def book_sale(bar: r.AccountBar, t: int, c: int, sold: float, sale_price: float) -> None:
    """Write the sale of ``sold`` units of collateral c into amounts, cash, ledger and log.

    ``sale_price`` is what a unit brings, its price less slippage. The difference is a cost of
    conversion. The ledger's last row, that of the account, has collateral.
    """
    state = bar.state
    price = state.held.prices[c]
    state.held.amounts[c] = state.held.amounts[c] - sold
    state.wallet.cash += sold * sale_price

    # The profit since the last booking is that of the price (``priced`` is that price); what the
    # sale is worse than it is a cost.
    cost = sold * (price - sale_price)
    of_account = bar.ledger[len(bar.ledger) - 1]
    of_account.collateral_pnl += sold * (price - state.priced[c])
    of_account.conversion += cost

    # In the log, collateral comes after the instruments.
    owner = len(state.positions) + c
    r.log_event(bar.log, t, owner, Event.CONVERTED, sale_price, -sold, sold * sale_price)
    r.log_costs(bar.log, fee=cost, slippage=0.0, impact=0.0)
