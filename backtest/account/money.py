"""The wallet of an account, the terms of money, each said once, and the ledger of a bar."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from backtest.core.kernels import inlined
from backtest.core.structs import Struct, Structs, lay_out, number_fields, view_numbers


@lay_out
class Wallet(Struct):
    """The money of an account at a close, and what it counts; flags are 0 or 1.

    ``overlay`` is the portfolio's leverage at the next open, ``since_pool`` the bars since the
    pool's last liquidation, ``pool_failed`` whether it failed in this bar, ``peak`` the
    highest ``unit``, ``assets_so_far`` the
    profit of the collateral, ``converted_so_far`` the cost of selling it, ``highest`` the highest
    equity since the start or the last equity stop, ``turnover`` what was traded so far.
    ``day_open`` and ``week_open`` are the equity at the first open of the day and of the week with
    the flows since, ``rests`` is 1 until the next day, or 2 until the next week, without orders.
    ``paused_until``, in ns, is the time before which nothing is ordered after an equity stop; 0 if
    there is no such pause, infinite if it does not end.
    """

    __slots__ = ()

    cash: float
    reserve: float
    equity: float
    unit: float
    peak: float
    scale: float
    paid_in: float
    is_over: float
    is_ruined: float
    overlay: float
    since_pool: float
    is_converting: float
    pool_failed: float
    assets_so_far: float
    converted_so_far: float
    highest: float
    turnover: float
    day_open: float
    week_open: float
    rests: float
    paused_until: float


WALLET = number_fields("WalletRows", Wallet.names())
"""Rows of a wallet in a block of lanes."""


class MoneyTerm(NamedTuple):
    """A cause of a change of equity: its amount, times ``sign``, is the change.

    ``words`` stand in statements, ``measure`` says what the measure of a cost is, and ``growth``
    what the term of log growth is, for terms that are one. ``is_cost``: charged for trading,
    holding or owing. A fill pays it if ``column`` names it in the log. Positions have it
    (``of_positions``), options (``of_options``), and trades (``in_trades``). ``is_of_assets``: it
    is the collateral's, which sums count as price or slippage.
    """

    name: str
    sign: float
    words: str
    measure: str = ""
    growth: str = ""
    column: str = ""
    is_cost: bool = False
    of_positions: bool = False
    of_options: bool = False
    in_trades: bool = False
    is_of_assets: bool = False


MONEY_TERMS = (
    MoneyTerm(
        "price_pnl",
        sign=1.0,
        words="price profit and loss",
        of_positions=True,
        of_options=True,
        in_trades=True,
    ),
    MoneyTerm(
        "fees",
        sign=-1.0,
        words="fees",
        measure="trading fees paid",
        growth="trading fees",
        column="fee",
        is_cost=True,
        of_positions=True,
        of_options=True,
        in_trades=True,
    ),
    MoneyTerm(
        "slippage",
        sign=-1.0,
        words="slippage",
        measure="paid by fills worse than the open",
        growth="fills worse than the price of the bar",
        column="slippage",
        is_cost=True,
        of_positions=True,
        of_options=True,
        in_trades=True,
    ),
    MoneyTerm(
        "impact",
        sign=-1.0,
        words="impact",
        measure="paid by fills worsened through their own size",
        growth="fills worse still for their size",
        column="impact",
        is_cost=True,
        of_positions=True,
        in_trades=True,
    ),
    MoneyTerm(
        "funding",
        sign=-1.0,
        words="funding",
        measure="funding paid less received",
        growth="paid to the other side",
        is_cost=True,
        of_positions=True,
        in_trades=True,
    ),
    MoneyTerm(
        "interest",
        sign=-1.0,
        words="interest",
        measure="interest paid less earned",
        growth="on balances and loans",
        is_cost=True,
    ),
    MoneyTerm(
        "expense",
        sign=-1.0,
        words="expenses of funds",
        measure="yearly costs of the funds held",
        growth="yearly costs of the funds held",
        is_cost=True,
        of_positions=True,
        in_trades=True,
    ),
    MoneyTerm(
        "liquidation_loss",
        sign=-1.0,
        words="liquidation loss",
        growth="charged by the venue beyond the price",
        of_positions=True,
        of_options=True,
        in_trades=True,
    ),
    MoneyTerm("flows", sign=1.0, words="deposits and withdrawals"),
    MoneyTerm("bad_debt", sign=1.0, words="bad debt, the venue's loss", of_positions=True),
    MoneyTerm("collateral_pnl", sign=1.0, words="profit of collateral", is_of_assets=True),
    MoneyTerm("conversion", sign=-1.0, words="cost of conversions", is_of_assets=True),
)
"""All that changes the equity but a top-up, each said once: records, statements and pages read it.
A top-up moves money from the reserve of the account to its cash."""
SIGNS = {term.name: term.sign for term in MONEY_TERMS}
"""How each term changes the equity: 1 or -1, by name."""
TERMS = tuple(SIGNS)
COSTS = tuple(term.name for term in MONEY_TERMS if term.is_cost)
GROWTH_TERMS = tuple(term.name for term in MONEY_TERMS if term.growth)
FILL_COSTS = {term.name: term.column for term in MONEY_TERMS if term.column}
"""The costs of a fill, and their names in the log."""
IN_PRICE = ("slippage", "impact")
"""Those that the price of a fill has; all others are its fee."""
POSITION_TERMS = tuple(term.name for term in MONEY_TERMS if term.of_positions)
OPTION_TERMS = tuple(term.name for term in MONEY_TERMS if term.of_options)
TRADE_TERMS = tuple(term.name for term in MONEY_TERMS if term.in_trades)
TRADE_COSTS = tuple(name for name in TRADE_TERMS if SIGNS[name] < 0.0)

SUMMED = tuple(term.name for term in MONEY_TERMS if not term.is_of_assets)
"""The terms of a run: those of collateral are in price and slippage there."""


@lay_out
class Ledger(Struct):
    """The money of a run by cause, and what it counts.

    First the terms but those of assets, then the money from the reserve (``top_up``), the notional
    ``traded``, and counts. ``call_days`` are those of the calls that ended in a liquidation.
    """

    __slots__ = ()

    price_pnl: float
    fees: float
    slippage: float
    impact: float
    funding: float
    interest: float
    expense: float
    liquidation_loss: float
    flows: float
    bad_debt: float
    top_up: float
    traded: float
    liquidations: float
    stops: float
    calls: float
    calls_met: float
    calls_failed: float
    liquidated_calls: float
    call_days: float
    take_profits: float
    ambiguous_bars: float
    both_reached: float
    fills: float


@lay_out
class Money(Ledger):
    """The money of a bar by cause: of an instrument, of the account, or of all."""

    __slots__ = ()

    collateral_pnl: float
    conversion: float


MONEY = number_fields("MoneyRows", Money.names())
TERM_ROWS = tuple(getattr(MONEY, name) for name in TERMS)
CARRIED_ROWS = tuple(getattr(MONEY, name) for name in COSTS if name not in IN_PRICE)
POSITION_ROWS = tuple(getattr(MONEY, name) for name in POSITION_TERMS)
FIRST_TERMS = Ledger.names()[: len(SUMMED)]
"""The terms in the order of the first rows."""
CHANGES = (*(SIGNS[name] for name in FIRST_TERMS), 1.0)
"""Signs of the first rows in the change of equity; the last is that of a top-up."""


def pick_signs(names: Collection[str]) -> tuple[float, ...]:
    """Return the signs of the first rows, 0 for those of other names."""
    signs = dict.fromkeys(FIRST_TERMS, 0.0)
    signs |= {name: SIGNS[name] for name in FIRST_TERMS if name in names}
    return tuple(signs.values())


EARNED = pick_signs(set(FIRST_TERMS) - {"flows"})
"""Signs of the first rows in what a bar earned; flows are not earned."""
GAINED = pick_signs(TRADE_TERMS)
"""Signs of the first rows in what a position gained, after the costs that trades have."""


def clear_ledger(ledger: Structs[Money]) -> None:
    """Write 0 into all sums and counts of a bar."""
    view_numbers(ledger)[:, :] = 0.0


@inlined
def total(ledger: Structs[Money], term: int) -> float:
    """Return the sum of a row of :data:`MONEY` over the instruments and the account."""
    rows = view_numbers(ledger)
    total = 0.0
    for i in range(len(rows)):
        total += rows[i, term]
    return total


def total_from_outside(ledger: Structs[Money]) -> float:
    """Return the money that flows and top-ups moved into the account in a bar, or out of it."""
    return total(ledger, MONEY.flows) + total(ledger, MONEY.top_up)


def sum_ledger(ledger: Structs[Money], money: Money) -> None:
    """Write the sums of a bar over all rows of its ledger into ``money``.

    A row is that of an instrument, the last one that of the account; its fields are profits, costs
    and counts. The profit of collateral, and the cost of selling it, have sums of their own, and
    count in the sums of price profit and slippage, too.
    """
    rows = view_numbers(ledger)
    sums = view_numbers(money)
    sums[:] = 0.0
    for i in range(len(rows)):
        for field in range(len(sums)):
            sums[field] += rows[i, field]

    money.price_pnl += money.collateral_pnl
    money.slippage += money.conversion


def sum_bar(ledger: Structs[Money], money: Money, wallet: Wallet, is_fast: bool) -> float:
    """Return the change of equity by a bar, and write its sums and the turnover so far.

    In a bar of the fast path (``is_fast``) only prices have moved: only their profit is written.
    """
    if is_fast:
        money.price_pnl = total(ledger, MONEY.price_pnl)
        return money.price_pnl
    sum_ledger(ledger, money)
    wallet.turnover += money.traded
    return sum_changes(money)


def earn(ledger: Structs[Money]) -> float:
    """Return what the bar has earned so far: the change of equity without deposits and top-ups.

    Money. The ledger has a row for each instrument and a last one for the account. A row has the
    columns of :class:`Money`. ``EARNED`` is the sign of each of its first columns in the sum: 1 for
    a profit, -1 for a cost (costs are positive numbers), 0 for what is not earned.

    Profit of collateral and the cost of selling it stand in columns after these, so they are added
    by name.
    """
    numbers = view_numbers(ledger)
    total = 0.0
    for i in range(len(ledger)):
        for field in range(len(EARNED)):
            total += EARNED[field] * numbers[i, field]
        total += ledger[i].collateral_pnl - ledger[i].conversion
    return total


def compute_gain(ledger: Structs[Money], i: int) -> float:
    """Return what a position gained in a bar so far, after the costs that trades have."""
    rows = view_numbers(ledger)
    total = 0.0
    for term in range(len(GAINED)):
        total += GAINED[term] * rows[i, term]
    return total


def sum_changes(money: Money) -> float:
    """Return by how much the sums of a bar change the equity."""
    sums = view_numbers(money)
    total = 0.0
    for term in range(len(CHANGES)):
        total += CHANGES[term] * sums[term]
    return total
