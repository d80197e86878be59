"""The plain loop of several positions under a requirement of the user's own.

The functions of the kernel are copied; where they compute a requirement, the copies ask the user's
object (:mod:`backtest.venue.own_requirement`).
"""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from backtest.base.compiled_twins import find_own_functions, make_twin
from backtest.engine.portfolio import book_loop, book_tally
from backtest.engine.portfolio.book_desk import ask_plain
from backtest.portfolio import (
    book_balance,
    book_bar,
    book_calls,
    book_causes,
    book_fit,
    book_gap,
    book_ledger,
    book_liquidation,
    book_orders,
    book_payments,
    book_records,
    book_walk,
)
from backtest.venue import book_failure, book_price, book_requirement
from backtest.venue.own_requirement import OwnFunctions, OwnMargin

MODULES = (
    book_requirement, book_failure, book_price, book_records, book_ledger, book_balance,
    book_causes, book_fit, book_orders, book_payments, book_liquidation, book_gap, book_walk,
    book_calls, book_bar, book_tally, book_loop,
)  # fmt: skip
"""The modules whose functions reach a requirement."""


def copy_loop(own: OwnMargin, names: Sequence[str]) -> Callable[..., Any]:
    """Return the loop with the user's requirement; ``names`` are the instruments in order."""
    copies: dict[int, Any] = {}
    spaces: dict[str, dict[str, Any]] = {}
    for module in MODULES:
        space = spaces[module.__name__] = dict(vars(module))
        for _, function in find_own_functions(module):
            path = Path(function.__code__.co_filename)
            copies[id(function)] = make_twin(function, space, path)
    failing = copies[id(book_requirement.is_pool_failing)]
    asked = OwnFunctions(own.rule, names, failing).by_name()
    for module in (book_requirement, book_failure):
        for name, function in find_own_functions(module):
            copies[id(function)] = asked.get(name, copies[id(function)])
    copies[id(book_loop.ask)] = ask_plain
    for space in spaces.values():
        space |= {
            name: copies[id(value)]
            for name, value in space.items()
            if isinstance(value, types.FunctionType) and id(value) in copies
        }
    loop: Callable[..., Any] = copies[id(book_loop.simulate_book)]
    return loop
