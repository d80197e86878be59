"""Evaluator: computes the measures of many sets on one market."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from backtest.account.account import Account, without_flows_before
from backtest.base.compile_choice import set_hurry
from backtest.base.errors import BacktestError
from backtest.base.fields import Whole
from backtest.base.units import BoolArray, FloatArray, IntArray, parse_size, utc_index
from backtest.engine.lookahead.checked_signals import (
    NOT_CHECKED,
    describe_signal_check,
    join_checks,
)
from backtest.engine.loop_driver import Progress
from backtest.engine.result import Result
from backtest.engine.run import check_settings, run
from backtest.engine.run_warnings import OF_EACH_RUN
from backtest.market.market import Market
from backtest.measures.run_measures import CORE, DATES, METRICS, PATH, drawdown_dates
from backtest.policy.policy import Policy
from backtest.sweep.sets.set_checks import find_broken_rules
from backtest.sweep.sets.sets import Base, Sets, build_trio, count_sets, iterate_sets, read_settings
from backtest.venue.venue import Venue

if TYPE_CHECKING:
    from backtest.sweep.lanes.lane_block import Scored
    from backtest.sweep.lanes.lane_runner import LaneRunner

Signal: TypeAlias = "pd.Series | FloatArray | float | None"
Metrics = Literal["all", "core"]

STREAMED = tuple(name for name in METRICS if name not in PATH)
"""Measures that accumulate bar by bar: those of ``metrics="all"``."""
OF_PATH = (*PATH, *DATES)
"""Measures that need the path of an account; dates are UTC nanoseconds."""


class Rows(NamedTuple):
    """Results of sets, in their order.

    metrics : arrays of shape (n_sets,) by name, NaN for a set that failed or was not done.
    returns : array of shape (n_samples, n_sets), the sampled simple returns; None unless asked for.
    errors : one text per set, the reason of its failure or empty.
    done : bool array of shape (n_sets,), False for sets that Ctrl-C prevented.
    """

    metrics: dict[str, FloatArray]
    returns: FloatArray | None
    errors: list[str]
    done: BoolArray


class Evaluator:
    """Computes the measures of sets of parameters for a market, policy, venue and account.

    Parameters
    ----------
    market, venue, account, signal, sampling, calendar, compile
        As in :func:`backtest.run`.
    policy : type or Policy
        A policy class, or an instance whose settings are used unless sets have others.
    metrics : str
        ``"all"`` measures that need no path, or ``"core"``.
    threads : int, optional
        Threads to use; default all cores.
    memory : str
        Limit for the columns of policies, for example ``"1GiB"``.
    """

    def __init__(
        self,
        market: Market,
        policy: type[Policy] | Policy,
        *,
        venue: Venue,
        account: Account,
        signal: Signal = None,
        sampling: str = "1d",
        calendar: str = "365",
        metrics: Metrics = "all",
        threads: int | None = None,
        memory: str = "1GiB",
        compile: bool = True,  # noqa: A002 - the word users know
    ) -> None:
        self.market = market
        self.base = Base(policy, venue, account)
        self.settings = read_settings(self.base)
        self.signal = signal
        self.sampling = sampling
        self.calendar = calendar
        self.metrics = STREAMED if metrics == "all" else CORE
        self.threads = (
            None if threads is None else Whole(1).check("threads", threads, where="threads")
        )
        self.memory = memory
        self.compile = compile
        self.plain_because = "" if compile else "compile=False"
        self._lanes: LaneRunner | None = None
        check_settings(market, account, venue, sampling, calendar)

    def evaluate(
        self,
        sets: Sets,
        *,
        first: int = 0,
        stop: int | None = None,
        returns: bool = False,
        progress: Progress | None = None,
    ) -> Rows:
        """Return the measures of all sets.

        Parameters
        ----------
        sets : mapping of str to array of shape (n_sets,)
            As :func:`backtest.sweep.sets.space.check_sets` returns them.
        first, stop : int
            The account runs from bar ``first``, with fresh capital, up to bar ``stop``; the columns
            of the policy are computed on all bars before ``stop``.
        returns : bool
            Whether to return the sampled returns too.
        progress : callable, optional
            Called with sets done and sets in all.
        """
        set_hurry(False)  # many runs: compiled code is faster
        if self.plain_because:
            return self._evaluate_plainly(sets, first, stop, returns, progress)
        from backtest.sweep.lanes.lane_block import NotCompiled  # noqa: PLC0415 - numba loads with it

        try:
            return self._evaluate_lanes(sets, first, stop, returns, progress)
        except NotCompiled as reason:
            self.plain_because = str(reason)
            self.compile = False
        warnings.warn(
            f"{self.base.policy_class.__name__} is swept in plain Python, some thousand times "
            f"slower: {self.plain_because}",
            stacklevel=3,
        )
        return self._evaluate_plainly(sets, first, stop, returns, progress)

    def check_causal(self, sets: Sets) -> None:
        """Raise if the columns look ahead, in sets with each option and each bound of a number.

        In plain Python, every run does this check itself.
        """
        if not self.plain_because:
            self._runner().check_causal(sets)

    def check_set(self, values: Mapping[str, Any]) -> None:
        """Raise if the columns of one set look ahead."""
        if not self.plain_because:
            self._runner().check_set(values)

    @property
    def causality(self) -> str:
        """How columns and signal were checked for looking ahead."""
        found = None if self._lanes is None else self._lanes.causality
        return join_checks(found or "columns checked in every run", self.signal)

    @property
    def doubts(self) -> list[str]:
        """Sentences about columns and a signal that were not checked enough."""
        found = None if self._lanes is None else self._lanes.causality
        few = [] if found is None or not found.is_weak else [str(found)]
        signal = describe_signal_check(self.signal)
        return few + ([signal] if signal == NOT_CHECKED else [])

    def follow(self, other: Evaluator) -> None:
        """Run in plain Python if another evaluator of the same policy has to."""
        self.plain_because, self.compile = other.plain_because, other.compile

    def _evaluate_lanes(
        self,
        sets: Sets,
        first: int,
        stop: int | None,
        returns: bool,
        progress: Progress | None,
    ) -> Rows:
        rows = start_rows(sets, self.metrics)
        sampled: dict[int, FloatArray] = {}
        faulty: list[IntArray] = []
        broken = self._find_broken(sets)
        if broken.any():  # the run of each set gives the reason
            faulty.append(np.flatnonzero(broken))
        kept = np.flatnonzero(~broken)
        some = {name: values[kept] for name, values in sets.items()}
        try:
            for part, found in self._runner().score(
                some, first=first, stop=stop, has_returns=returns
            ):
                places = kept[part]
                if isinstance(found, tuple):
                    put_block(rows, places, found, sampled)
                elif found is not None:
                    faulty.append(places)
                if progress is not None:
                    progress(int(rows.done.sum()), len(rows.done))
            for places in faulty:  # some set of the block fails: run each alone
                few = {name: values[places] for name, values in sets.items()}
                plain = self._evaluate_plainly(few, first, stop, returns, None)
                put_plain(rows, places, plain, sampled)
        except KeyboardInterrupt:
            pass
        return rows._replace(returns=stack(sampled, len(rows.done))) if returns else rows

    def _find_broken(self, sets: Sets) -> BoolArray:
        """Return which sets break a rule between their values."""
        broken = np.zeros(count_sets(sets), dtype=np.bool_)
        if any("." in name for name in sets):
            for rule in find_broken_rules(self.settings, sets, self.base.venue):
                broken |= np.asarray(rule, dtype=np.bool_)
        return broken

    def _runner(self) -> LaneRunner:
        if self._lanes is None:
            from backtest.sweep.lanes.lane_runner import LaneRunner  # noqa: PLC0415 - numba loads with it

            self._lanes = LaneRunner(
                self.market,
                self.base,
                self.settings,
                signal=self.signal,
                sampling=self.sampling,
                calendar=self.calendar,
                is_full=self.metrics == STREAMED,
                threads=self.threads,
                memory=parse_size(self.memory, where="memory"),
            )
        return self._lanes

    def _evaluate_plainly(
        self,
        sets: Sets,
        first: int,
        stop: int | None,
        returns: bool,
        progress: Progress | None,
    ) -> Rows:
        def replay(values: Mapping[str, object]) -> Result:
            return self.replay(values, first=first, stop=stop)

        names = self.metrics
        return evaluate_plainly(replay, sets, names=names, returns=returns, progress=progress)

    def evaluate_path(self, sets: Sets, *, progress: Progress | None = None) -> Rows:
        """Return the measures that need the path of an account, from a run of each set."""
        return evaluate_plainly(self.replay, sets, names=OF_PATH, returns=False, progress=progress)

    def replay(
        self, values: Mapping[str, object], *, first: int = 0, stop: int | None = None
    ) -> Result:
        """Return the full run of one set."""
        policy, venue, account = build_trio(self.base, self.settings, values)
        market = self.market if stop is None else self.market.prefix(stop)
        if first > 0:
            account = without_flows_before(account, int(market.time[first]))
        begin: dict[str, Any] = {} if first == 0 else {"start": utc_index(market.time)[first]}
        return run(
            market,
            policy,
            venue=venue,
            account=account,
            signal=self.signal,
            sampling=self.sampling,
            calendar=self.calendar,
            compile=self.compile,
            **begin,
        )


def start_rows(sets: Sets, names: tuple[str, ...]) -> Rows:
    """Return empty rows."""
    n = count_sets(sets)
    metrics = {name: np.full(n, np.nan) for name in names}
    return Rows(metrics, None, [""] * n, np.zeros(n, dtype=np.bool_))


def put_block(rows: Rows, places: IntArray, found: Scored, sampled: dict[int, FloatArray]) -> None:
    """Write the measures of a block into its rows."""
    for name, column in rows.metrics.items():
        column[places] = found.metrics[name]
    sampled.update(zip(places.tolist(), found.returns.T, strict=True))
    rows.done[places] = True


def put_plain(rows: Rows, places: IntArray, part: Rows, sampled: dict[int, FloatArray]) -> None:
    """Write the measures of sets that ran one by one into their rows."""
    for name, column in rows.metrics.items():
        column[places] = part.metrics[name]
    for k, place in enumerate(places.tolist()):
        rows.errors[place] = part.errors[k]
        if part.returns is not None and part.done[k] and not part.errors[k]:
            sampled[place] = part.returns[:, k]
    rows.done[places] = part.done


def evaluate_plainly(
    replay: Callable[[Mapping[str, object]], Result],
    sets: Sets,
    *,
    names: tuple[str, ...],
    returns: bool,
    progress: Progress | None,
) -> Rows:
    """Run sets one by one and return their measures; Ctrl-C returns what is done."""
    rows = start_rows(sets, names)
    metrics, n = rows.metrics, len(rows.done)
    sampled: dict[int, FloatArray] = {}
    with warnings.catch_warnings(record=True) as caught:
        for category in OF_EACH_RUN:
            warnings.simplefilter("ignore", category)
        try:
            for k, values in enumerate(iterate_sets(sets)):
                try:
                    result = replay(values)
                    measured = {**drawdown_dates(result.tally, result.span), **result.metrics}
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
    repeat_once(caught)
    return rows._replace(returns=stack(sampled, n)) if returns else rows


def stack(sampled: Mapping[int, FloatArray], n: int) -> FloatArray:
    """Return the returns of all sets as columns, NaN for sets without any."""
    length = max((len(values) for values in sampled.values()), default=0)
    table = np.full((length, n), np.nan)
    for k, values in sampled.items():
        table[:, k] = values
    return table


def describe_error(error: Exception) -> str:
    """Return an error as one line of text."""
    text = f"{error.problem} ({error.where})" if isinstance(error, BacktestError) else str(error)
    return " ".join(f"{type(error).__name__}: {text}".split())


def repeat_once(caught: list[warnings.WarningMessage]) -> None:
    """Repeat each different warning once."""
    for text, kind in dict.fromkeys((str(each.message), each.category) for each in caught):
        warnings.warn(text, kind, stacklevel=4)
