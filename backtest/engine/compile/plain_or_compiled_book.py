"""The choice between plain Python and compiling for a run of several positions.

One kernel serves all accounts, so that it is compiled once on a machine. It takes minutes, and a
run of a short market is answered in plain Python long before.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from backtest.base.argument_types import name_types, outline_argument
from backtest.base.code_identity import hash_texts
from backtest.base.compile_choice import is_plain_sooner, write_marks
from backtest.engine.compile.plain_or_compiled import ATTEMPTS, count_tries
from backtest.engine.compile.recipe import find_rules_folder
from backtest.engine.compile.same_bits import gives_same_bits
from backtest.policy import Policy, formula_for

PER_BAR, PER_INSTRUMENT = 200e-6, 150e-6
"""Seconds of plain Python per bar, and in addition for each instrument."""
COMPILING = 140.0
"""Seconds to compile the kernel."""
FOLDERS = ("portfolio", "venue", "engine/portfolio", "engine/compile", "base", "measures")
"""Folders of the package that the kernel is made of."""


class BookLoopOrder(NamedTuple):
    """The kernel to compile for arguments of some types, and the file that marks it as done."""

    arguments: tuple[Any, ...]
    mark: Path
    tries: Path


@functools.cache
def hash_sources() -> str:
    """Return a hash of all sources that the kernel may be made of."""
    package = Path(__file__).parents[2]
    paths = [path for folder in FOLDERS for path in sorted((package / folder).glob("*.py"))]
    return hash_texts(*(path.read_text(encoding="utf-8") for path in paths))


def order_book_loop(arguments: tuple[Any, ...]) -> BookLoopOrder:
    """Return the order of the kernel for its arguments."""
    outlined = tuple(map(outline_argument, arguments))
    stem = f"book-{hash_texts(hash_sources(), name_types(*outlined))}"
    folder = find_rules_folder()
    return BookLoopOrder(outlined, folder / f"{stem}.ready", folder / f"{stem}.tries")


def mark_book_ready(order: BookLoopOrder) -> None:
    """Mark the kernel as compiled and cached."""
    write_marks((order.mark,))
    with contextlib.suppress(OSError):
        order.tries.unlink(missing_ok=True)


def is_book_plain(
    order: BookLoopOrder, policies: Sequence[tuple[Policy, tuple[str, ...]]], n_bars: int
) -> bool:
    """Return whether a run should be answered in plain Python.

    ``policies`` are those of the run, each with the names of its columns.
    """
    if order.mark.exists() or count_tries(order.tries) >= ATTEMPTS:
        return False
    are_same = all(
        gives_same_bits(formula_for(policy, columns), policy) for policy, columns in policies
    )
    plain = n_bars * (PER_BAR + PER_INSTRUMENT * len(policies))
    return are_same and is_plain_sooner(order.mark.name, plain, COMPILING)
