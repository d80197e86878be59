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
    rules: OptionRules
    instruments: IntArray
    groups: IntArray
    fee_rates: FloatArray
    fee_caps: FloatArray
    delivery_rates: FloatArray
    delivery_caps: FloatArray
    ticks: FloatArray


class OptionState(NamedTuple):
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
