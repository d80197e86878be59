"""The generated part of a policy's compiled loop, written without numba."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from backtest import _compile, core
from backtest._compile.code_identity import CodeText, describe_function, describe_value, join_texts
from backtest.account import (
    account_records,
    balance,
    bar,
    events,
    fills,
    liquidation,
    money,
    options,
    order_limits,
    orders,
    payments,
    pool_liquidation,
    position,
    price_walk,
    records,
)
from backtest.engine import loop
from backtest.margin import brackets, option_kernels, portfolio_kernels
from backtest.margin import functions as margin
from backtest.options import implied_kernels
from backtest.policies import Policy, formula_for, margin_formula_for, start_memory, view
from backtest.policies.policy import BAR_FIELDS
from backtest.results import tally
from backtest.venue import contract_value

CORE = (
    contract_value, brackets, margin, account_records, position, orders,
    liquidation, events, tally, view,
)  # fmt: skip
"""Rules of one position: inlined into what calls them."""
MODULES = (
    portfolio_kernels, core.elementary, core.black_kernels, option_kernels, money, records, options,
    balance, pool_liquidation, order_limits, fills, payments, price_walk,
    bar, loop,
)  # fmt: skip
"""Rules of the account, and the loop."""


class Recipe(NamedTuple):
    name: str
    text: str
    rule: Any
    margin_rule: Any
    memory: type | None
    names: frozenset[str]
    is_complete: bool


def make_recipe(
    policy: Policy,
    columns: tuple[str, ...],
    write: Callable[[type | None, CodeText], list[str]],
    prefix: str,
    *marks: str,
) -> Recipe:
    rule, margin_rule = formula_for(policy, columns), margin_formula_for(policy, columns)
    start = start_memory(policy)
    memory = None if start is None else type(start)
    code = describe_function(rule, {})
    if margin_rule is not None:
        code = join_texts(code, describe_function(margin_rule, {}))
    fields = [f"    {name}: float" for name in policy.settings()] or ["    nothing: float"]
    lines = ["class Bar(NamedTuple):", *(f"    {name}: float" for name in (*BAR_FIELDS, *columns))]
    lines += ["", "class Params(NamedTuple):", *fields, "", *write(memory, code)]
    text = "\n".join(lines) + "\n"
    slots = describe_value(memory, {}).text
    if type(policy).__module__ not in sys.modules:  # pickled by value: of no use to others
        marks = (*marks, "by value")
    identity = core.hash_texts(text, slots, code.text, *marks, type(policy).__qualname__)
    name = f"{prefix}_{identity}"
    return Recipe(name, text, rule, margin_rule, memory, code.names, code.is_complete)


def may_refer_to(code: CodeText | Recipe, names: frozenset[str]) -> bool:
    return bool(code.names & names) or not code.is_complete


def count_slots(memory: type | None) -> int:
    return len(getattr(memory, "_fields", ()))


class Place(NamedTuple):
    head: Sequence[str]
    settings: Sequence[str]
    bar: Sequence[str]
    account: Sequence[str]
    end: Sequence[str]
    also: Sequence[str] = ()
    slot: Callable[[int], str] = "memory[{}]".format
    depth: int = 1


def write_decide(memory: type | None, place: Place) -> list[str]:
    """Return the lines of a formula."""
    body = [
        *place.account,
        f"bar = Bar({', '.join(place.bar)})",
        f"settings = Params({', '.join(place.settings or ['0.0'])})",
        *write_call(memory, place.slot),
        *write_memory(memory, place.slot),
        *place.also,
    ]
    return [*place.head, *("    " * place.depth + line for line in body), *place.end]


def write_call(memory: type | None, slot: Callable[[int], str]) -> list[str]:
    if memory is None:
        return ["leverage = 1.0 * rule(settings, bar, account)"]
    n = count_slots(memory)
    return [
        f"before = Memory({', '.join(map(slot, range(n)))})",
        "leverage, after = rule(settings, bar, account, before)",
        f"if len(after) != {n}:",
        "    raise ValueError('a memory must keep its length')",
        "leverage = 1.0 * leverage",
    ]


def write_memory(memory: type | None, slot: Callable[[int], str]) -> list[str]:
    return [f"{slot(k)} = 1.0 * after[{k}]" for k in range(count_slots(memory))]


def read_parameter(text: str, value: object) -> str:
    if isinstance(value, bool):
        return f"({text} != 0.0)"
    if isinstance(value, int):
        return f"int({text})"
    return repr(value) if isinstance(value, str) else text


@functools.cache
def hash_rules() -> str:
    """Return a hash of the sources of all rules and of what compiles them."""
    modules = (*CORE, *MODULES, core.units, *_compile.list_sources(implied_kernels))
    here = Path(__file__)
    paths = [Path(str(each.__file__)) for each in dict.fromkeys(modules)]
    paths += [here, here.with_name("compiler.py")]
    texts = (path.read_text(encoding="utf-8") for path in paths)
    return core.hash_texts(*texts, *_compile.read_compiler())[:12]
