"""bounds(): how far a result depends on the order of prices inside its bars."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from backtest.account import Account
from backtest.base import (
    FloatArray,
    Head,
    Headline,
    ParameterError,
    Part,
    Place,
    SettingsResult,
    ShownTable,
    Whole,
    checked_only,
    format_table,
    repr_plain,
    utc_index,
)
from backtest.engine import Progress, Result, run
from backtest.market import Market, Markets
from backtest.measures.measure_names import ABOUT
from backtest.policy import Policy
from backtest.risk.bounds.ambiguous_bars import count_ambiguous_bars
from backtest.risk.bounds.bounds_lanes import DEPTH, WHERE
from backtest.risk.bounds.bounds_position import PositionOrders
from backtest.risk.bounds.bounds_run import BoundsRun
from backtest.risk.liquidation.runner_arguments import AnyPolicy, AnyVenue

MOST_DEPTH = 16


@dataclass(frozen=True, eq=False)
class Bounds(SettingsResult):
    """Metrics of a run in every order that its bars allow.

    Attributes
    ----------
    table : DataFrame
        A row per metric: ``worst``, ``as_run``, ``best`` (for a metric without a direction the
        smallest and the largest) and ``expected``, the mean over orders by their probability.
    bars : DataFrame
        A row per ambiguous bar of the run: ``events`` that compete, ``states`` in which it may end,
        ``equity_low``, ``as_run`` and ``equity_high`` after it, the ``probability`` of the run's
        own order, and ``width``, what the bar adds to the spread of equity.
    lives : int
        Different lives at the end.
    is_inner : bool
        Whether lives were dropped, as they were more than 2^depth, or more than ``depth``
        instruments were ambiguous in one bar: then the true bounds may be wider.
    n_bars : int
        Bars of the run.
    result : Result or None
        The run; None for loaded bounds.
    market : Market, Markets or None
        The market of the run; None for loaded bounds.
    """

    table: pd.DataFrame
    bars: pd.DataFrame
    lives: int
    is_inner: bool
    n_bars: int
    settings: dict[str, Any]
    result: Result | None = None
    market: Market | Markets | None = None

    kind = "bounds"
    plural = "bounds"
    table_names = ("table", "bars")
    numbers = ("lives", "is_inner", "n_bars")

    @property
    def note(self) -> str:
        """How many bars are ambiguous."""
        return f"{len(self.bars):,} of {self.n_bars:,} bars ambiguous"

    @property
    def verdict(self) -> str:
        """One sentence on how far the result depends on the order inside bars."""
        row = self.table.loc["final_equity"]
        count, total = len(self.bars), self.n_bars
        if count == 0 and self.is_inner:
            return f"None of {total:,} bars is ambiguous in the orders that were varied."
        if count == 0:
            return f"The order inside bars does not matter: none of {total:,} bars is ambiguous."
        bars = "1 bar is" if count == 1 else f"{count:,} bars are"
        inner = " at least" if self.is_inner else ""
        return (
            f"{bars} ambiguous of {total:,}: final equity is between{inner} "
            f"{row['worst']:,.2f} and {row['best']:,.2f}, {row['as_run']:,.2f} as run, "
            f"{row['expected']:,.2f} expected."
        )

    @property
    def limits(self) -> str:
        """Why the true bounds may be wider, as a sentence; empty if all orders were followed."""
        if not self.is_inner:
            return ""
        beyond, depth = int(self.settings.get("bars_beyond_depth", 0)), self.settings["depth"]
        if not beyond:
            return f"The true bounds may be wider: at most 2^{depth} states were followed."
        depth = depth or DEPTH  # what is followed where only two lives are
        bars = "1 bar" if beyond == 1 else f"{beyond:,} bars"
        largest = "largest position" if depth == 1 else f"{depth} largest positions"
        return (
            f"The true bounds may be wider: in {bars} only the order of the {largest} was varied."
        )

    @property
    def heading(self) -> str:
        """The title of the page."""
        return f"Order inside bars: {self.title}"

    @property
    def details(self) -> str:
        """Why the true bounds may be wider."""
        return self.limits

    def list_numbers(self) -> list[Headline]:
        """Return the ambiguous bars, and the range of the final equity."""
        row: Any = self.table.loc["final_equity"]
        span, as_run = f"{row['worst']:,.2f} to {row['best']:,.2f}", float(row["as_run"])
        return [
            Headline(
                "ambiguous",
                "ambiguous bars",
                len(self.bars),
                "count",
                f"of {self.n_bars:,}",
                "less",
            ),
            Headline(
                "final_equity",
                "final equity",
                as_run,
                "money",
                f"{as_run:,.2f} as run",
                "more",
                span,
            ),
        ]

    def list_parts(self) -> list[Part]:
        """Return the metrics, and the ambiguous bars."""
        heads = {
            "equity_low": Head("equity after it", "", "money", "equity_high"),
            "as_run": Head("as run", "", "money"),
            "probability": Head("of the run's order", "probability", "chance"),
            "width": Head("width", "money", "money"),
        }
        return [
            Part("metrics", "Metrics", "In every order that the bars allow.",
                 (ShownTable(self.table, labels=Head("metric"), has_measures=True),)),
            Part("bars", "Ambiguous bars", "Of the run as it is.",
                 (ShownTable(self.bars, labels=Head("bar", "UTC"), heads=heads),)),
        ]  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Return the result as data for JSON."""
        return {**super().to_dict(), "limits": self.limits, "ambiguous": len(self.bars)}

    def __repr__(self) -> str:
        return f"<Bounds: {self.verdict}>"

    def summary(self) -> str:
        """Return the verdict and the main metrics as text for a terminal."""
        names = ["final_equity", "total_return", "max_drawdown", "liquidations", "bad_debt"]
        told = "\n".join(filter(None, (self.verdict, self.limits)))
        return f"{told}\n{format_table(self.table.loc[names].T)}"


