"""The records of the accounting: rules, books, the quote of a bar, and what a trade did.

All are named tuples of plain numbers, so that the functions on them run as ordinary Python and
compile with numba. Prices stand in them as values ``u(P)`` of one contract in the settlement
currency: ``size P`` for linear contracts, ``-size / P`` for inverse ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from backtest.venue.requirement import MarginRules

if TYPE_CHECKING:
    from backtest.base.units import FloatArray, IntArray

CLOSE, TAKEOVER, PARTIAL = 0, 1, 2
"""The modes of liquidation."""


class InstrumentRules(NamedTuple):
    """The rules of one instrument and of trading it, as plain numbers.

    The first seven fields are True, or None where the configuration does without: numba takes the
    two as different types and leaves out the code that is not needed. ``has_rounding``: there are
    lots, a least notional or a limit of participation; ``keeps_entry``: the average entry is
    needed; ``marks_entry``: the requirement may be of the entry price, as ``margin`` says.
    ``fee`` is the rate of an ordinary trade (taker and maker blended), ``stop_loss`` a fraction of
    the entry price, ``step`` 0 for "down to the floor of the bracket", ``participation`` infinite
    for none.
    """

    is_inverse: bool | None
    is_isolated: bool | None
    has_stop: bool | None
    has_impact: bool | None
    has_rounding: bool | None
    keeps_entry: bool | None
    marks_entry: bool | None
    margin: MarginRules
    lot: float
    min_notional: float
    fee: float
    taker: float
    slippage: float
    impact: float
    participation: float
    liquidation_mode: int
    liquidation_fee: float
    liquidation_slippage: float
    step: float
    full_below: float
    is_funded_by_wallet: bool
    min_leverage: float
    max_leverage: float
    band: float
    stop_loss: float


class AccountRules(NamedTuple):
    """The rules of the account as a whole.

    ``has_interest`` is True, or None where no interest can be due. ``is_loan``: interest is on the
    loan, not on the balance; ``ruin_at`` is a share of the capital paid in.
    """

    has_interest: bool | None
    is_loan: bool
    top_up_to: float
    ruin_at: float


class Rules(NamedTuple):
    """The rules of an account and of its instrument."""

    account: AccountRules
    instrument: InstrumentRules

    def with_margin(self, margin: MarginRules) -> Rules:
        """Return the rules under another margin table."""
        return self._replace(instrument=self.instrument._replace(margin=margin))


class Position(NamedTuple):
    """What is held of one instrument.

    Signed ``quantity`` in contracts, average ``entry`` in u (0 when flat), posted ``margin``
    (isolated only), and the ``value`` in u at which the position was last marked.
    """

    quantity: float
    entry: float
    margin: float
    value: float


class Books(NamedTuple):
    """What the account owns: its cash (the wallet, in isolated margin) and its one position."""

    cash: float
    positions: tuple[Position]


class Quote(NamedTuple):
    """One bar as values u: last open, low, high; mark open, low, high, close; and what goes along.

    ``multiplier`` is x_t; ``volume`` (contracts), ``sigma`` (daily) and ``adv`` (notional per day)
    are those known at the close before.
    """

    open: float
    low: float
    high: float
    mark_open: float
    mark_low: float
    mark_high: float
    mark_close: float
    multiplier: float
    volume: float
    sigma: float
    adv: float


class Feed(NamedTuple):
    """The market as arrays of shape (n_bars,), with what else arrives by time.

    ``multiplier``, ``signal``, ``years``, ``borrow_rate``, ``cash_rate``, ``short_rate``,
    ``sigma`` and ``adv`` may have one entry, which then holds for all bars. Rates are those in
    force at the previous open, ``years`` the day-counted time since it. Funding events and flows
    are lists in time order, each with the bar it falls into; ``funding_is_open`` is 1 for events
    at the open.
    """

    open: FloatArray
    high: FloatArray
    low: FloatArray
    mark_open: FloatArray
    mark_high: FloatArray
    mark_low: FloatArray
    mark_close: FloatArray
    volume: FloatArray
    multiplier: FloatArray
    sigma: FloatArray
    adv: FloatArray
    signal: FloatArray
    years: FloatArray
    borrow_rate: FloatArray
    cash_rate: FloatArray
    short_rate: FloatArray
    funding_bar: IntArray
    funding_is_open: IntArray
    funding_price: FloatArray
    funding_rate: FloatArray
    flow_bar: IntArray
    flow_amount: FloatArray


class Trade(NamedTuple):
    """A change of position: new books, price pnl up to it, and its costs (``value``: u filled)."""

    books: Books
    price_pnl: float
    fee: float
    slippage: float
    impact: float
    quantity: float
    value: float


class Liquidation(NamedTuple):
    """What a liquidation did; ``quantity`` is the signed change, ``traded`` its notional."""

    books: Books
    price_pnl: float
    loss: float
    bad_debt: float
    quantity: float
    traded: float


class Plan(NamedTuple):
    """What the account wants besides trading: margin calls, reserve, grace, halt.

    ``margin_call`` 0 means none; ``grace`` -1 means none, else bars.
    """

    margin_call: float
    has_top_up: bool
    grace: float
    grace_ratio: float
    is_halting: bool


class State(NamedTuple):
    """Where the account stands at a bar's close, with the decision that waits for the next open.

    ``funding_next`` and ``flow_next`` index the next event of the feed; ``ratio`` is the margin
    ratio, ``is_called`` whether a margin call waits for the reserve, ``unmet`` the bars a call
    has gone unmet (-1: none), ``since`` the bars since the last liquidation and ``since_stop``
    those since the last stop (infinite: never).
    ``unit`` is wealth free of flows: ``scale`` times wealth, the scale 1 at the start and changed
    by flows only; ``peak`` is its highest. ``paid_in`` is the capital paid in, with the reserve.
    """

    books: Books
    equity: float
    reserve: float
    leverage: float
    signal: float
    ratio: float
    is_called: bool
    unmet: float
    since: float
    since_stop: float
    is_over: bool
    is_ruined: bool
    funding_next: int
    flow_next: int
    last_funding: float
    unit: float
    peak: float
    scale: float
    paid_in: float
