"""Longer bars at whose closes policies decide, shorter ones, and the bars of a year."""

from __future__ import annotations

import ast
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from backtest import core
from backtest.core import DataError, FloatArray, IntArray, ParameterError, format_duration
from backtest.core.units import DAY, YEAR_DAYS
from backtest.market import tables
from backtest.market.layouts import is_panel
from backtest.market.market import Market, compute_once
from backtest.market.markets import Markets, as_given, as_markets, rebuild
from backtest.market.tables import MARK_PRICES, PRICES, BarGroups

SESSIONS = 252.0
"""Sessions per year, in a market with sessions."""


@core.checked
def bars_per_year(market: Market) -> float | FloatArray:
    """Return the number of bars in a year, by which variances are annualized.

    365 days over the length of a bar. In a market with sessions, 252 a year: with bars shorter
    than a day, 252 times the mean number of bars in the UTC days that have passed, of shape
    (n_bars,) and NaN during the first. Bars longer than a day count by calendar time, by their mean
    distance up to each, of shape (n_bars,): 52.14 weeks, about 12 months.

    Examples
    --------
    >>> bars_per_year(Market.sample(bars=24))
    8760.0
    """
    return count_bars_per_year(market.time, market.interval, market.sessions)


def count_bars_per_year(time: IntArray, interval: int, is_session: bool) -> float | FloatArray:
    """Return the bars of a year, one number or one for each bar: what makes rates yearly.

    Without sessions it follows from the length of a bar. With sessions, days have SESSIONS bars a
    year; shorter and longer bars are counted as far as they have passed, so no later one is known,
    and NaN stands until the first session has.
    """
    if not is_session:
        return YEAR_DAYS * DAY / interval
    if interval == DAY:
        return SESSIONS
    if interval > DAY:
        return count_longer_bars(time, interval)
    return count_bars_of_sessions(time)


def count_longer_bars(time: IntArray, interval: int) -> FloatArray:
    """Return the bars of a year at each bar that is longer than a day, (n_bars,).

    By the bars and the days that have passed since the first one, so that no later bar is known.
    """
    n_before = np.arange(len(time))
    day = time // DAY
    days_passed = day - day[0]

    # The first bar has no days before it: it counts as if all were as near as the nearest.
    counts = np.full(len(time), YEAR_DAYS * DAY / interval)
    has_passed = days_passed > 0
    np.divide(YEAR_DAYS * n_before, days_passed, out=counts, where=has_passed)
    return counts


