"""A background process that compiles, for the next run, what this run executed in plain Python."""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple, TypeVar

from backtest.base import (
    KernelOrder,
    PolicyError,
    find_lasting_folder,
    lock_handle,
    pop_kernels,
    read_mode,
)
from backtest.engine.compile.plain_or_compiled import LoopOrder
from backtest.engine.compile.rule_pickles import pack_rule, unpack_rule

Outcome = TypeVar("Outcome")

LOCK = "background.lock"
SECONDS = 60.0
"""How long the process may outlive the program that started it."""
SECONDS_OF_GENERAL = 600.0
"""The same for the general loop, which takes half a minute or more to compile."""
STALE = 600.0
"""Seconds after which an unfinished file is abandoned."""
STAY = b"s"
STDERR = 2

NOTE = (
    "not compiled yet: answered in plain Python, with the same numbers; "
    "compiling in the background for the next run"
)

CHILD = """
import os, pickle, sys
os.nice(19)
sys.path[:] = pickle.load(sys.stdin.buffer)
from backtest.engine.compile.background_compiler import compile_order_from_stdin
compile_order_from_stdin(int(sys.argv[1]))
"""


class CompileOrder(NamedTuple):
    kernels: tuple[KernelOrder, ...]
    loop: LoopOrder
    rule: bytes


class Child(NamedTuple):
    process: subprocess.Popen[bytes]
    pipe: int


def write_note(text: str) -> None:
    if sys.stderr is None:
        return
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)  # noqa: T201 - the one line there is


class CompilerProcess:
    def __init__(self) -> None:
        self.child: Child | None = None
        self.is_notified = False
        self.notify: Callable[[str], None] = write_note

    def notify_once(self) -> None:
        if not self.is_notified:
            self.is_notified = True
            self.notify(NOTE)


BACKGROUND = CompilerProcess()


def start_compiling(kernels: tuple[KernelOrder, ...], loop: LoopOrder) -> None:
    folder = find_lasting_folder()
    is_unwanted = bool(os.environ.get("CI")) or read_mode() == "no" or os.name != "posix"
    if is_unwanted or folder is None:
        return
    with contextlib.suppress(Exception):  # the run is done: no error here may spoil its result
        lock = take_lock(folder / LOCK)
        if lock is not None:
            try:
                start_child(kernels, loop, lock)
            finally:
                os.close(lock)  # the child's copy holds it
        BACKGROUND.notify_once()


def take_lock(path: Path) -> int | None:
    handle = avoid_standard_streams(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    if lock_handle(handle, patience=0.0):
        return handle
    os.close(handle)
    return None


def avoid_standard_streams(handle: int) -> int:
    if handle > STDERR:
        return handle
    import fcntl  # noqa: PLC0415 - not on Windows, where nothing is compiled in the background

    higher = fcntl.fcntl(handle, fcntl.F_DUPFD_CLOEXEC, STDERR + 1)
    os.close(handle)
    return higher


def pack_order(kernels: tuple[KernelOrder, ...], loop: LoopOrder) -> CompileOrder:
    if loop.recipe is None:
        return CompileOrder(kernels, loop, b"")
    bare = loop._replace(recipe=loop.recipe._replace(rule=None, memory=None))
    return CompileOrder(kernels, bare, pack_rule(loop.recipe))


def start_child(kernels: tuple[KernelOrder, ...], loop: LoopOrder, lock: int) -> None:
    order = pack_order(kernels, loop)
    kill_child()
    reading, writing = map(avoid_standard_streams, os.pipe())
    try:
        with tempfile.TemporaryFile() as file:
            file.write(pickle.dumps(sys.path) + pickle.dumps(order))
            file.seek(0)
            process = open_child(file, (reading, lock))
    except BaseException:
        os.close(writing)
        raise
    finally:
        os.close(reading)
    BACKGROUND.child = Child(process, writing)
    atexit.register(release_child)


def open_child(stdin: IO[bytes], handles: tuple[int, int]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-c", CHILD, str(handles[0])],
        stdin=stdin,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=handles,
        start_new_session=True,
    )


def kill_child() -> None:
    child, BACKGROUND.child = BACKGROUND.child, None
    if child is not None:
        os.close(child.pipe)
        child.process.kill()
        child.process.wait()


def release_child() -> None:
    if issubclass(getattr(sys, "last_type", None) or Exception, KeyboardInterrupt):
        kill_child()
    child, BACKGROUND.child = BACKGROUND.child, None
    if child is not None:
        with contextlib.suppress(OSError):
            os.write(child.pipe, STAY)
        os.close(child.pipe)
        child.process.returncode = child.process.returncode or 0  # it is not waited for


class CompileFirst(Exception):  # noqa: N818 - a reason to compile first
    """Plain Python raised where compiled code may go on, as at the root of a negative number."""


def answer_first(run: Callable[[], Outcome], loop: LoopOrder) -> Outcome:
    try:
        with ended_by_interrupts():
            outcome = run()
    except PolicyError as error:
        if error.__cause__ is None or isinstance(error.__cause__, (AttributeError, NameError)):
            raise
        raise CompileFirst from error
    start_compiling(pop_kernels(), loop)
    return outcome


@contextlib.contextmanager
def ended_by_interrupts() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        kill_child()
        raise


# ------------------------------------------------------------------------------- in the background


def compile_order_from_stdin(pipe: int) -> None:
    os.environ["BACKTEST_COMPILE"] = "now"
    order: CompileOrder = pickle.load(sys.stdin.buffer)
    loop = order.loop
    patience = SECONDS_OF_GENERAL if loop.recipe is None else SECONDS
    threading.Thread(target=exit_with_parent, args=(pipe, patience), daemon=True).start()
    from backtest.engine.compile import background_jobs  # noqa: PLC0415 - loads numba

    folder = find_lasting_folder()
    if folder is not None:
        remove_stale(folder)
    if loop.recipe is not None:
        rule, memory = unpack_rule(order.rule)
        loop = loop._replace(recipe=loop.recipe._replace(rule=rule, memory=memory))
    background_jobs.compile_order(order.kernels, loop)


def exit_with_parent(pipe: int, patience: float) -> None:
    if os.read(pipe, 1) == STAY:
        time.sleep(patience)
    os._exit(1)


def remove_stale(folder: Path) -> None:
    for path in folder.rglob(".new-*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > STALE:
                path.unlink()
