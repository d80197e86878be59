"""The quality report of market data: coverage, defects, and possible uses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from backtest.market.inspect.findings import STALE_RULE, WICK_RULE, Cadence, Count, Gaps, Outliers
from backtest.market.tables.defects import Defect

Fit: TypeAlias = Literal["yes", "with care", "no"]


@dataclass(frozen=True)
class BarsQuality:
    """The quality of the bars, or of the mark bars.

    ``duplicates`` counts rows that repeat a time, ``conflicting`` those of them with other values,
    ``disordered`` rows stamped before the previous row, ``off_boundary`` opens off the UTC grid.
    ``unread`` names prices that are missing or could not be read: the counts leave them out.
    """

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
    """Mark prices compared with last prices: the share of bars with a mark, wicks, stale runs.

    ``ratio`` is the mark over the last price, at the median of the 1,000 bars in which it is
    furthest from 1; ``is_scale_known`` whether there are bars enough to assess_fitness by it.
    """

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
    """The quality of the settlements; rates are fractions per settlement.

    ``at_largest`` counts the rates of the largest size, of either sign: several suggest a cap.
    ``furthest_stamp`` is an offset in seconds. ``typical`` is the median size of rates per 8 hours,
    in the 20 days in which it is largest; ``is_scale_known`` says whether there are 20 days.
    """

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
    """Whether data are fit for a use, and the reasons why not."""

    use: str
    fit: Fit
    reasons: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
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
        plain["defects"] = [defect._asdict() for defect in self.defects]
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
