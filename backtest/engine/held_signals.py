"""Signals that wait until compiled code has returned: what a handler raises there would be lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
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
        if self.is_closed:
            self.kept.append(partial(handler, number, frame))
        else:
            handler(number, frame)

    def open(self) -> None:
        self.is_closed = False
        while self.kept:
            self.kept.pop(0)()


@contextmanager
def hold_signals() -> Iterator[SignalGate]:
    gate = SignalGate()
    with ExitStack() as answers, ExitStack() as handlers:  # all of them, though one raises
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if callable(handler := signal.getsignal(number)):
                    handlers.callback(signal.signal, number, handler)
                    signal.signal(number, partial(gate.handle, handler))
        try:
            yield gate
        finally:
            gate.is_closed = False
            for answer in reversed(gate.kept):
                answers.callback(answer)
