"""The choice between plain Python and compiling for a run, and the marks of what is compiled."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from backtest.account import Rules
from backtest.base import PolicyError, hash_texts, is_plain_sooner, name_types, tell_of_compiling
from backtest.engine.compile.recipe import Recipe, find_rules_folder

Outcome = TypeVar("Outcome")

PER_BAR, PER_PART = 100e-6, 25e-6
"""Seconds of plain Python per bar of the fast loop, and for each optional rule in use."""
PER_GENERAL_BAR, PER_INSTRUMENT = 200e-6, 150e-6
"""Seconds of plain Python per bar of the general loop, and for each instrument."""
GENERAL_LOOP = 35
"""Seconds to compile the general loop."""
FOLDERS = ("account", "venue", "engine", "engine/compile", "base", "measures")


@functools.cache
def hash_sources() -> str:
    package = Path(__file__).parents[2]
    paths = [path for folder in FOLDERS for path in sorted((package / folder).glob("*.py"))]
    return hash_texts(*(path.read_text(encoding="utf-8") for path in paths))


def find_mark(recipe: Recipe | None, arguments: tuple[Any, ...]) -> Path:
    """Return the file that says that a loop is compiled for such arguments."""
    name = "general" if recipe is None else recipe.name
    types = name_types(*arguments)
    return find_rules_folder() / f"{name}.{hash_texts(hash_sources(), types)}.ready"


def estimate_plain(rules: Rules, n_bars: int) -> float:
    own = rules.instrument
    parts = (own.is_isolated, own.has_stop, own.has_impact, rules.account.has_interest)
    return n_bars * (PER_BAR + PER_PART * sum(part is not None for part in parts))


def estimate_plain_general(n_policies: int, n_bars: int) -> float:
    return n_bars * (PER_GENERAL_BAR + PER_INSTRUMENT * n_policies)


def try_plain(run: Callable[[], Outcome], mark: Path, seconds: float) -> Outcome | None:
    """Run in plain Python if that is sooner; None says to compile.

    Plain Python raises where compiled code may go on, as at the root of a negative number.
    """
    if not is_plain_sooner(mark, seconds):
        if not mark.exists() and mark.name.startswith("general."):
            tell_of_compiling(GENERAL_LOOP)
        return None
    try:
        return run()
    except PolicyError as error:
        if error.__cause__ is None or isinstance(error.__cause__, (AttributeError, NameError)):
            raise
        return None
