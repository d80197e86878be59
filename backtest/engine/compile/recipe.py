"""The generated part of a policy's compiled loop, and its cache folder, found without numba."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from backtest.account import (
    account_records,
    auto_margin,
    balances,
    bar,
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
from backtest.base import (
    CodeText,
    cache_folder,
    compiled_twins,
    describe_function,
    describe_target,
    describe_value,
    formula_functions,
    hash_texts,
    join_texts,
    list_sources,
    units,
)
from backtest.engine import bar_loop
from backtest.measures import tally
from backtest.options import bs_kernels
from backtest.policy import Policy, formula_for, margin_formula_for, start_memory, view
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
    contract_value, requirement, liquidation_price, margin, account_records, position, balances,
    exits, payments, orders, fills, liquidation, ruin, ledger, auto_margin, calls, steps, bar,
    tally, view, bar_loop,
)  # fmt: skip
"""The modules of the rules; each uses only those before it."""
ROOT_NAMES = frozenset({"liquidation_price"})
"""The names by which a policy asks for the liquidation price."""


class Recipe(NamedTuple):
    """A policy's part of a loop.

    ``text`` is the source of the generated module ``name``, ``rule`` the policy's formula,
    ``margin_rule`` that of its venue leverage, if it decides it, and ``memory`` the class of its
    memory; ``names`` are those that its code refers to. A recipe is
    complete if all code that it refers to is known; only then is compiled code cached.
    """

    name: str
    text: str
    rule: Any
    margin_rule: Any
    memory: type | None
    names: frozenset[str]
    is_complete: bool


def write_recipe(policy: Policy, columns: tuple[str, ...]) -> Recipe:
    """Return the recipe of the bar loop of one position around a policy.

    It depends on the policy's class and the types of its parameters.
    """
    fields = policy.settings()
    kinds = ",".join(type(value).__name__ for value in fields.values())

    def write(memory: type | None, _: CodeText) -> list[str]:
        return write_decision(tuple(fields), columns, memory)

    return make_recipe(policy, columns, write, "policy", kinds)


def make_recipe(
    policy: Policy,
    columns: tuple[str, ...],
    write: Callable[[type | None, CodeText], list[str]],
    prefix: str,
    *marks: str,
) -> Recipe:
    """Return the recipe of a policy for bars with these columns.

    ``write`` returns the lines of the function ``decide`` from the class of the policy's memory and
    the policy's code. It calls ``rule``, the formula, with ``Params``, ``Bar`` and ``Memory``. The
    name of the recipe begins with ``prefix``, and depends on the ``marks`` too.
    """
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
    identity = hash_texts(text, slots, code.text, *marks, type(policy).__qualname__)
    name = f"{prefix}_{identity}"
    return Recipe(name, text, rule, margin_rule, memory, code.names, code.is_complete)


def may_refer_to(code: CodeText | Recipe, names: frozenset[str]) -> bool:
    """Return whether a policy's code refers to any of some names, or may do so."""
    return bool(code.names & names) or not code.is_complete


def count_slots(memory: type | None) -> int:
    """Return how many numbers a policy keeps from bar to bar."""
    return len(getattr(memory, "_fields", ()))


class Place(NamedTuple):
    """Where a generated function ``decide`` finds what a formula reads, in a loop.

    ``settings`` and ``bar`` are the sources of their fields, ``account`` lines that set the
    account, and ``slot`` returns the source of a number of the memory. ``head`` are the lines
    before, ``end`` those after the decision, and ``depth`` is its indentation in steps.
    """

    head: Sequence[str]
    settings: Sequence[str]
    bar: Sequence[str]
    account: Sequence[str]
    end: Sequence[str]
    slot: Callable[[int], str] = "memory[{}]".format
    depth: int = 1


def write_decide(memory: type | None, place: Place, *, keeps_memory: bool = True) -> list[str]:
    """Return the lines of ``decide``, which calls the formula with what a loop has for it.

    Without ``keeps_memory`` it returns the memory itself.
    """
    body = [
        *place.account,
        f"bar = Bar({', '.join(place.bar)})",
        f"settings = Params({', '.join(place.settings or ['0.0'])})",
        *write_call(memory, place.slot),
        *(write_memory(memory, place.slot) if keeps_memory else []),
    ]
    return [*place.head, *("    " * place.depth + line for line in body), *place.end]


def write_decision(
    fields: tuple[str, ...], columns: tuple[str, ...], memory: type | None
) -> list[str]:
    """Return the function that calls the formula with parameters, bar and memory of one run."""
    seen = [f"seen.{name}[t]" for name in BAR_FIELDS if name != "funding"]
    kept = [f"1.0 * after[{i}]" for i in range(count_slots(memory))]
    after = "memory" if memory is None else f"({', '.join(kept)},)"
    place = Place(
        head=["def decide(params, columns, memory, seen, account, funding, t):"],
        settings=[f"params[{i}]" for i in range(len(fields))],
        bar=[*seen, "funding", *(f"columns[{i}][t]" for i in range(len(columns)))],
        account=[],
        end=[f"    return leverage, {after}"],
    )
    return write_decide(memory, place, keeps_memory=False)


def write_call(memory: type | None, slot: Callable[[int], str]) -> list[str]:
    """Return lines that set ``leverage`` to the decision, and ``after`` if the formula remembers.

    ``slot`` returns the source of a number of the memory.
    """
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
    """Return lines that write the numbers of ``after`` into the memory."""
    return [f"{slot(k)} = 1.0 * after[{k}]" for k in range(count_slots(memory))]


def read_parameter(text: str, value: object) -> str:
    """Return the source that reads a parameter from a number in its type; a text is a constant."""
    if isinstance(value, bool):
        return f"({text} != 0.0)"
    if isinstance(value, int):
        return f"int({text})"
    return repr(value) if isinstance(value, str) else text


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
