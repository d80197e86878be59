"""The ``backtest`` command: its subcommands, its errors, its exit codes.

0: done. 1: a check failed. 2: the user can mend it, and the message says how. 130: Ctrl-C. The
compiler is loaded by the first run, so that help and lists come at once.
"""

from __future__ import annotations

import gc
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
import typer.core

from backtest.base import early_interrupt
from backtest.base.errors import AccountingError, BacktestError, did_you_mean
from backtest.base.provenance import recording_command
from backtest.cli import (
    check_command,
    compare_command,
    data_command,
    liq_command,
    policies_command,
    regress_command,
    report_command,
    results_command,
    serve_command,
    sweep_command,
    tune_command,
    venues_command,
)
from backtest.cli import run_command as run
from backtest.cli.cures import find_command, type_error
from backtest.cli.exit_codes import (
    DONE,
    FAILED,
    INTERRUPTED,
    REFUSED,
    check_arguments,
    explain_system,
    flush_output,
    tell,
)
from backtest.cli.experiment_command import take_experiment
from backtest.cli.experiment_schema import Key
from backtest.cli.printing import format_help
from backtest.engine.compile import background_compiler
from backtest.engine.manifest import find_version


class Group(typer.core.TyperGroup):
    """The commands, which say so where Ctrl-C ends them without a result."""

    def invoke(self, ctx: Any) -> Any:
        """Run what was asked for."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:  # Typer would end in silence
            tell("interrupted")
            raise typer.Exit(INTERRUPTED) from error


app = typer.Typer(
    name="backtest",
    cls=Group,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
EXAMPLES = """
backtest run                   [dim]# the default policy on the sample[/dim]
backtest run --policy cppi --set multiplier=4 --data btc/
backtest run examples/btc-vol-target.toml --json
backtest sweep --vary target=0.1:1:64 --vary half_life=24,72,168
backtest tune --objective sharpe --constraint 'max_drawdown<=0.4'
backtest compare --policy vol-target --policy cppi --equal-risk
backtest check my_policy.py
backtest report voltarget               [dim]# a page to read about a saved result[/dim]
backtest serve                          [dim]# the saved results in the browser[/dim]
backtest results list --sort sharpe     [dim]# what was saved, the best first[/dim]
backtest regress check          [dim]# are results still what they were?[/dim]
"""


def add_experiment(
    command: Callable[..., None],
    examples: str,
    flags: Sequence[Key] = (),
    *,
    takes_several: bool = False,
) -> None:
    """Add a command that takes an experiment, or several."""
    name = command.__name__
    taken = take_experiment(command, f"backtest {name}", flags, takes_several=takes_several)
    app.command(name, help=format_help(command, examples))(taken)


add_experiment(run.run, run.EXAMPLES)
add_experiment(sweep_command.sweep, sweep_command.EXAMPLES, sweep_command.FLAGS)
add_experiment(tune_command.tune, tune_command.EXAMPLES, tune_command.FLAGS)
add_experiment(
    compare_command.compare, compare_command.EXAMPLES, compare_command.FLAGS, takes_several=True
)
app.command(help=format_help(policies_command.policies, policies_command.EXAMPLES))(
    policies_command.policies
)
app.command(help=format_help(liq_command.liq, liq_command.EXAMPLES))(liq_command.liq)
app.add_typer(venues_command.app, name="venues")
app.command(help=format_help(check_command.check, check_command.EXAMPLES))(check_command.check)
app.command(help=format_help(report_command.report, report_command.EXAMPLES))(report_command.report)
app.command(help=format_help(serve_command.serve, serve_command.EXAMPLES))(serve_command.serve)
app.add_typer(data_command.app, name="data")
app.add_typer(regress_command.app, name="regress")
app.add_typer(results_command.app, name="results")


def show_version(is_wanted: bool) -> None:
    """Print the version and stop."""
    if is_wanted:
        typer.echo(f"backtest {find_version('leverage-backtest')}")
        raise typer.Exit


def describe(
    version: Annotated[
        bool,
        typer.Option("--version", callback=show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Backtest leverage policies: fees, funding, margin and liquidation at every bar."""


app.callback(help=format_help(describe, EXAMPLES))(describe)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Parameters
    ----------
    arguments : sequence of str, optional
        Without the program's name; those of the process where it is None.
    """
    if arguments is None:
        return run_process(sys.argv[1:])
    given = list(arguments) or ["--help"]
    with warnings.catch_warnings():
        warnings.showwarning = notify_once()
        try:
            return run_command(given)
        except BacktestError as error:
            tell(f"error: {type_error(error, find_command(app, given))}")
            return FAILED if isinstance(error, AccountingError) else REFUSED
        except typer.TyperException as error:
            return explain_usage(error, given)
        except OSError as error:
            return explain_system(error)
        except (typer.Abort, KeyboardInterrupt):
            tell("interrupted")
            return INTERRUPTED


def run_command(given: list[str]) -> int:
    """Run one command, whose errors are still to be told; return its exit code."""
    check_arguments(given)
    with recording_command(["backtest", *given]):
        code = app(args=given, prog_name="backtest", standalone_mode=False, obj=given)
    return code if isinstance(code, int) else DONE


def run_process(arguments: Sequence[str]) -> int:
    """Run one command as a process of its own, and leave its memory to the end of the process.

    Walking the compiler's objects again and again, and once more at the end, takes a third of the
    time of a short run.
    """
    gc.disable()
    notes: list[str] = []
    background_compiler.BACKGROUND.notify = notes.append
    try:
        early_interrupt.disarm()
        code = flush_output(main(arguments))
    except KeyboardInterrupt:  # between two of these lines
        code = INTERRUPTED
    finally:
        early_interrupt.arm()  # nothing is left to do but to end
        gc.freeze()
    if code == INTERRUPTED:
        background_compiler.end()
    else:
        print_notes(notes)
    return code


def print_notes(notes: Sequence[str]) -> None:
    """Print on stderr what was noted while something ran, dimmed on a terminal."""
    for note in notes:
        typer.secho(f"note: {note}", err=True, dim=True)


def explain_usage(error: typer.TyperException, given: Sequence[str]) -> int:
    """Print what is wrong with the arguments, and where to look; return the exit code."""
    context = getattr(error, "ctx", None)
    message = error.format_message()
    name = getattr(error, "option_name", None)
    if name is not None and type(error).__name__ == "NoSuchOption" and context is not None:
        known = [flag for each in context.command.params for flag in each.opts]
        message = f"No such option: {name}" + did_you_mean(str(name), known)
    path = context.command_path if context is not None else "backtest"
    refusal = BacktestError(message, where=f"backtest {' '.join(given)}", cure=f"see {path} --help")
    tell(f"error: {refusal}")
    return REFUSED


def notify_once() -> Callable[..., None]:
    """Return what prints warnings on stderr, each text as one paragraph and once."""
    told: set[str] = set()

    def show_warning(
        message: Warning | str,
        category: type[Warning],  # noqa: ARG001 - the signature of warnings.showwarning
        filename: str,  # noqa: ARG001
        lineno: int,  # noqa: ARG001
        file: object = None,  # noqa: ARG001
        line: str | None = None,  # noqa: ARG001
    ) -> None:
        if str(message) not in told:
            tell(f"warning: {message}")
        told.add(str(message))

    return show_warning
