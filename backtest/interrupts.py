"""Ctrl-C and compiled code: a signal waits until a compiled call has returned.

A compiled function makes named tuples of what it returns, which runs Python, and Python looks for
signals then. What a handler raises there, compiled code does not expect: the process would die.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any

SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGALRM", "SIGUSR1", "SIGUSR2", "SIGBREAK")
    if hasattr(signal, name)
)
"""Those that programs answer: Ctrl-C, the end of a job or a terminal, a limit of time."""

Held = list[Callable[[], Any]]


@contextmanager
def hold_signals() -> Iterator[None]:
    """Hold signals back while a compiled function is called; they come when that has returned.

    While numba compiles, which takes seconds and is plain Python, they come at once. Only the main
    thread is given signals, and only what Python answers is held back: Ctrl-C is.
    """
    before: dict[int, Callable[[int, FrameType | None], Any]] = {}
    if threading.current_thread() is threading.main_thread():
        handlers = ((number, signal.getsignal(number)) for number in SIGNALS)
        before = {number: handler for number, handler in handlers if callable(handler)}
    held: Held = []
    try:
        for number, handler in before.items():
            signal.signal(number, partial(hold, held, handler))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for answer in held:
            answer()


def hold(
    held: Held,
    handler: Callable[[int, FrameType | None], Any],
    number: int,
    frame: FrameType | None,
) -> None:
    """Keep a signal for later; not where numba compiles."""
    if is_compiling(frame):
        handler(number, frame)
    else:
        held.append(partial(handler, number, frame))


def is_compiling(frame: FrameType | None) -> bool:
    """Tell whether numba compiles in a frame or in one that called it."""
    while frame is not None:
        is_numba = frame.f_globals.get("__name__") == "numba.core.dispatcher"
        if is_numba and frame.f_code.co_name == "_compile_for_args":
            return True
        frame = frame.f_back
    return False
