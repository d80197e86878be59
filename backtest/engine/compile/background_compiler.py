"""One process in the background that compiles for the next run what this one did without.

It runs at the lowest priority and outlives the program that started it by a minute at most. It is
ended at once where that program is interrupted or killed: it holds the reading end of a pipe, and
ends itself when the writing end closes without a word. What it compiles goes to the cache file by
file, each written whole. A lock in the cache folder keeps a second one from being started.
"""

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
from typing import IO, NamedTuple

from backtest.base.cache_folder import find_lasting_folder
from backtest.base.compile_choice import KernelOrder, read_mode
from backtest.base.file_lock import lock_handle
from backtest.engine.compile.plain_or_compiled import LoopOrder
from backtest.engine.compile.rule_pickles import pack_rule, unpack_rule

LOCK = "background.lock"
SECONDS = 60.0
"""How long it may outlive the program that started it."""
STALE = 600.0
"""Seconds after which a file that was not finished belongs to nobody."""
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
from backtest.engine.compile.background_compiler import work
work(int(sys.argv[1]))
"""


class Job(NamedTuple):
    """What to compile: kernels first, then a loop, with its rule packed."""

    kernels: tuple[KernelOrder, ...]
    loop: LoopOrder
    rule: bytes


class Child(NamedTuple):
    """The process in the background, and the writing end of its pipe."""

    process: subprocess.Popen[bytes]
    pipe: int


def write_note(text: str) -> None:
    """Write one line to stderr, where there is one: ``print`` would take stdout instead of none."""
    if sys.stderr is None:
        return
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)  # noqa: T201 - the one line there is


class Background:
    """The child of this process, if any, and what was said of it."""

    def __init__(self) -> None:
        self.child: Child | None = None
        self.is_notified = False
        self.notify: Callable[[str], None] = write_note

    def notify_once(self) -> None:
        """Say once that something is compiled in the background."""
        if not self.is_notified:
            self.is_notified = True
            self.notify(NOTE)


BACKGROUND = Background()


def start(kernels: tuple[KernelOrder, ...], loop: LoopOrder) -> None:
    """Compile in the background, unless that is not wanted, is done already or cannot be done."""
    folder = find_lasting_folder()
    is_unwanted = bool(os.environ.get("CI")) or read_mode() == "no" or os.name != "posix"
    if is_unwanted or folder is None:
        return
    with contextlib.suppress(Exception):  # the answer is there: nothing here may take it away
        lock = take_lock(folder / LOCK)
        if lock is not None:
            try:
                spawn(kernels, loop, lock)
            finally:
                os.close(lock)  # the child's copy holds it
        BACKGROUND.notify_once()


def take_lock(path: Path) -> int | None:
    """Return a handle of a file that is locked now, or None where another process has it."""
    handle = move_up(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    if lock_handle(handle, patience=0.0):
        return handle
    os.close(handle)
    return None


def move_up(handle: int) -> int:
    """Return a handle of the same file that is not stdin, stdout or stderr of a child.

    Where the program was started with one of these closed, the next file to be opened is given its
    number.
    """
    if handle > STDERR:
        return handle
    import fcntl  # noqa: PLC0415 - not on Windows, where nothing is compiled in the background

    higher = fcntl.fcntl(handle, fcntl.F_DUPFD_CLOEXEC, STDERR + 1)
    os.close(handle)
    return higher


def spawn(kernels: tuple[KernelOrder, ...], loop: LoopOrder, lock: int) -> None:
    """Start the child with its job, the lock, and the reading end of a pipe."""
    recipe = loop.recipe
    packed = pack_rule(recipe)
    job = Job(kernels, loop._replace(recipe=recipe._replace(rule=None, memory=None)), packed)
    end()
    reading, writing = map(move_up, os.pipe())
    try:
        with tempfile.TemporaryFile() as order:
            order.write(pickle.dumps(sys.path) + pickle.dumps(job))
            order.seek(0)
            process = popen(order, (reading, lock))
    except BaseException:
        os.close(writing)
        raise
    finally:
        os.close(reading)
    BACKGROUND.child = Child(process, writing)
    atexit.register(leave)


def popen(order: IO[bytes], handles: tuple[int, int]) -> subprocess.Popen[bytes]:
    """Return the child, in a session of its own: Ctrl-C at the terminal is not meant for it."""
    return subprocess.Popen(
        [sys.executable, "-P", "-c", CHILD, str(handles[0])],
        stdin=order,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=handles,
        start_new_session=True,
    )


def end() -> None:
    """End the child at once, as after Ctrl-C."""
    child, BACKGROUND.child = BACKGROUND.child, None
    if child is not None:
        os.close(child.pipe)
        child.process.kill()
        child.process.wait()


def leave() -> None:
    """Let the child go on for a while, at the end of the program; not where it was interrupted."""
    if issubclass(getattr(sys, "last_type", None) or Exception, KeyboardInterrupt):
        end()
    child, BACKGROUND.child = BACKGROUND.child, None
    if child is not None:
        with contextlib.suppress(OSError):
            os.write(child.pipe, STAY)
        os.close(child.pipe)
        child.process.returncode = child.process.returncode or 0  # it is not waited for


@contextlib.contextmanager
def ended_by_interrupts() -> Iterator[None]:
    """End the child where Ctrl-C comes inside."""
    try:
        yield
    except KeyboardInterrupt:
        end()
        raise


# ------------------------------------------------------------------------------- in the background


def work(pipe: int) -> None:
    """Compile what is asked for on stdin; the process of the child."""
    os.environ["BACKTEST_COMPILE"] = "now"
    threading.Thread(target=watch, args=(pipe,), daemon=True).start()
    job: Job = pickle.load(sys.stdin.buffer)
    from backtest.engine.compile.background_jobs import carry_out  # noqa: PLC0415 - loads numba

    folder = find_lasting_folder()
    if folder is not None:
        remove_stale(folder)
    rule, memory = unpack_rule(job.rule)
    recipe = job.loop.recipe._replace(rule=rule, memory=memory)
    carry_out(job.kernels, job.loop._replace(recipe=recipe))


def watch(pipe: int) -> None:
    """Wait for the end of the program that started this one, and end in time."""
    if os.read(pipe, 1) == STAY:
        time.sleep(SECONDS)
    os._exit(1)


def remove_stale(folder: Path) -> None:
    """Remove files that a writer that was killed did not finish."""
    for path in folder.rglob(".new-*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > STALE:
                path.unlink()
