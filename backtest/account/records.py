"""The records of an account and of one position: rules, feeds, state, quotes, trades, scratch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, get_type_hints

import numpy as np

from backtest import margin
from backtest.account.events import Entries, Event
from backtest.account.money import Money, Wallet
from backtest.core import BoolArray, FloatArray, IntArray
from backtest.core.kernels import inlined
from backtest.core.structs import Struct, Structs, lay_out
from backtest.margin import MarginRule, MarginRules

CLOSE, TAKEOVER, PARTIAL = 0, 1, 2
"""The modes of liquidation."""


class InstrumentRules(NamedTuple):
    """The rules of one instrument: those of its venue, and what the account asks of it.

    Rates, shares and slippages are fractions. A flag ``has_...`` says that a rule is in use, so
    that code may skip it otherwise.

    Orders
        ``lot`` (contracts), ``tick`` (price; only with ``rounds_price``) and ``min_notional``
        (money) are the venue's steps and minimum. ``participation`` is the share of a bar's volume
        that an order may take, infinite for no limit. ``has_rounding``: there is a lot, a minimum
        or a participation. ``band``, a multiple of equity, is the no-trade band around a position.
    Costs
        ``fee`` is the rate of an ordinary trade (taker and maker blended), ``taker`` that of a
        taker. ``slippage`` is how much worse than the quote a fill is, ``impact`` the factor Y of
        the square root law. ``order_fee`` is the fixed fee of an order, money, added to that of the
        quote.
    Leverage
        From ``min_leverage`` to ``max_leverage``; with ``has_limits`` the largest is that of the
        quote instead, which changes by date. The initial margin of a position is at most
        ``margin_share`` of the equity, infinite for no limit. ``profit_share`` is the share of an
        unrealized profit that backs orders and withdrawals.
    Stops
        ``stop_loss``, ``take_profit`` and ``trailing_stop`` are distances, 0 for none: fractions of
        the price, or amounts of price where ``is_..._distance`` says so. The scales of the quote
        multiply them. ``has_stop``: there is a plain stop-loss, a fixed fraction of the entry.
        ``has_exits``: there is any other exit.
    Liquidation
        A partial one closes the share ``step`` of the position at a time; 0: down to the floor of
        its bracket. A notional of at most ``full_below``, money, closes whole, and a margin loan
        whose health factor is at most ``full_below_health`` is repaid whole. Fees, slippage and
        impact of liquidations begin with ``liquidation_``. ``has_auto_margin``: the wallet adds
        margin to a position that fails. ``is_funded_by_wallet``: the wallet pays funding before
        isolated margin does.
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
    profit_share: float
    order_fee: float
    liquidation_impact: float
    has_exits: bool
    take_profit: float
    trailing_stop: float
    is_stop_distance: bool
    is_profit_distance: bool
    is_trail_distance: bool
    full_below_health: float
    margin_share: float


