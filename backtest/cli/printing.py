"""Print results, tables, paragraphs, JSON and messages, for all commands; and exit codes."""

from __future__ import annotations

import errno
import inspect
import json
import os
import re
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from contextvars import ContextVar
from typing import Any, TextIO

import typer

from backtest.base import ParameterError, escape_directions, to_json

LONG_NAME = 9
LONGEST_LINE = 10_000
PIPED_WIDTH, NARROW = 160, 100
JSON_OUTPUT: ContextVar[TextIO | None] = ContextVar("json_output", default=None)


def format_help(function: Callable[..., None], examples: str) -> str:
    text = "\n\n".join(
        " ".join(each.split()) for each in str(inspect.getdoc(function)).split("\n\n")
    )
    return f"{text}\n\n\b\n[bold]Examples[/bold]\n{examples.strip()}"


def add_command(
    app: typer.Typer,
    name: str,
    function: Callable[..., None],
    examples: str,
    panel: str | None = None,
) -> None:
    """Add a command to a group, with examples in its help, in a panel of the group's help."""
    app.command(name, help=format_help(function, examples), rich_help_panel=panel)(function)


@contextmanager
def reserve_stdout() -> Iterator[None]:
    token = JSON_OUTPUT.set(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        JSON_OUTPUT.reset(token)


def print_json(value: object) -> None:
    text = json.dumps(to_json(value), indent=2, allow_nan=False, ensure_ascii=False)
    typer.echo(text, file=JSON_OUTPUT.get())


def print_paragraph(text: str, *, indent: str = "  ") -> None:
    width = min(shutil.get_terminal_size().columns, 100)
    lines = textwrap.wrap(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    typer.echo("\n".join(lines))


def clean(text: str) -> str:
    """Return text with control characters and marks of direction written out."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c.encode("unicode_escape", "backslashreplace").decode()
        if unicodedata.category(c).startswith("C") and c != "\t"
        else c
        for c in escape_directions(text)
    )


def print_facts(pairs: Iterable[tuple[str, str]]) -> None:
    for name, text in pairs:
        typer.echo(f"  {name:<20}{clean(text)}")


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    right: Sequence[str] = (),
    cut: Sequence[str] = (),
    squeezes: bool = False,
) -> None:
    """Print a table; columns of ``cut`` give way where the terminal is too narrow for all."""
    from rich import box  # noqa: PLC0415 - it takes longer to load than most commands to run
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1))
    for name in columns:
        side: Any = "right" if name in right else "left"
        table.add_column(
            name if cut else break_name(name),
            justify=side,
            overflow="fold",
            no_wrap=bool(cut) and name not in cut,
        )
    for row in rows:
        texts = [Text("\n".join(map(clean, cell.split("\n")))) for cell in row]
        for name, text in zip(columns, texts, strict=True):
            if name in cut:
                text.no_wrap, text.overflow = True, "ellipsis"
        table.add_row(*texts)
    is_piped = bool(cut) and not sys.stdout.isatty()
    console = Console(width=PIPED_WIDTH if is_piped else None)
    wide = console.options.update(max_width=LONGEST_LINE)
    if (squeezes or (cut and console.width < NARROW)) and console.measure(
        table, options=wide
    ).maximum > console.width:
        table.padding = (0, 0)
    console.print(table)


def break_name(name: str) -> str:
    if len(name) <= LONG_NAME or " " in name:
        return name
    return re.sub(r"(?<=[._])(?=\w{4})", "\n", name)


DONE, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130
LONGEST_MESSAGE = 2_000
KEPT = 300
"""Characters printed from each end of a longer line."""


def print_message(text: str) -> None:
    with suppress(OSError):
        typer.echo(make_printable(text), err=True)


def make_printable(text: str) -> str:
    return "\n".join(clip_line(clean(each)) for each in text.split("\n"))


def clip_line(line: str) -> str:
    if len(line) <= LONGEST_MESSAGE:
        return line
    return f"{line[:KEPT]} ... ({len(line):,} letters) ... {line[-KEPT:]}"


def check_arguments(given: Sequence[str]) -> None:
    for position, word in enumerate(given, start=1):
        if re.search(r"[\0\ud800-\udfff]", word):
            raise ParameterError(
                f"argument {position} must be text in UTF-8 without NUL, got {word!r:.100}"
            )


def report_system_error(error: OSError) -> int:
    reason = error.strerror or str(error)
    if error.filename is not None:
        print_message(f"error: the operating system refused {error.filename}: {reason}")
    elif error.errno == errno.EPIPE:  # the reader has seen enough
        return FAILED
    else:
        print_message(f"error: the output cannot be written: {reason}")
    return REFUSED


def flush_output(code: int) -> int:
    if sys.stdout is None:
        return code
    try:
        sys.stdout.flush()
    except OSError as error:
        code = code or report_system_error(error)
        with suppress(OSError, ValueError):  # the end of the process would flush it once more
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
    return code
