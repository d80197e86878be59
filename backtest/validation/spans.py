"""Where validations train and test: folds of a walk, and groups of time with their splits."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from backtest.base import (
    BoolArray,
    IntArray,
    ParameterError,
    Range,
    checked,
    format_duration,
    format_time,
    parse_duration,
    utc_index,
)
from backtest.engine import mark_ends
from backtest.market import Market, Markets, as_markets

LEAST_TRAIN, LEAST_TEST = 200, 20
"""Least bars of a train span, and of a test span."""
FEW_BARS = 200
"""A test span under this many bars is allowed, with a warning."""
MOST_GROUPS = 50
MOST_SPLITS = 20_000
USUAL_EMBARGO = 0.01
"""Share of all bars: Lopez de Prado (2018), section 7.4.2."""
TIMES = ("train_start", "train_end", "test_start", "test_end")


class FoldSpan(NamedTuple):
    train: int
    train_stop: int
    test: int
    stop: int


class Groups(NamedTuple):
    """Groups of consecutive bars, cut where sampling periods end.

    ``edges`` of shape (N + 1,) are bars, ``samples`` of shape (N + 1,) the sampling periods that
    end before them.
    """

    edges: IntArray
    samples: IntArray

    @property
    def n(self) -> int:
        return len(self.edges) - 1

    def span(self, group: int) -> tuple[int, int]:
        return int(self.edges[group]), int(self.edges[group + 1])


@checked
def folds(
    market: Market | Markets,
    *,
    train: str = "365d",
    test: str = "30d",
    anchored: bool = False,
    gap: str = "0d",
    groups: int | None = None,
    test_groups: int = 2,
    embargo: int | str = 0,
    sampling: str = "1d",
) -> pd.DataFrame:
    """Return the spans of a walk, or with ``groups`` those of a cross-validation.

    Parameters
    ----------
    market : Market or Markets
        The bars to cut; of several markets, those of their common clock.
    train, test, anchored, gap
        As in :func:`backtest.walk_forward`.
    groups, test_groups, embargo, sampling
        As in :func:`backtest.cross_validate`, without an embargo by default.

    Returns
    -------
    DataFrame
        Of a walk, a row per fold: ``train_start, train_end, test_start, test_end``. Of a
        cross-validation, a row per split and group: ``split``, ``group``, ``is_test``, ``start``,
        ``end``; a train group after a test group starts after the embargo. Times are UTC,
        half-open.

    Raises
    ------
    ParameterError
        If an argument is not allowed, or spans are too short.

    Examples
    --------
    >>> import backtest as bt
    >>> market = bt.Market.sample(bars=24 * 90)
    >>> bt.folds(market, train="30d", test="20d")["test_start"].dt.strftime("%m-%d").tolist()
    ['01-31', '02-20', '03-12']
    >>> len(bt.folds(market, groups=6, test_groups=2))
    90
    """
    as_markets(market)
    if groups is None:
        return tabulate_spans(market, plan_spans(market, train, test, anchored, gap))
    n, k = check_counts(groups, test_groups)
    cut = split_groups(market, n, sampling)
    late = check_embargo(embargo, cut, market)
    rows = []
    for split, tested in enumerate(list_splits(n, k)):
        is_late = find_embargoed(n, tested)
        for group in range(n):
            first, stop = cut.span(group)
            rows.append((split, group, group in tested, first + late * int(is_late[group]), stop))
    table = pd.DataFrame(rows, columns=["split", "group", "is_test", "start", "end"])
    bars = {name: table[name].to_numpy(dtype=np.int64) for name in ("start", "end")}
    return table.assign(**{name: time_bars(market, each) for name, each in bars.items()})


# ------------------------------------------------------------------------------ folds of a walk


def plan_spans(
    market: Market | Markets,
    train: str,
    test: str,
    anchored: bool = False,
    gap: str = "0d",
) -> list[FoldSpan]:
    is_none = re.fullmatch(r"\s*0+\s*[a-zA-Z]*\s*", str(gap)) is not None
    lengths = [parse_duration(train, "train"), parse_duration(test, "test"),
               0 if is_none else parse_duration(gap, "gap")]  # fmt: skip
    if lengths[2] >= min(lengths[:2]):
        raise ParameterError("gap must be shorter than train and test, '0d' for none")
    if market.start + lengths[0] + lengths[2] >= market.end:
        half = (market.end - market.start) // 2
        raise ParameterError(
            f"train must leave bars to test on, {format_duration(half)!r} for example: the data "
            f"end {format_time(market.end)}"
        )
    spans = [*walk_spans(market, *lengths, is_anchored=anchored)]
    check_spans(spans, market)
    return spans


def walk_spans(
    market: Market | Markets, train: int, test: int, gap: int, *, is_anchored: bool
) -> Iterator[FoldSpan]:
    """Yield one fold after the other; lengths in ns. The last test span ends with the data."""
    stop = 0
    for opened in range(market.start + train + gap, market.end, test):
        if stop == market.n_bars:
            return
        end = opened - gap
        begin = market.start if is_anchored else max(market.start, end - train)
        bars = np.searchsorted(market.time, [begin, end, opened, opened + test]).tolist()
        stop = bars[3] if market.n_bars - bars[3] >= LEAST_TEST else market.n_bars
        yield FoldSpan(bars[0], bars[1], bars[2], stop)


def check_spans(spans: Sequence[FoldSpan], market: Market | Markets) -> None:
    before = 0
    for k, span in enumerate(spans):
        for name, first, stop, least in (
            ("train", span.train, span.train_stop, LEAST_TRAIN),
            ("test", span.test, span.stop, LEAST_TEST),
        ):
            if stop - first < least:
                raise ParameterError(
                    f"a {name} span must have {least} bars or more, that of fold {k} from "
                    f"{describe_bar(market, first)} has {max(stop - first, 0)}"
                )
        if span.train_stop > span.test or span.test < before:
            raise ParameterError(
                f"spans must be in order and must not overlap, fold {k} uses bars of its own or an "
                f"earlier test span, at {describe_bar(market, span.test)}"
            )
        before = span.stop


def describe_bar(market: Market | Markets, bar: int) -> str:
    return format_time(int(market.time[bar]) if bar < market.n_bars else market.end)


def tabulate_spans(market: Market | Markets, spans: Sequence[FoldSpan]) -> pd.DataFrame:
    bars = np.array(spans, dtype=np.int64)
    table = pd.DataFrame({name: time_bars(market, bars[:, k]) for k, name in enumerate(TIMES)})
    return table.rename_axis("fold")


def time_bars(market: Market | Markets, bars: IntArray) -> pd.DatetimeIndex:
    times = np.append(market.time, market.end)
    return utc_index(times[bars].astype(np.int64))


def warn_of_short(spans: Sequence[FoldSpan]) -> Iterator[str]:
    bars = np.array([span.stop - span.test for span in spans])
    short = bars[bars < FEW_BARS]
    if len(short):
        yield (
            f"{len(short)} of {len(bars)} test spans have under {FEW_BARS} bars, the shortest "
            f"{short.min()}: scores of these folds are mostly noise"
        )


# ------------------------------------------------------------------------------ groups and splits


def check_counts(groups: int, test_groups: int) -> tuple[int, int]:
    n = int(Range(2, MOST_GROUPS).check("groups", groups, whole=True))
    k = int(Range(1, n - 1).check("test_groups", test_groups, whole=True))
    if math.comb(n, k) > MOST_SPLITS:
        raise ParameterError(
            f"groups and test_groups must make at most {MOST_SPLITS:,} splits, {n} and {k} make "
            f"{math.comb(n, k):,}"
        )
    return n, k


def split_groups(market: Market | Markets, n: int, sampling: str) -> Groups:
    period = parse_duration(sampling, "sampling")
    closes = np.flatnonzero(mark_ends(market, period)) + 1  # type: ignore[arg-type] # its clock
    parts = np.array_split(np.arange(len(closes)), n)
    samples = np.array([0, *(int(part[-1]) + 1 if len(part) else 0 for part in parts)])
    edges = np.concatenate(([0], closes))[samples]
    least = int(np.diff(edges).min())
    if least < LEAST_TRAIN or int(np.diff(samples).min()) < 2:
        raise ParameterError(
            f"groups must each have {LEAST_TRAIN} bars and two sampling periods or more, the "
            f"shortest of {n} has {least} bars"
        )
    return Groups(edges.astype(np.int64), samples.astype(np.int64))


def list_splits(n: int, k: int) -> list[tuple[int, ...]]:
    """Return the test groups of each split, C(n, k) of them, in lexical order."""
    return list(itertools.combinations(range(n), k))


def list_paths(n: int, k: int) -> list[list[int]]:
    """Return the split from which each path takes each group: φ = k/n · C(n, k) paths.

    Source: Lopez de Prado (2018), Advances in Financial Machine Learning, section 12.4.
    """
    splits = list_splits(n, k)
    tested = [[s for s, groups in enumerate(splits) if g in groups] for g in range(n)]
    return [list(path) for path in zip(*tested, strict=True)]


def find_embargoed(n: int, tested: Sequence[int]) -> BoolArray:
    """Return which train groups follow a test group directly, of shape (n,)."""
    return np.array([g - 1 in tested and g not in tested for g in range(n)])


def check_embargo(embargo: int | str | None, groups: Groups, market: Market | Markets) -> int:
    if embargo is None:
        return math.ceil(USUAL_EMBARGO * market.n_bars)
    if isinstance(embargo, str):
        bars = -(-parse_duration(embargo, "embargo") // market.interval)
    else:
        bars = int(Range(0, math.inf, "bars").check("embargo", embargo, whole=True))
    shortest = int(np.diff(groups.edges).min())
    if shortest - bars < LEAST_TRAIN:
        raise ParameterError(
            f"embargo must leave {LEAST_TRAIN} bars of each group, got {bars:,} of {shortest:,}"
        )
    return bars
