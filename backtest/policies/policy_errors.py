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
    """Return an answer of a formula as a float; raise TypeError for what is no number."""
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
    """Return the error of a formula that raised, or answered a number that is not allowed.

    ``outcome`` is the exception or the number, at the close of bar ``t``. ``answer`` is what the
    formula was asked for: ``"leverage"`` or ``"venue_leverage"``.
    """
    # What the formula saw. The first field of a bar is its time, in seconds.
    name = type(policy).__name__
    seen = ", ".join(f"{field}={getattr(bar, field):.6g}" for field in bar._fields[1:])
    time = format_time(round(bar.time * 1e9))
    situation = (
        f"at the close of bar {t}, {time}, it saw {seen}, "
        f"equity={account.equity:.6g}, leverage={account.leverage:.6g}"
    )
    if not isinstance(outcome, BaseException):
        return PolicyError(f"{name} returned {outcome:g}; {RULES[answer]} ({situation})")

    # Where in the user's code it raised, and what to do about it.
    cls = type(policy)
    formulas: list[Callable[..., Any]] = [*written_formulas(cls)] or [p.formula_of(cls)]
    location = format_location(outcome, *formulas)
    cure = find_cure(policy, bar, outcome)
    return PolicyError(
        f"{name}.{answer} raised {type(outcome).__name__}: {outcome}{cure} "
        f"({location}; {situation})"
    )


RULES = {
    "leverage": (
        "a leverage must be at least 0 (the signal has the direction), or NaN to leave the position"
    ),
    "venue_leverage": "venue_leverage must be over 0, or NaN to leave the margin",
}
"""What answers must be."""


def find_cure(policy: Policy, bar: Any, error: BaseException) -> str:
    """Return what to do about an exception of a formula, or nothing."""
    if isinstance(error, FrozenInstanceError):
        return "; a policy is frozen: keep state in its memory, which start returns"
    if not isinstance(error, AttributeError):
        return ""

    # The bar, the account and a memory have fields, the policy its settings.
    names = getattr(error.obj, "_fields", ())
    if isinstance(error.obj, Policy):
        names = policy.settings()
    cure = f"{did_you_mean(error.name, names)}; there are {', '.join(names) or 'none'}"

    is_of_bar = isinstance(error.obj, type(bar))
    if is_of_bar and type(policy).observe is Policy.observe:
        cure += (
            f"; a column of its own must be returned by observe(self, market), which "
            f"{type(policy).__name__} does not define"
        )
    return cure
