"""Checks of a policy class as it is declared: its signature, docstring, parameters and memory."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from typing import Any

from backtest.base.errors import ParameterError
from backtest.base.json_values import show
from backtest.base.ranges import Choice
from backtest.contract_trial import BrokenContractError, Trial
from backtest.policy.combinators import Combinator, combinator_of, written_names
from backtest.policy.policy import Parameter, Policy, formula_of, has_memory, hold


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
    name = rule.__name__ if rule is not hold else "leverage"
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
                    f"{name}={show(value)} is refused without naming {name}: {refusal.problem}"
                ) from refusal
        else:
            raise BrokenContractError(
                f"{name}={show(value)} is accepted; its declaration excludes it"
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
    if not has_memory(trial.policy):
        return "remembers nothing"
    memory: Any = trial.policy.start()  # type: ignore[attr-defined] # has_memory says it
    if not (isinstance(memory, tuple) and hasattr(memory, "_fields")):
        raise BrokenContractError(
            f"start must return a NamedTuple of floats, returned {show(memory)}: declare "
            "class Memory(NamedTuple): peak: float"
        )
    for name, value in zip(memory._fields, memory, strict=True):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise BrokenContractError(
                f"start must return a NamedTuple of floats, its {name} is {show(value)}"
            )
    return f"remembers {', '.join(memory._fields)}"
