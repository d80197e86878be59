"""The quality report of market data: coverage, defects, and fitness for a use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from backtest.base import format_duration
from backtest.base.units import HOUR, MINUTE
from backtest.market.inspect.findings import STALE_RULE, WICK_RULE, Cadence, Count, Gaps, Outliers
from backtest.market.tables.defects import Defect
from backtest.market.tables.scale_checks import FURTHEST_MARK, HIGHEST_RATE, distance

Fit: TypeAlias = Literal["yes", "with care", "no"]


@dataclass(frozen=True)
class BarsQuality:
    rows: int
    start: str
    end: str
    interval: str | None
    gaps: Gaps
    duplicates: int
    conflicting: int
    disordered: int
    off_boundary: Count
    bad_prices: Count
    bad_ranges: Count
    flat: Count
    zero_volume: Count | None
    outliers: Outliers
    unread: tuple[str, ...] = ()


@dataclass(frozen=True)
class MarkQuality:
    coverage: float
    ratio: float
    is_scale_known: bool
    wicks: Count
    longest_wick: float
    stale: Count
    wick_rule: str = WICK_RULE
    stale_rule: str = STALE_RULE


@dataclass(frozen=True)
class FundingQuality:
    """The quality of the settlements; rates are fractions per settlement."""

    settlements: int
    start: str
    end: str
    cadences: tuple[Cadence, ...]
    missing: Gaps
    duplicates: int
    disordered: int
    furthest_stamp: float
    off_boundary: Count
    lowest: float
    highest: float
    at_largest: int
    typical: float
    is_scale_known: bool
    unbelievable: Count
    coverage: float | None
    most_in_a_bar: int | None
    priced: float
    predicted: float


@dataclass(frozen=True)
class Fitness:
    use: str
    fit: Fit
    reasons: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {"use": self.use, "fit": self.fit, "reasons": list(self.reasons)}


@dataclass(frozen=True)
class Quality:
    """The quality report of a market or of files; times are UTC, shares fractions.

    ``defects`` lists what :meth:`Market.load` refuses, ``filled`` what was filled or repaired by
    choice, ``notes`` how the files were read for this report. ``beside`` compares mark and last.
    """

    source: str
    instrument: str
    bars: BarsQuality | None
    mark: BarsQuality | None
    beside: MarkQuality | None
    funding: FundingQuality | None
    defects: tuple[Defect, ...] = ()
    filled: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    verdicts: tuple[Fitness, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON."""
        plain: dict[str, Any] = asdict(self)
        plain["defects"] = [*map(str, self.defects)]
        plain["filled"] = dict(self.filled)
        return plain

    def fit_for(self, use: str) -> Fit:
        """Return the verdict on a use: "loading", "liquidation", "funding" or "minutes".

        Raises
        ------
        KeyError
            If there is no such use.
        """
        return {verdict.use: verdict.fit for verdict in self.verdicts}[use]


STALE_RUN = 3
"""The number of stale mark bars in a row that is worth a warning."""

DOUBTFUL_MARK = 0.01
"""The median distance of marks from last prices, as a fraction, that is worth a warning."""

DOUBTFUL_RATE = 0.0025
"""The median size of funding rates per 8 hours, as a fraction, that is worth a warning."""

QUIET = 0.05
"""The share of bars without volume above which minute bars are thin."""


def assess_fitness(
    bars: BarsQuality | None,
    mark: BarsQuality | None,
    comparison: MarkQuality | None,
    funding: FundingQuality | None,
    interval: int | None,
    defects: tuple[Defect, ...],
    filled: Mapping[str, str],
) -> tuple[Fitness, ...]:
    broken = [*_bar_faults(bars, "bar")]
    is_long = bars is not None and (interval or HOUR) > MINUTE
    return (
        _fitness("loading", [count_noun(len(defects), "defect")] if defects else [], []),
        _fitness(
            "liquidation",
            [
                *broken,
                *(_bar_faults(mark, "mark bar") if mark else ()),
                *_mark_faults(comparison),
            ],
            [
                *_mark_doubts(comparison, interval),
                *_outlier_doubts(bars),
                *_filled_doubts(filled, "mark_gaps", "bar_gaps", "widen_range"),
            ],
        ),
        _fitness(
            "funding",
            [*_funding_faults(funding)],
            [*_funding_doubts(funding, comparison), *_filled_doubts(filled, "funding_gaps")],
        ),
        _fitness(
            "minutes",
            [*broken, *(["bars are longer than a minute"] if is_long else [])],
            [*_volume_doubts(bars), *_filled_doubts(filled, "bar_gaps", "volume_gaps")],
        ),
    )


