"""Errors raised by a policy, with the bar, what the policy saw, and the line of its code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np

from backtest._compile.bytecode import format_location
from backtest.core import PolicyError, did_you_mean, format_time, repr_plain
from backtest.policies import policy as p
from backtest.policies.combinators import written_formulas
from backtest.policies.policy import Policy
from backtest.policies.view import AccountView


def as_number(value: object) -> float:
    if isinstance(value, float):  # the usual case first
        return float(value)
    if not isinstance(value, (bool, int, np.bool_, np.number)):  # a comparison is 0 or 1
        raise TypeError(f"leverage and memory must be numbers, got {repr_plain(value)}")
    return float(value)


def make_policy_error(
    policy: Policy,
    bar: Any,
    account: AccountView,
    t: int,
    outcome: BaseException | float,
    answer: str = "leverage",
) -> PolicyError:
    name = type(policy).__name__
    saw = ", ".join(f"{each}={getattr(bar, each):.6g}" for each in bar._fields[1:])
    place = (
        f"at the close of bar {t}, {format_time(round(bar.time * 1e9))}, it saw {saw}, "
        f"equity={account.equity:.6g}, leverage={account.leverage:.6g}"
    )
    if isinstance(outcome, BaseException):
        cls, cure = type(policy), ""
        formulas: list[Callable[..., Any]] = [*written_formulas(cls)] or [p.formula_of(cls)]
        if isinstance(outcome, FrozenInstanceError):
            cure = "; a policy is frozen: keep state in its memory, which start returns"
        elif isinstance(outcome, AttributeError):
            is_own = isinstance(outcome.obj, Policy)
            names = policy.settings() if is_own else getattr(outcome.obj, "_fields", ())
            cure = f"{did_you_mean(outcome.name, names)}; there are {', '.join(names) or 'none'}"
        return PolicyError(
            f"{name}.{answer} raised {type(outcome).__name__}: {outcome}{cure} "
            f"({format_location(outcome, *formulas)}; {place})"
        )
    rule = (
        "venue_leverage must be over 0, or NaN to leave the margin"
        if answer == "venue_leverage"
        else "a leverage must be at least 0 (the signal has the direction), or NaN to leave the "
        "position"
    )
    return PolicyError(f"{name} returned {outcome:g}; {rule} ({place})")
