"""Linear algebra by one thread: sums in the same order, whatever the number of CPUs."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import Any


class Limit:
    """The limit of the threads of BLAS, which is one of the process, and who is inside of it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.inside = 0
        self.limits: Any = None
        self.controller: Any = None
        self.n_modules = 0

    def enter(self) -> None:
        """Limit the libraries that compute, such as BLAS, to one thread each.

        The limit is of the whole process: the first that enters sets it, and the last that leaves
        takes it away.
        """
        from threadpoolctl import ThreadpoolController  # noqa: PLC0415 - fits alone need it

        with self.lock:
            if self.inside == 0:
                # Libraries are loaded with modules of Python. To search for them takes longer than
                # a fit, so that is done again only if modules were imported since.
                n_modules = len(sys.modules)
                if n_modules != self.n_modules:
                    self.controller = ThreadpoolController()
                    self.n_modules = n_modules
                self.limits = self.controller.limit(limits=1)
            self.inside += 1

    def leave(self) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0:
                self.limits.restore_original_limits()


LIMIT = Limit()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let BLAS use one thread: the numbers of a fit do not depend on how many CPUs there are.

    The first to enter sets the limit, and the last to leave restores it, also where several threads
    fit at once. Libraries must be loaded before: the limit is that of those that are.
    """
    LIMIT.enter()
    try:
        yield
    finally:
        LIMIT.leave()
