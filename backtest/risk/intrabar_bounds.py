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
        path = float(self.table["path"]["final_equity"])
        worst = float(self.table["worst"]["final_equity"])
        if not len(self.bars):
            return f"The runs agree in all {self.n_bars:,} bars: final equity {path:z,.2f}."
        return (
            f"The runs part in {len(self.bars):,} of {self.n_bars:,} bars, first at "
            f"{self.bars.index[0]:%Y-%m-%d %H:%M} UTC: final equity is {path:z,.2f} under path and "
            f"{worst:z,.2f} under worst."
        )

    def list_numbers(self) -> list[Headline]:
        of = f"of {self.n_bars:,}"
        numbers = [Headline("parted", "bars that part", len(self.bars), "count", of)]
        for way in WAYS:
            equity = float(self.table[way]["final_equity"])
            numbers.append(
                Headline(f"final_equity_{way}", "final equity", equity, "money", f"under {way}")
            )
        return numbers

    def list_parts(self) -> list[Part]:
        lead = (
            "Under worst, each position moves to its own adverse extreme at once, which removes "
            "hedges between markets."
        )
        measures = ShownTable(self.table, labels=Head("metric"), has_measures=True)
        heads = {way: Head(f"equity under {way}", "", "money") for way in WAYS}
        bars = ShownTable(self.bars, labels=Head("bar", "UTC"), heads=heads)
        return [
            Part(
                key="measures",
                title="Measures",
                lead=lead,
                blocks=(measures,),
                shows="both",
            ),
            Part(
                key="bars",
                title="Bars that part",
                lead="Equity after the bar.",
                blocks=(bars,),
            ),
        ]


@core.record_making
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
    check_run(result)
    runs = dict.fromkeys(WAYS, result)
    other_ways = set(WAYS) - {result.account.intrabar}
    for way in other_ways:
        account = replace(result.account, intrabar=way)
        setup = result.setup.change(account=account)
        runs[way] = engine.run_again(result, setup, progress)

    measures = {}
    equity = pd.DataFrame()
    for way, of_way in runs.items():
        measures[way] = [float(of_way.metrics[name]) for name in SHOWN]
        equity[way] = of_way.bars["equity"]
    is_same = np.isclose(equity["path"], equity["worst"], rtol=1e-9, atol=0.0)
    was_same = np.concatenate(([True], is_same[:-1]))
    is_parted = ~is_same & was_same

    # Bars in which something happens in one run alone, or at another price.
    path = list_inside(runs["path"])
    worst = list_inside(runs["worst"])
    index = equity.index.rename("time")
    names = pd.Series("", index=index, dtype=object)
    for time, name in {**path, **worst}:
        in_path = path.get((time, name))
        if in_path != worst.get((time, name)):
            names[time] = f"{names[time]}, {name}".removeprefix(", ")
            is_parted[equity.index.get_loc(time)] = True

    equity.insert(0, "instruments", names)
    index_of_measures = pd.Index(SHOWN, name="metric")
    return Bounds(
        table=pd.DataFrame(measures, index=index_of_measures),
        bars=pd.DataFrame(equity.rename_axis("time")[is_parted]),
        n_bars=len(result.time),
        runs=runs,
        settings={
            "policy": result.manifest["policy"]["text"],
            "run": result.manifest["id"],
            "start": core.format_time(result.span.start),
        },
        market=result.markets,
    )


def check_run(result: Result) -> None:
    """Refuse a run that cannot be run again under the other way."""
    markets = result.markets
    problem = ""
    if result.account.fill == "limit":
        problem = "an account with limit orders: pass detail= to bt.run"
    elif markets is None:
        problem = "a loaded result: run the experiment again"
    elif result.manifest["resumed_from"] is not None:
        problem = "a resumed run: run the whole span at once"
    elif "switches" in result.manifest["policy"]:
        problem = "a re-optimized run: run one policy"
    elif markets.decision_interval > 0:
        problem = "a market with decision_interval=: leave it out"

    if problem:
        raise core.ParameterError(
            f"bounds run one account from its start under both ways, got {problem}"
        )


def list_inside(result: Result) -> dict[tuple[Any, str], list[tuple[str, str]]]:
    """Return kind and price, to nine digits, of what happened in bars, by time and instrument."""
    kinds = [event.kind.name for event in INSIDE]
    events = result.events
    inside = events[events["kind"].isin(kinds)]

    # Events of a single instrument have no column of its name.
    only_name = result.names[0]
    happened = defaultdict[tuple[Any, str], list[tuple[str, str]]](list)
    for row in inside.itertuples():
        name = str(getattr(row, "instrument", only_name))
        kind = str(row.kind)
        price = f"{row.price:.9g}"
        happened[row.time, name].append((kind, price))
    return happened
