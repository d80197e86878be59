"""``backtest tune``: search for good parameters, and estimate how much of the result is luck."""

from __future__ import annotations

import shlex
from typing import Annotated, Any

import typer

import backtest
from backtest.cli.cures import explained
from backtest.cli.draft import Draft, flatten
from backtest.cli.experiment import build_experiment, list_run_arguments
from backtest.cli.experiment_schema import list_flags
from backtest.cli.flags import (
    MEMORY,
    OUTPUT,
    RESULTS,
    AsJson,
    Cluster,
    Memory,
    Results,
    Save,
    Threads,
    check_work,
    option,
)
from backtest.cli.printing import print_json
from backtest.cli.progress import show_search
from backtest.cli.rerun_command_line import write_command
from backtest.cli.typed_values import parse_typed, read_bounds
from backtest.tune import Study
from backtest.tune.study_text import write_summary

NOTHING_FOUND, INTERRUPTED = 1, 130

EXAMPLES = """
backtest tune                  [dim]# 20,000 sets, the last quarter held out[/dim]
backtest tune --objective calmar --constraint 'liquidations==0' --trials 5000
backtest tune --space target=0.1:1 --space half_life=log:10:500 --fix power=1 --seconds 60
backtest tune --objective sharpe --objective max_drawdown
backtest tune examples/btc-vol-target.toml --resume
"""

FLAGS = list_flags("tune")


def tune(
    draft: Draft,
    *,
    threads: Threads = None,
    memory: Memory = MEMORY,
    cluster: Cluster = None,
    resume: Annotated[
        bool, option(OUTPUT, "Resume the study of the same arguments.", "--resume")
    ] = False,
    as_json: AsJson = False,
    save: Save = True,
    results: Results = RESULTS,
) -> None:
    """Search for good parameters, and estimate how much of the result is luck.

    Parameters of the policy may vary, and fields such as account.band and venue.fees.taker. Exit
    code 1 if no set meets the constraints.
    """
    check_work(threads, memory)
    search = read_search(draft)
    experiment = build_experiment(draft, warms=False)
    name = type(experiment.policy).__name__
    with (
        explained(draft, "tune"),
        show_search(name, describe_objective(search["objective"])) as progress,
    ):
        study = backtest.tune(
            experiment.market,
            experiment.policy,
            **experiment.terms,
            **search,
            threads=threads,
            memory=memory,
            cluster=cluster,
            store=results if save else None,
            resume=resume,
            progress=progress,
        )
    if as_json:
        print_json({**study.to_dict(), "command": find_command(study, draft)})
    else:
        print_study(study, draft)
    if not study.complete:
        raise typer.Exit(INTERRUPTED)
    if study.best is None:
        raise typer.Exit(NOTHING_FOUND)


def read_search(draft: Draft) -> dict[str, Any]:
    """Read the table of a search: the arguments of :func:`backtest.tune` that it gives."""
    table = draft.tables.get("tune", {})
    objective = table.get("objective", "sharpe")
    is_single = isinstance(objective, list) and len(objective) == 1
    holdout = {"holdout": read_holdout(table["holdout"])} if "holdout" in table else {}
    return {
        **table,
        **holdout,
        "objective": objective[0] if is_single else objective,
        "space": draft.read_entries("tune", "space", read_bounds) or None,
        "fix": {name: read_fixed(each) for name, each in flatten(table.get("fix", {})).items()},
    }


def read_fixed(given: Any) -> Any:
    """Return a value, parsed if it is a text."""
    return parse_typed(given) if isinstance(given, str) else given


def read_holdout(given: str | float) -> str | float | None:
    """Parse a holdout: a share, a duration, or None.

    Examples
    --------
    >>> read_holdout("25%"), read_holdout("0.25"), read_holdout("none")
    ('25%', 0.25, None)
    """
    value = read_fixed(given)
    is_nothing = value is None or (isinstance(value, int | float) and value == 0)
    return None if is_nothing else value


def describe_objective(objective: Any) -> str:
    """Return the heading of the scores: the name of the first objective."""
    first = objective[0] if isinstance(objective, list) else objective
    return first if isinstance(first, str) else "score"


def find_command(study: Study, draft: Draft) -> str | None:
    """Return the command that runs the best set again; None if there is none."""
    return (
        None if study.best is None else write_command(list_run_arguments(draft), study.best_values)
    )


def print_study(study: Study, draft: Draft) -> None:
    """Print the summary and the commands to go on with."""
    typer.echo(write_summary(study, resume="--resume"))
    command = find_command(study, draft)
    if command is not None:
        typer.echo(f"\nrun the best again, on all of the data:\n{command}")
    if not study.complete and study.folder is not None:
        line = shlex.join(
            ["backtest", *draft.line, *(["--resume"] * ("--resume" not in draft.line))]
        )
        typer.echo(f"\ngo on with the search:\n{line}")
    if study.folder is not None:
        typer.echo(f"\nfull result: {study.folder}")
