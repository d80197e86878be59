"""capacity(): how growth and the Sharpe ratio fall as the capital grows, under impact."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from backtest.account import Account
from backtest.base import (
    Head,
    Headline,
    Number,
    ParameterError,
    Part,
    SettingsResult,
    ShownChart,
    ShownTable,
    capitalize,
    checked_only,
    format_round_money,
    format_table,
    repr_plain,
)
from backtest.engine import Progress, read_venues, run, warn_once
from backtest.market import Market, Markets, as_markets
from backtest.measures import find_cost_rates
from backtest.risk.liquidation_risk import describe_each, name_policies
from backtest.venue import Venue

FACTORS = tuple(10.0 ** (k / 2) for k in range(15))
HALVED = ("growth", "sharpe")
MONEY = Number(0, open_low=True)
TOLERANCE = Number(1e-6, 0.5)


@dataclass(frozen=True, eq=False)
class Capacity(SettingsResult):
    """Growth and Sharpe ratio of a policy at different capitals.

    Attributes
    ----------
    table : DataFrame
        By ``capital``: ``growth`` per year and ``sharpe``; ``mean_leverage``, which falls where
        orders are cut by participation or by the venue's largest notional; ``impact`` and
        ``costs`` (fees, slippage and impact), per year of the mean equity; ``volume_share``, the
        notional traded over that of the markets (NaN where one has no volumes);
        ``final_equity`` as a multiple of the capital; ``ruined``, 1 where the account was.
    half_growth, half_sharpe : float
        The capital at which the growth, or the Sharpe ratio, is half of that at the smallest
        capital; NaN if it is not halved at the largest, or is not over 0 at the smallest.
    settings : dict
        What the numbers come from.
    """

    table: pd.DataFrame
    half_growth: float
    half_sharpe: float
    settings: dict[str, Any]
    market: Market | Markets | None = None

    kind = "capacity"
    plural = "capacities"
    table_names = ("table",)
    numbers = ("half_growth", "half_sharpe")

    @property
    def note(self) -> str:
        """The capital at which growth is halved."""
        return f"growth halves at {format_round_money(self.half_growth)}"

    def __repr__(self) -> str:
        return f"<Capacity: growth halves at {format_round_money(self.half_growth)}>"

    @property
    def verdict(self) -> str:
        """The capitals at which growth and the Sharpe ratio are half."""
        return f"{capitalize('; '.join(self._describe_halves()))}."

    @property
    def details(self) -> str:
        """How the capitals were compared."""
        return "One run for each capital; only the costs of size and the limits on it differ."

    def list_numbers(self) -> list[Headline]:
        """Return the capitals at which measures halve, and the measures at the smallest."""
        first, base = self.table.iloc[0], format_round_money(float(self.table.index[0]))
        halves = "round money"
        return [
            Headline("half_growth", "growth halves at", self.half_growth, halves, better="more"),
            Headline(
                "half_sharpe", "Sharpe ratio halves at", self.half_sharpe, halves, better="more"
            ),
            Headline(
                "growth",
                "growth",
                float(first["growth"]),
                "percent",
                f"per year, at {base}",
                "more",
            ),
            Headline(
                "sharpe", "Sharpe ratio", float(first["sharpe"]), "decimals", f"at {base}", "more"
            ),
        ]

    def list_parts(self) -> list[Part]:
        """Return growth and Sharpe ratio by capital."""
        lead = "A dotted line marks the capital at which a measure is half of the first."
        heads = {"final_equity": Head("final equity", "multiple of the capital", "multiple")}
        return [
            Part("capitals", "By capital", lead, (
                ShownChart("capacity-growth", "Growth", "% a year.", 100.0 * self.table["growth"],
                           "points", x="capital", log="x", marks=(self.half_growth,)),
                ShownChart("capacity-sharpe", "Sharpe ratio", "", self.table["sharpe"], "points",
                           x="capital", log="x", marks=(self.half_sharpe,)),
                ShownTable(self.table, labels=Head("capital", "money", "count"), heads=heads),
            ))
        ]  # fmt: skip

    def _describe_halves(self) -> list[str]:
        return [
            describe_half(self.table, "growth", self.half_growth, "growth"),
            describe_half(self.table, "sharpe", self.half_sharpe, "the Sharpe ratio"),
        ]

    def summary(self) -> str:
        """Return the table as text for a terminal."""
        shown = self.table.copy()
        shown.index = pd.Index([f"{x:,.0f}" for x in shown.index], name="capital")
        halves = "\n".join(self._describe_halves())
        table = format_table(shown, final_equity="multiple")
        return f"{self.settings['policy']}\n\n{table}\n\n{halves}"


def describe_half(table: pd.DataFrame, name: str, capital: float, words: str) -> str:
    if not math.isnan(capital):
        return f"{words} halves at {format_round_money(capital)}"
    if "ruined" in table and table["ruined"].iloc[0]:
        return f"the account is ruined at the smallest capital, so {words} has no half"
    if not float(table[name].iloc[0]) > 0.0:
        return f"{words} is not above 0 at the smallest capital, so it has no half"
    return f"{words} is not halved at any capital tried"


@checked_only("progress", "market", "account")
def capacity(
    market: Market | Markets,
    policy: Any,
    *,
    venue: Any,
    account: Account,
    capitals: Sequence[float] | None = None,
    tolerance: float = 0.01,
    progress: Progress | None = None,
    **settings: Any,
) -> Capacity:
    """Return growth and Sharpe ratio by capital, and the capitals at which they are half.

    Parameters
    ----------
    market, policy, venue, account
        As in :func:`backtest.run`. The venue must have costs or limits that depend on size:
        ``Slippage(impact=...)`` or ``Slippage(max_participation=...)``.
    capitals : sequence of float, optional
        Increasing, in money; by default seven decades from the capital of the account, two to each.
    tolerance : float
        Relative error of the capitals at which growth and Sharpe ratio are half.
    progress : callable, optional
        Called with capitals done and capitals in all.
    **settings
        ``signal``, ``overlay``, ``sampling``, ``calendar``, ``start`` and ``compile`` of
        :func:`backtest.run`.

    Returns
    -------
    Capacity

    Raises
    ------
    ParameterError
        If an argument is not allowed, or nothing in the venue depends on size.

    Notes
    -----
    The impact of an order is that of the square-root law, ``Y sigma sqrt(notional / daily volume)``
    (docs/accounting.md), so that the costs of a policy per unit of equity grow with the root of its
    capital. What is half is compared with the smallest capital; the first crossing counts, found by
    bisection on the logarithm.
    """
    if account.flows is not None:
        raise ParameterError("account.flows must be left out: the capital varies")
    markets = as_markets(market)
    check_sizes(read_venues(venue, markets))
    TOLERANCE.check("tolerance", tolerance)
    grid = read_capitals(capitals, account)
    done: dict[float, dict[str, float]] = {}

    def measure(capital: float) -> dict[str, float]:
        if capital not in done:
            own = account.override({"capital": capital})
            with warn_once(is_first=not done):
                result = run(markets, policy, venue=venue, account=own, **settings)
            done[capital] = describe_run(result, markets, capital)
        return done[capital]

    for k, capital in enumerate(grid):
        measure(capital)
        if progress is not None:
            progress(k + 1, len(grid))
    halves = {name: find_half(name, grid, measure, tolerance) for name in HALVED}
    table = pd.DataFrame([done[capital] for capital in grid], index=pd.Index(grid, name="capital"))
    described = {
        "policy": name_policies(policy), "account": account.to_dict(),
        "venue": describe_each(venue, lambda each: each.to_dict()), "tolerance": tolerance,
    }  # fmt: skip
    return Capacity(table, halves["growth"], halves["sharpe"], described, market)


def check_sizes(venues: Mapping[str, Venue]) -> None:
    slips = [each.slippage for each in venues.values()]
    if not any(each.impact > 0.0 or each.max_participation is not None for each in slips):
        raise ParameterError(
            "capacity needs costs or limits that depend on size, slippage.impact is 0 and "
            "slippage.max_participation is None"
        )


def read_capitals(capitals: Sequence[float] | None, account: Account) -> list[float]:
    if capitals is None:
        return [float(account.capital) * factor for factor in FACTORS]
    is_list = isinstance(capitals, Sequence | np.ndarray) and not isinstance(capitals, str)
    found = [MONEY.check("capital", each) for each in capitals] if is_list else []
    if len(found) < 2 or any(b <= a for a, b in pairwise(found)):
        raise ParameterError(
            f"capitals must be two or more increasing numbers, got {repr_plain(capitals):.60}"
        )
    return found


def describe_run(result: Any, markets: Markets, capital: float) -> dict[str, float]:
    metrics = result.metrics
    rates = find_cost_rates(result.tally, result.span)
    return {
        "growth": float(metrics["cagr"]),
        "sharpe": float(metrics["sharpe"]),
        "mean_leverage": float(metrics["mean_leverage"]),
        "impact": rates["impact"],
        "costs": rates["fees"] + rates["slippage"] + rates["impact"],
        "volume_share": measure_volume_share(result, markets),
        "final_equity": float(metrics["final_equity"]) / capital,
        "ruined": float(metrics["ruined"]),
    }


def measure_volume_share(result: Any, markets: Markets) -> float:
    if not all(market.volume.any() for market in markets.values()):
        return math.nan
    total = 0.0
    for (name, market), listed in zip(markets.items(), markets.spans[:, 0], strict=True):
        rows = slice(max(result.span.first - int(listed), 0), None)
        contract = result.venues[name].contract
        price = market.close[rows]
        price = 1.0 / price if contract.kind == "inverse" else price
        total += float(np.sum(market.volume[rows] * price) * contract.size)
    return float(result.tally.money.traded) / total if total > 0.0 else math.nan


def find_half(
    name: str,
    grid: Sequence[float],
    measure: Callable[[float], Mapping[str, float]],
    tolerance: float,
) -> float:
    from scipy.optimize import brentq  # noqa: PLC0415 - slow to load

    first = measure(grid[0])
    half = 0.5 * first[name]
    if first.get("ruined") or not half > 0.0:
        return math.nan

    def gap(log: float) -> float:
        row = measure(math.exp(log))
        return -half if row.get("ruined") else row[name] - half

    for low, high in pairwise(grid):
        if not gap(math.log(high)) > 0.0:
            return math.exp(brentq(gap, math.log(low), math.log(high), xtol=0.5 * tolerance))
    return math.nan
