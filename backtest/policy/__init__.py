"""Policies: the base class, its parameters and memory, combinators, and located errors.

A policy reads closed bars and a read-only view of its account, and returns a leverage.
"""

from backtest.policy.combinators import Combinator
from backtest.policy.option_rule import OptionRule
from backtest.policy.policy import (
    Columns,
    Parameter,
    Policy,
    formula_for,
    margin_formula_for,
    sets_margin,
    start_memory,
    trades_options,
)

__all__ = [
    "Columns",
    "Combinator",
    "OptionRule",
    "Parameter",
    "Policy",
    "formula_for",
    "margin_formula_for",
    "sets_margin",
    "start_memory",
    "trades_options",
]