@lay_out
class PositionState(Struct):
    """The position in one instrument, what was decided of it, and what it counts; flags are 0 or 1.

    Signed ``quantity`` in contracts, average ``entry`` as a contract value (0 when flat), posted
    ``margin`` (isolated only), the contract value at which it was last ``marked``, and that at
    which it is valued now (``value``). Of the last close: ``leverage`` and ``signal``, and the
    venue leverage that the policy ``asked`` for; NaN where none was decided. ``setting`` is the
    venue leverage, ``best`` the best value since the entry, ``factor`` the overlay of its last
    order. ``refused_adding`` and ``refused_returning``: margin could not move. ``opened`` is a time
    in ns, ``since`` counts bars since its last liquidation, ``since_stop`` those since its last
    stop.
    """

    __slots__ = ()

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

    ``ratio`` is that of the last close, ``is_called`` whether it was called there, ``is_open``
    whether a call goes on, and ``called_at`` its time in ns. ``unmet`` counts the closes
    since the call at which the ratio was too high; it is -1 without a call.
    """

    __slots__ = ()

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
    """What pays for orders in one instrument, in the settlement currency, and its position.

    ``cash`` is w of a cross position, and B, at least 0, of an isolated one:
    :func:`.balance.pick_balances`.
    """

    cash: float
    position: Position


@lay_out
class Quote(Struct):
    """One bar of an instrument as contract values: last and mark prices, and market data.

    Of collateral as prices: the open, those of the mark, and the ``fill`` at which it converts.
    ``multiplier`` is x_t of maintenance margin, ``initial`` that of initial margin. ``volume``
    (contracts), ``sigma`` (daily) and ``adv`` (notional per day) are known at the previous close.
    ``limit`` is the largest leverage of the account by date. ``order_fee`` is the fixed fee of an
    order at this time, if it changes. The scales multiply the distances of stop-loss, take-profit
    and trailing stop; they are known at the previous close. Decisions of the last close fill at
    ``fill``; limit orders were decided at ``decided``, the last close. ``is_listed`` is 1 in the
    span of the instrument, ``is_last`` in its last bar before it is delisted.
    """

    __slots__ = ()

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


class CostRates(NamedTuple):
    """What a trade costs: slippage and impact of the price, and the fee of its notional."""

    slippage: float
    impact: float
    fee: float


class Trade(NamedTuple):
    """What a trade did: balances after it, profit to the mark, costs, contracts and their value.

    ``price_pnl`` is the profit of what was held, up to the value that it traded from.
    """

    balances: Balances
    price_pnl: float
    fee: float
    slippage: float
    impact: float
    quantity: float
    value: float


class OptionFeed(NamedTuple):
    """K option contracts and their market data.

    Of shape (K,): ``signs`` (1 for a call, -1 for a put), ``strikes``, ``sizes`` (units of the
    underlying per contract), ``are_coin`` (settled in coins), ``instruments`` (index of the
    underlying among the n instruments), ``expiries`` and ``pairs`` (as in
    :class:`backtest.margin.option_values.OptionPositions`), ``expiry_times`` (UTC ns), ``rates``
    (continuous discount rates per year). Fees per unit of the underlying are ``fee_rates`` (of the
    price of the underlying, in coins of 1), at most ``fee_caps`` of the premium; those of expiry
    are ``delivery_rates`` and ``delivery_caps`` of the payoff. ``ticks`` are per unit, in the
    settlement currency.

    Expiry, (K,): ``expiry_bars`` (the bar in which a contract expires, -1 if it is not in the
    data), ``are_inside`` (inside that bar, not at its open) and ``expiry_spots`` (the price of the
    underlying at which it settles, in the quote currency).

    Market, (n_bars, K), NaN where a contract is not listed: ``years``, ``volatilities`` and
    ``bases`` (forward over the price of the underlying) at the open, for gap check, fills and the
    whole walk, and at the close. ``marks`` are the venue's own marks per unit in the settlement
    currency; NaN: the model values the contract. ``bids`` and ``asks`` are those of the contract's
    row at the open, per unit; NaN: this side is not quoted. ``has_quotes`` is 1 where there is such
    a row; elsewhere fills are ``half_spreads`` (points of volatility, 0.01 is one) from the mark,
    or ``half_prices`` per unit where that is known and the value hardly depends on volatility.
    ``are_listed`` is 1 where the contract can be valued at the open, and so traded. ``ages`` are
    days since the surface of the close.

    ``targets`` (n_bars, K) are signed contracts to hold after the fill at the open of each bar;
    NaN leaves a contract as it is.
    """

    signs: FloatArray
    strikes: FloatArray
    sizes: FloatArray
    are_coin: BoolArray
    instruments: IntArray
    expiries: IntArray
    pairs: IntArray
    expiry_times: IntArray
    rates: FloatArray
    fee_rates: FloatArray
    fee_caps: FloatArray
    delivery_rates: FloatArray
    delivery_caps: FloatArray
    ticks: FloatArray
    expiry_bars: IntArray
    are_inside: IntArray
    expiry_spots: FloatArray
    years_open: FloatArray
    years_close: FloatArray
    volatilities_open: FloatArray
    volatilities_close: FloatArray
    bases_open: FloatArray
    bases_close: FloatArray
    marks_open: FloatArray
    marks_close: FloatArray
    bids: FloatArray
    asks: FloatArray
    has_quotes: IntArray
    half_spreads: FloatArray
    half_prices: FloatArray
    are_listed: IntArray
    ages: FloatArray
    targets: FloatArray


FEED_KINDS = get_type_hints(OptionFeed)
BY_BAR = OptionFeed._fields[OptionFeed._fields.index("years_open") :]
"""Fields of shape (n_bars, K); those before are of shape (K,)."""


def make_option_feed(n_options: int, n_bars: int) -> OptionFeed:
    """Return the market data of option contracts with nothing known yet, for a reader to fill.

    Numbers are NaN, flags and indices 0, and ``expiry_bars`` -1: no contract expires in the data.
    Fields that change by bar have the shape (n_bars, n_options), the others (n_options,).
    """
    arrays: dict[str, Any] = {}
    for name, kind in FEED_KINDS.items():
        shape = (n_bars, n_options) if name in BY_BAR else (n_options,)
        if kind == FloatArray:
            arrays[name] = np.full(shape, np.nan)
        else:
            arrays[name] = np.zeros(shape, np.bool_ if kind == BoolArray else np.int64)
    arrays["expiry_bars"][:] = -1
    return OptionFeed(**arrays)


class OptionTerms(NamedTuple):
    """The rules of K options: ``rules`` those of margin, and arrays of shape (K,).

    ``instruments`` is the index of the underlying among the instruments of the account, ``groups``
    the number of the group that margin counts together. Fees and ticks as in :class:`OptionFeed`.
    """

    rules: margin.OptionRules
    instruments: IntArray
    groups: IntArray
    fee_rates: FloatArray
    fee_caps: FloatArray
    delivery_rates: FloatArray
    delivery_caps: FloatArray
    ticks: FloatArray


class OptionState(NamedTuple):
    """The K options of an account in the bar being simulated; each field has the shape (K,).

    Quantities are signed contracts, prices are money per contract.

    - What is held: ``positions`` (what margin is computed from), ``paid`` (the average price paid),
      ``priced`` (the mark up to which the profit is in the ledger), and ``offsets`` (the venue's
      mark less the model's value at the open).
    - Quotes of the bar, as in :class:`OptionFeed`, but per contract: ``asks``, ``bids``,
      ``has_quotes``, ``half_spreads`` and ``half_prices``.
    - Orders: ``targets`` are the quantities to hold, NaN for no order, and ``prices`` what the
      order trades at. An order keeps ``quantities_kept`` of what is held, closes the rest of it,
      and adds ``quantities_added``.
    - Sums of the bar, money: ``profits``, ``fees``, ``slippage``, ``losses`` (of liquidations), and
      the premiums ``traded``, without sign.
    - ``quantities_aside`` has what the account holds while a trial writes other quantities, and
      ``started`` what it held when a liquidation began.
    - While a pool is closed at once, fees are not known yet. Until then it notes what it closes:
      ``quantities_closed``, ``losses_of_close`` (against the mark) and ``fees_of_close`` (as the
      venue asks), both money.
    """

    positions: margin.OptionPositions
    offsets: FloatArray
    priced: FloatArray
    paid: FloatArray
    asks: FloatArray
    bids: FloatArray
    has_quotes: IntArray
    half_spreads: FloatArray
    half_prices: FloatArray
    targets: FloatArray
    profits: FloatArray
    fees: FloatArray
    slippage: FloatArray
    losses: FloatArray
    traded: FloatArray
    prices: FloatArray
    quantities_kept: FloatArray
    quantities_added: FloatArray
    quantities_aside: FloatArray
    started: FloatArray
    quantities_closed: FloatArray
    losses_of_close: FloatArray
    fees_of_close: FloatArray


FUNDING_NEXT, FLOW_NEXT = range(2)
"""Entries of ``AccountState.cursor``: the next settlement of funding, and the next flow."""

NO_TARGET, REDUCE, INCREASE, IN_BAND, UNPLACED, SMALL, FILLS = range(7)
"""Kinds of orders, see :mod:`.fills`."""

AT_OPEN, LATE, EARLY, RESTING = range(4)
"""When decisions fill: ``next_open``, ``next_close``, ``same_close``, ``limit``."""

PATH, WORST = range(2)
"""How prices move inside a bar: ``Account.intrabar``."""

MOST_RELIEF, LARGEST_LOSS, LARGEST_REQUIREMENT, LARGEST_NOTIONAL, BY_NAME, OPTIONS_LAST = range(6)
"""Orders of the steps of a partial liquidation of the pool."""

KINDS = get_type_hints(InstrumentRules)
NUMBERS = tuple(name for name, kind in KINDS.items() if kind is float)
"""Fields of rules that are numbers: columns of ``Terms.numbers``."""
FLAGS = tuple(name for name, kind in KINDS.items() if kind is bool)
"""Fields of rules that are flags: columns of ``Terms.flags``."""
DATED = ("fee", "taker", "slippage", "liquidation_fee", "liquidation_slippage")
DATED_ROWS = tuple(NUMBERS.index(name) for name in DATED)
"""Costs that change by date: the first rows of ``MarketFeed.costs``."""
TAKER_ROW, MAKER_ROW = 1, 5
"""The row of the taker fee among them, and that of the maker fee after them."""

HAS_STOP = FLAGS.index("has_stop")
HAS_EXITS = FLAGS.index("has_exits")


class Terms(NamedTuple):
    """The rules of the account and of its n instruments, which a run does not change.

    But costs and multipliers that change by date are written into them bar by bar.

    Instruments
        ``instruments`` is the list of their rules, which plain Python reads. ``numbers`` and
        ``flags``, arrays of shape (n, fields), are the same for compiled code: their columns are
        :data:`NUMBERS` and :data:`FLAGS`. ``rules`` are those of margin, ``options`` those of
        options. ``expenses`` (n,) are yearly costs of the contracts, fractions of notional.
    Prices inside a bar
        ``intrabar`` is PATH or WORST. Under WORST each market moves by itself: ``markets`` numbers
        them, for the n instruments and then the collateral.
    Liquidation
        ``modes`` (n,) is CLOSE, TAKEOVER or PARTIAL for each instrument, ``liquidation_mode`` that
        of the pool. ``order`` says which step of a partial one comes first (MOST_RELIEF and those
        beside it), ``ranks`` (n,) the place of each instrument in an order by name.
    Margin calls
        ``margin_call`` is the ratio requirement / backing at which a call is made, 0 for none. The
        reserve then tops up to ``top_up_to``. A venue that reduces waits ``grace`` bars before, -1
        if it never does, and reduces down to ``grace_ratio``.
    Collateral
        The balance may fall to -``negative_limit``, money, before collateral is sold: all of it in
        proportion to its value with ``conversion_is_pro_rata``, else one asset after the other.
    Stops
        ``equity_stop``, ``daily_loss`` and ``weekly_loss`` are fractions of the equity, 0 for none;
        with ``is_of_paid_in`` the last two are of what was paid in. ``has_floor``: any is not 0.
        ``max_holding`` (n,) is in ns, 0 for none. ``fixed`` (3, n) is 1 where the distance of
        stop-loss, take-profit or trailing stop stays what it was at the entry.
        ``tracks_openings``: a ``max_holding`` or a fixed distance needs the times of openings.
    Orders
        ``fill`` is AT_OPEN, LATE, EARLY or RESTING. For limit orders, ``offsets`` (n,) are their
        distances from the close, fractions of the price, and ``makers`` (n,) their fee rates; with
        ``rests_closing`` closings and reductions rest too.
    """

    instruments: Any
    numbers: FloatArray
    flags: IntArray
    rules: margin.PortfolioRules
    markets: IntArray
    ranks: IntArray
    modes: IntArray
    intrabar: int
    liquidation_mode: int
    order: int
    has_interest: bool
    is_loan: bool
    negative_limit: float
    conversion_is_pro_rata: bool
    max_gross_leverage: float
    max_overlay: float
    margin_call: float
    top_up_to: float
    grace: float
    grace_ratio: float
    is_halting: bool
    ruin_at: float
    fill: int
    equity_stop: float
    daily_loss: float
    weekly_loss: float
    is_of_paid_in: bool
    has_floor: bool
    max_holding: FloatArray
    tracks_openings: bool
    fixed: IntArray
    offsets: FloatArray
    makers: FloatArray
    expenses: FloatArray
    rests_closing: bool
    options: OptionTerms


class AccountState(NamedTuple):
    """An account at a close: its wallet, n positions, C collaterals and K options.

    ``held`` is what margin is computed from: columns of ``positions``, whose memory they share, and
    amounts and prices of the collateral. ``priced`` of shape (C,) are prices at which the
    collateral was last marked. ``calls`` has n + 1 margin calls: one for each instrument (of an
    isolated position), and the last one for the pool of cross positions. ``cursor`` has the number
    of the next funding settlement (FUNDING_NEXT) and of the next flow (FLOW_NEXT) of the feed.
    """

    held: margin.Holdings
    positions: Structs[PositionState]
    calls: Structs[MarginCall]
    priced: FloatArray
    wallet: Wallet
    cursor: IntArray
    options: OptionState


class MarketFeed(NamedTuple):
    """The market data of a run as arrays by bar, which the rules read and never write.

    - Prices and data of the n instruments have the shape (n_bars, n), or (1, n) where one row holds
      for all bars (:func:`at_column`).
    - ``span`` (n, 2) has the first bar of each instrument and one past its last; ``ends`` (n,) is 1
      if it is delisted after that.
    - ``asset_...`` are prices of the C collaterals, of shape (C, n_bars).
    - ``years`` (n_bars or 1,) is the time since the last open; ``borrow_rate``, ``cash_rate`` and
      ``short_rate``, of the same shape, are rates of the account per year. ``coin_rate`` (n_bars or
      1, n or 1) is what a short spot leg pays per year.
    - ``costs`` (n_bars, 6, n) has the costs that change by date: :data:`DATED_ROWS` and the maker
      fee, NaN for those that do not. It has one bar if none does.
    - ``funding_...`` has an entry for each settlement, in the order of time: its bar, whether it is
      at the open of it (1) or later (0), instrument, price and rate. ``flow_...`` has one for each
      deposit or withdrawal.
    - ``time`` (n_bars,) are opens, UTC ns. ``days`` (n_bars, 2) numbers the day and the week of
      each open; it has no bars without limits of loss.
    - ``pause_ends`` (n_bars,) is when an account that an equity stop closes in a bar trades again,
      UTC ns; it has no bars where the account goes on at once.
    """

    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    mark_open: FloatArray
    mark_high: FloatArray
    mark_low: FloatArray
    mark_close: FloatArray
    volume: FloatArray
    multiplier: FloatArray
    initial: FloatArray
    sigma: FloatArray
    adv: FloatArray
    limit: FloatArray
    order_fee: FloatArray
    stop_scale: FloatArray
    profit_scale: FloatArray
    trail_scale: FloatArray
    costs: FloatArray
    signal: FloatArray
    span: IntArray
    ends: IntArray
    asset_open: FloatArray
    asset_high: FloatArray
    asset_low: FloatArray
    asset_close: FloatArray
    asset_mark_open: FloatArray
    asset_mark_high: FloatArray
    asset_mark_low: FloatArray
    asset_mark_close: FloatArray
    years: FloatArray
    borrow_rate: FloatArray
    cash_rate: FloatArray
    short_rate: FloatArray
    coin_rate: FloatArray
    funding_time: IntArray
    funding_bar: IntArray
    funding_is_open: IntArray
    funding_instrument: IntArray
    funding_price: FloatArray
    funding_rate: FloatArray
    flow_bar: IntArray
    flow_amount: FloatArray
    time: IntArray
    days: IntArray
    pause_ends: FloatArray
    options: OptionFeed


class MarketBar(NamedTuple):
    """The bar being simulated: quotes of n instruments and of the collateral.

    The arrays are columns of them, from which all positions are valued at once.
    """

    instruments: Structs[Quote]
    assets: Structs[Quote]
    open: FloatArray
    fill: FloatArray
    mark_open: FloatArray
    mark_low: FloatArray
    mark_high: FloatArray
    mark_close: FloatArray
    asset_open: FloatArray
    asset_fill: FloatArray
    asset_mark_open: FloatArray
    asset_mark_close: FloatArray


@inlined
def at(rows: Any, t: int) -> Any:
    """Return row t of an array by bar, or its only row, which holds for all bars."""
    return rows[min(t, len(rows) - 1)]


@inlined
def at_column(rows: Any, t: int, i: int) -> Any:
    """Return column i of row t of an array by bar, or of its only row, which holds for all bars."""
    return rows[min(t, len(rows) - 1), i]


@inlined
def read_value(terms: Terms, prices: FloatArray, t: int, i: int) -> float:
    """Return a price of the feed as a contract value."""
    tables = terms.rules.brackets
    return margin.compute_value(tables.sizes[i], tables.are_inverse[i], prices[t, i])


@inlined
def read_open(terms: Terms, feed: MarketFeed, quote: Quote, t: int, i: int) -> bool:
    """Write whether an instrument is listed in bar t, and then its open and its limit."""
    is_listed: bool = feed.span[i, 0] <= t < feed.span[i, 1]
    quote.is_listed = 1.0 if is_listed else 0.0
    if is_listed:
        quote.open = read_value(terms, feed.open, t, i)
        quote.limit = at_column(feed.limit, t, i)
    return is_listed


@inlined
def read_extremes(terms: Terms, feed: MarketFeed, quote: Quote, t: int, i: int) -> None:
    """Write the last and mark prices of bar t between its open and its close."""
    quote.low = read_value(terms, feed.low, t, i)
    quote.high = read_value(terms, feed.high, t, i)
    quote.mark_open = read_value(terms, feed.mark_open, t, i)
    quote.mark_low = read_value(terms, feed.mark_low, t, i)
    quote.mark_high = read_value(terms, feed.mark_high, t, i)


@inlined
def read_mark_close(terms: Terms, feed: MarketFeed, quote: Quote, t: int, i: int) -> None:
    """Write the mark close of bar t into a quote, as a contract value."""
    quote.mark_close = read_value(terms, feed.mark_close, t, i)


@inlined
def read_multipliers(terms: Terms, feed: MarketFeed, quote: Quote, t: int, i: int) -> None:
    """Write the multipliers of margin in bar t into a quote and into the margin tables."""
    quote.multiplier = at_column(feed.multiplier, t, i)
    quote.initial = at_column(feed.initial, t, i)
    terms.rules.brackets.multipliers[i] = quote.multiplier
    terms.rules.brackets.initial_multipliers[i] = quote.initial


@inlined
def read_scales(feed: MarketFeed, quote: Quote, t: int, i: int) -> None:
    """Write what the distances of stops are multiplied by in bar t."""
    quote.stop_scale = at_column(feed.stop_scale, t, i)
    quote.profit_scale = at_column(feed.profit_scale, t, i)
    quote.trail_scale = at_column(feed.trail_scale, t, i)


@inlined
def read_known(feed: MarketFeed, quote: Quote, t: int, i: int) -> None:
    """Write what orders of bar t know of the market: volume and volatility up to the last close.

    ``sigma`` and ``adv`` (notional per day) stand in row t as they were known at the close before.
    """
    quote.volume = feed.volume[max(t - 1, 0), i]
    quote.sigma = at_column(feed.sigma, t, i)
    quote.adv = at_column(feed.adv, t, i)


def new_quotes(n: int, assets: int) -> MarketBar:
    """Return quotes of n instruments and of some collateral, all NaN until a bar is written.

    The columns share the memory of the quotes: what is written into a quote stands in its column.
    """
    instruments = Structs(Quote, n)
    of_assets = Structs(Quote, assets)
    instruments.numbers[:] = np.nan
    for quote in instruments:
        quote.is_listed = 0.0
        quote.is_last = 0.0

    # Columns share the memory of the quotes.
    return MarketBar(
        instruments=instruments,
        assets=of_assets,
        open=instruments.column("open"),
        fill=instruments.column("fill"),
        mark_open=instruments.column("mark_open"),
        mark_low=instruments.column("mark_low"),
        mark_high=instruments.column("mark_high"),
        mark_close=instruments.column("mark_close"),
        asset_open=of_assets.column("open"),
        asset_fill=of_assets.column("fill"),
        asset_mark_open=of_assets.column("mark_open"),
        asset_mark_close=of_assets.column("mark_close"),
    )


@lay_out
class OrderPlan(Struct):
    """An order of an instrument on its way from a target to a fill.

    ``kind`` is one of :data:`NO_TARGET` and those beside it. On the ``side`` of the order, as
    notional: what is held, the ``target`` that the limits of leverage leave, what of an increase is
    held already (``notional_kept``) and what it adds. ``target_contracts`` are signed contracts to
    hold instead of a leverage, NaN if none are asked for. ``cost`` and ``cost_of_balance`` are what
    a unit of notional costs the equity and takes from the balance: margin and fee of an isolated
    order, the fee of a cross order; ``returned_by_flip`` is what closing the opposite position
    returns to it. ``fee`` is fixed, ``fee_rate`` that of notional, ``worsening`` the price
    concession. Of a limit order: the contracts to hold after it (NaN: none rests), the contract
    value of its limit, and that which the price must go through. ``opened_now`` is 1 if an order of
    this bar opened the position, 2 if one increased it.

    Its stages: the notional that its margin allows; the value of a contract, ``contract_notional``;
    contracts on its side before it, as the limits leave them, in whole lots, and after the fill.
    ``cap_and_band`` is what the cap of gross leverage made of its band, ``cut_by_share`` the
    notional over its share of the equity.
    """

    __slots__ = ()

    kind: float
    side: float
    notional_held: float
    notional_kept: float
    notional_added: float
    target: float
    target_contracts: float
    cost: float
    cost_of_balance: float
    returned_by_flip: float
    fee: float
    fee_rate: float
    worsening: float
    resting_quantity: float
    limit_value: float
    beyond_limit: float
    opened_now: float
    allowed_by_margin: float
    contract_notional: float
    quantity_held: float
    quantity_allowed: float
    quantity_rounded: float
    quantity_filled: float
    cap_and_band: float
    cut_by_share: float


@lay_out
class Walk(Struct):
    """An instrument on the way of prices through a bar, and what of it is put aside.

    Last and mark contract values now and at the next waypoint, and the last one ``between`` them.
    ``goes_low_first`` and ``is_hit`` (liquidated at the open) are flags. ``failure`` is the
    contract value at which the position fails, as found at the close, ``carried`` the contracts
    held before fills at the close, ``quantity_at_start`` those at the start of a liquidation.
    ``quantity_aside`` and ``value_aside`` are those of the account while a trial has others in
    their place. Of a pool that is closed at once: contracts, notional, cost and fee of this
    position. Of a change of the venue leverage: the margin to post, negative to return, and whether
    the setting is new.
    """

    __slots__ = ()

    last: float
    last_end: float
    between: float
    mark: float
    mark_end: float
    goes_low_first: float
    is_hit: float
    failure: float
    carried: float
    quantity_at_start: float
    quantity_aside: float
    value_aside: float
    quantity_closed: float
    notional_closed: float
    cost_closed: float
    fee_closed: float
    margin_moved: float
    is_new_setting: float


@lay_out
class AssetWalk(Struct):
    """The price of a collateral on its way, and its amount and price while a trial has others."""

    __slots__ = ()

    price: float
    price_end: float
    goes_low_first: float
    amount_aside: float
    price_aside: float


class Scratch(NamedTuple):
    """Room to compute in, because compiled rules allocate nothing.

    The arrays are columns of the walk, ``price*`` of that of collateral. ``shares`` of shape
    (n + C,) are Euler shares, ``cuts`` of shape (n + 1, causes, 7) what limits took (empty: not
    counted), see :mod:`.cut_counts`, and ``money`` the sums of the bar. ``extremes`` are the
    least and the most equity on the way of prices (empty: not noted).
    """

    plans: Structs[OrderPlan]
    walk: Structs[Walk]
    assets: Structs[AssetWalk]
    last: FloatArray
    last_end: FloatArray
    between: FloatArray
    mark: FloatArray
    mark_end: FloatArray
    value_aside: FloatArray
    carried: FloatArray
    price: FloatArray
    price_end: FloatArray
    price_aside: FloatArray
    shares: FloatArray
    cuts: FloatArray
    money: Money
    extremes: FloatArray


STAGES = OrderPlan.names()[OrderPlan.names().index("allowed_by_margin") :]
"""Fields of a plan that are written once an order is on its way; NaN before."""
LEAST_EQUITY, MOST_EQUITY = range(2)
"""Entries of ``Scratch.extremes``."""
OF_WALK = ("last", "last_end", "between", "mark", "mark_end", "value_aside", "carried")
OF_ASSETS = ("price", "price_end", "price_aside")
"""Fields of walks that are columns of :class:`Scratch`."""


def new_scratch(n: int, assets: int, cuts: FloatArray, *, has_extremes: bool = False) -> Scratch:
    """Return room to compute in for n instruments and some collateral, all 0 before the first bar.

    A plan begins without a target in contracts and without stages (the fields from its margin limit
    to its fill): these are NaN. ``cuts`` are the sums of what limits cut, which the run owns.
    ``last``, ``mark``, ``price`` and the other columns share the memory of the walks: what is
    written into a walk stands in its column too.
    """
    plans = Structs(OrderPlan, n)
    for name in ("target_contracts", *STAGES):
        plans.column(name)[:] = math.nan

    # Columns let code value all positions at once.
    walk = Structs(Walk, n)
    asset_walks = Structs(AssetWalk, assets)
    columns = {name: walk.column(name) for name in OF_WALK}
    columns |= {name: asset_walks.column(name) for name in OF_ASSETS}
    return Scratch(
        plans=plans,
        walk=walk,
        assets=asset_walks,
        shares=np.zeros(n + assets),
        cuts=cuts,
        money=Money(),
        extremes=np.zeros(2 if has_extremes else 0),
        **columns,
    )


def by_reference(record: Any) -> Any:
    """Return the record itself; compiled code hands it to the functions it calls by its address.

    For speed alone: plain Python does nothing here. Without it, compiled code copies all fields of
    the record, about forty, at each call that gets it.
    """
    return record


def pick_instrument(terms: Terms, i: int) -> InstrumentRules:
    """Return the rules of instrument i, with the venue leverage of its tables."""
    rules: InstrumentRules = terms.instruments[i]
    setting = terms.rules.brackets.settings[i]
    if setting != rules.margin.setting:
        rules = rules._replace(margin=rules.margin._replace(setting=float(setting)))
    return rules


def write_costs(terms: Terms, costs: FloatArray, i: int) -> None:
    """Write the costs that change in a bar into the terms of instrument i; NaN: no change.

    ``costs`` of shape (6, n) has a row for each of DATED_ROWS, the columns of ``terms.numbers``
    that may change by date, and a last one for the fee of a maker. Rules read costs in four places,
    so each is written where it is read: in ``numbers``; the taker fee also in the margin tables;
    the maker fee in ``makers``; and all in the records that plain Python reads.
    """
    for k in range(len(DATED_ROWS)):
        if not math.isnan(costs[k, i]):
            terms.numbers[i, DATED_ROWS[k]] = costs[k, i]

    taker = costs[TAKER_ROW, i]
    if not math.isnan(taker):
        terms.rules.brackets.takers[i] = taker
    maker = costs[MAKER_ROW, i]
    if not math.isnan(maker):
        terms.makers[i] = maker

    # Reads what stands in the arrays, so it comes last.
    write_tuple(terms, i)


def write_tuple(terms: Terms, i: int) -> None:
    """Write the costs of an instrument into its record of rules, which plain Python reads.

    Compiled code reads the arrays of the terms, and does nothing here.
    """
    rules = terms.instruments[i]
    table = rules.margin._replace(taker=float(terms.rules.brackets.takers[i]))
    costs = {NUMBERS[row]: float(terms.numbers[i, row]) for row in DATED_ROWS}
    terms.instruments[i] = rules._replace(margin=table, **costs)


@inlined
def pick_margin(terms: Terms, i: int) -> Any:
    """Return the margin table of instrument i, with its venue leverage."""
    return margin.pick_rules(terms.rules.brackets, i)


@inlined
def is_isolated(terms: Terms, i: int) -> bool:
    """Return whether the margin of instrument i is isolated."""
    return bool(terms.rules.brackets.are_isolated[i])


@inlined
def is_spot(terms: Terms, i: int) -> bool:
    """Return whether instrument i is a spot leg, which is paid for."""
    return margin.is_spot_leg(terms.rules, i)


@inlined
def has_exits(terms: Terms, i: int) -> bool:
    """Return whether instrument i has a stop besides a plain stop-loss."""
    return bool(terms.flags[i, HAS_EXITS] == 1)


@inlined
def has_stops(terms: Terms, i: int) -> bool:
    """Return whether instrument i has any stop."""
    return bool(terms.flags[i, HAS_STOP] == 1 or terms.flags[i, HAS_EXITS] == 1)


@inlined
def is_held(state: AccountState, i: int) -> bool:
    """Return whether a position in instrument i is held."""
    return bool(state.positions[i].quantity != 0.0)


def view_holdings(
    positions: Structs[PositionState], amounts: FloatArray, prices: FloatArray
) -> margin.Holdings:
    """Return what margin is computed from; its arrays share the memory of the positions."""
    return margin.Holdings(
        quantities=positions.column("quantity"),
        entries=positions.column("entry"),
        values=positions.column("value"),
        amounts=amounts,
        prices=prices,
    )


@inlined
def pick_position(state: AccountState, i: int) -> Position:
    """Return a copy of what a trade changes of a position."""
    position = state.positions[i]
    return Position(position.quantity, position.entry, position.margin, position.marked)


@inlined
def put_position(state: AccountState, i: int, after: Position) -> None:
    """Write what a trade or a liquidation left into the position of an instrument."""
    position = state.positions[i]
    position.quantity = after.quantity
    position.entry = after.entry
    position.margin = after.margin
    position.marked = after.marked


class AccountBar(NamedTuple):
    """All that the rules of a bar work on; they write into all but ``feed``."""

    terms: Terms
    feed: MarketFeed
    state: AccountState
    quotes: MarketBar
    scratch: Scratch
    ledger: Structs[Money]
    log: EventLog


class EventLog(NamedTuple):
    """The event log of a run: entries of shape (capacity,), see :data:`.events.ENTRY`.

    Of shape (1,): how many were ``written``, and the ``step`` of the bar that writes now.
    """

    entries: Entries
    written: IntArray
    step: IntArray


def log_event(
    log: EventLog,
    t: int,
    i: int,
    kind: int,
    value: float,
    quantity: float,
    amount: float,
) -> None:
    """Write an event into the next row of the log; its costs are 0 until :func:`log_costs`.

    ``i`` is its owner (:data:`.events.ENTRY`), -1 for the account. ``value`` is the contract value
    of a price, or 1 without one; ``quantity`` are signed contracts, ``amount`` is money. A log that
    is full counts the event only.
    """
    row = log.written[0]
    log.written[0] = row + 1
    if row < len(log.entries):
        entry = log.entries[row]

        entry["bar"] = t
        entry["kind"] = kind
        entry["value"] = value
        entry["quantity"] = quantity
        entry["amount"] = amount
        entry["fee"] = 0.0
        entry["slippage"] = 0.0
        entry["impact"] = 0.0
        entry["owner"] = i
        entry["step"] = log.step[0]


def log_costs(log: EventLog, fee: float, slippage: float, impact: float) -> None:
    """Write what a fill cost into the entry of the last event."""
    row = log.written[0] - 1
    if row < len(log.entries):
        entry = log.entries[row]

        entry["fee"] = fee
        entry["slippage"] = slippage
        entry["impact"] = impact


def log_liquidation(
    log: EventLog, t: int, i: int, value: float, quantity: float, loss: float
) -> None:
    """Log a liquidation at a mark value, with its loss."""
    log_event(log, t, i, Event.LIQUIDATED, value, quantity, abs(quantity) * abs(value))
    log_costs(log, fee=loss, slippage=0.0, impact=0.0)


def pack_positions(feed: OptionFeed, groups: Any) -> margin.OptionPositions:
    """Return positions of 0 contracts in the options of a feed, of margin groups ``groups``."""
    n = len(feed.signs)
    return margin.OptionPositions(
        signs=feed.signs,
        strikes=feed.strikes,
        sizes=feed.sizes,
        are_coin=feed.are_coin,
        groups=groups,
        expiries=feed.expiries,
        pairs=feed.pairs,
        rates=feed.rates,
        quantities=np.zeros(n),
        # What bars write is NaN until the first of them.
        years=np.full(n, np.nan),
        volatilities=np.full(n, np.nan),
        bases=np.full(n, np.nan),
        indices=np.full(n, np.nan),
        values=np.full(n, np.nan),
        marks=np.full(n, np.nan),
    )


def pack_option_terms(rule: MarginRule, feed: OptionFeed, names: Sequence[str]) -> OptionTerms:
    """Return the rules of the options of a feed: of margin, fees and ticks, as arrays.

    ``rule`` is the margin rule of the account, ``names`` are its instruments, in the order that
    ``feed.instruments``, the underlying of each option, counts in.
    """
    underlyings = [names[i] for i in feed.instruments]
    groups, group_numbers = margin.number_groups(rule, underlyings, names)
    positions = pack_positions(feed, group_numbers)
    # Without options nothing of the rule applies, and many rules have nothing to say of options.
    if not len(feed.signs):
        rule = MarginRule()
        groups = ()
    rules = margin.pack_option_rules(rule, positions, groups, names)

    return OptionTerms(
        rules=rules,
        instruments=feed.instruments,
        groups=positions.groups,
        fee_rates=feed.fee_rates,
        fee_caps=feed.fee_caps,
        delivery_rates=feed.delivery_rates,
        delivery_caps=feed.delivery_caps,
        ticks=feed.ticks,
    )


def start_options(terms: OptionTerms, feed: OptionFeed) -> OptionState:
    """Return the options of a feed before the first bar: none is held, and none is asked for."""
    n = len(feed.signs)
    return OptionState(
        positions=pack_positions(feed, terms.groups),
        targets=np.full(n, np.nan),
        # Quotes of the bar.
        asks=np.zeros(n),
        bids=np.zeros(n),
        has_quotes=np.zeros(n, np.int64),
        half_spreads=np.zeros(n),
        half_prices=np.zeros(n),
        offsets=np.zeros(n),
        # What is booked, and sums of the bar.
        priced=np.zeros(n),
        paid=np.zeros(n),
        profits=np.zeros(n),
        fees=np.zeros(n),
        slippage=np.zeros(n),
        losses=np.zeros(n),
        traded=np.zeros(n),
        # Orders, trials and closings on the way.
        prices=np.zeros(n),
        quantities_kept=np.zeros(n),
        quantities_added=np.zeros(n),
        quantities_aside=np.zeros(n),
        started=np.zeros(n),
        quantities_closed=np.zeros(n),
        losses_of_close=np.zeros(n),
        fees_of_close=np.zeros(n),
    )


def no_options() -> OptionState:
    """Return the options of an account that has none."""
    feed = make_option_feed(0, 1)
    return start_options(pack_option_terms(MarginRule(), feed, ()), feed)


WINDOW = 30
"""Days of the volume that chooses a tier."""


class TradedDays(NamedTuple):
    """Traded notional by UTC day: ``today``, of day number ``day``, and the 30 days before it.

    ``past`` has shape (30, ...), the oldest day first; that of ``today`` is the rest.
    """

    day: int
    today: FloatArray | float
    past: FloatArray

    def at(self, day: int) -> TradedDays:
        """Return the same at a later day: the days between had no trades."""
        passed = min(day - self.day, WINDOW + 1)
        if passed <= 0:
            return self
        without_trades = np.zeros((passed - 1, *np.shape(self.today)))
        rows = np.concatenate([self.past, [self.today], without_trades])
        return TradedDays(day, 0.0, rows[-WINDOW:])

    def add(self, amount: FloatArray | float) -> TradedDays:
        """Return the same with more notional traded today."""
        return self._replace(today=self.today + amount)

    def to_dict(self) -> dict[str, Any]:
        """Return the same as plain data, for :func:`read_traded`."""
        return {"day": self.day, "today": self.today, "past": self.past.tolist()}


def read_traded(data: Mapping[str, Any] | None) -> TradedDays | None:
    """Return what :meth:`TradedDays.to_dict` wrote; None if nothing was."""
    if data is None:
        return None
    past = np.array(data["past"], dtype=np.float64)
    return TradedDays(data["day"], data["today"], past)
