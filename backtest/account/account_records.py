"""The records of the accounting: rules, balances, quotes, trades, liquidations and state.

All are named tuples of plain numbers, so that the functions on them run as ordinary Python and
compile with numba. They hold prices as values ``u(P)`` of one contract in the settlement currency:
``size P`` for linear contracts, ``-size / P`` for inverse ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from backtest.venue import MarginRules

if TYPE_CHECKING:
    from backtest.base import FloatArray, IntArray

CLOSE, TAKEOVER, PARTIAL = 0, 1, 2
"""The modes of liquidation."""


class InstrumentRules(NamedTuple):
    """The rules of one instrument and of trading it, as plain numbers.

    The first seven fields and the other ``has_*`` are True, or None if the feature is not used.
    numba treats the two as different types and leaves out the code of unused features.
    ``has_rounding``: there are lots, a minimum notional or a participation limit. ``keeps_entry``:
    the average entry is needed. ``marks_entry``: the requirement may be valued at the entry price;
    ``margin`` decides. ``fee`` is the rate of an ordinary trade (taker and maker blended).
    ``stop_loss`` is a fraction of the entry price. A ``step`` of 0 means "down to the floor of the
    bracket". An infinite ``participation`` means no limit. ``has_limits`` is True if the largest
    leverage is that of the quote, None if it is ``max_leverage`` at all times. ``rounds_price`` is
    True, or None if prices are not rounded to the ``tick``. ``has_auto_margin``: the wallet adds
    margin to a position that fails. ``profit_share`` of an unrealized profit backs orders and
    withdrawals. ``order_fee`` is the fixed fee of an order, on top of that of the quote.
    ``liquidation_impact`` is Y.

    The last fields belong to fill modes and stops; flags are again True or None. ``fills_late``:
    decisions fill at the bar's last close. ``fills_early``: at the last close before the bar.
    ``has_exits``: there is a stop besides a plain stop-loss. ``take_profit``, ``trailing_stop`` and
    ``equity_stop`` are fractions, 0 for none. With ``is_*_distance`` the number of a stop is a
    distance in price. The scales of the quote multiply all of them.
    ``full_below_health`` is the health factor up to which a liquidation repays the whole debt.
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
    has_limits: bool | None
    rounds_price: bool | None
    tick: float
    has_auto_margin: bool | None
    has_profit_share: bool | None
    has_order_fee: bool | None
    has_liquidation_impact: bool | None
    profit_share: float
    order_fee: float
    liquidation_impact: float
    fills_late: bool | None
    fills_early: bool | None
    has_exits: bool | None
    take_profit: float
    trailing_stop: float
    equity_stop: float
    is_stop_distance: bool | None
    is_profit_distance: bool | None
    is_trail_distance: bool | None
    full_below_health: float


class AccountRules(NamedTuple):
    has_interest: bool | None
    is_loan: bool
    top_up_to: float
    ruin_at: float


class Rules(NamedTuple):
    account: AccountRules
    instrument: InstrumentRules

    def with_margin(self, margin: MarginRules) -> Rules:
        return self._replace(instrument=self.instrument._replace(margin=margin))


class Position(NamedTuple):
    """The position in one instrument.

    Signed ``quantity`` in contracts, average ``entry`` in u (0 when flat), posted ``margin``
    (isolated only), and the ``value`` in u at which the position was last marked.
    """

    quantity: float
    entry: float
    margin: float
    value: float


class Balances(NamedTuple):
    cash: float
    positions: tuple[Position]


class Watch(NamedTuple):
    best: float
    highest: float


class Quote(NamedTuple):
    """One bar as values u: last open, low, high; mark open, low, high, close; and market data.

    ``multiplier`` is x_t of maintenance margin, ``initial`` that of initial margin. ``volume``
    (contracts), ``sigma`` (daily) and ``adv`` (notional per day) are known at the previous close.
    ``limit`` is the largest leverage of the account by date. ``order_fee`` is the fixed fee of an
    order at this time, if it changes. ``fill`` is the u at which decisions fill. The scales
    multiply the distances of stop-loss, take-profit and trailing stop; they are known at the
    previous close.
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
    initial: float
    limit: float
    order_fee: float
    fill: float
    stop_scale: float
    profit_scale: float
    trail_scale: float


class Feed(NamedTuple):
    """The market as arrays of shape (n_bars,), with the funding events and the flows.

    ``multiplier``, ``initial``, ``limit``, ``signal``, ``years``, ``borrow_rate``, ``cash_rate``,
    ``short_rate``, ``sigma``, ``adv``, ``order_fee`` and the scales may have a single entry, which
    then applies to all bars. ``time`` are open times in ns. Rates are those in force at the
    previous open, and ``years`` is the day-counted time since it. Funding events and flows are
    lists in time order, with the bar of each; ``funding_is_open`` is 1 for events at the open.
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
    initial: FloatArray
    limit: FloatArray
    order_fee: FloatArray
    time: IntArray
    close: FloatArray
    stop_scale: FloatArray
    profit_scale: FloatArray
    trail_scale: FloatArray


class Trade(NamedTuple):
    balances: Balances
    price_pnl: float
    fee: float
    slippage: float
    impact: float
    quantity: float
    value: float


class Liquidation(NamedTuple):
    balances: Balances
    price_pnl: float
    loss: float
    bad_debt: float
    quantity: float
    traded: float


class Plan(NamedTuple):
    margin_call: float | None
    has_top_up: bool
    grace: float
    grace_ratio: float
    is_halting: bool


class State(NamedTuple):
    """The account at a bar's close, with the decision that is filled at the next open.

    ``funding_next`` and ``flow_next`` index the next event of the feed. ``ratio`` is the margin
    ratio. ``is_called`` is whether a margin call waits for the reserve, and ``unmet`` counts the
    bars that a call has been unmet (-1: none). ``since`` and ``since_stop`` count the bars since
    the last liquidation and the last stop (infinite: never). ``unit`` is wealth without the effect
    of flows: ``scale`` times wealth, where the scale is 1 at the start and changes only with flows.
    ``peak`` is its maximum. ``paid_in`` is the capital paid in, including the reserve.
    ``is_call_open``: a margin call is neither met nor failed yet. ``called_at`` is the open time of
    the bar, in ns, of the last call that neither a liquidation nor a recovery has followed (NaN:
    none). ``watch`` is what the stops compare with.
    """

    balances: Balances
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
    is_call_open: bool
    called_at: float
    watch: Watch
