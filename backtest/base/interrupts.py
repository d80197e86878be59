"""Safe Ctrl-C in compiled code: signals wait until a compiled call has returned."""

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

Handler: TypeAlias = Callable[[int, FrameType | None], Any]


@dataclass
class SignalGate:
    is_closed: bool = True
    kept: list[Callable[[], Any]] = field(default_factory=list)

    def handle(self, handler: Handler, number: int, frame: FrameType | None) -> None:
        if self.is_closed and not is_compiling(frame):
            self.kept.append(partial(handler, number, frame))
        else:
            handler(number, frame)

    def open(self) -> None:
        self.is_closed = False
        while self.kept:
            self.kept.pop(0)()


@contextmanager
def hold_signals() -> Iterator[SignalGate]:
    before: list[tuple[int, Handler]] = []
    if threading.current_thread() is threading.main_thread():
        handlers = ((number, signal.getsignal(number)) for number in SIGNALS)
        before = [(number, handler) for number, handler in handlers if callable(handler)]
    gate = SignalGate()
    try:
        for number, handler in before:
            signal.signal(number, partial(gate.handle, handler))
        yield gate
    finally:
        gate.is_closed = False
        restore_handlers(before, gate.kept)


def restore_handlers(before: list[tuple[int, Handler]], kept: list[Callable[[], Any]]) -> None:
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
    while frame is not None:
        name = frame.f_code.co_name
        if name.startswith("_raw_object_cache"):
            return False
        if name == "_compile_for_args" and frame.f_globals["__name__"] == "numba.core.dispatcher":
            return True
        frame = frame.f_back
    return False
