"""Evaluators: they compute the measures of many parameter sets, on one market or in several."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from backtest.account import Account, list_shared_settings, without_flows_before
from backtest.account.account import WHOLE
from backtest.base import (
    BoolArray,
    Flag,
    FloatArray,
    IntArray,
    ParameterError,
    Whole,
    parse_duration,
    parse_size,
    set_single,
    warn_caller,
)
from backtest.engine import (
    Directions,
    Progress,
    Result,
    SignalRule,
    check_overlay,
    check_terms,
    count_periods,
    describe_signal_check,
    end_expired,
    join_checks,
    mark_samples,
    read_directions,
    resolve_signal,
    run,
)
from backtest.engine.checks import OF_EACH_RUN
from backtest.engine.signals import NOT_CHECKED
from backtest.market import Market, Markets, as_markets
from backtest.measures import certainty_equivalent, drawdown_dates, find_direction
from backtest.measures.measure_table import CORE, DATES, OPTION_COSTS, PATH, STREAMED
from backtest.measures.ranking import NEVER
from backtest.policy import Policy
from backtest.sweep.columns import RuleChecker, check_markets
from backtest.sweep.lanes.outcomes import NotCompiled, Scored
from backtest.sweep.sets import (
    BaseTerms,
    Sets,
    Venues,
    count_sets,
    find_contradictions,
    list_names,
    take_sets,
)
from backtest.venue import OwnMargin

NO_OPTIONS = dict.fromkeys(OPTION_COSTS, 0.0)


class Rows(NamedTuple):
    """Results of sets, in their order.

    ``metrics`` are arrays of shape (n_sets,) by name, NaN for a set that failed or was not done.
    ``returns`` of shape (n_samples, n_sets) are the sampled simple returns; None unless requested.
    ``errors`` says why a set failed, empty if it did not. ``done`` is False for sets that did not
    run because of Ctrl-C.
    """

    metrics: dict[str, FloatArray]
    returns: FloatArray | None
    errors: list[str]
    done: BoolArray


def start_rows(sets: Sets, names: tuple[str, ...]) -> Rows:
    n = count_sets(sets)
    metrics = {name: np.full(n, np.nan) for name in names}
    return Rows(metrics, None, [""] * n, np.zeros(n, dtype=np.bool_))


def put_rows(rows: Rows, places: IntArray, part: Rows, sampled: dict[int, FloatArray]) -> None:
    for name, column in rows.metrics.items():
        column[places] = part.metrics[name]
    for k, place in enumerate(places.tolist()):
        rows.errors[place] = part.errors[k]
        if part.returns is not None and part.done[k] and not part.errors[k]:
            sampled[place] = part.returns[:, k]
    rows.done[places] = part.done


def run_one_by_one(
    replay: Callable[[Mapping[str, object]], Result],
    sets: Sets,
    names: tuple[str, ...],
    returns: bool,
    progress: Progress | None,
) -> Rows:
    rows = start_rows(sets, names)
    metrics, n = rows.metrics, len(rows.done)
    sampled: dict[int, FloatArray] = {}
    with warnings.catch_warnings(record=True) as caught:
        for category in OF_EACH_RUN:
            warnings.simplefilter("ignore", category)
        try:
            for k in range(n):
                try:
                    result = replay(take_sets(sets, k))
                    dates = drawdown_dates(result.tally, result.span)
                    measured = {**NO_OPTIONS, **dates, **result.metrics}
                    for name in names:
                        metrics[name][k] = measured[name]
                    sampled[k] = result.returns.to_numpy() if returns else np.empty(0)
                except Exception as error:  # a policy may raise anything
                    rows.errors[k] = describe_error(error)
                rows.done[k] = True
                if progress is not None:
                    progress(k + 1, n)
        except KeyboardInterrupt:
            for column in metrics.values():
                column[~rows.done] = np.nan
    for text, kind in dict.fromkeys((str(each.message), each.category) for each in caught):
        warn_caller(text, kind)
    return rows._replace(returns=stack_returns(sampled, rows)) if returns else rows


def stack_returns(sampled: Mapping[int, FloatArray], rows: Rows) -> FloatArray:
    length = max((len(values) for values in sampled.values()), default=0)
    table = np.full((length, len(rows.done)), np.nan)
    for k, values in sampled.items():
        table[:, k] = values
    return table


def describe_error(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def add_equivalents(rows: Rows, names: Sequence[str], periods: float) -> None:
    sampled: Any = rows.returns
    for name in names:
        aversion, found = float(name.rpartition("_")[2]), np.full(len(rows.done), np.nan)
        for k in np.flatnonzero(rows.done & np.array([not each for each in rows.errors])):
            found[k] = certainty_equivalent(sampled[:, k], periods, aversion)
        rows.metrics[name] = found


Signal: TypeAlias = "pd.Series | FloatArray | float | SignalRule | None"
Metrics = Literal["all", "core"] | tuple[str, ...]

OF_PATH = (*PATH, *DATES)
"""Measures that need the path of an account; dates are UTC nanoseconds."""


class EvaluatedBars(NamedTuple):
    first: int
    stop: int | None
    returns: bool


class Evaluator:
    is_pooled = False  # whether accounts of several markets are

    def __init__(  # noqa: PLR0913 - keywords, most with a default
        self,
        market: Any,
        policy: type[Policy] | Policy,
        *,
        venue: Venues,
        account: Account,
        signal: Any = None,
        overlay: Policy | None = None,
        sampling: str = "1d",
        calendar: str = "365",
        metrics: Metrics = "all",
        threads: int | None = None,
        memory: str = "1GiB",
        compile: bool = True,  # noqa: A002 - the word users know
        are_checked: bool = False,
    ) -> None:
        """Make an evaluator; ``are_checked`` says that no set breaks a rule of account or venue."""
        self.is_alone = isinstance(market, Market)
        self.market = market = end_expired(market, venue)
        self.markets = as_markets(market)
        rule = signal if isinstance(signal, SignalRule) else None
        self.base = BaseTerms(
            policy, venue, account, rule, list_names(market), check_overlay(overlay)
        )
        self.signal = signal
        self.overlay = self.base.overlay
        self.sampling = sampling
        self.calendar = calendar
        self.equivalents = metrics if isinstance(metrics, tuple) else ()
        self.metrics = CORE if metrics == "core" else STREAMED
        self.threads = None if threads is None else Whole(1).check("threads", threads)
        self.memory = memory
        self.compile = Flag().check("compile", compile)
        self.are_checked = are_checked
        self.plain_because = "" if self.compile else "compile=False"
        self._lanes: Any = None  # a runner of lanes or of portfolios
        check_terms(market, policy, venue, account, sampling, calendar)

    @property
    def measured(self) -> tuple[str, ...]:
        return (*self.metrics, *(OPTION_COSTS if self.markets.options else ()))

    def evaluate(
        self,
        sets: Sets,
        *,
        first: int = 0,
        stop: int | None = None,
        returns: bool = False,
        progress: Progress | None = None,
    ) -> Rows:
        wanted = EvaluatedBars(first, stop, returns or bool(self.equivalents))
        rows = self._evaluate(sets, wanted, progress)
        if not self.equivalents:
            return rows
        add_equivalents(
            rows, self.equivalents, count_periods(self.calendar, self.sampling, self.market)
        )
        return rows if returns else rows._replace(returns=None)

    def _evaluate(self, sets: Sets, wanted: EvaluatedBars, progress: Progress | None) -> Rows:
        set_single(False)  # many runs: compiled code is faster
        if not self._is_swept():
            return self._evaluate_plainly(sets, wanted, progress)
        if not self.plain_because:
            try:
                return self._evaluate_lanes(sets, wanted, progress)
            except NotCompiled as reason:
                self.plain_because = str(reason)
                self.compile = False
            warn_caller(
                f"{self.base.policy_class.__name__} is swept in plain Python, some thousand times "
                f"slower: {self.plain_because}"
            )
        return self._evaluate_plainly(sets, wanted, progress)

    def check_causal(self, sets: Sets) -> None:
        if self._is_swept():
            self._runner().check_causal(sets)
            return
        RuleChecker(self.base, self.market).check(sets)
        check_markets(
            self.markets,
            self.base,
            sets,
            signal=resolve_signal(self.signal, self.market),
            memory=parse_size(self.memory, "memory"),
            is_alone=self.is_alone,
        )

    def check_set(self, values: Mapping[str, Any]) -> None:
        if self._is_swept():
            self._runner().check_set(values)

    @property
    def causality(self) -> str:
        found = None if self._lanes is None else self._lanes.causality
        columns = found or "columns checked in every run"
        if self.base.signal is not None:
            return f"{columns}; signal checked at both ends of its parameters, and in the best set"
        return join_checks(columns, self.signal)

    @property
    def doubts(self) -> list[str]:
        found = None if self._lanes is None else self._lanes.causality
        few = [str(found)] if found is not None and (found.is_weak or found.given) else []
        signal = describe_signal_check(self.signal)
        return few + ([signal] if signal == NOT_CHECKED else [])

    def map_members(self, change: Callable[[Evaluator], Evaluator]) -> Evaluator:
        return change(self)

    def describe_signals(self) -> str:
        return self._read_directions().describe()

    def keep_signals(self) -> Any:
        return self._read_directions().keep_times()

    def describe_pool(self) -> dict[str, str]:
        return {}

    def _read_directions(self) -> Directions:
        return read_directions(resolve_signal(self.signal, self.market), self.market)

    def copy_fallback(self, other: Evaluator) -> None:
        self.plain_because, self.compile = other.plain_because, other.compile

    def _evaluate_lanes(self, sets: Sets, wanted: EvaluatedBars, progress: Progress | None) -> Rows:
        rows = start_rows(sets, self.metrics)
        sampled: dict[int, FloatArray] = {}
        broken = self._find_broken(sets)
        kept = np.flatnonzero(~broken)
        faulty = [np.flatnonzero(broken)]  # the run of each set gives the reason
        try:
            for part, found in self._runner().score(take_sets(sets, kept), **wanted._asdict()):
                places = kept[part]
                if isinstance(found, Scored):
                    whole = start_rows({"": places}, ())
                    scored = whole._replace(**found._asdict(), done=~whole.done)
                    put_rows(rows, places, scored, sampled)
                elif found is not None:
                    faulty.append(places)
                if progress is not None:
                    progress(int(rows.done.sum()), len(rows.done))
            for places in faulty:
                if len(places):
                    plain = self._evaluate_plainly(take_sets(sets, places), wanted, None)
                    put_rows(rows, places, plain, sampled)
        except KeyboardInterrupt:
            pass
        return rows._replace(returns=stack_returns(sampled, rows)) if wanted.returns else rows

    def _find_broken(self, sets: Sets) -> BoolArray:
        broken = np.zeros(count_sets(sets), dtype=np.bool_)
        if self.is_alone and not self.are_checked:
            for rows, _ in find_contradictions(self.base, sets):
                broken[rows] = True
        return broken

    def _runner(self) -> Any:
        if self._lanes is None:
            # numba loads with these
            from backtest.sweep.lanes.rule_lanes import RuleLanes  # noqa: PLC0415
            from backtest.sweep.lanes.runner import LaneRunner  # noqa: PLC0415

            own = LaneRunner if self.base.signal is None else RuleLanes
            self._lanes = own(self)
        return self._lanes

    def _is_swept(self) -> bool:
        is_own = isinstance(self.base.account.requirement, OwnMargin)
        return not (is_own or self.plain_because or self.markets.options)

    def _evaluate_plainly(
        self, sets: Sets, wanted: EvaluatedBars, progress: Progress | None
    ) -> Rows:
        replay = partial(self.replay, first=wanted.first, stop=wanted.stop)
        return run_one_by_one(replay, sets, self.measured, wanted.returns, progress)

    def evaluate_path(self, sets: Sets) -> Rows:
        return run_one_by_one(self.replay, sets, OF_PATH, False, None)

    def replay(
        self, values: Mapping[str, object], *, first: int = 0, stop: int | None = None
    ) -> Result:
        policy, venue, account = self.base.build_trio(values)
        market = self.market if stop is None else self.market.prefix(stop)
        if first > 0:
            account = without_flows_before(account, int(market.time[first]))
        begin: dict[str, Any] = {} if first == 0 else {"start": market.times[first]}
        if self.overlay is not None:
            begin["overlay"] = self.base.build_overlay(values)
        result: Result = run(
            market,
            policy,
            venue=venue,
            account=account,
            signal=self.signal if self.base.signal is None else self.base.build_signal(values),
            sampling=self.sampling,
            calendar=self.calendar,
            compile=self.compile,
            **begin,
        )
        return result


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
        self.equivalents = ()  # the members add theirs
        self.base = BaseTerms(policy, venue, account, first.base.signal)

    def _evaluate(self, sets: Sets, wanted: EvaluatedBars, progress: Progress | None) -> Rows:
        stop = self.market.n_bars if wanted.stop is None else wanted.stop
        spans = self.find_spans(wanted.first, stop)
        parts, n = {}, len(spans)
        for k, (name, (a, b)) in enumerate(spans.items()):
            told = None if progress is None else functools.partial(_report, progress, k, n)
            parts[name] = self.members[name].evaluate(
                sets, first=a, stop=b, returns=wanted.returns, progress=told
            )
        rows = pool_rows(parts, self.pool)
        if not wanted.returns:
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
