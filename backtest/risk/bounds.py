"""bounds(): how far a result depends on the way of prices inside its bars."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from backtest.base import (
    Head,
    Headline,
    ParameterError,
    Part,
    SettingsResult,
    ShownTable,
    checked_only,
)
from backtest.engine import Progress, Result, run, warn_once
from backtest.market import Market, Markets, weights_to_frame

PATH, WORST = WAYS = "path", "worst"
SHOWN = ("final_equity", "cagr", "max_drawdown", "liquidations")
FORCED = ("liquidation", "stop", "trailing_stop", "equity_stop", "take_profit")
"""Kinds of events that act inside a bar."""
SAME = 1e-9
"""Prices and equities that differ by less than this share are equal."""
LIMITS = (
    "A position that is alone in its bar takes its adverse extreme first under both, so that they "
    "do not part. Other orders are possible: detail= of bt.run lives shorter bars."
)


@dataclass(frozen=True, eq=False)
class Bounds(SettingsResult):
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
    market : Markets or None
        The markets of the run; None for loaded bounds.
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
    details = LIMITS

    @property
    def note(self) -> str:
        """In how many bars the runs part."""
        return f"the runs part in {len(self.bars):,} of {self.n_bars:,} bars"

    @property
    def verdict(self) -> str:
        """One sentence on how far the result depends on the way inside bars."""
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
        """The title of the page."""
        return f"Prices inside bars: {self.title}"

    def list_numbers(self) -> list[Headline]:
        """Return how many bars part, and the measures of both runs."""
        of = f"of {self.n_bars:,}"
        if len(self.bars):
            of += f", the first {self.bars.index[0]:%Y-%m-%d %H:%M} UTC"
        found = [Headline("parted", "bars that part", len(self.bars), "count", of, "less")]
        for name, label, style, better in (
            ("final_equity", "final equity", "money", "more"),
            ("cagr", "growth per year", "percent", "more"),
            ("max_drawdown", "deepest fall", "percent", "less"),
            ("liquidations", "liquidations", "count", "less"),
        ):
            for way in WAYS:
                value = float(self.table[way][name])
                found.append(Headline(f"{name}_{way}", label, value, style, f"under {way}", better))
        return found

    def list_parts(self) -> list[Part]:
        """Return the measures of both runs, and the bars in which they part."""
        lead = (
            "Under worst, each position goes to its own adverse extreme at once, which removes "
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

    def __repr__(self) -> str:
        return f"<Bounds: {self.verdict}>"


@checked_only("progress", "result")
def bounds(result: Result, *, progress: Progress | None = None) -> Bounds:
    """Return a run under ``Account(intrabar="path")`` and under ``"worst"``, and where they part.

    Parameters
    ----------
    result : Result
        A whole run of this process. It is one of the two; the other is run with the same terms.
    progress : callable, optional
        Called with bars done and bars in all.

    Returns
    -------
    Bounds

    Raises
    ------
    ParameterError
        If the account has limit orders, or the result is loaded, resumed, re-tuned or run with
        ``decide``.

    Notes
    -----
    The runs part in a bar if a liquidation, a stop or a take-profit happens in one of them alone,
    or at another price, or if their equity was equal before the bar and is not after it, each by
    more than 1e-9. After the first such bar they may also part because they hold other positions.
    """
    check_result(result)
    with warn_once(is_first=False):
        runs = {way: run_under(result, way, progress) for way in WAYS}
    table = pd.DataFrame(
        {way: [float(each.metrics[name]) for name in SHOWN] for way, each in runs.items()},
        index=pd.Index(SHOWN, name="metric"),
    )
    settings = {"policy": result.manifest["policy"]["text"], "run": result.manifest["id"]}
    return Bounds(table, find_parted(runs), len(result.time), settings, runs, result.markets)


def check_result(result: Result) -> None:
    markets, account = result.markets, result.account
    problems = {
        "an account with limit orders: detail= of bt.run lives shorter bars":
            account.fill == "limit",
        "a loaded result: run the experiment again": markets is None,
        "a resumed run: run the whole span at once": result.manifest["resumed_from"] is not None,
        "a re-tuned run: run one policy": "switches" in result.manifest["policy"],
        "a market with decide=: leave it out": markets is not None and markets.decide > 0,
    }  # fmt: skip
    for problem, is_true in problems.items():
        if is_true:
            raise ParameterError(
                f"bounds run one account from its start under both ways, got {problem}"
            )


def run_under(result: Result, way: str, progress: Progress | None) -> Result:
    if result.account.intrabar == way:
        return result
    markets: Any = result.markets
    weights = np.broadcast_to(result.setup.signal, (len(markets), markets.n_bars))
    policies: Any = result.policies
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
    equity.index.name = "time"
    path, worst = equity[PATH].to_numpy(), equity[WORST].to_numpy()
    is_same = np.isclose(path, worst, rtol=SAME, atol=0.0)
    is_parted = ~is_same & np.concatenate(([True], is_same[:-1]))
    one, other = (list_forced(runs[way]) for way in WAYS)
    names = pd.Series("", index=equity.index, dtype=object)
    for time in {*one, *other}:
        found, against = one.get(time, {}), other.get(time, {})
        keys = [key for key in {**found, **against} if differ(found.get(key), against.get(key))]
        if keys:
            names[time] = ", ".join(dict.fromkeys(name for name, _ in keys))
            is_parted[equity.index.get_loc(time)] = True
    equity.insert(0, "instruments", names)
    parted: pd.DataFrame = equity[is_parted]
    return parted


def list_forced(result: Result) -> dict[Any, dict[tuple[str, str], list[float]]]:
    events = result.events[result.events["kind"].isin(FORCED)]
    whose = events["instrument"] if "instrument" in events else [result.names[0]] * len(events)
    found: dict[Any, dict[tuple[str, str], list[float]]] = {}
    for time, name, kind, price in zip(
        events["time"], whose, events["kind"], events["price"], strict=True
    ):
        found.setdefault(time, {}).setdefault((str(name), str(kind)), []).append(float(price))
    return found


def differ(one: list[float] | None, other: list[float] | None) -> bool:
    if one is None or other is None or len(one) != len(other):
        return True
    return not np.allclose(one, other, rtol=SAME, atol=0.0, equal_nan=True)
