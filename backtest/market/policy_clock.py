"""The longer bars at whose closes policies decide, in a market of shorter ones."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backtest.base import (
    FloatArray,
    IntArray,
    ParameterError,
    format_duration,
    format_time,
    parse_duration,
)
from backtest.market.market import Market, compute_once
from backtest.market.markets import Markets, as_given, as_markets, rebuild
from backtest.market.reshape import grid_origin, group_bars, group_stretches, resample_fields

if TYPE_CHECKING:
    from backtest.base import BoolArray

ENOUGH = 0.9
"""Share of its bars that a longer bar must have to count as whole."""


class PolicyClock(NamedTuple):
    """What policies see of a market, and when they decide.

    ``seen`` has the bars of policies: those of the market itself, or the longer ones. ``rows`` of
    shape (n_bars,) is k at the last bar of longer bar k, at whose close policies decide, and
    ``-k - 1`` at a bar that is followed by the close of longer bar k. A single 0: policies decide
    at each close.
    """

    seen: Any
    rows: IntArray

    @property
    def is_every(self) -> bool:
        return len(self.rows) == 1

    def at(self, t: int) -> int:
        row = t if self.is_every else int(self.rows[min(t, len(self.rows) - 1)])
        return row if row >= 0 else -row - 1

    def count(self, stop: int) -> int:
        return stop if self.is_every else int(np.searchsorted(self.find_closes(), stop))

    def is_at_close(self, t: int) -> bool:
        return self.is_every or bool(self.rows[t] >= 0)

    def find_closes(self) -> IntArray:
        return np.flatnonzero(self.rows >= 0)

    def hold(self, values: FloatArray) -> FloatArray:
        """Return values of ``seen`` by bar of the market, as last known at its close; 0 before.

        ``values`` are of shape (..., n_seen), or (1,) for a constant.
        """
        if self.is_every or values.shape == (1,):
            return values
        known = np.where(self.rows >= 0, self.rows, -self.rows - 2)
        return np.where(known >= 0, values[..., np.maximum(known, 0)], 0.0)

    def pick(self, values: FloatArray) -> FloatArray:
        if self.is_every or values.shape == (1,):
            return values
        return np.ascontiguousarray(values[..., self.find_closes()])

    def ignore_between(self, signal: FloatArray) -> FloatArray:
        """Return a signal of shape (n_bars,) or (n_bars, n) for the account."""
        if self.is_every:
            return signal
        signal = np.broadcast_to(signal, (len(self.rows), *signal.shape[1:]))
        is_close = (self.rows >= 0).reshape(-1, *(1,) * (signal.ndim - 1))
        return np.where(is_close, signal, 1.0)

    def place(self, values: FloatArray, others: FloatArray | float) -> FloatArray:
        """Return values of ``seen`` at the closes at which policies decide, ``others`` elsewhere.

        ``values`` are of shape (n_seen,) or (n_seen, n).
        """
        if self.is_every:
            return values
        is_close = (self.rows >= 0).reshape(-1, *(1,) * (values.ndim - 1))
        return np.where(is_close, values[np.maximum(self.rows, 0)], others)


def decide_every(market: Any, length: str) -> Any:
    """Return a market, or several, whose policies decide at the closes of longer bars.

    In a run on it policies see the bars of :meth:`Market.resample`, as far as their closes have
    passed, and the account lives bar by bar. It is what ``decide`` of :func:`backtest.run` makes,
    for functions without that argument.

    Parameters
    ----------
    market : Market or Markets
        The bars of the account.
    length : str
        The length of the bars of policies, such as ``"1h"``: a multiple of the market's interval.
        The interval itself changes nothing.

    Returns
    -------
    Market or Markets

    Raises
    ------
    ParameterError
        If it is not a multiple, no bar of this length is complete, or the market has such a clock.

    Examples
    --------
    >>> decide_every(Market.sample(bars=48), "4h")
    bt.decide_every(Market.sample(bars=48), '4h')
    """
    as_markets(market)
    return with_decide(market, length)


def with_decide(market: Any, decide: str) -> Any:
    length = parse_duration(decide, "decide")
    if length % market.interval:
        longer = format_duration(-(-length // market.interval) * market.interval)
        raise ParameterError(
            "decide must be a multiple of the bars of the market, "
            f"{format_duration(market.interval)}, got {decide!r}; {longer!r}, or finer bars"
        )
    if market.decide not in {0, length}:
        raise ParameterError(
            f"decide: the policies of this market decide every {format_duration(market.decide)} "
            f"already, got {decide!r}"
        )
    if length in {market.interval, market.decide}:
        return market
    found = set_decide(market, length)
    find_clock(found)
    return found


def set_decide(market: Any, length: int) -> Any:
    """Return a market, or several, whose policies decide every ``length`` ns."""
    markets = as_markets(market)
    found = {
        name: dataclasses.replace(each, decide=length, source=name_clock(each, length))
        for name, each in markets.items()
    }
    source = name_clock(markets, length)
    whole = rebuild(found, markets.currency, source, markets.last_opens, markets.listing)
    return as_given(whole, market)


def name_clock(market: Market | Markets, length: int) -> str:
    """Return the source of a market whose policies decide every ``length`` ns."""
    return f"bt.decide_every({market.source}, {format_duration(length)!r})"


def find_clock(market: Any) -> PolicyClock:
    if not market.decide:
        return PolicyClock(market, np.zeros(1, np.int64))
    return compute_once(market, "policy clock", lambda: make_clock(market))


def show_signal(market: Market, clock: PolicyClock) -> Market:
    if clock.is_every:
        return market
    signal, seen = market.signal, clock.seen
    if signal.strides != (0,):
        return seen.with_signal(signal[clock.find_closes()])  # type: ignore[no-any-return]
    return seen.with_signal(signal[:1])  # type: ignore[no-any-return]


def combine(market: Market) -> Market:
    def compute() -> Market:
        time, terms = market.time, (market.interval, market.decide)
        if len(time) < 2 or int(np.diff(time).max()) == market.interval:
            groups = group_bars(time, *terms)
        else:
            groups = group_stretches(time, *terms, sessions=False)
        source = f"{market.source}.resample({format_duration(market.decide)!r})"
        return Market(**resample_fields(market, market.decide, groups), source=source)

    return compute_once(market, "clock", compute)


def make_clock(market: Market | Markets) -> PolicyClock:
    markets = as_markets(market)
    length, origin = markets.decide, grid_origin(markets.decide)
    ahead = 0 if has_gaps(markets) else markets.interval
    lasts = {
        name: (last + ahead - origin) // length * length + origin - (length if ahead else 0)
        for name, last in markets.last_opens.items()
    }
    combined = {name: combine(each) for name, each in markets.items()}
    seen = rebuild(combined, markets.currency, markets.source, lasts, markets.listing)
    rows = number_closes(markets.time, seen.time, markets.interval, length)
    return PolicyClock(as_given(seen, market), rows)


def number_closes(time: IntArray, opens: IntArray, interval: int, length: int) -> IntArray:
    """Return ``rows`` of :class:`PolicyClock` for the opens of bars and of longer ones, in ns."""
    ended = np.searchsorted(opens + length, time, side="right")
    ends = np.append(time[1:], time[-1] + interval)
    found = -ended - 1
    inside = np.flatnonzero(ended < len(opens))
    k = ended[inside]
    is_last = (time[inside] >= opens[k]) & (ends[inside] >= opens[k] + length)
    found[inside[is_last]] = k[is_last]
    return found.astype(np.int64)


def has_gaps(market: Any) -> bool:
    span = int(market.time[-1]) - int(market.time[0])
    return bool(market.sessions) or span != (market.n_bars - 1) * int(market.interval)


def find_thin(market: Market) -> BoolArray:
    if "detail" in market.filled:
        return np.zeros(1, np.bool_)
    opens = combine(market).time
    counts = np.diff(np.searchsorted(market.time, np.append(opens, opens[-1] + market.decide)))
    usual = market.decide // market.interval
    if market.sessions:
        usual = int(np.bincount(counts).argmax())
    return np.asarray(counts < ENOUGH * usual)


def describe_clock(market: Market) -> dict[str, Any]:
    if not market.decide:
        return {}
    thin = find_thin(market)
    first = format_time(int(combine(market).time[np.argmax(thin)])) if thin.any() else None
    found = {"decide": format_duration(market.decide)}
    return found if first is None else {**found, "thin_bars": int(thin.sum()), "first_thin": first}
