"""The options of an account as arrays: what they are, what values them, what was ordered.

K contracts stand beside the n instruments of :mod:`backtest.account.portfolio_records`. Arrays have
shape (K,) or (n_bars, K); without options K is 0 and arrays by bar have one row.
:mod:`backtest.engine.option_inputs` fills them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from backtest.base import BoolArray, FloatArray, IntArray


class OptionFeed(NamedTuple):
    """K option contracts and their market data.

    Of shape (K,): ``signs`` (1 for a call, -1 for a put), ``strikes``, ``sizes`` (units of the
    underlying per contract), ``are_coin`` (settled in coins), ``instruments`` (index of the
    underlying among the n instruments), ``expiries`` and ``pairs`` (as in
    :class:`backtest.venue.option_kernels.OptionPositions`), ``expiry_times`` (UTC ns), ``rates``
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


INTEGERS = ("instruments", "expiries", "pairs", "expiry_times", "expiry_bars", "are_inside")
"""The fields of shape (K,) that are integers."""
FLAGS_BY_BAR = ("has_quotes", "are_listed")
BY_BAR = OptionFeed._fields[OptionFeed._fields.index("years_open") :]


def make_option_feed(n_options: int, n_bars: int) -> OptionFeed:
    found: dict[str, np.ndarray] = {}
    for name in OptionFeed._fields:
        shape = (n_bars, n_options) if name in BY_BAR else (n_options,)
        if name == "are_coin":
            found[name] = np.zeros(shape, dtype=np.bool_)
        elif name in INTEGERS or name in FLAGS_BY_BAR:
            found[name] = np.full(shape, -1 if name == "expiry_bars" else 0, dtype=np.int64)
        else:
            found[name] = np.full(shape, np.nan)
    return OptionFeed(**found)
