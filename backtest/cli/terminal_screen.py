"""The help of commands, drawn from a table of them without importing a command.

``help.json`` has what the commands say of themselves, and is written by ``python -m
tests.help_table``; a test holds what is drawn from it to the bytes of the commands.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from backtest.cli.first_screen import TEXT, format_version

TABLE = Path(__file__).with_name("help.json")
PLAIN = (bool, int, float, str, Path, list[str], list[Path])
OPTIONAL = (
    *(bool | None, int | None, float | None, str | None, Path | None),
    *(list[str] | None, list[Path] | None),
)
TYPES: dict[str, Any] = {str(kind): kind for kind in (*PLAIN, *OPTIONAL)}
"""The types that parameters of commands have, by the names that the table has for them."""


def show_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(format_version())
        raise typer.Exit


def backtest(
    version: Annotated[
        bool,
        typer.Option("--version", callback=show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Take the options of ``backtest`` itself; ``TEXT`` is its help."""


class PlainHelp:
    """What makes the help of a command show no types of Python."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters; arguments show their names alone, and ``--help`` is a switch."""
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            if param.param_type_name == "argument":
                param.display_type_rich = write_nothing
            elif param.metavar is None:
                param.metavar = ""
        return params


class PlainCommand(PlainHelp, typer.core.TyperCommand):
    pass


class PlainGroup(PlainHelp, typer.core.TyperGroup):
    pass


def write_nothing(ctx: Any) -> str:  # noqa: ARG001 - what the library gives
    """Return the type of an argument, as its help shows it: none."""
    return ""


def new_app(group: type[typer.core.TyperGroup] | None = None) -> typer.Typer:
    """Return the app of ``backtest`` without its commands."""
    app = typer.Typer(
        name="backtest",
        cls=group,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(help=TEXT)(backtest)
    return app


@cache
def read_table() -> dict[str, Any]:
    """Return the table of helps: commands by their full names, and their parameters."""
    table: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))
    return table


def is_help(arguments: list[str]) -> bool:
    """Return whether arguments are the full name of a command, and the flag of its help."""
    asks = arguments[-1:] in (["-h"], ["--help"])
    return asks and " ".join(arguments[:-1]) in read_table()["commands"]


def show_help(arguments: list[str]) -> None:
    """Print the help of a command, by the library that parses commands."""
    app = new_app()
    add_command(app, arguments[0])

    # the library is not asked to parse, for which it would load another one
    tree: Any = typer.main.get_command(app)
    context = typer.Context(tree, info_name=tree.name, **tree.context_settings)
    for name in arguments[:-1]:
        tree = tree.commands[name]
        context = typer.Context(tree, info_name=name, parent=context)
    typer.echo(tree.get_help(context))


def add_command(app: typer.Typer, name: str) -> None:
    """Add a command that can show its help, and do nothing else."""
    commands = read_table()["commands"]
    inner = {}
    for full_name, command in commands.items():
        if full_name.startswith(f"{name} "):
            inner[full_name.removeprefix(f"{name} ")] = command
    if not inner:
        declare(app, name, commands[name])
        return

    group = typer.Typer(cls=PlainGroup, add_completion=False, rich_markup_mode="rich")
    group.callback(help=commands[name]["help"])(lambda: None)
    for inner_name, command in inner.items():
        declare(group, inner_name, command)
    app.add_typer(group, name=name)


def declare(app: typer.Typer, name: str, command: dict[str, Any]) -> None:
    """Add a command of the table to an app, or to a group."""
    stub = build_stub(command["parameters"])
    app.command(name, cls=PlainCommand, help=command["help"])(stub)


def build_stub(names: list[str]) -> Callable[..., None]:
    """Return a function with these parameters of the table; only its help is printed."""
    known = read_table()["parameters"]
    parameters = [build_parameter(known[name]) for name in names]

    def stub(**_: Any) -> None:
        raise NotImplementedError

    stub.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    stub.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return stub


def build_parameter(row: dict[str, Any]) -> inspect.Parameter:
    """Return the parameter that a row of the table describes, an argument or an option."""
    make: Any = typer.Argument if row["is_argument"] else typer.Option
    kind = TYPES[row["type"]]
    return inspect.Parameter(
        row["name"],
        inspect.Parameter.KEYWORD_ONLY,
        default=row.get("default", inspect.Parameter.empty),
        annotation=Annotated[kind, make(*row["flags"], **row["about"])],
    )
