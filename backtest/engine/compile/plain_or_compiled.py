"""The choice between plain Python and compiling for a run, and the marks of what is compiled."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, NamedTuple

from backtest.account import Rules
from backtest.base.argument_types import name_types, outline_argument
from backtest.base.code_identity import hash_texts
from backtest.base.compile_choice import is_plain_sooner, write_marks
from backtest.engine.compile.recipe import Recipe, find_rules_folder
from backtest.engine.compile.same_bits import gives_same_bits
from backtest.policy import Policy

PER_BAR, PER_PART = 100e-6, 25e-6
"""Seconds of plain Python per bar, and in addition for each optional rule in use."""
FIRST_KIND, OTHER_KIND, OTHER_POLICY = 15.0, 11.0, 3.0
"""Seconds to compile: the first kind of account on a machine, another one, another policy."""
ATTEMPTS = 2
"""How often the background may try; after that the run compiles itself and shows the error."""


class LoopOrder(NamedTuple):
    """A loop to compile for arguments of some types, and the files that mark it as done."""

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


def mark_ready(order: LoopOrder) -> None:
    """Mark a loop as compiled and cached."""
    if order.recipe.is_complete:
        write_marks(order.marks)
        with contextlib.suppress(OSError):
            order.tries.unlink(missing_ok=True)


def is_loop_plain(order: LoopOrder, policy: Policy, rules: Rules, n_bars: int) -> bool:
    """Return whether a run should be answered in plain Python."""
    mark = order.marks[0]
    if mark.exists() or not order.recipe.is_complete or count_tries(order.tries) >= ATTEMPTS:
        return False
    return gives_same_bits(order.recipe.rule, policy) and is_plain_sooner(
        mark.name, estimate_plain(rules, n_bars), estimate_compiling(order)
    )


def count_tries(tries: Path) -> int:
    """Return how often the background has begun to compile a loop, from the file that counts it."""
    try:
        return tries.stat().st_size
    except OSError:
        return 0


def estimate_plain(rules: Rules, n_bars: int) -> float:
    """Return the estimated seconds of a run in plain Python."""
    own = rules.instrument
    parts = (own.is_isolated, own.has_stop, own.has_impact, rules.account.has_interest)
    return n_bars * (PER_BAR + PER_PART * sum(part is not None for part in parts))


def estimate_compiling(order: LoopOrder) -> float:
    """Return the estimated seconds to compile a loop."""
    if order.marks[1].exists():
        return OTHER_POLICY
    has_any = any(order.marks[1].parent.glob("account-*.ready"))
    return OTHER_KIND if has_any else FIRST_KIND
