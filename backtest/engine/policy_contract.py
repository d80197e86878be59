"""The contract of policies, and its checks on a policy class: what ``backtest check`` runs."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np

from backtest.base import BacktestError, Choice, FloatArray, ParameterError, Range, repr_plain
from backtest.engine import contract_runs
from backtest.engine.contract_runs import ACCOUNTS, BrokenContractError, ContractTrial
from backtest.market import Market, Markets, as_markets, label_names
from backtest.policy import (
    Combinator,
    Parameter,
    Policy,
    combinator_of,
    formula_of,
    return_parameter,
    written_names,
)


class Finding(NamedTuple):
    name: str
    passed: bool
    detail: str


class ProbeMemory(NamedTuple):
    leverage: float


class Probe(Policy):
    most: Annotated[float, Range(0.1, 10.0, "turns of equity")] = 2.0

    def observe(self, market: Any) -> dict[str, FloatArray]:
        return {"move": np.log(market.high / market.low)}

    def start(self) -> ProbeMemory:
        return ProbeMemory(1.0)

    def leverage(self, bar: Any, account: Any, memory: ProbeMemory) -> tuple[float, ProbeMemory]:  # noqa: ARG002 - the signature of a formula
        decided = 0.5 * memory.leverage + 0.5 * self.most / (1.0 + 100.0 * bar.move)
        return decided, ProbeMemory(decided)


class ContractCheck(NamedTuple):
    name: str
    test: Callable[[ContractTrial], str]
    is_gate: bool


def check_policy(
    policy_class: type[Policy],
    market: Market | Markets | None = None,
    *,
    accounts: Sequence[str] = ACCOUNTS,
) -> list[Finding]:
    given: Mapping[str, Market | None] = {"": None} if market is None else as_markets(market)
    return join_findings(
        {
            label: list_findings(policy_class, given[name], accounts)
            for name, label in label_names(given).items()
        }
    )


def list_findings(
    policy_class: type[Policy], market: Market | None, accounts: Sequence[str]
) -> list[Finding]:
    if isinstance(policy_class, type) and issubclass(policy_class, Combinator):
        probes = [Probe] * policy_class.takes[0]
        policy_class = policy_class if policy_class.parts else policy_class.over(*probes)
    trial = contract_runs.choose_trial(policy_class, market, tuple(accounts))
    findings = []
    for check in CHECKS:
        finding = run_check(check, trial)
        findings.append(finding)
        if check.is_gate and not finding.passed:
            break
    return findings


def join_findings(found: Mapping[str, list[Finding]]) -> list[Finding]:
    joined: dict[str, Finding] = {}
    for name, findings in found.items():
        for each in findings:
            if joined.setdefault(each.name, each).passed and not each.passed:
                lead = f"{name}: " if name else ""
                joined[each.name] = each._replace(detail=f"{lead}{each.detail}")
    return list(joined.values())


def run_check(check: ContractCheck, trial: ContractTrial) -> Finding:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Finding(check.name, True, check.test(trial))
    except (BrokenContractError, BacktestError) as broken:
        return Finding(check.name, False, str(broken))
    except (Exception, SystemExit) as error:  # a policy may raise anything
        return Finding(check.name, False, f"{type(error).__name__}: {error}")


# ------------------------------------------------------------------- checks of the declaration


def check_class(trial: ContractTrial) -> str:
    cls = trial.cls
    if not (isinstance(cls, type) and issubclass(cls, Policy)):
        raise BrokenContractError(f"must be a subclass of bt.Policy, got {cls!r}")
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


def check_docstring(trial: ContractTrial) -> str:
    made = tuple(f"{name}(" for name in written_names(trial.cls))  # dataclasses write these
    line = (inspect.getdoc(trial.cls) or "").strip().partition("\n")[0]
    if not line or line.startswith(made):
        raise BrokenContractError(
            "has no docstring: write one line saying what it does, then its formula and source"
        )
    return line


def check_defaults(trial: ContractTrial) -> str:
    return repr(trial.policy)


def check_repr(trial: ContractTrial) -> str:
    text = repr(trial.policy)
    names = {**written_names(trial.cls), "inf": math.inf}
    again = eval(text, names)  # the text of the policy that is being checked
    if again != trial.policy:
        raise BrokenContractError(f"{text} makes {again!r}, which is not equal to it")
    return text


def check_ranges(trial: ContractTrial) -> str:
    count = 0
    for name, value in list_invalid(trial.cls):
        count += 1
        try:
            trial.cls(**{name: value})
        except ParameterError as refusal:
            if name not in str(refusal):
                raise BrokenContractError(
                    f"{name}={repr_plain(value)} is refused without naming {name}: {refusal}"
                ) from refusal
        else:
            raise BrokenContractError(
                f"{name}={repr_plain(value)} is accepted; its declaration excludes it"
            )
    return f"{count} values refused"


def list_invalid(cls: type[Policy]) -> Iterator[tuple[str, object]]:
    for parameter in cls.parameters().values():
        if parameter.space is None:
            invalid: Iterable[object] = (None, "True", 1)
        else:
            invalid = parameter.space.invalid(whole=parameter.kind is int)
        yield from ((parameter.name, value) for value in invalid)


def check_settings(trial: ContractTrial) -> str:
    settings = trial.policy.settings()
    texts = {name: str(value) for name, value in settings.items()}
    for given in (settings, texts):
        again = trial.cls.from_settings(given)
        if again != trial.policy:
            raise BrokenContractError(f"{given} makes {again!r}, was made by {trial.policy!r}")
    return ", ".join(map(describe_parameter, trial.cls.parameters().values())) or "no parameters"


def describe_parameter(parameter: Parameter) -> str:
    kind = "one of " if isinstance(parameter.space, Choice) else ""
    return f"{parameter.name} {kind}{parameter.space or 'True or False'}"


def check_memory(trial: ContractTrial) -> str:
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
    ContractCheck("is a policy", check_class, True),
    ContractCheck("has a docstring", check_docstring, False),
    ContractCheck("constructs from its defaults", check_defaults, True),
    ContractCheck("repr makes it again", check_repr, False),
    ContractCheck("ranges refuse", check_ranges, False),
    ContractCheck("settings come back", check_settings, False),
    ContractCheck("memory is floats", check_memory, True),
    ContractCheck("columns are numbers", contract_runs.check_columns, True),
    ContractCheck("columns know the past only", contract_runs.check_causal_columns, True),
    ContractCheck("runs", contract_runs.check_runs, True),
    ContractCheck("repeats to the bit", contract_runs.check_repeatable, True),
    ContractCheck("decisions are finite", contract_runs.check_finite, False),
    ContractCheck("compiled equals plain", contract_runs.check_compiled, False),
    ContractCheck("decisions know the past only", contract_runs.check_causal_decisions, False),
)
