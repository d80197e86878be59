"""The ``backtest`` command: its subcommands, how errors are shown, and exit codes."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import pairwise
from typing import Annotated, Any

import typer
import typer.core

from backtest.base import (
    AccountingError,
    BacktestError,
    did_you_mean,
    find_version,
    recording_command,
)
from backtest.cli import printing
from backtest.cli.lazy_commands import DirectOptions, build_tree
from backtest.cli.printing import (
    FAILED,
    INTERRUPTED,
    REFUSED,
    format_help,
    print_message,
    reserve_stdout,
)

TYPED_NUMBERS = {
    "Input should be a valid number": "a number",
    "Input should be a valid integer": "a whole number",
}


class CommandGroup(DirectOptions, typer.core.TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:  # Typer would print nothing
            print_message("interrupted")
            raise typer.Exit(INTERRUPTED) from error


app = typer.Typer(
    name="backtest",
    cls=CommandGroup,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
EXAMPLES = """
backtest run                                       [dim]# the default policy on the sample[/dim]
backtest run --policy cppi --set multiplier=4 --data btc/
backtest tune --objective sharpe --constraint 'max_drawdown<=0.4'
backtest validate walk-forward --train 180d        [dim]# how does re-tuning do out of sample?[/dim]
backtest risk --policy constant --set leverage=5   [dim]# will it be liquidated?[/dim]
backtest check my_policy.py                        [dim]# does it look ahead?[/dim]
backtest report voltarget                          [dim]# a page to read about a saved result[/dim]
"""


def show_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"backtest {find_version('leverage-backtest')}")
        raise typer.Exit


def backtest(
    version: Annotated[
        bool,
        typer.Option("--version", callback=show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Backtest leverage policies: fees, funding, margin and liquidation at every bar."""


app.callback(help=format_help(backtest, EXAMPLES))(backtest)


def main(arguments: Sequence[str] | None = None) -> int:
    if arguments is None:
        return run_process(sys.argv[1:])
    given = list(arguments) or ["--help"]
    with warnings.catch_warnings():
        warnings.showwarning = make_warning_printer()
        try:
            return call_command(given)
        except BacktestError as error:
            print_message(f"error: {error}")
            return FAILED if isinstance(error, AccountingError) else REFUSED
        except typer.TyperException as error:
            return report_usage_error(error, given)
        except OSError as error:
            return printing.report_system_error(error)
        except (typer.Abort, KeyboardInterrupt):
            print_message("interrupted")
            return INTERRUPTED


def call_command(given: list[str]) -> int:
    printing.check_arguments(given)
    output = reserve_stdout() if "--json" in given else nullcontext()
    with recording_command(["backtest", *given]), output:
        tree = build_tree(app)
        code = tree(args=given, prog_name="backtest", standalone_mode=False, obj=given)
    return code if isinstance(code, int) else printing.DONE


def run_process(arguments: Sequence[str]) -> int:
    try:
        return printing.flush_output(main(arguments))
    except SystemExit:  # typer's, where the reader of the output has left
        printing.flush_output(FAILED)
        raise
    except KeyboardInterrupt:  # between two of these lines
        return INTERRUPTED


def report_usage_error(error: typer.TyperException, given: Sequence[str]) -> int:
    """Print what is wrong with the arguments, and which help to read; return the exit code."""
    context = getattr(error, "ctx", None)
    message = error.format_message()
    name = getattr(error, "option_name", None)
    if name is not None and type(error).__name__ == "NoSuchOption" and context is not None:
        known = [flag for each in context.command.params for flag in each.opts]
        message = f"No such option: {name}" + did_you_mean(str(name), known)
    path = context.command_path if context is not None else "backtest"
    for start, kind in TYPED_NUMBERS.items():
        if getattr(error, "message", "").startswith(start):
            flag = error.param.opts[0]  # type: ignore[attr-defined] # a bad parameter has one
            message = f"{flag} must be {kind}, got {find_typed(flag, given)!r:.60}"
    print_message(f"error: {message.rstrip('.')}; see {path} --help")
    return REFUSED


def find_typed(flag: str, given: Sequence[str]) -> str:
    values = [after for word, after in pairwise(given) if word == flag]
    values += [word.removeprefix(f"{flag}=") for word in given if word.startswith(f"{flag}=")]
    return values[-1] if values else ""


def make_warning_printer() -> Callable[..., None]:
    printed: set[str] = set()

    def show_warning(
        message: Warning | str,
        category: type[Warning],  # noqa: ARG001 - the signature of warnings.showwarning
        filename: str,  # noqa: ARG001
        lineno: int,  # noqa: ARG001
        file: object = None,  # noqa: ARG001
        line: str | None = None,  # noqa: ARG001
    ) -> None:
        if str(message) not in printed:
            print_message(f"warning: {message}")
        printed.add(str(message))

    return show_warning
