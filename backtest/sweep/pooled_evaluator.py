"""One set scored in several markets, in an account of its own in each, and its measures pooled."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from copy import copy
from typing import Any, Literal

import numpy as np

from backtest.account import Account, list_shared_settings
from backtest.account.account import WHOLE
from backtest.base import (
    FloatArray,
    IntArray,
    ParameterError,
    parse_duration,
)
from backtest.engine import (
    Progress,
    Result,
    SignalRule,
    mark_samples,
    read_directions,
)
from backtest.market import Market, Markets
from backtest.measures import find_direction
from backtest.measures.measure_table import DATES
from backtest.measures.ranking import NEVER
from backtest.policy import Policy
from backtest.sweep.set_evaluator import Evaluator, Rows
from backtest.sweep.sets import BaseTerms, Sets

Pool = Literal["mean", "median", "worst"]
"""How measures of several markets become one."""


def pool_measure(name: str, values: FloatArray, pool: Pool) -> FloatArray:
    """Return one measure of all sets from that of each market, of shape (n_markets, n_sets)."""
    if name == "ruined":
        return np.asarray(values.sum(axis=0))
    if name in NEVER:
        came = ~np.isnan(values)
        total = np.where(came, values, 0.0).sum(axis=0)
        with np.errstate(invalid="ignore"):
            return np.asarray(total / came.sum(axis=0))
    direction = find_direction(name)
    if pool == "worst" and direction != 0:
        return np.asarray(values.min(axis=0) if direction > 0 else values.max(axis=0))
    return np.asarray(np.median(values, axis=0) if pool == "median" else values.mean(axis=0))


OF_MARKETS = ("sharpe", "total_return", "max_drawdown", "ruined")


class PooledEvaluator(Evaluator):
    """Evaluator of accounts that each hold one instrument: a set lives in all of them.

    Its bars are those of the clock of the markets. ``members`` are the evaluators by instrument.
    The measures of a set are pooled: their ``"mean"``, ``"median"`` or ``"worst"`` over markets.
    ``ruined`` is the number of markets in which it was ruined. Returns are the mean over markets on
    the days that all have.
    """

    is_pooled = True

    def __init__(
        self,
        market: Markets,
        policy: type[Policy] | Policy,
        *,
        venue: Any,
        account: Account,
        signal: Any = None,
        pool: Pool = "mean",
        **terms: Any,
    ) -> None:
        shared = [each for each in list_shared_settings(account) if each in WHOLE]
        if shared:
            raise ParameterError(f"account.{shared[0]} needs accounts='shared'")
        if terms.pop("overlay", None) is not None:
            raise ParameterError("overlay needs accounts='shared': it scales a portfolio")
        self.pool = pool
        self.members = {
            name: Evaluator(
                one,
                policy,
                venue=pick(venue, name),
                account=account.for_instrument(name),
                signal=read_own_signal(pick(signal, name), one),
                **terms,
            )
            for name, one in market.items()
        }
        first = next(iter(self.members.values()))
        vars(self).update(vars(first))
        self.is_alone, self.market, self.markets, self.signal = False, market, market, signal
        self.base = BaseTerms(policy, venue, account, first.base.signal)

    def evaluate(
        self,
        sets: Sets,
        *,
        first: int = 0,
        stop: int | None = None,
        returns: bool = False,
        progress: Progress | None = None,
    ) -> Rows:
        spans = self.find_spans(first, self.market.n_bars if stop is None else stop)
        parts, n = {}, len(spans)
        for k, (name, (a, b)) in enumerate(spans.items()):
            told = None if progress is None else functools.partial(_report, progress, k, n)
            parts[name] = self.members[name].evaluate(
                sets, first=a, stop=b, returns=returns, progress=told
            )
        rows = pool_rows(parts, self.pool)
        if not returns:
            return rows
        return rows._replace(returns=self._align_returns(parts, spans).mean(axis=0))

    def evaluate_path(self, sets: Sets) -> Rows:
        parts = {name: each.evaluate_path(sets) for name, each in self.members.items()}
        return pool_rows(parts, self.pool)

    def replay(  # type: ignore[override] # one run of each market
        self, values: Mapping[str, object], *, first: int = 0, stop: int | None = None
    ) -> dict[str, Result]:
        spans = self.find_spans(first, self.market.n_bars if stop is None else stop)
        return {
            name: self.members[name].replay(values, first=a, stop=b)
            for name, (a, b) in spans.items()
        }

    def check_causal(self, sets: Sets) -> None:
        for each in self.members.values():
            each.check_causal(sets)

    def check_set(self, values: Mapping[str, Any]) -> None:
        for each in self.members.values():
            each.check_set(values)

    @property
    def causality(self) -> str:
        return "; ".join(dict.fromkeys(each.causality for each in self.members.values()))

    @property
    def doubts(self) -> list[str]:
        return [*dict.fromkeys(text for each in self.members.values() for text in each.doubts)]

    def copy_fallback(self, other: Evaluator) -> None:
        others = getattr(other, "members", {})
        for name in self.members.keys() & others.keys():
            self.members[name].copy_fallback(others[name])

    def map_members(self, change: Callable[[Evaluator], Evaluator]) -> Evaluator:
        other = copy(self)
        other.members = {name: change(each) for name, each in self.members.items()}
        return other

    def keep_signals(self) -> dict[str, Any]:
        return {name: each.signal for name, each in self.members.items()}

    def describe_pool(self) -> dict[str, str]:
        return {"accounts": "separate", "pool": self.pool}

    def describe_signals(self) -> str:
        if self.base.signal is not None:
            return repr(self.base.signal)
        found = (read_directions(each.signal, each.market) for each in self.members.values())
        return "; ".join(dict.fromkeys(each.describe() for each in found))

    def find_spans(self, first: int, stop: int) -> dict[str, tuple[int, int]]:
        return clip_spans(self.market, first, stop)

    def _align_returns(
        self, parts: Mapping[str, Rows], spans: Mapping[str, tuple[int, int]]
    ) -> FloatArray:
        periods = {name: self._list_periods(name, span) for name, span in spans.items()}
        common = functools.reduce(np.intersect1d, periods.values())
        found = []
        for name, rows in parts.items():
            sampled = np.empty((0, len(rows.done))) if rows.returns is None else rows.returns
            found.append(sampled[np.isin(periods[name], common)])
        return np.array(found)

    def _list_periods(self, name: str, span: tuple[int, int]) -> IntArray:
        part = self.members[name].market.slice(*span)
        period = max(parse_duration(self.sampling, "sampling"), part.interval)
        return np.asarray(part.time[mark_samples(part, self.sampling) != 0.0] // period)


def _report(progress: Progress, k: int, n: int, done: int, total: int) -> None:
    progress((k * total + done) // n, total)


def clip_spans(market: Markets, first: int, stop: int) -> dict[str, tuple[int, int]]:
    found = {}
    for name, (begins, ends) in zip(market.names, market.spans.tolist(), strict=True):
        span = max(first - begins, 0), min(stop, ends) - begins
        if span[1] - span[0] > 1:
            found[name] = span
    return found


def pool_rows(parts: Mapping[str, Rows], pool: Pool) -> Rows:
    first = next(iter(parts.values()))
    done = np.all([rows.done for rows in parts.values()], axis=0)
    errors = [
        next((f"{name}: {rows.errors[k]}" for name, rows in parts.items() if rows.errors[k]), "")
        for k in range(len(done))
    ]
    is_kept = done & (np.array(errors, dtype=object) == "")
    metrics = {}
    for name in first.metrics:
        values = np.array([rows.metrics[name] for rows in parts.values()])
        is_date = name in DATES  # those of one market are none of several
        pooled = np.nan if is_date else pool_measure(name, values, pool)
        metrics[name] = np.where(is_kept, pooled, np.nan)
    for name in OF_MARKETS:
        if name in first.metrics:
            metrics |= {f"{name} {one}": rows.metrics[name] for one, rows in parts.items()}
    return Rows(metrics, None, errors, done)


def pick(given: Any, name: str) -> Any:
    if isinstance(given, Mapping):
        if name not in given:
            raise ParameterError(
                f"venue and signal must be one for all markets, or one for each; {name} has none"
            )
        return given[name]
    return given[name] if hasattr(given, "columns") else given


def read_own_signal(signal: Any, market: Market) -> Any:
    if isinstance(signal, SignalRule):
        return signal
    return read_directions(signal, market).keep_times()
