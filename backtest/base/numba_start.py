"""What is done when numba is imported, so that it loads and compiles sooner."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from numba.core.compiler import Flags

BLAS = "scipy.linalg.cython_blas"
ASKS = "numba.np.arraymath"
"""The module of numba that imports :data:`BLAS` only to see whether it is there."""


def import_without_blas() -> None:
    """Import numba's array functions while an empty module stands for :data:`BLAS`.

    Importing scipy's takes longer than the rest of numba. Code that calls linear algebra still
    loads it: numba imports it again when it compiles or runs such a call.
    """
    if BLAS in sys.modules or ASKS in sys.modules:
        return
    empty = sys.modules[BLAS] = ModuleType(BLAS)
    try:
        importlib.import_module(ASKS)
    finally:
        if sys.modules.get(BLAS) is empty:
            del sys.modules[BLAS]


def compare_flags_fast() -> None:
    """Let numba read all flags of a function at once.

    It compares flags for each call that it compiles, and reads all 22 of them by properties:
    a tenth of the time to compile the loop of several positions.
    """
    defaults = {name: option.default for name, option in Flags.options.items()}
    Flags.values = lambda self: {**defaults, **self._values}  # type: ignore[method-assign] # numba's
