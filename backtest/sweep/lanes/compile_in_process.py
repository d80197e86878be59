"""Compile one thing in a process beside this one.

The compiler works on one thing at a time within a process. What a first sweep needs is two large
things that do not depend on each other; the second core compiles one of them, and leaves it in the
cache folder.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

CHILD = """
import pickle, sys
sys.path[:] = pickle.load(sys.stdin.buffer)
from backtest.lane_compiler import compile_live_types
compile_live_types(pickle.load(sys.stdin.buffer))
"""


def begin(types: list[Any]) -> subprocess.Popen[bytes]:
    """Start to compile what lives a bar in full for arguments of some types.

    Whether it succeeds does not matter: what is not in the cache is compiled by whoever needs it.
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
