"""How a command ends: what it says on stderr, and its exit code, also where output fails."""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress

import typer

from backtest.base.errors import ParameterError

DONE, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130
LONGEST_LINE = 2_000
KEPT = 300
"""Letters of a longer line that are printed, at either end."""
PRINTERS = ("typer", "rich", "click")
"""The libraries that write to the standard streams."""


def tell(text: str) -> None:
    """Print a message on stderr; where that cannot be written, nobody can be told."""
    with suppress(OSError):
        typer.echo(make_printable(text), err=True)


def make_printable(text: str) -> str:
    r"""Return a text that every terminal prints as it is: no control codes, no endless lines.

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
    """Return a line without its middle where it is too long to be read."""
    if len(line) <= LONGEST_LINE:
        return line
    return f"{line[:KEPT]} ... ({len(line):,} letters) ... {line[-KEPT:]}"


def check_arguments(given: Sequence[str]) -> None:
    """Refuse arguments that are no text: file names and policies are UTF-8.

    Raises
    ------
    ParameterError
        Naming the first of them.
    """
    for position, word in enumerate(given, start=1):
        if "\0" in word or not is_text(word):
            raise ParameterError(
                f"an argument must be text in UTF-8, was {os.fsencode(word)!r:.100}"
                if "\0" not in word
                else f"an argument must hold no NUL character, was {word!r:.100}",
                where=f"argument {position}",
                cure="type it again, or set the terminal to UTF-8",
            )


def is_text(word: str) -> bool:
    """Tell whether a word can be written as UTF-8."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def explain_system(error: OSError) -> int:
    """Print what the operating system refused; return the exit code."""
    reason = error.strerror or str(error)
    if error.errno == errno.EPIPE and is_about_output(error):  # the reader has seen enough
        return FAILED
    if is_about_output(error):
        tell(f"error: the output cannot be written: {reason}")
        return REFUSED
    place = ParameterError(
        f"the operating system refused a file or a connection: {reason}",
        where=str(error.filename if error.filename is not None else "a file or a connection"),
        cure="correct the path, make it readable or writable, or free some space",
    )
    tell(f"error: {place}")
    return REFUSED


def is_about_output(error: OSError) -> bool:
    """Tell whether an error came from what writes to the standard streams."""
    frames = list(traceback.walk_tb(error.__traceback__))
    module = str(frames[-1][0].f_globals.get("__name__", "")) if frames else ""
    return not frames or (error.filename is None and module.partition(".")[0] in PRINTERS)


def flush_output(code: int) -> int:
    """Write what is left of the output; return the exit code, another where that fails."""
    if sys.stdout is None:
        return code
    try:
        sys.stdout.flush()
    except OSError as error:
        code = code or explain_system(error.with_traceback(None))
        drop_output()
    return code


def drop_output() -> None:
    """Let the output lead nowhere, so that the end of the process does not try it again."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
