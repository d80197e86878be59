"""The choice between plain Python and compiling for a run, and the marks of what is compiled."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from backtest.account import Rules
from backtest.base import hash_texts, is_plain_sooner, name_types, outline_argument, write_marks
from backtest.engine.compile.recipe import Recipe, find_rules_folder
from backtest.engine.compile.same_bits import gives_same_bits
from backtest.policy import Policy, formula_for, margin_formula_for

PER_BAR, PER_PART = 100e-6, 25e-6
"""Seconds of plain Python per bar of the fast loop, and for each optional rule in use."""
PER_GENERAL_BAR, PER_INSTRUMENT = 200e-6, 150e-6
"""Seconds of plain Python per bar of the general loop, and for each instrument."""
FIRST_KIND, OTHER_KIND, OTHER_POLICY = 15.0, 11.0, 3.0
"""Seconds to compile: the first kind of account on a machine, another one, another policy."""
GENERAL_LOOP = 60.0
"""Seconds to compile the general loop."""
ATTEMPTS = 2
"""How often the background may try; after that the run compiles itself and shows the error."""
FOLDERS = ("account", "venue", "engine", "engine/compile", "base", "measures")


class LoopOrder(NamedTuple):
    recipe: Recipe | None
    arguments: tuple[Any, ...]
    marks: tuple[Path, ...]
    tries: Path


@functools.cache
def hash_sources() -> str:
    package = Path(__file__).parents[2]
    paths = [path for folder in FOLDERS for path in sorted((package / folder).glob("*.py"))]
    return hash_texts(*(path.read_text(encoding="utf-8") for path in paths))


def order_loop(recipe: Recipe | None, arguments: tuple[Any, ...]) -> LoopOrder:
    outlined = tuple(map(outline_argument, arguments))
    folder = find_rules_folder()
    if recipe is None:
        stem = f"general-{hash_texts(hash_sources(), name_types(*outlined))}"
        marks: tuple[Path, ...] = (folder / f"{stem}.ready",)
    else:
        formula, memory = outlined[5], outlined[8]
        account = name_types(*(each for k, each in enumerate(outlined) if k not in (5, 8)))
        stem = f"{recipe.name}.{hash_texts(account, name_types(formula, memory))}"
        marks = (folder / f"{stem}.ready", folder / f"account-{account}.ready")
    return LoopOrder(recipe, outlined, marks, folder / f"{stem}.tries")


def mark_ready(order: LoopOrder) -> None:
    if is_cacheable(order):
        write_marks(order.marks)
        with contextlib.suppress(OSError):
            order.tries.unlink(missing_ok=True)


def is_cacheable(order: LoopOrder) -> bool:
    return order.recipe is None or order.recipe.is_complete


def is_loop_plain(
    order: LoopOrder, policies: Sequence[tuple[Policy, tuple[str, ...]]], seconds: float
) -> bool:
    mark = order.marks[0]
    if mark.exists() or not is_cacheable(order) or count_tries(order.tries) >= ATTEMPTS:
        return False
    are_same = all(
        gives_same_bits(rule, policy)
        for policy, columns in policies
        for rule in (formula_for(policy, columns), margin_formula_for(policy, columns))
        if rule is not None
    )
    return are_same and is_plain_sooner(mark.name, seconds, estimate_compiling(order))


def count_tries(tries: Path) -> int:
    try:
        return tries.stat().st_size
    except OSError:
        return 0


def estimate_plain(rules: Rules, n_bars: int) -> float:
    own = rules.instrument
    parts = (own.is_isolated, own.has_stop, own.has_impact, rules.account.has_interest)
    return n_bars * (PER_BAR + PER_PART * sum(part is not None for part in parts))


def estimate_plain_general(n_policies: int, n_bars: int) -> float:
    return n_bars * (PER_GENERAL_BAR + PER_INSTRUMENT * n_policies)


def estimate_compiling(order: LoopOrder) -> float:
    if order.recipe is None:
        return GENERAL_LOOP
    if order.marks[1].exists():
        return OTHER_POLICY
    has_any = any(order.marks[1].parent.glob("account-*.ready"))
    return OTHER_KIND if has_any else FIRST_KIND