def _fitness(use: str, faults: list[str], doubts: list[str]) -> Fitness:
    fit: Fit = "no" if faults else "with care" if doubts else "yes"
    return Fitness(use, fit, (*faults, *doubts))


def count_noun(count: int, noun: str, rest: str = "") -> str:
    return f"{count} {noun}{'' if count == 1 else 's'} {rest}".rstrip()


def _filled_doubts(filled: Mapping[str, str], *names: str) -> list[str]:
    return [f"{name} filled, {filled[name]}" for name in names if name in filled]


def _bar_faults(bars: BarsQuality | None, noun: str) -> Iterator[str]:
    if bars is None:
        yield f"no {noun}s"
        return
    if bars.unread:
        yield f"{', '.join(bars.unread)} of {noun}s cannot be read"
    counts = (
        (bars.gaps.missing if noun == "bar" else 0, noun, "missing"),
        (bars.duplicates, "repeated time", f"in {noun}s"),
        (bars.disordered, noun, "out of order"),
        (bars.bad_prices.count, noun, "with impossible prices"),
        (bars.bad_ranges.count, noun, "with a range that excludes open or close"),
    )
    yield from (count_noun(*each) for each in counts if each[0])


def _outlier_doubts(bars: BarsQuality | None) -> Iterator[str]:
    if bars and bars.outliers.count:
        yield count_noun(bars.outliers.count, "outlier")


def _volume_doubts(bars: BarsQuality | None) -> Iterator[str]:
    thin = bars.zero_volume if bars else None
    if thin and thin.share > QUIET:
        yield f"{thin.share:.1%} of bars without volume"


def _is_other_scale(comparison: MarkQuality) -> bool:
    return comparison.is_scale_known and distance(comparison.ratio) > FURTHEST_MARK


def _mark_faults(comparison: MarkQuality | None) -> Iterator[str]:
    if comparison and _is_other_scale(comparison):
        yield _describe_ratio(comparison)


def _describe_ratio(comparison: MarkQuality) -> str:
    return f"marks are {comparison.ratio:.4g} times the last price at the median"


def _mark_doubts(comparison: MarkQuality | None, interval: int | None) -> Iterator[str]:
    if comparison is None:
        yield "no mark: liquidations tested on last prices"
    else:
        if comparison.coverage < 1.0:
            yield f"mark covers {comparison.coverage:.1%} of the bars"
        if distance(comparison.ratio) > DOUBTFUL_MARK and not _is_other_scale(comparison):
            yield _describe_ratio(comparison)
        if comparison.stale.longest >= STALE_RUN:
            yield f"mark stale for up to {comparison.stale.longest} bars"
    if interval is not None and interval > HOUR:
        yield f"bars of {format_duration(interval)} hide the path inside"


def _funding_faults(funding: FundingQuality | None) -> Iterator[str]:
    if funding is None:
        yield "no funding"
        return
    if funding.missing.missing:
        yield count_noun(funding.missing.missing, "settlement", "missing")
    if funding.duplicates:
        yield f"{funding.duplicates} settled twice"
    if funding.disordered:
        yield f"{funding.disordered} out of order"
    if funding.unbelievable.count:
        yield count_noun(funding.unbelievable.count, "rate", "not believable")
    if _is_off_scale(funding):
        yield _describe_typical(funding)
    if funding.coverage is not None and funding.coverage < 1.0:
        yield f"covers {funding.coverage:.1%} of the bars"


def _is_off_scale(funding: FundingQuality) -> bool:
    return funding.is_scale_known and funding.typical >= HIGHEST_RATE


def _describe_typical(funding: FundingQuality) -> str:
    return f"rates of {funding.typical:.2%} per 8 hours at the median: in per cent?"


def _funding_doubts(
    funding: FundingQuality | None, comparison: MarkQuality | None
) -> Iterator[str]:
    if funding is None:
        return
    if funding.priced < 1.0 and comparison is None:
        yield "paid on last prices: neither a mark nor prices of settlement"
    if funding.typical >= DOUBTFUL_RATE and not _is_off_scale(funding):
        yield _describe_typical(funding)
    if funding.off_boundary.count:
        yield count_noun(funding.off_boundary.count, "stamp", "over a minute off the hour")
