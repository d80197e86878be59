"""The procedure that a validation judges: policy, terms, space, objective and search."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from backtest.base.errors import ParameterError, VenueDateWarning
from backtest.base.json_values import to_plain
from backtest.base.phrases import Place
from backtest.base.result_identity import compute_id, find_versions
from backtest.compare.shared_terms import SharedTerms
from backtest.engine.cut_terms import end_expired
from backtest.engine.loop_choice import widen_market
from backtest.engine.manifest import describe_data, describe_venue
from backtest.engine.named_signals import read_named, resolve_signal
from backtest.engine.portfolio_policies import check_overlay
from backtest.engine.run_warnings import OF_EACH_RUN, warn_of_market
from backtest.engine.signal_rule import SignalRule
from backtest.engine.term_checks import check_terms
from backtest.measures.ranking import read_constraints, read_objectives
from backtest.sweep import Base, Evaluator
from backtest.sweep.sets.sets import (
    build_overlay,
    build_signal,
    build_trio,
    list_names,
    read_settings,
)
from backtest.sweep.sets.space import Space, read_space
from backtest.tune.arguments import check_choices, choose_metrics, read_budget, read_robustness
from backtest.tune.study_identity import describe_objective, describe_policy
from backtest.tune.trial_evaluator import Goal

if TYPE_CHECKING:
    from backtest.policy import Policy
    from backtest.sweep.evaluator import Metrics
    from backtest.sweep.sets.sets import Trio
    from backtest.tune.plateau import Robustness

TRIALS = 2_000


@contextlib.contextmanager
def quiet_runs() -> Iterator[None]:
    """Silence the warnings that a validation gives once, not for each of its runs."""
    with warnings.catch_warnings():
        for category in (*OF_EACH_RUN, VenueDateWarning):
            warnings.simplefilter("ignore", category)
        yield


class Procedure(NamedTuple):
    """How parameters are chosen, on which market, and under which terms.

    ``signal_rule`` is the rule of the signal if its parameters vary or are fixed, otherwise None.
    """

    terms: SharedTerms
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
    def base(self) -> Base:
        """Policies, venue, account, rule of the signal and overlay whose settings sets replace."""
        terms = self.terms
        names = list_names(terms.market)
        return Base(self.policy, terms.venue, terms.account, self.signal_rule, names, terms.overlay)

    def build_signal(self, values: Mapping[str, Any]) -> SignalRule | None:
        """Return the rule of the signal in one set; None if it is the same in all."""
        return build_signal(self.base, values)

    def build_overlay(self, values: Mapping[str, Any]) -> Policy | None:
        """Return the overlay of one set, if there is any."""
        return build_overlay(self.base, read_settings(self.base), values)

    def find_own_overlay(self, values: Mapping[str, Any]) -> Policy | None:
        """Return the overlay of one set if sets have overlays of their own, else None."""
        found = self.build_overlay(values)
        return None if found is self.terms.overlay else found

    def build_trio(self, values: Mapping[str, Any]) -> Trio:
        """Return the policy, venue and account of one set."""
        return build_trio(self.base, read_settings(self.base), values)

    def build_evaluator(self) -> Evaluator:
        """Return the evaluator of sets on the whole market."""
        terms = self.terms
        return Evaluator(
            terms.market,
            self.policy,
            venue=terms.venue,
            account=terms.account,
            signal=self.signal_rule or terms.read_directions().keep_times(),
            overlay=terms.overlay,
            sampling=terms.sampling,
            calendar=terms.calendar,
            metrics=self.metrics,
            threads=self.threads,
            memory=self.memory,
            compile=terms.compile,
        )

    def describe(self, kind: str, **settings: Any) -> dict[str, Any]:
        """Return everything that decides the numbers, with an ``id`` made of it."""
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
                "signal": terms.describe_signal(),
                **above,
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

    @property
    def names(self) -> list[str]:
        """The parameters that vary."""
        return [each.name for each in self.space.dimensions]


def read_procedure(call: str, arguments: Mapping[str, Any]) -> Procedure:
    """Return the checked arguments of a validation.

    ``call`` is the function that they were given to, ``arguments`` its ``locals()`` before any
    other statement. One without a search of its own draws its sets as Sobol points.
    """
    given = SimpleNamespace(**{"sampler": "sobol", "robust": False, **arguments})
    venue, account, overlay = given.venue, given.account, given.overlay
    market, signal = widen_market(
        given.market,
        given.signal,
        policy=given.policy,
        venue=venue,
        account=account,
        overlay=overlay,
    )
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
    single = check_search(call, space, given.objective)
    goal = Goal(read_objectives(single), read_constraints(given.constraints))
    return Procedure(
        terms=SharedTerms(
            market, venue, account, resolve_signal(named, market), given.sampling, given.calendar,
            None, given.compile, overlay,
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
    )  # fmt: skip


def check_search(call: str, space: Space, objective: Any) -> Any:
    """Return the only objective; raise if there are several, or terms of the account vary."""
    names = [each.name for each in space.dimensions]
    dotted = [name for name in names if name.startswith(("account.", "venue."))]
    if dotted:
        raise ParameterError(
            "a validation varies parameters of policies, overlay and signal, got "
            f"{', '.join(dotted)}",
            where=Place("space", dotted[0], of=call),
            cure="fix fields of the account and the venue, one value each",
        )
    if not isinstance(objective, list | tuple):
        return objective
    if len(objective) != 1:
        raise ParameterError(
            f"a validation needs one objective, got {len(objective)}",
            where=Place("objective", of=call),
            cure="combine them with weights: {'sharpe': 1.0, 'turnover': -0.01}",
        )
    return objective[0]
