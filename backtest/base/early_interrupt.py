"""Handling of Ctrl-C while the command is being imported: exit at once, without a traceback."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
from types import FrameType

COMMAND = "backtest"
INTERRUPTED = 130


def is_command() -> bool:
    program = sys.argv[0] if sys.argv else ""
    if program == "-m":  # the value while Python still looks for the module
        words = sys.orig_argv
        return f"-m{COMMAND}" in words or ("-m", COMMAND) in itertools.pairwise(words)
    is_named = os.path.basename(program).removesuffix(".exe") == COMMAND  # noqa: PTH119 - avoids an import
    return is_named and program in sys.orig_argv  # false in a worker process of the command


def exit_at_once(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of handlers
    try:
        os.write(2, b"interrupted\n")
    finally:
        os._exit(INTERRUPTED)


def arm() -> None:
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, exit_at_once)


def disarm() -> None:
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and signal.getsignal(signal.SIGINT) is exit_at_once:
        signal.signal(signal.SIGINT, signal.default_int_handler)


if is_command():
    arm()
