"""Exit codes, messages on stderr, and errors of arguments, the system and the output."""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress

import typer

from backtest.base import ParameterError

DONE, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130
LONGEST_LINE = 2_000
KEPT = 300
"""Characters printed from each end of a longer line."""
PRINTERS = ("typer", "rich", "click")
"""The libraries that write to the standard streams."""


def print_message(text: str) -> None:
    """Print a message on stderr; do nothing if stderr cannot be written."""
    with suppress(OSError):
        typer.echo(make_printable(text), err=True)


def make_printable(text: str) -> str:
    r"""Return a text that is safe on any terminal: control codes escaped, long lines clipped.

    Examples
    --------
    >>> make_printable("a\x1b[2Jb\n\tc\udcff")
    'a\\x1b[2Jb\n\tc\\udcff'
    """
    shown = re.sub(r"[^\S\n\t ]|[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff]", _escape, text)
    return "\n".join(map(clip_line, shown.split("\n")))


def _escape(found: re.Match[str]) -> str:
    letter = found[0]
    return letter if letter == "\xa0" else letter.encode("unicode_escape").decode("ascii")


def clip_line(line: str) -> str:
    """Replace the middle of a line that is too long to read by its length."""
    if len(line) <= LONGEST_LINE:
        return line
    return f"{line[:KEPT]} ... ({len(line):,} letters) ... {line[-KEPT:]}"


def check_arguments(given: Sequence[str]) -> None:
    """Raise an error for the first argument that is not UTF-8 or holds a NUL character."""
    for position, word in enumerate(given, start=1):
        if not re.search(r"[\0\ud800-\udfff]", word):
            continue
        raise ParameterError(
            f"an argument must hold no NUL character, got {word!r:.100}"
            if "\0" in word
            else f"an argument must be text in UTF-8, got {os.fsencode(word)!r:.100}",
            where=f"argument {position}",
            cure="type it again, or set the terminal to UTF-8",
        )


def report_system_error(error: OSError) -> int:
    """Print an error of the operating system; return the exit code."""
    reason = error.strerror or str(error)
    if error.errno == errno.EPIPE and is_about_output(error):  # the reader has seen enough
        return FAILED
    if is_about_output(error):
        print_message(f"error: the output cannot be written: {reason}")
        return REFUSED
    refusal = ParameterError(
        f"the operating system refused a file or a connection: {reason}",
        where=str(error.filename if error.filename is not None else "a file or a connection"),
        cure="correct the path, make it readable or writable, or free some space",
    )
    print_message(f"error: {refusal}")
    return REFUSED


def is_about_output(error: OSError) -> bool:
    """Return whether an error came from writing to the standard streams."""
    frames = list(traceback.walk_tb(error.__traceback__))
    module = str(frames[-1][0].f_globals.get("__name__", "")) if frames else ""
    return not frames or (error.filename is None and module.partition(".")[0] in PRINTERS)


def flush_output(code: int) -> int:
    """Flush the output; return the exit code, or that of the error if flushing fails."""
    if sys.stdout is None:
        return code
    try:
        sys.stdout.flush()
    except OSError as error:
        code = code or report_system_error(error.with_traceback(None))
        with suppress(OSError, ValueError):  # the end of the process would flush it once more
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
    return code
