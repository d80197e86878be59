"""Describe the platform of a run: processor features and numerical libraries.

Two platforms with the same description compute the same bytes. On others the last digits may
differ, because exp, log and vectorized code differ.
"""

from __future__ import annotations

import functools
import os
import platform
from collections.abc import Mapping

import numpy as np

from backtest.base import find_version

LIBRARIES = ("numpy", "numba", "llvmlite", "scipy", "pandas", "arch")
OVERRIDES = ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "NPY_DISABLE_CPU_FEATURES")
"""Environment variables that change which machine code is generated or chosen."""


def describe_host() -> dict[str, str]:
    """Return the properties of the platform that can affect the last digits of a run."""
    return {
        **_describe_machine(),
        **{name: find_version(name) for name in LIBRARIES},
        **{name.lower(): os.environ[name] for name in OVERRIDES if os.environ.get(name)},
    }


@functools.cache
def _describe_machine() -> dict[str, str]:
    """Return the processor, NumPy's vector extensions, the C library and the Python version."""
    from llvmlite import binding  # noqa: PLC0415 - the code generator is not always needed

    features = binding.get_host_cpu_features()
    libm, version = platform.libc_ver()
    config = np.show_config(mode="dicts") or {}
    extensions = config.get("SIMD Extensions", {}).get("found", [])
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "cpu": binding.get_host_cpu_name(),
        "cpu_features": " ".join(sorted(name for name, has in features.items() if has)),
        "numpy_simd": " ".join(sorted(map(str, extensions))),
        "libm": f"{libm} {version}".strip() or platform.release(),
        "python": platform.python_version(),
    }


def list_host_changes(was: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return the differences of two platforms as ``name was -> now``; long values are left out."""
    found = []
    for name in {**was, **now}:
        one, other = was.get(name, "none"), now.get(name, "none")
        if one != other:
            is_short = max(len(one), len(other)) <= 24
            found.append(f"{name} {one} -> {other}" if is_short else name)
    return found