@checked_only("progress", "refine", "market")
def bounds(
    market: Market | Markets,
    policy: AnyPolicy,
    *,
    venue: AnyVenue,
    account: Account,
    signal: Any = None,
    overlay: Policy | None = None,
    refine: Market | None = None,
    depth: int = DEPTH,
    compile: bool = True,  # noqa: A002 - the word of bt.run
    progress: Progress | None = None,
    **settings: Any,
) -> Bounds:
    """Return the metrics of a run in every order that its bars allow.

    Parameters
    ----------
    market, policy, venue, account, signal, overlay, compile
        As in :func:`backtest.run`.
    refine : Market, optional
        Finer bars of the same market, which must be of one instrument: an ambiguous bar is replaced
        by those of its span, which must add up to it. Where they are missing, the bar stays as it
        is. Not for accounts with margin calls, an equity stop, fills at a close or fee tiers.
    depth : int
        At most 2^depth lives are followed, from 0 to 16. Of several instruments, at most the
        ``depth`` largest positions of a bar are mirrored.
    progress : callable, optional
        Called with bars done and bars in all.
    **settings
        ``sampling``, ``calendar`` and ``start`` of :func:`backtest.run`.

    Returns
    -------
    Bounds

    Raises
    ------
    ParameterError
        If an argument is not allowed, or finer bars are given for several positions, or for an
        account with margin calls, an equity stop, another fill than at the next open or fee tiers.
    DataError
        If finer bars do not add up to a bar.

    Notes
    -----
    A bar is ambiguous if the account ends it in different states, depending on which of its
    extremes came first, on whether last or mark prices got there first, and on where its
    settlements fell between them. Every order is lived by the accounting of a bar for each of its
    steps; equal states are one life again. The run's own convention is always one of the lives, so
    ``worst <= as_run <= best``. A price reaches each extreme of a bar once: what happens by moving
    to and fro between them is not in the bounds, and finer bars show it.

    Of several instruments, and of accounts with margin calls, an equity stop, fills at a close or
    fee tiers, all prices of a bar move together along waypoints, and each instrument
    that is held takes the path of a run (``Account(intrabar="path")``) or its mirror, which reaches
    the other extreme first: 2^k paths for k instruments, with weights as if their orders were
    independent. The same market under two names, or as collateral, has one order. Last and mark
    prices go together, and settlements come before the walk. Orders that follow each other within
    a bar, such as one instrument at both extremes before another moves, are not in the bounds.

    Orders are weighted by the probability that a Brownian bar of this shape had its low first
    (:func:`backtest.risk.bounds.bar_orders.low_first_probability`), and otherwise equally.
    """
    Whole(0).check("depth", depth, where=Place("depth", of=WHERE))
    if depth > MOST_DEPTH:
        raise ParameterError(
            f"depth must be at most {MOST_DEPTH}, got {depth}",
            where=Place("depth", of=WHERE),
            cure="give a smaller depth: the number of simulated orders grows as 2^depth",
        )
    if refine is not None and not isinstance(refine, Market):
        raise ParameterError(
            f"refine must be a Market, got {repr_plain(refine)}",
            where=Place("refine", of=WHERE),
            cure="pass finer bars as a Market",
        )
    of_any: dict[str, Any] = {"policy": policy, "venue": venue, "signal": signal, **settings}
    of_any |= {} if overlay is None else {"overlay": overlay}
    given: Any = market  # one instrument or several
    result = run(given, account=account, compile=compile, **of_any)
    return measure_bounds(BoundsRun(result, refine, depth), progress)


