"""What a policy's compiled loop is made of and where it is kept, told without loading numba."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from backtest.account import bar, ledger, ruin, steps
from backtest.base import cache_folder, units
from backtest.base.code_identity import describe, describe_value, digest
from backtest.engine import bar_loop
from backtest.measures import tally
from backtest.policy.policy import BAR_FIELDS, Policy, formula_for, start_memory
from backtest.venue import margin

CORE = (margin, steps, ruin, ledger, bar, tally, bar_loop)
"""The modules of the rules, from the ground up."""
ROOT_NAMES = frozenset({"liquidation_price"})
"""What of its account a policy names if it asks for the liquidation price."""


class Recipe(NamedTuple):
    """A policy's part of the loop.

    ``text`` is that of the generated module ``name``, ``rule`` the policy's formula and ``memory``
    the class of what it keeps; ``names`` are those that its code refers to. Where the code cannot
    be told in full it is not complete, and nothing compiled is kept.
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
    code = describe(rule, {})
    kinds = ",".join(type(value).__name__ for value in fields.values())
    name = f"policy_{digest(text, slots, code.text, kinds, type(policy).__qualname__)}"
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
    texts = [Path(str(module.__file__)).read_text() for module in (*CORE, units)]
    here = Path(__file__)
    texts += [path.read_text() for path in (here, here.with_name("compiler.py"))]
    return cache_folder.find_cache_folder() / f"rules-{digest(*texts, *describe_target())}"


def find_version(name: str) -> str:
    """Return the version of a package, without importing it where it is installed as usual."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return str(importlib.import_module(name).__version__)


@functools.cache
def describe_target() -> tuple[str, ...]:
    """Return what compiled code depends on besides its source: the compiler and the processor."""
    from llvmlite import binding  # noqa: PLC0415 - not needed by what does not run

    versions = [find_version(name) for name in ("numba", "llvmlite", "numpy")]
    chosen = [os.environ.get(f"NUMBA_CPU_{word}", "") for word in ("NAME", "FEATURES")]
    features = binding.get_host_cpu_features().flatten()
    host = (binding.get_process_triple(), binding.get_host_cpu_name(), features)
    return (*versions, *chosen, *map(str, host))


def pack_columns(columns: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return columns as the tuple the loop takes: one array each, or a stand-in for none."""
    return tuple(columns.values()) or (np.full(1, math.nan),)


def pack_brackets(rules: margin.MarginRules) -> margin.MarginRules:
    """Return margin rules as the loop takes them: a table as arrays, one bracket as it is.

    A single bracket stays a tuple, whose length numba knows, and costs no loop.
    """
    if len(rules.floors) == 1:
        return rules
    return margin.MarginRules._make(
        np.array(value) if name in margin.LEVELS else value
        for name, value in rules._asdict().items()
    )