def count_bars_of_sessions(time: IntArray) -> FloatArray:
    """Return at each bar how many bars a year has, estimated from the sessions that have ended.

    For markets with sessions: a day of UTC is a session, of any number of bars, and a year has
    SESSIONS of them. ``time`` of shape (n_bars,) are opens, UTC ns. Only past sessions count, so
    that nothing is known early; in the first session the answer is NaN.
    """
    day = time // DAY
    starts_session = np.diff(day, prepend=day[0]) != 0
    sessions_passed = np.cumsum(starts_session)

    # How many bars come before the session of each bar: the row at which that session starts.
    row_if_start = np.where(starts_session, np.arange(len(time)), 0)
    n_before = np.maximum.accumulate(row_if_start)

    counts = np.full(len(time), np.nan)
    has_passed = sessions_passed > 0
    np.divide(SESSIONS * n_before, sessions_passed, out=counts, where=has_passed)
    return counts


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
        """Return the bar of ``seen`` that is last known at the close of bar t, or follows it."""
        if self.is_every:
            return t
        return int(self.find_next()[min(t, len(self.rows) - 1)])

    def count(self, stop: int) -> int:
        """Return how many bars of ``seen`` close before bar ``stop``."""
        if self.is_every:
            return stop
        return int(np.searchsorted(self.find_closes(), stop))

    def find_next(self) -> IntArray:
        """Return of each bar the longer bar that closes with it or, if none does, closes next."""
        return np.where(self.rows >= 0, self.rows, -self.rows - 1)

    def find_closes(self) -> IntArray:
        """Return the bars at whose closes policies decide."""
        return np.flatnonzero(self.rows >= 0)

    def hold(self, values: FloatArray) -> FloatArray:
        """Return at each bar of the market the value of the longer bar that closed last.

        Longer bars are those that policies see: ``values`` has the shape (..., n_seen), or (1,) for
        a constant. The answer is 0 before the first of them has closed.
        """
        if self.is_every or values.shape == (1,):
            return values

        # Where no longer bar closes with a bar, the one before the next is the last that has
        # closed; -1 where none has.
        closes_with_bar = self.rows >= 0
        next_bar = self.find_next()
        closed = np.where(closes_with_bar, next_bar, next_bar - 1)
        last_values = values[..., np.maximum(closed, 0)]
        return np.where(closed >= 0, last_values, 0.0)

    def pick(self, values: FloatArray) -> FloatArray:
        """Return values by bar, (..., n_bars) or (1,), at the closes of ``seen``."""
        if self.is_every or values.shape == (1,):
            return values
        return np.ascontiguousarray(values[..., self.find_closes()])

    def place(self, values: FloatArray, others: FloatArray | float) -> FloatArray:
        """Spread values by the bars that policies see over the bars of the market.

        At each bar at whose close policies decide stands the value of the bar that they see then;
        at all other bars stand ``others``. ``values`` has the shape (n_seen,) or (n_seen, n), the
        answer (n_bars,) or (n_bars, n).
        """
        if self.is_every:
            return values
        # Bars come last, so that a condition by bar holds for all columns.
        is_decided = self.rows >= 0
        row = np.maximum(self.rows, 0)
        by_bar = values[row].T
        placed = np.where(is_decided, by_bar, np.transpose(others))
        return np.ascontiguousarray(placed.T)


