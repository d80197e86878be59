"""Run several experiments in one process as if each had its own."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OWN = frozenset({"backtest", "backtest_pytest"})
"""Packages that stay, also where they stand beside a policy."""


@contextmanager
def isolated_imports() -> Iterator[None]:
    """Forget, at the end, the modules that were imported from folders that policies brought.

    A policy may import what lies beside it. Without this, the ``helpers.py`` beside one policy
    would be taken for that beside another, or for what it was before it was changed.
    """
    path, modules = [*sys.path], {*sys.modules}
    importlib.invalidate_caches()
    try:
        yield
    finally:
        folders = {Path(each).resolve() for each in sys.path}
        brought = {Path(each).resolve() for each in sys.path if each not in path}
        sys.path[:] = path
        for name in {*sys.modules} - modules:
            if name.partition(".")[0] not in OWN and find_home(name, folders) in brought:
                del sys.modules[name]


def find_home(name: str, folders: set[Path]) -> Path | None:
    """Return the folder of the path that a module comes from: the innermost that holds its file.

    Libraries may be installed inside the folder of a policy; theirs lies deeper.
    """
    file = getattr(sys.modules[name], "__file__", None)
    if file is None:
        return None
    return next((each for each in Path(file).resolve().parents if each in folders), None)
