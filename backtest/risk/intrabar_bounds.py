"""bounds(): a run under both orders of the prices in a bar, and where the runs part."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from backtest import core, engine
from backtest.account.events import INSIDE
from backtest.core import Progress
from backtest.core.number_text import Head
from backtest.core.result_parts import Headline, Part, ShownTable
from backtest.results import Result
from backtest.results.settings_result import SettingsResult

WAYS = "path", "worst"
SHOWN = ("final_equity", "cagr", "max_drawdown", "liquidations")


@dataclass(frozen=True, eq=False, repr=False)
class Bounds(SettingsResult):
    """A run under ``intrabar="path"`` and under ``"worst"``, and the bars in which they part.

    ``table`` has final equity, growth, deepest fall and liquidations of both ``runs``. ``bars``
    has a row for each bar, of ``n_bars``, in which they part: ``instruments``, and the equity after
    it under ``path`` and under ``worst``.
    """

    table: pd.DataFrame
    bars: pd.DataFrame
    n_bars: int
    runs: Mapping[str, Result] | None = None

    kind = "bounds"
    call = "bt.bounds"
    is_yearly = True
    plural = "bounds"
    details = (
        "The only position of a bar reaches its adverse extreme first under both, so that "
        "they do not part. Other intrabar orders are possible; pass detail= to simulate "
        "on shorter bars."
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

    def list_numbers(self) -> list[Headline]:
        of = f"of {self.n_bars:,}"
        return [
            Headline("parted", "bars that part", len(self.bars), "count", of),
            *(
                Headline(f"final_equity_{way}", "final equity",
                         float(self.table[way]["final_equity"]), "money", f"under {way}")
                for way in WAYS
            ),
        ]  # fmt: skip

    def list_parts(self) -> list[Part]:
        lead = (
            "Under worst, each position moves to its own adverse extreme at once, which removes "
            "hedges between markets."
        )
        heads = {way: Head(f"equity under {way}", "", "money") for way in WAYS}
        return [
            Part("measures", "Measures", lead,
                 (ShownTable(self.table, labels=Head("metric"), has_measures=True),),
                 shows="both"),
            Part("bars", "Bars that part", "Equity after the bar.",
                 (ShownTable(self.bars, labels=Head("bar", "UTC"), heads=heads),)),
        ]  # fmt: skip


@core.checked_only("progress", "result")
def bounds(result: Result, *, progress: Progress | None = None) -> Bounds:
    """Return a run under ``Account(intrabar="path")`` and under ``"worst"``, and where they part.

    Parameters
    ----------
    result : Result
        A whole run of this process. It is one of the two; the other is run with the same terms.

    Notes
    -----
    The runs part in a bar if a liquidation, a stop or a take-profit happens in one of them alone,
    or at another price, or if their equity was equal before the bar and is not after it, each by
    more than 1e-9. After the first such bar they may also part because they hold other positions.
    """
    markets = result.markets
    problems = {
        "an account with limit orders: pass detail= to bt.run":
            result.account.fill == "limit",
        "a loaded result: run the experiment again": markets is None,
        "a resumed run: run the whole span at once": result.manifest["resumed_from"] is not None,
        "a re-optimized run: run one policy": "switches" in result.manifest["policy"],
        "a market with decision_interval=: leave it out":
            markets is not None and markets.decision_interval > 0,
    }  # fmt: skip
    for problem, is_true in problems.items():
        if is_true:
            raise core.ParameterError(
                f"bounds run one account from its start under both ways, got {problem}"
            )
    runs = dict.fromkeys(WAYS, result)
    for way in set(WAYS) - {result.account.intrabar}:
        setup = result.setup.change(account=replace(result.account, intrabar=way))
        runs[way] = engine.run_again(result, setup, progress)
    table = pd.DataFrame(
        {way: [float(each.metrics[name]) for name in SHOWN] for way, each in runs.items()},
        index=pd.Index(SHOWN, name="metric"),
    )
    equity = pd.DataFrame({way: each.bars["equity"] for way, each in runs.items()})
    is_same = np.isclose(equity["path"], equity["worst"], rtol=1e-9, atol=0.0)
    is_parted = ~is_same & np.concatenate(([True], is_same[:-1]))
    places = defaultdict[tuple[Any, str], list[tuple[str, str]]]
    one, other = places(list), places(list)  # kind and price, to nine digits
    inside = [each.kind.name for each in INSIDE]
    for found, each in zip((one, other), runs.values(), strict=True):
        for row in each.events[each.events["kind"].isin(inside)].itertuples():
            name = str(getattr(row, "instrument", each.names[0]))
            found[row.time, name].append((str(row.kind), f"{row.price:.9g}"))
    names = pd.Series("", index=equity.index.rename("time"), dtype=object)
    for time, name in {**one, **other}:
        if one.get((time, name)) != other.get((time, name)):
            names[time] = f"{names[time]}, {name}".removeprefix(", ")
            is_parted[equity.index.get_loc(time)] = True
    equity.insert(0, "instruments", names)
    bars = pd.DataFrame(equity.rename_axis("time")[is_parted])
    settings = {"policy": result.manifest["policy"]["text"], "run": result.manifest["id"]}
    return Bounds(table, bars, len(result.time), runs, settings=settings, market=result.markets)
