"""Isolate the imports of experiments that run in one process."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OWN = frozenset({"backtest", "backtest_pytest"})
"""Packages that are never unloaded, even if they lie beside a policy."""


@contextmanager
def isolated_imports() -> Iterator[None]:
    """Unload, at the end, the modules that were imported from the folders of policies.

    A policy may import files beside it. Without this, the ``helpers.py`` beside one policy would be
    used for another policy, or in the version from before it was changed.
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
    """Return the innermost of the folders that holds a module's file.

    Libraries may be installed inside the folder of a policy; their own folder lies deeper.
    """
    file = getattr(sys.modules[name], "__file__", None)
    if file is None:
        return None
    return next((each for each in Path(file).resolve().parents if each in folders), None)
