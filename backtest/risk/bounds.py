"""bounds(): how far a result depends on the way of prices inside its bars."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from backtest import base
from backtest.engine import Progress, Result, run, warn_once
from backtest.market import Market, Markets, weights_to_frame

WAYS = "path", "worst"
SHOWN = ("final_equity", "cagr", "max_drawdown", "liquidations")
FORCED = ("liquidation", "stop", "trailing_stop", "equity_stop", "take_profit")
"""Kinds of events that act inside a bar."""


@dataclass(frozen=True, eq=False)
class Bounds(base.SettingsResult):
    """A run under ``intrabar="path"`` and under ``"worst"``, and the bars in which they part.

    Attributes
    ----------
    table : DataFrame
        By ``metric``: final equity, growth, deepest fall and liquidations of both runs, in the
        columns ``path`` and ``worst``.
    bars : DataFrame
        A row for each bar in which the runs part: ``instruments``, and the equity after it under
        ``path`` and under ``worst``.
    n_bars : int
        Bars of the run.
    runs : mapping of str to Result, or None
        Both runs; None for loaded bounds.
    """

    table: pd.DataFrame
    bars: pd.DataFrame
    n_bars: int
    settings: dict[str, Any]
    runs: Mapping[str, Result] | None = None
    market: Market | Markets | None = None

    kind = "bounds"
    plural = "bounds"
    table_names = ("table", "bars")
    numbers = ("n_bars",)
    details = (
        "A position that is alone in its bar takes its adverse extreme first under both, so that "
        "they do not part. Other orders are possible: detail= of bt.run lives shorter bars."
    )

    @property
    def note(self) -> str:
        return f"the runs part in {len(self.bars):,} of {self.n_bars:,} bars"

    @property
    def verdict(self) -> str:
        path, worst = (float(self.table[way]["final_equity"]) for way in WAYS)
        if not len(self.bars):
            return f"The runs agree in all {self.n_bars:,} bars: final equity {path:,.2f}."
        return (
            f"The runs part in {len(self.bars):,} of {self.n_bars:,} bars, first at "
            f"{self.bars.index[0]:%Y-%m-%d %H:%M} UTC: final equity is {path:,.2f} under path and "
            f"{worst:,.2f} under worst."
        )

    @property
    def heading(self) -> str:
        return f"Prices inside bars: {self.title}"

    def list_numbers(self) -> list[base.Headline]:
        of = f"of {self.n_bars:,}"
        return [
            base.Headline("parted", "bars that part", len(self.bars), "count", of, "less"),
            *(
                base.Headline(f"final_equity_{way}", "final equity",
                         float(self.table[way]["final_equity"]), "money", f"under {way}", "more")
                for way in WAYS
            ),
        ]  # fmt: skip

    def list_parts(self) -> list[base.Part]:
        lead = (
            "Under worst, each position goes to its own adverse extreme at once, which removes "
            "hedges between markets."
        )
        heads = {way: base.Head(f"equity under {way}", "", "money") for way in WAYS}
        return [
            base.Part("measures", "Measures", lead,
                 (base.ShownTable(self.table, labels=base.Head("metric"), has_measures=True),),
                 shows="both"),
            base.Part("bars", "Bars that part", "Equity after the bar.",
                 (base.ShownTable(self.bars, labels=base.Head("bar", "UTC"), heads=heads),)),
        ]  # fmt: skip

    def __repr__(self) -> str:
        return f"<Bounds: {self.verdict}>"


@base.checked_only("progress", "result")
def bounds(result: Result, *, progress: Progress | None = None) -> Bounds:
    """Return a run under ``Account(intrabar="path")`` and under ``"worst"``, and where they part.

    Parameters
    ----------
    result : Result
        A whole run of this process. It is one of the two; the other is run with the same terms.
    progress : callable, optional
        Called with bars done and bars in all.

    Notes
    -----
    The runs part in a bar if a liquidation, a stop or a take-profit happens in one of them alone,
    or at another price, or if their equity was equal before the bar and is not after it, each by
    more than 1e-9. After the first such bar they may also part because they hold other positions.
    """
    markets = result.markets
    problems = {
        "an account with limit orders: detail= of bt.run lives shorter bars":
            result.account.fill == "limit",
        "a loaded result: run the experiment again": markets is None,
        "a resumed run: run the whole span at once": result.manifest["resumed_from"] is not None,
        "a re-tuned run: run one policy": "switches" in result.manifest["policy"],
        "a market with decide=: leave it out": markets is not None and markets.decide > 0,
    }  # fmt: skip
    for problem, is_true in problems.items():
        if is_true:
            raise base.ParameterError(
                f"bounds run one account from its start under both ways, got {problem}"
            )
    with warn_once(is_first=False):
        runs = {way: run_under(result, way, progress) for way in WAYS}
    table = pd.DataFrame(
        {way: [float(each.metrics[name]) for name in SHOWN] for way, each in runs.items()},
        index=pd.Index(SHOWN, name="metric"),
    )
    settings = {"policy": result.manifest["policy"]["text"], "run": result.manifest["id"]}
    return Bounds(table, find_parted(runs), len(result.time), settings, runs, result.markets)


def run_under(result: Result, way: str, progress: Progress | None) -> Result:
    if result.account.intrabar == way:
        return result
    markets: Any = result.markets
    policies: Any = result.policies
    weights = np.broadcast_to(result.setup.signal, (len(markets), markets.n_bars))
    return run(
        markets,
        policies,
        venue=result.venues,
        account=replace(result.account, intrabar=way),
        signal=weights_to_frame(weights, markets),
        overlay=result.overlay,
        sampling=str(result.manifest["sampling"]),
        calendar=str(result.manifest["calendar"]),
        compile=result.manifest["compiled"] != "compile=False",
        start=pd.Timestamp(result.span.start, tz="UTC"),
        progress=progress,
    )


def find_parted(runs: Mapping[str, Result]) -> pd.DataFrame:
    equity = pd.DataFrame({way: each.bars["equity"] for way, each in runs.items()})
    is_same = np.isclose(equity["path"], equity["worst"], rtol=1e-9, atol=0.0)
    is_parted = ~is_same & np.concatenate(([True], is_same[:-1]))
    one, other = (list_forced(each) for each in runs.values())
    names = pd.Series("", index=equity.index.rename("time"), dtype=object)
    for time, name in {**one, **other}:
        if one.get((time, name)) != other.get((time, name)):
            names[time] = f"{names[time]}, {name}".removeprefix(", ")
            is_parted[equity.index.get_loc(time)] = True
    equity.insert(0, "instruments", names)
    parted: pd.DataFrame = equity.rename_axis("time")[is_parted]
    return parted


def list_forced(result: Result) -> dict[tuple[Any, str], list[tuple[str, str]]]:
    """Return kind and price, to nine digits, of what happened inside bars, by bar and name."""
    found: dict[tuple[Any, str], list[tuple[str, str]]] = {}
    for row in result.events[result.events["kind"].isin(FORCED)].itertuples():
        name = str(getattr(row, "instrument", result.names[0]))
        found.setdefault((row.time, name), []).append((str(row.kind), f"{row.price:.9g}"))
    return found
