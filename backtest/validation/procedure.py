"""The procedure that a validation judges: policy, terms, space, objective and search."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from backtest.account import Account
from backtest.base import ParameterError, compute_id, find_versions, to_plain
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
from backtest.measures import read_constraints, read_objective
from backtest.policy import Policy
from backtest.sweep import (
    BaseTerms,
    Evaluator,
    Trio,
    build_overlay,
    build_signal,
    build_trio,
    list_names,
    read_accounts,
    read_settings,
    read_space,
    resolve_signals,
)
from backtest.tune import (
    Goal,
    check_choices,
    choose_metrics,
    describe_objective,
    describe_policy,
    read_budget,
    read_robustness,
)

if TYPE_CHECKING:
    from backtest.sweep import Metrics, Space
    from backtest.tune import Robustness

TRIALS = 2_000


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

    @property
    def names(self) -> list[str]:
        return [each.name for each in self.space.dimensions]

    @property
    def base(self) -> BaseTerms:
        names = list_names(self.market)
        return BaseTerms(
            self.policy, self.venue, self.account, self.signal_rule, names, self.overlay
        )

    @property
    def terms(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("sampling", "calendar", "compile")}

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
        return Evaluator(
            self.market,
            self.policy,
            venue=self.venue,
            account=self.account,
            signal=self.signal_rule or self.read_directions().keep_times(),
            overlay=self.overlay,
            metrics=self.metrics,
            threads=self.threads,
            memory=self.memory,
            **self.terms,
        )

    def run(
        self, values: Mapping[str, Any], first: int, stop: int, policy: Policy | None = None
    ) -> Result:
        """Run a set, or another policy in its place, on some bars with fresh capital."""
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

    def describe(self, kind: str, **settings: Any) -> dict[str, Any]:
        market, base = self.market, self.base
        held = describe_policy(base)
        manifest: dict[str, Any] = to_plain(
            {
                "kind": kind,
                "data": describe_data(
                    market, self.account, market.start, market.time + market.interval
                ),
                "policy": {**held, "text": f"{held['name']} over {', '.join(self.names)}"},
                "venue": describe_venue(self.venue),
                "account": self.account.to_dict(),
                "signal": self.read_directions().describe(),
                **({} if self.overlay is None else {"overlay": repr(self.overlay)}),
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
    _, market = read_accounts("shared", given.market)
    market, signal = widen_market(
        market, given.signal, policy=given.policy, venue=venue, account=account,
        overlay=overlay,
    )  # fmt: skip
    market = end_expired(market, venue)
    check_terms(market, given.policy, venue, account, given.sampling, given.calendar)
    warn_of_market(market, venue)
    number, _ = read_budget(TRIALS if given.trials is None else given.trials, None)
    check_choices(given.sampler, given.seed)
    named = read_named(signal, market)
    rule = named if isinstance(named, SignalRule) else None
    space = read_space(
        given.policy, given.space, fix=given.fix, account=account, venue=venue, signal=rule,
        names=list_names(market), overlay=check_overlay(overlay),
    )  # fmt: skip
    check_space(space)
    goal = Goal(read_objective(given.objective), read_constraints(given.constraints))
    same = ("sampling", "calendar", "compile", "policy", "sampler", "seed", "threads", "memory")
    return Procedure(
        **{name: getattr(given, name) for name in same},
        market=market,
        venue=venue,
        account=account,
        signal=resolve_signals(named, market, is_separate=False),
        overlay=overlay,
        space=space,
        goal=goal,
        objective=given.objective,
        metrics=choose_metrics(given.objective, goal),
        rule=read_robustness(given.robust),
        is_robust=bool(given.robust),
        trials=TRIALS if number is None else number,
        signal_rule=rule if space.varies_signal else None,
    )


def check_space(space: Space) -> None:
    names = [each.name for each in space.dimensions]
    dotted = [name for name in names if name.startswith(("account.", "venue."))]
    if dotted:
        raise ParameterError(
            "space of a validation must hold parameters of policies, overlay and signal, got "
            f"{', '.join(dotted)}; fix takes one value each"
        )
