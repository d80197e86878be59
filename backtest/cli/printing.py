"""Printing for all commands: tables for people, one JSON object for machines."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import typer

from backtest.base.errors import BacktestError
from backtest.base.json_values import to_json

LONG_NAME = 9


def format_help(function: Callable[..., None], examples: str) -> str:
    """Format the help of a command: its docstring, and examples line by line."""
    return f"{inspect.getdoc(function)}\n\n\b\n[bold]Examples[/bold]\n{examples.strip()}"


class Saveable(Protocol):
    """A result that can be saved to a folder of its own."""

    def save(self, results: Path) -> Path:
        """Save it below a folder and return its own."""


def save_result(result: Saveable, results: Path | None) -> tuple[Path | None, BacktestError | None]:
    """Save a result unless there is no folder; return its folder, or why it was not saved.

    The error is to be raised after the result is printed, so that a long run is not lost.
    """
    try:
        return None if results is None else result.save(results), None
    except BacktestError as error:
        return None, error


def print_json(value: object) -> None:
    """Print data as JSON, numbers that are not finite as null."""
    typer.echo(json.dumps(to_json(value), indent=2, allow_nan=False, ensure_ascii=False))


def print_paragraph(text: str, *, indent: str = "  ") -> None:
    """Print a text in lines of the terminal's width, at most 100, with a hanging indent."""
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


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()
) -> None:
    """Print a table as wide as the terminal, columns named in ``right`` aligned to the right."""
    from rich import box  # noqa: PLC0415 - it takes longer to load than most commands to run
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1))
    for name in columns:
        table.add_column(
            break_name(name),
            justify="right" if name in right else "left",
            overflow="fold",
        )
    for row in rows:
        table.add_row(*map(plain_text, row))
    Console().print(table)


def break_name(name: str) -> str:
    """Break the name of a column into lines if it is long.

    Examples
    --------
    >>> break_name("max_drawdown").splitlines()
    ['max_', 'drawdown']
    """
    if len(name) <= LONG_NAME or " " in name:
        return name
    return re.sub(r"(?<=[._])(?=\w{4})", "\n", name)


def plain_text(text: str) -> Any:
    """Return a text that is printed as it is: no markup, no highlighting."""
    from rich.text import Text  # noqa: PLC0415

    return Text(text)
