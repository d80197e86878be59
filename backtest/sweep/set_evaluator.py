"""Evaluator: computes the measures of many parameter sets on one market."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from backtest.account import Account, without_flows_before
from backtest.account.account import GENERAL
from backtest.base import BoolArray, Flag, FloatArray, Whole, parse_size, set_single, warn_caller
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
    needs_general_loop,
    read_directions,
    resolve_signal,
    run,
)
from backtest.engine.signal_checks import NOT_CHECKED
from backtest.market import Markets
from backtest.measures.measure_table import CORE, OPTION_COSTS, PATH, STREAMED
from backtest.measures.run_facts import DATES
from backtest.policy import Policy
from backtest.sweep.lanes.lane_runner import LaneRunner
from backtest.sweep.lookahead_at_ends import RuleChecker
from backtest.sweep.pooling import Pooling
from backtest.sweep.set_rows import (
    Rows,
    add_equivalents,
    put_rows,
    put_spans,
    run_one_by_one,
    stack_returns,
    start_rows,
)
from backtest.sweep.sets.set_checks import find_contradictions
from backtest.sweep.sets.sets import (
    BaseTerms,
    Sets,
    Venues,
    build_overlay,
    build_signal,
    build_trio,
    count_sets,
    list_names,
    read_settings,
    take_sets,
)
from backtest.venue import OwnMargin

Signal: TypeAlias = "pd.Series | FloatArray | float | SignalRule | None"
Metrics = Literal["all", "core"] | tuple[str, ...]

OF_PATH = (*PATH, *DATES)
"""Measures that need the path of an account; dates are UTC nanoseconds."""


class EvaluatedBars(NamedTuple):
    first: int
    stop: int | None
    returns: bool


class Evaluator:
    pool: Pooling | None = None

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
        self.is_portfolio = isinstance(market, Markets)
        self.market = market = end_expired(market, venue)
        rule = signal if isinstance(signal, SignalRule) else None
        self.base = BaseTerms(
            policy, venue, account, rule, list_names(market), check_overlay(overlay)
        )
        self.settings = read_settings(self.base)
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
        has_options = self.is_portfolio and bool(self.market.options)
        return (*self.metrics, *(OPTION_COSTS if has_options else ()))

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
        return self.finish_rows(self._evaluate(sets, wanted, progress), returns)

    def finish_rows(self, rows: Rows, has_returns: bool) -> Rows:
        if not self.equivalents:
            return rows
        add_equivalents(
            rows, self.equivalents, count_periods(self.calendar, self.sampling, self.market)
        )
        return rows if has_returns else rows._replace(returns=None)

    def _evaluate(self, sets: Sets, wanted: EvaluatedBars, progress: Progress | None) -> Rows:
        set_single(False)  # many runs: compiled code is faster
        if self._is_apart(sets):
            return self._evaluate_plainly(sets, wanted, progress)
        if not self.plain_because:
            from backtest.sweep.lanes.lane_block import NotCompiled  # noqa: PLC0415 - numba loads with it

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

    def evaluate_spans(
        self, sets: Sets, spans: Sequence[tuple[int, int]], *, returns: bool = False
    ) -> list[Rows]:
        is_apart = self.base.signal is not None or self.is_portfolio or self._is_apart(sets)
        is_apart = is_apart or bool(self.equivalents or self.plain_because)
        if type(self).evaluate is not Evaluator.evaluate or is_apart:
            return [self.evaluate(sets, first=a, stop=b, returns=returns) for a, b in spans]
        from backtest.sweep.lanes.lane_block import NotCompiled  # noqa: PLC0415 - numba loads with it

        set_single(False)
        try:
            return self._evaluate_span_lanes(sets, spans, returns=returns)
        except NotCompiled:  # evaluate says why
            return [self.evaluate(sets, first=a, stop=b, returns=returns) for a, b in spans]

    def _evaluate_span_lanes(
        self, sets: Sets, spans: Sequence[tuple[int, int]], *, returns: bool
    ) -> list[Rows]:
        from backtest.sweep.lanes.span_runner import score_spans  # noqa: PLC0415 - numba loads with it

        tables = [start_rows(sets, self.metrics) for _ in spans]
        sampled: list[dict[int, FloatArray]] = [{} for _ in spans]
        broken = self._find_broken(sets)
        kept, faulty = np.flatnonzero(~broken), [np.flatnonzero(broken)]
        with contextlib.suppress(KeyboardInterrupt):
            scored = score_spans(self._runner(), take_sets(sets, kept), spans, returns=returns)
            for part, found in scored:
                places = kept[part]
                if isinstance(found, list):
                    whole = start_rows({"": places}, ())
                    rows = [whole._replace(**one._asdict(), done=~whole.done) for one in found]
                    put_spans(tables, places, rows, sampled)
                elif found is not None:
                    faulty.append(places)
            for places in filter(len, faulty):
                some = take_sets(sets, places)
                rows = [
                    self._evaluate_plainly(some, EvaluatedBars(a, b, returns), None)
                    for a, b in spans
                ]
                put_spans(tables, places, rows, sampled)
        pairs = zip(tables, sampled, strict=True)
        return [one._replace(returns=stack_returns(own, one) if returns else None)
                for one, own in pairs]  # fmt: skip

    def check_causal(self, sets: Sets) -> None:
        if not self.is_portfolio or self._is_portfolio_swept():
            self._runner().check_causal(sets)
            return
        from backtest.sweep.lookahead_at_ends import check_markets  # noqa: PLC0415 - numba loads with it

        RuleChecker(self.base, self.market).check(sets)
        check_markets(
            self.market,
            self.base,
            self.settings,
            sets,
            signal=resolve_signal(self.signal, self.market),
            memory=parse_size(self.memory, "memory"),
        )

    def check_set(self, values: Mapping[str, Any]) -> None:
        if not self.plain_because and (not self.is_portfolio or self._is_portfolio_swept()):
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
        few = [] if found is None or not found.is_weak else [str(found)]
        signal = describe_signal_check(self.signal)
        return few + ([signal] if signal == NOT_CHECKED else [])

    def map_members(self, change: Callable[[Evaluator], Evaluator]) -> Evaluator:
        return change(self)

    def describe_signals(self) -> str:
        return self._read_directions().describe()

    def keep_signals(self) -> Any:
        return self._read_directions().keep_times()

    def sample_returns(self, sets: Sets, *, first: int = 0, stop: int | None = None) -> FloatArray:
        """Return sampled returns of all sets, of shape (1, n_periods, n_sets)."""
        rows = self.evaluate(sets, first=first, stop=stop, returns=True)
        if not rows.done.all() or rows.returns is None:
            raise KeyboardInterrupt
        return rows.returns[None]

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
                if isinstance(found, tuple):
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
        if not (self.is_portfolio or self.are_checked):
            for rows, _ in find_contradictions(self.base, self.settings, sets):
                broken[rows] = True
        return broken

    def _runner(self) -> LaneRunner:
        if self._lanes is None and self.is_portfolio:
            # numba loads with these
            from backtest.sweep.portfolios.portfolio_runner import PortfolioRunner  # noqa: PLC0415
            from backtest.sweep.portfolios.rule_portfolios import RulePortfolios  # noqa: PLC0415

            self._lanes = (
                PortfolioRunner(self) if self.base.signal is None else RulePortfolios(self)
            )
        elif self._lanes is None and self.base.signal is not None:
            from backtest.sweep.lanes.rule_lanes import RuleLanes  # noqa: PLC0415 - numba loads with it

            self._lanes = RuleLanes(self)
        elif self._lanes is None:
            self._lanes = LaneRunner(self)
        runner: LaneRunner = self._lanes  # the others score and check in the same way
        return runner

    def _is_apart(self, sets: Sets) -> bool:
        if self.is_portfolio:
            return not self._is_portfolio_swept()
        base = self.base
        varied = any(name.removeprefix("account.") in GENERAL for name in sets)
        return varied or needs_general_loop(base.policy, base.venue, base.account)

    def _is_portfolio_swept(self) -> bool:
        is_own = isinstance(self.base.account.requirement, OwnMargin)
        return not (is_own or self.plain_because or self.market.options)

    def _evaluate_plainly(
        self, sets: Sets, wanted: EvaluatedBars, progress: Progress | None
    ) -> Rows:
        replay = partial(self.replay, first=wanted.first, stop=wanted.stop)
        return run_one_by_one(replay, sets, self.measured, wanted.returns, progress)

    def evaluate_path(self, sets: Sets, *, progress: Progress | None = None) -> Rows:
        return run_one_by_one(self.replay, sets, OF_PATH, False, progress)

    def replay(
        self, values: Mapping[str, object], *, first: int = 0, stop: int | None = None
    ) -> Result:
        policy, venue, account = build_trio(self.base, self.settings, values)
        market = self.market if stop is None else self.market.prefix(stop)
        if first > 0:
            account = without_flows_before(account, int(market.time[first]))
        begin: dict[str, Any] = {} if first == 0 else {"start": market.times[first]}
        if self.overlay is not None:
            begin["overlay"] = build_overlay(self.base, self.settings, values)
        result: Result = run(
            market,
            policy,
            venue=venue,
            account=account,
            signal=self.signal if self.base.signal is None else build_signal(self.base, values),
            sampling=self.sampling,
            calendar=self.calendar,
            compile=self.compile,
            **begin,
        )
        return result
