"""Importing numba without the linear algebra of scipy, which compiled rules never call."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

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
