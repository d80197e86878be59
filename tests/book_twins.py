"""Compiled twins of the rules of a book, for tests that compare them with the plain functions."""

import functools
import types

import numba

from backtest.base.compiled_twins import find_own_functions
from backtest.venue import (
    book_failure,
    book_price,
    book_requirement,
    book_rules,
    collateral_value,
    contract_value,
    liquidation_price,
    requirement,
    scenario_loss,
)

MODULES = (
    contract_value, requirement, liquidation_price, book_rules, collateral_value, scenario_loss,
    book_requirement, book_failure, book_price,
)  # fmt: skip
"""In this order, as the kernel of a book compiles them."""
OPTIONS = {"error_model": "numpy", "_nrt": False}


@functools.cache
def compile_book() -> types.SimpleNamespace:
    """Return all functions of a book's rules, compiled."""
    names = {}
    for module in MODULES:
        names |= {k: v for k, v in vars(module).items() if not isinstance(v, types.FunctionType)}
    for module in MODULES:
        for name, own in find_own_functions(module):
            copy = types.FunctionType(own.__code__, names, name, own.__defaults__)
            names[name] = numba.njit(**OPTIONS)(copy)
    return types.SimpleNamespace(**names)
