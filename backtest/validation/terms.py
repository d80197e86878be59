"""What all folds of a validation share, and a policy in several accounts, taken as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.account import Account
from backtest.base import FloatArray, IntArray, parse_duration
from backtest.compare import find_growth as find_growth_of_run
from backtest.compare import measure_account, sample_free
from backtest.engine import (
    Directions,
    Result,
    as_of,
    earn_cash,
    mark_samples,
    measure_years,
    read_directions,
)
from backtest.measures import Sampled
from backtest.policy import Policy
from backtest.sweep import pick, pool_measure, read_pool
from backtest.venue import Venue

MEAN = read_pool("mean")
OF_EACH = ("log_growth", "sharpe", "total_return", "max_drawdown", "ruined")


class Terms(NamedTuple):
    market: Any
    venue: Any
    account: Account
    signal: Any = None
    sampling: str = "1d"
    calendar: str = "365"
    compile: bool = True
    overlay: Policy | None = None

    def read_directions(self) -> Directions:
        return read_directions(self.signal, self.market, first=0)

    def take_market(self, name: str) -> Terms:
        return self._replace(
            market=self.market[name],
            venue=pick(self.venue, name),
            account=self.account.for_instrument(name),
            signal=pick(self.signal, name),
        )


@dataclass(frozen=True)
class SeparateAccounts:
    """A policy in an account of its own in each of several markets; measures are their means."""

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


AnyAccount = Result | SeparateAccounts


def pool_mean(name: str, values: Sequence[float]) -> float:
    return float(pool_measure(name, np.array(values)[:, None], MEAN)[0])


def number_periods(result: Result) -> IntArray:
    every = parse_duration(str(result.manifest["sampling"]))
    ends = result.time[result.ends_sample != 0.0]
    return np.asarray(ends // max(every, result.interval))


def list_results(account: AnyAccount) -> list[Result]:
    return [account] if isinstance(account, Result) else [*account.results.values()]


def count_years(account: AnyAccount) -> float:
    """Return the years that all accounts have in common."""
    spans = [each.span for each in list_results(account)]
    start, end = max(each.start for each in spans), min(int(each.closes[-1]) for each in spans)
    return spans[0]._replace(start=start, closes=np.array([end])).years


def sample_accounts(accounts: Sequence[AnyAccount]) -> Sampled:
    """Return the sampled returns of accounts over the same time, of shape (k, n)."""
    first = accounts[0]
    result = list_results(first)[0]
    rows = np.array([each.returns.to_numpy() for each in accounts])
    free: FloatArray = sample_free(result)
    if isinstance(first, SeparateAccounts):
        free = np.asarray(pd.Series(free, index=result.returns.index).loc[first.returns.index])
    return Sampled(rows, free, rows.shape[1] / count_years(first), result.span.periods)


def find_growth(account: AnyAccount) -> float:
    """Return the log growth of the unit value per year; -inf after ruin."""
    if isinstance(account, Result):
        return find_growth_of_run(account)
    return float(account.metrics["log_growth"])


def sample_free_between(terms: Terms, first: int, stop: int) -> FloatArray:
    """Return the simple risk-free return of each sampling period of a span, of shape (n,)."""
    market, venue = terms.market.prefix(stop), terms.venue
    if not isinstance(venue, Venue):
        venue = next(iter(venue.values()))
    rates = as_of(venue.cash_rate, market.time, "Venue.cash_rate")
    years = measure_years(market, venue, first, int(market.time[first]))
    free = earn_cash(rates, years, market.n_bars)[first:]
    ends = np.flatnonzero(mark_samples(market, terms.sampling)[first:])
    starts = np.concatenate(([0], ends[:-1] + 1))
    return np.asarray(np.expm1(np.add.reduceat(np.log1p(free), starts)))
