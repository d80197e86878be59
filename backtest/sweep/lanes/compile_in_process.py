"""Compile the function for full bars in a second process."""

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
