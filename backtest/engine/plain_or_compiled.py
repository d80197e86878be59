"""The choice between plain Python and compiling for a run, and the marks of what is compiled."""

from __future__ import annotations

import dis
import functools
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from types import FunctionType
from typing import Any, TypeVar

from backtest import base
from backtest.engine.recipe import find_rules_folder
from backtest.policy import Policy, formula_for, margin_formula_for

Outcome = TypeVar("Outcome")

PER_GENERAL_BAR, PER_INSTRUMENT = 200e-6, 150e-6
"""Seconds of plain Python per bar, and for each instrument."""
GENERAL_LOOP = 60
"""Seconds to compile the loop."""
FOLDERS = ("account", "venue", "engine", "base", "measures")


@functools.cache
def hash_sources() -> str:
    package = Path(__file__).parents[1]
    paths = [path for folder in FOLDERS for path in sorted((package / folder).glob("*.py"))]
    return base.hash_texts(*(path.read_text(encoding="utf-8") for path in paths))


def find_mark(arguments: tuple[Any, ...]) -> Path:
    """Return the file that says that the loop is compiled for such arguments."""
    types = base.name_types(*arguments)
    return find_rules_folder() / f"general.{base.hash_texts(hash_sources(), types)}.ready"


def estimate_plain(n_policies: int, n_bars: int) -> float:
    return n_bars * (PER_GENERAL_BAR + PER_INSTRUMENT * n_policies)


def try_plain(
    run: Callable[[], Outcome],
    mark: Path,
    seconds: float,
    policies: Sequence[tuple[Policy, tuple[str, ...]]],
) -> Outcome | None:
    """Run in plain Python if that is sooner and gives the same numbers; None says to compile.

    Plain Python raises where compiled code may go on, as at the root of a negative number.
    """
    if mark.exists():
        return None
    if any(counts_comparisons(*each) for each in policies) or not base.is_plain_sooner(
        mark, seconds
    ):
        base.tell_of_compiling(GENERAL_LOOP)
        return None
    try:
        return run()
    except base.PolicyError as error:
        if error.__cause__ is None or isinstance(error.__cause__, (AttributeError, NameError)):
            raise
        return None


def counts_comparisons(policy: Policy, columns: tuple[str, ...]) -> bool:
    """Return whether a rule uses comparisons as numbers, which NumPy's scalars add up to 1."""
    rules = (formula_for(policy, columns), margin_formula_for(policy, columns))
    return any(keeps_comparison(rule, set()) for rule in rules if rule is not None)


def keeps_comparison(function: Any, seen: set[Any]) -> bool:
    seen.add(function)
    names = [each.opname for each in dis.get_instructions(function)]
    steps = pairwise(each for each in names if each != "EXTENDED_ARG")
    if any(name == "COMPARE_OP" and "JUMP" not in after for name, after in steps):
        return True
    called = [
        each for each in base.find_references(function).values() if type(each) is FunctionType
    ]
    own = [each for each in called if each not in seen and is_users(each)]
    return any(keeps_comparison(each, seen) for each in own)


def is_users(function: FunctionType) -> bool:
    return not function.__module__.startswith("backtest.base")
