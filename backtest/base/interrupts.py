"""Ctrl-C and compiled code: a signal waits until a compiled call has returned.

A compiled function makes named tuples of what it returns, which runs Python, and Python looks for
signals then. What a handler raises there, compiled code does not expect: the process would die.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import FrameType
from typing import Any, TypeAlias

SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGALRM", "SIGUSR1", "SIGUSR2", "SIGBREAK")
    if hasattr(signal, name)
)
"""Those that programs answer: Ctrl-C, the end of a job or a terminal, a limit of time."""

Handler: TypeAlias = Callable[[int, FrameType | None], Any]


@dataclass
class SignalGate:
    """Keeps signals while it is closed; open, it lets them pass to their handlers."""

    is_closed: bool = True
    kept: list[Callable[[], Any]] = field(default_factory=list)

    def meet(self, handler: Handler, number: int, frame: FrameType | None) -> None:
        """Keep a signal for later; not where numba compiles."""
        if self.is_closed and not is_compiling(frame):
            self.kept.append(partial(handler, number, frame))
        else:
            handler(number, frame)


@contextmanager
def hold_signals() -> Iterator[None]:
    """Hold signals back while a compiled function is called; they come when that has returned.

    While numba compiles, which takes seconds and is plain Python, they come at once. Only the main
    thread is given signals, and only what Python answers is held back: Ctrl-C is.
    """
    before: list[tuple[int, Handler]] = []
    if threading.current_thread() is threading.main_thread():
        handlers = ((number, signal.getsignal(number)) for number in SIGNALS)
        before = [(number, handler) for number, handler in handlers if callable(handler)]
    gate = SignalGate()
    try:
        for number, handler in before:
            signal.signal(number, partial(gate.meet, handler))
        yield
    finally:
        gate.is_closed = False
        restore_handlers(before, gate.kept)


def restore_handlers(before: list[tuple[int, Handler]], kept: list[Callable[[], Any]]) -> None:
    """Put all handlers back, then answer what was kept, whatever one of them raises."""
    try:
        while before:
            signal.signal(*before[-1])
            before.pop()
        while kept:
            kept.pop(0)()
    finally:
        if before or kept:
            restore_handlers(before, kept)


def is_compiling(frame: FrameType | None) -> bool:
    """Tell whether numba compiles in a frame or in one that called it, and may be interrupted.

    It may not while LLVM calls it back, where what is raised is lost.
    """
    while frame is not None:
        name = frame.f_code.co_name
        if name.startswith("_raw_object_cache"):
            return False
        if name == "_compile_for_args" and frame.f_globals["__name__"] == "numba.core.dispatcher":
            return True
        frame = frame.f_back
    return False
