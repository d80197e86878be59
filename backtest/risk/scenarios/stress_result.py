"""Stress: what scenarios do to an account."""

from __future__ import annotations

import math
import textwrap
from dataclasses import dataclass
from typing import Any

import pandas as pd

from backtest.base import (
    Head,
    Headline,
    Part,
    SettingsResult,
    ShownChart,
    ShownTable,
    capitalize,
    choose_decimals,
)
from backtest.market import Market, Markets

MOST_SHOCKS = 60
"""A ladder of more shocks is not shown as text."""


@dataclass(frozen=True, eq=False)
class Stress(SettingsResult):
    """Outcome of scenarios.

    Attributes
    ----------
    table : DataFrame
        A row per scenario: ``equity`` (wealth after it), ``loss``, ``liquidated``, ``distance``
        (the smallest of the mark from the liquidation price, a fraction; 0 once liquidated),
        ``margin_calls``, ``fees``, ``slippage``, ``impact``, ``funding``, ``lost_to_adl``,
        ``lost_to_default``, ``break_even`` (the move of the price, all else as in the scenario, at
        which the account is liquidated; NaN if none does), ``bars``, ``from``: ``figures``,
        ``data`` or ``history``, and ``rules``: whose margin table.
    ladder : DataFrame or None
        ``equity``, ``loss`` and ``liquidated`` for every combination of the axes of the ladder.
    settings : dict
        What the numbers come from.
    market : Market, Markets or None
        The market, or the markets, of the run; None if loaded.
    """

    table: pd.DataFrame
    ladder: pd.DataFrame | None
    settings: dict[str, Any]
    market: Market | Markets | None = None

    kind = "stress"
    plural = "stress tests"
    called = "stress test"
    table_names = ("table", "ladder")

    @property
    def lost(self) -> str:
        """When the account was ruined in the run, as words; empty if it was not."""
        return str(self.settings.get("lost", ""))

    @property
    def leads(self) -> str:
        """Whose moves the break-evens are, as words; empty with one market."""
        leads: dict[str, str] = self.settings.get("leads", {})
        names = [*dict.fromkeys(leads.values())]
        if not names:
            return ""
        told = names[0] if len(names) == 1 else ", ".join(f"{v} in {k}" for k, v in leads.items())
        return f"break-even: the move of {told}; the others move as the scenario says"

    @property
    def calm(self) -> str:
        """Scenarios too calm for the policies' estimates of volatility, as a sentence, or empty."""
        names = self.settings.get("calm", [])
        if not names:
            return ""
        return (
            f"{', '.join(names)}: made of figures, the bars move less than those of the last 30 "
            "days. A policy that measures volatility takes more leverage there than in the event."
        )

    @property
    def note(self) -> str:
        """How many scenarios liquidate, or that the account was lost before them."""
        if self.lost:
            return "account lost before"
        return f"{int(self.table['liquidated'].sum())} of {len(self.table)} liquidate"

    @property
    def verdict(self) -> str:
        """How many scenarios liquidate, and the worst of them; of a lost account, that it is."""
        if self.lost:
            return f"{capitalize(describe_lost(self.lost))}."
        worst: Any = self.table["loss"].idxmax()
        dead, total = int(self.table["liquidated"].sum()), len(self.table)
        return (
            f"{dead} of {total} scenarios liquidate the account. The worst, {worst}, loses "
            f"{self.table['loss'].loc[worst]:,.2f}."
        )

    def list_numbers(self) -> list[Headline]:
        """Return how many scenarios liquidate, and the largest loss."""
        if self.lost:
            return []
        dead, total = int(self.table["liquidated"].sum()), len(self.table)
        return [
            Headline(
                "liquidating",
                "scenarios that liquidate",
                dead,
                better="less",
                text=f"{dead} of {total}",
            ),
            Headline(
                "worst_loss",
                "largest loss",
                float(self.table["loss"].max()),
                "money",
                str(self.table["loss"].idxmax()),
                "less",
            ),
        ]

    def list_parts(self) -> list[Part]:
        """Return the scenarios, the ladder, and the sources."""
        heads = {
            **{name: Head(name, "money", "money")
               for name in ("loss", "fees", "slippage", "impact", "funding")},
            "distance": Head("distance of the liquidation", "", "percent"),
            "lost_to_adl": Head("lost to deleveraging", "money", "money"),
            "lost_to_default": Head("lost to default", "money", "money"),
            "margin_calls": Head("margin calls", "", "count"),
            "break_even": Head("break-even move", "", "percent"),
            "bars": Head("bars", "", "count"), "from": Head("bars from"),
            "rules": Head("margin table of"),
        }  # fmt: skip
        front = ["equity", "loss", "liquidated", "break_even", "distance"]
        shown = self.table[[*front, *self.table.columns.difference(front, sort=False)]]
        leads = f"{capitalize(self.leads)}." if self.leads else ""
        sources = (f"{each['name']}: {each['source']}." for each in self.settings["scenarios"]
                   if each.get("source"))  # fmt: skip
        return [
            Part("scenarios", "Scenarios", "From the last close of the run on.", (
                ShownTable(shown, "Scenarios", labels=Head("scenario"), heads=heads), leads,
                self.calm, draw_ladder(self.ladder),
            )),
            Part("sources", "Sources", "Where the figures of scenarios come from.",
                 tuple(sources) or ("The scenarios are the user's.",)),
        ]  # fmt: skip

    def list_assumptions(self) -> tuple[str, ...]:
        """Return how scenarios are made."""
        return (
            "Policies go on deciding at the closes of a scenario, with the last signal. Bars are "
            "replayed from data or from history where the row says so, and are made of the figures "
            "otherwise.",
        )

    def __repr__(self) -> str:
        return f"<Stress of {len(self.table)} scenarios: {self.note}>"

    def summary(self) -> str:
        """Return the table as text for a terminal; of a lost account, that it is lost."""
        if self.lost:
            return textwrap.fill(f"{capitalize(describe_lost(self.lost))}.", 80)
        before = float(self.table["equity"].iloc[0] + self.table["loss"].iloc[0])
        places = choose_decimals(before)
        lines = [
            f"The account is worth {before:,.{places}f} at the last close of the run.",
            f"{'scenario':<22}{'equity':>14}{'loss':>14}  {'liquidated':<11}break-even",
        ]
        for name, row in self.table.iterrows():
            even = "none" if math.isnan(row["break_even"]) else f"{100 * row['break_even']:.2f} %"
            dead = "yes" if row["liquidated"] else "no"
            lines.append(
                f"{str(name)[:21]:<22}{row['equity']:>14,.{places}f}{row['loss']:>14,.{places}f}"
                f"  {dead:<11}{even}"
            )
        notes = [self.leads, textwrap.fill(self.calm, 80)]
        return "\n".join([*lines, *filter(None, notes), *list_losses(self.ladder, places)])


def list_losses(ladder: pd.DataFrame | None, places: int) -> list[str]:
    if ladder is None:
        return []
    if len(ladder) > MOST_SHOCKS or ladder.index.nlevels > 2:
        return ["", f"ladder of {len(ladder):,} shocks: in the report, and in .ladder"]
    loss = ladder["loss"]
    table = loss.to_frame() if ladder.index.nlevels == 1 else loss.unstack()
    text = table.to_string(float_format=lambda x: f"{x:,.{places}f}")
    return ["", "loss by the ladder", *text.splitlines()]


def draw_ladder(ladder: pd.DataFrame | None) -> ShownChart:
    names = [] if ladder is None else [str(name) for name in ladder.index.names[:2]]
    caption = f"Loss of one-bar shocks, by {' and '.join(names)}."
    loss, kind = None if ladder is None else ladder["loss"], "heat" if len(names) > 1 else "line"
    return ShownChart("ladder", "Ladder", caption, loss, kind, {"loss": "loss"}, x="".join(names),
                      y="money" * (kind == "line"), height=340)  # fmt: skip


def describe_lost(lost: str) -> str:
    return f"the account was ruined in the run, at {lost}: no scenario can change it"
