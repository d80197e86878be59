"""The market of a run and its first bar: the whole, from a later start, or after an earlier run."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from backtest.account import Account
from backtest.base.errors import DataError, ParameterError
from backtest.base.phrases import Argument, Phrase, Place
from backtest.base.units import TimeLike, format_time, to_nanoseconds
from backtest.market import Market, Markets

if TYPE_CHECKING:
    from backtest.engine.result import Result


class History(NamedTuple):
    """A market, the first bar of the run, and when the account began (ns)."""

    market: Market
    first: int
    started: int


def find_history(resume: Result | None, market: Market, start: TimeLike | None) -> History:
    """Return the market to run on, and where the account begins in it."""
    if resume is None:
        first = find_start_bar(market, start)
        return History(market, first, int(market.time[first]))
    if start is not None:
        raise ParameterError(
            "a resumed run starts where the earlier one ended, was given a start as well",
            where=Place("start", of="bt.run"),
            cure=Phrase("leave {} out", Argument("start")),
        )
    return join_markets(resume, market)


def find_start_bar(market: Market | Markets, start: TimeLike | None) -> int:
    """Return the bar at which an account begins: the first that opens at ``start`` or later."""
    first, where = 0, Place("start", of="bt.run")
    if start is not None:
        first = int(np.searchsorted(market.time, to_nanoseconds(start, where=where)))
        if first == market.n_bars:
            last = format_time(int(market.time[-1]))
            raise ParameterError(
                f"start must lie before the last bar, {last}, was {start}",
                where=where,
                cure="give an earlier start, or a longer market",
            )
    if market.n_bars - first < 2:
        raise ParameterError(
            f"a run needs at least 2 bars, was {market.n_bars - first}: the first never trades",
            where=repr(market),
            cure="give a longer market" if start is None else "give an earlier start",
        )
    return first


def join_markets(resume: Result, market: Market) -> History:
    """Return the market to run on: the given one, with the earlier run's bars in front of it."""
    last = resume.last_time
    if resume.market is not None and resume.market.start < market.start <= last + market.interval:
        market = _concatenate(resume.market, market)
    first = int(np.searchsorted(market.time, last, side="right"))
    is_inside = 0 < first < len(market)
    is_next = is_inside and int(market.time[first]) == last + market.interval
    if not (is_next or (is_inside and market.sessions)):
        raise DataError(
            f"the market must hold the bar of {format_time(last)}, the last one of the earlier "
            f"run, and go on after it, was from {format_time(market.start)} "
            f"to {format_time(market.end)}",
            where="bt.run, resume",
            cure="give a market that begins at or before that bar, with enough history for the "
            "policy's columns, and ends after it",
        )
    marked = float(market.mark_close[first - 1])
    ended = float(resume.marks[-1, 0])
    if marked != ended:
        raise DataError(
            f"the mark close of {format_time(last)} must be the one the earlier run ended on, "
            f"{ended!r}, was {marked!r}",
            where="bt.run, resume",
            cure="resume on the same data",
        )
    return History(market, first, resume.started)


def _concatenate(before: Market, after: Market) -> Market:
    """Return one market of both; where they overlap, the later one counts."""
    kept = int(np.searchsorted(before.time, after.start))
    if after.interval != before.interval or set(after.columns) != set(before.columns):
        raise DataError(
            "the market must have the interval and columns of the earlier run, "
            f"was {sorted(after.columns)}, before {sorted(before.columns)}",
            where="bt.run, resume",
            cure="load both in the same way",
        )
    bars = ("time", "open", "high", "low", "close", "volume")
    marks = ("mark_open", "mark_high", "mark_low", "mark_close")
    events = ("funding_time", "funding_rate", "funding_mark", "funding_predicted")
    cuts = dict.fromkeys((*bars, *marks), (kept, 0))
    later = int(np.searchsorted(after.funding_time, after.start - after.interval // 4))
    ours = np.concatenate([after.funding_time[later:], [after.end]])
    funded = int(np.searchsorted(before.funding_time, ours[0]))
    cuts |= dict.fromkeys(events, (funded, later))
    joined = {
        name: np.concatenate([getattr(before, name)[:stop], getattr(after, name)[start:]])
        for name, (stop, start) in cuts.items()
    }
    columns = {
        name: np.concatenate([before.columns[name][:kept], after.columns[name]])
        for name in after.columns
    }
    return Market(
        **joined,
        instrument=after.instrument,
        interval=after.interval,
        has_mark=before.has_mark and after.has_mark,
        columns=columns,
        synthetic=before.synthetic or after.synthetic,
        sessions=after.sessions,
        filled={**before.filled, **after.filled},
        source=f"{before.source} then {after.source}",
    )


def list_flows(account: Account, until: int) -> list[tuple[int, float]]:
    """Return the flows of an account up to a time, as (ns, amount)."""
    if account.flows is None:
        return []
    stamps = pd.DatetimeIndex(account.flows.index).as_unit("ns").asi8.tolist()
    pairs = zip(stamps, account.flows.tolist(), strict=True)
    return [(stamp, amount) for stamp, amount in pairs if stamp <= until]
