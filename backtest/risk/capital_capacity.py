"""capacity(): growth and Sharpe ratio of a policy by capital."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import pandas as pd

from backtest import core, engine
from backtest.account.money import FILL_COSTS
from backtest.core import Progress
from backtest.core.number_text import Head
from backtest.core.result_parts import Headline, Part, ShownChart, ShownTable
from backtest.engine import AnyPolicy, Compile, Conditions, plain
from backtest.engine.run import run
from backtest.market import as_markets
from backtest.results import Result, find_cost_rates
from backtest.results.settings_result import SettingsResult
from backtest.risk.liquidations import describe_terms
from backtest.risk.shown_growth import choose_shown_growth, count_account_days, describe_start

MONEY = core.Real(0, open_low=True)
TOLERANCE = 0.01
"""Relative error of the capitals at which a measure is half."""
HALVED = {"growth": "growth", "sharpe": "the Sharpe ratio"}


@dataclass(frozen=True, eq=False, repr=False)
class Capacity(SettingsResult):
    """Growth and Sharpe ratio of a policy at different capitals.

    Attributes
    ----------
    table : DataFrame
        By ``capital``: ``growth`` per year and ``sharpe``; ``mean_leverage``, which falls where
        orders are cut by participation or by the venue's largest notional; ``impact`` and
        ``costs`` (fees, slippage and impact), per year of the mean equity; ``final_equity`` as a
        multiple of the capital; ``ruined``, 1 where the account was.
    half_growth, half_sharpe : float
        The capital at which the growth, or the Sharpe ratio, is half of that at the smallest
        capital; NaN if it is not halved at the largest, or is not over 0 at the smallest.
    days : float
        How long the accounts ran.
    """

    table: pd.DataFrame
    half_growth: float
    half_sharpe: float
    days: float

    kind = "capacity"
    is_yearly = True
    details = "One run for each capital; only the costs of size and the limits on it differ."

    @property
    def note(self) -> str:
        return f"growth halves at {core.format_round_money(self.half_growth)}"

    @property
    def verdict(self) -> str:
        clauses = [self._describe_half(name, words) for name, words in HALVED.items()]
        return f"{core.capitalize('; '.join(clauses))}."

    def _describe_half(self, name: str, words: str) -> str:
        """Return at which capital a measure is half of the first, or why at none."""
        capital = getattr(self, f"half_{name}")
        if not math.isnan(capital):
            return f"{words} halves at {core.format_round_money(capital)}"
        first = self.table.iloc[0]
        if first["ruined"] or not first[name] > 0.0:
            return f"{words} is not above 0 at the smallest capital, so it has no half"
        return f"{words} is not halved at any capital tried"

    def list_numbers(self) -> list[Headline]:
        first = self.table.iloc[0]
        capital = core.format_round_money(float(self.table.index[0]))
        shown = choose_shown_growth(self.days)
        name = "total_return"
        if shown.is_yearly:
            name = "growth"
        return [
            Headline("half_growth", "growth halves at", self.half_growth, "round money"),
            Headline("half_sharpe", "Sharpe ratio halves at", self.half_sharpe, "round money"),
            Headline(
                name,
                "growth",
                shown.compound(float(first["growth"])),
                "percent",
                f"{shown.when}, at {capital}",
            ),
            Headline("sharpe", "Sharpe ratio", float(first["sharpe"]), "decimals", f"at {capital}"),
        ]

    def list_parts(self) -> list[Part]:
        of_equity = "of equity per year"
        shown = choose_shown_growth(self.days)
        table = self.table.assign(growth=shown.compound(self.table["growth"]))
        heads = {
            "growth": Head("growth", shown.when, "percent"),
            "impact": Head("impact", of_equity, "percent"),
            "costs": Head("costs", of_equity, "percent"),
            "final_equity": Head("final equity", "of the capital", "multiple"),
        }

        growth = ShownChart(
            key="capacity-growth",
            title="Growth",
            caption=f"Growth {shown.when}.",
            table=table["growth"],
            kind="points",
            x="money",
            percent="y",
            log="x",
            marks=(self.half_growth,),
        )

        sharpe = ShownChart(
            key="capacity-sharpe",
            title="Sharpe ratio",
            caption="",
            table=self.table["sharpe"],
            kind="points",
            x="money",
            log="x",
            marks=(self.half_sharpe,),
        )
        capitals = ShownTable(table, labels=Head("capital", "money", "count"), heads=heads)
        lead = ""
        if not (math.isnan(self.half_growth) and math.isnan(self.half_sharpe)):
            lead = "A dotted line marks the capital at which a measure is half of the first."
        return [
            Part(
                key="capitals",
                title="By capital",
                lead=lead,
                blocks=(growth, sharpe, capitals),
                shows="both",
            )
        ]


@core.record_making
@core.checked_only("progress", "capitals")
def capacity(
    conditions: Conditions,
    policy: AnyPolicy,
    *,
    capitals: Sequence[float] | None = None,
    compile: Compile = True,  # noqa: A002 - the word of bt.run
    progress: Progress | None = None,
    run_account: Callable[[Conditions], Result] | None = None,
) -> Capacity:
    """Answer :meth:`backtest.Backtest.capacity`, which documents it.

    ``run_account`` runs the account under changed conditions: that of the policy, unless given.
    """
    if run_account is None:
        run_account = functools.partial(run, policy=policy, compile=compile)
    test = plain(conditions)
    account = test.account
    check_size_matters(test)
    if capitals is None:
        capitals = [float(account.capital) * 10.0 ** (k / 2) for k in range(15)]
    grid = [MONEY.check("capital", capital) for capital in capitals]
    if len(grid) < 2 or any(larger <= smaller for smaller, larger in pairwise(grid)):
        raise core.ParameterError(
            f"capitals must be two or more increasing numbers, got {core.repr_plain(capitals):.60}"
        )

    @functools.cache
    def measure(capital: float) -> dict[str, float]:
        with engine.warn_once(is_first=capital == grid[0]):
            sized = test.replace(account=account.override({"capital": capital}))
            result = run_account(sized)
        metrics = result.metrics
        rates = find_cost_rates(result.tally, result.span)
        return {
            "growth": float(metrics["cagr"]),
            "sharpe": float(metrics["sharpe"]),
            "mean_leverage": float(metrics["mean_leverage"]),
            "impact": rates["impact"],
            "costs": sum(rates[name] for name in FILL_COSTS),
            "final_equity": float(metrics["final_equity"]) / capital,
            "ruined": float(metrics["ruined"]),
        }

    for k, capital in enumerate(grid):
        measure(capital)
        core.report_progress(progress, k + 1, len(grid))
    rows = map(measure, grid)
    return Capacity(
        table=pd.DataFrame(rows, index=pd.Index(grid, name="capital")),
        half_growth=find_half("growth", grid, measure),
        half_sharpe=find_half("sharpe", grid, measure),
        days=count_account_days(test),
        settings=describe_terms(policy, test) | describe_start(test),
        market=test.market,
    )


def check_size_matters(test: Conditions) -> None:
    """Refuse an account with flows, and venues where the size of an account has no effect."""
    if test.account.flows is not None:
        raise core.ParameterError("account.flows must be left out: the capital varies")
    for venue in engine.read_venues(test.venue, as_markets(test.market)).values():
        if venue.slippage.impact > 0.0 or venue.slippage.max_participation is not None:
            return
    raise core.ParameterError(
        "the size of an account costs nothing here: give the venue slippage.impact or "
        "slippage.max_participation"
    )


def find_half(
    name: str,
    grid: Sequence[float],
    measure: Callable[[float], Mapping[str, float]],
) -> float:
    """Return the first capital at which a measure is half of that at the smallest; NaN if none."""
    first = measure(grid[0])
    half = 0.5 * first[name]
    if first.get("ruined") or not half > 0.0:
        return math.nan

    # What the grid measured is not measured again: exp(log(x)) may differ from x in its last bit.
    measured = {math.log(capital): capital for capital in grid}

    def find_gap(log: float) -> float:
        row = measure(measured.get(log, math.exp(log)))
        if row.get("ruined"):
            return -half
        return row[name] - half

    for smaller, larger in pairwise(grid):
        low = math.log(smaller)
        high = math.log(larger)
        if not find_gap(high) > 0.0:
            root = core.sp.optimize.brentq(find_gap, low, high, xtol=0.5 * TOLERANCE)
            return math.exp(root)
    return math.nan
