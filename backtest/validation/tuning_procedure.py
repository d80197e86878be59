"""The procedure that a validation judges: policy, terms, space, objective and search."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from types import MappingProxyType, SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from backtest.base import (
    ParameterError,
    VenueDateWarning,
    compute_id,
    find_versions,
    to_plain,
)
from backtest.engine import (
    SignalRule,
    check_overlay,
    check_terms,
    describe_data,
    describe_venue,
    end_expired,
    read_named,
    warn_of_market,
    widen_market,
)
from backtest.engine.run_warnings import OF_EACH_RUN
from backtest.measures import read_constraints, read_objectives
from backtest.sweep import (
    BaseTerms,
    Space,
    build_overlay,
    build_signal,
    build_trio,
    choose_evaluator,
    list_names,
    read_accounts,
    read_pool,
    read_settings,
    read_space,
    refuse_pool,
    resolve_signals,
)
from backtest.tune import (
    Goal,
    check_choices,
    choose_metrics,
    describe_objective,
    describe_policy,
    read_budget,
    read_left_out,
    read_robustness,
)
from backtest.validation.terms import Terms

if TYPE_CHECKING:
    from backtest.policy import Policy
    from backtest.sweep import Evaluator, Metrics, Pooling, Trio
    from backtest.tune import Robustness

TRIALS = 2_000


@contextlib.contextmanager
def silence_runs() -> Iterator[None]:
    with warnings.catch_warnings():
        for category in (*OF_EACH_RUN, VenueDateWarning):
            warnings.simplefilter("ignore", category)
        yield


class Procedure(NamedTuple):
    terms: Terms
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

    def take_market(self, name: str) -> Procedure:
        return self._replace(terms=self.terms.take_market(name), pool=None)

    def list_members(self) -> list[Procedure]:
        if self.pool is None:
            return [self]
        return [self.take_market(name) for name in self.terms.market.names]

    @property
    def base(self) -> BaseTerms:
        terms = self.terms
        names = () if self.pool is not None else list_names(terms.market)
        return BaseTerms(
            self.policy, terms.venue, terms.account, self.signal_rule, names, terms.overlay
        )

    def build_signal(self, values: Mapping[str, Any]) -> SignalRule | None:
        return build_signal(self.base, values)

    def build_overlay(self, values: Mapping[str, Any]) -> Policy | None:
        return build_overlay(self.base, read_settings(self.base), values)

    def find_own_overlay(self, values: Mapping[str, Any]) -> Policy | None:
        found = self.build_overlay(values)
        return None if found is self.terms.overlay else found

    def build_trio(self, values: Mapping[str, Any]) -> Trio:
        return build_trio(self.base, read_settings(self.base), values)

    def build_evaluator(self) -> Evaluator:
        terms = self.terms
        is_one = self.pool is None
        make = choose_evaluator(self.pool or "mean", is_separate=not is_one)
        signal = terms.read_directions().keep_times() if is_one else terms.signal
        return make(
            terms.market,
            self.policy,
            venue=terms.venue,
            account=terms.account,
            signal=self.signal_rule or signal,
            overlay=terms.overlay,
            sampling=terms.sampling,
            calendar=terms.calendar,
            metrics=self.metrics,
            threads=self.threads,
            memory=self.memory,
            compile=terms.compile,
        )

    def describe(self, kind: str, **settings: Any) -> dict[str, Any]:
        terms, base = self.terms, self.base
        market = terms.market
        held = describe_policy(base)
        above = {} if terms.overlay is None else {"overlay": repr(terms.overlay)}
        manifest: dict[str, Any] = to_plain(
            {
                "kind": kind,
                "data": describe_data(
                    market, terms.account, market.start, market.time + market.interval
                ),
                "policy": {**held, "text": f"{held['name']} over {', '.join(self.names)}"},
                "venue": describe_venue(terms.venue),
                "account": terms.account.to_dict(),
                "signal": self.describe_signals(),
                **above,
                **({} if self.pool is None else self.pool.describe()),
                **self.left_out,
                "sampling": terms.sampling,
                "calendar": terms.calendar,
                "space": self.space.describe(),
                "objective": describe_objective(self.objective),
                "constraints": [str(each) for each in self.goal.constraints],
                "trials": self.trials,
                "seed": self.seed,
                **settings,
                "versions": find_versions(),
            }
        )
        return {
            "id": compute_id(manifest),
            **manifest,
            "policy_module": base.policy_class.__module__,
        }

    def describe_signals(self) -> str:
        each = [member.terms.read_directions().describe() for member in self.list_members()]
        return "; ".join(dict.fromkeys(each))

    @property
    def names(self) -> list[str]:
        return [each.name for each in self.space.dimensions]


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
    return Procedure(
        terms=Terms(
            market, venue, account, resolve_signals(named, market, is_separate=is_separate),
            given.sampling, given.calendar, given.compile, overlay,
        ),
        policy=given.policy,
        space=space,
        goal=goal,
        objective=single,
        metrics=choose_metrics(single, goal),
        rule=read_robustness(given.robust),
        is_robust=bool(given.robust),
        trials=TRIALS if number is None else number,
        sampler=given.sampler,
        seed=given.seed,
        threads=given.threads,
        memory=given.memory,
        signal_rule=rule if space.varies_signal else None,
        pool=pool if is_separate else None,
        left_out=read_left_out(given.markets_left_out),
    )  # fmt: skip


def require_mean(procedure: Procedure) -> None:
    pool = procedure.pool
    if pool is not None and not pool.is_mean:
        raise ParameterError(
            f"pool must be 'mean', which has returns to join, got {pool.name!r}; a walk forward "
            "takes others"
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
