"""Comparison: several accounts on one market, and the tests of their differences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import pandas as pd

from backtest.base import (
    Head,
    Headline,
    Part,
    SavedResult,
    Shown,
    ShownTable,
    capitalize,
    clip,
    format_number,
    to_plain,
)
from backtest.compare.best_of_many import (
    ConfidenceSet,
    SuperiorityTest,
    build_confidence_set,
    run_superiority_test,
)
from backtest.compare.comparison_record import OF_EACH, ComparisonRecord
from backtest.compare.comparison_text import (
    MEASURES,
    OF_SOME,
    OPTION_COSTS,
    SEPARATE,
    describe_coverage,
    list_notices,
    write_summary,
    write_verdict,
)
from backtest.compare.pairs import LEAST_SAMPLES, show_accounts, show_gaps

MEASURED = (
    "cagr", "volatility", "sharpe", "max_drawdown", "es_95", "mean_leverage", "liquidations",
    "fees_annual", "funding_annual",
)  # fmt: skip
WHOLE_HEADS = {
    "total_return": Head("growth", style="percent"),
    "max_drawdown": Head("drawdown", style="percent"),
    "total_return_quote": Head("growth", "quote currency", "percent"),
    "max_drawdown_quote": Head("drawdown", "quote currency", "percent"),
    "options_cost_annual": Head("options", "cost a year", "percent"),
    "options_spread_annual": Head("spread", "in it", "percent"),
    "ruined": Head("ruined", style="claim"),
}


class Comparison(ComparisonRecord, SavedResult):
    """Several policies on the same market and terms.

    Attributes
    ----------
    table : DataFrame
        One row per policy: ``log_growth`` per year (-inf after ruin), all measures of a run, and
        ``liquidation_loss_annual``; at equal risk also ``scale`` and ``unscaled_volatility``.
    pairs : DataFrame
        One row per measure and pair: ``policy``, ``against``, ``measure`` (log_growth, sharpe,
        volatility, es_95), ``difference`` of the first less the second, ``low`` and ``high`` of its
        interval, ``p_value``, ``p_holm`` (corrected over the pairs of the measure),
        ``distinguishable``, and its ``basis``: ``test``; ``alike`` (almost equal returns);
        ``ruin`` (decided without a test); ``too few returns``; ``undefined``.
    returns : DataFrame
        Simple returns per sampling period, one column per policy.
    risk_free : Series
        The risk-free return of the same periods.
    manifest : mapping
        Data, venue, account, policies, settings and versions.
    results : mapping of str to Result, or None
        The results of the policies, scaled at equal risk; None in a loaded comparison.
    """

    kind = "comparison"
    call = "bt.compare"
    table_names = ("table", "pairs", "returns")

    def spa(self, measure: str = "log_growth", baseline: str | None = None) -> SuperiorityTest:
        """Test whether any policy is better than the baseline, given how many were tried.

        Parameters
        ----------
        measure : str
            ``"log_growth"``, or ``"sharpe"`` (to first order, by the influence of each return).
        baseline : str, optional
            The baseline of the comparison by default.

        Raises
        ------
        ParameterError
            If an argument is not allowed, or there are fewer than 30 returns.

        Notes
        -----
        Hansen (2005); see :func:`backtest.measures.differences.find_superiority`.
        """
        return run_superiority_test(self, measure, baseline)

    def confidence_set(self, measure: str = "log_growth") -> ConfidenceSet:
        """Return the policies that may be the best; all others are worse than one of them.

        Parameters
        ----------
        measure : str
            ``"log_growth"``, or ``"sharpe"`` (to first order, by the influence of each return).

        Raises
        ------
        ParameterError
            If the measure is not one of these, or there are fewer than 30 returns.

        Notes
        -----
        Hansen, Lunde and Nason (2011); see
        :func:`backtest.measures.differences.find_confidence_set`.
        """
        return build_confidence_set(self, measure)

    def summary(self) -> str:
        """Return the tables and conclusions as text of 100 columns."""
        return write_summary(self)

    def __repr__(self) -> str:
        data = self.manifest["data"]
        risk = " at equal risk" if self.is_equal_risk else ""
        return f"<Comparison of {', '.join(self.names)}{risk} on {data['source']}>"

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as data for JSON, with the joint tests if there are 30 returns."""
        has_tests = len(self.returns) >= LEAST_SAMPLES
        data: dict[str, Any] = to_plain(
            {
                "comparison": self.manifest,
                "table": self.table.reset_index().to_dict("records"),
                "differences": self.differences.to_dict("records"),
                "pairs": self.pairs.to_dict("records"),
                "order": list(self.order),
                "spa": self.spa()._asdict() if has_tests else None,
                "confidence_set": self.confidence_set()._asdict() if has_tests else None,
            }
        )
        return data

    # ------------------------------------------------------------------------------------- files

    @property
    def folder_title(self) -> str:
        """What the name of the folder begins with."""
        return "compare"

    @property
    def policy_name(self) -> str:
        """All policies."""
        return ", ".join(self.names)

    @property
    def title(self) -> str:
        """The baseline, and what is compared with it."""
        others = ", ".join(name for name in self.names if name != self.baseline)
        return f"{self.baseline} against {others}"

    @property
    def note(self) -> str:
        """The number of policies."""
        return f"{len(self.names)} policies"

    @property
    def heading(self) -> str:
        """The title of the page."""
        return clip(self.title, 200)

    @property
    def verdict(self) -> str:
        """Which differences from the baseline are more than noise, in a sentence or two."""
        return write_verdict(self)

    @property
    def notices(self) -> tuple[str, ...]:
        """Ruin, what is not compared, and how the accounts differ."""
        return tuple(list_notices(self))

    def list_numbers(self) -> list[Headline]:
        """Return the CAGR and the Sharpe ratio of each account, the highest growth first."""
        rows = self.table[["cagr", "sharpe"]].to_dict("index")
        return [
            Headline(f"cagr {name}", clip(name, 60), rows[name]["cagr"], "percent",
                     f"per year; Sharpe {format_number(rows[name]['sharpe'])}", "more")
            for name in self.order[:8]
        ]  # fmt: skip

    def list_parts(self) -> list[Part]:
        """Return the accounts, and their differences from the baseline."""
        others = [name for name in self.names if name != self.baseline]
        units = (1.0 + self.returns[[self.baseline, *others]]).cumprod()
        names = tuple(name for name in MEASURED if name in self.table)
        lead = f"Each account less {self.baseline}; intervals hold {self.confidence:.0%}."
        gaps = [each for name in MEASURES for each in self._show_gaps(name)]
        return [
            Part("accounts", "The accounts", "One unit of money in each, over the same time.", (
                show_accounts(units),
                ShownTable(self.table.loc[list(self.order)], "Measures", columns=names,
                           labels=Head("policy"),
                           note="The highest log growth first, ruined accounts last."),
                *self._show_whole(),
            )),
            *self._show_markets(),
            Part("differences", "What differs by more than noise", lead, tuple(gaps)),
        ]  # fmt: skip

    def _show_whole(self) -> Iterator[ShownTable]:
        """Yield growth and deepest fall in coins and in money, and the cost of options."""
        if any(name in self.table for name in OF_SOME):
            names = tuple(name for name in WHOLE_HEADS if name in self.table)
            yield ShownTable(self.table.loc[list(self.order)], "Over the run", OPTION_COSTS,
                             labels=Head("policy"), heads=WHOLE_HEADS, columns=names)  # fmt: skip

    def _show_markets(self) -> Iterator[Part]:
        if self.markets:
            columns = tuple(f"{name} {of}" for name in OF_EACH for of in self.markets)
            lead = f"{capitalize(SEPARATE.format(len(self.markets)))}."
            table = ShownTable(self.table.loc[list(self.order)], "By market", columns=columns,
                               labels=Head("policy"))  # fmt: skip
            yield Part("markets", "In each market", lead, (table,))

    def _show_gaps(self, measure: str) -> tuple[Shown, Shown]:
        rows = self.differences[self.differences["measure"] == measure].set_index("policy")
        style = "signed" if measure == "sharpe" else "growth"
        title = f"Difference of {MEASURES[measure]}"
        return show_gaps(f"difference-{measure}", title, rows, style)

    def list_assumptions(self) -> tuple[str, ...]:
        """Return how the intervals were computed."""
        return (
            f"Intervals: stationary bootstrap of {self.draws:,} histories, seed {self.seed}; all "
            "accounts are drawn together. Decisions allow for the number of comparisons of a "
            f"measure (Holm). {capitalize(describe_coverage(self))}.",
        )

    def list_measures(self) -> Mapping[str, float]:
        """Return the measures of the policy with the highest log growth."""
        best: Any = self.table.loc[self.order[0]]
        return dict(best)

    def list_policies(self) -> Iterable[type]:
        """Return the classes of the policies; none of loaded results."""
        for result in (self.results or {}).values():
            yield from (type(each) for each in result.policies.values())

    def _lay_out(self) -> dict[str, pd.DataFrame]:
        returns = self.returns.set_axis(range(len(self.names)), axis=1)
        numbered = {str(name): returns[name] for name in returns}
        columns = {"time": returns.index, "risk_free": self.risk_free, **numbered}
        return {
            "table": self.table.reset_index(),
            "pairs": self.pairs,
            "returns": pd.DataFrame(columns),
        }

    @classmethod
    def _read_back(
        cls,
        manifest: dict[str, Any],
        tables: Mapping[str, pd.DataFrame],
        folder: Path,  # noqa: ARG003
    ) -> Self:
        table, returns = tables["table"].set_index("policy"), tables["returns"].set_index("time")
        free = returns.pop("risk_free")
        named = returns.set_axis(table.index.rename(None), axis=1)
        return cls(table, tables["pairs"], named, free, manifest)
