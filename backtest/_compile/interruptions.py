"""Forks and signals while this process compiles, or runs compiled code."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

COMPILER_LOCK = threading.RLock()
"""Held while a function is compiled or loaded."""

HELD_FOR_FORK: list[Any] = []
"""Locks that the forking thread holds until both processes go on."""


def hold_compiler() -> None:
    """Wait before a fork until no thread compiles: the child has that thread no more."""
    numba_module = sys.modules.get("numba.core.compiler_lock")
    locks = [COMPILER_LOCK, getattr(numba_module, "global_compiler_lock", None)]
    for lock in locks:
        if lock is not None:
            lock.acquire()
            HELD_FOR_FORK.append(lock)


def release_compiler() -> None:
    while HELD_FOR_FORK:
        HELD_FOR_FORK.pop().release()


def register_fork_hooks() -> None:
    """Hold the compiler in forks, before the hooks of all libraries that are loaded by now.

    Their hooks hold locks that a compiling thread may need. What is registered last is called
    first; called twice, the second holds nothing more.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=hold_compiler, after_in_parent=release_compiler, after_in_child=release_compiler
        )


for _library in ("logging", "concurrent.futures.thread", "random"):
    importlib.import_module(_library)
register_fork_hooks()


@functools.cache
def load_file_lock() -> Any:
    """Return the class of filelock, whose hook in forks keeps its locks from being released."""
    file_lock = importlib.import_module("filelock").FileLock
    register_fork_hooks()
    return file_lock


class SignalGate:
    """Keeps signals while it is closed; opened, it answers them, and later ones at once.

    ``waiting`` are the calls of handlers that are still to be made.
    """

    is_closed = True

    def __init__(self) -> None:
        self.waiting: list[Callable[[], Any]] = []

    def handle(self, handler: Callable[..., Any], number: int, frame: FrameType | None) -> None:
        """Answer a signal, or keep it while the gate is closed."""
        if self.is_closed:
            self.waiting.append(functools.partial(handler, number, frame))
        else:
            handler(number, frame)

    def open(self) -> None:
        """Answer the signals that are kept, and from now on each at once."""
        self.is_closed = False
        while self.waiting:
            answer = self.waiting.pop(0)
            answer()


@contextlib.contextmanager
def hold_signals() -> Iterator[SignalGate]:
    """Hold signals back while a ``with`` block runs, and handle them at its end.

    What a handler raises while compiled code runs, such as KeyboardInterrupt, would be lost. At the
    end the handlers of all signals that came are called, in their order, even if one of them
    raises. Yields a gate, which is closed. The block may open it where it runs Python code: then
    signals are handled at once.
    """
    gate = SignalGate()
    # An ExitStack calls at its end what it was given, the last first, and goes on if one raises.
    # ``handlers`` ends first: so signals have their own handlers again before they are answered.
    with contextlib.ExitStack() as answers, contextlib.ExitStack() as handlers:
        # Python lets the main thread alone change handlers.
        if threading.current_thread() is threading.main_thread():
            put_before_handlers(gate, handlers)

        try:
            yield gate
        finally:
            # A stack answers the last first: reversed, the signal that came first is answered
            # first. Those that come from here on are answered at once.
            gate.is_closed = False
            for answer in reversed(gate.waiting):
                answers.callback(answer)


def put_before_handlers(gate: SignalGate, handlers: contextlib.ExitStack) -> None:
    """Let a gate receive all signals that Python handles; ``handlers`` puts theirs back."""
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        # Signals that are ignored, or left to the system, have no function to call.
        if callable(handler):
            handlers.callback(signal.signal, number, handler)
            signal.signal(number, functools.partial(gate.handle, handler))
