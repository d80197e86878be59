"""The options of an account: what is held, what it is worth, what of it is ordered.

K contracts stand beside the n instruments; :mod:`backtest.account.option_feed` has their market
data. Arrays have shape (K,); without options K is 0. Money per contract is in the settlement
currency.
"""

from __future__ import annotations

from typing import NamedTuple

from backtest.base import FloatArray, IntArray
from backtest.venue import OptionPositions, OptionRules


class OptionTerms(NamedTuple):
    """The rules of the options of an account.

    ``instruments`` are the underlyings among the n instruments, ``groups`` those of the margin
    rule. Fees and ``ticks`` are those of
    :class:`backtest.account.option_feed.OptionFeed`, whose arrays they are.
    """

    rules: OptionRules
    instruments: IntArray
    groups: IntArray
    fee_rates: FloatArray
    fee_caps: FloatArray
    delivery_rates: FloatArray
    delivery_caps: FloatArray
    ticks: FloatArray


class OptionState(NamedTuple):
    """The options of an account; changes in place.

    ``positions`` are what is held and what values it now; ``offsets`` how much a mark that was
    quoted is over the model, ``priced`` the mark when its profit was last booked, ``paid`` the
    average premium of what is held. Quotes of the bar's open: ``asks`` and ``bids`` per contract,
    NaN: none; ``has_quotes`` if there is a row; ``half_spreads`` in points of volatility and
    ``half_prices`` per contract, NaN: unknown.
    ``targets`` are contracts to hold after the next fills, NaN: leave. The money of the bar:
    ``profits``, ``fees``, ``slippage``, ``losses`` (of liquidations), ``traded``. Room for orders:
    ``prices`` of a fill, ``kept`` and ``added`` contracts, ``before`` and ``started``: quantities
    held before a trial and before a liquidation.
    """

    positions: OptionPositions
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
    kept: FloatArray
    added: FloatArray
    before: FloatArray
    started: FloatArray
