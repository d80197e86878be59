"""What the loop writes of each bar: the record of a run, or the outcomes of simulated paths.

====================  ==============================================================================
word                  what it is, and its unit
====================  ==============================================================================
t                     bar of the market
row                   row of the record: bar t is row ``t - first``
lane                  one life of an account, on bars that lie end to end with those of others
unit                  value of a share of the account, which deposits do not move; 1 at the start
overlay               factor on all positions, decided by the policy of the whole account
wealth                equity and reserve: settlement currency
====================  ==============================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from backtest import account as a
from backtest.account.money import MONEY, POSITION_ROWS, TERM_ROWS, total
from backtest.account.records import LEAST_EQUITY, MOST_EQUITY
from backtest.core.kernels import inlined, of_options
from backtest.core.structs import view_numbers

if TYPE_CHECKING:
    from backtest.core import FloatArray, IntArray
    from backtest.results.record import TermRows

BEGIN, FIRST, STOP, SETTLED, FLOWED, STARTED = range(6)
"""Columns of ``Lanes.places``."""
N_LIVES = 8
WEALTH, LIQUIDATED, LOST, CALLED, RUINED, DAY_OPEN, LEAST_WEALTH, MOST_WEALTH = range(N_LIVES)
"""Rows of ``Lanes.lives``."""
N_CLOSES = DAY_OPEN
"""The first rows, which are known at closes; the others have what prices did on the way."""
CURRENT_BAR, FIRST_ROW = range(2)
"""Entries of ``RunTape.cursor``: the bar that the loop is at, and the bar of row 0."""


class Lanes(NamedTuple):
    """Lives of one account on bars that lie end to end; none in a run.

    ``places`` of shape (lanes, 6) has the first bar of each lane, the first one simulated, one
    past the last, the numbers of its first settlement and flow, and the time, ns, at which it
    began. ``known`` of shape (lanes, n + 1) has the first bar at which each policy is asked.
    ``lives`` of shape (8, bars) are wealth, liquidations, bad debt, margin calls, whether the
    account is ruined, the base of the day, and the least and the most wealth of the bar; or, where
    nobody asks for the others, the first five of them. ``numbers`` are those of the account and of
    the memory of its policies, which begin each life as in ``begun``.
    """

    places: IntArray
    known: IntArray
    lives: FloatArray
    begun: FloatArray
    numbers: FloatArray


class RunTape(NamedTuple):
    """What a run writes.

    ``is_on`` (1,) is 1 if the record is written. ``before`` (n,) are the mark values of the last
    close, ``units`` the unit value of each bar, empty if nobody asks for it, and ``pool``
    requirement and backing of the pool at the last close.
    """

    log: a.EventLog
    record: Any
    terms: TermRows
    cursor: IntArray
    before: FloatArray
    is_on: IntArray
    units: FloatArray
    pool: FloatArray
    lanes: Lanes


def write(column: FloatArray, value: float, row: int) -> None:
    """Write a value that is not 0 into a row of a column, which is 0 before.

    New memory is 0, and costs nothing as long as it stays untouched.
    """
    if value != 0.0:
        column[row] = value


def write_of(column: FloatArray, value: float, row: int, i: int) -> None:
    """Write a value that is not 0 into a row of column i, as :func:`write` does."""
    if value != 0.0:
        column[row, i] = value


# A bar by the general steps.


@inlined
def write_row(bar: a.AccountBar, tape: RunTape, is_recorded: bool, is_quiet: bool, t: int) -> None:
    """Write the unit value and the record of bar t, where they are asked for."""
    row = t - tape.cursor[FIRST_ROW]
    if len(tape.units) > 0:
        tape.units[row] = bar.state.wallet.unit
    if is_recorded:
        record_account(bar, tape, is_quiet, row)


def record_account(bar: a.AccountBar, tape: RunTape, is_quiet: bool, row: int) -> None:
    """Write what the account is after a bar into row ``row`` of the record of the run.

    In a bar that ``is_quiet`` only prices moved, so of its money only their profit is written. Most
    numbers that are 0 are not written, as the row was made of zeros.
    """
    state = bar.state
    wallet = state.wallet
    account = tape.record.account

    account.equity[row] = wallet.equity
    account.unit[row] = wallet.unit
    account.overlay[row] = wallet.overlay
    write(account.cash, wallet.cash, row)
    write(account.reserve, wallet.reserve, row)
    write(account.price_pnl, total(bar.ledger, MONEY.price_pnl), row)
    if not is_quiet:
        record_money(bar, tape, row)

    for i in range(len(state.positions)):
        record_position(bar, tape, is_quiet, i, row)
    for k in range(len(state.options.targets)):
        record_option(tape, state, k, row)


def record_money(bar: a.AccountBar, tape: RunTape, row: int) -> None:
    """Write the terms of money of the account, summed over its positions, and its flows."""
    for term in range(len(TERM_ROWS)):
        write_of(tape.terms.account, total(bar.ledger, TERM_ROWS[term]), term, row)

    money = bar.scratch.money
    account = tape.record.account
    write(account.top_up, money.top_up, row)
    write(account.flows, money.flows + money.top_up, row)  # with those from the reserve


def record_position(bar: a.AccountBar, tape: RunTape, is_quiet: bool, i: int, row: int) -> None:
    """Write position i after a bar, its target and its money into a row of the record.

    In a bar that ``is_quiet`` only prices moved, so of its money only their profit is written.
    Numbers that are 0 are not written, as the row was made of zeros.
    """
    state = bar.state
    position = state.positions[i]
    columns = tape.record.positions
    write_of(columns.quantity, position.quantity, row, i)
    write_of(columns.entry, position.entry, row, i)
    write_of(columns.margin, position.margin, row, i)
    write_of(columns.target, position.leverage, row, i)

    # The money of a position that is alone is that of the account, so it has no columns of its own
    # (``new_record``): only its bad debt may differ from that of the account.
    is_alone = len(state.positions) == 1 and len(state.options.targets) == 0
    if not is_alone:
        write_of(columns.price_pnl, bar.ledger[i].price_pnl, row, i)
    if is_quiet:
        return

    write_of(columns.bad_debt, bar.ledger[i].bad_debt, row, i)
    if is_alone:
        return
    money = view_numbers(bar.ledger)
    for term in range(len(POSITION_ROWS)):
        write_of(tape.terms.positions[term], money[i, POSITION_ROWS[term]], row, i)


@of_options(returns=None)
def record_option(tape: RunTape, state: a.AccountState, k: int, row: int) -> None:
    """Write what is held of option k, its value, and its terms of money."""
    options = state.options
    columns = tape.record.options
    columns.quantity[row, k] = options.positions.quantities[k]
    columns.value[row, k] = options.priced[k]
    columns.price_pnl[row, k] = options.profits[k]
    columns.fees[row, k] = options.fees[k]
    columns.slippage[row, k] = options.slippage[k]
    columns.liquidation_loss[row, k] = options.losses[k]


# A quiet bar of one position.


class Columns(NamedTuple):
    """Columns of the record that a quiet bar writes, of shape (n_bars,) and (n_bars, 1)."""

    equity: FloatArray
    cash: FloatArray
    reserve: FloatArray
    unit: FloatArray
    overlay: FloatArray
    price_pnl: FloatArray
    quantity: FloatArray
    entry: FloatArray
    margin: FloatArray
    target: FloatArray


@inlined
def pick_columns(tape: RunTape) -> Columns:
    """Return the columns by value, so that compiled code keeps their addresses in registers."""
    account = tape.record.account
    positions = tape.record.positions
    return Columns(
        equity=account.equity,
        cash=account.cash,
        reserve=account.reserve,
        unit=account.unit,
        overlay=account.overlay,
        price_pnl=account.price_pnl,
        quantity=positions.quantity,
        entry=positions.entry,
        margin=positions.margin,
        target=positions.target,
    )


@inlined
def record_quietly(columns: Columns, one: a.One, profit: float, row: int) -> None:
    """Write a bar of one position in which only prices moved into a row of the record.

    It writes what :func:`record_account` writes of such a bar, into columns that the loop holds.
    """
    wallet = one.wallet
    position = one.position
    columns.equity[row] = wallet.equity
    columns.unit[row] = wallet.unit
    columns.overlay[row] = wallet.overlay
    write(columns.cash, wallet.cash, row)
    write(columns.reserve, wallet.reserve, row)
    write(columns.price_pnl, profit, row)
    write_of(columns.quantity, position.quantity, row, 0)
    write_of(columns.entry, position.entry, row, 0)
    write_of(columns.margin, position.margin, row, 0)
    write_of(columns.target, position.leverage, row, 0)


# A bar of a simulated path.


def has_way(lives: FloatArray) -> bool:
    """Return whether the outcomes have rows for what prices do on their way to a close."""
    return len(lives) > N_CLOSES


def write_life(
    bar: a.AccountBar, lives: FloatArray, is_quiet: bool, has_no_walk: bool, t: int
) -> None:
    """Write what became of one simulated history in bar t into column t of ``lives``.

    ``lives`` of shape (rows, n_bars) has the outcomes of simulated paths. The first rows are known
    at each close: wealth, ruin, and the liquidations, bad debt and margin calls of the bar. Three
    more are written if the array has rows for them: the least and the most wealth that prices gave
    on their way to the close, and the base of the day's loss limit.

    The general steps of a bar note these extremes in the scratch; for a bar without them
    (``has_no_walk``) they are noted here. In a bar that ``is_quiet`` only prices moved: its events
    stay 0.
    """
    wallet = bar.state.wallet
    lives[WEALTH, t] = wallet.equity + wallet.reserve
    lives[RUINED, t] = wallet.is_ruined
    if has_way(lives):
        if has_no_walk:
            a.note_extremes(bar, t)
        extremes = bar.scratch.extremes
        least = min(extremes[LEAST_EQUITY], wallet.equity)
        most = max(extremes[MOST_EQUITY], wallet.equity)
        lives[LEAST_WEALTH, t] = least + wallet.reserve
        lives[MOST_WEALTH, t] = most + wallet.reserve
        lives[DAY_OPEN, t] = wallet.day_open
    if is_quiet:
        return

    money = bar.scratch.money
    lives[LIQUIDATED, t] = money.liquidations
    lives[LOST, t] = money.bad_debt
    lives[CALLED, t] = money.calls
