"""Work in threads."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, TypeVar

_T = TypeVar("_T")


def count_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_in_threads(
    work: Callable[[_T, Callable[[], bool]], Any], items: Iterator[_T], threads: int
) -> Iterator[tuple[_T, Any]]:
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
