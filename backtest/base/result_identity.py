"""The id of a result, and the versions of the libraries that its numbers depend on."""

from __future__ import annotations

import functools
import hashlib
import json
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

LIBRARIES = (
    "leverage-backtest", "numpy", "numba", "llvmlite", "pandas", "pyarrow", "scipy", "arch",
)  # fmt: skip


def compute_id(manifest: Mapping[str, Any]) -> str:
    """Return the id of an experiment: a hash of everything that decides its numbers.

    It covers the content of the data, not their source.
    """
    data = {key: value for key, value in manifest["data"].items() if key != "source"}
    text = json.dumps({**manifest, "data": data}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def find_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that numbers depend on."""
    return {"python": platform.python_version(), **{name: find_version(name) for name in LIBRARIES}}


@functools.cache
def find_version(name: str) -> str:
    """Return the installed version of a distribution."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
