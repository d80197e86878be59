"""The result of an allocation: totals, subaccounts, and transfers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from backtest.base import (
    FloatArray,
    Head,
    Headline,
    Part,
    SettingsResult,
    ShownChart,
    ShownTable,
    format_percent,
    format_table,
)
from backtest.engine import Result, describe_history, sample_risk_free
from backtest.market import Market, Markets
from backtest.measures import compound_growth, max_drawdown, ratio

WHOLE = "whole"
COLUMNS = ("share", "capital", "transfers", "final_equity", "growth", "volatility", "sharpe",
           "max_drawdown", "liquidations", "ruin_days")  # fmt: skip


@dataclass(frozen=True, eq=False)
class SubaccountsResult(SettingsResult):
    """The result of an allocation.

    Attributes
    ----------
    table : DataFrame
        A row per subaccount and one of the ``whole``: ``share`` and ``capital`` at the start;
        ``transfers``, what it got less what it gave; ``final_equity``; ``growth`` and
        ``volatility`` per year and ``sharpe``, without transfers; ``max_drawdown``;
        ``liquidations``; ``ruin_days`` from the start to ruin, NaN without.
    equity : DataFrame
        By the open of each bar: the equity at its close of the ``whole`` and of each subaccount.
    transfers : DataFrame
        By the open at which they are made: what each subaccount gets; each row adds up to 0.
    settings : dict
        What the numbers come from.
    results : dict of str to Result
        The run of each subaccount, with its transfers as flows; None if loaded from files.
    history : Market or Markets, optional
        The market of the first subaccount that has one; None if loaded from files.
    """

    table: pd.DataFrame
    equity: pd.DataFrame
    transfers: pd.DataFrame
    settings: dict[str, Any]
    results: Mapping[str, Result] | None = None
    history: Market | Markets | None = None

    kind = "allocation"
    call = "bt.Subaccounts.run"
    table_names = ("table", "equity", "transfers")
    long_tables = ("equity",)

    def describe_data(self) -> Mapping[str, Any]:
        """Return the data of the first subaccount with one position."""
        return describe_history(self.history)

    @property
    def note(self) -> str:
        """Growth per year of all subaccounts together."""
        return f"growth {format_percent(float(self.table['growth'].loc[WHOLE]))} a year"

    @property
    def heading(self) -> str:
        """The title of the page: the subaccounts with their shares."""
        shares = self.table["share"].drop(WHOLE)
        return f"Allocation: {', '.join(f'{name} {100 * x:g} %' for name, x in shares.items())}"

    @property
    def ruined(self) -> list[str]:
        """The subaccounts that were ruined."""
        days = self.table["ruin_days"].drop(WHOLE)
        return list(map(str, days.index[days.notna()]))

    @property
    def verdict(self) -> str:
        """What the whole earned, and which subaccounts were ruined."""
        whole: Any = self.table.loc[WHOLE]
        lost = f"Ruined: {', '.join(self.ruined)}." if self.ruined else "No subaccount was ruined."
        return (
            f"{whole['capital']:,.2f} became {whole['final_equity']:,.2f}, a growth of "
            f"{format_percent(float(whole['growth']))} per year. {lost}"
        )

    @property
    def details(self) -> str:
        """When and how transfers are made."""
        return f"Transfers {self.settings['transfer']}, every {self.settings['rebalance']}."

    def list_numbers(self) -> list[Headline]:
        """Return the measures of the whole, and the subaccounts ruined."""
        whole: Any = self.table.loc[WHOLE]
        n = len(self.ruined)
        return [
            Headline(
                "final_equity",
                "final equity",
                float(whole["final_equity"]),
                "money",
                "of the whole",
                "more",
            ),
            Headline("growth", "growth", float(whole["growth"]), "percent", "per year", "more"),
            Headline(
                "max_drawdown",
                "deepest fall",
                float(whole["max_drawdown"]),
                "percent",
                "of the whole",
                "less",
            ),
            Headline(
                "ruined",
                "subaccounts ruined",
                n,
                better="less",
                text=f"{n} of {len(self.table) - 1}",
            ),
        ]

    def list_parts(self) -> list[Part]:
        """Return the subaccounts, and the transfers between them."""
        heads = {str(name): Head(str(name), "", "signed money") for name in self.transfers}
        return [
            Part("subaccounts", "By subaccount", "Growth is without transfers.", (
                ShownChart("equity", "Equity", "Of the whole and of each subaccount, at closes.",
                           self.equity[[*self.equity.columns[1:], WHOLE]], has_legend=True,
                           height=340),
                ShownTable(self.table, labels=Head("subaccount")), self.settings["policy"],
            )),
            Part("transfers", "Transfers", "Each date adds up to 0.",
                 (ShownTable(self.transfers, "What each subaccount got, in money",
                             labels=Head("open", "UTC"), heads=heads),)),
        ]  # fmt: skip

    def __repr__(self) -> str:
        final = float(self.table["final_equity"].loc[WHOLE])
        return f"<SubaccountsResult: {len(self.table) - 1} subaccounts, equity {final:.2f}>"

    def summary(self) -> str:
        """Return the tables as text for a terminal."""
        rule = f"{self.settings['transfer']} every {self.settings['rebalance']}"
        lines = [self.settings["policy"], f"transfers: {rule}", "", format_table(self.table)]
        if len(self.transfers):
            total = self.transfers.clip(lower=0.0).to_numpy().sum()
            lines += ["", f"{len(self.transfers)} dates, {total:,.2f} moved"]
        return "\n".join(lines)


def build_result(
    results: Mapping[str, Result],
    ledger: pd.DataFrame,
    shares: FloatArray,
    capital: float,
    settings: dict[str, Any],
    history: Market | Markets | None,
) -> SubaccountsResult:
    equity = pd.DataFrame({name: each.bars["equity"] for name, each in results.items()})
    equity.insert(0, WHOLE, equity.sum(axis=1))
    rows = {name: measure_subaccount(each, float(ledger[name].sum()))
            for name, each in results.items()}  # fmt: skip
    rows[WHOLE] = measure_whole(results, equity[WHOLE].to_numpy(), capital)
    table = pd.DataFrame(rows).T
    table["share"] = [*shares, 1.0]
    table["capital"] = table["share"] * capital
    table = table[list(COLUMNS)].rename_axis("pocket")
    return SubaccountsResult(table, equity, ledger, settings, dict(results), history)


def measure_subaccount(result: Result, transfers: float) -> dict[str, float]:
    metrics = result.metrics
    return {
        "transfers": transfers,
        "final_equity": metrics["final_equity"],
        "growth": metrics["cagr"],
        "volatility": metrics["volatility"],
        "sharpe": metrics["sharpe"],
        "max_drawdown": metrics["max_drawdown"],
        "liquidations": metrics["liquidations"],
        "ruin_days": metrics["ruin_time"],
    }


def measure_whole(
    results: Mapping[str, Result], equity: FloatArray, capital: float
) -> dict[str, float]:
    first = next(iter(results.values()))
    sampled = np.concatenate([[capital], equity[first.ends_sample != 0.0]])
    with np.errstate(divide="ignore", invalid="ignore"):
        returns = np.where(sampled[:-1] > 0.0, np.diff(sampled) / sampled[:-1], 0.0)
    excess = returns - sample_risk_free(first)
    periods, has_spread = first.span.periods, len(returns) > 1
    spread = returns.std(ddof=1) if has_spread else np.nan
    deviation = float(excess.std(ddof=1)) if has_spread else 0.0
    path = np.concatenate([[capital], equity])
    ruined = [each.metrics["ruin_time"] for each in results.values()]
    return {
        "transfers": 0.0,
        "final_equity": float(equity[-1]),
        "growth": compound_growth(float(equity[-1]) / capital, first.span.years),
        "volatility": float(spread * np.sqrt(periods)),
        "sharpe": ratio(float(excess.mean()), deviation, periods),
        "max_drawdown": max_drawdown(path),
        "liquidations": sum(each.metrics["liquidations"] for each in results.values()),
        "ruin_days": max(ruined) if not np.isnan(ruined).any() else np.nan,
    }
