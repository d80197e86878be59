"""Crowding: measures of a policy by the share of the open interest that runs it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from backtest.base import Head, Headline, Part, ShownChart, ShownTable, checked, format_percent
from backtest.crowd.crowd_record import CrowdRecord, build_crowd_manifest

if TYPE_CHECKING:
    from backtest.engine import Result

KEPT = ("policy", "venue", "account", "signal", "sampling", "calendar")


class Crowding(CrowdRecord):
    """The outcome of :func:`backtest.crowding`.

    Attributes
    ----------
    table : DataFrame
        A row per share: ``growth`` (log growth per year, -inf after ruin),
        ``liquidation_probability`` within the horizon, ``cagr``, ``volatility``, ``sharpe``,
        ``max_drawdown``, ``liquidations``, ``largest_move`` (the largest fall or rise that the
        crowd made, a fraction), the ``reproduction`` number, whether the market ``clears``, and the
        ``rounds`` that it took.
    critical_share : float
        The share at which the reproduction number is 1; infinite if the crowd does
        not sell after falls.
    results : mapping of float to Result, or None
        The run at each share; None in a loaded one.
    manifest : mapping
        Data, policy, venue, account, arguments, versions and numbers.
    """

    kind = "crowding"
    plural = "crowding"
    table_names = ("table",)

    @checked
    def __init__(
        self,
        tables: Mapping[str, pd.DataFrame],
        manifest: Mapping[str, Any],
        results: Mapping[float, Result] | None = None,
    ) -> None:
        super().__init__(tables, manifest)
        self.results = None if results is None else dict(results)

    @property
    def table(self) -> pd.DataFrame:
        """The measures, one row per share."""
        return self.tables["table"].set_index("share")

    @property
    def critical_share(self) -> float:
        """The share of the open interest at which the reproduction number is 1."""
        return float(self.outcome["critical_share"])

    @property
    def title(self) -> str:
        """The policy that the crowd runs."""
        return f"{self.manifest['policy']['name']} in a crowd"

    @property
    def note(self) -> str:
        """How many shares were tried."""
        return f"{len(self.manifest['arguments']['shares'])} shares"

    @property
    def verdict(self) -> str:
        """The share at which the crowd becomes unstable."""
        return describe_critical_share(self.critical_share)

    def list_numbers(self) -> list[Headline]:
        """Return the growth at the first share, and the critical share."""
        critical = "none" if math.isinf(self.critical_share) else ""
        return [
            Headline("growth", "growth alone", float(self.table["growth"].iloc[0]), "percent",
                     "log growth per year at the first share", "more"),
            Headline("critical_share", "critical share", self.critical_share, "percent",
                     "of open interest", "more", critical),
        ]  # fmt: skip

    def list_parts(self) -> list[Part]:
        """Return the measures by share."""
        heads = {
            "growth": Head("growth", "log, per year"),
            "liquidation_probability": Head("liquidation", "probability", "percent"),
            "largest_move": Head("largest move", "", "percent"),
            "reproduction": Head("R", "", "decimals"), "clears": Head("clears", "", "claim"),
        }  # fmt: skip
        shown = ("growth", "liquidation_probability", "volatility", "max_drawdown",
                 "largest_move", "reproduction", "clears")  # fmt: skip
        left_out = ("Shares at which the market does not clear, or the account was ruined, are "
                    "left out.")  # fmt: skip
        return [
            Part("shares", "By share of the open interest", "What the policy earns as more of the "
                 "market runs it.", (
                ShownChart("growth", "Growth by share", left_out, self.table["growth"], "points",
                           x="share of open interest", y="log growth per year", height=280),
                ShownTable(self.table, "Measures by share", "R is the fall that the crowd's sales "
                           "make over the fall that caused them.", Head("share", "", "percent"),
                           heads, shown),
            ))
        ]  # fmt: skip

    def __repr__(self) -> str:
        return f"<Crowding of {self.manifest['policy']['text']}, {len(self.table)} shares>"

    def summary(self) -> str:
        """Return the measures by share as text."""
        head = f"{'share':>8}{'growth':>10}{'P(liq.)':>10}{'volatility':>12}{'R':>8}  clears"
        lines = [f"{self.manifest['policy']['text']} in a crowd", head]
        for share, row in self.table.iterrows():
            odds = row["liquidation_probability"]
            lines.append(
                f"{format_percent(float(str(share)), 1):>8}{row['growth']:>10.3f}"
                f"{'n/a' if math.isnan(odds) else format_percent(odds, 0):>10}"
                f"{row['volatility']:>12.3f}{row['reproduction']:>8.2f}  "
                f"{'yes' if row['clears'] else 'no'}"
            )
        return "\n".join([*lines, describe_critical_share(self.critical_share)])


def describe_critical_share(share: float) -> str:
    if math.isinf(share):
        return "The crowd does not sell after falls: it is stable at any share."
    more = "" if share <= 1.0 else ", more than all of it"
    return f"The reproduction number reaches 1 at {format_percent(share)} of open interest{more}."


def build_crowding_manifest(
    base: Result, outcome: Mapping[str, Any], arguments: Mapping[str, Any]
) -> dict[str, Any]:
    shared = {name: base.manifest[name] for name in KEPT}
    parts = {**shared, "arguments": dict(arguments), "outcome": dict(outcome)}
    return build_crowd_manifest("crowding", base.manifest["data"], parts)
