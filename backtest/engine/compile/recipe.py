"""The generated part of a policy's compiled loop, and its cache folder, found without numba."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from backtest.account import (
    account_records,
    auto_margin,
    bar,
    books,
    calls,
    exits,
    fills,
    ledger,
    liquidation,
    orders,
    payments,
    position,
    ruin,
    steps,
)
from backtest.base import cache_folder, compiled_twins, formula_functions, units
from backtest.base.code_identity import describe_function, describe_value, hash_texts
from backtest.base.compiled_twins import describe_target
from backtest.base.kernel_sources import list_sources
from backtest.engine import bar_loop
from backtest.measures import tally
from backtest.options import bs_kernels
from backtest.policy import Policy, formula_for, start_memory, view
from backtest.policy.policy import BAR_FIELDS
from backtest.venue import (
    LEVELS,
    MarginRules,
    contract_value,
    liquidation_price,
    margin,
    requirement,
)

CORE = (
    contract_value, requirement, liquidation_price, margin, account_records, position, books,
    exits, payments, orders, fills, liquidation, ruin, ledger, auto_margin, calls, steps, bar,
    tally, view, bar_loop,
)  # fmt: skip
"""The modules of the rules; each uses only those before it."""
ROOT_NAMES = frozenset({"liquidation_price"})
"""The names by which a policy asks for the liquidation price."""


class Recipe(NamedTuple):
    """A policy's part of the loop.

    ``text`` is the source of the generated module ``name``, ``rule`` the policy's formula and
    ``memory`` the class of its memory; ``names`` are those that its code refers to. A recipe is
    complete if all code that it refers to is known; only then is the compiled loop cached.
    """

    name: str
    text: str
    rule: Any
    memory: type | None
    names: frozenset[str]
    is_complete: bool


def write_recipe(policy: Policy, columns: tuple[str, ...]) -> Recipe:
    """Return the recipe of a policy: it depends on its class and the types of its parameters."""
    rule = formula_for(policy, columns)
    fields = policy.settings()
    start = start_memory(policy)
    memory = None if start is None else type(start)
    text = write_module(tuple(fields), columns, memory)
    slots = describe_value(memory, {}).text
    code = describe_function(rule, {})
    kinds = ",".join(type(value).__name__ for value in fields.values())
    name = f"policy_{hash_texts(text, slots, code.text, kinds, type(policy).__qualname__)}"
    return Recipe(name, text, rule, memory, code.names, code.is_complete)


def write_module(fields: tuple[str, ...], columns: tuple[str, ...], memory: type | None) -> str:
    """Return the source of the module that calls the formula with parameters, bar and memory."""
    seen = [f"seen.{name}[t]" for name in BAR_FIELDS if name != "funding"]
    values = [*seen, "funding", *(f"columns[{i}][t]" for i in range(len(columns)))]
    slots = [f"    {name}: float" for name in (*BAR_FIELDS, *columns)]
    settings = [f"    {name}: float" for name in fields] or ["    nothing: float"]
    given = [f"params[{i}]" for i in range(len(fields))] or ["0.0"]
    lines = ["class Bar(NamedTuple):", *slots, "", "class Params(NamedTuple):", *settings, ""]
    lines += ["def decide(params, columns, memory, seen, account, funding, t):"]
    lines += [f"    bar = Bar({', '.join(values)})", f"    settings = Params({', '.join(given)})"]
    if memory is None:
        lines += ["    return 1.0 * rule(settings, bar, account), memory"]
    else:
        kept = [f"1.0 * after[{i}]" for i in range(len(memory._fields))]  # type: ignore[attr-defined]
        before = [f"memory[{i}]" for i in range(len(kept))]
        lines += [f"    before = Memory({', '.join(before)})"]
        lines += ["    leverage, after = rule(settings, bar, account, before)"]
        lines += [f"    if len(after) != {len(kept)}:"]
        lines += ["        raise ValueError('a memory must keep its length')"]
        lines += [f"    return 1.0 * leverage, ({', '.join(kept)},)"]
    return "\n".join(lines) + "\n"


@functools.cache
def find_rules_folder() -> Path:
    """Return the cache folder of the compiled rules; every change of the rules gets its own."""
    modules = (*CORE, units, compiled_twins, formula_functions, *list_sources(bs_kernels))
    texts = [Path(str(each.__file__)).read_text() for each in modules]
    here = Path(__file__)
    texts += [path.read_text() for path in (here, here.with_name("loop_compiler.py"))]
    return cache_folder.find_cache_folder() / f"rules-{hash_texts(*texts, *describe_target())}"


def pack_columns(columns: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return columns as the loop's tuple of arrays, with a placeholder if there are none."""
    return tuple(columns.values()) or (np.full(1, math.nan),)


def pack_brackets(rules: MarginRules) -> MarginRules:
    """Return margin rules in the form of the compiled loop: brackets as arrays.

    A single bracket stays a tuple: numba knows its length, and needs no loop.
    """
    if len(rules.floors) == 1:
        return rules
    return MarginRules._make(
        np.array(value) if name in LEVELS else value for name, value in rules._asdict().items()
    )
