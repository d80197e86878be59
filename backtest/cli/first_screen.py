"""The first screen of ``backtest``, and its version, without importing a command."""

from __future__ import annotations

import sys
from typing import Annotated, NamedTuple

import typer
import typer.core

from backtest.core.code_names import find_version


class Row(NamedTuple):
    """A command on the first screen: the module that has it, its first sentence, its panel."""

    module: str
    sentence: str
    panel: str | None = None


COMMANDS = {
    "run": Row("runs", "Run an account through a market under a policy, and summarize the result."),
    "compare": Row(
        "runs",
        "Compare policies on the same market and terms, and test which differences are beyond "
        "noise.",
    ),
    "tune": Row(
        "searches", "Search for good parameters, and estimate the selection bias of the result."
    ),
    "sweep": Row("searches", "Run many sets of parameters on one market, and rank them."),
    "validate": Row("searches", "Test a way of choosing parameters on the data after each choice."),
    "risk": Row(
        "risks",
        "Estimate the probability that the account is liquidated after the end of the data.",
    ),
    "stress": Row(
        "risks",
        "Run an experiment, and show what shocks after the last close would do to its account.",
    ),
    "bounds": Row(
        "risks", "Run an account under both ways of prices inside a bar, and show where they part."
    ),
    "check": Row("policies", "Run the policy checks: above all, that it does not look ahead."),
    "data": Row(
        "data",
        "Fetch, import and inspect market data, in the layout that commands read with --data.",
    ),
    "venues": Row(
        "venues",
        "List the venue presets, with the days of their margin tables and their sources, or show "
        "one.",
    ),
    "liq": Row(
        "venues", "Calculate the margins, liquidation price and bankruptcy price of a position."
    ),
    "options": Row("data", "Inspect chains of quotes of options, and fit surfaces to them."),
    "decide": Row(
        "runs", "Show what a policy decides at the last close, and the order that it leads to."
    ),
    "report": Row(
        "results",
        "Write a report: one file that works offline, with charts, tables and assumptions.",
    ),
    "results": Row("results", "List, show, verify and prune saved results."),
    "regress": Row(
        "regress", "Record the results of experiments, and check that they have not changed."
    ),
    "capacity": Row(
        "risks",
        "Show growth and Sharpe ratio by capital, and the capital at which each is halved.",
        panel="More",
    ),
    "sensitivity": Row(
        "risks",
        "Show how growth changes with one assumption, or one parameter, at a time.",
        panel="More",
    ),
    "timing": Row(
        "searches",
        "Test whether the timing of the leverage earned the result, by shifts of it in time.",
        panel="More",
    ),
    "cascade": Row(
        "risks",
        "Shock a crowd of leveraged accounts at the end of a market, and follow the liquidations.",
        panel="More",
    ),
    "margin": Row(
        "risks",
        "Compare what margin rules tie up, cover and leave, or find the least parameter of one.",
        panel="More",
    ),
    "paths": Row(
        "risks",
        "Simulate possible continuations of the data, and show how far they spread.",
        panel="More",
    ),
    "replay": Row(
        "runs",
        "Simulate an account on fills that were really made, and summarize the result.",
        panel="More",
    ),
    "policies": Row(
        "policies",
        "List the policies: name, one line, and parameters with default, range and unit.",
        panel="More",
    ),
    "compile": Row(
        "compiling",
        "Compile the core for this processor, so that no run waits for the compiler.",
        panel="More",
    ),
    "help": Row(
        "app",
        "List the tables of an experiment, or every key of one, for --set TABLE.KEY=VALUE.",
        panel="More",
    ),
}
"""The commands in the order of the first screen."""
TEXT = """Backtest leverage policies: fees, funding, margin and liquidation at every bar.

\b
[bold]Examples[/bold]
backtest run --policy cppi --set multiplier=4 --data btc/
backtest tune examples/btc-vol-target.toml --constraints 'max_drawdown<=0.4'"""


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


def is_simple(arguments: list[str]) -> bool:
    """Return whether arguments ask for the first screen or the version, of a stream in UTF-8."""
    encoding = str(getattr(sys.stdout, "encoding", None))
    return encoding.lower().startswith("utf") and arguments in (
        [], ["-h"], ["--help"], ["--version"]
    )  # fmt: skip


def show(arguments: list[str]) -> int:
    """Print the first screen, or the version; a command is its first sentence."""
    app = new_app()
    for name, row in COMMANDS.items():
        app.command(name, help=row.sentence, rich_help_panel=row.panel)(lambda: None)
    tree = typer.main.get_command(app)
    tree(args=arguments or ["--help"], prog_name="backtest", standalone_mode=False)
    return 0
