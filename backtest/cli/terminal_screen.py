"""The app of ``backtest`` without its commands, and its first screen drawn for a terminal."""

from __future__ import annotations

from typing import Annotated

import typer
import typer.core

from backtest.cli.first_screen import COMMANDS, TEXT, format_version


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


def show_colored() -> None:
    """Print the first screen by the library that draws the help of commands."""
    app = new_app()
    for name, row in COMMANDS.items():
        app.command(name, help=row.sentence, rich_help_panel=row.panel)(lambda: None)
    tree = typer.main.get_command(app)
    tree(args=["--help"], prog_name="backtest", standalone_mode=False)
