"""The procedure that a validation judges: policy, terms, space, objective and search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from backtest.account import Account
from backtest.base import (
    IntArray,
    ParameterError,
    compute_id,
    find_versions,
    format_time,
    parse_duration,
    to_plain,
)
from backtest.compare import measure_account
from backtest.engine import (
    Directions,
    Result,
    SignalRule,
    check_overlay,
    check_terms,
    describe_data,
    describe_venue,
    end_expired,
    read_directions,
    read_named,
    run,
    warn_of_market,
    widen_market,
)
from backtest.engine.checks import warn_once
from backtest.measures import read_constraints, read_objectives
from backtest.policy import Policy
from backtest.sweep import (
    BaseTerms,
    Trio,
    build_overlay,
    build_signal,
    build_trio,
    choose_evaluator,
    clip_spans,
    list_names,
    pick,
    pool_measure,
    read_accounts,
    read_pool,
    read_settings,
    read_space,
    refuse_pool,
    resolve_signals,
)
from backtest.tune import (
    Goal,
    OtherTrials,
    SpanTries,
    check_choices,
    choose_metrics,
    describe_market,
    describe_objective,
    describe_policy,
    find_other_trials,
    read_budget,
    read_left_out,
    read_robustness,
    record_look,
    record_tries,
)

if TYPE_CHECKING:
    from backtest.sweep import Evaluator, Metrics, Pooling, Space
    from backtest.tune import Robustness

TRIALS = 2_000
MEAN = read_pool("mean")
OF_EACH = ("log_growth", "sharpe", "total_return", "max_drawdown", "ruined")


@dataclass(frozen=True)
class SeparateAccounts:
    """A policy in an account of its own in each of several markets; measures are their means."""

    results: Mapping[str, Result]

    @cached_property
    def metrics(self) -> dict[str, float]:
        own = {f"{name} {of}": row[name] for name in OF_EACH for of, row in self._rows.items()}
        return {**self.pool(MEAN), **own}

    @cached_property
    def _rows(self) -> dict[str, dict[str, float]]:
        return {name: measure_account(each) for name, each in self.results.items()}

    def pool(self, pooling: Pooling) -> dict[str, float]:
        rows = [*self._rows.values()]
        return {
            name: float(pool_measure(name, np.array([[row[name]] for row in rows]), pooling)[0])
            for name in rows[0]
        }

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


def number_periods(result: Result) -> IntArray:
    every = parse_duration(str(result.manifest["sampling"]))
    ends = result.time[result.ends_sample != 0.0]
    return np.asarray(ends // max(every, result.interval))


def list_results(account: AnyAccount) -> list[Result]:
    return [account] if isinstance(account, Result) else [*account.results.values()]


class Procedure(NamedTuple):
    market: Any
    venue: Any
    account: Account
    signal: Any
    overlay: Policy | None
    sampling: str
    calendar: str
    compile: bool
    policy: type[Policy] | Policy
    space: Space
    goal: Goal
    objective: Any
    metrics: Metrics
    rule: Robustness
    is_robust: bool
    trials: int
    sampler: str
    seed: int
    threads: int | None
    memory: str
    signal_rule: SignalRule | None = None
    pool: Pooling | None = None
    left_out: Mapping[str, int] = MappingProxyType({})

    @property
    def n_left_out(self) -> int:
        return sum(self.left_out.values())

    @property
    def names(self) -> list[str]:
        return [each.name for each in self.space.dimensions]

    @property
    def base(self) -> BaseTerms:
        names = () if self.pool is not None else list_names(self.market)
        return BaseTerms(
            self.policy, self.venue, self.account, self.signal_rule, names, self.overlay
        )

    @property
    def terms(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("sampling", "calendar", "compile")}

    def take_market(self, name: str) -> Procedure:
        """Return the procedure of one of the markets of separate accounts."""
        return self._replace(
            market=self.market[name],
            venue=pick(self.venue, name),
            account=self.account.for_instrument(name),
            signal=pick(self.signal, name),
            pool=None,
        )

    def build_overlay(self, values: Mapping[str, Any]) -> Policy | None:
        return build_overlay(self.base, read_settings(self.base), values)

    def build_trio(self, values: Mapping[str, Any]) -> Trio:
        return build_trio(self.base, read_settings(self.base), values)

    def read_directions(self) -> Directions:
        return read_directions(self.signal, self.market, first=0)

    def slice_signal(self, stop: int) -> Any:
        if stop == self.market.n_bars:
            return self.signal
        return self.read_directions().take_first(stop)

    def build_evaluator(self) -> Evaluator:
        is_one = self.pool is None
        make = choose_evaluator(self.pool or "mean", is_separate=not is_one)
        signal = self.read_directions().keep_times() if is_one else self.signal
        return make(
            self.market,
            self.policy,
            venue=self.venue,
            account=self.account,
            signal=self.signal_rule or signal,
            overlay=self.overlay,
            metrics=self.metrics,
            threads=self.threads,
            memory=self.memory,
            **self.terms,
        )

    def run(
        self, values: Mapping[str, Any], first: int, stop: int, policy: Policy | None = None
    ) -> AnyAccount:
        """Run a set, or another policy in its place, on some bars with fresh capital."""
        if self.pool is not None:
            spans = clip_spans(self.market, first, stop)
            members = {name: self.take_market(name) for name in spans}
            found = {name: each.run(values, *spans[name], policy) for name, each in members.items()}
            return SeparateAccounts(found)  # type: ignore[arg-type] # one market is one result
        trio = self.build_trio(values)
        with warn_once(is_first=False):
            return run(
                self.market if stop == self.market.n_bars else self.market.prefix(stop),
                policy or trio.policy,
                venue=trio.venue,
                account=trio.account,
                signal=build_signal(self.base, values) or self.slice_signal(stop),
                overlay=self.build_overlay(values),
                start=self.market.times[first],
                **self.terms,
            )

    def find_times(self, first: int, stop: int) -> tuple[str, str]:
        """Return when some bars begin and end, as text in UTC."""
        end = int(self.market.time[stop - 1]) + self.market.interval
        return format_time(int(self.market.time[first])), format_time(end)

    def describe(self, kind: str, **settings: Any) -> dict[str, Any]:
        market, base = self.market, self.base
        held = describe_policy(base)
        members = [self] if self.pool is None else [self.take_market(n) for n in market.names]
        signals = dict.fromkeys(each.read_directions().describe() for each in members)
        manifest: dict[str, Any] = to_plain(
            {
                "kind": kind,
                "data": describe_data(
                    market, self.account, market.start, market.time + market.interval
                ),
                "policy": {**held, "text": f"{held['name']} over {', '.join(self.names)}"},
                "venue": describe_venue(self.venue),
                "account": self.account.to_dict(),
                "signal": "; ".join(signals),
                **({} if self.overlay is None else {"overlay": repr(self.overlay)}),
                **({} if self.pool is None else self.pool.describe()),
                **self.left_out,
                "sampling": self.sampling,
                "calendar": self.calendar,
                "space": self.space.describe(),
                "objective": describe_objective(self.objective),
                "constraints": [str(each) for each in self.goal.constraints],
                "trials": self.trials,
                "seed": self.seed,
                **settings,
                "versions": find_versions(),
            }
        )
        module = base.policy_class.__module__
        return {"id": compute_id(manifest), **manifest, "policy_module": module}


def read_procedure(arguments: Mapping[str, Any]) -> Procedure:
    given = SimpleNamespace(**{"sampler": "sobol", "robust": False, **arguments})
    venue, account, overlay = given.venue, given.account, given.overlay
    is_separate, market = read_accounts(given.accounts, given.market, given.venue)
    signal, pool = given.signal, read_pool(given.pool)
    if not is_separate:
        refuse_pool(given.pool)
        market, signal = widen_market(
            market, signal, policy=given.policy, venue=venue, account=account, overlay=overlay
        )
    market = end_expired(market, venue)
    if not is_separate:
        check_terms(market, given.policy, venue, account, given.sampling, given.calendar)
    warn_of_market(market, venue)
    number, _ = read_budget(TRIALS if given.trials is None else given.trials, None)
    check_choices(given.sampler, given.seed)
    named = read_named(signal, market)
    rule = named if isinstance(named, SignalRule) else None
    space = read_space(
        given.policy, given.space, fix=given.fix, account=account, venue=venue, signal=rule,
        names=() if is_separate else list_names(market), overlay=check_overlay(overlay),
    )  # fmt: skip
    single = check_search(space, given.objective)
    goal = Goal(read_objectives(single), read_constraints(given.constraints))
    same = ("sampling", "calendar", "compile", "policy", "sampler", "seed", "threads", "memory")
    return Procedure(
        **{name: getattr(given, name) for name in same},
        market=market,
        venue=venue,
        account=account,
        signal=resolve_signals(named, market, is_separate=is_separate),
        overlay=overlay,
        space=space,
        goal=goal,
        objective=single,
        metrics=choose_metrics(single, goal),
        rule=read_robustness(given.robust),
        is_robust=bool(given.robust),
        trials=TRIALS if number is None else number,
        signal_rule=rule if space.varies_signal else None,
        pool=pool if is_separate else None,
        left_out=read_left_out(given.markets_left_out),
    )


def check_search(space: Space, objective: Any) -> Any:
    names = [each.name for each in space.dimensions]
    dotted = [name for name in names if name.startswith(("account.", "venue."))]
    if dotted:
        raise ParameterError(
            "space of a validation must hold parameters of policies, overlay and signal, got "
            f"{', '.join(dotted)}; fix takes one value each"
        )
    if not isinstance(objective, list | tuple):
        return objective
    if len(objective) != 1:
        raise ParameterError(
            f"objective must be one, {{'sharpe': 1.0, 'turnover': -0.01}} for example, "
            f"got {len(objective)}"
        )
    return objective[0]


class Records(NamedTuple):
    """The sets that were tried and looked at, as lines of the store; nothing without one."""

    store: Path | None
    procedure: Procedure
    manifest: Mapping[str, Any]

    def _describe(self, identity: str, **times: str) -> dict[str, Any]:
        searched = times.pop("searched")
        data = {**describe_market(self.procedure.market), **times}
        facts = {"id": f"{self.manifest['id']}{identity}", "policy": self.manifest["policy"]}
        return {**facts, "data": data, "searched": searched}

    def count_tries(self, first: int, stop: int) -> OtherTrials:
        """Return what other searches tried on some of these bars."""
        start, end = self.procedure.find_times(first, stop)
        return find_other_trials(self.store, self._describe("", start=start, searched=end))

    def add_tries(self, spans: Sequence[SpanTries]) -> None:
        if self.store is not None:
            record_tries(self.store, self._describe("", searched=""), spans)

    def add_look(self, key: str, start: str, end: str, values: Mapping[str, Any]) -> None:
        if self.store is not None:
            record_look(self.store, self._describe(f"-{key}", searched=start, end=end), values)
