"""Errors as the command line shows them: with the flags of the arguments that they name."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import typer

from backtest.base.errors import BacktestError
from backtest.base.phrases import Argument, Either, Phrase, Piece, Place
from backtest.cli.data_import_command import import_files
from backtest.cli.draft import Draft
from backtest.cli.experiment_schema import KEYS
from backtest.market.tables.repairs import KINDS

IMPORT = "backtest data import"
SPAN = ("--from", "--to")
OTHER_FLAGS = {
    "between": (*SPAN, "--start", "--end"),
    "between, start": ("--from", "--start"),
    "between, end": ("--to", "--end"),
    "constraints": ("--constraint",),
    "sets": ("--draws",),
    "store": ("--results",),
}
"""Flags of the arguments that have another name at the command line."""
EXPERIMENT = ("data", "policy", "venue", "account", "run")
EXPERIMENT_FLAGS = {
    key.parameter.rstrip("_"): key.flag for key in KEYS if key.flag and key.table in EXPERIMENT
}
TABLE_KEYS = {"sets": ("values", "draws")}
"""Keys of an experiment for the arguments that have another name there."""


class CommandLine(NamedTuple):
    """A command line: its words, the path of its command, and the flags of that command.

    ``flags`` are found by the argument of Python that they stand for.
    """

    words: Sequence[str] = ()
    command: str = ""
    flags: Mapping[str, str] = {}


def read_flags(command: Any) -> dict[str, str]:
    """Return the flags of a command by the names of their arguments."""
    flags = [each for each in command.params if each.opts[0].startswith("--")]
    return {each.name.rstrip("_"): each.opts[0] for each in flags}


def find_command(app: typer.Typer, words: Sequence[str]) -> CommandLine:
    """Return the command that was typed, with its flags."""
    command: Any = typer.main.get_command(app)
    path = ["backtest"]
    for word in words:
        if word not in getattr(command, "commands", {}):
            break
        command = command.commands[word]
        path.append(word)
    return CommandLine(words, " ".join(path), read_flags(command))


def find_import_flags() -> dict[str, str]:
    """Return the flags of ``backtest data import``."""
    app = typer.Typer()
    app.command()(import_files)
    return read_flags(typer.main.get_command(app))


# ------------------------------------------------------------------------------------------ texts


def type_error(error: BacktestError, line: CommandLine) -> str:
    """Return an error with the flags that were typed, and those that mend it."""
    problem, where, cure = (
        type_text(each, line) for each in (error.problem, error.where, error.cure)
    )
    return str(BacktestError(problem, where=where, cure=cure))


def type_text(piece: Piece, line: CommandLine) -> str:
    """Return a text with flags in place of the arguments that it names.

    Examples
    --------
    >>> type_text(Phrase("give {}", Argument("mark_gaps", "last")), CommandLine())
    'give --mark-gaps last'
    >>> type_text(Phrase("sort them: {}", Argument("repair", "sort")), CommandLine())
    'sort them: backtest data import FILE --repair sort'
    """
    match piece:
        case Phrase():
            return piece.fill(lambda each: type_text(each, line))
        case Either():
            return type_text(piece.typed, line)
        case Argument():
            return type_argument(piece, line)
        case Place():
            return type_place(piece, line)
    return str(piece)


def type_argument(argument: Argument, line: CommandLine) -> str:
    """Return the flag of an argument: of this command, of an import or of an experiment."""
    if line.command == IMPORT and argument.name.replace("_", "-") in KINDS:
        return f"--repair {argument.name.replace('_', '-')}={argument.value}"
    if argument.name == "between":
        return type_span(argument.value)
    if argument.name in OTHER_FLAGS:
        return type_flag(OTHER_FLAGS[argument.name][0], argument.value)
    if argument.name in line.flags:
        return type_flag(line.flags[argument.name], argument.value)
    if argument.name in EXPERIMENT_FLAGS:
        return type_flag(EXPERIMENT_FLAGS[argument.name], argument.value)
    of_import = find_import_flags()
    if argument.name in of_import:
        return f"{IMPORT} FILE {type_flag(of_import[argument.name], argument.value)}"
    return str(argument)


def type_flag(flag: str, value: object) -> str:
    """Return a flag with its value, as a shell takes it.

    Examples
    --------
    >>> type_flag("--sessions", True), type_flag("--interval", ...), type_flag("--interval", "1h")
    ('--sessions', '--interval', '--interval 1h')
    >>> type_flag("--columns", {"time": 0, "open": 1, ...: ...})
    '--columns time=0,open=1,...'
    """
    if value is ... or value is True:
        return flag
    if isinstance(value, Mapping):
        value = ",".join("..." if name is ... else f"{name}={value[name]}" for name in value)
    return f"{flag} {shlex.quote(str(value))}"


def type_span(between: Any) -> str:
    """Return the flags that cut out a span of time.

    Examples
    --------
    >>> type_span(("2021-01-01 08:00", "2022-01-01"))
    '--from 2021-01-01T08:00 --to 2022-01-01'
    """
    if between is ...:
        return " and ".join(SPAN)
    times = (time.replace(" ", "T") for time in between)
    return " ".join(f"{flag} {time}" for flag, time in zip(SPAN, times, strict=True))


# ----------------------------------------------------------------------------------------- places


def type_place(place: Place, line: CommandLine) -> str:
    """Return the flags that were typed for the arguments of a place; the place if none was.

    Examples
    --------
    >>> type_place(Place("between", "for bars.csv"), CommandLine(["run", "--from", "2021"]))
    '--from, for bars.csv'
    """
    given = {word.partition("=")[0] for word in line.words}
    flags = [flag for flag in list_flags(place, line) if flag in given]
    details = () if place in OTHER_FLAGS else place.details
    return ", ".join([*flags, *details]) if flags else str(place)


def list_flags(place: Place, line: CommandLine) -> Iterator[str]:
    """Yield the flags of the arguments of a place."""
    if place in OTHER_FLAGS:
        yield from OTHER_FLAGS[place]
        return
    for name in place.arguments:
        if name in line.flags:
            yield line.flags[name]
        else:
            yield from OTHER_FLAGS.get(name, ())


@contextmanager
def explained(draft: Draft, table: str) -> Iterator[None]:
    """Name the flags or the file that set the arguments in which an error lies.

    Parameters
    ----------
    draft : Draft
        The experiment.
    table : str
        The table that the arguments came from.
    """
    try:
        yield
    except BacktestError as error:
        where = locate(error.where, draft, table)
        raise type(error)(error.problem, where=where, cure=error.cure) from error


def locate(where: Piece, draft: Draft, table: str) -> str:
    """Return a place with the flags or the file that set it; unchanged if nothing did."""
    if isinstance(where, Phrase):
        return Phrase(where.text, *(locate(each, draft, table) for each in where.pieces))
    if not isinstance(where, Place):
        return str(where)
    keys = [key for name in where.arguments for key in TABLE_KEYS.get(name, (name,))]
    if where.arguments and not {*keys} & {*draft.tables.get(table, {})}:
        return where
    source = draft.place(table, (*keys, *where.details))
    is_flag = source.startswith("--")
    rest: Iterable[str] = (
        where.details if is_flag else (" and ".join(where.arguments), *where.details)
    )
    return ": ".join(filter(None, [source, ", ".join(filter(None, rest))]))
