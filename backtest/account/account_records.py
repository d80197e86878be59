"""The records of one position: rules, balances, quotes, and what an order or a liquidation did."""

from __future__ import annotations

from typing import NamedTuple

from backtest._compile.object_code import Struct, lay_out
from backtest.margin import MarginRules

CLOSE, TAKEOVER, PARTIAL = 0, 1, 2
"""The modes of liquidation."""


class InstrumentRules(NamedTuple):
    """The rules of one instrument and of trading it, as plain numbers.

    ``has_rounding``: there are lots, a minimum notional or a participation limit. ``fee`` is the
    rate of an ordinary trade (taker and maker blended). ``stop_loss`` is a fraction of the entry
    price. A ``step`` of 0 means "down to the floor of the bracket". An infinite ``participation``
    means no limit. ``has_limits``: the largest leverage is that of the quote, not ``max_leverage``.
    ``rounds_price``: prices are rounded to the ``tick``. ``has_auto_margin``: the wallet adds
    margin to a position that fails. ``profit_share`` of an unrealized profit backs orders and
    withdrawals. ``order_fee`` is the fixed fee of an order, on top of that of the quote.
    ``liquidation_impact`` is Y. ``has_exits``: there is a stop besides a plain stop-loss.
    ``take_profit``, ``trailing_stop`` and ``equity_stop`` are fractions, 0 for none. With
    ``is_*_distance`` the number of a stop is a distance in price. The scales of the quote multiply
    all of them. ``full_below_health`` is the health factor up to which a liquidation repays the
    whole debt.
    """

    has_stop: bool
    has_impact: bool
    has_rounding: bool
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
    has_limits: bool
    rounds_price: bool
    tick: float
    has_auto_margin: bool
    has_profit_share: bool
    has_order_fee: bool
    has_liquidation_impact: bool
    profit_share: float
    order_fee: float
    liquidation_impact: float
    has_exits: bool
    take_profit: float
    trailing_stop: float
    equity_stop: float
    is_stop_distance: bool
    is_profit_distance: bool
    is_trail_distance: bool
    full_below_health: float


@lay_out
class PositionState(Struct):
    """The position in one instrument, what was decided of it, and what it counts; flags are 0 or 1.

    Signed ``quantity`` in contracts, average ``entry`` in u (0 when flat), posted ``margin``
    (isolated only), the u at which it was last ``marked``, and that at which it is valued now
    (``value``). Of the last close: ``leverage`` and ``signal``, and the venue leverage that the
    policy ``asked`` for; NaN where none was decided. ``setting`` is the venue leverage, ``best``
    the best u since the entry, ``factor`` the overlay of its last order. ``refused_adding`` and
    ``refused_returning``: margin could not move. ``opened`` is a time in ns, ``since`` counts bars
    since its last liquidation, ``since_stop`` those since its last stop.
    """

    quantity: float
    entry: float
    margin: float
    marked: float
    value: float
    best: float
    leverage: float
    signal: float
    is_pending: float
    is_halted: float
    factor: float
    setting: float
    asked: float
    refused_adding: float
    refused_returning: float
    opened: float
    since: float
    since_stop: float
    last_funding: float


@lay_out
class MarginCall(Struct):
    """The margin call of an isolated position or of the pool.

    ``ratio`` is that of the last close, ``is_called`` whether it was called there, ``unmet`` the
    bars of an unmet call (-1: none), ``is_open`` whether one goes on, ``called_at`` its time in ns.
    """

    ratio: float
    is_called: float
    unmet: float
    is_open: float
    called_at: float


class Position(NamedTuple):
    """What a trade changes of a :class:`PositionState`."""

    quantity: float
    entry: float
    margin: float
    marked: float


class Balances(NamedTuple):
    """The money behind a position, in the settlement currency, and the position."""

    cash: float
    position: Position


class Watch(NamedTuple):
    best: float
    level: float


@lay_out
class Quote(Struct):
    """One bar of an instrument as values u: last and mark prices, and market data.

    ``multiplier`` is x_t of maintenance margin, ``initial`` that of initial margin. ``volume``
    (contracts), ``sigma`` (daily) and ``adv`` (notional per day) are known at the previous close.
    ``limit`` is the largest leverage of the account by date. ``order_fee`` is the fixed fee of an
    order at this time, if it changes. The scales multiply the distances of stop-loss, take-profit
    and trailing stop; they are known at the previous close. Decisions of the last close fill at
    ``fill``; limit orders were decided at ``decided``, the last close. ``is_listed`` is 1 in the
    span of the instrument, ``is_last`` in its last bar before it is delisted.
    """

    open: float
    low: float
    high: float
    close: float
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
    decided: float
    is_listed: float
    is_last: float


@lay_out
class AssetQuote(Struct):
    """One bar of a collateral as prices; decisions of the last close convert at ``fill``."""

    open: float
    low: float
    high: float
    close: float
    mark_open: float
    mark_low: float
    mark_high: float
    mark_close: float
    fill: float


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
