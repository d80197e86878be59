"""What market data are fit for, by the report on their quality."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from backtest.base.units import HOUR, MINUTE, format_duration
from backtest.market.inspect.quality_report import (
    BarsQuality,
    Fit,
    Fitness,
    FundingQuality,
    MarkQuality,
)
from backtest.market.tables.defects import Defect
from backtest.market.tables.scale_checks import FURTHEST_MARK, HIGHEST_RATE, distance

STALE_RUN = 3
"""Bars of a stale mark in a row that are worth a warning."""

DOUBTFUL_MARK = 0.01
"""How far marks are from last prices at the median, a fraction, that is worth a warning."""

DOUBTFUL_RATE = 0.0025
"""Median size of funding rates per 8 hours that is worth a warning, a fraction."""

QUIET = 0.05
"""Share of bars without volume beyond which minutes are thin."""


def assess_fitness(
    bars: BarsQuality | None,
    mark: BarsQuality | None,
    beside: MarkQuality | None,
    funding: FundingQuality | None,
    interval: int | None,
    defects: tuple[Defect, ...],
    filled: Mapping[str, str],
) -> tuple[Fitness, ...]:
    """Return what the data are fit for."""
    count = len(defects)
    refused = [say(count, "defect")] if defects else []
    broken = _broken_bars(bars, "bar")
    thin = bars.zero_volume if bars else None
    is_long = bars is not None and (interval or HOUR) > MINUTE
    return (
        _verdict("loading", refused, []),
        _verdict(
            "liquidation",
            [
                *broken,
                *(_broken_bars(mark, "mark bar") if mark else ()),
                *_faults_of_mark(beside),
            ],
            [
                *_doubts_of_mark(beside, interval),
                *_outlier_doubts(bars),
                *_filled_doubts(filled, ("mark_gaps", "bar_gaps", "widen_range")),
            ],
        ),
        _verdict(
            "funding",
            _faults_of_funding(funding),
            [*_doubts_of_funding(funding, beside), *_filled_doubts(filled, ("funding_gaps",))],
        ),
        _verdict(
            "minutes",
            [*broken, *(["bars are longer than a minute"] if is_long else [])],
            [
                *(
                    [f"{thin.share:.1%} of bars without volume"]
                    if thin and thin.share > QUIET
                    else []
                ),
                *_filled_doubts(filled, ("bar_gaps", "volume_gaps")),
            ],
        ),
    )


def _verdict(use: str, faults: list[str], doubts: list[str]) -> Fitness:
    fit: Fit = "no" if faults else "with care" if doubts else "yes"
    return Fitness(use, fit, (*faults, *doubts))


def _broken_bars(bars: BarsQuality | None, noun: str) -> list[str]:
    if bars is None:
        return [f"no {noun}s"]
    counts = (
        (bars.gaps.missing if noun == "bar" else 0, noun, "missing"),
        (bars.duplicates, "repeated time", f"in {noun}s"),
        (bars.disordered, noun, "out of order"),
        (bars.bad_prices.count, noun, "with impossible prices"),
        (bars.bad_ranges.count, noun, "with a range that excludes open or close"),
    )
    unread = [f"{', '.join(bars.unread)} of {noun}s cannot be read"] if bars.unread else []
    return unread + [say(*each) for each in counts if each[0]]


def _faults_of_mark(beside: MarkQuality | None) -> list[str]:
    return [_say_ratio(beside)] if beside and _has_other_marks(beside) else []


def _has_other_marks(beside: MarkQuality) -> bool:
    return beside.is_scale_known and distance(beside.ratio) > FURTHEST_MARK


def _say_ratio(beside: MarkQuality) -> str:
    return f"marks are {beside.ratio:.4g} times the last price at the median"


def _doubts_of_mark(beside: MarkQuality | None, interval: int | None) -> list[str]:
    doubts = []
    if beside is None:
        doubts.append("no mark: liquidations tested on last prices")
    elif beside.coverage < 1.0:
        doubts.append(f"mark covers {beside.coverage:.1%} of the bars")
    if beside and distance(beside.ratio) > DOUBTFUL_MARK and not _has_other_marks(beside):
        doubts.append(_say_ratio(beside))
    if beside is not None and beside.stale.longest >= STALE_RUN:
        doubts.append(f"mark stale for up to {beside.stale.longest} bars")
    if interval is not None and interval > HOUR:
        doubts.append(f"bars of {format_duration(interval)} hide the path inside")
    return doubts


def _outlier_doubts(bars: BarsQuality | None) -> list[str]:
    count = bars.outliers.count if bars else 0
    return [say(count, "outlier")] if count else []


def _filled_doubts(filled: Mapping[str, str], names: tuple[str, ...]) -> list[str]:
    return [f"{name} filled, {filled[name]}" for name in names if name in filled]


def say(count: int, noun: str, rest: str = "") -> str:
    """Return how many there are, in words.

    Examples
    --------
    >>> say(1, "settlement", "missing"), say(3, "outlier")
    ('1 settlement missing', '3 outliers')
    """
    return f"{count} {noun}{'' if count == 1 else 's'} {rest}".rstrip()


def _faults_of_funding(funding: FundingQuality | None) -> list[str]:
    if funding is None:
        return ["no funding"]
    uncovered = funding.coverage is not None and funding.coverage < 1.0
    checks: tuple[tuple[Any, Callable[[], str]], ...] = (
        (funding.missing.missing, lambda: say(funding.missing.missing, "settlement", "missing")),
        (funding.duplicates, lambda: f"{funding.duplicates} settled twice"),
        (funding.disordered, lambda: f"{funding.disordered} out of order"),
        (
            funding.unbelievable.count,
            lambda: say(funding.unbelievable.count, "rate", "not believable"),
        ),
        (_is_off_scale(funding), lambda: _say_typical(funding)),
        (uncovered, lambda: f"covers {funding.coverage:.1%} of the bars"),
    )
    return [text() for fault, text in checks if fault]


def _is_off_scale(funding: FundingQuality) -> bool:
    return funding.is_scale_known and funding.typical >= HIGHEST_RATE


def _say_typical(funding: FundingQuality) -> str:
    return f"rates of {funding.typical:.2%} per 8 hours at the median: in per cent?"


def _doubts_of_funding(funding: FundingQuality | None, beside: MarkQuality | None) -> list[str]:
    if funding is None:
        return []
    doubts = []
    if funding.priced < 1.0 and beside is None:
        doubts.append("paid on last prices: neither a mark nor prices of settlement")
    if funding.typical >= DOUBTFUL_RATE and not _is_off_scale(funding):
        doubts.append(_say_typical(funding))
    if funding.off_boundary.count:
        doubts.append(say(funding.off_boundary.count, "stamp", "over a minute off the hour"))
    return doubts