def measure_bounds(lived: BoundsRun, progress: Progress | None) -> Bounds:
    lanes, found, is_cut = lived.live(progress)
    orders, result = lived.orders, lived.result
    rows = [dict(orders.finish(lane).metrics) for lane in lanes]
    weights = np.array([lane.weight for lane in lanes])
    as_run = next(k for k, lane in enumerate(lanes) if lane.is_run)
    rows[as_run] = dict(result.metrics)
    table = pd.DataFrame(
        {name: describe_metric(name, rows, weights, as_run) for name in rows[as_run]}
    ).T
    table.index.name = "metric"
    bars = pd.DataFrame(found).drop(columns="bar") if found else pd.DataFrame(columns=COLUMNS)
    if found:
        bars["width"] = bars["equity_high"] - bars["equity_low"]
        times = utc_index(result.time)[[each.bar - orders.first for each in found]]
        bars.index = pd.DatetimeIndex(list(times), name="time")
    settings = {
        "policy": result.manifest["policy"]["text"],
        "run": result.manifest["id"],
        "depth": lived.depth,
        "refined": bool(lived.refine),
        **({"bars_beyond_depth": orders.n_beyond} if orders.n_beyond else {}),
    }
    return Bounds(
        table, bars, len(lanes), is_cut, len(result.time), settings, result, orders.source
    )


COLUMNS = ["events", "states", "equity_low", "as_run", "equity_high", "probability", "width"]


def describe_metric(
    name: str, rows: list[dict[str, float]], weights: FloatArray, as_run: int
) -> dict[str, float]:
    values = np.array([row[name] for row in rows])
    known = ~np.isnan(values)
    own = float(values[as_run])
    if not known.any():
        return {"worst": math.nan, "as_run": own, "best": math.nan, "expected": math.nan}
    low, high = float(values[known].min()), float(values[known].max())
    better = ABOUT[name].better if name in ABOUT else 0
    worst, best = (high, low) if better < 0 else (low, high)
    total = float(weights[known].sum())
    with np.errstate(invalid="ignore"):
        mean = float(values[known] @ weights[known]) / total if total > 0.0 else own
    return {"worst": worst, "as_run": own, "best": best, "expected": mean}


def count_ambiguous(result: Result) -> int:
    if result.markets is None or not result.policies:
        raise ParameterError(
            "ambiguous bars need a result of this process, got a loaded one",
            where="Result.ambiguous",
            cure="run the experiment again with bt.run",
        )
    run = BoundsRun(result, None, 0)
    if isinstance(run.orders, PositionOrders):
        return count_ambiguous_bars(run.orders)
    return len(run.live(None)[1])
