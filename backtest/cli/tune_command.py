"""``backtest tune``: search for good parameters, and say how much of the result is luck."""

from __future__ import annotations

import shlex
from functools import partial
from typing import Annotated, Any

import typer

import backtest
from backtest.cli.data_span import find_cut
from backtest.cli.experiment import Draft, build_experiment, draft_experiment
from backtest.cli.flags import (
    MEMORY,
    OUTPUT,
    RESULTS,
    AsJson,
    Cluster,
    Memory,
    Number,
    Option,
    Results,
    Said,
    Save,
    Text,
    Texts,
    Threads,
    Whole,
    check_work,
    entry,
    negate,
    option,
    pairs,
    rank_by,
)
from backtest.cli.printing import print_json
from backtest.cli.progress import show_search
from backtest.cli.rerun_command_line import write_command
from backtest.cli.translate import explained, in_flags
from backtest.cli.typed_values import flatten, read_bounds, read_word
from backtest.tune import Study

SEARCH = "Search"
NOTHING_FOUND, INTERRUPTED = 1, 130

EXAMPLES = """
backtest tune                  [dim]# 20,000 sets, the last quarter held out[/dim]
backtest tune --objective calmar --constraint 'liquidations==0' --trials 5000
backtest tune --space target=0.1:1 --space half_life=log:10:500 --fix power=1 --seconds 60
backtest tune --objective sharpe --objective max_drawdown
backtest tune examples/btc-vol-target.toml --resume
"""

OPTIONS = (
    *rank_by("tune"),
    Option("--trials", Whole, entry("tune", "trials"), SEARCH,
           "The most sets to evaluate (20000)."),
    Option("--seconds", Number, entry("tune", "seconds"), SEARCH, "The most time to search."),
    Option("--sampler", Text, entry("tune", "sampler"), SEARCH,
           "auto (default), de, cmaes, tpe, gp, forest, sobol, random or grid."),
    Option("--space", Texts, pairs("tune", "space"), SEARCH,
           "Vary this only: NAME=0.1:1 or NAME=log:10:500 or NAME=a,b; again for more."),
    Option("--fix", Texts, pairs("tune", "fix"), SEARCH,
           "Keep this: NAME=VALUE; again for more."),
    Option("--no-robust", bool, entry("tune", "robust", negate), SEARCH,
           "Take the highest objective, though its neighbours may be poor."),
    Option("--holdout", Text, entry("tune", "holdout"), SEARCH,
           "The last part, which the search never sees: 25% (default), 90d or none."),
    Option("--seed", Whole, entry("tune", "seed"), SEARCH, "Of all random numbers (0)."),
)  # fmt: skip


def tune(
    said: Said,
    *,
    threads: Threads = None,
    memory: Memory = MEMORY,
    cluster: Cluster = None,
    resume: Annotated[
        bool, option(OUTPUT, "Go on with the study of the same words.", "--resume")
    ] = False,
    as_json: AsJson = False,
    save: Save = True,
    results: Results = RESULTS,
) -> None:
    """Search for good parameters, and say how much of what is found is luck.

    Parameters of the policy may vary, and fields such as account.band and venue.fees.taker. Exit
    code 1 where no set keeps the constraints.
    """
    check_work(threads, memory)
    draft = draft_experiment(said.file, said.flags, said.command)
    wanted = read_wanted(draft)
    given = build_experiment(draft, warms=False)._asdict()
    market, policy = given.pop("market"), given.pop("policy")
    del given["start"]  # the market begins there
    said = said._replace(words=(*said.words, *find_cut(draft)))
    name = type(policy).__name__
    with (
        explained(draft, "tune"),
        show_search(name, describe_objective(wanted["objective"])) as progress,
    ):
        study = backtest.tune(
            market,
            policy,
            **given,
            **wanted,
            threads=threads,
            memory=memory,
            cluster=cluster,
            store=results if save else None,
            resume=resume,
            progress=progress,
        )
    if as_json:
        print_json({**study.to_dict(), "command": find_command(study, said)})
    else:
        print_study(study, said)
    if not study.complete:
        raise typer.Exit(INTERRUPTED)
    if study.best is None:
        raise typer.Exit(NOTHING_FOUND)


def read_wanted(draft: Draft) -> dict[str, Any]:
    """Return what the tables ask for: arguments of :func:`backtest.tune`."""
    table, place = draft.tables.get("tune", {}), partial(draft.place_entry, "tune")
    space, fix = flatten(table.get("space", {})), flatten(table.get("fix", {}))
    objective = table.get("objective", "sharpe")
    is_single = isinstance(objective, list) and len(objective) == 1
    return {
        "objective": objective[0] if is_single else objective,
        "constraints": table.get("constraints", {}),
        "trials": table.get("trials"),
        "seconds": table.get("seconds"),
        "sampler": table.get("sampler", "auto"),
        "space": {name: read_bounds(each, where=place(name)) for name, each in space.items()}
        or None,
        "fix": {name: read_fixed(each) for name, each in fix.items()},
        "robust": table.get("robust", True),
        "holdout": read_holdout(table.get("holdout", "25%")),
        "seed": table.get("seed", 0),
    }


def read_fixed(given: Any) -> Any:
    """Return a value; a text as the number it stands for."""
    return read_word(given) if isinstance(given, str) else given


def read_holdout(given: str | float) -> str | float | None:
    """Return a share, a duration, or None.

    Examples
    --------
    >>> read_holdout("25%"), read_holdout("0.25"), read_holdout("none")
    ('25%', 0.25, None)
    """
    value = read_fixed(given)
    is_nothing = value is None or (isinstance(value, int | float) and value == 0)
    return None if is_nothing else value


def describe_objective(objective: Any) -> str:
    """Return the heading of the scores: the first objective."""
    first = objective[0] if isinstance(objective, list) else objective
    return first if isinstance(first, str) else "score"


def find_command(study: Study, said: Said) -> str | None:
    """Return the line that runs the best set again; None where there is none."""
    return None if study.best is None else write_command(said.words, study.best_values)


def print_study(study: Study, said: Said) -> None:
    """Print what was found, how much of it is luck, and how to go on."""
    typer.echo(in_flags(study.summary()))
    command = find_command(study, said)
    if command is not None:
        typer.echo(f"\nrun the best again, on all of the data:\n{command}")
    if not study.complete and study.folder is not None:
        line = shlex.join(["backtest", *said.line, *(["--resume"] * ("--resume" not in said.line))])
        typer.echo(f"\ngo on with the search:\n{line}")
    if study.folder is not None:
        typer.echo(f"\nfull result: {study.folder}")
