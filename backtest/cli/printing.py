"""Print results, tables, paragraphs, JSON and messages, for all commands; and exit codes."""

from __future__ import annotations

import codecs
import errno
import io
import json
import os
import re
import shutil
import sys
import textwrap
import threading
import time
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from contextvars import ContextVar
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, TextIO

import typer

from backtest._compile.object_code import COMPILING
from backtest.cli.first_screen import is_output_colored
from backtest.core import escape_directions, format_cell, format_percent, format_value, to_json
from backtest.core.code_names import rich

if TYPE_CHECKING:
    from backtest.search import Progress


DONE = 0
FAILED = 1
REFUSED = 2
INTERRUPTED = 130
"""The exit codes."""
PIPED_WIDTH = 160
MAX_MESSAGE = 2_000
JSON_OUTPUT: ContextVar[TextIO | None] = ContextVar("json_output", default=None)


@contextmanager
def reserve_stdout() -> Iterator[None]:
    """Keep the output for JSON: what policies print goes to stderr."""
    token = JSON_OUTPUT.set(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        JSON_OUTPUT.reset(token)


PLAIN = str.maketrans(
    {
        **dict.fromkeys("\u2013\u2014\u2212\u2500\u2501", "-"),
        **dict.fromkeys("\u2502\u2503", "|"),
        **dict.fromkeys("\u2018\u2019", "'"),
        **dict.fromkeys("\u201c\u201d", '"'),
        "\u00d7": "x",
        "\u00b7": ".",
        "\u2022": "*",
        "\u00b1": "+-",
        "\u2026": "...",
        "\u2192": "->",
        "\u2264": "<=",
        "\u2265": ">=",
    }
)
"""Plain letters for those that a stream may lack."""
DEGRADED = "backtest.degraded"
STRICT = ("strict", "surrogateescape")
"""The ways of a stream with letters it cannot write that raise."""


def degrade(error: UnicodeError) -> tuple[str, int]:
    """Return plain letters in the place of those that a stream cannot write, ``?`` at worst."""
    if not isinstance(error, UnicodeEncodeError):
        raise error

    # An accented letter is taken apart, and its accent left out.
    letters = error.object[error.start : error.end].translate(PLAIN)
    plain = unicodedata.normalize("NFKD", letters)
    bare = "".join(letter for letter in plain if not unicodedata.combining(letter))
    return bare.encode("ascii", "replace").decode(), error.end


@contextmanager
def degrading_output() -> Iterator[None]:
    """Write plain letters where a stream (latin-1, cp1252, ASCII) lacks one, instead of raising."""
    codecs.register_error(DEGRADED, degrade)
    changed: list[tuple[io.TextIOWrapper, str]] = []
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in STRICT:
            changed.append((stream, stream.errors))
            stream.reconfigure(errors=DEGRADED)

    try:
        yield
    finally:
        for stream, errors in changed:
            with suppress(OSError, ValueError):  # closed, or its reader has left
                stream.reconfigure(errors=errors)


def print_json(value: object) -> None:
    """Print a value as JSON, in ASCII where the output is of another encoding than Unicode."""
    output = JSON_OUTPUT.get() or sys.stdout
    encoding = getattr(output, "encoding", None) or "utf-8"
    text = json.dumps(
        to_json(value),
        indent=2,
        allow_nan=False,
        ensure_ascii=not str(encoding).lower().startswith("utf"),
    )
    typer.echo(text, file=JSON_OUTPUT.get())


def write_colored(result: Any, *, verbose: bool = False) -> str:
    """Return the summary of a result, in the colors of the terminal if it has any."""
    from backtest.report.write import write_summary  # noqa: PLC0415 - a second

    return write_summary(result, verbose=verbose, is_colored=is_output_colored())


def print_title(text: str) -> None:
    typer.secho(clean(text), bold=True)


def print_paragraph(text: str, *, indent: str = "  ") -> None:
    lines = textwrap.wrap(
        clean(text),
        min(shutil.get_terminal_size().columns, 100),
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

    letters = []
    for letter in escape_directions(text):
        if unicodedata.category(letter).startswith("C") and letter not in "\t\n":
            letters.append(letter.encode("unicode_escape", "backslashreplace").decode())
        else:
            letters.append(letter)
    return "".join(letters)


def render(
    rows: Any,
    columns: Sequence[str] = (),
    *,
    fold: Sequence[str] = (),
    shares: Sequence[str] = (),
) -> None:
    """Print a frame, or rows of columns.

    Numbers stand on the right, those of ``shares`` in percent; where the terminal is too
    narrow, columns of ``fold`` take several lines, which break at spaces and brackets.
    """
    if not columns:
        columns = list(map(str, rows.columns))
        rows = rows.to_numpy(dtype=object).tolist()
    rows = [list(row) for row in rows]
    cells = write_cells(rows, columns, shares)
    if fold:
        cells = fold_cells(cells, columns, fold)

    heads = [name.replace("_", " ") for name in columns]
    is_right = find_numbers(rows, len(columns))
    widths = measure_columns(heads, cells)

    width = get_width() if fold else find_table_width()
    has_tabs = any("\t" in "".join(row) for row in cells)  # a tab is as wide as the terminal likes
    is_fitting = sum(widths) + len(GAP) * (len(widths) - 1) <= width and not has_tabs

    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for k, head in enumerate(heads):
        table.add_column(
            head,
            justify="right" if is_right[k] else "left",
            overflow="fold",
            no_wrap=bool(fold) and columns[k] not in fold,
            width=widths[k] if is_fitting else None,
        )
    console = rich.console.Console(width=width)
    if not is_fitting:
        for row in cells:
            table.add_row(*map(rich.text.Text, row))
        console.print(table)
        return

    # Of a table that fits, the library prints the heads alone, with the line below them: of ten
    # thousand rows it takes ten seconds.
    console.print(table)
    if cells:
        typer.echo("\n".join(write_rows(cells, widths, is_right)))


def write_cells(
    rows: list[list[Any]],
    columns: Sequence[str],
    shares: Sequence[str],
) -> list[list[str]]:
    """Return the texts of rows; the numbers of columns that are shares in percent."""
    cells = []
    for row in rows:
        texts = []
        for name, value in zip(columns, row, strict=True):
            texts.append(clean(write_cell(value, is_share=name in shares)))
        cells.append(texts)
    return cells


def find_numbers(rows: list[list[Any]], n_columns: int) -> list[bool]:
    """Return which columns hold numbers alone; none without rows."""
    if not rows:
        return [False] * n_columns
    return [all(map(is_number, values)) for values in zip(*rows, strict=True)]


GAP = "   "
"""The text between two columns."""
LEAST_ROOM = 16
"""Columns of the terminal that a folded column has at least."""


def fold_cells(
    cells: list[list[str]],
    columns: Sequence[str],
    fold: Sequence[str],
) -> list[list[str]]:
    """Return cells, those of ``fold`` in several lines where the terminal is too narrow."""
    width_of_others = 0
    for name, *texts in zip(columns, *cells, strict=True):
        if name not in fold:
            width_of_others += len(GAP) + max(map(len, (name, *texts)))
    n_folded = max(len({*fold} & {*columns}), 1)
    room = max(LEAST_ROOM, (get_width() - width_of_others) // n_folded)

    folded = []
    for row in cells:
        texts = []
        for name, text in zip(columns, row, strict=True):
            if name in fold:
                texts.append(fold_words(text, room))
            else:
                texts.append(text)
        folded.append(texts)
    return folded


def measure_columns(heads: list[str], cells: list[list[str]]) -> list[int]:
    """Return the widest line of each column, in columns of the terminal."""
    widths = []
    for column in zip(heads, *cells, strict=True):
        lines = "\n".join(column).split("\n")
        widths.append(max(map(measure_line, lines)))
    return widths


def measure_line(text: str) -> int:
    if text.isascii():
        return len(text)
    return int(rich.cells.cell_len(text))


def write_rows(cells: list[list[str]], widths: list[int], is_right: list[bool]) -> Iterator[str]:
    """Yield the lines of a table; a cell may have several."""
    for row in cells:
        for texts in zip_longest(*(cell.split("\n") for cell in row), fillvalue=""):
            padded = []
            for text, width, right in zip(texts, widths, is_right, strict=True):
                space = " " * (width - measure_line(text))
                padded.append(space + text if right else text + space)
            yield GAP.join(padded)


def fold_words(text: str, room: int) -> str:
    """Break text at spaces and after the brackets of calls."""
    if len(text) + text.count("(") <= room and text.isprintable() and "( " not in text:
        return text
    lines = textwrap.wrap(re.sub(r"(?<=\w)\(", "( ", text), room, break_on_hyphens=False)
    return "\n".join(lines).replace("( ", "(")


def find_table_width() -> int:
    """Return the columns of a table that does not fold, as those of summaries have them."""
    from backtest.report.render import find_width  # noqa: PLC0415 - a second

    return find_width()


def get_width() -> int:
    return shutil.get_terminal_size((PIPED_WIDTH, 24)).columns


def is_number(cell: object) -> bool:
    """Return whether a cell stands on the right: a number, a text that begins as one, or none."""
    if cell is None or cell == "":
        return True
    if isinstance(cell, str):
        unsigned = cell[1:] if cell[0] in "-+" else cell
        return unsigned[:1].isdigit()
    return isinstance(cell, int | float) and not isinstance(cell, bool)


def write_cell(cell: object, *, is_share: bool) -> str:
    if cell is None:
        return "-"
    if is_share:
        return format_cell(cell, format_percent)
    return format_cell(cell, write_number)


def write_number(value: float) -> str:
    if value.is_integer():
        return f"{value:z,.0f}"
    return f"{value:,.7g}"


def print_message(text: str) -> None:
    """Print lines on stderr, the first part alone of those that are far too long."""
    lines = [shorten(clean(line)) for line in text.split("\n")]
    with suppress(OSError):
        typer.echo("\n".join(lines), err=True)


def shorten(line: str) -> str:
    if len(line) <= MAX_MESSAGE:
        return line
    return f"{line[:600]} ..."


def report_system_error(error: OSError) -> int:
    """Print what the operating system refused, and return the exit code."""
    if error.errno == errno.EPIPE:  # the reader has seen enough
        return FAILED

    reason = error.strerror or str(error)
    what = "cannot write the output"
    if error.filename:
        what = f"refused {error.filename}"
    print_message(f"error: the operating system {what}: {reason}")
    return REFUSED


def flush_output(code: int) -> int:
    """Return the exit code: a full disk, or a reader that left, is no success."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        code = code or report_system_error(error)
        with suppress(OSError, ValueError):  # the end of the process would flush it once more
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


STAGES = {
    "search": "searching",
    "neighbour": "looking around the best",
    "part": "looking at parts of the time",
}


class Meter:
    """How far a computation is, and what it says of itself; a call says how much is done."""

    def __init__(self, what: str, unit: str) -> None:
        self.what = what
        self.unit = unit
        self.note = ""
        self.done = 0
        self.total = 0

    def __call__(self, done: int, total: int) -> None:
        if done > self.done:
            self.note = ""
        self.done = done
        self.total = total

    def report_search(self, now: Progress, objective: str) -> None:
        """Note how far a search is, and its best set so far."""
        self(now.trials, now.total or 0)
        self.note = STAGES.get(now.stage, now.stage)
        if now.best_values:
            pairs = now.best_values.items()
            values = ", ".join(f"{name} {format_value(value)}" for name, value in pairs)
            score = format_value(now.best_score)
            self.note += f"; best so far: {objective} {score} at {values}"

    def describe(self, speed: float | None) -> str:
        """Return a line of progress: what, how much is done, how fast, and a note."""
        text = self.what
        if self.done:
            text = f"{text}: {self.done:,} {self.unit}".rstrip()
        if self.done and self.total:
            text = f"{text} of {self.total:,}"
        if self.done and speed and self.unit:
            digits = ",.0f" if speed >= 10.0 else ".2g"
            text = f"{text}, {speed:{digits}} per second"

        if COMPILING.depth:
            text = f"{text} (waiting for the compiler)"
        if self.note:
            text = f"{text}, {self.note}"
        return text


EVERY = 10.0
"""Seconds between two lines of progress where stderr is no terminal."""


@contextmanager
def print_progress(meter: Meter) -> Iterator[Meter]:
    """Print a line of progress every few seconds, by a thread of its own."""
    ended = threading.Event()
    began = time.monotonic()

    def report() -> None:
        while not ended.wait(EVERY):
            seconds = time.monotonic() - began
            print_message(f"{meter.describe(meter.done / seconds)}, {seconds:.0f} s")

    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield meter
    finally:
        ended.set()
        thread.join()


@contextmanager
def show_progress(what: str, unit: str = "") -> Iterator[Meter]:
    """Show progress on stderr: a bar in a terminal, else lines."""
    meter = Meter(what, unit)
    if not sys.stderr.isatty():
        with print_progress(meter):
            yield meter
        return

    console = rich.console.Console(stderr=True)
    parts = rich.progress
    bar = parts.Progress(
        parts.BarColumn(60),
        parts.TimeRemainingColumn(compact=True),
        console=console,
    )
    task = bar.add_task("", total=None)

    def draw() -> Any:
        """Return what is shown now; without a total, or before the first step, the bar pulses."""
        total = None
        if meter.done and meter.total:
            total = meter.total
        bar.update(task, completed=meter.done, total=total)
        text = rich.text.Text(meter.describe(bar.tasks[0].speed))
        return rich.console.Group(text, bar)

    live = rich.live.Live(
        get_renderable=draw,
        console=console,
        transient=True,
        refresh_per_second=5,
    )
    with live:
        yield meter