def decide_every(market: Any, length: str) -> Any:
    """Return a market, or several, whose policies decide at the closes of longer bars.

    In a run on it policies see the bars of :meth:`Market.resample`, as far as their closes have
    passed, and the account is simulated bar by bar. It is what ``decision_interval`` of
    :func:`backtest.run` makes, for functions without that argument.

    Raises ParameterError if it is not a multiple, no bar of this length is complete, or the market
    has such a clock.

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

    Examples
    --------
    >>> decide_every(Market.sample(bars=48), "4h")
    bt.decide_every(Market.sample(bars=48), '4h')
    """
    markets = as_markets(market)
    every = core.parse_duration(length, "decision_interval")
    if every % markets.interval:
        longer = format_duration(-(-every // markets.interval) * markets.interval)
        raise ParameterError(
            "decision_interval must be a multiple of the bars of the market, "
            f"{format_duration(markets.interval)}, got {length!r}; {longer!r}, or finer bars"
        )
    if markets.decision_interval not in {0, every}:
        raise ParameterError(
            "decision_interval: the policies of this market decide every "
            f"{format_duration(markets.decision_interval)} already, got {length!r}"
        )
    if every in {markets.interval, markets.decision_interval}:
        return market

    ending = f", {format_duration(every)!r})"
    clocked = {}
    for name, single in markets.items():
        source = f"bt.decide_every({single.source}{ending}"
        clocked[name] = dataclasses.replace(single, decision_interval=every, source=source)
    source = f"bt.decide_every({markets.source}{ending}"
    whole = rebuild(clocked, markets.currency, source, markets.last_opens, markets.listing)
    decided = as_given(whole, market)
    find_clock(decided)  # raises if no longer bar is complete
    return decided


def find_clock(market: Any) -> PolicyClock:
    if not market.decision_interval:
        return PolicyClock(market, np.zeros(1, np.int64))
    return compute_once(market, "policy clock", lambda: make_clock(market))


def show_signal(market: Market, clock: PolicyClock) -> Market:
    """Return the market that policies see, with the signal as known at its closes."""
    if clock.is_every:
        return market
    signal = market.signal[:1]  # of a constant one
    if market.signal.strides != (0,):
        signal = market.signal[clock.find_closes()]
    return clock.seen.with_signal(signal)  # type: ignore[no-any-return]


def combine(market: Market) -> Market:
    def compute() -> Market:
        length = market.decision_interval
        groups = tables.group_bars(market.time, market.interval, length, sessions=False)
        source = f"{market.source}.resample({format_duration(length)!r})"
        return Market(**tables.resample_fields(market, length, groups), source=source)

    return compute_once(market, "clock", compute)


def make_clock(market: Market | Markets) -> PolicyClock:
    """Return the longer bars of a market, and the bars of the market at which each closes.

    ``rows`` has a number for each bar of the market: k, if the longer bar k closes there, and else
    -1 less the longer bar that is the next to close.
    """
    markets = as_markets(market)
    length = markets.decision_interval
    combined = {name: combine(single) for name, single in markets.items()}
    last_opens = find_last_opens(markets)
    seen = rebuild(combined, markets.currency, markets.source, last_opens, markets.listing)

    # Of each bar, the longer bar that ends next; at first as if it did not close there.
    time = markets.time
    opens = seen.time
    closes = opens + length
    next_bar = np.searchsorted(closes, time, side="right")
    rows = (-next_bar - 1).astype(np.int64)

    # After the last longer bar none is left to close.
    bars = np.flatnonzero(next_bar < len(opens))
    longer_bar = next_bar[bars]

    # A bar is the last of a longer one if the next bar opens at its end or later. In a gap between
    # two longer bars the next has not begun.
    ends = np.append(time[1:], time[-1] + markets.interval)
    has_begun = time[bars] >= opens[longer_bar]
    has_ended = ends[bars] >= closes[longer_bar]
    is_last = has_begun & has_ended
    rows[bars[is_last]] = longer_bar[is_last]
    return PolicyClock(as_given(seen, market), rows)


def find_last_opens(markets: Markets) -> dict[str, int]:
    """Return the open of the last decision bar of each instrument that has one, by name, in ns.

    Decision bars are those of ``decision_interval``, on a grid of their length. Without gaps the
    last one that is complete counts. With gaps it is the one that holds the last bar of the market:
    there a decision bar may lack some of its bars anyway.
    """
    length = markets.decision_interval
    origin = tables.grid_origin(length)
    may_be_incomplete = has_gaps(markets)

    last_opens = {}
    for name, last_bar in markets.last_opens.items():
        if may_be_incomplete:
            n_before = (last_bar - origin) // length
        else:
            # As many as have ended when the last bar ends; the last of them began one earlier.
            end = last_bar + markets.interval
            n_before = (end - origin) // length - 1
        last_opens[name] = origin + n_before * length
    return last_opens


def has_gaps(market: Any) -> bool:
    """Return whether bars may be further apart than they are long: sessions, or holes."""
    if market.sessions:
        return True
    span = int(market.time[-1]) - int(market.time[0])
    span_without = (market.n_bars - 1) * int(market.interval)
    return bool(span != span_without)


def describe_clock(market: Market) -> dict[str, Any]:
    """Return when policies decide, and how many longer bars are made of few bars, for the manifest.

    Nothing where policies decide at each close. A longer bar is thin if it has less than the share
    ENOUGH of the usual number of bars.
    """
    length = market.decision_interval
    if not length:
        return {}
    facts: dict[str, Any] = {"decision_interval": format_duration(length)}

    # How many bars each longer bar is made of.
    opens = combine(market).time
    edges = np.append(opens, opens[-1] + length)
    first_bars = np.searchsorted(market.time, edges)
    counts = np.diff(first_bars)
    usual = length // market.interval
    if market.sessions:
        usual = int(np.bincount(counts).argmax())

    thin = np.flatnonzero(counts < ENOUGH * usual)
    if thin.size and "detail" not in market.filled:
        facts["thin_bars"] = thin.size
        facts["first_thin"] = core.format_time(int(opens[thin[0]]))
    return facts


SAME = 1e-6
MOST = 0.01
"""Relative differences of prices that are noise, and that are refused."""


def with_clock(market: Any, decision_interval: str | None, detail: Any) -> Any:
    """Return a market whose policies decide at closes of longer bars, with detail inside of bars.

    ``decision_interval`` is the length of those bars; without it they are the bars of the market.
    ``detail`` are shorter bars of the same instruments, which stand in place of bars of the market
    wherever they cover one in all instruments. Raises ParameterError where they do not fit.
    """
    if decision_interval is None and detail is None:
        return market
    market = as_given(as_markets(market), market)
    if decision_interval is not None and detail is None:
        return decide_every(market, decision_interval)
    if market.decision_interval:
        raise ParameterError(
            f"detail: the bars must be those that policies see, {market!r} has another clock; give "
            "the market as it was loaded, and decision_interval to the call"
        )
    length = decision_interval or format_duration(market.interval)
    decide_every(market, length)  # raises if it is not a multiple

    markets = as_markets(market)
    details = read_details(markets, detail)
    # A bar has detail in all instruments, or in none.
    covered = []
    for name, single in markets.items():
        is_covered = find_covered(name, single, details[name])
        covered.append(single.time[is_covered])
    common = functools.reduce(np.intersect1d, covered)

    refined = {}
    for name, single in markets.items():
        is_replaced = np.isin(single.time, common)
        refined[name] = join(single, details[name], is_replaced)
    source = f"{markets.source} with detail"
    joined = rebuild(refined, markets.currency, source, markets.last_opens, markets.listing)
    return decide_every(as_given(joined, market), length)


def read_details(markets: Markets, detail: Any) -> Mapping[str, Market]:
    """Return the shorter bars of each instrument by its name, loaded where ``detail`` is a path.

    ``detail`` may be a market for the only instrument, a table of markets, or a file or folder.
    Raises ParameterError if it is none of these, or lacks an instrument.
    """
    details = detail
    if isinstance(detail, str | Path):
        if is_panel([Path(detail)], markets.names):
            details = Markets.load(detail, instruments=list(markets.names), funding_gaps="zero")
        else:
            details = Market.load(detail, funding_gaps="zero")

    # One market is that of the first instrument; others then lack one.
    if isinstance(details, Market):
        details = {markets.names[0]: details}
    are_markets = False
    if isinstance(details, Mapping):
        are_markets = all(isinstance(single, Market) for single in details.values())
    if not are_markets:
        raise ParameterError(
            "detail must be a Market, one for each instrument, or a folder, "
            f"got {core.repr_plain(details)}"
        )

    lacking = [name for name in markets.names if name not in details]
    if lacking:
        raise ParameterError(
            f"detail must be one for each instrument, got none of {', '.join(lacking)}"
        )
    return details  # type: ignore[no-any-return]


def find_owners(market: Market, detail: Market) -> IntArray:
    """Return the bar of a market in which each bar of its detail opens, -1 if in none."""
    owners = np.searchsorted(market.time, detail.time, side="right") - 1
    ends = market.time[owners] + market.interval
    return np.where(detail.time < ends, owners, -1)


def find_covered(name: str, market: Market, detail: Market) -> core.BoolArray:
    """Return which bars of a market its detail can stand for: bool of shape (n_bars,).

    The detail must open with the bar, and have at least the share ENOUGH of the bars that make it.
    Raises ParameterError if its bars are not shorter, of another instrument, or cover none.
    ``name`` is that of the instrument, for messages.
    """
    if detail.interval >= market.interval or market.interval % detail.interval:
        raise ParameterError(
            f"detail must have shorter bars that divide {format_duration(market.interval)}, "
            f"got {format_duration(detail.interval)}"
        )

    instruments = {market.instrument, detail.instrument} - {""}
    if len(instruments) > 1:
        raise ParameterError(
            f"detail must be of the same instrument, {market.instrument}, got {detail.instrument}"
        )

    # Bars of the detail that open in no bar, -1, are counted first, and left out.
    owners = find_owners(market, detail)
    counts = np.bincount(owners + 1, minlength=market.n_bars + 1)[1:]
    n_whole = market.interval // detail.interval
    is_enough = counts >= ENOUGH * n_whole
    opens_with_it = np.isin(market.time, detail.time)
    covered = np.asarray(is_enough & opens_with_it)
    if not covered.any():
        raise ParameterError(
            f"detail must cover bars of {name} and open with them, got bars from "
            f"{core.format_time(detail.start)} to {core.format_time(detail.end)} for "
            f"{core.format_time(market.start)} to {core.format_time(market.end)}"
        )
    return covered


def join(market: Market, detail: Market, replaced: core.BoolArray) -> Market:
    """Return a market in which shorter bars stand in place of the bars that are ``replaced``.

    ``replaced`` is of shape (n_bars,). Marks count only where both have them. What was replaced,
    and how far the shorter bars differ from the bars that they make, is noted in ``filled``.
    """
    owners = find_owners(market, detail)
    is_used = (owners >= 0) & replaced[owners]
    prices: tuple[str, ...] = PRICES
    has_mark = market.has_mark and detail.has_mark
    if has_mark:
        prices = (*PRICES, *MARK_PRICES)
    bars = join_bars(market, detail, prices, replaced, is_used)

    # The bars of the detail make those that they replace: bars of one owner are a group.
    opens = market.time[replaced]
    starts = np.flatnonzero(np.diff(owners[is_used], prepend=-1))
    used_prices = {name: getattr(detail, name)[is_used] for name in prices}
    notes = compare(market, used_prices, BarGroups(opens, starts))
    text = describe_detail(market, detail, opens)
    if market.has_mark and not has_mark:
        text = f"{text}; it has no mark prices"
    return Market(
        **{
            **market.fields(),
            **bars,
            "columns": hold_columns(market, bars["time"]),
            "interval": detail.interval,
            "has_mark": has_mark,
            "synthetic": market.synthetic or detail.synthetic,
            "filled": {**market.filled, "detail": text, **notes},
        },
        source=f"{market.source} with detail {detail.source}",
    )


def join_bars(
    market: Market,
    detail: Market,
    prices: Sequence[str],
    replaced: core.BoolArray,
    is_used: core.BoolArray,
) -> dict[str, Any]:
    """Return time, volume and ``prices`` of the bars that stay and of the detail, in order of time.

    Bars of the market are left out if they are ``replaced``; those of the detail are taken if
    ``is_used``. Without marks among the prices, marks are the last prices.
    """
    both = {}
    for name in (*prices, "volume", "time"):
        of_market = getattr(market, name)[~replaced]
        of_detail = getattr(detail, name)[is_used]
        both[name] = np.concatenate([of_market, of_detail])
    order = np.argsort(both["time"], kind="stable")
    joined = {name: values[order] for name, values in both.items()}
    for name in PRICES:
        joined.setdefault(f"mark_{name}", joined[name])
    return joined


def hold_columns(market: Market, time: IntArray) -> dict[str, FloatArray]:
    """Return the columns of a market at bars with the opens ``time``, some of them shorter.

    A column is known at the close of its bar: of one that has detail, at the last shorter bar in
    it. Each shorter bar has the value that was known last, NaN before the first.
    """
    # The last row in each bar of the market: the one before the next bar opens.
    last_rows = np.searchsorted(time, market.time[1:]) - 1
    ends = np.append(last_rows, len(time) - 1)

    # Of each row the last bar that has closed with it or before, -1 if none has.
    known = np.searchsorted(ends, np.arange(len(time)), side="right") - 1
    is_known = known >= 0
    bar = np.maximum(known, 0)
    held = {}
    for name, values in market.columns.items():
        held[name] = np.where(is_known, values[bar], np.nan)
    return held


def describe_detail(market: Market, detail: Market, opens: IntArray) -> str:
    """Return how many bars of a market have detail, and from when to when."""
    bars = core.count_nouns(market.n_bars, "bar")
    length = format_duration(market.interval)
    shorter = format_duration(detail.interval)
    text = f"{shorter} in {len(opens):,} of {bars} of {length}"
    if not len(opens):
        return text

    start = core.format_time(int(opens[0]))
    end = core.format_time(int(opens[-1]) + market.interval)
    return f"{text}, from {start} to {end}"


def compare(market: Market, detail: Mapping[str, FloatArray], groups: BarGroups) -> dict[str, str]:
    """Return a note of bars that differ from what their shorter bars make, empty if none does.

    ``detail`` has the prices of the shorter bars by name, ``groups`` which of them make which bar.
    Differences of prices are relative: more than MOST is an error, not more than SAME is noise.
    """
    opens = groups.time
    if not len(opens):
        return {}

    rows = np.searchsorted(market.time, opens)
    worst = np.zeros(len(opens))
    for names in (PRICES, MARK_PRICES):
        if names[0] not in detail:
            continue
        made = groups.ohlc(*map(detail.__getitem__, names))
        for name, prices in zip(names, made, strict=True):
            known = getattr(market, name)[rows]
            difference = np.abs(prices / known - 1.0)
            worst = np.maximum(worst, difference)

    k = int(np.argmax(worst))
    most = float(worst[k])
    time = core.format_time(int(opens[k]))
    count = int(np.sum(worst > SAME))
    if most > MOST:
        raise core.DataError(
            "detail must make the bars that it stands for, got a price that differs by "
            f"{core.format_percent(most)} in the bar of {time} UTC, and {count:,} of "
            f"{len(opens):,} bars that differ: of one instrument and one venue?"
        )
    if not count:
        return {}
    text = (
        f"{count:,} of {len(opens):,} bars differ from their detail by more than 1e-6, at most by "
        f"{most:.2g} at {time} UTC; the detail counts"
    )
    core.warn_caller(text)
    return {"detail_differs": text}


STEPS = {"load", "sample", "slice", "prefix", "between", "resample", "decide_every"}


def read_source(text: str, content_hash: str) -> Market:
    """Return the market whose ``source`` is a text, loaded again.

    The text is read as calls of :meth:`Market.load`, :meth:`Market.sample` and what makes parts of
    them, with literals; nothing else is evaluated. Raises DataError if it is anything else, or the
    content is not that of the hash.
    """
    try:
        market: Any = Market
        for name, arguments, named in list_calls(text):
            if name == "decide_every":
                market = decide_every(market, *arguments, **named)
            else:
                market = getattr(market, name)(*arguments, **named)
    except (SyntaxError, ValueError, TypeError, RecursionError) as error:
        raise DataError(
            f"a market must be loaded from files to be read again, got {text}"
        ) from error

    if market.content_hash != content_hash:
        raise DataError(f"the market must be the one of the result, {text} holds other data now")
    found: Market = market
    return found


def list_calls(source: str) -> list[tuple[str, list[Any], dict[str, Any]]]:
    """Return the calls in a text that made a market, the first one first: name and arguments.

    The text is parsed, never run, and arguments must be literals. Raises ValueError for any other
    text.
    """
    calls: list[tuple[str, list[Any], dict[str, Any]]] = []
    node = ast.parse(source, mode="eval").body
    while isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        # A function has the market as its first argument, a method before its name.
        inner = node.func.value
        arguments = node.args
        if ast.unparse(node.func) == "bt.decide_every":
            inner, *arguments = node.args

        name = node.func.attr
        if name not in STEPS:
            raise ValueError(source)
        literals = [ast.literal_eval(argument) for argument in arguments]
        named = {}
        for keyword in node.keywords:
            named[str(keyword.arg)] = ast.literal_eval(keyword.value)
        calls.append((name, literals, named))
        node = inner

    if ast.unparse(node) != "Market":
        raise ValueError(source)
    calls.reverse()
    return calls
