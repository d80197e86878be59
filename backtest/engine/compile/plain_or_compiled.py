"""Whether a run comes sooner in plain Python than from the compiler, and what notes that."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, NamedTuple

from backtest.account.account_records import Rules
from backtest.base.argument_types import name_types, outline_argument
from backtest.base.code_identity import hash_texts
from backtest.base.compile_choice import is_plain_sooner, write_marks
from backtest.engine.compile.recipe import Recipe, find_rules_folder
from backtest.engine.compile.same_bits import gives_same_bits
from backtest.policy.policy import Policy

PER_BAR, PER_PART = 80e-6, 25e-6
"""Seconds of plain Python for a bar, and more for each part of the rules that is in force."""
FIRST_KIND, OTHER_KIND, OTHER_POLICY = 15.0, 11.0, 3.0
"""Seconds to compile: the first kind of account on a machine, another one, another policy."""
ATTEMPTS = 2
"""How often the background may try; after that the run compiles itself, and tells what is wrong."""


class LoopOrder(NamedTuple):
    """A policy's loop to compile for arguments of some types, and where to note that it is done."""

    recipe: Recipe
    arguments: tuple[Any, ...]
    marks: tuple[Path, ...]
    tries: Path


def order_loop(recipe: Recipe, arguments: tuple[Any, ...]) -> LoopOrder:
    """Return the order of a policy's loop for its arguments."""
    outlined = tuple(map(outline_argument, arguments))
    folder = find_rules_folder()
    formula, memory = outlined[5], outlined[8]
    account = name_types(*(each for k, each in enumerate(outlined) if k not in (5, 8)))
    loop = hash_texts(account, name_types(formula, memory))
    marks = (folder / f"{recipe.name}.{loop}.ready", folder / f"account-{account}.ready")
    return LoopOrder(recipe, outlined, marks, folder / f"{recipe.name}.{loop}.tries")


def is_ready(order: LoopOrder) -> bool:
    """Tell whether a loop was compiled and kept."""
    return order.marks[0].exists()


def mark_ready(order: LoopOrder) -> None:
    """Note that a loop is compiled and kept."""
    if order.recipe.is_complete:
        write_marks(order.marks)
        with contextlib.suppress(OSError):
            order.tries.unlink(missing_ok=True)


def is_loop_plain(order: LoopOrder, policy: Policy, rules: Rules, n_bars: int) -> bool:
    """Tell whether a run is to be answered in plain Python."""
    if is_ready(order) or not order.recipe.is_complete or count_tries(order) >= ATTEMPTS:
        return False
    if not gives_same_bits(order.recipe.rule, policy):
        return False
    return is_plain_sooner(
        order.marks[0].name, estimate_plain(rules, n_bars), estimate_compiling(order)
    )


def count_tries(order: LoopOrder) -> int:
    """Return how often the background has begun to compile a loop."""
    try:
        return order.tries.stat().st_size
    except OSError:
        return 0


def estimate_plain(rules: Rules, n_bars: int) -> float:
    """Return about how many seconds a run takes in plain Python."""
    own = rules.instrument
    parts = (own.is_isolated, own.has_stop, own.has_impact, rules.account.has_interest)
    return n_bars * (PER_BAR + PER_PART * sum(part is not None for part in parts))


def estimate_compiling(order: LoopOrder) -> float:
    """Return about how many seconds it takes to compile a loop."""
    if order.marks[1].exists():
        return OTHER_POLICY
    has_any = any(order.marks[1].parent.glob("account-*.ready"))
    return OTHER_KIND if has_any else FIRST_KIND
