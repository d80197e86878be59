"""Allocations by the name of a rule, as ``--allocate`` and ``[run] allocate``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backtest.base import ParameterError, did_you_mean
from backtest.weights import WeightRule
from backtest.weights.weight_rule import BY_COVARIANCE

ALLOCATIONS = ("equal", *BY_COVARIANCE)
"""The rules of :mod:`backtest.weights` that need nothing but markets."""


def read_allocation(name: str, settings: Mapping[str, Any], *, where: str) -> WeightRule:
    """Return the allocation with a rule and parameters by name.

    A ``window`` alone also says that it is the memory. ``where`` is the flag or table that gave
    them, for messages.
    """
    given = {"rule": name, **settings}
    if "window" in settings and not {"memory", "half_life"} & {*settings}:
        given["memory"] = "window"
    found = WeightRule.from_settings(given)
    known = [each for each in found.list_used() if each != "rule"]
    for each in settings:
        is_default = getattr(found, each) == found.parameters()[each].default
        if each != "rule" and each not in known and not is_default:
            raise ParameterError(
                f"{found.text()} has no setting {each!r}{did_you_mean(each, known)}",
                where=where,
                cure=f"use {', '.join(known)}" if known else "leave allocate_settings out",
            )
    return found
