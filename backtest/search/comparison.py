"""Comparison: several policies on the same market, and which differences are more than noise."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from backtest import core
from backtest import results as measured
from backtest.core.result_parts import NOTHING, Headline, Part, Shown, ShownChart, ShownTable
from backtest.results import Result
from backtest.results.ranking import AFTER_RUIN, DOUBTS
from backtest.results.run_record import count_days_between, shows_growth
from backtest.search import equal_risk as e

MEASURED = (
    "log_growth",
    "cagr",
    "volatility",
    "sharpe",
    "max_drawdown",
    "es_95",
    "mean_leverage",
    "liquidations",
    "fees_annual",
    "funding_annual",
)
TITLES = {
    "log_growth": "log growth per year",
    "sharpe": "Sharpe",
    "volatility": "volatility",
    "es_95": "ES 95 %",
}
COVERAGE = (
    "on simulated accounts of 500 and 2,000 days, 95 % intervals held the true difference of log "
    "growth and Sharpe ratio in 93 to 97 % of cases (docs/accuracy.md)"
)
LEAST_MEASURED = 500
"""Periods of a comparison under which nobody measured the coverage."""
LEAST_DRAWN = 1e-4
"""Differences below this are not drawn: there is nothing to see."""
MOST_NUMBERS = 8
"""Policies that have a figure at the top of the page."""
ACCOUNTS = "The unit value of each account, free of deposits, and its fall from its own peak."
TEST = "test"
SAME = "alike"
RUIN = "ruin"
FEW = "too few returns"
NONE = "undefined"
UNTESTED = "no test"
LOST = "both lost"
"""How a difference is decided."""


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(core.SavedResult):
    """Several policies on the same market and terms.

    Attributes
    ----------
    table : DataFrame
        One row per policy: ``log_growth`` per year (-inf after ruin), all measures of a run, and
        ``liquidation_loss_annual``; at equal risk also ``scale`` and ``unscaled_volatility``.
    differences : DataFrame
        One row per measure and policy beside the baseline: ``policy``, ``against``, ``measure``
        (log_growth, sharpe, volatility, es_95), ``difference`` from the baseline, ``low`` and
        ``high`` of its interval, ``p_value``, ``p_holm`` (corrected over the rows of the measure),
        ``distinguishable``, and its ``basis``: ``test``; ``alike`` (almost equal returns);
        ``ruin`` (decided without a test); ``no test`` (volatility, es_95); ``too few returns``;
        ``undefined``.
    returns : DataFrame
        Simple returns per sampling period, one column per policy.
    risk_free : Series
        The risk-free return of the same periods.
    manifest : mapping
        Data, venue, account, policies, settings and versions.
    results : mapping of str to Result, or None
        The results, scaled at equal risk; None in a loaded comparison.
    """

    table: pd.DataFrame
    differences: pd.DataFrame
    returns: pd.DataFrame
    risk_free: pd.Series[float]
    manifest: Mapping[str, Any]
    results: Mapping[str, Result] | None = None

    kind = "comparison"
    layout = 2
    is_yearly = True
    call = "bt.compare"
    table_names = ("table", "differences", "returns", "risk_free")

    @property
    def names(self) -> tuple[str, ...]:
        """The results, in the order given."""
        return tuple(map(str, self.table.index))

    @property
    def baseline(self) -> str:
        """The result that the others are compared with."""
        return str(self.manifest["baseline"])

    @property
    def confidence(self) -> float:
        """The confidence of intervals and decisions."""
        return float(self.manifest["confidence"])

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings of the comparison, one sentence each."""
        return tuple(self.manifest["warnings"])

    @property
    def ruined(self) -> tuple[str, ...]:
        """The policies whose account was ruined, latest ruin first."""
        fallen = self.table[self.table["ruined"] != 0.0]
        rows = fallen.sort_values("ruin_time", ascending=False, kind="stable")
        return tuple(map(str, rows.index))

    @property
    def lost(self) -> tuple[str, ...]:
        """The policies whose account was lost: ruined, or 99 % of its unit value is gone."""
        rows = self.table[["ruined", "total_return"]].to_dict("index")
        return tuple(str(name) for name, row in rows.items() if measured.is_lost(row))

    @property
    def order(self) -> tuple[str, ...]:
        """The policies by log growth, highest first; ruined ones last, latest ruin first."""
        growth = self.table["log_growth"].sort_values(ascending=False, kind="stable")
        return (*(str(name) for name in growth.index if name not in self.ruined), *self.ruined)

    @property
    def verdict(self) -> str:
        clear = self.differences[self.differences["distinguishable"]]
        parts = []
        for measure, rows in clear.groupby("measure", sort=False):
            sides = []
            for row in rows.to_dict("records"):
                side = "higher" if row["difference"] > 0.0 else "lower"
                sides.append(f"{row['policy']} ({side})")
            parts.append(f"{TITLES[str(measure)]}: {', '.join(sides)}")

        finding = "nothing differs by more than noise."
        if parts:
            finding = f"these differ by more than noise: {'; '.join(parts)}."
        return (
            f"Against {self.baseline}, {self.describe_volatilities()}, with "
            f"{100.0 * self.confidence:g} % confidence, {finding}"
        )

    @property
    def details(self) -> str:
        best = self.order[0]
        row: Any = self.table.loc[best]
        metrics = {str(name): float(value) for name, value in row.items()}
        metrics["total_return"] = self.measure_return(best)
        lines = {e.BUY_AND_HOLD: self.manifest["market"]}
        better = e.name_better(
            lines,
            metrics,
            f"{best}'s",
            days=self.days,
        )

        sentences = []
        if best == self.baseline:
            sentences.append(f"The baseline {best} grew most.")
        if better:
            sentences.append(f"{core.capitalize(better)}.")
        return " ".join(sentences)

    @property
    def days(self) -> float:
        """The days over which the accounts are compared."""
        data = self.manifest["data"]
        return count_days_between(data["start"], data["end"])

    def measure_return(self, name: str) -> float:
        """Return the simple return of an account over the whole time."""
        return float(np.prod(1.0 + self.returns[name].to_numpy())) - 1.0

    def describe_volatilities(self) -> str:
        """Return the volatility of the accounts, or the lowest and the highest, as a clause."""
        volatility = self.table["volatility"]
        low = float(volatility.min())
        high = float(volatility.max())
        if high <= low * (1.0 + 2.0 * e.NEAR):
            return f"at a volatility of {core.format_percent(high)} a year"
        return (
            f"at volatilities of {core.format_percent(low)} to {core.format_percent(high)} a year"
        )

    @property
    def notices(self) -> tuple[str, ...]:
        return (*self._list_notices(), *self.warnings)

    def _list_notices(self) -> Iterator[str]:
        for name in self.ruined:
            days = float(self.table["ruin_time"][name])
            yield f"{name} was RUINED after {days:,.1f} days: no trade since; {AFTER_RUIN}."
        for name in self.lost:
            if name not in self.ruined:
                left = core.format_percent(1.0 + float(self.table["total_return"][name]), 4)
                yield f"{name} was LOST: {left} of its money is left."
        if len(self.lost) > 1:
            yield f"Nothing is compared between lost accounts: {', '.join(self.lost)}."

        if self.manifest["equal_risk"]:
            yield (
                "At equal risk: positions were scaled by factors known only afterwards, to compare "
                "and not to trade."
            )
        for measure, doubt in DOUBTS.items():
            counts = self.table[measure][self.table[measure] > 0.0]
            if len(counts):
                named = ", ".join(f"{name} {count:,.0f}" for name, count in counts.items())
                yield f"Bars in which {doubt}: {named}."

    def __repr__(self) -> str:
        risk = " at equal risk" if self.manifest["equal_risk"] else ""
        return f"<Comparison of {', '.join(self.names)}{risk} on {self.manifest['data']['source']}>"

    def to_dict(self) -> dict[str, Any]:
        content = {
            "comparison": self.manifest,
            "table": self.table.reset_index().to_dict("records"),
            "differences": self.differences.to_dict("records"),
            "order": list(self.order),
        }
        return dict(core.to_plain(content))

    @property
    def folder_title(self) -> str:
        return "compare"

    @property
    def policy_name(self) -> str:
        return ", ".join(self.names)

    @property
    def title(self) -> str:
        others = ", ".join(name for name in self.names if name != self.baseline)
        return f"{self.baseline} against {others}"

    @property
    def note(self) -> str:
        return f"{len(self.names)} policies"

    @property
    def heading(self) -> str:
        return core.clip(self.title, 200)

    def list_numbers(self) -> list[Headline]:
        is_yearly = shows_growth(self.days)
        measure = "cagr" if is_yearly else "total_return"
        when = "per year" if is_yearly else "in all"

        numbers = []
        for name in self.order[:MOST_NUMBERS]:
            growth = float(self.table["cagr"][name]) if is_yearly else self.measure_return(name)
            sharpe = core.format_number(float(self.table["sharpe"][name]))
            number = Headline(
                name=f"{measure} {name}",
                title=core.clip(name, 60),
                value=growth,
                style="percent",
                note=f"{when}; Sharpe {sharpe}",
            )
            numbers.append(number)
        return numbers

    def list_parts(self) -> list[Part]:
        gaps: list[Shown] = [self._draw_gaps(measure) for measure in TITLES]
        percent = f"{100.0 * self.confidence:g}"
        return [
            Part(
                key="accounts",
                title="The accounts",
                lead="One unit of money in each, over the same time.",
                blocks=(self._draw_accounts(), self._tabulate_measures()),
                shows="both",
            ),
            Part(
                key="differences",
                title="What differs by more than noise",
                lead=f"Each account less {self.baseline}; intervals hold {percent} %.",
                blocks=(*gaps, self._tabulate_gaps()),
                shows="both",
            ),
        ]

    def _draw_accounts(self) -> ShownChart:
        others = [name for name in self.names if name != self.baseline]
        return show_accounts((1.0 + self.returns[[self.baseline, *others]]).cumprod())

    def _tabulate_measures(self) -> ShownTable:
        return ShownTable(
            self.table.loc[list(self.order)],
            caption="Measures",
            note="The highest log growth first, ruined accounts last.",
            labels=core.Head("policy"),
            columns=tuple(name for name in MEASURED[1:] if name in self.table),
        )

    def _pick_rows(self, measure: str) -> pd.DataFrame:
        """Return the differences of one measure, by policy."""
        rows = self.differences[self.differences["measure"] == measure]
        return rows.set_index("policy")

    def _draw_gaps(self, measure: str) -> ShownChart:
        """Draw the differences of one measure with their intervals."""
        rows = self._pick_rows(measure)
        known = rows[np.isfinite(rows["difference"])]
        drawn = None
        if known["difference"].abs().max() >= LEAST_DRAWN:
            drawn = known[["difference", "low", "high", "distinguishable"]]
        return ShownChart(
            key=f"difference-{measure}",
            title=f"Difference of {TITLES[measure]}",
            caption="Blue where it is more than noise, gray where it is not.",
            table=drawn,
            kind="intervals",
            x="difference",
            percent="" if measure == "sharpe" else "x",
            size="half",
        )

    def _tabulate_gaps(self) -> ShownTable:
        cells = {}
        for measure, title in TITLES.items():
            cells[title] = self._pick_rows(measure).apply(write_gap, axis=1)
        others = [name for name in self.order if name != self.baseline]
        return ShownTable(
            pd.DataFrame(cells).loc[others],
            caption=f"Difference from {self.baseline}",
            note=f"Intervals of {100.0 * self.confidence:.6g} %; * is more than noise.",
            labels=core.Head("policy"),
            heads={title: core.Head(title, "", "decimals") for title in TITLES.values()},
        )

    def list_assumptions(self) -> tuple[str, ...]:
        lengths = [f"{n} for {TITLES[name]}" for name, n in self.manifest["blocks"].items()]
        blocks = ", ".join(lengths) or "no"
        coverage = core.capitalize(COVERAGE)
        if len(self.returns) < LEAST_MEASURED:
            n_periods = f"{len(self.returns):,}"
            coverage = f"{coverage}; here are {n_periods} periods, fewer than were measured"
        return (
            f"Intervals by the stationary bootstrap: {self.manifest['draws']:,} histories, seed "
            f"{self.manifest['seed']}, of all accounts together, in blocks of a mean length of "
            f"{blocks} periods; decisions allow for the number of comparisons of a measure "
            f"(Holm). {coverage}.",
        )

    def list_measures(self) -> Mapping[str, float]:
        return dict(self.table.loc[self.order[0]])

    def list_policies(self) -> Iterable[type]:
        for result in (self.results or {}).values():
            yield from map(type, result.policies.values())

    def _lay_out(self) -> dict[str, Any]:
        return super()._lay_out() | {"risk_free": self.risk_free.to_frame()}

    @classmethod
    def _read_back(cls, manifest: dict[str, Any], tables: Mapping[str, Any], folder: Path) -> Self:  # noqa: ARG003
        return cls(
            table=tables["table"],
            differences=tables["differences"],
            returns=tables["returns"],
            risk_free=tables["risk_free"]["risk_free"],
            manifest=manifest,
        )


