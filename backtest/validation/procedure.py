"""The procedure that a validation judges: policy, terms, space, objective and search."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from backtest.base.errors import ParameterError, VenueDateWarning
from backtest.base.json_values import to_plain
from backtest.base.phrases import Place
from backtest.base.result_identity import compute_id, find_versions
from backtest.compare.shared_terms import SharedTerms
from backtest.engine.cut_terms import end_expired
from backtest.engine.manifest import describe_data, describe_venue
from backtest.engine.named_signals import read_named, resolve_signal, widen_market
from backtest.engine.run_warnings import OF_EACH_RUN, warn_of_market
from backtest.engine.signal_rule import SignalRule
from backtest.engine.term_checks import check_terms
from backtest.market import Market, Markets
from backtest.measures.ranking import read_constraints, read_objectives
from backtest.sweep import Base, Evaluator
from backtest.sweep.sets.sets import build_signal, build_trio, names_signal, read_settings
from backtest.sweep.sets.space import Space, read_space
from backtest.tune.arguments import check_choices, choose_metrics, read_budget, read_robustness
from backtest.tune.study_identity import describe_objective, describe_policy
from backtest.tune.trial_evaluator import Goal

if TYPE_CHECKING:
    from backtest.account import Account
    from backtest.policy import Policy
    from backtest.sweep.evaluator import Metrics
    from backtest.sweep.sets.sets import Trio
    from backtest.tune.plateau import Robustness
    from backtest.venue import Venue

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
        """Policy, venue, account and rule of the signal whose settings sets replace."""
        return Base(self.policy, self.terms.venue, self.terms.account, self.signal_rule)

    def build_signal(self, values: Mapping[str, Any]) -> SignalRule | None:
        """Return the rule of the signal in one set; None if it is the same in all."""
        return build_signal(self.base, values)

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


def read_procedure(  # noqa: PLR0913 - the arguments of the public functions
    market: Market | Markets,
    policy: type[Policy] | Policy,
    *,
    call: str,
    venue: Venue | Mapping[str, Venue],
    account: Account,
    overlay: Policy | None,
    objective: Any,
    constraints: Mapping[str, str] | None,
    space: Mapping[str, Any] | None,
    fix: Mapping[str, Any] | None,
    trials: int | None,
    sampler: str,
    robust: bool | Robustness,
    seed: int,
    signal: Any,
    sampling: str,
    calendar: str,
    threads: int | None,
    memory: str,
    compile: bool,  # noqa: A002 - the word users know
) -> Procedure:
    """Return the checked arguments of a validation; ``call`` is the function they were given to."""
    market, signal = widen_market(market, signal, account, overlay, by_name=(venue,))
    market = end_expired(market, venue)
    check_terms(market, policy, venue, account, sampling, calendar)
    warn_of_market(market, venue)
    number, _ = read_budget(TRIALS if trials is None else trials, None)
    check_choices(sampler, seed)
    named = read_named(signal, market)
    rule = named if isinstance(named, SignalRule) else None
    found = read_space(policy, space, fix=fix, account=account, venue=venue, signal=rule)
    signal = resolve_signal(named, market)
    names = [each.name for each in found.dimensions]
    dotted = [name for name in names if "." in name and not names_signal([name])]
    if dotted:
        raise ParameterError(
            "a validation varies parameters of the policy and of the signal, got "
            f"{', '.join(dotted)}",
            where=Place("space", dotted[0], of=call),
            cure="fix fields of the account and the venue, one value each",
        )
    if isinstance(objective, list | tuple) and len(objective) != 1:
        raise ParameterError(
            f"a validation needs one objective, got {len(objective)}",
            where=Place("objective", of=call),
            cure="combine them with weights: {'sharpe': 1.0, 'turnover': -0.01}",
        )
    single = objective[0] if isinstance(objective, list | tuple) else objective
    goal = Goal(read_objectives(single), read_constraints(constraints))
    return Procedure(
        terms=SharedTerms(
            market, venue, account, signal, sampling, calendar, None, compile, overlay
        ),
        policy=policy,
        space=found,
        goal=goal,
        objective=single,
        metrics=choose_metrics(single, goal),
        rule=read_robustness(robust),
        is_robust=bool(robust),
        trials=TRIALS if number is None else number,
        sampler=sampler,
        seed=seed,
        threads=threads,
        memory=memory,
        signal_rule=rule if found.varies_signal else None,
    )
