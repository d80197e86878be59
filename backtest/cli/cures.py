"""Render errors for the command line, with flags in place of the Python arguments they name."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import typer

from backtest.base import Argument, BacktestError, Either, Phrase, Piece, Place
from backtest.cli.data_import_command import import_files
from backtest.cli.experiment_draft import Draft
from backtest.cli.experiment_keys import EXPERIMENT_KEYS
from backtest.cli.lazy_commands import build_tree
from backtest.market.tables.repairs import KINDS

IMPORT = "backtest data import"
SPAN = ("--from", "--to")
OTHER_FLAGS = {
    "between": (*SPAN, "--start", "--end"),
    "between, start": ("--from", "--start"),
    "between, end": ("--to", "--end"),
    "constraints": ("--constraint",),
    "instruments": ("--instrument",),
    "probability": ("--find-leverage",),
    "sets": ("--draws",),
    "store": ("--results",),
    "x": ("--map",),
    "y": ("--map",),
}
EXPERIMENT_FLAGS = {key.parameter.rstrip("_"): key.flag for key in EXPERIMENT_KEYS}
TABLE_KEYS = {"sets": ("values", "draws")}


class CommandLine(NamedTuple):
    words: Sequence[str] = ()
    command: str = ""
    flags: Mapping[str, str] = {}


def list_command_flags(command: Any) -> dict[str, str]:
    flags = [each for each in command.params if each.opts[0].startswith("--")]
    return {each.name.rstrip("_"): each.opts[0] for each in flags}


def find_command(app: typer.Typer, words: Sequence[str]) -> CommandLine:
    """Find the command that was typed, and its flags."""
    command = build_tree(app)
    path = ["backtest"]
    for word in words:
        if word not in getattr(command, "commands", {}):
            break
        command = command.commands[word]
        path.append(word)
    return CommandLine(words, " ".join(path), list_command_flags(command))


@cache
def find_import_flags() -> dict[str, str]:
    app = typer.Typer()
    app.command()(import_files)
    return list_command_flags(typer.main.get_command(app))


def render_error(error: BacktestError, line: CommandLine) -> str:
    problem, where = render_text(error.problem, line), render_text(error.where, line)
    return str(BacktestError(problem, where=where, cure=render_text(error.cure, line)))


def render_text(piece: Piece, line: CommandLine) -> str:
    match piece:
        case Phrase():
            return piece.fill(lambda each: render_text(each, line))
        case Either():
            return render_text(piece.typed, line)
        case Argument():
            return render_argument(piece, line)
        case Place():
            return render_place(piece, line)
    return str(piece)


def render_argument(argument: Argument, line: CommandLine) -> str:
    """Return the flag of an argument: of this command, of an experiment or of an import."""
    if line.command == IMPORT and argument.name.replace("_", "-") in KINDS:
        return f"--repair {argument.name.replace('_', '-')}={argument.value}"
    if argument.name == "between":
        return render_span(argument.value)
    if argument.name in OTHER_FLAGS:
        return render_flag(OTHER_FLAGS[argument.name][0], argument.value)
    if argument.name in line.flags:
        return render_flag(line.flags[argument.name], argument.value)
    if argument.name in EXPERIMENT_FLAGS:
        return render_flag(EXPERIMENT_FLAGS[argument.name], argument.value)
    of_import = find_import_flags()
    if argument.name in of_import:
        return f"{IMPORT} FILE {render_flag(of_import[argument.name], argument.value)}"
    return str(argument)


def render_flag(flag: str, value: object) -> str:
    if value is ... or value is True:
        return flag
    if isinstance(value, Mapping):
        value = ",".join("..." if name is ... else f"{name}={value[name]}" for name in value)
    return f"{flag} {shlex.quote(str(value))}"


def render_span(between: Any) -> str:
    if between is ...:
        return " and ".join(SPAN)
    times = (time.replace(" ", "T") for time in between)
    return " ".join(f"{flag} {time}" for flag, time in zip(SPAN, times, strict=True))


def render_place(place: Place, line: CommandLine) -> str:
    given = {word.partition("=")[0] for word in line.words}
    flags = [flag for flag in dict.fromkeys(list_place_flags(place, line)) if flag in given]
    details = () if place in OTHER_FLAGS else place.details
    return ", ".join([*flags, *details]) if flags else str(place)


def list_place_flags(place: Place, line: CommandLine) -> Iterator[str]:
    if place in OTHER_FLAGS:
        yield from OTHER_FLAGS[place]
        return
    for name in place.arguments:
        if name in line.flags:
            yield line.flags[name]
        else:
            yield from OTHER_FLAGS.get(name, ())


@contextmanager
def naming_source(draft: Draft, table: str) -> Iterator[None]:
    """Add to errors raised inside the flags or the file that set the arguments they name.

    ``table`` is the table of the experiment that the arguments came from.
    """
    try:
        yield
    except BacktestError as error:
        where = add_source(error.where, draft, table)
        raise type(error)(error.problem, where=where, cure=error.cure) from error


def add_source(where: Piece, draft: Draft, table: str) -> str:
    """Return a location with the flags or the file that set it; unchanged if nothing did."""
    if isinstance(where, Phrase):
        return Phrase(where.text, *(add_source(each, draft, table) for each in where.pieces))
    if not isinstance(where, Place):
        return str(where)
    keys = [key for name in where.arguments for key in TABLE_KEYS.get(name, (name,))]
    if where.arguments and not {*keys} & {*draft.tables.get(table, {})}:
        return where
    source = draft.locate(table, (*keys, *where.details))
    rest: Iterable[str] = where.details
    if not source.startswith("--"):
        rest = (" and ".join(where.arguments), *where.details)
    return ": ".join(filter(None, [source, ", ".join(filter(None, rest))]))
