"""Compile the function for full bars in a second process.

numba compiles one function at a time within a process. A first sweep needs two large functions that
do not depend on each other. So a second process compiles one of them into the cache folder.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

CHILD = """
import pickle, sys
sys.path[:] = pickle.load(sys.stdin.buffer)
from backtest.sweep.lanes.lane_compiler import compile_live_types
compile_live_types(pickle.load(sys.stdin.buffer))
"""


def start_compiling(types: list[Any]) -> subprocess.Popen[bytes]:
    """Start to compile the function for full bars, for arguments of some types.

    It may fail: a function that is not in the cache is compiled when it is needed.
    """
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    if child.stdin is not None:
        with child.stdin as pipe:
            pipe.write(pickle.dumps(sys.path) + pickle.dumps(types))
    return child
