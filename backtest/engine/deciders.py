"""The policies of a run as arrays, as the loop of several positions asks them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from backtest.base import FloatArray, IntArray


class Deciders(NamedTuple):
    """The policies: those of the n instruments, and last the overlay.

    ``methods`` are called in plain Python; compiled code calls ``addresses``. Parameters, columns
    and memory of policy i are flat arrays that begin at ``*_at[i]``; the columns of one policy are
    ``lengths[i]`` apart, and bar t is its bar ``t - firsts[i]``. ``asks`` is 1 if there is a
    policy, ``wants_price`` if it reads the liquidation price, ``wants_table`` if it reads the
    brackets, ``sets_margin`` if it decides the venue leverage, ``wants_bar`` if
    it reads anything of the bar but its columns, ``wants_account`` 0 if it reads nothing of the
    account, 1 if nothing of its margin, else 2. ``bars`` has the fields of a
    bar by policy, of shape (n + 1, 8): the numbers that it sees. ``shown`` is the view of the
    account, ``margin`` and ``levels`` room for the margin rules it sees, ``width`` the most
    brackets. Where policies do not decide at each close, ``rows`` says where the longer bars close
    that they see, as :class:`backtest.market.clock.PolicyClock` does, ``seen_time`` has
    their opens, ``seen_bars`` of shape (6, bars, n) their prices and volume, and the last number of
    the memory is the highest unit value at a decision.
    """

    methods: Any
    addresses: IntArray
    params: FloatArray
    params_at: IntArray
    columns: FloatArray
    columns_at: IntArray
    lengths: IntArray
    firsts: IntArray
    memory: FloatArray
    memory_at: IntArray
    asks: IntArray
    wants_price: IntArray
    wants_table: IntArray
    wants_account: IntArray
    wants_bar: IntArray
    sets_margin: IntArray
    index_bars: FloatArray
    rows: IntArray
    seen_time: IntArray
    seen_bars: FloatArray
    tradable: IntArray
    shown: FloatArray
    bar: FloatArray
    margin: FloatArray
    levels: FloatArray
    width: int
    interval: int
    start: int
