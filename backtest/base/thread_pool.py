"""Work in threads, signals that wait for compiled code, and the seconds that compiling takes."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import FrameType
from typing import Any, TypeAlias, TypeVar

_T = TypeVar("_T")


def count_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_in_threads(
    work: Callable[[_T, Callable[[], bool]], Any], items: Iterator[_T], threads: int
) -> Iterator[tuple[_T, Any]]:
    if threads == 1:  # no thread to start or to wake
        with silence_policies():
            yield from ((item, _try(work, item)) for item in items)
        return
    stopped = threading.Event()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="sweep")
    waiting: dict[Future[Any], _T] = {}
    try:
        with silence_policies():
            for item in items:
                waiting[pool.submit(work, item, stopped.is_set)] = item
                if len(waiting) >= 2 * threads:
                    yield from _take(waiting)
            while waiting:
                yield from _take(waiting)
    finally:
        stopped.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _try(work: Callable[[_T, Callable[[], bool]], Any], item: _T) -> Any:
    try:
        return work(item, lambda: False)
    except Exception as error:  # returned, as from a future
        return error


def _take(waiting: dict[Future[Any], _T]) -> Iterator[tuple[_T, Any]]:
    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
    for future in done:
        error = future.exception()
        yield waiting.pop(future), future.result() if error is None else error


@contextmanager
def silence_policies() -> Iterator[None]:
    before = sys.unraisablehook

    def pass_on(found: Any) -> None:
        if "numba" not in repr(found.object):
            before(found)

    sys.unraisablehook = pass_on
    try:
        yield
    finally:
        sys.unraisablehook = before


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


def is_compiling(frame: FrameType | None) -> bool:
    while frame is not None:
        name = frame.f_code.co_name
        if name.startswith("_raw_object_cache"):
            return False
        if name == "_compile_for_args" and frame.f_globals["__name__"] == "numba.core.dispatcher":
            return True
        frame = frame.f_back
    return False


class Stopwatch:
    """The seconds that compiling takes; only one thread compiles at a time."""

    depth, began, spent = 0, 0.0, 0.0

    @property
    def seconds(self) -> float:
        return self.spent + (time.perf_counter() - self.began if self.depth else 0.0)

    @contextmanager
    def running(self) -> Iterator[None]:
        self.began = self.began if self.depth else time.perf_counter()
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1
            if self.depth == 0:
                self.spent += time.perf_counter() - self.began


COMPILING = Stopwatch()
