"""When to compile: the mode, what this thread wants, and which kernels wait for the compiler.

Compiled code and plain Python give the same bits. What is not compiled yet runs in plain Python
while that takes less time than compiling. The rule counts bars and does not read a clock, and the
plain work of one process adds up: once it would have paid for the compiler, the process compiles.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from backtest.base.errors import ParameterError, did_you_mean

MODE = "BACKTEST_COMPILE"
"""The environment variable that says when to compile."""
MODES = ("auto", "no", "now")
"""In the background if that is sooner; never in the background; always before the answer."""


class KernelOrder(NamedTuple):
    """A kernel of a module to compile for arguments of some types."""

    module: str
    name: str
    arguments: tuple[Any, ...]


class ThreadRequests(threading.local):
    """What a thread has asked for: whether a first answer is wanted, and which kernels wait."""

    def __init__(self) -> None:
        self.is_hurried = False
        self.must_compile = False
        self.kernels: dict[str, KernelOrder] = {}


REQUESTS = ThreadRequests()
_spent: dict[str, float] = {}


def read_mode() -> str:
    """Return what ``BACKTEST_COMPILE`` says."""
    mode = os.environ.get(MODE, "").lower() or "auto"
    if mode not in MODES:
        raise ParameterError(
            f"{MODE} must be one of {', '.join(MODES)}, was {mode!r}{did_you_mean(mode, MODES)}",
            where=f"the environment variable {MODE}",
            cure=f"unset {MODE}, or set it to one of these words",
        )
    return mode


def set_hurry(is_hurried: bool) -> None:
    """Say whether this thread wants a first answer soon, or many answers."""
    REQUESTS.is_hurried = is_hurried and read_mode() != "now"


@contextlib.contextmanager
def compiling_first() -> Iterator[None]:
    """Have this thread compile before it answers, whatever takes longer."""
    before, REQUESTS.must_compile = REQUESTS.must_compile, True
    try:
        yield
    finally:
        REQUESTS.must_compile = before


def is_plain_sooner(key: str, plain: float, compiling: float) -> bool:
    """Tell whether to answer in plain Python, given the seconds that both ways take.

    ``key`` says what of: what it was answered before in this process counts as well.
    """
    if not REQUESTS.is_hurried or REQUESTS.must_compile:
        return False
    spent = _spent.get(key, 0.0) + plain
    if spent >= compiling:
        return False
    _spent[key] = spent
    return True


def order_kernel(key: str, order: KernelOrder) -> None:
    """Have a kernel compiled with the next loop."""
    REQUESTS.kernels[key] = order


def pop_kernels() -> tuple[KernelOrder, ...]:
    """Return the kernels that wait, and forget them."""
    orders = tuple(REQUESTS.kernels.values())
    REQUESTS.kernels.clear()
    return orders


def write_marks(marks: tuple[Path, ...]) -> None:
    """Write empty files; where that cannot be done it is compiled or looked for again."""
    for path in marks:
        with contextlib.suppress(OSError):
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
