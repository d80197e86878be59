"""The contract every policy keeps, checked on a policy class: what ``backtest check`` runs.

Each check is a function that returns what it saw, or raises what is wrong. A policy may do anything
in its own code: whatever it raises becomes a finding.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np

from backtest.base.errors import BacktestError, ParameterError
from backtest.base.json_values import repr_plain
from backtest.base.ranges import Choice, Range
from backtest.base.units import FloatArray
from backtest.engine.contract_runs import (
    ACCOUNTS,
    BrokenContractError,
    Trial,
    check_causal_columns,
    check_causal_decisions,
    check_columns,
    check_compiled,
    check_finite,
    check_repeatable,
    check_runs,
    choose_market,
)
from backtest.market.market import Market
from backtest.policy.combinators import Combinator, combinator_of, written_names
from backtest.policy.policy import Parameter, Policy, formula_of, return_parameter


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


# ------------------------------------------------------------------- checks of the declaration


def check_class(trial: Trial) -> str:
    """Require a subclass of Policy that defines leverage with the right arguments."""
    cls = trial.cls
    if not (isinstance(cls, type) and issubclass(cls, Policy)):
        raise BrokenContractError(f"must be a subclass of bt.Policy, was {cls!r}")
    rule: Any = formula_of(cls)
    wanted = ["self", "bar", "account"]
    remembers = hasattr(cls, "start")
    if issubclass(cls, Combinator):
        rule, wanted = cls.combine, [*wanted, "asked"]
        remembers = hasattr(combinator_of(cls), "start")
    name = rule.__name__ if rule is not return_parameter else "leverage"
    if rule in (Policy.leverage, Combinator.combine):
        raise BrokenContractError(
            f"defines no {name}: add def {name}({', '.join(wanted)}): return 1.0"
        )
    wanted += ["memory"] * remembers
    try:
        inspect.signature(rule).bind(*wanted)
    except TypeError as error:
        raise BrokenContractError(
            f"{name} must take ({', '.join(wanted)}), takes {inspect.signature(rule)}: {error}"
        ) from error
    return f"{name} takes ({', '.join(wanted)})"


def check_docstring(trial: Trial) -> str:
    """Require a first line that says what it does; lists show it."""
    written = written_names(trial.cls)
    made = tuple(f"{name}(" for name in written)  # what dataclasses write where there is none
    line = (inspect.getdoc(trial.cls) or "").strip().partition("\n")[0]
    if not line or line.startswith(made):
        raise BrokenContractError(
            "has no docstring: write one line saying what it does, then its formula and source"
        )
    return line


def check_defaults(trial: Trial) -> str:
    """Require that it constructs without arguments."""
    return repr(trial.policy)


def check_repr(trial: Trial) -> str:
    """Require that its text makes an equal policy."""
    text = repr(trial.policy)
    names = {**written_names(trial.cls), "inf": math.inf}
    again = eval(text, names)  # the text of the policy that is being checked
    if again != trial.policy:
        raise BrokenContractError(f"{text} makes {again!r}, which is not equal to it")
    return text


def check_ranges(trial: Trial) -> str:
    """Require that every parameter refuses what its declaration excludes, by name."""
    count = 0
    for name, value in list_invalid(trial.cls):
        count += 1
        try:
            trial.cls(**{name: value})
        except ParameterError as refusal:
            if name not in refusal.problem:
                raise BrokenContractError(
                    f"{name}={repr_plain(value)} is refused without naming {name}: "
                    f"{refusal.problem}"
                ) from refusal
        else:
            raise BrokenContractError(
                f"{name}={repr_plain(value)} is accepted; its declaration excludes it"
            )
    return f"{count} values refused"


def list_invalid(cls: type[Policy]) -> Iterator[tuple[str, object]]:
    """Yield names of parameters with values that they must refuse."""
    for parameter in cls.parameters().values():
        if parameter.space is None:
            yield from ((parameter.name, value) for value in (None, "True", 1))
            continue
        for value in parameter.space.invalid(whole=parameter.kind is int):
            yield parameter.name, value


def check_settings(trial: Trial) -> str:
    """Require that its settings, as values and as text, make an equal policy."""
    settings = trial.policy.settings()
    texts = {name: str(value) for name, value in settings.items()}
    for given in (settings, texts):
        again = trial.cls.from_settings(given)
        if again != trial.policy:
            raise BrokenContractError(f"{given} makes {again!r}, was made by {trial.policy!r}")
    return ", ".join(map(describe_parameter, trial.cls.parameters().values())) or "no parameters"


def describe_parameter(parameter: Parameter) -> str:
    """Return a parameter with its space, for a reader."""
    kind = "one of " if isinstance(parameter.space, Choice) else ""
    return f"{parameter.name} {kind}{parameter.space or 'True or False'}"


def check_memory(trial: Trial) -> str:
    """Require that what start returns is a NamedTuple of floats."""
    if not hasattr(trial.policy, "start"):
        return "remembers nothing"
    memory: Any = trial.policy.start()
    if not (isinstance(memory, tuple) and hasattr(memory, "_fields")):
        raise BrokenContractError(
            f"start must return a NamedTuple of floats, returned {repr_plain(memory)}: declare "
            "class Memory(NamedTuple): peak: float"
        )
    for name, value in zip(memory._fields, memory, strict=True):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise BrokenContractError(
                f"start must return a NamedTuple of floats, its {name} is {repr_plain(value)}"
            )
    return f"remembers {', '.join(memory._fields)}"


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
