"""What a limit of leverage cost: the run once more, without the account's ``max_leverage``."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.base import (
    Argument,
    BandWarning,
    InfiniteLeverageWarning,
    LastPriceWarning,
    ParameterError,
    Phrase,
    VenueDateWarning,
    format_percent,
    list_values,
)
from backtest.base.units import DAY, YEAR_DAYS
from backtest.engine.target_cuts_text import count_days
from backtest.market import weights_to_frame

if TYPE_CHECKING:
    from backtest.account import Account
    from backtest.engine.run_record import RunRecord
    from backtest.measures import RunSpan

WHERE = "Result.limit_cost"
REPEATED = (BandWarning, InfiniteLeverageWarning, LastPriceWarning, VenueDateWarning)


class LimitCost(NamedTuple):
    """Days on which a limit of leverage was binding, and its cost in growth.

    ``share`` is that of the days with decisions. ``growth`` and ``growth_without`` are the log
    growth per year with the limit and without it, -inf after ruin; ``cost`` is their difference,
    negative if the limit was of use.
    """

    days: int
    share: float
    growth: float
    growth_without: float
    cost: float

    def __str__(self) -> str:
        days, share = count_days(self.days), format_percent(self.share, 1)
        growth, without = format_percent(self.growth), format_percent(self.growth_without)
        verb = "cost" if self.cost >= 0.0 else "added"
        return (
            f"max_leverage bound on {days} ({share} of those with decisions); log growth per year "
            f"{growth}, without it {without}: it {verb} {format_percent(abs(self.cost))} a year"
        )


def measure_limit_cost(
    result: RunRecord, run: Callable[..., RunRecord], *, is_compiled: bool
) -> LimitCost:
    again, markets = None, result.markets
    if markets is not None:
        weights = np.broadcast_to(result.setup.signal, (len(markets), markets.n_bars))
        terms: dict[str, Any] = {"venue": result.venues, "overlay": result.overlay}
        terms["signal"] = weights_to_frame(weights, markets)
        again = partial(run, markets, result.policies, **terms)
    return compare_without(result, again, is_compiled=is_compiled)


def compare_without(
    result: RunRecord, again: Callable[..., Any] | None, *, is_compiled: bool
) -> LimitCost:
    check_limited(result.account)
    check_whole(result)
    if again is None:
        raise ParameterError(
            "the cost of a limit needs the market of the run, got a saved result",
            where=WHERE,
            cure="run the experiment again, and use its result",
        )
    with warnings.catch_warnings():
        for category in REPEATED:
            warnings.simplefilter("ignore", category)
        free = again(
            account=replace(result.account, max_leverage=math.inf),
            sampling=str(result.manifest["sampling"]),
            calendar=str(result.manifest["calendar"]),
            compile=is_compiled,
            start=pd.Timestamp(result.span.start, tz="UTC"),
        )
    growth, without = find_growth(result.metrics, result.span), find_growth(free.metrics, free.span)
    days, share = count_limit_days(result)
    return LimitCost(days, share, growth, without, without - growth)


def check_limited(account: Account) -> None:
    limits = list_values(account.max_leverage)
    if not any(isinstance(each, pd.Series) or math.isfinite(each) for each in limits):
        raise ParameterError(
            "the account must have a limit of leverage, got max_leverage inf",
            where=WHERE,
            cure=Phrase("run with {}, for example", Argument("max_leverage", 2)),
        )


def check_whole(result: RunRecord) -> None:
    is_resumed = result.manifest.get("resumed_from") is not None
    if is_resumed or "switches" in result.manifest["policy"]:
        raise ParameterError(
            "the cost of a limit needs the whole run of one policy, got a "
            f"{'resumed' if is_resumed else 're-tuned'} one",
            where=WHERE,
            cure="run the whole market at once",
        )


def find_growth(metrics: Mapping[str, float], span: RunSpan) -> float:
    """Return the log growth of the unit value per year; -inf if nothing is left."""
    total = metrics["total_return"]
    years = (int(span.closes[-1]) - span.start) / (YEAR_DAYS * DAY)
    is_left = total > -1.0 and not metrics["ruined"]
    return math.log1p(total) / years if is_left else -math.inf


def count_limit_days(result: RunRecord) -> tuple[int, float]:
    of_all = [row for row in result.target_cut_rows if row.get("instrument", "all") == "all"]
    rows = {row["cause"]: row for row in of_all}
    total = int(rows["all"]["days"])
    days = int(rows["max_leverage"]["days"]) if "max_leverage" in rows else 0
    return days, days / total if total else math.nan