def write_gap(row: Mapping[Any, Any] | pd.Series) -> str:
    """Return a difference with half of its interval, and a mark if it is more than noise."""
    basis = row["basis"]
    if basis in (SAME, LOST):
        return str(basis)

    # Where one was ruined, or a measure is undefined, a difference has at most a side.
    mark = " *" if row["distinguishable"] else ""
    gap = row["difference"]
    if basis not in (TEST, FEW, UNTESTED):
        if not math.isinf(gap):
            return f"n/a{mark}"
        return f"below{mark}" if gap < 0.0 else f"above{mark}"

    # Ratios are numbers, all other measures per cent.
    is_ratio = row["measure"] == "sharpe"
    unit = 1.0 if is_ratio else 100.0
    text = f"{unit * gap:z.2f}"
    if basis == TEST:
        half_width = row["high"] - gap
        shown = f"{unit * half_width:.2f}" if math.isfinite(half_width) else "?"
        text = f"{text} ± {shown}"
    if not is_ratio:
        text = f"{text} %"
    return f"{text}{mark}"


def show_accounts(
    units: pd.DataFrame,
    colors: Mapping[str, str] = NOTHING,
    marks: tuple[float, ...] = (),
    more: str = "",
) -> ShownChart:
    """Return the chart of the unit values of accounts; ``more`` is added to its caption."""
    return ShownChart(
        key="accounts",
        title="The accounts over time",
        caption=f"{ACCOUNTS} {more}".rstrip(),
        table=units,
        kind="accounts",
        colors=colors,
        marks=marks,
        has_legend=True,
        height=560,
    )
