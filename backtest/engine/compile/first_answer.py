"""Whether the first answer comes sooner in plain Python than from the compiler.

The bits are the same either way. What is not compiled yet runs in plain Python while that takes
less time than compiling, and is compiled for the next time by a process in the background (see
:mod:`backtest.engine.compile.background_compiler`). The rule goes by numbers of bars, not by a clock. What one process
computes in plain Python counts together: once that would have paid for the compiler, it compiles.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from backtest.account.account_records import Rules
from backtest.base.code_identity import digest
from backtest.base.errors import ParameterError, did_you_mean
from backtest.engine.compile.outlines import name_types, outline
from backtest.engine.compile.recipe import Recipe, find_rules_folder
from backtest.engine.compile.same_bits import gives_same_bits
from backtest.policy.policy import Policy

MODE = "BACKTEST_COMPILE"
"""The environment variable that says when to compile."""
MODES = ("auto", "no", "now")
"""In the background if that is sooner; never in the background; always before the answer."""

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


class KernelOrder(NamedTuple):
    """A kernel of a module to compile for arguments of some types."""

    module: str
    name: str
    arguments: tuple[Any, ...]


class Desk(threading.local):
    """What a thread has asked for: whether a first answer is wanted, and which kernels wait."""

    def __init__(self) -> None:
        self.is_hurried = False
        self.must_compile = False
        self.kernels: dict[str, KernelOrder] = {}


DESK = Desk()
_spent: dict[str, float] = {}


def read_mode() -> str:
    """Return what ``BACKTEST_COMPILE`` says.

    Raises
    ------
    ParameterError
        If it is none of the known words.
    """
    mode = os.environ.get(MODE, "").lower() or "auto"
    if mode not in MODES:
        raise ParameterError(
            f"{MODE} must be one of {', '.join(MODES)}, was {mode!r}{did_you_mean(mode, MODES)}",
            where=f"the environment variable {MODE}",
            cure=f"unset {MODE}, or set it to one of these words",
        )
    return mode


def hurry(is_hurried: bool) -> None:
    """Say whether this thread wants a first answer soon, or many answers."""
    DESK.is_hurried = is_hurried and read_mode() != "now"


@contextlib.contextmanager
def compiling_first() -> Iterator[None]:
    """Have this thread compile before it answers, whatever takes longer."""
    before, DESK.must_compile = DESK.must_compile, True
    try:
        yield
    finally:
        DESK.must_compile = before


def is_plain_sooner(key: str, plain: float, compiling: float) -> bool:
    """Tell whether to answer in plain Python, given the seconds that both ways take.

    ``key`` says what of: what it was answered before in this process counts as well.
    """
    if not DESK.is_hurried or DESK.must_compile:
        return False
    spent = _spent.get(key, 0.0) + plain
    if spent >= compiling:
        return False
    _spent[key] = spent
    return True


# -------------------------------------------------------------------------------------- the loop


def order_loop(recipe: Recipe, arguments: tuple[Any, ...]) -> LoopOrder:
    """Return the order of a policy's loop for its arguments."""
    outlined = tuple(map(outline, arguments))
    folder = find_rules_folder()
    formula, memory = outlined[5], outlined[8]
    account = name_types(*(each for k, each in enumerate(outlined) if k not in (5, 8)))
    loop = digest(account, name_types(formula, memory))
    marks = (folder / f"{recipe.name}.{loop}.ready", folder / f"account-{account}.ready")
    return LoopOrder(recipe, outlined, marks, folder / f"{recipe.name}.{loop}.tries")


def is_ready(order: LoopOrder) -> bool:
    """Tell whether a loop was compiled and kept."""
    return order.marks[0].exists()


def mark_ready(order: LoopOrder) -> None:
    """Note that a loop is compiled and kept."""
    if order.recipe.is_complete:
        put_marks(order.marks)
        with contextlib.suppress(OSError):
            order.tries.unlink(missing_ok=True)


def put_marks(marks: tuple[Path, ...]) -> None:
    """Write empty files; where that cannot be done it is compiled or looked for again."""
    for path in marks:
        with contextlib.suppress(OSError):
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()


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


# ----------------------------------------------------------------------------------- the kernels


def order_kernel(key: str, order: KernelOrder) -> None:
    """Have a kernel compiled with the next loop."""
    DESK.kernels[key] = order


def take_kernels() -> tuple[KernelOrder, ...]:
    """Return the kernels that wait, and forget them."""
    orders = tuple(DESK.kernels.values())
    DESK.kernels.clear()
    return orders
