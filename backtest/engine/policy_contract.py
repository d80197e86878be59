"""The contract every policy keeps, checked on a policy class: what ``backtest check`` runs.

Each check is a function that returns what it saw, or raises what is wrong. A policy may do anything
in its own code: whatever it raises becomes a finding.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np

from backtest.base.errors import BacktestError
from backtest.base.ranges import Range
from backtest.base.units import FloatArray
from backtest.contract_class import (
    check_class,
    check_defaults,
    check_docstring,
    check_memory,
    check_ranges,
    check_repr,
    check_settings,
)
from backtest.contract_trial import ACCOUNTS, BrokenContractError, Trial, choose_market
from backtest.engine.contract_runs import (
    check_causal_columns,
    check_causal_decisions,
    check_columns,
    check_compiled,
    check_finite,
    check_repeatable,
    check_runs,
)
from backtest.market.market import Market
from backtest.policy.combinators import Combinator
from backtest.policy.policy import Policy


class Finding(NamedTuple):
    """What one check found; ``detail`` says what was seen, or what is wrong and what to do."""

    name: str
    passed: bool
    detail: str


class Last(NamedTuple):
    """What the probe decided last."""

    leverage: float


class Probe(Policy):
    """Ask for less in bars that move far: a policy with a column and a memory."""

    most: Annotated[float, Range(0.1, 10.0, "turns of equity")] = 2.0

    def observe(self, market: Any) -> dict[str, FloatArray]:
        """Return how far a bar moved."""
        return {"move": np.log(market.high / market.low)}

    def start(self) -> Last:
        """Return a memory of 1x."""
        return Last(1.0)

    def leverage(self, bar: Any, account: Any, memory: Last) -> tuple[float, Last]:  # noqa: ARG002 - the signature of a formula
        """Return the mean of the last decision and of the most over 1 + 100 moves."""
        decided = 0.5 * memory.leverage + 0.5 * self.most / (1.0 + 100.0 * bar.move)
        return decided, Last(decided)


class Check(NamedTuple):
    """One check; where a gate fails, the checks after it have no footing and are left out."""

    name: str
    test: Callable[[Trial], str]
    is_gate: bool


def check_policy(
    policy_class: type[Policy], market: Market | None = None, *, accounts: Sequence[str] = ACCOUNTS
) -> list[Finding]:
    """Return what the contract finds in a policy class, in the order of :data:`CHECKS`.

    Parameters
    ----------
    policy_class : type
        A subclass of Policy whose parameters all have defaults. A combinator without policies is
        tried over :class:`Probe`.
    market : Market, optional
        What it is tried on: its first year of hours at most. Default: a synthetic perpetual
        future, as long as the policy needs to become warm.
    accounts : sequence of str
        What it is tried in, of ``"cross"``, ``"isolated"`` and ``"inverse"``; each compiles.

    Returns
    -------
    list of Finding
        It ends early where a check fails that the later ones build upon. Nothing is raised.

    Notes
    -----
    The first time in a new version of the engine this takes a minute: the rules compile. After
    that, some seconds.
    """
    if isinstance(policy_class, type) and issubclass(policy_class, Combinator):
        policy_class = policy_class if policy_class.parts else over_probes(policy_class)
    trial = Trial(policy_class, choose_market(policy_class, market), tuple(accounts))
    findings = []
    for check in CHECKS:
        finding = try_check(check, trial)
        findings.append(finding)
        if check.is_gate and not finding.passed:
            break
    return findings


def over_probes(cls: type[Combinator]) -> type[Combinator]:
    """Return a combinator over as many probes as it takes at least."""
    return cls.over(*[Probe] * cls.takes[0])


def try_check(check: Check, trial: Trial) -> Finding:
    """Return what one check finds."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Finding(check.name, True, check.test(trial))
    except (BrokenContractError, BacktestError) as broken:
        return Finding(check.name, False, str(broken))
    except (Exception, SystemExit) as error:  # a policy may raise anything
        return Finding(check.name, False, f"{type(error).__name__}: {error}")


CHECKS = (
    Check("is a policy", check_class, True),
    Check("has a docstring", check_docstring, False),
    Check("constructs from its defaults", check_defaults, True),
    Check("repr makes it again", check_repr, False),
    Check("ranges refuse", check_ranges, False),
    Check("settings come back", check_settings, False),
    Check("memory is floats", check_memory, True),
    Check("columns are numbers", check_columns, True),
    Check("columns know the past only", check_causal_columns, True),
    Check("runs", check_runs, True),
    Check("repeats to the bit", check_repeatable, True),
    Check("decisions are finite", check_finite, False),
    Check("compiled equals plain", check_compiled, False),
    Check("decisions know the past only", check_causal_decisions, False),
)
"""All checks, in their order."""
