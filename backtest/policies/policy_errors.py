"""Errors raised by a policy, with the bar, what the policy saw, and the line of its code."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np

from backtest._compile.bytecode import format_location
from backtest.core import RAISED, PolicyError, did_you_mean, format_time, repr_plain
from backtest.policies import policy as p
from backtest.policies.combinators import name_tuple, written_formulas
from backtest.policies.policy import Policy
from backtest.policies.view import AccountView


def as_numpy(value: Any) -> Any:
    """Return a setting whose numbers divide as those of compiled code do."""
    if isinstance(value, tuple):
        return tuple(map(as_numpy, value))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return np.float64(value) if isinstance(value, float) else np.int64(value)


def bind_formula(policy: Policy, columns: tuple[str, ...]) -> tuple[Any, Callable[..., Any]]:
    own = p.change_settings(policy, {})
    for name, value in policy.settings().items():
        object.__setattr__(own, name, as_numpy(value))
    formula, margin_formula = p.formula_for(policy, columns), p.margin_formula_for(policy, columns)
    start = p.start_memory(policy)
    memory_type = None if start is None else type(start)

    def decide(also: Any, bar: Any, view: AccountView, memory: Any, t: int) -> tuple[float, Any]:
        answer = "leverage"
        try:
            if memory_type is None:
                value, after = as_number(formula(own, bar, view)), memory
            else:
                decided, kept = formula(own, bar, view, memory_type(*map(np.float64, memory)))
                value, after = as_number(decided), tuple(map(as_number, kept))
                if len(after) != len(memory):
                    text = f"a memory must keep its length {len(memory)}, got {repr_plain(kept)}"
                    raise TypeError(text)
            answer, setting = "venue_leverage", math.nan
            if margin_formula is not None:
                also[-1] = setting = as_number(margin_formula(own, bar, view))
        except RAISED as error:
            raise make_policy_error(policy, bar, view, t, error, answer) from error
        if value < 0.0:
            raise make_policy_error(policy, bar, view, t, value)
        if setting <= 0.0:
            raise make_policy_error(policy, bar, view, t, setting, answer)
        return value, after

    return name_tuple("Bar", (*p.BAR_FIELDS, *columns)), decide


def as_number(value: object) -> float:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.number)):
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
