"""The spans of a walk: where each fold trains, and where it is tested."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from backtest.base import (
    IntArray,
    ParameterError,
    format_duration,
    format_time,
    parse_duration,
    to_nanoseconds,
    utc_index,
)
from backtest.base.units import DAY

if TYPE_CHECKING:
    from backtest.market import Market, Markets

LEAST_TRAIN, LEAST_TEST = 200, 20
"""Least bars of a train span, and of a test span."""
FEW_BARS = 200
"""A test span under this many bars is allowed, with a warning."""
TIMES = ("train_start", "train_end", "test_start", "test_end")
_NOTHING = re.compile(r"0+\s*[a-zA-Z]*")


class FoldSpan(NamedTuple):
    train: int
    train_stop: int
    test: int
    stop: int


class WalkPlan(NamedTuple):
    """How a walk is cut into folds; lengths of time in ns."""

    train: int
    test: int
    gap: int = 0
    anchored: bool = False


def read_plan(train: str, test: str, *, anchored: bool, gap: str) -> WalkPlan:
    if not isinstance(anchored, bool | np.bool_):
        raise ParameterError(f"anchored must be True or False, got {anchored!r}")
    long = parse_duration(train, "train")
    short = parse_duration(test, "test")
    is_none = isinstance(gap, str) and _NOTHING.fullmatch(gap.strip()) is not None
    pause = 0 if is_none else parse_duration(gap, "gap")
    return WalkPlan(long, short, pause, bool(anchored))


def plan_spans(market: Market | Markets, plan: WalkPlan) -> list[FoldSpan]:
    if plan.gap >= min(plan.train, plan.test) > 0:
        raise ParameterError("gap must be shorter than train and test, '0d' for none")
    opens = list_opens(market, plan)
    edges = [*np.searchsorted(market.time, opens).tolist(), market.n_bars]
    if len(edges) > 2 and edges[-1] - edges[-2] < LEAST_TEST:
        del edges[-2]
    spans = []
    for k, (test, stop) in enumerate(itertools.pairwise(edges)):
        end = opens[k] - plan.gap
        begin = market.start if plan.anchored else max(market.start, end - plan.train)
        train, train_stop = np.searchsorted(market.time, [begin, end]).tolist()
        spans.append(FoldSpan(train, train_stop, test, stop))
    check_spans(spans, market)
    return spans


def list_opens(market: Market | Markets, plan: WalkPlan) -> list[int]:
    first = market.start + plan.train + plan.gap
    if first >= market.end:
        half = (market.end - market.start) // 2
        shorter = f"{half // DAY}d" if half >= DAY else format_duration(half)
        raise ParameterError(
            f"train must leave bars to test on, {shorter!r} for example: the data end "
            f"{format_time(market.end)}, the first test would open {format_time(first)}"
        )
    return list(range(first, market.end, plan.test))


def check_spans(spans: Sequence[FoldSpan], market: Market | Markets) -> None:
    for k, span in enumerate(spans):
        for name, n, least in (
            ("train", span.train_stop - span.train, LEAST_TRAIN),
            ("test", span.stop - span.test, LEAST_TEST),
        ):
            if n < least:
                begin = span.train if name == "train" else span.test
                raise ParameterError(
                    f"a {name} span must have {least} bars or more, that of fold {k} from "
                    f"{describe_bar(market, begin)} has {max(n, 0)}"
                )
        before = spans[k - 1].stop if k else 0
        if span.train_stop > span.test or (k and span.test < before):
            raise ParameterError(
                f"spans must be in order and must not overlap, fold {k} uses bars of its own or an "
                f"earlier test span, at {describe_bar(market, span.test)}"
            )


def describe_bar(market: Market | Markets, bar: int) -> str:
    return format_time(int(market.time[bar]) if bar < market.n_bars else market.end)


def read_spans(folds: pd.DataFrame, market: Market | Markets) -> list[FoldSpan]:
    missing = [name for name in TIMES if name not in folds]
    if missing or not len(folds):
        raise ParameterError(
            f"folds must have rows and {', '.join(TIMES)}, as bt.folds(market, ...) has, lacks "
            f"{', '.join(missing) or 'rows'}"
        )
    rows = [[to_nanoseconds(value, name) for value in folds[name]] for name in TIMES]
    flat = [time for row in rows for time in row]
    if min(flat) < market.start or max(flat) > market.end:
        raise ParameterError(
            f"folds must lie inside the data, {format_time(market.start)} to "
            f"{format_time(market.end)}, got {format_time(min(flat))} to {format_time(max(flat))}"
        )
    places = [np.searchsorted(market.time, row).tolist() for row in rows]
    spans = [FoldSpan(*bars) for bars in zip(*places, strict=True)]
    check_spans(spans, market)
    return spans


def tabulate_spans(market: Market | Markets, spans: Sequence[FoldSpan]) -> pd.DataFrame:
    bars = np.array(spans, dtype=np.int64).reshape(-1, len(TIMES))
    table = pd.DataFrame({name: time_bars(market, bars[:, k]) for k, name in enumerate(TIMES)})
    return table.rename_axis("fold")


def time_bars(market: Market | Markets, bars: IntArray) -> pd.DatetimeIndex:
    inside = np.minimum(bars, market.n_bars - 1)
    times = np.where(bars < market.n_bars, market.time[inside], market.end)
    return utc_index(times.astype(np.int64))


def warn_of_short(spans: Sequence[FoldSpan]) -> Iterator[str]:
    bars = np.array([span.stop - span.test for span in spans])
    short = bars[bars < FEW_BARS]
    if len(bars) > 1 and bars[-1] < FEW_BARS <= bars[:-1].min():
        yield (
            f"the last of {len(bars)} test spans has {short[0]} bars, under {FEW_BARS}: its scores "
            "are mostly noise"
        )
    elif len(short):
        yield (
            f"{len(short)} of {len(bars)} test spans have under {FEW_BARS} bars, the shortest "
            f"{short.min()}: scores of these folds are mostly noise"
        )
