"""Processes that are killed at a chosen step of their work on the disk."""

import os
import signal
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

from backtest.results import Filter, choose_deletions, delete_chosen, list_results
from backtest.results.listing import LEFTOVER

STEPS = ("fsync", "replace", "rename", "unlink")
"""Functions of :mod:`os` whose calls are counted as steps."""
NEVER = 1_000_000_000


def die_at(step: int, work: Callable[[], object]) -> int:
    """Do some work in a process of its own that is killed before a step on the disk. Returns how it
    ended: -9 of a kill, 0 where there were fewer steps."""
    child = os.fork()
    if not child:
        kill_at(step)
        warnings.simplefilter("ignore")
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_at(step: int) -> None:
    left = [step]

    def kill_or(real: Callable[..., object]) -> Callable[..., object]:
        def act(*args: object, **how: object) -> object:
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return real(*args, **how)

        return act

    for name in STEPS:
        setattr(os, name, kill_or(getattr(os, name)))


def clear_leftovers(store: Path) -> None:
    """Prune what a kill left half written, half deleted or half replaced: all of it goes.

    The remains of a replacement go with damaged results alone, of which there must be none.
    """
    assert {each.kind for each in list_results(store) if each.trouble} <= {LEFTOVER}
    chosen, kept = choose_deletions(store, Filter(before=0), with_damaged=True)
    assert not kept
    assert not delete_chosen(store, chosen)[1]


def count_steps(work: Callable[[], object]) -> int:
    found = [0]

    def count(real: Callable[..., object]) -> Callable[..., object]:
        def act(*args: object, **how: object) -> object:
            found[0] += 1
            return real(*args, **how)

        return act

    with ExitStack() as stack:
        for name in STEPS:
            stack.enter_context(mock.patch.object(os, name, count(getattr(os, name))))
        work()
    return found[0]
