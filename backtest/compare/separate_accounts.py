"""A policy in several markets, in an account of its own in each, compared as one account."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.base import FloatArray, IntArray, ParameterError, parse_duration
from backtest.compare.compared_accounts import measure_account, sample_free
from backtest.compare.comparison_record import OF_EACH
from backtest.compare.shared_terms import SharedTerms
from backtest.engine import Result
from backtest.policy import Policy
from backtest.sweep import pool_measure, read_pool

MEAN = read_pool("mean")


class CommonSpan(NamedTuple):
    """The time that all accounts have: the start of the first bar, and its last close, in ns."""

    start: int
    closes: IntArray


@dataclass(frozen=True)
class SeparateAccounts:
    results: Mapping[str, Result]

    @cached_property
    def metrics(self) -> dict[str, float]:
        rows = {name: measure_account(each) for name, each in self.results.items()}
        pooled = {
            name: pool_mean(name, [row[name] for row in rows.values()])
            for name in next(iter(rows.values()))
        }
        own = {f"{name} {of}": row[name] for name in OF_EACH for of, row in rows.items()}
        return {**pooled, **own}

    @cached_property
    def returns(self) -> pd.Series[float]:
        return self.returns_by_market.mean(axis=1)

    @cached_property
    def returns_by_market(self) -> pd.DataFrame:
        rows = [each.returns.set_axis(number_periods(each)) for each in self.results.values()]
        table = pd.concat(rows, axis=1, join="inner", keys=list(self.results))
        stamps = pd.Series(next(iter(self.results.values())).returns.index, index=rows[0].index)
        return table.set_axis(pd.DatetimeIndex(stamps.loc[table.index]))

    def sample_free(self, setting: SharedTerms) -> FloatArray:
        name, first = next(iter(self.results.items()))
        free = pd.Series(sample_free(setting.take_market(name)), index=first.returns.index)
        return np.asarray(free.loc[self.returns.index])

    @cached_property
    def span(self) -> CommonSpan:
        spans = [each.span for each in self.results.values()]
        end = min(int(each.closes[-1]) for each in spans)
        return CommonSpan(max(each.start for each in spans), np.array([end]))

    @property
    def manifest(self) -> Mapping[str, Any]:
        parts = [each.manifest for each in self.results.values()]
        return {"policy": parts[0]["policy"], "id": [each["id"] for each in parts]}

    @property
    def policies(self) -> Mapping[str, Policy]:
        return {name: next(iter(each.policies.values())) for name, each in self.results.items()}


def pool_mean(name: str, values: Sequence[float]) -> float:
    return float(pool_measure(name, np.array(values)[:, None], MEAN)[0])


def number_periods(result: Result) -> IntArray:
    every = parse_duration(
        str(result.manifest["sampling"]),
    )
    ends = result.time[result.ends_sample != 0.0]
    return np.asarray(ends // max(every, result.interval))


def run_separate(setting: SharedTerms, entry: object) -> SeparateAccounts:
    if not isinstance(entry, Policy):
        raise ParameterError("accounts='separate' runs policies, got a result; give its policy")
    names = setting.market.names
    return SeparateAccounts({name: setting.take_market(name).run(entry) for name in names})


def describe_separate(setting: SharedTerms) -> dict[str, Any]:
    names = setting.market.names
    signals = dict.fromkeys(setting.take_market(name).describe_signal() for name in names)
    described = setting._replace(signal=None).describe()
    return {**described, "signal": "; ".join(signals), "accounts": "separate"}


def refuse_options(**given: Any) -> None:
    for name, value in given.items():
        if value:
            raise ParameterError(
                f"{name} needs accounts='shared': separate accounts are compared as they are"
            )
