"""The parts of a policy's compiled loop and the folder they are kept in, found without numba."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from backtest.account import (
    account_records,
    bar,
    books,
    fills,
    ledger,
    liquidation,
    orders,
    payments,
    position,
    ruin,
    steps,
)
from backtest.base import cache_folder, compiled_twins, units
from backtest.base.code_identity import describe_function, describe_value, hash_texts
from backtest.base.compiled_twins import describe_target
from backtest.engine import bar_loop
from backtest.measures import tally
from backtest.policy import view
from backtest.policy.policy import BAR_FIELDS, Policy, formula_for, start_memory
from backtest.venue import contract_value, margin, requirement
from backtest.venue.requirement import LEVELS, MarginRules

CORE = (
    contract_value,
    requirement,
    margin,
    account_records,
    position,
    books,
    payments,
    orders,
    fills,
    liquidation,
    ruin,
    ledger,
    steps,
    bar,
    tally,
    view,
    bar_loop,
)
"""The modules of the rules, from the ground up."""
ROOT_NAMES = frozenset({"liquidation_price"})
"""What of its account a policy names if it asks for the liquidation price."""


class Recipe(NamedTuple):
    """A policy's part of the loop.

    ``text`` is that of the generated module ``name``, ``rule`` the policy's formula and ``memory``
    the class of what it keeps; ``names`` are those that its code refers to. Where the code is not
    known in full it is not complete, and nothing compiled is kept.
    """

    name: str
    text: str
    rule: Any
    memory: type | None
    names: frozenset[str]
    is_complete: bool


def write_recipe(policy: Policy, columns: tuple[str, ...]) -> Recipe:
    """Return the recipe of a policy with columns of some names.

    Only its class and the types of its parameters matter.
    """
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
    """Return the text of the module that hands the policy its parameters, bar and memory."""
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
    """Return the folder of what is compiled of the rules; another for every change of them."""
    texts = [Path(str(each.__file__)).read_text() for each in (*CORE, units, compiled_twins)]
    here = Path(__file__)
    texts += [path.read_text() for path in (here, here.with_name("loop_compiler.py"))]
    return cache_folder.find_cache_folder() / f"rules-{hash_texts(*texts, *describe_target())}"


def pack_columns(columns: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return columns as the tuple the loop takes: one array each, or a stand-in for none."""
    return tuple(columns.values()) or (np.full(1, math.nan),)


def pack_brackets(rules: MarginRules) -> MarginRules:
    """Return margin rules as the loop takes them: a table as arrays, one bracket as it is.

    A single bracket stays a tuple, whose length numba knows, and costs no loop.
    """
    if len(rules.floors) == 1:
        return rules
    return MarginRules._make(
        np.array(value) if name in LEVELS else value for name, value in rules._asdict().items()
    )
