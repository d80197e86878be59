"""A market with shorter bars in the place of those of its bars for which they are known."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from backtest.base import (
    BoolArray,
    DataError,
    FloatArray,
    IntArray,
    ParameterError,
    count_nouns,
    format_duration,
    format_percent,
    format_time,
    repr_plain,
    warn_caller,
)
from backtest.market.folders import is_panel
from backtest.market.market import Market
from backtest.market.markets import Markets, as_given, as_markets, rebuild
from backtest.market.policy_clock import ENOUGH, with_decide
from backtest.market.reshape import MARK_PRICES as MARKS
from backtest.market.settlements import DIVIDEND
from backtest.market.tables import PRICES

SAME, MOST = 1e-6, 0.01
"""Relative differences of prices that are noise, and that are refused."""
SPANS_TOLD = 5


def with_clock(market: Any, decide: str | None, detail: Any) -> Any:
    if decide is None and detail is None:
        return market
    market = as_given(as_markets(market), market)
    if decide is not None and detail is None:
        return with_decide(market, decide)
    if market.decide:
        raise ParameterError(
            f"detail: the bars must be those that policies see, {market!r} has another clock; give "
            "the market as it was loaded, and decide to the call"
        )
    length = decide or format_duration(market.interval)
    with_decide(market, length)  # it is a multiple
    return with_decide(refine(market, detail), length)


def refine(market: Any, detail: Any) -> Any:
    markets = as_markets(market)
    found = read_detail(markets, detail)
    parts = {name: match(name, each, found[name]) for name, each in markets.items()}
    known = join_known(parts)
    refined = {
        name: join(markets[name], part, np.isin(part.opens, known)) for name, part in parts.items()
    }
    source = f"{markets.source} with detail"
    found = rebuild(refined, markets.currency, source, markets.last_opens, markets.listing)
    return as_given(found, market)


def read_detail(markets: Markets, detail: Any) -> Mapping[str, Market]:
    given = load_detail(markets, Path(detail)) if isinstance(detail, str | Path) else detail
    if isinstance(given, Market):
        given = dict(zip(markets.names, [given], strict=False))
    if not isinstance(given, Mapping) or not all(isinstance(e, Market) for e in given.values()):
        raise ParameterError(
            "detail must be a Market, one for each instrument, or a folder, "
            f"got {repr_plain(given)}"
        )
    lacking = [name for name in markets.names if name not in given]
    if lacking:
        raise ParameterError(
            f"detail must be one for each instrument, got none of {', '.join(lacking)}"
        )
    return given


def load_detail(markets: Markets, folder: Path) -> Market | Markets:
    if not is_panel([folder], markets.names):
        return Market.load(folder, funding_gaps="zero")
    return Markets.load(folder, instruments=list(markets.names), funding_gaps="zero")


class Part(NamedTuple):
    """The shorter bars of one market that stand for longer ones.

    ``opens`` (ns) are the longer bars that have enough of them, ``rows`` which rows of ``detail``
    belong to each, as first and stop.
    """

    detail: Market
    opens: IntArray
    rows: IntArray


def match(name: str, market: Market, detail: Market) -> Part:
    if detail.interval >= market.interval or market.interval % detail.interval:
        raise ParameterError(
            f"detail must have shorter bars, of which {format_duration(market.interval)} is a "
            f"multiple, got {format_duration(detail.interval)}"
        )
    named = {each.instrument for each in (market, detail)} - {""}
    if len(named) > 1:
        raise ParameterError(
            f"detail must be of the same instrument, {market.instrument}, got {detail.instrument}"
        )
    first = np.searchsorted(detail.time, market.time)
    stop = np.searchsorted(detail.time, market.time + market.interval)
    usual = market.interval // detail.interval
    at = np.minimum(first, detail.n_bars - 1)
    has_open = (stop > first) & (detail.time[at] == market.time)
    kept = has_open & (stop - first >= ENOUGH * usual)
    if not kept.any():
        raise ParameterError(
            f"detail must cover bars of {name} and open with them, got bars from "
            f"{format_time(detail.start)} to {format_time(detail.end)} for "
            f"{format_time(market.start)} to {format_time(market.end)}"
        )
    return Part(detail, market.time[kept], np.stack([first[kept], stop[kept]], axis=1))


def join_known(parts: Mapping[str, Part]) -> IntArray:
    known, *others = (part.opens for part in parts.values())
    for each in others:
        known = np.intersect1d(known, each)
    return np.asarray(known)


def join(market: Market, part: Part, chosen: BoolArray) -> Market:
    detail, opens, rows = part.detail, part.opens[chosen], part.rows[chosen]
    has_mark = market.has_mark and detail.has_mark
    fields = (*PRICES, *MARKS) if has_mark else PRICES
    told = compare(market, detail, opens, rows, fields)
    is_own = ~np.isin(market.time, opens)
    taken = np.concatenate([np.arange(a, b) for a, b in rows] or [np.zeros(0, np.int64)])
    time = np.concatenate([market.time[is_own], detail.time[taken]])
    order = np.argsort(time, kind="stable")
    joined = {
        name: np.concatenate([getattr(market, name)[is_own], getattr(detail, name)[taken]])[order]
        for name in (*fields, "volume")
    }
    if not has_mark:
        joined |= {mark: joined[name] for mark, name in zip(MARKS, PRICES, strict=True)}
    time = time[order]
    columns = {name: spread(name, values, market, time) for name, values in market.columns.items()}
    return Market(
        **{
            **market.fields(),
            **joined,
            "time": time,
            "columns": columns,
            "interval": detail.interval,
            "has_mark": has_mark,
            "synthetic": market.synthetic or detail.synthetic,
            "filled": {**market.filled, "detail": describe(market, detail, opens), **told},
        },
        source=f"{market.source} with detail {detail.source}",
    )


def spread(name: str, values: FloatArray, market: Market, time: IntArray) -> FloatArray:
    ends = np.append(np.searchsorted(time, market.time[1:]) - 1, len(time) - 1)
    found = np.full(len(time), np.nan)
    if name == DIVIDEND:
        found[np.searchsorted(time, market.time)] = values
        return found
    known = np.searchsorted(ends, np.arange(len(time)), side="right") - 1
    return np.where(known >= 0, values[np.maximum(known, 0)], np.nan)


def compare(
    market: Market, detail: Market, opens: IntArray, rows: IntArray, fields: tuple[str, ...]
) -> dict[str, str]:
    if not len(opens):
        return {}
    at, worst = np.searchsorted(market.time, opens), np.zeros(len(opens))
    low = np.minimum.reduceat
    for name in fields:
        values, kind = getattr(detail, name), name.removeprefix("mark_")
        made = {"open": values[rows[:, 0]], "close": values[rows[:, 1] - 1]}.get(kind)
        if made is None:
            edges = np.minimum(rows.ravel(), len(values) - 1)
            made = (np.maximum.reduceat if kind == "high" else low)(values, edges)[::2]
            last = values[rows[:, 1] - 1]
            made = np.maximum(made, last) if kind == "high" else np.minimum(made, last)
        worst = np.maximum(worst, np.abs(made / getattr(market, name)[at] - 1.0))
    k, count = int(np.argmax(worst)), int(np.sum(worst > SAME))
    if worst[k] > MOST:
        raise DataError(
            "detail must make the bars that it stands for, got a price that differs by "
            f"{format_percent(float(worst[k]))} in the bar of {format_time(int(opens[k]))} UTC, "
            f"and {count:,} of {len(opens):,} bars that differ: of one instrument and one venue?"
        )
    if not count:
        return {}
    text = (
        f"{count:,} of {len(opens):,} bars differ from their detail by more than 1e-6, at most by "
        f"{float(worst[k]):.2g} at {format_time(int(opens[k]))} UTC; the detail counts"
    )
    warn_caller(text)
    return {"detail_differs": text}


def describe(market: Market, detail: Market, opens: IntArray) -> str:
    length = market.interval
    begins = np.flatnonzero(np.diff(opens, prepend=opens[:1] - 2 * length) > length)
    spans = [
        f"{format_time(int(opens[a]))} to {format_time(int(opens[b]) + length)}"
        for a, b in zip(begins, np.append(begins[1:], len(opens)) - 1, strict=True)
    ]
    more = f" and {len(spans) - SPANS_TOLD} more spans" if len(spans) > SPANS_TOLD else ""
    covered = f"{len(opens):,} of {count_nouns(market.n_bars, 'bar')}"
    told = ", ".join(spans[:SPANS_TOLD]) + more
    marks = "" if detail.has_mark or not market.has_mark else "; it has no mark prices"
    return (
        f"{format_duration(detail.interval)} in {covered} of {format_duration(length)}: "
        f"{told or 'none'}{marks}"
    )
