"""What a limit of leverage cost: the run once more, without the account's ``max_leverage``."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from backtest.base.errors import (
    InfiniteLeverageWarning,
    LastPriceWarning,
    ParameterError,
    VenueDateWarning,
)
from backtest.base.number_text import format_percent
from backtest.base.phrases import Argument, Phrase
from backtest.base.units import DAY, YEAR_DAYS
from backtest.engine.target_cuts_text import count_days

if TYPE_CHECKING:
    from backtest.account import Account
    from backtest.engine.run_record import RunRecord

WHERE = "Result.limit_cost"
REPEATED = (InfiniteLeverageWarning, LastPriceWarning, VenueDateWarning)
"""Warnings that the first run has given."""


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
    """Return what ``max_leverage`` cost; ``run`` is :func:`backtest.run`."""
    check_limited(result.account)
    check_whole(result)
    market, policy = result.market, result.policy
    if market is None or policy is None or result.inputs is None:
        raise ParameterError(
            "the cost of a limit needs the market of the run, was a saved result",
            where=WHERE,
            cure="run the experiment again, and use its result",
        )
    signal = result.inputs.feed.signal
    with warnings.catch_warnings():
        for category in REPEATED:
            warnings.simplefilter("ignore", category)
        free = run(
            market,
            policy,
            venue=result.venue,
            account=replace(result.account, max_leverage=math.inf),
            signal=float(signal[0]) if len(signal) == 1 else signal,
            sampling=str(result.manifest["sampling"]),
            calendar=str(result.manifest["calendar"]),
            compile=is_compiled,
            start=pd.Timestamp(result.span.start, tz="UTC"),
        )
    growth, without = find_growth(result), find_growth(free)
    days, share = count_limit_days(result)
    return LimitCost(days, share, growth, without, without - growth)


def check_limited(account: Account) -> None:
    """Require an account with a limit of leverage."""
    limit = account.max_leverage
    if not isinstance(limit, pd.Series) and math.isinf(limit):
        raise ParameterError(
            "the account must have a limit of leverage, max_leverage was inf",
            where=WHERE,
            cure=Phrase("run with {}, for example", Argument("max_leverage", 2)),
        )


def check_whole(result: RunRecord) -> None:
    """Require a run that was not resumed."""
    if result.manifest.get("resumed_from") is not None:
        raise ParameterError(
            "the cost of a limit needs the whole run, was a resumed one",
            where=WHERE,
            cure="run the whole market at once",
        )


def find_growth(result: RunRecord) -> float:
    """Return the log growth of the unit value per year; -inf if nothing is left."""
    total = result.metrics["total_return"]
    years = (int(result.span.closes[-1]) - result.span.start) / (YEAR_DAYS * DAY)
    is_left = total > -1.0 and not result.metrics["ruined"]
    return math.log1p(total) / years if is_left else -math.inf


def count_limit_days(result: RunRecord) -> tuple[int, float]:
    """Return the UTC days on which ``max_leverage`` cut a target, and their share."""
    rows = {row["cause"]: row for row in result.cut_rows}
    total = int(rows["all"]["days"])
    days = int(rows["max_leverage"]["days"]) if "max_leverage" in rows else 0
    return days, days / total if total else math.nan
